//! kubectl's own columns, per kind: what `kubectl get` shows. PURE.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Container, Event, Node, PodSpec, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::age::{human, since};
use super::{autoscaler_columns, pod_columns, storage_columns};
use crate::model::{Kind, Object, Source, Timestamp, Typed};

/// The names of a kind's columns; only `-o wide` shows those that end in a star.
pub fn columns(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespace => "Name, Status, Age",
        Kind::Node => "Name, Status, Roles, Age, Version, Internal-IP*, External-IP*, OS-Image*, Kernel-Version*, Container-Runtime*",
        Kind::RuntimeClass => "Name, Handler, Age",
        Kind::StorageClass => "Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age",
        Kind::CSIDriver => "Name, AttachRequired, PodInfoOnMount, StorageCapacity, TokenRequests, RequiresRepublish, Modes, Age",
        Kind::CSINode => "Name, Drivers, Age",
        Kind::PersistentVolume => {
            "Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, Reason, Age, VolumeMode*"
        }
        Kind::PersistentVolumeClaim => {
            "Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age, VolumeMode*"
        }
        Kind::ServiceAccount => "Name, Secrets, Age",
        Kind::Secret => "Name, Type, Data, Age",
        Kind::ConfigMap => "Name, Data, Age",
        Kind::ClusterRole | Kind::Role => "Name, Created At",
        Kind::ClusterRoleBinding | Kind::RoleBinding => "Name, Role, Age, Users*, Groups*, ServiceAccounts*",
        Kind::CertificateSigningRequest => "Name, Age, SignerName, Requestor, RequestedDuration, Condition",
        Kind::Service => "Name, Type, Cluster-IP, External-IP, Port(s), Age, Selector*",
        Kind::Pod => "Name, Ready, Status, Restarts, Age, IP*, Node*, Nominated Node*, Readiness Gates*",
        Kind::ReplicaSet => "Name, Desired, Current, Ready, Age, Containers*, Images*, Selector*",
        Kind::Deployment => "Name, Ready, Up-to-date, Available, Age, Containers*, Images*, Selector*",
        Kind::Job => "Name, Status, Completions, Duration, Age, Containers*, Images*, Selector*",
        Kind::HorizontalPodAutoscaler => "Name, Reference, Targets, MinPods, MaxPods, Replicas, Age",
        Kind::EndpointSlice => "Name, AddressType, Ports, Endpoints, Age",
        Kind::Lease => "Name, Holder, Age",
        Kind::Event => "Last Seen, Type, Reason, Object, Subobject*, Source*, Message, First Seen*, Count*, Name*",
        Kind::Source => "Name, Accepted, State, Age, From*, Fetched*, Objects*, Last Plan*",
        Kind::CustomResourceDefinition => "Name, Created At",
        Kind::MutatingWebhookConfiguration | Kind::ValidatingWebhookConfiguration => "Name, Webhooks, Age",
        Kind::Edition(_) => columns(kind.stored()),
        Kind::Custom(_) => "Name, Age",
    }
}

