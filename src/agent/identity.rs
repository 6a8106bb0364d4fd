//! The node's own certificate: joining with a token, keeping it, renewing it in time.
//!
//! Everything the node is stands in one private file, written whole or not at all. The key is on
//! disk before the server is asked, so that a join that breaks off anywhere can be made again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::model::Timestamp;
use crate::tls::authority::Pair;
use crate::tls::connect::{self, Way};
use crate::tls::pin::Pinned;
use crate::tls::{LiveKey, Peer, SERVER_CLIENT, SERVER_NAME, TlsError, files, serve};

/// Clocks further apart than this make certificates and leases meaningless.
pub const MAX_SKEW: i64 = 60;
/// Where a server listens that is named without a port.
const PORT: u16 = 6443;
/// Between looks whether the certificate is due.
const LOOK: Duration = Duration::from_secs(600);

/// Why this node has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the token is not of the form ID.SECRET.FINGERPRINT: make one with `podbay token create`")]
    Token,
    #[error(
        "this host's clock is too far off: it is {local} here and {server} on the server {url} ({} s apart): set the clock and join again",
        (local.as_second() - server.as_second()).abs()
    )]
    Clock { local: Timestamp, server: Timestamp, url: String },
    #[error("the certificate of {url} is valid from {from} to {to} only")]
    ServerCertificate { url: String, from: Timestamp, to: Timestamp },
    #[error("{url} is not the server that the token was made on: no certificate there comes from the CA with fingerprint {fingerprint}")]
    WrongServer { url: String, fingerprint: String },
    #[error("join {url} as {node}: {message}")]
    Refused { url: String, node: String, message: String },
    #[error("renew the certificate of {node}: {message}")]
    NotRenewed { node: String, message: String },
    #[error("{0} holds no node's identity: remove it and join again")]
    Content(PathBuf),
    #[error("make a key: {0}")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What a node joins with.
#[derive(Clone, Debug)]
pub struct Join {
    /// `https://HOST:PORT`
    pub server: String,
    pub token: String,
    pub node: String,
    /// The directory of the node's private files.
    pub directory: PathBuf,
    /// Take the place of a silent node of the same name.
    pub rejoin: bool,
}

/// What is kept on disk.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    version: u32,
    server: String,
    node: String,
    authority: String,
    certificate: String,
    key: String,
}

/// A node that has joined.
pub struct NodeIdentity {
    path: PathBuf,
    stored: Mutex<Stored>,
    way: Way,
    live: Arc<LiveKey>,
    authority: CertificateDer<'static>,
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeIdentity({})", self.node())
    }
}

fn file(directory: &Path) -> PathBuf {
    directory.join("node.json")
}

/// The identity on disk, where it is this node's and has not expired. It is the server's CA that it knows: a `server`
/// at another address than before is believed by its certificate, as the one before was.
///
/// # Errors
/// See [`IdentityError`]: each says what to do.
pub fn stored(directory: &Path, node: &str, server: &str, clock: &dyn Clock) -> Result<Option<NodeIdentity>, IdentityError> {
    match NodeIdentity::load(directory)? {
        Some(identity) if identity.node() == node && identity.expires()? > clock.now() => identity.at(server).map(Some),
        _ => Ok(None),
    }
}

/// Why there is no identity to go on with, for who has no token.
///
/// # Errors
/// A file that cannot be read or is no identity.
pub fn lacking(directory: &Path, node: &str, clock: &dyn Clock) -> Result<String, IdentityError> {
    let Some(identity) = NodeIdentity::load(directory)? else { return Ok("this host has not joined yet".to_owned()) };
    let (name, expires) = (identity.node(), identity.expires()?);
    if name != node {
        return Ok(format!("this host has joined as {name}, not as {node}"));
    }
    if expires <= clock.now() {
        return Ok(format!("the certificate of {node} expired at {expires}: it has to join again (--rejoin)"));
    }
    Ok(format!("{node} is to join again"))
}

