//! Persistent volumes, claims on them, and their classes. PURE.

use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use k8s_openapi::api::storage::v1::{CSIDriverSpec, StorageClass};

use super::text;
use crate::model::volume::{FILESYSTEM, OTHER_SOURCES, PersistentVolume};

pub(super) fn volume(it: &mut PersistentVolume) {
    text(&mut it.spec.volume_mode, FILESYSTEM);
    text(&mut it.spec.persistent_volume_reclaim_policy, "Retain");
    // Kubernetes' decoder drops a field that a kind does not have.
    it.spec.others.retain(|name, _| OTHER_SOURCES.contains(&name.as_str()));
}

pub(super) fn claim(it: &mut PersistentVolumeClaimSpec) {
    text(&mut it.volume_mode, FILESYSTEM);
}

pub(super) fn class(it: &mut StorageClass) {
    text(&mut it.reclaim_policy, "Delete");
    text(&mut it.volume_binding_mode, "Immediate");
}

/// `pkg/apis/storage/v1/defaults.go`.
pub(super) fn driver(it: &mut CSIDriverSpec) {
    it.attach_required.get_or_insert(true);
    for unless_said in [&mut it.pod_info_on_mount, &mut it.storage_capacity, &mut it.requires_republish, &mut it.se_linux_mount] {
        unless_said.get_or_insert(false);
    }
    text(&mut it.fs_group_policy, "ReadWriteOnceWithFSType");
    if it.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
        it.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
    }
}
