//! The end of a Source: with `podbay.dev/prune: "true"` what it created goes, without it stays. PURE.

use super::accepted;
use super::inventory::Inventory;
use super::names::{FINALIZER, PRUNE};
use super::plan::writer;
use super::render::may_prune;
use crate::model::{Key, Kind, Source};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{Precondition, Transaction, Write};

/// The transaction that lets a deleted Source go; `None` where there is nothing to let go.
pub fn plan(state: &Snapshot, name: &str) -> Option<Transaction> {
    let object = state.get(&Key::cluster(Kind::Source, name))?;
    let source = object.get::<Source>()?;
    let held = source.metadata.finalizers.iter().flatten().any(|it| it == FINALIZER);
    if !object.is_deleting() || !held {
        return None;
    }
    let mut transaction = Transaction::new(writer(name));
    if object.annotation(PRUNE) == Some("true") {
        // What refers to others first: the order of writing, backwards.
        for (key, entry) in Inventory::of(source, state.definitions()).entries.iter().rev() {
            let Some(live) = state.get(key).filter(|live| Inventory::is_of(entry, live)) else { continue };
            if entry.created && !entry.keep && may_prune(live) && !live.is_deleting() {
                transaction.writes.push(Write::Delete { key: key.clone(), precondition: Precondition::seen(live), grace_seconds: None });
            }
        }
    }
    transaction.writes.extend(accepted::removal(state, name));
    transaction.writes.push(Write::Update(object.without_finalizer(FINALIZER), Precondition::seen(object)));
    Some(transaction)
}
