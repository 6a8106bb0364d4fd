//! The loop over a store: commits come in, the cluster follows, nothing is written in between.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::act::{self, Told};
use super::asked::{Answer, Part};
use super::drift::PUT_BACK;
use super::fake::{FakePlaces, FakeWebhooks};
use super::names::{APPROVE, PRUNE, REQUESTED_AT};
use super::source::{Fetched, Tree};
use crate::clock::SystemClock;
use crate::model::{Key, Kind, Object, Source, SourceSpec, SourceStatus};
use crate::store::disk::{DiskStore, Options};
use crate::store::memory::MemoryStore;
use crate::store::transaction::{Precondition, Transaction, Write};
use crate::store::{CommitError, Snapshot, Store};

struct Running {
    store: Arc<dyn Store>,
    places: Arc<FakePlaces>,
    webhooks: Arc<FakeWebhooks>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// A busy machine may take its time; a broken loop takes for ever.
const LONG: Duration = Duration::from_secs(60);

impl Running {
    async fn start() -> Self {
        let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let namespace = serde_json::json!({"metadata": {"name": "default"}});
        let namespace = Object::from_value(Kind::Namespace, namespace).unwrap();
        store.commit(Transaction::new("server").with(Write::Create(namespace))).await.unwrap();
        Self::on(store, Arc::default())
    }

    fn on(store: Arc<dyn Store>, places: Arc<FakePlaces>) -> Self {
        let stop = CancellationToken::new();
        let webhooks = Arc::<FakeWebhooks>::default();
        let (hooks, clock) = (Arc::clone(&webhooks) as _, Arc::new(SystemClock));
        let task = tokio::spawn(act::run(Arc::clone(&store), Arc::clone(&places) as _, hooks, clock, stop.clone()));
        Self { store, places, webhooks, stop, task }
    }

    async fn source(&self, name: &str) {
        let spec = SourceSpec { directory: Some("/srv".to_owned()), interval_seconds: Some(3600), ..SourceSpec::default() };
        self.write(Write::Create(Object::new(Source::new(name, spec)))).await;
    }

    async fn write(&self, write: Write) {
        self.store.commit(Transaction::new("admin").with(write)).await.unwrap();
    }

    /// Edits a Source until no other writer is in between.
    async fn edit_source(&self, name: &str, change: impl Fn(&mut Source)) {
        loop {
            let object = self.store.snapshot().get(&Key::cluster(Kind::Source, name)).unwrap().clone();
            let changed = object.edit::<Source>(&change).unwrap();
            let write = Write::Update(changed, Precondition::seen(&object));
            if self.store.commit(Transaction::new("admin").with(write)).await.is_ok() {
                return;
            }
        }
    }

    async fn annotate(&self, name: &str, annotation: &str, value: &str) {
        self.edit_source(name, |source| {
            drop(source.metadata.annotations.get_or_insert_default().insert(annotation.to_owned(), value.to_owned()))
        })
        .await;
    }

    /// Waits for a state of the store.
    async fn until(&self, what: &str, mut holds: impl FnMut(&Snapshot) -> bool) {
        let look = async {
            loop {
                let snapshot = self.store.snapshot();
                if holds(&snapshot) {
                    return;
                }
                if let Ok(mut watch) = self.store.watch(snapshot.revision()) {
                    let _ = watch.next().await;
                }
            }
        };
        if tokio::time::timeout(LONG, look).await.is_err() {
            panic!("it never came to: {what}: {:?}", self.status("web"));
        }
    }

