//! What may not go while something that is wanted lives by it: a Namespace, the definition of a kind. PURE.
//!
//! The revision would be accepted and then hang: what it wants goes with what it drops, and cannot be made again.

use super::desired::DesiredSet;
use super::refusal::Refusal;
use super::render::Desired;
use crate::model::custom::CustomResourceDefinition;
use crate::model::{Key, Kind, Object};
use crate::store::snapshot::Snapshot;

/// Why an object that the revision no longer has may not go.
pub(super) fn goes_wrongly<'w>(state: &Snapshot, wanted: &'w DesiredSet, pruned: &Object) -> Option<(&'w Desired, &'static str, Refusal)> {
    let (code, path, lives_by) = needs(state, pruned)?;
    let mut all = wanted.values().filter(|wanted| lives_by.is_of(wanted.object.key()));
    let first: &Desired = all.next()?;
    let others = match all.count() {
        0 => String::new(),
        1 => " (and so does 1 more object)".to_owned(),
        count => format!(" (and so do {count} more objects)"),
    };
    let message = format!("{} needs {}, which the source no longer has{others}", first.object.key(), pruned.key());
    Some((first, code, Refusal::new(path, message)))
}

/// What cannot be without an object.
enum LivesBy {
    /// Everything in it.
    Namespace(String),
    /// Every object of it.
    Kind(Kind),
}

impl LivesBy {
    fn is_of(&self, key: &Key) -> bool {
        match self {
            Self::Namespace(name) => key.namespace == *name,
            Self::Kind(kind) => key.kind == *kind,
        }
    }
}

/// A code, the field by which others need it, and which those are.
fn needs(state: &Snapshot, object: &Object) -> Option<(&'static str, &'static str, LivesBy)> {
    if object.kind() == Kind::Namespace {
        return Some(("NamespaceGoes", "metadata.namespace", LivesBy::Namespace(object.key().name.clone())));
    }
    let spec = &object.get::<CustomResourceDefinition>()?.spec;
    let defined = state.definitions().get_named(&spec.group, &spec.names.plural)?;
    Some(("KindGoes", "kind", LivesBy::Kind(defined.storage().kind)))
}
