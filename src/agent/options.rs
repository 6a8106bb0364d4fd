//! What the agent is told at its start. PURE.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use super::image_plan::Policy;
use crate::network::Range;

/// Everything host-global is here, so that several agents fit on one machine.
#[derive(Clone, Debug)]
pub struct Options {
    pub node_name: String,
    /// `InternalIP`s, the first one is the node's for routes and probes.
    pub node_addresses: Vec<IpAddr>,
    /// The host's name (`Hostname` address and `kubernetes.io/hostname`); empty: the node's name.
    pub hostname: String,
    pub data_dir: PathBuf,
    /// Where the node API listens; the server finds it through `Node.status.daemonEndpoints`.
    pub node_api_port: u16,
    /// Servers of the cluster's DNS; none: pods get the host's resolv.conf.
    pub cluster_dns: Vec<String>,
    pub cluster_domain: String,
    /// The host's resolv.conf.
    pub resolv_conf: PathBuf,
    /// Where a resolver on the host's loopback keeps the servers it asks itself.
    pub resolver_conf: PathBuf,
    pub labels: BTreeMap<String, String>,
    /// Set when the Node is first created.
    pub taints: Vec<Taint>,
    pub max_pods: u32,
    /// Replaces what was measured: `cpu: "4"`, `memory: 8Gi`.
    pub capacity: BTreeMap<String, String>,
    /// Held back from pods: allocatable is capacity less this.
    pub reserved: BTreeMap<String, String>,
    pub lease_interval: Duration,
    pub lease_duration: Duration,
    /// How often everything is looked at though nothing was heard.
    pub resync_interval: Duration,
    /// How old a mounted ConfigMap or Secret may be.
    pub refresh_interval: Duration,
    /// Images pulled at once.
    pub parallel_pulls: usize,
    /// When unused images are removed, and how often that is looked at.
    pub image_gc: Policy,
    pub image_gc_interval: Duration,
    /// How long new pods wait at the start for the server's word and the network before the last known
    /// state is acted on.
    pub start_grace: Duration,
    /// How long beyond its grace a pod that the server no longer has may keep others from starting.
    pub lost_hold: Duration,
    /// How often the count of one event is written at most.
    pub event_interval: Duration,
    /// How often a long pull says how far it is.
    pub pull_progress_interval: Duration,
    /// Whose server this is a node of.
    pub server: Server,
}

/// What a server is beside Kubernetes' API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Podbay's: it says the cluster's ranges, and gives out volumes that agents make.
    Podbay,
    /// Somebody else's, which does neither: the ranges are told here.
    Kubernetes(Ranges),
}

/// The addresses of a cluster's pods and Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    pub pods: Range,
    pub services: Range,
}

impl Options {
    /// The defaults for a node.
    pub fn new(node_name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            node_addresses: Vec::new(),
            hostname: String::new(),
            data_dir: data_dir.into(),
            node_api_port: 10250,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: "/etc/resolv.conf".into(),
            resolver_conf: "/run/systemd/resolve/resolv.conf".into(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            max_pods: 110,
            capacity: BTreeMap::new(),
            reserved: BTreeMap::new(),
            lease_interval: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            resync_interval: Duration::from_secs(60),
            refresh_interval: Duration::from_secs(45),
            parallel_pulls: 4,
            image_gc: Policy::default(),
            image_gc_interval: Duration::from_secs(300),
            start_grace: Duration::from_secs(10),
            lost_hold: Duration::from_secs(60),
            event_interval: Duration::from_secs(30),
            pull_progress_interval: Duration::from_secs(30),
            server: Server::Podbay,
        }
    }

    /// `kubernetes.io/hostname`.
    pub fn hostname(&self) -> &str {
        if self.hostname.is_empty() { &self.node_name } else { &self.hostname }
    }
}
