//! The key that signs the tokens of service accounts: ECDSA on P-256 (RFC 7518's ES256), made once, kept beside the CA.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};

use super::{TlsError, files};

/// Bytes of a coordinate of the public key.
const COORDINATE: usize = 32;

pub struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    id: String,
}

impl Signer {
    /// The key of a directory, made at the first start.
    ///
    /// # Errors
    /// A file that cannot be read or written, or holds something else.
    pub fn open(directory: &Path) -> Result<Self, TlsError> {
        let path = directory.join("service-account.pem");
        let text = match files::read(&path)? {
            Some(text) => text,
            None => {
                let key = KeyPair::generate().map_err(|source| TlsError::Make { subject: "the key of tokens".to_owned(), source })?;
                let text = key.serialize_pem();
                files::write_private(&path, text.as_bytes())?;
                text
            }
        };
        let random = SystemRandom::new();
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).ok();
        let pair = der.and_then(|der| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random).ok());
        let pair = pair.ok_or(TlsError::Content { path, what: "a key on P-256" })?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.public_key()));
        Ok(Self { pair, random, id })
    }

    /// What tokens name the key by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The two coordinates of the public key.
    pub fn point(&self) -> (&[u8], &[u8]) {
        // Uncompressed: a byte that says so, then both (SEC 1, 2.3.3).
        let point = self.pair.public_key().as_ref().get(1..).unwrap_or_default();
        point.split_at(COORDINATE.min(point.len()))
    }

    /// # Errors
    /// A system without randomness.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TlsError> {
        let signature = self.pair.sign(&self.random, message).map_err(|_| TlsError::Sign("a token"))?;
        Ok(signature.as_ref().to_vec())
    }

    pub fn is_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key()).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_and_knows_its_own_signatures() {
        let directory = tempfile::tempdir().unwrap();
        let first = Signer::open(directory.path()).unwrap();
        let signature = first.sign(b"message").unwrap();
        let again = Signer::open(directory.path()).unwrap();
        assert_eq!(first.id(), again.id());
        assert!(again.is_signed(b"message", &signature));
        assert!(!again.is_signed(b"messagE", &signature));
        assert!(!again.is_signed(b"message", &signature[1..]));
        assert_eq!((first.point().0.len(), first.point().1.len()), (32, 32));
        let other = tempfile::tempdir().unwrap();
        assert!(!Signer::open(other.path()).unwrap().is_signed(b"message", &signature));
        std::fs::write(directory.path().join("service-account.pem"), "nothing").unwrap();
        assert!(Signer::open(directory.path()).is_err());
    }
}
