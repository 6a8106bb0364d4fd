//! Who the other side's certificate says it is.

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
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

    /// It is time to renew it.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.seconds_left(now) <= 0
    }

    /// Until it is time to renew it; none or less: it is. That is between two thirds and nine tenths of its life, at the same
    /// time always for one certificate and at another for each, so that what was issued together is not all asked for together.
    pub fn seconds_left(&self, now: Timestamp) -> i64 {
        let life = (self.not_after.as_second() - self.not_before.as_second()).max(0);
        let (first, last) = (life / 3 * 2, life / 10 * 9);
        self.not_before.as_second() + first + self.spread(last - first) - now.as_second()
    }

    /// Some seconds of so many, by who and which it is.
    fn spread(&self, seconds: i64) -> i64 {
        let digest = Sha256::digest(format!("{}\n{}", self.common_name, self.serial));
        let number = digest.iter().take(4).fold(0, |number, byte| number << 8 | i64::from(*byte));
        number % (seconds.max(0) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::DnType;

    #[test]
    fn what_was_issued_together_is_not_due_together() {
        const DAY: i64 = 24 * 3600;
        let at = |second| Timestamp::from_second(second).unwrap();
        let peer = |name: &str, serial: &str, life| Peer {
            common_name: name.to_owned(),
            organisations: Vec::new(),
            serial: serial.to_owned(),
            not_before: at(0),
            not_after: at(life),
        };
        let due: Vec<i64> = (0..500).map(|node| peer(&format!("system:node:n{node}"), "0f", 30 * DAY).seconds_left(at(0))).collect();
        assert!(due.iter().all(|due| (20 * DAY..=27 * DAY).contains(due)), "{due:?}");
        // Evenly, 3 in each hour; never a crowd.
        let mut hours = [0; 7 * 24 + 1];
        due.iter().for_each(|due| hours[usize::try_from((due - 20 * DAY) / 3600).unwrap()] += 1);
        assert!(hours.iter().all(|crowd| *crowd <= 12), "{hours:?}");
        assert!((0..7).all(|day| hours[day * 24..][..24].iter().sum::<i32>() >= 40), "{hours:?}");
        let one = peer("n", "0f", 30 * DAY);
        assert_eq!(one.seconds_left(at(0)), one.clone().seconds_left(at(DAY)) + DAY, "always the same");
        assert_ne!(one.seconds_left(at(0)), peer("n", "10", 30 * DAY).seconds_left(at(0)), "and another for the next one");
        assert!(one.is_due(at(27 * DAY)) && !one.is_due(at(20 * DAY - 1)));
        assert!([0, 1, 5].into_iter().all(|life| peer("n", "0f", life).is_due(at(life))));
    }

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
