//! A queue of keys, deduplicated, and the workers that serve it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::backoff;

/// Keys to look at. A key waits once however often it is added, and is worked on by one worker at
/// a time; added meanwhile, it is looked at again afterwards.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    ready: BTreeSet<K>,
    working: BTreeSet<K>,
    /// Added while being worked on.
    again: BTreeSet<K>,
    later: BTreeMap<K, Instant>,
    failures: BTreeMap<K, u32>,
}

impl<K: Ord + Clone> Default for Queue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone> Queue<K> {
    pub fn new() -> Self {
        let state = State {
            ready: BTreeSet::new(),
            working: BTreeSet::new(),
            again: BTreeSet::new(),
            later: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a key as soon as a worker is free.
    pub fn add(&self, key: K) {
        let mut state = self.state();
        state.later.remove(&key);
        if state.working.contains(&key) {
            state.again.insert(key);
        } else {
            state.ready.insert(key);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Looks at a key after a while, or earlier if that was wanted already.
    pub fn add_after(&self, key: K, delay: Duration) {
        let at = Instant::now() + delay;
        let mut state = self.state();
        if state.ready.contains(&key) || state.again.contains(&key) {
            return;
        }
        state.later.entry(key).and_modify(|known| *known = (*known).min(at)).or_insert(at);
        drop(state);
        self.changed.notify_one();
    }

    /// Takes the next key; waits for one. Give it back with [`Queue::done`] or [`Queue::failed`].
    pub async fn next(&self) -> K {
        loop {
            let wait = {
                let mut state = self.state();
                let now = Instant::now();
                let due: Vec<K> = state.later.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
                for key in due {
                    state.later.remove(&key);
                    if state.working.contains(&key) {
                        state.again.insert(key);
                    } else {
                        state.ready.insert(key);
                    }
                }
                if let Some(key) = state.ready.pop_first() {
                    state.working.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return key;
                }
                state.later.values().min().copied()
            };
            match wait {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// The key is dealt with.
    pub fn done(&self, key: &K) {
        let mut state = self.state();
        state.failures.remove(key);
        state.working.remove(key);
        if state.again.remove(key) {
            state.ready.insert(key.clone());
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The key is tried again, each time later. Returns the delay.
    pub fn failed(&self, key: &K) -> Duration {
        let mut state = self.state();
        state.working.remove(key);
        let failures = state.failures.entry(key.clone()).or_default();
        *failures += 1;
        let delay = backoff(*failures);
        if state.again.remove(key) {
            state.ready.insert(key.clone());
        } else {
            let at = Instant::now() + delay;
            state.later.entry(key.clone()).and_modify(|known| *known = (*known).min(at)).or_insert(at);
        }
        drop(state);
        self.changed.notify_one();
        delay
    }

    /// Nothing is ready and nothing is being worked on.
    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.ready.is_empty() && state.working.is_empty()
    }
}

/// When a reconciler wants to see the key again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something changes.
    Change,
    After(Duration),
}

/// Brings one thing into the wanted state, one look at a time.
#[async_trait]
pub trait Reconciler: Send + Sync {
    type Key: Ord + Clone + Display + Send + Sync;
    type Error: Display + Send;

    fn name(&self) -> &'static str;

    /// Looks, decides, acts.
    ///
    /// # Errors
    /// Whatever hinders it; it is reported once a pass and the key is tried again later.
    async fn reconcile(&self, key: &Self::Key) -> Result<Next, Self::Error>;
}

/// Serves a queue with so many workers until `shutdown`. A pass that has begun is finished.
pub async fn work<R: Reconciler>(queue: Arc<Queue<R::Key>>, reconciler: Arc<R>, workers: usize, shutdown: CancellationToken) {
    let worker = || async {
        loop {
            let key = tokio::select! {
                () = shutdown.cancelled() => return,
                key = queue.next() => key,
            };
            let span = tracing::debug_span!("pass", reconciler = reconciler.name(), %key);
            match reconciler.reconcile(&key).instrument(span).await {
                Ok(Next::Change) => queue.done(&key),
                Ok(Next::After(delay)) => {
                    queue.done(&key);
                    queue.add_after(key, delay);
                }
                Err(error) => {
                    let delay = queue.failed(&key);
                    tracing::warn!(reconciler = reconciler.name(), %key, %error, ?delay, "tries again");
                }
            }
        }
    };
    futures::future::join_all((0..workers.max(1)).map(|_| worker())).await;
}
