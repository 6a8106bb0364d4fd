//! Which lists merge by key and which maps are one value: Kubernetes' `x-kubernetes-*` extensions
//! for the kinds Podbay serves, as a table. PURE.

use serde_json::Value;

use super::fields::{Element, default_of};
use crate::model::Kind;

/// Field names from the object's root; items of lists add nothing.
pub(super) type Path<'a> = Vec<&'a str>;

/// How a value merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Field by field.
    Map,
    /// A list of maps, item by item under these keys.
    Keyed(&'static [&'static str]),
    /// A list of distinct scalars.
    Set,
    /// A whole: a scalar, an atomic list or an atomic map.
    Whole,
}

/// The shape of a value at a path. A list whose items break its own rule (a key that is missing or
/// twice there) is a whole.
pub(super) fn shape(kind: Kind, path: &[&str], value: &Value) -> Shape {
    match value {
        Value::Object(_) if is_atomic_map(kind, path) => Shape::Whole,
        Value::Object(_) => Shape::Map,
        Value::Array(items) => match list(kind, path) {
            Shape::Keyed(keys) if !distinct(keys, items) => Shape::Whole,
            Shape::Set if items.iter().any(|item| item.is_object() || item.is_array()) => Shape::Whole,
            shape => shape,
        },
        _ => Shape::Whole,
    }
}

fn distinct(keys: &[&str], items: &[Value]) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    items.iter().all(|item| {
        let named = keys.iter().all(|key| item.get(key).is_some_and(|value| !value.is_null()) || default_of(key).is_some());
        named && seen.insert(Element::of_item(keys, item))
    })
}

/// The shape of the list at a path.
pub(super) fn list(kind: Kind, path: &[&str]) -> Shape {
    let (parent, name) = match path {
        [.., parent, name] => (*parent, *name),
        [name] => ("", *name),
        [] => return Shape::Whole,
    };
    match name {
        "ownerReferences" => Shape::Keyed(&["uid"]),
        "finalizers" if parent == "metadata" => Shape::Set,
        "conditions" => Shape::Keyed(&["type"]),
        "ports" if kind == Kind::Service && parent == "spec" => Shape::Keyed(&["port", "protocol"]),
        "ports" if matches!(parent, "containers" | "initContainers" | "ephemeralContainers") => {
            Shape::Keyed(&["containerPort", "protocol"])
        }
        "podCIDRs" => Shape::Set,
        "addresses" if kind == Kind::Node => Shape::Keyed(&["type"]),
        "addresses" if kind == Kind::EndpointSlice => Shape::Set,
        "secrets" if kind == Kind::ServiceAccount => Shape::Keyed(&["name"]),
        "podIPs" => Shape::Keyed(&["ip"]),
        _ if has_pod_spec(kind) => pod_list(parent, name),
        "imagePullSecrets" if kind == Kind::ServiceAccount => Shape::Whole,
        _ => Shape::Whole,
    }
}

fn has_pod_spec(kind: Kind) -> bool {
    matches!(kind, Kind::Pod | Kind::ReplicaSet | Kind::Deployment | Kind::Job)
}

fn pod_list(parent: &str, name: &str) -> Shape {
    let in_container = matches!(parent, "containers" | "initContainers" | "ephemeralContainers");
    match name {
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" if parent == "spec" => Shape::Keyed(&["name"]),
        "imagePullSecrets" | "schedulingGates" | "resourceClaims" if parent == "spec" => Shape::Keyed(&["name"]),
        "hostAliases" => Shape::Keyed(&["ip"]),
        "topologySpreadConstraints" => Shape::Keyed(&["topologyKey", "whenUnsatisfiable"]),
        "env" if in_container => Shape::Keyed(&["name"]),
        "volumeMounts" if in_container => Shape::Keyed(&["mountPath"]),
        "volumeDevices" if in_container => Shape::Keyed(&["devicePath"]),
        "claims" if parent == "resources" => Shape::Keyed(&["name"]),
        _ => Shape::Whole,
    }
}

/// Maps of `x-kubernetes-map-type: atomic`.
fn is_atomic_map(kind: Kind, path: &[&str]) -> bool {
    let Some(name) = path.last() else { return false };
    match *name {
        "selector" => matches!(kind, Kind::Service | Kind::Deployment | Kind::ReplicaSet | Kind::Job) && path.len() == 2,
        "nodeSelector" | "labelSelector" | "namespaceSelector" | "ownerReferences" => true,
        "fieldRef" | "resourceFieldRef" | "configMapKeyRef" | "secretKeyRef" | "fileKeyRef" | "secretRef" => true,
        "imagePullSecrets" => true,
        "requiredDuringSchedulingIgnoredDuringExecution" => path.contains(&"nodeAffinity"),
        "involvedObject" | "related" | "targetRef" | "claimRef" | "roleRef" => true,
        _ => false,
    }
}
