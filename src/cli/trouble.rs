//! Why pods do not run as wanted: what their status says, and the newest warning where that says too little. PURE but
//! for [`Warnings::read`].

use std::collections::BTreeMap;

use kube::Client;
use serde_json::Value;

use super::client::{items, path};
use super::get::form_encoded;
use super::status::condition;
use crate::model::Kind;

/// Pods of one workload are listed up to here.
const PODS: usize = 10;

/// The newest warning about each pod, by the pod's UID.
#[derive(Debug, Default)]
pub(super) struct Warnings(BTreeMap<String, Warning>);

/// When it came last, its place among those of the same second, and what it says.
type Warning = (String, u64, String);

impl Warnings {
    /// Of the pods of a namespace, or of all.
    pub async fn read(client: &Client, namespace: Option<&str>) -> anyhow::Result<Self> {
        let selector = form_encoded("type=Warning,involvedObject.kind=Pod");
        let events = items(client, &format!("{}?fieldSelector={selector}", path(Kind::Event, namespace, None))).await?;
        Ok(Self::of(&events))
    }

    fn of(events: &[Value]) -> Self {
        let mut newest: BTreeMap<String, Warning> = BTreeMap::new();
        // A pod that has no node says so itself, and one that has one had it said before.
        for event in events.iter().filter(|event| event["reason"] != "FailedScheduling") {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let revision = text(&event["metadata"]["resourceVersion"]).parse().unwrap_or(0);
            let said = format!("{}: {}", text(&event["reason"]), text(&event["message"]));
            let warning = (text(&event["lastTimestamp"]), revision, said);
            let about = newest.entry(text(&event["involvedObject"]["uid"])).or_default();
            if *about < warning {
                *about = warning;
            }
        }
        Self(newest)
    }

    fn about(&self, pod: &Value) -> Option<&str> {
        self.0.get(pod["metadata"]["uid"].as_str()?).map(|(_, _, said)| said.as_str())
    }
}

/// Why a pod that should run does not: its namespace, its name, and the first reason a person can read.
pub(super) fn trouble(pod: &Value, warnings: &Warnings) -> Option<Vec<String>> {
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded")) || condition(pod, "Ready") {
        return None;
    }
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
    let mut reason = reasons(pod).into_iter().next().unwrap_or_else(|| "starting".to_owned());
    // A container that waits for its pod's volumes or sandbox does not know why that takes so long.
    if let Some(warning) = warnings.about(pod).filter(|_| says_nothing(&reason)) {
        reason = format!("{reason}: {warning}");
    }
    Some(vec![text("namespace"), text("name"), reason])
}

fn says_nothing(reason: &str) -> bool {
    reason == "starting" || reason.ends_with(": ContainerCreating") || reason.ends_with(": PodInitializing")
}

/// What stands in the way of a pod, or of the pods that a workload made; of many, the first ones.
pub(super) fn of_workload(owner: &Value, pods: &[Value], warnings: &Warnings) -> Vec<String> {
    let ours = pods.iter().filter(|pod| is_of(pod, owner));
    let mut lines: Vec<String> =
        ours.filter_map(|pod| trouble(pod, warnings)).map(|row| format!("Pod {}/{}: {}", row[0], row[1], row[2])).collect();
    if lines.len() > PODS {
        let more = lines.len() - PODS;
        lines.truncate(PODS);
        lines.push(format!("and {more} more pods: podbay get pods"));
    }
    lines
}

fn is_of(pod: &Value, owner: &Value) -> bool {
    let labels = owner["spec"]["selector"]["matchLabels"].as_object();
    pod["metadata"]["uid"] == owner["metadata"]["uid"]
        || labels.is_some_and(|labels| labels.iter().all(|(name, value)| &pod["metadata"]["labels"][name] == value))
}

