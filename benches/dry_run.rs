//! Dry run of 1,000 Deployments of 10 pods on 500 nodes. Budget: 2 s.

use std::sync::Arc;
use std::time::Instant;

use podbay::control::{self, Options};
use podbay::model::{Key, Kind, Object, Timestamp};
use podbay::plan::Controller;
use podbay::schedule::Scheduler;
use podbay::simulate::{Settled, settle};
use podbay::store::Snapshot;
use podbay::store::transaction::{Precondition, Stamp, Transaction, Write};
use serde_json::{Value, json};

const DEPLOYMENTS: usize = 1_000;
const PODS: usize = 10;
const NODES: usize = 500;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn object(kind: Kind, value: Value) -> Object {
    Object::from_value(kind, value).expect("an object")
}

fn apply(state: &Snapshot, writes: Vec<Write>) -> Snapshot {
    let mut count = state.len();
    let mut uid = || {
        count += 1;
        format!("u{count}-{}", state.revision())
    };
    let mut stamp = Stamp { now: now(), uid: &mut uid };
    let transaction = Transaction { writes, ..Transaction::new("admin") };
    state.apply(&transaction, state.revision() + 1, &mut stamp).expect("a cluster").snapshot
}

fn nodes() -> Vec<Object> {
    let node = |index: usize| {
        let value = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{index:03}")}, "status": {
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}, "capacity": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "addresses": [{"type": "InternalIP", "address": "192.0.2.7"}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        object(Kind::Node, value)
    };
    (0..NODES).map(node).collect()
}

fn deployment(index: usize, version: u32) -> Object {
    let name = format!("app-{index:04}");
    let value = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": format!("team-{}", index % 20)},
        "spec": {"replicas": PODS, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": format!("app:{version}"),
                "resources": {"requests": {"cpu": format!("{}m", 50 + index % 7), "memory": "64Mi"}}}]}}}});
    object(Kind::Deployment, value)
}

fn service(index: usize) -> Object {
    let name = format!("app-{index:04}");
    let value = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": format!("team-{}", index % 20)},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}});
    object(Kind::Service, value)
}

fn run(what: &str, state: Snapshot, controllers: &[Arc<dyn Controller>]) -> Settled {
    let start = Instant::now();
    let settled = settle(state, controllers, now());
    let took = start.elapsed();
    assert!(!settled.stuck && settled.waits.is_empty(), "{:?}", settled.waits.first());
    assert_eq!(settled.state.list(Kind::Pod).count(), DEPLOYMENTS * PODS);
    println!("dry run, {what}: {:.0} ms, {} plans", took.as_secs_f64() * 1e3, settled.passes);
    settled
}

fn main() {
    let mut controllers = control::all(Options::new(now()));
    controllers.push(Arc::new(Scheduler::new()));
    let names = ["default".to_owned(), "kube-system".to_owned()].into_iter().chain((0..20).map(|index| format!("team-{index}")));
    let namespace = |name: String| object(Kind::Namespace, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    let mut writes: Vec<Write> = names.map(|name| Write::Create(namespace(name))).collect();
    writes.extend(nodes().into_iter().map(Write::Create));
    // The default range holds 256 nodes.
    let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "podbay-cluster", "namespace": "kube-system"},
        "data": {"podRange": "10.64.0.0/12"}});
    writes.push(Write::Create(object(Kind::ConfigMap, settings)));
    let mut state = apply(&Snapshot::default(), writes);
    // A new node has no status; its agent reports one.
    for node in nodes() {
        let known = state.get(node.key()).expect("stored").meta().clone();
        state.insert(node.edit_meta(|meta| *meta = known));
    }
    let workloads = (0..DEPLOYMENTS).flat_map(|index| [Write::Create(deployment(index, 1)), Write::Create(service(index))]).collect();
    let state = apply(&state, workloads);
    let what = format!("{DEPLOYMENTS} new Deployments x {PODS} pods and their Services on {NODES} nodes");
    let settled = run(&what, state, &controllers).state;
    run("nothing changed", settled.clone(), &controllers);
    let key = Key::new(Kind::Deployment, "team-7", "app-0007");
    let changed = deployment(7, 2);
    let known = settled.get(&key).expect("stored").meta().clone();
    let one = apply(&settled, vec![Write::Update(changed.edit_meta(|meta| *meta = known), Precondition::exists())]);
    run("one image changed", one, &controllers);
    let all = (0..DEPLOYMENTS)
        .map(|index| {
            let changed = deployment(index, 3);
            let known = settled.get(changed.key()).expect("stored").meta().clone();
            Write::Update(changed.edit_meta(|meta| *meta = known), Precondition::exists())
        })
        .collect();
    run("every image changed", apply(&settled, all), &controllers);
}
