//! What is passed on: logs, exec, attach and port-forward to the node's API, which is the kubelet's; HTTP to pods,
//! Services and nodes.
//!
//! - `streams`: the four that go to the node of a pod
//! - `relay`: the `proxy` subresource; `place` (pure): where it leads; `headers` (pure): what of both heads is passed on
//!
//! Upgrades are proxied raw: what WebSocket or SPDY says inside is between the client and the other end.

pub(super) mod headers;
mod place;
pub mod relay;
pub mod streams;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Node;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::ServerState;
use super::fault::Fault;
use crate::tls::connection::{Patience, serve_stream};
use crate::tls::{TlsError, connect, node_host};

/// A connection to a node API or to a pod.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// How the server reaches a node. SEAM.
#[async_trait]
pub trait NodeConnector: Send + Sync {
    /// Opens a connection to the node's API.
    async fn connect(&self, node: &Node) -> Result<Box<dyn Wire>, TlsError>;

    /// The node that runs in this process.
    fn here(&self) -> Option<&str> {
        None
    }
}

/// How the server reaches the address of a pod. SEAM.
#[async_trait]
pub trait PodConnector: Send + Sync {
    /// Opens a connection to what listens there.
    async fn connect(&self, address: SocketAddr) -> std::io::Result<Box<dyn Wire>>;
}

/// Pods by the routes of this host: those of its own node, and those it has a route to.
pub struct Routed;

#[async_trait]
impl PodConnector for Routed {
    async fn connect(&self, address: SocketAddr) -> std::io::Result<Box<dyn Wire>> {
        let stream = TcpStream::connect(address).await?;
        connect::probe(&stream);
        Ok(Box::new(stream))
    }
}

/// Nodes on other hosts, over TLS.
pub struct TlsNodes {
    config: Arc<ClientConfig>,
}

impl TlsNodes {
    /// `config` shows the server's client certificate and looks at the node's: [`crate::tls::Pki::node_client_config`].
    pub fn new(config: Arc<ClientConfig>) -> Self {
        Self { config }
    }
}

/// Where a node's API listens when its status does not say.
const NODE_PORT: i32 = 10250;

/// Where a node's API listens.
fn api_port(node: &Node) -> i32 {
    let endpoints = node.status.as_ref().and_then(|status| status.daemon_endpoints.as_ref());
    endpoints.and_then(|endpoints| endpoints.kubelet_endpoint.as_ref()).map_or(NODE_PORT, |endpoint| endpoint.port)
}

#[async_trait]
impl NodeConnector for TlsNodes {
    async fn connect(&self, node: &Node) -> Result<Box<dyn Wire>, TlsError> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        let addresses = status.addresses.unwrap_or_default();
        let address = ["InternalIP", "Hostname", "ExternalIP"].iter().find_map(|kind| addresses.iter().find(|it| it.type_ == *kind));
        let address = address.map_or(name.as_str(), |address| address.address.as_str());
        let port = api_port(node);
        let address = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
        // The certificate must be this node's, so a false address leads nowhere.
        match connect::open(&address, &node_host(&name), Arc::clone(&self.config)).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(TlsError::Connect { address, source }) if connect::is_untrusted(&source) => {
                Err(TlsError::NotTheNode { node: name, address, source })
            }
            Err(error) => Err(error),
        }
    }
}

/// The node in this process; all others over `elsewhere`.
pub struct InProcessNode {
    name: String,
    router: OnceLock<Router>,
    elsewhere: Option<Arc<dyn NodeConnector>>,
}

impl InProcessNode {
    pub fn new(name: impl Into<String>, elsewhere: Option<Arc<dyn NodeConnector>>) -> Self {
        Self { name: name.into(), router: OnceLock::new(), elsewhere }
    }

    /// The node API, once there is one: it comes after the server whose client it uses. The first counts.
    pub fn attach(&self, router: Router) {
        let _ = self.router.set(router);
    }
}

#[async_trait]
impl NodeConnector for InProcessNode {
    fn here(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn connect(&self, node: &Node) -> Result<Box<dyn Wire>, TlsError> {
        if node.metadata.name.as_deref() != Some(self.name.as_str()) {
            return match &self.elsewhere {
                Some(elsewhere) => elsewhere.connect(node).await,
                None => Err(TlsError::Address(node.metadata.name.clone().unwrap_or_default())),
            };
        }
        let router = self.router.get().cloned().ok_or_else(|| TlsError::Slow(format!("node {}, which is starting", self.name)))?;
        let (near, far) = tokio::io::duplex(256 * 1024);
        tokio::spawn(serve_stream(far, router, Patience::KNOWN, CancellationToken::new(), |_| {}));
        Ok(Box::new(near))
    }
}

/// One request to a node's API, on a connection of its own.
///
/// # Errors
/// 502 where the node is not reached.
pub async fn ask(state: &ServerState, node: &Node, mut request: Request<Body>) -> Result<http::Response<Incoming>, Fault> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let host = HeaderValue::from_str(&node_host(name)).unwrap_or(HeaderValue::from_static("node"));
    request.headers_mut().insert(header::HOST, host);
    let refused = |error: String| Fault::new(502, "InternalError", format!("error dialing backend: node {name}: {error}"));
    let wire = state.nodes.connect(node).await.map_err(|error| refused(error.to_string()))?;
    exchange(wire, request).await.map_err(|error| refused(error.to_string()))
}

/// One request on a connection that ends with its answer. A head of any size is not read: hyper's bound of about 400 kB holds.
async fn exchange(wire: Box<dyn Wire>, request: Request<Body>) -> hyper::Result<http::Response<Incoming>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(wire)).await?;
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}

/// The answer to a client whose connection is joined to the other end's, which has switched protocols.
fn switched(client: Option<OnUpgrade>, answer: &mut http::Response<Incoming>) -> Result<Response, Fault> {
    let Some(client) = client else { return Err(Fault::bad_request("this connection cannot be upgraded")) };
    let backend = hyper::upgrade::on(&mut *answer);
    tokio::spawn(join(client, backend));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}

/// Copies both ways until one side ends.
async fn join(client: OnUpgrade, backend: OnUpgrade) {
    let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else { return };
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    // However it ends, both connections are closed by dropping them.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
}
