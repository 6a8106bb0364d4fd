//! Which lists merge by key and which maps are one value: Kubernetes' `x-kubernetes-*` extensions
//! for the kinds Podbay serves, as a table, and those of custom kinds, from their schemas. PURE.

use serde_json::Value;

use super::fields::{Element, default_of};
use crate::model::Kind;
use crate::model::custom::{ListType, Schema};
use crate::model::webhook::CONFIGURATIONS;

/// Where the shapes of a kind's values stand: in this table, or in its schema.
#[derive(Clone, Copy, Debug)]
pub struct Shapes<'s> {
    pub kind: Kind,
    /// Of a custom kind; without it its lists are wholes.
    schema: Option<&'s Schema>,
}

impl<'s> Shapes<'s> {
    /// A custom kind with its schema.
    pub fn of_schema(kind: Kind, schema: &'s Schema) -> Self {
        Self { kind, schema: Some(schema) }
    }
}

impl From<Kind> for Shapes<'_> {
    fn from(kind: Kind) -> Self {
        Self { kind, schema: None }
    }
}

/// The merge keys of a list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keys<'s> {
    Table(&'static [&'static str]),
    /// With what an item may be.
    Schema(&'s [String], Option<&'s Schema>),
}

impl<'s> Keys<'s> {
    pub fn iter(self) -> impl Iterator<Item = &'s str> {
        let (table, schema) = match self {
            Self::Table(keys) => (keys, &[][..]),
            Self::Schema(keys, _) => (&[][..], keys),
        };
        table.iter().copied().chain(schema.iter().map(String::as_str))
    }

    /// What a key is that an item leaves out.
    pub fn default_of(self, key: &str) -> Option<Value> {
        match self {
            Self::Table(_) => default_of(key),
            Self::Schema(_, items) => items?.properties.get(key)?.default.clone(),
        }
    }
}

impl PartialEq for Keys<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// Field names from the object's root; items of lists add nothing.
pub(super) type Path<'a> = Vec<&'a str>;

/// How a value merges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape<'s> {
    /// Field by field.
    Map,
    /// A list of maps, item by item under these keys.
    Keyed(Keys<'s>),
    /// A list of distinct scalars.
    Set,
    /// A whole: a scalar, an atomic list or an atomic map.
    Whole,
}

/// The shape of a value at a path. A list whose items break its own rule (a key that is missing or
/// twice there) is a whole.
pub(super) fn shape<'s>(of: Shapes<'s>, path: &[&str], value: &Value) -> Shape<'s> {
    // Metadata is the same everywhere.
    let schema = of.schema.filter(|_| path.first() != Some(&"metadata"));
    match value {
        Value::Object(_) => {
            let atomic = match schema {
                Some(schema) => schema.at(path).is_some_and(|at| at.inside_lists().atomic_map),
                None => is_atomic_map(of.kind, path),
            };
            if atomic { Shape::Whole } else { Shape::Map }
        }
        Value::Array(items) => match schema.map_or_else(|| list(of.kind, path), |schema| list_of(schema, path)) {
            Shape::Keyed(keys) if !distinct(keys, items) => Shape::Whole,
            Shape::Set if items.iter().any(|item| item.is_object() || item.is_array()) => Shape::Whole,
            shape => shape,
        },
        _ => Shape::Whole,
    }
}

/// The shape of the list at a path of a custom kind.
fn list_of<'s>(schema: &'s Schema, path: &[&str]) -> Shape<'s> {
    let Some(at) = schema.at(path) else { return Shape::Whole };
    match &at.list {
        ListType::Map(keys) => Shape::Keyed(Keys::Schema(keys, at.items.as_deref())),
        ListType::Set => Shape::Set,
        ListType::Atomic => Shape::Whole,
    }
}

fn distinct(keys: Keys<'_>, items: &[Value]) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    items.iter().all(|item| {
        let named = keys.iter().all(|key| item.get(key).is_some_and(|value| !value.is_null()) || keys.default_of(key).is_some());
        named && seen.insert(Element::of_item(keys, item))
    })
}

/// The shape of the list at a path.
pub(super) fn list(kind: Kind, path: &[&str]) -> Shape<'static> {
    let kind = kind.stored();
    let (parent, name) = match path {
        [.., parent, name] => (*parent, *name),
        [name] => ("", *name),
        [] => return Shape::Whole,
    };
    match name {
        "ownerReferences" => keyed(&["uid"]),
        "finalizers" if parent == "metadata" => Shape::Set,
        "conditions" => keyed(&["type"]),
        "ports" if kind == Kind::Service && parent == "spec" => keyed(&["port", "protocol"]),
        "ports" if matches!(parent, "containers" | "initContainers" | "ephemeralContainers") => keyed(&["containerPort", "protocol"]),
        "podCIDRs" => Shape::Set,
        "addresses" if kind == Kind::Node => keyed(&["type"]),
        "addresses" if kind == Kind::EndpointSlice => Shape::Set,
        "secrets" if kind == Kind::ServiceAccount => keyed(&["name"]),
        "podIPs" => keyed(&["ip"]),
        "webhooks" | "matchConditions" if CONFIGURATIONS.contains(&kind) => keyed(&["name"]),
        _ if has_pod_spec(kind) => pod_list(parent, name),
        "imagePullSecrets" if kind == Kind::ServiceAccount => Shape::Whole,
        _ => Shape::Whole,
    }
}

fn has_pod_spec(kind: Kind) -> bool {
    matches!(kind, Kind::Pod | Kind::ReplicaSet | Kind::Deployment | Kind::Job)
}

const fn keyed(keys: &'static [&'static str]) -> Shape<'static> {
    Shape::Keyed(Keys::Table(keys))
}

fn pod_list(parent: &str, name: &str) -> Shape<'static> {
    let in_container = matches!(parent, "containers" | "initContainers" | "ephemeralContainers");
    match name {
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" if parent == "spec" => keyed(&["name"]),
        "imagePullSecrets" | "schedulingGates" | "resourceClaims" if parent == "spec" => keyed(&["name"]),
        "hostAliases" => keyed(&["ip"]),
        "topologySpreadConstraints" => keyed(&["topologyKey", "whenUnsatisfiable"]),
        "env" if in_container => keyed(&["name"]),
        "volumeMounts" if in_container => keyed(&["mountPath"]),
        "volumeDevices" if in_container => keyed(&["devicePath"]),
        "claims" if parent == "resources" => keyed(&["name"]),
        _ => Shape::Whole,
    }
}

/// Whether `spec.selector` is one thing.
fn is_selector(kind: Kind) -> bool {
    matches!(kind, Kind::Service | Kind::Deployment | Kind::ReplicaSet | Kind::Job | Kind::PersistentVolumeClaim)
}

/// Maps of `x-kubernetes-map-type: atomic`.
fn is_atomic_map(kind: Kind, path: &[&str]) -> bool {
    let (Some(name), kind) = (path.last(), kind.stored()) else { return false };
    match *name {
        "selector" => is_selector(kind) && path.len() == 2,
        "nodeSelector" | "labelSelector" | "namespaceSelector" | "objectSelector" | "ownerReferences" => true,
        "fieldRef" | "resourceFieldRef" | "configMapKeyRef" | "secretKeyRef" | "fileKeyRef" | "secretRef" => true,
        "imagePullSecrets" => true,
        "requiredDuringSchedulingIgnoredDuringExecution" | "required" => path.contains(&"nodeAffinity"),
        "involvedObject" | "related" | "targetRef" | "claimRef" | "roleRef" => true,
        _ => false,
    }
}
