//! Whether this node has room for what a pod's containers are to have from now on. PURE.
//!
//! As the kubelet's allocation manager (Kubernetes 1.33, `pkg/kubelet/allocation`): more than the node can ever give is
//! `Infeasible`, more than the other pods leave is `Deferred`, and until it is given the containers have what they had.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::observed::ObservedPod;
use super::resources::{RESIZABLE, told};
use crate::model::pod::{self as model, DEFERRED, INFEASIBLE, Resources};
use crate::model::quantity::Quantity;
use crate::plan::Reason;

/// What a pod asks, what the others have, what the node offers: why it does not fit, in the kubelet's words.
pub fn judge(wanted: &Resources, others: &Resources, offered: &BTreeMap<String, ApiQuantity>) -> Option<Reason> {
    let count = |name: &str, amount: Quantity| if name == "cpu" { amount.millis() } else { amount.bytes() };
    let of = |all: &Resources, name: &str| count(name, all.get(name).copied().unwrap_or(Quantity::ZERO));
    let sizes = RESIZABLE.map(|name| {
        let capacity = offered.get(name).map_or(0, |amount| count(name, Quantity::of(amount)));
        (name, of(wanted, name), of(others, name), capacity)
    });
    // Memory is told first where both are too much.
    if let Some((name, requested, _, capacity)) = sizes.iter().rev().find(|(_, requested, _, capacity)| requested > capacity) {
        let message = format!("Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}");
        return Some(Reason::new(INFEASIBLE, message));
    }
    let lacks = |(_, requested, used, capacity): &&(&str, i64, i64, i64)| *requested > 0 && *requested > capacity.saturating_sub(*used);
    sizes.iter().find(lacks).map(|(name, requested, used, capacity)| {
        let message = format!("Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}");
        Reason::new(DEFERRED, message)
    })
}

/// The pod with what its containers have where they are to have something else; `None`: they have what they are to have.
pub fn as_it_is(pod: &Pod, seen: &ObservedPod) -> Option<Pod> {
    let has = |container: &Container| {
        let has = seen.latest(&container.name).and_then(|found| seen.resources(found))?;
        if *has == told(container) { None } else { serde_json::from_str::<ResourceRequirements>(has).ok() }
    };
    let spec = pod.spec.as_ref()?;
    if !model::all_containers(spec).any(|container| has(container).is_some()) {
        return None;
    }
    let mut pod = pod.clone();
    let spec = pod.spec.get_or_insert_default();
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if let Some(has) = has(container) {
            let resources = container.resources.get_or_insert_default();
            replace(&mut resources.limits, has.limits.as_ref());
            replace(&mut resources.requests, has.requests.as_ref());
        }
    }
    Some(pod)
}

fn replace(amounts: &mut Option<BTreeMap<String, ApiQuantity>>, with: Option<&BTreeMap<String, ApiQuantity>>) {
    let others = amounts.take().into_iter().flatten().filter(|(name, _)| !RESIZABLE.contains(&name.as_str()));
    let all: BTreeMap<_, _> = others.chain(with.into_iter().flatten().map(|(name, amount)| (name.clone(), amount.clone()))).collect();
    *amounts = Some(all).filter(|all| !all.is_empty());
}

/// What containers are known to have by the pod's status, by their ids: what a process before this one gave them.
pub fn given_before(status: &PodStatus) -> BTreeMap<String, String> {
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let one = |status: &k8s_openapi::api::core::v1::ContainerStatus| {
        let (_, id) = status.container_id.as_deref()?.split_once("://")?;
        Some((id.to_owned(), serde_json::to_string(status.resources.as_ref()?).ok()?))
    };
    all.filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn amounts(value: Value) -> BTreeMap<String, ApiQuantity> {
        serde_json::from_value(value).unwrap()
    }

    fn sizes(value: Value) -> Resources {
        amounts(value).iter().map(|(name, amount)| (name.clone(), Quantity::of(amount))).collect()
    }

    #[test]
    fn what_a_node_has_not_or_has_not_now() {
        let offered = amounts(json!({"cpu": "4", "memory": "1Ki"}));
        for (wanted, others, expected) in [
            (json!({"cpu": "3"}), json!({"cpu": "1"}), ""),
            (json!({"cpu": "4", "memory": "1Ki"}), json!({}), ""),
            (json!({}), json!({"cpu": "9", "memory": "9Ki"}), ""),
            (json!({"cpu": "4001m"}), json!({}), "Infeasible: Node didn't have enough capacity: cpu, requested: 4001, capacity: 4000"),
            (
                json!({"cpu": "5", "memory": "2Ki"}),
                json!({}),
                "Infeasible: Node didn't have enough capacity: memory, requested: 2048, capacity: 1024",
            ),
            (
                json!({"cpu": "3001m"}),
                json!({"cpu": "1"}),
                "Deferred: Node didn't have enough resource: cpu, requested: 3001, used: 1000, capacity: 4000",
            ),
            (
                json!({"cpu": "1", "memory": "1"}),
                json!({"memory": "1Ki"}),
                "Deferred: Node didn't have enough resource: memory, requested: 1, used: 1024, capacity: 1024",
            ),
        ] {
            let said = judge(&sizes(wanted.clone()), &sizes(others.clone()), &offered);
            assert_eq!(said.map(|why| why.to_string()).unwrap_or_default(), expected, "{wanted} beside {others}");
        }
        assert_eq!(judge(&sizes(json!({"cpu": "1"})), &sizes(json!({})), &BTreeMap::new()).unwrap().code, INFEASIBLE);
    }

    #[test]
    fn what_was_given_is_known_from_the_status() {
        let status: PodStatus = serde_json::from_value(json!({"containerStatuses": [
            {"name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "containerID": "podbay://1",
             "resources": {"requests": {"cpu": "2"}}},
            {"name": "b", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "containerID": "podbay://2"},
        ]}))
        .unwrap();
        let container =
            serde_json::from_value(json!({"name": "a", "resources": {"requests": {"cpu": "2", "example.com/x": "1"}}})).unwrap();
        assert_eq!(given_before(&status), BTreeMap::from([("1".to_owned(), told(&container))]));
    }
}
