//! Desired against live against inventory: what a source's revision would do. PURE.
//!
//! - [`plan`] decides the whole set: what to create, update, replace, prune, and why not
//! - what git does not say is never drift; what it does say is put back (server-side apply, each
//!   source its own manager)
//! - everything is admitted on a copy of the state first, so that all that would be refused is known
//!   at once and what admission makes no change of is no op
//! - `now` says which ops are this step's transaction: all of them, or those of one wave

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::budget;
use super::health::{Health, health};
use super::identity::{self, Digest, Sum};
use super::inventory::{self, Inventory};
use super::render::{Desired, Rendered, may_prune};
use crate::model::ownership::{ManagedFields, apply};
use crate::model::{InventoryEntry, Key, Kind, Object, Source, Timestamp};
use crate::plan::{Reason, Wait};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{Precondition, Stamp, Transaction, Write};

/// What happens to one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Create,
    Update,
    /// Deleted and created: a field changes that cannot be changed in place.
    Replace,
    Delete,
}

impl Action {
    /// Terraform's marks.
    pub fn mark(self) -> &'static str {
        match self {
            Action::Create => "+",
            Action::Update => "~",
            Action::Replace => "-/+",
            Action::Delete => "-",
        }
    }
}

/// One change a source makes.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncOp {
    pub action: Action,
    pub before: Option<Object>,
    /// What is written, before admission.
    pub after: Option<Object>,
    /// What admission makes of it.
    pub result: Option<Object>,
    pub wave: i32,
    /// Where the manifest is; where it was, for a deletion.
    pub file: String,
    /// What goes with a deleted object.
    pub takes: BTreeSet<Key>,
}

impl SyncOp {
    pub fn key(&self) -> &Key {
        match (&self.after, &self.before) {
            (Some(object), _) | (None, Some(object)) => object.key(),
            (None, None) => unreachable!("an op has a before or an after: `plan` makes no other"),
        }
    }

    /// The writes that carry it out, refused when the object is no longer the one seen.
    pub fn writes(&self) -> Vec<Write> {
        let delete =
            |before: &Object| Write::Delete { key: before.key().clone(), precondition: Precondition::seen(before), grace_seconds: None };
        match (self.action, &self.before, &self.after) {
            (Action::Update, Some(before), Some(after)) => vec![Write::Update(after.clone(), Precondition::seen(before))],
            (Action::Replace, Some(before), Some(after)) => vec![delete(before), Write::Create(after.clone())],
            (Action::Delete, Some(before), _) => vec![delete(before)],
            (_, _, Some(after)) => vec![Write::Create(after.clone())],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for SyncOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.mark(), self.key())
    }
}

/// How many of each: the one-line sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub create: usize,
    pub update: usize,
    pub replace: usize,
    pub delete: usize,
    /// What goes with the deleted.
    pub taken: usize,
    pub unchanged: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.create + self.update + self.replace + self.delete == 0 {
            return write!(f, "no change, {} as they should be", self.unchanged);
        }
        write!(f, "{} to create, {} to update", self.create, self.update)?;
        if self.replace > 0 {
            write!(f, ", {} to replace", self.replace)?;
        }
        write!(f, ", {} to delete", self.delete)?;
        if self.taken > 0 {
            write!(f, " with {} more", self.taken)?;
        }
        write!(f, ", {} unchanged", self.unchanged)
    }
}

/// Objects found unchanged before: the live revision and the digest of what was applied.
pub type Known = BTreeMap<Key, (u64, Digest)>;

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
    /// Left out or left alone, each with its reason.
    pub skipped: Vec<String>,
    /// The inventory once this step is done. Objects of later waves have no UID yet.
    pub inventory: Inventory,
    /// Objects that another source holds: for its plan to see.
    pub contested: Vec<InventoryEntry>,
    /// The set was accepted before; this plan only goes on with it or puts it back.
    pub accepted: bool,
    pub set_digest: String,
    pub sum: Counts,
}

