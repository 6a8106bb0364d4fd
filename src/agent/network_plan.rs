//! Computes the node's network from the cluster's objects, as kube-proxy would. PURE.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::options::Ranges;
use crate::network::{Range, Route, ServicePort, Wanted};

const DEFAULT_SERVICES: Range = Range { base: Ipv4Addr::new(10, 96, 0, 0), prefix: 16 };
const DEFAULT_PODS: Range = Range { base: Ipv4Addr::new(10, 80, 0, 0), prefix: 16 };
const DEFAULT_AFFINITY: u32 = 10_800;

/// The cluster's ranges. `settings` is the ConfigMap `kube-system/podbay-cluster`, if it exists.
pub fn ranges(settings: Option<&ConfigMap>) -> Ranges {
    let setting = |name: &str| settings.and_then(|map| map.data.as_ref()?.get(name)?.parse::<Range>().ok());
    Ranges { pods: setting("podRange").unwrap_or(DEFAULT_PODS), services: setting("serviceRange").unwrap_or(DEFAULT_SERVICES) }
}

/// What must be there.
pub fn wanted(node_name: &str, nodes: &[Node], services: &[Service], slices: &[EndpointSlice], ranges: Ranges) -> Wanted {
    let own = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(node_name));
    let mut routes: Vec<Route> = nodes.iter().filter(|node| node.metadata.name.as_deref() != Some(node_name)).filter_map(route).collect();
    routes.sort_unstable();
    let endpoints = Endpoints::of(slices);
    let mut ports: Vec<ServicePort> = services.iter().flat_map(|service| service_ports(service, &endpoints)).collect();
    ports.sort_unstable();
    Wanted {
        pod_range: own.and_then(pod_range),
        cluster_range: Some(ranges.pods),
        routes,
        service_range: Some(ranges.services),
        services: ports,
        published: Vec::new(),
    }
}

fn pod_range(node: &Node) -> Option<Range> {
    node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()
}

/// The way to another node's pods. A node that is not ready keeps its route: its pods may well run.
fn route(node: &Node) -> Option<Route> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let via = addresses.iter().find(|address| address.type_ == "InternalIP").and_then(|address| address.address.parse().ok())?;
    Some(Route { range: pod_range(node)?, via })
}

/// Ready endpoints by (namespace, service, port name, protocol).
struct Endpoints(BTreeMap<PortKey, Vec<(Ipv4Addr, u16)>>);

type PortKey = (String, String, String, String);

impl Endpoints {
    fn of(slices: &[EndpointSlice]) -> Self {
        let mut all: BTreeMap<_, Vec<(Ipv4Addr, u16)>> = BTreeMap::new();
        let mut terminating: BTreeMap<_, Vec<(Ipv4Addr, u16)>> = BTreeMap::new();
        for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
            let meta = &slice.metadata;
            let Some(service) = meta.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name")) else { continue };
            for port in slice.ports.iter().flatten() {
                let Some(number) = port.port.and_then(|number| u16::try_from(number).ok()) else { continue };
                let key = (
                    meta.namespace.clone().unwrap_or_default(),
                    service.clone(),
                    port.name.clone().unwrap_or_default(),
                    port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                );
                for endpoint in slice.endpoints.iter().flatten() {
                    let state = endpoint.conditions.as_ref();
                    let ready = state.and_then(|state| state.ready) != Some(false);
                    let serving = state.and_then(|state| state.serving).unwrap_or(ready);
                    let Some(address) = endpoint.addresses.first().and_then(|text| text.parse().ok()) else { continue };
                    if ready {
                        all.entry(key.clone()).or_default().push((address, number));
                    } else if serving && state.and_then(|state| state.terminating) == Some(true) {
                        terminating.entry(key.clone()).or_default().push((address, number));
                    }
                }
            }
        }
        // Only terminating ones left, and they still serve: better than a refusal, as kube-proxy has it.
        for (key, endpoints) in terminating {
            all.entry(key).or_insert(endpoints);
        }
        for endpoints in all.values_mut() {
            endpoints.sort_unstable();
            endpoints.dedup();
        }
        Self(all)
    }
}

