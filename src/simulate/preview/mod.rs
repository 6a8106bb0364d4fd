//! What a source's revision will do: the sync plan on a copy of the state, run until only time or a
//! process exit can change it, and the difference. PURE.
//!
//! - `fields`: an object's changes, field by field, without secrets
//! - `pods`: which pods start and stop, and where; `volumes`: which volumes are made for claims, and go
//! - `text`: the preview for a person
//! - `matched`: the pods it named against those that then were
//!
//! The preview is a value: its JSON is what `POST …/previews` answers and what `-o json` prints, and
//! the text is made from it wherever it is shown.

mod fields;
mod lines;
pub mod matched;
mod pods;
mod text;
mod volumes;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use serde::{Deserialize, Serialize};

use super::settle::{MADE, settle_within};
use crate::admit::{LASTING_NAMESPACES, Refused};
use crate::model::custom::Definitions;
use crate::model::webhook::CONFIGURATIONS;
use crate::model::{Key, Kind, Object, Source, Timestamp};
use crate::plan::{Controller, Wait};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::Stamp;
use crate::sync::again::is_changed;
use crate::sync::asked::{Answers, Questions, is_held_back};
use crate::sync::inventory;
use crate::sync::look::{Look, Memory, Revision, decide};
use crate::sync::names::{APPROVE, FINALIZER};
use crate::sync::plan::{self, Counts, Input, SyncPlan};

pub use fields::{FieldPreview, printable};
pub use pods::{PodPreview, Pods};
pub use volumes::{VolumePreview, volumes};

/// What a revision will do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preview {
    pub source: String,
    pub revision: String,
    /// A commit's subject line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// What `--approve` takes.
    pub plan_id: String,
    /// Everything in one line.
    pub sum: String,
    pub counts: Counts,
    /// Why the revision cannot be read: nothing below is known then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Why nothing would happen, whatever anybody approves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<String>,
    /// What may be meant instead of what is refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Why it waits until somebody approves the plan.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<String>,
    pub objects: Vec<ObjectPreview>,
    pub pods: Pods,
    /// Volumes that are made for claims, and that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumePreview>,
    /// What is left out or left alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// What admission webhooks warn of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What a snapshot file does not say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// What it waits for at the end: time, a process's exit, room on a node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
    /// What is not in the end as the revision says, although nothing is left to wait for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmet: Vec<String>,
}

/// One object that the source writes or deletes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectPreview {
    /// `+`, `~`, `-` or `-/+`
    pub mark: String,
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
    pub file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wave: Option<i32>,
    pub fields: Vec<FieldPreview>,
    /// What goes with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub takes: Vec<String>,
}

impl Preview {
    /// Would anything be written, or does anything stand in the way?
    pub fn has_changes(&self) -> bool {
        !self.objects.is_empty()
            || !self.pods.starts.is_empty()
            || !self.pods.stops.is_empty()
            || !self.unmet.is_empty()
            || self.is_refused()
    }

    /// Nothing would happen: the revision has errors or is refused.
    pub fn is_refused(&self) -> bool {
        !self.errors.is_empty() || !self.refusals.is_empty()
    }

    /// A diff's exit code: 0 no change, 1 changes, 2 refused.
    pub fn exit_code(&self) -> u8 {
        if self.is_refused() { 2 } else { u8::from(self.has_changes()) }
    }
}

/// Waves and pods that make room for others: a preview that is not at rest after so many rounds is not.
const ROUNDS: usize = 200;

/// Foretells what a source's revision does to this state, without its webhooks. `source` need not be in it yet.
pub fn preview(state: &Snapshot, source: &Source, look: &Look, controllers: &[Arc<dyn Controller>], now: Timestamp) -> Preview {
    let bounds = Bounds { now, made: MADE, answers: &Answers::nobody() };
    preview_within(state, source, look, controllers, &bounds).unwrap_or_default()
}

/// The same with what its webhooks answered.
///
/// # Errors
/// What they are to be asked first.
pub fn asked_preview(
    state: &Snapshot,
    source: &Source,
    look: &Look,
    controllers: &[Arc<dyn Controller>],
    now: Timestamp,
    answers: &Answers,
) -> Result<Preview, Box<Questions>> {
    preview_within(state, source, look, controllers, &Bounds { now, made: MADE, answers })
}

/// The webhooks that would be asked about it, by name.
pub fn unasked(state: &Snapshot, source: &Source, look: &Look, now: Timestamp) -> Vec<String> {
    let Look::Read(revision) = look else { return Vec::new() };
    if CONFIGURATIONS.iter().all(|kind| state.list(*kind).next().is_none()) {
        return Vec::new();
    }
    let plan = plan_of(&with_source(state, source), source, revision, &Bounds { now, made: MADE, answers: &Answers::default() });
    plan.questions.webhooks(state).into_iter().collect()
}