impl SyncPlan {
    /// May this step be carried out?
    pub fn is_free(&self) -> bool {
        self.blocked.is_empty() && (self.approvals.is_empty() || self.approved)
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
    let name = input.source.metadata.name.clone().unwrap_or_default();
    let status = input.source.status.clone().unwrap_or_default();
    let held = Inventory::of(input.source);
    let mut planner = Planner {
        input,
        manager: manager(&name),
        adopt: input.source.spec.adopt == Some(true),
        held: &held,
        probe: input.state.clone(),
        uids: 0,
        known,
        plan: SyncPlan {
            source: name,
            revision: input.revision.to_owned(),
            skipped: input.rendered.skipped.clone(),
            accepted: status.accepted_set.as_deref() == Some(&input.rendered.set_digest),
            set_digest: input.rendered.set_digest.clone(),
            inventory: Inventory { entries: BTreeMap::new(), unknown: held.unknown.clone() },
            ..SyncPlan::default()
        },
    };
    planner.contested();
    planner.wanted();
    planner.unwanted();
    let mut plan = planner.plan;
    plan.id = plan_id(&plan);
    plan.approved = input.approved == Some(plan.id.as_str());
    if let Some(other) =
        input.approved.filter(|id| !plan.approved && !plan.approvals.is_empty() && status.approved_plan.as_deref() != Some(*id))
    {
        plan.approvals.push(Reason::new("OtherPlan", format!("plan {} was approved, but this one is {}", short(other), short(&plan.id))));
    }
    step(&mut plan, input);
    plan
}

/// Enough of an id to tell it from others.
pub fn short(id: &str) -> String {
    id.chars().filter(|letter| letter.is_ascii_alphanumeric()).take(12).collect()
}

struct Planner<'a> {
    input: &'a Input<'a>,
    manager: String,
    adopt: bool,
    held: &'a Inventory,
    /// The state as the ops so far leave it.
    probe: Snapshot,
    uids: usize,
    known: &'a mut Known,
    plan: SyncPlan,
}

/// What the live object of a wanted one is to the source.
enum Claim {
    Mine { created: bool },
    Stranger,
}