/// One cell a column.
pub fn cells(object: &Object, now: Timestamp) -> Vec<Value> {
    let name = json!(object.key().name);
    let age = json!(since(object.meta().creation_timestamp.as_ref().map(|time| time.0), now));
    match object.typed() {
        Typed::Namespace(it) => {
            let phase = it.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_else(|| "Active".to_owned());
            vec![name, phase.into(), age]
        }
        Typed::Node(it) => node(it, name, age),
        Typed::RuntimeClass(it) => vec![name, it.handler.clone().into(), age],
        Typed::StorageClass(it) => storage_columns::class(it, &object.key().name, age),
        Typed::CSIDriver(it) => storage_columns::driver(&it.spec, name, age),
        Typed::CSINode(it) => vec![name, it.spec.drivers.len().into(), age],
        Typed::PersistentVolume(it) => storage_columns::persistent_volume(it, name, age),
        Typed::PersistentVolumeClaim(it) => storage_columns::claim(it, name, age),
        Typed::ServiceAccount(it) => service_account(it, name, age),
        Typed::Secret(it) => {
            vec![name, it.type_.clone().unwrap_or_default().into(), it.data.as_ref().map_or(0, std::collections::BTreeMap::len).into(), age]
        }
        Typed::ConfigMap(it) => {
            let count = it.data.as_ref().map_or(0, std::collections::BTreeMap::len)
                + it.binary_data.as_ref().map_or(0, std::collections::BTreeMap::len);
            vec![name, count.into(), age]
        }
        Typed::ClusterRole(_) | Typed::Role(_) => {
            let created = object.meta().creation_timestamp.as_ref().map(|time| time.0.to_string());
            vec![name, or_none(created.unwrap_or_default())]
        }
        Typed::ClusterRoleBinding(it) => binding(name, age, &it.role_ref, it.subjects.as_deref().unwrap_or_default()),
        Typed::RoleBinding(it) => binding(name, age, &it.role_ref, it.subjects.as_deref().unwrap_or_default()),
        Typed::CertificateSigningRequest(it) => signing_request(it, name, age),
        Typed::Service(it) => service(it, name, age),
        Typed::Pod(it) => pod_columns::cells(it, name, age, now),
        Typed::ReplicaSet(it) => replica_set(it, name, age),
        Typed::Deployment(it) => deployment(it, name, age),
        Typed::Job(it) => job(it, name, age, now),
        Typed::HorizontalPodAutoscaler(it) => autoscaler_columns::cells(it, name, age),
        Typed::EndpointSlice(it) => endpoint_slice(it, name, age),
        Typed::Lease(it) => {
            let holder = it.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
            vec![name, holder.into(), age]
        }
        Typed::Event(it) => event(it, name, now),
        Typed::Source(it) => source(it, name, age),
        Typed::MutatingWebhookConfiguration(it) => vec![name, it.webhooks.as_ref().map_or(0, Vec::len).into(), age],
        Typed::ValidatingWebhookConfiguration(it) => vec![name, it.webhooks.as_ref().map_or(0, Vec::len).into(), age],
        Typed::CustomResourceDefinition(it) => {
            let created = it.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
            vec![name, created.unwrap_or_default().into()]
        }
        Typed::Custom(_) => vec![name, age],
    }
}

fn node(it: &Node, name: Value, age: Value) -> Vec<Value> {
    let status = it.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let mut state = match ready.map(|condition| condition.status.as_str()) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if it.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        state.push_str(",SchedulingDisabled");
    }
    let labels = it.metadata.labels.clone().unwrap_or_default();
    let roles: Vec<&str> = labels.keys().filter_map(|label| label.strip_prefix("node-role.kubernetes.io/")).collect();
    let roles = if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") };
    let address = |kind: &str| {
        let found = status.addresses.iter().flatten().find(|address| address.type_ == kind);
        found.map_or_else(|| "<none>".to_owned(), |address| address.address.clone())
    };
    let info = status.node_info.clone().unwrap_or_default();
    let known = |text: String| if text.is_empty() { "<unknown>".to_owned() } else { text };
    vec![
        name,
        state.into(),
        roles.into(),
        age,
        known(info.kubelet_version).into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        known(info.os_image).into(),
        known(info.kernel_version).into(),
        known(info.container_runtime_version).into(),
    ]
}

fn service_account(it: &ServiceAccount, name: Value, age: Value) -> Vec<Value> {
    vec![name, it.secrets.as_ref().map_or(0, Vec::len).into(), age]
}

