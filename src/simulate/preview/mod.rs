//! What a source's revision will do: the sync plan on a copy of the state, run until only time or a
//! process exit can change it, and the difference. PURE.
//!
//! - `fields`: an object's changes, field by field, without secrets
//! - `pods`: which pods start and stop, and where
//! - `text`: the preview for a person
//!
//! The preview is a value: its JSON is what `POST …/previews` answers and what `-o json` prints, and
//! the text is made from it wherever it is shown.

mod fields;
mod pods;
mod text;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use serde::{Deserialize, Serialize};

use super::settle::settle;
use crate::model::{Key, Kind, Object, Source, Timestamp};
use crate::plan::{Controller, Wait};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::Stamp;
use crate::sync::look::{Look, Memory, Revision, decide};
use crate::sync::names::{APPROVE, FINALIZER};
use crate::sync::plan::{self, Counts, Input, SyncPlan};

pub use fields::{FieldPreview, printable};
pub use pods::{PodPreview, Pods};

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
    /// Why it waits until somebody approves the plan.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<String>,
    pub objects: Vec<ObjectPreview>,
    pub pods: Pods,
    /// What is left out or left alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// What a snapshot file does not say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// What it waits for at the end: time, a process's exit, room on a node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
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
        !self.objects.is_empty() || !self.pods.starts.is_empty() || !self.pods.stops.is_empty() || self.is_refused()
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

/// Foretells what a source's revision does to this state. `source` need not be in it yet.
pub fn preview(state: &Snapshot, source: &Source, look: &Look, controllers: &[Arc<dyn Controller>], now: Timestamp) -> Preview {
    let name = source.metadata.name.clone().unwrap_or_default();
    let revision = match look {
        Look::Read(revision) => revision,
        Look::Unread => return failed(name, String::new(), vec!["was not read yet".to_owned()]),
        Look::Unreachable(why) => return failed(name, String::new(), vec![format!("unreachable: {why}")]),
        Look::Invalid { revision, errors } => return failed(name, revision.clone(), errors.clone()),
    };
    let base = with_source(state, source);
    let plan = plan_of(&base, source, revision, now);
    let end = foretell(&base, &name, look, &plan, controllers, now);
    let shown = if plan.blocked.is_empty() { end } else { End { state: base.clone(), waits: Vec::new(), tied: BTreeSet::new() } };
    let pods = pods::pods(&base, &shown.state, &shown.tied);
    let mut preview = Preview {
        source: name,
        revision: revision.id.clone(),
        subject: printable(&revision.subject),
        plan_id: plan.id.clone(),
        counts: plan.sum,
        refusals: plan.blocked.iter().map(|reason| printable(&reason.message)).collect(),
        approvals: plan.approvals.iter().map(|reason| printable(&reason.message)).collect(),
        objects: objects(&plan),
        skipped: plan.skipped.iter().map(|line| printable(line)).collect(),
        waits: shown
            .waits
            .iter()
            .filter(|wait| !pods::is_pending(&shown.state, &wait.subject))
            .map(|wait| printable(&format!("{}: {}", wait.subject, wait.reason.message)))
            .collect(),
        pods,
        ..Preview::default()
    };
    preview.sum = sum(&preview);
    preview
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
        sum += &format!("; {} start, {} stop", pods::count(starts), pods::count(stops));
    }
    if !pending.is_empty() {
        sum += &format!(", {} pending", pods::count(pending));
    }
    if !preview.refusals.is_empty() {
        sum = format!("refused: {sum}");
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
    for name in ["default", "kube-system"] {
        if copy.get(&Key::cluster(Kind::Namespace, name)).is_none() {
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some(name.to_owned());
            namespace.metadata.uid = Some(format!("namespace-{name}"));
            copy.insert(Object::new(namespace));
        }
    }
    copy
}

fn plan_of(state: &Snapshot, source: &Source, revision: &Revision, now: Timestamp) -> SyncPlan {
    let input = Input {
        state,
        source,
        revision: &revision.id,
        path_exists: revision.path_exists,
        rendered: &revision.rendered,
        now,
        approved: None,
    };
    plan::plan(&input, &mut plan::Known::default())
}

/// Where it ends.
struct End {
    state: Snapshot,
    waits: Vec<Wait>,
    tied: BTreeSet<Key>,
}

/// The source's steps and everybody's answer to them, until nothing moves.
fn foretell(base: &Snapshot, name: &str, look: &Look, plan: &SyncPlan, controllers: &[Arc<dyn Controller>], now: Timestamp) -> End {
    let mut end = End { state: approved(base, name, &plan.id), waits: Vec::new(), tied: BTreeSet::new() };
    let mut memory = Memory::default();
    for _ in 0..ROUNDS {
        let moved = step(&mut end.state, name, look, &mut memory, now);
        let settled = settle(end.state, controllers, now);
        end.state = settled.state;
        end.tied.extend(settled.tied);
        end.waits = settled.waits;
        if !moved {
            break;
        }
    }
    if let (Look::Read(revision), Some(object)) = (look, end.state.get(&Key::cluster(Kind::Source, name)))
        && let Some(source) = object.get::<Source>()
    {
        end.waits.extend(plan_of(&end.state, source, revision, now).waits);
    }
    end.waits.sort();
    end.waits.dedup();
    end
}

/// As if somebody had approved the plan: a preview shows what there is to approve.
fn approved(base: &Snapshot, name: &str, id: &str) -> Snapshot {
    let mut copy = base.clone();
    if let Some(object) = base.get(&Key::cluster(Kind::Source, name)).cloned() {
        copy.insert(object.edit_meta(|meta| drop(meta.annotations.get_or_insert_default().insert(APPROVE.to_owned(), id.to_owned()))));
    }
    copy
}

fn step(state: &mut Snapshot, name: &str, look: &Look, memory: &mut Memory, now: Timestamp) -> bool {
    let mut last: u64 = state.iter().filter_map(|object| object.uid().strip_prefix("sim-")?.parse().ok()).max().unwrap_or(0);
    let mut uid = || {
        last += 1;
        format!("sim-{last}")
    };
    let decided = decide(state, name, look, None, memory, &mut uid, now);
    if decided.transaction.writes.is_empty() {
        return false;
    }
    match state.apply(&decided.transaction, state.revision() + 1, &mut Stamp { now, uid: &mut uid }) {
        Ok(applied) => {
            *state = applied.snapshot;
            decided.ops > 0
        }
        // What was planned on this very state is admitted on it; otherwise nothing moves any more.
        Err(_) => false,
    }
}

fn objects(plan: &SyncPlan) -> Vec<ObjectPreview> {
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
                fields: fields::of_op(op),
                takes: op.takes.iter().map(|key| printable(&key.to_string())).collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