impl Planner<'_> {
    /// The same object in two sources refuses both changes.
    fn contested(&mut self) {
        let rendered = self.input.rendered;
        for other in self.input.state.list(Kind::Source) {
            let (name, Some(source)) = (&other.key().name, other.get::<Source>()) else { continue };
            let Some(status) = source.status.as_ref().filter(|_| *name != self.plan.source) else { continue };
            for (entry, holds) in
                status.inventory.iter().map(|entry| (entry, true)).chain(status.contested.iter().map(|entry| (entry, false)))
            {
                let Some(desired) = inventory::key_of(entry).and_then(|key| rendered.desired.get(&key)) else { continue };
                let key = desired.object.key();
                let message = format!("{key} is in two sources: {} of {}, and {} of {name}", desired.file, self.plan.source, entry.file);
                if holds {
                    self.plan.contested.push(inventory::entry(key, "", false, &desired.file, false));
                    self.plan.blocked.push(Reason::new("TwoSources", message));
                } else if !self.plan.accepted {
                    self.plan.blocked.push(Reason::new("TwoSources", message));
                }
            }
        }
    }

    fn wanted(&mut self) {
        let mut order: Vec<(&Key, &Desired)> = self.input.rendered.desired.iter().map(|(key, desired)| (key, desired.as_ref())).collect();
        // Stable: within a wave by kind and key, as the map has them.
        order.sort_by_key(|(_, desired)| desired.wave);
        for (key, desired) in order {
            let entry = self.held.entries.get(key);
            let Some(live) = self.input.state.get(key) else {
                self.create(key, desired);
                continue;
            };
            if live.is_deleting() {
                let reason = Reason::new("BeingDeleted", "is still being deleted; it is created again after that");
                self.plan.waits.push(Wait { subject: key.clone(), reason });
                self.remember(desired, entry.map_or("", |entry| &entry.uid), entry.is_some_and(|entry| entry.created));
                continue;
            }
            match self.claim(entry, live) {
                Claim::Mine { created } => self.update(desired, live, created),
                Claim::Stranger => {
                    let message = format!(
                        "{}: {key} exists and Podbay did not create it: adopt it (`adopt: true` on the Source, or --adopt)",
                        place(desired)
                    );
                    self.plan.blocked.push(Reason::new("NotOurs", message));
                }
            }
        }
    }

    fn claim(&self, entry: Option<&InventoryEntry>, live: &Object) -> Claim {
        match entry {
            Some(entry) if Inventory::is_of(entry, live) => Claim::Mine { created: entry.created },
            // Left behind by this source under the same name, or taken over: ours to update, never to prune.
            _ if self.adopt || ManagedFields::is_applied_by(live.meta(), &self.manager) => Claim::Mine { created: false },
            _ => Claim::Stranger,
        }
    }

    fn remember(&mut self, desired: &Desired, uid: &str, created: bool) {
        let key = desired.object.key();
        self.plan.inventory.entries.insert(key.clone(), inventory::entry(key, uid, created, &desired.file, !desired.prune));
    }

    fn create(&mut self, key: &Key, desired: &Desired) {
        self.known.remove(key);
        self.remember(desired, "", true);
        match self.first(desired) {
            Ok(after) => match self.try_writes(&[Write::Create(after.clone())]) {
                Ok(_) => self.push(Action::Create, None, Some(after), desired),
                Err(why) => self.block(desired, &why),
            },
            Err(why) => self.block(desired, &why),
        }
    }

    /// The object as this source says it when there is none.
    fn first(&self, desired: &Desired) -> Result<Object, String> {
        let none = ManagedFields::default();
        self.applied(desired, None, &none).map(|(object, _)| object)
    }

    fn applied(&self, desired: &Desired, live: Option<&Object>, managed: &ManagedFields) -> Result<(Object, bool), String> {
        let kind = desired.object.kind();
        let before = live.map(Object::value);
        let (value, owners) = apply(kind, before.as_ref(), managed, &desired.applied, &self.manager, true)
            .map_err(|conflicts| conflicts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let changed = before.as_ref() != Some(&value) || owners != *managed;
        let entries = owners.to_entries();
        let object = Object::from_value(kind, value).map_err(|error| error.to_string())?;
        Ok((object.edit_meta(|meta| meta.managed_fields = entries), changed))
    }

    fn update(&mut self, desired: &Desired, live: &Object, created: bool) {
        self.remember(desired, live.uid(), created);
        let seen = (live.revision(), desired.digest);
        if self.known.get(live.key()) == Some(&seen) {
            self.plan.sum.unchanged += 1;
            return;
        }
        let after = match self.applied(desired, Some(live), &ManagedFields::of(live.meta())) {
            Ok((after, true)) => after,
            Ok((_, false)) => return self.unchanged(live, seen),
            Err(why) => return self.block(desired, &why),
        };
        match self.try_writes(&[Write::Update(after.clone(), Precondition::seen(live))]) {
            Ok(0) => self.unchanged(live, seen),
            Ok(_) => self.push(Action::Update, Some(live), Some(after), desired),
            Err(why) => self.replace(desired, live, &why),
        }
    }

    fn unchanged(&mut self, live: &Object, seen: (u64, Digest)) {
        self.plan.sum.unchanged += 1;
        self.known.insert(live.key().clone(), seen);
    }

    /// A change that is refused in place: a delete and a create, where the object says so.
    fn replace(&mut self, desired: &Desired, live: &Object, why: &str) {
        let delete = Write::Delete { key: live.key().clone(), precondition: Precondition::seen(live), grace_seconds: None };
        let after = match self.first(desired) {
            Ok(after) => after,
            Err(why) => return self.block(desired, &why),
        };
        let mut copy = self.probe.clone();
        std::mem::swap(&mut copy, &mut self.probe);
        let deleted = self.try_writes(std::slice::from_ref(&delete));
        let gone = self.probe.get(live.key()).is_none();
        let created = if gone { self.try_writes(&[Write::Create(after.clone())]) } else { Ok(0) };
        if deleted.is_err() || created.is_err() {
            self.probe = copy;
            return self.block(desired, why);
        }
        if !desired.replace {
            self.probe = copy;
            return self.block(desired, &format!("{why} (annotate it with podbay.dev/replace: \"true\" to have it deleted and created)"));
        }
        // A pod on a node goes first and is created once it is gone.
        if gone {
            self.push(Action::Replace, Some(live), Some(after), desired)
        } else {
            self.push(Action::Delete, Some(live), None, desired)
        }
    }

    /// Admits writes on the probe; how many changed something.
    fn try_writes(&mut self, writes: &[Write]) -> Result<usize, String> {
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
            Err(error) => Err(error.to_string()),
        }
    }

    fn push(&mut self, action: Action, before: Option<&Object>, after: Option<Object>, desired: &Desired) {
        let deletes = matches!(action, Action::Replace | Action::Delete);
        let takes = before.filter(|_| deletes).map(|before| budget::taken(self.input.state, before)).unwrap_or_default();
        match action {
            Action::Create => self.plan.sum.create += 1,
            Action::Update => self.plan.sum.update += 1,
            Action::Replace | Action::Delete => self.plan.sum.replace += 1,
        }
        let result = after.as_ref().and_then(|after| self.probe.get(after.key()).cloned());
        let file = desired.file.clone();
        self.plan.ops.push(SyncOp { action, before: before.cloned(), after, result, wave: desired.wave, file, takes });
    }

    fn block(&mut self, desired: &Desired, why: &str) {
        self.plan.blocked.push(Reason::new("Refused", format!("{}: {why}", place(desired))));
    }

    /// What the inventory holds and the revision no longer wants.
    fn unwanted(&mut self) {
        let (state, rendered) = (self.input.state, self.input.rendered);
        let mut pruned: Vec<(&Object, &InventoryEntry)> = Vec::new();
        for (key, entry) in self.held.entries.iter().rev().filter(|(key, _)| !rendered.desired.contains_key(key)) {
            let Some(live) = state.get(key).filter(|live| Inventory::is_of(entry, live)) else { continue };
            if live.is_deleting() {
                self.plan.inventory.entries.insert(key.clone(), entry.clone());
                self.plan.waits.push(Wait { subject: key.clone(), reason: Reason::new("BeingDeleted", "is being deleted") });
            } else if !entry.created {
                self.plan.skipped.push(format!("{key} stays: it was adopted, not created"));
            } else if entry.keep || !may_prune(live) {
                self.plan.skipped.push(format!("{key} stays: its annotation forbids pruning"));
            } else {
                pruned.push((live, entry));
            }
        }
        let held: Vec<&Object> =
            self.held.entries.iter().filter_map(|(key, entry)| state.get(key).filter(|live| Inventory::is_of(entry, live))).collect();
        if !self.input.path_exists && held.is_empty() && !self.plan.accepted {
            self.plan.blocked.push(Reason::new("PathMissing", "the source's path does not exist"));
        }
        if !self.plan.accepted {
            let objects: Vec<&Object> = pruned.iter().map(|(object, _)| *object).collect();
            let budget = self.input.source.spec.budget.clone().unwrap_or_default();
            self.plan.approvals = budget::approvals(state, &objects, &held, rendered.desired.is_empty(), self.input.path_exists, &budget);
        }
        let going: BTreeSet<Key> = pruned.iter().map(|(object, _)| object.key().clone()).collect();
        let mut taken = BTreeSet::new();
        for (object, entry) in pruned {
            let takes: BTreeSet<Key> = budget::taken(state, object).difference(&going).cloned().collect();
            taken.extend(takes.iter().cloned());
            self.plan.sum.delete += 1;
            self.plan.inventory.entries.insert(object.key().clone(), entry.clone());
            let op = SyncOp {
                action: Action::Delete,
                before: Some(object.clone()),
                after: None,
                result: None,
                wave: i32::MAX,
                file: entry.file.clone(),
                takes,
            };
            self.plan.ops.push(op);
        }
        self.plan.sum.taken = taken.len();
    }
}

