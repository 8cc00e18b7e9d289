//! Public keys of the issuers: pinned with the bundle, or found by discovery of the configured
//! issuer only and kept fresh.
//!
//! One fetch at a time for each issuer, at most one per cooldown for unknown key ids; old keys
//! stay usable while the issuer is away, up to a hard limit; an empty or broken answer never
//! replaces keys that work, but for a SPIFFE trust bundle: an empty one withdraws them. Whoever has a key to go on with waits for nobody; a fetch that began is
//! finished, whoever asked for it.

mod source;
mod state;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use dashmap::DashMap;
use dayfly_domain::{
    Name, UnixMs,
    bundle::{Issuer, KeySource},
};
use dayfly_verifier::KeySet;
use tokio::sync::{OwnedMutexGuard, Semaphore};

use crate::sys::{net::Fetcher, offload::carried};
use state::State;
pub use state::{FORCED_EACH_MS, KeysState};

/// Why an issuer's keys cannot be had. Inside text: the outside only hears `E-ISSUER-DOWN`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeysError {
    #[error("`{issuer}` could not be fetched: {why}")]
    Fetch { issuer: Name, why: Arc<str> },
    #[error("the pinned key set of `{0}` is not usable")]
    Pinned(Name),
}

/// Why a refresh that was asked for brought no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRefreshed {
    #[error("its keys were asked for a moment ago")]
    TooSoon,
    #[error("{0}")]
    Failed(Arc<str>),
}

/// What is known of an issuer's keys: for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysHealth {
    pub state: KeysState,
    /// That can verify.
    pub keys: usize,
    /// When the keys were last seen to be these.
    pub confirmed_at: Option<UnixMs>,
    pub tried_at: Option<UnixMs>,
    /// Fetches that failed since the process knows this issuer.
    pub failures: u64,
    /// Reviews of tokens that failed since then.
    pub review_failures: u64,
    /// Why the last fetch failed, if it did, or else the last review; in our own words.
    pub why: Option<Arc<str>>,
}

/// Fetches ahead of need that may be under way at once. Beyond it the next second; what a request
/// needs is fetched beside them.
pub const FETCHES_AHEAD_MAX: usize = 32;

const WITHDRAWN: &str = "trust bundle: it has no key for JWT-SVIDs that can be used, so the ones before are withdrawn";

/// The key sets of all issuers.
#[derive(Debug)]
pub struct IssuerKeys {
    fetcher: Fetcher,
    known: DashMap<Origin, Arc<Known>>,
    ahead: Arc<Semaphore>,
}

/// Where an issuer's keys are from. With another source (another bundle) it starts anew, beside what
/// requests under the old one still use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Origin {
    name: Name,
    url: Arc<str>,
    source: KeySource,
}

impl Origin {
    fn of(issuer: &Issuer) -> Self {
        Self { name: issuer.name.clone(), url: issuer.url.clone(), source: issuer.keys.clone() }
    }
}

/// One issuer's keys.
#[derive(Debug)]
struct Known {
    origin: Origin,
    state: Mutex<State>,
    fetching: Arc<tokio::sync::Mutex<()>>,
}

impl IssuerKeys {
    pub fn new(fetcher: Fetcher) -> Self {
        Self { fetcher, known: DashMap::new(), ahead: Arc::new(Semaphore::new(FETCHES_AHEAD_MAX)) }
    }

    /// How this issuer's platform is asked about anything else.
    pub(super) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// The keys to check a token with `kid` and `alg` against.
    // SECURITY: `t_053_*`.
    pub async fn of(
        &self,
        issuer: &Issuer,
        kid: Option<&str>,
        alg: &str,
        now: UnixMs,
    ) -> Result<Arc<KeySet>, KeysError> {
        let known = self.known(issuer)?;
        if !known.is_fetched() {
            return known.read().keys.ok_or_else(|| KeysError::Pinned(issuer.name.clone()));
        }
        let state = known.read();
        if let Some(keys) = state.enough(kid, alg, now) {
            return Ok(keys);
        }
        let turn = match known.fetching.clone().try_lock_owned() {
            Ok(turn) => turn,
            // Whoever has a key to go on with does not wait while another request fetches.
            Err(_) => match state.usable(now).filter(|keys| keys.contains(kid, alg)) {
                Some(keys) => return Ok(keys),
                None => known.fetching.clone().lock_owned().await,
            },
        };
        let state = known.read();
        if state.good(kid, alg, now).is_none() && state.may_fetch(now) {
            self.fetch(&known, turn, now).await;
        }
        let state = known.read();
        let why = || state.why.clone().unwrap_or_else(|| "it was asked a moment ago".into());
        state.usable(now).ok_or_else(|| KeysError::Fetch { issuer: issuer.name.clone(), why: why() })
    }

