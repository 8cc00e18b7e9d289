//! What is known of one issuer's keys, and what that is worth at a moment.

use std::sync::Arc;

use dayfly_domain::UnixMs;
use dayfly_verifier::KeySet;

use super::KeysHealth;

/// Keys older than this are fetched again: a key taken out is refused within it (T-56). An issuer may
/// ask for less, down to the cooldown.
const FRESH_MS: i64 = 300_000;
/// Between two fetches, whatever asks for them (T-53); only an operator's word comes sooner.
const COOLDOWN_MS: i64 = 30_000;
/// Keys not confirmed for so long are no longer believed (T-55).
const STALE_MAX_MS: i64 = 6 * 3_600_000;
/// Between two fetches that operators ask for.
pub const FORCED_EACH_MS: i64 = 1_000;
/// So long after a cooldown nobody waits for a fetch: that is the work of the fetches ahead.
const GRACE_MS: i64 = 5_000;

/// Where an issuer's keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysState {
    /// Confirmed a moment ago.
    Fresh,
    /// Confirmed some time ago, and still believed.
    Stale,
    /// There are none, or they are too old: its tokens are refused.
    Down,
    /// Nobody has asked yet.
    Waiting,
    /// They came with the bundle.
    Pinned,
    /// The issuer is switched off.
    Disabled,
}

#[derive(Debug, Clone)]
pub(super) struct State {
    pub keys: Option<Arc<KeySet>>,
    pub confirmed_at: UnixMs,
    pub tried_at: Option<UnixMs>,
    pub failures: u64,
    /// Why the last fetch failed.
    pub why: Option<Arc<str>>,
    pub review_failures: u64,
    /// Why the last review of a token failed.
    pub review_why: Option<Arc<str>>,
    fresh_ms: i64,
    forced_at: Option<UnixMs>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            keys: None,
            confirmed_at: UnixMs::default(),
            tried_at: None,
            failures: 0,
            why: None,
            review_failures: 0,
            review_why: None,
            fresh_ms: FRESH_MS,
            forced_at: None,
        }
    }
}

impl State {
    pub fn broken(why: Arc<str>) -> Self {
        Self { why: Some(why), ..Self::default() }
    }

    /// What the issuer says of how long they stay good may shorten our own bound, never lengthen it, and
    /// makes nobody ask more often than once in a cooldown.
    // SECURITY: `t_055_a_remote_max_age_is_clamped`.
    pub fn confirm(&mut self, keys: Arc<KeySet>, max_age_s: Option<u32>, now: UnixMs) {
        let asked_ms = max_age_s.map_or(FRESH_MS, |max_age_s| i64::from(max_age_s) * 1000);
        self.fresh_ms = asked_ms.clamp(COOLDOWN_MS, FRESH_MS);
        (self.keys, self.confirmed_at, self.why) = (Some(keys), now, None);
    }

    pub fn fail(&mut self, why: Arc<str>) {
        self.failures += 1;
        self.why = Some(why);
    }

    /// The authority itself says that there are none any more.
    // SECURITY: `a_trust_bundle_without_keys_takes_the_old_ones_away`.
    pub fn withdraw(&mut self, why: Arc<str>) {
        self.keys = None;
        self.fail(why);
    }

    /// A token was put to the platform: `why` it was not answered, if it was not.
    pub fn reviewed(&mut self, why: Option<Arc<str>>) {
        self.review_failures += u64::from(why.is_some());
        self.review_why = why;
    }

    /// Fresh, and with a key for this token.
    pub fn good(&self, kid: Option<&str>, alg: &str, now: UnixMs) -> Option<Arc<KeySet>> {
        self.keys.clone().filter(|keys| self.is_fresh(now) && keys.contains(kid, alg))
    }

    /// Good, or as good as it gets: they were asked for a moment ago, and are still believed.
    pub fn enough(&self, kid: Option<&str>, alg: &str, now: UnixMs) -> Option<Arc<KeySet>> {
        let asked = self.tried_at.is_some_and(|tried| now.as_ms() - tried.as_ms() < COOLDOWN_MS + GRACE_MS);
        let stale = || self.usable(now).filter(|keys| asked && keys.contains(kid, alg));
        self.good(kid, alg, now).or_else(stale)
    }

    pub fn usable(&self, now: UnixMs) -> Option<Arc<KeySet>> {
        self.keys.clone().filter(|_| self.age_ms(now) < STALE_MAX_MS)
    }

    pub fn may_fetch(&self, now: UnixMs) -> bool {
        self.tried_at.is_none_or(|tried| now.as_ms() - tried.as_ms() >= COOLDOWN_MS)
    }

    /// Whether to fetch before anybody needs it: when a fifth of the freshness is left, or there is none.
    pub fn is_due(&self, now: UnixMs) -> bool {
        let ripe = self.keys.is_none() || self.age_ms(now) >= self.fresh_ms - self.fresh_ms / 5;
        ripe && self.may_fetch(now)
    }

    /// Takes the turn of an operator's word, if it is not too soon after the one before.
    pub fn may_be_forced(&mut self, now: UnixMs) -> bool {
        let may = self.forced_at.is_none_or(|forced| now.as_ms() - forced.as_ms() >= FORCED_EACH_MS);
        if may {
            self.forced_at = Some(now);
        }
        may
    }

