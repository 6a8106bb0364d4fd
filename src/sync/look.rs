//! One look at a source and the transaction it calls for. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::accepted;
use super::asked::{Answers, Questions};
use super::drift;
use super::identity::Digest;
use super::left;
use super::names::{APPROVE, FINALIZER};
use super::plan::{self, Action, Input, Known, SyncPlan};
use super::render::{self, Broken, Cache, Options, Rendered};
use super::source::Tree;
use super::status::{self, Outcome};
use crate::model::custom::Definitions;
use crate::model::{Key, Kind, Object, Source, SourceSpec, SourceStatus, Timestamp};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{Precondition, Transaction, Write};

/// What a fetch found, read.
#[derive(Clone)]
pub enum Look {
    /// The place was not read yet: what was accepted before is held in place.
    Unread,
    Unreachable(String),
    Invalid {
        /// `None` where what is refused has no id.
        revision: Option<String>,
        errors: Vec<String>,
    },
    /// Some of its documents cannot be read.
    Broken(Arc<Unreadable>),
    Read(Arc<Revision>),
}

/// A revision that reads well.
pub struct Revision {
    pub id: String,
    /// A commit's subject line.
    pub subject: String,
    pub path_exists: bool,
    pub rendered: Rendered,
}

/// A revision of which some documents cannot be read.
pub struct Unreadable {
    pub id: String,
    broken: Broken,
}

impl Unreadable {
    /// What of it can be read.
    pub fn rest(&self) -> &Rendered {
        &self.broken.rest
    }

    /// Every error of it, sorted: those of its files, and what would be refused of the rest. `known`: what was remembered of
    /// such plans.
    pub fn errors(&self, state: &Snapshot, source: &Source, known: &mut Known, now: Timestamp) -> Vec<String> {
        let answers = Answers::nobody();
        let input =
            Input { state, source, revision: &self.id, path_exists: true, rendered: self.rest(), now, approved: None, answers: &answers };
        let mut problems = [self.broken.problems.clone(), plan::refused(&input, known)].concat();
        problems.sort_unstable();
        problems.dedup();
        problems.iter().map(ToString::to_string).collect()
    }
}

/// What a worker remembers between looks: all of it can be lost.
#[derive(Default)]
pub struct Memory {
    cache: Cache,
    known: Known,
    /// The same of what can be read of a revision that cannot as a whole.
    known_rest: Known,
    /// The last revision that was accepted: put back while a newer one is refused.
    good: Option<Arc<Revision>>,
    /// The accepted set that could not be read back from the store.
    unusable: Option<String>,
    /// What webhooks answered.
    answers: Answers,
}

#[cfg(test)]
impl Memory {
    /// Without what makes planning cheap: a plan must be the same.
    pub(super) fn forgetful(&self) -> Self {
        Self { good: self.good.clone(), answers: self.answers.clone(), ..Self::default() }
    }
}

impl Memory {
    /// What the planner remembers.
    pub fn known(&mut self) -> &mut Known {
        &mut self.known
    }

    /// A step was carried out.
    pub fn carried(&mut self, put_back: &[(Key, Digest)], now: Timestamp) {
        self.known.carried(put_back, now);
    }

    /// What webhooks answered.
    pub fn answers(&mut self) -> &mut Answers {
        &mut self.answers
    }
}

impl Look {
    pub fn unreachable(why: String) -> Self {
        Look::Unreachable(why)
    }

    /// A revision that is not taken, whatever its manifests say.
    pub fn refused(revision: Option<String>, why: String) -> Self {
        Look::Invalid { revision, errors: vec![why] }
    }

    /// What it has that can be read.
    pub fn rendered(&self) -> Option<&Rendered> {
        match self {
            Look::Read(revision) => Some(&revision.rendered),
            Look::Broken(it) => Some(it.rest()),
            Look::Unread | Look::Unreachable(_) | Look::Invalid { .. } => None,
        }
    }

    /// Reads a tree; `served`: the kinds there are besides those that it defines itself.
    pub fn of(tree: Tree, spec: &SourceSpec, served: &Definitions, memory: &mut Memory) -> Self {
        match render::render(&tree, &Options::of(spec), served, &mut memory.cache) {
            Ok(rendered) => {
                Look::Read(Arc::new(Revision { id: tree.revision, subject: tree.subject, path_exists: tree.path_exists, rendered }))
            }
            Err(broken) => Look::Broken(Arc::new(Unreadable { id: tree.revision, broken: *broken })),
        }
    }
}

