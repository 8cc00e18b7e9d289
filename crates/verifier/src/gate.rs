//! The one gate: signature first, claims only afterwards, and every claim typed.
//!
//! In come a [`Jws`], the keys of the issuer it is said to be of, and [`Rules`]; out goes
//! [`Verified`], which nothing else can make. `jsonwebtoken` checks the signature and validates;
//! because it accepts what we must not (`iss` as an array, several audiences, floats), the checks
//! here run beside it and both must agree.

use std::{fmt, sync::Arc};

use dayfly_domain::{UnixMs, spiffe::SpiffeId};
use jsonwebtoken::{Validation, errors::ErrorKind};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::{Jws, KeySet, Refusal, crypto, keys::For};

/// Who signs a kind of token, and which claim says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// `iss`, byte for byte.
    Issuer(Arc<str>),
    /// A SPIFFE trust domain (JWT-SVID, section 3): `sub` is a SPIFFE ID in it. `iss` may be absent;
    /// whatever text it is, it says nothing.
    TrustDomain(Arc<str>),
}

/// What one issuer's tokens must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Whose it must be, and how it says so.
    pub signer: Signer,
    /// `aud`, byte for byte: a string, or an array with this one member.
    pub audience: Arc<str>,
    /// Names of RFC 7518; what we do not verify never matches, whatever is listed.
    pub algs: Vec<String>,
    /// Accepted `typ`, compared byte for byte; `""` stands for an absent header. A prefix
    /// `application/` is not stripped.
    pub typ: Vec<String>,
    /// Refuse what was issued longer ago than this, whatever its `exp`.
    pub max_age_s: Option<u32>,
    /// Take an `iat` that is written as a float, such as `1.7e9` (some libraries write all
    /// numbers so).
    pub float_iat: bool,
    /// For `nbf` and `iat`. `exp` has none: an expired token is expired.
    pub leeway_s: u32,
    /// Refuse an `exp` further ahead than this.
    pub max_ahead_s: u32,
}

impl Rules {
    /// ES256 and RS256, `typ` absent or `JWT`, 30 s of leeway, `exp` at most 24 h ahead.
    pub fn new(issuer: impl Into<Arc<str>>, audience: impl Into<Arc<str>>) -> Self {
        Self {
            signer: Signer::Issuer(issuer.into()),
            audience: audience.into(),
            algs: vec!["RS256".to_owned(), "ES256".to_owned()],
            typ: vec![String::new(), "JWT".to_owned()],
            max_age_s: None,
            float_iat: false,
            leeway_s: 30,
            max_ahead_s: 24 * 3600,
        }
    }

    fn accepts_typ(&self, typ: Option<&str>) -> bool {
        self.typ.iter().any(|accepted| accepted == typ.unwrap_or_default()) && typ.is_none_or(|typ| !typ.is_empty())
    }
}

/// Claims whose signature and times were checked. Only [`verify`] makes one, and nothing turns
/// other claims into one.
pub struct Verified<C> {
    claims: C,
    issued_at_s: i64,
    expires_at_s: i64,
}

impl<C> Verified<C> {
    /// All claims, the unknown ones included.
    pub fn claims(&self) -> &C {
        &self.claims
    }

    /// The claims alone: what was proven about them is given up.
    pub fn into_claims(self) -> C {
        self.claims
    }

    /// `iat`, in Unix seconds.
    pub fn issued_at_s(&self) -> i64 {
        self.issued_at_s
    }

    /// `exp`, in Unix seconds: from this second on the token is dead.
    pub fn expires_at_s(&self) -> i64 {
        self.expires_at_s
    }
}

impl Verified<Map<String, Value>> {
    /// The same claims read as a type; inside this crate only.
    pub(crate) fn read<C>(
        self,
        read: impl FnOnce(Map<String, Value>) -> Result<C, Refusal>,
    ) -> Result<Verified<C>, Refusal> {
        let Self { claims, issued_at_s, expires_at_s } = self;
        Ok(Verified { claims: read(claims)?, issued_at_s, expires_at_s })
    }
}

/// Without the claims: raw claims belong in no log.
impl<C> fmt::Debug for Verified<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("issued_at_s", &self.issued_at_s)
            .field("expires_at_s", &self.expires_at_s)
            .finish_non_exhaustive()
    }
}

