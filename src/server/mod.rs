//! The Kubernetes REST API over the store.
//!
//! - `request`, `options`, `select`, `body`, `protobuf` (what is asked), `identity`, `impersonate`, `spot`, `authorise` (by whom, and whether)
//! - `read`, `watch`, `write`, `patch`, `operations`, `delete`, `scale`, `strict`: the verbs, one handler for every kind
//! - `hooks`: webhooks that are asked before something is written
//! - `render`, `yaml`, `columns`, `pod_columns`, `autoscaler_columns`, `custom`, `age`, `fault`: how objects and errors look on the wire
//! - `discovery`, `openapi`, `openapi_v2`: what clients ask before anything else
//! - `absent`: kinds of which there is none
//! - `access`: what the caller may do, and who it is; `accounts`: tokens of service accounts
//! - `gate`, `flow`, `audit`, `tally`: what every request passes: who asks, whether there is a seat for it, whether it may, what is
//!   written down of it, how it is counted
//! - `proxy`: logs, exec, attach and port-forward, passed on to the node; HTTP to pods, Services (`behind`: who that is) and nodes
//! - `usage`: what nodes and pods use (`metrics.k8s.io`)
//! - `certificates`: signing what is asked for
//! - `nodes`, `tokens`: joining, renewing, removing
//! - `health`: alive and ready, check by check; `extras`, `metrics`: previews, snapshots, sizes; `bootstrap`, `offer`: what
//!   exists from the start
//! - `fullness`: a store short of space, as a condition of every node
//! - `local`: a kube client in the same process
//!
//! No kind is known by heart: the registry (`model::kind`) drives paths, verbs and discovery.

mod absent;
mod access;
mod accounts;
pub mod age;
pub mod audit;
pub mod authorise;
mod autoscaler_columns;
mod behind;
mod body;
pub mod bootstrap;
pub mod certificates;
pub mod columns;
mod custom;
mod delete;
mod discovery;
mod extras;
pub mod fault;
mod flow;
pub mod fullness;
mod gate;
mod health;
pub mod hooks;
pub mod identity;
mod impersonate;
pub mod local;
mod metrics;
pub mod nodes;
pub mod offer;
mod openapi;
mod openapi_v2;
pub mod operations;
mod options;
mod patch;
pub mod pod_columns;
pub mod protobuf;
pub mod proxy;
mod read;
mod render;
pub mod request;
mod scale;
mod select;
mod spot;
mod storage_columns;
pub mod strict;
mod tally;
pub mod tokens;
pub mod usage;
mod watch;
mod write;
mod yaml;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, delete as delete_at, get as get_at, post};
use http::{HeaderValue, Request, StatusCode, header};

use crate::clock::Clock;
use crate::model::Kind;
use crate::model::local_volume::HOME;
use crate::store::Store;
use crate::sync::source::Tree;
use crate::tls::Pki;
pub use accounts::mint::Mint;
pub use bootstrap::{ClusterSettings, bootstrap};
use fault::Fault;
pub use identity::Identity;
pub use local::local_client;
use proxy::streams::{self, Stream};
pub use proxy::{InProcessNode, NodeConnector, PodConnector, TlsNodes, Wire};
use request::{Call, Form, Target, Verb};

/// Computes what a commit would do. `assemble` puts sync and the simulator behind it.
#[async_trait]
pub trait Previews: Send + Sync {
    /// `source`: a source by name; `tree`: what to preview instead of what the source has now; `adopt`: as if asked to
    /// take over what Podbay did not create.
    async fn preview(&self, source: Option<String>, tree: Option<Tree>, adopt: bool) -> Result<serde_json::Value, String>;
}

/// What the handlers work with.
pub struct ServerState {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    /// How logs, exec and the like reach a node.
    pub nodes: Arc<dyn NodeConnector>,
    /// How what is proxied reaches a pod.
    pods: Arc<dyn PodConnector>,
    pub previews: Option<Arc<dyn Previews>>,
    /// Signs certificates; without it nobody can join.
    pub pki: Option<Arc<Pki>>,
    /// Where requests are written down, if they are.
    pub audit: Option<audit::Audit>,
    flow: flow::Flow,
    tally: tally::Tally,
    /// When this server began to look: what it knows of heartbeats is not older.
    started: crate::model::Timestamp,
    pages: read::Pages,
    looks: usage::Looks,
    roots: hooks::Roots,
}

