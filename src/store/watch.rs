//! History and its readers: a bounded log of batches that any number of watchers follow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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

/// What of the history is kept before the oldest batches go; the newest batch always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub changes: usize,
    /// JSON of the objects before and after, and a share for each change. In memory an object takes
    /// some times its JSON.
    pub bytes: usize,
    /// Heartbeats alone would fill any number in the end. As long as Kubernetes keeps its history.
    pub age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { changes: 50_000, bytes: 16 << 20, age: Duration::from_secs(5 * 60) }
    }
}

/// What a change weighs beside its objects' JSON.
const CHANGE_BYTES: usize = 256;

/// How much history there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    pub changes: usize,
    pub bytes: usize,
    /// Watches may start at this revision or later.
    pub oldest: u64,
}

/// The newest batches, shared by the store and its watchers.
pub struct History {
    log: Mutex<Log>,
    newest: signal::Sender<u64>,
    bounds: Bounds,
}

struct Kept {
    batch: Arc<Batch>,
    bytes: usize,
    since: Instant,
}

struct Log {
    batches: VecDeque<Kept>,
    changes: usize,
    bytes: usize,
    /// Watches may start at this revision or later.
    oldest: u64,
}

impl History {
    /// An empty history that starts at `revision`.
    pub fn new(revision: u64, bounds: Bounds) -> Arc<Self> {
        let log = Mutex::new(Log { batches: VecDeque::new(), changes: 0, bytes: 0, oldest: revision });
        Arc::new(Self { log, newest: signal::Sender::new(revision), bounds })
    }

    pub fn extent(&self) -> Extent {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        Extent { changes: log.changes, bytes: log.bytes, oldest: log.oldest }
    }

    /// Adds a batch and wakes every watcher. Batches must come in the order of their revisions.
    pub fn publish(&self, batch: Batch) {
        self.publish_at(batch, Instant::now());
    }

    fn publish_at(&self, batch: Batch, now: Instant) {
        let revision = batch.revision;
        // Outside the lock: an object that nobody has read yet is encoded here.
        let bytes = batch.changes.iter().map(weight).sum();
        let mut gone = Vec::new();
        {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.changes += batch.changes.len();
            log.bytes += bytes;
            log.batches.push_back(Kept { batch: Arc::new(batch), bytes, since: now });
            while log.batches.len() > 1 && self.is_too_much(&log, now) {
                let Some(oldest) = log.batches.pop_front() else { break };
                log.changes -= oldest.batch.changes.len();
                log.bytes -= oldest.bytes;
                log.oldest = oldest.batch.revision;
                gone.push(oldest);
            }
        }
        self.newest.send_replace(revision);
    }

    fn is_too_much(&self, log: &Log, now: Instant) -> bool {
        let old = log.batches.front().is_some_and(|oldest| now.saturating_duration_since(oldest.since) > self.bounds.age);
        old || log.changes > self.bounds.changes || log.bytes > self.bounds.bytes
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
        let index = log.batches.partition_point(|kept| kept.batch.revision <= at);
        Ok(log.batches.get(index).map(|kept| Arc::clone(&kept.batch)))
    }
}

/// Both objects count: what a change replaced is held by nobody else.
fn weight(change: &Change) -> usize {
    let objects = change.before.iter().chain(&change.after);
    objects.map(|object| object.json().len()).sum::<usize>() + CHANGE_BYTES
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

    /// The next batch if there is one already.
    ///
    /// # Errors
    /// [`TooOld`], as [`Watch::next`].
    pub fn passed(&mut self) -> Result<Option<Arc<Batch>>, TooOld> {
        let batch = self.history.after(self.at)?;
        if let Some(batch) = &batch {
            self.at = batch.revision;
        }
        Ok(batch)
    }

    /// The revision up to which this reader has seen everything.
    pub fn revision(&self) -> u64 {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Kind, Object};

    fn batch(revision: u64, bytes: usize) -> Batch {
        let value = json!({"metadata": {"name": "c", "namespace": "web"}, "data": {"k": "x".repeat(bytes)}});
        let after = Object::from_value(Kind::ConfigMap, value).unwrap();
        Batch { revision, changes: vec![Change { before: None, after: Some(after) }] }
    }

    fn history(bounds: Bounds) -> Arc<History> {
        History::new(0, bounds)
    }

    #[test]
    fn history_is_bounded_by_bytes() {
        let history = history(Bounds { bytes: 100_000, ..Bounds::default() });
        for revision in 1..=100 {
            history.publish(batch(revision, 10_000));
            assert!(history.extent().bytes <= 100_000);
        }
        let Extent { changes, bytes, oldest } = history.extent();
        assert!((changes, oldest) == (9, 91) && bytes > 90_000, "{changes} {bytes} {oldest}");
        assert_eq!(history.watch(90).err(), Some(TooOld { asked: 90, oldest: 91 }));
        // The newest is there whatever it weighs: who is up to date misses nothing.
        let watch = history.watch(100).unwrap();
        history.publish(batch(101, 1_000_000));
        assert_eq!((history.extent().changes, watch.history.after(100).unwrap().unwrap().revision), (1, 101));
    }

    #[test]
    fn heartbeats_do_not_fill_the_history_for_days() {
        let history = history(Bounds::default());
        let start = Instant::now();
        for revision in 1..=10_000 {
            history.publish_at(batch(revision, 10), start + Duration::from_secs(10 * revision));
            assert!(history.extent().changes <= 31);
        }
        assert_eq!((history.extent().changes, history.extent().oldest), (31, 9969));
    }

    #[test]
    fn what_is_replaced_counts_as_long_as_the_history_holds_it() {
        let history = history(Bounds::default());
        let (large, small) = (batch(1, 50_000).changes.remove(0).after, batch(1, 1).changes.remove(0).after);
        history.publish(Batch { revision: 1, changes: vec![Change { before: large, after: small }] });
        assert!(history.extent().bytes > 50_000);
    }
}
