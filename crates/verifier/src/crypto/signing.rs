//! Signing keys. `jsonwebtoken` would parse the private key again for every token, which costs
//! as much as half a signature; so its `EncodingKey` holds only a number, under which the parsed
//! key is found. The private bytes are in no `jsonwebtoken` value.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, LazyLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use dayfly_domain::Secret;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header,
    crypto::JwtSigner,
    errors::{ErrorKind, Result as JwtResult, new_error},
    signature::{Error as SignatureError, Signer},
};
use ring::{
    digest,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{dpop::Thumbprint, json, sys};

/// Why a signing key cannot be made or used. Says nothing of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("no P-256 key could be generated")]
    Generate,
    #[error("not a P-256 private key in PKCS#8")]
    Pkcs8,
    /// What it signed does not verify under its own public key, or another provider is in place.
    #[error("the key does not prove itself")]
    Proof,
    #[error("the claims could not be signed")]
    Sign,
}

/// A P-256 key that signs ES256; cheap to clone. `Debug` shows the `kid` only.
#[derive(Clone)]
pub struct SigningKey(Arc<Inner>);

struct Inner {
    number: u64,
    encoding: EncodingKey,
    kid: String,
    jwk: Value,
}

/// The process's parsed keys. A global because `jsonwebtoken` hands its provider nothing but the
/// bytes of an `EncodingKey`.
static KEYS: LazyLock<RwLock<HashMap<u64, Arc<EcdsaKeyPair>>>> = LazyLock::new(RwLock::default);
static NEXT: AtomicU64 = AtomicU64::new(0);

impl SigningKey {
    /// A new key as PKCS#8 DER, to be kept by the caller.
    pub fn generate_pkcs8() -> Result<Secret<Vec<u8>>, KeyError> {
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &sys::random())
            .map(|document| Secret::new(document.as_ref().to_vec()))
            .map_err(|_| KeyError::Generate)
    }

    /// Reads PKCS#8 DER. The key proves itself: it signs, and its public half verifies that.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        super::init().map_err(|_| KeyError::Proof)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &sys::random())
            .map_err(|_| KeyError::Pkcs8)?;
        let point = pair.public_key().as_ref().to_vec();
        let (kid, jwk) = public(&point);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        KEYS.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(pair));
        let encoding = EncodingKey::from_ec_der(&number.to_be_bytes());
        let key = Self(Arc::new(Inner { number, encoding, kid, jwk }));
        key.prove(&point).then_some(key).ok_or(KeyError::Proof)
    }

    /// RFC 7638 thumbprint, SHA-256, base64url.
    pub fn kid(&self) -> &str {
        &self.0.kid
    }

    /// The public half as a JWK (RFC 7517).
    pub fn jwk(&self) -> Value {
        self.0.jwk.clone()
    }

    /// A compact JWS over the claims, with `typ`, `alg` and `kid` in its header and nothing else.
    pub fn sign<T: Serialize>(&self, typ: &str, claims: &T) -> Result<String, KeyError> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.0.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.0.encoding).map_err(|_| KeyError::Sign)
    }

    /// A compact JWS with `typ`, `alg` and the public `jwk` in its header: a proof (RFC 9449).
    pub(crate) fn sign_with_own_jwk(&self, typ: &str, claims: &Value) -> Result<String, KeyError> {
        let public = |name: &str| self.0.jwk[name].clone();
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": public("x"), "y": public("y")});
        let header = json!({"typ": typ, "alg": "ES256", "jwk": jwk}).to_string();
        let message = [header, claims.to_string()].map(|part| json::to_base64url(part.as_bytes())).join(".");
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.0.encoding, Algorithm::ES256);
        Ok(format!("{message}.{}", signature.map_err(|_| KeyError::Sign)?))
    }

    /// The same as `kid`: what a token that is bound to this key holds in `cnf`.
    pub fn thumbprint(&self) -> Thumbprint {
        // INVARIANT: `public` made the `kid` from a SHA-256.
        self.0.kid.parse().expect("a key's `kid` is its thumbprint")
    }

    fn prove(&self, point: &[u8]) -> bool {
        let Ok(token) = self.sign("proof", &json!({})) else { return false };
        let Some((message, signature)) = token.rsplit_once('.') else { return false };
        let public = DecodingKey::from_ec_der(point);
        matches!(jsonwebtoken::crypto::verify(signature, message.as_bytes(), &public, Algorithm::ES256), Ok(true))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.0.kid).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        KEYS.write().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// `kid` and JWK of an uncompressed P-256 point (65 bytes).
fn public(point: &[u8]) -> (String, Value) {
    let (x, y) = (json::to_base64url(&point[1..33]), json::to_base64url(&point[33..]));
    // RFC 7638 section 3: these members, in this order, without blanks.
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let kid = json::to_base64url(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "use": "sig", "alg": "ES256"});
    (kid, jwk)
}

struct RingSigner(Arc<EcdsaKeyPair>);

/// Finds the parsed key behind an `EncodingKey`; anything else than our ES256 handle is refused.
pub(super) fn signer(algorithm: &Algorithm, key: &EncodingKey) -> JwtResult<Box<dyn JwtSigner>> {
    if *algorithm != Algorithm::ES256 || key.family() != AlgorithmFamily::Ec {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    let pair = <[u8; 8]>::try_from(key.as_bytes()).ok().and_then(|number| {
        KEYS.read().unwrap_or_else(PoisonError::into_inner).get(&u64::from_be_bytes(number)).cloned()
    });
    match pair {
        Some(pair) => Ok(Box::new(RingSigner(pair))),
        None => Err(new_error(ErrorKind::InvalidKeyFormat)),
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let signature = self.0.sign(&sys::random(), message).map_err(|_| SignatureError::new())?;
        Ok(signature.as_ref().to_vec())
    }
}
