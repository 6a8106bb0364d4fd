//! Counting, deciding whether it is over, and how many pods to run.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::ToSpan;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::control::{naming, refusal};
use crate::model::{Key, Kind, Object, Source, Timestamp, pod};
use crate::plan::{Op, Plan, Reason};
use crate::store::snapshot::Snapshot;

pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// Holds a pod until its end is counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const FIRST_BACKOFF_SECONDS: i64 = 10;
const LONGEST_BACKOFF_SECONDS: i64 = 600;

/// What a Job's decision rests on.
pub struct Observed<'a> {
    pub state: &'a Snapshot,
    pub job: Option<&'a Object>,
    /// Controlled by the Job's UID.
    pub pods: Vec<Object>,
    /// Tracked pods of a Job of this name that is gone.
    pub stray: Vec<Object>,
}

pub fn is_tracked(pod: &Object) -> bool {
    pod.has_finalizer(TRACKING)
}

fn untrack(object: &Object) -> Op {
    Op::Update { before: object.clone(), after: object.without_finalizer(TRACKING) }
}

/// The pods by what they mean to the Job.
#[derive(Default)]
struct Census<'a> {
    active: Vec<&'a Object>,
    ready: i32,
    terminating: i32,
    succeeded: i32,
    failed: i32,
    /// Ended and not counted before.
    counted_now: Vec<&'a Object>,
    restarts: i32,
    /// (end, failed) of every ended pod that still exists.
    ends: Vec<(Timestamp, bool)>,
}

pub fn plan(seen: &Observed<'_>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    plan.ops.extend(seen.stray.iter().map(untrack));
    let Some(object) = seen.job else { return plan };
    let Some((job, spec)) = object.get::<Job>().and_then(|job| job.spec.as_ref().map(|spec| (job, spec))) else { return plan };
    let mut census = census(seen, job, now);
    plan.ops.extend(census.counted_now.iter().map(|object| untrack(object)));
    let mut status = job.status.clone().unwrap_or_default();
    status.succeeded = some(census.succeeded);
    status.failed = some(census.failed);
    if is_finished(&status) || object.is_deleting() {
        after_the_end(seen, object, spec, &status, &census, now, &mut plan);
    } else {
        advance(seen, object, spec, &mut status, &mut census, now, &mut plan);
    }
    status.active = some(census.active.len() as i32);
    status.ready = Some(census.ready.min(census.active.len() as i32));
    status.terminating = Some(census.terminating);
    let going = plan.ops.iter().any(|op| op.key() == object.key());
    if !going && job.status.as_ref() != Some(&status) {
        let after = Object::new(Job { status: Some(status), ..job.clone() });
        plan.ops.push(Op::UpdateStatus { before: object.clone(), after });
    }
    plan
}

fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

fn census<'a>(seen: &'a Observed<'_>, job: &Job, now: Timestamp) -> Census<'a> {
    let status = job.status.as_ref();
    let mut census = Census {
        succeeded: status.and_then(|it| it.succeeded).unwrap_or(0),
        failed: status.and_then(|it| it.failed).unwrap_or(0),
        ..Census::default()
    };
    for object in &seen.pods {
        let Some(pod) = object.get::<Pod>() else { continue };
        let succeeded = pod::phase(pod) == "Succeeded";
        // A deleted pod counts as failed at once: it may never get to say how it ended.
        let failed = pod::phase(pod) == "Failed" || (pod::is_deleting(pod) && !succeeded);
        if succeeded || failed {
            census.ends.push((ended_at(pod).unwrap_or(now), failed));
            census.terminating += i32::from(!pod::is_terminal(pod));
            if is_tracked(object) {
                census.counted_now.push(object);
                census.succeeded = census.succeeded.saturating_add(i32::from(succeeded));
                census.failed = census.failed.saturating_add(i32::from(failed));
            }
        } else {
            census.active.push(object);
            census.ready += i32::from(pod::is_ready(pod));
            census.restarts = census.restarts.saturating_add(pod::restarts(pod));
        }
    }
    census.ends.sort_unstable();
    census
}

