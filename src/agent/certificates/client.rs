//! Whom the server takes the node for: what its kubeconfig says, which is made with another one and renewed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::plan::{LOOK, Owner, Wanted, owner};
use super::request::{Asked, obtain};
use super::{CertificateError, rest};
use crate::clock::Clock;
use crate::model::Timestamp;
use crate::tls::authority::Pair;
use crate::tls::connect::{Bearer, Way};
use crate::tls::kubeconfig::{self, Server, User};
use crate::tls::{LiveKey, Peer, files};

/// Where it is kept.
#[derive(Clone, Debug)]
pub struct Places {
    /// The node's kubeconfig.
    pub file: PathBuf,
    /// The one with which it is made.
    pub bootstrap: Option<PathBuf>,
    /// The directory of the node's private files.
    pub directory: PathBuf,
    pub node: String,
}

impl Places {
    fn key(&self) -> PathBuf {
        self.directory.join("kube-client.key")
    }

    fn wanted(&self) -> Wanted {
        Wanted::client(&self.node)
    }

    fn expired(&self, at: Timestamp) -> String {
        format!("the certificate in {} expired at {at}", self.file.display())
    }

    /// Keeps what was got; the next one is for another key.
    fn keep(&self, server: &Server, pair: &Pair) -> Result<(), CertificateError> {
        server.write(&self.file, &self.wanted().user(), pair)?;
        Ok(files::remove(&self.key())?)
    }
}

/// A node that a server knows.
pub struct KubeIdentity {
    places: Places,
    server: Server,
    way: Way,
    key: Arc<LiveKey>,
    /// `None`: it has a token.
    shown: Mutex<Option<Shown>>,
}

#[derive(Clone)]
struct Shown {
    certificate: String,
    peer: Peer,
}

/// What the kubeconfig of a node is.
enum Stored {
    Good(Box<KubeIdentity>),
    Missing,
    Expired(Timestamp),
}

/// The node's kubeconfig, if it is good, else one that is asked for; `None`: the end came before.
///
/// # Errors
/// See [`CertificateError`]: each says what to do.
pub async fn open(places: Places, clock: &dyn Clock, end: &CancellationToken) -> Result<Option<KubeIdentity>, CertificateError> {
    let lacking = match stored(&places, clock.now())? {
        Stored::Good(identity) => return Ok(Some(*identity)),
        Stored::Missing => format!("{} is not there", places.file.display()),
        Stored::Expired(at) => places.expired(at),
    };
    let Some((server, pair)) = asked_for(&places, clock, end, lacking).await? else { return Ok(None) };
    KubeIdentity::new(places, server, User::Certificate(pair)).map(Some)
}

/// The same for an agent that nobody watches: where it is the server that refuses, it is asked again, ever more seldom, and both
/// files are read again for that.
///
/// # Errors
/// What is to be mended on this host.
pub async fn open_in_time(places: &Places, clock: &dyn Clock, end: &CancellationToken) -> Result<Option<KubeIdentity>, CertificateError> {
    let mut failed = 0;
    while !end.is_cancelled() {
        match open(places.clone(), clock, end).await {
            Err(error) if error.is_the_servers() => rest(&places.wanted().what(), Err(error), &mut failed, end).await,
            opened => return opened,
        }
    }
    Ok(None)
}

fn stored(places: &Places, now: Timestamp) -> Result<Stored, CertificateError> {
    if files::read(&places.file)?.is_none() {
        return Ok(Stored::Missing);
    }
    let (server, user) = kubeconfig::access(&places.file)?;
    let identity = KubeIdentity::new(places.clone(), server, user)?;
    let Some(shown) = identity.shown() else { return Ok(Stored::Good(Box::new(identity))) };
    let name = shown.peer.common_name.as_str();
    match owner(name, &places.node) {
        Owner::Another(other) => {
            let (file, node) = (places.file.clone(), places.node.clone());
            return Err(CertificateError::OfAnother { file, other: other.to_owned(), node });
        }
        Owner::Somebody => tracing::warn!(user = name, file = %places.file.display(), "no node's certificate: the agent does not renew it"),
        Owner::Node => {}
    }
    let until = shown.peer.not_after;
    Ok(if until > now { Stored::Good(Box::new(identity)) } else { Stored::Expired(until) })
}

