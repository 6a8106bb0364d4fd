//! Every controller looks at 10,000 unchanged objects. Budget: 100 ms.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use podbay::control::{self, Options};
use podbay::model::{Key, Kind, Object, Timestamp};
use podbay::plan::Controller;
use podbay::schedule::Scheduler;
use podbay::simulate::settle;
use podbay::store::Snapshot;
use podbay::store::transaction::{Stamp, Transaction, Write};
use serde_json::json;

fn main() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let mut controllers = control::all(Options::new(now));
    controllers.push(Arc::new(Scheduler::new()));
    let mut state = Snapshot::default();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web", "uid": "ns"}});
    state.insert(Object::from_value(Kind::Namespace, namespace).expect("a namespace"));
    for index in 0..100 {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{index:03}"), "uid": format!("n{index}")},
            "status": {"allocatable": {"cpu": "64", "memory": "256Gi", "pods": "200"}, "conditions": [{"type": "Ready", "status": "True"}]}});
        state.insert(Object::from_value(Kind::Node, node).expect("a node"));
    }
    let deployment = |index: usize| {
        let name = format!("app-{index:03}");
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "web"},
            "spec": {"replicas": 12, "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "app:1"}]}}}});
        Write::Create(Object::from_value(Kind::Deployment, value).expect("a deployment"))
    };
    let mut count = 0_u32;
    let mut uid = || {
        count += 1;
        format!("u{count}")
    };
    let mut stamp = Stamp { now, uid: &mut uid };
    let transaction = Transaction { writes: (0..700).map(deployment).collect(), ..Transaction::new("admin") };
    let state = state.apply(&transaction, 1, &mut stamp).expect("workloads").snapshot;
    let state = settle(state, &controllers, now).state;
    let start = Instant::now();
    // As the driver does after a start: each object is shown to every controller, then all keys are planned.
    let mut queues: Vec<(&dyn Controller, BTreeSet<Key>)> = controllers.iter().map(|it| (&**it, BTreeSet::new())).collect();
    for object in state.iter() {
        for (controller, keys) in &mut queues {
            keys.extend(controller.keys(&state, object));
        }
    }
    let mut plans = 0;
    let mut each = vec![format!("keys {:.0}", start.elapsed().as_secs_f64() * 1e3)];
    for (controller, keys) in queues {
        let begun = Instant::now();
        for key in keys {
            let plan = controller.plan(&state, &key, now);
            assert!(plan.is_empty(), "{} {key}", controller.name());
            plans += 1;
        }
        each.push(format!("{} {:.0}", controller.name(), begun.elapsed().as_secs_f64() * 1e3));
    }
    let took = start.elapsed();
    println!(
        "controllers over {} unchanged objects: {:.0} ms, {plans} plans, all empty ({})",
        state.len(),
        took.as_secs_f64() * 1e3,
        each.join(", ")
    );
}
