//! Which pods start and stop, and on which nodes. PURE.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Pod};
use serde::{Deserialize, Serialize};

use super::fields::printable;
use crate::control::refusal::FAILED_CREATE;
use crate::model::{Key, Kind, Object, Typed};
use crate::plan::Wait;
use crate::store::snapshot::Snapshot;

/// The pods of a preview.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pods {
    pub starts: Vec<PodPreview>,
    pub stops: Vec<PodPreview>,
    /// New or not: what has no node at the end.
    pub pending: Vec<PodPreview>,
}

/// Pods that fare alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodPreview {
    /// `web/shop-7c9f-*` where the end of the name depends on a UID that is not given yet.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Another node was equally good, or is better if a pod that ends makes room there in time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub count: usize,
}

/// Every pod that differs between two states, and every one that waits for a node in the second.
pub(super) fn pods(before: &Snapshot, after: &Snapshot, tied: &BTreeSet<Key>) -> Pods {
    let same = |state: &Snapshot, pod: &Object| state.get(pod.key()).filter(|other| other.uid() == pod.uid()).cloned();
    let (mut starts, mut stops, mut pending) = (Vec::new(), Vec::new(), Vec::new());
    for pod in after.list(Kind::Pod).filter(|pod| !pod.is_deleting()) {
        let Some(view) = pod.get::<Pod>() else { continue };
        let node = view.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let was_placed = same(before, pod).is_some_and(|old| node_of(&old).is_some());
        match node {
            None if !is_finished(pod) => {
                pending.push(PodPreview { name: name(after, pod), reason: Some(why_pending(view)), count: 1, ..PodPreview::default() });
            }
            Some(node) if !was_placed && !is_finished(pod) && trouble(after, &node).is_some() => {
                let reason = trouble(after, &node);
                pending.push(PodPreview {
                    name: name(after, pod),
                    node: Some(printable(&node)),
                    reason,
                    count: 1,
                    ..PodPreview::default()
                });
            }
            Some(node) if !was_placed => {
                let tied = tied.contains(pod.key());
                starts.push(PodPreview { name: name(after, pod), node: Some(printable(&node)), tied, reason: None, count: 1 });
            }
            _ => {}
        }
    }
    for pod in before.list(Kind::Pod).filter(|pod| !pod.is_deleting() && !is_finished(pod) && node_of(pod).is_some()) {
        if same(after, pod).is_none_or(|now| now.is_deleting()) {
            stops.push(PodPreview {
                name: name(before, pod),
                node: node_of(pod).map(|node| printable(&node)),
                count: 1,
                ..PodPreview::default()
            });
        }
    }
    Pods { starts: grouped(starts), stops: grouped(stops), pending: grouped(pending) }
}

/// Why a pod that is bound to a node does not start there.
fn trouble(state: &Snapshot, node: &str) -> Option<String> {
    let Some(object) = state.get(&Key::cluster(Kind::Node, node)) else {
        return Some(printable(&format!("there is no node {node}: the pod is deleted again")));
    };
    let conditions = object.get::<Node>().and_then(|node| node.status.as_ref()?.conditions.clone()).unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    (!ready).then(|| printable(&format!("node {node} is not ready")))
}

/// The pods that admission refuses their owner, from what the owner waits for.
pub(super) fn refused(state: &Snapshot, waits: &[Wait]) -> Vec<PodPreview> {
    let of = |Wait { subject: key, reason }: &Wait| {
        let wanted = match state.get(key).map(Object::typed)? {
            Typed::ReplicaSet(set) => set.spec.replicas.unwrap_or(1),
            Typed::Job(job) => job.spec.as_ref()?.parallelism.unwrap_or(1),
            _ => return None,
        };
        let there = state.owned_by(state.get(key)?.uid()).filter(|object| object.kind() == Kind::Pod && !is_finished(object)).count();
        let count = usize::try_from(wanted).ok()?.checked_sub(there).filter(|count| *count > 0)?;
        let name = format!("{}/{}-*", key.namespace, key.name);
        Some(PodPreview { name: printable(&name), reason: Some(printable(&reason.message)), count, ..PodPreview::default() })
    };
    waits.iter().filter(|wait| wait.reason.code == FAILED_CREATE).filter_map(of).collect()
}

/// A wait that is told among the pods: of a pod without a node, and of pods that cannot be made.
pub(super) fn is_told(state: &Snapshot, wait: &Wait) -> bool {
    let (key, makes_pods) = (&wait.subject, matches!(wait.subject.kind, Kind::ReplicaSet | Kind::Job));
    (wait.reason.code == FAILED_CREATE && makes_pods) || is_pending(state, key)
}

