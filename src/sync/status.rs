//! What a look at a source writes to its status. PURE.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::again::{CHANGED_AGAIN, Fight, is_changed, seconds};
use super::approval;
use super::asked::{DENIED, UNAVAILABLE, is_held_back};
use super::plan::SyncPlan;
use crate::model::{Source, SourceStatus, Timestamp};
use crate::plan::Wait;

/// Errors, and warnings, shown of one look: an object of the store has its bounds, a tree has none on what may be wrong with it.
pub const ERRORS: usize = 200;

/// What came of a look.
pub enum Outcome<'a> {
    /// Nothing is known of the place.
    Unreachable(&'a str),
    /// The revision cannot be read.
    Invalid { revision: Option<&'a str>, errors: &'a [String] },
    /// The revision was planned, and its step is in the same transaction if it is free.
    Planned(&'a SyncPlan),
}

/// The next status; the same as before where nothing is new. `request`: what the look answers.
pub fn next(source: &Source, outcome: &Outcome<'_>, request: Option<&str>, now: Timestamp) -> SourceStatus {
    let mut status = source.status.clone().unwrap_or_default();
    let ready = match outcome {
        Outcome::Unreachable(why) => {
            status.errors = vec![format!("unreachable: {why}")];
            // What cannot be read cannot be approved; it is asked for again when it can.
            status.pending_plan = None;
            ("False", "Unreachable", (*why).to_owned())
        }
        Outcome::Invalid { revision, errors } => {
            status.fetched_revision = revision.map(str::to_owned);
            status.errors = bounded(errors.iter().cloned());
            status.pending_plan = None;
            status.contested = Vec::new();
            let message = match *errors {
                [one] => format!("the newest revision changes nothing: {one}"),
                all => format!("the newest revision has {} errors and changes nothing", all.len()),
            };
            ("False", INVALID, message)
        }
        Outcome::Planned(plan) if plan.is_free() => {
            let asked = request.is_some() && status.handled_request.as_deref() != request;
            accepted(&mut status, plan, asked, now)
        }
        Outcome::Planned(plan) => refused(&mut status, plan),
    };
    let generation = source.metadata.generation;
    condition(&mut status.conditions, "Ready", ready, generation, now);
    let fetched = match outcome {
        Outcome::Unreachable(why) => ("False", "Unreachable", (*why).to_owned()),
        _ => ("True", "Fetched", String::new()),
    };
    condition(&mut status.conditions, "Fetched", fetched, generation, now);
    status
}

/// Reason of the condition `Ready` while the store is too full for what was planned.
pub const STORE_FULL: &str = "StoreFull";

/// The status of a source of whose newest plan the store has taken nothing, for want of space. `None`: it says so
/// already, in other words perhaps: how much is free changes all the time, and each try would write that. It goes with
/// the next look that can be written.
pub fn full(source: &Source, why: &str, now: Timestamp) -> Option<SourceStatus> {
    let mut status = source.status.clone().unwrap_or_default();
    if status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.reason == STORE_FULL) {
        return None;
    }
    let message = format!("nothing of the newest look is written, the store is short of space: {why}");
    condition(&mut status.conditions, "Ready", ("False", STORE_FULL, message), source.metadata.generation, now);
    Some(status)
}

/// Reason of the condition `Ready` where the newest revision cannot be read as it is.
pub const INVALID: &str = "Invalid";

/// Reason of the condition `Ready` where a wave of the accepted revision has failed.
pub const WAVE_FAILED: &str = "WaveFailed";

/// The same while it is being applied.
pub const PROGRESSING: &str = "Progressing";

type Ready = (&'static str, &'static str, String);

fn accepted(status: &mut SourceStatus, plan: &SyncPlan, asked: bool, now: Timestamp) -> Ready {
    if status.accepted_revision.as_deref() != Some(&plan.revision) || !plan.accepted {
        status.accepted_at = Some(Time(now));
    }
    // Not at every look: what the revision did is still to be read when there is nothing left to do. Nor while its
    // waves are on their way, whoever asks: what is left of it is not what it does.
    let on_its_way = is_on_its_way(status);
    if (asked && !on_its_way) || !plan.accepted || status.last_plan.is_none() || status.fetched_revision.as_deref() != Some(&plan.revision)
    {
        status.last_plan = Some(plan.sum.to_string());
    }
    if !plan.approvals.is_empty() {
        status.approved_plan = Some(plan.id.clone());
    }
    // Those there are may be of a revision that was refused in between.
    let is_another = status.fetched_revision.as_deref() != Some(&plan.revision);
    status.fetched_revision = Some(plan.revision.clone());
    status.accepted_revision = Some(plan.revision.clone());
    status.accepted_set = Some(plan.set_digest.clone());
    status.pending_plan = None;
    status.skipped = bounded(plan.skipped.iter().cloned());
    if !plan.accepted || is_another {
        status.warnings.clear();
    }
    warned(status, &plan.warnings);
    status.contested = Vec::new();
    if !Arc::ptr_eq(&plan.inventory, &plan.held) {
        status.inventory = plan.inventory.to_entries();
    }
    standing(status, plan)
}

