//! Stage 1: who is it? Secret text becomes `Verified` claims, and those become [`Proven`].
//!
//! Garbage (bad signature, unknown issuer) and strangers (genuine, but nobody's here) end in this
//! stage; only known workloads go on to policy, the store and the ledger. A verifier's assertion
//! comes the same way and becomes [`ProvenVerifier`], which opens nothing.

mod claims;
mod csr;
mod keys;
mod look;
mod place;
mod proof;
mod review;
mod verifier;

use std::borrow::Cow;

use dayfly_domain::{
    Reason, UnixMs, Workload,
    bundle::{Bundle, Issuer, IssuerKind, Profile},
    spiffe::SpiffeId,
};
use dayfly_verifier::{Jws, Refusal, Rules, Signer, Verified, verify};
use ring::digest;
use serde_json::{Map, Value};

pub use claims::{ClaimRefusal, read};
pub use csr::{CSR_MAX_BYTES, CsrError, ProvenKey, Wishes, prove_key};
pub use keys::{FETCHES_AHEAD_MAX, FORCED_EACH_MS, IssuerKeys, KeysError, KeysHealth, KeysState, NotRefreshed};
pub use look::{Check, look, look_at_claims, refused_by, unverified};
pub use proof::{ProofDesk, ProofError};
use review::{NotConfirmed, Reviewed};
pub use verifier::{ProvenVerifier, prove_verifier};

/// Leeway for `nbf` and `iat`; `exp` has none.
pub const LEEWAY_S: u32 = 30;
/// Evidence that lives longer than this is refused.
const MAX_AHEAD_S: u32 = 24 * 3600;

/// A workload that proved itself, and the evidence it used. Made only here, from a
/// `Verified<Claims>` and its issuer.
#[derive(Debug)]
pub struct Proven {
    workload: Workload,
    evidence_key: [u8; 32],
    issued_at: UnixMs,
    expires: UnixMs,
    unconfirmed: bool,
}

impl Proven {
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Unique per piece of evidence: what is used up when a task opens (law L9).
    pub fn evidence_key(&self) -> [u8; 32] {
        self.evidence_key
    }

    pub fn issued_at(&self) -> UnixMs {
        self.issued_at
    }

    pub fn expires(&self) -> UnixMs {
        self.expires
    }

    /// Used up before, so its platform was not asked again. It opens nothing.
    pub fn is_unconfirmed(&self) -> bool {
        self.unconfirmed
    }
}

/// Why evidence was refused before policy saw it.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("the token was refused: {0}")]
    Token(#[from] Refusal),
    #[error("the issuer is not in the bundle")]
    UnknownIssuer,
    #[error("Dayfly issued this itself")]
    Own,
    #[error("the token is genuine, but the issuer's pins do not match")]
    Stranger,
    #[error("a claim was refused: {0}")]
    Claim(String),
    #[error("the issuer's keys are not available: {0}")]
    Keys(#[from] KeysError),
    /// The platform was to be asked, and does not answer.
    #[error("the workload cannot be confirmed: {0}")]
    Unconfirmed(Cow<'static, str>),
    /// A known workload, refused by its profile: recorded.
    #[error("the profile refuses this kind of run")]
    Refused { reason: Reason, workload: Box<Workload> },
}

impl IntakeError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Token(refusal) => refusal.reason(),
            Self::UnknownIssuer => Reason::Issuer,
            Self::Own => Reason::Own,
            Self::Stranger => Reason::Stranger,
            Self::Claim(_) => Reason::Claim,
            Self::Keys(_) | Self::Unconfirmed(_) => Reason::IssuerDown,
            Self::Refused { reason, .. } => *reason,
        }
    }
}

