//! A resource server proves itself to introspect, and the outcome is remembered: the same assertion
//! comes with every question, and its signature is checked once.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
};

use dayfly_domain::{Reason, UnixMs, bundle::Fingerprint};

use super::{
    Flow, SAMPLE, sha256,
    words::{Caller, Presented, Refused},
};
use crate::{
    intake::{IntakeError, ProvenVerifier, prove_verifier},
    lease::Now,
    policy::Policy,
};

/// Outcomes that are remembered at once, about 1 MB. Beyond them each assertion is checked anew.
pub const OUTCOMES_MAX: usize = 4_096;
/// Of them, those of one subject of one issuer: a server that signs anew for each question pushes out
/// its own, and nobody else's.
pub const OUTCOMES_EACH: usize = 64;
/// A full memory is searched for what is over no more often than this.
const SWEEP_EACH_MS: i64 = 1_000;

type AssertionHash = [u8; 32];
/// Issuer and subject.
type Client = (Arc<str>, Arc<str>);

impl Flow {
    /// Who made this `client_assertion`, and for which targets it may introspect. `E-CLIENT`
    /// whatever is wrong with it, `E-SCOPE` when it is genuine and no row names it,
    /// `E-ISSUER-DOWN` when its keys cannot be had. `client_id`: the assertion's `sub`, if given.
    pub async fn verifier(&self, assertion: &Presented, client_id: Option<&str>) -> Result<Caller, Refused> {
        let hash = sha256(assertion.expose().as_bytes());
        let outcome = match self.known_verifier(&hash) {
            Some(outcome) => outcome,
            None => self.new_verifier(assertion, hash).await?,
        };
        outcome.caller(client_id)
    }

    // SECURITY: `t_059_an_outcome_belongs_to_one_assertion_and_one_bundle`.
    fn known_verifier(&self, hash: &AssertionHash) -> Option<Outcome> {
        let bundle = self.policy.load().bundle().fingerprint;
        self.outcomes.get(hash, bundle, self.time.now())
    }

    async fn new_verifier(&self, assertion: &Presented, hash: AssertionHash) -> Result<Outcome, Refused> {
        let policy = self.policy.load_full();
        let now = self.time.now();
        let proven = prove_verifier(assertion.expose(), policy.bundle(), &self.issuer, &self.keys, now.at).await;
        let outcome = Outcome::of(&proven.map_err(|error| self.no_verifier(&error))?, &policy);
        // Fetching keys takes time: what is over by now, or was decided under another bundle, is not believed.
        let now = self.time.now();
        let bundle = policy.bundle().fingerprint;
        if outcome.is_over(now) {
            return Err(Reason::Client.into());
        }
        if self.policy.load().bundle().fingerprint != bundle {
            return Err(Reason::Overtaken.into());
        }
        if !outcome.targets.is_empty() {
            self.outcomes.put(hash, &outcome, bundle, now);
        }
        Ok(outcome)
    }

    /// Counted and sampled as evidence is; the outside hears no cause.
    fn no_verifier(&self, error: &IntakeError) -> Refused {
        let reason = error.reason();
        metrics::counter!("dayfly_verifiers_refused_total", "reason" => reason.code()).increment(1);
        if self.turned_away.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE) {
            tracing::info!(reason = reason.code(), %error, "an assertion was refused; one in {SAMPLE} is told");
        }
        match error {
            IntakeError::Keys(_) | IntakeError::Unconfirmed(_) => reason.into(),
            IntakeError::Token(_)
            | IntakeError::UnknownIssuer
            | IntakeError::Own
            | IntakeError::Stranger
            | IntakeError::Claim(_)
            | IntakeError::Svid(_)
            | IntakeError::Refused { .. } => Reason::Client.into(),
        }
    }
}

/// What an assertion proved, under one bundle.
#[derive(Debug, Clone)]
struct Outcome {
    issuer: Arc<str>,
    subject: Arc<str>,
    targets: Arc<[Arc<str>]>,
    issued_at: UnixMs,
    until: UnixMs,
}

