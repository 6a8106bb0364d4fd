//! What every request passes, whatever it asks for: a seat, and the audit log.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use podbay::clock::{Clock, SystemClock};
use podbay::server::audit::{Audit, Policy};
use podbay::server::{Identity, InProcessNode};
use podbay::store::memory::MemoryStore;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::rig::Rig;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn ask(router: &Router, identity: Option<Identity>, method: &str, path: &str, body: Body) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json").body(body).unwrap();
    if let Some(identity) = identity {
        request.extensions_mut().insert(identity);
    }
    router.clone().oneshot(request).await.unwrap()
}

fn map(name: &str) -> Body {
    Body::from(json!({"metadata": {"name": name}}).to_string())
}

/// The log once it has so many lines.
async fn lines(path: &std::path::Path, count: usize) -> Vec<Value> {
    let started = Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap();
        if text.lines().count() >= count {
            return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{count} lines never came: {text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn changes_refusals_and_clients_that_went_away_are_written_down() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new(Arc::clone(&clock)));
    let audit = Audit::open(&path, Policy::default()).unwrap();
    let rig = Rig::over(store, clock, |_| Arc::new(InProcessNode::new("none", None)), |state| state.with_audit(Some(audit))).await;

    let made = ask(&rig.router, Some(Identity::admin()), "POST", MAPS, map("a")).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    ask(&rig.router, Some(Identity::admin()), "GET", MAPS, Body::empty()).await;
    let refused = ask(&rig.router, None, "DELETE", &format!("{MAPS}/a"), Body::empty()).await;
    let endless = Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
    let path_of_a = format!("{MAPS}/a");
    let left = tokio::time::timeout(Duration::from_millis(1), ask(&rig.router, Some(Identity::admin()), "PUT", &path_of_a, endless));
    assert!(left.await.is_err());

    rig.kubectl_ok("create configmap b").await;

    let written = lines(&path, 4).await;
    let told: Vec<_> = written.iter().map(|line| (&line["verb"], &line["user"]["username"], &line["responseStatus"]["code"])).collect();
    assert_eq!(
        told,
        [
            (&json!("create"), &json!("podbay-admin"), &json!(201)),
            (&json!("delete"), &json!("system:anonymous"), &json!(refused.status().as_u16())),
            (&json!("update"), &json!("podbay-admin"), &json!(499)),
            (&json!("create"), &json!("podbay-admin"), &json!(201)),
        ]
    );
    assert!(written[0].get("sourceIPs").is_none(), "asked in the process");
    assert_eq!(written[3]["sourceIPs"], json!(["127.0.0.1"]));
    assert!(written[3]["userAgent"].as_str().unwrap().starts_with("kubectl/"), "{}", written[3]);
    assert_eq!(written[1]["objectRef"], json!({"resource": "configmaps", "apiVersion": "v1", "namespace": "default", "name": "a"}));
}

/// More than one user's seats and those who may wait for them.
const MANY: usize = 300;

#[tokio::test]
async fn a_client_with_too_many_requests_is_sent_away_and_a_node_is_not() {
    let rig = Rig::start().await;
    let mut open = tokio::task::JoinSet::new();
    for _ in 0..MANY {
        let router = rig.router.clone();
        let endless = Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
        open.spawn(async move { ask(&router, Some(Identity::admin()), "POST", MAPS, endless).await });
    }
    // Each has been polled once its turn came: some are answered.
    let first = open.join_next().await.unwrap().unwrap();
    assert_eq!(first.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(first.headers()[header::RETRY_AFTER], "1");
    let node = ask(&rig.router, Some(Identity::node("n")), "GET", "/api/v1/services", Body::empty()).await;
    assert_eq!(node.status(), StatusCode::OK);
    let alive = ask(&rig.router, Some(Identity::admin()), "GET", "/readyz", Body::empty()).await;
    assert_eq!(alive.status(), StatusCode::OK);
}