/// Proves a presented token. `own_issuer`: nothing of ours is evidence (law L13). `is_used`: whether
/// evidence has opened a task, so that nobody has a platform asked again and again with it.
// SECURITY: `our_own_tokens_are_no_evidence`, `t_027_another_issuers_key_is_refused`,
// `t_070_used_evidence_has_nobody_asked_again`.
pub async fn prove(
    token: &str,
    bundle: &Bundle,
    own_issuer: &str,
    keys: &IssuerKeys,
    is_used: impl Fn(&[u8; 32]) -> bool,
    now: UnixMs,
) -> Result<Proven, IntakeError> {
    let jws = Jws::parse(token)?;
    let origin = Origin::of(&jws, IssuerKind::Workload, bundle, own_issuer)?;
    let verified = origin.verify(&jws, keys, now).await?;
    let mut workload = origin.read(&verified)?;
    let evidence_key = evidence_key(&origin.issuer.url, &jws, verified.claims());
    let unconfirmed = origin.issuer.review.is_some() && is_used(&evidence_key);
    if !unconfirmed {
        workload = origin.confirm(token, &verified, workload, keys).await?;
    }
    Ok(Proven {
        evidence_key,
        issued_at: UnixMs::from_s(verified.issued_at_s()),
        expires: UnixMs::from_s(verified.expires_at_s()),
        workload,
        unconfirmed,
    })
}

/// The issuer that a token is said to be of, as the bundle knows it.
struct Origin<'a> {
    issuer: &'a Issuer,
    profile: &'a Profile,
}

impl<'a> Origin<'a> {
    /// The issuer is known from the bundle, never learnt from the token: `iss` only picks a row.
    /// One kind of issuer is never taken for another.
    // SECURITY: `a_workloads_evidence_is_no_assertion`, `an_assertion_is_no_evidence`.
    fn of(jws: &Jws, kind: IssuerKind, bundle: &'a Bundle, own_issuer: &str) -> Result<Self, IntakeError> {
        let signer = claimed_signer(jws, bundle, own_issuer)?;
        let fits = |issuer: &&Issuer| issuer.kind == kind && !issuer.disabled && signer.is(issuer);
        let candidates: Vec<&Issuer> = bundle.issuers.values().filter(fits).collect();
        let audience = jws.unverified_claims().get("aud").map(|aud| match aud {
            Value::Array(members) => members.first().and_then(Value::as_str),
            other => other.as_str(),
        });
        let by_audience = candidates.iter().find(|issuer| audience.flatten() == Some(&*issuer.audience));
        let issuer = *by_audience.or(candidates.first()).ok_or(IntakeError::UnknownIssuer)?;
        let profile = bundle.profiles.get(&issuer.profile).ok_or(IntakeError::UnknownIssuer)?;
        Ok(Self { issuer, profile })
    }

    /// Through the one gate, with this issuer's own keys.
    async fn verify(
        &self,
        jws: &Jws,
        keys: &IssuerKeys,
        now: UnixMs,
    ) -> Result<Verified<Map<String, Value>>, IntakeError> {
        let issuer = self.issuer;
        let set = keys.of(issuer, jws.kid(), jws.alg(), now).await?;
        let rules = Rules {
            signer: match issuer.trust_domain() {
                Some(domain) => Signer::TrustDomain(domain.into()),
                None => Signer::Issuer(issuer.url.clone()),
            },
            audience: issuer.audience.clone(),
            algs: issuer.algs.clone(),
            typ: issuer.typ.clone(),
            max_age_s: Some(self.profile.max_age.as_s()),
            float_iat: self.profile.float_iat,
            leeway_s: LEEWAY_S,
            max_ahead_s: MAX_AHEAD_S,
        };
        Ok(verify(jws, &set, &rules, now)?)
    }

