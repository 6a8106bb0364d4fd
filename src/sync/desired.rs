//! The objects a revision wants, by key. PURE.

use std::sync::Arc;

use super::render::Desired;
use crate::model::Key;

/// A sorted list: a revision is read whole and compared with the one before far more often than
/// one object of it is looked up.
#[derive(Clone, Debug, Default)]
pub struct DesiredSet(Vec<Arc<Desired>>);

impl DesiredSet {
    /// Of objects with the same key, the first.
    pub fn new(mut objects: Vec<Arc<Desired>>) -> Self {
        objects.sort_by(|a, b| a.object.key().cmp(b.object.key()));
        objects.dedup_by(|a, b| a.object.key() == b.object.key());
        Self(objects)
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Desired>> {
        let at = self.0.binary_search_by(|one| one.object.key().cmp(key)).ok()?;
        self.0.get(at)
    }

    pub fn contains(&self, key: &Key) -> bool {
        self.get(key).is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<Desired>)> {
        self.0.iter().map(|one| (one.object.key(), one))
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(|one| one.object.key())
    }

    pub fn values(&self) -> std::slice::Iter<'_, Arc<Desired>> {
        self.0.iter()
    }

    pub fn as_slice(&self) -> &[Arc<Desired>] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
