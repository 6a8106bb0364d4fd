//! Admission webhooks on a small TLS server in this process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use podbay::clock::{Clock, SystemClock};
use podbay::model::{Key, Kind, Object};
use podbay::server::audit::{Audit, Policy};
use podbay::server::hooks::PodsAsked;
use podbay::server::{Identity, InProcessNode};
use podbay::store::memory::MemoryStore;
use podbay::store::{Precondition, Snapshot, Store, Transaction, Write};
use podbay::{control, driver};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::rig::{self, Rig};

pub const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
pub const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// What the webhook at a path says to a request.
type Say = dyn Fn(&str, &Value) -> Reply + Send + Sync;

pub enum Reply {
    /// `AdmissionReview.response`, but for its uid.
    Review(Value),
    Raw(StatusCode, Vec<u8>),
    /// None, ever.
    Silence,
}

pub fn yes() -> Reply {
    Reply::Review(json!({"allowed": true}))
}

pub fn no(message: &str) -> Reply {
    Reply::Review(json!({"allowed": false, "status": {"message": message, "code": 403, "reason": "Forbidden"}}))
}

pub fn patch(operations: Value) -> Reply {
    let patch = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    Reply::Review(json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

/// A server of webhooks.
pub struct Judge {
    url: String,
    /// `caBundle`
    bundle: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

#[derive(Clone)]
struct Bench {
    say: Arc<Say>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Judge {
    pub async fn start(say: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::known_by(rcgen::IsCa::NoCa, say).await
    }

    /// With a certificate that signed itself, and may or may not sign others.
    async fn known_by(is_ca: rcgen::IsCa, say: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Self {
        podbay::tls::install_provider();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut certificate = rcgen::CertificateParams::new(["127.0.0.1", "hook.default.svc"].map(str::to_owned)).unwrap();
        certificate.is_ca = is_ca;
        let certificate = certificate.self_signed(&key).unwrap();
        let secret = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config =
            rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], secret).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let router = Router::new().fallback(judge).with_state(Bench { say: Arc::new(say), asked: Arc::clone(&asked) });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    // Who does not trust it is not answered.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let builder = Builder::new(TokioExecutor::new());
                    builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await.ok();
                });
            }
        });
        Self { url, bundle: base64::engine::general_purpose::STANDARD.encode(certificate.pem()), asked }
    }

    /// A webhook at a path named like it, with these fields over ones that match every configmap.
    pub fn hook(&self, name: &str, fields: &Value) -> Value {
        let mut hook = json!({"name": format!("{name}.hooks.example.com"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"url": format!("{}/{name}", self.url), "caBundle": self.bundle},
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
        json_patch::merge(&mut hook, fields);
        hook
    }

    /// What was asked since the last look: the path, and the request.
    pub fn asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|(path, _)| path).collect()
    }
}

async fn judge(State(bench): State<Bench>, request: Request<Body>) -> Response<Body> {
    assert_eq!(request.method(), "POST");
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let body = axum::body::to_bytes(request.into_body(), 4 << 20).await.unwrap();
    let review: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&review["kind"], &review["apiVersion"]), (&json!("AdmissionReview"), &json!("admission.k8s.io/v1")));
    let request = &review["request"];
    bench.asked.lock().unwrap().push((path.clone(), request.clone()));
    match (bench.say)(&path, request) {
        Reply::Review(mut response) => {
            if response["uid"].is_null() {
                response["uid"] = request["uid"].clone();
            }
            let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
            Response::new(Body::from(answer.to_string()))
        }
        Reply::Raw(status, body) => {
            let answer = Response::builder().status(status).header("location", "/allow");
            answer.body(Body::from(Bytes::from(body))).unwrap()
        }
        Reply::Silence => std::future::pending().await,
    }
}

pub async fn configure(rig: &Rig, path: &str, name: &str, hooks: Value) {
    let (status, answer) = rig.ask("POST", path, json!({"metadata": {"name": name}, "webhooks": hooks})).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "example.test/c"}]}})
}

