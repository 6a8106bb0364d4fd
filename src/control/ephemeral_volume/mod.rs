//! Ephemeral volumes: a claim of the pod's own for each volume that has a template of one. It goes with the pod, as an
//! owner's dependent.

pub mod plan;

use k8s_openapi::api::core::v1::Pod;

use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct EphemeralVolumes;

impl Controller for EphemeralVolumes {
    fn name(&self) -> &'static str {
        plan::NAME
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        let has_templates = |object: &Object| object.get::<Pod>().is_some_and(|pod| plan::templates(pod).next().is_some());
        match (object.kind(), object.controller()) {
            (Kind::Pod, _) if has_templates(object) => vec![object.key().clone()],
            (Kind::PersistentVolumeClaim, Some(owner)) if owner.kind == Kind::Pod.name() => {
                vec![Key::new(Kind::Pod, object.key().namespace.clone(), owner.name.clone())]
            }
            // One that stood in the way of a pod's own is gone.
            (Kind::PersistentVolumeClaim, _) if state.get(object.key()).is_none() => {
                let pods = state.list_in(Kind::Pod, &object.key().namespace).filter(|pod| has_templates(pod));
                pods.map(|pod| pod.key().clone()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn plan(&self, state: &Snapshot, key: &Key, _now: Timestamp) -> Plan {
        state.get(key).map(|pod| plan::plan(state, pod)).unwrap_or_default()
    }
}
