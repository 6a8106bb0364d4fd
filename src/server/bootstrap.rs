//! What exists from the start: three namespaces, the default roles, a class of volumes and the cluster's settings.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::authorise::{LEASE_NAMESPACE, roles};
use super::offer;
use crate::model::local_volume::LOCAL_PATH;
use crate::model::volume::{DEFAULT_CLASS, default_class};
use crate::model::{Key, Kind, Object};
use crate::network::Range;
use crate::store::{CommitError, Conflict, Snapshot, Store, Transaction, Write};

/// Ranges that every part of the cluster must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    pub service_range: Range,
    pub pod_range: Range,
    /// Of each node's part of `pod_range`.
    pub node_prefix: u8,
}

/// The namespace of everything that is Podbay's own.
pub const SYSTEM: &str = "kube-system";
/// The ConfigMap of the settings.
pub const SETTINGS: &str = "podbay-cluster";

/// As k3s calls it.
const CLASS: &str = "local-path";
/// In the settings: that it was made.
const CLASS_MADE: &str = "storageClass";

/// Creates what is missing and writes the settings down. Safe to call at every start.
///
/// # Errors
/// Anything the store says, except that somebody else was faster.
pub async fn bootstrap(store: &dyn Store, settings: &ClusterSettings) -> Result<(), CommitError> {
    for name in ["default", SYSTEM, LEASE_NAMESPACE] {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespace = Object::new(Namespace { metadata, ..Namespace::default() });
        if store.snapshot().get(namespace.key()).is_none() {
            ignore_conflict(store.commit(Transaction::new("podbay").with(Write::Create(namespace))).await)?;
        }
    }
    let roles = roles::reconcile(&store.snapshot());
    if !roles.is_empty() {
        let written = store.commit(Transaction { writes: roles, ..Transaction::new("podbay") }).await;
        ignore_conflict(written)?;
    }
    let state = store.snapshot();
    let mut wanted = self::settings(settings);
    // In one transaction with the class: they say that it was made.
    wanted.data.get_or_insert_default().insert(CLASS_MADE.to_owned(), CLASS.to_owned());
    let settings = offer::put(&state, wanted, offer::with_data);
    let writes: Vec<Write> = class(&state).map(Write::Create).into_iter().chain(settings.map(|op| op.write())).collect();
    if writes.is_empty() {
        return Ok(());
    }
    ignore_conflict(store.commit(Transaction { writes, ..Transaction::new("podbay") }).await)
}

/// The class of volumes that nodes make, once in a cluster's life: who changes or deletes it has the last word. It is the
/// default unless there is one.
fn class(state: &Snapshot) -> Option<Object> {
    let settings = state.get(&Key::new(Kind::ConfigMap, SYSTEM, SETTINGS)).and_then(|object| object.get::<ConfigMap>());
    let made = settings.and_then(|it| it.data.as_ref()).is_some_and(|data| data.contains_key(CLASS_MADE));
    if made || state.find(Kind::StorageClass, "", CLASS).is_some() {
        return None;
    }
    let is_default = default_class(state.list(Kind::StorageClass)).is_none();
    let metadata = ObjectMeta {
        name: Some(CLASS.to_owned()),
        annotations: is_default.then(|| [(DEFAULT_CLASS.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    };
    Some(Object::new(StorageClass {
        metadata,
        provisioner: LOCAL_PATH.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        ..StorageClass::default()
    }))
}

/// The settings, written down, but for what was made once.
pub(super) fn settings(settings: &ClusterSettings) -> ConfigMap {
    let data = [
        ("serviceRange", settings.service_range.to_string()),
        ("podRange", settings.pod_range.to_string()),
        ("nodePrefix", settings.node_prefix.to_string()),
    ];
    let metadata = ObjectMeta { name: Some(SETTINGS.to_owned()), namespace: Some(SYSTEM.to_owned()), ..ObjectMeta::default() };
    ConfigMap { metadata, data: Some(data.map(|(name, value)| (name.to_owned(), value)).into()), ..ConfigMap::default() }
}

fn ignore_conflict(outcome: Result<crate::store::Committed, CommitError>) -> Result<(), CommitError> {
    match outcome {
        Ok(_) | Err(CommitError::Conflict(Conflict::Exists(_))) => Ok(()),
        // A full disk must not keep the server from starting: deletes free it.
        Err(CommitError::Full(why)) => {
            tracing::warn!(why, "what exists from the start could not be written");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::store::memory::MemoryStore;
    use crate::store::{Precondition, Snapshot};

    async fn started(before: Vec<Object>) -> MemoryStore {
        let store = MemoryStore::new(std::sync::Arc::new(SystemClock));
        for object in before {
            store.commit(Transaction::new("test").with(Write::Create(object))).await.unwrap();
        }
        start(&store).await;
        store
    }

    async fn start(store: &MemoryStore) {
        let settings =
            ClusterSettings { service_range: "10.96.0.0/16".parse().unwrap(), pod_range: "10.80.0.0/16".parse().unwrap(), node_prefix: 24 };
        bootstrap(store, &settings).await.unwrap();
    }

    fn class_of(state: &Snapshot) -> Option<Object> {
        state.find(Kind::StorageClass, "", CLASS).cloned()
    }

    #[tokio::test]
    async fn who_changes_or_deletes_the_class_has_the_last_word() {
        let store = started(Vec::new()).await;
        let made = class_of(&store.snapshot()).unwrap();
        assert_eq!(
            (made.annotation(DEFAULT_CLASS), made.value()["volumeBindingMode"].as_str()),
            (Some("true"), Some("WaitForFirstConsumer"))
        );
        let settings = store.snapshot().find(Kind::ConfigMap, SYSTEM, SETTINGS).cloned().unwrap();
        let mut others = settings.get::<ConfigMap>().cloned().unwrap();
        others.data = Some([("podRange".to_owned(), "10.0.0.0/8".to_owned())].into());
        let kept = offer::put(&store.snapshot(), others, offer::with_data).unwrap();
        store.commit(Transaction::new("test").with(kept.write())).await.unwrap();
        let kept = store.snapshot().find(Kind::ConfigMap, SYSTEM, SETTINGS).cloned().unwrap();
        assert_eq!(kept.value()["data"][CLASS_MADE], CLASS, "who writes the rest leaves it");
        let mine = made.clone().edit_meta(|meta| meta.annotations = None);
        store.commit(Transaction::new("test").with(Write::Update(mine, Precondition::exists()))).await.unwrap();
        start(&store).await;
        assert_eq!(class_of(&store.snapshot()).unwrap().annotation(DEFAULT_CLASS), None);
        let delete = Write::Delete { key: made.key().clone(), precondition: Precondition::exists(), grace_seconds: None };
        store.commit(Transaction::new("test").with(delete)).await.unwrap();
        start(&store).await;
        assert_eq!(class_of(&store.snapshot()), None);
    }

    #[tokio::test]
    async fn a_cluster_that_has_a_default_class_keeps_it() {
        let meta = serde_json::json!({"name": "mine", "annotations": {(DEFAULT_CLASS): "true"}});
        let class = serde_json::json!({"metadata": meta, "provisioner": "example.com/disks"});
        let store = started(vec![Object::from_value(Kind::StorageClass, class).unwrap()]).await;
        assert_eq!(default_class(store.snapshot().list(Kind::StorageClass)), Some("mine"));
        assert!(class_of(&store.snapshot()).is_some());
    }
}
