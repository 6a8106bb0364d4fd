//! What the cluster gives a Service: its address and its node ports. PURE.
//!
//! Both are found from a hash of the Service's name and then the next free one, so that the same
//! Service gets the same address in a preview and in truth.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ConfigMap, Service, ServicePort, ServiceSpec};

use crate::model::{Errors, FieldError, Key, Kind, Path};
use crate::store::snapshot::Snapshot;

/// Cluster-wide settings: a ConfigMap.
const SETTINGS: (&str, &str) = ("kube-system", "podbay-cluster");
const DEFAULT_RANGE: Range = Range { base: u32::from_be_bytes([10, 96, 0, 0]), prefix: 16 };
/// The first addresses of a large range are left to those who choose one themselves.
const RESERVED: u32 = 16;
const NODE_PORTS: std::ops::RangeInclusive<i32> = 30_000..=32_767;

/// An IPv4 prefix.
#[derive(Clone, Copy)]
struct Range {
    base: u32,
    prefix: u8,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.trim().split_once('/')?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| (1..=30).contains(prefix))?;
        let base = u32::from(base.parse::<Ipv4Addr>().ok()?) & (u32::MAX << (32 - prefix));
        Some(Self { base, prefix })
    }
    fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }
    /// Neither the first nor the last address: they are the network's.
    fn holds(self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.base);
        offset > 0 && offset < self.size() - 1
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

fn range(state: &Snapshot) -> Range {
    let settings = state.get(&Key::new(Kind::ConfigMap, SETTINGS.0, SETTINGS.1)).and_then(|object| object.get::<ConfigMap>());
    settings.and_then(|map| map.data.as_ref()?.get("serviceRange")).and_then(|text| Range::parse(text)).unwrap_or(DEFAULT_RANGE)
}

fn is(spec: &ServiceSpec, types: &[&str]) -> bool {
    spec.type_.as_deref().is_some_and(|type_| types.contains(&type_))
}

fn wants_address(spec: &ServiceSpec) -> bool {
    !is(spec, &["ExternalName"]) && spec.cluster_ip.as_deref() != Some("None")
}

fn wants_node_ports(spec: &ServiceSpec) -> bool {
    is(spec, &["NodePort", "LoadBalancer"])
}

/// What an update does not say stays as it was given.
pub(super) fn inherit(new: &mut Service, old: &Service) {
    let (Some(new), Some(old)) = (&mut new.spec, &old.spec) else { return };
    let says_no_address = new.cluster_ip.as_deref().is_none_or(str::is_empty);
    if says_no_address && !is(new, &["ExternalName"]) && !is(old, &["ExternalName"]) {
        new.cluster_ip.clone_from(&old.cluster_ip);
        if new.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    let before = |port: &ServicePort| {
        let same = |it: &&ServicePort| {
            it.port == port.port && it.protocol.as_deref().unwrap_or("TCP") == port.protocol.as_deref().unwrap_or("TCP")
        };
        old.ports.iter().flatten().find(same).and_then(|it| it.node_port).filter(|number| *number != 0)
    };
    let keeps = wants_node_ports(new);
    let said: Vec<i32> = new.ports.iter().flatten().filter_map(|port| port.node_port).collect();
    for port in new.ports.iter_mut().flatten() {
        let unset = port.node_port.is_none_or(|number| number == 0);
        let earlier = before(port);
        if keeps && unset {
            port.node_port = earlier.filter(|number| !said.contains(number));
        } else if !keeps && port.node_port == earlier {
            // The type no longer has node ports: what it had goes by itself.
            port.node_port = None;
        }
    }
}

/// Gives what is missing, and checks what the writer chose.
pub(super) fn allocate(service: &mut Service, state: &Snapshot) -> Vec<FieldError> {
    let own =
        Key::new(Kind::Service, service.metadata.namespace.clone().unwrap_or_default(), service.metadata.name.clone().unwrap_or_default());
    let mut errors = Errors::default();
    if let Some(spec) = &mut service.spec {
        if wants_address(spec) {
            address(spec, &own, state, &mut errors);
        }
        if wants_node_ports(spec) {
            node_ports(spec, &own, state, &mut errors);
        }
    }
    errors.into_vec()
}

fn taken(state: &Snapshot, word: &str, own: &Key) -> bool {
    state.claimed(word).is_some_and(|key| key != own)
}

fn address(spec: &mut ServiceSpec, own: &Key, state: &Snapshot, errors: &mut Errors) {
    let range = range(state);
    let path = Path::root("spec.clusterIPs");
    let chosen = spec.cluster_ip.clone().filter(|address| !address.is_empty());
    if let Some(chosen) = chosen {
        let mut fail = |why: &str| errors.invalid(&path, &spec.cluster_ips, &format!("failed to allocate IP {chosen}: {why}"));
        if !chosen.parse().is_ok_and(|address| range.holds(address)) {
            fail(&format!("the provided IP ({chosen}) is not in the valid range. The range of valid IPs is {range}"));
        } else if taken(state, &chosen, own) {
            fail("provided IP is already allocated");
        }
        return;
    }
    let first = if range.size() >= 16 * RESERVED { RESERVED } else { 1 };
    let count = range.size() - 1 - first;
    let start = u32::try_from(super::hash(&[own.namespace.as_bytes(), own.name.as_bytes()]) % u64::from(count)).unwrap_or(0);
    let candidates = (0..count).map(|step| Ipv4Addr::from(range.base + first + (start + step) % count).to_string());
    match candidates.into_iter().find(|candidate| state.claimed(candidate).is_none()) {
        Some(free) => {
            spec.cluster_ip = Some(free.clone());
            spec.cluster_ips = Some(vec![free]);
        }
        None => errors.invalid(&path, &Vec::<String>::new(), &format!("failed to allocate IP: range {range} is full")),
    }
}

fn node_ports(spec: &mut ServiceSpec, own: &Key, state: &Snapshot, errors: &mut Errors) {
    let path = Path::root("spec.ports");
    let mut said: Vec<i32> = spec.ports.iter().flatten().filter_map(|port| port.node_port).filter(|number| *number != 0).collect();
    for (index, port) in spec.ports.iter_mut().flatten().enumerate() {
        let at = path.index(index);
        let at = at.child("nodePort");
        match port.node_port.filter(|number| *number != 0) {
            Some(number) if !NODE_PORTS.contains(&number) => {
                errors.invalid(&at, &number, "provided port is not in the valid range. The range of valid ports is 30000-32767");
            }
            Some(number) if taken(state, &format!(":{number}"), own) => {
                errors.invalid(&at, &number, "provided port is already allocated");
            }
            Some(_) => {}
            None => {
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                let parts = [own.namespace.as_bytes(), own.name.as_bytes(), protocol.as_bytes(), &port.port.to_be_bytes()];
                port.node_port = free_port(super::hash(&parts), &said, own, state);
                match port.node_port {
                    Some(number) => said.push(number),
                    None => errors.invalid(&at, &0, "failed to allocate a nodePort: the range 30000-32767 is full"),
                }
            }
        }
    }
}

fn free_port(hash: u64, said: &[i32], own: &Key, state: &Snapshot) -> Option<i32> {
    let (low, high) = (*NODE_PORTS.start(), *NODE_PORTS.end());
    let count = high - low + 1;
    let start = i32::try_from(hash % u64::from(count.unsigned_abs())).unwrap_or(0);
    (0..count).map(|step| low + (start + step) % count).find(|number| !said.contains(number) && !taken(state, &format!(":{number}"), own))
}
