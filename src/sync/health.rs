//! Whether an object has become what it says: what a wave waits for. PURE.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};

use crate::model::{Object, Source};
use crate::plan::Reason;

/// How an object fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Healthy,
    /// Not yet: why.
    Progressing(Reason),
    /// Not without a change: why.
    Failed(Reason),
}

/// The health of a live object. Kinds that are what they say as soon as they exist are healthy.
pub fn health(object: &Object) -> Health {
    if object.is_deleting() {
        return Health::Progressing(Reason::new("Terminating", "is being deleted"));
    }
    if let Some(it) = object.get::<Deployment>() {
        deployment(it)
    } else if let Some(it) = object.get::<ReplicaSet>() {
        replica_set(it)
    } else if let Some(it) = object.get::<Job>() {
        job(it)
    } else if let Some(it) = object.get::<Pod>() {
        pod(it)
    } else if let Some(it) = object.get::<Namespace>() {
        namespace(it)
    } else if let Some(it) = object.get::<Source>() {
        source(it)
    } else {
        Health::Healthy
    }
}

fn progressing(code: &'static str, message: impl Into<String>) -> Health {
    Health::Progressing(Reason::new(code, message))
}

fn deployment(it: &Deployment) -> Health {
    let wanted = it.spec.replicas.unwrap_or(1);
    let status = it.status.clone().unwrap_or_default();
    let stuck = status
        .conditions
        .iter()
        .flatten()
        .find(|it| it.type_.as_deref() == Some("Progressing") && it.reason.as_deref() == Some("ProgressDeadlineExceeded"));
    let seen = status.observed_generation.unwrap_or(0) >= it.metadata.generation.unwrap_or(0);
    let (updated, available, all) =
        (status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0), status.replicas.unwrap_or(0));
    match stuck {
        Some(condition) if seen => Health::Failed(Reason::new(
            "ProgressDeadlineExceeded",
            condition.message.clone().unwrap_or_else(|| "made no progress".to_owned()),
        )),
        _ if !seen => progressing("NotObserved", "its change has not been seen yet"),
        _ if updated < wanted => progressing("RollingOut", format!("{updated} of {wanted} replicas are updated")),
        _ if all > updated => progressing("RollingOut", format!("{} old replicas are left", all - updated)),
        _ if available < wanted => progressing("NotAvailable", format!("{available} of {wanted} replicas are available")),
        _ => Health::Healthy,
    }
}

fn replica_set(it: &ReplicaSet) -> Health {
    let wanted = it.spec.replicas.unwrap_or(1);
    let available = it.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    if available < wanted {
        progressing("NotAvailable", format!("{available} of {wanted} replicas are available"))
    } else {
        Health::Healthy
    }
}

fn job(it: &Job) -> Health {
    let conditions =
        || it.status.iter().flat_map(|status| status.conditions.iter().flatten()).filter(|condition| condition.status == "True");
    if let Some(failed) = conditions().find(|condition| condition.type_ == "Failed") {
        let why = failed.message.clone().or_else(|| failed.reason.clone()).unwrap_or_default();
        return Health::Failed(Reason::new("JobFailed", format!("failed: {why}")));
    }
    if conditions().any(|condition| condition.type_ == "Complete") {
        Health::Healthy
    } else {
        progressing("NotComplete", "has not completed")
    }
}

fn pod(it: &Pod) -> Health {
    let status = it.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    match status.phase.as_deref() {
        Some("Succeeded") => Health::Healthy,
        Some("Failed") => Health::Failed(Reason::new("PodFailed", status.message.unwrap_or_else(|| "failed".to_owned()))),
        _ if ready => Health::Healthy,
        phase => progressing("NotReady", format!("is {} and not ready", phase.unwrap_or("Pending"))),
    }
}

fn namespace(it: &Namespace) -> Health {
    match it.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Terminating") => progressing("Terminating", "is being deleted"),
        _ => Health::Healthy,
    }
}

fn source(it: &Source) -> Health {
    let status = it.status.clone().unwrap_or_default();
    match status.conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => Health::Healthy,
        Some(ready) => progressing("NotReady", ready.message.clone()),
        None => progressing("NotReady", "was not looked at yet"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Kind;

    fn of(kind: Kind, value: Value) -> &'static str {
        match health(&Object::from_value(kind, value).unwrap()) {
            Health::Healthy => "healthy",
            Health::Progressing(reason) => reason.code,
            Health::Failed(reason) => reason.code,
        }
    }

    #[test]
    fn each_kind_is_healthy_in_its_own_way() {
        let deployment = |status: Value| {
            json!({"metadata": {"name": "a", "generation": 2}, "status": status,
                "spec": {"replicas": 2, "selector": {}, "template": {}}})
        };
        let rows = [
            (
                Kind::Deployment,
                deployment(json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2})),
                "NotObserved",
            ),
            (
                Kind::Deployment,
                deployment(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 2})),
                "RollingOut",
            ),
            (
                Kind::Deployment,
                deployment(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2})),
                "RollingOut",
            ),
            (
                Kind::Deployment,
                deployment(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1})),
                "NotAvailable",
            ),
            (
                Kind::Deployment,
                deployment(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2})),
                "healthy",
            ),
            (
                Kind::Deployment,
                deployment(
                    json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}),
                ),
                "ProgressDeadlineExceeded",
            ),
            (Kind::Job, json!({"metadata": {"name": "a"}}), "NotComplete"),
            (Kind::Job, json!({"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}), "healthy"),
            (Kind::Job, json!({"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Failed", "status": "True"}]}}), "JobFailed"),
            (Kind::Pod, json!({"metadata": {"name": "a"}, "status": {"phase": "Running"}}), "NotReady"),
            (
                Kind::Pod,
                json!({"metadata": {"name": "a"}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
                "healthy",
            ),
            (Kind::Pod, json!({"metadata": {"name": "a"}, "status": {"phase": "Succeeded"}}), "healthy"),
            (Kind::Pod, json!({"metadata": {"name": "a"}, "status": {"phase": "Failed"}}), "PodFailed"),
            (Kind::ConfigMap, json!({"metadata": {"name": "a"}}), "healthy"),
            (Kind::Namespace, json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}}), "Terminating"),
        ];
        for (kind, value, expected) in rows {
            assert_eq!(of(kind, value.clone()), expected, "{value}");
        }
    }
}
