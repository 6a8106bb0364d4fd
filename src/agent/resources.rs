//! Requests and limits as the runtime wants them: cgroup names, shares, quotas, scores. PURE.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceFieldSelector, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::cri::Resources;
use crate::model::pod::{QosClass, container_requests, qos_class};
use crate::model::quantity::Quantity;

/// The node's size: what no limit means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub storage_bytes: i64,
    /// By the size of a page, in bytes as well.
    pub huge_pages: BTreeMap<u64, i64>,
}

/// The resource that pages of a size are, as `hugepages-2Mi`.
pub fn pages_resource(page_bytes: u64) -> String {
    format!("hugepages-{}", Quantity::from_bytes(i64::try_from(page_bytes).unwrap_or(i64::MAX)).to_api().0)
}

/// The size of the pages that a resource is.
pub fn page_bytes(resource: &str) -> Option<u64> {
    let size = Quantity::parse(resource.strip_prefix("hugepages-")?).ok()?;
    u64::try_from(size.bytes()).ok().filter(|size| *size > 0)
}

/// A page's size as a cgroup's files have it: `2MB`.
fn page_name(bytes: u64) -> String {
    let units = [(30, "GB"), (20, "MB"), (10, "KB")];
    let (shift, unit) = units.into_iter().find(|(shift, _)| bytes.is_multiple_of(1 << shift)).unwrap_or((0, "B"));
    format!("{}{unit}", bytes >> shift)
}

/// What a container may have of each size of pages; nothing of those that there are and it does not ask for.
fn huge_pages(container: &Container, machine: &Machine) -> BTreeMap<String, u64> {
    let none = machine.huge_pages.iter().filter(|(_, there)| **there > 0).map(|(size, _)| (page_name(*size), 0));
    let limits = container.resources.iter().flat_map(|resources| resources.limits.iter().flatten());
    let asked = limits.filter_map(|(name, limit)| Some((page_name(page_bytes(name)?), Quantity::of(limit).bytes().unsigned_abs())));
    none.chain(asked).collect()
}

/// What can change while a container runs.
pub const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// What of a container's resources can change while it runs, as JSON: `limits` and `requests` of CPU and memory.
pub fn told(container: &Container) -> String {
    let of = |amounts: Option<&BTreeMap<String, ApiQuantity>>| {
        let all = amounts.into_iter().flatten().filter(|(name, _)| RESIZABLE.contains(&name.as_str()));
        let all: BTreeMap<String, ApiQuantity> = all.map(|(name, amount)| (name.clone(), amount.clone())).collect();
        Some(all).filter(|all| !all.is_empty())
    };
    let resources = container.resources.as_ref();
    let (limits, requests) = (resources.and_then(|it| it.limits.as_ref()), resources.and_then(|it| it.requests.as_ref()));
    let told = ResourceRequirements { limits: of(limits), requests: of(requests), claims: None };
    serde_json::to_string(&told).unwrap_or_default()
}

/// Whether one of the resources that differ is only given to a container that starts anew.
pub fn takes_a_restart(container: &Container, has: &str) -> bool {
    let had: ResourceRequirements = serde_json::from_str(has).unwrap_or_default();
    let wants: ResourceRequirements = serde_json::from_str(&told(container)).unwrap_or_default();
    let amount = |all: &Option<BTreeMap<String, ApiQuantity>>, name: &str| all.as_ref().and_then(|all| all.get(name).cloned());
    container.resize_policy.iter().flatten().filter(|rule| rule.restart_policy == "RestartContainer").any(|rule| {
        let name = rule.resource_name.as_str();
        amount(&had.limits, name) != amount(&wants.limits, name) || amount(&had.requests, name) != amount(&wants.requests, name)
    })
}

const PERIOD: i64 = 100_000;

/// The pod's cgroup below the runtime's root, by quality of service.
pub fn cgroup_parent(spec: &PodSpec, uid: &str) -> String {
    match qos_class(spec) {
        QosClass::Guaranteed => format!("pod{uid}"),
        QosClass::Burstable => format!("burstable/pod{uid}"),
        QosClass::BestEffort => format!("besteffort/pod{uid}"),
    }
}

/// One container's limits.
pub fn container(spec: &PodSpec, container: &Container, machine: &Machine) -> Resources {
    let requests = container_requests(container.resources.as_ref());
    let request = |name: &str| requests.get(name).copied().unwrap_or(Quantity::ZERO);
    let limit = |name: &str| limit(container, name);
    Resources {
        cpu_period: PERIOD.unsigned_abs(),
        cpu_quota: limit("cpu").map_or(0, |cpu| quota(cpu.millis())),
        cpu_shares: shares(request("cpu").millis()),
        memory_limit_bytes: limit("memory").map_or(0, |memory| memory.bytes().unsigned_abs()),
        pids_limit: 0,
        oom_score_adj: oom_score_adj(spec, request("memory").bytes(), machine),
        hugepages: huge_pages(container, machine),
        ..Resources::default()
    }
}

