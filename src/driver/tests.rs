//! The loop on the memory store, and the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::admit::Refused;
use crate::clock::SystemClock;
use crate::model::Kind;
use crate::plan::{Op, Reason};
use crate::store::memory::MemoryStore;
use crate::store::watch::Extent;
use crate::store::{Committed, Precondition, Transaction, Write};

/// Gives every ConfigMap `a` a copy named `b`, and says so.
struct Copies;

impl Controller for Copies {
    fn name(&self) -> &'static str {
        "copies"
    }
    fn keys(&self, _state: &Snapshot, object: &Object) -> Vec<Key> {
        (object.kind() == Kind::ConfigMap).then(|| Key::new(Kind::ConfigMap, object.key().namespace.clone(), "a")).into_iter().collect()
    }
    fn plan(&self, state: &Snapshot, key: &Key, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let copy = Key { name: "b".to_owned(), ..key.clone() };
        if let Some(found) = state.get(key)
            && state.get(&copy).is_none()
        {
            let made = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "namespace": key.namespace},
                "data": found.get::<ConfigMap>().and_then(|it| it.data.clone())});
            plan.ops.push(Op::Create(Object::from_value(Kind::ConfigMap, made).expect("a config map")));
            plan.note(key, false, Reason::new("Copied", "made b"));
        }
        plan
    }
}

fn config_map(name: &str) -> Object {
    let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"k": "v"}});
    Object::from_value(Kind::ConfigMap, value).expect("a config map")
}

fn namespace() -> Object {
    let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    Object::from_value(Kind::Namespace, value).expect("a namespace")
}

/// Tells what time it is given.
struct Timed {
    steady: bool,
    told: tokio::sync::mpsc::UnboundedSender<(bool, Timestamp)>,
}

impl Controller for Timed {
    fn name(&self) -> &'static str {
        "timed"
    }
    fn keys(&self, _state: &Snapshot, object: &Object) -> Vec<Key> {
        vec![object.key().clone()]
    }
    fn plan(&self, _state: &Snapshot, _key: &Key, now: Timestamp) -> Plan {
        self.told.send((self.steady, now)).expect("the test listens");
        Plan::default()
    }
    fn is_steady(&self) -> bool {
        self.steady
    }
}

#[tokio::test]
async fn a_clock_that_is_set_moves_no_steady_time() {
    let at = |text: &str| text.parse::<Timestamp>().expect("a time");
    let clock = Arc::new(crate::clock::VirtualClock::new(at("2026-01-01T00:00:00Z")));
    clock.set(at("2026-01-01T01:00:00Z"));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&clock) as _));
    store.commit(Transaction::new("admin").with(Write::Create(namespace()))).await.expect("a commit");
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let timed = |steady| -> Arc<dyn Controller> { Arc::new(Timed { steady, told: told.clone() }) };
    let shutdown = CancellationToken::new();
    let driver = tokio::spawn(run(Arc::clone(&store), vec![timed(true), timed(false)], clock, shutdown.clone()));
    let both = [seen.recv().await, seen.recv().await];
    assert_eq!(both, [Some((true, at("2026-01-01T00:00:00Z"))), Some((false, at("2026-01-01T01:00:00Z")))]);
    shutdown.cancel();
    driver.await.expect("it stops");
}

/// A store whose ConfigMaps in the namespace `slow` wait for somebody.
struct Slow {
    store: Arc<dyn Store>,
    asked: tokio::sync::Semaphore,
    answer: tokio::sync::Semaphore,
    refuses: bool,
}

impl Slow {
    fn over(store: &Arc<dyn Store>, refuses: bool) -> Arc<Self> {
        let none = || tokio::sync::Semaphore::new(0);
        Arc::new(Self { store: Arc::clone(store), asked: none(), answer: none(), refuses })
    }
}