impl Outcome {
    fn of(proven: &ProvenVerifier, policy: &Policy) -> Self {
        let identity = proven.identity();
        Self {
            issuer: identity.issuer.as_str().into(),
            subject: proven.subject().clone(),
            targets: policy.targets_of(identity),
            issued_at: proven.issued_at(),
            until: proven.until(),
        }
    }

    fn caller(self, client_id: Option<&str>) -> Result<Caller, Refused> {
        let Self { issuer, subject, targets, .. } = self;
        if client_id.is_some_and(|client_id| client_id != &*subject) {
            return Err(Reason::Client.into());
        }
        if targets.is_empty() {
            let hint = "the assertion is genuine, and no verifier row of an enabled target matches it";
            return Err(Refused { hint: Some(hint.to_owned()), ..Reason::Scope.into() });
        }
        Ok(Caller::Verifier { issuer, targets })
    }

    /// Under either clock, so that clocks that disagree keep nothing alive.
    // SECURITY: `t_096_a_wrong_clock_keeps_no_outcome_alive`.
    fn is_over(&self, now: Now) -> bool {
        now.expired(self.issued_at, self.until)
    }
}

/// Outcomes by SHA-256 of the whole assertion; only of those that proved themselves.
#[derive(Debug, Default)]
pub(super) struct Outcomes(RwLock<Held>);

#[derive(Debug, Default)]
struct Held {
    /// All of them were decided under it.
    bundle: Option<Fingerprint>,
    by_assertion: HashMap<AssertionHash, Outcome>,
    /// The same by whose they are, oldest first.
    by_client: HashMap<Client, VecDeque<AssertionHash>>,
    swept_at: Option<UnixMs>,
}

impl Outcomes {
    fn get(&self, hash: &AssertionHash, bundle: Fingerprint, now: Now) -> Option<Outcome> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let outcome = held.by_assertion.get(hash).filter(|_| held.bundle == Some(bundle))?;
        (!outcome.is_over(now)).then(|| outcome.clone())
    }

    fn put(&self, hash: AssertionHash, outcome: &Outcome, bundle: Fingerprint, now: Now) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if held.bundle != Some(bundle) {
            *held = Held { bundle: Some(bundle), ..Held::default() };
        }
        held.put(hash, outcome, now);
    }
}

impl Held {
    // SECURITY: `t_160_one_servers_assertions_push_out_only_its_own`.
    fn put(&mut self, hash: AssertionHash, outcome: &Outcome, now: Now) {
        // Two requests may have proven one assertion at once.
        if self.by_assertion.contains_key(&hash) {
            return;
        }
        let client = (outcome.issuer.clone(), outcome.subject.clone());
        if let Some(own) = self.by_client.get_mut(&client)
            && own.len() >= OUTCOMES_EACH
            && let Some(oldest) = own.pop_front()
        {
            self.by_assertion.remove(&oldest);
        }
        if self.has_room(now) {
            self.by_assertion.insert(hash, outcome.clone());
            self.by_client.entry(client).or_default().push_back(hash);
        }
    }

