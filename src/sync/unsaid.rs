//! What a manifest may say and the cluster itself writes: it is left unsaid, or the two would write it in turns. PURE.
//!
//! - [`is_own`]: whole objects; their documents are left out
//! - [`take_out`]: fields of others
//! - [`beside`]: a Node's taints, one value with two writers

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::control::cluster_role::plan::gathers;
use crate::control::token_secret::plan::{FILLED_IN, is_token};
use crate::model::local_volume::VOLUMES;
use crate::model::ownership::{ManagedFields, Operation};
use crate::model::{ACCOUNT_UID, Key, Kind, Object, ROOT_CA};

/// Begins the annotations by which the Deployment controller counts.
const ROLLOUT: &str = "deployment.kubernetes.io/";
/// The labels that every node's agent writes.
const LABELS: [&str; 3] = ["kubernetes.io/os", "kubernetes.io/arch", "kubernetes.io/hostname"];
/// Begin the keys of the taints by which controllers and agents say how a node is.
const TAINTS: [&str; 2] = ["node.kubernetes.io/", "node.cloudprovider.kubernetes.io/"];

const ANNOTATIONS: &str = "/metadata/annotations";

/// Whether an object is the cluster's own, whatever a manifest says of it.
pub fn is_own(key: &Key) -> bool {
    match key.kind {
        Kind::ConfigMap => key.name == ROOT_CA,
        Kind::Service | Kind::EndpointSlice => key.namespace == "default" && key.name == "kubernetes",
        _ => false,
    }
}

/// What would be left unsaid of an object, for a person.
pub(super) fn told(object: &Object) -> Vec<String> {
    match object.kind() {
        Kind::Secret | Kind::Deployment | Kind::ReplicaSet | Kind::ClusterRole | Kind::Node => {
            let what = take_out(object, &mut object.value());
            what.into_iter().map(|what| format!("{}: {what} the cluster's to say", object.key())).collect()
        }
        _ => Vec::new(),
    }
}

/// Takes out of what a manifest says of an object what the cluster says; what that was.
pub(super) fn take_out(object: &Object, said: &mut Value) -> Vec<&'static str> {
    let mut out = Vec::new();
    match object.kind() {
        Kind::Secret if is_token(object) => {
            let data = drop_names(said, "/data", |name| FILLED_IN.contains(&name));
            if drop_names(said, ANNOTATIONS, |name| name == ACCOUNT_UID) || data {
                out.push("its token, certificate, namespace and the uid of its account are");
            }
        }
        Kind::Deployment | Kind::ReplicaSet if drop_names(said, ANNOTATIONS, |name| name.starts_with(ROLLOUT)) => {
            out.push("its annotations deployment.kubernetes.io/* are");
        }
        Kind::ClusterRole if gathers(object) => {
            let rules = said.as_object_mut().and_then(|role| role.remove("rules"));
            if rules.is_some_and(|rules| rules.as_array().is_some_and(|rules| !rules.is_empty())) {
                out.push("its rules, which it gathers, are");
            }
        }
        Kind::Node => {
            if drop_names(said, "/metadata/labels", |name| LABELS.contains(&name)) {
                out.push("its labels kubernetes.io/os, kubernetes.io/arch and kubernetes.io/hostname are");
            }
            if drop_names(said, ANNOTATIONS, |name| name == VOLUMES) {
                out.push("its annotation podbay.dev/volumes is");
            }
            if drop_taints(said) {
                out.push("its taints node.kubernetes.io/* and node.cloudprovider.kubernetes.io/* are");
            }
        }
        _ => {}
    }
    out
}

/// Takes names out of a map; whether there were any. A map of metadata of which nothing is left goes with them.
fn drop_names(said: &mut Value, path: &str, is_out: impl Fn(&str) -> bool) -> bool {
    let Some(map) = said.pointer_mut(path).and_then(Value::as_object_mut) else { return false };
    let before = map.len();
    map.retain(|name, _| !is_out(name));
    let (some, none_left) = (map.len() < before, map.is_empty());
    if some
        && none_left
        && let Some(name) = path.strip_prefix("/metadata/")
        && let Some(meta) = said["metadata"].as_object_mut()
    {
        meta.remove(name);
    }
    some
}

fn drop_taints(said: &mut Value) -> bool {
    let Some(taints) = said.pointer_mut("/spec/taints").and_then(Value::as_array_mut) else { return false };
    let before = taints.len();
    taints.retain(|taint| !is_clusters(taint));
    let (some, none_left) = (taints.len() < before, taints.is_empty());
    if some
        && none_left
        && let Some(spec) = said["spec"].as_object_mut()
    {
        spec.remove("taints");
    }
    some
}

fn is_clusters(taint: &Value) -> bool {
    taint["key"].as_str().is_some_and(|key| TAINTS.iter().any(|own| key.starts_with(own)))
}

/// What a manifest says, and of a live Node's taints, which are one value, those that the cluster says: as they are.
pub(super) fn beside<'v>(object: &Object, said: &'v Value, live: Option<&Value>, managed: &ManagedFields, manager: &str) -> Cow<'v, Value> {
    let Some(live) = live.filter(|_| object.kind() == Kind::Node) else { return Cow::Borrowed(said) };
    let (clusters, others): (Vec<Value>, Vec<Value>) = taints(live).unwrap_or_default().iter().cloned().partition(is_clusters);
    // What the source said before and no longer says must go, and nothing else.
    let is_owned = || managed.fields(manager, Operation::Apply).is_some_and(|own| own.paths().iter().any(|path| path == ".spec.taints"));
    if clusters.is_empty() || (taints(said).is_none() && !is_owned()) {
        return Cow::Borrowed(said);
    }
    let own: Vec<Value> = taints(said).unwrap_or_default().to_vec();
    // As they stand, where they are those: their order says nothing.
    let as_is = own.len() == others.len() && own.iter().zip(&others).all(|(own, other)| is_same(own, other));
    let all = if as_is { taints(live).unwrap_or_default().to_vec() } else { own.into_iter().chain(clusters).collect() };
    let mut node = said.clone();
    if !node["spec"].is_object() {
        node["spec"] = Value::Object(Map::new());
    }
    node["spec"]["taints"] = Value::Array(all);
    Cow::Owned(node)
}

fn taints(node: &Value) -> Option<&[Value]> {
    node.pointer("/spec/taints").and_then(Value::as_array).map(Vec::as_slice)
}

/// When a taint was put on is for the cluster to say, where git does not.
fn is_same(own: &Value, live: &Value) -> bool {
    ["key", "value", "effect"].iter().all(|field| own[field] == live[field])
        && own.get("timeAdded").is_none_or(|time| live.get("timeAdded") == Some(time))
}