#[async_trait]
impl Store for Slow {
    fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }
    fn asks(&self, transaction: &Transaction) -> bool {
        transaction.writes.iter().any(|write| write.key().namespace == "slow" && write.key().kind == Kind::ConfigMap)
    }
    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        if self.asks(&transaction) {
            self.asked.add_permits(1);
            self.answer.acquire().await.expect("an answer").forget();
            if self.refuses {
                let key = transaction.writes[0].key().clone();
                return Err(Refused::Forbidden { key, message: "never".to_owned(), at: "" }.into());
            }
        }
        self.store.commit(transaction).await
    }
    fn watch(&self, from: u64) -> Result<Watch, TooOld> {
        self.store.watch(from)
    }
    fn size_bytes(&self) -> u64 {
        0
    }
    fn history(&self) -> Extent {
        self.store.history()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_somebody_holds_nobody_up() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let slow = Slow::over(&store, false);
    let shutdown = CancellationToken::new();
    let driver = tokio::spawn(run(Arc::clone(&slow) as Arc<dyn Store>, vec![Arc::new(Copies)], Arc::new(SystemClock), shutdown.clone()));
    for namespace in namespaces() {
        store.commit(create(namespace)).await.expect("commit");
    }
    store.commit(create(in_slow(config_map("a")))).await.expect("commit");
    slow.asked.acquire().await.expect("a question").forget();
    store.commit(create(config_map("a"))).await.expect("commit");
    let copy = |namespace: &str| Key::new(Kind::ConfigMap, namespace.to_owned(), "b");
    until(&store, |state| state.get(&copy("default")).is_some()).await;
    // It is looked at again when the answer is there: what happens meanwhile is not lost.
    store.commit(create(in_slow(config_map("c")))).await.expect("commit");
    assert!(store.snapshot().get(&copy("slow")).is_none());
    slow.answer.add_permits(1);
    until(&store, |state| state.get(&copy("slow")).is_some()).await;
    store
        .commit(Transaction::new("admin").with(Write::Delete {
            key: copy("slow"),
            precondition: Precondition::exists(),
            grace_seconds: None,
        }))
        .await
        .expect("commit");
    slow.answer.add_permits(1);
    until(&store, |state| state.get(&copy("slow")).is_some()).await;
    shutdown.cancel();
    driver.await.expect("the driver ends");
}

fn create(object: Object) -> Transaction {
    Transaction::new("admin").with(Write::Create(object))
}

fn in_slow(object: Object) -> Object {
    object.edit_meta(|meta| meta.namespace = Some("slow".to_owned()))
}

fn namespaces() -> [Object; 2] {
    [namespace(), namespace().edit_meta(|meta| meta.name = Some("slow".to_owned()))]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_refused_waits_whatever_happened_meanwhile() {
    // Its time stands: whatever waits for a time waits for ever.
    let clock: Arc<dyn Clock> = Arc::new(crate::clock::VirtualClock::new("2026-01-01T00:00:00Z".parse().expect("a time")));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&clock)));
    let slow = Slow::over(&store, true);
    let shutdown = CancellationToken::new();
    let driver = tokio::spawn(run(Arc::clone(&slow) as Arc<dyn Store>, vec![Arc::new(Copies)], clock, shutdown.clone()));
    for namespace in namespaces() {
        store.commit(create(namespace)).await.expect("commit");
    }
    store.commit(create(in_slow(config_map("a")))).await.expect("commit");
    slow.asked.acquire().await.expect("a question").forget();
    store.commit(create(in_slow(config_map("c")))).await.expect("commit");
    store.commit(create(config_map("a"))).await.expect("commit");
    let copy = Key::new(Kind::ConfigMap, "default", "b");
    until(&store, |state| state.get(&copy).is_some()).await;
    slow.answer.add_permits(1);
    let refused = |event: &Event| event.reason.as_deref() == Some("FailedCreate");
    until(&store, |state| state.list(Kind::Event).filter_map(Object::get::<Event>).any(refused)).await;
    // The driver goes round and round.
    for _ in 0..3 {
        let delete = Write::Delete { key: copy.clone(), precondition: Precondition::exists(), grace_seconds: None };
        store.commit(Transaction::new("admin").with(delete)).await.expect("commit");
        until(&store, |state| state.get(&copy).is_some()).await;
    }
    assert_eq!(slow.asked.available_permits(), 0, "it is not asked again");
    shutdown.cancel();
    driver.await.expect("the driver ends");
}

