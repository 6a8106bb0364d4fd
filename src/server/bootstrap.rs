//! What exists from the start: three namespaces, the default roles and the cluster's settings.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::authorise::{LEASE_NAMESPACE, roles};
use super::offer;
use crate::model::Object;
use crate::network::Range;
use crate::store::{CommitError, Conflict, Store, Transaction, Write};

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
    match offer::put(&store.snapshot(), self::settings(settings), |it: &mut ConfigMap, wanted| it.data = wanted.data) {
        Some(op) => ignore_conflict(store.commit(Transaction::new("podbay").with(op.write())).await),
        None => Ok(()),
    }
}

/// The settings, written down.
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
