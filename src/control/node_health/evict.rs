//! Which pods a node's taints with `NoExecute` send away, and when. PURE.

use jiff::ToSpan;
use k8s_openapi::api::core::v1::{Node, NodeSpec, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{NOT_READY, OUT_OF_SERVICE, Observed, Settings, UNREACHABLE, taints};
use crate::model::{Object, Timestamp, pod};
use crate::plan::{Op, Plan, Reason};

/// Code of the event, as Kubernetes'.
const EVICTION: &str = "TaintManagerEviction";

/// Those that run and that nothing in the plan is about yet.
fn untouched<'a>(seen: &'a Observed<'_>, plan: &Plan) -> Vec<(&'a Object, &'a Pod)> {
    let changed: Vec<_> = plan.ops.iter().map(|op| op.key().clone()).collect();
    let active = |object: &'a Object| Some((object, object.get::<Pod>().filter(|pod| pod::is_active(pod))?));
    seen.pods.iter().filter(|object| !changed.contains(object.key())).filter_map(active).collect()
}

/// A taint that a person or a program has put on the node: it goes for every pod, whoever made it ("Taints and Tolerations",
/// section "Taint based Evictions").
pub(super) fn by_taints(seen: &Observed<'_>, node: &Node, now: Timestamp, plan: &mut Plan) {
    let own = [UNREACHABLE, NOT_READY, OUT_OF_SERVICE];
    let is_theirs = |taint: &Taint| taint.effect == "NoExecute" && !own.contains(&taint.key.as_str());
    let theirs: Vec<&Taint> = taints(node).iter().filter(|taint| is_theirs(taint)).collect();
    if theirs.is_empty() {
        return;
    }
    // From then on its time is counted, by this clock.
    let undated = |taint: &Taint| is_theirs(taint) && taint.time_added.as_ref().is_none_or(|time| time.0 > now);
    if theirs.iter().any(|taint| undated(taint)) && plan.ops.iter().all(|op| op.key() != seen.node.key()) {
        let mut dated = node.clone();
        let all = dated.spec.get_or_insert_with(NodeSpec::default).taints.iter_mut().flatten();
        all.filter(|taint| undated(taint)).for_each(|taint| taint.time_added = Some(Time(now)));
        plan.ops.push(Op::Update { before: seen.node.clone(), after: Object::new(dated) });
    }
    for (object, pod) in untouched(seen, plan) {
        match theirs.iter().filter_map(|taint| end(object, pod, taint, now)).min() {
            Some(end) if end > now => plan.look_again(end),
            Some(_) => {
                plan.note(object.key(), false, Reason::new(EVICTION, format!("Marking for deletion {}", object.key())));
                plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: None });
            }
            None => {}
        }
    }
}

/// When the pod no longer tolerates a taint: now where it never did, not at all where it always does.
fn end(object: &Object, pod: &Pod, taint: &Taint, now: Timestamp) -> Option<Timestamp> {
    // From when it was put there, or the pod came there.
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let bound = conditions.filter(|it| it.type_ == "PodScheduled" && it.status == "True").find_map(|it| it.last_transition_time.as_ref());
    let times = [taint.time_added.as_ref(), object.meta().creation_timestamp.as_ref(), bound];
    let since = times.into_iter().flatten().map(|time| time.0).filter(|time| *time <= now).max().unwrap_or(now);
    match stay(pod, taint) {
        Stay::Default => Some(now),
        Stay::Forever => None,
        Stay::For(seconds) => since.checked_add(seconds.max(0).seconds()).ok(),
    }
}

/// Gives up the replaceable pods once their time is over. The node's agent ends them when it heals.
pub(super) fn by_silence(seen: &Observed<'_>, node: &Node, settings: &Settings, now: Timestamp, plan: &mut Plan) {
    let Some(taint) = taints(node).iter().find(|taint| taint.key == UNREACHABLE && taint.effect == "NoExecute") else { return };
    let since = taint.time_added.as_ref().map_or(now, |time| time.0);
    for (object, pod) in untouched(seen, plan) {
        if !object.controller().is_some_and(|owner| matches!(owner.kind.as_str(), "ReplicaSet" | "Job")) {
            continue;
        }
        let seconds = match stay(pod, taint) {
            Stay::For(seconds) => seconds,
            Stay::Forever => continue,
            Stay::Default => settings.eviction_seconds,
        };
        match since.checked_add(seconds.max(0).seconds()) {
            Ok(limit) if limit > now => plan.look_again(limit),
            Ok(_) => {
                plan.note(object.key(), true, Reason::new(EVICTION, format!("the pod's node is unreachable: {UNREACHABLE}")));
                plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: None });
            }
            Err(_) => {}
        }
    }
}

enum Stay {
    For(i64),
    Forever,
    Default,
}

/// How long the pod tolerates the taint.
fn stay(pod: &Pod, taint: &Taint) -> Stay {
    let matching: Vec<&Toleration> = tolerations(pod).iter().filter(|toleration| pod::tolerates(toleration, taint)).collect();
    match matching.iter().filter_map(|toleration| toleration.toleration_seconds).min() {
        Some(seconds) => Stay::For(seconds),
        None if matching.is_empty() => Stay::Default,
        None => Stay::Forever,
    }
}

pub(super) fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}
