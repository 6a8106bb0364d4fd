//! What somebody asks a certificate for.

use std::net::IpAddr;

use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::TlsError;

/// What a PKCS #10 request (RFC 2986) says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub common_name: String,
    pub organisations: Vec<String>,
    /// DNS names and addresses.
    pub names: Vec<String>,
    /// It asks for names of another kind too: mail addresses, URIs.
    pub other_names: bool,
}

impl Wish {
    /// # Errors
    /// Text that is no such request.
    pub fn read_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let wrong = |cause: String| TlsError::NotACertificate { subject: "the signing request".to_owned(), cause };
        let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|error| wrong(error.to_string()))?;
        let (_, request) = X509CertificationRequest::from_der(&der).map_err(|error| wrong(error.to_string()))?;
        let subject = &request.certification_request_info.subject;
        let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
        let mut wish = Self {
            common_name: name.to_owned(),
            organisations: subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect(),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| wish.add(name));
            }
        }
        Ok(wish)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match address(bytes) {
                Some(address) => self.names.push(address.to_string()),
                None => self.other_names = true,
            },
            _ => self.other_names = true,
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_made() {
        let mut params = rcgen::CertificateParams::new(vec!["n1".to_owned(), "192.0.2.7".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n1");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let wish = Wish::read_pem(pem.as_bytes()).unwrap();
        assert_eq!((wish.common_name.as_str(), wish.organisations.as_slice()), ("system:node:n1", &["system:nodes".to_owned()][..]));
        assert_eq!((wish.names, wish.other_names), (vec!["n1".to_owned(), "192.0.2.7".to_owned()], false));
        assert!(Wish::read_pem(b"nothing").is_err());
    }
}
