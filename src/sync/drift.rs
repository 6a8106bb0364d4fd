//! Fields that git says and somebody else changed: which, who did, and what they are put back to. PURE.
//!
//! What is put back is told by an Event of the object: with the step that does it, but never in its way.

use serde_json::Value;

use super::asked::{DENIED, UNAVAILABLE};
use super::identity::said;
use super::op::{Action, SyncOp};
use super::plan::{SyncPlan, manager};
use super::status::{PROGRESSING, WAVE_FAILED};
use crate::model::custom::Definitions;
use crate::model::event::{Occurrence, reference};
use crate::model::ownership::{FieldChange, ManagedFields, Operation, Owner, changes};
use crate::model::{Kind, Object, Source, Timestamp};
use crate::plan::{Note, Reason};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{Precondition, Write};

/// Reason of the Events.
pub const PUT_BACK: &str = "PutBack";
/// Objects told of in one step: an Event each, and a step may put back thousands.
const TOLD: usize = 100;
/// Fields that are named of one object.
const NAMED: usize = 3;
/// Characters of a value that are told.
const SHOWN: usize = 80;

/// Who writes objects and leaves no name in their `managedFields`.
const NAMELESS: &str = "a controller of Podbay's, a node or a webhook";

/// Whoever besides this manager of a source says a field, as Kubernetes names them. The field's path is printed as
/// `spec.replicas`.
pub fn others(managed: &ManagedFields, manager: &str, path: &str) -> Vec<String> {
    let mut found: Vec<String> = managed
        .owners
        .iter()
        .filter(|owner| !is_of(owner, manager) && says(owner, path))
        .map(|owner| match owner.subresource.as_str() {
            "" => format!("{:?}", owner.manager),
            subresource => format!("{:?} with subresource {subresource:?}", owner.manager),
        })
        .collect();
    found.dedup();
    found
}

/// Who has changed a field that this manager of a source has applied. Whoever comes by the API takes it over, or away from
/// all who said it: where it is still the source's alone, it was somebody whose writes are not followed. Empty: nobody is known.
pub fn changed_by(managed: &ManagedFields, manager: &str, path: &str) -> Vec<String> {
    let by = others(managed, manager, path);
    let is_still_its_own = || managed.owners.iter().any(|owner| is_of(owner, manager) && says(owner, path));
    if by.is_empty() && is_still_its_own() { vec![NAMELESS.to_owned()] } else { by }
}

fn is_of(owner: &Owner, manager: &str) -> bool {
    owner.manager == manager && owner.operation == Operation::Apply
}

fn says(owner: &Owner, path: &str) -> bool {
    // Who says `stringData` of a Secret says its `data`.
    let plain = path.strip_prefix("data").map(|rest| format!("stringData{rest}"));
    owner.fields.paths().iter().any(|owned| {
        let owned = owned.trim_start_matches('.');
        let is = |path: &str| owned == path || owned.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']));
        is(path) || plain.as_deref().is_some_and(is)
    })
}

/// `spec.replicas: 3 -> 1, changed by "kubectl"`; nobody is known of what was removed.
pub fn sentence(change: &str, by: &[String]) -> String {
    if by.is_empty() { change.to_owned() } else { format!("{change}, changed by {}", by.join(" and ")) }
}

/// Who has changed what of an object that is to be as `result`: `"kubectl" has changed spec.replicas`.
pub(super) fn who(before: &Object, result: &Object, source: &str, served: &Definitions) -> String {
    let shapes = served.shapes(before.kind());
    let managed = ManagedFields::of(before.meta()).spoken(shapes, &before.value());
    let paths: Vec<String> = changes(shapes, &said(before), &said(result)).into_iter().map(|change| change.path).collect();
    let mut by: Vec<String> = paths.iter().flat_map(|path| changed_by(&managed, &manager(source), path)).collect();
    by.sort_unstable();
    by.dedup();
    let (first, more) = paths.split_at(paths.len().min(NAMED));
    let what = match (first, more.len()) {
        ([], _) => "it".to_owned(),
        (first, 0) => first.join(", "),
        (first, more) => format!("{} and {more} more", first.join(", ")),
    };
    let who = if by.is_empty() { "somebody else".to_owned() } else { by.join(" and ") };
    format!("{who} {} changed {what}", if by.len() > 1 { "have" } else { "has" })
}

/// The writes that tell of what this step puts back.
pub(super) fn told(state: &Snapshot, source: &Source, plan: &SyncPlan, now: Timestamp) -> Vec<Write> {
    if !plan.accepted {
        return Vec::new();
    }
    // Else a wave that is still to come, or a webhook lets pass now, may change what nobody but git has said.
    let conditions = source.status.iter().flat_map(|status| &status.conditions);
    let is_to_come = |reason: &str| matches!(reason, PROGRESSING | WAVE_FAILED | DENIED | UNAVAILABLE);
    let applied = conditions.into_iter().any(|it| it.type_ == "Ready" && !is_to_come(&it.reason));
    let events = plan.step().iter().filter(|op| op.action == Action::Update).filter_map(|op| {
        let reason = Reason::new(PUT_BACK, message(op, &plan.source, applied, state.definitions())?);
        Some(event(state, &Note { subject: op.key().clone(), warning: false, reason }, now))
    });
    events.take(TOLD).collect()
}

/// The write that tells something as an Event.
pub(super) fn event(state: &Snapshot, note: &Note, now: Timestamp) -> Write {
    let about = reference(&note.subject, state.get(&note.subject).map(Object::uid));
    let occurrence = Occurrence::new(about, note.warning, note.reason.code, &note.reason.message, "sync");
    let known = state.get(&occurrence.key());
    let event = occurrence.happened(known.and_then(Object::get), now);
    match known {
        Some(known) => Write::Update(event, Precondition::seen(known)),
        None => Write::Create(event),
    }
}

/// What an op puts back; `None`: nothing that is known to be somebody else's.
fn message(op: &SyncOp, source: &str, applied: bool, served: &Definitions) -> Option<String> {
    let (before, result) = (op.before.as_ref()?, op.result.as_ref()?);
    let (kind, manager) = (before.kind(), manager(source));
    let shapes = served.shapes(kind);
    let managed = ManagedFields::of(before.meta()).spoken(shapes, &before.value());
    let fields: Vec<String> = changes(shapes, &said(before), &said(result))
        .iter()
        .filter_map(|change| {
            let is_known = !others(&managed, &manager, &change.path).is_empty();
            (applied || is_known).then(|| sentence(&shown(kind, change), &changed_by(&managed, &manager, &change.path)))
        })
        .collect();
    (!fields.is_empty()).then(|| format!("put back as {} of source {source} says: {}", op.file, fields.join("; ")))
}

/// `spec.replicas: 3 -> 1`; of a Secret, of a structure and of a long text the path alone.
fn shown(kind: Kind, change: &FieldChange) -> String {
    let word = |value: &Option<Value>| match value {
        None => Some("nothing".to_owned()),
        Some(Value::String(text)) if text.chars().count() > SHOWN || text.contains(char::is_control) => None,
        Some(Value::String(text)) => Some(if text.is_empty() || text.trim() != text { format!("{text:?}") } else { text.clone() }),
        Some(Value::Object(_) | Value::Array(_)) => None,
        Some(other) => Some(other.to_string()),
    };
    match (word(&change.before), word(&change.after)) {
        (Some(before), Some(after)) if kind != Kind::Secret => format!("{}: {before} -> {after}", change.path),
        _ => change.path.clone(),
    }
}