/// The pod as a whole: a limit only where every container has one. Beside the containers it holds what their runtime
/// needs for itself (`spec.overhead`).
pub fn pod(spec: &PodSpec) -> Resources {
    let overhead = |name: &str| spec.overhead.as_ref().and_then(|all| all.get(name)).map(Quantity::of).unwrap_or(Quantity::ZERO);
    let requests = crate::model::pod::requests(spec);
    let sum = |name: &str, amount: fn(&Quantity) -> i64| -> Option<i64> {
        let all: Option<Vec<i64>> = spec.containers.iter().chain(sidecars(spec)).map(|c| limit(c, name).map(|q| amount(&q))).collect();
        let inits = spec.init_containers.iter().flatten().map(|c| limit(c, name).map(|q| amount(&q)).unwrap_or(i64::MAX));
        all.map(|all| all.iter().sum::<i64>().max(inits.max().unwrap_or(0))).filter(|sum| *sum != i64::MAX)
    };
    Resources {
        cpu_period: PERIOD.unsigned_abs(),
        cpu_quota: sum("cpu", Quantity::millis).map_or(0, |sum| quota(sum + overhead("cpu").millis())),
        cpu_shares: shares(requests.get("cpu").copied().unwrap_or(Quantity::ZERO).millis()),
        memory_limit_bytes: sum("memory", Quantity::bytes).map_or(0, |sum| (sum + overhead("memory").bytes()).unsigned_abs()),
        ..Resources::default()
    }
}

fn sidecars(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().filter(|c| crate::model::pod::is_sidecar(c))
}

fn limit(container: &Container, name: &str) -> Option<Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(name).map(Quantity::of).filter(|limit| !limit.is_zero())
}

fn shares(millis: i64) -> u64 {
    (millis * 1024 / 1000).clamp(2, 262_144).unsigned_abs()
}

fn quota(millis: i64) -> i64 {
    (millis * PERIOD / 1000).max(1000)
}

