//! A server on a memory store: in the process and over TLS on this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use podbay::clock::{Clock, SystemClock};
use podbay::server::{ClusterSettings, Identity, InProcessNode, NodeConnector, ServerState, bootstrap, router};
use podbay::store::{Store, memory::MemoryStore};
use podbay::tls::{Pki, serve};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub struct Rig {
    pub store: Arc<dyn Store>,
    pub router: Router,
    pub pki: Arc<Pki>,
    /// `https://127.0.0.1:PORT`
    pub url: String,
    pub directory: Arc<tempfile::TempDir>,
    shutdown: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Rig {
    pub async fn start() -> Self {
        Self::with_clock(Arc::new(SystemClock)).await
    }

    pub async fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self::with_nodes(clock, |_| Arc::new(InProcessNode::new("none", None))).await
    }

    pub async fn with_bounds(bounds: serve::Bounds) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&clock)));
        let directory = Arc::new(tempfile::tempdir().unwrap());
        Self::whole(directory, store, clock, |_| Arc::new(InProcessNode::new("none", None)), |state| state, bounds).await
    }

    pub async fn with_nodes(clock: Arc<dyn Clock>, nodes: impl FnOnce(&Pki) -> Arc<dyn NodeConnector>) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&clock)));
        Self::over(store, clock, nodes, |state| state).await
    }

    /// The same over a store made elsewhere, with what `extend` adds to the server.
    pub async fn over(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        nodes: impl FnOnce(&Pki) -> Arc<dyn NodeConnector>,
        extend: impl FnOnce(ServerState) -> ServerState,
    ) -> Self {
        Self::whole(Arc::new(tempfile::tempdir().unwrap()), store, clock, nodes, extend, serve::Bounds::default()).await
    }

    /// A server with the certificates that are in this directory, if one was there before.
    pub async fn at(directory: Arc<tempfile::TempDir>, store: Arc<dyn Store>) -> Self {
        let nodes = |_: &Pki| Arc::new(InProcessNode::new("none", None)) as Arc<dyn NodeConnector>;
        Self::whole(directory, store, Arc::new(SystemClock), nodes, |state| state, serve::Bounds::default()).await
    }

    async fn whole(
        directory: Arc<tempfile::TempDir>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        nodes: impl FnOnce(&Pki) -> Arc<dyn NodeConnector>,
        extend: impl FnOnce(ServerState) -> ServerState,
        bounds: serve::Bounds,
    ) -> Self {
        let settings =
            ClusterSettings { service_range: "10.96.0.0/16".parse().unwrap(), pod_range: "10.80.0.0/16".parse().unwrap(), node_prefix: 24 };
        bootstrap(store.as_ref(), &settings).await.unwrap();
        let pki = Pki::open(&directory.path().join("pki"), &[], clock.now()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        pki.write_kubeconfig(&directory.path().join("admin.kubeconfig"), &url, clock.now()).unwrap();
        let nodes = nodes(&pki);
        let state = extend(ServerState::new(Arc::clone(&store), clock, nodes).with_pki(Arc::clone(&pki)));
        let router = router(Arc::new(state));
        let shutdown = CancellationToken::new();
        let config = pki.server_config().unwrap();
        tokio::spawn(serve::serve(listener, config, router.clone(), bounds, shutdown.clone()));
        Self { store, router, pki, url, directory, shutdown }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("admin.kubeconfig")
    }

    /// A request in the process, as this identity.
    pub async fn send(&self, identity: &Identity, request: Request<String>) -> Response<Body> {
        self.stream(identity, request.map(Body::from)).await
    }

    /// The same with a body that comes as it likes.
    pub async fn stream(&self, identity: &Identity, mut request: Request<Body>) -> Response<Body> {
        request.extensions_mut().insert(identity.clone());
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// A request of the admin's; status and JSON of the answer.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        self.ask_as(&Identity::admin(), method, path, kind, body).await
    }

    pub async fn ask_as(&self, identity: &Identity, method: &str, path: &str, content_type: &str, body: Value) -> (StatusCode, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(path).header("content-type", content_type).body(text).unwrap();
        let response = self.send(identity, request).await;
        let status = response.status();
        (status, json(response).await)
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, value) = self.ask("GET", path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "GET {path}: {value}");
        value
    }

    /// The real kubectl against the TLS port, as the admin.
    pub async fn kubectl(&self, line: &str) -> Output {
        self.kubectl_words(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).await
    }

    pub async fn kubectl_words(&self, words: &[String]) -> Output {
        let mut command = Command::new(kubectl());
        command.args(words).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.directory.path()).current_dir(self.directory.path());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// kubectl's standard output; it must succeed.
    pub async fn kubectl_ok(&self, line: &str) -> String {
        let output = self.kubectl(line).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {line}: {out}{err}");
        out.into_owned()
    }
}

pub async fn json(response: Response<Body>) -> Value {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The real kubectl: `$KUBECTL`, or the one that the set-up installs.
pub fn kubectl() -> PathBuf {
    if let Some(path) = std::env::var_os("KUBECTL") {
        return path.into();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/kubectl");
    assert!(path.exists(), "{} is missing: run `make setup-test`, or say where kubectl is with KUBECTL", path.display());
    path
}
