//! What an update may not change. PURE.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Node, Pod, PodSpec, Secret, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{IMMUTABLE, SPEC, csi, persistent, role};
use crate::model::rule::{Errors, Path};
use crate::model::{Typed, pod};

const SET_IMMUTABLE: &str = "field is immutable when `immutable` is set";
pub(super) const POD: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn update(new: &Typed, old: &Typed, errors: &mut Errors) {
    match (new, old) {
        (Typed::Pod(new), Typed::Pod(old)) => pod(new, old, errors),
        (Typed::Deployment(new), Typed::Deployment(old)) if new.spec.selector != old.spec.selector => {
            errors.invalid(&SPEC.child("selector"), &new.spec.selector, IMMUTABLE);
        }
        (Typed::ReplicaSet(new), Typed::ReplicaSet(old)) if new.spec.selector != old.spec.selector => {
            errors.invalid(&SPEC.child("selector"), &new.spec.selector, IMMUTABLE);
        }
        (Typed::Job(new), Typed::Job(old)) => {
            if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
                job(new, old, errors);
            }
        }
        (Typed::CustomResourceDefinition(new), Typed::CustomResourceDefinition(old)) => super::definition::update(new, old, errors),
        (Typed::Service(new), Typed::Service(old)) => service(new, old, errors),
        (Typed::ConfigMap(new), Typed::ConfigMap(old)) => config_map(new, old, errors),
        (Typed::Secret(new), Typed::Secret(old)) => secret(new, old, errors),
        (Typed::Node(new), Typed::Node(old)) => node(new, old, errors),
        (Typed::RuntimeClass(new), Typed::RuntimeClass(old)) if new.handler != old.handler => {
            errors.invalid(&Path::root("handler"), &new.handler, IMMUTABLE);
        }
        (Typed::PersistentVolume(new), Typed::PersistentVolume(old)) => persistent::volume_update(new, old, errors),
        (Typed::PersistentVolumeClaim(new), Typed::PersistentVolumeClaim(old)) => persistent::claim_update(new, old, errors),
        (Typed::StorageClass(new), Typed::StorageClass(old)) => persistent::class_update(new, old, errors),
        (Typed::CSIDriver(new), Typed::CSIDriver(old)) => csi::driver_update(&new.spec, &old.spec, errors),
        (Typed::CSINode(new), Typed::CSINode(old)) => csi::node_update(&new.spec, &old.spec, errors),
        (Typed::EndpointSlice(new), Typed::EndpointSlice(old)) if new.address_type != old.address_type => {
            errors.invalid(&Path::root("addressType"), &new.address_type, IMMUTABLE);
        }
        (Typed::CertificateSigningRequest(new), Typed::CertificateSigningRequest(old)) if new.spec != old.spec => {
            errors.invalid(&SPEC, "", IMMUTABLE);
        }
        (Typed::ClusterRoleBinding(new), Typed::ClusterRoleBinding(old)) => role::role_ref(&new.role_ref, &old.role_ref, errors),
        (Typed::RoleBinding(new), Typed::RoleBinding(old)) => role::role_ref(&new.role_ref, &old.role_ref, errors),
        _ => {}
    }
}

fn pod(new: &Pod, old: &Pod, errors: &mut Errors) {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return };
    if new == old {
        return;
    }
    deadline(new, old, errors);
    let kept = old.tolerations.iter().flatten().all(|it| new.tolerations.iter().flatten().any(|other| other == it));
    if !kept {
        errors.forbidden(&SPEC.child("tolerations"), "existing toleration can not be modified except its tolerationSeconds");
    }
    if *old != munged(new, old) {
        errors.forbidden(&SPEC, POD);
    }
}

/// CPU and memory of containers that run may change, within the pod's class of service.
pub fn resize(new: &PodSpec, old: &PodSpec, errors: &mut Errors) {
    let class = pod::qos_class(new);
    if class != pod::qos_class(old) {
        errors.invalid(&SPEC, class.name(), "Pod QOS Class may not change as a result of resizing");
    }
    let lists = [("containers", &new.containers[..], &old.containers[..]), ("initContainers", inits(new), inits(old))];
    for (list, new, old) in lists {
        let list = SPEC.child(list);
        for (index, (new, old)) in new.iter().zip(old).enumerate() {
            let at = list.index(index);
            if new.resources != old.resources && list.to_string() == "spec.initContainers" && !pod::is_sidecar(old) {
                errors.forbidden(&at.child("resources"), "resources for non-sidecar init containers are immutable");
            }
            let (new, old) = (new.resources.clone().unwrap_or_default(), old.resources.clone().unwrap_or_default());
            amounts(new.limits.as_ref(), old.limits.as_ref(), &at.child("resources.limits"), "resource limits cannot be removed", errors);
            amounts(
                new.requests.as_ref(),
                old.requests.as_ref(),
                &at.child("resources.requests"),
                "resource requests cannot be removed",
                errors,
            );
        }
    }
}