/// How far an accepted revision is.
fn standing(status: &mut SourceStatus, plan: &SyncPlan) -> Ready {
    let (failed, held) = (|wait: &&Wait| wait.reason.code == WAVE_FAILED, |wait: &&Wait| is_held_back(wait));
    let (waits, again) = (&plan.waits, |wait: &&Wait| is_changed(wait));
    let first = waits.iter().find(failed).or_else(|| waits.iter().find(held));
    let first = first.or_else(|| waits.iter().find(|wait| !again(wait))).or(waits.first());
    // That somebody keeps changing it is told once nothing else is to come.
    let is_told = |wait: &&Wait| failed(wait) || held(wait) || (again(wait) && first.is_some_and(is_changed));
    status.errors = bounded(waits.iter().filter(is_told).map(told));
    match first {
        Some(wait) if is_told(&wait) => ("False", wait.reason.code, told(wait)),
        Some(wait) => ("False", PROGRESSING, told(wait)),
        None if plan.now < plan.ops.len() => ("False", PROGRESSING, "later waves are to come".to_owned()),
        None => ("True", "Synced", String::new()),
    }
}

/// The condition of a source of which somebody else changes something again and again, for as long as that counts; other
/// sources have none. It is `False` also while all is as it says: who waits for that must not take it for the end.
pub const UNDISTURBED: &str = "Undisturbed";

/// Tells of what is put back again and again.
pub(super) fn disturbed(status: &mut SourceStatus, fights: &[Fight], source: &Source, now: Timestamp) {
    let Some(first) = fights.first() else { return status.conditions.retain(|condition| condition.type_ != UNDISTURBED) };
    let more = match fights.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more objects)"),
    };
    let message = format!(
        "{}: put back {} times in a row, and somebody else, or a webhook, changed it again each time{more}; over if it stays so until {}",
        first.key,
        first.times,
        seconds(first.until)
    );
    condition(&mut status.conditions, UNDISTURBED, ("False", CHANGED_AGAIN, message), source.metadata.generation, now);
}

fn told(wait: &Wait) -> String {
    format!("{}: {}", wait.subject, wait.reason.message)
}

/// Adds what webhooks warn of, as far as there is room: the same again is no news.
fn warned(status: &mut SourceStatus, warnings: &BTreeSet<String>) {
    let mut all: BTreeSet<String> = status.warnings.drain(..).collect();
    all.extend(warnings.iter().cloned());
    status.warnings = all.into_iter().take(ERRORS).collect();
}

/// Adds what webhooks hold back of the accepted revision, while the newest is not it, or is not read yet.
pub(super) fn held_back(status: &mut SourceStatus, plan: &SyncPlan, source: &Source, is_unread: bool, now: Timestamp) {
    let was_held = |condition: &Condition| condition.type_ == "Ready" && [DENIED, UNAVAILABLE].contains(&condition.reason.as_str());
    if is_unread && status.conditions.iter().any(was_held) {
        // All that was told is of this revision, and may be so no more.
        let ready = standing(status, plan);
        return condition(&mut status.conditions, "Ready", ready, source.metadata.generation, now);
    }
    if is_unread && has_count(&status.errors) {
        // Those that are held back may be among those counted.
        return;
    }
    let held = plan.waits.iter().filter(|wait| is_held_back(wait) || (!is_unread && is_changed(wait))).map(told);
    // They may be told already, while nothing is known of the newest.
    let new: Vec<String> = held.filter(|line| !status.errors.contains(line)).collect();
    status.errors = extended(std::mem::take(&mut status.errors), new);
}

/// Messages and more of them: the line that counts what is not shown stays the last.
fn extended(mut messages: Vec<String>, more: Vec<String>) -> Vec<String> {
    let at = messages.len() - usize::from(has_count(&messages));
    messages.splice(at..at, more);
    bounded(messages.into_iter())
}

