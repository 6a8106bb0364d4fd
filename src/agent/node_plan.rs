//! This host as a Node object: labels, capacity, conditions. PURE.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};

use super::config::Layout;
use super::resources::{Machine, page_bytes, pages_resource};
use super::{Options, Server};
use crate::cri::{Features, Image, RuntimeCondition};
use crate::model::Timestamp;
use crate::model::local_volume::VOLUMES;
use crate::model::quantity::Quantity;

/// The namespace of node leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
/// So many images a Node tells of (the kubelet's `nodeStatusMaxImages`), with so many names each
/// (`MaxNamesPerImageInNodeStatus` in its `nodestatus` package).
const MOST_IMAGES: usize = 50;
const MOST_NAMES: usize = 5;

/// What was measured on this host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub machine: Machine,
    pub machine_id: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
    /// `amd64`, as Go names it.
    pub architecture: String,
    pub runtime_version: String,
    pub runtime: Vec<RuntimeCondition>,
    /// What each of the runtime's handlers can do.
    pub handlers: Vec<(String, Features)>,
    /// `None`: the runtime did not say.
    pub images: Option<Vec<Image>>,
    pub network_problems: Vec<String>,
    /// Why pods resolve nothing outside the cluster.
    pub dns_problem: Option<String>,
    pub pressure: Pressure,
}

/// What is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
}

/// Whether no pod runs without it (CRI, `RuntimeCondition`).
fn is_needed(condition: &RuntimeCondition) -> bool {
    matches!(condition.kind.as_str(), "RuntimeReady" | "NetworkReady")
}

fn broken(facts: &Facts) -> impl Iterator<Item = &RuntimeCondition> {
    facts.runtime.iter().filter(|condition| !condition.ok && is_needed(condition))
}

/// Whether the runtime says nothing that keeps pods from it.
pub fn takes_pods(facts: &Facts) -> bool {
    broken(facts).next().is_none()
}

/// Labels every node has, over those configured.
pub fn labels(options: &Options, facts: &Facts) -> BTreeMap<String, String> {
    let mut labels = options.labels.clone();
    labels.insert("kubernetes.io/hostname".to_owned(), options.hostname().to_owned());
    labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    labels.insert("kubernetes.io/arch".to_owned(), facts.architecture.clone());
    labels
}

/// What every node tells Podbay's server of itself beside: where volumes are made on it.
pub fn annotations(options: &Options) -> BTreeMap<String, String> {
    if options.server != Server::Podbay {
        return BTreeMap::new();
    }
    let volumes = Layout { data_dir: options.data_dir.clone() }.made_volumes();
    BTreeMap::from([(VOLUMES.to_owned(), volumes.display().to_string())])
}

/// The Node as it is first created.
pub fn fresh(options: &Options, facts: &Facts, now: Timestamp) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(options.node_name.clone()),
            labels: Some(labels(options, facts)),
            annotations: Some(annotations(options)).filter(|all| !all.is_empty()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { taints: Some(options.taints.clone()).filter(|taints| !taints.is_empty()), ..NodeSpec::default() }),
        status: Some(status(options, facts, None, now)),
    }
}

/// The Node's status, keeping from the old one what is not the agent's and times that did not move.
pub fn status(options: &Options, facts: &Facts, old: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let mut status = old.cloned().unwrap_or_default();
    let mut capacity = capacity(options, facts);
    // As the kubelet leaves what others advertise (Kubernetes' documentation: Advertise Extended Resources for a Node).
    let foreign = status.capacity.take().unwrap_or_default().into_iter().filter(|(name, _)| page_bytes(name).is_none());
    for (name, amount) in foreign {
        capacity.entry(name).or_insert(amount);
    }
    status.allocatable = Some(allocatable(&capacity, &options.reserved));
    status.runtime_handlers = Some(facts.handlers.iter().map(handler).collect()).filter(|all: &Vec<_>| !all.is_empty());
    let usual = facts.handlers.iter().find(|(name, _)| name.is_empty());
    status.features = usual.map(|(_, can)| NodeFeatures { supplemental_groups_policy: Some(can.supplemental_groups_policy) });
    status.capacity = Some(capacity);
    if let Some(present) = &facts.images {
        status.images = Some(images(present)).filter(|all| !all.is_empty());
    }
    status.addresses = Some(addresses(options));
    status.daemon_endpoints =
        Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(options.node_api_port) }) });
    status.node_info = Some(NodeSystemInfo {
        architecture: facts.architecture.clone(),
        boot_id: facts.boot_id.clone(),
        container_runtime_version: facts.runtime_version.clone(),
        kernel_version: facts.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: concat!("v", env!("CARGO_PKG_VERSION"), "+podbay").to_owned(),
        machine_id: facts.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: facts.os_image.clone(),
        system_uuid: facts.machine_id.clone(),
        ..NodeSystemInfo::default()
    });
    let old_conditions = status.conditions.take().unwrap_or_default();
    let mut conditions: Vec<NodeCondition> = conditions(facts).into_iter().map(|fresh| keep_times(fresh, &old_conditions, now)).collect();
    let foreign = |old: &&NodeCondition| !conditions.iter().any(|own| own.type_ == old.type_) && !old.type_.starts_with(WARNING);
    let rest: Vec<NodeCondition> = old_conditions.iter().filter(foreign).cloned().collect();
    conditions.extend(rest);
    status.conditions = Some(conditions);
    status
}

