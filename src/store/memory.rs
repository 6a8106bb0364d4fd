//! The reference store: everything in memory, gone at the end of the process.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use async_trait::async_trait;

use super::watch::{Bounds, Extent, History};
use super::{Batch, CommitError, Committed, Snapshot, Stamp, Store, TooOld, Transaction, Watch};
use crate::clock::Clock;

pub struct MemoryStore {
    current: ArcSwap<Snapshot>,
    writing: Mutex<()>,
    history: Arc<History>,
    clock: Arc<dyn Clock>,
}

impl MemoryStore {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::starting_with(Snapshot::default(), clock)
    }

    /// A store whose first state is a snapshot made elsewhere.
    pub fn starting_with(snapshot: Snapshot, clock: Arc<dyn Clock>) -> Self {
        let history = History::new(snapshot.revision(), Bounds::default());
        Self { current: ArcSwap::from_pointee(snapshot), writing: Mutex::new(()), history, clock }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn snapshot(&self) -> Snapshot {
        Snapshot::clone(&self.current.load())
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.snapshot();
        let mut uid = || uuid::Uuid::new_v4().to_string();
        let mut stamp = Stamp { now: self.clock.now(), uid: &mut uid };
        let applied = before.apply(&transaction, before.revision() + 1, &mut stamp)?;
        let revision = applied.snapshot.revision();
        if !transaction.dry_run && !applied.changes.is_empty() {
            self.current.store(Arc::new(applied.snapshot.clone()));
            self.history.publish(Batch { revision, changes: applied.changes });
        }
        Ok(Committed { revision, results: applied.results, snapshot: applied.snapshot })
    }

    fn watch(&self, from: u64) -> Result<Watch, TooOld> {
        self.history.watch(from)
    }

    fn size_bytes(&self) -> u64 {
        0
    }

    fn history(&self) -> Extent {
        self.history.extent()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::store::contract;

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_keeps_the_contract() {
        contract::check(|| Arc::new(MemoryStore::new(Arc::new(SystemClock)))).await;
    }
}
