//! Secrets of type `kubernetes.io/service-account-token`: all that they hold but the token, which takes the server's key
//! (`server::accounts::mint`), and their end, which comes with the account's. So a preview knows them, too.

pub mod plan;

use crate::model::{Key, Kind, Object, ROOT_CA, SYSTEM_NAMESPACE, Timestamp};
use crate::plan::{Controller, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct TokenSecrets;

impl Controller for TokenSecrets {
    fn name(&self) -> &'static str {
        "token-secret"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        let key = object.key();
        let keys = |found: Vec<&Object>| found.into_iter().map(|secret| secret.key().clone()).collect();
        match key.kind {
            Kind::Secret if plan::is_token(object) => vec![key.clone()],
            Kind::ServiceAccount => keys(plan::named_by(state, key).collect()),
            Kind::ConfigMap if key.namespace == SYSTEM_NAMESPACE && key.name == ROOT_CA => {
                keys(state.list(Kind::Secret).filter(|secret| plan::is_token(secret)).collect())
            }
            _ => Vec::new(),
        }
    }

    fn plan(&self, state: &Snapshot, key: &Key, _now: Timestamp) -> Plan {
        state.get(key).map(|secret| plan::plan(secret, state)).unwrap_or_default()
    }
}
