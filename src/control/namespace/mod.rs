//! Namespace: empties one that is being deleted, then lets it go.

pub mod plan;

use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Heeds, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct Namespaces;

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        if object.kind() == Kind::Namespace {
            return vec![object.key().clone()];
        }
        let home = state.find(Kind::Namespace, "", &object.key().namespace);
        home.filter(|namespace| namespace.is_deleting()).map(|namespace| namespace.key().clone()).into_iter().collect()
    }

    fn heeds(&self, _state: &Snapshot, before: &Object, after: &Object) -> Heeds {
        // It counts what is there, and says what holds it.
        let is_heeded = after.kind() == Kind::Namespace || before.meta().finalizers != after.meta().finalizers;
        if is_heeded { Heeds::After } else { Heeds::Nothing }
    }

    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan {
        match state.get(key) {
            Some(namespace) if namespace.is_deleting() => {
                let kinds = state.definitions().kinds().filter(|kind| kind.info().namespaced);
                let content = kinds.flat_map(|kind| state.list_in(kind, &key.name)).cloned().collect();
                plan::plan(&plan::Observed { namespace, content }, now)
            }
            _ => Plan::default(),
        }
    }
}
