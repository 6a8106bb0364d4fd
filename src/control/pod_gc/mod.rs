//! Pod garbage: pods of nodes that are gone, and finished pods beyond a bound.

pub mod plan;

use k8s_openapi::api::core::v1::Pod;

use crate::model::{Key, Kind, Object, Timestamp, pod};
use crate::plan::{Controller, Heeds, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct PodGarbage {
    /// Finished pods kept.
    pub finished: usize,
}

impl Controller for PodGarbage {
    fn name(&self) -> &'static str {
        "pod-garbage"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        let concerned = match object.kind() {
            Kind::Node => state.get(object.key()).is_none(),
            Kind::Pod => object.get::<Pod>().is_some_and(|it| {
                let homeless = pod::node_name(it).is_some_and(|node| state.find(Kind::Node, "", node).is_none());
                pod::is_terminal(it) || homeless
            }),
            _ => false,
        };
        concerned.then(|| Key::every(Kind::Pod)).into_iter().collect()
    }

    fn heeds(&self, _state: &Snapshot, before: &Object, after: &Object) -> Heeds {
        match (before.get(), after.get()) {
            (Some(was), Some(is)) if pod::node_name(was) == pod::node_name(is) && pod::is_terminal(was) == pod::is_terminal(is) => {
                Heeds::Nothing
            }
            _ => Heeds::Both,
        }
    }

    fn plan(&self, state: &Snapshot, _key: &Key, now: Timestamp) -> Plan {
        let has_node = |name: &str| state.find(Kind::Node, "", name).is_some();
        let mut seen = plan::Observed { homeless: Vec::new(), finished: Vec::new(), keep: self.finished };
        for object in state.list(Kind::Pod) {
            let Some(pod) = object.get::<Pod>() else { continue };
            if pod::node_name(pod).is_some_and(|node| !has_node(node)) {
                seen.homeless.push(object.clone());
            } else if pod::is_terminal(pod) && !pod::is_deleting(pod) {
                seen.finished.push(object.clone());
            }
        }
        plan::plan(&seen, now)
    }
}