/// What a preview is computed with.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    now: Timestamp,
    /// How many objects it may make beyond its own.
    made: usize,
    answers: &'a Answers,
}

fn preview_within(
    state: &Snapshot,
    source: &Source,
    look: &Look,
    controllers: &[Arc<dyn Controller>],
    bounds: &Bounds<'_>,
) -> Result<Preview, Box<Questions>> {
    let name = source.metadata.name.clone().unwrap_or_default();
    let revision = match look {
        Look::Read(revision) => revision,
        Look::Unread => return Ok(failed(name, String::new(), vec!["was not read yet".to_owned()])),
        Look::Unreachable(why) => return Ok(failed(name, String::new(), vec![format!("unreachable: {why}")])),
        Look::Invalid { revision, errors } => return Ok(failed(name, revision.clone().unwrap_or_default(), errors.clone())),
        Look::Broken(it) => {
            let errors = it.errors(&with_source(state, source), source, &mut plan::Known::default(), bounds.now);
            return Ok(failed(name, it.id.clone(), errors));
        }
    };
    let base = with_source(state, source);
    let plan = plan_of(&base, source, revision, bounds);
    if !plan.questions.is_empty() {
        return Err(Box::new(plan.questions));
    }
    let mut shown = End::at(base.clone());
    if plan.blocked.is_empty() {
        shown = foretell(&base, &name, look, &plan, controllers, bounds)?;
    }
    let mut preview = told(&base, name, revision, &plan, &shown, bounds.made);
    let is_new = state.get(&Key::cluster(Kind::Source, &preview.source)).is_none();
    if let Some(other) = only_holder(state, revision).filter(|_| is_new && preview.is_refused()) {
        preview.hint = format!("there is no source {}; to preview these as a change of {other}: --as {other}", preview.source);
    }
    Ok(preview)
}

fn told(base: &Snapshot, name: String, revision: &Revision, plan: &SyncPlan, shown: &End, made: usize) -> Preview {
    let mut pods = pods::pods(base, &shown.state, &shown.tied);
    pods.pending.extend(pods::refused(&shown.state, &shown.waits));
    let mut refusals: Vec<String> = plan.blocked.iter().map(|reason| printable(&reason.message)).collect();
    if shown.too_many {
        refusals.push(format!("it cannot be foretold: it makes more than {made} objects beyond its own, above all pods"));
    }
    let mut preview = Preview {
        source: name,
        revision: revision.id.clone(),
        subject: printable(&revision.subject),
        plan_id: plan.id.clone(),
        counts: plan.sum,
        refusals,
        approvals: plan.approvals.iter().map(|reason| printable(&reason.message)).collect(),
        objects: objects(plan, shown.state.definitions()),
        skipped: plan.skipped.iter().map(|line| printable(line)).collect(),
        warnings: plan.warnings.iter().map(|line| printable(line)).collect(),
        waits: shown.waits_of_others(),
        unmet: shown.unmet.iter().map(|line| printable(line)).collect(),
        volumes: volumes(base, &shown.state, &shown.tied),
        pods,
        ..Preview::default()
    };
    preview.sum = sum(&preview);
    preview
}

/// The one source that holds what a revision has, as far as any source does.
fn only_holder(state: &Snapshot, revision: &Revision) -> Option<String> {
    let holds = |object: &&Object| {
        let entries = object.get::<Source>()?.status.as_ref()?.inventory.iter();
        let mut keys = entries.filter_map(|entry| inventory::key_of(entry, state.definitions()));
        keys.any(|key| revision.rendered.desired.get(&key).is_some()).then(|| object.key().name.clone())
    };
    let mut holders = state.list(Kind::Source).filter_map(|object| holds(&object));
    holders.next().filter(|_| holders.next().is_none())
}

fn failed(source: String, revision: String, errors: Vec<String>) -> Preview {
    let errors: Vec<String> = errors.iter().map(|error| printable(error)).collect();
    let sum = format!("refused: {}", if errors.len() == 1 { "1 error".to_owned() } else { format!("{} errors", errors.len()) });
    Preview { source, revision, errors, sum, ..Preview::default() }
}

