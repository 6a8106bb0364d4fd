//! Desired against live against inventory: what a source's revision would do. PURE.
//!
//! - [`plan`] decides the whole set: what to create, update, replace, prune, and why not
//! - what git does not say is never drift; what it does say is put back (server-side apply, each
//!   source its own manager)
//! - everything is admitted on a copy of the state first, so that all that would be refused is known
//!   at once and what admission makes no change of is no op
//! - admission webhooks have their say in between (`asked`): where an answer is missing, the plan is no more than
//!   its questions
//! - `now` says which ops are this step's transaction: all of them, or those of one wave

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::again::{self, Quarrels};
use super::approval;
use super::asked::{self, Answers, Panel, Questions, Said, UNAVAILABLE};
use super::budget;
use super::drift;
use super::identity::Digest;
use super::inventory::{self, Inventory};
pub use super::known::Known;
use super::known::Seen;
use super::left;
use super::names::{ADOPT, REQUESTED_AT};
use super::needed;
pub use super::op::{Action, Counts, SyncOp};
use super::refusal::{self, Refusal};
use super::render::{Desired, Rendered, may_prune};
use super::unsaid;
use super::walk;
use super::waves::{is_stuck, step};
use crate::admit;
use crate::model::manifest::Problem;
use crate::model::ownership::{ManagedFields, apply};
use crate::model::{InventoryEntry, Key, Kind, Object, Source, Timestamp};
use crate::plan::{Reason, Wait};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{CommitError, Precondition, Stamp, Transaction, Write};

/// What a plan is made from.
pub struct Input<'a> {
    pub state: &'a Snapshot,
    pub source: &'a Source,
    pub revision: &'a str,
    pub path_exists: bool,
    pub rendered: &'a Rendered,
    pub now: Timestamp,
    /// The plan id a person approved.
    pub approved: Option<&'a str>,
    /// What webhooks answered so far.
    pub answers: &'a Answers,
}

/// What a revision would do, whole.
#[derive(Clone, Debug, Default)]
pub struct SyncPlan {
    pub source: String,
    pub revision: String,
    /// SHA-256 over source, revision and ops.
    pub id: String,
    /// In the order they are written.
    pub ops: Vec<SyncOp>,
    /// How many of `ops` are this step's: those before the first wave that must wait.
    pub now: usize,
    /// Why nothing is done, whatever anybody approves.
    pub blocked: Vec<Reason>,
    /// Why somebody must approve the id first. Empty once the set is accepted.
    pub approvals: Vec<Reason>,
    /// The approval given is this plan's.
    pub approved: bool,
    /// What the next step or an op waits for.
    pub waits: Vec<Wait>,
    /// Plan again at this time even if nothing changes.
    pub again_at: Option<Timestamp>,
    /// Gone for good, as their manifests say: see [`again::has_finished`].
    pub finished: BTreeSet<Key>,
    /// Changed by others and written again in this step, with what is wanted.
    pub(super) put_back: Vec<(Key, Digest)>,
    /// Left out or left alone, each with its reason.
    pub skipped: Vec<String>,
    /// The inventory once this step is done. Objects of later waves have no UID yet.
    pub inventory: Arc<Inventory>,
    /// The inventory before it.
    pub(super) held: Arc<Inventory>,
    /// Objects that another source holds: for its plan to see.
    pub contested: Vec<InventoryEntry>,
    /// The set was accepted before; this plan only goes on with it or puts it back.
    pub accepted: bool,
    pub set_digest: String,
    pub sum: Counts,
    /// What webhooks are to be asked first: until then the rest is not what it will be.
    pub questions: Questions,
    /// The answers of webhooks that it rests on.
    pub(super) answers: BTreeSet<String>,
    /// What webhooks warn of.
    pub warnings: BTreeSet<String>,
}

impl SyncPlan {
    /// May this step be carried out?
    pub fn is_free(&self) -> bool {
        self.questions.is_empty() && self.blocked.is_empty() && (self.approvals.is_empty() || self.approved)
    }

    /// The ops of this step.
    pub fn step(&self) -> &[SyncOp] {
        if self.is_free() { &self.ops[..self.now] } else { &[] }
    }

    /// Everything that stands in the way, for a person.
    pub fn refusals(&self) -> impl Iterator<Item = &Reason> {
        let approvals = if self.approved { &[][..] } else { &self.approvals[..] };
        self.blocked.iter().chain(approvals)
    }
}

