//! Who the other side's certificate says it is.

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::TlsError;
use crate::model::Timestamp;

/// The address at the other end of a connection, as a request extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote(pub std::net::IpAddr);

/// The verified client certificate of a connection, as a request extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Empty where there is none, and where there are several: some readers take the first and some the last of them.
    pub common_name: String,
    pub organisations: Vec<String>,
    /// Hexadecimal.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Peer {
    /// # Errors
    /// Bytes that are not a certificate.
    pub fn read(der: &[u8]) -> Result<Self, TlsError> {
        let wrong = |cause: String| TlsError::NotACertificate { subject: "the peer's certificate".to_owned(), cause };
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| wrong(error.to_string()))?;
        let subject = certificate.subject();
        let mut names = subject.iter_common_name();
        let name = names.next().filter(|_| names.next().is_none()).and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned();
        let organisations = subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
        let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        let validity = certificate.validity();
        Ok(Self {
            common_name: name,
            organisations,
            serial: hex::encode(certificate.raw_serial()),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }

    /// # Errors
    /// Text that is not a certificate.
    pub fn read_pem(pem: &str) -> Result<Self, TlsError> {
        let wrong = |cause: String| TlsError::NotACertificate { subject: "the PEM text".to_owned(), cause };
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        Self::read(&der)
    }

    /// Two thirds of its life are over.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.seconds_left(now) <= 0
    }

    /// Until two thirds of its life are over; none or less: they are.
    pub fn seconds_left(&self, now: Timestamp) -> i64 {
        let life = self.not_after.as_second() - self.not_before.as_second();
        self.not_before.as_second() + life * 2 / 3 - now.as_second()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::DnType;

    #[test]
    fn who_has_two_names_has_none() {
        let named = |types: &[DnType]| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for (at, name) in types.iter().enumerate() {
                params.distinguished_name.push(name.clone(), format!("name-{at}"));
            }
            let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            Peer::read(made.der()).unwrap().common_name
        };
        let another = DnType::CustomDnType(vec![2, 5, 4, 3]);
        assert_eq!(named(&[DnType::CommonName]), "name-0");
        assert_eq!(named(std::slice::from_ref(&another)), "name-0");
        assert_eq!(named(&[DnType::CommonName, another]), "");
        assert_eq!(named(&[]), "");
    }
}
