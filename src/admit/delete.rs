//! A deletion: at once, with grace, or when the last finalizer is gone. PURE.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{LASTING_NAMESPACES, Outcome, Refused, definition, seconds};
use crate::model::{Kind, Object, Timestamp, Typed, pod};

/// What Kubernetes grants where nobody says.
const DEFAULT_GRACE: i64 = 30;
/// Ten years: what is longer means "as long as it takes", and must not leave the calendar.
const LONGEST_GRACE: i64 = 10 * 365 * 24 * 3600;

pub(super) fn delete(current: &Object, grace: Option<i64>, now: Timestamp) -> Result<Outcome, Refused> {
    if current.kind() == Kind::Namespace && LASTING_NAMESPACES.contains(&current.key().name.as_str()) {
        return Err(Refused::Forbidden { key: current.key().clone(), message: "this namespace may not be deleted".to_owned(), at: "" });
    }
    if let Some(pod) = current.get::<Pod>() {
        return Ok(delete_pod(current, pod, grace, now));
    }
    let held = is_held(current);
    Ok(match (held, current.is_deleting()) {
        (false, _) => Outcome::Remove,
        (true, true) => Outcome::Unchanged,
        (true, false) => Outcome::Put(mark(current, now, seconds(now), 0)),
    })
}

/// Whether asking for its deletion removes it: no finalizer holds it and no node has to end it first.
pub fn goes_at_once(object: &Object) -> bool {
    !is_held(object) && object.kind() != Kind::Pod
}

fn is_held(object: &Object) -> bool {
    let own = object.meta().finalizers.as_ref().is_some_and(|names| !names.is_empty());
    let namespace = match object.typed() {
        Typed::Namespace(it) => it.spec.as_ref().and_then(|spec| spec.finalizers.as_ref()).is_some_and(|names| !names.is_empty()),
        _ => false,
    };
    own || namespace
}

/// The object with its end written on it. Its generation moves: its meaning has changed.
fn mark(object: &Object, now: Timestamp, at: Time, grace: i64) -> Object {
    let mut typed = object.typed().clone();
    let first = !object.is_deleting();
    let meta = typed.meta_mut();
    meta.deletion_timestamp = Some(at);
    meta.deletion_grace_period_seconds = Some(grace);
    if first {
        meta.generation = meta.generation.map(|it| it + 1);
    }
    if let Typed::Namespace(it) = &mut typed {
        it.status.get_or_insert_default().phase = Some("Terminating".to_owned());
        it.metadata.deletion_grace_period_seconds = None;
    }
    if let Typed::CustomResourceDefinition(it) = &mut typed {
        definition::end(it, definition::Ending::Asked, now);
    }
    Object::from_typed(typed)
}

/// A pod that runs somewhere gets time to end; its agent takes it away with grace 0.
fn delete_pod(current: &Object, pod: &Pod, grace: Option<i64>, now: Timestamp) -> Outcome {
    let granted = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE);
    // Kubernetes reads a negative grace as the shortest there is.
    let asked = grace.unwrap_or(granted);
    let asked = if asked < 0 { 1 } else { asked.min(LONGEST_GRACE) };
    let nothing_runs = pod::node_name(pod).is_none() || pod::is_terminal(pod);
    let grace = if nothing_runs { 0 } else { asked };
    if grace == 0 && !is_held(current) {
        return Outcome::Remove;
    }
    let meta = current.meta();
    let Some(Time(end)) = meta.deletion_timestamp else {
        return Outcome::Put(mark(current, now, later(now, grace), grace));
    };
    let before = meta.deletion_grace_period_seconds.unwrap_or(0);
    if grace >= before {
        return Outcome::Unchanged;
    }
    // Shorter than before: counted from when it was first asked for.
    Outcome::Put(mark(current, now, later(end, grace - before), grace))
}

fn later(time: Timestamp, by: i64) -> Time {
    seconds(time.checked_add(SignedDuration::from_secs(by)).unwrap_or(time))
}
