//! Where a proxied request goes: the `proxy` subresource's name and path, and what they stand for. PURE.
//!
//! Nobody is reached by an address of their choice: a pod's is its own, a Service's that of a pod its slices name, and
//! neither is of this host's loopback or the link.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Node, Pod, Service};

use super::super::behind::{Ready, ready};
use super::super::fault::Fault;
use super::super::request::Target;
use super::api_port;
use crate::model::{Key, Kind, Object, pod};
use crate::store::snapshot::Snapshot;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// To the node's API.
    Node(Box<Node>),
    /// To one of these: whichever takes a connection.
    Addresses { tls: bool, addresses: Vec<SocketAddr> },
}

/// Splits a path behind its `proxy`: what leads there, and the other end's own, both as they came.
pub fn split<'a>(path: &'a str, target: &Target) -> (&'a str, &'a str) {
    // api, v1, namespaces, NAMESPACE, RESOURCE, NAME, proxy
    let words = if target.kind.info().namespaced { 7 } else { 5 };
    let (mut seen, mut at) = (0, 0);
    for word in path.split('/') {
        at += word.len();
        seen += usize::from(!word.is_empty());
        if seen == words {
            break;
        }
        at += 1;
    }
    let (before, rest) = path.split_at(at.min(path.len()));
    // More of them would begin another host's URL.
    let extra = before.len() - before.trim_start_matches('/').len();
    (&before[extra.saturating_sub(1)..], rest)
}

/// `[SCHEME:]NAME[:PORT]`, as `SplitSchemeNamePort` of Kubernetes' `apimachinery/pkg/util/net` reads it.
struct Wanted<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Wanted<'a> {
    fn read(id: &'a str) -> Option<Self> {
        let words: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match *words.as_slice() {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        (matches!(scheme, "" | "http" | "https") && !name.is_empty()).then_some(Self { tls: scheme == "https", name, port })
    }

    /// The port as a number, or that of the scheme.
    fn number(&self, otherwise: Option<u16>) -> Option<u16> {
        match self.port {
            "" => Some(otherwise.unwrap_or(if self.tls { 443 } else { 80 })),
            port => port.parse().ok(),
        }
        .filter(|port| *port > 0)
    }
}

/// Finds it.
///
/// # Errors
/// A name that is none, of nothing, or of what cannot be reached now.
pub fn place(target: &Target, state: &Snapshot) -> Result<Place, Fault> {
    let id = target.name.as_deref().unwrap_or_default();
    let invalid = || Fault::bad_request(format!("invalid {} request {id:?}", target.kind.info().singular));
    let wanted = Wanted::read(id).ok_or_else(invalid)?;
    let object = state.get(&Key::new(target.kind, &*target.namespace, wanted.name));
    let object = object.ok_or_else(|| Fault::not_found(target.kind, wanted.name))?;
    match target.kind {
        Kind::Service => of_service(object, &wanted, state),
        Kind::Pod => of_pod(object, &wanted, invalid),
        _ => of_node(object, &wanted, invalid),
    }
}

fn of_pod(object: &Object, wanted: &Wanted<'_>, invalid: impl Fn() -> Fault) -> Result<Place, Fault> {
    let found = object.get::<Pod>().ok_or_else(Fault::no_such_path)?;
    let containers = found.spec.iter().flat_map(|spec| &spec.containers);
    let first = containers.filter_map(|container| container.ports.as_ref()?.first()).next();
    let port = wanted.number(first.and_then(|port| u16::try_from(port.container_port).ok())).ok_or_else(invalid)?;
    if pod::is_terminal(found) {
        // Its address may be another's by now.
        return Err(Fault::unavailable(format!("pod {:?} has ended", wanted.name)));
    }
    let address = found.status.as_ref().and_then(|status| status.pod_ip.as_deref()).filter(|address| !address.is_empty());
    let address = address.ok_or_else(|| Fault::unavailable(format!("pod {:?} has no address yet", wanted.name)))?;
    let address = reachable(address).ok_or_else(not_allowed)?;
    Ok(Place::Addresses { tls: wanted.tls, addresses: vec![SocketAddr::new(address, port)] })
}

