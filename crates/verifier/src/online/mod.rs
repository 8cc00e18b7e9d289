//! Asking the broker: feature `online`.
//!
//! `https` is the one way out, `keys` keeps the broker's keys, `credential` is what we show it,
//! `answers` keeps what it said, and [`Online`] puts them together; `lists` keeps its status lists, and
//! [`Listed`] goes by them.

mod answers;
mod credential;
mod https;
mod keys;
mod listed;
mod lists;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ring::digest;
use serde_json::{Map, Value};

use crate::{Clock, Offline, ProofOf, Refusal, Refused, SystemClock, TaskClaims, Verified, json};
use answers::Answers;
use credential::{Proof, Shown};
use https::Https;

pub use credential::Credential;
pub use https::Outage;
pub(crate) use keys::KeptKeys;
pub use listed::{ListSettings, Listed};

/// How to ask one broker about tokens for one audience.
#[derive(Debug)]
pub struct OnlineSettings {
    /// The broker's issuer URL: `https`, without query, fragment or trailing slash.
    pub issuer: String,
    /// This server's target URI.
    pub audience: String,
    /// PEM of the roots that may vouch for the broker; `None`: the machine's.
    pub ca_pem: Option<Vec<u8>>,
    /// What this server shows to the broker.
    pub credential: Credential,
    /// How long an answer is used again. Zero asks for each request.
    pub max_stale: Duration,
}

/// Why a verifier cannot start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    #[error("the issuer is not an https URL without user, query, fragment and trailing slash")]
    Issuer,
    #[error("the roots cannot be read, or hold no certificate")]
    Roots,
    #[error("TLS cannot be set up")]
    Tls,
    /// Missing, larger than 16 KiB, not PKCS#8 in PEM, not P-256, or without a `client_id`.
    #[error("this server's own key cannot be read, or is no P-256 key in PKCS#8 PEM")]
    Key,
    #[error("the broker's keys cannot be fetched: {0}")]
    Keys(Outage),
}

/// Accepts task tokens of one broker for one audience, and asks the broker whether they are still
/// active (RFC 7662).
///
/// First [`Offline`]'s check, then the broker's answer, kept by SHA-256 of the token for at most
/// `max_stale`. **Worst case after an end**: `max_stale` + 2 s (a question takes 2 s at most).
/// Whatever goes wrong is refused: [`Refused::Unavailable`], unless an answer younger than
/// `max_stale` is there.
///
/// ```no_run
/// # use std::time::Duration;
/// # use dayfly_verifier::{Credential, Online, OnlineSettings};
/// # async fn serve(token: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let online = Online::new(OnlineSettings {
///     issuer: "https://dayfly.example".into(),
///     audience: "https://db-0.example".into(),
///     ca_pem: None,
///     credential: Credential::OwnKey {
///         client_id: "db-0".into(),
///         key_file: "/etc/db-0/verifier.pem".into(),
///     },
///     max_stale: Duration::from_secs(5),
/// })
/// .await?;
/// let caller = online.check(token).await?;
/// assert!(caller.claims().allows("db:migrate"));
/// # Ok(())
/// # }
/// ```
pub struct Online {
    offline: Offline,
    https: Arc<Https>,
    introspection: String,
    shown: Shown,
    answers: Mutex<Answers>,
    outage: Mutex<Option<Outage>>,
}

impl Online {
    /// Fetches the broker's keys; an error when that fails, so that a wrong setting shows at start.
    pub async fn new(settings: OnlineSettings) -> Result<Self, SetupError> {
        Self::with_clock(settings, Arc::new(SystemClock)).await
    }

    /// With a clock other than the machine's.
    pub async fn with_clock(settings: OnlineSettings, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        let OnlineSettings { issuer, audience, ca_pem, credential, max_stale } = settings;
        let shown = Shown::new(credential, &issuer)?;
        let keys = KeptKeys::fetch(&issuer, ca_pem.as_deref(), clock.clone()).await?;
        Ok(Self {
            https: keys.https(),
            offline: Offline::with_kept(keys, audience.into(), clock),
            introspection: format!("{issuer}/oauth2/introspect"),
            shown,
            answers: Mutex::new(Answers::new(max_stale)),
            outage: Mutex::new(None),
        })
    }