/// The field manager of a source.
pub fn manager(source: &str) -> String {
    format!("podbay:{source}")
}

/// The name under which a source writes.
pub fn writer(source: &str) -> String {
    format!("source:{source}")
}

/// Decides what a revision does. Planning again after all of it was applied gives no ops.
pub fn plan(input: &Input<'_>, known: &mut Known) -> SyncPlan {
    let status = input.source.status.as_ref();
    let held = known.held(input.source, input.state.definitions());
    let mut planner = Planner::new(input, &held, known);
    planner.contested();
    let candidates = planner.candidates();
    planner.wanted(&candidates);
    planner.unwanted(&candidates);
    let Planner { mut plan, open, panel, probe, refused, .. } = planner;
    // Those that have a place come first, in its order.
    plan.blocked.splice(..0, refused.into_iter().map(|(problem, code)| Reason::new(code, problem.to_string())));
    if !panel.open.is_empty() {
        plan.questions = Questions { source: plan.source.clone(), state: probe, all: panel.open };
    }
    plan.answers = panel.used;
    plan.warnings = panel.warnings;
    plan.again_at = plan.again_at.into_iter().chain(panel.again_at).min();
    known.seen = Some(Seen { state: input.state.clone(), desired: Arc::clone(&input.rendered.desired), held: Arc::clone(&held), open });
    plan.id = approval::id(&plan, input.state);
    plan.approved = input.approved == Some(plan.id.as_str());
    if let Some(other) = input
        .approved
        .filter(|id| !plan.approved && !plan.approvals.is_empty() && status.and_then(|status| status.approved_plan.as_deref()) != Some(*id))
    {
        let how = approval::difference(approval::known(input.source, other), Some(&approval::noted(&plan)));
        let message = format!("plan {} was approved, but this one is {}: {how}", approval::short(other), approval::short(&plan.id));
        plan.approvals.push(Reason::new("OtherPlan", message));
    }
    step(&mut plan, input);
    plan
}

/// What would be refused of what can be read of a tree, each at its place, sorted; nothing of it is ever written. `known`: what
/// was remembered of such plans. Nobody asks webhooks of it, nor what would go: that is known when all can be read.
pub fn refused(input: &Input<'_>, known: &mut Known) -> Vec<Problem> {
    let held = known.held(input.source, input.state.definitions());
    let mut planner = Planner::new(input, &held, known);
    planner.contested();
    let candidates = planner.candidates();
    planner.wanted(&candidates);
    let Planner { open, refused, .. } = planner;
    known.seen = Some(Seen { state: input.state.clone(), desired: Arc::clone(&input.rendered.desired), held, open });
    refused.into_iter().map(|(problem, _)| problem).collect()
}

/// A person asked for it, and for this: a later request or a later set is another matter.
fn adopts_now(input: &Input<'_>) -> bool {
    let annotation = |name: &str| input.source.metadata.annotations.as_ref().and_then(|all| all.get(name));
    let Some(asked) = annotation(ADOPT).filter(|asked| annotation(REQUESTED_AT) == Some(*asked)) else { return false };
    let status = input.source.status.as_ref();
    let handled = status.and_then(|status| status.handled_request.as_ref()) == Some(asked);
    !handled || status.and_then(|status| status.accepted_set.as_deref()) == Some(&input.rendered.set_digest)
}

/// Reason: admission says no.
const REFUSED: &str = "Refused";

struct Planner<'p> {
    input: &'p Input<'p>,
    manager: String,
    adopt: bool,
    held: &'p Arc<Inventory>,
    /// What a source of its name created before it was removed.
    left: BTreeMap<Key, InventoryEntry>,
    /// The state as the ops so far leave it.
    probe: Snapshot,
    uids: usize,
    losses: &'p mut Quarrels,
    changes: &'p Quarrels,
    panel: Panel<'p>,
    /// Waves before which there is one that is not healthy.
    stuck: BTreeMap<i32, bool>,
    /// The last plan's input.
    seen: Option<Seen>,
    /// What another source holds.
    contested: BTreeSet<Key>,
    /// What is not as wanted in this one.
    open: BTreeSet<Key>,
    /// Deleted, to be created anew: what they own goes with them.
    replaced: Vec<Object>,
    /// What stands in the way at a place of the tree, with its code.
    refused: BTreeSet<(Problem, &'static str)>,
    /// The objects it is about.
    faulty: BTreeSet<Key>,
    plan: SyncPlan,
}

