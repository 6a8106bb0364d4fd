//! HTTP through the server to pods, Services and nodes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use podbay::clock::SystemClock;
use podbay::server::{Identity, InProcessNode, PodConnector, Wire};
use podbay::store::Store;
use podbay::store::memory::MemoryStore;
use podbay::tls::connection::{Patience, serve_stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::rig::{self, Rig};

const SERVICE: &str = "/api/v1/namespaces/default/services/web/proxy";
const POD: &str = "/api/v1/namespaces/default/pods/web-1:8080/proxy";

/// Pods that are a router in this process; those at other addresses refuse. Notes whom it was asked for.
#[derive(Default)]
struct Pods(Mutex<Vec<String>>);

#[async_trait]
impl PodConnector for Pods {
    async fn connect(&self, address: SocketAddr) -> std::io::Result<Box<dyn Wire>> {
        self.0.lock().unwrap().push(address.to_string());
        if address.to_string() != "10.80.0.1:8080" {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve_stream(far, app(), Patience::KNOWN, CancellationToken::new(), |_| {}));
        Ok(Box::new(near))
    }
}

/// Says what it was asked.
async fn echo(request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers: Value = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let told =
        json!({"method": head.method.as_str(), "uri": head.uri.to_string(), "headers": headers, "body": String::from_utf8_lossy(&body)});
    ([("access-control-allow-origin", "*"), ("x-own", "1")], axum::Json(told)).into_response()
}

/// Switches to a protocol in which everything is said back.
async fn parrot(mut request: Request<Body>) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
        let mut word = [0; 5];
        while stream.read_exact(&mut word).await.is_ok() {
            stream.write_all(&word).await.unwrap();
        }
    });
    Response::builder().status(101).header("connection", "upgrade").header("upgrade", "parrot").body(Body::empty()).unwrap()
}

fn app() -> Router {
    Router::new()
        .route("/moved", get(|| async { (StatusCode::FOUND, [("location", "/login?a=b")]) }))
        .route("/broken", get(|| async { (StatusCode::IM_A_TEAPOT, "no coffee") }))
        .route("/parrot", any(parrot))
        .fallback(any(echo))
}

async fn start() -> (Rig, Arc<Pods>) {
    let node = InProcessNode::new("n1", None);
    let stats = get(|| async { axum::Json(json!({"node": {"nodeName": "n1"}})) });
    node.attach(Router::new().route("/stats/summary", stats).fallback(any(echo)).route("/exec/a/b/c", any(parrot)));
    let pods = Arc::new(Pods::default());
    let (clock, connector) = (Arc::new(SystemClock), Arc::clone(&pods));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&clock) as _));
    let rig = Rig::over(store, clock, |_| Arc::new(node), |state| state.with_pods(connector)).await;
    let pod = |name: &str, address: &str| {
        let containers = json!([{"name": "main", "image": "example.test/app"}]);
        (
            json!({"metadata": {"name": name}, "spec": {"nodeName": "n1", "containers": containers}}),
            json!({"status": {"podIP": address, "podIPs": [{"ip": address}], "phase": "Running"}}),
        )
    };
    let post = async |path: &str, body: Value| {
        let (code, answer) = rig.ask("POST", path, body).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
    };
    post("/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    let mut endpoints = Vec::new();
    for (name, address) in [("web-1", "10.80.0.1"), ("away", "10.80.0.2"), ("near", "127.0.0.1")] {
        let (pod, status) = pod(name, address);
        post("/api/v1/namespaces/default/pods", pod).await;
        let (code, answer) = rig.ask("PATCH", &format!("/api/v1/namespaces/default/pods/{name}/status"), status).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
        // No slice may name an address of the loopback.
        if name != "near" {
            endpoints.push(json!({"addresses": [address], "targetRef": {"kind": "Pod", "namespace": "default", "name": name}}));
        }
    }
    post("/api/v1/namespaces/default/services", json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})).await;
    post("/api/v1/namespaces/default/services", json!({"metadata": {"name": "idle"}, "spec": {"ports": [{"port": 80}]}})).await;
    let metadata = json!({"name": "web-x", "labels": {"kubernetes.io/service-name": "web"}});
    let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "", "port": 8080}]});
    post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    (rig, pods)
}

