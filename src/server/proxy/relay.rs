//! HTTP to pods, Services and nodes: the `proxy` subresource. Path, query, method and body are the other end's; so are the
//! headers, but for those of the connection and those by which this server knows who asks (`headers`).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::response::Response;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use super::super::authorise::rbac;
use super::super::fault::Fault;
use super::super::hooks::plan::Operation;
use super::super::hooks::{self, Notes};
use super::super::options::FieldValidation;
use super::super::request::{Call, Form, PROXY, Query, Target, Verb};
use super::super::{Identity, ServerState};
use super::headers::{self, Asked};
use super::place::{self, Place};
use super::{Wire, exchange, switched};
use crate::model::Kind;
use crate::model::rights::{Act, On};
use crate::tls::{Remote, anyone, node_host};

/// For the connection to one address, and its handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// Addresses of a Service that are tried before it is given up.
const TRIED: usize = 3;
/// What Kubernetes connects to by (`apiserver/pkg/endpoints/installer.go`, the verb CONNECT).
const METHODS: [Method; 7] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// Whether a path leads on, to something else than this server.
pub fn is_for(target: &Target) -> bool {
    options_of(target.kind).is_some() && target.subresource.as_deref() == Some(PROXY)
}

/// What webhooks are asked with.
fn options_of(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Pod => Some("PodProxyOptions"),
        Kind::Service => Some("ServiceProxyOptions"),
        Kind::Node => Some("NodeProxyOptions"),
        _ => None,
    }
}

/// Passes a request on, and the answer back.
///
/// # Errors
/// 403 for whoever may not, 503 where nobody answers.
pub async fn serve(
    state: &ServerState,
    identity: Identity,
    target: Target,
    notes: &Notes,
    mut request: Request<Body>,
) -> Result<Response, Fault> {
    if !METHODS.contains(request.method()) {
        return Err(Fault::method_not_allowed());
    }
    let upgrades = headers::upgrade(request.headers()).is_some();
    let path = request.uri().path().to_owned();
    let (prefix, rest) = place::split(&path, &target);
    let call = call(identity, target, request.method(), notes);
    may(state, &call, request.method(), upgrades)?;
    ask_hooks(state, &call, rest).await?;
    let place = place::place(&call.target, &state.store.snapshot())?;
    if rest.is_empty() && !upgrades && matches!(*request.method(), Method::GET | Method::HEAD) {
        return redirected(prefix, request.uri().query());
    }
    let client = request.extensions_mut().remove::<OnUpgrade>();
    let host = host(&request);
    let from = request.extensions().get::<Remote>().map(|remote| remote.0);
    let outbound = outbound(request, prefix, rest, (host.as_deref(), from))?;
    let (mut answer, at) = send(state, &place, outbound).await?;
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switches && upgrades {
        return switched(client, &mut answer);
    }
    if switches {
        return Err(unreached("it switched protocols unasked"));
    }
    let hosts: Vec<&str> = [Some(at.as_str()), host.as_deref()].into_iter().flatten().collect();
    let passed = headers::for_client(answer.headers(), prefix, &hosts);
    let mut response = answer.map(Body::new);
    *response.headers_mut() = passed;
    // The other end's is that of another connection.
    *response.version_mut() = http::Version::HTTP_11;
    Ok(response)
}

/// The request as rights and webhooks see it.
fn call(identity: Identity, target: Target, method: &Method, notes: &Notes) -> Call {
    let query = Query::default();
    Call {
        // OPTIONS is none of them; whoever it is told to only asks what is proxied.
        verb: Verb::of(method, &target, &query).unwrap_or(Verb::Get),
        identity,
        target,
        query,
        form: Form::Object,
        content_type: String::new(),
        manager: String::new(),
        field_validation: FieldValidation::Warn,
        dry_run: false,
        notes: notes.clone(),
    }
}

/// The right to the subresource, by the verb of the method; OPTIONS has none, which `*` alone allows, as in Kubernetes. An
/// upgrade of a node's API begins with GET and runs commands: it takes the right to create too.
fn may(state: &ServerState, call: &Call, method: &Method, upgrades: bool) -> Result<(), Fault> {
    let (target, snapshot) = (&call.target, state.store.snapshot());
    let (info, name) = (target.kind.info(), target.name.as_deref().unwrap_or_default());
    let on = On::Resource { group: info.group, resource: info.plural, subresource: PROXY, namespace: &target.namespace, name };
    let verb = if *method == Method::OPTIONS { "" } else { call.verb.word() };
    let more = (upgrades && target.kind == Kind::Node).then_some(Verb::Create.word());
    [verb].into_iter().chain(more).try_for_each(|verb| {
        rbac::authorise(&call.identity, &Act { verb, on }, &snapshot).map_err(|message| Fault::forbidden_object(target.kind, name, message))
    })
}

