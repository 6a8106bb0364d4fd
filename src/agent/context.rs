//! What every part of the agent shares: the seams, the options, the gate before new pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::core::v1::{ConfigMap, Node as ApiNode, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use tokio::sync::{Semaphore, watch};

use super::Options;
use super::config::Layout;
use super::dns::NodeDns;
use super::events::Recorder;
use super::references::Fetcher;
use super::resources::Machine;
use super::room::Room;
use super::storage::Registry;
use crate::clock::Clock;
use crate::cri::{Images, Runtime};
use crate::model::volume::PersistentVolume;
use crate::network::NodeNetwork;

/// Shared by every task of one agent.
pub struct Context {
    pub client: Client,
    pub runtime: Arc<dyn Runtime>,
    pub images: Arc<dyn Images>,
    pub network: Arc<dyn NodeNetwork>,
    pub clock: Arc<dyn Clock>,
    pub options: Options,
    pub layout: Layout,
    pub machine: Machine,
    pub references: Fetcher,
    pub events: Recorder,
    pub cluster: Cluster,
    pub gate: Gate,
    pub storage: Registry,
    pub room: Room,
    pub pulls: Semaphore,
}

impl Context {
    /// The node's addresses as text.
    pub fn host_ips(&self) -> Vec<String> {
        self.options.node_addresses.iter().map(ToString::to_string).collect()
    }

    /// What this node offers to pods, once it is known.
    pub fn allocatable(&self) -> Option<BTreeMap<String, Quantity>> {
        let own = |node: &&ApiNode| self.is_own(node);
        self.cluster.read(|view| view.nodes.iter().find(own)?.status.as_ref()?.allocatable.clone())
    }

    fn is_own(&self, node: &ApiNode) -> bool {
        node.metadata.name.as_deref() == Some(self.options.node_name.as_str())
    }

    /// What the server says this node is, once it has said so.
    pub fn node(&self) -> Option<ObjectMeta> {
        let own = |node: &&ApiNode| self.is_own(node);
        self.cluster.read(|view| view.nodes.iter().find(own).map(|node| node.metadata.clone()))
    }

    /// What the node offers pods as DNS, as it is now.
    pub fn dns(&self) -> NodeDns {
        node_dns(&self.options)
    }
}

/// Read anew each time: a host gets other servers while it runs.
pub fn node_dns(options: &Options) -> NodeDns {
    let read = |path: &std::path::Path| std::fs::read_to_string(path).ok();
    let host = read(&options.resolv_conf).unwrap_or_default();
    NodeDns::new(&options.cluster_dns, &options.cluster_domain, &host, read(&options.resolver_conf).as_deref())
}

/// The cluster's objects as far as the agent follows them.
#[derive(Default)]
pub struct Cluster(RwLock<View>);

/// One look at them.
#[derive(Clone, Default)]
pub struct View {
    pub nodes: Vec<ApiNode>,
    pub services: Vec<Service>,
    pub slices: Vec<EndpointSlice>,
    pub settings: Option<ConfigMap>,
    /// Those that are directories of this node.
    pub volumes: Vec<PersistentVolume>,
}

impl Cluster {
    pub fn read<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn change(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What new pods wait for: the server's word on which pods are lost, the Services, the network.
pub struct Gate(watch::Sender<Waiting>);

/// What is still open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub pods: bool,
    pub services: bool,
    pub network: bool,
    /// UIDs that the server no longer has and that are still being stopped.
    pub lost: BTreeSet<String>,
}

impl Waiting {
    /// Whether this pod has to wait.
    pub fn holds(&self, uid: &str) -> bool {
        self.pods || self.services || self.network || self.holds_for_lost(uid)
    }

    /// Whether it waits for pods that the server no longer has.
    pub fn holds_for_lost(&self, uid: &str) -> bool {
        self.lost.iter().any(|lost| lost != uid)
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(Waiting { pods: true, services: true, network: true, lost: BTreeSet::new() }))
    }
}

impl Gate {
    pub fn subscribe(&self) -> watch::Receiver<Waiting> {
        self.0.subscribe()
    }

    /// Changes what is waited for; wakes those who wait when that is a change.
    pub fn change(&self, change: impl FnOnce(&mut Waiting)) {
        self.0.send_if_modified(|waiting| {
            let before = waiting.clone();
            change(waiting);
            *waiting != before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_resolv_conf_is_seen_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new("n", dir.path());
        options.resolv_conf = dir.path().join("resolv.conf");
        options.resolver_conf = dir.path().join("resolver.conf");
        let servers = |text: &str| {
            std::fs::write(&options.resolv_conf, text).unwrap();
            node_dns(&options).upstream.servers
        };
        assert_eq!(servers("nameserver 192.0.2.1\n"), ["192.0.2.1"]);
        assert_eq!(servers("nameserver 192.0.2.2\n"), ["192.0.2.2"]);
        std::fs::write(&options.resolver_conf, "nameserver 192.0.2.3\n").unwrap();
        assert_eq!(servers("nameserver 127.0.0.53\n"), ["192.0.2.3"]);
    }
}