/// What comes of an object that is to be written.
struct Passed {
    object: Object,
    /// How many objects it changes.
    changes: usize,
    /// Of one that webhooks changed: what it says, without defaults.
    told: Option<Object>,
}

/// Why an object is not written.
enum Stop {
    Admission(CommitError),
    Webhook(Reason),
}

/// What the live object of a wanted one is to the source.
enum Claim {
    Mine { created: bool },
    Stranger,
}

impl<'p> Planner<'p> {
    fn new(input: &'p Input<'p>, held: &'p Arc<Inventory>, known: &'p mut Known) -> Self {
        let name = input.source.metadata.name.clone().unwrap_or_default();
        let accepted = input.source.status.as_ref().and_then(|status| status.accepted_set.as_deref());
        Self {
            input,
            manager: manager(&name),
            adopt: input.source.spec.adopt == Some(true) || adopts_now(input),
            held,
            left: left::of(input.state, &name),
            probe: input.state.clone(),
            uids: 0,
            seen: known.seen.take(),
            losses: &mut known.losses,
            changes: &known.changes,
            stuck: BTreeMap::new(),
            panel: Panel::of(input.state, input.answers, input.now),
            contested: BTreeSet::new(),
            open: BTreeSet::new(),
            replaced: Vec::new(),
            refused: BTreeSet::new(),
            faulty: BTreeSet::new(),
            plan: SyncPlan {
                source: name,
                revision: input.revision.to_owned(),
                skipped: input.rendered.skipped.clone(),
                accepted: accepted == Some(&input.rendered.set_digest),
                set_digest: input.rendered.set_digest.clone(),
                inventory: Arc::clone(held),
                held: Arc::clone(held),
                ..SyncPlan::default()
            },
        }
    }

    /// The same object in two sources refuses both changes.
    fn contested(&mut self) {
        let rendered = self.input.rendered;
        for other in self.input.state.list(Kind::Source) {
            let (name, Some(source)) = (&other.key().name, other.get::<Source>()) else { continue };
            let Some(status) = source.status.as_ref().filter(|_| *name != self.plan.source) else { continue };
            let suspended = source.spec.suspend == Some(true);
            let holds = status.inventory.iter().map(|entry| (entry.as_ref(), true));
            // One that is suspended goes on holding what it has, and wants nothing.
            let wants = status.contested.iter().filter(|_| !suspended).map(|entry| (entry, false));
            for (entry, holds) in holds.chain(wants) {
                let Some(desired) = inventory::key_of(entry, self.input.state.definitions()).and_then(|key| rendered.desired.get(&key))
                else {
                    continue;
                };
                let key = desired.object.key();
                let how = if suspended { " (suspended)" } else { "" };
                let (own, other) = (&desired.file, &entry.file);
                let message = format!("{key} is in two sources: {own} of {}, and {other} of {name}{how}", self.plan.source);
                if holds {
                    self.contested.insert(key.clone());
                    self.plan.contested.push(inventory::entry(key, "", false, &desired.file, false));
                }
                if holds || !self.plan.accepted {
                    self.refuse(desired, "TwoSources", Refusal::new("metadata.name", message));
                }
            }
        }
    }

    fn wanted(&mut self, candidates: &BTreeSet<Key>) {
        let wanted = &self.input.rendered.desired;
        let mut order: Vec<&Desired> = candidates.iter().filter_map(|key| wanted.get(key)).map(AsRef::as_ref).collect();
        self.plan.sum.unchanged += wanted.len() - order.len();
        // Stable: within a wave by kind and key, as the map has them.
        order.sort_by_key(|desired| desired.wave);
        for desired in order {
            let key = desired.object.key();
            self.open.insert(key.clone());
            let entry = self.held.entries.get(key);
            let Some(live) = self.input.state.get(key) else {
                match entry {
                    Some(entry) if again::has_finished(entry, desired) => self.finished(entry, desired),
                    Some(entry) if self.is_lost_again(key, entry) => {}
                    _ => self.create(desired),
                }
                continue;
            };
            if live.is_deleting() {
                let reason = Reason::new("BeingDeleted", "is still being deleted; it is created again after that");
                self.plan.waits.push(Wait { subject: key.clone(), reason });
                self.remember(desired, entry.map_or("", |entry| &entry.uid), entry.is_some_and(|entry| entry.created));
                continue;
            }
            match self.claim(entry.map(AsRef::as_ref), live) {
                Claim::Mine { created } => self.update(desired, live, created),
                // Said already, and adopting it is no way out.
                Claim::Stranger if self.contested.contains(key) => {}
                // A Namespace of which nothing is said but its name: it may be whose it is, and nothing is noted of it.
                Claim::Stranger if self.is_as_wanted(desired, live) => self.plan.sum.unchanged += 1,
                Claim::Stranger => {
                    let refusal = Refusal::new("metadata.name", format!("{key} exists and Podbay did not create it"));
                    let hint = Some("adopt it (`adopt: true` on the Source, or --adopt)".to_owned());
                    self.refuse(desired, "NotOurs", Refusal { hint, ..refusal });
                }
            }
        }
    }

