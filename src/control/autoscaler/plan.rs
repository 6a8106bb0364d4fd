//! What size a target gets, and what is told of it. PURE.

use std::collections::BTreeMap;

use jiff::ToSpan;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::pace::{Memory, Pace};
use super::propose::{self, Metric};
use super::report::Report;
use crate::control::refusal;
use crate::model::ownership::{self, Applier, ManagedFields};
use crate::model::usage::PodUsage;
use crate::model::{Kind, Object, Timestamp, scale};
use crate::plan::{Op, Plan, Reason};
use crate::store::snapshot::Snapshot;

/// kube-controller-manager's `--horizontal-pod-autoscaler-sync-period`.
const PERIOD_SECONDS: i64 = 15;
/// The manager of the sizes it writes.
const MANAGER: &str = "podbay-autoscaler";

/// What the decision rests on.
pub struct Observed<'a> {
    pub state: &'a Snapshot,
    pub object: &'a Object,
    /// The target, or why there is none.
    pub target: Result<Target, String>,
    /// What the target's pods use, by UID.
    pub usage: BTreeMap<String, PodUsage>,
    /// Why the target was not taken when it was written just now.
    pub blocked: Option<String>,
}

/// What is scaled.
pub struct Target {
    pub kind: Kind,
    pub object: Object,
    pub current: i32,
    /// The pods, or why it is not known which they are.
    pub pods: Result<Vec<Object>, Reason>,
    /// That a source says how many there are, as a sentence.
    pub said_by: Option<String>,
}

/// When somebody looks.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// What people read: the wall clock.
    pub now: Timestamp,
    /// What the memory is kept by: a clock that nobody sets ([`crate::clock::Clock::steady`]).
    pub steady: Timestamp,
}

/// A plan, and what to remember once it is carried out.
#[derive(Debug)]
pub struct Decision {
    pub plan: Plan,
    pub memory: Memory,
    /// Nothing but what was measured, and what is said of it, changes: it need not outlive a restart.
    pub only_figures: bool,
}

/// The size that is wanted, and why where it is another one.
struct Goal {
    replicas: i32,
    reason: String,
}

pub fn plan(seen: &Observed<'_>, memory: &Memory, times: Times) -> Decision {
    let mut memory = memory.clone();
    let mut plan = Plan::default();
    let Some(it) = seen.object.get::<HorizontalPodAutoscaler>().filter(|_| !seen.object.is_deleting()) else {
        return Decision { plan, memory, only_figures: false };
    };
    if let Ok(at) = times.now.checked_add(PERIOD_SECONDS.seconds()) {
        plan.look_again(at);
    }
    let mut report = Report::new(seen.object.key(), it, times.now);
    match &seen.target {
        Err(why) => report.no("AbleToScale", "FailedGetScale", why),
        Ok(target) => {
            report.yes("AbleToScale", "SucceededGetScale", "the target's scale is known");
            memory.begin(target.current, times.steady);
            let goal = goal(it, target, &seen.usage, &mut memory, times, &mut report);
            report.status.desired_replicas = goal.as_ref().map_or(report.status.desired_replicas, |goal| goal.replicas);
            match (&target.said_by, goal) {
                (Some(who_says), _) => {
                    plan.ops.extend(claim(seen, target, times.now));
                    report.no("AbleToScale", "ReplicasFromSource", &said_elsewhere(who_says));
                }
                (None, Some(goal)) if goal.replicas != target.current => {
                    rescale(seen, target, &goal, &mut memory, times, &mut report, &mut plan);
                }
                (None, _) => {}
            }
        }
    }
    let (status, notes) = report.finish();
    plan.notes.extend(notes);
    let told = HorizontalPodAutoscaler { status: Some(status), ..it.clone() };
    let mut only_figures = false;
    if told != *it {
        only_figures = plan.is_empty() && lasting(it) == lasting(&told);
        plan.ops.push(Op::UpdateStatus { before: seen.object.clone(), after: Object::new(told) });
    }
    Decision { plan, memory, only_figures }
}

/// What of a status the next look does not find out anew. Conditions it does, and under a steady load they waver.
fn lasting(it: &HorizontalPodAutoscaler) -> HorizontalPodAutoscalerStatus {
    HorizontalPodAutoscalerStatus { conditions: None, current_metrics: None, ..it.status.clone().unwrap_or_default() }
}

