//! Checking a task token without asking anybody: its signature, its audience and its times.

use std::{fmt, sync::Arc};

use crate::{
    CertificateRefusal, Clock, Confirmation, KeySet, ProofOf, ProofRefusal, Refusal, Refused, StatusRef, SystemClock,
    TaskClaims, Thumbprint, Verified,
    dpop::{ProofRules, Proofs, check_proof},
    inspect_task_token,
    status::{ListRefusal, ListToken, list_name},
};
#[cfg(feature = "online")]
use crate::{Jws, online::KeptKeys};

/// Accepts task tokens of one broker for one audience, by signature alone.
///
/// It refuses a token at its `exp` and never hears of an end before that. **Worst case after an
/// end**: the token is honoured until its `exp`, plus however much this machine's clock is behind
/// the broker's (the server's own leeway); there is no leeway for `exp` here. Where that is too
/// long, use `Online`.
pub struct Offline {
    keys: Keys,
    issuer: Arc<str>,
    audience: Arc<str>,
    clock: Arc<dyn Clock>,
    proofs: Proofs,
}

enum Keys {
    Given(Arc<KeySet>),
    #[cfg(feature = "online")]
    Kept(KeptKeys),
}

impl Offline {
    /// With keys that the caller keeps fresh, as published under the broker's `/oauth2/jwks`.
    pub fn new(keys: KeySet, issuer: impl Into<Arc<str>>, audience: impl Into<Arc<str>>) -> Self {
        Self {
            keys: Keys::Given(Arc::new(keys)),
            issuer: issuer.into(),
            audience: audience.into(),
            clock: Arc::new(SystemClock),
            proofs: Proofs::default(),
        }
    }

    /// With a clock other than the machine's.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        #[cfg(feature = "online")]
        if let Keys::Kept(keys) = &mut self.keys {
            keys.set_clock(clock.clone());
        }
        self.clock = clock;
        self
    }

    /// Checks a token that is bound to no key (`Authorization: Bearer`), with the keys at hand; fetches
    /// nothing. [`Refused::Unavailable`] when kept keys are older than an hour.
    pub fn check(&self, token: &str) -> Result<Verified<TaskClaims>, Refused> {
        let verified = self.inspect(token)?;
        match verified.claims().cnf {
            None => Ok(verified),
            Some(Confirmation::Jkt(_)) => Err(Refusal::Claim("cnf").into()),
            Some(Confirmation::X5t(_)) => Err(CertificateRefusal::Missing.into()),
        }
    }

    /// As [`Offline::check`] for a token that is bound to a client certificate (RFC 8705 section 3):
    /// `certificate` is the DER of the certificate that the client authenticated with on this very connection;
    /// `None`, where there was none, refuses. A token that is bound to none is refused too.
    ///
    /// The TLS stack has proven that the client holds the certificate's key. Whether the certificate itself is
    /// good (chain, times, CRL) is for the server's TLS settings to say, or for a check of its own. Never take it
    /// from a header that a client can send.
    // SECURITY: a_token_of_another_certificate_is_refused, a_certificate_opens_no_token_that_is_bound_to_none
    pub fn check_certified(&self, token: &str, certificate: Option<&[u8]>) -> Result<Verified<TaskClaims>, Refused> {
        let verified = self.inspect(token)?;
        match (verified.claims().cnf, certificate) {
            (Some(Confirmation::X5t(bound)), Some(der)) if Thumbprint::of_certificate(der).matches(&bound) => {
                Ok(verified)
            }
            (Some(Confirmation::X5t(_)), Some(_)) => Err(CertificateRefusal::Other.into()),
            (Some(Confirmation::X5t(_)), None) => Err(CertificateRefusal::Missing.into()),
            (Some(Confirmation::Jkt(_)), _) => Err(Refusal::Claim("cnf").into()),
            (None, _) => Err(CertificateRefusal::Unbound.into()),
        }
    }

    fn inspect(&self, token: &str) -> Result<Verified<TaskClaims>, Refused> {
        let keys = self.current()?;
        Ok(inspect_task_token(token, &keys, &self.issuer, &self.audience, self.clock.now())?)
    }

    /// As [`Offline::check`] for a token that is bound to a key (`Authorization: DPoP`, RFC 9449 section
    /// 7.1): the proof must be for this request and this token, by that key, and new to this `Offline`.
    /// Keep one for all that a server answers for; what a second process accepted, it does not know.
    // SECURITY: a_stolen_bound_token_is_worth_nothing, an_unbound_token_is_no_bound_one
    pub fn check_bound(&self, token: &str, of: &ProofOf<'_>) -> Result<Verified<TaskClaims>, Refused> {
        let (verified, now) = (self.inspect(token)?, self.clock.now());
        let bound = match verified.claims().cnf.ok_or(ProofRefusal::Unbound)? {
            Confirmation::Jkt(bound) => bound,
            Confirmation::X5t(_) => return Err(CertificateRefusal::Missing.into()),
        };
        let rules = ProofRules { method: of.method, url: of.url, token: Some(token) };
        let proof = check_proof(of.proof, &rules, now)?;
        if !proof.thumbprint().matches(&bound) {
            return Err(ProofRefusal::OtherKey.into());
        }
        self.proofs.accept(proof, now)?;
        Ok(verified)
    }

    /// Reads a status list token that the caller has: a file, a message, an answer of
    /// `{issuer}/status/{list}`. `entries_max`: most entries that are read, by default
    /// [`crate::status::LIST_ENTRIES_MAX`].
    pub fn read_list(&self, list_token: &str, entries_max: u32) -> Result<ListToken, Refused> {
        Ok(ListToken::read(list_token, &*self.current()?, &self.issuer, entries_max, self.clock.now())?)
    }

    /// As [`Offline::check`], and the token's entry on its status list says that it is valid. A token without
    /// `status` is refused ([`Refusal::Claim`] of `status`); so is one whose list is not among these, or is
    /// expired ([`Refused::List`]).
    ///
    /// **Worst case after an end**: until the `exp` of the list that the caller hands in. How fresh it is
    /// beyond that is the caller's to say: look for a newer one each [`ListToken::ttl_s`].
    // SECURITY: a_token_without_status_is_refused_by_list, an_expired_list_says_nothing
    pub fn check_listed(&self, token: &str, lists: &[ListToken]) -> Result<Verified<TaskClaims>, Refused> {
        self.listed(self.check(token)?, lists)
    }

    /// As [`Offline::check_listed`] for a token that is bound to a key; see [`Offline::check_bound`].
    pub fn check_bound_listed(
        &self,
        token: &str,
        of: &ProofOf<'_>,
        lists: &[ListToken],
    ) -> Result<Verified<TaskClaims>, Refused> {
        self.listed(self.check_bound(token, of)?, lists)
    }

    /// As [`Offline::check_listed`] for a token that is bound to a certificate; see [`Offline::check_certified`].
    pub fn check_certified_listed(
        &self,
        token: &str,
        certificate: Option<&[u8]>,
        lists: &[ListToken],
    ) -> Result<Verified<TaskClaims>, Refused> {
        self.listed(self.check_certified(token, certificate)?, lists)
    }

    fn listed(&self, verified: Verified<TaskClaims>, lists: &[ListToken]) -> Result<Verified<TaskClaims>, Refused> {
        let entry = self.entry(verified.claims())?;
        let list = lists.iter().find(|list| list.uri() == entry.uri).ok_or(ListRefusal::Missing)?;
        list.check(entry, self.clock.now())?;
        Ok(verified)
    }

    /// Where the token's status is: on a list of its own issuer, or it has none.
    // SECURITY: a_list_of_another_place_is_refused
    pub(crate) fn entry<'a>(&self, claims: &'a TaskClaims) -> Result<&'a StatusRef, Refused> {
        let entry = claims.status.as_ref().map(|status| &status.status_list);
        Ok(entry.filter(|entry| list_name(&self.issuer, &entry.uri).is_some()).ok_or(Refusal::Claim("status"))?)
    }

    fn current(&self) -> Result<Arc<KeySet>, Refused> {
        match &self.keys {
            Keys::Given(keys) => Ok(keys.clone()),
            #[cfg(feature = "online")]
            Keys::Kept(keys) => keys.current().ok_or(Refused::Unavailable),
        }
    }
}

