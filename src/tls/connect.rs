//! Clients over TLS: a kube client whose certificate can be renewed under it, and single requests.

use std::borrow::Cow;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::body::Body;
use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt as _;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::node::NodeCertificate;
use super::{LiveKey, TlsError};

/// For the connection and the handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// Until the head of an answer; bodies (watches) take as long as they take.
const ANSWER: Duration = Duration::from_secs(60);

/// Finds out that the other side is gone within half a minute, so that no watch waits for ever.
fn keep_alive(stream: &TcpStream) {
    use nix::sys::socket::{setsockopt, sockopt};
    probe(stream);
    // It cannot fail on a TCP socket of Linux; a connection without it still works.
    let _ = setsockopt(stream, sockopt::TcpUserTimeout, &25_000);
}

/// The same for a connection whose other side may read nothing for as long as it likes, as `kubectl exec … | less` does.
pub fn probe(stream: &TcpStream) {
    use nix::sys::socket::{setsockopt, sockopt};
    // None of these can fail on a TCP socket of Linux; a connection without them still works.
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
    let _ = setsockopt(stream, sockopt::TcpKeepIdle, &10);
    let _ = setsockopt(stream, sockopt::TcpKeepInterval, &5);
    let _ = setsockopt(stream, sockopt::TcpKeepCount, &3);
    let _ = stream.set_nodelay(true);
}

/// Trusts one CA and shows a certificate.
///
/// # Errors
/// A CA that rustls does not take.
pub fn client_config(authority: &CertificateDer<'static>, key: Arc<LiveKey>) -> Result<Arc<ClientConfig>, TlsError> {
    config_of(std::slice::from_ref(authority), key)
}

fn config_of(authorities: &[CertificateDer<'static>], key: Arc<LiveKey>) -> Result<Arc<ClientConfig>, TlsError> {
    super::install_provider();
    let mut config = ClientConfig::builder().with_root_certificates(roots(authorities)?).with_client_cert_resolver(key);
    // A session would go on with the certificate it began with.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The same for node APIs, whose certificates say which node it is; `any`: no matter what they say.
///
/// # Errors
/// A CA that rustls does not take.
pub fn node_client_config(authority: &CertificateDer<'static>, key: Arc<LiveKey>, any: bool) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::clone(&*client_config(authority, key)?);
    config.dangerous().set_certificate_verifier(NodeCertificate::new(if any {
        None
    } else {
        Some(roots(std::slice::from_ref(authority))?)
    }));
    Ok(Arc::new(config))
}

pub(super) fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|source| TlsError::Use { subject: "the CA's certificate".to_owned(), source })?;
    }
    Ok(roots)
}

/// Whether a connection failed for the other side's certificate.
pub fn is_untrusted(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

/// Host and port of `https://HOST:PORT`; `port`: where it names none.
///
/// # Errors
/// Text that is no such address. What stands before an `@` is not repeated: it may be a password.
pub fn authority_of(url: &str, port: u16) -> Result<Authority, TlsError> {
    let wrong = || TlsError::Address(url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("…@{host}")));
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let https = uri.scheme().is_none_or(|scheme| *scheme == Scheme::HTTPS);
    let is_plain = https && matches!(uri.path(), "" | "/") && uri.query().is_none();
    let authority = uri.authority().filter(|authority| is_plain && !authority.as_str().contains('@')).ok_or_else(wrong)?;
    if authority.port_u16().is_some() {
        return Ok(authority.clone());
    }
    format!("{}:{port}", authority.host()).parse().map_err(|_| wrong())
}

/// Opens a TLS connection to `address` (`HOST:PORT`) and expects a certificate for `name`. Its other side may read nothing
/// for as long as it likes.
///
/// # Errors
/// No connection, or the wrong peer.
pub async fn open(address: &str, name: &str, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, TlsError> {
    let failed = |source| TlsError::Connect { address: address.to_owned(), source };
    let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Address(name.to_owned()))?;
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        probe(&stream);
        TlsConnector::from(config).connect(name, stream).await
    };
    match tokio::time::timeout(PATIENCE, connect).await {
        Ok(stream) => stream.map_err(failed),
        Err(_) => Err(TlsError::Slow(address.to_owned())),
    }
}

/// One request on a connection of its own; the whole answer.
///
/// # Errors
/// No connection, or an answer that breaks off.
pub async fn ask(address: &str, name: &str, config: Arc<ClientConfig>, request: Request<Body>) -> Result<Response<Bytes>, TlsError> {
    let failed = |source| TlsError::Http { address: address.to_owned(), source };
    let stream = open(address, name, config).await?;
    keep_alive(stream.get_ref().0);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    };
    let answer = tokio::time::timeout(ANSWER, answer).await;
    connection.abort();
    answer.map_err(|_| TlsError::Slow(address.to_owned()))?.map_err(failed)
}

/// A server, and as whom it is asked.
#[derive(Clone)]
pub struct Way {
    address: Authority,
    /// What the server's certificate names.
    name: Arc<str>,
    config: Arc<ClientConfig>,
    key: Arc<LiveKey>,
    /// Shared by all of its clients, as the key is.
    bearer: Arc<ArcSwapOption<Bearer>>,
}

/// A token that goes with each request.
#[derive(Clone, PartialEq, Eq)]
pub enum Bearer {
    Token(String),
    /// Read for each, as others write it anew.
    File(PathBuf),
}

