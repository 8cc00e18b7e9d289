//! Accepting tokens by signature and by the broker's status list.

use std::{fmt, sync::Arc};

use super::{KeptKeys, Outage, SetupError, lists::Lists};
use crate::{Clock, Offline, ProofOf, Refusal, Refused, SystemClock, TaskClaims, Verified, status::LIST_ENTRIES_MAX};

/// Which broker's tokens to accept for which audience, by status list.
#[derive(Debug)]
pub struct ListSettings {
    /// The broker's issuer URL: `https`, without query, fragment or trailing slash.
    pub issuer: String,
    /// This server's target URI.
    pub audience: String,
    /// PEM of the roots that may vouch for the broker; `None`: the machine's.
    pub ca_pem: Option<Vec<u8>>,
    /// Most entries of a list that are read.
    pub entries_max: u32,
}

impl ListSettings {
    /// The machine's roots, and lists of at most 2^17 entries.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), audience: audience.into(), ca_pem: None, entries_max: LIST_ENTRIES_MAX }
    }
}

/// Accepts task tokens of one broker for one audience, and looks at the broker's status list whether they
/// have ended (draft-ietf-oauth-status-list-21). The broker is asked for a list, never about a token: it
/// does not learn who is shown to this server, and needs no credential of it.
///
/// First [`Offline`]'s check, then the entry that the token's `status` names. Lists are fetched over TLS from
/// `{issuer}/status/`, checked like a token, and used again for their `ttl` (15 s by default).
///
/// **Worst case after an end**: `ttl` + 3 s while the list can be fetched (the broker signs at most
/// once a second, a fetch takes 2 s at most). While it cannot, the list at hand is used on, and asked
/// for again every 5 s, until its `exp` (300 s after it was signed by default) and not a second longer;
/// then every token on it is refused ([`Refused::List`]).
///
/// ```no_run
/// # use dayfly_verifier::{ListSettings, Listed};
/// # async fn serve(token: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let listed = Listed::new(ListSettings::new("https://dayfly.example", "https://db-0.example")).await?;
/// let caller = listed.check(token).await?;
/// assert!(caller.claims().allows("db:migrate"));
/// # Ok(())
/// # }
/// ```
pub struct Listed {
    offline: Offline,
    lists: Lists,
}

impl Listed {
    /// Fetches the broker's keys; an error when that fails, so that a wrong setting shows at start.
    pub async fn new(settings: ListSettings) -> Result<Self, SetupError> {
        Self::with_clock(settings, Arc::new(SystemClock)).await
    }

    /// With a clock other than the machine's.
    pub async fn with_clock(settings: ListSettings, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        let ListSettings { issuer, audience, ca_pem, entries_max } = settings;
        let keys = KeptKeys::fetch(&issuer, ca_pem.as_deref(), clock.clone()).await?;
        let lists = Lists::new(&keys, clock.clone(), entries_max);
        Ok(Self { offline: Offline::with_kept(keys, audience.into(), clock), lists })
    }

    /// Whether the token is genuine, for this audience, and not ended by its status list.
    ///
    /// [`Refused::Inactive`] when it has ended; [`Refused::List`] when the list cannot be had or believed;
    /// [`Refusal::Claim`] of `status` when the token names no list of this broker, or an entry past the end.
    // SECURITY: a_token_without_status_is_refused_by_list, an_entry_that_is_set_is_an_ended_token
    pub async fn check(&self, token: &str) -> Result<Verified<TaskClaims>, Refused> {
        self.valid(self.offline.check_fresh(token).await?).await
    }

    /// The same for a token that is bound to a key, shown with `Authorization: DPoP` and a proof
    /// (RFC 9449 section 7.1); see [`Offline::check_bound`].
    pub async fn check_bound(&self, token: &str, of: &ProofOf<'_>) -> Result<Verified<TaskClaims>, Refused> {
        self.valid(self.offline.check_bound_fresh(token, of).await?).await
    }

    /// The same for a token that is bound to a client certificate; see [`Offline::check_certified`].
    pub async fn check_certified(
        &self,
        token: &str,
        certificate: Option<&[u8]>,
    ) -> Result<Verified<TaskClaims>, Refused> {
        self.valid(self.offline.check_certified_fresh(token, certificate).await?).await
    }

    /// Fetches those lists again of whose `ttl` half is over. Nothing needs it: a request fetches what it
    /// finds too old, and waits for it. Call it every few seconds in a task of your own, and no
    /// request waits.
    pub async fn refresh(&self) {
        if let Some(keys) = self.offline.kept() {
            self.lists.refresh(keys).await;
        }
    }

    /// What went wrong last when a list or the broker's keys were fetched, for this server's own log.
    pub fn last_outage(&self) -> Option<Outage> {
        self.lists.last_outage().or_else(|| self.offline.kept().and_then(KeptKeys::last_outage))
    }

    async fn valid(&self, verified: Verified<TaskClaims>) -> Result<Verified<TaskClaims>, Refused> {
        let entry = self.offline.entry(verified.claims())?;
        let keys = self.offline.kept().ok_or(Refused::Unavailable)?;
        let list = self.lists.get(&entry.uri, keys).await?;
        let now = self.offline.clock().now();
        list.check(entry, now)?;
        // The fetch may have taken the token past its end.
        if now.as_s() >= verified.expires_at_s() {
            return Err(Refusal::Expired.into());
        }
        Ok(verified)
    }
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listed").field("offline", &self.offline).finish_non_exhaustive()
    }
}
