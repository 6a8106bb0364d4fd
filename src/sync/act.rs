//! The loop: one worker a Source object, woken by its place, its interval, a request, and changes
//! of what it holds.
//!
//! ```text
//! Source object ─► open ─► fetch ─► render ─► plan ─► one transaction: status + this step's ops
//!                            ▲                 ▲ │
//!                            │                 │ └─► questions ─► webhooks ─► plan again
//!             interval, notify, request    a live object of the source, or a webhook, changed
//! ```
//!
//! Fetching goes on beside the rest: while it lasts, what was accepted is still held in place.
//!
//! Level-triggered: an event says only "look". The transaction is conditional on everything it was
//! planned from; a conflict means "plan again". A revision that is refused changes nothing, and the
//! last good one is still put back where somebody changes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::drift;
use super::look::{self, Look, Memory, Step, decide};
use super::names::REQUESTED_AT;
use super::plan::writer;
use super::removal;
use super::source::{Fetch, Fetched, OpenSource, Tree};
use super::webhooks::{AskWebhooks, ROUNDS, StillOpen};
use crate::clock::Clock;
use crate::model::webhook::CONFIGURATIONS;
use crate::model::{Key, Kind, Object, Source, SourceSpec, Timestamp};
use crate::store::{Change, CommitError, Store, Transaction, Write};

/// Seconds between looks.
const GIT_INTERVAL: i32 = 60;
const DIRECTORY_INTERVAL: i32 = 30;
/// Events come in flocks; one plan is enough for each.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// After the store failed, or somebody else kept winning.
const RETRY: Duration = Duration::from_secs(2);
/// How long a process that has read nothing yet waits for the place, before it holds in place what
/// was accepted earlier.
const FIRST_READ: Duration = Duration::from_secs(1);
/// Plans in a row that lost to another writer.
const CONFLICTS: usize = 20;

/// What the workers share.
#[derive(Clone)]
struct Context {
    store: Arc<dyn Store>,
    places: Arc<dyn OpenSource>,
    webhooks: Arc<dyn AskWebhooks>,
    clock: Arc<dyn Clock>,
}

/// Keeps every Source object of the store in step with its place, until `shutdown`.
pub async fn run(
    store: Arc<dyn Store>,
    places: Arc<dyn OpenSource>,
    webhooks: Arc<dyn AskWebhooks>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) {
    let mut crew = Crew { context: Context { store, places, webhooks, clock }, shutdown: shutdown.child_token(), workers: BTreeMap::new() };
    while !shutdown.is_cancelled() {
        crew.follow(&shutdown).await;
    }
    crew.stop().await;
}

struct Crew {
    context: Context,
    shutdown: CancellationToken,
    workers: BTreeMap<String, Worker>,
}

