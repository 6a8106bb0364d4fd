//! A certificate and its key behind a pointer: renewed while connections go on using it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, crypto::ring::sign::any_supported_type};

use super::TlsError;
use super::authority::Pair;

/// Serves as a server's or a client's certificate; new handshakes use the newest.
#[derive(Debug)]
pub struct LiveKey(ArcSwap<CertifiedKey>);

impl LiveKey {
    /// `authority`: the CA's PEM, sent along so that a peer that knows only its fingerprint finds it.
    ///
    /// # Errors
    /// Text that is not PEM of its kind.
    pub fn new(pair: &Pair, authority: &str) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified(pair, authority)?))))
    }

    /// # Errors
    /// Text that is not PEM of its kind; the old key stays then.
    pub fn replace(&self, pair: &Pair, authority: &str) -> Result<(), TlsError> {
        self.0.store(Arc::new(certified(pair, authority)?));
        Ok(())
    }
}

fn certified(pair: &Pair, authority: &str) -> Result<CertifiedKey, TlsError> {
    let wrong =
        |cause: rustls::pki_types::pem::Error| TlsError::NotACertificate { subject: "the PEM text".into(), cause: cause.to_string() };
    let chain = format!("{}\n{authority}", pair.certificate);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(wrong)?;
    let key = any_supported_type(&key).map_err(|source| TlsError::Use { subject: "a private key".to_owned(), source })?;
    Ok(CertifiedKey::new(chain, key))
}

impl ResolvesServerCert for LiveKey {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ResolvesClientCert for LiveKey {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
    fn has_certs(&self) -> bool {
        true
    }
}
