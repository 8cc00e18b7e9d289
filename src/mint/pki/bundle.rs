//! The SPIFFE trust bundle (SPIFFE Trust Domain and Bundle section 4, X509-SVID section 6.2): root
//! certificates in, a JWK Set out.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
};

use super::signer::PkiError;

/// How often whoever keeps the bundle should fetch it anew.
const REFRESH_HINT_S: u64 = 3_600;

/// `sequence` grows whenever the roots change.
pub fn spiffe_bundle(roots: &[CertificateDer<'_>], sequence: u64) -> Result<Value, PkiError> {
    let keys = roots.iter().map(key).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({ "keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": REFRESH_HINT_S }))
}

fn key(root: &CertificateDer<'_>) -> Result<Value, PkiError> {
    let (_, read) = X509Certificate::from_der(root).map_err(|error| PkiError::Read(error.to_string()))?;
    let public = read.public_key().parsed().map_err(|error| PkiError::Read(error.to_string()))?;
    let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut key = match public {
        PublicKey::EC(point) => {
            let octets = point.data().strip_prefix(&[4]).filter(|octets| octets.len() % 2 == 0);
            let (x, y) = octets.map(|octets| octets.split_at(octets.len() / 2)).ok_or_else(strange)?;
            let curve = match octets.map(<[u8]>::len) {
                Some(64) => "P-256",
                Some(96) => "P-384",
                Some(132) => "P-521",
                _ => return Err(strange()),
            };
            json!({ "kty": "EC", "crv": curve, "x": base64(x), "y": base64(y) })
        }
        PublicKey::RSA(rsa) => {
            let plain = |number: &[u8]| base64(&number[number.iter().take_while(|&&octet| octet == 0).count()..]);
            json!({ "kty": "RSA", "n": plain(rsa.modulus), "e": plain(rsa.exponent) })
        }
        _ => return Err(strange()),
    };
    key["use"] = json!("x509-svid");
    key["x5c"] = json!([STANDARD.encode(root)]);
    Ok(key)
}

fn strange() -> PkiError {
    PkiError::Read("its public key is neither on a NIST curve nor RSA".to_owned())
}