    /// What may not be as it should: what was open in the last plan, and what has changed since in
    /// the state, in the inventory, in what is wanted. Most of a large set is as it was.
    fn candidates(&mut self) -> BTreeSet<Key> {
        let wanted = &self.input.rendered.desired;
        let Some(seen) = self.seen.take() else { return wanted.keys().chain(self.held.entries.keys()).cloned().collect() };
        let mut changed = seen.open;
        changed.extend(seen.state.differing(self.input.state).cloned());
        changed.extend(inventory::differing(&seen.held, self.held).into_iter().cloned());
        if !Arc::ptr_eq(&seen.desired, wanted) {
            changed.extend(walk::differing(seen.desired.iter(), wanted.iter(), |a, b| a.digest == b.digest).into_iter().cloned());
        }
        changed
    }

    fn claim(&self, entry: Option<&InventoryEntry>, live: &Object) -> Claim {
        match entry {
            Some(entry) if Inventory::is_of(entry, live) => Claim::Mine { created: entry.created },
            // Left behind by this source under the same name: ours to update, and to prune where it is noted that it was.
            _ if ManagedFields::is_applied_by(live.meta(), &self.manager) => {
                Claim::Mine { created: left::is_own(&self.left, live, &self.manager) }
            }
            // Taken over: never to be pruned.
            _ if self.adopt => Claim::Mine { created: false },
            _ => Claim::Stranger,
        }
    }

    /// Nothing of it would be the source's.
    fn is_as_wanted(&self, desired: &Desired, live: &Object) -> bool {
        matches!(self.applied(desired, Some(live), &ManagedFields::of(live.meta())), Ok((_, false)))
    }

    /// Notes an object as held. False where it was already, as it is.
    fn remember(&mut self, desired: &Desired, uid: &str, created: bool) -> bool {
        let key = desired.object.key();
        let entry = inventory::entry(key, uid, created, &desired.file, !desired.prune);
        self.put_entry(key, InventoryEntry { digest: again::digest(desired), ..entry })
    }

    fn put_entry(&mut self, key: &Key, entry: InventoryEntry) -> bool {
        let new = self.plan.inventory.entries.get(key).map(AsRef::as_ref) != Some(&entry);
        if new {
            Arc::make_mut(&mut self.plan.inventory).entries.insert(key.clone(), Arc::new(entry));
        }
        new
    }

    /// It was removed when it had finished: nothing to do until its manifest says something else.
    fn finished(&mut self, entry: &InventoryEntry, desired: &Desired) {
        let key = desired.object.key();
        self.put_entry(key, InventoryEntry { file: desired.file.clone(), keep: !desired.prune, ..entry.clone() });
        self.plan.sum.unchanged += 1;
        let message = "has finished and was removed by its ttlSecondsAfterFinished; it runs again when its manifest changes";
        self.plan.skipped.push(format!("{key} {message}"));
        self.plan.finished.insert(key.clone());
    }

    /// Somebody else deleted it so often of late that it is not created yet.
    fn is_lost_again(&mut self, key: &Key, entry: &InventoryEntry) -> bool {
        let uid = if entry.created { entry.uid.as_str() } else { "" };
        let Some((until, reason)) = self.losses.deleted(key, uid, self.input.now) else { return false };
        self.wait_until(key, until, reason);
        true
    }

    fn wait_until(&mut self, key: &Key, until: Timestamp, reason: Reason) {
        self.plan.waits.push(Wait { subject: key.clone(), reason });
        self.plan.again_at = Some(self.plan.again_at.map_or(until, |earlier| earlier.min(until)));
    }