fn inits(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

type Amounts = BTreeMap<String, Quantity>;

fn amounts(new: Option<&Amounts>, old: Option<&Amounts>, path: &Path<'_>, removed: &str, errors: &mut Errors) {
    let empty = Amounts::new();
    let (new, old) = (new.unwrap_or(&empty), old.unwrap_or(&empty));
    let names: std::collections::BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    for name in names {
        let changes = matches!(name.as_str(), "cpu" | "memory");
        match (new.get(name), old.get(name)) {
            (None, Some(_)) if changes => errors.forbidden(path, removed),
            (new, old) if !changes && new != old => errors.forbidden(path, "only cpu and memory resources are mutable"),
            _ => {}
        }
    }
}

/// Ephemeral containers are added to a pod; none changes or goes.
pub fn ephemeral_containers(new: &PodSpec, old: &PodSpec, errors: &mut Errors) {
    let at = SPEC.child("ephemeralContainers");
    for before in old.ephemeral_containers.iter().flatten() {
        let name = &before.name;
        match new.ephemeral_containers.iter().flatten().find(|it| it.name == *name) {
            None => errors.forbidden(&at, &format!("existing ephemeral containers {name:?} may not be removed")),
            Some(after) if after != before => {
                errors.forbidden(&at, &format!("existing ephemeral containers {name:?} may not be changed"));
            }
            Some(_) => {}
        }
    }
}

fn deadline(new: &PodSpec, old: &PodSpec, errors: &mut Errors) {
    let at = SPEC.child("activeDeadlineSeconds");
    match (old.active_deadline_seconds, new.active_deadline_seconds) {
        (Some(old), Some(new)) if new > old => {
            errors.invalid(&at, &new, &format!("must be less than or equal to previous value {old}"));
        }
        (Some(_), None) => errors.invalid(&at, &new.active_deadline_seconds, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

/// The new spec with everything taken back that may change: then it must be the old one.
fn munged(new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut spec = new.clone();
    let before = old.init_containers.iter().flatten().chain(&old.containers);
    if spec.containers.len() == old.containers.len()
        && spec.init_containers.as_ref().map(Vec::len) == old.init_containers.as_ref().map(Vec::len)
    {
        for (container, before) in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers).zip(before) {
            container.image.clone_from(&before.image);
        }
    }
    spec.active_deadline_seconds = old.active_deadline_seconds;
    spec.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|it| it < 0) && spec.termination_grace_period_seconds == Some(1) {
        spec.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    // Binding: once, from no node to one.
    if old.node_name.as_deref().is_none_or(str::is_empty) {
        spec.node_name.clone_from(&old.node_name);
    }
    spec
}

fn job(new: &JobSpec, old: &JobSpec, errors: &mut Errors) {
    if new.selector != old.selector {
        errors.invalid(&SPEC.child("selector"), &new.selector, IMMUTABLE);
    }
    if new.completions != old.completions {
        errors.invalid(&SPEC.child("completions"), &new.completions, IMMUTABLE);
    }
    if new.completion_mode != old.completion_mode {
        errors.invalid(&SPEC.child("completionMode"), &new.completion_mode, IMMUTABLE);
    }
    if new.template != old.template {
        errors.invalid(&SPEC.child("template"), &new.template, IMMUTABLE);
    }
}

fn service(new: &Service, old: &Service, errors: &mut Errors) {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return };
    let type_of = |spec: &k8s_openapi::api::core::v1::ServiceSpec| spec.type_.as_deref() == Some("ExternalName");
    if type_of(new) || type_of(old) {
        return;
    }
    let before = old.cluster_ip.as_deref().unwrap_or_default();
    if !before.is_empty() && new.cluster_ip.as_deref().unwrap_or_default() != before {
        errors.invalid(&SPEC.child("clusterIPs[0]"), &new.cluster_ips, "may not change once set");
    }
}

fn config_map(new: &ConfigMap, old: &ConfigMap, errors: &mut Errors) {
    immutable((new.immutable, new.data.as_ref()), (old.immutable, old.data.as_ref()), errors);
    if old.immutable == Some(true) && differ(new.binary_data.as_ref(), old.binary_data.as_ref()) {
        errors.forbidden(&Path::root("binaryData"), SET_IMMUTABLE);
    }
}

fn secret(new: &Secret, old: &Secret, errors: &mut Errors) {
    if new.type_ != old.type_ {
        errors.invalid(&Path::root("type"), &new.type_, IMMUTABLE);
    }
    immutable((new.immutable, new.data.as_ref()), (old.immutable, old.data.as_ref()), errors);
}

/// `immutable` and the data of a ConfigMap or Secret: once it is set, neither changes.
fn immutable<T: PartialEq>(new: Marked<'_, T>, old: Marked<'_, T>, errors: &mut Errors) {
    if old.0 != Some(true) {
        return;
    }
    if new.0 != Some(true) {
        errors.forbidden(&Path::root("immutable"), SET_IMMUTABLE);
    }
    if differ(new.1, old.1) {
        errors.forbidden(&Path::root("data"), SET_IMMUTABLE);
    }
}

type Marked<'a, T> = (Option<bool>, Option<&'a BTreeMap<String, T>>);

/// Maps that hold different things; an empty one is none.
fn differ<T: PartialEq>(new: Option<&BTreeMap<String, T>>, old: Option<&BTreeMap<String, T>>) -> bool {
    new.filter(|it| !it.is_empty()) != old.filter(|it| !it.is_empty())
}

fn node(new: &Node, old: &Node, errors: &mut Errors) {
    let range = |node: &Node| node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone()).filter(|it| !it.is_empty());
    if let Some(before) = range(old)
        && range(new).as_ref() != Some(&before)
    {
        errors.forbidden(&SPEC.child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
    }
}
