//! The scheduler: a node for each pod that has none.
//!
//! - `table` (pure): the nodes with what they offer and what is used of it
//! - `filter` (pure): why a node cannot take a pod
//! - `score` (pure): which of the nodes that can is best
//! - `plan`: all pending pods at once, in order

pub mod filter;
pub mod plan;
pub mod score;
pub mod table;

use k8s_openapi::api::core::v1::Pod;

use crate::model::{Key, Kind, Object, Timestamp, pod};
use crate::plan::{Controller, Plan};
use crate::store::snapshot::Snapshot;

/// See the module. It has one key: all pending pods are one decision.
#[derive(Debug, Default, Clone, Copy)]
pub struct Scheduler;

impl Scheduler {
    pub fn new() -> Self {
        Self
    }
}

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        let concerned = match object.kind() {
            Kind::Node => state.unbound_pods().next().is_some(),
            Kind::Pod => match object.get::<Pod>() {
                Some(pod) if pod::node_name(pod).is_none() => plan::is_pending(pod),
                // Room was freed.
                Some(pod) => state.unbound_pods().next().is_some() && (pod::is_terminal(pod) || state.get(object.key()).is_none()),
                None => false,
            },
            _ => false,
        };
        concerned.then(|| Key::every(Kind::Pod)).into_iter().collect()
    }

    fn plan(&self, state: &Snapshot, _key: &Key, now: Timestamp) -> Plan {
        let pending: Vec<Object> =
            state.unbound_pods().filter(|object| object.get::<Pod>().is_some_and(plan::is_pending)).cloned().collect();
        if pending.is_empty() {
            return Plan::default();
        }
        let nodes: Vec<(Object, Vec<Object>)> =
            state.list(Kind::Node).map(|node| (node.clone(), state.pods_on(&node.key().name).cloned().collect())).collect();
        plan::plan(&plan::Observed { nodes, pending }, now)
    }
}
