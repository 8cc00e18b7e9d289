//! Public keys of the issuers: pinned with the bundle, or found by discovery of the configured
//! issuer only and kept fresh.
//!
//! One fetch at a time for each issuer, at most one per cooldown for unknown key ids; old keys
//! stay usable while the issuer is away, up to a hard limit; an empty or broken answer never
//! replaces keys that work.

use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use dayfly_domain::{
    Name, UnixMs,
    bundle::{Issuer, KeySource},
};
use dayfly_verifier::{KeySet, KeySetError};
use serde::Deserialize;

use crate::sys::net::{Fetch, FetchError, Fetcher};

/// Keys older than this are fetched again: a key taken out is refused within it (T-56).
const FRESH_MS: i64 = 300_000;
/// Between two fetches, whatever asks for them (T-53).
const COOLDOWN_MS: i64 = 30_000;
/// Keys not confirmed for so long are no longer believed (T-55).
const STALE_MAX_MS: i64 = 6 * 3_600_000;

/// Why an issuer's keys cannot be had. Inside text: the outside only hears `E-ISSUER-DOWN`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeysError {
    #[error("`{issuer}` could not be fetched: {why}")]
    Fetch { issuer: Name, why: String },
    #[error("the pinned key set of `{0}` is not usable")]
    Pinned(Name),
}

/// The key sets of all issuers.
#[derive(Debug)]
pub struct IssuerKeys {
    fetcher: Fetcher,
    known: DashMap<Name, Arc<Known>>,
}

/// One issuer's keys. A changed source (another bundle) starts anew.
#[derive(Debug)]
struct Known {
    url: Arc<str>,
    source: KeySource,
    state: Mutex<State>,
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default, Clone)]
struct State {
    keys: Option<Arc<KeySet>>,
    confirmed_at: UnixMs,
    tried_at: Option<UnixMs>,
    failures: u64,
}

impl IssuerKeys {
    pub fn new(fetcher: Fetcher) -> Self {
        Self { fetcher, known: DashMap::new() }
    }

    /// The keys to check a token with `kid` and `alg` against.
    pub async fn of(
        &self,
        issuer: &Issuer,
        kid: Option<&str>,
        alg: &str,
        now: UnixMs,
    ) -> Result<Arc<KeySet>, KeysError> {
        let known = self.known(issuer)?;
        if let KeySource::Pinned { .. } | KeySource::TrustBundle { .. } = known.source {
            return known.read().keys.ok_or_else(|| KeysError::Pinned(issuer.name.clone()));
        }
        if let Some(keys) = known.read().good(kid, alg, now) {
            return Ok(keys);
        }
        self.refresh(issuer, &known, kid, alg, now).await
    }

    /// Forgets issuers that the bundle no longer has.
    pub fn keep_only(&self, carried: impl Fn(&Name) -> bool) {
        self.known.retain(|name, _| carried(name));
    }

    /// How often the fetches of each issuer failed; for the metric.
    pub fn failures(&self) -> Vec<(Name, u64)> {
        self.known.iter().map(|entry| (entry.key().clone(), entry.value().read().failures)).collect()
    }

    fn known(&self, issuer: &Issuer) -> Result<Arc<Known>, KeysError> {
        let same = |known: &Arc<Known>| known.url == issuer.url && known.source == issuer.keys;
        if let Some(known) = self.known.get(&issuer.name).map(|known| known.clone()).filter(same) {
            return Ok(known);
        }
        let mut state = State::default();
        let pinned = match &issuer.keys {
            KeySource::Pinned { jwks } => Some(KeySet::parse(jwks)),
            KeySource::TrustBundle { bundle } => Some(KeySet::of_trust_bundle(bundle)),
            KeySource::Discovery { .. } | KeySource::BundleEndpoint { .. } => None,
        };
        if let Some(keys) = pinned {
            state.keys = Some(Arc::new(keys.map_err(|_| KeysError::Pinned(issuer.name.clone()))?));
        }
        let known = Arc::new(Known {
            url: issuer.url.clone(),
            source: issuer.keys.clone(),
            state: Mutex::new(state),
            fetching: tokio::sync::Mutex::default(),
        });
        self.known.insert(issuer.name.clone(), known.clone());
        Ok(known)
    }

