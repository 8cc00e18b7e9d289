//! Checking a task token without asking anybody: its signature, its audience and its times.

use std::{fmt, sync::Arc};

use crate::{Clock, KeySet, Refused, SystemClock, TaskClaims, Verified, read_task_token};
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

    /// Checks with the keys at hand; fetches nothing. [`Refused::Unavailable`] when kept keys are
    /// older than an hour.
    pub fn check(&self, token: &str) -> Result<Verified<TaskClaims>, Refused> {
        let keys = self.current()?;
        Ok(read_task_token(token, &keys, &self.issuer, &self.audience, self.clock.now())?)
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
        Self { issuer: keys.issuer(), keys: Keys::Kept(keys), audience, clock }
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
        if let Keys::Kept(keys) = &self.keys {
            // What is no token at all causes no fetch.
            let jws = Jws::parse(token)?;
            keys.refresh_for(jws.kid(), jws.alg()).await;
        }
        self.check(token)
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
