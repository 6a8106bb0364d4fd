//! Reads what is there of one pod. A runtime that does not answer is an error, never "nothing".

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};

use super::context::Context;
use super::node_api::logs;
use super::observed::{self, ObservedPod, VolumeState};
use super::{pull_plan, volume};
use crate::cri::{ContainerStatus, CriError};
use crate::model::pod::{self as model, RESIZE_PENDING, RESIZING};

/// What the runtime and the disk say of the pod.
pub async fn observe(context: &Context, pod: &Pod, volumes_ready: bool) -> Result<ObservedPod, CriError> {
    let uid = observed::uid(pod);
    let mut sandboxes = context.runtime.list_pod_sandboxes().await?;
    sandboxes.retain(|sandbox| sandbox.metadata.uid == uid);
    sandboxes.sort_by_key(|sandbox| (sandbox.metadata.attempt, sandbox.created_at));
    let ids: BTreeSet<&str> = sandboxes.iter().map(|sandbox| sandbox.id.as_str()).collect();
    let mut containers = context.runtime.list_containers().await?;
    containers.retain(|container| ids.contains(container.sandbox_id.as_str()));
    containers.sort_unstable_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    for container in &mut containers {
        explain_end(pod, container);
    }
    let mut images = BTreeSet::new();
    for image in images_needed(pod, &containers) {
        if context.images.image_status(&image).await?.is_some() {
            images.insert(image);
        }
    }
    let volumes = match volume::exist(&context.layout, uid) {
        false => VolumeState::Absent,
        true if volumes_ready => VolumeState::Ready,
        true => VolumeState::Present,
    };
    let version = context.runtime.version();
    let scheme = version.split_once("://").map_or("", |(scheme, _)| scheme).to_owned();
    Ok(ObservedPod { sandboxes, containers, images, volumes, host_ips: context.host_ips(), scheme, ..ObservedPod::default() })
}

fn images_needed(pod: &Pod, all: &[ContainerStatus]) -> BTreeSet<String> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let open = model::each_container(spec).filter(|container| !settled(container, all));
    let images = |container: std::borrow::Cow<'_, Container>| -> Vec<String> {
        pull_plan::needed(spec, &container).iter().map(|needed| needed.image.to_owned()).collect()
    };
    open.flat_map(images).collect()
}

/// A running container needs no image for now: nobody is asked.
fn settled(container: &Container, all: &[ContainerStatus]) -> bool {
    all.iter().any(|found| found.metadata.name == container.name && observed::is_running(found))
}

/// `terminationMessagePolicy: FallbackToLogsOnError`.
fn explain_end(pod: &Pod, container: &mut ContainerStatus) {
    let failed = observed::has_ended(container) && container.exit_code != 0 && container.message.is_empty();
    let spec = pod.spec.as_ref().and_then(|spec| model::any_container(spec, &container.metadata.name));
    let asked = spec.is_some_and(|spec| spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"));
    if failed && asked {
        container.message = logs::last_words(&container.log_path);
    }
}

/// The status to go on from: the agent's own word, conditions of others and a phase somebody else ended.
pub fn merge(own: Option<&PodStatus>, stored: Option<&PodStatus>) -> PodStatus {
    let (Some(own), Some(stored)) = (own, stored) else {
        return own.or(stored).cloned().unwrap_or_default();
    };
    let mut merged = own.clone();
    let conditions = merged.conditions.get_or_insert_default();
    for theirs in stored.conditions.iter().flatten() {
        if !OWN_CONDITIONS.contains(&theirs.type_.as_str()) {
            conditions.retain(|condition| condition.type_ != theirs.type_);
            conditions.push(theirs.clone());
        }
    }
    let ended = |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if ended(stored) && !ended(own) {
        (merged.phase, merged.reason, merged.message) = (stored.phase.clone(), stored.reason.clone(), stored.message.clone());
    }
    merged
}

const OWN_CONDITIONS: [&str; 7] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", RESIZING, RESIZE_PENDING];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(value: serde_json::Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn own_word_wins_but_others_are_kept() {
        let own = status(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
        let stored =
            status(json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}, {"type": "lb", "status": "True"}]}));
        let got = merge(Some(&own), Some(&stored));
        assert_eq!(got.phase.as_deref(), Some("Running"));
        let all: Vec<(String, String)> = got.conditions.unwrap().into_iter().map(|c| (c.type_, c.status)).collect();
        assert_eq!(all, [("Ready".into(), "True".into()), ("lb".into(), "True".into())]);
    }

    #[test]
    fn an_end_that_others_wrote_counts() {
        let own = status(json!({"phase": "Running"}));
        let stored = status(json!({"phase": "Failed", "reason": "Evicted"}));
        let got = merge(Some(&own), Some(&stored));
        assert_eq!((got.phase.as_deref(), got.reason.as_deref()), (Some("Failed"), Some("Evicted")));
        assert_eq!(merge(None, Some(&stored)), stored);
        assert_eq!(merge(None, None), PodStatus::default());
    }
}
