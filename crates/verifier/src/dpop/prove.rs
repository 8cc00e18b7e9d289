//! The other side: how a client of ours makes a proof.

use serde_json::json;

use super::{PROOF_TYP, ProofRules, hash_of};
use crate::crypto::{KeyError, SigningKey};

/// A proof by this key for one request (RFC 9449 section 4.2). `jti` must never repeat; `nonce` is what
/// the server last gave.
pub fn prove(
    key: &SigningKey,
    request: &ProofRules<'_>,
    nonce: Option<&str>,
    jti: &str,
    issued_at_s: i64,
) -> Result<String, KeyError> {
    let url = request.url.split(['?', '#']).next().unwrap_or_default();
    let mut claims = json!({"jti": jti, "htm": request.method, "htu": url, "iat": issued_at_s});
    if let Some(token) = request.token {
        claims["ath"] = hash_of(token).into();
    }
    if let Some(nonce) = nonce {
        claims["nonce"] = nonce.into();
    }
    key.sign_with_own_jwk(PROOF_TYP, &claims)
}
