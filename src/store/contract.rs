//! What every store must do. Each implementation's tests run all of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{CommitError, Conflict, Precondition, Store, Transaction, Write};
use crate::model::{Key, Kind, Object};

/// Runs every check, each on a store of its own.
pub(super) async fn check(make: impl Fn() -> Arc<dyn Store>) {
    one_revision_whatever_the_size(make()).await;
    all_or_nothing(make()).await;
    preconditions_hold(make()).await;
    watchers_see_every_revision_once_and_in_order(make()).await;
    a_late_watcher_is_told(make()).await;
    a_dry_run_changes_nothing(make()).await;
    volatile_writes_use_the_same_counter(make()).await;
    concurrent_writers_get_revisions_of_their_own(make()).await;
    snapshots_do_not_change(make()).await;
}

pub(super) fn namespace() -> Object {
    Object::new(Namespace { metadata: ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() }, ..Namespace::default() })
}

pub(super) fn config(name: &str, value: &str) -> Object {
    Object::new(ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), namespace: Some("default".to_owned()), ..ObjectMeta::default() },
        data: Some([("value".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    })
}

pub(super) fn lease(name: &str, holder: &str) -> Object {
    Object::new(Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), namespace: Some("default".to_owned()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec { holder_identity: Some(holder.to_owned()), lease_duration_seconds: Some(40), ..LeaseSpec::default() }),
    })
}

pub(super) fn key(name: &str) -> Key {
    Key::new(Kind::ConfigMap, "default", name)
}

pub(super) fn create(objects: impl IntoIterator<Item = Object>) -> Transaction {
    Transaction { writes: objects.into_iter().map(Write::Create).collect(), ..Transaction::new("test") }
}

pub(super) fn delete(name: &str) -> Transaction {
    Transaction::new("test").with(Write::Delete { key: key(name), precondition: Precondition::exists(), grace_seconds: None })
}

pub(super) fn value_of(store: &dyn Store, name: &str) -> Option<String> {
    let snapshot = store.snapshot();
    let config: &ConfigMap = snapshot.get(&key(name))?.get()?;
    config.data.as_ref()?.get("value").cloned()
}

async fn one_revision_whatever_the_size(store: Arc<dyn Store>) {
    let first = store.commit(create([namespace()])).await.expect("commit");
    let many = store.commit(create((0..20_000).map(|index| config(&format!("c-{index}"), "x")))).await.expect("commit");
    assert_eq!(many.revision, first.revision + 1);
    assert_eq!(many.results.len(), 20_000);
    let state = store.snapshot();
    assert_eq!((state.revision(), state.list(Kind::ConfigMap).count()), (many.revision, 20_000));
    assert!(state.list(Kind::ConfigMap).all(|object| object.revision() == many.revision && !object.uid().is_empty()));
}

async fn all_or_nothing(store: Arc<dyn Store>) {
    store.commit(create([namespace(), config("taken", "1")])).await.expect("commit");
    let before = store.snapshot().revision();
    let error = store.commit(create([config("a", "1"), config("taken", "2"), config("b", "1")])).await.expect_err("taken");
    assert!(matches!(error, CommitError::Conflict(Conflict::Exists(found)) if found == key("taken")));
    assert_eq!(store.snapshot().revision(), before);
    assert_eq!((value_of(&*store, "a"), value_of(&*store, "taken")), (None, Some("1".to_owned())));
}

async fn preconditions_hold(store: Arc<dyn Store>) {
    store.commit(create([namespace(), config("a", "1")])).await.expect("commit");
    let seen = store.snapshot().get(&key("a")).cloned().expect("a");
    let change =
        |value: &str| seen.edit::<ConfigMap>(|it| it.data = Some([("value".to_owned(), value.to_owned())].into())).expect("a ConfigMap");
    let update = |value: &str| Transaction::new("test").with(Write::Update(change(value), Precondition::seen(&seen)));
    let done = store.commit(update("2")).await.expect("commit");
    let error = store.commit(update("3")).await.expect_err("stale");
    assert!(matches!(error, CommitError::Conflict(Conflict::Revision { found, .. }) if found == done.revision));
    store.commit(delete("a")).await.expect("commit");
    let error = store.commit(delete("a")).await.expect_err("gone");
    assert!(matches!(error, CommitError::Conflict(Conflict::NotFound(_))));
    store.commit(create([config("a", "4")])).await.expect("commit");
    let of_old = Precondition { uid: Some(seen.uid().to_owned()), revision: None };
    let error = store.commit(Transaction::new("test").with(Write::Update(change("5"), of_old))).await.expect_err("another object");
    assert!(matches!(error, CommitError::Conflict(Conflict::Uid { .. })));
}

