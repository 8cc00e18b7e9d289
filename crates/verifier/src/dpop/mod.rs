//! Proofs of possession (DPoP, RFC 9449): whoever shows a bound token must also show, for this very
//! request, a fresh signature by the key that the token is bound to.
//!
//! In comes the text of a `DPoP` header and the request that it must be for; out goes a [`Proof`],
//! and, once [`Proofs`] has seen that it was not used before, a [`Binding`]. Nothing else makes one.

mod memory;
mod prove;
mod thumbprint;
mod url;

use std::fmt;

use dayfly_domain::{Reason, UnixMs};
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::digest;
use serde_json::{Map, Value};

use crate::{crypto, json, jws, keys};
pub use memory::{Binding, PROOFS_MAX, Proofs};
pub use prove::prove;
pub use thumbprint::Thumbprint;

/// `typ` of a proof (RFC 9449 section 4.2).
pub const PROOF_TYP: &str = "dpop+jwt";

/// Longest proof that is looked at, in bytes.
pub const PROOF_MAX_BYTES: usize = 8 * 1024;

/// How far a proof's `iat` may be from now, either way, in seconds.
pub const PROOF_WINDOW_S: i64 = 60;

/// Longest `jti` and `nonce`, in bytes.
const NAME_MAX_BYTES: usize = 256;

/// What a proof's header must hold.
const HEADER: [&str; 3] = ["typ", "alg", "jwk"];

/// Members of private and symmetric keys (RFC 7518 section 6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The request that a proof must be for.
#[derive(Clone, Copy)]
pub struct ProofRules<'a> {
    /// The request's method, as in the request line.
    pub method: &'a str,
    /// Its URL as clients know it, from configuration and never from `Host`; query and fragment do
    /// not count.
    pub url: &'a str,
    /// The token that goes with it; the proof then names it (`ath`).
    pub token: Option<&'a str>,
}

/// A proof and the request that it came with.
#[derive(Clone, Copy)]
pub struct ProofOf<'a> {
    /// The one `DPoP` header.
    pub proof: &'a str,
    pub method: &'a str,
    /// As [`ProofRules::url`].
    pub url: &'a str,
}

/// Why a proof is not accepted. Says which check failed; never quotes the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofRefusal {
    /// Too long, not three canonical base64url parts, or not JSON objects.
    #[error("the proof is not a compact JWS")]
    Malformed,
    /// `typ` (`dpop+jwt`), `alg` or `jwk` is missing, or a member changes how the proof is read.
    #[error("the proof's header lacks `typ`, `alg` or `jwk`, or has a member that is not accepted")]
    Header,
    /// Unsigned, symmetric or unknown.
    #[error("the proof's `alg` is not accepted")]
    Algorithm,
    /// Private, weak, of no known kind, or not for this `alg`.
    #[error("the proof's `jwk` is not a public key that fits its `alg`")]
    Key,
    #[error("the proof's signature is wrong")]
    Signature,
    /// Missing, of the wrong type or out of range; `htm`, `htu`, `ath`: of another request or token.
    #[error("the proof's `{0}` is missing, wrong, or of another request")]
    Claim(&'static str),
    /// `iat` is more than 60 s away.
    #[error("the proof's `iat` is too far from now")]
    Time,
    /// Each proof is good once.
    #[error("the proof was used before")]
    Used,
    /// The token is bound to another key.
    #[error("the proof is by another key than the token's")]
    OtherKey,
    /// The token is bound to no key: it is no token for the scheme `DPoP`.
    #[error("the token is not bound to a key")]
    Unbound,
    /// More proofs are remembered than there is room for; nothing is accepted unremembered.
    #[error("too many proofs are in use")]
    Full,
}

impl ProofRefusal {
    /// The row of the table of reasons that the outside sees.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Full => Reason::Busy,
            Self::Malformed
            | Self::Header
            | Self::Algorithm
            | Self::Key
            | Self::Signature
            | Self::Claim(_)
            | Self::Time
            | Self::Used
            | Self::OtherKey
            | Self::Unbound => Reason::Dpop,
        }
    }
}

/// A proof whose form and claims fit the request. Anybody can have written it.
pub struct UnverifiedProof {
    text: String,
    signed_len: usize,
    algorithm: Algorithm,
    key: DecodingKey,
    seen: Seen,
}

/// What a proof says.
#[derive(Clone)]
struct Seen {
    thumbprint: Thumbprint,
    jti: String,
    nonce: Option<String>,
    issued_at_s: i64,
}

/// A proof that is right for its request, and signed by the key in it. It may have been used before:
/// [`Proofs::accept`] says.
pub struct Proof(Seen);

/// Whether the proof is right for this request, and signed by the key in it.
pub fn check_proof(text: &str, rules: &ProofRules<'_>, now: UnixMs) -> Result<Proof, ProofRefusal> {
    UnverifiedProof::read(text, rules, now)?.verify()
}