    pub fn health(&self, fetched: bool, disabled: bool, now: UnixMs) -> KeysHealth {
        let usable = self.usable(now).is_some();
        let state = match (disabled, fetched) {
            (true, _) => KeysState::Disabled,
            (false, false) => KeysState::Pinned,
            (false, true) if usable && self.is_fresh(now) => KeysState::Fresh,
            (false, true) if usable => KeysState::Stale,
            (false, true) if self.keys.is_none() && self.why.is_none() => KeysState::Waiting,
            (false, true) => KeysState::Down,
        };
        KeysHealth {
            state,
            keys: self.keys.as_ref().map_or(0, |keys| keys.len()),
            confirmed_at: self.keys.as_ref().filter(|_| fetched).map(|_| self.confirmed_at),
            tried_at: self.tried_at,
            failures: self.failures,
            review_failures: self.review_failures,
            why: self.why.clone().or_else(|| self.review_why.clone()),
        }
    }

    fn age_ms(&self, now: UnixMs) -> i64 {
        now.as_ms() - self.confirmed_at.as_ms()
    }

    fn is_fresh(&self, now: UnixMs) -> bool {
        self.age_ms(now) < self.fresh_ms
    }
}

#[cfg(test)]
mod tests {
    use dayfly_verifier::crypto::SigningKey;

    use super::*;

    const START: UnixMs = UnixMs::from_s(1_800_000_000);

    /// Keys that were confirmed at `START`, and the `kid` of one of them.
    fn confirmed(max_age_s: Option<u32>) -> (State, String) {
        dayfly_verifier::crypto::init().unwrap();
        let key = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
        let keys = KeySet::parse(serde_json::json!({ "keys": [key.jwk()] }).to_string().as_bytes()).unwrap();
        let mut state = State { tried_at: Some(START), ..State::default() };
        state.confirm(Arc::new(keys), max_age_s, START);
        (state, key.kid().to_owned())
    }

    fn at(ms: i64) -> UnixMs {
        START.plus_ms(ms)
    }

    /// However often fetching them failed meanwhile: only a confirmation makes keys younger.
    #[test]
    fn t_055_keys_without_a_confirmation_for_six_hours_are_not_believed() {
        let (state, kid) = confirmed(None);
        let good = |ms| state.good(Some(&kid), "ES256", at(ms)).is_some();
        assert_eq!((good(0), good(299_999), good(300_000)), (true, true, false), "fetched again after 300 s");
        let six_hours = 6 * 3_600_000;
        let mut failed = State { tried_at: Some(at(six_hours - 1)), ..state.clone() };
        (0..700).for_each(|_| failed.fail("away".into()));
        for state in [&state, &failed] {
            assert!(state.usable(at(six_hours - 1)).is_some());
            assert!(state.usable(at(six_hours)).is_none());
            assert!(state.usable(at(1_000 * six_hours)).is_none());
        }
        assert!(failed.enough(Some(&kid), "ES256", at(six_hours)).is_none());
        assert_eq!(failed.health(true, false, at(six_hours - 1)).state, KeysState::Stale);
        assert_eq!(failed.health(true, false, at(six_hours)).state, KeysState::Down);
        let again = State { confirmed_at: at(six_hours), ..failed };
        assert!(again.usable(at(2 * six_hours - 1)).is_some() && again.usable(at(2 * six_hours)).is_none());
    }

    #[test]
    fn t_055_a_remote_max_age_is_clamped() {
        let fresh_until = |max_age_s| {
            let (state, kid) = confirmed(max_age_s);
            let good = |ms: &i64| state.good(Some(&kid), "ES256", at(*ms)).is_some();
            (0..=400_000).step_by(1_000).take_while(good).count() * 1_000
        };
        for (max_age_s, until_ms) in [
            (None, 300_000),
            (Some(31_536_000), 300_000),
            (Some(u32::MAX), 300_000),
            (Some(300), 300_000),
            (Some(120), 120_000),
            (Some(1), 30_000),
            (Some(0), 30_000),
        ] {
            assert_eq!(fresh_until(max_age_s), until_ms, "{max_age_s:?}");
        }
    }

    #[test]
    fn keys_are_fetched_before_they_are_needed_and_never_twice_in_a_cooldown() {
        assert!(State::default().is_due(START));
        let (state, _) = confirmed(None);
        assert_eq!((state.is_due(at(239_999)), state.is_due(at(240_000))), (false, true));
        let failed = State { tried_at: Some(at(240_000)), ..state };
        assert_eq!((failed.is_due(at(269_999)), failed.is_due(at(270_000))), (false, true));
        let (hasty, _) = confirmed(Some(0));
        assert_eq!((hasty.is_due(at(29_999)), hasty.is_due(at(30_000))), (false, true));
    }

    /// While the fetches ahead do their work: before, during and after an outage.
    #[test]
    fn who_has_a_key_does_not_wait_for_a_fetch() {
        let (mut state, kid) = confirmed(None);
        for tried_ms in (240_000..5 * 3_600_000).step_by(31_000) {
            state.tried_at = Some(at(tried_ms));
            state.fail("away".into());
            assert!((0..31_000).step_by(500).all(|ms| state.enough(Some(&kid), "ES256", at(tried_ms + ms)).is_some()));
        }
        assert!(state.enough(Some("another"), "ES256", at(5 * 3_600_000)).is_none());
        // A process that slept asks before it believes.
        assert!(state.enough(Some(&kid), "ES256", at(5 * 3_600_000 + 60_000)).is_none());
    }

    #[test]
    fn an_operator_is_heard_once_a_second() {
        let (mut state, _) = confirmed(None);
        let mut heard = |ms| state.may_be_forced(at(ms));
        assert_eq!([0, 999, 1_000, 1_001, 2_000].map(&mut heard), [true, false, true, false, true]);
    }
}
