//! A pod's row: its STATUS word is computed as kubectl's users know it. PURE.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};

use super::age::since;
use crate::model::Timestamp;

/// What the containers add up to.
struct Sum {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i32,
    last_restart: Option<Timestamp>,
}

pub fn cells(pod: &Pod, name: Value, age: Value, now: Timestamp) -> Vec<Value> {
    let status = pod.status.clone().unwrap_or_default();
    let sum = sum(pod, &status);
    let restarts = match sum.last_restart {
        Some(at) if sum.restarts != 0 => json!(format!("{} ({} ago)", sum.restarts, since(Some(at), now))),
        _ => json!(sum.restarts),
    };
    let or_none = |text: Option<String>| json!(text.filter(|text| !text.is_empty()).unwrap_or_else(|| "<none>".to_owned()));
    let spec = pod.spec.as_ref();
    vec![
        name,
        json!(format!("{}/{}", sum.ready, sum.total)),
        json!(sum.reason),
        restarts,
        age,
        or_none(status.pod_ip.clone()),
        or_none(spec.and_then(|spec| spec.node_name.clone())),
        or_none(status.nominated_node_name.clone()),
        json!(gates(pod, &status)),
    ]
}

fn gates(pod: &Pod, status: &PodStatus) -> String {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.clone()).unwrap_or_default();
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| condition(status, &gate.condition_type) == Some("True")).count();
    format!("{open}/{}", gates.len())
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a str> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}

fn sum(pod: &Pod, status: &PodStatus) -> Sum {
    let spec = pod.spec.clone().unwrap_or_default();
    let phase = status.phase.clone().unwrap_or_default();
    let mut reason = status.reason.clone().filter(|reason| !reason.is_empty()).unwrap_or(phase.clone());
    let gated = status.conditions.iter().flatten().any(|it| it.type_ == "PodScheduled" && it.reason.as_deref() == Some("SchedulingGated"));
    if gated {
        reason = "SchedulingGated".to_owned();
    }
    let sidecar = |name: &str| {
        let found = spec.init_containers.iter().flatten().find(|container| container.name == name);
        found.is_some_and(|container| container.restart_policy.as_deref() == Some("Always"))
    };
    let mut sum = Sum { reason, ready: 0, total: spec.containers.len(), restarts: 0, last_restart: None };
    sum.total += spec.init_containers.iter().flatten().filter(|container| sidecar(&container.name)).count();
    let (mut sidecar_restarts, mut sidecar_last) = (0, None);
    let mut initializing = false;
    let count = spec.init_containers.as_ref().map_or(0, Vec::len);
    for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
        sum.restarts += container.restart_count;
        sum.last_restart = sum.last_restart.max(last_end(container));
        if sidecar(&container.name) {
            sidecar_restarts += container.restart_count;
            sidecar_last = sidecar_last.max(last_end(container));
        }
        if let Some(word) = init_word(container, sidecar(&container.name), index, count) {
            sum.reason = word;
            initializing = true;
            break;
        }
        sum.ready += usize::from(sidecar(&container.name) && container.ready);
    }
    if !initializing || condition(status, "Initialized") == Some("True") {
        (sum.restarts, sum.last_restart) = (sidecar_restarts, sidecar_last);
        main_containers(status, &mut sum);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        let terminal = matches!(phase.as_str(), "Succeeded" | "Failed");
        if status.reason.as_deref() == Some("NodeLost") {
            sum.reason = "Unknown".to_owned();
        } else if !terminal {
            sum.reason = "Terminating".to_owned();
        }
    }
    sum
}

fn last_end(container: &ContainerStatus) -> Option<Timestamp> {
    container.last_state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0)
}

/// The word while this init container holds the pod up; `None` once it is through.
fn init_word(container: &ContainerStatus, sidecar: bool, index: usize, count: usize) -> Option<String> {
    let state = container.state.clone().unwrap_or_default();
    if let Some(ended) = &state.terminated {
        return (ended.exit_code != 0).then(|| format!("Init:{}", ended_word(&state)));
    }
    if sidecar && container.started == Some(true) {
        return None;
    }
    match state.waiting.and_then(|waiting| waiting.reason).filter(|reason| !reason.is_empty() && reason != "PodInitializing") {
        Some(reason) => Some(format!("Init:{reason}")),
        None => Some(format!("Init:{index}/{count}")),
    }
}

fn ended_word(state: &ContainerState) -> String {
    let Some(ended) = &state.terminated else { return String::new() };
    match ended.reason.as_deref().filter(|reason| !reason.is_empty()) {
        Some(reason) => reason.to_owned(),
        None => match ended.signal.filter(|&signal| signal != 0) {
            Some(signal) => format!("Signal:{signal}"),
            None => format!("ExitCode:{}", ended.exit_code),
        },
    }
}

fn main_containers(status: &PodStatus, sum: &mut Sum) {
    let mut running = false;
    for container in status.container_statuses.iter().flatten().rev() {
        sum.restarts += container.restart_count;
        sum.last_restart = sum.last_restart.max(last_end(container));
        let state = container.state.clone().unwrap_or_default();
        let waits = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone()).filter(|reason| !reason.is_empty());
        if let Some(reason) = waits {
            sum.reason = reason;
        } else if state.terminated.is_some() {
            sum.reason = ended_word(&state);
        } else if container.ready && state.running.is_some() {
            running = true;
            sum.ready += 1;
        }
    }
    if sum.reason == "Completed" && running {
        let ready = condition(status, "Ready") == Some("True");
        sum.reason = if ready { "Running".to_owned() } else { "NotReady".to_owned() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(status: Value, spec: Value) -> (String, String) {
        let spec = if spec.is_null() { json!({"containers": [{"name": "a"}]}) } else { spec };
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": status})).unwrap();
        let row = cells(&pod, json!("p"), json!("1s"), Timestamp::UNIX_EPOCH);
        (row[1].as_str().unwrap().to_owned(), row[2].as_str().unwrap().to_owned())
    }

    #[test]
    fn the_status_word_is_kubectls() {
        let table = [
            (json!({"phase": "Pending"}), Value::Null, "0/1", "Pending"),
            (
                json!({"phase": "Pending", "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
                Value::Null,
                "0/1",
                "ImagePullBackOff",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {}}}]}),
                Value::Null,
                "1/1",
                "Running",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 3}}}]}),
                Value::Null,
                "0/1",
                "ExitCode:3",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": {"running": {}}}]}),
                json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}),
                "0/1",
                "Init:0/1",
            ),
        ];
        for (status, spec, ready, wanted) in table {
            assert_eq!(word(status.clone(), spec), (ready.to_owned(), wanted.to_owned()), "{status}");
        }
    }
}