/// A transaction and what it means.
#[derive(Debug, Default)]
pub struct Step {
    /// Without writes: nothing to do.
    pub transaction: Transaction,
    pub ops: usize,
    /// Objects of an accepted revision that it writes again, each with what is wanted of it.
    pub put_back: Vec<(Key, Digest)>,
    /// What is told of it: news, of which nothing depends on being written.
    pub events: Vec<Write>,
    /// Plan again right after it.
    pub again: bool,
    /// Plan again at this time even if nothing changes.
    pub again_at: Option<Timestamp>,
    /// For the log.
    pub message: String,
    /// For the log: what was accepted before cannot be held in place.
    pub warning: Option<String>,
    /// What webhooks are to be asked before there is anything to do.
    pub questions: Questions,
}

/// What a look at a source calls for now. Deciding again after it was committed calls for nothing.
pub fn decide(
    state: &Snapshot,
    name: &str,
    look: &Look,
    request: Option<&str>,
    memory: &mut Memory,
    uid: &mut dyn FnMut() -> String,
    now: Timestamp,
) -> Step {
    let Some(object) = state.get(&Key::cluster(Kind::Source, name)) else { return Step::default() };
    let Some(source) = object.get::<Source>() else { return Step::default() };
    let mut step = Step { transaction: Transaction::new(plan::writer(name)), ..Step::default() };
    if !source.metadata.finalizers.iter().flatten().any(|it| it == FINALIZER) {
        // Deleting the object must leave time to prune.
        let held = object.clone().edit_meta(|meta| meta.finalizers.get_or_insert_default().push(FINALIZER.to_owned()));
        step.transaction.writes.push(Write::Update(held, Precondition::seen(object)));
        return Step { again: true, ..step };
    }
    let (mut status, plan) = newest(state, source, look, request, memory, now);
    let mut used = BTreeSet::new();
    if let Some(asks) = plan.as_ref().and_then(|plan| heard(plan, &mut step, &mut used)) {
        return asks;
    }
    let mut carried = plan.filter(SyncPlan::is_free);
    let mut writes = Vec::new();
    match (&carried, look) {
        (Some(plan), Look::Read(revision)) => {
            memory.good = Some(Arc::clone(revision));
            writes = accepted::writes(state, name, &revision.rendered);
            writes.extend(left::once_accepted(state, name, &plan.inventory));
        }
        _ => {
            let plan = put_back(state, source, look, memory, &mut step.warning, now);
            if let Some(asks) = plan.as_ref().and_then(|plan| heard(plan, &mut step, &mut used)) {
                return asks;
            }
            let is_unread = matches!(look, Look::Unread);
            plan.iter().for_each(|plan| status::held_back(&mut status, plan, source, is_unread, now));
            carried = plan.filter(|plan| plan.is_free() && !plan.step().is_empty());
            if let Some(plan) = &carried {
                status.inventory = plan.inventory.to_entries();
            }
        }
    }
    let fights = memory.known.fights(now);
    step.again_at = step.again_at.into_iter().chain(fights.iter().map(|fight| fight.until)).min();
    status::disturbed(&mut status, &fights, source, now);
    memory.answers.keep(&used);
    if let Some(request) = request {
        status.handled_request = Some(request.to_owned());
    }
    if let Some(plan) = &mut carried {
        writes.extend(writes_of(plan, &mut status, uid));
        step.events = drift::told(state, source, plan, now);
        memory.known.holds(&status, &plan.inventory);
        step.ops = plan.step().len();
        step.put_back.clone_from(&plan.put_back);
        step.message = format!("revision {}: {}", plan.revision, plan.sum);
    }
    if source.status.clone().unwrap_or_default() != status {
        let changed = Object::new(Source { status: Some(status), ..source.clone() });
        step.transaction.writes.push(Write::UpdateStatus(changed, Precondition::seen(object)));
    }
    step.transaction.writes.extend(writes);
    step.again = step.ops > 0;
    step
}

/// Notes when to plan again, and on which answers a plan rests; or gives what is to be asked before it is one.
fn heard(plan: &SyncPlan, step: &mut Step, used: &mut BTreeSet<String>) -> Option<Step> {
    if !plan.questions.is_empty() {
        return Some(Step { questions: plan.questions.clone(), ..Step::default() });
    }
    used.extend(plan.answers.iter().cloned());
    step.again_at = step.again_at.into_iter().chain(plan.again_at).min();
    None
}

/// What tells that the store is too full for what a source planned; `None`: that is told already.
pub fn full(state: &Snapshot, name: &str, why: &str, now: Timestamp) -> Option<Transaction> {
    let object = state.get(&Key::cluster(Kind::Source, name))?;
    let source = object.get::<Source>()?;
    let changed = Object::new(Source { status: Some(status::full(source, why, now)?), ..source.clone() });
    Some(Transaction::new(plan::writer(name)).with(Write::UpdateStatus(changed, Precondition::seen(object))))
}

