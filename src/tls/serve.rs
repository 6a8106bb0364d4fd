//! A router over TLS: HTTP/1.1 and HTTP/2, upgrades, and bounds on what strangers may hold open.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{LiveKey, Peer, TlsError, connect::keep_alive};

/// What strangers may hold open.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub connections: usize,
    /// For the TLS handshake, and for the headers of each request.
    pub patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 2048, patience: Duration::from_secs(10) }
    }
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(|source| TlsError::Use { subject: "the CA's certificate".to_owned(), source })?;
    Ok(Arc::new(roots))
}

fn verifier(authority: &CertificateDer<'static>, needed: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    super::install_provider();
    let builder = WebPkiClientVerifier::builder(roots(authority)?);
    let builder = if needed { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| TlsError::Use { subject: "the CA's certificate".to_owned(), source: Error::General(error.to_string()) })
}

/// The API server's side: a client certificate is optional, and verified where it is sent.
///
/// # Errors
/// A CA that rustls does not take.
pub fn server_config(authority: &CertificateDer<'static>, key: Arc<LiveKey>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder().with_client_cert_verifier(verifier(authority, false)?).with_cert_resolver(key);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A node API's side: only the client certificate with this common name gets in.
///
/// # Errors
/// A CA that rustls does not take.
pub fn closed_config(authority: &CertificateDer<'static>, key: Arc<LiveKey>, client: &'static str) -> Result<Arc<ServerConfig>, TlsError> {
    let inner = verifier(authority, true)?;
    let mut config = ServerConfig::builder().with_client_cert_verifier(Arc::new(Only { inner, client })).with_cert_resolver(key);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// One client of the CA's many.
#[derive(Debug)]
struct Only {
    inner: Arc<dyn ClientCertVerifier>,
    client: &'static str,
}

impl ClientCertVerifier for Only {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(leaf, chain, now)?;
        match Peer::read(leaf) {
            Ok(peer) if peer.common_name == self.client => Ok(verified),
            _ => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Serves until `shutdown`, then lets requests finish for a moment.
pub async fn serve(listener: TcpListener, config: Arc<ServerConfig>, router: Router, bounds: Bounds, shutdown: CancellationToken) {
    let acceptor = TlsAcceptor::from(config);
    let places = Arc::new(Semaphore::new(bounds.connections));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, or a connection that is gone already.
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (acceptor, router, shutdown) = (acceptor.clone(), router.clone(), shutdown.clone());
        tokio::spawn(async move {
            if let Some((stream, peer)) = handshake(&acceptor, stream, bounds.patience).await {
                serve_stream(stream, router, bounds.patience, shutdown, move |extensions| {
                    if let Some(peer) = &peer {
                        extensions.insert(peer.clone());
                    }
                })
                .await;
            }
            drop(place);
        });
    }
}

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream, patience: Duration) -> Option<(Tls, Option<Peer>)> {
    keep_alive(&stream);
    let stream = match tokio::time::timeout(patience, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake");
            return None;
        }
        Err(_) => return None,
    };
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = leaf.map(|leaf| Peer::read(leaf));
    match peer {
        Some(Ok(peer)) => Some((stream, Some(peer))),
        Some(Err(error)) => {
            tracing::debug!(%error, "client certificate");
            None
        }
        None => Some((stream, None)),
    }
}

/// How long requests may go on after `shutdown`.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves one connection of any kind. `extend` says who is at its other end.
pub async fn serve_stream<S>(
    stream: S,
    router: Router,
    patience: Duration,
    shutdown: CancellationToken,
    extend: impl Fn(&mut http::Extensions) + Send + Sync + 'static,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let extend = Arc::new(extend);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        extend(request.extensions_mut());
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30)).max_concurrent_streams(256);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // How a connection ends is its client's business.
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(LAST_WORDS, connection).await;
}
