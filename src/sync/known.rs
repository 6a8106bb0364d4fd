//! What a planner remembers, so that what did not change costs nothing. All of it can be lost. PURE.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::again::{Fight, Quarrels};
use super::desired::DesiredSet;
use super::identity::Digest;
use super::inventory::Inventory;
use crate::model::custom::Definitions;
use crate::model::{InventoryEntry, Key, Source, SourceStatus, Timestamp};
use crate::store::snapshot::Snapshot;

/// What is remembered from plan to plan.
#[derive(Clone, Default)]
pub struct Known {
    /// What the last plan was made from: what is the same now is as it was.
    pub(super) seen: Option<Seen>,
    /// The inventory as the Source has it, and by key.
    held: Option<(Vec<Arc<InventoryEntry>>, Arc<Inventory>)>,
    /// What somebody else deletes again and again.
    pub(super) losses: Quarrels,
    /// What somebody else, or a webhook, makes another of each time.
    pub(super) changes: Quarrels,
}

/// The input of a plan, and what of it was not as wanted.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) state: Snapshot,
    pub(super) desired: Arc<DesiredSet>,
    pub(super) held: Arc<Inventory>,
    /// Everything else that is wanted was there, as wanted, and nothing else was held.
    pub(super) open: BTreeSet<Key>,
}

impl Known {
    /// What is about to be written of an inventory: read back, it need not be taken apart again.
    pub(super) fn holds(&mut self, status: &SourceStatus, inventory: &Arc<Inventory>) {
        self.held = Some((status.inventory.clone(), Arc::clone(inventory)));
    }

    /// A step was carried out that put these back.
    pub(super) fn carried(&mut self, put_back: &[(Key, Digest)], now: Timestamp) {
        self.losses.forget_old(now);
        self.changes.forget_old(now);
        put_back.iter().for_each(|(key, wanted)| self.changes.put_back(key, *wanted, now));
    }

    /// What somebody else changes again and again, of what is wanted now.
    pub(super) fn fights(&self, now: Timestamp) -> Vec<Fight> {
        let wanted = |key: &Key| self.seen.as_ref().and_then(|seen| seen.desired.get(key)).map(|desired| desired.digest);
        self.changes.fights(wanted, now)
    }

    pub(super) fn held(&mut self, source: &Source, served: &Definitions) -> Arc<Inventory> {
        let now = source.status.as_ref().map_or(&[][..], |status| &status.inventory);
        match &self.held {
            Some((then, held)) if then == now => Arc::clone(held),
            _ => {
                let held = Arc::new(Inventory::of(source, served));
                self.held = Some((now.to_vec(), Arc::clone(&held)));
                held
            }
        }
    }
}
