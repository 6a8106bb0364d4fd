//! Job: runs pods until enough of them succeeded or too many failed.
//!
//! Every pod carries the tracking finalizer until the Job's status has counted it; counting and
//! letting go are one transaction, so no pod is lost or counted twice.

pub mod plan;

use k8s_openapi::api::batch::v1::Job;

use crate::control::{claim, refusal};
use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct Jobs;

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        match (object.kind(), object.controller()) {
            (Kind::Job, _) => vec![object.key().clone()],
            (Kind::ServiceAccount, _) => refusal::by_account(state, Kind::Job, object),
            (Kind::Pod, Some(owner)) if owner.kind == Kind::Job.name() => {
                vec![Key::new(Kind::Job, object.key().namespace.clone(), owner.name.clone())]
            }
            // A pod that was orphaned keeps the name of its Job as a label.
            (Kind::Pod, None) => object
                .labels()
                .get(plan::JOB_NAME)
                .map(|name| Key::new(Kind::Job, object.key().namespace.clone(), name.clone()))
                .into_iter()
                .collect(),
            _ => Vec::new(),
        }
    }

    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan {
        let job = state.get(key);
        let uid = job.map(Object::uid).unwrap_or_default();
        let pods = job.map(|job| claim::owned(state, job, Kind::Pod).cloned().collect()).unwrap_or_default();
        let label = format!("{}={}", plan::JOB_NAME, key.name);
        let stray = state
            .labelled_in(Kind::Pod, &key.namespace, &label)
            .filter(|pod| plan::is_tracked(pod) && pod.controller().is_none_or(|owner| owner.uid != uid))
            .cloned()
            .collect();
        let seen = plan::Observed { state, job: job.filter(|job| job.get::<Job>().is_some()), pods, stray };
        plan::plan(&seen, now)
    }
}
