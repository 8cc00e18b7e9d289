//! A resource server proves itself with an assertion (RFC 7523 section 2.2): a token of an issuer
//! of kind `verifier`, its platform's or signed with its own key.
//!
//! It goes through the same gate as evidence, with issuers of its own. Nothing is issued for it and
//! nothing is used up, so the same assertion may come again until it is over.

use std::sync::Arc;

use dayfly_domain::{
    UnixMs, Workload,
    bundle::{Bundle, IssuerKind},
};
use dayfly_verifier::{Jws, Refusal};
use serde_json::Value;

use super::{IntakeError, IssuerKeys, Origin};

/// A verifier that proved itself, and how long that may be believed. Made only here.
#[derive(Debug)]
pub struct ProvenVerifier {
    identity: Workload,
    subject: Arc<str>,
    issued_at: UnixMs,
    until: UnixMs,
}

impl ProvenVerifier {
    /// Its principal and typed claims, as the profile declares them.
    pub fn identity(&self) -> &Workload {
        &self.identity
    }

    /// The assertion's `sub`: what a `client_id` beside it must be.
    pub fn subject(&self) -> &Arc<str> {
        &self.subject
    }

    pub fn issued_at(&self) -> UnixMs {
        self.issued_at
    }

    /// Its `exp`, or its profile's longest age where that comes first.
    pub fn until(&self) -> UnixMs {
        self.until
    }
}

/// Proves a `client_assertion`: required are `iss`, `sub`, `aud`, `exp` and `iat`; the audience is
/// the issuer table's, by default our issuer URL.
// SECURITY: `our_own_tokens_are_no_assertion`, `t_027_another_issuers_key_is_no_verifier`.
pub async fn prove_verifier(
    assertion: &str,
    bundle: &Bundle,
    own_issuer: &str,
    keys: &IssuerKeys,
    now: UnixMs,
) -> Result<ProvenVerifier, IntakeError> {
    let jws = Jws::parse(assertion)?;
    let origin = Origin::of(&jws, IssuerKind::Verifier, bundle, own_issuer)?;
    let verified = origin.verify(&jws, keys, now).await?;
    // The gate has looked at its type; here it must be there.
    let subject = verified.claims().get("sub").and_then(Value::as_str).ok_or(Refusal::Claim("sub"))?;
    let issued_at = UnixMs::from_s(verified.issued_at_s());
    let oldest = issued_at.plus_s(origin.profile.max_age.as_s().into());
    Ok(ProvenVerifier {
        identity: origin.confirm(assertion, &verified, origin.read(&verified)?, keys).await?,
        subject: subject.into(),
        issued_at,
        until: UnixMs::from_s(verified.expires_at_s()).min(oldest),
    })
}