fn of_service(object: &Object, wanted: &Wanted<'_>, state: &Snapshot) -> Result<Place, Fault> {
    let service = object.get::<Service>().ok_or_else(Fault::no_such_path)?;
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let number: Option<i32> = wanted.port.parse().ok();
    let name = |port: &k8s_openapi::api::core::v1::ServicePort| port.name.clone().unwrap_or_default();
    let port = ports.map(|port| (port.port, name(port))).find(|(its, name)| number.map_or(name == wanted.port, |number| number == *its));
    let (_, port) = port.ok_or_else(|| match wanted.port {
        "" => Fault::unavailable(format!("every port of service {0:?} has a name: say which, as {0}:NAME", wanted.name)),
        port => Fault::unavailable(format!("no service port {port:?} found for service {:?}", wanted.name)),
    })?;
    let namespace = &object.key().namespace;
    let behind = ready(state, namespace, wanted.name, &port).into_iter().filter_map(|it| of_a_pod(&it, namespace, state));
    let addresses: Vec<SocketAddr> = behind.collect();
    if addresses.is_empty() {
        return Err(Fault::unavailable(format!("no endpoints available for service {:?}", wanted.name)));
    }
    Ok(Place::Addresses { tls: wanted.tls, addresses })
}

/// The address, if it is that of the pod it is said to be of: who may write a slice is not believed more than that.
fn of_a_pod(it: &Ready<'_>, namespace: &str, state: &Snapshot) -> Option<SocketAddr> {
    let reference = it.target.filter(|target| target.kind.as_deref() == Some("Pod"))?;
    reference.namespace.as_deref().is_none_or(|its| its == namespace).then_some(())?;
    let found = state.get(&Key::new(Kind::Pod, namespace, reference.name.as_deref()?))?.get::<Pod>()?;
    let status = found.status.as_ref().filter(|_| !pod::is_terminal(found))?;
    let mut own = status.pod_ip.iter().chain(status.pod_ips.iter().flatten().map(|it| &it.ip));
    own.any(|own| own == it.address).then(|| reachable(it.address).map(|address| SocketAddr::new(address, it.port)))?
}

fn of_node(object: &Object, wanted: &Wanted<'_>, invalid: impl Fn() -> Fault) -> Result<Place, Fault> {
    let node = object.get::<Node>().ok_or_else(Fault::no_such_path)?;
    let api = u16::try_from(api_port(node)).ok();
    let port = wanted.number(api).ok_or_else(invalid)?;
    if Some(port) == api {
        return Ok(Place::Node(Box::new(node.clone())));
    }
    let mut addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let address = addresses.find(|address| address.type_ == "InternalIP").and_then(|address| reachable(&address.address));
    Ok(Place::Addresses { tls: wanted.tls, addresses: vec![SocketAddr::new(address.ok_or_else(not_allowed)?, port)] })
}

fn not_allowed() -> Fault {
    Fault::bad_request("address not allowed")
}