/// Checks header against rules, then the signature, then the claims, in this order.
///
/// `keys` must be those of the issuer that `rules` names and of no other: a key that verifies for
/// one issuer must not verify for the next.
// SECURITY: t_023_the_signature_comes_before_the_claims
pub fn verify(jws: &Jws, keys: &KeySet, rules: &Rules, now: UnixMs) -> Result<Verified<Map<String, Value>>, Refusal> {
    let library = genuine(jws, keys, rules, &validation(jws, rules), For::Tokens)?;
    let claims = jws.unverified_claims();
    let (issued_at_s, expires_at_s) = check_claims(claims, rules, now)?;
    library.map_err(|_| Refusal::Claim("claims"))?;
    Ok(Verified { claims: claims.clone(), issued_at_s, expires_at_s })
}

/// The same for a token that is for whoever reads it: `aud` says nothing, `iss` may be absent. For status
/// lists, whose `typ` sets them apart from everything that lets somebody in.
pub(crate) fn verify_for_all(
    jws: &Jws,
    keys: &KeySet,
    rules: &Rules,
    now: UnixMs,
) -> Result<Verified<Map<String, Value>>, Refusal> {
    let mut validation = validation(jws, rules);
    validation.set_required_spec_claims(&["exp", "sub"]);
    validation.validate_aud = false;
    let library = genuine(jws, keys, rules, &validation, For::Anything)?;
    let claims = jws.unverified_claims();
    if claims.contains_key("iss") {
        check_signer(claims, &rules.signer)?;
    }
    let (issued_at_s, expires_at_s) = check_times(claims, rules, now.as_s())?;
    library.map_err(|_| Refusal::Claim("claims"))?;
    Ok(Verified { claims: claims.clone(), issued_at_s, expires_at_s })
}

/// Header against rules, then the signature. What comes back says what the library thinks of the claims.
fn genuine(
    jws: &Jws,
    keys: &KeySet,
    rules: &Rules,
    validation: &Validation,
    what: For,
) -> Result<Result<(), jsonwebtoken::errors::Error>, Refusal> {
    if !rules.algs.iter().any(|alg| alg == jws.alg()) {
        return Err(Refusal::Algorithm);
    }
    if !rules.accepts_typ(jws.typ()) {
        return Err(Refusal::Type);
    }
    // So that later a JSON error can only be of the claims, which are read after the signature.
    jsonwebtoken::decode_header(jws.token()).map_err(|_| Refusal::Header)?;
    let key = keys.find(jws.kid(), jws.algorithm(), what).ok_or(Refusal::UnknownKey)?;
    // Another provider of the process's own verifies as well; a failing one refuses.
    let _ = crypto::init();
    // `IgnoredAny`: the claims that count are those the strict reader took from the same bytes.
    let library = jsonwebtoken::decode::<IgnoredAny>(jws.token(), key, validation);
    match library.as_ref().err().and_then(|error| before_claims(error.kind())) {
        Some(refusal) => Err(refusal),
        None => Ok(library.map(drop)),
    }
}

/// Whether the header's `kid` names one of these keys, and that key made the signature. Nothing is
/// said of the claims, neither their times nor for whom they are: let nobody in by it.
pub fn signed_by(jws: &Jws, keys: &KeySet) -> bool {
    let Some(key) = jws.kid().and_then(|kid| keys.find(Some(kid), jws.algorithm(), For::Anything)) else {
        return false;
    };
    let Some((message, signature)) = jws.token().rsplit_once('.') else { return false };
    let _ = crypto::init();
    matches!(jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, jws.algorithm()), Ok(true))
}

