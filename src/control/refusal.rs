//! What admission refuses a controller: told on the object it works for, as Kubernetes tells it. PURE.
//!
//! The planner asks before it decides: a write that would be refused is no op, but a reason.

use jiff::ToSpan;

use crate::admit;
use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Op, Plan, Reason};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::Stamp;

/// Code of the event and the wait.
pub const FAILED_CREATE: &str = "FailedCreate";
/// When to ask again, if nothing changes before.
const AGAIN_SECONDS: i64 = 60;

/// Why admission would refuse to create this, if it would.
pub fn of(state: &Snapshot, op: &Op, now: Timestamp) -> Option<String> {
    let mut uid = || "asked".to_owned();
    let current = state.get(op.key());
    // That one is there in the meantime is a conflict, and no refusal.
    let is_there = matches!(op, Op::Create(_)) && current.is_some();
    let answer = (!is_there).then(|| admit::admit(op.write(), current, state, "controller:asks", &mut Stamp { now, uid: &mut uid }));
    answer.and_then(Result::err).map(|refused| refused.to_string())
}

/// Whose pods an account that has come may let in now: those of a kind in its namespace whose template names it.
pub fn by_account(state: &Snapshot, kind: Kind, account: &Object) -> Vec<Key> {
    let name = account.key().name.as_str();
    let names = |owner: &&Object| {
        let spec = owner.template().and_then(|template| template.spec.as_ref());
        spec.and_then(|spec| spec.service_account_name.as_deref()) == Some(name)
    };
    state.list_in(kind, &account.key().namespace).filter(names).map(|owner| owner.key().clone()).collect()
}

/// Says it in the plan: waited for, and noted where it is `new`.
pub fn tell(plan: &mut Plan, subject: &Key, code: &'static str, message: &str, new: bool, now: Timestamp) {
    plan.wait(subject, Reason::new(FAILED_CREATE, message));
    if new {
        plan.note(subject, true, Reason::new(code, message));
    }
    if let Ok(at) = now.checked_add(AGAIN_SECONDS.seconds()) {
        plan.look_again(at);
    }
}
