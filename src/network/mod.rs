//! Addresses, links, routes and Services of one node. SEAM.
//!
//! Two faces: `PodNetwork` gives a sandbox its interface (the runtime uses it, as it would CNI);
//! `NodeNetwork` makes the host look as wanted (the agent uses it, as kube-proxy and a CNI daemon
//! would).
//!
//! - `plan`: names, addresses, routes and rules, and the steps to them (pure)
//! - `flows`, `firewall`: UDP flows that lead nowhere, rules of others that stop pods (pure)
//! - `linux`: the kernel's network, by `link` (netlink), `nft` (nftables), `conntrack` (flows), `ipam` (addresses),
//!   `published` (ports of the host that lead to pods), `host` (settings)
//! - `fake`: a network in memory
//! - `contract`: what both must do

mod conntrack;
pub mod contract;
pub mod fake;
pub mod firewall;
pub mod flows;
mod host;
mod ipam;
mod link;
mod linux;
mod nft;
pub mod plan;
mod published;

pub use linux::{Linux, Options};

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// One pod's interface. `sandbox` names whose it is: a pod has another with each of its sandboxes.
#[async_trait]
pub trait PodNetwork: Send + Sync {
    /// Puts `eth0` with an address into the network namespace. The same again: the same answer.
    async fn attach(&self, sandbox: &str, netns: &Path) -> Result<Attachment, NetworkError>;
    /// Makes these ports of the host lead to a pod that is attached, and no others. They go with its address.
    async fn publish(&self, sandbox: &str, ports: &[HostPort]) -> Result<(), NetworkError> {
        let _ = sandbox;
        if ports.is_empty() { Ok(()) } else { Err(NetworkError::failed("publish the ports of a pod", "this network has no host")) }
    }
    /// Takes interface and address away. No error when there is none.
    async fn detach(&self, sandbox: &str) -> Result<(), NetworkError>;
}

/// What a pod got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
}

/// A port of the host that leads to a pod's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// One address of the host; `None`: all of them, and of the loopback's 127.0.0.1. To the loopback's leads only
    /// what the host itself sends.
    pub host_address: Option<Ipv4Addr>,
    pub host_port: u16,
    /// The pod's.
    pub port: u16,
}

/// The same with the pod's address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    pub address: Ipv4Addr,
    pub port: HostPort,
}

/// The host's side: bridge, routes to other nodes, Services.
#[async_trait]
pub trait NodeNetwork: Send + Sync {
    /// Makes it so; a no-op the second time. Returns whether anything changed.
    async fn sync(&self, wanted: &Wanted) -> Result<bool, NetworkError>;
    /// What is missing on this host or defeats us; one sentence each.
    async fn problems(&self) -> Vec<String>;
    /// Takes everything of ours away.
    async fn remove_all(&self) -> Result<(), NetworkError>;
}

/// What the node's network must be, computed from the store's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// This node's pod range, `10.80.3.0/24`; `None` until the server gave one.
    pub pod_range: Option<Range>,
    /// The whole cluster's pod range: not masqueraded.
    pub cluster_range: Option<Range>,
    /// Other nodes: their pod range by their address.
    pub routes: Vec<Route>,
    /// ClusterIP addresses live here.
    pub service_range: Option<Range>,
    pub services: Vec<ServicePort>,
    /// The network's own to fill in: what its pods were published with.
    pub published: Vec<Published>,
}

/// An IPv4 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    pub base: Ipv4Addr,
    pub prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub range: Range,
    pub via: Ipv4Addr,
}

/// One port of one Service and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    pub namespace: String,
    pub name: String,
    pub port_name: String,
    pub address: Ipv4Addr,
    /// `TCP` or `UDP`.
    pub protocol: String,
    pub port: u16,
    pub node_port: Option<u16>,
    /// Ready endpoints; none: connections are refused.
    pub endpoints: Vec<(Ipv4Addr, u16)>,
    /// `sessionAffinity: ClientIP` with its timeout in seconds.
    pub affinity_seconds: Option<u32>,
}

/// What a Range is written as and read from.
impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl std::str::FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an IPv4 range like 10.80.0.0/16");
        let (base, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let base: Ipv4Addr = base.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if prefix > 32 {
            return Err(wrong());
        }
        let range = Self { base, prefix };
        if u32::from(base) & !range.mask() != 0 {
            return Err(format!("{text:?} has bits set behind its prefix"));
        }
        Ok(range)
    }
}

impl Range {
    pub fn mask(&self) -> u32 {
        if self.prefix == 0 { 0 } else { u32::MAX << (32 - u32::from(self.prefix)) }
    }
    pub fn contains(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if u32::from(v4) & self.mask() == u32::from(self.base))
    }
    /// The `index`-th address of the range.
    pub fn nth(&self, index: u32) -> Option<Ipv4Addr> {
        let size = 1u64 << (32 - u32::from(self.prefix));
        (u64::from(index) < size).then(|| Ipv4Addr::from(u32::from(self.base) + index))
    }
}

/// Why the network is not as wanted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetworkError {
    #[error("{attempt}: {cause}")]
    Failed { attempt: String, cause: String },
    #[error("no free address left in {0}")]
    Exhausted(String),
    #[error("host port {port}/{protocol} is taken by another pod of this node")]
    Taken { port: u16, protocol: String },
    #[error("host port {0}/TCP is taken by podbay itself")]
    OwnPort(u16),
    #[error("this node has no pod range yet")]
    NoRange,
    /// Everything on this host is as wanted; other nodes' pods cannot be reached.
    #[error("set routes to other nodes: {0}")]
    Routes(String),
    #[error("`nft` is missing: install the package nftables")]
    NoNft,
}

impl NetworkError {
    pub fn failed(attempt: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self::Failed { attempt: attempt.into(), cause: cause.to_string() }
    }
}
