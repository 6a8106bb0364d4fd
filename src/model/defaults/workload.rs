//! Defaults of Deployment, ReplicaSet and Job. PURE.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, RollingUpdateDeployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{pod, text};

/// The labels admission adds to a Job's template; the first two select its pods.
pub const JOB_LABELS: [&str; 4] = ["batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name"];

pub(super) fn deployment(it: &mut Deployment) {
    let spec = &mut it.spec;
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    spec.progress_deadline_seconds.get_or_insert(600);
    let strategy = spec.strategy.get_or_insert_default();
    text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_with(RollingUpdateDeployment::default);
        rolling.max_unavailable.get_or_insert_with(quarter);
        rolling.max_surge.get_or_insert_with(quarter);
    }
    pod::template(&mut spec.template);
}

fn quarter() -> IntOrString {
    IntOrString::String("25%".to_owned())
}

pub(super) fn replica_set(it: &mut ReplicaSet) {
    let spec = &mut it.spec;
    spec.replicas.get_or_insert(1);
    if let Some(template) = &mut spec.template {
        pod::template(template);
    }
}

pub(super) fn job(it: &mut Job) {
    let Some(spec) = &mut it.spec else { return };
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    spec.backoff_limit.get_or_insert(if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 });
    text(&mut spec.completion_mode, "NonIndexed");
    spec.suspend.get_or_insert(false);
    let replacement = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    text(&mut spec.pod_replacement_policy, replacement);
    pod::template(&mut spec.template);
    if it.metadata.labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
        let mut labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        labels.retain(|name, _| !JOB_LABELS.contains(&name.as_str()));
        if !labels.is_empty() {
            it.metadata.labels = Some(labels);
        }
    }
}
