//! Certificates and connections, shared by server and agent.
//!
//! - `anyone`: clients that do not ask who answers
//! - `authority`: the cluster's own CA and what it signs
//! - `files`: private keys on disk, whole or not at all
//! - `live`: a key that can be replaced while connections use it
//! - `node`: whether who answers at a node's address is that node
//! - `peer`: who a client certificate says it is
//! - `pin`: trusting a CA by its fingerprint alone, for joining
//! - `request`: what somebody asks a certificate for
//! - `signer`: the key that signs tokens
//! - `pki`: the server's set of certificates, kept fresh
//! - `serve`: a router over TLS, with bounds; `connection`: one connection, with deadlines; `unread`: what was answered early
//! - `places`, `register`: whose connections are closed when there are too many
//! - `connect`: clients, for the agent and for the node API
//! - `kubeconfig`: what kubectl needs, and reading it

pub mod anyone;
pub mod authority;
pub mod connect;
pub mod connection;
pub mod files;
pub mod kubeconfig;
pub mod live;
mod node;
pub mod peer;
pub mod pin;
pub mod pki;
pub mod places;
pub mod register;
pub mod request;
pub mod serve;
pub mod signer;
mod unread;

pub use authority::{Authority, Issued, Order};
pub use live::LiveKey;
pub use peer::{Peer, Remote};
pub use pki::Pki;
pub use signer::Signer;

/// The name every server certificate has, whatever addresses the host goes by: agents and the
/// kubeconfig verify this one.
pub const SERVER_NAME: &str = "server.podbay";
/// The common name of the server's client certificate: node APIs let nobody else in.
pub const SERVER_CLIENT: &str = "podbay-server";

/// The name by which a node's API is dialled, and for which an agent's certificate is valid. Not the node's own name: a node that is called like
/// the server's host must not be able to pass for the server.
pub fn node_host(node: &str) -> String {
    format!("{node}{NODE_DOMAIN}")
}

const NODE_DOMAIN: &str = ".node.podbay";

/// Makes ring the process' one crypto provider. Safe to call again.
pub fn install_provider() {
    // An error says that one is installed already: ours, there is no other.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Why a key, a certificate or a connection is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{attempt} {path}: {source}")]
    File { attempt: &'static str, path: std::path::PathBuf, source: std::io::Error },
    #[error("{path} does not hold {what}")]
    Content { path: std::path::PathBuf, what: &'static str },
    #[error("make {subject}: {source}")]
    Make { subject: String, source: rcgen::Error },
    #[error("use {subject}: {source}")]
    Use { subject: String, source: rustls::Error },
    #[error("{subject} is not a certificate: {cause}")]
    NotACertificate { subject: String, cause: String },
    #[error("sign {0}: no randomness")]
    Sign(&'static str),
    #[error("connect to {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("connect to {0}: no answer in time")]
    Slow(String),
    #[error(
        "connect to {address}: {source}: what answers there does not prove to be node {node}. A kubelet has a certificate of this \
         cluster with `serverTLSBootstrap: true` in its configuration, once its request is approved (`kubectl get csr`, `kubectl \
         certificate approve NAME`); `insecure-node-certificates = true` in [server] takes any"
    )]
    NotTheNode { node: String, address: String, source: std::io::Error },
    #[error("ask {address}: {source}")]
    Http { address: String, source: hyper::Error },
    #[error("{0:?} is not a server's address like https://10.0.0.1:6443")]
    Address(String),
    #[error("{path} is no kubeconfig{place}")]
    NotAKubeconfig { path: std::path::PathBuf, place: String },
    #[error("kubeconfig {path}: {message}")]
    Kubeconfig { path: std::path::PathBuf, message: String },
    // Without the path: it may be a token, in the wrong field.
    #[error("read the file of tokenFile: {0}")]
    TokenFile(std::io::Error),
    #[error("a bearer token is text in one line")]
    Token,
}