fn service_ports(service: &Service, endpoints: &Endpoints) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(address) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else { return Vec::new() };
    let (namespace, name) = (service.metadata.namespace.clone().unwrap_or_default(), service.metadata.name.clone().unwrap_or_default());
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
        config.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(DEFAULT_AFFINITY)
    });
    let has_node_ports = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let port_name = port.name.clone().unwrap_or_default();
            let key = (namespace.clone(), name.clone(), port_name.clone(), protocol.clone());
            Some(ServicePort {
                namespace: namespace.clone(),
                name: name.clone(),
                port_name,
                address,
                protocol,
                port: u16::try_from(port.port).ok()?,
                node_port: port.node_port.filter(|_| has_node_ports).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0),
                endpoints: endpoints.0.get(&key).cloned().unwrap_or_default(),
                affinity_seconds: affinity,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn of<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn node(name: &str, range: Option<&str>, address: &str, ready: &str) -> Node {
        of(json!({"metadata": {"name": name}, "spec": {"podCIDR": range},
            "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}],
                       "conditions": [{"type": "Ready", "status": ready}]}}))
    }

    fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> EndpointSlice {
        of(json!({"metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints}))
    }

    fn service(name: &str, spec: Value) -> Service {
        of(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}))
    }

    #[test]
    fn other_nodes_are_routed_ready_or_not() {
        let nodes = [
            node("n3", Some("10.80.3.0/24"), "192.0.2.3", "Unknown"),
            node("n1", Some("10.80.1.0/24"), "192.0.2.1", "True"),
            node("n2", Some("10.80.2.0/24"), "192.0.2.2", "True"),
            node("n4", None, "192.0.2.4", "True"),
        ];
        let got = wanted("n1", &nodes, &[], &[], ranges(None));
        assert_eq!(got.pod_range, Some("10.80.1.0/24".parse().unwrap()));
        let routes: Vec<String> = got.routes.iter().map(|route| format!("{} via {}", route.range, route.via)).collect();
        assert_eq!(routes, ["10.80.2.0/24 via 192.0.2.2", "10.80.3.0/24 via 192.0.2.3"]);
        assert_eq!(got.service_range, Some(DEFAULT_SERVICES));
        assert_eq!(wanted("n9", &nodes, &[], &[], ranges(None)).pod_range, None);
    }

    #[test]
    fn cluster_settings_replace_the_defaults() {
        let cluster: ConfigMap = of(json!({"metadata": {}, "data": {"serviceRange": "10.1.0.0/16", "podRange": "nonsense"}}));
        let got = wanted("n1", &[], &[], &[], ranges(Some(&cluster)));
        assert_eq!(got.service_range, Some("10.1.0.0/16".parse().unwrap()));
        assert_eq!(got.cluster_range, Some(DEFAULT_PODS));
    }

    #[test]
    fn ports_find_their_endpoints_by_name_and_protocol() {
        let services = [
            service(
                "web",
                json!({"clusterIP": "10.96.0.5", "type": "NodePort", "sessionAffinity": "ClientIP",
                "ports": [{"name": "http", "port": 80, "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP"}]}),
            ),
            service("none", json!({"clusterIP": "None", "ports": [{"port": 1}]})),
            service("empty", json!({"clusterIP": "10.96.0.6", "ports": [{"port": 1, "nodePort": 31000}]})),
        ];
        let slices = [
            slice(
                "a",
                "web",
                json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}]),
                json!([
                    {"addresses": ["10.80.2.9"], "conditions": {"ready": true}},
                    {"addresses": ["10.80.2.8"], "conditions": {"ready": false}},
                    {"addresses": ["10.80.2.7"]}
                ]),
            ),
            slice("b", "web", json!([{"name": "http", "port": 8080}]), json!([{"addresses": ["10.80.2.7"]}])),
        ];
        let got = wanted("n1", &[], &services, &slices, ranges(None)).services;
        assert_eq!(got.len(), 3);
        let find = |name: &str, port: u16| got.iter().find(|it| it.name == name && it.port == port).unwrap();
        let (a, b) = (Ipv4Addr::new(10, 80, 2, 7), Ipv4Addr::new(10, 80, 2, 9));
        assert_eq!(find("web", 80).endpoints, [(a, 8080), (b, 8080)]);
        assert_eq!(find("web", 80).node_port, Some(30080));
        assert_eq!(find("web", 80).affinity_seconds, Some(DEFAULT_AFFINITY));
        assert_eq!(find("web", 53).endpoints, [(a, 5353), (b, 5353)]);
        assert_eq!(find("empty", 1).endpoints, []);
        assert_eq!(find("empty", 1).node_port, None, "a ClusterIP Service has no node port");
    }

    #[test]
    fn terminating_endpoints_serve_only_when_no_other_is_left() {
        let services = [service("web", json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]}))];
        let leaving = json!({"addresses": ["10.80.2.8"], "conditions": {"ready": false, "serving": true, "terminating": true}});
        let ready = json!({"addresses": ["10.80.2.9"]});
        let endpoints = |list: Value| {
            let slices = [slice("a", "web", json!([{"port": 80}]), list)];
            wanted("n1", &[], &services, &slices, ranges(None)).services.remove(0).endpoints
        };
        assert_eq!(endpoints(json!([leaving, ready])), [(Ipv4Addr::new(10, 80, 2, 9), 80)]);
        assert_eq!(endpoints(json!([leaving])), [(Ipv4Addr::new(10, 80, 2, 8), 80)]);
    }

    #[test]
    fn the_order_of_objects_does_not_matter() {
        let mut services = vec![
            service("b", json!({"clusterIP": "10.96.0.2", "ports": [{"port": 2}]})),
            service("a", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 1}]})),
        ];
        let one = wanted("n1", &[], &services, &[], ranges(None));
        services.reverse();
        assert_eq!(one, wanted("n1", &[], &services, &[], ranges(None)));
    }
}
