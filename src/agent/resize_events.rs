//! What people are told of the resize of a pod's containers, from its status before a look and after it. PURE.
//!
//! Reasons, types and texts are the kubelet's (Kubernetes 1.35, `pkg/kubelet/events` and `pkg/kubelet/allocation`). What
//! stands in the status already is no news: each change is told once, by whatever process. Another amount that others
//! use meanwhile is none.

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus, ResourceRequirements};
use serde::Serialize;

use super::observed::{Memory, Sizing};
use super::resources;
use crate::model::event::LONGEST_MESSAGE;
use crate::model::pod::{self as model, INFEASIBLE, RESIZE_PENDING, RESIZING};

/// One thing to tell of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// What is news of the pod, which has ended neither before nor now. `memory`: with the sizing of now, and what was begun
/// before.
pub fn news(pod: &Pod, memory: &Memory, before: &PodStatus, after: &PodStatus) -> Vec<News> {
    let ended = |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if pod.metadata.deletion_timestamp.is_some() || ended(before) || ended(after) {
        return Vec::new();
    }
    let tell = |warning, reason, what: &str, error: &str| {
        let [all, short] = [pod.spec.as_ref(), None].map(|spec| format!("{what}: {}", sizes(spec, pod.metadata.generation, error)));
        // Cut short it would not say why.
        News { warning, reason, message: if all.len() > LONGEST_MESSAGE { short } else { all } }
    };
    let (was, is) = (condition(before, RESIZING), condition(after, RESIZING));
    let mut all = Vec::new();
    match &memory.sizing {
        Sizing::Unknown => {}
        Sizing::Waits(why) => {
            let told = condition(before, RESIZE_PENDING).filter(|it| it.reason.as_deref() == Some(why.code));
            if told.is_none_or(|it| it.observed_generation != pod.metadata.generation) {
                let reason = if why.code == INFEASIBLE { "ResizeInfeasible" } else { "ResizeDeferred" };
                all.push(tell(true, reason, &format!("Pod resize {}", why.code), &why.message));
            }
        }
        Sizing::Accepted | Sizing::Settled => {
            let appears = memory.begun.is_none() && was.is_none() && is.is_some();
            let begins = memory.sizing == Sizing::Accepted && (is_new(pod, memory, before) || appears);
            if begins {
                all.push(tell(false, "ResizeStarted", "Pod resize started", ""));
            }
            let failed = |it: Option<&PodCondition>| it.and_then(|it| Some((it.reason.clone()?, it.message.clone()?)));
            if let Some((_, error)) = failed(is).filter(|now| failed(was).as_ref() != Some(now)) {
                all.push(tell(true, "ResizeError", "Pod resize error", &error));
            }
            if is.is_none() && (was.is_some() || begins) {
                all.push(tell(false, "ResizeCompleted", "Pod resize completed", ""));
            }
        }
    }
    all
}

/// Whether what the pod's containers are given is something else than before, or was not given until now. Other changes of
/// the pod meanwhile are none.
pub fn is_new(pod: &Pod, memory: &Memory, before: &PodStatus) -> bool {
    if let Some(begun) = &memory.begun {
        return *begun != sizes_of(pod);
    }
    // While nothing is known of the node's room the status is of a later generation than what was begun.
    let begun = condition(before, RESIZING).map_or(before.observed_generation, |it| it.observed_generation);
    begun != pod.metadata.generation || condition(before, RESIZE_PENDING).is_some()
}

/// What the containers of a pod are to have, as far as it can be changed while they run.
pub fn sizes_of(pod: &Pod) -> String {
    let all = pod.spec.iter().flat_map(model::all_containers);
    all.map(|container| format!("{} {}\n", container.name, resources::told(container))).collect()
}

fn condition<'a>(status: &'a PodStatus, type_: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// What the kubelet's messages end in.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sizes<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Size<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Size<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[derive(Serialize)]
struct Size<'a> {
    name: &'a str,
    resources: &'a ResourceRequirements,
}

