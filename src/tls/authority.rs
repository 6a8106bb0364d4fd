//! The cluster's certificate authority: made once, kept in one private file, signs everything else.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};

use super::{TlsError, files};
use crate::model::Timestamp;

/// The CA itself.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates begin a little in the past: clocks differ.
const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// What a certificate is to say.
#[derive(Clone, Debug)]
pub struct Order {
    pub common_name: String,
    pub organisation: Option<String>,
    /// DNS names and addresses it is valid for as a server.
    pub names: Vec<String>,
    pub life: Duration,
}

/// A signed certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    pub pem: String,
    /// Hexadecimal.
    pub serial: String,
    pub not_after: Timestamp,
}

/// A certificate and its private key, both as PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

pub struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    fingerprint: String,
}

/// SHA-256 of a certificate's DER form, hexadecimal.
pub fn fingerprint(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

fn made(subject: &str) -> impl FnOnce(rcgen::Error) -> TlsError + '_ {
    move |source| TlsError::Make { subject: subject.to_owned(), source }
}

impl Authority {
    /// The CA of a directory, made at the first start. Certificate and key are one file, so that a
    /// crash leaves both or neither.
    ///
    /// # Errors
    /// A file that cannot be read or written, or holds something else.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, TlsError> {
        let path = directory.join("ca.pem");
        if let Some(text) = files::read(&path)? {
            return Self::load(&text).map_err(|_| TlsError::Content { path, what: "a CA's certificate and key" });
        }
        let key = KeyPair::generate().map_err(made("the CA's key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("podbay-ca-{}", hex::encode(rand::random::<[u8; 4]>())));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        set_life(&mut params, now, CA_LIFE);
        let certificate = params.self_signed(&key).map_err(made("the CA's certificate"))?;
        let text = format!("{}{}", certificate.pem(), key.serialize_pem());
        files::write_private(&path, text.as_bytes())?;
        Self::load(&text)
    }

    fn load(text: &str) -> Result<Self, TlsError> {
        let wrong = |cause: String| TlsError::NotACertificate { subject: "the CA".to_owned(), cause };
        let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let key = KeyPair::from_pem(key_block(text)).map_err(made("the CA's key"))?;
        let pem = certificate_block(text).to_owned();
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(made("the CA"))?;
        Ok(Self { fingerprint: fingerprint(&der), pem, der, issuer })
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
    /// What a join token pins.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// A new key and its certificate.
    ///
    /// # Errors
    /// Names that no certificate can hold.
    pub fn issue(&self, order: &Order, now: Timestamp) -> Result<(Pair, Issued), TlsError> {
        let key = KeyPair::generate().map_err(made(&order.common_name))?;
        let issued = self.sign(order, &key, now)?;
        Ok((Pair { certificate: issued.pem.clone(), key: key.serialize_pem() }, issued))
    }

    /// A certificate for somebody else's key. Of the request only the key counts: what the
    /// certificate says is the order's.
    ///
    /// # Errors
    /// A request that is none or is not signed by its own key.
    pub fn sign_request(&self, order: &Order, request_pem: &str, now: Timestamp) -> Result<(Issued, String), TlsError> {
        let request = CertificateSigningRequestParams::from_pem(request_pem).map_err(made("a certificate from a signing request"))?;
        let key = hex::encode(Sha256::digest(request.public_key.der_bytes()));
        Ok((self.sign(order, &request.public_key, now)?, key))
    }

    fn sign(&self, order: &Order, key: &impl PublicKeyData, now: Timestamp) -> Result<Issued, TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, order.common_name.clone());
        if let Some(organisation) = &order.organisation {
            params.distinguished_name.push(DnType::OrganizationName, organisation.clone());
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !order.names.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        for name in &order.names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(made(&order.common_name))?),
            });
        }
        let mut serial = rand::random::<[u8; 16]>();
        serial[0] = (serial[0] & 0x3f) | 0x40; // positive, and always sixteen bytes
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.use_authority_key_identifier_extension = true;
        let not_after = set_life(&mut params, now, order.life);
        let certificate = params.signed_by(key, &self.issuer).map_err(made(&order.common_name))?;
        Ok(Issued { pem: certificate.pem(), serial: hex::encode(serial), not_after })
    }
}

fn set_life(params: &mut CertificateParams, now: Timestamp, life: Duration) -> Timestamp {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    params.not_before = epoch + Duration::from_secs(seconds.saturating_sub(BACKDATED.as_secs()));
    let end = seconds.saturating_add(life.as_secs());
    params.not_after = epoch + Duration::from_secs(end);
    i64::try_from(end).ok().and_then(|end| Timestamp::from_second(end).ok()).unwrap_or(Timestamp::MAX)
}

/// The part of a PEM text with this label.
fn block<'a>(text: &'a str, label: &str) -> &'a str {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let Some(start) = text.find(&begin) else { return "" };
    let Some(length) = text[start..].find(&end) else { return "" };
    let stop = start + length + end.len();
    text[start..].split_at(stop - start).0
}

pub(super) fn key_block(text: &str) -> &str {
    block(text, "PRIVATE KEY")
}

pub(super) fn certificate_block(text: &str) -> &str {
    block(text, "CERTIFICATE")
}
