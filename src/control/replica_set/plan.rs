//! How many pods to make, and which to let go first.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::control::claim::{self, Claims};
use crate::control::naming;
use crate::model::pod::{self, Availability};
use crate::model::selector::Selector;
use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Op, Plan, Reason};
use crate::store::snapshot::Snapshot;

/// What a ReplicaSet's decision rests on.
pub struct Observed<'a> {
    pub state: &'a Snapshot,
    pub set: &'a Object,
    pub selector: Option<Selector>,
    pub claims: Claims,
}

pub fn plan(seen: &Observed<'_>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some((set, spec)) = seen.set.get::<ReplicaSet>().map(|set| (set, &set.spec)) else {
        return plan;
    };
    let Some(selector) = &seen.selector else { return plan };
    claim::settle(seen.set, &seen.claims, selector, &mut plan);
    if !plan.is_empty() {
        return plan;
    }
    let active: Vec<(&Object, &Pod)> = seen
        .claims
        .owned
        .iter()
        .filter_map(|object| object.get::<Pod>().map(|pod| (object, pod)))
        .filter(|(_, pod)| pod::is_active(pod))
        .collect();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if !seen.set.is_deleting() {
        if active.len() < wanted {
            create(seen, set, wanted - active.len(), &mut plan);
        } else if active.len() > wanted {
            let excess = active.len() - wanted;
            let related = related_by_node(seen.state, seen.set);
            delete(seen.set.key(), active.clone(), excess, &related, &mut plan);
        }
    }
    if plan.is_empty() {
        status(seen, set, &active, now, &mut plan);
    }
    plan
}

fn create(seen: &Observed<'_>, set: &ReplicaSet, count: usize, plan: &mut Plan) {
    let Some(template) = &set.spec.template else { return };
    let key = seen.set.key();
    let taken = |name: &str| seen.state.get(&Key::new(Kind::Pod, key.namespace.clone(), name)).is_some();
    for name in naming::free_pod_names(key, 0, count, &taken) {
        plan.note(key, false, Reason::new("SuccessfulCreate", format!("Created pod: {name}")));
        plan.ops.push(Op::Create(Object::new(naming::pod_of(seen.set, template, name))));
    }
}

fn delete(key: &Key, mut active: Vec<(&Object, &Pod)>, count: usize, related: &BTreeMap<String, usize>, plan: &mut Plan) {
    active.sort_by_cached_key(|(object, pod)| rank(object, pod, related));
    for (object, _) in active.into_iter().take(count) {
        plan.note(key, false, Reason::new("SuccessfulDelete", format!("Deleted pod: {}", object.key().name)));
        plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: None });
    }
}

/// Kubernetes' order of giving up pods, first to go first: unassigned, pending, not ready, lowest
/// deletion cost, most crowded node, ready for the shortest time, most restarts, newest, name.
fn rank(object: &Object, pod: &Pod, related: &BTreeMap<String, usize>) -> impl Ord + use<> {
    use std::cmp::Reverse;
    let node = pod::node_name(pod);
    let phase = match pod::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost: i32 = object.annotation("controller.kubernetes.io/pod-deletion-cost").and_then(|text| text.parse().ok()).unwrap_or(0);
    let crowd = node.and_then(|node| related.get(node)).copied().unwrap_or(0);
    let ready_since = pod::ready_since(pod);
    let created = object.meta().creation_timestamp.as_ref().map(|time| time.0);
    (
        (node.is_some(), phase, pod::is_ready(pod), cost, Reverse(crowd)),
        Reverse(ready_since),
        Reverse(pod::restarts(pod)),
        Reverse(created),
        object.key().name.clone(),
    )
}

fn status(seen: &Observed<'_>, set: &ReplicaSet, active: &[(&Object, &Pod)], now: Timestamp, plan: &mut Plan) {
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let labels = set.spec.template.as_ref().and_then(|it| it.metadata.as_ref()).and_then(|it| it.labels.as_ref());
    let (mut ready, mut available, mut labelled) = (0, 0, 0);
    for (object, pod) in active {
        let fits = labels.is_none_or(|labels| labels.iter().all(|(name, value)| object.labels().get(name) == Some(value)));
        labelled += i32::from(fits);
        match pod::availability(pod, min_ready, now) {
            Availability::Available => {
                ready += 1;
                available += 1;
            }
            Availability::From(at) => {
                ready += 1;
                plan.look_again(at);
            }
            Availability::NotReady => {}
        }
    }
    let leaving = |object: &&Object| object.is_deleting() && object.get::<Pod>().is_some_and(|pod| !pod::is_terminal(pod));
    let terminating = seen.claims.owned.iter().filter(leaving).count() as i32;
    let before = set.status.clone().unwrap_or_default();
    let after = ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: some(labelled),
        ready_replicas: some(ready),
        available_replicas: some(available),
        terminating_replicas: some(terminating),
        observed_generation: set.metadata.generation,
        conditions: before.conditions.clone(),
    };
    if set.status.as_ref() != Some(&after) {
        let changed = ReplicaSet { status: Some(after), ..set.clone() };
        plan.ops.push(Op::UpdateStatus { before: seen.set.clone(), after: Object::new(changed) });
    }
}

/// A count as Kubernetes writes it: absent where zero.
fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// How many active pods of the set and its siblings (the other sets of its Deployment) each node runs.
fn related_by_node(state: &Snapshot, set: &Object) -> BTreeMap<String, usize> {
    let mut sets = vec![set];
    if let Some(owner) = set.controller() {
        sets.extend(state.owned_by(&owner.uid).filter(|object| object.kind() == Kind::ReplicaSet && object.uid() != set.uid()));
    }
    let mut nodes = BTreeMap::new();
    for object in sets.into_iter().flat_map(|set| claim::owned(state, set, Kind::Pod)) {
        if let Some(node) = object.get::<Pod>().filter(|it| pod::is_active(it)).and_then(pod::node_name) {
            *nodes.entry(node.to_owned()).or_default() += 1;
        }
    }
    nodes
}