/// Everything a pod's status says about why it is not ready.
pub(super) fn reasons(pod: &Value) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(at) = pod["metadata"]["deletionTimestamp"].as_str() {
        reasons.push(format!("being deleted, at the latest at {at}"));
    }
    for field in ["initContainerStatuses", "containerStatuses"] {
        for container in pod["status"][field].as_array().into_iter().flatten() {
            let waiting = &container["state"]["waiting"];
            let name = container["name"].as_str().unwrap_or_default();
            if let Some(reason) = waiting["reason"].as_str() {
                let message = waiting["message"].as_str().unwrap_or_default();
                reasons.push(format!("container {name}: {reason}: {message}").trim_end_matches([':', ' ']).to_owned());
            }
            let ended = &container["state"]["terminated"];
            if ended["exitCode"].as_i64().is_some_and(|code| code != 0) {
                reasons.push(format!("container {name}: {}: exit code {}", ended["reason"].as_str().unwrap_or("Error"), ended["exitCode"]));
            }
        }
    }
    for condition in pod["status"]["conditions"].as_array().into_iter().flatten() {
        if condition["status"] == "False"
            && let Some(message) = condition["message"].as_str()
        {
            reasons.push(format!("{}: {message}", condition["reason"].as_str().unwrap_or_default()));
        }
    }
    if let Some(message) = pod["status"]["message"].as_str() {
        reasons.push(message.to_owned());
    }
    reasons
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn waiting(uid: &str, reason: &str, message: &str) -> Value {
        json!({"metadata": {"namespace": "web", "name": uid, "uid": uid, "labels": {"app": "web"}}, "status": {"phase": "Pending",
            "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": reason, "message": message}}}]}})
    }

    fn event(pod: &str, at: &str, revision: &str, reason: &str, message: &str) -> Value {
        json!({"involvedObject": {"kind": "Pod", "uid": pod}, "lastTimestamp": at, "type": "Warning", "reason": reason, "message": message,
            "metadata": {"resourceVersion": revision}})
    }

    #[test]
    fn a_pod_that_waits_says_the_newest_warning_where_its_status_says_nothing() {
        let warnings = Warnings::of(&[
            event("a", "2026-01-01T00:00:02Z", "9", "FailedMount", "configmap \"new\" not found"),
            event("a", "2026-01-01T00:00:02Z", "10", "FailedMount", "configmap \"newest\" not found"),
            event("a", "2026-01-01T00:00:01Z", "11", "FailedMount", "configmap \"old\" not found"),
            event("a", "2026-01-01T00:00:03Z", "12", "FailedScheduling", "0/1 nodes are available"),
            event("c", "2026-01-01T00:00:01Z", "13", "FailedMount", "of another"),
        ]);
        let rows = [
            (waiting("a", "ContainerCreating", ""), "container c: ContainerCreating: FailedMount: configmap \"newest\" not found"),
            (waiting("a", "ImagePullBackOff", "not there"), "container c: ImagePullBackOff: not there"),
            (waiting("b", "ContainerCreating", ""), "container c: ContainerCreating"),
        ];
        for (pod, said) in rows {
            assert_eq!(trouble(&pod, &warnings).unwrap()[2], said);
        }
    }

    #[test]
    fn of_many_pods_the_first_are_told() {
        let owner = json!({"metadata": {"uid": "d"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}});
        let mut pods: Vec<Value> = (10..20).map(|index| waiting(&index.to_string(), "ErrImagePull", "gone")).collect();
        let other = json!({"metadata": {"namespace": "web", "name": "z", "uid": "z"}, "status": {"phase": "Pending"}});
        pods.push(other.clone());
        let warnings = Warnings::default();
        assert_eq!(of_workload(&owner, &pods, &warnings).len(), 10);
        pods.extend([waiting("20", "ErrImagePull", "gone"), waiting("21", "ErrImagePull", "gone")]);
        let lines = of_workload(&owner, &pods, &warnings);
        assert_eq!((lines.len(), lines[10].as_str()), (11, "and 2 more pods: podbay get pods"));
        assert_eq!(of_workload(&other, &pods, &warnings), ["Pod web/z: starting"], "a pod by itself");
    }
}