    fn create(&mut self, desired: &Desired) {
        self.remember(desired, "", true);
        let after = match self.first(desired) {
            Ok(after) => after,
            Err(why) => return self.refuse(desired, REFUSED, Refusal::new("", why)),
        };
        match self.pass(after, None, desired.wave) {
            Ok(passed) => self.push(Action::Create, None, Some(passed), desired),
            Err(Stop::Admission(why)) => self.block(desired, &why, None),
            Err(Stop::Webhook(reason)) => self.hold(desired, &reason),
        }
    }

    /// An object as webhooks let it pass, admitted on the probe in the place of `live`. Where they are still to be asked,
    /// it is as they were given it.
    fn pass(&mut self, after: Object, live: Option<&Object>, wave: i32) -> Result<Passed, Stop> {
        let write = |object: &Object| match live {
            Some(live) => Write::Update(object.clone(), Precondition::seen(live)),
            None => Write::Create(object.clone()),
        };
        let before = self.probe.clone();
        let plain = self.try_writes(&[write(&after)]);
        if matches!(plain, Ok(0)) || self.is_asked_later(wave) {
            return plain.map(|changes| Passed { object: after, changes, told: None }).map_err(Stop::Admission);
        }
        let said = self.panel.change(&after, live, &before);
        let (object, told, changes) = match self.heard(said, wave).map_err(Stop::Webhook) {
            Ok(Said::Instead(passed)) => {
                self.probe.clone_from(&before);
                let told = Some(asked::told(&after, &admit::defaulted(&after), &passed));
                let object = asked::in_place_of(&after, passed);
                let changes = self.try_writes(&[write(&object)]);
                (object, told, changes)
            }
            Ok(Said::Open) => return Ok(Passed { object: after, changes: 1, told: None }),
            Ok(_) => (after, None, plain),
            Err(stop) => {
                self.probe = before;
                return Err(stop);
            }
        };
        let changes = changes.map_err(Stop::Admission)?;
        let result = self.probe.get(object.key()).cloned();
        if let Some(result) = result.filter(|_| changes > 0) {
            let said = self.panel.judge(&result, live, &before);
            if let Err(reason) = self.heard(said, wave) {
                self.probe = before;
                return Err(Stop::Webhook(reason));
            }
        }
        Ok(Passed { object, changes, told })
    }

    /// Of a set that is accepted, only what is written now is asked about; before that everything is.
    fn is_asked_later(&mut self, wave: i32) -> bool {
        self.plan.accepted && !self.panel.is_empty() && self.is_later(wave)
    }

    /// Whether this wave has to wait for another, as `waves` says: those before it are planned.
    fn is_later(&mut self, wave: i32) -> bool {
        let waves = &self.input.rendered.waves;
        if waves.len() < 2 || self.plan.ops.first().is_some_and(|op| op.wave < wave) {
            return waves.len() > 1;
        }
        let (input, plan) = (self.input, &self.plan);
        *self.stuck.entry(wave).or_insert_with(|| waves.range(..wave).any(|earlier| is_stuck(input, *earlier, plan)))
    }

    /// A webhook that is not there is no reason against what is written later: an earlier wave may bring it back.
    fn heard(&mut self, said: Said, wave: i32) -> Result<Said, Reason> {
        match said {
            Said::No(reason) if reason.code == UNAVAILABLE && self.is_later(wave) => Ok(Said::Yes),
            Said::No(reason) => Err(reason),
            said => Ok(said),
        }
    }

    /// Whether webhooks let it be deleted.
    fn let_go(&mut self, live: &Object, wave: i32) -> Result<(), Reason> {
        if self.is_asked_later(wave) {
            return Ok(());
        }
        let said = self.panel.delete(live, &self.probe);
        self.heard(said, wave).map(drop)
    }

    /// A webhook is against it. That refuses a new revision; of one that is accepted, the object stays as it is.
    fn hold(&mut self, desired: &Desired, reason: &Reason) {
        let key = desired.object.key();
        if self.plan.accepted {
            return self.waits_for(key, reason, &format!("{}:{}", desired.file, desired.line));
        }
        self.refuse(desired, reason.code, Refusal::new("", format!("{key}: {}", reason.message)));
    }

    /// The same of one that would go.
    fn hold_back(&mut self, entry: &InventoryEntry, key: &Key, reason: &Reason) {
        if self.plan.accepted {
            return self.waits_for(key, reason, &entry.file);
        }
        self.plan.blocked.push(Reason::new(reason.code, format!("{}: {key}: {}", entry.file, reason.message)));
    }