struct Worker {
    wake: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Crew {
    /// Lists, then follows the watch until it is too old.
    async fn follow(&mut self, shutdown: &CancellationToken) {
        let snapshot = self.context.store.snapshot();
        let Ok(mut watch) = self.context.store.watch(snapshot.revision()) else { return };
        for source in snapshot.list(Kind::Source) {
            self.wake(&source.key().name);
        }
        loop {
            let batch = tokio::select! {
                () = shutdown.cancelled() => return,
                batch = watch.next() => batch,
            };
            let Ok(batch) = batch else { return };
            for change in &batch.changes {
                self.route(change);
            }
        }
    }

    fn route(&mut self, change: &Change) {
        if change.key().kind == Kind::Source {
            self.wake(&change.key().name);
            if holdings_differ(change) {
                self.workers.values().for_each(|worker| worker.wake.notify_one());
            }
        }
        // What could not be created for want of a namespace, or because it was going; or what a webhook had to do with, which
        // may be asked by the namespace's labels.
        let kind = change.key().kind;
        let labels = |object: &Option<Object>| object.as_ref().map(|it| it.labels().clone());
        let is_another_home = kind == Kind::Namespace && labels(&change.before) != labels(&change.after);
        if is_another_home || CONFIGURATIONS.contains(&kind) {
            self.workers.values().for_each(|worker| worker.wake.notify_one());
        }
        if is_measured_only(change) {
            return;
        }
        for object in [&change.before, &change.after].into_iter().flatten() {
            for entry in object.meta().managed_fields.iter().flatten() {
                if let Some(name) = entry.manager.as_deref().and_then(|manager| manager.strip_prefix("podbay:"))
                    && let Some(worker) = self.workers.get(name)
                {
                    worker.wake.notify_one();
                }
            }
        }
    }

    fn wake(&mut self, name: &str) {
        if let Some(worker) = self.workers.get(name).filter(|worker| !worker.task.is_finished()) {
            return worker.wake.notify_one();
        }
        let wake = Arc::new(Notify::new());
        let (context, stop, mine) = (self.context.clone(), self.shutdown.clone(), Arc::clone(&wake));
        let source = name.to_owned();
        let task = tokio::spawn(async move {
            let work = Work::new(source, context, mine);
            stop.run_until_cancelled(work.run()).await;
        });
        wake.notify_one();
        self.workers.insert(name.to_owned(), Worker { wake, task });
    }

    async fn stop(&mut self) {
        for worker in std::mem::take(&mut self.workers).into_values() {
            // Cancelled by the token; a panic was already reported.
            let _ = worker.task.await;
        }
    }
}

/// Only an autoscaler's status differs, which git does not say: looked at every 15 s, each would have its whole source
/// planned as often.
fn is_measured_only(change: &Change) -> bool {
    let said = |object: &Option<Object>| {
        let object = object.clone()?.edit_meta(|meta| meta.resource_version = None);
        object.edit::<HorizontalPodAutoscaler>(|it| it.status = None)
    };
    change.key().kind == Kind::HorizontalPodAutoscaler && said(&change.before) == said(&change.after)
}

/// Another source may now be free, or be in the way.
fn holdings_differ(change: &Change) -> bool {
    let holds = |object: &Option<Object>| {
        let status = object.as_ref()?.get::<Source>()?.status.clone()?;
        Some((status.inventory, status.contested))
    };
    holds(&change.before) != holds(&change.after)
}

/// One source's worker.
struct Work {
    name: String,
    context: Context,
    wake: Arc<Notify>,
    opened: Option<(SourceSpec, Arc<dyn Fetch>)>,
    opened_before: Option<Arc<dyn Fetch>>,
    fetching: Option<AbortOnDropHandle<Fetched>>,
    /// What a fetch that has ended brought, not read yet.
    brought: Option<Result<Fetched, JoinError>>,
    /// The newest look.
    look: Look,
    /// The request that the newest look answers, and the one that the running fetch will.
    answers: Option<String>,
    will_answer: Option<String>,
    memory: Memory,
    /// When to fetch again.
    due: Instant,
    /// When to plan again, because what was planned could not be written or is to be done later.
    retry: Option<Instant>,
    told: Told,
}

impl Work {
    fn new(name: String, context: Context, wake: Arc<Notify>) -> Self {
        Self {
            name,
            context,
            wake,
            opened: None,
            opened_before: None,
            fetching: None,
            brought: None,
            look: Look::Unread,
            answers: None,
            will_answer: None,
            memory: Memory::default(),
            due: Instant::now(),
            retry: None,
            told: Told::default(),
        }
    }

    async fn run(mut self) {
        loop {
            let Some(source) = self.source() else { return };
            self.retry = None;
            if source.metadata.deletion_timestamp.is_some() {
                self.remove(&source).await;
            } else if source.spec.suspend == Some(true) {
                self.forget_look();
            } else {
                self.pass(&source).await;
            }
            self.wait(&source).await;
        }
    }

    fn source(&self) -> Option<Source> {
        self.context.store.snapshot().get(&Key::cluster(Kind::Source, self.name.clone()))?.get::<Source>().cloned()
    }