async fn send(rig: &Rig, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    rig.send(&Identity::admin(), request.body(body.to_owned()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_pod_is_its_own_business() {
    let (rig, _) = start().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        // Nothing of this means anything to the server, and some of it would be refused by it.
        let path = format!("{POD}/a%2Fb//c?watch=%zz&dryRun=never&x");
        let headers = [
            ("accept", "image/png"),
            ("authorization", "Basic c2VjcmV0"),
            ("host", "localhost:8001"),
            ("cookie", "a=b"),
            ("content-type", "text/odd"),
        ];
        let answer = send(&rig, method, &path, &headers, "hello").await;
        assert_eq!((answer.status(), answer.headers().get("x-own").is_some()), (StatusCode::OK, true), "{method}");
        assert!(!answer.headers().contains_key("access-control-allow-origin"));
        let told = rig::json(answer).await;
        assert_eq!(
            (&told["method"], &told["uri"], &told["body"]),
            (&json!(method), &json!("/a%2Fb//c?watch=%zz&dryRun=never&x"), &json!("hello"))
        );
        let heard = &told["headers"];
        assert_eq!((&heard["accept"], &heard["cookie"], &heard["host"]), (&json!("image/png"), &json!("a=b"), &json!("localhost:8001")));
        assert_eq!((&heard["authorization"], &heard["x-forwarded-uri"]), (&Value::Null, &json!(format!("{POD}/a%2Fb//c"))));
        assert_eq!((&heard["x-forwarded-host"], &heard["x-forwarded-proto"]), (&json!("localhost:8001"), &json!("https")));
    }
    let foreign = rig::json(send(&rig, "GET", &format!("{POD}/caf%e9/%FF%00?n=%ff"), &[], "").await).await;
    assert_eq!(foreign["uri"], "/caf%e9/%FF%00?n=%ff", "a path that is no UTF-8 is the other end's to read");
    assert_eq!(foreign["headers"]["x-forwarded-uri"], format!("{POD}/caf%e9/%FF%00"));
    assert_eq!(send(&rig, "GET", &format!("{POD}/%zz"), &[], "").await.status(), StatusCode::NOT_FOUND, "it is no path at all");
    let head = send(&rig, "HEAD", &format!("{POD}/x"), &[], "").await;
    assert!(head.status().is_success() && head.headers().contains_key("content-length"), "{head:?}");
    let nothing = rig::json(send(&rig, "GET", &format!("{POD}/x"), &[], "").await).await;
    assert_eq!(nothing["headers"]["transfer-encoding"], Value::Null, "a request without a body stays one: {nothing}");
    let parts = ["never ", "said how long"].map(Ok::<_, std::io::Error>);
    let request = Request::get(format!("{POD}/search")).body(Body::from_stream(futures::stream::iter(parts))).unwrap();
    let searched = rig::json(rig.stream(&Identity::admin(), request).await).await;
    assert_eq!(searched["body"], "never said how long", "a search may have a body: {searched}");
    let teapot = send(&rig, "GET", &format!("{POD}/broken"), &[], "").await;
    assert_eq!((teapot.status(), rig::json(teapot).await), (StatusCode::IM_A_TEAPOT, json!("no coffee")));
    assert_eq!(send(&rig, "TRACE", &format!("{POD}/x"), &[], "").await.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_through_the_server() {
    let (rig, _) = start().await;
    let location = async |method: &str, path: &str| {
        let answer = send(&rig, method, path, &[], "").await;
        let location = answer.headers().get(header::LOCATION).map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), location.unwrap_or_default())
    };
    assert_eq!(location("GET", &format!("{SERVICE}?a=b")).await, (301, format!("{SERVICE}/?a=b")));
    assert_eq!(location("HEAD", SERVICE).await, (301, format!("{SERVICE}/")));
    assert_eq!(location("GET", &format!("//{}", &POD[1..])).await, (301, format!("{POD}/")), "it never leads to another host");
    assert_eq!(location("POST", SERVICE).await, (200, String::new()));
    assert_eq!(location("GET", &format!("{POD}/moved")).await, (302, format!("{POD}/login?a=b")));
    assert_eq!(location("GET", &format!("{SERVICE}/")).await, (200, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_there_is_told_of_and_nobody_else_is_asked() {
    let (rig, pods) = start().await;
    for (path, code, told) in [
        ("services/idle/proxy/", 503, "no endpoints available for service \"idle\""),
        ("services/none/proxy/", 404, "services \"none\" not found"),
        ("services/web:81/proxy/", 503, "no service port \"81\" found for service \"web\""),
        ("pods/away:8080/proxy/", 503, "error trying to reach service: connect to 10.80.0.2:8080: connection refused"),
        ("pods/near:8080/proxy/", 400, "address not allowed"),
        ("pods/a:b:c:d/proxy/", 400, "invalid pod request \"a:b:c:d\""),
    ] {
        let (status, answer) = rig.ask("GET", &format!("/api/v1/namespaces/default/{path}"), Value::Null).await;
        assert_eq!((status.as_u16(), &answer["kind"], &answer["message"]), (code, &json!("Status"), &json!(told)), "{path}");
    }
    assert_eq!(*pods.0.lock().unwrap(), ["10.80.0.2:8080"]);
    // Of a Service's pods the one that answers is found.
    for _ in 0..8 {
        assert_eq!(rig.ask("GET", &format!("{SERVICE}/"), Value::Null).await.0, StatusCode::OK);
    }
    assert!(pods.0.lock().unwrap().iter().all(|address| !address.starts_with("127.")));
    assert_eq!(rig.ask("GET", "/api/v1/namespaces/default/configmaps/m/proxy/x", Value::Null).await.0, StatusCode::NOT_FOUND);
}

/// Sends a head over a connection of HTTP/1 as this identity; what comes back within the head, and the connection.
async fn raw(rig: &Rig, who: &str, path: &str) -> (String, tokio::io::DuplexStream) {
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let identity = if who == "admin" { Identity::admin() } else { Identity::new(who, &[]) };
    let extend = move |extensions: &mut http::Extensions| {
        extensions.insert(identity.clone());
    };
    tokio::spawn(serve_stream(far, rig.router.clone(), Patience::KNOWN, CancellationToken::new(), extend));
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: parrot\r\n\r\n");
    near.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(near.read_u8().await.unwrap());
    }
    (String::from_utf8(answer).unwrap().to_ascii_lowercase(), near)
}

async fn give(rig: &Rig, who: &str, verbs: &[&str], resource: &str, name: &str) {
    let rule = json!({"verbs": verbs, "apiGroups": [""], "resources": [resource], "resourceNames": [name]});
    let path = "/apis/rbac.authorization.k8s.io/v1";
    let (code, answer) = rig.ask("POST", &format!("{path}/clusterroles"), json!({"metadata": {"name": who}, "rules": [rule]})).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": who});
    let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": who});
    let binding = json!({"metadata": {"name": who}, "roleRef": role, "subjects": [subject]});
    assert_eq!(rig.ask("POST", &format!("{path}/clusterrolebindings"), binding).await.0, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_go_through_and_commands_of_a_node_take_more_than_reading() {
    let (rig, _) = start().await;
    let exec = "/api/v1/nodes/n1/proxy/exec/a/b/c";
    for path in [format!("{POD}/parrot"), format!("{SERVICE}/parrot"), exec.to_owned()] {
        let (head, mut stream) = raw(&rig, "admin", &path).await;
        assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: parrot"), "{head}");
        for word in [b"hello", b"again"] {
            stream.write_all(word).await.unwrap();
            let mut back = [0; 5];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, word);
        }
    }
    let (head, _) = raw(&rig, "admin", &format!("{POD}/x")).await;
    assert!(head.starts_with("http/1.1 200"), "whoever does not switch answers as always: {head}");
    give(&rig, "reader", &["get"], "nodes/proxy", "n1").await;
    give(&rig, "runner", &["get", "create"], "nodes/proxy", "n1").await;
    let reader = Identity::new("reader", &[]);
    let read = |path: &'static str| rig.ask_as(&reader, "GET", path, "", Value::Null);
    assert_eq!(read("/api/v1/nodes/n1/proxy/stats/summary").await.0, StatusCode::OK);
    assert!(raw(&rig, "reader", exec).await.0.starts_with("http/1.1 403"));
    assert!(raw(&rig, "runner", exec).await.0.starts_with("http/1.1 101"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_is_that_to_the_subresource_by_the_name_in_the_path() {
    let (rig, pods) = start().await;
    give(&rig, "jane", &["get"], "services/proxy", "http:web:80").await;
    give(&rig, "all", &["*"], "services/proxy", "web").await;
    let (named, other) = ("/api/v1/namespaces/default/services/http:web:80/proxy/x", "/api/v1/namespaces/default/services/web/proxy/x");
    for (who, method, path, code) in [
        ("jane", "GET", named, 200),
        ("jane", "POST", named, 403),
        ("jane", "OPTIONS", named, 403),
        ("jane", "GET", other, 403),
        ("jane", "GET", "/api/v1/namespaces/default/pods/web-1/proxy/x", 403),
        ("all", "OPTIONS", other, 200),
        ("system:node:n1", "GET", "/api/v1/nodes/n1/proxy/pods", 403),
    ] {
        let identity = match who.strip_prefix("system:node:") {
            Some(node) => Identity::node(node),
            None => Identity::new(who, &[]),
        };
        let (status, answer) = rig.ask_as(&identity, method, path, "", Value::Null).await;
        assert_eq!(status.as_u16(), code, "{who} {method} {path}: {answer}");
    }
    let asked = pods.0.lock().unwrap().len();
    let (_, answer) = rig.ask_as(&Identity::new("jane", &[]), "POST", named, "", Value::Null).await;
    assert_eq!(
        answer["message"],
        "services \"http:web:80\" is forbidden: User \"jane\" cannot create resource \"services/proxy\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(pods.0.lock().unwrap().len(), asked, "nobody is reached for whoever may not");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_kubectl_asks_nodes_and_services() {
    let (rig, _) = start().await;
    let summary = rig.kubectl_ok("get --raw /api/v1/nodes/n1/proxy/stats/summary").await;
    assert_eq!(serde_json::from_str::<Value>(&summary).unwrap()["node"]["nodeName"], "n1");
    let told: Value = serde_json::from_str(&rig.kubectl_ok(&format!("get --raw {SERVICE}/page?a=b")).await).unwrap();
    assert_eq!((&told["uri"], &told["headers"]["x-forwarded-for"]), (&json!("/page?a=b"), &json!("127.0.0.1")), "{told}");
    let listed = rig.get("/api/v1").await;
    let proxied = listed["resources"].as_array().unwrap().iter().filter(|it| it["name"].as_str().unwrap().ends_with("/proxy"));
    let kinds: Vec<&str> = proxied.map(|it| it["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    assert!(["NodeProxyOptions", "PodProxyOptions", "ServiceProxyOptions"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
}