    fn waits_for(&mut self, key: &Key, reason: &Reason, at: &str) {
        let reason = Reason::new(reason.code, format!("{} ({at})", reason.message));
        self.plan.waits.push(Wait { subject: key.clone(), reason });
    }

    /// The object as this source says it when there is none.
    fn first(&self, desired: &Desired) -> Result<Object, String> {
        let none = ManagedFields::default();
        self.applied(desired, None, &none).map(|(object, _)| object)
    }

    fn applied(&self, desired: &Desired, live: Option<&Object>, managed: &ManagedFields) -> Result<(Object, bool), String> {
        let kind = desired.object.kind();
        let before = live.map(Object::value);
        let shapes = self.probe.definitions().shapes(kind);
        let said = unsaid::beside(&desired.object, &desired.applied, before.as_ref(), managed, &self.manager);
        let (value, owners) = apply(shapes, before.as_ref(), managed, &said, &self.manager, true)
            .map_err(|conflicts| conflicts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let changed = before.as_ref() != Some(&value) || owners != *managed;
        let entries = owners.to_entries();
        let object = Object::from_value(kind, value).map_err(|error| error.to_string())?;
        Ok((object.edit_meta(|meta| meta.managed_fields = entries), changed))
    }

    fn update(&mut self, desired: &Desired, live: &Object, created: bool) {
        let new = self.remember(desired, live.uid(), created);
        let after = match self.applied(desired, Some(live), &ManagedFields::of(live.meta())) {
            Ok((after, true)) => after,
            Ok((_, false)) => return self.unchanged(live, new),
            Err(why) => return self.refuse(desired, REFUSED, Refusal::new("", why)),
        };
        let before = self.probe.clone();
        match self.pass(after, Some(live), desired.wave) {
            // What is so by a webhook's answer is looked at again: it may answer otherwise, or be gone.
            Ok(passed) if passed.changes == 0 => self.unchanged(live, new || passed.told.is_some()),
            Ok(passed) if self.is_changed_again(desired, live, passed.told.is_some()) => self.probe = before,
            Ok(passed) => self.push(Action::Update, Some(live), Some(passed), desired),
            Err(Stop::Admission(why)) => self.replace(desired, live, &why),
            Err(Stop::Webhook(reason)) => self.hold(desired, &reason),
        }
    }

    /// Somebody made something else of it so often of late that it is not written yet.
    fn is_changed_again(&mut self, desired: &Desired, live: &Object, by_webhook: bool) -> bool {
        let key = live.key();
        if !self.plan.accepted || self.is_later(desired.wave) {
            return false;
        }
        let Some(turn) = self.changes.waits(key, &desired.digest, self.input.now) else {
            // It counts once it is carried out.
            self.plan.put_back.push((key.clone(), desired.digest));
            return false;
        };
        let reason = match self.probe.get(key) {
            Some(result) if !by_webhook => again::changed(turn, &drift::who(live, result, &self.plan.source, self.probe.definitions())),
            _ => again::rewritten(turn),
        };
        self.wait_until(key, turn.0, reason);
        true
    }

    fn unchanged(&mut self, live: &Object, stays_open: bool) {
        self.plan.sum.unchanged += 1;
        if !stays_open {
            self.open.remove(live.key());
        }
    }

    /// A change that is refused in place: a delete and a create, where the object says so.
    fn replace(&mut self, desired: &Desired, live: &Object, why: &CommitError) {
        let delete = Write::Delete { key: live.key().clone(), precondition: Precondition::seen(live), grace_seconds: None };
        let Ok(after) = self.first(desired) else { return self.block(desired, why, None) };
        let mut copy = self.probe.clone();
        std::mem::swap(&mut copy, &mut self.probe);
        let deleted = self.try_writes(std::slice::from_ref(&delete));
        let gone = self.probe.get(live.key()).is_none();
        let asked = if desired.replace && deleted.is_ok() { self.let_go(live, desired.wave) } else { Ok(()) };
        let created = match (gone, desired.replace) {
            (false, _) => Ok(None),
            (true, true) => self.pass(after, None, desired.wave).map(Some),
            (true, false) => self.try_writes(&[Write::Create(after)]).map(|_| None).map_err(Stop::Admission),
        };
        let passed = match (deleted, asked, created) {
            (Ok(_), Ok(()), Ok(passed)) if desired.replace => passed,
            (_, Err(reason), _) | (_, _, Err(Stop::Webhook(reason))) => {
                self.probe = copy;
                return self.hold(desired, &reason);
            }
            (Ok(_), _, Ok(_)) => {
                self.probe = copy;
                return self.block(desired, why, Some("annotate it with podbay.dev/replace: \"true\" to have it deleted and created"));
            }
            _ => {
                self.probe = copy;
                return self.block(desired, why, None);
            }
        };
        let by_webhook = passed.as_ref().is_some_and(|passed| passed.told.is_some());
        if self.is_changed_again(desired, live, by_webhook) {
            self.probe = copy;
            return;
        }
        // A pod on a node goes first and is created once it is gone.
        let action = if gone { Action::Replace } else { Action::Delete };
        self.push(action, Some(live), passed, desired);
    }

    /// Admits writes on the probe; how many changed something.
    fn try_writes(&mut self, writes: &[Write]) -> Result<usize, CommitError> {
        let uids = &mut self.uids;
        let mut uid = || {
            *uids += 1;
            format!("sim-{uids}")
        };
        let mut stamp = Stamp { now: self.input.now, uid: &mut uid };
        let transaction = Transaction { writes: writes.to_vec(), ..Transaction::new(writer(&self.plan.source)) };
        match self.probe.apply(&transaction, self.probe.revision() + 1, &mut stamp) {
            Ok(applied) => {
                self.probe = applied.snapshot;
                Ok(applied.changes.len())
            }
            Err(error) => Err(error),
        }
    }

    fn push(&mut self, action: Action, before: Option<&Object>, passed: Option<Passed>, desired: &Desired) {
        let deletes = matches!(action, Action::Replace | Action::Delete);
        if deletes {
            self.losses.forget(desired.object.key());
        }
        let takes = before.filter(|_| deletes).map(|before| budget::taken(self.input.state, before)).unwrap_or_default();
        self.replaced.extend(before.filter(|_| deletes).cloned());
        match action {
            Action::Create => self.plan.sum.create += 1,
            Action::Update => self.plan.sum.update += 1,
            Action::Replace | Action::Delete => self.plan.sum.replace += 1,
        }
        let (after, told) = passed.map_or((None, None), |passed| (Some(passed.object), passed.told));
        let result = after.as_ref().and_then(|after| self.probe.get(after.key()).cloned());
        let file = desired.file.clone();
        self.plan.ops.push(SyncOp { action, before: before.cloned(), after, result, told, wave: desired.wave, file, takes });
    }

    /// Admission is against it; `instead`: what there is to do about it.
    fn block(&mut self, desired: &Desired, why: &CommitError, instead: Option<&str>) {
        let all = refusal::of(why, desired, &self.probe, &self.input.rendered.desired);
        for refusal in all.into_iter().filter(|refusal| !self.only_follows(refusal)).collect::<Vec<_>>() {
            let hint = refusal.hint.or_else(|| instead.map(str::to_owned));
            self.refuse(desired, REFUSED, Refusal { hint, ..refusal });
        }
    }

    /// What it needs is refused itself, or may be in a document that cannot be read.
    fn only_follows(&self, refusal: &Refusal) -> bool {
        let needs = refusal.needs.as_ref();
        needs.is_some_and(|key| self.faulty.contains(key) || self.input.rendered.hidden.holds(key.kind, &key.name))
    }

    fn refuse(&mut self, desired: &Desired, code: &'static str, refusal: Refusal) {
        self.faulty.insert(desired.object.key().clone());
        self.refused.insert((desired.problem(refusal), code));
    }

    /// What the inventory holds and the revision no longer wants.
    fn unwanted(&mut self, candidates: &BTreeSet<Key>) {
        let (state, rendered) = (self.input.state, self.input.rendered);
        let unwanted = candidates.iter().filter(|key| !rendered.desired.contains(key));
        let unwanted: Vec<_> = unwanted.filter_map(|key| self.held.entries.get_key_value(key)).collect();
        self.open.extend(unwanted.iter().map(|(key, _)| (*key).clone()));
        let mut pruned: Vec<(&Object, &InventoryEntry)> = Vec::new();
        let mut kept: Vec<(Key, &str)> = Vec::new();
        for (key, entry) in unwanted.into_iter().rev() {
            let live = state.get(key).filter(|live| Inventory::is_of(entry, live));
            if let Some(live) = live.filter(|live| live.is_deleting()) {
                self.plan.waits.push(Wait { subject: live.key().clone(), reason: Reason::new("BeingDeleted", "is being deleted") });
                continue;
            }
            if live.is_some() && rendered.leaves_out(key) && !unsaid::is_own(key) {
                self.plan.skipped.push(format!("{key} stays: a document of its kind and name is left out"));
                continue;
            }
            match live {
                Some(_) if unsaid::is_own(key) => kept.push((key.clone(), "it is the cluster's own")),
                Some(_) if !entry.created => kept.push((key.clone(), "it was adopted, not created")),
                Some(live) if entry.keep || !may_prune(live) => kept.push((key.clone(), "its annotation forbids pruning")),
                Some(live) => {
                    if let Some((desired, code, refusal)) = needed::goes_wrongly(state, &rendered.desired, live) {
                        self.refuse(desired, code, refusal);
                    }
                    pruned.push((live, entry));
                    continue;
                }
                None => {}
            }
            self.losses.forget(key);
            Arc::make_mut(&mut self.plan.inventory).entries.remove(key);
        }
        self.approvals(&pruned);
        self.prune(&pruned);
        self.keep(&kept);
    }

    /// What may not be pruned stays, unless its namespace or its kind goes: that somebody has to want.
    fn keep(&mut self, kept: &[(Key, &str)]) {
        let state = self.input.state;
        let mut found = Vec::new();
        for op in &self.plan.ops {
            for live in op.takes.iter().filter_map(|key| state.get(key)) {
                let why = kept.iter().find(|(key, _)| key == live.key()).map(|(_, why)| *why);
                // A controller copies annotations from what it works for.
                let forbids = live.controller().is_none() && !may_prune(live);
                if let Some(why) = why.or_else(|| forbids.then_some("its annotation forbids pruning")) {
                    let message = format!("{} would go with {}, though {why}", live.key(), op.key());
                    found.push((live.key().clone(), Reason::new("KeptGoes", message)));
                }
            }
        }
        let stays = kept.iter().filter(|(key, _)| found.iter().all(|(taken, _)| taken != key));
        self.plan.skipped.extend(stays.map(|(key, why)| format!("{key} stays: {why}")));
        if !self.plan.accepted {
            self.plan.approvals.extend(found.into_iter().map(|(_, reason)| reason));
        }
    }

    /// Whether somebody must agree first; never again once the set is accepted.
    fn approvals(&mut self, pruned: &[(&Object, &InventoryEntry)]) {
        let becomes_empty = self.input.rendered.desired.is_empty();
        if self.plan.accepted || (pruned.is_empty() && self.replaced.is_empty() && !becomes_empty && self.input.path_exists) {
            return;
        }
        let state = self.input.state;
        let live = |(key, entry): (&Key, &Arc<InventoryEntry>)| state.get(key).filter(|live| Inventory::is_of(entry, live));
        let held: Vec<&Object> = self.held.entries.iter().filter_map(live).collect();
        if !self.input.path_exists && held.is_empty() {
            self.plan.blocked.push(Reason::new("PathMissing", "the source's path does not exist"));
        }
        let objects: Vec<&Object> = pruned.iter().map(|(object, _)| *object).chain(&self.replaced).collect();
        let budget = self.input.source.spec.budget.clone().unwrap_or_default();
        self.plan.approvals = budget::approvals(state, &objects, &held, becomes_empty, self.input.path_exists, &budget);
    }

    fn prune(&mut self, pruned: &[(&Object, &InventoryEntry)]) {
        let going: BTreeSet<Key> = pruned.iter().map(|(object, _)| object.key().clone()).collect();
        let (mut taken, mut held) = (BTreeSet::new(), 0);
        for (object, entry) in pruned {
            if let Err(reason) = self.let_go(object, i32::MAX) {
                held += 1;
                self.hold_back(entry, object.key(), &reason);
                continue;
            }
            let takes: BTreeSet<Key> = budget::taken(self.input.state, object).difference(&going).cloned().collect();
            taken.extend(takes.iter().cloned());
            self.plan.ops.push(SyncOp {
                action: Action::Delete,
                before: Some((*object).clone()),
                after: None,
                result: None,
                told: None,
                wave: i32::MAX,
                file: entry.file.clone(),
                takes,
            });
        }
        self.plan.sum.delete = pruned.len() - held;
        self.plan.sum.taken = taken.len();
    }
}
