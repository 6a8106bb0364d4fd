//! HorizontalPodAutoscaler: as many pods as their load needs.
//!
//! Unlike the other controllers it decides from more than the store, what pods use, and from what it decided before. So
//! it is a reconciler with a queue of its own, and a preview has nothing of it but the bounds: what time and load do is
//! not foretold.
//! Without an autoscaler in the store nothing here runs.
//!
//! - `observe` (pure): the target and its pods
//! - `propose` (pure): how many pods a metric calls for
//! - `pace` (pure): how fast that may be followed; what was called for before
//! - `plan`, `report` (pure): the size that is written, and what is told
//! - `bounds` (pure): what a preview foretells
//! - `fake`: made-up figures

pub mod bounds;
pub mod fake;
pub mod observe;
pub mod pace;
pub mod plan;
pub mod propose;
mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::driver::{Next, Queue, Reconciler, Recorder, work};
use crate::model::usage::PodUsage;
use crate::model::{Key, Kind, Object, pod};
use crate::store::{Change, CommitError, Store};
use pace::Memory;
use plan::Decision;

/// Autoscalers looked at side by side: each waits for nodes (kube-controller-manager's
/// `--concurrent-horizontal-pod-autoscaler-syncs`).
const WORKERS: usize = 5;
/// A rate over less is a moment's: that of the first look at a node. Some seconds' work then passes for the load.
const SHORTEST_WINDOW: Duration = Duration::from_secs(5);
const NAME: &str = "horizontal-pod-autoscaler";

/// Who knows what pods use.
#[async_trait]
pub trait Measures: Send + Sync {
    /// What these pods use, by UID; those of which nothing is known are left out.
    async fn of(&self, pods: &[Object]) -> BTreeMap<String, PodUsage>;
}

/// What was decided could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write what {key} calls for: {source}")]
pub struct ScaleError {
    key: Key,
    #[source]
    source: CommitError,
}

/// See the module.
pub struct Autoscalers {
    store: Arc<dyn Store>,
    measures: Arc<dyn Measures>,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
    /// By key, with the UID it was of.
    memories: Mutex<BTreeMap<Key, (String, Memory)>>,
}

impl Autoscalers {
    pub fn new(store: Arc<dyn Store>, measures: Arc<dyn Measures>, clock: Arc<dyn Clock>, recorder: Recorder) -> Self {
        Self { store, measures, clock, recorder, memories: Mutex::default() }
    }

    /// What was called for before; nothing for one that was made anew under the name.
    fn memory(&self, object: &Object) -> Memory {
        let memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        let known = memories.get(object.key()).filter(|(uid, _)| uid == object.uid());
        known.map(|(_, memory)| memory.clone()).unwrap_or_default()
    }

    fn remember(&self, object: &Object, memory: Memory) {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.insert(object.key().clone(), (object.uid().to_owned(), memory));
    }