/// Joins: proves the server by the token's fingerprint and this node by the token's secret, and
/// keeps what it gets.
///
/// # Errors
/// See [`IdentityError`]: each says what to do.
pub async fn join(join: &Join, clock: &dyn Clock) -> Result<NodeIdentity, IdentityError> {
    let mut parts = join.token.trim().split('.');
    let (Some(id), Some(secret), Some(fingerprint), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(IdentityError::Token);
    };
    let address = connect::authority_of(&join.server, PORT)?;
    let key = pending_key(&join.directory.join("node.key"))?;
    let pinned = Pinned::new(fingerprint);
    crate::tls::install_provider();
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::clone(&pinned) as _).with_no_client_auth();
    let way = Way::over(Arc::new(config), address, SERVER_NAME);
    // First the clocks: nothing secret is sent to a server whose certificate cannot be judged.
    let greeting = way.ask(Request::get("/healthz"), Body::empty()).await.map_err(|error| match error {
        TlsError::Connect { ref source, .. } if connect::is_untrusted(source) => {
            IdentityError::WrongServer { url: join.server.clone(), fingerprint: fingerprint.to_owned() }
        }
        error => error.into(),
    })?;
    check_clock(&greeting, &join.server, clock.now())?;
    let wrong = || IdentityError::WrongServer { url: join.server.clone(), fingerprint: fingerprint.to_owned() };
    let (peer, authority) = pinned.seen().ok_or_else(wrong)?;
    let now = clock.now();
    if now < peer.not_before || now > peer.not_after {
        return Err(IdentityError::ServerCertificate { url: join.server.clone(), from: peer.not_before, to: peer.not_after });
    }
    let body = json!({"token": format!("{id}.{secret}"), "node": join.node, "csr": request_for(&key)?, "rejoin": join.rejoin});
    let request = Request::post("/podbay/v1/join").header(header::CONTENT_TYPE, "application/json");
    let answer = way.ask(request, Body::from(body.to_string())).await?;
    let refused = |message| IdentityError::Refused { url: join.server.clone(), node: join.node.clone(), message };
    let certificate = certificate_of(&answer).map_err(refused)?;
    let stored = Stored {
        version: 1,
        server: join.server.clone(),
        node: join.node.clone(),
        authority: pem(&authority),
        certificate,
        key: key.serialize_pem(),
    };
    // Kept once it is seen to be of use: what is on disk counts at the next start.
    let identity = NodeIdentity::of(file(&join.directory), stored)?;
    save(&identity.path, &identity.stored())?;
    Ok(identity)
}

/// The key of a request that broke off, or a new one that is on disk.
pub(super) fn pending_key(path: &Path) -> Result<KeyPair, IdentityError> {
    if let Some(text) = files::read(path)?
        && let Ok(key) = KeyPair::from_pem(&text)
    {
        return Ok(key);
    }
    let key = KeyPair::generate()?;
    files::write_private(path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

/// A signing request. It says nothing but the key: the server decides what the certificate says.
fn request_for(key: &KeyPair) -> Result<String, IdentityError> {
    Ok(CertificateParams::default().serialize_request(key)?.pem()?)
}

/// Compares the server's `Date` with this host's clock.
fn check_clock(answer: &Response<Bytes>, url: &str, local: Timestamp) -> Result<(), IdentityError> {
    let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok()).and_then(http_date);
    match date {
        Some(server) if (local.as_second() - server.as_second()).abs() > MAX_SKEW => {
            Err(IdentityError::Clock { local: Timestamp::from_second(local.as_second()).unwrap_or(local), server, url: url.to_owned() })
        }
        _ => Ok(()),
    }
}

/// `Wed, 25 Nov 2026 17:29:13 GMT`
fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp())
}