    fn status(&self, name: &str) -> Option<SourceStatus> {
        status(&self.store.snapshot(), name)
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn status(state: &Snapshot, name: &str) -> Option<SourceStatus> {
    state.get(&Key::cluster(Kind::Source, name))?.get::<Source>()?.status.clone()
}

fn accepted(state: &Snapshot, name: &str, revision: &str) -> bool {
    status(state, name).is_some_and(|status| status.accepted_revision.as_deref() == Some(revision) && status.errors.is_empty())
}

fn config(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: \"{value}\"}}\n---\n")
}

fn value(state: &Snapshot, name: &str) -> Option<String> {
    let object = state.get(&Key::new(Kind::ConfigMap, "default", name))?;
    object.get::<k8s_openapi::api::core::v1::ConfigMap>()?.data.as_ref()?.get("key").cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_are_followed_and_hands_are_put_back() {
    let running = Running::start().await;
    running.places.place("web").put("r1", &[("a.yaml", &config("a", "1"))]);
    running.source("web").await;
    running.until("r1", |state| accepted(state, "web", "r1") && value(state, "a").as_deref() == Some("1")).await;
    running.places.place("web").put("r2", &[("a.yaml", &config("a", "2"))]);
    running.until("r2", |state| accepted(state, "web", "r2") && value(state, "a").as_deref() == Some("2")).await;
    let object = running.store.snapshot().get(&Key::new(Kind::ConfigMap, "default", "a")).unwrap().clone();
    let edited = object.edit::<k8s_openapi::api::core::v1::ConfigMap>(|it| {
        drop(it.data.get_or_insert_default().insert("key".to_owned(), "hand".to_owned()))
    });
    running.write(Write::Update(edited.unwrap(), Precondition::exists())).await;
    running.until("put back", |state| value(state, "a").as_deref() == Some("2")).await;
    running.places.place("web").put("r3", &[("a.yaml", "kind: Rubbish")]);
    running.until("errors", |state| status(state, "web").is_some_and(|status| !status.errors.is_empty())).await;
    assert_eq!(value(&running.store.snapshot(), "a").as_deref(), Some("2"));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_and_approvals_taken() {
    let running = Running::start().await;
    running.places.place("web").put("r1", &[("a.yaml", &(config("a", "1") + &config("b", "1")))]);
    running.source("web").await;
    running.until("r1", |state| accepted(state, "web", "r1")).await;
    running.places.place("web").put("r2", &[]);
    running.annotate("web", REQUESTED_AT, "now").await;
    running
        .until("answer", |state| {
            status(state, "web").is_some_and(|it| it.handled_request.as_deref() == Some("now") && it.pending_plan.is_some())
        })
        .await;
    let plan = running.status("web").unwrap().pending_plan.unwrap();
    running.annotate("web", APPROVE, &plan).await;
    running.until("pruned", |state| accepted(state, "web", "r2") && value(state, "a").is_none()).await;
    // At rest, nothing is written.
    let revision = running.store.snapshot().revision();
    running.annotate("web", "a", "b").await;
    running.places.place("web").put("r2", &[]);
    running.annotate("web", REQUESTED_AT, "again").await;
    running.until("second answer", |state| status(state, "web").is_some_and(|it| it.handled_request.as_deref() == Some("again"))).await;
    assert_eq!(running.store.snapshot().revision(), revision + 3, "two annotations and one answer");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspended_is_left_alone_and_removed_is_pruned_on_demand() {
    let running = Running::start().await;
    running.places.place("web").put("r1", &[("a.yaml", &config("a", "1"))]);
    running.source("web").await;
    running.until("r1", |state| accepted(state, "web", "r1")).await;
    running.edit_source("web", |source| source.spec.suspend = Some(true)).await;
    running.places.place("web").put("r2", &[("a.yaml", &config("a", "2"))]);
    running.source("other").await;
    running.places.place("other").put("s1", &[("b.yaml", &config("b", "1"))]);
    running.until("the other one", |state| accepted(state, "other", "s1")).await;
    assert_eq!(value(&running.store.snapshot(), "a").as_deref(), Some("1"));
    running.annotate("web", PRUNE, "true").await;
    for name in ["web", "other"] {
        running
            .write(Write::Delete { key: Key::cluster(Kind::Source, name), precondition: Precondition::exists(), grace_seconds: None })
            .await;
        running.until("gone", |state| state.get(&Key::cluster(Kind::Source, name)).is_none()).await;
    }
    let state = running.store.snapshot();
    assert_eq!((value(&state, "a"), value(&state, "b").as_deref()), (None, Some("1")));
    running.end().await;
}

/// The Source is gone by then: it is what stays that tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_removed_source_leaves_to_others_says_why() {
    let running = Running::start().await;
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n";
    running.places.place("web").put("r1", &[("a.yaml", &(namespace.to_owned() + &config("a", "1")))]);
    running.source("web").await;
    running.until("r1", |state| accepted(state, "web", "r1")).await;
    let theirs = serde_json::json!({"metadata": {"name": "theirs", "namespace": "shop"}});
    running.write(Write::Create(Object::from_value(Kind::ConfigMap, theirs).unwrap())).await;
    running.annotate("web", PRUNE, "true").await;
    let key = Key::cluster(Kind::Source, "web");
    running.write(Write::Delete { key: key.clone(), precondition: Precondition::exists(), grace_seconds: None }).await;
    let told = |state: &Snapshot| {
        let mut events = state.list(Kind::Event).map(Object::value).filter(|event| event["reason"] == "InUse");
        events.any(|event| {
            let about = (&event["type"], &event["involvedObject"]["kind"], &event["involvedObject"]["name"]);
            about == (&"Warning".into(), &"Namespace".into(), &"shop".into())
        })
    };
    running.until("it tells", told).await;
    let state = running.store.snapshot();
    assert!(state.get(&key).is_none() && value(&state, "a").is_none());
    assert!(state.find(Kind::Namespace, "", "shop").is_some_and(|live| !live.is_deleting()));
    running.end().await;
}

fn hand(state: &Snapshot, name: &str, value: &str) -> Write {
    let object = state.get(&Key::new(Kind::ConfigMap, "default", name)).unwrap();
    let edited = object.edit::<k8s_openapi::api::core::v1::ConfigMap>(|it| {
        drop(it.data.get_or_insert_default().insert("key".to_owned(), value.to_owned()))
    });
    Write::Update(edited.unwrap(), Precondition::exists())
}

/// What a new process finds in the store on disk is all it needs: its place says something bad, says
/// nothing at all, or never answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_puts_back_what_was_accepted_whatever_its_place_says() {
    let bad = Fetched::Tree(Tree {
        revision: "r2".to_owned(),
        files: [("a.yaml".to_owned(), b"kind: Rubbish".to_vec())].into(),
        path_exists: true,
        ..Tree::default()
    });
    for place in [Some(bad), Some(Fetched::Unreachable("no route".to_owned())), None] {
        let dir = tempfile::tempdir().unwrap();
        let open = || Arc::new(DiskStore::open(dir.path(), Options::default(), Arc::new(SystemClock)).unwrap());
        let store = open();
        for name in ["default", "kube-system"] {
            let namespace = Object::from_value(Kind::Namespace, serde_json::json!({"metadata": {"name": name}})).unwrap();
            store.commit(Transaction::new("server").with(Write::Create(namespace))).await.unwrap();
        }
        let running = Running::on(store, Arc::default());
        running.places.place("web").put("r1", &[("a.yaml", &(config("a", "1") + &config("b", "1")))]);
        running.source("web").await;
        running.until("r1", |state| accepted(state, "web", "r1")).await;
        running.end().await;

        let store = open();
        let gone =
            Write::Delete { key: Key::new(Kind::ConfigMap, "default", "b"), precondition: Precondition::exists(), grace_seconds: None };
        store.commit(Transaction::new("admin").with(hand(&store.snapshot(), "a", "hand")).with(gone)).await.unwrap();
        let places = Arc::<FakePlaces>::default();
        match place {
            Some(fetched) => places.place("web").set(fetched),
            None => places.place("web").stall(),
        }
        let running = Running::on(store, places);
        let back = |state: &Snapshot| ["a", "b"].map(|name| value(state, name)).iter().all(|found| found.as_deref() == Some("1"));
        running.until("put back", back).await;
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_fetch_hangs_hands_are_put_back() {
    let running = Running::start().await;
    running.places.place("web").put("r1", &[("a.yaml", &config("a", "1"))]);
    running.source("web").await;
    running.until("r1", |state| accepted(state, "web", "r1")).await;
    running.places.place("web").stall();
    running.annotate("web", REQUESTED_AT, "now").await;
    for _ in 0..2 {
        running.write(hand(&running.store.snapshot(), "a", "hand")).await;
        running.until("put back", |state| value(state, "a").as_deref() == Some("1")).await;
    }
    assert_eq!(running.status("web").unwrap().handled_request, None, "a request is answered when the place was read");
    running.end().await;
}

/// Somebody who writes the same as soon as it is put back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarrel_is_no_loop() {
    let running = Running::start().await;
    running.places.place("web").put("r1", &[("a.yaml", &config("a", "1"))]);
    running.source("web").await;
    running.until("r1", |state| accepted(state, "web", "r1")).await;
    for _ in 0..3 {
        running.write(hand(&running.store.snapshot(), "a", "hand")).await;
        running.until("put back", |state| value(state, "a").as_deref() == Some("1")).await;
    }
    running.write(hand(&running.store.snapshot(), "a", "hand")).await;
    let told =
        |state: &Snapshot| status(state, "web").is_some_and(|status| status.errors.iter().any(|line| line.contains("4 times in a row")));
    running.until("told", told).await;
    running.until("put back all the same", |state| value(state, "a").as_deref() == Some("1") && !told(state)).await;
    running.end().await;
}

/// An Event can be refused where what it tells of is not: it is told, but never in the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_back_is_told_but_not_in_its_own_way() {
    let running = Running::start().await;
    let (namespace, key) = (Key::cluster(Kind::Namespace, "shop"), Key::new(Kind::ConfigMap, "shop", "a"));
    running.write(Write::Create(Object::from_value(Kind::Namespace, serde_json::json!({"metadata": {"name": "shop"}})).unwrap())).await;
    let manifest = config("a", "1").replace("name: a", "name: a, namespace: shop");
    running.places.place("web").put("r1", &[("a.yaml", &manifest)]);
    running.source("web").await;
    running.until("r1", |state| accepted(state, "web", "r1")).await;
    let is = |state: &Snapshot, value: &str| state.get(&key).is_some_and(|it| it.value()["data"]["key"] == value);
    let told = |state: &Snapshot| state.list(Kind::Event).filter(|event| event.value()["reason"] == PUT_BACK).count();
    let change = |value: &str| {
        let mut changed = running.store.snapshot().get(&key).unwrap().value();
        changed["data"]["key"] = value.into();
        running.write(Write::Update(Object::from_value(Kind::ConfigMap, changed).unwrap(), Precondition::exists()))
    };
    change("hand").await;
    running.until("put back and told", |state| is(state, "1") && told(state) == 1).await;

    running.write(Write::Delete { key: namespace.clone(), precondition: Precondition::exists(), grace_seconds: None }).await;
    running.until("the namespace is going", |state| state.get(&namespace).is_some_and(Object::is_deleting)).await;
    change("other hand").await;
    running.until("put back", |state| is(state, "1")).await;
    assert_eq!(told(&running.store.snapshot()), 1, "a namespace that is going takes no new Event");
    running.end().await;
}

/// A no, and then none: by a look that somebody asks for, and by the webhook's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_asked_before_anything_is_written() {
    let running = Running::start().await;
    let rules = serde_json::json!([{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]);
    let hook = serde_json::json!({"name": "it.hooks.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": "https://127.0.0.1:1"}, "rules": rules});
    let configuration = serde_json::json!({"metadata": {"name": "it"}, "webhooks": [hook]});
    let configuration = Object::from_value(Kind::ValidatingWebhookConfiguration, configuration).unwrap();
    let at = configuration.key().clone();
    running.write(Write::Create(configuration)).await;
    running.webhooks.say(|_| Answer::Denied("not today".to_owned()));
    running.places.place("web").put("r1", &[("a.yaml", &config("a", "1"))]);
    running.source("web").await;
    let refused = |state: &Snapshot| status(state, "web").is_some_and(|it| it.errors == ["a.yaml:1:1: ConfigMap default/a: not today"]);
    running.until("refused", refused).await;
    assert_eq!(value(&running.store.snapshot(), "a"), None);
    running.webhooks.say(|_| Answer::Passed);
    running.annotate("web", REQUESTED_AT, "now").await;
    running.until("r1", |state| accepted(state, "web", "r1") && value(state, "a").as_deref() == Some("1")).await;
    let asked = running.webhooks.asked();
    assert!(asked.iter().all(|(question, dry_run)| question.part == Part::Judge && !dry_run), "{asked:?}");

    // The webhook's end, and other labels of the namespace, by which it may be asked.
    let end = Write::Delete { key: at, precondition: Precondition::exists(), grace_seconds: None };
    let home = running.store.snapshot().get(&Key::cluster(Kind::Namespace, "default")).unwrap().clone();
    let label = home.edit_meta(|meta| drop(meta.labels.get_or_insert_default().insert("hooks".to_owned(), "no".to_owned())));
    // Another value each time: what was answered to the same question may not be forgotten yet.
    for (by, way_out) in [("hand", Write::Update(label, Precondition::exists())), ("other hand", end)] {
        running.webhooks.say(|_| Answer::Denied("not today".to_owned()));
        running.write(hand(&running.store.snapshot(), "a", by)).await;
        let held = ["ConfigMap default/a: not today (a.yaml:1)"];
        running.until("held back", |state| status(state, "web").is_some_and(|it| it.errors == held)).await;
        assert_eq!(value(&running.store.snapshot(), "a").as_deref(), Some(by));
        running.webhooks.say(|_| Answer::Passed);
        running.write(way_out).await;
        running.until("put back", |state| accepted(state, "web", "r1") && value(state, "a").as_deref() == Some("1")).await;
    }
    running.end().await;
}

#[test]
fn what_goes_on_being_wrong_is_told_once() {
    let full = |free: &str| CommitError::Full(free.to_owned());
    let io = |why: &str| CommitError::Io(why.to_owned());
    let mut told = Told::default();
    let rows = [
        (full("8 MiB are free"), true),
        (full("7 MiB are free"), false),
        (io("no space left on device"), true),
        (io("no space left on device"), false),
        (io("input/output error"), true),
        (full("8 MiB are free"), true),
    ];
    for (error, is_news) in rows {
        assert_eq!(told.is_news(&error), is_news, "{error}");
    }
}
