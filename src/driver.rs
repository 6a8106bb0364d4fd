//! The loop: observe, plan, commit, look again. One for every reconciler.
//!
//! - [`run`] drives the controllers that decide from the store alone
//! - [`Queue`] and [`work`] serve reconcilers that act on more than the store
//! - `events`: what plans say becomes Events
//!
//! Level-triggered: a change says only "look at this key". A conflict only means "observe again".

mod events;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use events::Recorder;
pub use queue::{Next, Queue, Reconciler, work};

use crate::clock::Clock;
use crate::model::{Key, Object, Timestamp};
use crate::plan::{Controller, Note, Op, Plan, Reason, woken};
use crate::store::{Batch, CommitError, Snapshot, Store, TooOld, Transaction, Watch};

/// Keys of one controller that are planned on one snapshot and committed together.
const AT_ONCE: usize = 128;
/// The clock may be set: nobody sleeps longer without looking at it.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// How long to wait after so many failures in a row: doubled from 50 ms to a minute, with jitter.
pub fn backoff(failures: u32) -> Duration {
    let base = Duration::from_millis(50).saturating_mul(1 << failures.min(12)).min(Duration::from_secs(60));
    base.mul_f64(rand::random_range(0.75..1.25))
}

/// Runs the controllers on the store until `shutdown`. The scheduler acts when the others rest, so
/// that pods made together are placed together.
pub async fn run(store: Arc<dyn Store>, controllers: Vec<Arc<dyn Controller>>, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    let (mut ordered, last): (Vec<_>, Vec<_>) = controllers.into_iter().partition(|it| it.name() != "scheduler");
    ordered.extend(last);
    let recorder = Recorder::start(Arc::clone(&store), Arc::clone(&clock), shutdown.clone());
    let works = ordered.into_iter().map(Work::new).collect();
    let mut driver = Driver { store, clock, recorder, works, away: FuturesUnordered::new() };
    let mut watch = driver.resync();
    while !shutdown.is_cancelled() {
        driver.take_changes(&mut watch);
        driver.take_back();
        driver.wake_due();
        match driver.works.iter().position(|work| !work.ready.is_empty()) {
            Some(at) => driver.pass(at).await,
            None => tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(driver.until_next()) => {}
                batch = watch.next() => driver.changed(batch, &mut watch),
                Some((at, done)) = driver.away.next(), if !driver.away.is_empty() => driver.back(at, done),
            },
        }
    }
}

/// One controller and its keys.
struct Work {
    controller: Arc<dyn Controller>,
    ready: BTreeSet<Key>,
    /// When to look again at a key.
    timers: BTreeMap<Key, Timestamp>,
    failures: BTreeMap<Key, u32>,
    /// What admission last refused it, so that each message is told once.
    refused: BTreeMap<Key, String>,
    /// Keys whose plan waits for somebody outside, and whether they were to be looked at again meanwhile.
    away: BTreeMap<Key, bool>,
}

impl Work {
    fn new(controller: Arc<dyn Controller>) -> Self {
        Self {
            controller,
            ready: BTreeSet::new(),
            timers: BTreeMap::new(),
            failures: BTreeMap::new(),
            refused: BTreeMap::new(),
            away: BTreeMap::new(),
        }
    }

    /// The plan that says of a key that its pods were refused, where the object does not say so yet: it comes before
    /// they are tried again.
    fn tells(&self, state: &Snapshot, key: &Key, plan: &Plan, now: Timestamp) -> Option<Plan> {
        let why = self.refused.get(key).filter(|_| creates(plan))?;
        Some(self.controller.refused(state, key, why, now)).filter(|plan| !plan.is_empty())
    }

    /// What time it is for this controller.
    fn now(&self, clock: &dyn Clock) -> Timestamp {
        if self.controller.is_steady() { clock.steady() } else { clock.now() }
    }
}

/// A plan that was committed, or not.
type Done = (Key, Plan, Result<(), CommitError>);

struct Driver {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
    works: Vec<Work>,
    /// Commits that nobody waits for, each with the place of its controller.
    away: FuturesUnordered<BoxFuture<'static, (usize, Done)>>,
}

impl Driver {
    /// Looks at everything and follows from there.
    fn resync(&mut self) -> Watch {
        loop {
            let state = self.store.snapshot();
            // Too old only if the history's bound is passed between these two lines.
            if let Ok(watch) = self.store.watch(state.revision()) {
                state.iter().for_each(|object| self.enqueue(&state, object));
                return watch;
            }
        }
    }

    fn enqueue(&mut self, state: &Snapshot, object: &Object) {
        for work in &mut self.works {
            work.ready.extend(work.controller.keys(state, object));
        }
    }

    /// Takes what was published so far, without waiting.
    fn take_changes(&mut self, watch: &mut Watch) {
        while let Some(batch) = watch.next().now_or_never() {
            self.changed(batch, watch);
        }
    }

