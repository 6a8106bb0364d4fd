//! What the host's network must be and the steps from what it is: names, addresses, routes, rules. PURE.
//!
//! Pods have addresses without a subnet (`/32`), so everything they send goes by the gateway: an
//! answer of a Service's endpoint on the same bridge passes the address translation on its way back,
//! whether or not the host filters bridged frames.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::{HostPort, Published, Range, Route, ServicePort, Wanted};

/// Links of pods begin with this.
pub const LINK_PREFIX: &str = "pb";
/// Routes of ours carry this origin (see `/etc/iproute2/rt_protos`: free).
pub const ROUTE_ORIGIN: u8 = 80;
/// On packets for a node port: their answers must come back through this node.
const MARK: &str = "0x8000";
const LOOPBACK: &str = "127.0.0.0/8";

/// The host's end of a pod's link: from its sandbox's name alone, within the kernel's 15 characters.
pub fn host_link(sandbox: &str) -> String {
    format!("{LINK_PREFIX}{}", &digest(&[sandbox])[..13])
}

/// A hardware address that stays: a bridge without one takes that of its lowest port.
pub fn bridge_mac(gateway: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = gateway.octets();
    [0x02, 0x50, a, b, c, d]
}

fn digest(parts: &[&str]) -> String {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// The gateway of a pod range: its first address.
pub fn gateway(range: Range) -> Option<Ipv4Addr> {
    range.nth(1)
}

/// The next free address after the one given out last, so that an address rests before it is used
/// again. The first, the gateway and the last are never given out.
pub fn next_address(range: Range, used: &BTreeSet<Ipv4Addr>, last: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let size = u32::try_from(1u64 << (32 - u32::from(range.prefix))).unwrap_or(u32::MAX);
    let count = size.checked_sub(3).filter(|count| *count > 0)?;
    let start = last.filter(|last| range.contains((*last).into())).map_or(0, |last| u32::from(last) - u32::from(range.base) - 1);
    (0..count).map(|step| 2 + (u64::from(start) + u64::from(step)) % u64::from(count)).find_map(|index| {
        let address = range.nth(u32::try_from(index).ok()?)?;
        (!used.contains(&address)).then_some(address)
    })
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// Another node.
    Via(Ipv4Addr),
    /// Our bridge; the address packets of the host get as their source.
    Bridge(Ipv4Addr),
}

/// A route that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub range: Range,
    pub hop: Hop,
    /// Index of the link by which it leaves.
    pub link: u32,
}

/// The routes that are this node's: over its bridge, or written down when it made them. Another node in the
/// same network namespace has routes of the same origin.
pub fn own_routes(found: Vec<Found>, bridge: Option<u32>, written_down: &BTreeSet<Range>) -> (Vec<Found>, Vec<Found>) {
    found.into_iter().partition(|route| match route.hop {
        Hop::Bridge(_) => Some(route.link) == bridge,
        Hop::Via(_) => written_down.contains(&route.range),
    })
}

/// The routes that must be there.
pub fn routes(wanted: &Wanted) -> BTreeMap<Range, Hop> {
    let mut routes: BTreeMap<Range, Hop> = wanted
        .routes
        .iter()
        .filter(|route| Some(route.range) != wanted.pod_range)
        .map(|Route { range, via }| (*range, Hop::Via(*via)))
        .collect();
    // Without a route a connection from the host fails before it is translated.
    if let (Some(range), Some(gateway)) = (wanted.service_range, wanted.pod_range.and_then(gateway)) {
        routes.insert(range, Hop::Bridge(gateway));
    }
    routes
}

/// Steps from the routes that are there: (remove, add or replace).
pub fn route_steps(seen: &BTreeMap<Range, Hop>, wanted: &BTreeMap<Range, Hop>) -> (Vec<Range>, Vec<(Range, Hop)>) {
    let remove = seen.keys().filter(|range| !wanted.contains_key(range)).copied().collect();
    let put = wanted.iter().filter(|(range, hop)| seen.get(range) != Some(hop)).map(|(range, hop)| (*range, *hop)).collect();
    (remove, put)
}

