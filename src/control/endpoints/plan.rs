//! Which pods a Service's slices list. An endpoint keeps its slice, so that one pod's change
//! rewrites one slice.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::control::naming;
use crate::model::{Key, Kind, Object, pod};
use crate::plan::{Op, Plan};
use crate::store::snapshot::Snapshot;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const OURS: &str = "endpointslice-controller.k8s.io";
/// Endpoints a slice holds at most: Kubernetes' default.
pub const SLICE_SIZE: usize = 100;

/// What a Service's endpoints rest on.
pub struct Observed<'a> {
    pub state: &'a Snapshot,
    pub key: &'a Key,
    pub service: Option<&'a Object>,
    /// Whether the Service has a selector: others' endpoints are left alone.
    pub selects: bool,
    pub pods: Vec<Object>,
    pub slices: Vec<Object>,
}

pub fn is_ours(slice: &Object) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == OURS)
}

/// The address of a pod that can be an endpoint.
pub fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref().filter(|address| !address.is_empty())
}

type Ports = Vec<EndpointPort>;

pub fn plan(seen: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    let service = seen.service.and_then(|object| object.get::<Service>().map(|service| (object, service)));
    let mut wanted = match service {
        Some((_, service)) if seen.selects => wanted(seen, service),
        _ => Vec::new(),
    };
    // Slices of a set of ports that no pod has any more come last and end up empty.
    let mut left: Vec<&Object> = Vec::new();
    let mut groups: Vec<Vec<&Object>> = vec![Vec::new(); wanted.len()];
    for slice in &seen.slices {
        let ports = slice.get::<EndpointSlice>().and_then(|it| it.ports.clone()).unwrap_or_default();
        match wanted.iter().position(|(known, _)| *known == ports) {
            Some(at) => groups[at].push(slice),
            None => left.push(slice),
        }
    }
    for slice in left {
        plan.ops.push(Op::Delete { before: slice.clone(), grace_seconds: None });
    }
    let Some((object, service)) = service else { return plan };
    let mut made: Vec<String> = Vec::new();
    for ((ports, endpoints), slices) in wanted.drain(..).zip(groups) {
        fill(seen, object, service, &ports, endpoints, &slices, &mut made, &mut plan);
    }
    plan
}

/// The endpoints by target (pod UID), grouped by the ports their pods offer.
fn wanted(seen: &Observed<'_>, service: &Service) -> Vec<(Ports, BTreeMap<String, Endpoint>)> {
    let spec = service.spec.as_ref();
    let publish = spec.and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let no_ports = Vec::new();
    let service_ports = spec.and_then(|spec| spec.ports.as_ref()).unwrap_or(&no_ports);
    let mut groups: Vec<(Ports, BTreeMap<String, Endpoint>)> = Vec::new();
    for object in &seen.pods {
        let Some(pod) = object.get::<Pod>().filter(|pod| !pod::is_terminal(pod)) else { continue };
        let Some(address) = address(pod) else { continue };
        let ports: Ports = service_ports.iter().filter_map(|port| resolve(port, pod)).collect();
        let endpoint = endpoint(object, pod, address, publish, seen.key);
        let at = groups.iter().position(|(known, _)| *known == ports).unwrap_or_else(|| {
            groups.push((ports, BTreeMap::new()));
            groups.len() - 1
        });
        groups[at].1.insert(object.key().name.clone(), endpoint);
    }
    if groups.is_empty() {
        // One empty slice says that the Service is known and has no endpoints.
        let fixed = service_ports.iter().filter_map(|port| resolve(port, &Pod::default())).collect();
        groups.push((fixed, BTreeMap::new()));
    }
    groups.sort_by_cached_key(|(ports, _)| serde_json::to_string(ports).unwrap_or_default());
    groups
}

/// The port of a pod behind a Service's port.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<EndpointPort> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten().filter(|init| pod::is_sidecar(init));
            let mut ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            let named = |it: &&k8s_openapi::api::core::v1::ContainerPort| {
                it.name.as_deref() == Some(name) && it.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            ports.find(named)?.container_port
        }
    };
    Some(EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(protocol),
        app_protocol: port.app_protocol.clone(),
    })
}