fn sum(preview: &Preview) -> String {
    let mut sum = preview.counts.to_string();
    let Pods { starts, stops, pending } = &preview.pods;
    if !starts.is_empty() || !stops.is_empty() || !pending.is_empty() {
        sum += &format!("; {}, {}", pods::do_so(starts, "start"), pods::do_so(stops, "stop"));
    }
    if !pending.is_empty() {
        sum += &format!(", {} pending", pods::count(pending));
    }
    if !preview.refusals.is_empty() {
        // The counts know only of what could be written.
        let nothing = preview.objects.is_empty();
        sum = if nothing { "refused: nothing is written".to_owned() } else { format!("refused: {sum}") };
    } else if !preview.approvals.is_empty() {
        sum += "; needs approval";
    }
    sum
}

/// The state with the source in it, ready to be worked on.
fn with_source(state: &Snapshot, source: &Source) -> Snapshot {
    let mut copy = state.clone();
    let mut source = source.clone();
    let finalizers = source.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|it| it == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    source.metadata.uid.get_or_insert_with(|| "sim-0".to_owned());
    source.metadata.resource_version.get_or_insert_with(|| "0".to_owned());
    source.metadata.deletion_timestamp = None;
    source.spec.suspend = None;
    copy.insert(Object::new(source));
    // A cluster has them from the start; a preview without a server starts from nothing.
    for name in LASTING_NAMESPACES {
        if copy.get(&Key::cluster(Kind::Namespace, name)).is_none() {
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some(name.to_owned());
            namespace.metadata.uid = Some(format!("namespace-{name}"));
            copy.insert(Object::new(namespace));
        }
    }
    copy
}

fn plan_of(state: &Snapshot, source: &Source, revision: &Revision, bounds: &Bounds<'_>) -> SyncPlan {
    plan_with(state, source, revision, &mut plan::Known::default(), bounds)
}

fn plan_with(state: &Snapshot, source: &Source, revision: &Revision, known: &mut plan::Known, bounds: &Bounds<'_>) -> SyncPlan {
    let input = Input {
        state,
        source,
        revision: &revision.id,
        path_exists: revision.path_exists,
        rendered: &revision.rendered,
        now: bounds.now,
        approved: None,
        answers: bounds.answers,
    };
    plan::plan(&input, known)
}

/// Where it ends.
struct End {
    state: Snapshot,
    waits: Vec<Wait>,
    tied: BTreeSet<Key>,
    /// What admission refuses a controller.
    refused: Vec<(Key, Refused)>,
    unmet: Vec<String>,
    too_many: bool,
}

impl End {
    fn at(state: Snapshot) -> Self {
        Self { state, waits: Vec::new(), tied: BTreeSet::new(), refused: Vec::new(), unmet: Vec::new(), too_many: false }
    }

    /// What is waited for, but for what is told among the pods.
    fn waits_of_others(&self) -> Vec<String> {
        let others = self.waits.iter().filter(|wait| !pods::is_told(&self.state, wait));
        let waits = others.map(|wait| format!("{}: {}", wait.subject, wait.reason.message));
        let refused = self.refused.iter().map(|(key, refused)| format!("{key}: what it asks for is refused: {refused}"));
        waits.chain(refused).map(|line| printable(&line)).collect()
    }
}

/// The source's steps and everybody's answer to them, until nothing moves.
fn foretell(
    base: &Snapshot,
    name: &str,
    look: &Look,
    plan: &SyncPlan,
    controllers: &[Arc<dyn Controller>],
    bounds: &Bounds<'_>,
) -> Result<End, Box<Questions>> {
    let Bounds { now, made, answers } = *bounds;
    let wanted = if let Look::Read(revision) = look { revision.rendered.desired.len() } else { 0 };
    let most = base.len().saturating_add(wanted).saturating_add(made);
    let mut end = End::at(approved(base, name, &plan.id));
    let mut memory = Memory::default();
    let (mut moved, mut ended, mut uids) = (true, false, 0);
    for _ in 0..ROUNDS {
        // Those of later waves were forgotten meanwhile: a worker asks again when it gets there.
        memory.answers().clone_from(answers);
        moved = step(&mut end.state, name, look, &mut memory, &mut uids, now)?;
        let settled = settle_within(end.state, controllers, now, most);
        end.state = settled.state;
        end.tied.extend(settled.tied);
        if ended {
            // What an earlier wave ended may still be there, or not.
            end.tied.extend(settled.movable);
        }
        ended |= settled.ended;
        end.waits = settled.waits;
        end.refused = settled.refused;
        end.too_many = settled.too_many;
        if settled.stuck {
            end.unmet.push("the controllers do not come to rest: what is shown is not the end".to_owned());
        }
        if !moved || settled.stuck || settled.too_many {
            break;
        }
    }
    if moved && end.unmet.is_empty() && !end.too_many {
        end.unmet.push(format!("it does not come to rest in {ROUNDS} rounds: what is shown is not the end"));
    }
    if let (Look::Read(revision), Some(object)) = (look, end.state.get(&Key::cluster(Kind::Source, name)))
        && let Some(source) = object.get::<Source>()
    {
        let last = plan_with(&end.state, source, revision, memory.known(), bounds);
        if !last.questions.is_empty() {
            return Err(Box::new(last.questions));
        }
        unmet(&mut end, revision, &last);
        end.waits.extend(last.waits);
    }
    end.waits.sort_unstable();
    end.waits.dedup();
    Ok(end)
}

