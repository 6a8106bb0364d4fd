//! What exists from the start: three namespaces, the default roles and the cluster's settings.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::authorise::{LEASE_NAMESPACE, roles};
use crate::model::{Key, Kind, Object};
use crate::network::Range;
use crate::store::{CommitError, Conflict, Precondition, Store, Transaction, Write};

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
    let data = [
        ("serviceRange", settings.service_range.to_string()),
        ("podRange", settings.pod_range.to_string()),
        ("nodePrefix", settings.node_prefix.to_string()),
    ];
    let data = data.map(|(name, value)| (name.to_owned(), value)).into();
    let write = match store.snapshot().get(&Key::new(Kind::ConfigMap, SYSTEM, SETTINGS)) {
        Some(current) if current.get::<ConfigMap>().is_some_and(|map| map.data.as_ref() == Some(&data)) => return Ok(()),
        Some(current) => {
            let Some(edited) = current.edit::<ConfigMap>(|map| map.data = Some(data)) else { return Ok(()) };
            Write::Update(edited, Precondition::exists())
        }
        None => {
            let metadata = ObjectMeta { name: Some(SETTINGS.to_owned()), namespace: Some(SYSTEM.to_owned()), ..ObjectMeta::default() };
            Write::Create(Object::new(ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }))
        }
    };
    ignore_conflict(store.commit(Transaction::new("podbay").with(write)).await)
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
