//! Streams between a caller and a pod, in the protocols of Kubernetes: exec, attach and port-forward over SPDY/3.1 and over
//! WebSockets, as the kubelet's `cri/streaming` serves them. The node's API and the CRI server both serve them from here.
//!
//! - `frame`, `headers`, `dictionary` (pure): SPDY on the wire
//! - `connection`: streams of a SPDY connection, for the server and the client; `lane`: what each may hold
//! - `session`: a command's streams joined with its caller's; `sys`: the command's ends of them
//! - `remote`: exec and attach over SPDY; `forward`: ports over SPDY; `websocket`: both over WebSockets
//! - `door`: the way in for fuzz targets

pub(super) mod connection;
mod dictionary;
pub mod door;
mod forward;
mod frame;
mod headers;
pub(super) mod lane;
mod remote;
mod session;
pub(super) mod sys;
#[cfg(test)]
mod tests;
mod websocket;

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::{ExecRequest, Runtime};

/// Which of the protocols' versions a caller speaks, and which we speak with it.
pub(super) const VERSION: &str = "x-stream-protocol-version";
const ACCEPTED: &str = "x-accepted-stream-protocol-versions";
pub(super) const SPDY: &str = "SPDY/3.1";
pub(super) use forward::PROTOCOL as PORT_FORWARD;
pub(super) const EXEC: &str = remote::PROTOCOLS[0];

/// What a caller is joined with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A command of its own, whose exit code is told.
    Exec,
    /// The container's process, whose end is not the caller's affair.
    Attach,
}

/// A process to be joined with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub verb: Verb,
    pub container: String,
    /// Without a command for [`Verb::Attach`].
    pub request: ExecRequest,
}

/// What a caller wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Remote(Remote),
    Forward {
        sandbox: String,
        /// Named beforehand by those who cannot say them later.
        ports: Vec<u16>,
    },
}

/// Answers a request for a stream. What is wanted begins once the connection is upgraded; the request's extensions live
/// as long.
pub async fn serve(runtime: Arc<dyn Runtime>, wanted: Wanted, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let upgrade = listed(&parts.headers, header::UPGRADE.as_str());
    if upgrade.iter().any(|word| word.eq_ignore_ascii_case("websocket")) {
        return websocket::upgrade(runtime, wanted, parts).await;
    }
    if upgrade.iter().any(|word| word.eq_ignore_ascii_case(SPDY)) {
        return spdy(runtime, wanted, parts);
    }
    refuse(StatusCode::BAD_REQUEST, "unable to upgrade: say `Upgrade: SPDY/3.1` or `Upgrade: websocket`")
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, format!("{message}\n")).into_response()
}

/// The words of a header that is a list.
fn listed(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

fn spdy(runtime: Arc<dyn Runtime>, wanted: Wanted, mut parts: Parts) -> Response {
    let known: &[&'static str] = match wanted {
        Wanted::Remote(_) => &remote::PROTOCOLS,
        Wanted::Forward { .. } => &[forward::PROTOCOL],
    };
    let offered = listed(&parts.headers, VERSION);
    if offered.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, "unable to upgrade: X-Stream-Protocol-Version is required");
    }
    let Some(protocol) = offered.iter().find_map(|offered| known.iter().find(|known| *known == offered)).copied() else {
        let message = format!("unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {known:?}");
        let mut answer = refuse(StatusCode::FORBIDDEN, &message);
        for known in known {
            answer.headers_mut().append(ACCEPTED, http::HeaderValue::from_static(known));
        }
        return answer;
    };
    let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
        return refuse(StatusCode::BAD_REQUEST, "unable to upgrade: this connection cannot be upgraded");
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(io) => match wanted {
                Wanted::Remote(remote) => remote::serve(TokioIo::new(io), &*runtime, remote, protocol).await,
                Wanted::Forward { sandbox, .. } => forward::serve(TokioIo::new(io), &runtime, &sandbox).await,
            },
            Err(cause) => tracing::debug!(%cause, "upgrade a connection"),
        }
        drop(parts);
    });
    let headers = [(header::CONNECTION.as_str(), "Upgrade"), (header::UPGRADE.as_str(), SPDY), (VERSION, protocol)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