async fn watchers_see_every_revision_once_and_in_order(store: Arc<dyn Store>) {
    let start = store.snapshot().revision();
    store.commit(create([namespace()])).await.expect("commit");
    let mut early = store.watch(start).expect("the history reaches back");
    let mut revisions = vec![store.snapshot().revision()];
    for index in 0..50 {
        let done = store.commit(create([config(&format!("w-{index}"), "x"), config(&format!("v-{index}"), "x")])).await.expect("commit");
        revisions.push(done.revision);
    }
    let mut late = store.watch(revisions[10]).expect("the history reaches back");
    for (index, revision) in revisions.iter().enumerate() {
        let batch = early.next().await.expect("in reach");
        assert_eq!((batch.revision, batch.changes.len()), (*revision, if index == 0 { 1 } else { 2 }));
        assert!(batch.changes.iter().all(|change| change.before.is_none() && change.newest().revision() == *revision));
    }
    for revision in &revisions[11..] {
        assert_eq!(late.next().await.expect("in reach").revision, *revision);
    }
    // A watcher that waits is woken by the next commit.
    let waiting = tokio::spawn(async move { early.next().await.expect("in reach").revision });
    let done = store.commit(delete("w-1")).await.expect("commit");
    assert_eq!(waiting.await.expect("no panic"), done.revision);
}

async fn a_late_watcher_is_told(store: Arc<dyn Store>) {
    let start = store.snapshot().revision();
    store.commit(create([namespace()])).await.expect("commit");
    let mut slow = store.watch(start).expect("the history reaches back");
    for round in 0..4 {
        store.commit(create((0..20_000).map(|index| config(&format!("l-{round}-{index}"), "x")))).await.expect("commit");
    }
    let error = store.watch(start).err().expect("the history is bounded");
    assert!(error.asked == start && error.oldest > start);
    assert_eq!(slow.next().await.expect_err("left behind"), error);
    assert!(store.watch(store.snapshot().revision()).is_ok());
}

async fn a_dry_run_changes_nothing(store: Arc<dyn Store>) {
    store.commit(create([namespace()])).await.expect("commit");
    let before = store.snapshot().revision();
    let done = store.commit(Transaction { dry_run: true, ..create([config("a", "1")]) }).await.expect("commit");
    assert!(done.snapshot.get(&key("a")).is_some() && done.results[0].is_some());
    assert_eq!((store.snapshot().revision(), value_of(&*store, "a")), (before, None));
    assert!(store.commit(Transaction { dry_run: true, ..delete("a") }).await.is_err());
}

async fn volatile_writes_use_the_same_counter(store: Arc<dyn Store>) {
    let first = store.commit(create([namespace()])).await.expect("commit");
    let mut watch = store.watch(first.revision).expect("in reach");
    let beat = store.commit(Transaction { volatile: true, ..create([lease("n1", "n1")]) }).await.expect("commit");
    assert_eq!(beat.revision, first.revision + 1);
    assert_eq!(watch.next().await.expect("in reach").revision, beat.revision);
    let next = store.commit(create([config("a", "1")])).await.expect("commit");
    assert_eq!(next.revision, beat.revision + 1);
}

async fn concurrent_writers_get_revisions_of_their_own(store: Arc<dyn Store>) {
    let start = store.commit(create([namespace()])).await.expect("commit").revision;
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut revisions = Vec::new();
                for index in 0..20 {
                    let name = format!("p-{writer}-{index}");
                    let done = store.commit(create([config(&name, "x")])).await.expect("commit");
                    assert!(value_of(&*store, &name).is_some(), "a writer sees its own commit");
                    assert!(done.snapshot.get(&key(&name)).is_some() && done.snapshot.revision() == done.revision);
                    revisions.push(done.revision);
                }
                assert!(revisions.is_sorted());
                revisions
            })
        })
        .collect();
    let mut all = BTreeSet::new();
    for writer in writers {
        all.extend(writer.await.expect("no panic"));
    }
    assert_eq!(all, (start + 1..=start + 320).collect());
}

async fn snapshots_do_not_change(store: Arc<dyn Store>) {
    store.commit(create([namespace(), config("a", "1")])).await.expect("commit");
    let before = store.snapshot();
    store.commit(delete("a")).await.expect("commit");
    assert!(before.get(&key("a")).is_some() && store.snapshot().get(&key("a")).is_none());
}