    /// Begins to fetch what will be needed soon, so that no request has to wait for it. Waits for none
    /// of it.
    pub fn fetch_ahead<'a>(&self, issuers: impl Iterator<Item = &'a Issuer>, now: UnixMs) {
        for issuer in issuers {
            let Ok(known) = self.known(issuer) else { continue };
            if !known.is_fetched() || !known.read().is_due(now) {
                continue;
            }
            let (Ok(place), Ok(turn)) =
                (self.ahead.clone().try_acquire_owned(), known.fetching.clone().try_lock_owned())
            else {
                continue;
            };
            let fetch = self.fetch(&known, turn, now);
            drop(carried(async move {
                fetch.await;
                drop(place);
            }));
        }
    }

    /// Asks for the keys anew, whatever is known of them.
    // SECURITY: `t_056_*`: a key that was taken out is refused from the answer on.
    pub async fn refresh(&self, issuer: &Issuer, now: UnixMs) -> Result<(), NotRefreshed> {
        let unusable = |error: KeysError| NotRefreshed::Failed(error.to_string().into());
        let known = self.known(issuer).map_err(unusable)?;
        if !known.is_fetched() {
            return Ok(());
        }
        if !known.change(|state| state.may_be_forced(now)) {
            return Err(NotRefreshed::TooSoon);
        }
        // One that is under way may have begun before what the operator knows of.
        let turn = known.fetching.clone().lock_owned().await;
        self.fetch(&known, turn, now).await;
        known.read().why.map_or(Ok(()), |why| Err(NotRefreshed::Failed(why)))
    }

    /// Remembers how a review of one of the issuer's tokens went: `why` it was not answered, if it was not.
    pub(super) fn reviewed(&self, issuer: &Issuer, why: Option<&str>) {
        if let Ok(known) = self.known(issuer) {
            known.change(|state| state.reviewed(why.map(|why| format!("review: {why}").into())));
        }
    }

    /// Forgets issuers that the bundle no longer has, and sources that it has replaced.
    pub fn keep_only(&self, issuers: &BTreeMap<Name, Issuer>) {
        self.known.retain(|origin, _| issuers.get(&origin.name).is_some_and(|issuer| Origin::of(issuer) == *origin));
    }

    /// What is known of an issuer, without asking anybody.
    pub fn health(&self, issuer: &Issuer, now: UnixMs) -> KeysHealth {
        match self.known(issuer) {
            Ok(known) => known.read().health(known.is_fetched(), issuer.disabled, now),
            Err(error) => State::broken(error.to_string().into()).health(true, issuer.disabled, now),
        }
    }

    fn known(&self, issuer: &Issuer) -> Result<Arc<Known>, KeysError> {
        let origin = Origin::of(issuer);
        if let Some(known) = self.known.get(&origin) {
            return Ok(known.clone());
        }
        // Of several who come first, all have what the first of them made.
        let made = self.known.entry(origin.clone()).or_try_insert_with(|| Known::new(origin).map(Arc::new))?;
        Ok(made.clone())
    }

    /// Fetches once. What began is finished even when nobody waits for it any more: otherwise whoever
    /// asks and leaves would use up the one fetch of a cooldown.
    // SECURITY: `t_053_who_asks_and_leaves_stops_no_fetch`.
    fn fetch(&self, known: &Arc<Known>, turn: OwnedMutexGuard<()>, now: UnixMs) -> impl Future<Output = ()> + use<> {
        known.change(|state| state.tried_at = Some(now));
        let (known, fetcher) = (known.clone(), self.fetcher.clone());
        let work = carried({
            let known = known.clone();
            async move {
                let _turn = turn;
                known.learn(source::fetch(&fetcher, &known.origin.url, &known.origin.source).await, now);
            }
        });
        async move {
            if work.await.is_err() {
                known.learn(Err("the fetch was not finished".into()), now);
            }
        }
    }
}