/// When its last container ended; else the best time known.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    let ends = statuses.filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0));
    let meta = &pod.metadata;
    ends.max()
        .or_else(|| pod::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0))
        .or_else(|| {
            let grace = meta.deletion_grace_period_seconds.unwrap_or(0);
            meta.deletion_timestamp.as_ref().and_then(|time| time.0.checked_sub(grace.seconds()).ok())
        })
        .or_else(|| meta.creation_timestamp.as_ref().map(|time| time.0))
}

/// The end that is reached: `Complete` or `Failed`.
pub fn finish(status: &JobStatus) -> Option<&JobCondition> {
    status.conditions.iter().flatten().find(|it| matches!(it.type_.as_str(), "Complete" | "Failed") && it.status == "True")
}

fn is_finished(status: &JobStatus) -> bool {
    finish(status).is_some()
}

fn holds<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|it| it.type_ == type_ && it.status == "True")
}

fn set(status: &mut JobStatus, type_: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_with(Vec::new);
    let new = JobCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|known| known.type_ == type_) {
        Some(known) if known.status == value && known.reason == new.reason => {}
        Some(known) => *known = new,
        None => conditions.push(new),
    }
}

fn advance(
    seen: &Observed<'_>,
    object: &Object,
    spec: &JobSpec,
    status: &mut JobStatus,
    census: &mut Census<'_>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let suspended = spec.suspend.unwrap_or(false);
    if suspended {
        set(status, "Suspended", "True", "JobSuspended", "Job suspended", now);
        status.start_time = None;
    } else {
        if holds(status, "Suspended").is_some() {
            set(status, "Suspended", "False", "JobResumed", "Job resumed", now);
        }
        status.start_time.get_or_insert(Time(now));
    }
    let failing = holds(status, "FailureTarget").map(|it| (it.reason.clone().unwrap_or_default(), it.message.clone().unwrap_or_default()));
    let failing = failing.or_else(|| failure(spec, status, census, suspended, now, plan));
    if let Some((reason, message)) = failing {
        set(status, "FailureTarget", "True", &reason, &message, now);
        delete_active(object, census, plan);
        if census.active.is_empty() && census.terminating == 0 {
            set(status, "Failed", "True", &reason, &message, now);
            plan.note(object.key(), true, Reason::new("JobFailed", message));
            look_at_ttl(spec, status, now, plan);
        }
        return;
    }
    if is_complete(spec, census) {
        let reason = "CompletionsReached";
        let message = "Reached expected number of succeeded pods";
        set(status, "SuccessCriteriaMet", "True", reason, message, now);
        delete_active(object, census, plan);
        if census.active.is_empty() && census.terminating == 0 {
            set(status, "Complete", "True", reason, message, now);
            status.completion_time = Some(Time(now));
            plan.note(object.key(), false, Reason::new("Completed", "Job completed"));
            look_at_ttl(spec, status, now, plan);
        }
        return;
    }
    scale(seen, object, spec, suspended, census, now, plan);
    if !suspended {
        let wanted = spec.completions.map_or_else(|| "a pod".to_owned(), |wanted| format!("{} of {wanted} pods", census.succeeded));
        let message = match spec.completions {
            Some(_) => format!("{wanted} succeeded, {} active", census.active.len()),
            None => format!("waits for {wanted} to succeed, {} active", census.active.len()),
        };
        plan.wait(object.key(), Reason::new("JobRunning", message));
    }
}