impl ServerState {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, nodes: Arc<dyn NodeConnector>) -> Self {
        let started = clock.steady();
        Self {
            store,
            clock,
            nodes,
            pods: Arc::new(proxy::Routed),
            previews: None,
            pki: None,
            audit: None,
            flow: flow::Flow::default(),
            tally: tally::Tally::default(),
            started,
            pages: read::Pages::default(),
            looks: usage::Looks::default(),
            roots: hooks::Roots::default(),
        }
    }

    pub fn with_pods(mut self, pods: Arc<dyn PodConnector>) -> Self {
        self.pods = pods;
        self
    }

    pub fn with_previews(mut self, previews: Arc<dyn Previews>) -> Self {
        self.previews = Some(previews);
        self
    }

    pub fn with_pki(mut self, pki: Arc<Pki>) -> Self {
        self.pki = Some(pki);
        self
    }

    pub fn with_audit(mut self, audit: Option<audit::Audit>) -> Self {
        self.audit = audit;
        self
    }
}

/// Every path of the server. The caller's identity is a request extension: an [`Identity`] from a
/// connection in the same process, or a [`crate::tls::Peer`] from a TLS connection.
pub fn router(state: Arc<ServerState>) -> Router {
    Router::new()
        .route("/healthz", get_at(health::all))
        .route("/healthz/{check}", get_at(health::one))
        .route("/livez", get_at(health::all))
        .route("/livez/{check}", get_at(health::one))
        .route("/readyz", get_at(health::all))
        .route("/readyz/{check}", get_at(health::one))
        .route(metrics::PATH, get_at(metrics::metrics))
        .route("/version", get_at(discovery::version))
        .route("/version/", get_at(discovery::version))
        .route("/", get_at(discovery::paths))
        .route("/api", get_at(discovery::core))
        .route("/api/", get_at(discovery::core))
        .route("/apis", get_at(discovery::groups))
        .route("/apis/", get_at(discovery::groups))
        .route("/api/{version}", get_at(discovery::core_resources))
        .route("/apis/{group}", get_at(discovery::group))
        .route("/apis/{group}/{version}", get_at(discovery::group_resources))
        .route("/openapi/v2", get_at(openapi::v2))
        .route("/openapi/v3", get_at(openapi::index))
        .route("/openapi/v3/{*path}", get_at(openapi::document))
        .route("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", post(access::review_self))
        .route("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", post(access::rules))
        .route("/apis/authorization.k8s.io/v1/subjectaccessreviews", post(access::review))
        .route("/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews", post(access::review_local))
        .route("/apis/authentication.k8s.io/v1/selfsubjectreviews", post(access::who))
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(accounts::check::review))
        .route(accounts::check::DISCOVERY, get_at(accounts::check::discovery))
        .route(accounts::check::KEYS, get_at(accounts::check::keys))
        .route(usage::PATHS, get_at(usage::serve))
        .route("/apis/podbay.dev/v1/previews", post(extras::preview))
        .route("/podbay/v1/snapshot", get_at(extras::snapshot))
        .route("/podbay/v1/tokens", post(tokens::create).get(tokens::list))
        .route("/podbay/v1/tokens/{id}", delete_at(tokens::revoke))
        .route("/podbay/v1/join", post(nodes::join))
        .route("/podbay/v1/renew", post(nodes::renew))
        .route("/podbay/v1/nodes/{name}/remove", post(nodes::remove))
        .fallback(any(objects))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), gate::rights))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), flow::flow))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), gate::gate))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), audit::audit))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), tally::tally))
        .with_state(state)
}

/// The one handler of every kind.
async fn objects(State(state): State<Arc<ServerState>>, request: Request<axum::body::Body>) -> Response {
    let warning = deprecation(&state, request.uri().path());
    let in_yaml = Form::is_wanted_in_yaml(request.headers()) && is_ours(&state, request.uri().path());
    let (notes, caller) = (hooks::Notes::default(), request.extensions().get::<audit::Caller>().cloned());
    let response = dispatch(&state, request, &notes).await.unwrap_or_else(Fault::into_response);
    let response = if in_yaml { as_yaml(response).await } else { response };
    let told = notes.take();
    if let Some(caller) = caller {
        caller.annotate(told.annotations);
    }
    write::warned(response, &warning.into_iter().chain(told.warnings).collect::<Vec<_>>())
}

/// The same answer in YAML, if it is in JSON.
async fn as_yaml(response: Response) -> Response {
    if response.headers().get(header::CONTENT_TYPE).is_none_or(|it| it != "application/json") {
        return response;
    }
    let (mut head, body) = response.into_parts();
    // The server's own, and whole already.
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    match serde_json::from_slice(&bytes) {
        Ok(value) => {
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(request::YAML));
            Response::from_parts(head, yaml::text(&value).into())
        }
        Err(_) => Response::from_parts(head, bytes.into()),
    }
}

