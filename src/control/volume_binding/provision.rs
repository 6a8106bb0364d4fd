//! The volume that is made for a claim: by `podbay.dev/local-path`, a directory of the node that the scheduler chose. Words
//! are those of Kubernetes' library for provisioners outside it (sig-storage-lib-external-provisioner). PURE.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    LocalVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaimSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::event::reference;
use crate::model::local_volume::{self, HOME, HOSTNAME, LOCAL_PATH, PROVISIONED_BY, SELECTED_NODE, allows, name_for, volumes_of};
use crate::model::volume::{FILESYSTEM, PersistentVolume, PersistentVolumeSpec, VOLUME_PROTECTION};
use crate::model::{Key, Kind, Object};
use crate::store::snapshot::Snapshot;

/// Why none is made.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The scheduler has to choose again: the node is gone, or has no directory for volumes.
    Elsewhere,
    /// Somebody has to change something.
    For(String),
}

fn no<T>(why: &str) -> Result<T, Refused> {
    Err(Refused::For(why.to_owned()))
}

/// The volume for a claim.
///
/// # Errors
/// See [`Refused`].
pub fn volume(
    state: &Snapshot,
    claim: &Object,
    spec: &PersistentVolumeClaimSpec,
    class: &StorageClass,
) -> Result<PersistentVolume, Refused> {
    local_volume::possible(spec, class).or_else(no)?;
    let Some(selected) = claim.annotation(SELECTED_NODE) else {
        return no("a volume is a directory of one node, and none was chosen: the class needs volumeBindingMode WaitForFirstConsumer");
    };
    let node = state.find(Kind::Node, "", selected).filter(|node| !node.is_deleting()).ok_or(Refused::Elsewhere)?;
    let volumes = volumes_of(node).filter(|_| allows(class, node.labels())).ok_or(Refused::Elsewhere)?;
    let name = name_for(claim.uid());
    if state.get(&Key::cluster(Kind::PersistentVolume, &name)).is_some() {
        return Err(Refused::For(format!("persistentvolumes \"{name}\" already exists")));
    }
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.clone()).unwrap_or_default();
    let metadata = ObjectMeta {
        labels: Some(BTreeMap::from([(HOME.to_owned(), selected.to_owned())])),
        annotations: Some(BTreeMap::from([(PROVISIONED_BY.to_owned(), LOCAL_PATH.to_owned())])),
        finalizers: Some(vec![VOLUME_PROTECTION.to_owned()]),
        name: Some(name.clone()),
        ..ObjectMeta::default()
    };
    let spec = PersistentVolumeSpec {
        access_modes: spec.access_modes.clone(),
        capacity: Some(requests.into_iter().filter(|(resource, _)| resource == "storage").collect()),
        claim_ref: Some(reference(claim.key(), Some(claim.uid()))),
        local: Some(LocalVolumeSource { path: format!("{volumes}/{name}"), ..LocalVolumeSource::default() }),
        mount_options: class.mount_options.clone().filter(|options| !options.is_empty()),
        node_affinity: Some(of_host(node.labels().get(HOSTNAME).map_or(selected, String::as_str))),
        persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned())),
        storage_class_name: spec.storage_class_name.clone(),
        volume_mode: Some(FILESYSTEM.to_owned()),
        ..PersistentVolumeSpec::default()
    };
    Ok(PersistentVolume { api_version: "v1".to_owned(), kind: Kind::PersistentVolume.name().to_owned(), metadata, spec, status: None })
}

fn of_host(name: &str) -> VolumeNodeAffinity {
    let line = NodeSelectorRequirement { key: HOSTNAME.to_owned(), operator: "In".to_owned(), values: Some(vec![name.to_owned()]) };
    let term = NodeSelectorTerm { match_expressions: Some(vec![line]), ..NodeSelectorTerm::default() };
    VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) }
}