/// The size that the bounds alone call for, whatever the load; `None` where the load says.
pub fn bound(spec: &HorizontalPodAutoscalerSpec, current: i32) -> Option<i32> {
    let fewest = spec.min_replicas.unwrap_or(1);
    match current {
        0 => Some(0),
        _ if current > spec.max_replicas => Some(spec.max_replicas),
        _ if current < fewest => Some(fewest),
        _ => None,
    }
}

/// The size wanted; `None` where it cannot be told.
fn goal(
    it: &HorizontalPodAutoscaler,
    target: &Target,
    usage: &BTreeMap<String, PodUsage>,
    memory: &mut Memory,
    times: Times,
    report: &mut Report,
) -> Option<Goal> {
    let (current, fewest, most) = (target.current, it.spec.min_replicas.unwrap_or(1), it.spec.max_replicas);
    report.status.current_replicas = Some(current);
    report.status.current_metrics = None;
    if current == 0 {
        report.no_news("ScalingActive", "ScalingDisabled", "nothing is scaled while the target has no replicas");
    }
    if let Some(replicas) = bound(&it.spec, current) {
        let broken = if current > most { "above Spec.MaxReplicas" } else { "below Spec.MinReplicas" };
        Some(Goal { replicas, reason: format!("Current number of replicas {broken}") })
    } else {
        let pace = Pace::of(it.spec.behavior.as_ref());
        let (wanted, metric) = by_metrics(it, target, usage, &pace, times.now, report)?;
        let reason = if wanted > current { format!("{metric} above target") } else { "All metrics below target".to_owned() };
        let replicas = paced(wanted, (fewest, current, most), &pace, memory, times.steady, report);
        Some(Goal { replicas, reason })
    }
}

/// What the metrics call for together: the most, and which of them says so.
fn by_metrics(
    it: &HorizontalPodAutoscaler,
    target: &Target,
    usage: &BTreeMap<String, PodUsage>,
    pace: &Pace,
    now: Timestamp,
    report: &mut Report,
) -> Option<(i32, String)> {
    let all = match &target.pods {
        Ok(all) => all,
        Err(reason) => {
            report.no("ScalingActive", reason.code, &reason.message);
            return None;
        }
    };
    let pods = propose::Pods { all, usage };
    let mut best: Option<(i32, String)> = None;
    let (mut failed, mut statuses) = (None, Vec::new());
    for spec in it.spec.metrics.iter().flatten() {
        let unknown = MetricStatus { type_: spec.type_.clone(), ..MetricStatus::default() };
        match proposal(spec, &pods, target.current, pace, now) {
            Ok((replicas, name, status)) => {
                statuses.push(status);
                if best.as_ref().is_none_or(|(most, _)| replicas > *most) {
                    best = Some((replicas, name));
                }
            }
            Err(reason) => {
                statuses.push(unknown);
                failed.get_or_insert(reason);
            }
        }
    }
    if best.is_some() {
        report.status.current_metrics = Some(statuses);
    }
    // With a part of the metrics only it may grow, not shrink: what is not known may be what needs it.
    match (best.filter(|(replicas, _)| failed.is_none() || *replicas >= target.current), failed) {
        (Some((replicas, name)), _) => {
            report.yes("ScalingActive", "ValidMetricFound", &format!("a size follows from {name}"));
            Some((replicas, name))
        }
        (None, Some(reason)) => {
            report.no("ScalingActive", reason.code, &reason.message);
            None
        }
        (None, None) => None,
    }
}

fn proposal(
    spec: &MetricSpec,
    pods: &propose::Pods<'_>,
    current: i32,
    pace: &Pace,
    now: Timestamp,
) -> Result<(i32, String, MetricStatus), Reason> {
    let unserved = || Reason::new("InvalidMetricSourceType", format!("metrics of type {} are not served", spec.type_));
    let metric = Metric::of(spec).ok_or_else(unserved)?;
    let proposal = metric.propose(pods, current, pace.tolerance(), now);
    let proposal = proposal.map_err(|why| Reason::new(metric.failure(), format!("no size follows from {}: {why}", metric.name())))?;
    Ok((proposal.replicas, metric.name(), proposal.status))
}

