//! Scheduling 10,000 pods on 5,000 nodes, all filters on. Budget: 20,000 pods a second.

use std::time::Instant;

use podbay::model::{Kind, Object};
use podbay::schedule::plan::{Observed, place};
use podbay::schedule::storage::Storage;
use serde_json::json;

const NODES: usize = 5_000;
const PODS: usize = 10_000;

fn node(index: usize) -> (Object, Vec<Object>) {
    let taints = if index.is_multiple_of(10) { json!([{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]) } else { json!([]) };
    let value = json!({"metadata": {"name": format!("node-{index:05}"), "labels": {"zone": format!("z{}", index % 3), "disk": "ssd"}},
        "spec": {"unschedulable": index.is_multiple_of(50), "taints": taints},
        "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}, "conditions": [{"type": "Ready", "status": "True"}]}});
    (Object::from_value(Kind::Node, value).expect("a node"), Vec::new())
}

fn pod(index: usize, kinds: usize) -> Object {
    let kind = index % kinds;
    let value = json!({"metadata": {"name": format!("pod-{index:05}"), "namespace": "web"}, "spec": {
        "nodeSelector": {"zone": format!("z{}", kind % 3)},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "containers": [{"name": "c", "resources": {"requests": {"cpu": format!("{}m", 100 + kind), "memory": "128Mi"}}}]}});
    Object::from_value(Kind::Pod, value).expect("a pod")
}

fn main() {
    for kinds in [1, 10, 100, 1000] {
        let seen = Observed {
            nodes: (0..NODES).map(node).collect(),
            pending: (0..PODS).map(|index| pod(index, kinds)).collect(),
            storage: Storage::default(),
        };
        let start = Instant::now();
        let placed = place(&seen);
        let took = start.elapsed();
        let bound = placed.iter().filter(|placed| placed.node.is_ok()).count();
        assert_eq!(bound, PODS);
        println!(
            "schedule {PODS} pods of {kinds} kinds on {NODES} nodes: {:.0} ms, {:.0} pods/s",
            took.as_secs_f64() * 1e3,
            PODS as f64 / took.as_secs_f64()
        );
    }
}