/// The times are left out: they are compared with the caller's clock, in [`check_times`].
fn validation(jws: &Jws, rules: &Rules) -> Validation {
    let mut validation = Validation::new(jws.algorithm());
    match &rules.signer {
        Signer::Issuer(issuer) => {
            validation.set_required_spec_claims(&["exp", "iss", "aud"]);
            validation.set_issuer(&[issuer]);
        }
        Signer::TrustDomain(_) => validation.set_required_spec_claims(&["exp", "sub", "aud"]),
    }
    validation.set_audience(&[&rules.audience]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

/// What `jsonwebtoken` refused, unless it got as far as the claims: those we name ourselves.
fn before_claims(kind: &ErrorKind) -> Option<Refusal> {
    match kind {
        ErrorKind::Json(_)
        | ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::ExpiredSignature
        | ErrorKind::InvalidIssuer
        | ErrorKind::InvalidAudience
        | ErrorKind::InvalidSubject
        | ErrorKind::ImmatureSignature => None,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Some(Refusal::Algorithm),
        _ => Some(Refusal::Signature),
    }
}

fn check_claims(claims: &Map<String, Value>, rules: &Rules, now: UnixMs) -> Result<(i64, i64), Refusal> {
    check_signer(claims, &rules.signer)?;
    if only_audience(claims) != Some(&*rules.audience) {
        return Err(Refusal::Audience);
    }
    for name in ["sub", "jti"] {
        if claims.get(name).is_some_and(|value| !is_text(value)) {
            return Err(Refusal::Claim(name));
        }
    }
    check_times(claims, rules, now.as_s())
}

// SECURITY: t_034_an_issuer_is_equal_byte_for_byte, a_trust_domain_is_equal_byte_for_byte
fn check_signer(claims: &Map<String, Value>, signer: &Signer) -> Result<(), Refusal> {
    let (iss, sub) = (claims.get("iss"), claims.get("sub").and_then(Value::as_str));
    match signer {
        Signer::Issuer(issuer) if iss.and_then(Value::as_str) == Some(&**issuer) => Ok(()),
        Signer::Issuer(_) => Err(Refusal::Issuer),
        Signer::TrustDomain(_) if iss.is_some_and(|iss| !is_text(iss)) => Err(Refusal::Issuer),
        Signer::TrustDomain(domain) => match sub.and_then(SpiffeId::parse) {
            Some(id) if id.trust_domain() == &**domain => Ok(()),
            _ => Err(Refusal::Claim("sub")),
        },
    }
}

// SECURITY: t_033_an_audience_of_another_shape_is_refused
fn only_audience(claims: &Map<String, Value>) -> Option<&str> {
    match claims.get("aud")? {
        Value::String(audience) => Some(audience),
        Value::Array(audiences) => match audiences.as_slice() {
            [only] => only.as_str(),
            _ => None,
        },
        _ => None,
    }
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.trim().is_empty())
}

fn check_times(claims: &Map<String, Value>, rules: &Rules, now_s: i64) -> Result<(i64, i64), Refusal> {
    let required = |name| seconds(claims, name)?.ok_or(Refusal::Claim(name));
    let iat = issued_at_s(claims, rules.float_iat).ok_or(Refusal::Claim("iat"))?;
    let (exp, nbf) = (required("exp")?, seconds(claims, "nbf")?);
    let soonest_s = now_s.saturating_add(rules.leeway_s.into());
    if now_s >= exp {
        return Err(Refusal::Expired);
    }
    if exp > now_s.saturating_add(rules.max_ahead_s.into()) {
        return Err(Refusal::Claim("exp"));
    }
    if iat > soonest_s || nbf.is_some_and(|nbf| nbf > soonest_s) {
        return Err(Refusal::NotYetValid);
    }
    if rules.max_age_s.is_some_and(|max_age_s| now_s.saturating_sub(iat) > max_age_s.into()) {
        return Err(Refusal::TooOld);
    }
    Ok((iat, exp))
}

/// A NumericDate (RFC 7519 section 2), as an integer from 0 only.
// SECURITY: t_029_wrong_typed_times_are_refused
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_i64().filter(|&s| s >= 0).map(Some).ok_or(Refusal::Claim(name)),
    }
}

/// `iat` as a NumericDate; where `float` says so also as a float, down to its whole second, far below
/// where floats skip seconds.
pub fn issued_at_s(claims: &Map<String, Value>, float: bool) -> Option<i64> {
    let value = claims.get("iat")?;
    let seconds = value.as_f64().filter(|_| float && value.is_f64());
    let in_range = |seconds: &f64| seconds.is_sign_positive() && *seconds < 1e15;
    #[allow(clippy::cast_possible_truncation, reason = "in range; the fraction is what is dropped")]
    let seconds = seconds.filter(in_range).map(|seconds| seconds as i64);
    seconds.or_else(|| value.as_i64().filter(|&seconds| seconds >= 0))
}
