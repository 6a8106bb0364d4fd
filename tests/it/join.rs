//! Nodes join, renew and are removed, over real TLS.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service};
use kube::Api;
use kube::api::ListParams;
use podbay::agent::identity::{self, IdentityError, Join, NodeIdentity};
use podbay::clock::{Clock, SystemClock, VirtualClock};
use podbay::model::{NODE_REMOVED, Timestamp};
use podbay::server::Identity;
use podbay::tls::{Order, serve};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::rig::Rig;

async fn token(rig: &Rig) -> String {
    let (status, token) = rig.ask("POST", "/podbay/v1/tokens", json!({})).await;
    assert_eq!(status, StatusCode::CREATED, "{token}");
    token["token"].as_str().unwrap().to_owned()
}

fn join(rig: &Rig, token: &str, node: &str) -> Join {
    Join {
        server: rig.url.clone(),
        token: token.to_owned(),
        node: node.to_owned(),
        directory: rig.directory.path().join(format!("agent-{node}")),
        rejoin: false,
    }
}

pub async fn joined(rig: &Rig, node: &str) -> NodeIdentity {
    identity::join(&join(rig, &token(rig).await, node), &SystemClock).await.unwrap()
}

/// A server with the rig's certificates that answers everything with this certificate.
async fn answering(rig: &Rig, certificate: &str, end: &CancellationToken) -> String {
    let answer = json!({"certificate": certificate});
    let router = axum::Router::new().fallback(move || std::future::ready(axum::Json(answer.clone())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(serve::serve(listener, rig.pki.server_config().unwrap(), router, serve::Bounds::default(), end.clone()));
    url
}

/// The same on another host, with a key of its own.
pub async fn joined_elsewhere(rig: &Rig, node: &str) -> NodeIdentity {
    let mut join = join(rig, &token(rig).await, node);
    join.directory = rig.directory.path().join("elsewhere");
    identity::join(&join, &SystemClock).await.unwrap()
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("not an answer of the server: {other:?}"),
    }
}

async fn refusal(join: &Join, clock: &dyn Clock) -> String {
    identity::join(join, clock).await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_with_a_token_and_is_itself() {
    let rig = Rig::start().await;
    let node = joined(&rig, "n1").await;
    let client = node.client();
    Api::<Service>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    Api::<ConfigMap>::namespaced(client.clone(), "kube-system").get("podbay-cluster").await.unwrap();
    let error = Api::<Secret>::all(client.clone()).list(&ListParams::default()).await.unwrap_err();
    assert_eq!(code(&error), 403);
    let me: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    let nodes: Api<Node> = Api::all(client);
    nodes.create(&kube::api::PostParams::default(), &me).await.unwrap();
    let other: Node = serde_json::from_value(json!({"metadata": {"name": "n2"}})).unwrap();
    assert_eq!(code(&nodes.create(&kube::api::PostParams::default(), &other).await.unwrap_err()), 403);
    // What is on disk is the same node again, readable by its owner only.
    let again = NodeIdentity::load(&rig.directory.path().join("agent-n1")).unwrap().unwrap();
    assert_eq!(again.node(), "n1");
    use std::os::unix::fs::PermissionsExt as _;
    for file in ["node.json", "node.key"] {
        let path = rig.directory.path().join("agent-n1").join(file);
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_nothing_but_health_and_joining_answers() {
    let rig = Rig::start().await;
    let authority = rig.pki.authority().der().clone();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).unwrap();
    let config = Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    let address = rig.url.trim_start_matches("https://").to_owned();
    for (path, wanted) in
        [("/healthz", 200), ("/readyz", 200), ("/api/v1/nodes", 403), ("/api", 403), ("/podbay/v1/snapshot", 403), ("/metrics", 403)]
    {
        let request = http::Request::get(path).header("host", &address).body(axum::body::Body::empty()).unwrap();
        let answer = podbay::tls::connect::ask(&address, podbay::tls::SERVER_NAME, Arc::clone(&config), request).await.unwrap();
        assert_eq!(answer.status().as_u16(), wanted, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_expire_are_listed_and_revoked() {
    let start: Timestamp = SystemClock.now();
    let clock = Arc::new(VirtualClock::new(start));
    let rig = Rig::with_clock(clock.clone()).await;
    let (_, made) = rig.ask("POST", "/podbay/v1/tokens", json!({"ttlSeconds": 60})).await;
    let short = made["token"].as_str().unwrap().to_owned();
    let long = token(&rig).await;
    let list = rig.get("/podbay/v1/tokens").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let secret = short.split('.').nth(1).unwrap();
    assert!(!list.to_string().contains(secret), "a list shows no secret");
    let stored = rig.get("/api/v1/namespaces/kube-system/secrets").await.to_string();
    assert!(!stored.contains(secret), "the store keeps the hash only");

    clock.advance_to(start + Duration::from_secs(61));
    assert!(refusal(&join(&rig, &short, "n1"), &SystemClock).await.contains("expired"));
    assert_eq!(rig.get("/podbay/v1/tokens").await["items"].as_array().unwrap().len(), 1);
    let id = long.split('.').next().unwrap();
    assert_eq!(rig.ask("DELETE", &format!("/podbay/v1/tokens/{id}"), Value::Null).await.0, StatusCode::OK);
    assert!(refusal(&join(&rig, &long, "n1"), &SystemClock).await.contains("revoked"));
    assert_eq!(rig.ask("DELETE", &format!("/podbay/v1/tokens/{id}"), Value::Null).await.0, StatusCode::NOT_FOUND);
    let node = Identity::node("n1");
    for (method, path) in [("POST", "/podbay/v1/tokens"), ("GET", "/podbay/v1/tokens"), ("GET", "/podbay/v1/snapshot"), ("GET", "/metrics")]
    {
        let (status, _) = rig.ask_as(&node, method, path, "application/json", Value::Null).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path} as a node");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_server_is_refused_before_it_is_sent() {
    let (rig, other) = (Rig::start().await, Rig::start().await);
    let error = refusal(&join(&rig, &token(&other).await, "n1"), &SystemClock).await;
    assert!(error.contains("is not the server that the token was made on"), "{error}");
    assert!(matches!(identity::join(&join(&rig, "nonsense", "n1"), &SystemClock).await, Err(IdentityError::Token)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_key_is_not_kept() {
    let rig = Rig::start().await;
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let order = Order { common_name: "system:node:n1".to_owned(), organisation: None, names: Vec::new(), life: Duration::from_secs(3600) };
    let (other, _) = rig.pki.authority().issue(&order, SystemClock.now()).unwrap();
    let server = answering(&rig, &other.certificate, &end).await;
    let directory = |node: &str| rig.directory.path().join(format!("agent-{node}"));

    let faulty = Join { server: server.clone(), ..join(&rig, &token(&rig).await, "n2") };
    let error = refusal(&faulty, &SystemClock).await;
    assert!(error.contains("a certificate with its key"), "{error}");
    assert!(NodeIdentity::load(&directory("n2")).unwrap().is_none());

    joined(&rig, "n1").await;
    let node = identity::stored(&directory("n1"), "n1", &server, &SystemClock).unwrap().unwrap();
    let before = std::fs::read_to_string(directory("n1").join("node.json")).unwrap();
    assert!(node.renew().await.unwrap_err().to_string().contains("a certificate with its key"));
    assert_eq!(std::fs::read_to_string(directory("n1").join("node.json")).unwrap(), before);
    NodeIdentity::load(&directory("n1")).unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_too_far_off_is_named_with_both_times() {
    let rig = Rig::start().await;
    let token = token(&rig).await;
    for years in [-3, 3] {
        let here = Timestamp::from_second(SystemClock.now().as_second() + years * 365 * 24 * 3600).unwrap();
        let error = refusal(&join(&rig, &token, "n1"), &VirtualClock::new(here)).await;
        let year = |time: Timestamp| time.to_string()[..4].to_owned();
        assert!(error.contains("clock is too far off"), "{error}");
        assert!(error.contains(&here.to_string()[..16]), "the local time: {error}");
        assert!(error.contains(&format!("and {}", year(SystemClock.now()))), "the server's time: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_use_cannot_be_taken() {
    let rig = Rig::start().await;
    joined(&rig, "n1").await;
    // The holder of the same key may always join again: an interrupted join.
    let token = token(&rig).await;
    identity::join(&join(&rig, &token, "n1"), &SystemClock).await.unwrap();
    rig.ask("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    identity::join(&join(&rig, &token, "n1"), &SystemClock).await.unwrap();

    let mut thief = join(&rig, &token, "n1");
    thief.directory = rig.directory.path().join("thief");
    assert!(refusal(&thief, &SystemClock).await.contains("--rejoin"));
    thief.rejoin = true;
    let lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1", "renewTime": "2001-01-01T00:00:00.000000Z"}});
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let (status, lease) = rig.ask_as(&Identity::node("n1"), "POST", path, "application/json", lease).await;
    assert_eq!(status, StatusCode::CREATED, "{lease}");
    assert!(refusal(&thief, &SystemClock).await.contains("runs"), "its lease is of now, whatever the node said");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_replaced_by_a_rejoin_and_loses_its_certificate() {
    let start = SystemClock.now();
    let clock = Arc::new(VirtualClock::new(start));
    let rig = Rig::with_clock(clock.clone()).await;
    let old = joined(&rig, "n1").await;
    rig.ask("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    let mut again = join(&rig, &token(&rig).await, "n1");
    again.directory = rig.directory.path().join("reinstalled");
    again.rejoin = true;
    let error = refusal(&again, &SystemClock).await;
    assert!(error.contains("has just started"), "no heartbeat yet says nothing yet: {error}");
    clock.advance_to(start + Duration::from_secs(50));
    let new = identity::join(&again, &SystemClock).await.unwrap();
    Api::<Service>::all(new.client()).list(&ListParams::default()).await.unwrap();
    let error = Api::<Service>::all(old.client()).list(&ListParams::default()).await.unwrap_err();
    assert_eq!(code(&error), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_was_held_back_is_refused_after_a_rejoin() {
    let rig = Rig::start().await;
    joined(&rig, "n1").await;
    let record = || async { rig.get("/api/v1/namespaces/kube-system/secrets/podbay-node-n1").await["data"].clone() };
    use base64::Engine as _;
    let serial = base64::engine::general_purpose::STANDARD.decode(record().await["serial"].as_str().unwrap()).unwrap();
    let peer = podbay::tls::Peer {
        common_name: "system:node:n1".to_owned(),
        organisations: vec!["system:nodes".to_owned()],
        serial: String::from_utf8(serial).unwrap(),
        not_before: SystemClock.now(),
        not_after: SystemClock.now() + Duration::from_secs(3600),
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let (begun, begins) = tokio::sync::oneshot::channel();
    let (go_on, goes_on) = tokio::sync::oneshot::channel::<()>();
    // Read only when who asks is known.
    let body = futures::stream::once(async move {
        begun.send(()).unwrap();
        goes_on.await.unwrap();
        Ok::<_, std::io::Error>(bytes::Bytes::from(json!({"csr": csr}).to_string()))
    });
    let mut request = http::Request::post("/podbay/v1/renew").body(axum::body::Body::from_stream(body)).unwrap();
    request.extensions_mut().insert(peer);
    use tower::ServiceExt as _;
    let answer = tokio::spawn(rig.router.clone().oneshot(request));
    begins.await.unwrap();
    joined_elsewhere(&rig, "n1").await;
    let before = record().await;
    go_on.send(()).unwrap();
    assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(record().await, before, "the name is the other host's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_refused_at_once() {
    let rig = Rig::start().await;
    let node = joined(&rig, "n1").await;
    rig.ask("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}, "spec": {"podCIDR": "10.80.0.0/24"}})).await;
    let client = node.client();
    let services: Api<Service> = Api::all(client.clone());
    let watch = services.watch(&kube::api::WatchParams::default(), "0").await.unwrap();
    let (status, answer) = rig.ask("POST", "/podbay/v1/nodes/n1/remove", json!({})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    // The open watch ends, the next request is refused, renewing too.
    use futures::StreamExt as _;
    let mut watch = Box::pin(watch);
    tokio::time::timeout(Duration::from_secs(60), async { while watch.next().await.is_some() {} })
        .await
        .expect("the watch of a removed node ends");
    let refused = services.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 401 && status.reason == NODE_REMOVED), "{refused:?}");
    assert!(node.renew().await.is_err());
    assert_eq!(rig.ask("GET", "/api/v1/nodes/n1", Value::Null).await.0, StatusCode::NOT_FOUND);
    assert_eq!(rig.ask("POST", "/podbay/v1/nodes/n1/remove", json!({})).await.0, StatusCode::NOT_FOUND);
    joined(&rig, "n1").await;
}

#[tokio::test]
async fn a_node_that_runs_pods_is_removed_only_when_that_is_meant() {
    let rig = Rig::start().await;
    // The rig's own node, in the process, is called "none".
    for name in ["n1", "none"] {
        rig.ask("POST", "/api/v1/nodes", json!({"metadata": {"name": name}})).await;
        let ready = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        assert_eq!(rig.ask("PATCH", &format!("/api/v1/nodes/{name}/status"), ready("True")).await.0, StatusCode::OK);
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": name, "containers": [{"name": "c", "image": "i"}]}});
        assert_eq!(rig.ask("POST", "/api/v1/namespaces/default/pods", pod).await.0, StatusCode::CREATED);
    }
    let (status, answer) = rig.ask("POST", "/podbay/v1/nodes/n1/remove", json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("drain n1"), "{answer}");
    let (status, answer) = rig.ask("POST", "/podbay/v1/nodes/none/remove", json!({"force": true})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("runs in this daemon"), "{answer}");
    rig.get("/api/v1/nodes/n1").await;
    rig.get("/api/v1/nodes/none").await;
    let (status, answer) = rig.ask("POST", "/podbay/v1/nodes/n1/remove", json!({"force": true})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_before_its_life_is_over() {
    let rig = Rig::start().await;
    let node = joined(&rig, "n1").await;
    let client = node.client();
    let services: Api<Service> = Api::all(client.clone());
    services.list(&ListParams::default()).await.unwrap();
    let days = |days: i64| Timestamp::from_second(SystemClock.now().as_second() + days * 24 * 3600).unwrap();
    let before = node.expires().unwrap();
    let first = NodeIdentity::load(&rig.directory.path().join("agent-n1")).unwrap().unwrap();
    assert!(!node.renew_if_due(days(19)).await.unwrap());
    assert!(node.renew_if_due(days(28)).await.unwrap());
    assert!(node.expires().unwrap() >= before);
    // The client goes on, and so does what is on disk; the certificate before is still good.
    services.list(&ListParams::default()).await.unwrap();
    let stored = NodeIdentity::load(&rig.directory.path().join("agent-n1")).unwrap().unwrap();
    Api::<Service>::all(stored.client()).list(&ListParams::default()).await.unwrap();
    Api::<Service>::all(first.client()).list(&ListParams::default()).await.unwrap();
    node.renew().await.unwrap();
    let error = Api::<Service>::all(first.client()).list(&ListParams::default()).await.unwrap_err();
    assert_eq!(code(&error), 401, "the one before the last is not");
    // No connection of the client's goes on with that one.
    services.list(&ListParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_moved_is_found_where_the_agent_is_told() {
    let rig = Rig::start().await;
    drop(joined(&rig, "n1").await);
    let directory = rig.directory.path().join("agent-n1");
    let moved = rig.url.replace("127.0.0.1", "localhost");
    assert_ne!(moved, rig.url);
    let node = identity::stored(&directory, "n1", &moved, &SystemClock).unwrap().unwrap();
    assert_eq!(node.server(), moved);
    Api::<Service>::all(node.client()).list(&ListParams::default()).await.unwrap();
    assert_eq!(NodeIdentity::load(&directory).unwrap().unwrap().server(), moved, "it is kept");
    // Another server there is not believed.
    let other = Rig::start().await;
    let node = identity::stored(&directory, "n1", &other.url, &SystemClock).unwrap().unwrap();
    assert!(Api::<Service>::all(node.client()).list(&ListParams::default()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_certificate_says_what_became_of_it() {
    let rig = Rig::start().await;
    drop(joined(&rig, "n1").await);
    let why = |of: &str, name: &str, now: &dyn Clock| identity::lacking(&rig.directory.path().join(of), name, now).unwrap();
    assert_eq!(why("nowhere", "n1", &SystemClock), "this host has not joined yet");
    assert_eq!(why("agent-n1", "n2", &SystemClock), "this host has joined as n1, not as n2");
    let late = VirtualClock::new(Timestamp::from_second(SystemClock.now().as_second() + 31 * 24 * 3600).unwrap());
    assert!(why("agent-n1", "n1", &late).starts_with("the certificate of n1 expired at 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_refused() {
    let clock = Arc::new(VirtualClock::new(SystemClock.now()));
    let rig = Rig::with_clock(clock.clone()).await;
    let node = joined(&rig, "n1").await;
    let services: Api<Service> = Api::all(node.client());
    services.list(&ListParams::default()).await.unwrap();
    clock.advance_to(Timestamp::from_second(SystemClock.now().as_second() + 31 * 24 * 3600).unwrap());
    assert_eq!(code(&services.list(&ListParams::default()).await.unwrap_err()), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_api_lets_only_the_server_in() {
    let rig = Rig::start().await;
    let (n1, n2) = (joined(&rig, "n1").await, joined(&rig, "n2").await);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/healthz", axum::routing::get(|| async { "ok" }));
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    tokio::spawn(serve::serve(listener, n1.server_config().unwrap(), router, serve::Bounds::default(), shutdown));
    let ask = |config, name: &'static str| async move {
        let request = http::Request::get("/healthz").header("host", "n1").body(axum::body::Body::empty()).unwrap();
        podbay::tls::connect::ask(&address.to_string(), name, config, request).await
    };
    let server = rig.pki.node_client_config().unwrap();
    assert_eq!(ask(Arc::clone(&server), "n1.node.podbay").await.unwrap().status(), StatusCode::OK);
    assert!(ask(Arc::clone(&server), "n2.node.podbay").await.is_err(), "one node cannot pass for another");
    assert!(ask(server, podbay::tls::SERVER_NAME).await.is_err(), "nor for the server");
    // Another node's certificate is of the same CA, and yet is not let in.
    let stored: Value = serde_json::from_slice(&std::fs::read(rig.directory.path().join("agent-n2/node.json")).unwrap()).unwrap();
    let text = |field: &str| stored[field].as_str().unwrap().to_owned();
    let pair = podbay::tls::authority::Pair { certificate: text("certificate"), key: text("key") };
    let key = podbay::tls::LiveKey::new(&pair, &text("authority")).unwrap();
    let other = podbay::tls::connect::client_config(rig.pki.authority().der(), key).unwrap();
    assert!(ask(other, "n1.node.podbay").await.is_err());
    drop(n2);
}
