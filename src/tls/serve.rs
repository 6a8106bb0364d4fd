//! A router over TLS, with bounds on what anybody may hold open; strangers have their own.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connection::{Patience, Trust, serve_stranger, serve_stream};
use super::places::Bound;
use super::register::{Place, Register};
use super::{
    LiveKey, Peer, Remote, TlsError,
    connect::{probe, roots},
};

/// What may be held open, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// With a certificate, by the name on it.
    pub connections: Bound,
    /// Without one, by address; all arrive here.
    pub strangers: Bound,
    pub known: Patience,
    pub stranger: Patience,
}

impl Default for Bounds {
    fn default() -> Self {
        let connections = Bound { total: 2048, each: 1024, arriving: 2048 };
        // One that arrives holds a few KiB, for ten seconds at the most.
        let strangers = Bound { total: 512, each: 64, arriving: 2048 };
        Self { connections, strangers, known: Patience::KNOWN, stranger: Patience::STRANGER }
    }
}

fn verifier(authorities: &[CertificateDer<'static>], needed: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    super::install_provider();
    let builder = WebPkiClientVerifier::builder(Arc::new(roots(authorities)?));
    let builder = if needed { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| TlsError::Use { subject: "the CA's certificate".to_owned(), source: Error::General(error.to_string()) })
}

/// Whether a client with this certificate (PEM, with what is between it and the CA) proves itself to who trusts these.
///
/// # Errors
/// A CA that rustls does not take.
pub fn is_client_of(authorities: &[CertificateDer<'static>], certificate: &str) -> Result<bool, TlsError> {
    let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(certificate.as_bytes()).filter_map(Result::ok).collect();
    let Some((leaf, between)) = chain.split_first() else { return Ok(false) };
    Ok(verifier(authorities, true)?.verify_client_cert(leaf, between, UnixTime::now()).is_ok())
}

/// The API server's side: a client certificate is optional, and verified where it is sent.
///
/// # Errors
/// A CA that rustls does not take.
pub fn server_config(authority: &CertificateDer<'static>, key: Arc<LiveKey>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config =
        ServerConfig::builder().with_client_cert_verifier(verifier(std::slice::from_ref(authority), false)?).with_cert_resolver(key);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A node API's side: only client certificates with one of these common names get in.
///
/// # Errors
/// A CA that rustls does not take.
pub fn closed_config(
    authorities: &[CertificateDer<'static>],
    key: Arc<LiveKey>,
    clients: Vec<String>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let inner = verifier(authorities, true)?;
    let mut config = ServerConfig::builder().with_client_cert_verifier(Arc::new(Only { inner, clients })).with_cert_resolver(key);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The side of a node API that asks its server who may call: a client certificate is optional, and of these CAs.
///
/// # Errors
/// A CA that rustls does not take.
pub fn asking_config(authorities: &[CertificateDer<'static>], key: Arc<LiveKey>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder().with_client_cert_verifier(verifier(authorities, false)?).with_cert_resolver(key);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Some clients of the CA's many.
#[derive(Debug)]
struct Only {
    inner: Arc<dyn ClientCertVerifier>,
    clients: Vec<String>,
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
            Ok(peer) if self.clients.contains(&peer.common_name) => Ok(verified),
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
///
/// Accepting never waits for a place: a newcomer displaces the oldest connection of whoever holds
/// too many, and whoever shows a certificate no longer counts among those without.
pub async fn serve(listener: TcpListener, config: Arc<ServerConfig>, router: Router, bounds: Bounds, shutdown: CancellationToken) {
    let acceptor = TlsAcceptor::from(config);
    let strangers = Register::new("without a certificate", bounds.strangers);
    let known = Register::new("with a certificate", bounds.connections);
    loop {
        let (stream, address) = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a connection that is gone already.
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let place = strangers.enter(party(address.ip()), CancellationToken::new());
        let displaced = place.displaced();
        let remote = Remote(address.ip().to_canonical());
        let connection = Connection { acceptor: acceptor.clone(), router: router.clone(), bounds, known: Arc::clone(&known), remote };
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = displaced.cancelled() => {}
                () = connection.run(stream, place, shutdown) => {}
            }
        });
    }
}

/// Whose connections are counted together: an address, or the network of one IPv6 host.
fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

struct Connection {
    acceptor: TlsAcceptor,
    router: Router,
    bounds: Bounds,
    known: Arc<Register<String>>,
    remote: Remote,
}

impl Connection {
    async fn run(self, stream: TcpStream, place: Place<IpAddr>, shutdown: CancellationToken) {
        let Some((stream, peer)) = handshake(&self.acceptor, stream, self.bounds.known.headers).await else { return };
        let Some(peer) = peer else {
            return self.stranger(stream, place, shutdown).await;
        };
        let own = self.known.enter(peer.common_name.clone(), place.displaced());
        own.settle();
        drop(place);
        serve_stream(stream, self.router, self.bounds.known, shutdown, move |extensions| {
            extensions.insert(peer.clone());
            extensions.insert(self.remote);
        })
        .await;
    }

    /// Nobody yet: who proves itself by a token no longer counts among those without a name.
    async fn stranger(self, stream: Tls, place: Place<IpAddr>, shutdown: CancellationToken) {
        place.settle();
        let trust = Trust::default();
        let proven = async {
            let name = trust.proven().await;
            let own = self.known.enter(name, place.displaced());
            own.settle();
            drop(place);
            std::future::pending::<()>().await;
        };
        let (patience, shown) = ((self.bounds.stranger, self.bounds.known), trust.clone());
        let serving = serve_stranger(stream, self.router, patience, &trust, shutdown, move |extensions| {
            extensions.insert(shown.clone());
            extensions.insert(self.remote);
        });
        tokio::select! {
            () = serving => {}
            () = proven => {}
        }
    }
}

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream, patience: Duration) -> Option<(Tls, Option<Peer>)> {
    probe(&stream);
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
