//! Podbay's agent on a server that is not Podbay's: one that has Kubernetes' API and nothing else. Podbay's own plays it, behind
//! a front that knows no path below `/podbay`.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams};
use podbay::agent::certificates::CertificateError;
use podbay::agent::certificates::client::{self, KubeIdentity, Places};
use podbay::agent::certificates::plan::Wanted;
use podbay::agent::certificates::server::Serving;
use podbay::agent::node_api::callers::{Callers, guarded};
use podbay::agent::{self, Options, Ranges, Server};
use podbay::clock::{Clock, SystemClock, VirtualClock};
use podbay::cri::Runtime;
use podbay::cri::fake::{FakeImages, FakeRuntime};
use podbay::model::Timestamp;
use podbay::network::fake::Network;
use podbay::server::TlsNodes;
use podbay::tls::{Order, connect, kubeconfig, serve};
use podbay::{control, driver};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::rig::Rig;

const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const NODE: &str = "n1";

/// The server as an agent sees it from elsewhere.
struct Front {
    rig: Rig,
    url: String,
    /// Who asks has its files here.
    home: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    _end: DropGuard,
}

impl Front {
    async fn start() -> Self {
        Self::before(Rig::with_nodes(Arc::new(SystemClock), |pki| Arc::new(TlsNodes::new(pki.node_client_config().unwrap()))).await).await
    }

    async fn before(rig: Rig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let home = rig.directory.path().join("node");
        std::fs::create_dir(&home).unwrap();
        let end = CancellationToken::new();
        let mut front = Self { url: String::new(), home, asked: Arc::default(), _end: end.clone().drop_guard(), rig };
        front.url = format!("https://{}", listener.local_addr().unwrap());
        front.serve(listener, end);
        front.let_bootstrap().await;
        front
    }

    fn serve(&self, listener: TcpListener, end: CancellationToken) {
        let asked = Arc::clone(&self.asked);
        let router = self.rig.router.clone().layer(from_fn(move |request: Request, next: Next| {
            let path = request.uri().path().to_owned();
            asked.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
            async move { if path.starts_with("/podbay") { StatusCode::NOT_FOUND.into_response() } else { next.run(request).await } }
        }));
        tokio::spawn(serve::serve(listener, self.rig.pki.server_config().unwrap(), router, serve::Bounds::default(), end));
    }