    fn forget(&self, key: &Key) {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    async fn write(&self, decision: &Decision) -> Result<(), CommitError> {
        if decision.plan.is_empty() {
            return Ok(());
        }
        let mut transaction = decision.plan.transaction(&format!("controller:{NAME}"));
        transaction.volatile = decision.only_figures;
        self.store.commit(transaction).await.map(drop)
    }

    /// What the target's pods use now, where that matters; `None`: it is too early to say. Asking takes a while: what
    /// the store says is read again afterwards.
    async fn usage(&self, key: &Key) -> Option<BTreeMap<String, PodUsage>> {
        let pods = self.pods_that_matter(key);
        if pods.is_empty() {
            return Some(BTreeMap::new());
        }
        let mut usage = self.measures.of(&pods).await;
        let are_known = !usage.is_empty();
        usage.retain(|_, it| it.window >= SHORTEST_WINDOW);
        (!are_known || !usage.is_empty()).then_some(usage)
    }

    /// The pods whose load decides.
    fn pods_that_matter(&self, key: &Key) -> Vec<Object> {
        let state = self.store.snapshot();
        let Some(object) = state.get(key) else { return Vec::new() };
        let (Some(it), Ok(target)) = (object.get::<HorizontalPodAutoscaler>(), observe::target(&state, object)) else { return Vec::new() };
        if plan::bound(&it.spec, target.current).is_some() {
            return Vec::new();
        }
        // Those of a lost node stay for long: nobody asks it for what does not count.
        let counts = |pod: &Object| pod.get::<Pod>().is_some_and(pod::is_active);
        target.pods.unwrap_or_default().into_iter().filter(counts).collect()
    }
}

#[async_trait]
impl Reconciler for Autoscalers {
    type Key = Key;
    type Error = ScaleError;

    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, ScaleError> {
        let Some(usage) = self.usage(key).await else { return Ok(Next::After(SHORTEST_WINDOW)) };
        let (state, now) = (self.store.snapshot(), self.clock.now());
        let times = plan::Times { now, steady: self.clock.steady() };
        let Some(object) = state.get(key) else {
            self.forget(key);
            return Ok(Next::Change);
        };
        let mut seen = plan::Observed { state: &state, object, target: observe::target(&state, object), usage, blocked: None };
        let memory = self.memory(object);
        let mut decision = plan::plan(&seen, &memory, times);
        let failed = |source| ScaleError { key: key.clone(), source };
        if let Err(error) = self.write(&decision).await {
            seen.blocked = blocked_by(&error);
            if seen.blocked.is_none() {
                return Err(failed(error));
            }
            // Its status is taken all the same, and says it.
            decision = plan::plan(&seen, &memory, times);
            self.write(&decision).await.map_err(failed)?;
        }
        self.recorder.record(NAME, &decision.plan.notes);
        self.remember(object, decision.memory);
        let until = decision.plan.again_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        Ok(until.map_or(Next::Change, Next::After))
    }
}

/// What people are told of a write that was not taken; `None` where it is worth another try.
fn blocked_by(error: &CommitError) -> Option<String> {
    match error {
        // How much is free changes with every look, and is no news.
        CommitError::Full(_) => Some("the server's store is short of space".to_owned()),
        CommitError::Refused(refused) => Some(refused.to_string()),
        CommitError::Conflict(_) | CommitError::Io(_) => None,
    }
}

/// Serves every autoscaler of the store until `shutdown`.
pub async fn run(store: Arc<dyn Store>, measures: Arc<dyn Measures>, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let recorder = Recorder::start(Arc::clone(&store), Arc::clone(&clock), shutdown.clone());
    let autoscalers = Arc::new(Autoscalers::new(Arc::clone(&store), measures, clock, recorder));
    let follow = async {
        while !shutdown.is_cancelled() {
            follow(store.as_ref(), &queue, &shutdown).await;
        }
    };
    // A pass waits for nodes, and what it would write the next process finds out anew: none is waited for.
    let working = work(Arc::clone(&queue), autoscalers, WORKERS, shutdown.clone());
    tokio::join!(follow, shutdown.run_until_cancelled(working));
}

/// Looks at every autoscaler, then at those that change, until the watch is too old.
async fn follow(store: &dyn Store, queue: &Queue<Key>, shutdown: &CancellationToken) {
    let snapshot = store.snapshot();
    let Ok(mut watch) = store.watch(snapshot.revision()) else { return };
    snapshot.list(Kind::HorizontalPodAutoscaler).for_each(|object| queue.add(object.key().clone()));
    loop {
        let batch = tokio::select! {
            () = shutdown.cancelled() => return,
            batch = watch.next() => batch,
        };
        let Ok(batch) = batch else { return };
        batch.changes.iter().filter(|change| is_news(change)).for_each(|change| queue.add(change.key().clone()));
    }
}

/// Somebody wants something else: a status is this controller's own word.
fn is_news(change: &Change) -> bool {
    let wanted = |object: &Option<Object>| object.as_ref().map(|it| (it.uid().to_owned(), it.meta().generation, it.is_deleting()));
    change.key().kind == Kind::HorizontalPodAutoscaler && wanted(&change.before) != wanted(&change.after)
}
