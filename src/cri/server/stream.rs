//! Where callers come for exec, attach and port-forward: HTTP on a socket of its own, to which the answers on the CRI
//! socket lead (streaming as in the kubelet's `cri/streaming`: a URL with a token, good once and for a minute).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use http::{Request, StatusCode, header};
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

/// Sessions at once.
const SESSIONS: usize = 1024;
/// Connections at once of those who have not shown a good token yet: any user of this host may come.
const STRANGERS: usize = 256;
/// Whoever comes has one thing to say; a session's connection is no longer served here.
const PATIENCE: Patience = Patience { headers: Duration::from_secs(5), idle: Duration::from_secs(5), life: Some(Duration::from_secs(30)) };

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
        let bytes = match &wanted {
            Wanted::Remote(remote) => remote.request.command.iter().map(String::len).sum(),
            Wanted::Forward { ports, .. } => size_of_val(ports.as_slice()),
        };
        let put = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).put(place, wanted, bytes, self.began.elapsed());
        let full = || CriError::Exhausted(format!("{verb}: too much was asked for that nobody came for: try again in a minute"));
        put.then_some(url).ok_or_else(full)
    }

    fn take(&self, place: &str) -> Option<Wanted> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).take(place, self.began.elapsed())
    }
}

struct Place {
    streams: Arc<Streams>,
    runtime: Arc<dyn Runtime>,
    sessions: Arc<Semaphore>,
}

/// Says no, and nothing more on this connection.
fn refuse(status: StatusCode, message: &'static str) -> Response {
    (status, [(header::CONNECTION, "close")], message).into_response()
}

async fn answer(State(place): State<Arc<Place>>, Path((verb, token)): Path<(String, String)>, mut request: Request<Body>) -> Response {
    let Some(wanted) = place.streams.take(&format!("{verb}/{token}")) else {
        return refuse(StatusCode::NOT_FOUND, "there is no such stream, or no longer: each URL is good once and for a minute\n");
    };
    let Ok(session) = Arc::clone(&place.sessions).try_acquire_owned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "there are too many streams\n");
    };
    // Held by what the connection becomes.
    request.extensions_mut().insert(Arc::new(session));
    streaming::serve(Arc::clone(&place.runtime), wanted, request).await
}

/// Serves callers until the token is cancelled.
pub async fn listen(listener: TcpListener, streams: Arc<Streams>, runtime: Arc<dyn Runtime>, end: CancellationToken) {
    let place = Place { streams, runtime, sessions: Arc::new(Semaphore::new(SESSIONS)) };
    let nowhere = async || refuse(StatusCode::NOT_FOUND, "there is nothing here\n");
    let router = axum::Router::new().route("/{verb}/{token}", any(answer)).fallback(nowhere).with_state(Arc::new(place));
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let next = async || {
        let place = Arc::clone(&strangers).acquire_owned().await.ok()?;
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
            let served = serve_stream(stream, router.clone(), PATIENCE, end.clone(), |_| {});
            tokio::spawn(async move {
                served.await;
                drop(place);
            });
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
        request.check()?;
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::cri::fake::FakeRuntime;

    #[tokio::test]
    async fn who_has_no_token_keeps_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (streams, end) = (Arc::new(Streams::new(at)), CancellationToken::new());
        let _end = end.clone().drop_guard();
        tokio::spawn(listen(listener, streams, Arc::new(FakeRuntime::default()), end));
        for path in ["/exec/guessed", "/", "/exec/a/b"] {
            let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: podbay\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("connection: close"), "{path}: {answer}");
        }
    }
}
