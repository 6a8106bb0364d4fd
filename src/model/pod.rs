//! What a pod's fields mean taken together: phase, readiness, requests, QoS class. PURE.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::ToSpan;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, EphemeralContainer, Pod, PodCondition, PodSpec, PodStatus, ResourceRequirements, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Timestamp;
use super::quantity::Quantity;

/// Amounts by resource name (`cpu`, `memory`, `ephemeral-storage`, extended ones).
pub type Resources = BTreeMap<String, Quantity>;

/// `status.phase`; `Pending` where nothing was reported yet.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Succeeded or Failed: no container of it will ever run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Counts for its owner: neither finished nor on its way out.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_deleting(pod)
}

/// The node it is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// Its `Ready` condition is `True`.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when it is ready, if it is and the time is known.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// What its owner counts it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    is_terminal: bool,
    is_deleting: bool,
    is_ready: bool,
    ready_since: Option<Timestamp>,
}

pub fn standing(pod: &Pod) -> Standing {
    Standing { is_terminal: is_terminal(pod), is_deleting: is_deleting(pod), is_ready: is_ready(pod), ready_since: ready_since(pod) }
}

/// Whether a pod has been ready for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    Available,
    /// Ready, and available from then on if it stays so.
    From(Timestamp),
    NotReady,
}

pub fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    if !is_ready(pod) {
        return Availability::NotReady;
    }
    if min_ready_seconds <= 0 {
        return Availability::Available;
    }
    let from = ready_since(pod).and_then(|since| since.checked_add(i64::from(min_ready_seconds).seconds()).ok()).unwrap_or(now);
    if from <= now { Availability::Available } else { Availability::From(from) }
}

/// Sets a condition; the transition time moves only when the status does.
pub fn set_condition(status: &mut PodStatus, mut condition: PodCondition, now: Timestamp) {
    let all = status.conditions.get_or_insert_with(Vec::new);
    let known = all.iter_mut().find(|known| known.type_ == condition.type_);
    match known {
        Some(known) => {
            let moved = known.status != condition.status;
            condition.last_transition_time = if moved { Some(Time(now)) } else { known.last_transition_time.clone() };
            *known = condition;
        }
        None => {
            condition.last_transition_time = Some(Time(now));
            all.push(condition);
        }
    }
}

/// Every container in the order of starting: init containers, then the others.
pub fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

pub fn container<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a Container> {
    all_containers(spec).find(|container| container.name == name)
}

/// An ephemeral container as the container it is: the same fields, and no target.
pub fn plain(ephemeral: &EphemeralContainer) -> Container {
    let fields = serde_json::to_value(ephemeral).unwrap_or_default();
    serde_json::from_value(fields).unwrap_or_else(|_| Container { name: ephemeral.name.clone(), ..Container::default() })
}

/// Every container of all three lists; ephemeral ones last.
pub fn each_container(spec: &PodSpec) -> impl Iterator<Item = Cow<'_, Container>> {
    let ephemerals = spec.ephemeral_containers.iter().flatten().map(|it| Cow::Owned(plain(it)));
    all_containers(spec).map(Cow::Borrowed).chain(ephemerals)
}

/// The container of this name, of any list.
pub fn any_container<'a>(spec: &'a PodSpec, name: &str) -> Option<Cow<'a, Container>> {
    let ephemeral = || spec.ephemeral_containers.iter().flatten().find(|it| it.name == name);
    container(spec, name).map(Cow::Borrowed).or_else(|| ephemeral().map(|it| Cow::Owned(plain(it))))
}

pub fn is_init_container(spec: &PodSpec, name: &str) -> bool {
    spec.init_containers.iter().flatten().any(|container| container.name == name)
}

/// The status of a container of whatever kind.
pub fn any_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let ephemeral = pod.status.as_ref().and_then(|status| status.ephemeral_container_statuses.as_ref());
    container_status(pod, name).or_else(|| ephemeral?.iter().find(|status| status.name == name))
}

pub fn container_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    all.into_iter().find(|status| status.name == name)
}

/// An init container that keeps running beside the others.
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// `spec.restartPolicy`.
pub fn restart_policy(spec: &PodSpec) -> &str {
    spec.restart_policy.as_deref().unwrap_or("Always")
}

/// Whether a container that ended with `exit_code` is started again on its node.
pub fn restartable(spec: &PodSpec, name: &str, exit_code: i32) -> bool {
    let init = spec.init_containers.iter().flatten().find(|container| container.name == name);
    match (init, restart_policy(spec)) {
        (Some(init), _) if is_sidecar(init) => true,
        (Some(_), "Never") => false,
        (Some(_), _) => exit_code != 0,
        (None, "Never") => false,
        (None, "OnFailure") => exit_code != 0,
        (None, _) => true,
    }
}