/// An address of others: neither of the loopback nor the link, nor of many (Kubernetes' `apimachinery/pkg/util/proxy`,
/// `IsProxyableIP`, by Go's `IsGlobalUnicast`).
fn reachable(address: &str) -> Option<IpAddr> {
    let address: IpAddr = address.parse().ok()?;
    let of_one_host = |address: IpAddr| !address.is_unspecified() && !address.is_loopback() && !address.is_multicast();
    let is_local = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    (of_one_host(address.to_canonical()) && !is_local).then_some(address)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::custom::Definitions;

    fn state(objects: &[(Kind, Value)]) -> Snapshot {
        let mut state = Snapshot::default();
        for (kind, value) in objects {
            state.insert(Object::from_value(*kind, value.clone()).expect("an object"));
        }
        state
    }

    fn target(path: &str) -> Target {
        Target::parse(path, &Definitions::default()).expect("a target")
    }

    /// The addresses, with `!` where they are asked over TLS; `node` for a node's API; else the refusal.
    fn told(path: &str, state: &Snapshot) -> String {
        match place(&target(path), state) {
            Ok(Place::Node(_)) => "node".to_owned(),
            Ok(Place::Addresses { tls, addresses }) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                addresses.join(" ") + if tls { "!" } else { "" }
            }
            Err(fault) => format!("{} {}", fault.code, fault.message),
        }
    }

    #[test]
    fn what_is_behind_the_word_is_the_other_ends() {
        for (path, expected) in [
            ("/api/v1/nodes/n/proxy", ("/api/v1/nodes/n/proxy", "")),
            ("/api/v1/nodes/n/proxy/", ("/api/v1/nodes/n/proxy", "/")),
            ("/api/v1/nodes/n/proxy//a%2Fb/../proxy/", ("/api/v1/nodes/n/proxy", "//a%2Fb/../proxy/")),
            ("//api//v1/nodes/n/prox%79/x", ("/api//v1/nodes/n/prox%79", "/x")),
            ("/api/v1/namespaces/proxy/pods/proxy/proxy/p", ("/api/v1/namespaces/proxy/pods/proxy/proxy", "/p")),
            (
                "/api/v1/namespaces/a/services/http:web:80/proxy/namespaces/a/x",
                ("/api/v1/namespaces/a/services/http:web:80/proxy", "/namespaces/a/x"),
            ),
        ] {
            assert_eq!(split(path, &target(path)), expected, "{path}");
        }
    }

    fn pod(name: &str, address: &str, phase: &str) -> (Kind, Value) {
        let ports = json!([{"containerPort": 8080}, {"containerPort": 9100}]);
        let containers = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i", "ports": ports}]);
        let spec = if name == "bare" { json!({"containers": [{"name": "a", "image": "i"}]}) } else { json!({ "containers": containers }) };
        (Kind::Pod, json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec, "status": {"podIP": address, "phase": phase}}))
    }

    #[test]
    fn a_pod_is_at_its_own_address_and_nowhere_near_the_host() {
        let mut objects: Vec<_> =
            [("web", "10.0.0.1"), ("bare", "10.0.0.2"), ("new", ""), ("lo", "127.0.0.1"), ("link", "169.254.169.254")]
                .map(|(name, address)| pod(name, address, "Running"))
                .into();
        objects.extend(
            [("v6", "::ffff:127.0.0.1"), ("v6l", "fe80::1"), ("any", "0.0.0.0"), ("name", "localhost")]
                .map(|(name, address)| pod(name, address, "Running")),
        );
        objects.push(pod("done", "10.0.0.3", "Succeeded"));
        let state = state(&objects);
        for (id, expected) in [
            ("web", "10.0.0.1:8080"),
            ("web:9100", "10.0.0.1:9100"),
            (":web:9100", "10.0.0.1:9100"),
            ("https:web:443", "10.0.0.1:443!"),
            ("bare", "10.0.0.2:80"),
            ("https:bare:", "10.0.0.2:443!"),
            ("web:http", "400 invalid pod request \"web:http\""),
            ("web:0", "400 invalid pod request \"web:0\""),
            ("ftp:web:21", "400 invalid pod request \"ftp:web:21\""),
            ("a:b:c:d", "400 invalid pod request \"a:b:c:d\""),
            ("other", "404 pods \"other\" not found"),
            ("new", "503 pod \"new\" has no address yet"),
            ("done", "503 pod \"done\" has ended"),
            ("lo", "400 address not allowed"),
            ("link", "400 address not allowed"),
            ("v6", "400 address not allowed"),
            ("v6l", "400 address not allowed"),
            ("any", "400 address not allowed"),
            ("name", "400 address not allowed"),
        ] {
            assert_eq!(told(&format!("/api/v1/namespaces/a/pods/{id}/proxy/x"), &state), expected, "{id}");
        }
    }

    #[test]
    fn a_service_is_where_its_own_ready_pods_are() {
        let endpoint = |pod: &str, address: &str, ready: bool| json!({"addresses": [address], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "namespace": "a", "name": pod}});
        let slice = |name: &str, endpoints: Value| {
            let metadata = json!({"name": name, "namespace": "a", "labels": {"kubernetes.io/service-name": "web"}});
            (
                Kind::EndpointSlice,
                json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints,
                "ports": [{"name": "", "port": 8080}, {"name": "tls", "port": 8443}]}),
            )
        };
        let ports = json!([{"port": 80}, {"name": "tls", "port": 443, "targetPort": 8443}]);
        let service =
            |name: &str, ports: Value| (Kind::Service, json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"ports": ports}}));
        let mut objects = vec![service("web", ports), service("named", json!([{"name": "http", "port": 80}]))];
        objects.extend([("p", "10.0.0.1"), ("q", "10.0.0.2"), ("lo", "127.0.0.1")].map(|(name, address)| pod(name, address, "Running")));
        objects.push(pod("done", "10.0.0.3", "Failed"));
        let ask = |id: &str, objects: &[(Kind, Value)]| told(&format!("/api/v1/namespaces/a/services/{id}/proxy"), &state(objects));
        assert_eq!(ask("web", &objects), "503 no endpoints available for service \"web\"");
        let strangers = json!([endpoint("p", "10.9.9.9", true), endpoint("lo", "127.0.0.1", true), endpoint("q", "10.0.0.2", false),
            endpoint("done", "10.0.0.3", true), endpoint("gone", "10.0.0.4", true), {"addresses": ["10.0.0.1"]}]);
        objects.push(slice("strangers", strangers));
        assert_eq!(ask("web", &objects), "503 no endpoints available for service \"web\"", "whoever writes slices chooses no address");
        objects.push(slice("own", json!([endpoint("p", "10.0.0.1", true), endpoint("q", "10.0.0.2", true)])));
        for (id, expected) in [
            ("web", "10.0.0.1:8080 10.0.0.2:8080"),
            ("web:80", "10.0.0.1:8080 10.0.0.2:8080"),
            ("https:web:tls", "10.0.0.1:8443 10.0.0.2:8443!"),
            ("https:web:443", "10.0.0.1:8443 10.0.0.2:8443!"),
            ("web:8080", "503 no service port \"8080\" found for service \"web\""),
            ("web:http", "503 no service port \"http\" found for service \"web\""),
            ("named", "503 every port of service \"named\" has a name: say which, as named:NAME"),
            ("none", "404 services \"none\" not found"),
        ] {
            assert_eq!(ask(id, &objects), expected, "{id}");
        }
    }

    #[test]
    fn a_node_is_asked_by_its_api_and_else_at_its_address() {
        let node = |name: &str, status: Value| (Kind::Node, json!({"metadata": {"name": name}, "status": status}));
        let at = |address: &str| {
            json!({"addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10255}}})
        };
        let state = state(&[node("n", at("192.0.2.7")), node("lo", at("127.0.0.1")), node("bare", json!({}))]);
        for (id, expected) in [
            ("n", "node"),
            ("n:10255", "node"),
            ("https:n:10250", "192.0.2.7:10250!"),
            ("n:9100", "192.0.2.7:9100"),
            ("bare:10250", "node"),
            ("lo", "node"),
            ("lo:9100", "400 address not allowed"),
            ("bare:9100", "400 address not allowed"),
            ("x", "404 nodes \"x\" not found"),
        ] {
            assert_eq!(told(&format!("/api/v1/nodes/{id}/proxy/metrics"), &state), expected, "{id}");
        }
    }
}
