//! Garbage: objects whose owners are gone go too; owners deleted in the foreground wait for them.

pub mod plan;

use plan::Standing;

use crate::model::custom::CustomResourceDefinition;
use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Heeds, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct Garbage;

impl Controller for Garbage {
    fn name(&self) -> &'static str {
        "garbage"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        if !plan::is_collected(object.kind()) {
            return Vec::new();
        }
        let mut keys = Vec::new();
        // Where its kind is there, or has another name, those who have owners of it can be judged.
        if let Some(definition) = object.get::<CustomResourceDefinition>() {
            keys.extend(state.iter().filter(|it| plan::has_owner_of(it, definition)).map(|it| it.key().clone()));
        }
        let current = state.get(object.key()).filter(|current| current.uid() == object.uid());
        if current.is_none_or(Object::is_deleting) && !object.uid().is_empty() {
            keys.extend(state.owned_by(object.uid()).map(|dependent| dependent.key().clone()));
        }
        // What is on its way out is looked at for its finalizers, also when it has just lost them.
        let is_held = |object: &Object| [plan::ORPHAN, plan::FOREGROUND].iter().any(|finalizer| object.has_finalizer(finalizer));
        let is_asked = |current: &Object| !current.is_deleting() || is_held(current) || is_held(object);
        let current = current.filter(|current| is_asked(current));
        let mut concerned = current.is_some_and(Object::is_deleting);
        for owner in object.meta().owner_references.iter().flatten() {
            match plan::standing(state, object, owner) {
                // An owner that is deleted later says so itself.
                Standing::Solid => continue,
                // A dependent's end may be what its owner waits for.
                Standing::Deleting(owner) | Standing::Waiting(owner) => keys.push(owner.key().clone()),
                Standing::Gone => {}
            }
            concerned |= current.is_some();
        }
        if concerned {
            keys.push(object.key().clone());
        }
        keys
    }

    fn heeds(&self, _state: &Snapshot, before: &Object, after: &Object) -> Heeds {
        // Who owns it, what holds it and whether it is on its way out is all that anybody's end depends on.
        let (old, new) = (before.meta(), after.meta());
        let same = old.uid == new.uid && old.owner_references == new.owner_references && old.finalizers == new.finalizers;
        match (same, before.is_deleting() == after.is_deleting()) {
            (true, true) if after.kind() == Kind::CustomResourceDefinition => Heeds::After,
            (true, true) => Heeds::Nothing,
            (true, false) => Heeds::After,
            (false, _) => Heeds::Both,
        }
    }

    fn plan(&self, state: &Snapshot, key: &Key, _now: Timestamp) -> Plan {
        state.get(key).map(|object| plan::plan(state, object)).unwrap_or_default()
    }
}