/// Why the Job has failed, if it has.
fn failure(
    spec: &JobSpec,
    status: &JobStatus,
    census: &Census<'_>,
    suspended: bool,
    now: Timestamp,
    plan: &mut Plan,
) -> Option<(String, String)> {
    let limit = spec.backoff_limit.unwrap_or(6);
    let on_failure = spec.template.spec.as_ref().is_some_and(|spec| pod::restart_policy(spec) == "OnFailure");
    let restarted = on_failure && if limit == 0 { census.restarts > 0 } else { census.restarts >= limit };
    if census.failed > limit || restarted {
        return Some(("BackoffLimitExceeded".to_owned(), "Job has reached the specified backoff limit".to_owned()));
    }
    let deadline = spec.active_deadline_seconds.filter(|_| !suspended)?;
    let limit = status.start_time.as_ref()?.0.checked_add(deadline.seconds()).ok()?;
    if limit <= now {
        return Some(("DeadlineExceeded".to_owned(), "Job was active longer than specified deadline".to_owned()));
    }
    plan.look_again(limit);
    None
}

fn is_complete(spec: &JobSpec, census: &Census<'_>) -> bool {
    match spec.completions {
        Some(wanted) => census.succeeded >= wanted,
        None => census.succeeded > 0 && census.active.is_empty(),
    }
}

fn delete_active(job: &Object, census: &Census<'_>, plan: &mut Plan) {
    for object in &census.active {
        plan.note(job.key(), false, Reason::new("SuccessfulDelete", format!("Deleted pod: {}", object.key().name)));
        plan.ops.push(Op::Delete { before: (*object).clone(), grace_seconds: None });
    }
}

fn scale(seen: &Observed<'_>, object: &Object, spec: &JobSpec, suspended: bool, census: &mut Census<'_>, now: Timestamp, plan: &mut Plan) {
    let parallelism = spec.parallelism.unwrap_or(1).max(0);
    let active = census.active.len() as i32;
    let wanted = match spec.completions {
        _ if suspended => 0,
        Some(completions) => parallelism.min(completions.saturating_sub(census.succeeded)).max(0),
        None if census.succeeded > 0 => active.min(parallelism),
        None => parallelism,
    };
    if active > wanted {
        give_up(object, (active - wanted) as usize, census, plan);
    } else {
        track(census, plan);
        if active < wanted {
            match backoff(census) {
                Some(at) if at > now => plan.look_again(at),
                _ => create(seen, object, spec, (wanted - active) as usize, census, now, plan),
            }
        }
    }
}

/// Takes pods back: first out of the count, for it was not they who failed, then away.
fn give_up(job: &Object, excess: usize, census: &mut Census<'_>, plan: &mut Plan) {
    census.active.sort_by_cached_key(|object| {
        let pod = object.get::<Pod>();
        let ready = pod.is_some_and(pod::is_ready);
        let node = pod.and_then(pod::node_name).is_some();
        let created = object.meta().creation_timestamp.as_ref().map(|time| time.0);
        (is_tracked(object), node, ready, Reverse(created), object.key().name.clone())
    });
    for object in &census.active[..excess] {
        if is_tracked(object) {
            plan.ops.push(untrack(object));
        } else {
            plan.note(job.key(), false, Reason::new("SuccessfulDelete", format!("Deleted pod: {}", object.key().name)));
            plan.ops.push(Op::Delete { before: (*object).clone(), grace_seconds: None });
        }
    }
}

/// Puts back into the count what was to go and now stays.
fn track(census: &Census<'_>, plan: &mut Plan) {
    for object in census.active.iter().filter(|object| !is_tracked(object)) {
        let after = Object::clone(object).edit_meta(|meta| meta.finalizers.get_or_insert_with(Vec::new).push(TRACKING.to_owned()));
        plan.ops.push(Op::Update { before: Object::clone(object), after });
    }
}

/// When the next pod may start: after the failures since the last success, 10 s doubled for each.
fn backoff(census: &Census<'_>) -> Option<Timestamp> {
    let failures = census.ends.iter().rev().take_while(|(_, failed)| *failed).count();
    let (last, _) = census.ends.last().filter(|_| failures > 0)?;
    let exponent = u32::try_from(failures - 1).unwrap_or(u32::MAX).min(16);
    let delay = (FIRST_BACKOFF_SECONDS << exponent).min(LONGEST_BACKOFF_SECONDS);
    last.checked_add(delay.seconds()).ok()
}

