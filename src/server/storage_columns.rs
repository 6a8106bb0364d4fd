//! kubectl's columns of persistent volumes, claims on them, and their classes. PURE.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::{CSIDriverSpec, StorageClass};
use serde_json::Value;

use crate::model::volume::{self, DEFAULT_CLASS, ONE_POD, PersistentVolume};

const UNSET: &str = "<unset>";

/// `RWO,ROX`: kubectl's order, each once.
fn modes(modes: Option<&Vec<String>>) -> String {
    let short = [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), (ONE_POD, "RWOP")];
    let has = |name: &str| modes.into_iter().flatten().any(|mode| mode == name);
    short.iter().filter(|(name, _)| has(name)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn phase(deleting: bool, phase: Option<&String>) -> String {
    if deleting { "Terminating".to_owned() } else { phase.cloned().unwrap_or_default() }
}

pub(super) fn persistent_volume(it: &PersistentVolume, name: Value, age: Value) -> Vec<Value> {
    let status = it.status.as_ref();
    let claim = it.spec.claim_ref.as_ref().map(volume::claim_key).map(|key| format!("{}/{}", key.namespace, key.name));
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let capacity = it.spec.capacity.as_ref().and_then(|all| all.get("storage")).map(|it| it.0.clone());
    vec![
        name,
        capacity.unwrap_or_default().into(),
        modes(it.spec.access_modes.as_ref()).into(),
        text(it.spec.persistent_volume_reclaim_policy.as_ref()).into(),
        phase(it.metadata.deletion_timestamp.is_some(), status.and_then(|status| status.phase.as_ref())).into(),
        claim.unwrap_or_default().into(),
        it.class().into(),
        UNSET.into(),
        text(status.and_then(|status| status.reason.as_ref())).into(),
        age,
        it.mode().into(),
    ]
}

pub(super) fn claim(it: &PersistentVolumeClaim, name: Value, age: Value) -> Vec<Value> {
    let (status, spec) = (it.status.clone().unwrap_or_default(), it.spec.clone().unwrap_or_default());
    let capacity = status.capacity.as_ref().and_then(|all| all.get("storage")).map(|it| it.0.clone());
    // What it has, not what it asks for: nothing until it is bound.
    let bound = !volume::volume_name(it).is_empty();
    vec![
        name,
        phase(it.metadata.deletion_timestamp.is_some(), status.phase.as_ref()).into(),
        volume::volume_name(it).into(),
        capacity.filter(|_| bound).unwrap_or_default().into(),
        modes(status.access_modes.as_ref().filter(|_| bound)).into(),
        volume::class(&spec).into(),
        UNSET.into(),
        age,
        volume::mode_of(&spec).into(),
    ]
}

pub(super) fn class(it: &StorageClass, name: &str, age: Value) -> Vec<Value> {
    let is_default = it.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_CLASS)).is_some_and(|it| it == "true");
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    vec![
        if is_default { format!("{name} (default)") } else { name.to_owned() }.into(),
        it.provisioner.clone().into(),
        text(&it.reclaim_policy).into(),
        text(&it.volume_binding_mode).into(),
        it.allow_volume_expansion.unwrap_or(false).to_string().into(),
        age,
    ]
}

/// `pkg/printers/internalversion/printers.go`, `printCSIDriver`.
pub(super) fn driver(it: &CSIDriverSpec, name: Value, age: Value) -> Vec<Value> {
    let audiences: Vec<&str> = it.token_requests.iter().flatten().map(|request| request.audience.as_str()).collect();
    let audiences = if audiences.is_empty() { UNSET.to_owned() } else { audiences.join(",") };
    let modes = it.volume_lifecycle_modes.as_ref().filter(|modes| !modes.is_empty());
    vec![
        name,
        it.attach_required.unwrap_or(true).into(),
        it.pod_info_on_mount.unwrap_or(false).into(),
        it.storage_capacity.unwrap_or(false).into(),
        audiences.into(),
        it.requires_republish.unwrap_or(false).into(),
        modes.map_or_else(|| "<none>".to_owned(), |modes| modes.join(",")).into(),
        age,
    ]
}
