//! What a new persistent volume or claim is given: Kubernetes' admission plugins StorageObjectInUseProtection and
//! DefaultStorageClass, and the phase it begins with. PURE.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::volume::{CLAIM_PROTECTION, PersistentVolume, VOLUME_PROTECTION, default_class};
use crate::model::{Errors, FieldError, Kind, Path};
use crate::store::snapshot::Snapshot;

const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
const PENDING: &str = "Pending";

pub(super) fn volume(it: &mut PersistentVolume) {
    protect(&mut it.metadata, VOLUME_PROTECTION);
    it.status.get_or_insert_default().phase = Some(PENDING.to_owned());
}

/// An annotation of before there was a field for it, which Kubernetes takes of no kind of volume that is served here
/// (`pkg/volume/validation`, `checkMountOption`).
pub(super) fn old_options(it: &PersistentVolume) -> Vec<FieldError> {
    let mut errors = Errors::default();
    if it.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MOUNT_OPTIONS)) {
        let path = Path::root("metadata.annotations");
        errors.forbidden(&path.child(MOUNT_OPTIONS), "may not specify mount options for this volume type");
    }
    errors.into_vec()
}

/// A claim that says nothing of a class is of the default one.
pub(super) fn claim(it: &mut PersistentVolumeClaim, state: &Snapshot) {
    protect(&mut it.metadata, CLAIM_PROTECTION);
    it.status.get_or_insert_default().phase = Some(PENDING.to_owned());
    if let Some(spec) = it.spec.as_mut().filter(|spec| spec.storage_class_name.is_none()) {
        spec.storage_class_name = default_class(state.list(Kind::StorageClass)).map(str::to_owned);
    }
}

fn protect(meta: &mut ObjectMeta, finalizer: &str) {
    let all = meta.finalizers.get_or_insert_default();
    if !all.iter().any(|known| known == finalizer) {
        all.push(finalizer.to_owned());
    }
}
