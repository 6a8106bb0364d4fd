//! What a new persistent volume or claim is given: Kubernetes' admission plugins StorageObjectInUseProtection and
//! DefaultStorageClass, and the phase it begins with; and that a claim does not grow. PURE.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::quantity::Quantity;
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

/// Why a claim that asks for more than it did may not: the words of Kubernetes' admission plugin PersistentVolumeClaimResize
/// (`plugin/pkg/admission/storage/persistentvolume/resize`), here for every class, as there is none whose volumes grow.
pub(super) fn grows(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> Option<&'static str> {
    let size = |claim: &PersistentVolumeClaim| {
        let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        Some(Quantity::of(requests.get("storage")?))
    };
    (size(new) > size(old))
        .then_some("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
}

fn protect(meta: &mut ObjectMeta, finalizer: &str) {
    let all = meta.finalizers.get_or_insert_default();
    if !all.iter().any(|known| known == finalizer) {
        all.push(finalizer.to_owned());
    }
}