/// Who is killed first when memory runs out: the kubelet's numbers.
fn oom_score_adj(spec: &PodSpec, request_bytes: i64, machine: &Machine) -> i32 {
    if spec.priority_class_name.as_deref() == Some("system-node-critical") {
        return -997;
    }
    match qos_class(spec) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let capacity = i128::from(machine.memory_bytes.max(1));
            let score = 1000 - i128::from(request_bytes) * 1000 / capacity;
            i32::try_from(score.clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// A `resourceFieldRef`: the amount in units of its divisor, rounded up.
///
/// # Errors
/// A resource the downward API does not know.
pub fn field(container: &Container, selector: &ResourceFieldSelector, machine: &Machine) -> Result<String, String> {
    let (side, name) = selector.resource.split_once('.').unwrap_or(("", &selector.resource));
    let requests = container_requests(container.resources.as_ref());
    let whole = match name {
        "cpu" => Quantity::from_millis(machine.cpu_millis),
        "memory" => Quantity::from_bytes(machine.memory_bytes),
        "ephemeral-storage" => Quantity::from_bytes(machine.storage_bytes),
        _ => match page_bytes(name) {
            Some(size) => Quantity::from_bytes(machine.huge_pages.get(&size).copied().unwrap_or(0)),
            None => return Err(format!("unsupported resource {}", selector.resource)),
        },
    };
    let amount = match side {
        "limits" => limit(container, name).unwrap_or(whole),
        "requests" => requests.get(name).copied().unwrap_or(Quantity::ZERO),
        _ => return Err(format!("unsupported resource {}", selector.resource)),
    };
    let divisor = selector.divisor.as_ref().map(Quantity::of).filter(|divisor| !divisor.is_zero()).unwrap_or(Quantity::from_units(1));
    let (amount, divisor) = (amount.nanos(), divisor.nanos());
    Ok(((amount + divisor - 1) / divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ResourceRequirements;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

    fn amounts(list: &[(&str, &str)]) -> Option<std::collections::BTreeMap<String, ApiQuantity>> {
        Some(list.iter().map(|(name, text)| ((*name).to_owned(), ApiQuantity((*text).to_owned()))).collect())
    }

    fn of(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
        let resources = ResourceRequirements { requests: amounts(requests), limits: amounts(limits), ..ResourceRequirements::default() };
        Container { name: "a".into(), resources: Some(resources), ..Container::default() }
    }

    fn machine() -> Machine {
        Machine { cpu_millis: 4000, memory_bytes: 8 << 30, storage_bytes: 1 << 30, ..Machine::default() }
    }

    #[test]
    fn limits_and_classes_as_the_kubelets() {
        let table = [
            (of(&[], &[]), "besteffort/podu", 2, 0, 0, 1000),
            (of(&[("cpu", "500m"), ("memory", "4Gi")], &[]), "burstable/podu", 512, 0, 0, 500),
            (of(&[("cpu", "1m")], &[("cpu", "2m"), ("memory", "64Mi")]), "burstable/podu", 2, 1000, 64 << 20, 993),
            (of(&[], &[("cpu", "2"), ("memory", "1Gi")]), "podu", 2048, 200_000, 1 << 30, -997),
        ];
        for (c, parent, shares, quota, memory, score) in table {
            let spec = PodSpec { containers: vec![c.clone()], ..PodSpec::default() };
            let got = container(&spec, &c, &machine());
            assert_eq!(cgroup_parent(&spec, "u"), parent);
            assert_eq!((got.cpu_shares, got.cpu_quota, got.memory_limit_bytes, got.oom_score_adj), (shares, quota, memory, score), "{c:?}");
        }
    }

    #[test]
    fn huge_pages_are_for_who_asks() {
        let machine = Machine { huge_pages: [(2 << 20, 64 << 20), (1 << 30, 0), (64 << 10, 1 << 20)].into(), ..machine() };
        let pages = |c: &Container| container(&PodSpec::default(), c, &machine).hugepages.into_iter().collect::<Vec<_>>();
        let pairs = |list: &[(&str, u64)]| list.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect::<Vec<_>>();
        assert_eq!(pages(&of(&[], &[])), pairs(&[("2MB", 0), ("64KB", 0)]), "of what there is");
        let asks = of(&[], &[("hugepages-2Mi", "8Mi"), ("hugepages-1Gi", "1Gi"), ("memory", "1Gi")]);
        assert_eq!(pages(&asks), pairs(&[("1GB", 1 << 30), ("2MB", 8 << 20), ("64KB", 0)]));
        for (name, bytes) in [("hugepages-2Mi", Some(2 << 20)), ("hugepages-1Gi", Some(1 << 30)), ("hugepages-x", None), ("memory", None)] {
            assert_eq!(page_bytes(name), bytes, "{name}");
        }
        assert_eq!([2 << 20, 1 << 30, 64 << 10].map(pages_resource), ["hugepages-2Mi", "hugepages-1Gi", "hugepages-64Ki"]);
    }

    #[test]
    fn a_pod_is_limited_only_where_every_container_is() {
        let limited = of(&[], &[("cpu", "1"), ("memory", "1Gi")]);
        let both = PodSpec { containers: vec![limited.clone(), limited.clone()], ..PodSpec::default() };
        assert_eq!((pod(&both).memory_limit_bytes, pod(&both).cpu_quota), (2 << 30, 200_000));
        let heavy = PodSpec { overhead: amounts(&[("cpu", "500m"), ("memory", "64Mi")]), ..both.clone() };
        assert_eq!((pod(&heavy).memory_limit_bytes, pod(&heavy).cpu_quota), ((2 << 30) + (64 << 20), 250_000));
        let one = PodSpec { containers: vec![limited, of(&[], &[])], ..PodSpec::default() };
        assert_eq!((pod(&one).memory_limit_bytes, pod(&one).cpu_quota), (0, 0));
        let open_init = PodSpec { init_containers: Some(vec![of(&[], &[])]), ..both };
        assert_eq!(pod(&open_init).memory_limit_bytes, 0);
    }

    #[test]
    fn fields_are_divided_and_rounded_up() {
        let c = of(&[("cpu", "250m")], &[("memory", "100Mi")]);
        let table = [
            ("limits.memory", "1Mi", "100"),
            ("limits.memory", "0", "104857600"),
            ("requests.cpu", "1", "1"),
            ("requests.cpu", "1m", "250"),
            ("limits.cpu", "1", "4"),
            ("limits.hugepages-2Mi", "1Mi", "0"),
        ];
        for (resource, divisor, want) in table {
            let selector =
                ResourceFieldSelector { resource: resource.into(), divisor: Some(ApiQuantity(divisor.into())), container_name: None };
            assert_eq!(field(&c, &selector, &machine()).as_deref(), Ok(want), "{resource} by {divisor}");
        }
        let unknown = ResourceFieldSelector { resource: "limits.gpu".into(), ..ResourceFieldSelector::default() };
        assert!(field(&c, &unknown, &machine()).is_err());
    }
}
