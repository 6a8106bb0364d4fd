//! A node of a server that is not Podbay's: its certificates, asked for by CertificateSigningRequests as a kubelet asks.
//!
//! - `plan` (pure): what is asked for, what an answer says, how long to wait
//! - `request`: one request, from its key to its certificate
//! - `client`: whom the server takes the node for: a kubeconfig, made with another and renewed
//! - `server`: what the node API shows, once somebody has approved it
//!
//! A key is on disk before its request is made and the request has a name of it, so that there is one request however often
//! the node is started or the server is away.

pub mod client;
pub mod plan;
pub mod request;
pub mod server;

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::identity::IdentityError;
use crate::model::Timestamp;
use crate::tls::TlsError;

/// Why a node has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(
        "{lacking}: say --bootstrap-kubeconfig FILE, with which this node asks for a certificate, or put a good kubeconfig there, and \
         start the agent again"
    )]
    NoBootstrap { lacking: String },
    #[error("{lacking}, and with the bootstrap kubeconfig no certificate can be asked for: {source}")]
    Bootstrap { lacking: String, source: TlsError },
    #[error("{file} is the kubeconfig of node {other}, and this is {node}: set node.name, or remove the file")]
    OfAnother { file: PathBuf, other: String, node: String },
    #[error("use {file}: {source}")]
    Use { file: PathBuf, source: TlsError },
    #[error(
        "reach {url}: {source}: what answers there has no certificate of the CA in {file}, or one for another name, or not for this time"
    )]
    WrongServer { url: String, file: PathBuf, source: Box<TlsError> },
    #[error("ask {url} for {what}: {message}")]
    Refused { url: String, what: String, message: String },
    #[error("{what}: the request {name} {message}. `kubectl delete csr {name}` lets this node ask again")]
    Denied { what: String, name: String, message: String },
    #[error("{what}: what {url} issued for the request {name} is not that: {cause}. `kubectl delete csr {name}` lets this node ask again")]
    Useless { what: String, url: String, name: String, cause: String },
    #[error("{what}: what {url} issued is good until {until} only, and here it is {now}: set the clock of this host")]
    Stale { what: String, url: String, until: Timestamp, now: Timestamp },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl CertificateError {
    /// Whether it is the server that has to think better of it, so that asking again may help: its rights and accounts may come
    /// up after it, and a person may delete what was denied. All else is to be mended on this host.
    fn is_the_servers(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Denied { .. } | Self::Stale { .. } | Self::Useless { .. } | Self::WrongServer { .. })
    }
}

/// Waits until the next look at a certificate is due, as the last one said: in how many seconds it has to be renewed, or that
/// it cannot be. `failed`: how often in a row.
async fn rest(what: &str, looked: Result<i64, CertificateError>, failed: &mut u32, end: &CancellationToken) {
    let left = match looked {
        Ok(seconds) => u64::try_from(seconds).ok().filter(|seconds| *seconds > 0),
        Err(ref error) => {
            tracing::warn!(%error, "{what} is not to be had, and is asked for again");
            None
        }
    };
    if left.is_none() && looked.is_ok() {
        tracing::warn!("{what} was due again as soon as it was issued: look at this host's clock, and at how long the cluster issues for");
    }
    // The pause is over when the time is up, and when the agent ends.
    let _ = tokio::time::timeout(plan::until_next(left, failed), end.cancelled()).await;
}