async fn ask_hooks(state: &ServerState, call: &Call, path: &str) -> Result<(), Fault> {
    let Some(kind) = options_of(call.target.kind) else { return Ok(()) };
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    if !path.is_empty() {
        options["path"] = path.into();
    }
    hooks::plain(state, call, Operation::Connect, ["", "v1", kind], options, Value::Null).await.map(drop)
}

/// Links of a page that are relative find their way only from below a slash (`apimachinery/pkg/util/proxy`,
/// `proxyRedirectsforRootPath`).
fn redirected(prefix: &str, query: Option<&str>) -> Result<Response, Fault> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let place = HeaderValue::from_str(&format!("{prefix}/{query}")).map_err(|_| Fault::bad_request("the path"))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(header::LOCATION, place);
    Ok(response)
}

/// The host a request was sent to, as HTTP/1 and HTTP/2 say it.
fn host(request: &Request<Body>) -> Option<String> {
    let said = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    request.uri().authority().map(http::uri::Authority::as_str).or(said).map(str::to_owned)
}

fn outbound(
    request: Request<Body>,
    prefix: &str,
    rest: &str,
    (host, from): (Option<&str>, Option<IpAddr>),
) -> Result<Request<Body>, Fault> {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = if rest.is_empty() { "/" } else { rest };
    let uri: Uri = format!("{path}{query}").parse().map_err(|error| Fault::bad_request(format!("the path {path:?}: {error}")))?;
    let mut head = headers::for_backend(request.headers(), &Asked { host, path: &format!("{prefix}{rest}"), from });
    let (method, body) = (request.method().clone(), request.into_body());
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        // Unasked, hyper sends none of it with a GET.
        head.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut outbound = Request::builder().method(method).uri(uri).body(body).map_err(|error| Fault::internal(error.to_string()))?;
    *outbound.headers_mut() = head;
    Ok(outbound)
}

fn unreached(why: impl std::fmt::Display) -> Fault {
    Fault::unavailable(format!("error trying to reach service: {why}"))
}

/// The answer, and the host by which the other end is known. Until it begins it takes as long as it takes: a client that
/// does not want to wait goes away.
async fn send(state: &ServerState, place: &Place, mut request: Request<Body>) -> Result<(http::Response<Incoming>, String), Fault> {
    let (wire, at) = match place {
        Place::Node(node) => {
            let wire = state.nodes.connect(node).await.map_err(unreached)?;
            (wire, node_host(node.metadata.name.as_deref().unwrap_or_default()))
        }
        Place::Addresses { tls, addresses } => {
            let (wire, address) = open(state, *tls, addresses).await?;
            (wire, address.to_string())
        }
    };
    // A node's API is told its own name; pods hear the name their client used, as in Kubernetes.
    if matches!(place, Place::Node(_)) || !request.headers().contains_key(header::HOST) {
        let host = HeaderValue::from_str(&at).unwrap_or(HeaderValue::from_static("backend"));
        request.headers_mut().insert(header::HOST, host);
    }
    let answer = exchange(wire, request).await.map_err(|error| unreached(format!("{at}: {error}")))?;
    Ok((answer, at))
}

/// A connection to one of the addresses, from any of them on: the load is spread.
async fn open(state: &ServerState, tls: bool, addresses: &[SocketAddr]) -> Result<(Box<dyn Wire>, SocketAddr), Fault> {
    let mut fault = unreached("no address");
    let (before, from) = addresses.split_at(rand::random_range(0..addresses.len().max(1)));
    for address in from.iter().chain(before).take(TRIED) {
        let connect = async {
            let wire = state.pods.connect(*address).await?;
            if tls { secured(wire, address.ip()).await } else { Ok(wire) }
        };
        match tokio::time::timeout(PATIENCE, connect).await {
            Ok(Ok(wire)) => return Ok((wire, *address)),
            Ok(Err(cause)) => fault = unreached(format!("connect to {address}: {cause}")),
            Err(_) => fault = unreached(format!("connect to {address}: no answer in time")),
        }
    }
    Err(fault)
}

/// TLS to whoever it is: the certificates of pods are their own business, as in Kubernetes.
async fn secured(wire: Box<dyn Wire>, address: IpAddr) -> std::io::Result<Box<dyn Wire>> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = match CONFIG.get() {
        Some(config) => Arc::clone(config),
        None => {
            let config = anyone::client_config().map_err(std::io::Error::other)?;
            Arc::clone(CONFIG.get_or_init(|| Arc::new(config)))
        }
    };
    let stream = TlsConnector::from(config).connect(ServerName::from(address), wire).await?;
    Ok(Box::new(stream))
}
