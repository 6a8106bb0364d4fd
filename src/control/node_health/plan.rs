//! When a node counts as lost, and what becomes of its pods.

use jiff::ToSpan;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, Pod, PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::evict::{self, tolerations};
use crate::model::{Object, Timestamp, pod};
use crate::plan::{Op, Plan, Reason};

pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Time limits; tests make them short.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Silence after which a node is unreachable.
    pub grace_seconds: i64,
    /// How long pods stay on an unreachable node unless they tolerate it longer or shorter.
    pub eviction_seconds: i64,
    /// Since when this server listens, by its steady clock: silence before that is not the nodes'.
    pub started_at: Timestamp,
}

/// What a node's health is judged by.
pub struct Observed<'a> {
    pub node: &'a Object,
    /// When the node was last heard of, by the server's steady clock.
    pub received_at: Timestamp,
    /// More than half of all nodes are silent.
    pub most_silent: bool,
    /// The pods on it, where they matter.
    pub pods: Vec<Object>,
}

/// The latest of: the last renewal, the server's start, the node's creation. What is later than `now` was read off
/// another clock and says nothing.
pub fn heard(renewed: Option<Timestamp>, node: &Object, settings: &Settings, now: Timestamp) -> Timestamp {
    let created = node.meta().creation_timestamp.as_ref().map(|time| time.0);
    match (renewed.filter(|time| *time <= now), created) {
        // It has yet to be heard of, and the clock was set forward meanwhile: for how long cannot be told.
        (None, Some(created)) if created > now => now,
        (renewed, created) => {
            [renewed, created].into_iter().flatten().filter(|time| *time <= now).fold(settings.started_at, Timestamp::max)
        }
    }
}

pub fn is_silent(heard: Timestamp, settings: &Settings, now: Timestamp) -> bool {
    heard.checked_add(settings.grace_seconds.seconds()).is_ok_and(|limit| limit <= now)
}

/// More than half, so one of one too: then it is the server that is cut off rather than they, or there is nowhere
/// to go. Kubernetes' 55 % with its least of three nodes would empty two of three.
pub fn is_most(silent: usize, all: usize) -> bool {
    silent * 2 > all
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == "Ready")
}

pub(super) fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Carries a mark of this controller or a taint that sends pods away, or needs a mark.
pub fn is_marked(object: &Object) -> bool {
    object.get::<Node>().is_some_and(|node| {
        let marks = [UNREACHABLE, NOT_READY, OUT_OF_SERVICE];
        let is_mark = |taint: &Taint| taint.effect == "NoExecute" || marks.contains(&taint.key.as_str());
        taints(node).iter().any(is_mark) || ready(node).is_none_or(|ready| ready.status != "True")
    })
}

pub fn plan(seen: &Observed<'_>, settings: &Settings, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = seen.node.get::<Node>() else { return plan };
    let silent = is_silent(seen.received_at, settings, now);
    if !silent && let Ok(limit) = seen.received_at.checked_add(settings.grace_seconds.seconds()) {
        plan.look_again(limit);
    }
    if silent && let Some(op) = unknown(seen.node, node, now) {
        plan.note(seen.node.key(), true, Reason::new("NodeNotReady", "the node's agent stopped renewing its lease"));
        plan.ops.push(op);
    }
    if plan.is_empty() {
        plan.ops.extend(retaint(seen, node, silent, now));
    }
    if out_of_service(node) {
        force(seen, node, &mut plan);
        return plan;
    }
    evict::by_taints(seen, node, now, &mut plan);
    if silent && !seen.most_silent {
        unready_pods(seen, now, &mut plan);
        evict::by_silence(seen, node, settings, now, &mut plan);
    } else if silent {
        plan.wait(seen.node.key(), Reason::new("MostNodesSilent", "most nodes fell silent at once: nothing is evicted"));
        if let Ok(later) = now.checked_add(settings.grace_seconds.max(1).seconds()) {
            plan.look_again(later);
        }
    }
    plan
}