fn place(desired: &Desired) -> String {
    format!("{}:{}", desired.file, desired.line)
}

/// Which ops are this step's. With one wave, all; otherwise those up to and with the first wave that
/// has any, provided that everything of the waves before it is healthy.
fn step(plan: &mut SyncPlan, input: &Input<'_>) {
    let waves: BTreeSet<i32> = input.rendered.desired.values().map(|desired| desired.wave).collect();
    plan.now = plan.ops.len();
    if waves.len() > 1 {
        for wave in &waves {
            let until = plan.ops.partition_point(|op| op.wave <= *wave);
            if until > 0 {
                plan.now = until;
                break;
            }
            let waits = unhealthy(input, *wave);
            if !waits.is_empty() {
                plan.now = 0;
                plan.waits.extend(waits);
                break;
            }
        }
    }
    // What this step deletes is gone after it; what a later one does stays in the inventory.
    for op in &plan.ops[..plan.now] {
        let done = op.action == Action::Delete && op.after.is_none() && !input.rendered.desired.contains_key(op.key());
        let marked = done && op.before.as_ref().is_some_and(stays_marked);
        if done && !marked {
            plan.inventory.entries.remove(op.key());
        }
    }
}

/// A deletion of it is a mark first: the entry goes when the object has.
fn stays_marked(object: &Object) -> bool {
    matches!(object.kind(), Kind::Namespace | Kind::Pod) || object.meta().finalizers.as_ref().is_some_and(|all| !all.is_empty())
}