    /// Whether the token is genuine, for this audience, and active not longer ago than `max_stale`.
    // SECURITY: an_unreachable_broker_refuses, an_ended_token_is_refused_after_max_stale
    pub async fn check(&self, token: &str) -> Result<Verified<TaskClaims>, Refused> {
        let verified = self.offline.check_fresh(token).await?;
        self.active(token, verified).await
    }

    /// The same for a token that is bound to a key, shown with `Authorization: DPoP` and a proof
    /// (RFC 9449 section 7.1); see [`Offline::check_bound`].
    // SECURITY: a_bound_token_is_asked_for_too_and_only_with_its_proof
    pub async fn check_bound(&self, token: &str, of: &ProofOf<'_>) -> Result<Verified<TaskClaims>, Refused> {
        let verified = self.offline.check_bound_fresh(token, of).await?;
        self.active(token, verified).await
    }

    /// The same for a token that is bound to a client certificate; see [`Offline::check_certified`].
    pub async fn check_certified(
        &self,
        token: &str,
        certificate: Option<&[u8]>,
    ) -> Result<Verified<TaskClaims>, Refused> {
        let verified = self.offline.check_certified_fresh(token, certificate).await?;
        self.active(token, verified).await
    }

    async fn active(&self, token: &str, verified: Verified<TaskClaims>) -> Result<Verified<TaskClaims>, Refused> {
        let active = match self.known(token) {
            Some(active) => active,
            None => self.ask(token, &verified).await?,
        };
        if !active {
            return Err(Refused::Inactive);
        }
        // The question may have taken the token past its end.
        if self.offline.clock().now().as_s() >= verified.expires_at_s() {
            return Err(Refusal::Expired.into());
        }
        Ok(verified)
    }

    /// What went wrong last when the broker was asked or its keys were fetched, for this server's
    /// own log.
    pub fn last_outage(&self) -> Option<Outage> {
        let own = *self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        own.or_else(|| self.offline.kept().and_then(KeptKeys::last_outage))
    }

    fn known(&self, token: &str) -> Option<bool> {
        let at_ms = self.offline.clock().steady_ms();
        self.answers().get(&sha256(token), at_ms)
    }

    async fn ask(&self, token: &str, verified: &Verified<TaskClaims>) -> Result<bool, Refused> {
        let clock = self.offline.clock();
        // The answer is as old as its question.
        let asked_ms = clock.steady_ms();
        let left_ms = verified.expires_at_s().saturating_mul(1000).saturating_sub(clock.now().as_ms());
        let outcome = self.introspect(token, verified.claims()).await;
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = outcome.err();
        let active = outcome.map_err(|_| Refused::Unavailable)?;
        self.answers().put(sha256(token), active, asked_ms, left_ms);
        Ok(active)
    }

    /// RFC 7662 section 2. The token is base64url and dots, which a form needs not escape.
    async fn introspect(&self, token: &str, claims: &TaskClaims) -> Result<bool, Outage> {
        let mut body = format!("token={token}&token_type_hint=access_token");
        let bearer = match self.shown.proof(self.offline.clock().now())? {
            Proof::Bearer(bearer) => Some(bearer),
            Proof::Fields(fields) => {
                body.push_str(fields.expose());
                None
            }
        };
        let bearer = bearer.as_ref().map(|bearer| bearer.expose().as_str());
        let answer = self.https.post_form(&self.introspection, bearer, body).await;
        if answer.as_ref().is_err_and(|outage| *outage == Outage::Status(401)) {
            self.shown.was_refused();
        }
        let answer = json::object(&answer?).ok_or(Outage::Answer)?;
        match answer.get("active") {
            Some(Value::Bool(false)) => Ok(false),
            Some(Value::Bool(true)) if self.is_about(&answer, claims) => Ok(true),
            _ => Err(Outage::Answer),
        }
    }

    /// Whether the answer is of this very token.
    // SECURITY: an_answer_about_another_token_refuses
    fn is_about(&self, answer: &Map<String, Value>, claims: &TaskClaims) -> bool {
        let jti = answer.get("jti").and_then(Value::as_str).and_then(|jti| jti.parse().ok());
        jti == Some(claims.jti) && answer.get("aud").is_some_and(|aud| aud == self.offline.audience())
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Online {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Online").field("offline", &self.offline).finish_non_exhaustive()
    }
}

fn sha256(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}