/// Whether the answer is the server's own, not what a node or a pod says.
fn is_ours(state: &ServerState, path: &str) -> bool {
    let target = Target::parse(path, state.store.snapshot().definitions());
    target.is_none_or(|target| Stream::of(&target).is_none() && !proxy::relay::is_for(&target))
}

/// What is told to whoever uses a version that will go.
fn deprecation(state: &ServerState, path: &str) -> Option<String> {
    let snapshot = state.store.snapshot();
    let target = Target::parse(path, snapshot.definitions()).filter(|target| target.kind.place().is_none())?;
    snapshot.definitions().version(target.kind)?.warning.clone()
}

/// Whether this is a list of what lives in namespaces, without one.
fn is_everywhere(target: &Target) -> bool {
    target.kind.info().namespaced && target.namespace.is_empty()
}

async fn dispatch(state: &ServerState, request: Request<axum::body::Body>, notes: &hooks::Notes) -> Result<Response, Fault> {
    let snapshot = state.store.snapshot();
    let Some(target) = Target::parse(request.uri().path(), snapshot.definitions()) else {
        let list = absent::list(request.method(), request.uri(), snapshot.revision()).ok_or_else(Fault::no_such_path)?;
        return Ok(render::json_response(StatusCode::OK, list.to_string()));
    };
    let identity = request.extensions().get::<Identity>().cloned().ok_or_else(|| Fault::unauthorized("Unauthorized"))?;
    if proxy::relay::is_for(&target) {
        // Query and headers are the other end's.
        return proxy::relay::serve(state, identity, target, notes, request).await;
    }
    let call = Call { notes: notes.clone(), ..Call::read(identity, target, request.method(), request.uri(), request.headers())? };
    let selection = select::Selection::parse(snapshot.definitions(), call.target.kind, &call.query)?;
    let attempt = authorise::Attempt {
        selected_node: selection.field("spec.nodeName"),
        selected_name: selection.field("metadata.name"),
        selected_home: selection.label(HOME),
        ..authorise::Attempt::of(&call)
    };
    let snapshot = state.store.snapshot();
    let may = |attempt: &authorise::Attempt<'_>| {
        authorise::authorise(&call.identity, attempt, &snapshot)
            .map_err(|message| Fault::forbidden_object(attempt.kind, attempt.name.unwrap_or_default(), message))
    };
    may(&attempt)?;
    if let Some(stream) = Stream::of(&call.target) {
        if call.target.subresource.as_deref() != Some("log") {
            // A WebSocket begins with GET and does what a POST does.
            may(&authorise::Attempt { verb: Verb::Create, ..attempt })?;
            streams::ask_hooks(state, &call, stream).await?;
        }
        return streams::forward(state, &call, stream, request).await;
    }
    let peer = request.extensions().get::<crate::tls::Peer>().cloned();
    match call.verb {
        Verb::Get => return read::get(state, &call),
        Verb::List => return read::list(state, &call),
        Verb::Watch => return watch::watch(state, &call, peer.as_ref()),
        _ => {}
    }
    let bytes = body::read(request.into_body(), body::OBJECT_LIMIT).await?;
    match (call.verb, call.target.subresource.as_deref()) {
        (Verb::Create, None) => write::create(state, &call, &bytes).await,
        (Verb::Create, Some("binding")) if call.target.kind == Kind::Pod => delete::bind(state, &call, &bytes).await,
        (Verb::Create, Some("eviction")) if call.target.kind == Kind::Pod => delete::evict(state, &call, &bytes).await,
        (Verb::Create, Some("token")) if call.target.kind == Kind::ServiceAccount => accounts::issue::issue(state, &call, &bytes).await,
        (Verb::Create, Some(_)) => Err(Fault::no_such_path()),
        (Verb::Update, _) => write::update(state, &call, &bytes).await,
        (Verb::Patch, _) => patch::patch(state, &call, &bytes).await,
        (Verb::Delete, _) => delete::delete(state, &call, &bytes).await,
        // Of all namespaces at once nothing is deleted, and no namespaces are: as in Kubernetes there is no such path.
        (Verb::DeleteCollection, _) if call.target.kind == Kind::Namespace || is_everywhere(&call.target) => {
            Err(Fault::method_not_allowed())
        }
        (Verb::DeleteCollection, _) => delete::delete_collection(state, &call, &bytes).await,
        (Verb::Get | Verb::List | Verb::Watch, _) => Err(Fault::method_not_allowed()),
    }
}