    fn changed(&mut self, batch: Result<Arc<Batch>, TooOld>, watch: &mut Watch) {
        match batch {
            Ok(batch) => {
                let state = self.store.snapshot();
                for change in &batch.changes {
                    for work in &mut self.works {
                        work.ready.extend(woken(work.controller.as_ref(), &state, change));
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the controllers fell behind and look at everything");
                *watch = self.resync();
            }
        }
    }

    fn wake_due(&mut self) {
        for work in &mut self.works {
            let now = work.now(self.clock.as_ref());
            let due: Vec<Key> = work.timers.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
            for key in due {
                work.timers.remove(&key);
                work.ready.insert(key);
            }
        }
    }

    fn until_next(&self) -> Duration {
        let until = |work: &Work| {
            let next = work.timers.values().min()?;
            Some(Duration::try_from(next.duration_since(work.now(self.clock.as_ref()))).unwrap_or(Duration::ZERO))
        };
        self.works.iter().filter_map(until).fold(LONGEST_SLEEP, Duration::min)
    }

    /// Plans a controller's next keys on one snapshot and commits the plans side by side.
    async fn pass(&mut self, at: usize) {
        let state = self.store.snapshot();
        let work = &mut self.works[at];
        let now = work.now(self.clock.as_ref());
        let name = work.controller.name();
        let (mut commits, mut told) = (Vec::new(), Vec::new());
        for _ in 0..AT_ONCE {
            let Some(key) = work.ready.pop_first() else { break };
            if let Some(again) = work.away.get_mut(&key) {
                *again = true;
                continue;
            }
            let span = tracing::debug_span!("pass", controller = name, %key);
            let mut plan = span.in_scope(|| work.controller.plan(&state, &key, now));
            let tells = span.in_scope(|| work.tells(&state, &key, &plan, now));
            let is_told = tells.is_some();
            plan = tells.unwrap_or(plan);
            match plan.again_at {
                Some(time) => work.timers.insert(key.clone(), time),
                None => work.timers.remove(&key),
            };
            if plan.ops.is_empty() {
                work.failures.remove(&key);
                work.refused.remove(&key);
                self.recorder.record(name, &plan.notes);
            } else if is_told {
                let transaction = plan.transaction(&format!("controller:{name}"));
                told.push(commit(Arc::clone(&self.store), key, plan, transaction).instrument(span));
            } else {
                let transaction = plan.transaction(&format!("controller:{name}"));
                let asks = self.store.asks(&transaction);
                let commit = commit(Arc::clone(&self.store), key.clone(), plan, transaction).instrument(span);
                if asks {
                    work.away.insert(key, false);
                    self.away.push(commit.map(move |done| (at, done)).boxed());
                } else {
                    commits.push(commit);
                }
            }
        }
        let (commits, told) = futures::join!(join_all(commits), join_all(told));
        for done in commits {
            self.settle(at, done);
        }
        for (key, _, outcome) in told {
            // What it would do comes next, woken by what was told.
            if let Err(error) = outcome {
                failed(&mut self.works[at], key, &error, now);
            }
        }
    }

    /// What became of a plan.
    fn settle(&mut self, at: usize, (key, plan, outcome): Done) {
        let work = &mut self.works[at];
        let name = work.controller.name();
        match outcome {
            Ok(()) => {
                work.failures.remove(&key);
                work.refused.remove(&key);
                self.recorder.record(name, &plan.notes);
            }
            Err(error) => {
                self.recorder.record(name, refused(work, &key, &plan, &error).as_slice());
                let now = work.now(self.clock.as_ref());
                failed(work, key, &error, now);
            }
        }
    }

    /// A commit that nobody waited for.
    fn back(&mut self, at: usize, done: Done) {
        let changed = self.works[at].away.remove(&done.0) == Some(true);
        let is_sound = matches!(done.2, Ok(()) | Err(CommitError::Conflict(_)));
        let key = done.0.clone();
        self.settle(at, done);
        // Who was refused waits its time, or whoever answers late would be asked without an end.
        if changed && is_sound {
            self.works[at].ready.insert(key);
        }
    }

    /// Takes those that are done by now, without waiting.
    fn take_back(&mut self) {
        while let Some(Some((at, done))) = self.away.next().now_or_never() {
            self.back(at, done);
        }
    }
}

async fn commit(store: Arc<dyn Store>, key: Key, plan: Plan, transaction: Transaction) -> Done {
    for op in &plan.ops {
        tracing::debug!(%op, "decided");
    }
    let outcome = store.commit(transaction).await.map(|_| ());
    (key, plan, outcome)
}

/// What people are told of a plan that admission refuses: once a message.
fn refused(work: &mut Work, key: &Key, plan: &Plan, error: &CommitError) -> Option<Note> {
    let CommitError::Refused(why) = error else { return None };
    let message = why.to_string();
    if work.refused.insert(key.clone(), message.clone()).as_ref() == Some(&message) {
        return None;
    }
    let code = if creates(plan) { "FailedCreate" } else { "FailedUpdate" };
    Some(Note { subject: key.clone(), warning: true, reason: Reason::new(code, message) })
}

fn creates(plan: &Plan) -> bool {
    plan.ops.iter().any(|op| matches!(op, Op::Create(_)))
}

/// Tries again: after a conflict at once for the first times, after anything else later and later.
fn failed(work: &mut Work, key: Key, error: &CommitError, now: Timestamp) {
    let failures = work.failures.entry(key.clone()).or_default();
    *failures += 1;
    let conflict = matches!(error, CommitError::Conflict(_));
    if conflict && *failures <= 5 {
        tracing::debug!(controller = work.controller.name(), %key, %error, "observes again");
        work.ready.insert(key);
        return;
    }
    if !conflict {
        tracing::warn!(controller = work.controller.name(), %key, %error, failures = *failures, "cannot carry out its plan");
    }
    let later = now.checked_add(backoff(*failures)).unwrap_or(now);
    work.timers.entry(key).and_modify(|at| *at = (*at).min(later)).or_insert(later);
}
