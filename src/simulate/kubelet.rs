//! The ideal node: what is bound to it runs and is ready at once, what is deleted is gone, and so are the directories of
//! volumes that are to go. PURE.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStatus, HostIP, Node, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sha2::{Digest, Sha256};

use crate::model::local_volume::{self, LOCAL_PATH};
use crate::model::volume::PersistentVolume;
use crate::model::{Key, Kind, Object, Timestamp, pod};
use crate::plan::{Controller, Heeds, Op, Plan};
use crate::store::snapshot::Snapshot;

/// What is true of a pod that runs (Pod lifecycle, "Pod conditions").
const CONDITIONS: [&str; 5] = ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

/// See the module. Pods that a real node has reported on keep what it reported.
#[derive(Debug, Default, Clone, Copy)]
pub struct Kubelet;

impl Controller for Kubelet {
    fn name(&self) -> &'static str {
        "kubelet"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        match object.get::<Pod>() {
            // Of what has just gone, the last that was seen was on its way out.
            Some(pod) if needs_it(pod) && !(object.is_deleting() && state.get(object.key()).is_none()) => vec![object.key().clone()],
            Some(_) => Vec::new(),
            None if object.kind() == Kind::Node => {
                let pods = state.pods_on(&object.key().name).filter(|pod| pod.get().is_some_and(needs_it));
                pods.map(|pod| pod.key().clone()).collect()
            }
            None if object.is_deleting() && object.has_finalizer(LOCAL_PATH) => vec![object.key().clone()],
            None => Vec::new(),
        }
    }

    fn heeds(&self, _state: &Snapshot, _before: &Object, _after: &Object) -> Heeds {
        Heeds::After
    }

    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if key.kind == Kind::PersistentVolume {
            plan.ops.extend(state.get(key).and_then(|volume| removed(state, volume)));
            return plan;
        }
        let Some((object, pod)) = state.get(key).and_then(|object| object.get::<Pod>().map(|pod| (object, pod))) else { return plan };
        let Some(node) = pod::node_name(pod).and_then(|name| state.find(Kind::Node, "", name)?.get::<Node>()) else {
            return plan;
        };
        if !is_ready(node) {
            return plan;
        }
        if !needs_it(pod) {
            return plan;
        }
        if pod::is_deleting(pod) {
            plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: Some(0) });
        } else {
            let status = Some(running(object, pod, node, now));
            let after = Pod { metadata: pod.metadata.clone(), spec: pod.spec.clone(), status };
            plan.ops.push(Op::UpdateStatus { before: object.clone(), after: Object::new(after) });
        }
        plan
    }
}

/// A volume that nobody has any more goes, once its node has removed its directory.
pub fn removed(state: &Snapshot, object: &Object) -> Option<Op> {
    let volume = object.get::<PersistentVolume>()?;
    let node = state.find(Kind::Node, "", local_volume::home(volume)?)?.get::<Node>()?;
    let goes = local_volume::is_to_be_removed(volume) && is_ready(node);
    goes.then(|| Op::Update { before: object.clone(), after: object.without_finalizer(LOCAL_PATH) })
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether something is left to do for a pod on a node that is ready.
fn needs_it(pod: &Pod) -> bool {
    let is_left = if pod::is_deleting(pod) { pod.metadata.deletion_grace_period_seconds != Some(0) } else { !is_observed(pod) };
    is_left && pod::node_name(pod).is_some()
}

/// Some node has said something of it.
fn is_observed(pod: &Pod) -> bool {
    pod::phase(pod) != "Pending"
        || pod.status.as_ref().is_some_and(|status| {
            status.start_time.is_some()
                || status.container_statuses.as_ref().is_some_and(|all| !all.is_empty())
                || status.init_container_statuses.as_ref().is_some_and(|all| !all.is_empty())
        })
}

/// A pod whose containers all run and are ready.
pub fn running(object: &Object, pod: &Pod, node: &Node, now: Timestamp) -> PodStatus {
    let mut status = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let host = host_address(node);
    let address =
        if spec.is_some_and(|spec| spec.host_network == Some(true)) { host.clone() } else { placeholder(object.key()).to_string() };
    status.phase = Some("Running".to_owned());
    status.start_time = Some(Time(now));
    status.host_ip = Some(host.clone());
    status.host_ips = Some(vec![HostIP { ip: host }]);
    status.pod_ip = Some(address.clone());
    status.pod_ips = Some(vec![PodIP { ip: address }]);
    // At once: one after the other it would grow, and more often than to what it needs.
    status.conditions.get_or_insert_default().reserve_exact(CONDITIONS.len());
    for type_ in CONDITIONS {
        let condition = PodCondition { type_: type_.to_owned(), status: "True".to_owned(), ..PodCondition::default() };
        pod::set_condition(&mut status, condition, now);
    }
    let container = |container: &k8s_openapi::api::core::v1::Container| ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ready: true,
        started: Some(true),
        state: Some(ContainerState { running: Some(ContainerStateRunning { started_at: Some(Time(now)) }), ..ContainerState::default() }),
        ..ContainerStatus::default()
    };
    status.container_statuses = Some(spec.iter().flat_map(|spec| &spec.containers).map(container).collect());
    status
}

fn host_address(node: &Node) -> String {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let internal = addresses.iter().find(|address| address.type_ == "InternalIP");
    internal.map_or_else(|| "192.0.2.1".to_owned(), |address| address.address.clone())
}

/// An address of the range kept for benchmarks (198.18.0.0/15): no real pod has it.
fn placeholder(key: &Key) -> Ipv4Addr {
    let hash = Sha256::digest(format!("{}/{}", key.namespace, key.name));
    Ipv4Addr::new(198, 18 | (hash[0] & 1), hash[1], hash[2])
}
