//! Trusting a CA by its fingerprint alone: what an agent has before it has joined.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::authority::fingerprint;
use super::peer::Peer;

/// Accepts a server whose chain has the CA with this fingerprint. The certificate's dates are not
/// looked at here: this host's clock may be wrong, and the caller says so in words ([`Pinned::seen`]).
#[derive(Debug)]
pub struct Pinned {
    fingerprint: String,
    algorithms: WebPkiSupportedAlgorithms,
    seen: Mutex<Option<(Peer, Vec<u8>)>>,
}

impl Pinned {
    pub fn new(fingerprint: &str) -> Arc<Self> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Arc::new(Self { fingerprint: fingerprint.to_ascii_lowercase(), algorithms, seen: Mutex::new(None) })
    }

    /// The server's certificate and the CA's DER form, after a handshake.
    pub fn seen(&self) -> Option<(Peer, Vec<u8>)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = chain.iter().find(|certificate| fingerprint(certificate) == self.fingerprint);
        let authority = authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let peer = Peer::read(leaf).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let valid = u64::try_from(peer.not_before.as_second()).unwrap_or(0) + 1;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(valid));
        let verified = verifier.verify_server_cert(leaf, &[], name, ocsp, at)?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((peer, authority.to_vec()));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
