//! ClusterRoles with an `aggregationRule`: their rules are those of the roles it selects.

pub mod plan;

use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct ClusterRoles;

impl Controller for ClusterRoles {
    fn name(&self) -> &'static str {
        "cluster-role"
    }

    /// Any role may be one that any other gathers.
    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        if object.kind() != Kind::ClusterRole {
            return Vec::new();
        }
        state.list(Kind::ClusterRole).filter(|role| plan::gathers(role)).map(|role| role.key().clone()).collect()
    }

    fn plan(&self, state: &Snapshot, key: &Key, _now: Timestamp) -> Plan {
        state.get(key).map(|role| plan::plan(role, state.list(Kind::ClusterRole))).unwrap_or_default()
    }
}