fn is_pending(state: &Snapshot, key: &Key) -> bool {
    state.get(key).is_some_and(|object| object.kind() == Kind::Pod && node_of(object).is_none())
}

/// How many pods.
pub(super) fn count(pods: &[PodPreview]) -> String {
    let sum: usize = pods.iter().map(|pod| pod.count).sum();
    if sum == 1 { "1 pod".to_owned() } else { format!("{sum} pods") }
}

/// "1 pod starts", "2 pods start".
pub(super) fn do_so(pods: &[PodPreview], verb: &str) -> String {
    let count = count(pods);
    let ending = if count == "1 pod" { "s" } else { "" };
    format!("{count} {verb}{ending}")
}

fn grouped(pods: Vec<PodPreview>) -> Vec<PodPreview> {
    let mut groups: BTreeMap<PodPreview, usize> = BTreeMap::new();
    for pod in pods {
        *groups.entry(pod).or_default() += 1;
    }
    groups.into_iter().map(|(pod, count)| PodPreview { count, ..pod }).collect()
}

/// Pods that are shown one by one where only the end of their names differs; more are one line.
const NAMED: usize = 10;

/// The pods as a person reads them: many of one owner that fare alike are told as their number.
pub(super) fn folded(pods: &[PodPreview]) -> Vec<PodPreview> {
    let whole = |pod: &PodPreview| PodPreview {
        name: pod.name.rsplit_once('-').map_or_else(|| pod.name.clone(), |(owner, _)| format!("{owner}-*")),
        count: 0,
        ..pod.clone()
    };
    let mut alike: BTreeMap<PodPreview, Vec<&PodPreview>> = BTreeMap::new();
    for pod in pods {
        alike.entry(whole(pod)).or_default().push(pod);
    }
    let told = alike.into_iter().flat_map(|(whole, pods)| match pods.len() {
        0..=NAMED => pods.into_iter().cloned().collect(),
        _ => vec![PodPreview { count: pods.iter().map(|pod| pod.count).sum(), ..whole }],
    });
    let mut told: Vec<PodPreview> = told.collect();
    told.sort_unstable();
    told
}

fn node_of(pod: &Object) -> Option<String> {
    pod.get::<Pod>()?.spec.as_ref()?.node_name.clone().filter(|node| !node.is_empty())
}

fn is_finished(pod: &Object) -> bool {
    let phase = pod.get::<Pod>().and_then(|pod| pod.status.as_ref()?.phase.clone());
    matches!(phase.as_deref(), Some("Succeeded" | "Failed"))
}

fn why_pending(pod: &Pod) -> String {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let scheduled =
        conditions.into_iter().find(|condition| condition.type_ == "PodScheduled").and_then(|condition| condition.message.clone());
    printable(&scheduled.unwrap_or_else(|| "no node was found yet".to_owned()))
}

/// A pod's name; with a star for the part that depends on UIDs which the simulation made up.
fn name(state: &Snapshot, pod: &Object) -> String {
    let (mut known, mut next) = (None, pod.clone());
    while let Some(owner) = next.controller().filter(|owner| owner.uid.starts_with("sim-")) {
        known = Some(owner.name.clone());
        let found = Kind::known(&owner.api_version, &owner.kind)
            .and_then(|kind| state.get(&Key::new(kind, pod.key().namespace.clone(), owner.name.clone())));
        match found {
            Some(object) => next = object.clone(),
            None => break,
        }
    }
    let name = known.map_or_else(|| pod.key().name.clone(), |known| format!("{known}-*"));
    printable(&format!("{}/{name}", pod.key().namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_ten_of_one_owner_on_one_node_are_one_line() {
        let pod = |name: String, node: &str| PodPreview { name, node: Some(node.to_owned()), count: 1, ..PodPreview::default() };
        let lines = |pods: &[PodPreview]| folded(pods).iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut pods: Vec<PodPreview> = (10..20).map(|index| pod(format!("web/a-{index}"), "n1")).collect();
        pods.push(pod("web/a-20".to_owned(), "n2"));
        pods.push(pod("web/b-10".to_owned(), "n1"));
        assert_eq!(folded(&pods), pods, "ten are named");
        pods.insert(10, pod("web/a-30".to_owned(), "n1"));
        assert_eq!(lines(&pods), ["web/a-* × 11  on n1", "web/a-20  on n2", "web/b-10  on n1"]);
    }
}