    /// Sleeps until there is a reason to look again.
    async fn wait(&mut self, source: &Source) {
        let idle = source.spec.suspend == Some(true) && source.metadata.deletion_timestamp.is_none();
        let opened = self.opened.as_ref().filter(|_| !idle).map(|(_, fetch)| Arc::clone(fetch));
        let changed = async move {
            match opened {
                Some(fetch) => fetch.changed().await,
                None => std::future::pending().await,
            }
        };
        let due = Some(self.due).filter(|_| !idle && self.fetching.is_none());
        let timer = due.into_iter().chain(self.retry).min();
        let timer = async move {
            match timer {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.wake.notified() => tokio::time::sleep(DEBOUNCE).await,
            () = changed => self.due = Instant::now(),
            () = timer => {}
            brought = ended(self.fetching.as_mut()) => (self.fetching, self.brought) = (None, Some(brought)),
        }
    }

    /// Starts to fetch if it is time, reads what a fetch has brought, then plans and commits until
    /// nothing is left to do now.
    async fn pass(&mut self, source: &Source) {
        let request = source.metadata.annotations.as_ref().and_then(|all| all.get(REQUESTED_AT)).cloned();
        let handled = source.status.as_ref().and_then(|status| status.handled_request.clone());
        let asked = request.is_some() && ![&handled, &self.answers, &self.will_answer].contains(&&request);
        if self.opened.as_ref().is_none_or(|(spec, _)| !same_place(spec, &source.spec)) || asked {
            self.forget_look();
        }
        if asked {
            self.memory.answers().forget();
        }
        self.read(source).await;
        self.hasten(&source.spec);
        if self.fetching.is_none() && self.due <= Instant::now() {
            self.due = Instant::now() + interval(&source.spec);
            self.will_answer = request.clone();
            self.fetch(source);
        }
        if matches!(self.look, Look::Unread)
            && let Ok(brought) = tokio::time::timeout(FIRST_READ, ended(self.fetching.as_mut())).await
        {
            (self.fetching, self.brought) = (None, Some(brought));
            self.read(source).await;
        }
        let answers = self.answers.clone().filter(|it| Some(it) == request.as_ref());
        let mut lost = 0;
        loop {
            match self.step(self.look.clone(), answers.clone()).await {
                Ok(true) => lost = 0,
                Ok(false) => return self.told = Told::default(),
                Err(CommitError::Conflict(conflict)) if lost < CONFLICTS => {
                    tracing::debug!(source = %self.name, %conflict, "planned from an older state, planning again");
                    lost += 1;
                }
                Err(error) => {
                    if self.told.is_news(&error) {
                        tracing::warn!(source = %self.name, %error, "cannot write what was planned, trying again");
                    } else {
                        tracing::debug!(source = %self.name, %error, "still cannot write what was planned");
                    }
                    if let CommitError::Full(why) = &error {
                        self.tell_full(why).await;
                    }
                    self.retry = Some(Instant::now() + RETRY);
                    return;
                }
            }
        }
    }

    /// The store has no room for what was planned, but for the Source's status it has.
    async fn tell_full(&self, why: &str) {
        let snapshot = self.context.store.snapshot();
        let Some(transaction) = look::full(&snapshot, &self.name, why, self.context.clock.now()) else { return };
        // The next try tells it as well.
        if let Err(error) = self.context.store.commit(transaction).await {
            tracing::debug!(source = %self.name, %error, "cannot write that the store is full");
        }
    }

    /// The place is to be opened and read anew; what was accepted holds until it was.
    fn forget_look(&mut self) {
        // The place is held until it is opened again: the same one then still knows on which mount it lay.
        if let Some((_, place)) = self.opened.take() {
            self.opened_before = Some(place);
        }
        (self.fetching, self.brought) = (None, None);
        (self.look, self.answers, self.will_answer) = (Look::Unread, None, None);
        self.due = Instant::now();
    }

    /// Starts to fetch.
    fn fetch(&mut self, source: &Source) {
        let fetch = match &self.opened {
            Some((_, fetch)) => Arc::clone(fetch),
            None => {
                // Told once: the same spec is opened again only when it changes or on request.
                let opened = self.context.places.open(&self.name, &source.spec);
                let fetch = opened.unwrap_or_else(|why| Arc::new(Nowhere(why)));
                self.opened_before = None;
                self.opened = Some((source.spec.clone(), Arc::clone(&fetch)));
                fetch
            }
        };
        self.fetching = Some(AbortOnDropHandle::new(tokio::spawn(async move { fetch.fetch().await })));
    }

    /// Reads what the fetch has brought, if it has ended.
    /// An interval that has become shorter counts at once.
    fn hasten(&mut self, spec: &SourceSpec) {
        self.due = self.due.min(Instant::now() + usual_interval(spec).mul_f64(1.0 + JITTER));
    }

    async fn read(&mut self, source: &Source) {
        let Some(fetched) = self.brought.take() else { return };
        self.look = match fetched {
            Ok(Fetched::Tree(tree)) => self.render(source, tree).await,
            Ok(Fetched::Refused { revision, why }) => Look::refused(revision, why),
            Ok(Fetched::Unreachable(why)) => Look::unreachable(why),
            Err(error) => Look::unreachable(format!("fetching failed: {error}")),
        };
        self.answers = self.will_answer.take();
        self.memory.answers().reconsider();
        // Counted from the end, unless the place has changed meanwhile.
        if self.due > Instant::now() {
            self.due = Instant::now() + interval(&source.spec);
        }
    }

    async fn render(&mut self, source: &Source, tree: Tree) -> Look {
        let (mut memory, spec) = (std::mem::take(&mut self.memory), source.spec.clone());
        let served = self.context.store.snapshot().shared_definitions();
        // Pure, but of a tree of any size: not on a thread that serves others.
        let rendered = tokio::task::spawn_blocking(move || {
            let look = Look::of(tree, &spec, &served, &mut memory);
            (look, memory)
        });
        match rendered.await {
            Ok((look, memory)) => {
                self.memory = memory;
                look
            }
            Err(error) => Look::unreachable(format!("reading the manifests failed: {error}")),
        }
    }

    /// Plans and commits once. True when something was committed that calls for another plan.
    async fn step(&mut self, look: Look, request: Option<String>) -> Result<bool, CommitError> {
        let (step, now) = self.decide(look, request).await?;
        let Step { transaction, ops, put_back, events, again, again_at, message, warning, questions: _ } = step;
        let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        self.retry = again_at.map(|at| Instant::now() + until(at).max(DEBOUNCE));
        if let Some(warning) = warning {
            tracing::warn!(source = %self.name, "{warning}");
        }
        if transaction.writes.is_empty() {
            return Ok(false);
        }
        self.commit(transaction, events).await?;
        self.memory.carried(&put_back, now);
        if ops > 0 {
            tracing::info!(source = %self.name, "{message}");
        }
        Ok(again)
    }

    /// Plans, and asks the webhooks until all that the plan has to know of them is known.
    async fn decide(&mut self, look: Look, request: Option<String>) -> Result<(Step, Timestamp), CommitError> {
        // One time for all rounds: who did not answer in one is not asked again in the next, however long that took.
        let now = self.context.clock.now();
        for _ in 0..ROUNDS {
            let snapshot = self.context.store.snapshot();
            let (mut memory, name) = (std::mem::take(&mut self.memory), self.name.clone());
            let (look, request) = (look.clone(), request.clone());
            let decided = tokio::task::spawn_blocking(move || {
                let mut uid = || uuid::Uuid::new_v4().to_string();
                let step = decide(&snapshot, &name, &look, request.as_deref(), &mut memory, &mut uid, now);
                (step, memory)
            });
            let (step, memory) = decided.await.map_err(|error| CommitError::Io(format!("planning failed: {error}")))?;
            self.memory = memory;
            if step.questions.is_empty() {
                return Ok((step, now));
            }
            let answers = self.context.webhooks.ask(&step.questions, false).await;
            self.memory.answers().take(&step.questions, answers);
        }
        Err(CommitError::Io(StillOpen.to_string()))
    }

    /// A step with what is told of it; where that cannot be written, the step alone.
    async fn commit(&self, step: Transaction, events: Vec<Write>) -> Result<(), CommitError> {
        if events.is_empty() {
            return self.context.store.commit(step).await.map(drop);
        }
        let mut both = step.clone();
        both.writes.extend(events.iter().cloned());
        match self.context.store.commit(both).await {
            Err(CommitError::Full(_)) => self.context.store.commit(step).await.map(drop),
            Err(CommitError::Refused(_)) => {
                self.context.store.commit(step).await?;
                self.tell(events).await;
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// News, each by itself: nothing depends on it.
    async fn tell(&self, events: Vec<Write>) {
        for event in events {
            if let Err(error) = self.context.store.commit(Transaction::new(writer(&self.name)).with(event)).await {
                tracing::debug!(source = %self.name, %error, "an event is not written");
            }
        }
    }

    /// What lets a Source go, with what is noted of it; where there is no room for that, alone: deletes free it.
    async fn commit_noted(&self, removal: Transaction, noted: Vec<Write>) -> Result<(), CommitError> {
        let mut both = removal.clone();
        both.writes.extend(noted);
        match self.context.store.commit(both).await {
            Err(CommitError::Full(why)) => {
                tracing::warn!(source = %self.name, why, "what it created is not noted: a source of its name will not prune it");
                self.context.store.commit(removal).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// The Source object is being deleted: prune if it says so, then let it go.
    async fn remove(&mut self, source: &Source) {
        let due = self.due;
        self.forget_look();
        self.due = due;
        let request = source.metadata.annotations.as_ref().and_then(|all| all.get(REQUESTED_AT));
        let is_due = due <= Instant::now();
        if is_due {
            // Whatever comes of it: a time that has passed would wake at once, again and again.
            self.due = Instant::now() + interval(&source.spec);
        }
        if request != source.status.as_ref().and_then(|status| status.handled_request.as_ref()) {
            self.memory.answers().forget();
        } else if is_due {
            // Whoever said no may have thought better of it.
            self.memory.answers().reconsider();
        }
        let now = self.context.clock.now();
        for _ in 0..ROUNDS {
            let snapshot = self.context.store.snapshot();
            let Some(removal) = removal::plan(&snapshot, &self.name, self.memory.answers(), now) else { return };
            if !removal.questions.is_empty() {
                let answers = self.context.webhooks.ask(&removal.questions, false).await;
                self.memory.answers().take(&removal.questions, answers);
                continue;
            }
            let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
            self.retry = removal.again_at.map(|at| Instant::now() + until(at).max(DEBOUNCE));
            if !removal.held.is_empty() && removal.transaction.writes.is_empty() {
                return;
            }
            let committed = self.commit_noted(removal.transaction, removal.noted).await;
            if committed.is_ok() {
                self.told = Told::default();
                removal.warnings.iter().for_each(|warning| tracing::warn!(source = %self.name, "a webhook warns: {warning}"));
            }
            match committed {
                Ok(()) if !removal.held.is_empty() => {
                    let held = &removal.held;
                    return held
                        .iter()
                        .for_each(|it| tracing::warn!(source = %self.name, subject = %it.subject, reason = %it.reason, "not removed"));
                }
                Ok(()) => {
                    let left = &removal.left;
                    left.iter().for_each(|it| tracing::warn!(source = %self.name, subject = %it.subject, reason = %it.reason, "left"));
                    tracing::info!(source = %self.name, "removed");
                    return self.tell(left.iter().map(|it| drift::event(&snapshot, it, now)).collect()).await;
                }
                Err(CommitError::Conflict(_)) => {}
                Err(error) => {
                    if self.told.is_news(&error) {
                        tracing::warn!(source = %self.name, %error, "cannot remove the source, trying again");
                    } else {
                        tracing::debug!(source = %self.name, %error, "still cannot remove the source");
                    }
                    break;
                }
            }
        }
        self.retry = Some(Instant::now() + RETRY);
    }
}

/// What a fetch brings when it ends; never, where there is none.
async fn ended(fetching: Option<&mut AbortOnDropHandle<Fetched>>) -> Result<Fetched, JoinError> {
    match fetching {
        Some(fetching) => fetching.await,
        None => std::future::pending().await,
    }
}

/// What the log has of commits that fail: it may lie on the very disk that is full.
#[derive(Debug, Default)]
pub(super) struct Told(Option<String>);

impl Told {
    /// Whether something else is wrong than was told last.
    pub(super) fn is_news(&mut self, error: &CommitError) -> bool {
        let what = match error {
            // How much is free is another each time.
            CommitError::Full(_) => String::new(),
            other => other.to_string(),
        };
        self.0.replace(what.clone()) != Some(what)
    }
}

/// A spec that cannot be opened.
struct Nowhere(String);

#[async_trait::async_trait]
impl Fetch for Nowhere {
    async fn fetch(&self) -> Fetched {
        Fetched::Unreachable(self.0.clone())
    }
}

/// Whether two specs name the same place and read it alike.
fn same_place(one: &SourceSpec, other: &SourceSpec) -> bool {
    let place =
        |spec: &SourceSpec| (spec.directory.clone(), spec.git.clone(), spec.path.clone(), spec.namespace.clone(), spec.unsupported.clone());
    place(one) == place(other)
}

/// The share of an interval by which it is shorter or longer.
const JITTER: f64 = 0.1;

fn usual_interval(spec: &SourceSpec) -> Duration {
    let usual = if spec.git.is_some() { GIT_INTERVAL } else { DIRECTORY_INTERVAL };
    let seconds = spec.interval_seconds.filter(|seconds| *seconds > 0).unwrap_or(usual);
    Duration::from_secs(u64::from(seconds.unsigned_abs()))
}

/// The source's interval, more or less a tenth.
fn interval(spec: &SourceSpec) -> Duration {
    usual_interval(spec).mul_f64(1.0 - JITTER + 2.0 * JITTER * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::SystemClock;
    use crate::model::SourceStatus;
    use crate::store::memory::MemoryStore;
    use crate::sync::fake::{FakePlaces, FakeWebhooks};

    fn context() -> Context {
        let clock = Arc::new(SystemClock);
        Context {
            store: Arc::new(MemoryStore::new(clock.clone())),
            places: Arc::<FakePlaces>::default(),
            webhooks: Arc::<FakeWebhooks>::default(),
            clock,
        }
    }

    #[tokio::test]
    async fn a_removal_that_does_not_come_to_its_end_is_looked_at_after_an_interval() {
        for handled in [None, Some("now".to_owned())] {
            let mut work = Work::new("web".to_owned(), context(), Arc::new(Notify::new()));
            let spec = SourceSpec { interval_seconds: Some(1000), ..SourceSpec::default() };
            let mut source = Source::new("web", spec);
            source.metadata.annotations = Some(BTreeMap::from([(REQUESTED_AT.to_owned(), "now".to_owned())]));
            source.status = Some(SourceStatus { handled_request: handled.clone(), ..SourceStatus::default() });
            let before = work.due;
            work.remove(&source).await;
            assert!(work.due >= before + Duration::from_secs(800), "{handled:?}");
        }
    }

    #[tokio::test]
    async fn a_shorter_interval_counts_at_once_and_a_longer_one_when_this_one_is_over() {
        let mut work = Work::new("web".to_owned(), context(), Arc::new(Notify::new()));
        let every = |seconds: i32| SourceSpec { interval_seconds: Some(seconds), ..SourceSpec::default() };
        let in_five_minutes = Instant::now() + Duration::from_secs(300);
        work.due = in_five_minutes;
        work.hasten(&every(600));
        assert_eq!(work.due, in_five_minutes);
        work.hasten(&every(60));
        assert!(work.due <= Instant::now() + Duration::from_secs(66));
    }

    #[tokio::test]
    async fn a_webhook_that_comes_or_goes_wakes_everybody() {
        let context = context();
        let wake = Arc::new(Notify::new());
        let worker = Worker { wake: Arc::clone(&wake), task: tokio::spawn(std::future::pending()) };
        let mut crew = Crew { context, shutdown: CancellationToken::new(), workers: BTreeMap::from([("web".to_owned(), worker)]) };
        for (kind, wakes) in [
            (Kind::MutatingWebhookConfiguration, true),
            (Kind::ValidatingWebhookConfiguration, true),
            (Kind::Namespace, true),
            (Kind::ConfigMap, false),
        ] {
            let object = Object::from_value(kind, json!({"metadata": {"name": "a"}})).unwrap();
            for change in [Change { before: None, after: Some(object.clone()) }, Change { before: Some(object), after: None }] {
                crew.route(&change);
                assert_eq!(wake.notified().now_or_never().is_some(), wakes, "{kind}");
            }
        }
    }

    #[test]
    fn what_an_autoscaler_measures_says_nothing_to_git() {
        let object = |change: &Value, revision: u64| {
            let mut value = json!({"metadata": {"name": "web", "namespace": "default", "uid": "1", "resourceVersion": revision.to_string()},
                "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
            change.as_object().into_iter().flatten().for_each(|(name, part)| value[name] = part.clone());
            Some(Object::from_value(Kind::HorizontalPodAutoscaler, value).unwrap())
        };
        let spec = json!({"spec": {"maxReplicas": 4, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
        let figures = json!({"status": {"desiredReplicas": 2, "currentMetrics": []}});
        for (before, after, wakes_nobody) in [
            (object(&json!({}), 1), object(&figures, 2), true),
            (object(&figures, 1), object(&spec, 2), false),
            (None, object(&figures, 1), false),
            (object(&figures, 1), None, false),
        ] {
            assert_eq!(is_measured_only(&Change { before, after: after.clone() }), wakes_nobody, "{after:?}");
        }
    }
}
