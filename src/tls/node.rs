//! Who answers at a node's address: the node itself, by whatever name it is reached.
//!
//! A kubelet's certificate has the host names and addresses of its machine, Podbay's own agent's has `NAME.node.podbay`. What
//! both have is a subject that this cluster's CA gives to that node alone: `O=system:nodes, CN=system:node:NAME`.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::Peer;

/// The group of nodes, and what is before a node's name in the name of its user (`plugin/pkg/auth/authorizer/node`).
const NODES: &str = "system:nodes";
const USER: &str = "system:node:";

/// Takes a certificate that proves the node which was dialled as [`super::node_host`]; for any other name, one that names it.
#[derive(Debug)]
pub struct NodeCertificate {
    /// `None`: whatever the other side shows.
    roots: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl NodeCertificate {
    pub fn new(roots: Option<RootCertStore>) -> Arc<Self> {
        Arc::new(Self { roots, algorithms: ring::default_provider().signature_verification_algorithms })
    }
}

fn is_of(leaf: &CertificateDer<'_>, node: &str) -> bool {
    let peer = Peer::read(leaf);
    peer.is_ok_and(|peer| peer.organisations == [NODES] && peer.common_name.strip_prefix(USER) == Some(node))
}

impl ServerCertVerifier for NodeCertificate {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, chain, now, self.algorithms.all)?;
        match name.to_str().strip_suffix(super::NODE_DOMAIN) {
            Some(node) if is_of(leaf, node) => Ok(ServerCertVerified::assertion()),
            Some(_) => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
            None => verify_server_name(&parsed, name).map(|()| ServerCertVerified::assertion()),
        }
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