/// What the revision wants and the end does not have; what waits for its wave is told as that.
fn unmet(end: &mut End, revision: &Revision, last: &SyncPlan) {
    if end.too_many {
        return;
    }
    // Nothing stood in the way at first: what does now comes of the revision itself.
    end.unmet.extend(last.blocked.iter().map(|reason| reason.message.clone()));
    if !last.is_free() {
        return;
    }
    let changed: BTreeSet<&Key> = last.waits.iter().filter(|wait| is_changed(wait)).map(|wait| &wait.subject).collect();
    let later: BTreeSet<&Key> = last.ops[last.now..].iter().map(plan::SyncOp::key).collect();
    for (key, desired) in revision.rendered.desired.iter() {
        let missing = end.state.get(key).is_none_or(Object::is_deleting) && !last.finished.contains(key);
        let is_told = |wait: &Wait| wait.subject == *key && (wait.reason.code == "BeingDeleted" || is_held_back(wait));
        if missing && !later.contains(key) && !last.waits.iter().any(is_told) {
            end.unmet
                .push(format!("{key} ({}:{}) is not there in the end: it is deleted again by somebody else", desired.file, desired.line));
        } else if changed.contains(key) {
            end.unmet
                .push(format!("{key} ({}:{}) is not as it says in the end: somebody else changes it again", desired.file, desired.line));
        }
    }
}

/// As if somebody had approved the plan: a preview shows what there is to approve.
fn approved(base: &Snapshot, name: &str, id: &str) -> Snapshot {
    let mut copy = base.clone();
    if let Some(object) = base.get(&Key::cluster(Kind::Source, name)).cloned() {
        copy.insert(object.edit_meta(|meta| drop(meta.annotations.get_or_insert_default().insert(APPROVE.to_owned(), id.to_owned()))));
    }
    copy
}

/// `uids`: the last number given, which no object gets again even when its first bearer is gone.
fn step(
    state: &mut Snapshot,
    name: &str,
    look: &Look,
    memory: &mut Memory,
    uids: &mut u64,
    now: Timestamp,
) -> Result<bool, Box<Questions>> {
    let last = state.iter().filter_map(|object| object.uid().strip_prefix("sim-")?.parse().ok()).max().unwrap_or(0);
    *uids = last.max(*uids);
    let mut uid = || {
        *uids += 1;
        format!("sim-{uids}")
    };
    let decided = decide(state, name, look, None, memory, &mut uid, now);
    if !decided.questions.is_empty() {
        return Err(Box::new(decided.questions));
    }
    if decided.transaction.writes.is_empty() {
        return Ok(false);
    }
    let moved = match state.apply(&decided.transaction, state.revision() + 1, &mut Stamp { now, uid: &mut uid }) {
        Ok(applied) => {
            *state = applied.snapshot;
            memory.carried(&decided.put_back, now);
            decided.ops > 0
        }
        // What was planned on this very state is admitted on it; otherwise nothing moves any more.
        Err(_) => false,
    };
    Ok(moved)
}

fn objects(plan: &SyncPlan, served: &Definitions) -> Vec<ObjectPreview> {
    let waves: BTreeSet<i32> = plan.ops.iter().map(|op| op.wave).filter(|wave| *wave != i32::MAX).collect();
    plan.ops
        .iter()
        .map(|op| {
            let key = op.key();
            ObjectPreview {
                mark: op.action.mark().to_owned(),
                kind: key.kind.name().to_owned(),
                namespace: printable(&key.namespace),
                name: printable(&key.name),
                file: printable(&op.file),
                wave: (waves.len() > 1 && op.wave != i32::MAX).then_some(op.wave),
                fields: fields::of_op(op, served),
                takes: op.takes.iter().map(|key| printable(&key.to_string())).collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod quarrel_tests;

#[cfg(test)]
mod security_tests;
#[cfg(test)]
mod tests;
