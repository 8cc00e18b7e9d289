//! The key of a certificate: made here, kept here, never sent. In: nothing. Out: a request (PKCS#10) that
//! shows that we have it, and later the key itself for the file.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::Secret;
use dayfly_verifier::crypto::SigningKey;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};
use rustls_pki_types::PrivatePkcs8KeyDer;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::cli::{
    failure::Failure,
    proof::{PRIVATE_KEY, pem},
};

/// Makes one key after the other; holds the last one until its certificate is there.
#[derive(Debug, Default)]
pub struct Keys(Mutex<Option<LeafKey>>);

/// A P-256 key.
pub struct LeafKey {
    pkcs8: Secret<Vec<u8>>,
    /// SubjectPublicKeyInfo, DER.
    public: Vec<u8>,
}

impl Keys {
    /// A request for a new key, base64url of its DER. Nobody but the broker says who it is for: no subject, no
    /// extension.
    pub fn request(&self) -> Result<String, Failure> {
        let unmade = |error: &dyn fmt::Display| Failure::failed("no key can be made").because(error);
        let pkcs8 = SigningKey::generate_pkcs8().map_err(|error| unmade(&error))?;
        let pair = KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8.expose().as_slice()));
        let pair = pair.map_err(|error| unmade(&error))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&pair).map_err(|error| unmade(&error))?;
        let made = LeafKey { pkcs8, public: pair.subject_public_key_info() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        Ok(URL_SAFE_NO_PAD.encode(csr.der()))
    }

    /// Its certificate could not be written yet.
    pub fn give_back(&self, key: LeafKey) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }

    /// That of the last request.
    pub fn take(&self) -> Option<LeafKey> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl LeafKey {
    /// Whether this certificate, DER, is for it.
    pub fn fits(&self, leaf: &[u8]) -> bool {
        X509Certificate::from_der(leaf).is_ok_and(|(_, leaf)| leaf.public_key().raw == self.public)
    }

    pub fn pem(&self) -> Zeroizing<String> {
        pem(PRIVATE_KEY, self.pkcs8.expose())
    }
}

impl fmt::Debug for LeafKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("LeafKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::X509CertificationRequest;

    use super::*;

    #[test]
    fn a_request_says_nothing_but_its_key_and_proves_it() {
        let keys = Keys::default();
        let der = URL_SAFE_NO_PAD.decode(keys.request().unwrap()).unwrap();
        let (rest, csr) = X509CertificationRequest::from_der(&der).unwrap();
        assert!(rest.is_empty() && csr.verify_signature().is_ok());
        let info = &csr.certification_request_info;
        assert_eq!((info.subject.iter().count(), csr.requested_extensions().map(Iterator::count)), (0, None));
        assert_eq!(info.subject_pki.raw, keys.take().unwrap().public);
        assert!(info.subject_pki.raw.len() == 91, "P-256");
        assert!(keys.take().is_none());
    }

    #[test]
    fn every_request_is_for_a_new_key_which_nothing_shows() {
        let keys = Keys::default();
        let (one, other) = (keys.request().unwrap(), keys.request().unwrap());
        assert_ne!(one, other);
        let key = keys.take().unwrap();
        assert_eq!(format!("{key:?}"), "LeafKey([redacted])");
        assert!(key.pem().starts_with(concat!("-----BEGIN PRIVATE ", "KEY-----\n")));
    }
}
