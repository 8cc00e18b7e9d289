//! The gate in front of every key: a compact JWS (RFC 7515 section 7.1) read strictly, before
//! any key is looked up and before anything is fetched.
//!
//! In comes a stranger's text; out goes a [`Jws`], of which nothing is trusted yet.

use std::fmt;

use dayfly_domain::Secret;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use crate::{Refusal, json};

/// Longest token that is looked at, in bytes.
pub const TOKEN_MAX_BYTES: usize = 16 * 1024;

/// Longest `kid`, in bytes.
pub(crate) const KID_MAX_BYTES: usize = 256;

/// What we verify; by name, because unsigned and symmetric tokens must have no way in.
// SECURITY: t_001_alg_none_is_refused, t_002_hmac_with_a_public_key_is_refused
const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Members that carry keys, fetch keys, encrypt, compress or change the rules of reading.
// SECURITY: t_005_an_embedded_jwk_is_refused, t_006_a_key_url_is_refused, t_010_crit_is_refused
pub(crate) const FORBIDDEN: [&str; 11] = ["crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "enc", "epk", "p2c", "cty"];

/// A well-formed compact JWS. Nothing in it is trusted: only [`crate::verify`] says it is genuine.
pub struct Jws {
    token: Secret<String>,
    signing_input_len: usize,
    alg: (&'static str, Algorithm),
    kid: Option<String>,
    typ: Option<String>,
    claims: Map<String, Value>,
}

impl Jws {
    /// Reads the form only: size, three canonical parts, header and claims as JSON objects.
    ///
    /// [`Refusal::Malformed`], [`Refusal::Algorithm`] or [`Refusal::Header`].
    pub fn parse(token: &str) -> Result<Self, Refusal> {
        Self::parse_within(token, TOKEN_MAX_BYTES)
    }

    pub(crate) fn parse_within(token: &str, max_bytes: usize) -> Result<Self, Refusal> {
        let [header, payload, signature] = parts(token, max_bytes)?;
        json::base64url(signature).ok_or(Refusal::Malformed)?;
        let header = part(header)?;
        let alg = header_alg(&header)?;
        let kid = header_text(&header, "kid")?;
        if FORBIDDEN.iter().any(|name| header.contains_key(*name))
            || kid.as_ref().is_some_and(|kid| !(1..=KID_MAX_BYTES).contains(&kid.len()))
        {
            return Err(Refusal::Header);
        }
        Ok(Self {
            signing_input_len: token.len() - signature.len() - 1,
            alg,
            kid,
            typ: header_text(&header, "typ")?,
            claims: part(payload)?,
            token: Secret::new(token.to_owned()),
        })
    }

    /// One of the algorithms we verify, as RFC 7518 spells it.
    pub fn alg(&self) -> &'static str {
        self.alg.0
    }

    /// Which key signed it, in the issuer's own words: a name to look up, 1 to 256 bytes.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What kind of token it says it is (RFC 7515 section 4.1.9).
    pub fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }

    /// The bytes that were signed: all before the second dot, without the signature (whose ECDSA
    /// form has a twin).
    pub fn signing_input(&self) -> &str {
        &self.token.expose()[..self.signing_input_len]
    }

    /// Who the token says signed it; only good for finding that issuer's own keys.
    pub fn unverified_issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// The token's own id, as anybody can have written it; for finding a record to compare with.
    pub fn unverified_jti(&self) -> Option<&str> {
        self.claims.get("jti")?.as_str()
    }

    /// What anybody can have written. Decide nothing by it; take [`crate::verify`]'s outcome.
    pub fn unverified_claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The same, taken out: for an answer about a token that was matched whole.
    pub fn into_unverified_claims(self) -> Map<String, Value> {
        self.claims
    }

    pub(crate) fn token(&self) -> &str {
        self.token.expose()
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.alg.1
    }
}

impl fmt::Debug for Jws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jws").field("alg", &self.alg()).field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Names of all algorithms that can be verified (RFC 7518, RFC 8037), for metadata.
pub fn algorithms() -> impl Iterator<Item = &'static str> {
    ALGORITHMS.into_iter().map(|(name, _)| name)
}

/// The algorithm of this name, if it is one we verify.
pub(crate) fn algorithm(name: &str) -> Option<(&'static str, Algorithm)> {
    ALGORITHMS.into_iter().find(|(known, _)| *known == name)
}

/// Three parts, none empty; the length is checked before anything is split.
// SECURITY: t_014_dots_are_not_split_without_bound, t_008_an_empty_signature_is_refused
pub(crate) fn parts(token: &str, max_bytes: usize) -> Result<[&str; 3], Refusal> {
    if token.len() > max_bytes {
        return Err(Refusal::Malformed);
    }
    let mut parts = token.splitn(4, '.');
    match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some(header), Some(payload), Some(signature), None]
            if !(header.is_empty() || payload.is_empty() || signature.is_empty()) =>
        {
            Ok([header, payload, signature])
        }
        _ => Err(Refusal::Malformed),
    }
}

pub(crate) fn part(text: &str) -> Result<Map<String, Value>, Refusal> {
    json::base64url(text).and_then(|bytes| json::object(&bytes)).ok_or(Refusal::Malformed)
}

fn header_alg(header: &Map<String, Value>) -> Result<(&'static str, Algorithm), Refusal> {
    header.get("alg").and_then(Value::as_str).and_then(algorithm).ok_or(Refusal::Algorithm)
}

fn header_text(header: &Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::Header),
    }
}