/// Begins the message of the condition `Ready` of a source that is to go and does not.
pub const STAYS: &str = "it is not removed, and nothing of it is deleted";

/// The status of a source that is to go with what it created, of which webhooks hold this back. `None`: they hold nothing back.
/// `request`: what this answers.
pub(super) fn stays(
    source: &Source,
    held: &[Wait],
    warnings: &BTreeSet<String>,
    request: Option<&str>,
    now: Timestamp,
) -> Option<SourceStatus> {
    let first = held.first()?;
    let mut status = source.status.clone().unwrap_or_default();
    status.errors = bounded(held.iter().map(told));
    status.warnings.clear();
    warned(&mut status, warnings);
    status.handled_request = request.map(str::to_owned).or(status.handled_request);
    let message = format!("{STAYS}: {}", told(first));
    condition(&mut status.conditions, "Ready", ("False", first.reason.code, message), source.metadata.generation, now);
    Some(status)
}

/// The accepted revision is not wholly applied.
fn is_on_its_way(status: &SourceStatus) -> bool {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    ready.is_some_and(|ready| matches!(ready.reason.as_str(), PROGRESSING | WAVE_FAILED))
}

fn refused(status: &mut SourceStatus, plan: &SyncPlan) -> Ready {
    status.fetched_revision = Some(plan.revision.clone());
    status.warnings.clear();
    warned(status, &plan.warnings);
    status.errors = bounded(plan.refusals().map(|reason| reason.message.clone()));
    status.skipped = bounded(plan.skipped.iter().cloned());
    status.contested = plan.contested.clone();
    status.last_plan = Some(plan.sum.to_string());
    status.pending_plan = plan.blocked.is_empty().then(|| plan.id.clone());
    if plan.blocked.is_empty() {
        approval::keep(&mut status.waiting_plans, plan);
    }
    let first = plan.refusals().next().map(|reason| reason.message.clone()).unwrap_or_default();
    if plan.blocked.is_empty() { ("False", "NeedsApproval", first) } else { ("False", "Refused", first) }
}

fn bounded(messages: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = messages.collect();
    if all.len() > ERRORS {
        let more = counted(all.len(), all.last().map_or("", String::as_str)) - ERRORS;
        all.truncate(ERRORS);
        all.push(format!("and {more} more"));
    }
    all
}

/// How many messages a status has, of so many lines with this one as the last: it may only count the others.
pub fn counted(lines: usize, last: &str) -> usize {
    let more: Option<usize> = last.strip_prefix("and ").and_then(|rest| rest.strip_suffix(" more")?.parse().ok());
    match more {
        Some(more) if lines > ERRORS => more.saturating_add(lines - 1),
        _ => lines,
    }
}

/// Whether the last of a status' messages counts others.
fn has_count(messages: &[String]) -> bool {
    messages.last().is_some_and(|last| counted(messages.len(), last) != messages.len())
}

/// Sets a condition; its time moves only when its status does.
fn condition(all: &mut Vec<Condition>, kind: &str, (state, reason, message): Ready, generation: Option<i64>, now: Timestamp) {
    let old = all.iter().position(|condition| condition.type_ == kind);
    let since = old.map(|index| &all[index]).filter(|old| old.status == state).map_or(Time(now), |old| old.last_transition_time.clone());
    let new = Condition {
        last_transition_time: since,
        message,
        observed_generation: generation,
        reason: reason.to_owned(),
        status: state.to_owned(),
        type_: kind.to_owned(),
    };
    match old {
        Some(index) => all[index] = new,
        None => all.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_counted() {
        let some = |count: usize| (0..count).map(|index| format!("a.yaml:{index}: no"));
        for count in [0, 1, ERRORS - 1, ERRORS, ERRORS + 1, 30 * ERRORS] {
            let told = bounded(some(count));
            assert!(told.len() <= ERRORS + 1);
            assert_eq!(counted(told.len(), told.last().map_or("", String::as_str)), count);
            // With more of them later, as those that webhooks hold back.
            for more in [0, 1, ERRORS] {
                let all = extended(told.clone(), (0..more).map(|index| format!("ConfigMap web/{index}: no")).collect());
                assert!(all.len() <= ERRORS + 1);
                assert_eq!(counted(all.len(), all.last().map_or("", String::as_str)), count + more, "{count} and {more}");
            }
        }
        assert_eq!(counted(2, "and 7 more"), 2, "somebody's words");
    }
}
