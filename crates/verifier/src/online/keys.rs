//! The broker's keys, kept fresh without asking more often than needed.
//!
//! Found by its metadata (RFC 8414), which must name the same issuer and a `jwks_uri` of the same
//! origin. A token can cause a fetch (its `kid` is unknown), but not more than one in 30 s.

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use super::{
    Outage, SetupError,
    https::{Https, origin},
};
use crate::{Clock, KeySet, json};

const FRESH_MS: i64 = 300_000;
const COOLDOWN_MS: i64 = 30_000;
/// How long keys are good while fetching fails.
const STALE_MAX_MS: i64 = 3_600_000;

pub(crate) struct KeptKeys {
    https: Arc<Https>,
    issuer: Arc<str>,
    clock: Arc<dyn Clock>,
    kept: RwLock<Kept>,
    /// Held while fetching: one at a time.
    fetching: tokio::sync::Mutex<()>,
}

/// Times are milliseconds of the steady clock.
struct Kept {
    keys: Arc<KeySet>,
    fetched_ms: i64,
    tried_ms: i64,
    outage: Option<Outage>,
}

impl KeptKeys {
    pub(crate) async fn fetch(issuer: &str, ca_pem: Option<&[u8]>, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        origin(issuer).filter(|_| !issuer.ends_with('/')).ok_or(SetupError::Issuer)?;
        let https = Arc::new(Https::new(ca_pem)?);
        let at_ms = clock.steady_ms();
        let keys = Arc::new(published(&https, issuer).await.map_err(SetupError::Keys)?);
        let kept = RwLock::new(Kept { keys, fetched_ms: at_ms, tried_ms: at_ms, outage: None });
        Ok(Self { https, issuer: issuer.into(), clock, kept, fetching: tokio::sync::Mutex::new(()) })
    }

    pub(crate) fn set_clock(&mut self, clock: Arc<dyn Clock>) {
        let at_ms = clock.steady_ms();
        let kept = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner);
        (kept.fetched_ms, kept.tried_ms) = (at_ms, at_ms);
        self.clock = clock;
    }

    pub(crate) fn issuer(&self) -> Arc<str> {
        self.issuer.clone()
    }

    pub(super) fn https(&self) -> Arc<Https> {
        self.https.clone()
    }

    pub(super) fn last_outage(&self) -> Option<Outage> {
        self.read(|kept| kept.outage)
    }

    /// `None` when they are too old to be believed.
    // SECURITY: t_055_stale_keys_are_refused_after_an_hour
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        let at_ms = self.clock.steady_ms();
        self.read(|kept| (at_ms - kept.fetched_ms <= STALE_MAX_MS).then(|| kept.keys.clone()))
    }

    /// Fetches when the keys are old, or have none for this header; at most one fetch in 30 s.
    // SECURITY: t_053_random_kids_cause_one_fetch
    pub(crate) async fn refresh_for(&self, kid: Option<&str>, alg: &str) {
        let usable = self.current().is_some_and(|keys| keys.contains(kid, alg));
        if usable && !self.is_due(kid, alg) {
            return;
        }
        let _fetching = match self.fetching.try_lock() {
            Ok(guard) => guard,
            // Somebody else fetches: whoever has a good key need not wait, whoever has none must.
            Err(_) if usable => return,
            Err(_) => self.fetching.lock().await,
        };
        if self.is_due(kid, alg) {
            self.refresh().await;
        }
    }

    async fn refresh(&self) {
        let at_ms = self.clock.steady_ms();
        self.write(|kept| kept.tried_ms = at_ms);
        let outcome = published(&self.https, &self.issuer).await;
        self.write(|kept| {
            kept.outage = outcome.as_ref().err().copied();
            if let Ok(keys) = outcome {
                (kept.keys, kept.fetched_ms) = (Arc::new(keys), at_ms);
            }
        });
    }

    fn is_due(&self, kid: Option<&str>, alg: &str) -> bool {
        let at_ms = self.clock.steady_ms();
        self.read(|kept| {
            let old = at_ms - kept.fetched_ms >= FRESH_MS;
            at_ms - kept.tried_ms >= COOLDOWN_MS && (old || !kept.keys.contains(kid, alg))
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Kept) -> T) -> T {
        read(&self.kept.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, write: impl FnOnce(&mut Kept)) {
        write(&mut self.kept.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What the issuer publishes now.
async fn published(https: &Https, issuer: &str) -> Result<KeySet, Outage> {
    let metadata = https.get(&format!("{issuer}/.well-known/oauth-authorization-server")).await?;
    let jwks_uri = jwks_uri(&metadata, issuer).ok_or(Outage::Answer)?;
    KeySet::parse(&https.get(&jwks_uri).await?).map_err(|_| Outage::Answer)
}

/// RFC 8414 section 3.3: metadata of another issuer is not used; nor are keys of another origin.
// SECURITY: t_047_keys_come_from_the_issuers_own_origin
fn jwks_uri(metadata: &[u8], issuer: &str) -> Option<String> {
    let metadata = json::object(metadata)?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    let uri = text("jwks_uri").filter(|_| text("issuer") == Some(issuer))?;
    (origin(uri)?.1 == origin(issuer)?.1).then(|| uri.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://dayfly.example";

    fn found(issuer: &str, uri: &str) -> bool {
        let metadata = serde_json::json!({"issuer": issuer, "jwks_uri": uri}).to_string();
        jwks_uri(metadata.as_bytes(), ISSUER).is_some()
    }

    #[test]
    fn t_047_keys_come_from_the_issuers_own_origin() {
        assert!(found(ISSUER, "https://dayfly.example/oauth2/jwks"));
        assert!(!found("https://dayfly.example/", "https://dayfly.example/oauth2/jwks"));
        for uri in [
            "http://dayfly.example/oauth2/jwks",
            "https://dayfly.example:8443/oauth2/jwks",
            "https://dayfly.example.evil.example/",
            "https://evil.example/dayfly.example",
            "https://dayfly.example@evil.example/",
            "https://evil.example/#@dayfly.example",
            "/oauth2/jwks",
            "file:///etc/passwd",
            "",
        ] {
            assert!(!found(ISSUER, uri), "{uri}");
        }
    }
}