    /// When it is full, what is over goes; what is in use never makes room.
    fn has_room(&mut self, now: Now) -> bool {
        let due = self.swept_at.is_none_or(|swept| now.at.as_ms() - swept.as_ms() >= SWEEP_EACH_MS);
        if self.by_assertion.len() >= OUTCOMES_MAX && due {
            self.by_assertion.retain(|_, outcome| !outcome.is_over(now));
            self.by_client.retain(|_, own| {
                own.retain(|hash| self.by_assertion.contains_key(hash));
                !own.is_empty()
            });
            self.swept_at = Some(now.at);
        }
        self.by_assertion.len() < OUTCOMES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: UnixMs = UnixMs::from_s(1_800_000_000);
    const BUNDLE: Fingerprint = Fingerprint([1; 32]);

    fn outcome(lives_s: i64) -> Outcome {
        let targets = Arc::from([Arc::from("db")]);
        Outcome { issuer: "db".into(), subject: "db-0".into(), targets, issued_at: AT, until: AT.plus_s(lives_s) }
    }

    fn of_server(number: usize, lives_s: i64) -> Outcome {
        Outcome { subject: format!("db-{number}").into(), ..outcome(lives_s) }
    }

    fn hash(number: usize) -> AssertionHash {
        sha256(&number.to_be_bytes())
    }

    /// How many there are, and how many are known by whose they are.
    fn held(outcomes: &Outcomes) -> (usize, usize) {
        let held = outcomes.0.read().unwrap();
        (held.by_assertion.len(), held.by_client.values().map(VecDeque::len).sum())
    }

    #[test]
    fn t_059_an_outcome_belongs_to_one_assertion_and_one_bundle() {
        let (outcomes, now) = (Outcomes::default(), Now::exactly(AT));
        outcomes.put(hash(1), &outcome(60), BUNDLE, now);
        assert!(outcomes.get(&hash(1), BUNDLE, now).is_some());
        assert!(outcomes.get(&hash(2), BUNDLE, now).is_none(), "another assertion");
        let other = Fingerprint([2; 32]);
        assert!(outcomes.get(&hash(1), other, now).is_none(), "another bundle");
        outcomes.put(hash(2), &outcome(60), other, now);
        assert_eq!(held(&outcomes), (1, 1), "what another bundle decided is dropped");
    }

    #[test]
    fn an_outcome_ends_with_its_assertion() {
        let outcomes = Outcomes::default();
        outcomes.put(hash(1), &outcome(60), BUNDLE, Now::exactly(AT));
        let at = |ms| outcomes.get(&hash(1), BUNDLE, Now::exactly(AT.plus_ms(ms))).is_some();
        assert_eq!((at(59_999), at(60_000)), (true, false));
    }

    #[test]
    fn t_160_a_flood_of_assertions_is_bounded() {
        let outcomes = Outcomes::default();
        for number in 0..OUTCOMES_MAX + 10 {
            outcomes.put(hash(number), &of_server(number, 60), BUNDLE, Now::exactly(AT));
        }
        let now = Now::exactly(AT.plus_s(59));
        assert_eq!(held(&outcomes), (OUTCOMES_MAX, OUTCOMES_MAX));
        assert!(outcomes.get(&hash(0), BUNDLE, now).is_some(), "what is in use stays");
        assert!(outcomes.get(&hash(OUTCOMES_MAX), BUNDLE, now).is_none(), "what came too late is checked anew");
        let later = Now::exactly(AT.plus_s(60));
        outcomes.put(hash(OUTCOMES_MAX), &of_server(0, 120), BUNDLE, later);
        assert_eq!(held(&outcomes), (1, 1), "what is over makes room");
    }

    #[test]
    fn t_160_one_servers_assertions_push_out_only_its_own() {
        let (outcomes, now) = (Outcomes::default(), Now::exactly(AT));
        outcomes.put(hash(0), &of_server(0, 60), BUNDLE, now);
        for number in 1..=OUTCOMES_MAX {
            outcomes.put(hash(number), &of_server(1, 60), BUNDLE, now);
            outcomes.put(hash(number), &of_server(1, 60), BUNDLE, now);
        }
        assert_eq!(held(&outcomes), (1 + OUTCOMES_EACH, 1 + OUTCOMES_EACH));
        assert!(outcomes.get(&hash(0), BUNDLE, now).is_some(), "another server's stays");
        let newest = OUTCOMES_MAX + 1 - OUTCOMES_EACH;
        assert!(outcomes.get(&hash(newest), BUNDLE, now).is_some());
        assert!(outcomes.get(&hash(newest - 1), BUNDLE, now).is_none(), "its own oldest go first");
    }

    #[test]
    fn a_client_id_is_the_subject() {
        assert!(matches!(outcome(1).caller(None), Ok(Caller::Verifier { .. })));
        assert!(outcome(1).caller(Some("db-0")).is_ok());
        for wrong in ["", "db", "DB-0", "db-0 "] {
            assert_eq!(outcome(1).caller(Some(wrong)).unwrap_err().reason, Reason::Client, "{wrong:?}");
        }
    }
}