/// Status, head and body of an answer.
async fn whole(rig: &Rig, method: &str, path: &str, body: Value) -> (StatusCode, HeaderMap, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json").body(body.to_string()).unwrap();
    let response = rig.send(&Identity::admin(), request).await;
    let (status, headers) = (response.status(), response.headers().clone());
    (status, headers, rig::json(response).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_change_come_before_those_that_judge() {
    let rig = Rig::start().await;
    let judge = Judge::start(|path, request| match path {
        "first" => patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"first": "1"}}])),
        "second" if request["object"]["metadata"]["labels"]["first"] == "1" => {
            let sidecar = json!({"name": "sidecar", "image": "example.test/side"});
            patch(json!([{"op": "add", "path": "/spec/containers/-", "value": sidecar}]))
        }
        _ => yes(),
    })
    .await;
    let pods = json!({"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    configure(&rig, VALIDATING, "all", json!([judge.hook("judge", &pods)])).await;
    // By their names, whenever they were made.
    configure(&rig, MUTATING, "b", json!([judge.hook("second", &pods), judge.hook("third", &pods)])).await;
    configure(&rig, MUTATING, "a", json!([judge.hook("first", &pods)])).await;
    let (status, made) = rig.ask("POST", &format!("{PODS}?fieldManager=me"), pod("web")).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!((&made["metadata"]["labels"], &made["spec"]["containers"][1]["name"]), (&json!({"first": "1"}), &json!("sidecar")));
    let owners = made["metadata"]["managedFields"].to_string();
    assert!(owners.contains("f:first") && owners.contains(r#"k:{\"name\":\"sidecar\"}"#), "{owners}");
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "me", "what they change is whose request it was");

    let asked = judge.asked();
    assert_eq!(asked.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["first", "second", "third", "judge"]);
    let first = &asked[0].1;
    assert_eq!(first["object"]["spec"]["containers"][0]["imagePullPolicy"], "Always", "defaults are filled in before anybody is asked");
    assert_eq!((&first["operation"], &first["oldObject"], &first["dryRun"]), (&json!("CREATE"), &Value::Null, &json!(false)));
    assert_eq!((&first["name"], &first["namespace"]), (&json!("web"), &json!("default")));
    assert_eq!(first["userInfo"]["username"], "podbay-admin");
    assert_eq!(first["resource"], json!({"group": "", "version": "v1", "resource": "pods"}));
    assert_eq!(
        first["options"],
        json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me", "fieldValidation": "Warn"})
    );
    assert_eq!(asked[2].1["object"]["spec"]["containers"][1]["imagePullPolicy"], "Always", "and after each change");
    let judged = &asked[3].1["object"];
    assert_eq!((&judged["status"]["phase"], &judged["metadata"]["uid"]), (&json!("Pending"), &Value::Null), "as it would be stored");

    // What comes of it is checked as what anybody sends.
    let spoils = Judge::start(|_, _| patch(json!([{"op": "replace", "path": "/spec/containers/0/name", "value": "Not/One"}]))).await;
    configure(&rig, MUTATING, "c", json!([spoils.hook("spoils", &pods)])).await;
    let (status, refused) = rig.ask("POST", PODS, pod("spoiled")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("spec.containers[0].name: Invalid value: \"Not/One\""), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_is_a_no() {
    let rig = Rig::start().await;
    let judge = Judge::start(|_, request| match request["operation"].as_str() {
        Some("DELETE") if request["oldObject"]["data"]["a"] == "1" => no("it is dear to me"),
        Some("UPDATE") if request["object"]["data"] != request["oldObject"]["data"] => no("it is fine as it is"),
        Some("CREATE") if request["name"] == "bad" => no("no bad ones"),
        _ => yes(),
    })
    .await;
    rig.ask("POST", MAPS, map("old")).await;
    configure(&rig, VALIDATING, "all", json!([judge.hook("deny", &json!({}))])).await;
    let denied = "admission webhook \"deny.hooks.example.com\" denied the request: ";
    let old = format!("{MAPS}/old");
    for (method, path, body, why) in [
        ("POST", MAPS, map("bad"), "no bad ones"),
        ("PUT", &old, json!({"metadata": {"name": "old"}, "data": {"a": "2"}}), "it is fine as it is"),
        ("PATCH", &old, json!({"data": {"a": "2"}}), "it is fine as it is"),
        ("DELETE", &old, Value::Null, "it is dear to me"),
        ("DELETE", MAPS, Value::Null, "it is dear to me"),
    ] {
        let (status, answer) = rig.ask(method, path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}: {answer}");
        assert_eq!((&answer["message"], &answer["reason"]), (&json!(format!("{denied}{why}")), &json!("Forbidden")), "{method} {path}");
    }
    assert_eq!(rig.get(&old).await["data"]["a"], "1");
    let apply = "application/apply-patch+yaml";
    let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bad"}, "data": {}});
    let path = format!("{MAPS}/bad?fieldManager=me");
    let (status, answer) = rig.ask_as(&Identity::admin(), "PATCH", &path, apply, wanted.clone()).await;
    assert_eq!((status, &answer["message"]), (StatusCode::FORBIDDEN, &json!(format!("{denied}no bad ones"))));

    judge.asked();
    let (status, _) = rig.ask("PATCH", &format!("{old}?dryRun=All"), json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!(status, StatusCode::OK);
    let (_, request) = &judge.asked()[0];
    assert_eq!((&request["dryRun"], &request["options"]["dryRun"]), (&json!(true), &json!(["All"])));
    assert_eq!(request["object"]["metadata"]["resourceVersion"], request["oldObject"]["metadata"]["resourceVersion"]);

    let output = rig.kubectl("create configmap bad").await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains(&format!("{denied}no bad ones")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_well_is_as_good_as_its_policy_says() {
    let rig = Rig::start().await;
    let judge = Judge::start(|path, _| match path {
        "silence" => Reply::Silence,
        "uid" => Reply::Review(json!({"uid": "another", "allowed": true})),
        "large" => Reply::Raw(StatusCode::OK, vec![b' '; (3 << 20) + 1]),
        "error" => Reply::Raw(StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
        "moved" => Reply::Raw(StatusCode::TEMPORARY_REDIRECT, Vec::new()),
        "text" => Reply::Raw(StatusCode::OK, b"yes".to_vec()),
        "unread" => Reply::Review(json!({"allowed": true, "patchType": "JSONPatch", "patch": "e30="})),
        _ => yes(),
    })
    .await;
    let stranger = Judge::start(|_, _| yes()).await;
    let other = json!({"clientConfig": {"caBundle": stranger.bundle}});
    let nowhere = json!({"clientConfig": {"url": null, "caBundle": null, "service": {"name": "hook", "namespace": "default"}}});
    let post = |name: &str| format!("failed to call webhook: Post \"{}/{name}?timeout=1s\": ", judge.url);
    for (name, fields, why) in [
        ("silence", json!({}), format!("{}context deadline exceeded", post("silence"))),
        ("uid", json!({}), "received invalid webhook response: expected response.uid=".to_owned()),
        ("large", json!({}), format!("{}the answer is larger than 3145728 bytes", post("large"))),
        ("error", json!({}), format!("{}the server answered with 500", post("error"))),
        ("moved", json!({}), format!("{}the server answered with 307", post("moved"))),
        ("text", json!({}), "failed to call webhook: expected value".to_owned()),
        ("unread", json!({}), "received undecodable patch in webhook response: ".to_owned()),
        ("allow", other, format!("{}connect to", post("allow"))),
        ("service", nowhere, "failed to call webhook: service \"hook\" not found".to_owned()),
        ("condition", json!({"matchConditions": [{"name": "it", "expression": "object.spec.x == 1"}]}), String::new()),
    ] {
        for policy in ["Fail", "Ignore"] {
            let mut fields = fields.clone();
            json_patch::merge(&mut fields, &json!({"timeoutSeconds": 1, "failurePolicy": policy}));
            configure(&rig, MUTATING, "it", json!([judge.hook(name, &fields)])).await;
            let (status, answer) = rig.ask("POST", MAPS, map(&format!("{name}-{}", policy.to_lowercase()))).await;
            let message = answer["message"].as_str().unwrap_or_default();
            match (policy, name) {
                ("Ignore", _) => assert_eq!(status, StatusCode::CREATED, "{name}: {answer}"),
                (_, "condition") => {
                    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
                    assert!(message.contains("expression 'it' resulted in error: no such key: spec"), "{answer}");
                }
                _ => {
                    assert_eq!((status, &answer["reason"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!("InternalError")), "{name}");
                    let wanted = format!("Internal error occurred: failed calling webhook \"{name}.hooks.example.com\": {why}");
                    assert!(message.starts_with(&wanted), "{message}\n{wanted}");
                }
            }
            // Whoever is locked out takes it away.
            let (status, answer) = rig.ask("DELETE", &format!("{MUTATING}/it"), Value::Null).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
        }
    }
    assert!(stranger.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_for_everything_is_not_asked_about_webhooks() {
    let rig = Rig::start().await;
    let judge = Judge::start(|_, _| no("nothing")).await;
    let everything = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    configure(&rig, VALIDATING, "all", json!([judge.hook("all", &everything)])).await;
    configure(&rig, MUTATING, "all", json!([judge.hook("change", &everything)])).await;
    let (status, _) = rig.ask("POST", MAPS, map("a")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _) = rig.ask("PATCH", &format!("{MUTATING}/all"), json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(status, StatusCode::OK);
    for path in [MUTATING, VALIDATING] {
        let (status, answer) = rig.ask("DELETE", &format!("{path}/all"), Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    assert_eq!(judge.paths(), ["change"], "the one that judges is not asked about what is refused");
    let (status, _) = rig.ask("POST", MAPS, map("a")).await;
    assert_eq!(status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_says_besides_is_told_and_written_down() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("audit.log");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new(Arc::clone(&clock)));
    let audit = Audit::open(&log, Policy::default()).unwrap();
    let rig = Rig::over(store, clock, |_| Arc::new(InProcessNode::new("none", None)), |state| state.with_audit(Some(audit))).await;
    let judge = Judge::start(|_, request| {
        let allowed = request["name"] != "bad";
        Reply::Review(json!({"allowed": allowed, "warnings": ["think \"again\""], "auditAnnotations": {"mood": "grim"}}))
    })
    .await;
    configure(&rig, VALIDATING, "all", json!([judge.hook("warn", &json!({}))])).await;
    for (name, code) in [("good", StatusCode::CREATED), ("bad", StatusCode::BAD_REQUEST)] {
        let (status, headers, answer) = whole(&rig, "POST", MAPS, map(name)).await;
        assert_eq!((status, headers["warning"].to_str().unwrap()), (code, r#"299 - "think \"again\"""#), "{answer}");
    }
    let written = loop {
        let text = std::fs::read_to_string(&log).unwrap();
        if text.lines().count() == 3 {
            break text;
        }
        tokio::task::yield_now().await;
    };
    let annotations: Vec<Value> = written.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["annotations"].take()).collect();
    let told = json!({"warn.hooks.example.com/mood": "grim"});
    assert_eq!(annotations, [Value::Null, told.clone(), told]);
}

#[tokio::test(flavor = "multi_thread")]
async fn subresources_send_what_they_take() {
    let rig = Rig::start().await;
    let judge = Judge::start(|_, request| match request["kind"]["kind"].as_str() {
        Some("Scale") if request["object"]["spec"]["replicas"].as_i64() > Some(3) => {
            patch(json!([{"op": "replace", "path": "/spec/replicas", "value": 3}]))
        }
        Some("PodExecOptions") => no("nobody gets in"),
        Some("Eviction") => no("it stays"),
        _ => yes(),
    })
    .await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "example.test/c"}]}});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let web = "/apis/apps/v1/namespaces/default/deployments/web";
    rig.ask("POST", "/apis/apps/v1/namespaces/default/deployments", deployment).await;
    rig.ask("POST", PODS, pod("p")).await;
    let everything = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    configure(&rig, MUTATING, "all", json!([judge.hook("all", &everything)])).await;

    let scale = format!("{web}/scale");
    let (status, scaled) = rig.ask("PATCH", &scale, json!({"spec": {"replicas": 9}})).await;
    assert_eq!((status, &scaled["spec"]["replicas"]), (StatusCode::OK, &json!(3)), "{scaled}");
    let (_, _) = rig.ask("PATCH", &format!("{web}/status"), json!({"status": {"replicas": 1}})).await;
    let denied = "admission webhook \"all.hooks.example.com\" denied the request: ";
    let eviction = json!({"metadata": {"name": "p"}});
    let (status, answer) = rig.ask("POST", &format!("{PODS}/p/eviction"), eviction).await;
    assert_eq!((status, &answer["message"]), (StatusCode::FORBIDDEN, &json!(format!("{denied}it stays"))));
    let (status, answer) = rig.ask("POST", &format!("{PODS}/p/exec?command=sh&command=-c&stdin=1&container=c"), Value::Null).await;
    assert_eq!((status, &answer["message"]), (StatusCode::FORBIDDEN, &json!(format!("{denied}nobody gets in"))));
    let binding = json!({"target": {"kind": "Node", "name": "n1"}});
    let (status, answer) = rig.ask("POST", &format!("{PODS}/p/binding"), binding).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let (status, answer) = rig.ask("POST", "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "me"}})).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let (status, answer) = rig.ask("POST", "/api/v1/namespaces/default/serviceaccounts/me/token", json!({"spec": {}})).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let proxied = "/api/v1/namespaces/default/services/http:web:80/proxy/x?y=1";
    assert_eq!(rig.ask("GET", proxied, Value::Null).await.0, StatusCode::NOT_FOUND);

    let asked = judge.asked();
    let told: Vec<String> = asked
        .iter()
        .map(|(_, it)| {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            [&it["operation"], &it["kind"]["kind"], &it["resource"]["resource"], &it["subResource"], &it["name"]].map(word).join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            "UPDATE Scale deployments scale web",
            "UPDATE Deployment deployments status web",
            "CREATE Eviction pods eviction p",
            "CONNECT PodExecOptions pods exec p",
            "CREATE Binding pods binding p",
            "CREATE ServiceAccount serviceaccounts  me",
            "CREATE TokenRequest serviceaccounts token me",
            "CONNECT ServiceProxyOptions services proxy http:web:80",
        ]
    );
    assert_eq!(asked[7].1["object"], json!({"kind": "ServiceProxyOptions", "apiVersion": "v1", "path": "/x"}));
    assert_eq!(asked[0].1["oldObject"]["spec"]["replicas"], 1);
    let options = json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "command": ["sh", "-c"], "container": "c"});
    assert_eq!((&asked[3].1["object"], &asked[3].1["options"]), (&options, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_asked_where_its_pods_are_and_by_its_own_name() {
    let judge = Judge::start(|path, request| if path == "judge" && request["name"] == "bad" { no("no bad ones") } else { yes() }).await;
    let port: u16 = judge.url.rsplit(':').next().unwrap().parse().unwrap();
    let slice = |name: &str, of: &str, port: u16, ready: bool| {
        json!({"metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": of}}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}], "ports": [{"name": "https", "port": port}]})
    };
    let service = |name: &str| json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 8443}]}});
    let mut state = Snapshot::default();
    for (kind, value) in [
        (Kind::Service, service("hook")),
        (Kind::Service, service("other")),
        // Nobody listens there: the next is asked.
        (Kind::EndpointSlice, slice("a", "hook", 1, true)),
        (Kind::EndpointSlice, slice("b", "hook", port, true)),
        (Kind::EndpointSlice, slice("c", "other", port, true)),
    ] {
        state.insert(Object::from_value(kind, value).unwrap());
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::starting_with(state, Arc::clone(&clock)));
    let rig = Rig::over(store, clock, |_| Arc::new(InProcessNode::new("none", None)), |state| state).await;
    let client = |name: &str| json!({"clientConfig": {"url": null, "service": {"name": name, "namespace": "default", "path": "/judge"}}});
    configure(&rig, VALIDATING, "it", json!([judge.hook("hook", &client("hook"))])).await;
    let (status, answer) = rig.ask("POST", MAPS, map("good")).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let (status, answer) = rig.ask("POST", MAPS, map("bad")).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    // Its certificate is another Service's.
    configure(&rig, VALIDATING, "other", json!([judge.hook("other", &client("other"))])).await;
    let (status, answer) = rig.ask("POST", MAPS, map("c")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{answer}");
    let why = "failed calling webhook \"other.hooks.example.com\": failed to call webhook: Post \"https://other.default.svc:443/judge?timeout=10s\"";
    assert!(answer["message"].as_str().unwrap().contains(why), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_knows_another_version_of_a_custom_kind() {
    let rig = Rig::start().await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer", "default": 1}, "colour": {"type": "string"}}}}}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": schema});
    let definition = json!({"metadata": {"name": "parts.hooks.example.com"}, "spec": {"group": "hooks.example.com", "scope": "Namespaced",
        "names": {"plural": "parts", "singular": "part", "kind": "Part"}, "versions": [version("v1", true), version("v2", false)]}});
    let (status, answer) = rig.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let judge = Judge::start(|_, request| {
        assert_eq!(request["object"]["apiVersion"], "hooks.example.com/v2");
        patch(json!([{"op": "add", "path": "/spec/colour", "value": "red"}, {"op": "add", "path": "/spec/unknown", "value": 1}]))
    })
    .await;
    let parts =
        json!({"rules": [{"operations": ["*"], "apiGroups": ["hooks.example.com"], "apiVersions": ["v2"], "resources": ["parts"]}]});
    configure(&rig, MUTATING, "parts", json!([judge.hook("paint", &parts)])).await;
    let part = json!({"metadata": {"name": "a"}, "spec": {}});
    let (status, made) = rig.ask("POST", "/apis/hooks.example.com/v1/namespaces/default/parts", part).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("hooks.example.com/v1"), &json!({"size": 1, "colour": "red"})));
    let (_, request) = &judge.asked()[0];
    assert_eq!((&request["kind"]["version"], &request["requestKind"]["version"]), (&json!("v2"), &json!("v1")));
    assert_eq!(request["object"]["spec"]["size"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_knows_the_kinds() {
    let rig = Rig::start().await;
    let judge = Judge::start(|_, _| Reply::Review(json!({"allowed": true, "warnings": ["mind the gap"]}))).await;
    for kind in ["Mutating", "Validating"] {
        let name = kind.to_lowercase();
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
            "metadata": {"name": name}, "webhooks": [judge.hook(&name, &json!({}))]});
        std::fs::write(rig.directory.path().join("hook.json"), object.to_string()).unwrap();
        rig.kubectl_ok("apply -f hook.json").await;
        rig.kubectl_ok("apply --server-side --force-conflicts -f hook.json").await;
        let table = rig.kubectl_ok(&format!("get {name}webhookconfigurations")).await;
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((&lines[0], &lines[1][..2]), (&vec!["NAME", "WEBHOOKS", "AGE"], &[name.as_str(), "1"][..]), "{table}");
        assert!(rig.kubectl_ok(&format!("explain {name}webhookconfiguration.webhooks")).await.contains("failurePolicy"));
    }
    let output = rig.kubectl("create configmap a").await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && error.contains("Warning: mind the gap"), "{error}");
    rig.kubectl_ok("delete validatingwebhookconfiguration,mutatingwebhookconfiguration --all").await;
}

pub async fn until(rig: &Rig, what: impl Fn(&Snapshot) -> bool) {
    let look = async {
        loop {
            let state = rig.store.snapshot();
            if what(&state) {
                return;
            }
            rig.store.watch(state.revision()).unwrap().next().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look).await.expect("the state never comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_ask_about_the_pods_they_make() {
    let rig = Rig::start().await;
    let judge = Judge::start(|_, request| {
        let labels = &request["object"]["metadata"]["labels"];
        let may = labels["app"] != "bad" && (request["operation"] != "CREATE" || request["object"]["kind"] == "Pod");
        if labels["app"] == "odd" {
            patch(json!([{"op": "add", "path": "/spec/priorityClassName", "value": "high"}]))
        } else if may {
            patch(json!([{"op": "add", "path": "/metadata/labels/seen", "value": "yes"}]))
        } else {
            no("no bad pods")
        }
    })
    .await;
    let pods = json!({"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    configure(&rig, MUTATING, "pods", json!([judge.hook("pods", &pods)])).await;
    let silence = Judge::start(|_, _| Reply::Silence).await;
    let mute = json!({"rules": pods["rules"], "objectSelector": {"matchLabels": {"app": "slow"}}, "timeoutSeconds": 30});
    configure(&rig, VALIDATING, "slow", json!([silence.hook("slow", &mute)])).await;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let down = CancellationToken::new();
    let asked = Arc::new(PodsAsked::new(Arc::clone(&rig.store), Arc::clone(&clock)));
    let controllers = control::all(control::Options::new(clock.now()));
    let driver = tokio::spawn(driver::run(asked, controllers, clock, down.clone()));
    // One that waits for its answer keeps nobody from anything.
    for app in ["slow", "bad", "odd", "good"] {
        let template = json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": "example.test/c"}]}});
        let set =
            json!({"metadata": {"name": app}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": app}}, "template": template}});
        let (status, answer) = rig.ask("POST", "/apis/apps/v1/namespaces/default/deployments", set).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }
    let seen = |state: &Snapshot| state.list(Kind::Pod).filter(|pod| pod.labels().get("seen").is_some_and(|it| it == "yes")).count();
    until(&rig, |state| seen(state) == 2).await;
    let denied = "is forbidden: admission webhook \"pods.hooks.example.com\" denied the request: no bad pods";
    let told = |event: &Object| event.value()["reason"] == "FailedCreate" && event.value()["message"].as_str().unwrap().ends_with(denied);
    until(&rig, |state| state.list(Kind::Event).any(told)).await;
    let fails = |state: &Snapshot, kind: Kind, why: &str| {
        let said = |object: &Object| object.value()["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_it = |it: &Value| it["type"] == "ReplicaFailure" && it["message"].as_str().unwrap().ends_with(why);
        state.list(kind).any(|object| said(object).iter().any(is_it))
    };
    for kind in [Kind::ReplicaSet, Kind::Deployment] {
        until(&rig, |state| fails(state, kind, denied)).await;
        until(&rig, |state| fails(state, kind, "spec.priorityClassName: Forbidden: pod priorities are not supported yet")).await;
    }
    assert_eq!(rig.store.snapshot().list(Kind::Pod).count(), 2);
    let (_, request) = &judge.asked()[0];
    assert_eq!(request["userInfo"]["username"], "system:serviceaccount:kube-system:replicaset-controller");
    down.cancel();
    driver.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_leaves_no_object_is_the_webhooks_fault() {
    let rig = Rig::start().await;
    let judge = Judge::start(|path, _| match path {
        "list" => patch(json!([{"op": "replace", "path": "", "value": []}])),
        "text" => patch(json!([{"op": "add", "path": "", "value": "no"}])),
        _ => patch(json!([{"op": "replace", "path": "/metadata", "value": "mine"}])),
    })
    .await;
    rig.ask("POST", PODS, pod("p")).await;
    for name in ["list", "text", "metadata"] {
        let rule = json!({"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["configmaps", "pods/status", "pods/resize", "pods/ephemeralcontainers"]});
        configure(&rig, MUTATING, "it", json!([judge.hook(name, &json!({"failurePolicy": "Ignore", "rules": [rule]}))])).await;
        for (method, path, body) in [
            ("POST", MAPS.to_owned(), map("a")),
            ("PATCH", format!("{PODS}/p/status"), json!({"status": {"message": "x"}})),
            ("PATCH", format!("{PODS}/p/resize"), json!({"metadata": {"labels": {"x": "y"}}})),
            ("PATCH", format!("{PODS}/p/ephemeralcontainers"), json!({"spec": {"ephemeralContainers": []}})),
        ] {
            let (status, answer) = rig.ask(method, &path, body).await;
            let why = format!("Internal error occurred: admission webhook \"{name}.hooks.example.com\" left no object");
            assert_eq!((status, &answer["message"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!(why)), "{name} {path}");
        }
        rig.ask("DELETE", &format!("{MUTATING}/it"), Value::Null).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_applied_is_applied_again() {
    let rig = Rig::start().await;
    let judge = Judge::start(|_, _| patch(json!([{"op": "replace", "path": "/data/a", "value": "mirror/1"}]))).await;
    configure(&rig, MUTATING, "it", json!([judge.hook("mirror", &json!({}))])).await;
    let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "1"}});
    for code in [StatusCode::CREATED, StatusCode::OK] {
        let path = format!("{MAPS}/a?fieldManager=me&force=false");
        let (status, answer) = rig.ask_as(&Identity::admin(), "PATCH", &path, "application/apply-patch+yaml", wanted.clone()).await;
        assert_eq!((status, &answer["data"]["a"]), (code, &json!("mirror/1")), "{answer}");
        let managed = &answer["metadata"]["managedFields"];
        assert_eq!((managed.as_array().unwrap().len(), &managed[0]["operation"]), (1, &json!("Apply")), "{managed}");
    }
    let options: Vec<Value> = judge.asked().into_iter().map(|(_, mut request)| request["options"].take()).collect();
    let said = |kind: &str| json!({"kind": kind, "apiVersion": "meta.k8s.io/v1", "fieldManager": "me", "fieldValidation": "Warn"});
    let mut patched = said("PatchOptions");
    patched["force"] = false.into();
    assert_eq!(options, [said("CreateOptions"), patched]);
}

/// Changes an object while a webhook is asked about it.
fn meddle(store: &Arc<dyn Store>, key: &Key, label: &str) {
    let object = store.snapshot().get(key).cloned().unwrap();
    let changed = object.edit_meta(|meta| drop(meta.labels.get_or_insert_default().insert(label.to_owned(), "yes".to_owned())));
    let transaction = Transaction::new("somebody").with(Write::Update(changed, Precondition::exists()));
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(store.commit(transaction))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_a_webhook_thinks_is_not_lost() {
    let rig = Rig::start().await;
    let (store, met) = (Arc::clone(&rig.store), AtomicUsize::new(0));
    let judge = Judge::start(move |_, request| {
        if met.fetch_add(1, Ordering::SeqCst) == 0 {
            meddle(&store, &Key::new(Kind::Deployment, "default", "web"), "meanwhile");
        }
        if request["object"]["spec"]["replicas"] == 9 { no("too many") } else { yes() }
    })
    .await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "example.test/c"}]}});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let web = "/apis/apps/v1/namespaces/default/deployments/web";
    rig.ask("POST", "/apis/apps/v1/namespaces/default/deployments", deployment).await;
    let rule = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["deployments/scale"]});
    configure(&rig, VALIDATING, "it", json!([judge.hook("it", &json!({"rules": [rule]}))])).await;
    let scale = format!("{web}/scale");
    let seen = rig.get(&scale).await;
    let wanted = |replicas: i32| json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": replicas}});
    let (status, answer) = rig.ask("PUT", &scale, wanted(5)).await;
    assert_eq!((status, &answer["spec"]["replicas"]), (StatusCode::OK, &json!(5)), "{answer}");
    assert_eq!(rig.get(web).await["metadata"]["labels"]["meanwhile"], "yes");
    assert_eq!(judge.paths().len(), 2, "it is asked about what it is now");
    let mut old = wanted(3);
    old["metadata"]["resourceVersion"] = seen["metadata"]["resourceVersion"].clone();
    for method in ["PUT", "PATCH"] {
        let (status, answer) = rig.ask(method, &scale, old.clone()).await;
        assert_eq!(status, StatusCode::CONFLICT, "{answer}");
        assert_eq!(judge.paths().len(), 1, "{method}: who says which version it is does not mean another");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_what_the_webhook_saw() {
    for path in [MAPS.to_owned(), format!("{MAPS}/a")] {
        let rig = Rig::start().await;
        let (store, met) = (Arc::clone(&rig.store), AtomicUsize::new(0));
        let judge = Judge::start(move |_, request| {
            if met.fetch_add(1, Ordering::SeqCst) == 0 {
                meddle(&store, &Key::new(Kind::ConfigMap, "default", "a"), "protected");
            }
            if request["oldObject"]["metadata"]["labels"]["protected"] == "yes" { no("it is protected") } else { yes() }
        })
        .await;
        rig.ask("POST", MAPS, map("a")).await;
        configure(&rig, VALIDATING, "it", json!([judge.hook("it", &json!({}))])).await;
        let (status, answer) = rig.ask("DELETE", &path, Value::Null).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {answer}");
        assert_eq!(rig.get(&format!("{MAPS}/a")).await["metadata"]["labels"]["protected"], "yes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_says_nothing_does_not_stand_for_all() {
    let judge = Judge::start(|_, _| yes()).await;
    let port: u16 = judge.url.rsplit(':').next().unwrap().parse().unwrap();
    // Takes connections, and then nothing.
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut state = Snapshot::default();
    let service = json!({"metadata": {"name": "hook", "namespace": "default"}, "spec": {"ports": [{"port": 443, "targetPort": 8443}]}});
    state.insert(Object::from_value(Kind::Service, service).unwrap());
    for (name, port) in [("a", hole.local_addr().unwrap().port()), ("b", port)] {
        let slice = json!({"metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"port": port}]});
        state.insert(Object::from_value(Kind::EndpointSlice, slice).unwrap());
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::starting_with(state, Arc::clone(&clock)));
    let rig = Rig::over(store, clock, |_| Arc::new(InProcessNode::new("none", None)), |state| state).await;
    let client = json!({"timeoutSeconds": 3, "clientConfig": {"url": null, "service": {"name": "hook", "namespace": "default"}}});
    configure(&rig, VALIDATING, "it", json!([judge.hook("hook", &client)])).await;
    for name in ["a", "b", "c", "d"] {
        let (status, answer) = rig.ask("POST", MAPS, map(name)).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_its_own_authority_is_known() {
    let rig = Rig::start().await;
    let may_sign = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let judge = Judge::known_by(may_sign, |_, _| yes()).await;
    let stranger = Judge::known_by(may_sign, |_, _| yes()).await;
    let port = judge.url.rsplit(':').next().unwrap();
    for (name, client, code) in [
        ("own", json!({}), StatusCode::CREATED),
        ("strange", json!({"caBundle": stranger.bundle}), StatusCode::INTERNAL_SERVER_ERROR),
        ("misnamed", json!({"url": format!("https://localhost:{port}")}), StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        configure(&rig, VALIDATING, "it", json!([judge.hook(name, &json!({ "clientConfig": client }))])).await;
        let (status, answer) = rig.ask("POST", MAPS, map(name)).await;
        assert_eq!(status, code, "{name}: {answer}");
        rig.ask("DELETE", &format!("{VALIDATING}/it"), Value::Null).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_made_where_another_is_refused() {
    let rig = Rig::start().await;
    let met = AtomicUsize::new(0);
    let judge = Judge::start(move |_, _| match met.fetch_add(1, Ordering::SeqCst) {
        0 => patch(json!([{"op": "add", "path": "/metadata/labels/seen", "value": null}])),
        _ => no("one is enough"),
    })
    .await;
    let pods = json!({"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    configure(&rig, MUTATING, "pods", json!([judge.hook("pods", &pods)])).await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let down = CancellationToken::new();
    let asked = Arc::new(PodsAsked::new(Arc::clone(&rig.store), Arc::clone(&clock)));
    let controllers = control::all(control::Options::new(clock.now()));
    let driver = tokio::spawn(driver::run(asked, controllers, clock, down.clone()));
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "example.test/c"}]}});
    let job = json!({"metadata": {"name": "work"}, "spec": {"parallelism": 3, "completions": 3, "template": template}});
    let (status, answer) = rig.ask("POST", "/apis/batch/v1/namespaces/default/jobs", job).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    until(&rig, |state| {
        let status = state.get(&Key::new(Kind::Job, "default", "work")).map(|job| job.value()["status"].clone());
        status.is_some_and(|status| status["active"] == 1 && status["startTime"].is_string())
    })
    .await;
    assert_eq!(rig.store.snapshot().list(Kind::Pod).count(), 1);
    down.cancel();
    driver.await.unwrap();
}
