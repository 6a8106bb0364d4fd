//! Deployment: one ReplicaSet a template, rolled from the old ones to the newest.

pub mod plan;
pub mod rolling;
pub mod status;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;

use crate::control::claim;
use crate::model::pod::{self, Availability};
use crate::model::selector::Selector;
use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Plan};
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
            (Kind::ReplicaSet, Some(owner)) if owner.kind == Kind::Deployment.name() => {
                vec![Key::new(Kind::Deployment, object.key().namespace.clone(), owner.name.clone())]
            }
            (Kind::ReplicaSet, None) => claim::adopters(state, Kind::Deployment, object, selector),
            _ => Vec::new(),
        }
    }

    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan {
        match state.get(key) {
            Some(object) => plan::plan(&observe(state, object, now), now),
            None => Plan::default(),
        }
    }
}

fn selector(object: &Object) -> Option<Selector> {
    let spec = &object.get::<Deployment>()?.spec;
    Selector::of(&spec.selector).ok().filter(|selector| !selector.is_everything())
}

fn observe<'a>(state: &'a Snapshot, deployment: &'a Object, now: Timestamp) -> plan::Observed<'a> {
    let selector = selector(deployment);
    let claims = selector.as_ref().map(|selector| claim::claims(state, deployment, Kind::ReplicaSet, selector)).unwrap_or_default();
    let sets = claims.owned.iter().map(|set| plan::Set::new(set.clone(), count(state, set, now))).collect();
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
