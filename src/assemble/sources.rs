//! The sources of the daemon's configuration, as Source objects: written at the start. One that somebody has removed
//! and that is on its way out then is made anew once it is gone, as every other one that is configured and not there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::model::{Kind, SourceSpec};
use crate::store::{CommitError, Store};
use crate::sync::configured;

/// After the store failed.
const RETRY: Duration = Duration::from_secs(2);

/// Writes what is configured; returns what is still going, and is to be made anew.
pub(super) async fn configure(
    store: &dyn Store,
    sources: &BTreeMap<String, SourceSpec>,
) -> Result<BTreeMap<String, SourceSpec>, CommitError> {
    let state = store.snapshot();
    let transaction = configured::plan(&state, sources);
    if !transaction.writes.is_empty() {
        store.commit(transaction).await.map(|_| ()).or_else(|error| match error {
            // A full disk must not keep the server from starting: deletes free it.
            CommitError::Full(why) => {
                tracing::warn!(why, "the configured sources could not be written");
                Ok(())
            }
            other => Err(other),
        })?;
    }
    Ok(configured::returning(&state, sources))
}

/// Makes those sources anew as they go. Runs until the end, like every part of a server.
pub(super) async fn bring_back(store: Arc<dyn Store>, returning: BTreeMap<String, SourceSpec>, end: CancellationToken) {
    tokio::select! {
        () = follow(store.as_ref(), returning) => end.cancelled().await,
        () = end.cancelled() => {}
    }
}

async fn follow(store: &dyn Store, mut returning: BTreeMap<String, SourceSpec>) {
    while !returning.is_empty() {
        let state = store.snapshot();
        let transaction = configured::anew(&state, &returning);
        if !transaction.writes.is_empty()
            && let Err(error) = store.commit(transaction).await
        {
            tracing::warn!(%error, "cannot make a removed source anew that is configured, trying again");
            tokio::time::sleep(RETRY).await;
            continue;
        }
        returning = configured::returning(&state, &returning);
        if !returning.is_empty() {
            next_change(store, state.revision()).await;
        }
    }
}

/// Waits until something happens to a Source, or it cannot be told: then a moment.
async fn next_change(store: &dyn Store, since: u64) {
    if let Ok(mut watch) = store.watch(since) {
        while let Ok(batch) = watch.next().await {
            if batch.changes.iter().any(|change| change.key().kind == Kind::Source) {
                return;
            }
        }
    }
    tokio::time::sleep(RETRY).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::model::{Key, Object, Source};
    use crate::store::memory::MemoryStore;
    use crate::store::{Precondition, Transaction, Write};
    use crate::sync::names::FINALIZER;

    #[tokio::test]
    async fn what_was_removed_just_before_the_start_comes_back() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let (web, spec) = (Key::cluster(Kind::Source, "web"), SourceSpec { directory: Some("/srv".to_owned()), ..SourceSpec::default() });
        let wanted = BTreeMap::from([("web".to_owned(), spec)]);
        assert!(configure(store.as_ref(), &wanted).await.unwrap().is_empty());
        let object = |store: &dyn Store| store.snapshot().get(&web).cloned();
        let made = object(store.as_ref()).unwrap();
        let held = made.clone().edit_meta(|meta| meta.finalizers = Some(vec![FINALIZER.to_owned()]));
        store.commit(Transaction::new("test").with(Write::Update(held, Precondition::seen(&made)))).await.unwrap();
        let delete = Write::Delete { key: web.clone(), precondition: Precondition::default(), grace_seconds: None };
        store.commit(Transaction::new("test").with(delete)).await.unwrap();

        let returning = configure(store.as_ref(), &wanted).await.unwrap();
        assert!(returning.contains_key("web"));
        let going = object(store.as_ref()).unwrap();
        let end = CancellationToken::new();
        let part = tokio::spawn(bring_back(Arc::clone(&store), returning, end.clone()));
        let gone = Write::Update(going.without_finalizer(FINALIZER), Precondition::seen(&going));
        store.commit(Transaction::new("test").with(gone)).await.unwrap();
        let back = async {
            loop {
                let state = store.snapshot();
                match state.get(&web) {
                    Some(object) if object.uid() != made.uid() => return object.clone(),
                    _ => next_change(store.as_ref(), state.revision()).await,
                }
            }
        };
        let back: Object = tokio::time::timeout(Duration::from_secs(60), back).await.expect("it comes back");
        assert_eq!(back.get::<Source>().unwrap().spec, wanted["web"]);
        // A part that ends by itself would end the server.
        assert!(!part.is_finished());
        end.cancel();
        part.await.unwrap();
    }
}