fn sizes(spec: Option<&PodSpec>, generation: Option<i64>, error: &str) -> String {
    static NONE: ResourceRequirements = ResourceRequirements { claims: None, limits: None, requests: None };
    fn all(containers: &[Container]) -> Vec<Size<'_>> {
        containers.iter().map(|it| Size { name: &it.name, resources: it.resources.as_ref().unwrap_or(&NONE) }).collect()
    }
    let inits = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let mains = spec.map(|spec| &spec.containers[..]).unwrap_or_default();
    let told = Sizes { init_containers: all(inits), containers: all(mains), generation: generation.unwrap_or(0), error };
    serde_json::to_string(&told).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::Reason;

    fn pod(generation: i64) -> Pod {
        let sized = json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}});
        serde_json::from_value(json!({"metadata": {"name": "p", "generation": generation}, "spec": {
            "initContainers": [{"name": "i", "image": "img", "resources": {"requests": {"memory": "1Mi"}}}],
            "containers": [{"name": "a", "image": "img", "resources": sized}, {"name": "b", "image": "img"}]}}))
        .unwrap()
    }

    /// A running pod's status, with conditions as `type`, `type reason` or `type reason: message`.
    fn status(generation: i64, conditions: &[&str]) -> PodStatus {
        let all = conditions.iter().map(|text| {
            let (head, message) = text.split_once(": ").map_or((*text, None), |(head, message)| (head, Some(message)));
            let (type_, reason) = head.split_once(' ').map_or((head, None), |(type_, reason)| (type_, Some(reason)));
            json!({"type": type_, "status": "True", "reason": reason, "message": message, "observedGeneration": generation})
        });
        serde_json::from_value(json!({"phase": "Running", "observedGeneration": generation, "conditions": all.collect::<Vec<_>>()}))
            .unwrap()
    }

    fn of(sizing: Sizing) -> Memory {
        Memory { sizing, ..Memory::default() }
    }

    #[test]
    fn what_is_no_size_begins_nothing() {
        let (given, began) = ("PodResizeInProgress", sizes_of(&pod(1)));
        let mut other = pod(2);
        other.spec.get_or_insert_default().containers[1].resources = serde_json::from_value(json!({"requests": {"cpu": "3"}})).unwrap();
        for (what, pod, begun, before, after, expected) in [
            ("another image, say", pod(2), Some(&began), status(1, &[given]), status(2, &[given]), &[][..]),
            ("and all is given", pod(2), Some(&began), status(1, &[given]), status(2, &[]), &["ResizeCompleted"]),
            ("its container runs a look later", pod(2), Some(&began), status(1, &[]), status(2, &[given]), &[]),
            ("what waited is no more wanted", pod(2), Some(&began), status(1, &["PodResizePending Deferred: 1"]), status(2, &[given]), &[]),
            ("another size", other.clone(), Some(&began), status(1, &[given]), status(2, &[given]), &["ResizeStarted"]),
            ("the same to a process that begins", pod(1), None, status(1, &[given]), status(1, &[given]), &[]),
            ("who knows to a process that begins", pod(2), None, status(1, &[given]), status(2, &[given]), &["ResizeStarted"]),
        ] {
            let memory = Memory { begun: begun.cloned(), ..of(Sizing::Accepted) };
            let reasons: Vec<&str> = news(&pod, &memory, &before, &after).into_iter().map(|it| it.reason).collect();
            assert_eq!(reasons, expected, "{what}");
        }
        // What cannot be changed while it runs is no size either.
        let limits = json!({"limits": {"ephemeral-storage": "1Gi"}});
        other.spec.get_or_insert_default().containers[1].resources = serde_json::from_value(limits).unwrap();
        assert_eq!(sizes_of(&other), began);
    }

    #[test]
    fn each_change_is_told_once() {
        let waits = |code: &'static str, message: &str| Sizing::Waits(Reason::new(code, message));
        let full = || waits("Deferred", "used: 2");
        let no_room = "PodResizePending Deferred: used: 1";
        let cases: &[(Sizing, PodStatus, PodStatus, &[&str])] = &[
            (Sizing::Settled, status(1, &["Ready"]), status(2, &["Ready"]), &[]),
            // Given at once, a look later, or to one that does not run: it has it when it starts.
            (Sizing::Accepted, status(1, &[]), status(2, &["PodResizeInProgress"]), &["ResizeStarted"]),
            (Sizing::Accepted, status(2, &["PodResizeInProgress"]), status(2, &["PodResizeInProgress"]), &[]),
            (Sizing::Settled, status(2, &["PodResizeInProgress"]), status(2, &[]), &["ResizeCompleted"]),
            (Sizing::Accepted, status(2, &["PodResizeInProgress"]), status(2, &[]), &["ResizeCompleted"]),
            (Sizing::Accepted, status(1, &[]), status(2, &[]), &["ResizeStarted", "ResizeCompleted"]),
            (Sizing::Accepted, status(2, &[]), status(2, &[]), &[]),
            (Sizing::Accepted, status(2, &[]), status(2, &["PodResizeInProgress"]), &["ResizeStarted"]),
            // Other sizes while it is given the first.
            (Sizing::Accepted, status(1, &["PodResizeInProgress"]), status(2, &["PodResizeInProgress"]), &["ResizeStarted"]),
            (full(), status(1, &["PodResizeInProgress"]), status(2, &[no_room]), &["ResizeDeferred"]),
            // No room: told again when it is another "no", or of another size.
            (full(), status(1, &[]), status(2, &[no_room]), &["ResizeDeferred"]),
            (full(), status(2, &[no_room]), status(2, &[no_room]), &[]),
            (full(), status(1, &[no_room]), status(2, &[no_room]), &["ResizeDeferred"]),
            (waits(INFEASIBLE, "9"), status(2, &[no_room]), status(2, &["PodResizePending Infeasible"]), &["ResizeInfeasible"]),
            (Sizing::Accepted, status(2, &[no_room]), status(2, &["PodResizeInProgress"]), &["ResizeStarted"]),
            (Sizing::Settled, status(1, &[no_room]), status(2, &[]), &[]),
            // Failures.
            (Sizing::Accepted, status(2, &["PodResizeInProgress"]), status(2, &["PodResizeInProgress Error: no"]), &["ResizeError"]),
            (Sizing::Accepted, status(2, &["PodResizeInProgress Error: no"]), status(2, &["PodResizeInProgress Error: no"]), &[]),
            (
                Sizing::Accepted,
                status(2, &["PodResizeInProgress Error: no"]),
                status(2, &["PodResizeInProgress Error: never"]),
                &["ResizeError"],
            ),
            (Sizing::Settled, status(2, &["PodResizeInProgress Error: no"]), status(2, &[]), &["ResizeCompleted"]),
            // Nobody knows yet.
            (Sizing::Unknown, status(1, &["PodResizeInProgress"]), status(2, &["PodResizeInProgress"]), &[]),
        ];
        // Of the second size nothing was known at first.
        let mut unknown = status(1, &["PodResizeInProgress Error: no"]);
        unknown.observed_generation = Some(2);
        let begun = news(&pod(2), &of(Sizing::Accepted), &unknown, &status(2, &["PodResizeInProgress"]));
        assert_eq!(begun.iter().map(|it| it.reason).collect::<Vec<_>>(), ["ResizeStarted"]);
        for (sizing, before, after, expected) in cases {
            let reasons: Vec<&str> = news(&pod(2), &of(sizing.clone()), before, after).into_iter().map(|it| it.reason).collect();
            assert_eq!(reasons, *expected, "{sizing:?} {before:?} {after:?}");
        }
    }

    #[test]
    fn nothing_is_told_of_a_pod_that_ends() {
        let (given, ended) = (status(2, &["PodResizeInProgress"]), PodStatus { phase: Some("Failed".to_owned()), ..status(2, &[]) });
        assert_eq!(news(&pod(2), &of(Sizing::Settled), &given, &ended), []);
        let mut deleted = pod(2);
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(news(&deleted, &of(Sizing::Settled), &given, &status(2, &[])), []);
    }

    #[test]
    fn the_kubelets_words() {
        let sizes = r#""initContainers":[{"name":"i","resources":{"requests":{"memory":"1Mi"}}}],"containers":[{"name":"a","resources":{"limits":{"cpu":"2"},"requests":{"cpu":"1"}}},{"name":"b","resources":{}}],"generation":2"#;
        let told = |sizing: &Sizing, before: &[&str], after: &[&str]| -> Vec<(bool, String)> {
            news(&pod(2), &of(sizing.clone()), &status(2, before), &status(2, after))
                .into_iter()
                .map(|it| (it.warning, it.message))
                .collect()
        };
        let given = "PodResizeInProgress";
        assert_eq!(told(&Sizing::Accepted, &[], &[given]), [(false, format!("Pod resize started: {{{sizes}}}"))]);
        assert_eq!(told(&Sizing::Settled, &[given], &[]), [(false, format!("Pod resize completed: {{{sizes}}}"))]);
        let full = Sizing::Waits(Reason::new("Deferred", "no \"room\""));
        assert_eq!(told(&full, &[], &[]), [(true, format!(r#"Pod resize Deferred: {{{sizes},"error":"no \"room\""}}"#))]);
        let failed = told(&Sizing::Accepted, &[given], &["PodResizeInProgress Error: no"]);
        assert_eq!(failed, [(true, format!(r#"Pod resize error: {{{sizes},"error":"no"}}"#))]);
        // More than an event can say: why is said rather than what.
        let mut large = pod(2);
        let spec = large.spec.get_or_insert_default();
        spec.containers = vec![spec.containers[0].clone(); 20];
        let failed = news(&large, &of(Sizing::Accepted), &status(2, &[given]), &status(2, &["PodResizeInProgress Error: no"]));
        assert_eq!(failed[0].message, r#"Pod resize error: {"generation":2,"error":"no"}"#);
    }
}
