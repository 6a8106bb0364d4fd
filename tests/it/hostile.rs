//! Requests that nobody means well with, and what they cannot do.

use http::StatusCode;
use podbay::server::Identity;
use serde_json::{Value, json};

use crate::rig::Rig;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const NODES: &str = "/api/v1/nodes";

#[tokio::test]
async fn a_wrong_scale_scales_nothing() {
    let rig = Rig::start().await;
    let deployment = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "busybox"}]}}}});
    rig.ask("POST", DEPLOYMENTS, deployment).await;
    let scale = format!("{DEPLOYMENTS}/web/scale");
    for body in [json!({"spec": {"replicas": "5"}}), json!({"spec": {"replicas": 2.5}}), json!([1])] {
        for method in ["PUT", "PATCH"] {
            let (status, answer) = rig.ask(method, &scale, body.clone()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{method} {body}: {answer}");
        }
    }
    let (status, _) = rig.ask("PUT", &format!("{scale}?fieldValidation=Strict"), json!({"spec": {"replica": 5}})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(rig.get(&scale).await["spec"]["replicas"], 2);
    let (status, answer) = rig.ask("PUT", &scale, json!({"spec": {"replicas": 3}})).await;
    assert_eq!((status, &answer["spec"]["replicas"]), (StatusCode::OK, &json!(3)));
}

#[tokio::test]
async fn a_patch_that_copies_itself_is_refused() {
    let rig = Rig::start().await;
    rig.ask("POST", NODES, json!({"metadata": {"name": "n1"}})).await;
    let mut operations = vec![json!({"op": "add", "path": "/metadata/x", "value": ["A".repeat(1000)]})];
    operations.resize(30, json!({"op": "copy", "from": "/metadata/x", "path": "/metadata/x/-"}));
    let node = Identity::node("n1");
    let path = format!("{NODES}/n1/status");
    let (status, answer) = rig.ask_as(&node, "PATCH", &path, "application/json-patch+json", json!(operations)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
}

#[tokio::test]
async fn patches_do_not_add_up_beyond_an_objects_limit() {
    let rig = Rig::start().await;
    rig.ask("POST", NODES, json!({"metadata": {"name": "n1"}})).await;
    let much = "A".repeat(1_200_000);
    let parts = [json!({"phase": much}), json!({"volumesInUse": [much]}), json!({"images": [{"names": [much]}]})];
    let grow = |index: usize| rig.ask("PATCH", "/api/v1/nodes/n1/status", json!({"status": parts[index]}));
    assert_eq!(grow(0).await.0, StatusCode::OK);
    assert_eq!(grow(1).await.0, StatusCode::OK);
    assert_eq!(grow(2).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn no_timeout_of_a_watch_is_too_long() {
    let rig = Rig::start().await;
    let path = format!("{NODES}?watch=1&timeoutSeconds={}", u64::MAX);
    let request = http::Request::get(path).body(String::new()).unwrap();
    assert_eq!(rig.send(&Identity::admin(), request).await.status(), StatusCode::OK);
    assert_eq!(rig.ask("GET", &format!("{NODES}?watch=1&timeoutSeconds=x"), Value::Null).await.0, StatusCode::BAD_REQUEST);
}
