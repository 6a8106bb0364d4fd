//! Node health: a node whose Lease is not renewed is tainted, and in time its replaceable pods
//! are given up; when most nodes fall silent at once, it is not they who are ill.
//!
//! - Silent for the grace period (40 s): Ready is Unknown, tainted `unreachable`, out of Services.
//! - 300 s after the taint (or as long as a pod tolerates it): pods of ReplicaSets and Jobs are
//!   deleted and replaced. Kubernetes writes that default into every pod as two tolerations; here it
//!   is this controller's setting, `eviction-seconds`, and pods stay as their manifests say.
//! - Says itself that it is not ready: gets nothing new and keeps what it has. Its agent is there
//!   and still looks after its pods.
//! - Tainted with `NoExecute` by anybody else: pods that do not tolerate it go at once, others when their time is over.
//! - Tainted `out-of-service` by a person while it is down: everything on it is deleted by force.

mod evict;
pub mod plan;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;

use crate::model::{Key, Kind, Object, Timestamp, pod};
use crate::plan::{Controller, Heeds, Plan};
use crate::store::snapshot::Snapshot;

/// Where agents keep their Leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// See the module. The server stamps `spec.renewTime` with its own steady clock on receipt, so neither a node's
/// clock matters nor that somebody sets the server's. The times of the taints are steady ones too.
#[derive(Debug, Clone, Copy)]
pub struct NodeHealth {
    pub settings: plan::Settings,
}

impl Controller for NodeHealth {
    fn name(&self) -> &'static str {
        "node-health"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        match object.kind() {
            Kind::Node => vec![object.key().clone()],
            // A healthy node's renewal changes nothing: its timer finds the newer time by itself.
            Kind::Lease => {
                let node = state.find(Kind::Node, "", &object.key().name);
                node.filter(|node| object.key().namespace == LEASE_NAMESPACE && plan::is_marked(node))
                    .map(|node| node.key().clone())
                    .into_iter()
                    .collect()
            }
            Kind::Pod => {
                let node = object.get().and_then(pod::node_name).and_then(|name| state.find(Kind::Node, "", name));
                node.filter(|node| plan::is_marked(node)).map(|node| node.key().clone()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn heeds(&self, _state: &Snapshot, before: &Object, after: &Object) -> Heeds {
        match (before.get(), after.get()) {
            (Some(was), Some(is)) if pod::node_name(was) != pod::node_name(is) => Heeds::Both,
            _ => Heeds::After,
        }
    }

    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan {
        let Some(node) = state.get(key).filter(|node| node.get::<Node>().is_some()) else { return Plan::default() };
        let heard = |node: &Object| plan::heard(renewed(state, &node.key().name), node, &self.settings, now);
        let silent = |node: &&Object| plan::is_silent(heard(node), &self.settings, now);
        let fell_silent = silent(&node);
        let nodes = || state.list(Kind::Node);
        let most_silent = fell_silent && plan::is_most(nodes().filter(silent).count(), nodes().count());
        let pods = if plan::is_marked(node) || fell_silent { state.pods_on(&key.name).cloned().collect() } else { Vec::new() };
        plan::plan(&plan::Observed { node, received_at: heard(node), most_silent, pods }, &self.settings, now)
    }

    fn is_steady(&self) -> bool {
        true
    }
}

/// When the node last renewed its Lease.
fn renewed(state: &Snapshot, node: &str) -> Option<Timestamp> {
    let lease = state.find(Kind::Lease, LEASE_NAMESPACE, node)?.get::<Lease>()?;
    lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
}
