//! Kubernetes' Pod Security admission: the labels `pod-security.kubernetes.io/*` of a namespace say how much the pods in it
//! may ask of their host (the levels and their checks: Kubernetes' "Pod Security Standards"). PURE.
//!
//! - `check`: the checks, each a name and what breaks it

mod check;

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::pod_security::{LABEL, Level};
use crate::model::{Key, Kind, Object, Typed};
use crate::store::snapshot::Snapshot;
pub use check::violations;

/// The level of a namespace for one mode, and the version it names. Another word, as only a namespace of an earlier version has it,
/// leaves nothing open.
fn level(namespace: &Object, mode: &str) -> (Level, String) {
    let of = |name: String| namespace.labels().get(&name).map(String::as_str);
    let level = of(format!("{LABEL}{mode}")).map_or(Level::Privileged, |word| Level::of(word).unwrap_or(Level::Restricted));
    (level, of(format!("{LABEL}{mode}-version")).unwrap_or("latest").to_owned())
}

/// Whether a pod may be in its namespace.
///
/// # Errors
/// The sentence for a 403.
pub(super) fn admit(pod: &Pod, state: &Snapshot) -> Result<(), String> {
    let home = Key::cluster(Kind::Namespace, pod.metadata.namespace.clone().unwrap_or_default());
    let (Some(namespace), Some(spec)) = (state.get(&home), &pod.spec) else { return Ok(()) };
    let (level, version) = level(namespace, "enforce");
    let found = violations(level, &pod.metadata, spec);
    if found.is_empty() { Ok(()) } else { Err(format!("violates PodSecurity \"{}:{version}\": {}", level.word(), found.join(", "))) }
}

/// What a writer is told besides: a pod, or pods by a template, that the level of `warn` forbids; pods that are already in a
/// namespace whose `enforce` forbids them from now on.
pub fn warnings(object: &Object, current: Option<&Object>, state: &Snapshot) -> Vec<String> {
    if object.kind() == Kind::Namespace {
        return current.map(|current| left_behind(object, current, state)).unwrap_or_default();
    }
    let home = Key::cluster(Kind::Namespace, object.key().namespace.as_str());
    let (Some(namespace), Some((meta, spec))) = (state.get(&home), pods_of(object)) else { return vec![] };
    let (level, version) = level(namespace, "warn");
    let found = violations(level, meta, spec);
    if found.is_empty() {
        return vec![];
    }
    vec![format!("would violate PodSecurity \"{}:{version}\": {}", level.word(), found.join(", "))]
}

/// What the object's pods are: itself, or by its template.
fn pods_of(object: &Object) -> Option<(&ObjectMeta, &PodSpec)> {
    static NONE: LazyLock<ObjectMeta> = LazyLock::new(ObjectMeta::default);
    let template = match object.typed() {
        Typed::Pod(pod) => return Some((&pod.metadata, pod.spec.as_ref()?)),
        Typed::ReplicaSet(it) => it.spec.template.as_ref()?,
        Typed::Deployment(it) => &it.spec.template,
        Typed::Job(it) => &it.spec.as_ref()?.template,
        _ => return None,
    };
    Some((template.metadata.as_ref().unwrap_or(&NONE), template.spec.as_ref()?))
}

fn left_behind(namespace: &Object, current: &Object, state: &Snapshot) -> Vec<String> {
    let (now, version) = level(namespace, "enforce");
    if now <= level(current, "enforce").0 {
        return vec![];
    }
    let name = &namespace.key().name;
    let pods = state.list_in(Kind::Pod, name).filter_map(|object| object.get::<Pod>().and_then(|pod| Some((pod, pod.spec.as_ref()?))));
    let mut broken = pods.filter_map(|(pod, spec)| {
        let found = violations(now, &pod.metadata, spec);
        let names: Vec<&str> = found.iter().map(|text| text.split(" (").next().unwrap_or(text)).collect();
        (!found.is_empty()).then(|| format!("{}: {}", pod.metadata.name.as_deref().unwrap_or_default(), names.join(", ")))
    });
    let mut all: Vec<String> = broken.by_ref().take(SHOWN).collect();
    if all.is_empty() {
        return vec![];
    }
    if broken.next().is_some() {
        all.push("and others".to_owned());
    }
    let mut told =
        vec![format!("existing pods in namespace \"{name}\" violate the new PodSecurity enforce level \"{}:{version}\"", now.word())];
    told.extend(all);
    told
}

/// Pods named in a warning.
const SHOWN: usize = 10;

#[cfg(test)]
mod tests;