/// How many times containers of the pod were started again.
pub fn restarts(pod: &Pod) -> i32 {
    let Some(status) = pod.status.as_ref() else { return 0 };
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    all.map(|status| status.restart_count).sum()
}

/// The condition of a pod whose containers are not given what they are to have, and its reasons (Kubernetes 1.33).
pub const RESIZE_PENDING: &str = "PodResizePending";
/// The node will never have it.
pub const INFEASIBLE: &str = "Infeasible";
/// The node does not have it now.
pub const DEFERRED: &str = "Deferred";
/// The condition of a pod whose containers do not have yet what they are given.
pub const RESIZING: &str = "PodResizeInProgress";

/// What a pod takes of its node: what it asks, and beside it what its containers still have while they are resized; what is
/// infeasible is not asked (kube-scheduler's `PodRequests` with `UseStatusResources`).
pub fn claims(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::new() };
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let resized: Vec<_> = conditions.filter(|it| [RESIZE_PENDING, RESIZING].contains(&it.type_.as_str())).collect();
    if resized.is_empty() {
        return requests(spec);
    }
    let infeasible = resized.iter().any(|it| it.type_ == RESIZE_PENDING && it.reason.as_deref() == Some(INFEASIBLE));
    let mut both = spec.clone();
    for container in both.init_containers.iter_mut().flatten().chain(&mut both.containers) {
        let Some(status) = container_status(pod, &container.name) else { continue };
        let has = status.resources.as_ref().and_then(|has| has.requests.as_ref());
        let resources = container.resources.get_or_insert_default();
        let known = status.resources.is_some() || status.allocated_resources.is_some();
        if infeasible && known && status.state.as_ref().is_some_and(|state| state.running.is_some()) {
            // What it never had either. Limits go with it: they count as requests where there is none.
            for all in [&mut resources.requests, &mut resources.limits].into_iter().flatten() {
                all.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
            }
        }
        let wanted = resources.requests.get_or_insert_default();
        for (name, amount) in has.into_iter().chain(&status.allocated_resources).flatten() {
            let asked = wanted.entry(name.clone()).or_insert_with(|| amount.clone());
            if infeasible || Quantity::of(asked) < Quantity::of(amount) {
                asked.clone_from(amount);
            }
        }
    }
    requests(&both)
}

/// What a node has to have free for the pod: the larger of what runs together and what each init
/// container needs beside the sidecars before it, plus overhead. Pod-level requests take their
/// place where given.
pub fn requests(spec: &PodSpec) -> Resources {
    let mut running = Resources::new();
    let mut sidecars = Resources::new();
    let mut peak = Resources::new();
    for init in spec.init_containers.iter().flatten() {
        let wanted = container_requests(init.resources.as_ref());
        if is_sidecar(init) {
            add(&mut running, &wanted);
            add(&mut sidecars, &wanted);
            raise(&mut peak, &sidecars);
        } else {
            let mut together = wanted;
            add(&mut together, &sidecars);
            raise(&mut peak, &together);
        }
    }
    for container in &spec.containers {
        let wanted = container_requests(container.resources.as_ref());
        // Most pods have one container: what it asks is not copied.
        if running.is_empty() {
            running = wanted;
        } else {
            add(&mut running, &wanted);
        }
    }
    raise(&mut running, &peak);
    for (name, amount) in container_requests(spec.resources.as_ref()) {
        running.insert(name, amount);
    }
    for (name, amount) in spec.overhead.iter().flatten() {
        let sum = running.entry(name.clone()).or_default();
        *sum = *sum + Quantity::of(amount);
    }
    running
}

/// A container's requests; a limit without a request counts as both.
pub fn container_requests(resources: Option<&ResourceRequirements>) -> Resources {
    let Some(resources) = resources else { return Resources::new() };
    let limits = resources.limits.iter().flatten();
    let requests = resources.requests.iter().flatten();
    limits.chain(requests).map(|(name, amount)| (name.clone(), Quantity::of(amount))).collect()
}

pub fn add(sum: &mut Resources, more: &Resources) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_default();
        *entry = *entry + *amount;
    }
}

fn raise(peak: &mut Resources, other: &Resources) {
    for (name, amount) in other {
        let entry = peak.entry(name.clone()).or_default();
        *entry = std::cmp::max(*entry, *amount);
    }
}