fn endpoint(object: &Object, pod: &Pod, address: &str, publish: bool, service: &Key) -> Endpoint {
    let (serving, terminating) = (pod::is_ready(pod), pod::is_deleting(pod));
    let spec = pod.spec.as_ref();
    let named = spec.filter(|spec| spec.subdomain.as_deref() == Some(&service.name));
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: named.and_then(|spec| spec.hostname.clone()),
        node_name: spec.and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(object.key().namespace.clone()),
            name: Some(object.key().name.clone()),
            uid: Some(object.uid().to_owned()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn target(endpoint: &Endpoint) -> &str {
    endpoint.target_ref.as_ref().and_then(|target| target.name.as_deref()).unwrap_or_default()
}

/// Brings the slices of one set of ports to the wanted endpoints.
#[allow(clippy::too_many_arguments)] // all of one decision
fn fill(
    seen: &Observed<'_>,
    object: &Object,
    service: &Service,
    ports: &Ports,
    mut endpoints: BTreeMap<String, Endpoint>,
    slices: &[&Object],
    made: &mut Vec<String>,
    plan: &mut Plan,
) {
    let mut kept: Vec<(&Object, BTreeMap<String, Endpoint>)> = Vec::new();
    for slice in slices {
        let listed = slice.get::<EndpointSlice>().and_then(|it| it.endpoints.as_ref()).into_iter().flatten();
        let mut own = BTreeMap::new();
        for name in listed.map(target) {
            if own.len() < SLICE_SIZE
                && let Some(endpoint) = endpoints.remove(name)
            {
                own.insert(name.to_owned(), endpoint);
            }
        }
        kept.push((slice, own));
    }
    for (_, own) in &mut kept {
        while own.len() < SLICE_SIZE
            && let Some((name, endpoint)) = endpoints.pop_first()
        {
            own.insert(name, endpoint);
        }
    }
    let mut needed = kept.iter().any(|(_, own)| !own.is_empty()) || !endpoints.is_empty();
    for (slice, own) in kept {
        if own.is_empty() && needed {
            plan.ops.push(Op::Delete { before: slice.clone(), grace_seconds: None });
            continue;
        }
        needed = true;
        let Some(current) = slice.get::<EndpointSlice>() else { continue };
        let after = filled(object, service, ports, current.metadata.clone(), own);
        if *current != after {
            plan.ops.push(Op::Update { before: slice.clone(), after: Object::new(after) });
        }
    }
    while !endpoints.is_empty() || !needed {
        needed = true;
        let mut own = BTreeMap::new();
        while own.len() < SLICE_SIZE
            && let Some((name, endpoint)) = endpoints.pop_first()
        {
            own.insert(name, endpoint);
        }
        let meta = ObjectMeta {
            name: Some(free_name(seen, made)),
            generate_name: Some(format!("{}-", seen.key.name)),
            namespace: Some(seen.key.namespace.clone()),
            ..ObjectMeta::default()
        };
        plan.ops.push(Op::Create(Object::new(filled(object, service, ports, meta, own))));
    }
}

fn filled(object: &Object, service: &Service, ports: &Ports, mut meta: ObjectMeta, own: BTreeMap<String, Endpoint>) -> EndpointSlice {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), object.key().name.clone());
    labels.insert(MANAGED_BY.to_owned(), OURS.to_owned());
    meta.labels = Some(labels);
    meta.owner_references = Some(vec![naming::owner_reference(object)]);
    EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: Some(own.into_values().collect()),
        metadata: meta,
        ports: Some(ports.clone()),
    }
}

fn free_name(seen: &Observed<'_>, made: &mut Vec<String>) -> String {
    let mut index: u64 = 0;
    loop {
        let parts: [&[u8]; 2] = [seen.key.name.as_bytes(), &index.to_be_bytes()];
        let name = format!("{}-{}", seen.key.name, naming::suffix(&parts, 5));
        let taken = seen.state.get(&Key::new(Kind::EndpointSlice, seen.key.namespace.clone(), name.clone())).is_some();
        if !taken && !made.contains(&name) {
            made.push(name.clone());
            return name;
        }
        index += 1;
    }
}
