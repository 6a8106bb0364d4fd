//! Whether a pod has taken more of the node's disk than it may, in the kubelet's words. PURE.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, PodSpec, Volume};

use crate::model::pod::{all_containers, is_sidecar};
use crate::model::quantity::Quantity;

const RESOURCE: &str = "ephemeral-storage";
/// All walks together work one part in so many of the time.
const SHARE: u32 = 20;
/// Whoever waited for its disk, and did not work, need not rest for ever.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// What a pod takes on the disk, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Writable layer and logs, by container.
    pub containers: BTreeMap<String, u64>,
    /// By volume, of those that are directories of the pod's own.
    pub volumes: BTreeMap<String, u64>,
}

/// The volumes that take room on the node's disk: emptyDirs in no other medium, and what is made like one.
pub fn on_disk(spec: &PodSpec) -> impl Iterator<Item = &Volume> {
    let empty = |source: &EmptyDirVolumeSource| source.medium.as_deref().unwrap_or_default().is_empty();
    spec.volumes.iter().flatten().filter(move |volume| volume.empty_dir.as_ref().is_some_and(empty))
}

fn limit(container: &Container) -> Option<Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(RESOURCE).map(Quantity::of)
}

fn size_limit(volume: &Volume) -> Option<Quantity> {
    volume.empty_dir.as_ref()?.size_limit.as_ref().map(Quantity::of).filter(|limit| !limit.is_zero())
}

/// What the containers together may take: those that run side by side, or the greatest that runs before them.
fn pod_limit(spec: &PodSpec) -> Option<Quantity> {
    let sum = |one: Option<Quantity>, other: Option<Quantity>| match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    };
    let (mut sidecars, mut most) = (None, None);
    for init in spec.init_containers.iter().flatten() {
        let with_it = sum(sidecars, limit(init));
        if is_sidecar(init) {
            sidecars = with_it;
        }
        most = [most, with_it].into_iter().flatten().max_by_key(Quantity::bytes);
    }
    let running = spec.containers.iter().map(limit).fold(sidecars, sum);
    [most, running].into_iter().flatten().max_by_key(Quantity::bytes)
}

/// Whether there is anything that a pod could be beyond.
pub fn is_limited(spec: &PodSpec) -> bool {
    on_disk(spec).any(|volume| size_limit(volume).is_some()) || all_containers(spec).any(|container| limit(container).is_some())
}

/// Why a pod is to go; none: it keeps to its limits.
pub fn excess(spec: &PodSpec, taken: &Taken) -> Option<String> {
    let is_beyond = |used: u64, limit: &Quantity| i64::try_from(used).unwrap_or(i64::MAX) > limit.bytes();
    let of = |all: &BTreeMap<String, u64>, name: &str| all.get(name).copied().unwrap_or(0);
    for volume in on_disk(spec) {
        if let Some(limit) = size_limit(volume).filter(|limit| is_beyond(of(&taken.volumes, &volume.name), limit)) {
            return Some(format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{limit}\". ", volume.name));
        }
    }
    let together: u64 = taken.containers.values().chain(taken.volumes.values()).fold(0, |sum, bytes| sum.saturating_add(*bytes));
    if let Some(sum) = pod_limit(spec).filter(|sum| is_beyond(together, sum)) {
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {sum}. "));
    }
    all_containers(spec).find_map(|container| {
        let limit = limit(container).filter(|limit| is_beyond(of(&taken.containers, &container.name), limit))?;
        Some(format!("Container {} exceeded its local ephemeral storage limit \"{limit}\". ", container.name))
    })
}

/// How long one of so many walks rests after a stretch of work.
pub fn rest(worked: Duration, walks: usize) -> Duration {
    let walks = u32::try_from(walks.max(1)).unwrap_or(u32::MAX);
    worked.saturating_mul(SHARE.saturating_mul(walks) - 1).min(LONGEST_REST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(limits: [Option<&str>; 2], volumes: Value) -> PodSpec {
        let container =
            |name: &str, limit: Option<&str>| json!({"name": name, "resources": {"limits": limit.map(|limit| json!({RESOURCE: limit}))}});
        let all = [container("a", limits[0]), container("b", limits[1])];
        serde_json::from_value(json!({"containers": all, "volumes": volumes})).unwrap()
    }

    fn taken(containers: [u64; 2], volume: u64) -> Taken {
        let [a, b] = containers.map(|mebibytes| mebibytes << 20);
        Taken { containers: [("a".to_owned(), a), ("b".to_owned(), b)].into(), volumes: [("v".to_owned(), volume << 20)].into() }
    }

    #[test]
    fn whoever_takes_more_than_it_may_has_to_go() {
        let volume = |limit: Value| json!([{"name": "v", "emptyDir": {"sizeLimit": limit}}]);
        let none = volume(Value::Null);
        for (spec, taken, expected) in [
            (spec([None, None], none.clone()), taken([900, 900], 900), ""),
            (spec([Some("5Mi"), Some("5Mi")], none.clone()), taken([4, 4], 2), ""),
            (
                spec([Some("5Mi"), Some("5Mi")], none.clone()),
                taken([6, 0], 0),
                "Container a exceeded its local ephemeral storage limit \"5Mi\". ",
            ),
            (
                spec([Some("5Mi"), Some("5Mi")], none.clone()),
                taken([4, 4], 3),
                "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. ",
            ),
            (
                spec([None, Some("5Mi")], none),
                taken([6, 0], 0),
                "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. ",
            ),
            (spec([None, None], volume(json!("1Mi"))), taken([9, 9], 1), ""),
            (spec([None, None], volume(json!("1Mi"))), taken([0, 0], 2), "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
        ] {
            assert_eq!(excess(&spec, &taken).unwrap_or_default(), expected, "{spec:?}");
        }
    }

    #[test]
    fn what_runs_before_and_beside_has_room_of_its_own() {
        let limited = |name: &str, limit: &str| json!({"name": name, "resources": {"limits": {RESOURCE: limit}}});
        let mut sidecar = limited("s", "5Mi");
        sidecar["restartPolicy"] = json!("Always");
        let spec = |inits: Value| -> PodSpec {
            serde_json::from_value(json!({"initContainers": inits, "containers": [limited("a", "5Mi")]})).unwrap()
        };
        let takes = |spec: &PodSpec, bytes: u64| excess(spec, &taken([0, 0], bytes)).is_some();
        assert!(!takes(&spec(json!([sidecar])), 9) && takes(&spec(json!([sidecar])), 11));
        assert!(!takes(&spec(json!([limited("i", "20Mi")])), 19) && takes(&spec(json!([limited("i", "20Mi")])), 21));
    }

    #[test]
    fn only_what_is_limited_is_looked_at() {
        let limited = |limits, volumes| is_limited(&spec(limits, volumes));
        assert!(!limited([None, None], json!([{"name": "v", "emptyDir": {}}])));
        assert!(
            !limited([None, None], json!([{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}])),
            "the kernel sees to that"
        );
        assert!(limited([None, None], json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}])));
        assert!(limited([None, Some("1Gi")], json!([])));
    }

    #[test]
    fn walks_have_a_share_of_the_processor_together() {
        let milliseconds = |worked, walks| rest(Duration::from_millis(worked), walks).as_millis();
        assert_eq!([(1, 1), (1, 0), (1, 4), (10, 4), (0, 9)].map(|(worked, walks)| milliseconds(worked, walks)), [19, 19, 79, 790, 0]);
        assert_eq!([(60_000, 1), (u64::MAX, usize::MAX)].map(|(worked, walks)| milliseconds(worked, walks)), [10_000; 2]);
    }
}
