//! What a field means that was not written: Kubernetes' defaults. PURE.
//!
//! Applying them twice is applying them once. An empty string counts as absent where Kubernetes'
//! own types cannot tell the two apart.

mod autoscaler;
mod persistent;
mod pod;
mod webhook;
mod workload;

pub use autoscaler::{scale_down, scale_up};
pub use pod::api_access;
pub(crate) use pod::pull_policy;
pub use workload::JOB_LABELS;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ClientIPConfig, Namespace, Node, Secret, Service, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Typed;
use super::kind::RBAC;

/// The label that carries a namespace's name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Fills in every default of an object.
pub fn apply(object: &mut Typed) {
    match object {
        Typed::Namespace(it) => namespace(it),
        Typed::CustomResourceDefinition(it) => it.spec.set_defaults(),
        Typed::Node(it) => node(it),
        Typed::StorageClass(it) => persistent::class(it),
        Typed::CSIDriver(it) => persistent::driver(&mut it.spec),
        // Behind a gate of Kubernetes that is closed (alpha in 1.37): it is dropped there too.
        Typed::CSINode(it) => it.status = None,
        Typed::PersistentVolume(it) => persistent::volume(it),
        Typed::PersistentVolumeClaim(it) => it.spec.iter_mut().for_each(persistent::claim),
        Typed::Secret(it) => secret(it),
        Typed::Service(it) => service(it),
        Typed::Pod(it) => pod::pod(it),
        Typed::ReplicaSet(it) => workload::replica_set(it),
        Typed::Deployment(it) => workload::deployment(it),
        Typed::Job(it) => workload::job(it),
        Typed::HorizontalPodAutoscaler(it) => autoscaler::autoscaler(it),
        Typed::ClusterRoleBinding(it) => binding(&mut it.subjects, &mut it.role_ref),
        Typed::RoleBinding(it) => binding(&mut it.subjects, &mut it.role_ref),
        Typed::EndpointSlice(it) => endpoint_slice(it),
        Typed::MutatingWebhookConfiguration(it) => webhook::mutating(it),
        Typed::ValidatingWebhookConfiguration(it) => webhook::validating(it),
        Typed::RuntimeClass(_) | Typed::ServiceAccount(_) | Typed::ConfigMap(_) | Typed::Lease(_) | Typed::Event(_) | Typed::Source(_) => {}
        // `admit` knows its schema.
        Typed::Custom(_) => {}
        Typed::ClusterRole(_) | Typed::Role(_) | Typed::CertificateSigningRequest(_) => {}
    }
}

/// Sets a text that is absent or empty.
fn text(slot: &mut Option<String>, value: &str) {
    if slot.as_deref().is_none_or(str::is_empty) {
        *slot = Some(value.to_owned());
    }
}

fn namespace(it: &mut Namespace) {
    if let Some(name) = it.metadata.name.as_deref().filter(|name| !name.is_empty()) {
        let labels = it.metadata.labels.get_or_insert_default();
        if labels.get(NAMESPACE_NAME_LABEL).is_none_or(|found| found != name) {
            labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned());
        }
    }
}

fn node(it: &mut Node) {
    if let Some(status) = &mut it.status
        && status.allocatable.is_none()
    {
        status.allocatable.clone_from(&status.capacity);
    }
    if let Some(spec) = &mut it.spec
        && let Some(range) = spec.pod_cidr.as_ref().filter(|range| !range.is_empty())
        && spec.pod_cidrs.as_ref().is_none_or(Vec::is_empty)
    {
        spec.pod_cidrs = Some(vec![range.clone()]);
    }
}

/// `stringData` is a way to write, not to keep: it becomes `data`.
fn secret(it: &mut Secret) {
    text(&mut it.type_, "Opaque");
    if let Some(plain) = it.string_data.take()
        && !plain.is_empty()
    {
        it.data.get_or_insert_default().extend(plain.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))));
    }
}

fn service(it: &mut Service) {
    let spec = it.spec.get_or_insert_default();
    text(&mut spec.type_, "ClusterIP");
    text(&mut spec.session_affinity, "None");
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let config = spec.session_affinity_config.get_or_insert_with(SessionAffinityConfig::default);
            let client = config.client_ip.get_or_insert_with(ClientIPConfig::default);
            client.timeout_seconds.get_or_insert(10_800);
        }
        _ => {}
    }
    for port in spec.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
        if port.target_port.as_ref().is_none_or(is_zero) {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    let type_ = spec.type_.clone().unwrap_or_default();
    if type_ != "ExternalName" {
        addresses(spec);
        text(&mut spec.internal_traffic_policy, "Cluster");
    }
    if matches!(type_.as_str(), "NodePort" | "LoadBalancer") {
        text(&mut spec.external_traffic_policy, "Cluster");
    }
    if type_ == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}

fn is_zero(port: &IntOrString) -> bool {
    match port {
        IntOrString::Int(number) => *number == 0,
        IntOrString::String(name) => name.is_empty(),
    }
}

/// `clusterIP` and `clusterIPs` say the same; every address is IPv4.
fn addresses(spec: &mut ServiceSpec) {
    let single = spec.cluster_ip.clone().filter(|ip| !ip.is_empty());
    let first = spec.cluster_ips.as_ref().and_then(|ips| ips.first()).cloned().filter(|ip| !ip.is_empty());
    match (single, first) {
        (Some(single), None) => spec.cluster_ips = Some(vec![single]),
        (None, Some(first)) => spec.cluster_ip = Some(first),
        (None, None) => {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
        }
        (Some(_), Some(_)) => {}
    }
    text(&mut spec.ip_family_policy, "SingleStack");
    if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
        spec.ip_families = Some(vec!["IPv4".to_owned()]);
    }
}

/// Users and groups are RBAC's own words, service accounts are objects of the core.
fn binding(subjects: &mut Option<Vec<Subject>>, role: &mut RoleRef) {
    for subject in subjects.iter_mut().flatten().filter(|subject| matches!(subject.kind.as_str(), "User" | "Group")) {
        text(&mut subject.api_group, RBAC);
    }
    text(&mut role.api_group, RBAC);
}

fn endpoint_slice(it: &mut EndpointSlice) {
    for port in it.ports.iter_mut().flatten() {
        port.name.get_or_insert_default();
        text(&mut port.protocol, "TCP");
    }
}

#[cfg(test)]
mod tests;
