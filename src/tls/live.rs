//! A certificate and its key behind a pointer: renewed while connections go on using it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureScheme, crypto::ring::sign::any_supported_type};

use super::TlsError;
use super::authority::Pair;

/// Serves as a server's or a client's certificate; new handshakes use the newest.
#[derive(Debug)]
pub struct LiveKey {
    key: ArcSwapOption<CertifiedKey>,
    replaced: AtomicUsize,
}

impl LiveKey {
    /// `authority`: the CA's PEM, sent along so that a peer that knows only its fingerprint finds it.
    ///
    /// # Errors
    /// Text that is not PEM of its kind, or a key that is not the certificate's.
    pub fn new(pair: &Pair, authority: &str) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self { key: ArcSwapOption::from_pointee(certified(pair, authority)?), replaced: AtomicUsize::new(0) }))
    }

    /// Nothing yet: a server's handshakes fail, and a client shows no certificate.
    pub fn empty() -> Arc<Self> {
        Arc::new(Self { key: ArcSwapOption::empty(), replaced: AtomicUsize::new(0) })
    }

    /// # Errors
    /// As [`Self::new`]; the old key stays then.
    pub fn replace(&self, pair: &Pair, authority: &str) -> Result<(), TlsError> {
        self.key.store(Some(Arc::new(certified(pair, authority)?)));
        self.replaced.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// There is none any more.
    pub fn clear(&self) {
        self.key.store(None);
        self.replaced.fetch_add(1, Ordering::Release);
    }

    /// How often it was replaced: connections from before have another certificate.
    pub fn replaced(&self) -> usize {
        self.replaced.load(Ordering::Acquire)
    }
}

fn certified(pair: &Pair, authority: &str) -> Result<CertifiedKey, TlsError> {
    let wrong =
        |cause: rustls::pki_types::pem::Error| TlsError::NotACertificate { subject: "the PEM text".into(), cause: cause.to_string() };
    let chain = format!("{}\n{authority}", pair.certificate);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    // That error quotes a line of what it read.
    let no_key = |_| TlsError::NotACertificate { subject: "the PEM text".into(), cause: "it holds no whole private key".into() };
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(no_key)?;
    let key = any_supported_type(&key).map_err(|source| TlsError::Use { subject: "a private key".to_owned(), source })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Unknown: it is a kind of key whose public half rustls cannot read, so there is nothing to compare.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(source) => Err(TlsError::Use { subject: "a certificate with its key".to_owned(), source }),
    }
}

impl ResolvesServerCert for LiveKey {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }
}

impl ResolvesClientCert for LiveKey {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }
    fn has_certs(&self) -> bool {
        self.key.load().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_goes_with_its_own_key() {
        let made = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (one, other) = (made("one"), made("other"));
        let pair = |key: &rcgen::KeyPair| Pair { certificate: one.cert.pem(), key: key.serialize_pem() };
        let live = LiveKey::empty();
        assert!(!live.has_certs());
        assert!(live.replace(&pair(&other.signing_key), "").is_err());
        let broken = Pair { certificate: one.cert.pem(), key: "-----BEGIN PRIVATE KEY hunter2".to_owned() };
        let error = live.replace(&broken, "").unwrap_err().to_string();
        assert!(error.ends_with("it holds no whole private key"), "{error}");
        assert_eq!((live.has_certs(), live.replaced()), (false, 0));
        live.replace(&pair(&one.signing_key), "").unwrap();
        assert_eq!((live.has_certs(), live.replaced()), (true, 1));
    }
}
