//! Which pods nobody will ever end, and which nobody needs any more.

use jiff::ToSpan;

use crate::model::{Object, Timestamp};
use crate::plan::{Op, Plan, Reason};

/// A pod may be bound by hand to a node that is about to join.
const QUARANTINE_SECONDS: i64 = 40;

/// The pods in question.
pub struct Observed {
    /// Bound to a node that does not exist.
    pub homeless: Vec<Object>,
    /// Finished and not being deleted.
    pub finished: Vec<Object>,
    /// How many finished ones stay.
    pub keep: usize,
}

pub fn plan(seen: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for object in &seen.homeless {
        let created = object.meta().creation_timestamp.as_ref().map(|time| time.0);
        match created.and_then(|created| created.checked_add(QUARANTINE_SECONDS.seconds()).ok()).filter(|until| *until > now) {
            Some(until) => plan.look_again(until),
            // Marked with no grace already: only a finalizer holds it.
            None if object.is_deleting() && object.meta().deletion_grace_period_seconds == Some(0) => {}
            None => {
                plan.note(object.key(), false, Reason::new("NodeGone", "the pod's node does not exist any more"));
                plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: Some(0) });
            }
        }
    }
    if seen.finished.len() > seen.keep {
        let mut finished: Vec<&Object> = seen.finished.iter().collect();
        finished.sort_unstable_by_key(|object| (object.meta().creation_timestamp.as_ref().map(|time| time.0), object.key().clone()));
        for object in finished.into_iter().take(seen.finished.len() - seen.keep) {
            plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: None });
        }
    }
    plan
}