    /// A bootstrap token, and the kubeconfig with it.
    async fn let_bootstrap(&self) {
        let secret = json!({"metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}, "type": "bootstrap.kubernetes.io/token",
            "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}});
        let (code, answer) = self.rig.ask("POST", "/api/v1/namespaces/kube-system/secrets", secret).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
        std::fs::write(self.home.join("ca.crt"), self.rig.pki.authority().pem()).unwrap();
        self.configure("bootstrap", &json!({"token": "abcdef.0123456789abcdef"}), "ca.crt");
    }

    fn configure(&self, name: &str, user: &Value, ca: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- {{name: c, context: {{cluster: c, user: u}}}}\nclusters:\n\
             - {{name: c, cluster: {{server: \"{}\", certificate-authority: {ca}}}}}\nusers:\n- {{name: u, user: {user}}}\n",
            self.url
        );
        std::fs::write(self.home.join(name), text).unwrap();
    }

    /// A kubeconfig of somebody who may ask for certificates, and has none approved.
    async fn let_ask(&self) {
        let order = Order { common_name: "asker".to_owned(), organisation: None, names: Vec::new(), life: Duration::from_secs(3600) };
        let (pair, _) = self.rig.pki.authority().issue(&order, SystemClock.now()).unwrap();
        for (name, text) in [("asker.crt", &pair.certificate), ("asker.key", &pair.key)] {
            std::fs::write(self.home.join(name), text).unwrap();
        }
        self.configure("bootstrap", &json!({"client-certificate": "asker.crt", "client-key": "asker.key"}), "ca.crt");
        let subject = json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "asker"}]);
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-bootstrapper"});
        let binding = json!({"metadata": {"name": "asker"}, "subjects": subject, "roleRef": role});
        let (code, answer) = self.rig.ask("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
    }

    fn file(&self) -> PathBuf {
        self.home.join("kubeconfig")
    }

    fn places(&self) -> Places {
        Places {
            file: self.file(),
            bootstrap: Some(self.home.join("bootstrap")),
            directory: self.home.join("agent"),
            node: NODE.to_owned(),
        }
    }

    async fn open(&self) -> Result<Option<KubeIdentity>, CertificateError> {
        let end = CancellationToken::new();
        tokio::time::timeout(Duration::from_secs(60), client::open(self.places(), &SystemClock, &end)).await.expect("an answer")
    }

    async fn known(&self) -> KubeIdentity {
        self.open().await.unwrap().unwrap()
    }

    /// Why it is not known.
    async fn refusal(&self) -> String {
        self.open().await.map(drop).unwrap_err().to_string()
    }

    async fn requests(&self) -> Vec<Value> {
        self.rig.get(CSRS).await["items"].as_array().unwrap().clone()
    }

    /// The only request there is, once it is there.
    async fn request(&self) -> String {
        let all = until("a request", async || Some(self.requests().await).filter(|all| !all.is_empty())).await;
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]["metadata"]["name"].as_str().unwrap().to_owned()
    }

    /// Decides about a request, as `kubectl certificate` does.
    async fn decide(&self, name: &str, how: &str) {
        let mut request = self.rig.get(&format!("{CSRS}/{name}")).await;
        request["status"] = json!({"conditions": [{"type": how, "status": "True", "reason": "ByHand", "message": "it is not ours"}]});
        let (code, answer) = self.rig.ask("PUT", &format!("{CSRS}/{name}/approval"), request).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
    }

    fn serving(&self, names: &[&str]) -> Serving {
        let wanted = Wanted { node: NODE.to_owned(), names: names.iter().map(|&name| name.to_owned()).collect() };
        Serving::open(&self.home.join("agent"), wanted, &[self.rig.pki.authority().der().clone()], SystemClock.now())
    }
}

/// Asks until there is an answer; the limit is only there for a test that fails.
async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn works(identity: &KubeIdentity) -> Result<(), kube::Error> {
    Api::<Service>::all(identity.way().client()).list(&ListParams::default()).await.map(drop)
}

fn serial(identity: &KubeIdentity) -> String {
    podbay::tls::Peer::read_pem(&identity.certificate().unwrap()).unwrap().serial
}

fn days(days: i64) -> VirtualClock {
    VirtualClock::new(Timestamp::from_second(SystemClock.now().as_second() + days * 24 * 3600).unwrap())
}

/// A node at work: its agent, its node API, and where that is.
struct Working {
    network: Arc<Network>,
    _end: DropGuard,
}

/// Starts a node as `podbay agent --kubeconfig` does, on a runtime in memory.
async fn work(front: &Front, identity: Arc<KubeIdentity>, serving: Arc<Serving>) -> (Working, SocketAddr) {
    let end = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut options = Options::new(NODE, &front.home);
    options.node_addresses = vec![at.ip()];
    options.node_api_port = at.port();
    let ranges = Ranges { pods: "10.80.0.0/16".parse().unwrap(), services: "10.97.0.0/16".parse().unwrap() };
    options.server = Server::Kubernetes(ranges);
    let runtime: Arc<FakeRuntime> = Arc::default();
    let api = agent::node_api::router(Arc::clone(&runtime) as Arc<dyn Runtime>, &options);
    let tls = serve::asking_config(&identity.authorities().unwrap(), serving.key()).unwrap();
    let callers = Callers::new(NODE, vec!["podbay-server".to_owned()], identity.way().client(), Arc::new(SystemClock));
    let api = guarded(api, callers);
    tokio::spawn(serve::serve(listener, tls, api, serve::Bounds::default(), end.clone()));
    tokio::spawn(serving.keep_fresh(identity.way().clone(), front.file(), Arc::new(SystemClock), end.clone()));
    let network = Arc::new(Network::new());
    tokio::spawn(agent::run(identity.way().client(), runtime, Arc::new(FakeImages::default()), network.clone(), options, end.clone()));
    tokio::spawn(identity.keep_fresh(Arc::new(SystemClock), end.clone()));
    (Working { network, _end: end.drop_guard() }, at)
}

async fn is_ready(rig: &Rig, path: &str) -> Option<Value> {
    let (_, object) = rig.ask("GET", path, Value::Null).await;
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True").then_some(object)
}

/// Everything a node asks is what Kubernetes' node authoriser and `system:node-proxier` give it (docs/swapping.md).
fn is_given(asked: &str) -> bool {
    let (method, uri) = asked.split_once(' ').unwrap();
    let path = uri.split('?').next().unwrap();
    match path.strip_prefix("/api/v1/").unwrap_or(path) {
        "pods" => method == "GET" && uri.contains(&format!("fieldSelector=spec.nodeName%3D{NODE}")),
        "services" | "/apis/discovery.k8s.io/v1/endpointslices" => method == "GET",
        "nodes" => matches!(method, "GET" | "POST"),
        "nodes/n1" | "nodes/n1/status" => matches!(method, "GET" | "PUT" | "PATCH"),
        "namespaces/default/events" => method == "POST",
        path if path.starts_with("namespaces/default/events/") => method == "PATCH",
        path if path.starts_with("namespaces/default/pods/p") => matches!(method, "GET" | "PUT" | "DELETE"),
        "namespaces/default/configmaps/kube-root-ca.crt" => method == "GET",
        "namespaces/default/serviceaccounts/default/token" => method == "POST",
        path if path.starts_with("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases") => method != "DELETE",
        "/apis/authentication.k8s.io/v1/tokenreviews" | "/apis/authorization.k8s.io/v1/subjectaccessreviews" => method == "POST",
        path if path.starts_with(CSRS) => matches!(method, "GET" | "POST"),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_needs_nothing_but_kubernetes_api() {
    let front = Front::start().await;
    let (rig, end) = (&front.rig, CancellationToken::new());
    let _end = end.clone().drop_guard();
    tokio::spawn(driver::run(Arc::clone(&rig.store), control::all(control::Options::new(SystemClock.now())), Arc::new(SystemClock), end));
    let identity = Arc::new(front.known().await);
    assert_eq!(std::fs::metadata(front.file()).unwrap().permissions().mode() & 0o777, 0o600);
    // Names of a node by which nobody else is known: of the loopback a server's certificate is not given.
    let (working, at) = work(&front, Arc::clone(&identity), Arc::new(front.serving(&[NODE, "192.0.2.7"]))).await;
    let node = until("the node to be ready", async || is_ready(rig, "/api/v1/nodes/n1").await).await;
    assert_eq!((&node["metadata"]["labels"]["kubernetes.io/os"], &node["metadata"]["annotations"]), (&json!("linux"), &Value::Null));
    let spec = json!({"nodeName": NODE, "restartPolicy": "Never", "containers": [{"name": "main", "image": "i", "command": ["sh", "-c", "echo hello"]}]});
    let (code, answer) = rig.ask("POST", "/api/v1/namespaces/default/pods", json!({"metadata": {"name": "p"}, "spec": spec})).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    until("the pod to end", async || {
        let pod = rig.get("/api/v1/namespaces/default/pods/p").await;
        (pod["status"]["phase"] == "Succeeded").then_some(())
    })
    .await;
    let wanted = until("the network", async || working.network.wanted().filter(|wanted| wanted.pod_range.is_some())).await;
    assert_eq!(wanted.service_range.map(|range| range.to_string()), Some("10.97.0.0/16".to_owned()), "as it was told");

    // Its API is there for nobody, until somebody has approved it.
    let log = || rig.ask("GET", "/api/v1/namespaces/default/pods/p/log", Value::Null);
    let (code, answer) = log().await;
    assert_eq!(code, StatusCode::BAD_GATEWAY, "{answer}");
    let request =
        until("the request to serve", async || front.requests().await.into_iter().find(|it| it["status"]["certificate"].is_null())).await;
    assert_eq!(request["spec"]["signerName"], "kubernetes.io/kubelet-serving");
    front.decide(request["metadata"]["name"].as_str().unwrap(), "Approved").await;
    let logged = async || Some(log().await).filter(|(code, _)| *code == StatusCode::OK);
    assert_eq!(until("the log", logged).await.1, "hello\n");
    // The node itself has a certificate of the same CA, and another name.
    let text = std::fs::read_to_string(front.file()).unwrap();
    let stranger = kubeconfig::access(&front.file()).unwrap();
    let kubeconfig::User::Certificate(pair) = stranger.1 else { panic!("no certificate: {text}") };
    let config = connect::client_config(rig.pki.authority().der(), podbay::tls::LiveKey::new(&pair, "").unwrap()).unwrap();
    let hello = http::Request::get("/healthz").header("host", NODE).body(axum::body::Body::empty()).unwrap();
    let answer = connect::ask(&at.to_string(), NODE, config, hello).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{answer:?}");

    let asked = front.asked.lock().unwrap().clone();
    let more: Vec<&String> = asked.iter().filter(|asked| !is_given(asked)).collect();
    assert!(more.is_empty(), "not given to a node: {more:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_token_calls_a_node_as_far_as_the_server_says() {
    let front = Front::start().await;
    let rig = &front.rig;
    let identity = Arc::new(front.known().await);
    let (_working, at) = work(&front, identity, Arc::new(front.serving(&[NODE, "192.0.2.7"]))).await;
    let request =
        until("the request to serve", async || front.requests().await.into_iter().find(|it| it["status"]["certificate"].is_null())).await;
    front.decide(request["metadata"]["name"].as_str().unwrap(), "Approved").await;
    // As metrics-server's account has it.
    let made = async |path: &str, object: Value| {
        let (code, answer) = rig.ask("POST", path, object).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
        answer
    };
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    made("/api/v1/namespaces/kube-system/serviceaccounts", json!({"metadata": {"name": "metrics-server"}})).await;
    let rules = json!([{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}]);
    made(&format!("{rbac}/clusterroles"), json!({"metadata": {"name": "metrics"}, "rules": rules})).await;
    let subject = json!([{"kind": "ServiceAccount", "namespace": "kube-system", "name": "metrics-server"}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "metrics"});
    made(&format!("{rbac}/clusterrolebindings"), json!({"metadata": {"name": "metrics"}, "subjects": subject, "roleRef": role})).await;
    let token = made("/api/v1/namespaces/kube-system/serviceaccounts/metrics-server/token", json!({"spec": {}})).await;
    let token = token["status"]["token"].as_str().unwrap();

    let config = connect::client_config(rig.pki.authority().der(), podbay::tls::LiveKey::empty()).unwrap();
    let ask = async |token: Option<&str>, path: &str| {
        let mut request = http::Request::get(path).header("host", NODE);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        let answer = connect::ask(&at.to_string(), NODE, Arc::clone(&config), request).await.ok()?;
        Some((answer.status().as_u16(), String::from_utf8(answer.body().to_vec()).unwrap()))
    };
    let nobody = until("an answer", async || ask(None, "/metrics/resource").await).await;
    assert_eq!(nobody, (401, "Unauthorized\n".to_owned()));
    assert_eq!(ask(None, "/nothing/is/here").await.unwrap().0, 401);
    for _ in 0..3 {
        let (code, text) = ask(Some(token), "/metrics/resource").await.unwrap();
        assert!(code == 200 && text.ends_with("\nresource_scrape_error 0\n"), "{code} {text}");
        let (code, text) = ask(Some(token), "/exec/default/p/main?command=sh").await.unwrap();
        let user = "user=system:serviceaccount:kube-system:metrics-server";
        assert_eq!((code, text), (403, format!("Forbidden ({user}, verb=create, resource=nodes, subresource(s)=[proxy])\n")));
        assert_eq!(ask(Some("made-up"), "/metrics/resource").await.unwrap().0, 401);
    }
    let asked = |what: &str| front.asked.lock().unwrap().iter().filter(|asked| asked.ends_with(what)).count();
    assert_eq!((asked("/tokenreviews"), asked("/subjectaccessreviews")), (2, 2), "each is asked once");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_needs_no_bootstrap_file() {
    let front = Front::start().await;
    let first = serial(&front.known().await);
    std::fs::remove_file(front.home.join("bootstrap")).unwrap();
    let again = front.known().await;
    works(&again).await.unwrap();
    assert_eq!((serial(&again), front.requests().await.len()), (first, 1));
    assert!(!front.home.join("agent/kube-client.key").exists(), "the next one is for another key");
    let other = Places { node: "n2".to_owned(), ..front.places() };
    let error = client::open(other, &SystemClock, &CancellationToken::new()).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("is the kubeconfig of node n1, and this is n2"), "{error}");
    std::fs::remove_file(front.file()).unwrap();
    let error = front.refusal().await;
    assert!(error.contains("kubeconfig is not there, and with the bootstrap kubeconfig") && error.contains("read kubeconfig"), "{error}");
    let without = Places { bootstrap: None, ..front.places() };
    let error = client::open(without, &SystemClock, &CancellationToken::new()).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("--bootstrap-kubeconfig"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_and_no_connection_goes_on_with_the_old_one() {
    let front = Front::start().await;
    let identity = front.known().await;
    let services: Api<Service> = Api::all(identity.way().client());
    services.list(&ListParams::default()).await.unwrap();
    let (first, end) = (serial(&identity), CancellationToken::new());
    assert!(identity.renew_if_due(&days(19), &end).await.unwrap() > 0);
    assert_eq!(serial(&identity), first);
    identity.renew_if_due(&days(28), &end).await.unwrap();
    let second = serial(&identity);
    assert_ne!(second, first);
    assert_eq!(serial(&front.known().await), second, "it is kept");
    // Here the one before the last is nobody's any more.
    identity.renew_if_due(&days(28), &end).await.unwrap();
    services.list(&ListParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_asked_for_as_the_first_one_was() {
    let clock = Arc::new(VirtualClock::new(SystemClock.now()));
    let front = Front::before(Rig::with_clock(clock.clone()).await).await;
    let running = front.known().await;
    let first = serial(&running);
    let late = days(31);
    clock.advance_to(late.now());
    let open = async |places| client::open(places, &late, &CancellationToken::new()).await;
    let error = open(Places { bootstrap: None, ..front.places() }).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("expired at 2") && error.contains("--bootstrap-kubeconfig"), "{error}");
    let second = serial(&open(front.places()).await.unwrap().unwrap());
    assert_ne!(second, first);
    // The same in an agent that was cut off for so long and whose file is not there to read again.
    std::fs::remove_file(front.file()).unwrap();
    running.renew_if_due(&late, &CancellationToken::new()).await.unwrap();
    assert!(![first, second].contains(&serial(&running)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_nobody_approved_waits_with_one_request_and_ends_when_told() {
    let front = Front::start().await;
    front.let_ask().await;
    let end = CancellationToken::new();
    for _ in 0..2 {
        let (places, end) = (front.places(), CancellationToken::new());
        let ends = end.clone();
        let waiting = tokio::spawn(async move { client::open(places, &SystemClock, &ends).await.map(|found| found.is_none()) });
        front.request().await;
        end.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it ends");
        assert!(ended.unwrap().unwrap());
        assert!(!front.file().exists());
    }
    let places = front.places();
    let waiting = tokio::spawn(async move { client::open(places, &SystemClock, &end).await });
    let name = front.request().await;
    front.decide(&name, "Approved").await;
    let identity = waiting.await.unwrap().unwrap().unwrap();
    works(&identity).await.unwrap();
    assert_eq!(front.request().await, name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_request_is_told_and_may_be_made_again() {
    let front = Front::start().await;
    front.let_ask().await;
    let places = front.places();
    let waiting = tokio::spawn(async move { client::open(places, &SystemClock, &CancellationToken::new()).await.map(drop) });
    let name = front.request().await;
    front.decide(&name, "Denied").await;
    let error = waiting.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("was denied (ByHand: it is not ours)") && error.contains(&format!("kubectl delete csr {name}")), "{error}");
    assert_eq!(front.refusal().await, error, "also at the next start");
    assert_eq!(front.rig.ask("DELETE", &format!("{CSRS}/{name}"), Value::Null).await.0, StatusCode::OK);
    let places = front.places();
    let waiting = tokio::spawn(async move { client::open(places, &SystemClock, &CancellationToken::new()).await });
    let name = front.request().await;
    front.decide(&name, "Approved").await;
    assert!(waiting.await.unwrap().unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_asked_again_and_what_is_wrong_here_is_told() {
    let front = Front::start().await;
    let token = |secret: &str| front.configure("bootstrap", &json!({"token": format!("abcdef.{secret}")}), "ca.crt");
    token("fedcba9876543210");
    let start = |end: &CancellationToken| {
        let (places, end) = (front.places(), end.clone());
        tokio::spawn(async move { client::open_in_time(&places, &SystemClock, &end).await })
    };
    let asked = |times: usize| front.asked.lock().unwrap().iter().filter(|asked| asked.starts_with("POST")).count() >= times;
    let end = CancellationToken::new();
    let waiting = start(&end);
    until("two refusals", async || asked(2).then_some(())).await;
    end.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it ends");
    assert!(ended.unwrap().unwrap().is_none());
    let waiting = start(&CancellationToken::new());
    until("another refusal", async || asked(3).then_some(())).await;
    token("0123456789abcdef");
    works(&waiting.await.unwrap().unwrap().unwrap()).await.unwrap();

    std::fs::write(front.file(), "nonsense").unwrap();
    let error = start(&CancellationToken::new()).await.unwrap().map(drop).unwrap_err().to_string();
    assert!(error.contains("is no kubeconfig"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_gets_no_answer_ends_with_the_certificate() {
    let clock = Arc::new(VirtualClock::new(SystemClock.now()));
    let front = Front::before(Rig::with_clock(clock.clone()).await).await;
    let bootstrap = front.home.join("bootstrap");
    let good = std::fs::read_to_string(&bootstrap).unwrap();
    // It knows the server by an address where nobody is later on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let brief = format!("https://{}", listener.local_addr().unwrap());
    let end = CancellationToken::new();
    front.serve(listener, end.clone());
    std::fs::write(&bootstrap, good.replace(&front.url, &brief)).unwrap();
    let identity = front.known().await;
    let first = podbay::tls::Peer::read_pem(&identity.certificate().unwrap()).unwrap();
    std::fs::write(&bootstrap, good).unwrap();
    end.cancel();
    until("nobody to be there", async || tokio::net::TcpStream::connect(brief.trim_start_matches("https://")).await.is_err().then_some(()))
        .await;
    clock.advance_to(Timestamp::from_second(first.not_after.as_second() - 1).unwrap());
    let late = days(31).now();
    let expire = async {
        until("the renewal to begin", async || front.home.join("agent/kube-client.key").exists().then_some(())).await;
        clock.advance_to(late);
    };
    let end = CancellationToken::new();
    let renewal = tokio::time::timeout(Duration::from_secs(60), identity.renew_if_due(clock.as_ref(), &end));
    let (renewed, ()) = tokio::join!(renewal, expire);
    assert!(renewed.expect("it ends").unwrap() > 0);
    assert_ne!(serial(&identity), first.serial);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_somebody_else_is_not_kept() {
    let front = Front::start().await;
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let pki = Arc::clone(&front.rig.pki);
    // A server that signs what it is asked for, as somebody else.
    let sign = move |request: axum::Json<Value>| {
        let text = String::from_utf8(STANDARD.decode(request["spec"]["request"].as_str().unwrap()).unwrap()).unwrap();
        let order = Order { common_name: "jane".to_owned(), organisation: None, names: Vec::new(), life: Duration::from_secs(3600) };
        let pem = pki.authority().sign_request(&order, &text, SystemClock.now()).unwrap().0.pem;
        std::future::ready(axum::Json(json!({"status": {"certificate": STANDARD.encode(pem)}})))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().route(CSRS, axum::routing::post(sign));
    tokio::spawn(serve::serve(listener, front.rig.pki.server_config().unwrap(), router, serve::Bounds::default(), end));
    let bootstrap = front.home.join("bootstrap");
    let text = std::fs::read_to_string(&bootstrap).unwrap();
    std::fs::write(&bootstrap, text.replace(&front.url, &url)).unwrap();
    let error = front.refusal().await;
    assert!(error.contains(&url) && error.contains("one of \"jane\"") && error.contains("kubectl delete csr node-csr-"), "{error}");
    assert!(!front.file().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_the_one_meant_is_named_and_one_that_is_away_waited_for() {
    let front = Front::start().await;
    let other = Rig::start().await;
    std::fs::write(front.home.join("other.crt"), other.pki.authority().pem()).unwrap();
    front.configure("bootstrap", &json!({"token": "abcdef.0123456789abcdef"}), "other.crt");
    let error = front.refusal().await;
    assert!(error.contains(&front.url) && error.contains("no certificate of the CA in") && error.contains("bootstrap"), "{error}");
    front.configure("bootstrap", &json!({"token": "abcdef.fedcba9876543210"}), "ca.crt");
    let error = front.refusal().await;
    assert!(error.contains("a certificate of node n1 to ask with") && error.contains("(401)"), "{error}");

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let text = std::fs::read_to_string(front.home.join("bootstrap")).unwrap();
    let text = text.replace(&front.url, &format!("https://{free}")).replace("fedcba9876543210", "0123456789abcdef");
    std::fs::write(front.home.join("bootstrap"), text).unwrap();
    let places = front.places();
    let waiting = tokio::spawn(async move { client::open(places, &SystemClock, &CancellationToken::new()).await });
    // Its key is there before it asks.
    until("the first try", async || front.home.join("agent/kube-client.key").exists().then_some(())).await;
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    front.serve(TcpListener::bind(free).await.unwrap(), end);
    works(&waiting.await.unwrap().unwrap().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_to_serve_with_is_kept_for_these_names_and_this_cluster() {
    let front = Front::start().await;
    let (identity, end) = (front.known().await, CancellationToken::new());
    let path = front.file();
    let issue = async |serving: &Serving, clock: &dyn Clock| {
        let before = front.requests().await.len();
        let approve = async {
            let all = until("another request", async || Some(front.requests().await).filter(|all| all.len() > before)).await;
            let waiting = all.iter().find(|it| it["status"]["certificate"].is_null()).unwrap();
            front.decide(waiting["metadata"]["name"].as_str().unwrap(), "Approved").await;
        };
        let (asked, ()) = tokio::join!(serving.ask_if_due(identity.way(), &path, clock, &end), approve);
        asked.unwrap();
        assert!(serving.is_there());
    };
    let serving = front.serving(&[NODE, "192.0.2.7"]);
    assert!(!serving.is_there());
    issue(&serving, &SystemClock).await;
    let kept = front.home.join("agent/kube-server.pem");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(front.serving(&[NODE, "192.0.2.7"]).is_there());
    assert!(!front.serving(&[NODE, "192.0.2.8"]).is_there(), "another address");
    let other = Rig::start().await;
    let wanted = Wanted { node: NODE.to_owned(), names: vec![NODE.to_owned(), "192.0.2.7".to_owned()] };
    let open = |wanted: &Wanted, rig: &Rig, clock: &dyn Clock| {
        Serving::open(&front.home.join("agent"), wanted.clone(), &[rig.pki.authority().der().clone()], clock.now()).is_there()
    };
    assert!(!open(&wanted, &other, &SystemClock), "another cluster");
    assert!(!open(&Wanted { node: "n2".to_owned(), ..wanted.clone() }, &front.rig, &SystemClock), "another node");
    assert!(!open(&wanted, &front.rig, &days(31)), "too old");
    assert!(open(&wanted, &front.rig, &days(19)));
    // In the last third of its life another one is asked for, and this one goes on until then.
    let before = std::fs::read_to_string(&kept).unwrap();
    assert!(serving.ask_if_due(identity.way(), &path, &days(19), &end).await.unwrap() > 0);
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), before);
    issue(&serving, &days(28)).await;
    assert_ne!(std::fs::read_to_string(&kept).unwrap(), before);
    std::fs::write(&kept, [0xff]).unwrap();
    let serving = front.serving(&[NODE, "192.0.2.7"]);
    assert!(!serving.is_there(), "it cannot be read");
    issue(&serving, &SystemClock).await;
    assert!(front.serving(&[NODE, "192.0.2.7"]).is_there());
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_ca_vouches_for_clients_is_seen_from_ones_own() {
    let front = Front::start().await;
    let certificate = front.known().await.certificate().unwrap();
    let other = Rig::start().await;
    let is_of = |rig: &Rig| serve::is_client_of(&[rig.pki.authority().der().clone()], &certificate).unwrap();
    assert!(is_of(&front.rig) && !is_of(&other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_does_as_well() {
    let front = Front::start().await;
    let token = front.home.join("token");
    std::fs::write(&token, "abcdef.0123456789abcdef\n").unwrap();
    front.configure("kubeconfig", &json!({"tokenFile": "token"}), "ca.crt");
    let identity = front.known().await;
    let answer = works(&identity).await.unwrap_err();
    assert!(
        matches!(&answer, kube::Error::Api(status) if status.code == 403 && status.message.contains("system:bootstrap:abcdef")),
        "{answer}"
    );
    assert_eq!(identity.renew_if_due(&days(400), &CancellationToken::new()).await.unwrap(), i64::MAX, "there is nothing to renew");
    std::fs::write(&token, "abcdef.fedcba9876543210").unwrap();
    let answer = works(&identity).await.unwrap_err();
    assert!(matches!(&answer, kube::Error::Api(status) if status.code == 401), "read anew: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_into_the_kubeconfig_is_taken_up() {
    let front = Front::start().await;
    let write = |name: &str, who: &str| {
        let order = Order { common_name: who.to_owned(), organisation: None, names: Vec::new(), life: Duration::from_secs(3600) };
        let (pair, _) = front.rig.pki.authority().issue(&order, SystemClock.now()).unwrap();
        std::fs::write(front.home.join(format!("{name}.crt")), &pair.certificate).unwrap();
        std::fs::write(front.home.join(format!("{name}.key")), &pair.key).unwrap();
    };
    write("a", "one");
    let of_files = json!({"client-certificate": "a.crt", "client-key": "a.key"});
    front.configure("kubeconfig", &of_files, "ca.crt");
    let identity = front.known().await;
    let services: Api<Service> = Api::all(identity.way().client());
    let end = CancellationToken::new();
    let refused = async || services.list(&ListParams::default()).await.unwrap_err().to_string();
    let look = async || identity.renew_if_due(&SystemClock, &end).await.unwrap();
    assert!(refused().await.contains("\"one\""));

    // The files that it names.
    write("a", "two");
    assert!(refused().await.contains("\"one\""), "not before it is looked at");
    look().await;
    assert!(refused().await.contains("\"two\""));
    // A certificate whose key is not there yet.
    let key = std::fs::read(front.home.join("a.key")).unwrap();
    write("a", "three");
    let later = std::fs::read(front.home.join("a.key")).unwrap();
    std::fs::write(front.home.join("a.key"), key).unwrap();
    look().await;
    assert!(refused().await.contains("\"two\""));
    std::fs::write(front.home.join("a.key"), later).unwrap();
    look().await;
    assert!(refused().await.contains("\"three\""));
    // Another node's, and nonsense.
    write("b", "system:node:other");
    for user in [json!({"client-certificate": "b.crt", "client-key": "b.key"}), json!({"token": ""})] {
        front.configure("kubeconfig", &user, "ca.crt");
        look().await;
        assert!(refused().await.contains("\"three\""), "{user}");
    }

    // Tokens, and back to a certificate.
    front.configure("kubeconfig", &json!({"token": "abcdef.fedcba9876543210"}), "ca.crt");
    look().await;
    assert!(refused().await.contains("Unauthorized"));
    front.configure("kubeconfig", &json!({"token": "abcdef.0123456789abcdef"}), "ca.crt");
    look().await;
    assert!(refused().await.contains("system:bootstrap:abcdef"));
    front.configure("kubeconfig", &of_files, "ca.crt");
    look().await;
    assert!(refused().await.contains("\"three\""));
}

#[test]
fn a_host_is_a_node_of_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("podbay.toml");
    let said = |text: &str, words: &[&str]| {
        // Were it to start after all, it would not be in this host's own directories.
        let home = dir.path().display();
        std::fs::write(&config, format!("data-dir = \"{home}/data\"\nrun-dir = \"{home}/run\"\n{text}")).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_podbay"));
        let output = command.args(words).arg("--config").arg(&config).env_clear().output().unwrap();
        assert!(!output.status.success(), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let known = "[node]\nkubeconfig = \"/nowhere\"\n";
    let clients = "[node]\napi-client = [\"a\"]\n";
    let rows: [(&str, &[&str], &str); 12] = [
        ("", &["agent"], "say --server URL, or --kubeconfig FILE"),
        (known, &["agent", "--server", "https://s:6443"], "say one of them"),
        ("", &["agent", "--server", "https://s:6443", "--kubeconfig", "k"], "cannot be used with"),
        ("", &["agent", "--kubeconfig", "k", "--token-file", "t"], "cannot be used with"),
        ("", &["agent", "--kubeconfig", "k", "--rejoin"], "cannot be used with"),
        (known, &["agent", "--rejoin"], "--server <URL>"),
        ("", &["agent", "--bootstrap-kubeconfig", "k"], "node.bootstrap-kubeconfig: say node.kubeconfig too"),
        (clients, &["agent", "--server", "https://s:6443"], "say node.kubeconfig too"),
        (clients, &["up"], "say node.kubeconfig too"),
        // What only a flag of the agent's names is nothing to other verbs.
        (clients, &["kubeconfig"], "no daemon on this host"),
        (known, &["up"], "whose verb is `podbay agent`"),
        (known, &["server"], "whose verb is `podbay agent`"),
    ];
    for (text, words, why) in rows {
        let told = said(text, words);
        assert!(told.contains(why), "{words:?}: {told}");
    }
}