/// The certificate of an answer, or what the server says instead.
fn certificate_of(answer: &Response<Bytes>) -> Result<String, String> {
    let value: Value = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
    if answer.status() != StatusCode::OK {
        let said = value["message"].as_str().map_or_else(|| answer.status().to_string(), str::to_owned);
        return Err(said);
    }
    value["certificate"].as_str().map(str::to_owned).ok_or_else(|| "the answer holds no certificate".to_owned())
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn save(path: &Path, stored: &Stored) -> Result<(), IdentityError> {
    let text = serde_json::to_string_pretty(stored).map_err(|_| IdentityError::Content(path.to_owned()))?;
    Ok(files::write_private(path, text.as_bytes())?)
}

impl NodeIdentity {
    /// What a directory holds; `None` where this host never joined.
    ///
    /// # Errors
    /// A file that cannot be read or is no identity.
    pub fn load(directory: &Path) -> Result<Option<Self>, IdentityError> {
        let path = file(directory);
        let Some(text) = files::read(&path)? else { return Ok(None) };
        let stored: Stored = serde_json::from_str(&text).map_err(|_| IdentityError::Content(path.clone()))?;
        if stored.version != 1 {
            return Err(IdentityError::Content(path));
        }
        Self::of(path, stored).map(Some)
    }

    fn of(path: PathBuf, stored: Stored) -> Result<Self, IdentityError> {
        let address = connect::authority_of(&stored.server, PORT)?;
        let authority = CertificateDer::from_pem_slice(stored.authority.as_bytes()).map_err(|_| IdentityError::Content(path.clone()))?;
        let live = LiveKey::new(&pair(&stored), &stored.authority)?;
        let way = Way::new(address, SERVER_NAME, std::slice::from_ref(&authority), Arc::clone(&live), None)?;
        Ok(Self { path, stored: Mutex::new(stored), way, live, authority })
    }

    /// The same, of a server at this address.
    fn at(self, server: &str) -> Result<Self, IdentityError> {
        let mut stored = self.stored();
        if stored.server == server {
            return Ok(self);
        }
        tracing::info!(before = stored.server, now = server, "the server has another address");
        server.clone_into(&mut stored.server);
        let moved = Self::of(self.path, stored)?;
        save(&moved.path, &moved.stored())?;
        Ok(moved)
    }

    fn stored(&self) -> Stored {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn node(&self) -> String {
        self.stored().node
    }

    pub fn server(&self) -> String {
        self.stored().server
    }

    /// When the certificate ends.
    ///
    /// # Errors
    /// A certificate that cannot be read.
    pub fn expires(&self) -> Result<Timestamp, IdentityError> {
        Ok(Peer::read_pem(&self.stored().certificate)?.not_after)
    }

    /// A client that acts as this node. It goes on working across renewals.
    pub fn client(&self) -> kube::Client {
        self.way.client()
    }

    /// For serving the node API: only the server's client certificate gets in.
    ///
    /// # Errors
    /// A CA that rustls does not take.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, IdentityError> {
        Ok(serve::closed_config(std::slice::from_ref(&self.authority), Arc::clone(&self.live), vec![SERVER_CLIENT.to_owned()])?)
    }

    /// Gets a new certificate for a new key, with the current one.
    ///
    /// # Errors
    /// A server that does not answer or refuses; the current certificate stays in use then.
    pub async fn renew(&self) -> Result<(), IdentityError> {
        let mut stored = self.stored();
        let key = KeyPair::generate()?;
        let body = json!({"csr": request_for(&key)?}).to_string();
        let request = Request::post("/podbay/v1/renew").header(header::CONTENT_TYPE, "application/json");
        let answer = self.way.ask(request, Body::from(body)).await?;
        stored.certificate = certificate_of(&answer).map_err(|message| IdentityError::NotRenewed { node: stored.node.clone(), message })?;
        stored.key = key.serialize_pem();
        // Before it is kept: what is on disk counts at the next start.
        LiveKey::new(&pair(&stored), &stored.authority)?;
        save(&self.path, &stored)?;
        self.live.replace(&pair(&stored), &stored.authority)?;
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = stored;
        Ok(())
    }

    /// Renews if it is time for that ([`Peer::is_due`]). Says whether it did.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub async fn renew_if_due(&self, now: Timestamp) -> Result<bool, IdentityError> {
        if !Peer::read_pem(&self.stored().certificate)?.is_due(now) {
            return Ok(false);
        }
        self.renew().await.map(|()| true)
    }

    /// Renews for as long as the agent runs.
    pub async fn keep_fresh(self: Arc<Self>, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
        loop {
            match self.renew_if_due(clock.now()).await {
                Ok(true) => tracing::info!(node = %self.node(), "certificate renewed"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "certificate not renewed"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

fn pair(stored: &Stored) -> Pair {
    Pair { certificate: stored.certificate.clone(), key: stored.key.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http_are_read() {
        let time = http_date("Wed, 25 Nov 2026 17:29:13 GMT").unwrap();
        assert_eq!(time.to_string(), "2026-11-25T17:29:13Z");
        assert_eq!(http_date("yesterday"), None);
    }
}
