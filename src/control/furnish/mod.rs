//! What every namespace has: the ServiceAccount `default`, and the certificate by which its pods know the API.

pub mod plan;

use crate::model::{DEFAULT_ACCOUNT, Key, Kind, Object, ROOT_CA, SYSTEM_NAMESPACE, Timestamp};
use crate::plan::{Controller, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct Furnish;

impl Controller for Furnish {
    fn name(&self) -> &'static str {
        "furnish"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        let key = object.key();
        match (key.kind, key.name.as_str()) {
            (Kind::Namespace, _) => vec![key.clone()],
            (Kind::ConfigMap, ROOT_CA) if key.namespace == SYSTEM_NAMESPACE => {
                state.list(Kind::Namespace).map(|namespace| namespace.key().clone()).collect()
            }
            (Kind::ServiceAccount, DEFAULT_ACCOUNT) | (Kind::ConfigMap, ROOT_CA) => vec![Key::cluster(Kind::Namespace, &key.namespace)],
            _ => Vec::new(),
        }
    }

    fn plan(&self, state: &Snapshot, key: &Key, _now: Timestamp) -> Plan {
        state.get(key).map(|namespace| plan::plan(namespace, state)).unwrap_or_default()
    }
}
