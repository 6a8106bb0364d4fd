//! One connection of any kind: HTTP/1.1 or HTTP/2, upgrades, and how long it may do nothing.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::unread::Unread;

/// How patient a connection's server is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the first request, and for the headers of each.
    pub headers: Duration,
    /// Without a request.
    pub idle: Duration,
    /// For the whole connection; no end where there is none.
    pub life: Option<Duration>,
}

impl Patience {
    /// With who is known, or in this process.
    pub const KNOWN: Self = Self { headers: Duration::from_secs(10), idle: Duration::from_secs(120), life: None };
    /// With who shows no certificate: health and joining take moments.
    pub const STRANGER: Self =
        Self { headers: Duration::from_secs(10), idle: Duration::from_secs(10), life: Some(Duration::from_secs(15)) };
}

/// Whether a connection without a certificate has come to be trusted: a request on it proved who asks, as one with a
/// token does.
#[derive(Clone, Default)]
pub struct Trust(Arc<TrustInner>);

#[derive(Default)]
struct TrustInner {
    name: OnceLock<String>,
    proven: Notify,
}

impl Trust {
    /// The connection is this user's. The first counts.
    pub fn prove(&self, name: &str) {
        if self.0.name.get().is_none() && self.0.name.set(name.to_owned()).is_ok() {
            self.0.proven.notify_one();
        }
    }

    fn is_proven(&self) -> bool {
        self.0.name.get().is_some()
    }

    /// Waits for the proof. For one waiter.
    pub async fn proven(&self) -> String {
        loop {
            match self.0.name.get() {
                Some(name) => return name.clone(),
                None => self.0.proven.notified().await,
            }
        }
    }
}

/// How long requests may go on after `shutdown`.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Streams at once on one connection, of the known and of strangers.
const STREAMS: (u32, u32) = (256, 8);
/// What a stranger may send ahead of its reader.
const STRANGERS_WINDOW: u32 = 64 * 1024;

/// Serves one connection. `extend` says who is at its other end.
pub async fn serve_stream<S>(
    stream: S,
    router: Router,
    patience: Patience,
    shutdown: CancellationToken,
    extend: impl Fn(&mut http::Extensions) + Send + Sync + 'static,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve_stranger(stream, router, (patience, patience), &Trust::default(), shutdown, extend).await;
}

/// The same for who may prove itself later: how patient to be until then, and afterwards.
pub async fn serve_stranger<S>(
    stream: S,
    router: Router,
    patience: (Patience, Patience),
    trust: &Trust,
    shutdown: CancellationToken,
    extend: impl Fn(&mut http::Extensions) + Send + Sync + 'static,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let extend = Arc::new(extend);
    let requests = Arc::new(Requests::new());
    let counted = Arc::clone(&requests);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        extend(request.extensions_mut());
        let running = Running::start(&counted);
        // A client that waits to be told whether to send is told by the answer.
        let sends = !request.headers().contains_key(http::header::EXPECT);
        let request = request.map(|body| if sends { Body::new(Unread::new(body)) } else { Body::new(body) });
        let answer = router.clone().oneshot(request);
        async move { answer.await.map(|response| response.map(|body| Counted { body, _running: running })) }
    });
    let builder = builder(patience.0);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // How a connection ends is its client's business.
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => {}
        () = requests.overdue(patience, trust) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_WORDS, connection).await;
}

fn builder(patience: Patience) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.headers);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30)).max_concurrent_streams(STREAMS.0);
    if patience.life.is_some() {
        let mut http2 = builder.http2();
        http2.max_concurrent_streams(STREAMS.1);
        http2.initial_connection_window_size(STRANGERS_WINDOW).initial_stream_window_size(STRANGERS_WINDOW);
    }
    builder
}

/// The requests of a connection: how many run, and since when none does.
struct Requests {
    began: Instant,
    state: Mutex<(usize, Option<Instant>)>,
}

impl Requests {
    fn new() -> Self {
        Self { began: Instant::now(), state: Mutex::new((0, None)) }
    }

    fn state(&self) -> (usize, Option<Instant>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it is to be ended, as things stand.
    fn deadline(&self, patience: Patience) -> Option<Instant> {
        let quiet = match self.state() {
            (0, None) => Some(self.began + patience.headers),
            (0, Some(last)) => Some(last + patience.idle),
            _ => None,
        };
        let life = patience.life.map(|life| self.began + life);
        [quiet, life].into_iter().flatten().min()
    }

    /// Comes back when the connection has been quiet, or there, for too long.
    async fn overdue(&self, patience: (Patience, Patience), trust: &Trust) {
        loop {
            let patience = if trust.is_proven() { patience.1 } else { patience.0 };
            let now = Instant::now();
            match self.deadline(patience) {
                Some(deadline) if deadline <= now => return,
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                // Something runs: not before it has ended and then nothing came for that long.
                None => tokio::time::sleep(patience.idle).await,
            }
        }
    }
}

/// A request, from its head to the end of its answer.
struct Running(Arc<Requests>);

impl Running {
    fn start(requests: &Arc<Requests>) -> Self {
        requests.state.lock().unwrap_or_else(PoisonError::into_inner).0 += 1;
        Self(Arc::clone(requests))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (state.0 - 1, Some(Instant::now()));
    }
}

/// A body whose end is the end of its request.
struct Counted {
    body: Body,
    _running: Running,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
