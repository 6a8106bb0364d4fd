//! What a Deployment reports: counts, Available, Progressing. PURE.

use jiff::ToSpan;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Observed, Pods, Rollout, Set};
use super::rolling;
use crate::control::refusal;
use crate::control::replica_set::plan::REPLICA_FAILURE;
use crate::model::{Object, Timestamp};
use crate::plan::{Op, Plan, Reason};

/// `progressDeadlineSeconds` of this value means none.
const NO_DEADLINE: i32 = i32::MAX;

/// Reason of the condition and the event when admission refuses the newest set.
const NOT_CREATED: &str = "ReplicaSetCreateError";

/// Every pod has the newest template, all are available, and no other is left.
pub fn is_complete(rollout: &Rollout<'_>) -> bool {
    let replicas = rollout.replicas();
    let active: i32 = rollout.sets.iter().map(|set| set.pods.active).sum();
    let new = rollout.new_set().map(|set| set.pods).unwrap_or_default();
    rollout.newest.is_some() && new.active == replicas && active == replicas && new.available == replicas
}

/// Whether it says that it is paused.
pub fn was_paused(deployment: &Deployment) -> bool {
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|known| known.reason.as_deref() == Some("DeploymentPaused"))
}

/// Writes the status where it differs, and says what the rollout waits for.
/// `refused`: why the set of the newest template cannot be created.
pub fn report(rollout: &Rollout<'_>, seen: &Observed<'_>, refused: Option<&str>, now: Timestamp, plan: &mut Plan) {
    let none = DeploymentStatus::default();
    let before = rollout.deployment.status.as_ref().unwrap_or(&none);
    let mut after = counts(rollout, seen, before);
    let mut conditions = before.conditions.clone().unwrap_or_default();
    available(rollout, &after, &mut conditions, now);
    match refused {
        Some(why) => not_created(rollout, why, &mut conditions, now, plan),
        None => progressing(rollout, before, &after, &mut conditions, now, plan),
    }
    replica_failure(rollout, &mut conditions, now);
    after.conditions = Some(conditions);
    for at in rollout.sets.iter().filter_map(|set| set.pods.next_available) {
        plan.look_again(at);
    }
    if !is_complete(rollout) && !rollout.object.is_deleting() {
        let wanted = rollout.replicas();
        let done = rollout.new_set().map_or(0, |set| set.pods.available.min(wanted));
        let message = format!("{done} of {wanted} updated replicas are available");
        plan.wait(rollout.object.key(), Reason::new("RolloutInProgress", message));
    }
    if rollout.deployment.status.as_ref() != Some(&after) {
        let Deployment { metadata, spec, .. } = rollout.deployment;
        let changed = Deployment { metadata: metadata.clone(), spec: spec.clone(), status: Some(after) };
        plan.ops.push(Op::UpdateStatus { before: rollout.object.clone(), after: Object::new(changed) });
    }
}

fn counts(rollout: &Rollout<'_>, seen: &Observed<'_>, before: &DeploymentStatus) -> DeploymentStatus {
    let some = |count: i32| (count != 0).then_some(count);
    let sum = |read: fn(&Pods) -> i32| seen.sets.iter().map(|set| read(&set.pods)).sum::<i32>();
    let (active, available) = (sum(|pods| pods.active), sum(|pods| pods.available));
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: some(active),
        updated_replicas: some(rollout.new_set().map_or(0, |set| set.pods.active)),
        ready_replicas: some(sum(|pods| pods.ready)),
        available_replicas: some(available),
        unavailable_replicas: some(rolling::total(rollout).saturating_sub(available).max(0)),
        terminating_replicas: some(sum(|pods| pods.terminating)),
        collision_count: before.collision_count,
        conditions: None,
    }
}

fn condition(type_: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(type_.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
        last_update_time: Some(Time(now)),
    }
}

fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition) {
    match conditions.iter_mut().find(|known| known.type_ == new.type_) {
        Some(known) => {
            if known.status == new.status {
                new.last_transition_time = known.last_transition_time.clone();
            }
            *known = new;
        }
        None => conditions.push(new),
    }
}

fn not_created(rollout: &Rollout<'_>, why: &str, conditions: &mut Vec<DeploymentCondition>, now: Timestamp, plan: &mut Plan) {
    let new = !conditions.iter().any(|known| known.reason.as_deref() == Some(NOT_CREATED) && known.message.as_deref() == Some(why));
    if new {
        set(conditions, condition("Progressing", "False", NOT_CREATED, why.to_owned(), now));
    }
    refusal::tell(plan, rollout.object.key(), NOT_CREATED, why, new, now);
}