/// Of what is called for, what may be done now.
fn paced(
    wanted: i32,
    (fewest, current, most): (i32, i32, i32),
    pace: &Pace,
    memory: &mut Memory,
    steady: Timestamp,
    report: &mut Report,
) -> i32 {
    let stable = pace.stabilised(wanted, current, memory, steady);
    memory.recommend(wanted, pace, steady);
    if stable == wanted {
        report.yes("AbleToScale", "ReadyForNewScale", "the size called for may be set");
    } else if wanted >= current {
        report.yes("AbleToScale", "ScaleUpStabilized", "fewer pods were called for within the window: the least of it holds");
    } else {
        report.yes("AbleToScale", "ScaleDownStabilized", "more pods were called for within the window: the most of it holds");
    }
    let (ceiling, floor) = (pace.ceiling(current, memory, steady), pace.floor(current, memory, steady));
    let (allowed, reason, message) = if stable > most.min(ceiling) {
        if most > ceiling {
            (ceiling, "ScaleUpLimit", "more pods are called for than may be added at once")
        } else {
            (most, "TooManyReplicas", "more pods are called for than there may be")
        }
    } else if stable < fewest.max(floor) && stable < current {
        if fewest < floor {
            (floor, "ScaleDownLimit", "fewer pods are called for than may be taken away at once")
        } else {
            (fewest, "TooFewReplicas", "fewer pods are called for than there must be")
        }
    } else {
        report.no_news("ScalingLimited", "DesiredWithinRange", "the size called for is within the bounds");
        return stable;
    };
    report.yes("ScalingLimited", reason, message);
    allowed
}

/// Git wins: a size written here would be put back at once.
fn said_elsewhere(who_says: &str) -> String {
    format!("{who_says}: leave them out there to have them set here")
}

/// Makes the size that git says this controller's as well: left out of the manifest later, it then stays as it is
/// instead of falling to the default under load (Kubernetes' documentation, "Server-Side Apply", transferring ownership).
fn claim(seen: &Observed<'_>, target: &Target, now: Timestamp) -> Option<Op> {
    let (served, managed) = (seen.state.definitions(), ManagedFields::of(target.object.meta()));
    let field = scale::field(target.kind, served);
    let is_mine = managed.owners.iter().any(|owner| owner.manager == MANAGER && owner.fields.has(&field));
    if is_mine || target.current == 0 || seen.blocked.is_some() {
        return None;
    }
    let said = field.iter().rev().fold(Value::from(target.current), |below, name| json!({ *name: below }));
    let applier = Applier { manager: MANAGER, subresource: "scale", force: false };
    let live = target.object.value();
    let (_, managed) = ownership::apply_as(served.shapes(target.kind), Some(&live), &managed, &said, &applier).ok()?;
    let op = Op::Update { before: target.object.clone(), after: with_owners(target.object.clone(), &managed, now) };
    refusal::of(seen.state, &op, now).is_none().then_some(op)
}

/// Writes the size.
fn rescale(seen: &Observed<'_>, target: &Target, goal: &Goal, memory: &mut Memory, times: Times, report: &mut Report, plan: &mut Plan) {
    let served = seen.state.definitions();
    let Some(after) = scale::write(target.kind, &target.object, goal.replicas, served) else { return };
    let op = Op::Update { before: target.object.clone(), after: owned(&target.object, after, seen.state, times.now) };
    if let Some(why) = seen.blocked.clone().or_else(|| refusal::of(seen.state, &op, times.now)) {
        return report.failed("AbleToScale", ("FailedUpdateScale", "FailedRescale"), &format!("New size: {}: {why}", goal.replicas));
    }
    plan.ops.push(op);
    let pace = Pace::of(seen.object.get::<HorizontalPodAutoscaler>().and_then(|it| it.spec.behavior.as_ref()));
    memory.change(goal.replicas.saturating_sub(target.current), &pace, times.steady);
    report.status.last_scale_time = Some(Time(times.now));
    report.yes("AbleToScale", "SucceededRescale", &format!("the target was set to {}", goal.replicas));
    report.note(false, "SuccessfulRescale", &format!("New size: {}; reason: {}", goal.replicas, goal.reason));
}

/// The new size is this controller's: a manifest that stops saying one does not take it away.
pub(super) fn owned(before: &Object, after: Object, state: &Snapshot, now: Timestamp) -> Object {
    let shapes = state.definitions().shapes(before.kind());
    let managed = ManagedFields::of(before.meta());
    let managed = ownership::update(shapes, Some(&before.value()), &after.value(), &managed, MANAGER, "scale");
    with_owners(after, &managed, now)
}

fn with_owners(object: Object, managed: &ManagedFields, now: Timestamp) -> Object {
    let mut entries = managed.to_entries();
    for entry in entries.iter_mut().flatten() {
        entry.time.get_or_insert(Time(now));
    }
    object.edit_meta(|meta| meta.managed_fields = entries)
}
