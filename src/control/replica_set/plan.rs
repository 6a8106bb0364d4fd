//! How many pods to make, and which to let go first.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::control::claim::{self, Claims};
use crate::control::{naming, refusal};
use crate::model::pod::{self, Availability};
use crate::model::selector::Selector;
use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Op, Plan, Reason};
use crate::store::snapshot::Snapshot;

/// The condition that says why pods cannot be made.
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What a ReplicaSet's decision rests on.
pub struct Observed<'a> {
    pub state: &'a Snapshot,
    pub set: &'a Object,
    pub selector: Option<Selector>,
    pub claims: Claims<'a>,
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
    let active = active(seen);
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let mut refused = None;
    if !seen.set.is_deleting() {
        if active.len() < wanted {
            refused = create(seen, set, &active, wanted - active.len(), now, &mut plan);
        } else if active.len() > wanted {
            let excess = active.len() - wanted;
            let related = related_by_node(seen.state, seen.set);
            delete(seen.set.key(), active.clone(), excess, &related, &mut plan);
        }
    }
    if plan.is_empty() {
        status(seen, set, &active, refused, now, &mut plan);
    }
    plan
}

/// The status of a set whose pods were refused when they were to be made. Who is asked then may say it in other words each
/// time: one such condition is kept as it is (`replica_set_utils.go`, `SetCondition`, compares status and reason).
pub fn refused(seen: &Observed<'_>, why: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = seen.set.get::<ReplicaSet>() else { return plan };
    let conditions = set.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let known = conditions.filter(|it| is_failure(it)).find_map(|known| known.message.clone());
    let message = known.unwrap_or_else(|| format!("Error creating: {why}"));
    status(seen, set, &active(seen), Some(message), now, &mut plan);
    plan
}

fn active<'a>(seen: &'a Observed<'_>) -> Vec<(&'a Object, &'a Pod)> {
    let pods = seen.claims.owned.iter().copied().filter_map(|object| object.get::<Pod>().map(|pod| (object, pod)));
    pods.filter(|(_, pod)| pod::is_active(pod)).collect()
}

/// Plans new pods. Where admission refuses them: why.
fn create(
    seen: &Observed<'_>,
    set: &ReplicaSet,
    active: &[(&Object, &Pod)],
    count: usize,
    now: Timestamp,
    plan: &mut Plan,
) -> Option<String> {
    let template = set.spec.template.as_ref()?;
    let key = seen.set.key();
    let waiting = naming::without_node(active.iter().map(|(object, _)| *object));
    if let Some(reason) = naming::too_many_wait(waiting, count) {
        plan.wait(key, reason);
        return None;
    }
    let taken = |name: &str| seen.state.get(&Key::new(Kind::Pod, key.namespace.clone(), name)).is_some();
    for (index, name) in naming::free_pod_names(key, 0, count, waiting, &taken).into_iter().enumerate() {
        let op = Op::Create(Object::new(naming::pod_of(seen.set, template, name.clone())));
        // They are all alike.
        if let Some(why) = (index == 0).then(|| refusal::of(seen.state, &op, now)).flatten() {
            return Some(format!("Error creating: {why}"));
        }
        plan.note(key, false, Reason::new("SuccessfulCreate", format!("Created pod: {name}")));
        plan.ops.push(op);
    }
    None
}

fn is_failure(condition: &ReplicaSetCondition) -> bool {
    condition.type_.as_deref() == Some(REPLICA_FAILURE)
}

/// The condition that says so, kept as it was while it says the same.
fn failure(before: &ReplicaSetStatus, message: &str, now: Timestamp) -> (ReplicaSetCondition, bool) {
    let same = |known: &&ReplicaSetCondition| is_failure(known) && known.message.as_deref() == Some(message);
    let known = before.conditions.iter().flatten().find(same);
    let new = || ReplicaSetCondition {
        type_: Some(REPLICA_FAILURE.to_owned()),
        status: Some("True".to_owned()),
        reason: Some(refusal::FAILED_CREATE.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
    };
    (known.cloned().unwrap_or_else(new), known.is_none())
}

fn delete(key: &Key, mut active: Vec<(&Object, &Pod)>, count: usize, related: &BTreeMap<&str, usize>, plan: &mut Plan) {
    active.sort_by_cached_key(|(object, pod)| rank(object, pod, related));
    for (object, _) in active.into_iter().take(count) {
        plan.note(key, false, Reason::new("SuccessfulDelete", format!("Deleted pod: {}", object.key().name)));
        plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: None });
    }
}

/// Kubernetes' order of giving up pods, first to go first: unassigned, pending, not ready, lowest
/// deletion cost, most crowded node, ready for the shortest time, most restarts, newest, name.
fn rank(object: &Object, pod: &Pod, related: &BTreeMap<&str, usize>) -> impl Ord + use<> {
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

fn status(seen: &Observed<'_>, set: &ReplicaSet, active: &[(&Object, &Pod)], refused: Option<String>, now: Timestamp, plan: &mut Plan) {
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
    let leaving = |object: &&&Object| object.is_deleting() && object.get::<Pod>().is_some_and(|pod| !pod::is_terminal(pod));
    let terminating = seen.claims.owned.iter().filter(leaving).count() as i32;
    let none = ReplicaSetStatus::default();
    let before = set.status.as_ref().unwrap_or(&none);
    let mut conditions = before.conditions.clone().unwrap_or_default();
    conditions.retain(|known| !is_failure(known));
    if let Some(message) = refused {
        let (condition, new) = failure(before, &message, now);
        conditions.push(condition);
        refusal::tell(plan, seen.set.key(), refusal::FAILED_CREATE, &message, new, now);
    }
    let after = ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: some(labelled),
        ready_replicas: some(ready),
        available_replicas: some(available),
        terminating_replicas: some(terminating),
        observed_generation: set.metadata.generation,
        conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
    };
    if set.status.as_ref() != Some(&after) {
        let changed = ReplicaSet { metadata: set.metadata.clone(), spec: set.spec.clone(), status: Some(after) };
        plan.ops.push(Op::UpdateStatus { before: seen.set.clone(), after: Object::new(changed) });
        plan.rests = true;
    }
}

/// A count as Kubernetes writes it: absent where zero.
fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// How many active pods of the set and its siblings (the other sets of its Deployment) each node runs.
fn related_by_node<'a>(state: &'a Snapshot, set: &'a Object) -> BTreeMap<&'a str, usize> {
    let mut sets = vec![set];
    if let Some(owner) = set.controller() {
        sets.extend(state.owned_by(&owner.uid).filter(|object| object.kind() == Kind::ReplicaSet && object.uid() != set.uid()));
    }
    let mut nodes = BTreeMap::new();
    for object in sets.into_iter().flat_map(|set| claim::owned(state, set, Kind::Pod)) {
        if let Some(node) = object.get::<Pod>().filter(|it| pod::is_active(it)).and_then(pod::node_name) {
            *nodes.entry(node).or_default() += 1;
        }
    }
    nodes
}