impl UnverifiedProof {
    /// All but the signature: cheap, so that it can come before any look-up.
    pub fn read(text: &str, rules: &ProofRules<'_>, now: UnixMs) -> Result<Self, ProofRefusal> {
        if text.len() > PROOF_MAX_BYTES {
            return Err(ProofRefusal::Malformed);
        }
        let malformed = |_| ProofRefusal::Malformed;
        let [header, payload, signature] = jws::parts(text, jws::TOKEN_MAX_BYTES).map_err(malformed)?;
        json::base64url(signature).ok_or(ProofRefusal::Malformed)?;
        let (header, claims) = (jws::part(header).map_err(malformed)?, jws::part(payload).map_err(malformed)?);
        let (algorithm, jwk) = read_header(&header)?;
        let key = keys::proof_key(jwk, algorithm).ok_or(ProofRefusal::Key)?;
        let thumbprint = Thumbprint::of_jwk(jwk).ok_or(ProofRefusal::Key)?;
        let seen = read_claims(&claims, thumbprint, rules, now)?;
        Ok(Self { signed_len: text.len() - signature.len() - 1, text: text.to_owned(), algorithm, key, seen })
    }

    /// The server's own word in it, as anybody can have written it.
    pub fn nonce(&self) -> Option<&str> {
        self.seen.nonce.as_deref()
    }

    /// `iat`, in Unix seconds, as anybody can have written it.
    pub fn issued_at_s(&self) -> i64 {
        self.seen.issued_at_s
    }

    /// The signature. A point off its curve is found here, by ring.
    pub fn verify(self) -> Result<Proof, ProofRefusal> {
        // Another provider of the process's own verifies as well; a failing one refuses.
        let _ = crypto::init();
        let (message, signature) = (&self.text[..self.signed_len], &self.text[self.signed_len + 1..]);
        match jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm) {
            Ok(true) => Ok(Proof(self.seen)),
            Ok(false) | Err(_) => Err(ProofRefusal::Signature),
        }
    }
}

impl Proof {
    /// Of the key that signed it.
    pub fn thumbprint(&self) -> Thumbprint {
        self.0.thumbprint
    }
}

impl fmt::Debug for UnverifiedProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedProof").field("issued_at_s", &self.seen.issued_at_s).finish_non_exhaustive()
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").field("thumbprint", &self.0.thumbprint).finish_non_exhaustive()
    }
}

/// `algs` and what went wrong, as `WWW-Authenticate` has it (RFC 9449 section 7.1).
pub fn challenge(error: Option<(&str, &str)>) -> String {
    let algs = jws::algorithms().collect::<Vec<_>>().join(" ");
    match error {
        Some((error, description)) => {
            let description = description.replace('`', "'");
            format!(r#"DPoP error="{error}", error_description="{description}", algs="{algs}""#)
        }
        None => format!(r#"DPoP algs="{algs}""#),
    }
}

/// RFC 9449 section 4.2. Members that carry or fetch other keys, or change the rules of reading, have
/// no place here at all; what means nothing here is passed over (RFC 7515 section 4).
// SECURITY: a_header_with_other_keys_or_rules_is_refused, another_typ_is_refused
fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, &Map<String, Value>), ProofRefusal> {
    let whole = HEADER.iter().all(|name| header.contains_key(*name));
    let dangerous = jws::FORBIDDEN.iter().any(|name| *name != "jwk" && header.contains_key(*name));
    if !whole || dangerous || header["typ"] != PROOF_TYP {
        return Err(ProofRefusal::Header);
    }
    let known = header["alg"].as_str().and_then(jws::algorithm);
    let (_, algorithm) = known.ok_or(ProofRefusal::Algorithm)?;
    let jwk = header["jwk"].as_object().ok_or(ProofRefusal::Header)?;
    // SECURITY: a_private_key_in_a_proof_is_refused
    if PRIVATE.iter().any(|name| jwk.contains_key(*name)) {
        return Err(ProofRefusal::Key);
    }
    Ok((algorithm, jwk))
}

/// RFC 9449 section 4.3.
fn read_claims(
    claims: &Map<String, Value>,
    thumbprint: Thumbprint,
    rules: &ProofRules<'_>,
    now: UnixMs,
) -> Result<Seen, ProofRefusal> {
    let wrong = |name| Err(ProofRefusal::Claim(name));
    let Some(jti) = name_of(claims, "jti")? else { return wrong("jti") };
    let nonce = name_of(claims, "nonce")?;
    if text(claims, "htm")? != Some(rules.method) {
        return wrong("htm");
    }
    if !text(claims, "htu")?.is_some_and(|htu| url::same(htu, rules.url)) {
        return wrong("htu");
    }
    // SECURITY: a_proof_of_another_token_is_refused
    let ath = text(claims, "ath")?;
    if rules.token.is_some_and(|token| ath != Some(&*hash_of(token))) {
        return wrong("ath");
    }
    let iat = claims.get("iat").and_then(Value::as_i64).filter(|&iat| iat >= 0);
    let issued_at_s = iat.ok_or(ProofRefusal::Claim("iat"))?;
    if now.as_s().saturating_sub(issued_at_s).saturating_abs() > PROOF_WINDOW_S {
        return Err(ProofRefusal::Time);
    }
    Ok(Seen { thumbprint, jti: jti.to_owned(), nonce: nonce.map(str::to_owned), issued_at_s })
}

/// `ath`: base64url of SHA-256 over the token's ASCII (RFC 9449 section 4.2).
fn hash_of(token: &str) -> String {
    json::to_base64url(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}

/// `None`: absent. What is there is text.
fn text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, ProofRefusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ProofRefusal::Claim(name)),
    }
}

fn name_of<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, ProofRefusal> {
    match text(claims, name)? {
        Some(text) if !(1..=NAME_MAX_BYTES).contains(&text.len()) => Err(ProofRefusal::Claim(name)),
        other => Ok(other),
    }
}
