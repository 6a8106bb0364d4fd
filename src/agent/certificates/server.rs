//! What the node API shows: a certificate that the cluster gives to servers of its nodes once somebody has approved it.
//!
//! It is kept in one private file, whose first line says for which cluster, node and addresses it was given: for any other
//! it is of no use, and another one is asked for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::plan::Wanted;
use super::request::{Asked, obtain};
use super::{CertificateError, rest};
use crate::clock::Clock;
use crate::model::Timestamp;
use crate::tls::authority::{Pair, fingerprint};
use crate::tls::connect::Way;
use crate::tls::{LiveKey, Peer, files};

/// The certificate of a node API, or what is done to get it.
pub struct Serving {
    directory: PathBuf,
    wanted: Wanted,
    /// A comment to readers of PEM.
    mark: String,
    key: Arc<LiveKey>,
    /// What is shown until when; `None`: nothing.
    peer: Mutex<Option<Peer>>,
}

impl Serving {
    /// That of a node by these names, given by the cluster of these CAs; at first the one in `directory`, if it is such a one
    /// and good.
    pub fn open(directory: &Path, wanted: Wanted, authorities: &[CertificateDer<'static>], now: Timestamp) -> Self {
        let cluster: Vec<String> = authorities.iter().map(|authority| fingerprint(authority)).collect();
        let mark = format!("# node {} as {} by {}\n", wanted.node, wanted.names.join(" "), cluster.join(" "));
        let serving = Self { directory: directory.to_owned(), wanted, mark, key: LiveKey::empty(), peer: Mutex::new(None) };
        // Pods run without it, so a file that cannot be read keeps nothing from starting: another is asked for.
        let kept = files::read(&serving.file()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the node API's certificate is asked for anew");
            None
        });
        if let Some(text) = kept.filter(|text| text.starts_with(&serving.mark))
            && Peer::read_pem(&text).is_ok_and(|peer| peer.not_after > now)
        {
            // One that is broken is as good as none.
            let _ = serving.show(&Pair { certificate: text.clone(), key: text });
        }
        serving
    }

    fn file(&self) -> PathBuf {
        self.directory.join("kube-server.pem")
    }

    fn show(&self, pair: &Pair) -> Result<(), CertificateError> {
        let peer = Peer::read_pem(&pair.certificate)?;
        self.key.replace(pair, "")?;
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
        Ok(())
    }

    /// What the node API serves with: nothing until there is a certificate.
    pub fn key(&self) -> Arc<LiveKey> {
        Arc::clone(&self.key)
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Asks for one if there is none, or it is time for another, and says in how many seconds it looks again.
    /// `file`: the kubeconfig of that way, for errors.
    ///
    /// # Errors
    /// A request that is refused; the current certificate stays in use then.
    pub async fn ask_if_due(&self, way: &Way, file: &Path, clock: &dyn Clock, end: &CancellationToken) -> Result<i64, CertificateError> {
        let left = |now| self.peer.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, |peer| peer.seconds_left(now));
        let now = clock.now();
        if left(now) > 0 {
            return Ok(left(now));
        }
        let key = self.directory.join("kube-server.key");
        let asked = Asked { way, file, key: key.clone(), clock };
        let Some(pair) = obtain(&asked, &self.wanted, end).await? else { return Ok(i64::MAX) };
        files::write_private(&self.file(), format!("{}{}\n{}", self.mark, pair.certificate, pair.key).as_bytes())?;
        files::remove(&key)?;
        self.show(&pair)?;
        tracing::info!(node = self.wanted.node, names = self.wanted.names.join(" "), "the node API has a certificate");
        Ok(left(clock.now()))
    }

    /// Keeps one for as long as the agent runs.
    pub async fn keep_fresh(self: Arc<Self>, way: Way, file: PathBuf, clock: Arc<dyn Clock>, end: CancellationToken) {
        let (what, mut failed) = (self.wanted.what(), 0);
        while !end.is_cancelled() {
            let looked = self.ask_if_due(&way, &file, clock.as_ref(), &end).await;
            rest(&what, looked, &mut failed, &end).await;
        }
    }
}