impl Bearer {
    fn header(&self) -> Result<HeaderValue, TlsError> {
        let text = match self {
            Self::Token(token) => Cow::Borrowed(token.as_str()),
            Self::File(path) => std::fs::read_to_string(path).map_err(TlsError::TokenFile)?.into(),
        };
        let mut header = HeaderValue::try_from(format!("Bearer {}", text.trim())).map_err(|_| TlsError::Token)?;
        header.set_sensitive(true);
        Ok(header)
    }
}

impl Way {
    /// To a server whose certificate names `name` and is of one of these CAs.
    ///
    /// # Errors
    /// A CA that rustls does not take.
    pub fn new(
        address: Authority,
        name: &str,
        authorities: &[CertificateDer<'static>],
        key: Arc<LiveKey>,
        bearer: Option<Bearer>,
    ) -> Result<Self, TlsError> {
        let config = config_of(authorities, Arc::clone(&key))?;
        Ok(Self { key, bearer: Arc::new(ArcSwapOption::from_pointee(bearer)), ..Self::over(config, address, name) })
    }

    /// To a server that this configuration judges, as nobody but for what the configuration shows.
    pub fn over(config: Arc<ClientConfig>, address: Authority, name: &str) -> Self {
        Self { address, name: name.into(), config, key: LiveKey::empty(), bearer: Arc::default() }
    }

    /// Where the server is.
    pub fn address(&self) -> &Authority {
        &self.address
    }

    /// Goes on with another token, or without one. Says whether it is another.
    pub fn carry(&self, bearer: Option<Bearer>) -> bool {
        let changed = self.bearer.load().as_deref() != bearer.as_ref();
        if changed {
            self.bearer.store(bearer.map(Arc::new));
        }
        changed
    }

    fn authorise(&self, headers: &mut http::HeaderMap) -> Result<(), TlsError> {
        if let Some(bearer) = self.bearer.load().as_deref() {
            headers.insert(header::AUTHORIZATION, bearer.header()?);
        }
        Ok(())
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// No connection, or an answer that breaks off.
    pub async fn ask(&self, request: http::request::Builder, body: Body) -> Result<Response<Bytes>, TlsError> {
        let request = request.header(header::HOST, self.address.as_str()).header(header::USER_AGENT, "podbay-agent").body(body);
        let mut request = request.map_err(|_| TlsError::Address(self.address.to_string()))?;
        self.authorise(request.headers_mut())?;
        ask(self.address.as_str(), &self.name, Arc::clone(&self.config), request).await
    }

    /// A kube client. It goes on working across renewals of the certificate.
    pub fn client(&self) -> kube::Client {
        let pools = Arc::new(Pools { held: Mutex::new((self.key.replaced(), self.pool())), way: self.clone() });
        let service = tower::service_fn(move |mut request: Request<kube::client::Body>| {
            let pools = Arc::clone(&pools);
            async move {
                let mut parts = std::mem::take(request.uri_mut()).into_parts();
                parts.scheme = Some(Scheme::HTTPS);
                parts.authority = Some(pools.way.address.clone());
                *request.uri_mut() = Uri::from_parts(parts)?;
                pools.way.authorise(request.headers_mut())?;
                let answer = tokio::time::timeout(ANSWER, pools.current().request(request)).await;
                Ok::<_, tower::BoxError>(answer.map_err(|_| "the server does not answer")??)
            }
        });
        kube::Client::new(service, "default")
    }

    fn pool(&self) -> Connections {
        let Self { address, name, config, .. } = self.clone();
        let connector = Connector { address: address.to_string(), name, config };
        Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_secs(60)).build(connector)
    }
}

type Connections = Pool<Connector, kube::client::Body>;

/// The connections of one client. A server knows who is at a connection's end by the certificate that it began with, so
/// none is used again once there is another.
struct Pools {
    way: Way,
    /// How often the certificate was replaced before these were made.
    held: Mutex<(usize, Connections)>,
}

impl Pools {
    fn current(&self) -> Connections {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = self.way.key.replaced();
        if held.0 != replaced {
            *held = (replaced, self.way.pool());
        }
        held.1.clone()
    }
}

/// Opens connections to one server, whatever the URI says.
#[derive(Clone)]
struct Connector {
    address: String,
    name: Arc<str>,
    config: Arc<ClientConfig>,
}

impl tower::Service<Uri> for Connector {
    type Response = Open;
    type Error = TlsError;
    type Future = futures::future::BoxFuture<'static, Result<Open, TlsError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let Self { address, name, config } = self.clone();
        Box::pin(async move {
            let stream = open(&address, &name, config).await?;
            // Answers are read as they come: who takes nothing is gone.
            keep_alive(stream.get_ref().0);
            Ok(Open(TokioIo::new(stream)))
        })
    }
}

/// A connection of the pool.
struct Open(TokioIo<TlsStream<TcpStream>>);

impl Connection for Open {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Open {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Open {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        let good = [("https://a", "a:7"), ("https://[::1]/", "[::1]:7"), ("a:1", "a:1"), ("https://10.0.0.1:6443", "10.0.0.1:6443")];
        for (url, expected) in good {
            assert_eq!(authority_of(url, 7).unwrap().as_str(), expected, "{url}");
        }
        for url in ["http://a", "https://a/b", "https://a/?b", "https://u:hunter2@a", "https://hunter2@a:1/", "https://hunter2:@b c"] {
            let error = authority_of(url, 7).unwrap_err().to_string();
            assert!(error.contains("is not a server's address") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_a_token_is_not_told() {
        let error = Bearer::File("hunter2".into()).header().unwrap_err().to_string();
        assert!(error.contains("the file of tokenFile") && !error.contains("hunter2"), "{error}");
    }
}