impl Known {
    fn new(origin: Origin) -> Result<Self, KeysError> {
        let mut state = State::default();
        let pinned = match &origin.source {
            KeySource::Pinned { jwks } => Some(KeySet::parse(jwks)),
            KeySource::TrustBundle { bundle } => Some(KeySet::of_trust_bundle(bundle)),
            KeySource::Roots { .. } => Some(KeySet::parse(br#"{"keys": []}"#)),
            KeySource::Discovery { .. } | KeySource::BundleEndpoint { .. } => None,
        };
        if let Some(keys) = pinned {
            state.keys = Some(Arc::new(keys.map_err(|_| KeysError::Pinned(origin.name.clone()))?));
        }
        Ok(Self { origin, state: Mutex::new(state), fetching: Arc::default() })
    }

    fn is_fetched(&self) -> bool {
        match self.origin.source {
            KeySource::Discovery { .. } | KeySource::BundleEndpoint { .. } => true,
            KeySource::Pinned { .. } | KeySource::TrustBundle { .. } | KeySource::Roots { .. } => false,
        }
    }

    fn learn(&self, fetched: Result<source::Fetched, Arc<str>>, now: UnixMs) {
        let withdrawn = fetched.as_ref().is_ok_and(|fetched| fetched.keys.is_empty());
        let fetched = fetched.and_then(|fetched| if withdrawn { Err(WITHDRAWN.into()) } else { Ok(fetched) });
        let before = self.change(|state| {
            let before = state.why.take();
            match &fetched {
                Ok(source::Fetched { keys, max_age_s }) => state.confirm(keys.clone(), *max_age_s, now),
                Err(why) if withdrawn => state.withdraw(why.clone()),
                Err(why) => state.fail(why.clone()),
            }
            before
        });
        let issuer = &self.origin.name;
        match (fetched, before) {
            (Ok(_), Some(_)) => tracing::info!(%issuer, "keys are fetched again"),
            (Err(why), before) if before.as_ref() != Some(&why) => {
                tracing::warn!(%issuer, %why, "keys could not be fetched");
            }
            // Said when it began.
            _ => {}
        }
    }

    fn read(&self) -> State {
        self.change(|state| state.clone())
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

#[cfg(test)]
mod tests {
    use dayfly_domain::{BindingKind, bundle::Bundle};
    use dayfly_verifier::crypto::SigningKey;

    use super::*;
    use crate::{
        policy::{BundleEnv, parse},
        sys::files::SourceFile,
    };

    fn bundle(keys: &str) -> Bundle {
        let text = format!(
            "format = 1\ntrust_domain = \"example.org\"\n[owner.o]\n\
             [issuer.ci]\nprofile = \"oidc\"\nowner = \"o\"\nurl = \"https://ci.example\"\n{keys}\n"
        );
        let file = SourceFile { path: "a.toml".into(), bytes: text.into() };
        let env = BundleEnv { issuer_url: "https://b.example".into(), broker_binding: BindingKind::Bearer };
        let extra = |_: &str| Ok(b"{\"keys\":[]}".to_vec());
        parse(&[file], &env, &mut { extra }).unwrap().0
    }

    fn known(keys: &IssuerKeys, bundle: &Bundle) -> Arc<Known> {
        keys.known(&bundle.issuers["ci"]).unwrap()
    }

    #[test]
    fn a_request_under_the_bundle_before_does_not_throw_new_keys_away() {
        let keys = IssuerKeys::new(Fetcher::new());
        let [before, after] = ["", "keys = { discovery = true, allow_private = true }"].map(bundle);
        let old = known(&keys, &before);
        let new = known(&keys, &after);
        keys.keep_only(&after.issuers);
        let late = known(&keys, &before);
        assert!(Arc::ptr_eq(&new, &known(&keys, &after)) && !Arc::ptr_eq(&new, &late));
        assert!(!Arc::ptr_eq(&old, &late), "what the bundle replaced was forgotten");
        keys.keep_only(&after.issuers);
        assert_eq!(keys.known.len(), 1);
    }

    #[test]
    fn all_who_come_first_have_the_same_keys() {
        let (keys, bundle) = (IssuerKeys::new(Fetcher::new()), bundle(""));
        for _ in 0..64 {
            keys.known.clear();
            let start = std::sync::Barrier::new(4);
            let seen: Vec<_> = std::thread::scope(|scope| {
                let one = || {
                    start.wait();
                    known(&keys, &bundle)
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(seen.iter().all(|known| Arc::ptr_eq(known, &seen[0])));
        }
    }

    fn learned(source: KeySource, second: &[u8]) -> State {
        dayfly_verifier::crypto::init().unwrap();
        let key = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
        let first = KeySet::parse(serde_json::json!({ "keys": [key.jwk()] }).to_string().as_bytes()).unwrap();
        let origin = Origin { name: "mesh".parse().unwrap(), url: "spiffe://prod.example".into(), source };
        let known = Known::new(origin).unwrap();
        let now = UnixMs::from_s(1_800_000_000);
        for keys in [first, KeySet::of_trust_bundle(second).unwrap()] {
            known.learn(Ok(source::Fetched { keys: Arc::new(keys), max_age_s: None }), now);
        }
        known.read()
    }

    #[test]
    fn a_review_that_fails_is_seen_and_one_that_works_clears_it() {
        let (mut state, now) = (State::default(), UnixMs::from_s(1_800_000_000));
        state.reviewed(Some("review: its host refuses the connection".into()));
        let health = state.health(false, false, now);
        assert_eq!((health.state, health.failures, health.review_failures), (KeysState::Pinned, 0, 1));
        assert!(health.why.unwrap().contains("review"));
        state.reviewed(None);
        let health = state.health(false, false, now);
        assert_eq!((health.review_failures, health.why), (1, None));
    }

    #[test]
    fn a_trust_bundle_without_keys_takes_the_old_ones_away() {
        let source =
            KeySource::BundleEndpoint { url: "https://spire.example".into(), ca_pem: None, allow_private: false };
        let x509 = br#"{"keys":[{"use":"x509-svid","kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}"#;
        for bundle in [&br#"{"keys":[]}"#[..], x509] {
            let state = learned(source.clone(), bundle);
            let health = state.health(true, false, UnixMs::from_s(1_800_000_000));
            assert!(state.keys.is_none());
            assert_eq!((health.state, health.keys, health.failures), (KeysState::Down, 0, 1));
            assert!(health.why.unwrap().contains("withdrawn"));
        }
    }
}