/// Says of the Deployment what its newest set, or else another, says of itself.
fn replica_failure(rollout: &Rollout<'_>, conditions: &mut Vec<DeploymentCondition>, now: Timestamp) {
    let of = |set: &Set<'_>| {
        set.after.status.as_ref()?.conditions.iter().flatten().find(|it| it.type_.as_deref() == Some(REPLICA_FAILURE)).cloned()
    };
    let failed = rollout.new_set().and_then(of).or_else(|| rollout.sets.iter().find_map(of));
    let (Some(reason), Some(message)) =
        (failed.as_ref().and_then(|it| it.reason.as_ref()), failed.as_ref().and_then(|it| it.message.clone()))
    else {
        return conditions.retain(|known| known.type_.as_deref() != Some(REPLICA_FAILURE));
    };
    let told = |known: &DeploymentCondition| known.type_.as_deref() == Some(REPLICA_FAILURE) && known.message.as_ref() == Some(&message);
    if !conditions.iter().any(told) {
        set(conditions, condition(REPLICA_FAILURE, "True", reason, message, now));
    }
}

fn available(rollout: &Rollout<'_>, after: &DeploymentStatus, conditions: &mut Vec<DeploymentCondition>, now: Timestamp) {
    let least = rollout.replicas() - rolling::max_unavailable(rollout);
    let (status, reason, message) = if after.available_replicas.unwrap_or(0) >= least {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let known = conditions.iter().find(|known| known.type_.as_deref() == Some("Available"));
    if known.is_none_or(|known| known.status.as_deref() != Some(status) || known.reason.as_deref() != Some(reason)) {
        set(conditions, condition("Available", status, reason, message.to_owned(), now));
    }
}

fn progressing(
    rollout: &Rollout<'_>,
    before: &DeploymentStatus,
    after: &DeploymentStatus,
    conditions: &mut Vec<DeploymentCondition>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let deadline = rollout.spec.progress_deadline_seconds.unwrap_or(600);
    let known = conditions.iter().find(|known| known.type_.as_deref() == Some("Progressing")).cloned();
    let known = known.filter(|known| known.reason.as_deref() != Some(NOT_CREATED));
    let reason = known.as_ref().and_then(|known| known.reason.as_deref()).unwrap_or_default();
    let name = rollout.new_set().map_or(String::new(), |set| format!("ReplicaSet \"{}\"", set.name()));
    if deadline == NO_DEADLINE {
        conditions.retain(|known| known.type_.as_deref() != Some("Progressing"));
        return;
    }
    if rollout.spec.paused.unwrap_or(false) {
        if reason != "DeploymentPaused" {
            set(conditions, condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".to_owned(), now));
        }
        return;
    }
    if reason == "DeploymentPaused" {
        return set(conditions, condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned(), now));
    }
    if is_complete(rollout) {
        let message = format!("{name} has successfully progressed.");
        let same = known.as_ref().is_some_and(|known| known.message.as_deref() == Some(&message));
        if reason != "NewReplicaSetAvailable" || !same {
            set(conditions, condition("Progressing", "True", "NewReplicaSetAvailable", message, now));
        }
        return;
    }
    let count = |value: Option<i32>| value.unwrap_or(0);
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    let moved = count(after.updated_replicas) > count(before.updated_replicas)
        || old(after) < old(before)
        || count(after.ready_replicas) > count(before.ready_replicas)
        || count(after.available_replicas) > count(before.available_replicas);
    let was_complete = reason == "NewReplicaSetAvailable" && count(after.updated_replicas) == count(after.replicas);
    let Some(known) = &known else {
        let created = rollout.new_set().is_some_and(|set| set.before.is_none());
        let (reason, verb) = if created { ("NewReplicaSetCreated", "Created new") } else { ("FoundNewReplicaSet", "Found new") };
        let short = rollout.new_set().map(Set::name).unwrap_or_default();
        set(conditions, condition("Progressing", "True", reason, format!("{verb} replica set \"{short}\""), now));
        return look_at_deadline(now, deadline, plan);
    };
    if was_complete && !moved {
        return;
    }
    let new_template = reason == "NewReplicaSetAvailable";
    let since = known.last_update_time.as_ref().map_or(now, |time| time.0);
    if moved || new_template {
        set(conditions, condition("Progressing", "True", "ReplicaSetUpdated", format!("{name} is progressing."), now));
        look_at_deadline(now, deadline, plan);
    } else if reason != "ProgressDeadlineExceeded" {
        if since.checked_add(i64::from(deadline).seconds()).is_ok_and(|limit| limit <= now) {
            let message = format!("{name} has timed out progressing.");
            set(conditions, condition("Progressing", "False", "ProgressDeadlineExceeded", message, now));
        } else {
            look_at_deadline(since, deadline, plan);
        }
    }
}

fn look_at_deadline(since: Timestamp, deadline: i32, plan: &mut Plan) {
    if let Ok(at) = since.checked_add(i64::from(deadline).seconds()) {
        plan.look_again(at);
    }
}
