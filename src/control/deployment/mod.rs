//! Deployment: one ReplicaSet a template, rolled from the old ones to the newest.

pub mod plan;
pub mod rolling;
pub mod status;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;

use crate::control::claim;
use crate::model::pod::{self, Availability};
use crate::model::selector::Selector;
use crate::model::{Key, Kind, Object, Timestamp, Typed};
use crate::plan::{Controller, Heeds, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        match (object.kind(), object.controller()) {
            (Kind::Deployment, _) => vec![object.key().clone()],
            (Kind::ReplicaSet, Some(_)) => owner_of(object).into_iter().collect(),
            // The decision counts pods: a set whose status is the same again tells nobody that they changed.
            (Kind::Pod, Some(owner)) if owner.kind == Kind::ReplicaSet.name() => {
                let set = state.find(Kind::ReplicaSet, &object.key().namespace, &owner.name);
                set.and_then(owner_of).into_iter().collect()
            }
            (Kind::ReplicaSet, None) => claim::adopters(state, Kind::Deployment, object, selector),
            _ => Vec::new(),
        }
    }

    fn heeds(&self, _state: &Snapshot, before: &Object, after: &Object) -> Heeds {
        if before.controller() != after.controller() || after.controller().is_none() {
            Heeds::Both
        } else if is_the_same(before, after) {
            Heeds::Nothing
        } else {
            Heeds::After
        }
    }

    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan {
        match state.get(key) {
            Some(object) => plan::plan(&observe(state, object, now), now),
            None => Plan::default(),
        }
    }
}

/// Whether a pod or a set is to a Deployment what it was: it counts pods, and of a set's status it repeats the conditions.
fn is_the_same(before: &Object, after: &Object) -> bool {
    match (before.typed(), after.typed()) {
        (Typed::Pod(before), Typed::Pod(after)) => pod::standing(before) == pod::standing(after),
        (Typed::ReplicaSet(was), Typed::ReplicaSet(is)) => {
            let (old, new) = (&was.metadata, &is.metadata);
            let named = old.labels == new.labels && old.annotations == new.annotations && before.is_deleting() == after.is_deleting();
            let said = was.status.iter().flat_map(|it| it.conditions.iter().flatten());
            named && was.spec == is.spec && said.eq(is.status.iter().flat_map(|it| it.conditions.iter().flatten()))
        }
        _ => false,
    }
}

/// The Deployment that controls a set.
fn owner_of(set: &Object) -> Option<Key> {
    let owner = set.controller().filter(|owner| owner.kind == Kind::Deployment.name())?;
    Some(Key::new(Kind::Deployment, set.key().namespace.as_str(), owner.name.as_str()))
}

fn selector(object: &Object) -> Option<Selector> {
    let spec = &object.get::<Deployment>()?.spec;
    Selector::of(&spec.selector).ok().filter(|selector| !selector.is_everything())
}

fn observe<'a>(state: &'a Snapshot, deployment: &'a Object, now: Timestamp) -> plan::Observed<'a> {
    let selector = selector(deployment);
    let claims = selector.as_ref().map(|selector| claim::claims(state, deployment, Kind::ReplicaSet, selector)).unwrap_or_default();
    let sets = claims.owned.iter().filter_map(|set| plan::Set::new(set, count(state, set, now))).collect();
    plan::Observed { state, deployment, selector, claims, sets }
}

/// Counts the pods themselves: a ReplicaSet's status may lag behind them.
fn count(state: &Snapshot, set: &Object, now: Timestamp) -> plan::Pods {
    let min_ready = set.get::<ReplicaSet>().and_then(|set| set.spec.min_ready_seconds).unwrap_or(0);
    let mut pods = plan::Pods::default();
    for pod in claim::owned(state, set, Kind::Pod).filter_map(Object::get::<Pod>).filter(|pod| !pod::is_terminal(pod)) {
        if pod::is_deleting(pod) {
            pods.terminating += 1;
            continue;
        }
        pods.active += 1;
        match pod::availability(pod, min_ready, now) {
            Availability::Available => {
                pods.ready += 1;
                pods.available += 1;
            }
            Availability::From(at) => {
                pods.ready += 1;
                pods.next_available = Some(pods.next_available.map_or(at, |earlier| earlier.min(at)));
            }
            Availability::NotReady => {}
        }
    }
    pods
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_wakes_the_deployment_of_its_set() {
        let owner =
            |kind: &str, name: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": name, "controller": true}]);
        let metadata = |name: &str, owners: serde_json::Value| json!({"metadata": {"name": name, "namespace": "web", "uid": name, "ownerReferences": owners}});
        let object = |kind: Kind, value: serde_json::Value| Object::from_value(kind, value).expect("an object");
        let mut state = Snapshot::default();
        let mut set = metadata("shop-1", owner("Deployment", "shop"));
        set["spec"] = json!({"selector": {"matchLabels": {"app": "shop"}}});
        state.insert(object(Kind::ReplicaSet, set));
        let of = |owners| Deployments.keys(&state, &object(Kind::Pod, metadata("shop-1-a", owners)));
        assert_eq!(of(owner("ReplicaSet", "shop-1")), [Key::new(Kind::Deployment, "web", "shop")]);
        assert_eq!(of(owner("ReplicaSet", "gone")), []);
        assert_eq!(of(owner("Job", "shop-1")), []);
    }
}