/// Whether a toleration covers a taint: key, effect and value, each of which may be left open.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let open = |text: Option<&str>| text.is_none_or(str::is_empty);
    let effect = open(toleration.effect.as_deref()) || toleration.effect.as_deref() == Some(&taint.effect);
    let key = open(toleration.key.as_deref()) || toleration.key.as_deref() == Some(&taint.key);
    let value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        _ => !open(toleration.key.as_deref()) && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
    };
    effect && key && value
}

/// Kubernetes' quality-of-service class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn name(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

/// The class: by cpu and memory of all containers, or of the pod where it sets its own.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let pod_level = spec.resources.as_ref().filter(|own| own.requests.is_some() || own.limits.is_some());
    let all: Vec<Option<&ResourceRequirements>> = match pod_level {
        Some(own) => vec![Some(own)],
        None => all_containers(spec).map(|container| container.resources.as_ref()).collect(),
    };
    let amount =
        |list: Option<&BTreeMap<String, _>>, name: &str| list.and_then(|list| list.get(name)).map(Quantity::of).unwrap_or_default();
    let mut asks = false;
    let mut guaranteed = !all.is_empty();
    for resources in all {
        let requested = container_requests(resources);
        let limits = resources.and_then(|it| it.limits.as_ref());
        for name in ["cpu", "memory"] {
            let limit = amount(limits, name);
            let request = requested.get(name).copied().unwrap_or_default();
            asks |= !limit.is_zero() || !request.is_zero();
            guaranteed &= !limit.is_zero() && limit == request;
        }
    }
    match (asks, guaranteed) {
        (_, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
        (false, false) => QosClass::BestEffort,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).expect("a pod spec")
    }

    fn cpu(value: &str) -> Value {
        json!({"requests": {"cpu": value}})
    }

    #[test]
    fn requests_take_the_larger_of_start_and_run() {
        let pod = spec(json!({
            "containers": [{"name": "a", "resources": cpu("100m")}, {"name": "b", "resources": cpu("200m")}],
            "initContainers": [
                {"name": "early", "resources": cpu("350m")},
                {"name": "side", "restartPolicy": "Always", "resources": cpu("50m")},
                {"name": "late", "resources": cpu("340m")},
            ],
            "overhead": {"cpu": "10m"},
        }));
        // running 100+200+50 = 350; starting max(350, 340+50) = 390; overhead 10
        assert_eq!(requests(&pod)["cpu"].cpu_millis(), 400);
    }

    #[test]
    fn a_limit_alone_is_a_request() {
        let pod = spec(json!({"containers": [{"name": "a", "resources": {"limits": {"memory": "1Gi"}}}]}));
        assert_eq!(requests(&pod)["memory"].bytes(), 1 << 30);
    }

    #[test]
    fn qos_classes() {
        let one = |resources: Value| qos_class(&spec(json!({"containers": [{"name": "a", "resources": resources}]})));
        assert_eq!(one(json!({})), QosClass::BestEffort);
        assert_eq!(one(cpu("1")), QosClass::Burstable);
        assert_eq!(one(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), QosClass::Guaranteed);
        assert_eq!(one(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}})), QosClass::Guaranteed);
        assert_eq!(one(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})), QosClass::Burstable);
        assert_eq!(one(json!({"limits": {"cpu": "1"}})), QosClass::Burstable);
    }

    #[test]
    fn restarts_follow_the_policy() {
        let pod = |policy: &str| {
            spec(json!({"restartPolicy": policy, "containers": [{"name": "c"}],
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}))
        };
        for (policy, name, code, again) in [
            ("Always", "c", 0, true),
            ("OnFailure", "c", 0, false),
            ("OnFailure", "c", 1, true),
            ("Never", "c", 1, false),
            ("Always", "i", 0, false),
            ("Always", "i", 1, true),
            ("Never", "i", 1, false),
            ("Never", "s", 0, true),
        ] {
            assert_eq!(restartable(&pod(policy), name, code), again, "{policy} {name} {code}");
        }
    }

    #[test]
    fn availability_waits_for_min_ready() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
        .expect("a pod");
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        assert_eq!(availability(&pod, 0, at("2026-01-01T00:00:00Z")), Availability::Available);
        assert_eq!(availability(&pod, 10, at("2026-01-01T00:00:09Z")), Availability::From(at("2026-01-01T00:00:10Z")));
        assert_eq!(availability(&pod, 10, at("2026-01-01T00:00:10Z")), Availability::Available);
        assert_eq!(availability(&Pod::default(), 10, at("2026-01-01T00:00:10Z")), Availability::NotReady);
    }
}