/// The content of our nftables table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    sets: BTreeMap<String, Set>,
    chains: BTreeMap<String, Chain>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Set {
    /// `set` or `map`.
    word: &'static str,
    /// Never changes under the same name.
    definition: String,
    elements: BTreeMap<String, Option<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chain {
    /// Of a base chain; never changes under the same name.
    hook: Option<&'static str>,
    rules: Vec<String>,
}

impl Ruleset {
    /// Everything this ruleset is, in 64 hex digits.
    pub fn hash(&self) -> String {
        digest(&[&format!("{self:?}")])
    }

    fn chain(&mut self, name: &str, hook: Option<&'static str>, rules: Vec<String>) {
        self.chains.insert(name.to_owned(), Chain { hook, rules });
    }

    fn set(&mut self, name: &str, word: &'static str, definition: impl Into<String>) -> &mut Set {
        self.sets.entry(name.to_owned()).or_insert_with(|| Set { word, definition: definition.into(), elements: BTreeMap::new() })
    }
}

/// The rules for what is wanted.
pub fn ruleset(wanted: &Wanted, bridge: &str) -> Ruleset {
    let mut rules = Ruleset::default();
    rules.set("services", "map", "type ipv4_addr . inet_proto . inet_service : verdict");
    rules.set("node-ports", "map", "type inet_proto . inet_service : verdict");
    rules.set("closed", "set", "type ipv4_addr . inet_proto . inet_service");
    rules.set("closed-node-ports", "set", "type inet_proto . inet_service");
    rules.set("host-ports", "map", "type inet_proto . inet_service : verdict");
    rules.set("host-ports-at", "map", "type ipv4_addr . inet_proto . inet_service : verdict");
    rules.set("hairpins", "set", "type ipv4_addr . ipv4_addr");
    let mut taken = BTreeSet::new();
    for service in sorted(&wanted.services) {
        // One address and port belongs to one Service; admission sees to it, this survives it.
        if taken.insert((service.address, service.protocol.to_ascii_lowercase(), service.port)) {
            add_service(&mut rules, service);
        }
    }
    let published: BTreeSet<&Published> = wanted.published.iter().collect();
    published.into_iter().for_each(|port| add_host_port(&mut rules, port));
    let vmap = |map: &str, key: &str| format!("{key} vmap @{map}");
    // Only what is sent to this host: whoever chooses an address must not lead others' traffic astray.
    let here = format!("fib daddr type local ip daddr != {LOOPBACK}");
    rules.chain(
        "to-services",
        None,
        vec![
            vmap("services", "ip daddr . meta l4proto . th dport"),
            format!("{here} {}", vmap("node-ports", "meta l4proto . th dport")),
            format!("{here} {}", vmap("host-ports-at", "ip daddr . meta l4proto . th dport")),
            format!("{here} {}", vmap("host-ports", "meta l4proto . th dport")),
        ],
    );
    rules.chain("prerouting", Some("type nat hook prerouting priority dstnat; policy accept;"), vec!["jump to-services".into()]);
    let output = vec![format!("ip daddr {LOOPBACK} goto on-loopback"), "jump to-services".into()];
    rules.chain("output", Some("type nat hook output priority -100; policy accept;"), output);
    rules.chain(
        "on-loopback",
        None,
        vec![
            vmap("host-ports-at", "ip daddr . meta l4proto . th dport"),
            // Resolvers and the like have ports at others of these addresses, beside those of the host's own.
            format!("ip daddr {} {}", Ipv4Addr::LOCALHOST, vmap("host-ports", "meta l4proto . th dport")),
        ],
    );
    rules.chain("guard-loopback", Some("type filter hook prerouting priority raw; policy accept;"), guard_loopback(bridge));
    rules.chain("postrouting", Some("type nat hook postrouting priority srcnat; policy accept;"), postrouting(wanted, bridge));
    let closed = closed(wanted);
    rules.chain(
        "closed-ports",
        None,
        vec!["meta l4proto tcp reject with tcp reset".into(), "reject with icmp type port-unreachable".into()],
    );
    rules.chain("filter-input", Some("type filter hook input priority filter; policy accept;"), closed.clone());
    rules.chain("filter-forward", Some("type filter hook forward priority filter; policy accept;"), closed.clone());
    let mut output = closed;
    // Pods know their only way; told a shorter one they would have to ignore it.
    output.push(format!("oifname \"{bridge}\" icmp type redirect drop"));
    rules.chain("filter-output", Some("type filter hook output priority filter; policy accept;"), output);
    rules
}

/// Whether a port of the host leads from its loopback to a pod: then the kernel must let packets with such an address
/// out to the bridge, and so in from it.
pub fn publishes_on_loopback(wanted: &Wanted) -> bool {
    wanted.published.iter().any(|it| it.port.host_address.is_none_or(|at| at.is_loopback()))
}

/// Pods reach nothing that listens on the host's loopback, and do not pass for it (CVE-2020-8558). Before the
/// translation, when an answer to the loopback still goes to the bridge's own address.
fn guard_loopback(bridge: &str) -> Vec<String> {
    ["daddr", "saddr"].map(|end| format!("iifname \"{bridge}\" ip {end} {LOOPBACK} drop")).to_vec()
}

/// What was not translated and yet is for a Service: nobody would answer.
fn closed(wanted: &Wanted) -> Vec<String> {
    let mut rules = vec![
        "ct state established,related accept".to_owned(),
        "ip daddr . meta l4proto . th dport @closed goto closed-ports".to_owned(),
        "fib daddr type local meta l4proto . th dport @closed-node-ports goto closed-ports".to_owned(),
    ];
    if let Some(range) = wanted.service_range {
        rules.push(format!("ip daddr {range} goto closed-ports"));
    }
    rules
}

fn postrouting(wanted: &Wanted, bridge: &str) -> Vec<String> {
    let mut rules = vec![
        // A pod that reaches itself through a Service must not see its own address as the client's.
        "ct status dnat ip saddr . ip daddr @hairpins masquerade".to_owned(),
        format!("meta mark & {MARK} == {MARK} masquerade"),
        // A pod would answer its own loopback.
        format!("ip saddr {LOOPBACK} oifname \"{bridge}\" ct status dnat masquerade"),
    ];
    if let Some(pods) = wanted.pod_range {
        let cluster = wanted.cluster_range.unwrap_or(pods);
        rules.push(format!("ip saddr {pods} ip daddr != {cluster} oifname != \"{bridge}\" masquerade"));
    }
    rules
}

fn sorted(services: &[ServicePort]) -> Vec<&ServicePort> {
    let mut services: Vec<&ServicePort> = services.iter().collect();
    services.sort_unstable();
    services
}

fn add_service(rules: &mut Ruleset, service: &ServicePort) {
    let protocol = service.protocol.to_ascii_lowercase();
    let key = format!("{} . {protocol} . {}", service.address, service.port);
    let endpoints: BTreeSet<(Ipv4Addr, u16)> = service.endpoints.iter().copied().collect();
    if endpoints.is_empty() {
        rules.sets.entry("closed".into()).or_default().elements.insert(key, None);
        if let Some(port) = service.node_port {
            rules.sets.entry("closed-node-ports".into()).or_default().elements.insert(format!("{protocol} . {port}"), None);
        }
        return;
    }
    let id = digest(&[&service.namespace, &service.name, &service.port_name, &protocol, &service.port.to_string()])[..16].to_owned();
    let chain = format!("svc-{id}");
    rules.sets.entry("services".into()).or_default().elements.insert(key, Some(format!("goto {chain}")));
    if let Some(port) = service.node_port {
        let outside = format!("node-{id}");
        let key = format!("{protocol} . {port}");
        let elements = &mut rules.sets.entry("node-ports".into()).or_default().elements;
        // The first of two keeps it.
        if let std::collections::btree_map::Entry::Vacant(free) = elements.entry(key) {
            free.insert(Some(format!("goto {outside}")));
            rules.chain(&outside, None, vec![format!("meta mark set meta mark | {MARK}"), format!("goto {chain}")]);
        }
    }
    for (address, _) in &endpoints {
        rules.sets.entry("hairpins".into()).or_default().elements.insert(format!("{address} . {address}"), None);
    }
    let count = endpoints.len();
    let Some(seconds) = service.affinity_seconds else {
        let targets = listed(endpoints.iter().map(|(address, port)| format!("{address} . {port}")));
        let rule = format!("meta l4proto {protocol} dnat ip to numgen random mod {count} map {{ {targets} }}");
        rules.chain(&chain, None, vec![rule]);
        return;
    };
    let mut first = Vec::new();
    let mut targets = Vec::new();
    for (address, port) in &endpoints {
        let endpoint = &digest(&[&id, &address.to_string(), &port.to_string(), &seconds.to_string()])[..16];
        let (to, clients) = (format!("ep-{endpoint}"), format!("clients-{endpoint}"));
        rules.set(&clients, "set", format!("type ipv4_addr; flags dynamic,timeout; timeout {seconds}s"));
        first.push(format!("ip saddr @{clients} goto {to}"));
        targets.push(format!("goto {to}"));
        rules.chain(
            &to,
            None,
            vec![format!("update @{clients} {{ ip saddr }}"), format!("meta l4proto {protocol} dnat to {address}:{port}")],
        );
    }
    first.push(format!("numgen random mod {count} vmap {{ {} }}", listed(targets.into_iter())));
    rules.chain(&chain, None, first);
}

/// The client's address stays as it is: the pod is on this node, and its answers pass it.
fn add_host_port(rules: &mut Ruleset, Published { address, port }: &Published) {
    let protocol = port.protocol.to_ascii_lowercase();
    let at = port.host_address.map(|at| at.to_string()).unwrap_or_default();
    let numbers = [port.host_port, port.port].map(|number| number.to_string());
    let chain = format!("host-{}", &digest(&[&at, &protocol, &numbers[0], &address.to_string(), &numbers[1]])[..16]);
    let (map, key) = match port.host_address {
        Some(at) => ("host-ports-at", format!("{at} . {protocol} . {}", port.host_port)),
        None => ("host-ports", format!("{protocol} . {}", port.host_port)),
    };
    let elements = &mut rules.sets.entry(map.into()).or_default().elements;
    // The first of two keeps it.
    if let std::collections::btree_map::Entry::Vacant(free) = elements.entry(key) {
        free.insert(Some(format!("goto {chain}")));
        rules.chain(&chain, None, vec![format!("meta l4proto {protocol} dnat to {address}:{}", port.port)]);
        rules.sets.entry("hairpins".into()).or_default().elements.insert(format!("{address} . {address}"), None);
    }
}

/// The first of these ports that one of the others takes too.
pub fn first_taken<'a>(ports: &'a [HostPort], others: impl Iterator<Item = &'a HostPort>) -> Option<&'a HostPort> {
    let others: Vec<&HostPort> = others.collect();
    let meet = |a: &HostPort, b: &HostPort| {
        let addresses = [a.host_address, b.host_address];
        a.host_port == b.host_port
            && a.protocol.eq_ignore_ascii_case(&b.protocol)
            && (addresses.contains(&None) || addresses[0] == addresses[1])
    };
    ports.iter().find(|port| others.iter().any(|other| meet(port, other)))
}

/// The first of these ports on which the daemon itself listens.
pub fn first_own<'a>(ports: &'a [HostPort], own: &[u16]) -> Option<&'a HostPort> {
    ports.iter().find(|port| port.protocol.eq_ignore_ascii_case("TCP") && own.contains(&port.host_port))
}