fn create(seen: &Observed<'_>, job: &Object, spec: &JobSpec, count: usize, census: &Census<'_>, now: Timestamp, plan: &mut Plan) {
    let key = job.key();
    let waiting = naming::without_node(census.active.iter().copied());
    if let Some(reason) = naming::too_many_wait(waiting, count) {
        return plan.wait(key, reason);
    }
    let taken = |name: &str| seen.state.get(&Key::new(Kind::Pod, key.namespace.clone(), name)).is_some();
    let first = u64::try_from(census.succeeded.saturating_add(census.failed)).unwrap_or(0);
    for (index, name) in naming::free_pod_names(key, first, count, waiting, &taken).into_iter().enumerate() {
        let mut pod = naming::pod_of(job, &spec.template, name.clone());
        let labels = pod.metadata.labels.get_or_insert_with(Default::default);
        for (label, value) in [
            (JOB_NAME, &key.name),
            ("job-name", &key.name),
            (CONTROLLER_UID, &job.uid().to_owned()),
            ("controller-uid", &job.uid().to_owned()),
        ] {
            labels.insert(label.to_owned(), value.clone());
        }
        pod.metadata.finalizers.get_or_insert_with(Vec::new).push(TRACKING.to_owned());
        let op = Op::Create(Object::new(pod));
        // They are all alike. A Job has no condition for it: an event of the same words is one event.
        if let Some(why) = (index == 0).then(|| refusal::of(seen.state, &op, now)).flatten() {
            return refusal::tell(plan, key, refusal::FAILED_CREATE, &format!("Error creating: {why}"), true, now);
        }
        plan.note(key, false, Reason::new("SuccessfulCreate", format!("Created pod: {name}")));
        plan.ops.push(op);
    }
}

fn expiry(spec: &JobSpec, status: &JobStatus) -> Option<Timestamp> {
    let ttl = i64::from(spec.ttl_seconds_after_finished?);
    let finished = finish(status)?.last_transition_time.as_ref()?.0;
    finished.checked_add(ttl.seconds()).ok()
}

fn look_at_ttl(spec: &JobSpec, status: &JobStatus, now: Timestamp, plan: &mut Plan) {
    if let Some(at) = expiry(spec, status) {
        plan.look_again(at.max(now));
    }
}

/// Notes in the inventory of a source that wants the Job that it has had its run: together with its
/// deletion, or the source would run it again and again.
fn finished_of(source: &Object, job: &Object) -> Option<Op> {
    let status = source.get::<Source>()?.status.as_ref()?;
    let at = status.inventory.iter().position(|entry| entry.uid == job.uid() && entry.kind == Kind::Job.name())?;
    let after = source.edit::<Source>(|it| {
        if let Some(entry) = it.status.as_mut().and_then(|status| status.inventory.get_mut(at)) {
            Arc::make_mut(entry).finished = true;
        }
    })?;
    Some(Op::UpdateStatus { before: source.clone(), after })
}

/// A finished Job runs nothing and goes when its time is up.
fn after_the_end(
    seen: &Observed<'_>,
    object: &Object,
    spec: &JobSpec,
    status: &JobStatus,
    census: &Census<'_>,
    now: Timestamp,
    plan: &mut Plan,
) {
    if object.is_deleting() {
        return;
    }
    delete_active(object, census, plan);
    match expiry(spec, status) {
        Some(at) if at > now => plan.look_again(at),
        // Alone in its plan: the status is of no interest any more.
        Some(_) if plan.is_empty() => {
            plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: None });
            plan.ops.extend(seen.state.list(Kind::Source).filter_map(|source| finished_of(source, object)));
        }
        _ => {}
    }
}