/// As often a node says anew what has not changed (the kubelet's `nodeStatusReportFrequency`).
const REPORT: SignedDuration = SignedDuration::from_mins(5);

/// Conditions that are there only while there is something to say.
const WARNING: &str = "podbay.dev/";

fn keep_times(mut fresh: NodeCondition, old: &[NodeCondition], now: Timestamp) -> NodeCondition {
    let before = old.iter().find(|condition| condition.type_ == fresh.type_);
    let same_status = before.filter(|before| before.status == fresh.status);
    fresh.last_transition_time = same_status.and_then(|before| before.last_transition_time.clone()).or(Some(Time(now)));
    // The lease is the heartbeat. Who looks here sees that the node lives, and the store keeps it in memory only.
    let same = same_status.filter(|before| before.reason == fresh.reason && before.message == fresh.message);
    let known = same.and_then(|before| before.last_heartbeat_time.clone()).filter(|known| now.duration_since(known.0) < REPORT);
    fresh.last_heartbeat_time = known.or(Some(Time(now)));
    fresh
}

fn addresses(options: &Options) -> Vec<NodeAddress> {
    let of = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let internal = options.node_addresses.iter().map(|address| of("InternalIP", address.to_string()));
    internal.chain([of("Hostname", options.hostname().to_owned())]).collect()
}

fn capacity(options: &Options, facts: &Facts) -> BTreeMap<String, ApiQuantity> {
    let machine = &facts.machine;
    let mut all = BTreeMap::from([
        ("cpu".to_owned(), Quantity::from_millis(machine.cpu_millis).to_api()),
        ("memory".to_owned(), Quantity::from_bytes(machine.memory_bytes).to_api()),
        ("ephemeral-storage".to_owned(), Quantity::from_bytes(machine.storage_bytes).to_api()),
        ("pods".to_owned(), Quantity::from_units(i64::from(options.max_pods)).to_api()),
    ]);
    all.extend(machine.huge_pages.iter().map(|(size, bytes)| (pages_resource(*size), Quantity::from_bytes(*bytes).to_api())));
    all.extend(options.capacity.iter().map(|(name, text)| (name.clone(), ApiQuantity(text.clone()))));
    all
}

/// The largest that have a name.
fn images(present: &[Image]) -> Vec<ContainerImage> {
    let mut all: Vec<&Image> = present.iter().filter(|image| !(image.digests.is_empty() && image.tags.is_empty())).collect();
    all.sort_unstable_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
    let told = |image: &Image| ContainerImage {
        names: Some(image.digests.iter().chain(&image.tags).take(MOST_NAMES).cloned().collect()),
        size_bytes: i64::try_from(image.size_bytes).ok(),
    };
    all.into_iter().take(MOST_IMAGES).map(told).collect()
}

/// RuntimeHandler of CRI in the API's words.
fn handler((name, can): &(String, Features)) -> NodeRuntimeHandler {
    let features = NodeRuntimeHandlerFeatures {
        recursive_read_only_mounts: Some(can.recursive_read_only_mounts),
        user_namespaces: Some(can.user_namespaces),
    };
    NodeRuntimeHandler { name: Some(name.clone()), features: Some(features) }
}

/// What is not reserved; of the memory also not what is in huge pages, which nothing else can have.
fn allocatable(capacity: &BTreeMap<String, ApiQuantity>, reserved: &BTreeMap<String, String>) -> BTreeMap<String, ApiQuantity> {
    let mut rest = less(capacity, reserved);
    let pages: i64 = capacity.iter().filter(|(name, _)| page_bytes(name).is_some()).map(|(_, all)| Quantity::of(all).bytes()).sum();
    if let Some(memory) = rest.get_mut("memory").filter(|_| pages > 0) {
        *memory = Quantity::from_bytes((Quantity::of(memory).bytes() - pages).max(0)).to_api();
    }
    rest
}