fn unhealthy(input: &Input<'_>, wave: i32) -> Vec<Wait> {
    let of_wave = input.rendered.desired.iter().filter(|(_, desired)| desired.wave == wave);
    of_wave
        .filter_map(|(key, _)| match input.state.get(key).map(health) {
            Some(Health::Healthy) => None,
            Some(Health::Progressing(reason)) => {
                Some(Wait { subject: key.clone(), reason: Reason::new(reason.code, format!("wave {wave} waits: {}", reason.message)) })
            }
            Some(Health::Failed(reason)) => Some(Wait {
                subject: key.clone(),
                reason: Reason::new("WaveFailed", format!("wave {wave} has failed and stops here: {}", reason.message)),
            }),
            None => Some(Wait { subject: key.clone(), reason: Reason::new("NotCreated", format!("wave {wave} waits until it exists")) }),
        })
        .collect()
}

/// Over source, commit and the sorted ops: key, UID and digest of what is replaced or deleted,
/// digest of the result.
fn plan_id(plan: &SyncPlan) -> String {
    let mut sum = Sum::default();
    sum.add("podbay plan 1").add(&plan.source).add(&plan.revision);
    let mut ops: Vec<&SyncOp> = plan.ops.iter().collect();
    ops.sort_by(|left, right| (left.key(), left.action).cmp(&(right.key(), right.action)));
    for op in ops {
        sum.add(op.action.mark()).add(op.key().to_string());
        match &op.before {
            Some(before) => sum.add(before.uid()).add(identity::of_object(before)),
            None => sum.add("").add(""),
        };
        sum.add(op.after.as_ref().map(identity::of_object).unwrap_or_default());
    }
    sum.finish()
}
