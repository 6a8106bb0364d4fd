//! `metrics.k8s.io`: what `kubectl top` shows, from nodes that count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use podbay::clock::SystemClock;
use podbay::server::{Identity, InProcessNode};
use serde_json::{Value, json};

use crate::api::{PODS, pod};
use crate::rig::Rig;

const GROUP: &str = "/apis/metrics.k8s.io/v1beta1";

/// A node whose every second look shows ten more seconds of CPU time, and how often it was asked. The pod `young` is there
/// from its second look on.
async fn rig() -> (Rig, Arc<AtomicU64>) {
    let (node, uids) = (InProcessNode::new("n1", None), Arc::new(std::sync::Mutex::new(Vec::<String>::new())));
    let asked = Arc::new(AtomicU64::new(0));
    let (count, pods) = (Arc::clone(&asked), Arc::clone(&uids));
    let summary = move || {
        let looks = count.fetch_add(1, Ordering::SeqCst);
        let seconds = looks * 10;
        let figures = |share: u64| json!({"usageCoreNanoSeconds": seconds * 1_000_000_000 / share});
        let of = |uid: &String, container: Value| json!({"podRef": {"name": "x", "namespace": "y", "uid": uid}, "containers": [container]});
        let young = json!({"time": "2026-01-01T00:00:10Z", "usageCoreNanoSeconds": 5_000_000_000_u64});
        let containers = [
            json!({"name": "main", "cpu": figures(10), "memory": {"workingSetBytes": 5 << 20}}),
            json!({"name": "main", "startTime": "2026-01-01T00:00:00Z", "cpu": young, "memory": {"workingSetBytes": 1 << 20}}),
        ];
        let there = if looks == 0 { 1 } else { 2 };
        let pods: Vec<Value> = pods.lock().unwrap().iter().zip(containers).take(there).map(|(uid, it)| of(uid, it)).collect();
        let node = json!({"nodeName": "n1", "cpu": figures(1), "memory": {"workingSetBytes": 512 << 20}});
        async move { axum::Json(json!({"node": node, "pods": pods})) }
    };
    node.attach(Router::new().route("/stats/summary", get(summary)));
    let rig = Rig::with_nodes(Arc::new(SystemClock), |_| Arc::new(node)).await;
    for name in ["n1", "silent"] {
        let capacity = json!({"cpu": "40", "memory": "1Gi"});
        let node = json!({"metadata": {"name": name}, "status": {"allocatable": capacity, "capacity": capacity}});
        rig.ask("POST", "/api/v1/nodes", node).await;
    }
    for (name, node) in
        [("busy", Some("n1")), ("young", Some("n1")), ("unbound", None), ("lost", Some("silent")), ("astray", Some("nowhere"))]
    {
        let (code, made) = rig.ask("POST", PODS, pod(name, node)).await;
        assert_eq!(code, StatusCode::CREATED, "{made}");
        if node == Some("n1") {
            uids.lock().unwrap().push(made["metadata"]["uid"].as_str().unwrap().to_owned());
        }
    }
    (rig, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_asked_for_what_is_used() {
    let (rig, _) = rig().await;
    let nodes = rig.get(&format!("{GROUP}/nodes")).await;
    let names: Vec<&str> = nodes["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!((nodes["kind"].as_str(), names), (Some("NodeMetricsList"), vec!["n1"]), "one that does not answer is left out");
    let cores: u64 = nodes["items"][0]["usage"]["cpu"].as_str().unwrap().trim_end_matches('n').parse().unwrap();
    // Ten seconds of CPU time in a second or a little more.
    assert!(cores > 1_000_000_000 && cores <= 10_000_000_000, "{nodes}");
    assert_eq!(nodes["items"][0]["usage"]["memory"], "524288Ki");
    let pods = rig.get(&format!("{GROUP}/namespaces/default/pods")).await;
    assert_eq!(pods["items"].as_array().map(Vec::len), Some(2), "{pods}");
    let one = rig.get(&format!("{GROUP}/namespaces/default/pods/busy")).await;
    assert_eq!((one["kind"].as_str(), one["containers"][0]["name"].as_str()), (Some("PodMetrics"), Some("main")));
    assert_eq!(one["containers"][0]["usage"]["memory"], "5120Ki");
    for path in ["namespaces/default/pods/unbound", "namespaces/default/pods/none", "nodes/silent", "volumes"] {
        assert_eq!(rig.ask("GET", &format!("{GROUP}/{path}"), Value::Null).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let node = rig.ask_as(&Identity::node("n1"), "GET", &format!("{GROUP}/pods"), "", Value::Null).await.0;
    assert_eq!(node, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_shown_from_its_start_and_a_node_asked_once_for_all() {
    let (rig, asked) = rig().await;
    let [one, nodes, pods] = ["namespaces/default/pods/young", "nodes", "pods"].map(|path| format!("{GROUP}/{path}"));
    let (one, nodes, pods) = tokio::join!(rig.get(&one), rig.get(&nodes), rig.get(&pods));
    assert_eq!(asked.load(Ordering::SeqCst), 2, "two looks serve everybody who asks at once");
    assert_eq!((&one["containers"][0]["usage"]["cpu"], &one["window"]), (&json!("500000000n"), &json!("10.000s")), "{one}");
    assert_eq!((nodes["items"].as_array().map(Vec::len), pods["items"].as_array().map(Vec::len)), (Some(1), Some(2)), "{pods}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_kubectl_shows_the_top() {
    let (rig, _) = rig().await;
    let nodes = rig.kubectl_ok("top node").await;
    assert!(nodes.starts_with("NAME") && nodes.contains("n1") && nodes.contains("512Mi"), "{nodes}");
    let pods = rig.kubectl_ok("top pod --containers").await;
    assert!(pods.contains("busy") && pods.contains("main") && pods.contains("5Mi"), "{pods}");
    assert!(rig.kubectl_ok("api-resources --api-group=metrics.k8s.io").await.contains("PodMetrics"));
}