async fn until(store: &Arc<dyn Store>, what: impl Fn(&Snapshot) -> bool) {
    let look = async {
        let mut watch = store.watch(0).expect("a watch");
        while !what(&store.snapshot()) {
            watch.next().await.expect("a change");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), look).await.expect("it comes true");
}

#[tokio::test]
async fn changes_are_planned_committed_and_told() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let shutdown = CancellationToken::new();
    let driver = tokio::spawn(run(Arc::clone(&store), vec![Arc::new(Copies)], Arc::new(SystemClock), shutdown.clone()));
    let writes = [namespace(), config_map("a")].map(Write::Create).to_vec();
    store.commit(Transaction { writes, ..Transaction::new("admin") }).await.expect("a commit");
    let copy = Key::new(Kind::ConfigMap, "default", "b");
    until(&store, |state| state.get(&copy).is_some()).await;
    until(&store, |state| state.list(Kind::Event).filter_map(Object::get::<Event>).any(|it| it.reason.as_deref() == Some("Copied"))).await;
    // What was deleted comes back, and the same event is counted again.
    let delete = Write::Delete { key: copy.clone(), precondition: crate::store::Precondition::exists(), grace_seconds: None };
    store.commit(Transaction::new("admin").with(delete)).await.expect("a commit");
    until(&store, |state| state.list(Kind::Event).filter_map(Object::get::<Event>).any(|it| it.count == Some(2))).await;
    assert!(store.snapshot().get(&copy).is_some());
    shutdown.cancel();
    driver.await.expect("it stops");
}

/// Fails twice for each key.
struct Reluctant {
    tries: AtomicUsize,
    done: tokio::sync::mpsc::UnboundedSender<String>,
}

#[async_trait]
impl Reconciler for Reluctant {
    type Key = String;
    type Error = String;
    fn name(&self) -> &'static str {
        "reluctant"
    }
    async fn reconcile(&self, key: &String) -> Result<Next, String> {
        if self.tries.fetch_add(1, Ordering::SeqCst) < 2 {
            return Err("not yet".to_owned());
        }
        self.done.send(key.clone()).map_err(|error| error.to_string())?;
        Ok(Next::Change)
    }
}

#[tokio::test]
async fn failures_are_tried_again() {
    let queue = Arc::new(Queue::new());
    let (done, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let shutdown = CancellationToken::new();
    let reconciler = Arc::new(Reluctant { tries: AtomicUsize::new(0), done });
    let worker = tokio::spawn(work(Arc::clone(&queue), reconciler, 2, shutdown.clone()));
    queue.add("a".to_owned());
    queue.add("a".to_owned());
    assert_eq!(seen.recv().await.as_deref(), Some("a"));
    queue.add_after("b".to_owned(), Duration::from_millis(20));
    assert_eq!(seen.recv().await.as_deref(), Some("b"));
    shutdown.cancel();
    worker.await.expect("it stops");
    assert!(queue.is_idle());
}

#[tokio::test]
async fn a_key_is_worked_on_once_at_a_time() {
    let queue = Queue::new();
    queue.add(1);
    queue.add(1);
    let key = queue.next().await;
    queue.add(1);
    assert!(queue.next().now_or_never().is_none(), "it is in work");
    queue.done(&key);
    assert_eq!(queue.next().now_or_never(), Some(1), "it was added meanwhile");
    queue.done(&1);
    assert!(queue.next().now_or_never().is_none());
}