/// Sets the conditions that nobody vouches for any more to Unknown.
fn unknown(object: &Object, node: &Node, now: Timestamp) -> Option<Op> {
    if ready(node).is_some_and(|ready| ready.status == "Unknown") {
        return None;
    }
    let mut after = node.clone();
    let conditions = after.status.get_or_insert_with(Default::default).conditions.get_or_insert_with(Vec::new);
    if !conditions.iter().any(|condition| condition.type_ == "Ready") {
        conditions.push(NodeCondition { type_: "Ready".to_owned(), ..NodeCondition::default() });
    }
    for condition in conditions.iter_mut().filter(|condition| condition.status != "Unknown") {
        condition.status = "Unknown".to_owned();
        condition.reason = Some("NodeStatusUnknown".to_owned());
        condition.message = Some("Kubelet stopped posting node status.".to_owned());
        condition.last_transition_time = Some(Time(now));
    }
    Some(Op::UpdateStatus { before: object.clone(), after: Object::new(after) })
}

/// Brings the taints in line with the Ready condition.
fn retaint(seen: &Observed<'_>, node: &Node, silent: bool, now: Timestamp) -> Option<Op> {
    let state = ready(node).map_or("Unknown", |ready| ready.status.as_str());
    let wanted: &[(&str, &str)] = match state {
        "True" => &[],
        // An agent that has just joined or come back has yet to say how it is.
        "Unknown" if silent && !seen.most_silent => &[(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
        "Unknown" if silent => &[(UNREACHABLE, "NoSchedule")],
        "Unknown" => &[(NOT_READY, "NoSchedule")],
        _ => &[(NOT_READY, "NoSchedule")],
    };
    let mut after: Vec<Taint> = taints(node)
        .iter()
        .filter(|taint| {
            ![UNREACHABLE, NOT_READY].contains(&taint.key.as_str()) || wanted.contains(&(taint.key.as_str(), taint.effect.as_str()))
        })
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !after.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            after.push(Taint { key: (*key).to_owned(), effect: (*effect).to_owned(), value: None, time_added: Some(Time(now)) });
        }
    }
    if after == taints(node) {
        return None;
    }
    let mut changed = node.clone();
    changed.spec.get_or_insert_with(NodeSpec::default).taints = Some(after).filter(|taints| !taints.is_empty());
    Some(Op::Update { before: seen.node.clone(), after: Object::new(changed) })
}

fn out_of_service(node: &Node) -> bool {
    let down = ready(node).is_none_or(|ready| ready.status != "True");
    down && taints(node).iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// A person vouches that the node is off: its pods cannot run any more.
fn force(seen: &Observed<'_>, node: &Node, plan: &mut Plan) {
    let Some(taint) = taints(node).iter().find(|taint| taint.key == OUT_OF_SERVICE) else { return };
    for object in &seen.pods {
        let Some(pod) = object.get::<Pod>() else { continue };
        let held = object.is_deleting() && object.meta().deletion_grace_period_seconds == Some(0);
        if !held && !tolerations(pod).iter().any(|toleration| pod::tolerates(toleration, taint)) {
            plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: Some(0) });
        }
    }
}

/// Takes the pods of a silent node out of their Services.
fn unready_pods(seen: &Observed<'_>, now: Timestamp, plan: &mut Plan) {
    for object in &seen.pods {
        let Some(pod) = object.get::<Pod>().filter(|pod| pod::is_ready(pod)) else { continue };
        let mut status = pod.status.clone().unwrap_or_default();
        let condition = PodCondition {
            type_: "Ready".to_owned(),
            status: "False".to_owned(),
            reason: Some("NodeNotReady".to_owned()),
            message: Some("the pod's node is unreachable".to_owned()),
            ..PodCondition::default()
        };
        pod::set_condition(&mut status, condition, now);
        let after = Object::new(Pod { status: Some(status), ..pod.clone() });
        plan.ops.push(Op::UpdateStatus { before: object.clone(), after });
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[test]
    fn what_another_clock_said_counts_for_nothing() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let settings = Settings { grace_seconds: 40, eviction_seconds: 300, started_at: at(100) };
        let now = at(1000);
        for (renewed, created, expected) in [
            (Some(990), 500, 990),
            (None, 500, 500),
            (None, 50, 100),
            // Renewed before somebody set the clock back, and not since.
            (Some(5000), 500, 500),
            // Made after somebody set it forward: heard of just now.
            (None, 5000, 1000),
            (Some(900), 5000, 900),
        ] {
            let metadata = ObjectMeta { creation_timestamp: Some(Time(at(created))), ..ObjectMeta::default() };
            let node = Object::new(Node { metadata, ..Node::default() });
            assert_eq!(heard(renewed.map(at), &node, &settings, now), at(expected), "{renewed:?} {created}");
        }
    }
}
