//! What a pod gets of its RuntimeClass when it is created: Kubernetes' admission plugin of that name. PURE.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::node::v1::RuntimeClass;

use crate::model::quantity::Quantity;
use crate::model::{Key, Kind};
use crate::store::snapshot::Snapshot;

/// Merges the class in.
///
/// # Errors
/// Why the pod is rejected.
pub(super) fn merge(pod: &mut Pod, state: &Snapshot) -> Result<(), String> {
    let Some(spec) = &mut pod.spec else { return Ok(()) };
    let name = spec.runtime_class_name.clone().filter(|name| !name.is_empty());
    let found = name.as_ref().and_then(|name| state.get(&Key::cluster(Kind::RuntimeClass, name.as_str())));
    let class = found.and_then(|found| found.get::<RuntimeClass>());
    if let (Some(name), None) = (&name, class) {
        return Err(format!("pod rejected: RuntimeClass \"{name}\" not found"));
    }
    overhead(spec, class)?;
    class.map_or(Ok(()), |class| scheduling(spec, class))
}

fn overhead(spec: &mut PodSpec, class: Option<&RuntimeClass>) -> Result<(), String> {
    let of_class = class.and_then(|class| class.overhead.as_ref()).map(|overhead| overhead.pod_fixed.clone().unwrap_or_default());
    let of_pod = spec.overhead.clone().filter(|overhead| !overhead.is_empty());
    match (of_class, of_pod) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned()),
        (Some(class), None) => {
            spec.overhead = Some(class);
            Ok(())
        }
        (Some(class), Some(pod)) => {
            let same = class.len() == pod.len()
                && class.iter().all(|(name, amount)| pod.get(name).is_some_and(|other| Quantity::of(other) == Quantity::of(amount)));
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            if same { Ok(()) } else { Err(why.to_owned()) }
        }
    }
}

fn scheduling(spec: &mut PodSpec, class: &RuntimeClass) -> Result<(), String> {
    let Some(scheduling) = &class.scheduling else { return Ok(()) };
    for (key, value) in scheduling.node_selector.iter().flatten() {
        let selector = spec.node_selector.get_or_insert_default();
        if let Some(own) = selector.get(key).filter(|own| *own != value) {
            let class = format!("runtimeClass.scheduling.nodeSelector[{key}] = {value}");
            return Err(format!("conflict: {class}; pod.spec.nodeSelector[{key}] = {own}"));
        }
        selector.insert(key.clone(), value.clone());
    }
    for toleration in scheduling.tolerations.iter().flatten() {
        let known = spec.tolerations.get_or_insert_default();
        if !known.contains(toleration) {
            known.push(toleration.clone());
        }
    }
    Ok(())
}
