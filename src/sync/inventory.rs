//! What a source holds: the objects it created or adopted, by key. PURE.

use std::sync::Arc;

use imbl::OrdMap;

use super::walk;
use crate::model::custom::Definitions;
use crate::model::{InventoryEntry, Key, Kind, Object, Source};

/// The entries of a source by the key of their object. Entries of kinds this binary does not serve
/// (an older one) are kept aside: nobody may forget them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    pub entries: OrdMap<Key, Arc<InventoryEntry>>,
    pub unknown: Vec<Arc<InventoryEntry>>,
}

impl Inventory {
    pub fn of(source: &Source, served: &Definitions) -> Self {
        let mut inventory = Self::default();
        for entry in source.status.iter().flat_map(|status| &status.inventory) {
            match key_of(entry, served) {
                Some(key) => {
                    inventory.entries.insert(key, entry.clone());
                }
                None => inventory.unknown.push(entry.clone()),
            }
        }
        inventory
    }

    pub fn to_entries(&self) -> Vec<Arc<InventoryEntry>> {
        self.entries.values().chain(&self.unknown).cloned().collect()
    }

    /// The live object of an entry: one of another UID is not it.
    pub fn is_of(entry: &InventoryEntry, live: &Object) -> bool {
        !entry.uid.is_empty() && entry.uid == live.uid()
    }
}

/// The keys of what is not the same in both.
pub(super) fn differing<'a>(one: &'a Arc<Inventory>, other: &'a Arc<Inventory>) -> Vec<&'a Key> {
    // An inventory in which nothing changed is handed on as it is.
    if Arc::ptr_eq(one, other) {
        return Vec::new();
    }
    walk::differing(one.entries.iter(), other.entries.iter(), PartialEq::eq)
}

/// The key an entry speaks of; of a kind that is served no more, the one it had.
pub fn key_of(entry: &InventoryEntry, served: &Definitions) -> Option<Key> {
    let kind = served.of_any_version(&entry.api_version, &entry.kind).or_else(|| Kind::known(&entry.api_version, &entry.kind))?;
    Some(Key::new(kind, entry.namespace.clone(), entry.name.clone()))
}

/// An entry for an object.
pub fn entry(key: &Key, uid: &str, created: bool, file: &str, keep: bool) -> InventoryEntry {
    InventoryEntry {
        api_version: key.kind.api_version(),
        kind: key.kind.name().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid: uid.to_owned(),
        created,
        file: file.to_owned(),
        keep,
        ..InventoryEntry::default()
    }
}