/// A new certificate by the bootstrap kubeconfig, kept; without one `lacking` is the error.
async fn asked_for(
    places: &Places,
    clock: &dyn Clock,
    end: &CancellationToken,
    lacking: String,
) -> Result<Option<(Server, Pair)>, CertificateError> {
    let Some(file) = places.bootstrap.as_deref() else { return Err(CertificateError::NoBootstrap { lacking }) };
    let (server, user) = kubeconfig::access(file).map_err(|source| CertificateError::Bootstrap { lacking, source })?;
    let (way, ..) = way_of(&server, user).map_err(|source| CertificateError::Use { file: file.to_owned(), source })?;
    let asked = Asked { way: &way, file, key: places.key(), clock };
    let Some(pair) = obtain(&asked, &places.wanted(), end).await? else { return Ok(None) };
    places.keep(&server, &pair)?;
    tracing::info!(file = %places.file.display(), "the server knows this node: its kubeconfig is written");
    Ok(Some((server, pair)))
}

/// The way to a server as this user, and what may be replaced under it.
fn way_of(server: &Server, user: User) -> Result<(Way, Arc<LiveKey>, Option<Shown>), crate::tls::TlsError> {
    let (key, bearer, shown) = match user {
        User::Certificate(pair) => {
            let peer = Peer::read_pem(&pair.certificate)?;
            (LiveKey::new(&pair, "")?, None, Some(Shown { certificate: pair.certificate, peer }))
        }
        User::Bearer(bearer) => (LiveKey::empty(), Some(bearer), None),
    };
    Ok((server.way(Arc::clone(&key), bearer)?, key, shown))
}

impl KubeIdentity {
    fn new(places: Places, server: Server, user: User) -> Result<Self, CertificateError> {
        let made = way_of(&server, user);
        let (way, key, shown) = made.map_err(|source| CertificateError::Use { file: places.file.clone(), source })?;
        Ok(Self { places, server, way, key, shown: Mutex::new(shown) })
    }

    fn shown(&self) -> Option<Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The way to the server as this node.
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// The certificate that is shown to the server, PEM.
    pub fn certificate(&self) -> Option<String> {
        self.shown().map(|shown| shown.certificate)
    }

