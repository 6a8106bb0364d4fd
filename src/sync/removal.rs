//! The end of a Source: with `podbay.dev/prune: "true"` what it created goes, without it stays, and is noted. PURE.
//!
//! A Namespace or a CustomResourceDefinition takes along what others have put there: nobody has looked at that, so it stays.
//! Admission webhooks are asked as about a commit that prunes (`asked`): where one is against it, nothing of it is deleted
//! and the Source stays, until they agree or nobody wants it pruned any more.

use std::collections::BTreeSet;

use super::accepted;
use super::asked::{Answers, Panel, Questions, Said};
use super::budget::taken;
use super::inventory::Inventory;
use super::left;
use super::names::{FINALIZER, PRUNE, REQUESTED_AT};
use super::plan::writer;
use super::render::may_prune;
use super::status;
use crate::model::{Key, Kind, Object, Source, Timestamp};
use crate::plan::{Note, Reason, Wait};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{Precondition, Transaction, Write};

/// What lets a deleted Source go, or tells why it does not.
#[derive(Default)]
pub struct Removal {
    pub transaction: Transaction,
    /// To be written with it where there is room: what it leaves, for a source of its name.
    pub noted: Vec<Write>,
    /// What it created and leaves behind, though it was to go, and why: nobody can ask the Source any more.
    pub left: Vec<Note>,
    /// What webhooks are to be asked first: until then there is no transaction.
    pub questions: Questions,
    /// What they hold back: the transaction only tells it, if it is not told yet.
    pub held: Vec<Wait>,
    /// What they warn of.
    pub warnings: BTreeSet<String>,
    /// Plan again at this time even if nothing changes.
    pub again_at: Option<Timestamp>,
}

/// `None` where there is nothing to let go.
pub fn plan(state: &Snapshot, name: &str, answers: &Answers, now: Timestamp) -> Option<Removal> {
    let object = state.get(&Key::cluster(Kind::Source, name))?;
    let source = object.get::<Source>()?;
    let held = source.metadata.finalizers.iter().flatten().any(|it| it == FINALIZER);
    if !object.is_deleting() || !held {
        return None;
    }
    let mut transaction = Transaction::new(writer(name));
    let inventory = Inventory::of(source, state.definitions());
    let (mut going, mut left, mut warnings): (Vec<&Object>, _, _) = (Vec::new(), Vec::new(), BTreeSet::new());
    if object.annotation(PRUNE) == Some("true") {
        for (key, entry) in &inventory.entries {
            let live = state.get(key).filter(|live| Inventory::is_of(entry, live));
            going.extend(live.filter(|live| entry.created && !entry.keep && may_prune(live) && !live.is_deleting()));
        }
        left = hold_back(state, name, &mut going);
        match asked(state, object, &going, answers, now)? {
            Ok(said) => warnings = said,
            Err(stopped) => return Some(stopped),
        }
        // What refers to others first: the order of writing, backwards.
        for live in going.iter().rev() {
            let (key, precondition) = (live.key().clone(), Precondition::seen(live));
            transaction.writes.push(Write::Delete { key, precondition, grace_seconds: None });
        }
    }
    transaction.writes.extend(accepted::removal(state, name));
    transaction.writes.push(Write::Update(object.without_finalizer(FINALIZER), Precondition::seen(object)));
    let noted = left::at_the_end(state, name, &inventory, &going);
    Some(Removal { transaction, noted, left, warnings, ..Removal::default() })
}

/// What webhooks warn of in what is to go; or what they are still to be asked, or are against.
fn asked(
    state: &Snapshot,
    object: &Object,
    going: &[&Object],
    answers: &Answers,
    now: Timestamp,
) -> Option<Result<BTreeSet<String>, Removal>> {
    let (source, name) = (object.get::<Source>()?, object.key().name.clone());
    let mut panel = Panel::of(state, answers, now);
    let mut held = Vec::new();
    for live in going.iter().rev() {
        if let Said::No(reason) = panel.delete(live, state) {
            held.push(Wait { subject: live.key().clone(), reason });
        }
    }
    let Panel { open, again_at, warnings, .. } = panel;
    if !open.is_empty() {
        let questions = Questions { source: name, state: state.clone(), all: open };
        return Some(Err(Removal { questions, ..Removal::default() }));
    }
    let Some(told) = status::stays(source, &held, &warnings, object.annotation(REQUESTED_AT), now) else { return Some(Ok(warnings)) };
    let mut transaction = Transaction::new(writer(&name));
    if source.status.as_ref() != Some(&told) {
        let changed = Object::new(Source { status: Some(told), ..source.clone() });
        transaction.writes.push(Write::UpdateStatus(changed, Precondition::seen(object)));
    }
    Some(Err(Removal { transaction, held, again_at, warnings, ..Removal::default() }))
}

/// Takes out what would take others' objects along.
fn hold_back(state: &Snapshot, source: &str, going: &mut Vec<&Object>) -> Vec<Note> {
    let takes_more = |object: &Object| matches!(object.kind(), Kind::Namespace | Kind::CustomResourceDefinition);
    let mut known: BTreeSet<Key> = going.iter().map(|object| object.key().clone()).collect();
    for object in going.iter().filter(|object| !takes_more(object)) {
        known.extend(taken(state, object));
    }
    let mut left = Vec::new();
    going.retain(|object| {
        let other = takes_more(object).then(|| taken(state, object)).into_iter().flatten().find(|key| !known.contains(key));
        if let Some(other) = &other {
            let message = format!("stays, though source {source} was removed with what it created: {other} would go with it");
            left.push(Note { subject: object.key().clone(), warning: true, reason: Reason::new("InUse", message) });
        }
        other.is_none()
    });
    left
}