/// `0 : a, 1 : b`
fn listed(values: impl Iterator<Item = String>) -> String {
    values.enumerate().map(|(index, value)| format!("{index} : {value}")).collect::<Vec<_>>().join(", ")
}

/// The chain whose one rule says which ruleset the table holds.
pub const GENERATION: &str = "generation";

/// A script for `nft -f`, applied as one transaction: from `old` (`None`: whatever is there) to
/// `new`. What both have is left alone, sets of clients with their memory too.
pub fn script(table: &str, old: Option<&Ruleset>, new: &Ruleset) -> String {
    let none = Ruleset::default();
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = out.write_fmt(text);
        out.push('\n');
    };
    line(format_args!("add table ip {table}"));
    if old.is_none() {
        line(format_args!("delete table ip {table}"));
        line(format_args!("add table ip {table}"));
    }
    let old = old.unwrap_or(&none);
    for (name, set) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
        line(format_args!("add {} ip {table} {name} {{ {}; }}", set.word, set.definition));
    }
    for (name, chain) in new.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)) {
        match chain.hook {
            Some(hook) => line(format_args!("add chain ip {table} {name} {{ {hook} }}")),
            None => line(format_args!("add chain ip {table} {name}")),
        }
    }
    let empty = Set::default();
    for (name, set) in &old.sets {
        let after = new.sets.get(name).unwrap_or(&empty);
        let gone: Vec<&str> =
            set.elements.iter().filter(|(key, value)| after.elements.get(*key) != Some(value)).map(|(key, _)| key.as_str()).collect();
        if !gone.is_empty() {
            line(format_args!("delete element ip {table} {name} {{ {} }}", gone.join(", ")));
        }
    }
    for (name, chain) in &new.chains {
        let before = old.chains.get(name);
        if before == Some(chain) {
            continue;
        }
        if before.is_some() {
            line(format_args!("flush chain ip {table} {name}"));
        }
        for rule in &chain.rules {
            line(format_args!("add rule ip {table} {name} {rule}"));
        }
    }
    for (name, set) in &new.sets {
        let before = old.sets.get(name).unwrap_or(&empty);
        let came: Vec<String> = set
            .elements
            .iter()
            .filter(|(key, value)| before.elements.get(*key) != Some(value))
            .map(|(key, value)| value.as_ref().map_or_else(|| key.clone(), |value| format!("{key} : {value}")))
            .collect();
        if !came.is_empty() {
            line(format_args!("add element ip {table} {name} {{ {} }}", came.join(", ")));
        }
    }
    let gone: Vec<&String> = old.chains.keys().filter(|name| !new.chains.contains_key(*name)).collect();
    for name in &gone {
        line(format_args!("flush chain ip {table} {name}"));
    }
    for name in &gone {
        line(format_args!("delete chain ip {table} {name}"));
    }
    for (name, set) in old.sets.iter().filter(|(name, _)| !new.sets.contains_key(*name)) {
        line(format_args!("delete {} ip {table} {name}", set.word));
    }
    line(format_args!("add chain ip {table} {GENERATION}"));
    line(format_args!("flush chain ip {table} {GENERATION}"));
    line(format_args!("add rule ip {table} {GENERATION} return comment \"{}\"", new.hash()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> Range {
        text.parse().expect("a range")
    }

    fn service(name: &str, port: u16, endpoints: &[&str]) -> ServicePort {
        ServicePort {
            namespace: "web".into(),
            name: name.into(),
            port_name: String::new(),
            address: Ipv4Addr::new(10, 96, 0, 10),
            protocol: "TCP".into(),
            port,
            node_port: None,
            endpoints: endpoints.iter().map(|it| (it.parse().expect("an address"), 8080)).collect(),
            affinity_seconds: None,
        }
    }

    #[test]
    fn link_names_fit_and_differ() {
        let (one, two) = (host_link("0c4c7d52-4b2a-4b60-8b53-2d3a4bb5a6f1"), host_link("0c4c7d52-4b2a-4b60-8b53-2d3a4bb5a6f2"));
        assert_eq!(one.len(), 15);
        assert_ne!(one, two);
    }

    #[test]
    fn addresses_go_round_and_leave_three_out() {
        let pods = range("10.80.3.0/29");
        let mut used = BTreeSet::new();
        let mut last = None;
        for expected in ["10.80.3.2", "10.80.3.3", "10.80.3.4", "10.80.3.5", "10.80.3.6"] {
            last = next_address(pods, &used, last);
            assert_eq!(last, Some(expected.parse().expect("an address")));
            used.extend(last);
        }
        assert_eq!(next_address(pods, &used, last), None);
        used.remove(&Ipv4Addr::new(10, 80, 3, 2));
        used.remove(&Ipv4Addr::new(10, 80, 3, 4));
        assert_eq!(next_address(pods, &used, Some(Ipv4Addr::new(10, 80, 3, 3))), Some(Ipv4Addr::new(10, 80, 3, 4)));
        assert_eq!(next_address(pods, &used, Some(Ipv4Addr::new(10, 80, 3, 6))), Some(Ipv4Addr::new(10, 80, 3, 2)));
        assert_eq!(next_address(pods, &used, Some(Ipv4Addr::new(10, 1, 1, 1))), Some(Ipv4Addr::new(10, 80, 3, 2)));
        assert_eq!(next_address(range("10.80.3.0/31"), &BTreeSet::new(), None), None);
        assert_eq!(next_address(range("10.80.3.0/30"), &BTreeSet::new(), None), Some(Ipv4Addr::new(10, 80, 3, 2)));
    }

    #[test]
    fn routes_are_to_the_others_and_to_services() {
        let via = Ipv4Addr::new(192, 168, 1, 2);
        let wanted = Wanted {
            pod_range: Some(range("10.80.1.0/24")),
            service_range: Some(range("10.96.0.0/16")),
            routes: vec![Route { range: range("10.80.2.0/24"), via }, Route { range: range("10.80.1.0/24"), via }],
            ..Wanted::default()
        };
        let routes = routes(&wanted);
        let bridge = Hop::Bridge(Ipv4Addr::new(10, 80, 1, 1));
        assert_eq!(routes, BTreeMap::from([(range("10.80.2.0/24"), Hop::Via(via)), (range("10.96.0.0/16"), bridge)]));
        assert_eq!(route_steps(&routes, &routes), (vec![], vec![]));
        let old = BTreeMap::from([(range("10.80.2.0/24"), Hop::Via(Ipv4Addr::new(1, 1, 1, 1))), (range("10.80.9.0/24"), Hop::Via(via))]);
        assert_eq!(
            route_steps(&old, &routes),
            (vec![range("10.80.9.0/24")], vec![(range("10.80.2.0/24"), Hop::Via(via)), (range("10.96.0.0/16"), bridge)])
        );
    }

    #[test]
    fn one_changed_endpoint_touches_one_chain() {
        let services = vec![service("a", 80, &["10.80.1.2"]), service("b", 81, &["10.80.1.3"])];
        let mut wanted = Wanted { services, ..Wanted::default() };
        let old = ruleset(&wanted, "podbay0");
        wanted.services[0].endpoints.push((Ipv4Addr::new(10, 80, 2, 9), 8080));
        let new = ruleset(&wanted, "podbay0");
        let script = script("podbay", Some(&old), &new);
        let lines: Vec<&str> = script.lines().filter(|line| !line.contains(GENERATION)).collect();
        assert_eq!(lines.len(), 4, "{script}");
        assert!(lines[1].starts_with("flush chain ip podbay svc-"), "{script}");
        assert!(lines[2].contains("mod 2 map { 0 : 10.80.1.2 . 8080, 1 : 10.80.2.9 . 8080 }"), "{script}");
        assert!(lines[3].ends_with("hairpins { 10.80.2.9 . 10.80.2.9 }"), "{script}");
    }

    #[test]
    fn a_service_without_endpoints_is_closed() {
        let mut closed = service("a", 80, &[]);
        closed.node_port = Some(30080);
        let script = script("podbay", None, &ruleset(&Wanted { services: vec![closed], ..Wanted::default() }, "podbay0"));
        assert!(script.contains("add element ip podbay closed { 10.96.0.10 . tcp . 80 }"), "{script}");
        assert!(script.contains("add element ip podbay closed-node-ports { tcp . 30080 }"), "{script}");
        assert!(!script.contains("goto svc-"), "{script}");
    }

    #[test]
    fn host_ports_lead_to_their_pod_and_belong_to_one() {
        let port = |at: Option<&str>, protocol: &str, number| HostPort {
            protocol: protocol.into(),
            host_address: at.map(|at| at.parse().expect("an address")),
            host_port: number,
            port: 80,
        };
        let address = Ipv4Addr::new(10, 80, 1, 2);
        let published = [port(None, "TCP", 8080), port(Some("192.0.2.1"), "UDP", 53), port(None, "TCP", 8080)];
        let published = published.map(|port| Published { address, port }).to_vec();
        let script = script("podbay", None, &ruleset(&Wanted { published, ..Wanted::default() }, "podbay0"));
        let chains: Vec<&str> = script.lines().filter(|line| line.contains(" dnat to ")).collect();
        assert_eq!(chains.len(), 2, "{script}");
        assert!(
            chains.iter().all(|rule| rule.ends_with("tcp dnat to 10.80.1.2:80") || rule.ends_with("udp dnat to 10.80.1.2:80")),
            "{script}"
        );
        assert!(script.contains("add element ip podbay host-ports { tcp . 8080 : goto host-"), "{script}");
        assert!(script.contains("add element ip podbay host-ports-at { 192.0.2.1 . udp . 53 : goto host-"), "{script}");
        assert!(script.contains("hairpins { 10.80.1.2 . 10.80.1.2 }"), "{script}");

        let all = port(None, "TCP", 80);
        for (other, taken) in [
            (port(None, "tcp", 80), true),
            (port(Some("192.0.2.1"), "TCP", 80), true),
            (port(None, "UDP", 80), false),
            (port(None, "TCP", 81), false),
        ] {
            assert_eq!(first_taken(std::slice::from_ref(&all), [&other].into_iter()).is_some(), taken, "{other:?}");
            assert_eq!(first_taken(std::slice::from_ref(&other), [&all].into_iter()).is_some(), taken, "{other:?}");
        }
        let (one, two) = (port(Some("192.0.2.1"), "TCP", 80), port(Some("192.0.2.2"), "TCP", 80));
        assert_eq!(first_taken(&[one], [&two].into_iter()), None);
        let asked = [port(None, "UDP", 10250), port(None, "TCP", 10250)];
        assert_eq!(first_own(&asked, &[6443, 10250]), Some(&asked[1]));
        assert_eq!(first_own(&asked[..1], &[6443, 10250]), None);
    }

    #[test]
    fn the_loopback_leads_to_host_ports_from_the_host_alone() {
        let port = |at: Option<&str>| HostPort {
            protocol: "TCP".into(),
            host_address: at.map(|at| at.parse().expect("an address")),
            host_port: 8080,
            port: 80,
        };
        let wanted =
            |at| Wanted { published: vec![Published { address: Ipv4Addr::new(10, 80, 1, 2), port: port(at) }], ..Wanted::default() };
        for (at, opens) in [(None, true), (Some("127.0.0.1"), true), (Some("127.9.9.9"), true), (Some("192.0.2.1"), false)] {
            assert_eq!(publishes_on_loopback(&wanted(at)), opens, "{at:?}");
        }
        assert!(!publishes_on_loopback(&Wanted::default()));

        // Always there: a ruleset that goes back to none leaves no moment without the guard.
        let script = script("podbay", None, &ruleset(&Wanted::default(), "podbay0"));
        let rules = |chain: &str| {
            let before = format!("add rule ip podbay {chain} ");
            script.lines().filter_map(|line| line.strip_prefix(before.as_str())).collect::<Vec<_>>()
        };
        assert_eq!(
            rules("guard-loopback"),
            ["iifname \"podbay0\" ip daddr 127.0.0.0/8 drop", "iifname \"podbay0\" ip saddr 127.0.0.0/8 drop"]
        );
        assert_eq!(rules("output"), ["ip daddr 127.0.0.0/8 goto on-loopback", "jump to-services"]);
        assert_eq!(rules("prerouting"), ["jump to-services"]);
        let local = rules("to-services").into_iter().filter(|rule| rule.contains("fib daddr type local"));
        assert_eq!(local.filter(|rule| rule.contains("ip daddr != 127.0.0.0/8")).count(), 3, "{script}");
        let [at, all] = rules("on-loopback")[..] else { panic!("{script}") };
        assert!(at.ends_with("vmap @host-ports-at") && all == "ip daddr 127.0.0.1 meta l4proto . th dport vmap @host-ports", "{script}");
        assert!(rules("postrouting").contains(&"ip saddr 127.0.0.0/8 oifname \"podbay0\" ct status dnat masquerade"), "{script}");
    }

    #[test]
    fn clients_with_affinity_are_remembered_across_changes_elsewhere() {
        let mut sticky = service("a", 80, &["10.80.1.2", "10.80.1.3"]);
        sticky.affinity_seconds = Some(60);
        let mut wanted = Wanted { services: vec![sticky], ..Wanted::default() };
        let old = ruleset(&wanted, "podbay0");
        wanted.services[0].endpoints.pop();
        let script = script("podbay", Some(&old), &ruleset(&wanted, "podbay0"));
        let sets = script.lines().filter(|line| line.contains(" set ip podbay clients-")).collect::<Vec<_>>();
        assert_eq!(sets.len(), 1, "only the one that went: {script}");
        assert!(sets[0].starts_with("delete set"), "{script}");
    }

    proptest! {
        #[test]
        fn the_order_of_services_does_not_matter(mut ports in proptest::collection::btree_set(1u16..50, 0..20).prop_map(|it| it.into_iter().collect::<Vec<_>>()), seed: u64) {
            let build = |ports: &[u16]| {
                let services = ports.iter().map(|port| service(&format!("s{port}"), *port, &["10.80.1.2", "10.80.1.3"])).collect();
                ruleset(&Wanted { services, ..Wanted::default() }, "podbay0")
            };
            let first = build(&ports);
            let turn = if ports.is_empty() { 0 } else { usize::try_from(seed % ports.len() as u64).expect("small") };
            ports.rotate_left(turn);
            prop_assert_eq!(&first, &build(&ports));
            prop_assert_eq!(first.hash(), build(&ports).hash());
            let none = script("podbay", Some(&first), &first);
            prop_assert_eq!(none.lines().count(), 4, "nothing but the generation");
        }
    }
}