fn binding(name: Value, age: Value, role: &RoleRef, subjects: &[Subject]) -> Vec<Value> {
    let named = |kind: &str| {
        let of_kind = subjects.iter().filter(|subject| subject.kind == kind);
        let names: Vec<String> = of_kind
            .map(|subject| match subject.namespace.as_deref().filter(|_| kind == "ServiceAccount") {
                Some(namespace) => format!("{namespace}/{}", subject.name),
                None => subject.name.clone(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![name, format!("{}/{}", role.kind, role.name).into(), age, named("User"), named("Group"), named("ServiceAccount")]
}

fn signing_request(it: &CertificateSigningRequest, name: Value, age: Value) -> Vec<Value> {
    let status = it.status.clone().unwrap_or_default();
    let has = |condition: &str| status.conditions.iter().flatten().any(|it| it.type_ == condition);
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied".to_owned(),
        (_, true) => "Approved".to_owned(),
        _ => "Pending".to_owned(),
    };
    let issued = status.certificate.as_ref().is_some_and(|certificate| !certificate.0.is_empty());
    for (is, word) in [(has("Failed"), ",Failed"), (issued, ",Issued")] {
        if is {
            state.push_str(word);
        }
    }
    let duration = it.spec.expiration_seconds.map(|seconds| human(i64::from(seconds))).unwrap_or_default();
    let signer = it.spec.signer_name.clone();
    vec![name, age, signer.into(), it.spec.username.clone().unwrap_or_default().into(), or_none(duration), state.into()]
}

fn or_none(text: String) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn pairs(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

fn service(it: &Service, name: Value, age: Value) -> Vec<Value> {
    let spec = it.spec.clone().unwrap_or_default();
    let kind = spec.type_.clone().unwrap_or_else(|| "ClusterIP".to_owned());
    let ports: Vec<String> = spec
        .ports
        .iter()
        .flatten()
        .map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            match port.node_port.filter(|&port| port > 0) {
                Some(node_port) => format!("{}:{node_port}/{protocol}", port.port),
                None => format!("{}/{protocol}", port.port),
            }
        })
        .collect();
    let mut external: Vec<String> = spec.external_ips.clone().unwrap_or_default();
    let ingress = it.status.as_ref().and_then(|status| status.load_balancer.as_ref()).and_then(|balancer| balancer.ingress.as_ref());
    if kind == "LoadBalancer" {
        external.extend(ingress.into_iter().flatten().filter_map(|point| point.ip.clone().or_else(|| point.hostname.clone())));
    }
    let external = match (kind.as_str(), external.is_empty()) {
        ("ExternalName", _) => spec.external_name.clone().unwrap_or_default(),
        ("LoadBalancer", true) => "<pending>".to_owned(),
        _ => external.join(","),
    };
    let cluster_ip = spec.cluster_ip.clone().unwrap_or_default();
    vec![name, kind.into(), or_none(cluster_ip), or_none(external), or_none(ports.join(",")), age, or_none(pairs(spec.selector.as_ref()))]
}

/// Names and images of a template's containers.
fn containers(spec: Option<&PodSpec>) -> (Value, Value) {
    let join = |of: fn(&Container) -> String| spec.iter().flat_map(|spec| &spec.containers).map(of).collect::<Vec<_>>().join(",");
    (join(|container| container.name.clone()).into(), join(|container| container.image.clone().unwrap_or_default()).into())
}

/// A label selector in kubectl's notation.
fn selector(selector: Option<&LabelSelector>) -> Value {
    let Some(selector) = selector else { return "<none>".into() };
    let mut terms: Vec<String> = selector.match_labels.iter().flatten().map(|(name, value)| format!("{name}={value}")).collect();
    for expression in selector.match_expressions.iter().flatten() {
        let values = expression.values.clone().unwrap_or_default().join(",");
        terms.push(match expression.operator.as_str() {
            "In" => format!("{} in ({values})", expression.key),
            "NotIn" => format!("{} notin ({values})", expression.key),
            "DoesNotExist" => format!("!{}", expression.key),
            _ => expression.key.clone(),
        });
    }
    or_none(terms.join(","))
}

fn replica_set(it: &ReplicaSet, name: Value, age: Value) -> Vec<Value> {
    let (spec, status) = (&it.spec, it.status.clone().unwrap_or_default());
    let (names, images) = containers(spec.template.as_ref().and_then(|template| template.spec.as_ref()));
    let ready = status.ready_replicas.unwrap_or(0);
    vec![name, spec.replicas.unwrap_or(1).into(), status.replicas.into(), ready.into(), age, names, images, selector(Some(&spec.selector))]
}

fn deployment(it: &Deployment, name: Value, age: Value) -> Vec<Value> {
    let (spec, status) = (&it.spec, it.status.clone().unwrap_or_default());
    let (names, images) = containers(spec.template.spec.as_ref());
    let ready = format!("{}/{}", status.ready_replicas.unwrap_or(0), spec.replicas.unwrap_or(1));
    let updated = status.updated_replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    vec![name, ready.into(), updated.into(), available.into(), age, names, images, selector(Some(&spec.selector))]
}

fn job(it: &Job, name: Value, age: Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (it.spec.clone().unwrap_or_default(), it.status.clone().unwrap_or_default());
    let holds = |kind: &str| status.conditions.iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True");
    let state = if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if it.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let succeeded = status.succeeded.unwrap_or(0);
    let completions = match (spec.completions, spec.parallelism.unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = status.start_time.as_ref().map_or_else(String::new, |start| {
        let end = status.completion_time.as_ref().map_or(now, |time| time.0);
        human(end.as_second() - start.0.as_second())
    });
    let (names, images) = containers(spec.template.spec.as_ref());
    vec![name, state.into(), completions.into(), duration.into(), age, names, images, selector(spec.selector.as_ref())]
}

/// At most three, then how many more.
fn few(all: &[String]) -> Value {
    if all.len() > 3 { format!("{} + {} more...", all[..3].join(","), all.len() - 3).into() } else { all.join(",").into() }
}

fn endpoint_slice(it: &EndpointSlice, name: Value, age: Value) -> Vec<Value> {
    let ports: Vec<String> =
        it.ports.iter().flatten().map(|port| port.port.map_or_else(|| "*".to_owned(), |port| port.to_string())).collect();
    let addresses: Vec<String> = it.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect();
    let unset = |all: &[String]| if all.is_empty() { "<unset>".into() } else { few(all) };
    vec![name, it.address_type.clone().into(), unset(&ports), unset(&addresses), age]
}

fn event(it: &Event, name: Value, now: Timestamp) -> Vec<Value> {
    let series = it.series.as_ref();
    let first = it.first_timestamp.as_ref().map(|time| time.0).or_else(|| it.event_time.as_ref().map(|time| time.0));
    let last = series.and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = last.or_else(|| it.last_timestamp.as_ref().map(|time| time.0)).or(first);
    let about = &it.involved_object;
    let object = format!("{}/{}", about.kind.clone().unwrap_or_default().to_lowercase(), about.name.clone().unwrap_or_default());
    let source = it.source.clone().unwrap_or_default();
    let component = source.component.or_else(|| it.reporting_component.clone()).unwrap_or_default();
    let source = match source.host.or_else(|| it.reporting_instance.clone()).filter(|host| !host.is_empty()) {
        Some(host) => format!("{component}, {host}"),
        None => component,
    };
    let count = series.and_then(|series| series.count).or(it.count).unwrap_or(1);
    vec![
        since(last, now).into(),
        it.type_.clone().unwrap_or_default().into(),
        it.reason.clone().unwrap_or_default().into(),
        object.into(),
        about.field_path.clone().unwrap_or_default().into(),
        source.into(),
        it.message.clone().unwrap_or_default().trim().into(),
        since(first, now).into(),
        count.into(),
        name,
    ]
}

fn source(it: &Source, name: Value, age: Value) -> Vec<Value> {
    let status = it.status.clone().unwrap_or_default();
    let short = |revision: Option<String>| {
        let revision = revision.unwrap_or_default();
        let revision = revision.strip_prefix("sha256:").unwrap_or(&revision);
        or_none(revision.chars().take(10).collect())
    };
    let state = match &status {
        _ if it.spec.suspend == Some(true) => "Suspended",
        status if status.pending_plan.is_some() => "WaitsForApproval",
        status if !status.errors.is_empty() => "Refused",
        status if status.accepted_revision.is_some() => "Accepted",
        _ => "Pending",
    };
    let from = it.spec.git.as_ref().map(|git| git.url.clone()).or_else(|| it.spec.directory.clone()).unwrap_or_default();
    vec![
        name,
        short(status.accepted_revision),
        state.into(),
        age,
        from.into(),
        short(status.fetched_revision),
        status.inventory.len().into(),
        status.last_plan.unwrap_or_default().into(),
    ]
}
