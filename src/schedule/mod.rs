//! The scheduler: a node for each pod that has none.
//!
//! - `table` (pure): the nodes with what they offer and what is used of it
//! - `filter` (pure): why a node cannot take a pod
//! - `score` (pure): which of the nodes that can is best
//! - `storage` (pure): what its persistent volumes ask of a pod's node, and which volumes its claims get
//! - `plan`: all pending pods at once, in order

pub mod filter;
pub mod plan;
pub mod score;
pub mod storage;
pub mod table;

use k8s_openapi::api::core::v1::Pod;

use crate::model::{Key, Kind, Object, Timestamp, pod};
use crate::plan::{Controller, Heeds, Plan};
use crate::store::snapshot::Snapshot;

/// See the module. It has one key: all pending pods are one decision.
#[derive(Debug, Default, Clone, Copy)]
pub struct Scheduler;

impl Scheduler {
    pub fn new() -> Self {
        Self
    }
}

/// Whether the pod as it is now asks of its node what `pod` does.
fn asks_the_same(now: Option<&Object>, pod: &Pod) -> bool {
    now.and_then(|now| now.get::<Pod>()).is_some_and(|now| pod::claims(now) == pod::claims(pod))
}

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        let concerned = match object.kind() {
            Kind::Node | Kind::PersistentVolume | Kind::PersistentVolumeClaim | Kind::StorageClass => state.has_unbound_pods(),
            Kind::Pod => match object.get::<Pod>() {
                Some(pod) if pod::node_name(pod).is_none() => plan::is_pending(pod) || plan::awaited_scheduler(pod).is_some(),
                // Room was freed, or was by a resize or its refusal: `object` may be what was before.
                Some(pod) => state.has_unbound_pods() && (pod::is_terminal(pod) || !asks_the_same(state.get(object.key()), pod)),
                None => false,
            },
            _ => false,
        };
        concerned.then(|| Key::every(Kind::Pod)).into_iter().collect()
    }

    fn heeds(&self, state: &Snapshot, before: &Object, after: &Object) -> Heeds {
        match (before.get::<Pod>(), after.get::<Pod>()) {
            // On its node, where nobody waits, or it asks what it did.
            (Some(was), Some(is)) if pod::node_name(was).is_some() && pod::node_name(was) == pod::node_name(is) => {
                let is_quiet = !state.has_unbound_pods() || (!pod::is_terminal(is) && pod::claims(was) == pod::claims(is));
                if is_quiet { Heeds::Nothing } else { Heeds::Both }
            }
            _ => Heeds::Both,
        }
    }

    fn plan(&self, state: &Snapshot, _key: &Key, now: Timestamp) -> Plan {
        let mut made = Plan::default();
        let mut pending = Vec::new();
        for (object, pod) in state.unbound_pods().filter_map(|object| Some((object, object.get::<Pod>()?))) {
            if plan::is_pending(pod) {
                pending.push(object.clone());
            } else if let Some(other) = plan::awaited_scheduler(pod) {
                plan::wait_for_other(&mut made, object.key(), other);
            }
        }
        if pending.is_empty() {
            return made;
        }
        let nodes: Vec<(Object, Vec<Object>)> =
            state.list(Kind::Node).map(|node| (node.clone(), state.pods_on(&node.key().name).cloned().collect())).collect();
        let storage = storage::Storage::of(state, &pending, &nodes);
        let mut plan = plan::plan(&plan::Observed { nodes, pending, storage }, now);
        plan.waits.append(&mut made.waits);
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, cpu: &str, node: Option<&str>) -> Object {
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
        let pod = json!({"metadata": {"name": name, "namespace": "web"}, "spec": spec, "status": {"phase": "Running"}});
        Object::from_value(Kind::Pod, pod).expect("a pod")
    }

    #[test]
    fn pods_of_another_scheduler_are_left_to_it() {
        let mut state = Snapshot::default();
        let mut value = pod("theirs", "1", None).value();
        value["spec"]["schedulerName"] = json!("packer");
        let theirs = Object::from_value(Kind::Pod, value).expect("a pod");
        state.insert(theirs.clone());
        let waits = |state: &Snapshot| -> Vec<(String, String)> {
            let plan = Scheduler.plan(state, &Key::every(Kind::Pod), Timestamp::UNIX_EPOCH);
            assert!(plan.ops.iter().all(|op| op.key().name != "theirs"), "{:?}", plan.ops);
            plan.waits.into_iter().map(|wait| (wait.subject.name, wait.reason.message)).collect()
        };
        assert_eq!(Scheduler.keys(&state, &theirs), [Key::every(Kind::Pod)]);
        let all = waits(&state);
        assert!(matches!(&all[..], [(name, why)] if name == "theirs" && why.contains("\"packer\"")), "{all:?}");
        state.insert(pod("ours", "1", None));
        let mut names: Vec<String> = waits(&state).into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(names, ["ours", "theirs"]);
    }

    #[test]
    fn a_resize_that_frees_room_wakes_it() {
        let mut state = Snapshot::default();
        state.insert(pod("large", "1", Some("n1")));
        let before = pod("large", "2", Some("n1"));
        assert!(Scheduler.keys(&state, &before).is_empty(), "nobody waits");
        state.insert(pod("waits", "1", None));
        assert_eq!(Scheduler.keys(&state, &before), [Key::every(Kind::Pod)]);
        assert!(Scheduler.keys(&state, &pod("large", "1", Some("n1"))).is_empty(), "a status changes nothing");
        // What the node refuses for ever is not asked of it.
        let told = |reason: &str| {
            let mut value = pod("large", "9", Some("n1")).value();
            value["status"] = json!({"phase": "Running", "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                    "allocatedResources": {"cpu": "1"}, "resources": {"requests": {"cpu": "1"}}}]});
            Object::from_value(Kind::Pod, value).expect("a pod")
        };
        state.insert(told("Infeasible"));
        assert_eq!(Scheduler.keys(&state, &pod("large", "9", Some("n1"))), [Key::every(Kind::Pod)]);
        assert!(Scheduler.keys(&state, &pod("large", "1", Some("n1"))).is_empty());
        state.insert(told("Deferred"));
        assert!(Scheduler.keys(&state, &pod("large", "9", Some("n1"))).is_empty(), "it will have it: nobody else gets it");
    }
}
