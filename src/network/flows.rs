//! The kernel's UDP flows that still lead to where a Service no longer leads, and the messages by which they
//! are listed and forgotten. PURE.
//!
//! A flow is translated once, with its first packet, and every further packet keeps it alive: a sender that
//! never stops would talk to a dead endpoint for ever. TCP ends by itself.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::Wanted;

type Place = (Ipv4Addr, u16);

/// A UDP flow as the kernel tracks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where the sender sends to.
    pub to: Place,
    /// Who answers: the endpoint it was translated to, or the same as `to`.
    pub answered_by: Place,
    /// What names it to the kernel: attributes as they came.
    key: Vec<u8>,
}

/// Whether it leads to where no Service and no port of the host leads any more. `local`: this host's addresses.
pub fn is_stale(flow: &Flow, wanted: &Wanted, local: &BTreeSet<Ipv4Addr>) -> bool {
    let translated = flow.to != flow.answered_by;
    let mut of_service = false;
    for service in wanted.services.iter().filter(|service| service.protocol.eq_ignore_ascii_case("UDP")) {
        let by_address = flow.to == (service.address, service.port);
        let by_node_port = translated && service.node_port == Some(flow.to.1) && !is_service(flow.to.0, wanted);
        if by_address || by_node_port {
            if service.endpoints.contains(&flow.answered_by) {
                return false;
            }
            // One by a node port may be somebody else's translation: only what leads to a pod is ours.
            let to_pod = wanted.cluster_range.is_some_and(|range| range.contains(flow.answered_by.0.into()));
            of_service |= by_address || to_pod;
        }
    }
    of_service || (translated && is_service(flow.to.0, wanted)) || (is_local(flow.to.0, local) && misses_host_port(flow, wanted))
}

/// Whether a flow to this host passes by the pod that its port leads to, or leads to a pod of this node though
/// no port does.
fn misses_host_port(flow: &Flow, wanted: &Wanted) -> bool {
    let ports = || wanted.published.iter().filter(|it| it.port.protocol.eq_ignore_ascii_case("UDP") && it.port.host_port == flow.to.1);
    // As the rules look them up: the one of this very address first.
    let of_address = |at: Option<Ipv4Addr>| ports().find(|it| it.port.host_address == at);
    let by_any = !flow.to.0.is_loopback() || flow.to.0 == Ipv4Addr::LOCALHOST;
    match of_address(Some(flow.to.0)).or_else(|| of_address(None).filter(|_| by_any)) {
        Some(published) => flow.answered_by != (published.address, published.port.port),
        None => flow.to != flow.answered_by && wanted.pod_range.is_some_and(|range| range.contains(flow.answered_by.0.into())),
    }
}

/// All of the loopback's addresses are this host's, of which it lists one.
fn is_local(address: Ipv4Addr, local: &BTreeSet<Ipv4Addr>) -> bool {
    address.is_loopback() || local.contains(&address)
}

fn is_service(address: Ipv4Addr, wanted: &Wanted) -> bool {
    wanted.service_range.is_some_and(|range| range.contains(address.into()))
}

// As in linux/netlink.h and linux/netfilter/nfnetlink_conntrack.h.
const DONE: u16 = 3;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
const AF_INET: u8 = 2;
const UDP: u8 = 17;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;

fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER + FAMILY_HEADER + attributes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([AF_INET, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

/// Asks for every flow.
pub fn list() -> Vec<u8> {
    message(GET, DUMP, &[])
}

/// Asks to forget one.
pub fn forget(flow: &Flow) -> Vec<u8> {
    message(DELETE, ACK, &flow.key)
}

/// What an answer said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub flows: Vec<Flow>,
    /// The last of it: 0, or an errno.
    pub end: Option<i32>,
}

/// Reads one answer. What is not a UDP flow over IPv4 is left out.
pub fn read(mut bytes: &[u8]) -> Answer {
    let mut answer = Answer::default();
    while let (Some(length), Some(kind)) = (number32(bytes, 0), bytes.get(4..6)) {
        let length = usize::try_from(length).unwrap_or(0);
        let kind = u16::from_ne_bytes([kind[0], kind[1]]);
        let Some(body) = bytes.get(HEADER..length) else { break };
        match kind {
            DONE => answer.end = Some(0),
            ERROR => answer.end = Some(number32(body, 0).map_or(0, |code| code.cast_signed().saturating_neg())),
            _ => answer.flows.extend(body.get(FAMILY_HEADER..).and_then(flow)),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answer
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Attributes: (type, the whole attribute with its header, its value).
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let (whole, value) = (bytes.get(..length)?, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, whole, value))
    })
}

fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, ..)| *found == kind).map(|(_, _, value)| value)
}

fn flow(body: &[u8]) -> Option<Flow> {
    let (_, to) = tuple(find(body, TUPLE_ORIGINAL)?)?;
    let (answered_by, _) = tuple(find(body, TUPLE_REPLY)?)?;
    let mut key = Vec::new();
    for (_, whole, _) in attributes(body).filter(|(kind, ..)| [TUPLE_ORIGINAL, ID, ZONE].contains(kind)) {
        key.extend(whole);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    Some(Flow { to, answered_by, key })
}

/// Source and destination of one direction.
fn tuple(bytes: &[u8]) -> Option<(Place, Place)> {
    let (ip, proto) = (find(bytes, TUPLE_IP)?, find(bytes, TUPLE_PROTO)?);
    let address = |kind| find(ip, kind)?.try_into().ok().map(|octets: [u8; 4]| Ipv4Addr::from(octets));
    let port = |kind| find(proto, kind)?.try_into().ok().map(u16::from_be_bytes);
    (find(proto, 1)? == [UDP]).then_some(())?;
    Some(((address(1)?, port(2)?), (address(2)?, port(3)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{HostPort, Published, ServicePort};

    fn place(text: &str) -> Place {
        let (address, port) = text.split_once(':').expect("address:port");
        (address.parse().expect("an address"), port.parse().expect("a port"))
    }

    fn wanted() -> Wanted {
        let service = ServicePort {
            namespace: "ns".into(),
            name: "dns".into(),
            port_name: String::new(),
            address: Ipv4Addr::new(10, 96, 0, 10),
            protocol: "UDP".into(),
            port: 53,
            node_port: Some(30053),
            endpoints: vec![place("10.80.1.2:5353")],
            affinity_seconds: None,
        };
        Wanted {
            cluster_range: "10.80.0.0/16".parse().ok(),
            service_range: "10.96.0.0/16".parse().ok(),
            pod_range: "10.80.1.0/24".parse().ok(),
            services: vec![service],
            published: vec![
                Published {
                    address: Ipv4Addr::new(10, 80, 1, 4),
                    port: HostPort { protocol: "UDP".into(), host_address: None, host_port: 514, port: 5514 },
                },
                Published {
                    address: Ipv4Addr::new(10, 80, 1, 5),
                    port: HostPort { protocol: "UDP".into(), host_address: Some(Ipv4Addr::new(192, 0, 2, 2)), host_port: 514, port: 5515 },
                },
                Published {
                    address: Ipv4Addr::new(10, 80, 1, 6),
                    port: HostPort { protocol: "UDP".into(), host_address: Some(Ipv4Addr::new(127, 0, 0, 7)), host_port: 515, port: 5516 },
                },
            ],
            ..Wanted::default()
        }
    }

    #[test]
    fn only_flows_to_nowhere_of_ours_are_stale() {
        let table = [
            ("10.96.0.10:53", "10.80.1.2:5353", false, "its endpoint"),
            ("10.96.0.10:53", "10.80.1.9:5353", true, "an endpoint that is gone"),
            ("10.96.0.10:53", "10.96.0.10:53", true, "from before there was an endpoint"),
            ("10.96.0.77:53", "10.80.1.2:5353", true, "a Service that is gone"),
            ("10.96.0.77:53", "10.96.0.77:53", false, "nobody's address, not translated"),
            ("192.0.2.1:30053", "10.80.1.2:5353", false, "by the node port to its endpoint"),
            ("192.0.2.1:30053", "10.80.1.9:5353", true, "by the node port to one that is gone"),
            ("192.0.2.1:30053", "192.0.2.1:30053", false, "a program of the host"),
            ("192.0.2.1:30053", "172.17.0.2:53", false, "somebody else's translation"),
            ("192.0.2.9:53", "192.0.2.9:53", false, "the world"),
            ("192.0.2.9:53", "10.80.1.9:53", false, "somebody else's Service"),
            ("192.0.2.1:514", "10.80.1.4:5514", false, "by a host port to its pod"),
            ("192.0.2.1:514", "10.80.1.9:5514", true, "by a host port to a pod that is gone"),
            ("192.0.2.1:514", "192.0.2.1:514", true, "from before the port led to a pod"),
            ("192.0.2.9:514", "192.0.2.9:514", false, "the same port of another host"),
            ("192.0.2.2:514", "10.80.1.5:5515", false, "by a host port of one address to its pod"),
            ("192.0.2.2:514", "10.80.1.4:5514", true, "by a host port of one address to the pod of all others"),
            ("127.0.0.1:514", "10.80.1.4:5514", false, "by a host port on the loopback to its pod"),
            ("127.0.0.1:514", "127.0.0.1:514", true, "on the loopback from before the port led to a pod"),
            ("127.0.0.53:514", "127.0.0.53:514", false, "a program of the host elsewhere on the loopback"),
            ("127.0.0.7:515", "10.80.1.6:5516", false, "by a host port of one address of the loopback to its pod"),
            ("127.0.0.7:515", "127.0.0.7:515", true, "at that address from before the port led to a pod"),
            ("127.0.0.1:515", "127.0.0.1:515", false, "a program of the host on a port of another address"),
            ("127.0.0.1:515", "10.80.1.6:5516", true, "on the loopback by a host port that is another address's"),
            ("192.0.2.1:515", "10.80.1.4:5514", true, "by a host port that is nobody's any more"),
            ("192.0.2.1:515", "192.0.2.1:515", false, "a program of the host on no port of ours"),
        ];
        let local = ["192.0.2.1", "192.0.2.2", "127.0.0.1"].map(|it| it.parse().expect("an address")).into();
        for (to, answered_by, want, what) in table {
            let flow = Flow { to: place(to), answered_by: place(answered_by), key: Vec::new() };
            assert_eq!(is_stale(&flow, &wanted(), &local), want, "{what}");
        }
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).expect("short");
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn direction(kind: u16, from: Place, to: Place, protocol: u8) -> Vec<u8> {
        let ip = [attribute(1, &from.0.octets()), attribute(2, &to.0.octets())].concat();
        let proto = [attribute(1, &[protocol]), attribute(2, &from.1.to_be_bytes()), attribute(3, &to.1.to_be_bytes())].concat();
        attribute(0x8000 | kind, &[attribute(0x8001, &ip), attribute(0x8002, &proto)].concat())
    }

    #[test]
    fn answers_are_read_whatever_they_hold() {
        let (client, vip, pod) = (place("10.80.1.3:4000"), place("10.96.0.10:53"), place("10.80.1.2:5353"));
        let flow = |protocol| {
            let body =
                [direction(1, client, vip, protocol), attribute(3, &[0; 4]), direction(2, pod, client, protocol), attribute(12, &[7; 4])];
            message(GET, 0, &body.concat())
        };
        let mut done = message(GET, 0, &[]);
        done[4..6].copy_from_slice(&DONE.to_ne_bytes());
        let all = [flow(UDP), flow(6), done].concat();
        let answer = read(&all);
        assert_eq!(answer.end, Some(0));
        let [found] = &answer.flows[..] else { panic!("{answer:?}") };
        assert_eq!((found.to, found.answered_by), (vip, pod));
        let wanted_key = [direction(1, client, vip, UDP), attribute(12, &[7; 4])].concat();
        assert_eq!(&forget(found)[HEADER + FAMILY_HEADER..], wanted_key);
        // Cut anywhere, it is only less.
        for end in 0..all.len() {
            assert!(read(&all[..end]).flows.len() <= 1);
        }
        let mut error = message(GET, 0, &(-2i32).to_ne_bytes());
        error[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        error.drain(HEADER..HEADER + FAMILY_HEADER);
        assert_eq!(read(&error).end, None, "shorter than it says");
        let length = u32::try_from(error.len()).expect("short");
        error[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(read(&error).end, Some(2));
    }
}
