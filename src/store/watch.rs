//! History and its readers: a bounded log of batches that any number of watchers follow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch as signal;

use super::Change;

/// The changes of one revision, in the order of the transaction's writes.
#[derive(Debug)]
pub struct Batch {
    pub revision: u64,
    pub changes: Vec<Change>,
}

/// The history no longer reaches back to the revision asked for: list again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {asked} is too old: the oldest one kept is {oldest}")]
pub struct TooOld {
    pub asked: u64,
    pub oldest: u64,
}

/// The newest batches, shared by the store and its watchers.
pub struct History {
    log: Mutex<Log>,
    newest: signal::Sender<u64>,
    /// Changes kept before the oldest batches go.
    limit: usize,
}

struct Log {
    batches: VecDeque<Arc<Batch>>,
    changes: usize,
    /// Watches may start at this revision or later.
    oldest: u64,
}

impl History {
    /// An empty history that starts at `revision`.
    pub fn new(revision: u64, limit: usize) -> Arc<Self> {
        let log = Mutex::new(Log { batches: VecDeque::new(), changes: 0, oldest: revision });
        Arc::new(Self { log, newest: signal::Sender::new(revision), limit })
    }

    /// Adds a batch and wakes every watcher. Batches must come in the order of their revisions.
    pub fn publish(&self, batch: Batch) {
        let revision = batch.revision;
        {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.changes += batch.changes.len();
            log.batches.push_back(Arc::new(batch));
            while log.changes > self.limit && log.batches.len() > 1 {
                if let Some(gone) = log.batches.pop_front() {
                    log.changes -= gone.changes.len();
                    log.oldest = gone.revision;
                }
            }
        }
        self.newest.send_replace(revision);
    }

    /// Follows everything after `from`.
    ///
    /// # Errors
    /// [`TooOld`] when batches after `from` are gone.
    pub fn watch(self: &Arc<Self>, from: u64) -> Result<Watch, TooOld> {
        let oldest = self.log.lock().unwrap_or_else(PoisonError::into_inner).oldest;
        if from < oldest {
            return Err(TooOld { asked: from, oldest });
        }
        Ok(Watch { history: Arc::clone(self), at: from, signal: self.newest.subscribe() })
    }

    fn after(&self, at: u64) -> Result<Option<Arc<Batch>>, TooOld> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if at < log.oldest {
            return Err(TooOld { asked: at, oldest: log.oldest });
        }
        let index = log.batches.partition_point(|batch| batch.revision <= at);
        Ok(log.batches.get(index).cloned())
    }
}

/// A reader of the history. Dropping it ends the watch.
pub struct Watch {
    history: Arc<History>,
    at: u64,
    signal: signal::Receiver<u64>,
}

impl Watch {
    /// The next batch; waits for it. Cancel-safe.
    ///
    /// # Errors
    /// [`TooOld`] when this reader fell behind the history's bound: it must list again.
    pub async fn next(&mut self) -> Result<Arc<Batch>, TooOld> {
        loop {
            self.signal.mark_unchanged();
            if let Some(batch) = self.history.after(self.at)? {
                self.at = batch.revision;
                return Ok(batch);
            }
            // The sender lives in `history`, which this reader holds: it cannot be gone.
            let _ = self.signal.changed().await;
        }
    }

    /// The revision up to which this reader has seen everything.
    pub fn revision(&self) -> u64 {
        self.at
    }
}