fn less(capacity: &BTreeMap<String, ApiQuantity>, reserved: &BTreeMap<String, String>) -> BTreeMap<String, ApiQuantity> {
    let rest = |name: &String, whole: &ApiQuantity| match reserved.get(name).and_then(|text| Quantity::parse(text).ok()) {
        Some(held) if name == "cpu" => Quantity::from_millis((Quantity::of(whole).millis() - held.millis()).max(0)).to_api(),
        Some(held) => Quantity::from_bytes((Quantity::of(whole).units() - held.units()).max(0)).to_api(),
        None => whole.clone(),
    };
    capacity.iter().map(|(name, whole)| (name.clone(), rest(name, whole))).collect()
}

fn conditions(facts: &Facts) -> Vec<NodeCondition> {
    let make = |type_: &str, status: bool, reason: &str, message: String| NodeCondition {
        type_: type_.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..NodeCondition::default()
    };
    let pressure = |type_: &str, short: bool, (bad, good): (&str, &str), what: &str| {
        let message = if short { format!("the node is short of {what}") } else { format!("the node has enough {what}") };
        make(type_, short, if short { bad } else { good }, message)
    };
    let broken: Vec<String> = broken(facts)
        .map(|condition| format!("{} is not so: {} {}", condition.kind, condition.reason, condition.message).trim_end().to_owned())
        .collect();
    let ready = match broken.is_empty() {
        true => make("Ready", true, "KubeletReady", "the agent is posting ready status".to_owned()),
        false => make("Ready", false, "KubeletNotReady", broken.join("; ")),
    };
    let network = match facts.network_problems.is_empty() {
        true => make("NetworkUnavailable", false, "NetworkReady", "the node's network is as wanted".to_owned()),
        false => make("NetworkUnavailable", true, "NetworkProblems", facts.network_problems.join("; ")),
    };
    let warnings = facts
        .runtime
        .iter()
        .filter(|condition| !condition.ok && !is_needed(condition))
        .map(|condition| make(&format!("{WARNING}{}", condition.kind), true, &condition.reason, condition.message.clone()));
    let mut all = vec![
        pressure("MemoryPressure", facts.pressure.memory, ("KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"), "memory"),
        pressure("DiskPressure", facts.pressure.disk, ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure"), "disk space"),
        pressure("PIDPressure", facts.pressure.pids, ("KubeletHasInsufficientPID", "KubeletHasSufficientPID"), "process ids"),
        network,
        ready,
    ];
    all.extend(warnings);
    all.extend(facts.dns_problem.iter().map(|problem| make(&format!("{WARNING}NoResolver"), true, "OnlyLoopback", problem.clone())));
    all
}

/// The node's lease, renewed now.
pub fn lease(options: &Options, node_uid: Option<&str>, old: Option<&Lease>, now: Timestamp) -> Lease {
    let owner = node_uid.map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: options.node_name.clone(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    });
    let mut lease = old.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(options.node_name.clone()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(options.node_name.clone());
    spec.lease_duration_seconds = i32::try_from(options.lease_duration.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        let mut options = Options::new("n1", "/d");
        options.node_addresses = vec!["192.0.2.1".parse().unwrap()];
        options.hostname = "host-1".into();
        options
    }

    fn facts() -> Facts {
        Facts {
            machine: Machine { cpu_millis: 2000, memory_bytes: 4 << 30, storage_bytes: 100 << 30, ..Machine::default() },
            architecture: "amd64".into(),
            runtime: vec![RuntimeCondition { kind: "RuntimeReady".into(), ok: true, reason: String::new(), message: String::new() }],
            ..Facts::default()
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_800_000_000 + seconds)
    }

    fn find<'a>(status: &'a NodeStatus, type_: &str) -> Option<&'a NodeCondition> {
        status.conditions.as_ref().unwrap().iter().find(|condition| condition.type_ == type_)
    }

    #[test]
    fn a_new_node_says_what_it_is() {
        let node = fresh(&options(), &facts(), at(0));
        let labels = node.metadata.labels.unwrap();
        assert_eq!(labels["kubernetes.io/hostname"], "host-1");
        assert_eq!(labels["kubernetes.io/arch"], "amd64");
        let status = node.status.unwrap();
        let capacity = status.capacity.as_ref().unwrap();
        assert_eq!((capacity["cpu"].0.as_str(), capacity["memory"].0.as_str(), capacity["pods"].0.as_str()), ("2", "4Gi", "110"));
        assert_eq!(status.daemon_endpoints.as_ref().unwrap().kubelet_endpoint.as_ref().unwrap().port, 10250);
        assert_eq!(find(&status, "Ready").unwrap().status, "True");
        assert_eq!(status.addresses.unwrap()[0].address, "192.0.2.1");
    }

    #[test]
    fn reserved_and_overridden_amounts() {
        let mut options = options();
        options.capacity = [("cpu".to_owned(), "8".to_owned())].into();
        options.reserved = [("cpu".to_owned(), "500m".to_owned()), ("memory".to_owned(), "1Gi".to_owned())].into();
        let status = status(&options, &facts(), None, at(0));
        let (capacity, allocatable) = (status.capacity.unwrap(), status.allocatable.unwrap());
        assert_eq!((capacity["cpu"].0.as_str(), allocatable["cpu"].0.as_str()), ("8", "7500m"));
        assert_eq!(allocatable["memory"].0, "3Gi");
    }

    #[test]
    fn huge_pages_are_no_memory_for_others() {
        let mut facts = facts();
        facts.machine.huge_pages = [(2 << 20, 1 << 30), (1 << 30, 0)].into();
        let status = status(&options(), &facts, None, at(0));
        let (capacity, allocatable) = (status.capacity.unwrap(), status.allocatable.unwrap());
        for all in [&capacity, &allocatable] {
            assert_eq!((all["hugepages-2Mi"].0.as_str(), all["hugepages-1Gi"].0.as_str()), ("1Gi", "0"));
        }
        assert_eq!((capacity["memory"].0.as_str(), allocatable["memory"].0.as_str()), ("4Gi", "3Gi"));
    }

    #[test]
    fn a_node_says_what_its_runtime_can_do() {
        assert_eq!(status(&options(), &facts(), None, at(0)).features, None, "nothing is known");
        let mut facts = facts();
        let can = Features { user_namespaces: true, recursive_read_only_mounts: true, supplemental_groups_policy: true };
        facts.handlers = vec![(String::new(), can), ("runc".to_owned(), Features { user_namespaces: false, ..can })];
        let status = status(&options(), &facts, None, at(0));
        let told = serde_json::to_value(&status).unwrap();
        let handler = |name: &str, users: bool| serde_json::json!({"name": name, "features": {"recursiveReadOnlyMounts": true, "userNamespaces": users}});
        assert_eq!(told["runtimeHandlers"], serde_json::json!([handler("", true), handler("runc", false)]));
        assert_eq!(told["features"], serde_json::json!({"supplementalGroupsPolicy": true}));
    }

    #[test]
    fn the_largest_images_are_told() {
        let image = |number: u64, tags: usize| Image {
            id: format!("sha256:{number:064}"),
            tags: (0..tags).map(|tag| format!("img-{number}:{tag}")).collect(),
            digests: vec![format!("img-{number}@sha256:0")].into_iter().filter(|_| tags > 0).collect(),
            size_bytes: number / 2,
            user: String::new(),
            pinned: false,
        };
        let mut facts = facts();
        facts.images = Some((0..60).map(|number| image(number, 1)).chain([image(100, 9), image(200, 0)]).collect());
        let first = status(&options(), &facts, None, at(0));
        let told = first.images.as_ref().unwrap();
        let names = |at: usize| told[at].names.clone().unwrap();
        assert_eq!((told.len(), told[0].size_bytes, names(0).len(), names(0)[0].as_str()), (50, Some(50), 5, "img-100@sha256:0"));
        assert_eq!((names(1), names(2)[1].as_str()), (vec!["img-58@sha256:0".to_owned(), "img-58:0".to_owned()], "img-59:0"));
        facts.images.as_mut().unwrap().reverse();
        assert_eq!(status(&options(), &facts, Some(&first), at(9)), first, "in whichever order the runtime has them");
        facts.images = None;
        assert_eq!(status(&options(), &facts, Some(&first), at(9)), first, "the runtime is away");
        facts.images = Some(Vec::new());
        assert_eq!(status(&options(), &facts, Some(&first), at(9)).images, None);
    }

    #[test]
    fn nothing_changes_while_nothing_happens() {
        let first = status(&options(), &facts(), None, at(0));
        assert_eq!(status(&options(), &facts(), Some(&first), at(299)), first);
        // Now and then it says that it lives.
        let mut later = status(&options(), &facts(), Some(&first), at(300));
        assert_ne!(later, first);
        for condition in later.conditions.iter_mut().flatten() {
            assert_eq!(condition.last_heartbeat_time.replace(Time(at(0))), Some(Time(at(300))));
        }
        assert_eq!(later, first);
    }

    #[test]
    fn a_condition_moves_with_what_it_says() {
        let first = status(&options(), &facts(), None, at(0));
        let mut worse = facts();
        worse.runtime[0].ok = false;
        worse.runtime[0].message = "no shim".into();
        worse.runtime.push(RuntimeCondition { kind: "Seccomp".into(), ok: false, reason: "NoSeccomp".into(), message: "kernel".into() });
        worse.network_problems = vec!["`nft` is missing".into()];
        worse.pressure.disk = true;
        let second = status(&options(), &worse, Some(&first), at(60));
        let ready = find(&second, "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.last_transition_time.as_ref().unwrap().0), ("False", at(60)));
        assert!(ready.message.as_deref().unwrap().contains("no shim"));
        assert_eq!(find(&second, "NetworkUnavailable").unwrap().message.as_deref(), Some("`nft` is missing"));
        assert_eq!(find(&second, "DiskPressure").unwrap().status, "True");
        assert_eq!(find(&second, "MemoryPressure").unwrap().last_transition_time.as_ref().unwrap().0, at(0));
        assert_eq!(find(&second, "podbay.dev/Seccomp").unwrap().reason.as_deref(), Some("NoSeccomp"));
        let third = status(&options(), &facts(), Some(&second), at(90));
        assert_eq!(find(&third, "podbay.dev/Seccomp"), None, "a warning goes with its cause");
    }

    #[test]
    fn resources_that_others_advertise_stay() {
        let mut first = status(&options(), &facts(), None, at(0));
        let dongles = |status: &NodeStatus| {
            let of = |all: &Option<BTreeMap<String, ApiQuantity>>| all.as_ref()?.get("example.com/dongle").map(|amount| amount.0.clone());
            (of(&status.capacity), of(&status.allocatable))
        };
        let mut advertise =
            |name: &str, amount: &str| first.capacity.as_mut().unwrap().insert(name.to_owned(), ApiQuantity(amount.to_owned()));
        advertise("example.com/dongle", "4");
        advertise("cpu", "64");
        advertise("hugepages-2Mi", "1Gi");
        let second = status(&options(), &facts(), Some(&first), at(5));
        assert_eq!(dongles(&second), (Some("4".to_owned()), Some("4".to_owned())));
        assert_eq!(second.capacity.as_ref().unwrap()["cpu"].0, "2", "what the node itself has is its own word");
        assert!(!second.capacity.as_ref().unwrap().contains_key("hugepages-2Mi"), "pages that there are no more");
        assert_eq!(status(&options(), &facts(), Some(&second), at(9)), second);
        let mut without = second.clone();
        without.capacity.as_mut().unwrap().remove("example.com/dongle");
        assert_eq!(dongles(&status(&options(), &facts(), Some(&without), at(12))), (None, None), "taken back");
    }

    #[test]
    fn conditions_of_others_stay() {
        let mut first = status(&options(), &facts(), None, at(0));
        let other = NodeCondition { type_: "example.com/Fan".into(), status: "True".into(), ..NodeCondition::default() };
        first.conditions.as_mut().unwrap().push(other.clone());
        // The server marked a silent node: the agent's word replaces it.
        first.conditions.as_mut().unwrap()[4].status = "Unknown".into();
        let second = status(&options(), &facts(), Some(&first), at(5));
        assert_eq!(find(&second, "example.com/Fan"), Some(&other));
        assert_eq!(find(&second, "Ready").unwrap().status, "True");
    }

    #[test]
    fn a_lease_is_renewed_in_place() {
        let first = lease(&options(), Some("uid"), None, at(0));
        assert_eq!(first.metadata.owner_references.as_ref().unwrap()[0].uid, "uid");
        let mut stored = first.clone();
        stored.metadata.resource_version = Some("7".into());
        let second = lease(&options(), Some("uid"), Some(&stored), at(10));
        assert_eq!(second.metadata, stored.metadata);
        assert_eq!(second.spec.unwrap().renew_time, Some(MicroTime(at(10))));
    }
}
