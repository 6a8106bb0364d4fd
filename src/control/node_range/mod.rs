//! Node ranges: every node gets a pod range of its own.

pub mod plan;

use k8s_openapi::api::core::v1::{ConfigMap, Node};

use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct NodeRanges;

/// The cluster-wide settings.
fn settings_key() -> Key {
    Key::new(Kind::ConfigMap, "kube-system", "podbay-cluster")
}

impl Controller for NodeRanges {
    fn name(&self) -> &'static str {
        "node-range"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        let lacks = |node: &Object| node.get::<Node>().is_some_and(|node| plan::range(node).is_none());
        let concerned = match object.kind() {
            Kind::Node => state.get(object.key()).is_none_or(lacks),
            Kind::ConfigMap => *object.key() == settings_key(),
            _ => false,
        };
        concerned.then(|| Key::every(Kind::Node)).into_iter().collect()
    }

    fn plan(&self, state: &Snapshot, _key: &Key, _now: Timestamp) -> Plan {
        let settings = state.get(&settings_key()).and_then(|object| object.get::<ConfigMap>());
        let value = |name: &str| settings.and_then(|settings| settings.data.as_ref()?.get(name)).map(String::as_str);
        let seen = plan::Observed {
            pods: value("podRange").unwrap_or(plan::DEFAULT_RANGE),
            prefix: value("nodePrefix").unwrap_or(plan::DEFAULT_PREFIX),
            nodes: state.list(Kind::Node).cloned().collect(),
        };
        plan::plan(&seen)
    }
}