#[cfg(feature = "online")]
impl Offline {
    pub(crate) fn with_kept(keys: KeptKeys, audience: Arc<str>, clock: Arc<dyn Clock>) -> Self {
        Self { issuer: keys.issuer(), keys: Keys::Kept(keys), audience, clock, proofs: Proofs::default() }
    }

    /// With the keys that the broker publishes, fetched now and kept fresh by
    /// [`Offline::check_fresh`]: again after 300 s, or for an unknown `kid` (at most every 30 s).
    /// While fetching fails, keys are good for an hour. `ca_pem`: the roots that may vouch for the
    /// broker; `None`: the machine's.
    pub async fn discover(issuer: &str, audience: &str, ca_pem: Option<Vec<u8>>) -> Result<Self, crate::SetupError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let keys = KeptKeys::fetch(issuer, ca_pem.as_deref(), clock.clone()).await?;
        Ok(Self::with_kept(keys, audience.into(), clock))
    }

    /// As [`Offline::check`], after fetching keys where that is due.
    pub async fn check_fresh(&self, token: &str) -> Result<Verified<TaskClaims>, Refused> {
        self.refresh(token).await?;
        self.check(token)
    }

    /// As [`Offline::check_bound`], after fetching keys where that is due.
    pub async fn check_bound_fresh(&self, token: &str, of: &ProofOf<'_>) -> Result<Verified<TaskClaims>, Refused> {
        self.refresh(token).await?;
        self.check_bound(token, of)
    }

    /// As [`Offline::check_certified`], after fetching keys where that is due.
    pub async fn check_certified_fresh(
        &self,
        token: &str,
        certificate: Option<&[u8]>,
    ) -> Result<Verified<TaskClaims>, Refused> {
        self.refresh(token).await?;
        self.check_certified(token, certificate)
    }

    async fn refresh(&self, token: &str) -> Result<(), Refused> {
        if let Keys::Kept(keys) = &self.keys {
            // What is no token at all causes no fetch.
            let jws = Jws::parse(token)?;
            keys.refresh_for(jws.kid(), jws.alg()).await;
        }
        Ok(())
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) fn audience(&self) -> &str {
        &self.audience
    }

    pub(crate) fn kept(&self) -> Option<&KeptKeys> {
        match &self.keys {
            Keys::Kept(keys) => Some(keys),
            Keys::Given(_) => None,
        }
    }
}

impl fmt::Debug for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offline")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}