    /// The workload, once the platform says that it still exists, where the issuer has it asked.
    async fn confirm(
        &self,
        token: &str,
        verified: &Verified<Map<String, Value>>,
        workload: Workload,
        keys: &IssuerKeys,
    ) -> Result<Workload, IntakeError> {
        let Some(review) = &self.issuer.review else { return Ok(workload) };
        let reviewed = Reviewed { token, payload: verified.claims(), workload: &workload };
        let confirmed = review::confirm(keys.fetcher(), review, self.issuer, self.profile, reviewed).await;
        keys.reviewed(self.issuer, confirmed.as_ref().err().and_then(NotConfirmed::unanswered));
        match confirmed {
            Ok(()) => Ok(workload),
            Err(NotConfirmed::Gone) => {
                Err(IntakeError::Refused { reason: Reason::NotAlive, workload: Box::new(workload) })
            }
            Err(NotConfirmed::Audience) => Err(Refusal::Audience.into()),
            Err(NotConfirmed::Unavailable(why)) => {
                tracing::warn!(issuer = %self.issuer.name, %why, "workloads cannot be confirmed");
                Err(IntakeError::Unconfirmed(why))
            }
        }
    }

    /// Pins, then typed claims.
    fn read(&self, verified: &Verified<Map<String, Value>>) -> Result<Workload, IntakeError> {
        read(self.issuer, self.profile, verified.claims()).map_err(|refusal| match refusal {
            ClaimRefusal::Stranger => IntakeError::Stranger,
            ClaimRefusal::Claim(what) => IntakeError::Claim(what),
            ClaimRefusal::Refused { reason, workload } => IntakeError::Refused { reason, workload },
        })
    }
}

/// Who a token says signed it: its `iss`, or the trust domain of its `sub`.
enum Claimed<'a> {
    Issuer(&'a str),
    TrustDomain(&'a str),
}

impl Claimed<'_> {
    fn is(&self, issuer: &Issuer) -> bool {
        match self {
            Self::Issuer(url) => issuer.trust_domain().is_none() && &*issuer.url == *url,
            Self::TrustDomain(domain) => issuer.trust_domain() == Some(domain),
        }
    }
}

/// An `iss` that the bundle knows says it. A JWT-SVID needs none (many have none, some have one that
/// nobody was told of): it is of the trust domain that its `sub` names, whole and byte for byte.
// SECURITY: `an_id_of_our_own_trust_domain_is_no_evidence`, `a_trust_domain_is_known_whole`.
fn claimed_signer<'a>(jws: &'a Jws, bundle: &Bundle, own_issuer: &str) -> Result<Claimed<'a>, IntakeError> {
    let claims = jws.unverified_claims();
    let (iss, sub) = (jws.unverified_issuer(), claims.get("sub").and_then(Value::as_str));
    let id = sub.and_then(SpiffeId::parse);
    if iss == Some(own_issuer) || id.is_some_and(|id| id.trust_domain() == bundle.trust_domain) {
        return Err(IntakeError::Own);
    }
    match (iss, id) {
        (Some(url), _) if bundle.issuers.values().any(|issuer| Claimed::Issuer(url).is(issuer)) => {
            Ok(Claimed::Issuer(url))
        }
        (None, _) if claims.contains_key("iss") => Err(Refusal::Issuer.into()),
        (_, Some(id)) => Ok(Claimed::TrustDomain(id.trust_domain())),
        (Some(_), None) => Err(IntakeError::UnknownIssuer),
        (None, None) => Err(Refusal::Issuer.into()),
    }
}

/// SHA-256(issuer URL, 0, "jti", jti), or without `jti` over the signing input: the bytes before
/// the second dot, never the signature (an ECDSA signature has a twin).
// SECURITY: `t_043_a_signature_twin_is_the_same_evidence`.
fn evidence_key(issuer: &str, jws: &Jws, claims: &Map<String, Value>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(issuer.as_bytes());
    context.update(&[0]);
    match claims.get("jti").and_then(Value::as_str) {
        Some(jti) => {
            context.update(b"jti");
            context.update(jti.as_bytes());
        }
        None => {
            context.update(b"in");
            context.update(jws.signing_input().as_bytes());
        }
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}