    /// The CAs of the server.
    ///
    /// # Errors
    /// A text that is no certificate.
    pub fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
        Ok(self.server.authorities()?)
    }

    /// Goes on as whom the kubeconfig says by now, in it or in the files that it names: somebody else may write it anew. Work goes on;
    /// what is asked from then on is asked with it.
    ///
    /// # Errors
    /// A file that cannot be read or is of another node; the current certificate stays in use then.
    fn take_up(&self, now: Timestamp) -> Result<(), CertificateError> {
        let places = &self.places;
        // Gone for a moment, it is being written.
        if files::read(&places.file)?.is_none() {
            return Ok(());
        }
        let (server, user) = kubeconfig::access(&places.file)?;
        let taken = match user {
            User::Bearer(bearer) => self.take_token(bearer),
            User::Certificate(pair) => self.take_certificate(&pair, now)?,
        };
        if taken {
            tracing::info!(file = %places.file.display(), "the kubeconfig says another certificate or token, used from now on");
            if server != self.server {
                tracing::warn!(now = self.server.url, next = server.url, "it has another server or CA, too, used from the next start on");
            }
        }
        Ok(())
    }

    fn take_token(&self, bearer: Bearer) -> bool {
        let taken = self.way.carry(Some(bearer));
        if self.shown.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            self.key.clear();
        }
        taken
    }

    fn take_certificate(&self, pair: &Pair, now: Timestamp) -> Result<bool, CertificateError> {
        let places = &self.places;
        if self.shown().is_some_and(|shown| shown.certificate == pair.certificate) {
            return Ok(false);
        }
        let used = |source| CertificateError::Use { file: places.file.clone(), source };
        let peer = Peer::read_pem(&pair.certificate).map_err(used)?;
        if let Owner::Another(other) = owner(&peer.common_name, &places.node) {
            return Err(CertificateError::OfAnother { file: places.file.clone(), other: other.to_owned(), node: places.node.clone() });
        }
        if peer.not_after <= now {
            return Ok(false);
        }
        // Where its key is not there yet, that fails: the next look finds both.
        self.key.replace(pair, "").map_err(used)?;
        self.way.carry(None);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(Shown { certificate: pair.certificate.clone(), peer });
        Ok(true)
    }

    /// Takes up what the kubeconfig says by now, renews the certificate if it is time for that, and says in how many seconds it
    /// looks again. One that has expired is asked for as the first one was.
    ///
    /// # Errors
    /// A server that refuses; the current certificate stays in use then.
    pub async fn renew_if_due(&self, clock: &dyn Clock, end: &CancellationToken) -> Result<i64, CertificateError> {
        if let Err(error) = self.take_up(clock.now()) {
            tracing::warn!(%error, "the kubeconfig is used as it was read before");
        }
        let shown = self.shown().filter(|shown| owner(&shown.peer.common_name, &self.places.node) == Owner::Node);
        let Some(peer) = shown.map(|shown| shown.peer) else { return Ok(i64::MAX) };
        let left = peer.seconds_left(clock.now());
        if left > 0 {
            return Ok(left);
        }
        let Some(pair) = self.another(peer.not_after, clock, end).await? else { return Ok(i64::MAX) };
        self.key.replace(&pair, "")?;
        let peer = Peer::read_pem(&pair.certificate)?;
        let left = peer.seconds_left(clock.now());
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(Shown { certificate: pair.certificate, peer });
        tracing::info!(node = self.places.node, "certificate renewed");
        Ok(left)
    }

    /// Another certificate, kept: asked for with the present one for as long as that is good, and then as the first one was.
    async fn another(&self, until: Timestamp, clock: &dyn Clock, end: &CancellationToken) -> Result<Option<Pair>, CertificateError> {
        let places = &self.places;
        let asked = Asked { way: &self.way, file: &places.file, key: places.key(), clock };
        loop {
            let left = u64::try_from(until.as_second() - clock.now().as_second()).unwrap_or(0);
            if left == 0 {
                break;
            }
            // A server may take no connection with an expired certificate, and would be waited for without an end. The clock is
            // looked at now and then, as a host that sleeps stops the timer only.
            let some = Duration::from_secs(left).min(LOOK);
            if let Ok(got) = tokio::time::timeout(some, obtain(&asked, &places.wanted(), end)).await {
                return got?.map(|pair| places.keep(&self.server, &pair).map(|()| pair)).transpose();
            }
        }
        let Some((server, pair)) = asked_for(places, clock, end, places.expired(until)).await? else { return Ok(None) };
        if server != self.server {
            tracing::warn!(
                now = self.server.url,
                next = server.url,
                "the bootstrap kubeconfig has another server or CA, used from the next start on"
            );
        }
        Ok(Some(pair))
    }

    /// Renews for as long as the agent runs.
    pub async fn keep_fresh(self: Arc<Self>, clock: Arc<dyn Clock>, end: CancellationToken) {
        let what = self.places.wanted().what();
        let mut failed = 0;
        while !end.is_cancelled() {
            let looked = self.renew_if_due(clock.as_ref(), &end).await;
            rest(&what, looked, &mut failed, &end).await;
        }
    }
}
