//! Where callers come for exec, attach and port-forward: HTTP on a socket of its own, to which the answers on the CRI
//! socket lead (streaming as in the kubelet's `cri/streaming`: a URL with a token, good once and for a minute).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use http::{Request, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::tokens::Tokens;
use super::{ACCEPT_PAUSE, Core};
use crate::cri::streaming::{self, Remote, Verb, Wanted};
use crate::cri::wire;
use crate::cri::{ContainerState, CriError, ExecRequest, Runtime, SandboxState};
use crate::tls::connect::probe;
use crate::tls::connection::{Patience, serve_stream};

/// Connections at once, sessions on them included.
const CONNECTIONS: usize = 1024;
/// Whoever comes has one thing to say.
const PATIENCE: Patience = Patience { headers: Duration::from_secs(10), idle: Duration::from_secs(10), life: None };

/// What callers may have, and where they get it.
pub struct Streams {
    at: SocketAddr,
    began: Instant,
    tokens: Mutex<Tokens<Wanted>>,
}

impl Streams {
    pub fn new(at: SocketAddr) -> Self {
        Self { at, began: Instant::now(), tokens: Mutex::default() }
    }

    /// Where a caller gets it.
    fn url(&self, verb: &str, wanted: Wanted) -> Result<String, CriError> {
        let place = format!("{verb}/{}", uuid::Uuid::new_v4().simple());
        let url = format!("http://{}/{place}", self.at);
        let put = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).put(place, wanted, self.began.elapsed());
        let full = || CriError::failed(verb, "too many streams were asked for that nobody came for: try again in a minute");
        put.then_some(url).ok_or_else(full)
    }

    fn take(&self, place: &str) -> Option<Wanted> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).take(place, self.began.elapsed())
    }
}

struct Place {
    streams: Arc<Streams>,
    runtime: Arc<dyn Runtime>,
}

async fn answer(State(place): State<Arc<Place>>, Path((verb, token)): Path<(String, String)>, request: Request<Body>) -> Response {
    match place.streams.take(&format!("{verb}/{token}")) {
        Some(wanted) => streaming::serve(Arc::clone(&place.runtime), wanted, request).await,
        None => (StatusCode::NOT_FOUND, "there is no such stream, or no longer: each URL is good once and for a minute\n").into_response(),
    }
}

/// Serves callers until the token is cancelled.
pub async fn listen(listener: TcpListener, streams: Arc<Streams>, runtime: Arc<dyn Runtime>, end: CancellationToken) {
    let router = axum::Router::new().route("/{verb}/{token}", any(answer)).with_state(Arc::new(Place { streams, runtime }));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let next = async || {
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, _)) => Some((stream, place)),
            Err(cause) => {
                tracing::debug!(%cause, "take in a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    };
    loop {
        let taken = tokio::select! {
            () = end.cancelled() => return,
            taken = next() => taken,
        };
        if let Some((stream, place)) = taken {
            probe(&stream);
            // Held by the connection, and by the session it becomes.
            let place = Arc::new(place);
            let extend = move |extensions: &mut http::Extensions| drop(extensions.insert(Arc::clone(&place)));
            tokio::spawn(serve_stream(stream, router.clone(), PATIENCE, end.clone(), extend));
        }
    }
}

impl Core {
    pub(super) async fn exec_url(&self, request: wire::ExecRequest) -> Result<String, CriError> {
        if request.cmd.is_empty() {
            return Err(CriError::Invalid("there is no command to run".into()));
        }
        let wire::ExecRequest { tty, stdin, stdout, stderr, .. } = request;
        let wanted = ExecRequest { command: request.cmd, tty, stdin, stdout, stderr };
        self.remote_url(Verb::Exec, &request.container_id, wanted).await
    }

    pub(super) async fn attach_url(&self, request: wire::AttachRequest) -> Result<String, CriError> {
        let wire::AttachRequest { tty, stdin, stdout, stderr, .. } = request;
        self.remote_url(Verb::Attach, &request.container_id, ExecRequest { command: Vec::new(), tty, stdin, stdout, stderr }).await
    }

    async fn remote_url(&self, verb: Verb, id: &str, request: ExecRequest) -> Result<String, CriError> {
        if request.tty && request.stderr {
            return Err(CriError::Invalid("tty and stderr cannot both be true".into()));
        }
        if !(request.stdin || request.stdout || request.stderr) {
            return Err(CriError::Invalid("one of stdin, stdout, or stderr must be set".into()));
        }
        let name = if verb == Verb::Exec { "exec" } else { "attach" };
        let found = self.container(id).await?;
        if found.state != ContainerState::Running {
            return Err(CriError::failed(format!("{name} in container {}", found.id), "it is not running"));
        }
        self.streams.url(name, Wanted::Remote(Remote { verb, container: found.id, request }))
    }

    pub(super) async fn forward_url(&self, request: &wire::PortForwardRequest) -> Result<String, CriError> {
        let number = |port: &i32| u16::try_from(*port).ok().filter(|port| *port > 0);
        let ports: Option<Vec<u16>> = request.port.iter().map(number).collect();
        let ports = ports.ok_or_else(|| CriError::Invalid(format!("ports {:?} cannot all be", request.port)))?;
        let found = self.sandbox(&request.pod_sandbox_id).await?;
        if found.state != SandboxState::Ready {
            return Err(CriError::failed(format!("forward ports of sandbox {}", found.id), "it is not ready"));
        }
        self.streams.url("portforward", Wanted::Forward { sandbox: found.id, ports })
    }
}
