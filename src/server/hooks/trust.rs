//! Whose certificates are taken of webhooks.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::model::webhook::authorities;
use crate::tls::{install_provider, peer::Peer};

/// What certificates are trusted of webhooks that bring no authorities along: the host's, read once.
#[derive(Debug, Default)]
pub struct Roots(OnceLock<Arc<ClientConfig>>);

impl Roots {
    /// `bundle`: the only authorities, where there are any.
    ///
    /// # Errors
    /// A bundle without a certificate.
    pub fn config(&self, bundle: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
        let Some(bundle) = bundle else {
            return Ok(Arc::clone(self.0.get_or_init(|| trusting(rustls_native_certs::load_native_certs().certs))));
        };
        let found = authorities(bundle).ok_or("unable to load root certificates: unable to parse bytes as PEM block")?;
        Ok(trusting(found))
    }
}

fn trusting(known: Vec<CertificateDer<'static>>) -> Arc<ClientConfig> {
    install_provider();
    let mut roots = RootCertStore::empty();
    // One that cannot be used vouches for nobody.
    roots.add_parsable_certificates(known.iter().cloned());
    let roots = Arc::new(roots);
    let config = match WebPkiServerVerifier::builder(Arc::clone(&roots)).build() {
        Ok(usual) => ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Trust { known, usual })),
        // There are none: nobody is trusted.
        Err(_) => ClientConfig::builder().with_root_certificates(roots),
    };
    Arc::new(config.with_no_client_auth())
}

/// The usual rules, and besides: a certificate that is one of the authorities itself. `openssl req -x509` makes such
/// (`CA:TRUE`); Go's `crypto/x509` takes them, webpki does not (`CaUsedAsEndEntity`).
#[derive(Debug)]
struct Trust {
    known: Vec<CertificateDer<'static>>,
    usual: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.usual.verify_server_cert(shown, between, name, ocsp, now) {
            // rustls has no word of its own for that error.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.known.iter().any(|it| it.as_ref() == shown.as_ref()) => {
                let peer = Peer::read(shown).map_err(|_| CertificateError::BadEncoding)?;
                let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
                if now < peer.not_before.as_second() {
                    return Err(CertificateError::NotValidYet.into());
                }
                if now > peer.not_after.as_second() {
                    return Err(CertificateError::Expired.into());
                }
                verify_server_name(&ParsedCertificate::try_from(shown)?, name).map(|()| ServerCertVerified::assertion())
            }
            answer => answer,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