/// The writes of a plan's step. What is created gets its UID here, so that the inventory in the same
/// transaction can name it.
fn writes_of(plan: &mut SyncPlan, status: &mut SourceStatus, uid: &mut dyn FnMut() -> String) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut created: BTreeMap<Key, String> = BTreeMap::new();
    for op in plan.step() {
        let mut op = op.clone();
        if op.action != Action::Update
            && let Some(after) = op.after.take()
        {
            let fresh = uid();
            created.insert(after.key().clone(), fresh.clone());
            op.after = Some(after.edit_meta(|meta| meta.uid = Some(fresh)));
        }
        writes.extend(op.writes());
    }
    if !created.is_empty() {
        let entries = &mut Arc::make_mut(&mut plan.inventory).entries;
        for (key, fresh) in created {
            if let Some(entry) = entries.get_mut(&key).map(Arc::make_mut) {
                entry.uid = fresh;
                entry.created = true;
            }
        }
        status.inventory = plan.inventory.to_entries();
    }
    writes
}

fn newest(
    state: &Snapshot,
    source: &Source,
    look: &Look,
    request: Option<&str>,
    memory: &mut Memory,
    now: Timestamp,
) -> (SourceStatus, Option<SyncPlan>) {
    if !matches!(look, Look::Broken(_)) {
        memory.known_rest = Known::default();
    }
    match look {
        Look::Unread => (source.status.clone().unwrap_or_default(), None),
        Look::Unreachable(why) => (status::next(source, &Outcome::Unreachable(why), request, now), None),
        Look::Invalid { revision, errors } => {
            (status::next(source, &Outcome::Invalid { revision: revision.as_deref(), errors }, request, now), None)
        }
        Look::Broken(it) => {
            let errors = it.errors(state, source, &mut memory.known_rest, now);
            (status::next(source, &Outcome::Invalid { revision: Some(&it.id), errors: &errors }, request, now), None)
        }
        Look::Read(revision) => {
            let approved = source.metadata.annotations.as_ref().and_then(|all| all.get(APPROVE)).map(String::as_str);
            let plan = plan_of(state, source, revision, approved, memory, now);
            (status::next(source, &Outcome::Planned(&plan), request, now), Some(plan))
        }
    }
}

fn plan_of(
    state: &Snapshot,
    source: &Source,
    revision: &Revision,
    approved: Option<&str>,
    memory: &mut Memory,
    now: Timestamp,
) -> SyncPlan {
    let input = Input {
        state,
        source,
        revision: &revision.id,
        path_exists: revision.path_exists,
        rendered: &revision.rendered,
        now,
        approved,
        answers: &memory.answers,
    };
    plan::plan(&input, &mut memory.known)
}

/// While the newest revision is refused or unknown, the accepted one is still held in place.
fn put_back(
    state: &Snapshot,
    source: &Source,
    look: &Look,
    memory: &mut Memory,
    warning: &mut Option<String>,
    now: Timestamp,
) -> Option<SyncPlan> {
    let set = source.status.as_ref()?.accepted_set.as_deref()?;
    if matches!(look, Look::Read(revision) if revision.rendered.set_digest == set) {
        return None;
    }
    let good = good(state, source, set, memory, warning)?;
    Some(plan_of(state, source, &good, None, memory, now)).filter(|plan| plan.accepted)
}

/// The accepted revision: remembered, or read back from the store.
fn good(state: &Snapshot, source: &Source, set: &str, memory: &mut Memory, warning: &mut Option<String>) -> Option<Arc<Revision>> {
    if let Some(good) = memory.good.as_ref().filter(|good| good.rendered.set_digest == set) {
        return Some(Arc::clone(good));
    }
    if memory.unusable.as_deref() == Some(set) {
        return None;
    }
    let name = source.metadata.name.as_deref().unwrap_or_default();
    match accepted::restore(state, name, set) {
        Ok(rendered) => {
            let id = source.status.as_ref().and_then(|status| status.accepted_revision.clone()).unwrap_or_default();
            let good = Arc::new(Revision { id, subject: String::new(), path_exists: true, rendered });
            memory.good = Some(Arc::clone(&good));
            Some(good)
        }
        Err(why) => {
            memory.unusable = Some(set.to_owned());
            *warning = Some(format!("{why}: until a revision is accepted, nothing is put back"));
            None
        }
    }
}
