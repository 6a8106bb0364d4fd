//! Volumes for claims: Kubernetes' persistent volume controller, the one that keeps what is in use, and the provisioner
//! `podbay.dev/local-path`.
//!
//! All claims and volumes are one decision: which volume a claim gets depends on what others get.

pub mod plan;
pub mod provision;

use k8s_openapi::api::core::v1::Pod;

use crate::model::{Key, Kind, Object, Timestamp, volume};
use crate::plan::{Controller, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct VolumeBinding;

impl Controller for VolumeBinding {
    fn name(&self) -> &'static str {
        plan::NAME
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        let concerned = match object.kind() {
            Kind::PersistentVolume | Kind::PersistentVolumeClaim | Kind::StorageClass => true,
            // One that is gone has taken its directories with it.
            Kind::Node => state.get(object.key()).is_none(),
            Kind::Pod => object.get::<Pod>().is_some_and(|pod| volume::claims(pod).next().is_some()),
            _ => false,
        };
        concerned.then(|| Key::every(Kind::PersistentVolumeClaim)).into_iter().collect()
    }

    fn plan(&self, state: &Snapshot, _key: &Key, now: Timestamp) -> Plan {
        plan::plan(state, now)
    }
}