    async fn refresh(
        &self,
        issuer: &Issuer,
        known: &Known,
        kid: Option<&str>,
        alg: &str,
        now: UnixMs,
    ) -> Result<Arc<KeySet>, KeysError> {
        // Whoever has a key to go on with does not wait while another request fetches.
        let enough = known.read().usable(now).filter(|keys| keys.contains(kid, alg));
        let _one_at_a_time = match (known.fetching.try_lock(), enough) {
            (Ok(turn), _) => turn,
            (Err(_), Some(keys)) => return Ok(keys),
            (Err(_), None) => known.fetching.lock().await,
        };
        let state = known.read();
        if let Some(keys) = state.good(kid, alg, now) {
            return Ok(keys);
        }
        if !state.may_fetch(now) {
            return state.usable(now).ok_or_else(|| down(issuer, "it failed a moment ago"));
        }
        known.change(|state| state.tried_at = Some(now));
        match self.fetch(issuer).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                known.change(|state| (state.keys, state.confirmed_at) = (Some(keys.clone()), now));
                Ok(keys)
            }
            Err(why) => {
                known.change(|state| state.failures += 1);
                tracing::warn!(issuer = %issuer.name, %why, "keys could not be fetched");
                known.read().usable(now).ok_or_else(|| down(issuer, &why))
            }
        }
    }

    async fn fetch(&self, issuer: &Issuer) -> Result<KeySet, String> {
        let (ca_pem, allow_private, bundle) = match &issuer.keys {
            KeySource::Discovery { ca_pem, allow_private } => (ca_pem, allow_private, None),
            KeySource::BundleEndpoint { url, ca_pem, allow_private } => (ca_pem, allow_private, Some(url)),
            KeySource::Pinned { .. } | KeySource::TrustBundle { .. } => return Err("its keys are pinned".to_owned()),
        };
        let get = async |url: String| {
            let fetch = Fetch { url, ca_pem: ca_pem.clone(), allow_private: *allow_private };
            self.fetcher.get(&fetch).await.map_err(|error: FetchError| error.to_string())
        };
        if let Some(url) = bundle {
            return some_keys(KeySet::of_trust_bundle(&get(url.to_string()).await?));
        }
        let document = get(format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/'))).await?;
        let document: Discovery = serde_json::from_slice(&document).map_err(|_| "no discovery document")?;
        if document.issuer != *issuer.url {
            return Err("its discovery document names another issuer".to_owned());
        }
        some_keys(KeySet::parse(&get(document.jwks_uri).await?))
    }
}

fn some_keys(keys: Result<KeySet, KeySetError>) -> Result<KeySet, String> {
    let keys = keys.map_err(|error| error.to_string())?;
    if keys.is_empty() { Err("its key set has no usable key".to_owned()) } else { Ok(keys) }
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

fn down(issuer: &Issuer, why: &str) -> KeysError {
    KeysError::Fetch { issuer: issuer.name.clone(), why: why.to_owned() }
}

impl Known {
    fn read(&self) -> State {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
}

impl State {
    fn age_ms(&self, now: UnixMs) -> i64 {
        now.as_ms() - self.confirmed_at.as_ms()
    }

    /// Fresh, and with a key for this token.
    fn good(&self, kid: Option<&str>, alg: &str, now: UnixMs) -> Option<Arc<KeySet>> {
        self.keys.clone().filter(|keys| self.age_ms(now) < FRESH_MS && keys.contains(kid, alg))
    }

    fn usable(&self, now: UnixMs) -> Option<Arc<KeySet>> {
        self.keys.clone().filter(|_| self.age_ms(now) < STALE_MAX_MS)
    }

    fn may_fetch(&self, now: UnixMs) -> bool {
        self.tried_at.is_none_or(|tried| now.as_ms() - tried.as_ms() >= COOLDOWN_MS)
    }
}

#[cfg(test)]
mod tests {
    use dayfly_verifier::crypto::SigningKey;

    use super::*;

    const START: UnixMs = UnixMs::from_s(1_800_000_000);

    /// Keys that were confirmed at `START`, and the `kid` of one of them.
    fn confirmed() -> (State, String) {
        dayfly_verifier::crypto::init().unwrap();
        let key = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
        let keys = KeySet::parse(serde_json::json!({ "keys": [key.jwk()] }).to_string().as_bytes()).unwrap();
        let state = State { keys: Some(Arc::new(keys)), confirmed_at: START, tried_at: Some(START), failures: 0 };
        (state, key.kid().to_owned())
    }

    /// However often fetching them failed meanwhile: only a confirmation makes keys younger.
    #[test]
    fn t_055_keys_without_a_confirmation_for_six_hours_are_not_believed() {
        let (state, kid) = confirmed();
        let at = |ms| START.plus_ms(ms);
        let good = |ms| state.good(Some(&kid), "ES256", at(ms)).is_some();
        assert_eq!((good(0), good(299_999), good(300_000)), (true, true, false), "fetched again after 300 s");
        let six_hours = 6 * 3_600_000;
        let failed = State { tried_at: Some(at(six_hours - 1)), failures: 700, ..state.clone() };
        for state in [&state, &failed] {
            assert!(state.usable(at(six_hours - 1)).is_some());
            assert!(state.usable(at(six_hours)).is_none());
            assert!(state.usable(at(1_000 * six_hours)).is_none());
        }
        let again = State { confirmed_at: at(six_hours), ..failed };
        assert!(again.usable(at(2 * six_hours - 1)).is_some() && again.usable(at(2 * six_hours)).is_none());
    }
}
