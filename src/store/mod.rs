//! One in-process database of Kubernetes objects: snapshot, transaction, watch. SEAM.
//!
//! - `snapshot` (pure): the state, and how a transaction makes the next one of it
//! - `place` (pure): where an object stands in its maps
//! - `transaction` (pure): what a writer asks for, with a precondition an object
//! - `memory`: the reference implementation, volatile
//! - `disk`: the same behind a write-ahead database; nobody is told "done" before the fsync
//! - `contract`: what every implementation must do
//!
//! Invariants: a transaction of any size gets one revision; revisions never go back or repeat; a
//! watcher sees every revision once and in order, or is told "too old".

#[cfg(test)]
mod contract;
pub mod disk;
pub mod memory;
mod place;
pub mod snapshot;
pub mod transaction;
pub mod watch;

use async_trait::async_trait;

pub use snapshot::{Applied, Change, Snapshot};
pub use transaction::{CommitError, Conflict, PodPart, Precondition, Stamp, Transaction, Write};
pub use watch::{Batch, TooOld, Watch};

/// The database. One per server; everything that writes goes through `commit`.
#[async_trait]
pub trait Store: Send + Sync {
    /// The newest state. Never blocks.
    fn snapshot(&self) -> Snapshot;

    /// Admits and applies a transaction as a whole; durable when it returns.
    ///
    /// # Errors
    /// See [`CommitError`]; nothing is changed then.
    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError>;

    /// Whether a commit of it waits for somebody outside, who may take long.
    fn asks(&self, _transaction: &Transaction) -> bool {
        false
    }

    /// Every change after `from`, in order, for ever.
    ///
    /// # Errors
    /// [`TooOld`] when the history no longer reaches back to `from`.
    fn watch(&self, from: u64) -> Result<Watch, TooOld>;

    /// Bytes on disk; 0 for a volatile store.
    fn size_bytes(&self) -> u64;

    /// How much the watch history holds.
    fn history(&self) -> watch::Extent;

    /// Why writes other than deletes and status are refused at present (disk full).
    fn degraded(&self) -> Option<String> {
        None
    }
}

/// What a commit did.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The revision of the transaction; the current one where nothing changed.
    pub revision: u64,
    /// One entry a write, in order: the object afterwards (`None`: gone).
    pub results: Vec<Option<crate::model::Object>>,
    /// The state right after this transaction.
    pub snapshot: Snapshot,
}
