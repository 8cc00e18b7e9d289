//! `Listed` against a broker in a test's hand: when it fetches, and what it does when it cannot.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use dayfly_verifier::{
    Clock, ListSettings, Listed, Outage, ProofOf, Refusal, Refused, UnixMs,
    crypto::SigningKey,
    dpop,
    status::{EncodedList, LIST_ENTRIES_MAX, LIST_TOKEN_TYP, ListClaims, ListRefusal, StatusBits, StatusList},
};
use serde_json::json;

use crate::{
    broker::{Answer, Broker, Stepped},
    lists::{list_claims, listed_claims, uri_of},
    support::*,
};

const PATH: &str = "/status/a";

async fn listed(broker: &Broker) -> Arc<Listed> {
    with_clock(broker, broker.clock.clone()).await
}

async fn with_clock(broker: &Broker, clock: Arc<dyn Clock>) -> Arc<Listed> {
    let settings = ListSettings {
        ca_pem: Some(broker.ca_pem.clone()),
        ..ListSettings::new(broker.issuer.as_str(), broker.claims().aud)
    };
    Arc::new(Listed::with_clock(settings, clock).await.unwrap())
}

/// A wall clock that somebody sets back; the steady one goes on.
struct SetBack {
    true_clock: Arc<Stepped>,
    back_ms: AtomicI64,
}

impl Clock for SetBack {
    fn now(&self) -> UnixMs {
        self.true_clock.now().plus_ms(-self.back_ms.load(Ordering::SeqCst))
    }

    fn steady_ms(&self) -> i64 {
        self.true_clock.now().as_ms()
    }
}

/// A broker with a list on which these have ended, and a verifier that has fetched nothing yet.
pub async fn start(ended: &[u32]) -> (Arc<Broker>, Arc<Listed>) {
    let broker = Broker::start().await;
    publish(&broker, ended);
    let listed = listed(&broker).await;
    (broker, listed)
}

fn claims(broker: &Broker, ended: &[u32]) -> ListClaims {
    list_claims(&uri_of(&broker.issuer, "a"), ended, broker.clock.now().as_s())
}

fn publish(broker: &Broker, ended: &[u32]) {
    publish_claims(broker, &claims(broker, ended));
}

fn publish_claims(broker: &Broker, claims: &ListClaims) {
    answer(broker, Answer::Raw(200, broker.key.signing.sign(LIST_TOKEN_TYP, claims).unwrap()));
}

pub fn answer(broker: &Broker, answer: Answer) {
    broker.lists.lock().unwrap().insert(PATH.to_owned(), answer);
}

pub fn token_for(broker: &Broker, idx: u32) -> String {
    // Longer than the lists of these tests live.
    let mut claims = listed_claims(broker.claims(), &uri_of(&broker.issuer, "a"), idx);
    claims.exp += 3600;
    broker.key.signing.sign("at+jwt", &claims).unwrap()
}

async fn outcome(broker: &Broker, listed: &Listed, idx: u32) -> Result<(), Refused> {
    listed.check(&token_for(broker, idx)).await.map(drop)
}

fn fetches(broker: &Broker) -> usize {
    broker.listed.load(Ordering::SeqCst)
}

#[tokio::test]
async fn an_entry_that_is_set_is_an_ended_token() {
    let (broker, listed) = start(&[3]).await;
    assert_eq!(outcome(&broker, &listed, 2).await, Ok(()));
    assert_eq!(outcome(&broker, &listed, 3).await, Err(Refused::Inactive));
    assert_eq!(outcome(&broker, &listed, 64).await, Err(Refusal::Claim("status").into()));
    assert_eq!((fetches(&broker), broker.questions()), (1, 0), "one list, and nobody is asked about a token");
}

#[tokio::test]
async fn a_list_is_used_for_its_ttl_and_then_fetched_again() {
    let (broker, listed) = start(&[]).await;
    assert_eq!(outcome(&broker, &listed, 3).await, Ok(()));
    publish(&broker, &[3]);
    broker.clock.advance_s(14);
    assert_eq!((outcome(&broker, &listed, 3).await, fetches(&broker)), (Ok(()), 1), "within its 15 s");
    broker.clock.advance_s(1);
    assert_eq!((outcome(&broker, &listed, 3).await, fetches(&broker)), (Err(Refused::Inactive), 2));
}

#[tokio::test]
async fn fifty_requests_cause_one_fetch() {
    let (broker, listed) = start(&[3]).await;
    for round in 1..=2 {
        let checks = (0..50).map(|_| {
            let (broker, listed) = (broker.clone(), listed.clone());
            tokio::spawn(async move { outcome(&broker, &listed, 3).await })
        });
        for check in checks.collect::<Vec<_>>() {
            assert_eq!(check.await.unwrap(), Err(Refused::Inactive));
        }
        assert_eq!(fetches(&broker), round);
        broker.clock.advance_s(16);
    }
}

#[tokio::test]
async fn a_stale_list_is_used_on_while_no_newer_one_can_be_had() {
    let (broker, listed) = start(&[3]).await;
    assert_eq!(outcome(&broker, &listed, 0).await, Ok(()));
    answer(&broker, Answer::Raw(503, String::new()));
    for (at_s, tried) in [(15, 2), (19, 2), (20, 3), (299, 4)] {
        broker.clock.advance_s(at_s - offset_s(&broker));
        assert_eq!(outcome(&broker, &listed, 0).await, Ok(()), "{at_s}");
        assert_eq!(outcome(&broker, &listed, 3).await, Err(Refused::Inactive));
        assert_eq!(fetches(&broker), tried, "at {at_s} s, not more often than every 5 s");
    }
    assert_eq!(listed.last_outage(), Some(Outage::Status(503)));
}

fn offset_s(broker: &Broker) -> i64 {
    broker.clock.now().as_s() - NOW_S
}

#[tokio::test]
async fn an_expired_list_is_refused_when_no_newer_one_can_be_had() {
    let (broker, listed) = start(&[3]).await;
    assert_eq!(outcome(&broker, &listed, 0).await, Ok(()));
    answer(&broker, Answer::Raw(503, String::new()));
    broker.clock.advance_s(300);
    for idx in [0, 3] {
        let refused = outcome(&broker, &listed, idx).await.unwrap_err();
        assert_eq!((refused, refused.status()), (Refused::List(ListRefusal::Expired), 503));
    }
    publish(&broker, &[3]);
    broker.clock.advance_s(5);
    assert_eq!(outcome(&broker, &listed, 0).await, Ok(()), "and it comes back by itself");
    assert_eq!(listed.last_outage(), None);
}

#[tokio::test]
async fn a_clock_set_back_keeps_no_list_alive() {
    let (broker, _) = start(&[]).await;
    let clock = Arc::new(SetBack { true_clock: broker.clock.clone(), back_ms: AtomicI64::new(0) });
    let listed = with_clock(&broker, clock.clone()).await;
    assert_eq!(outcome(&broker, &listed, 0).await, Ok(()));
    answer(&broker, Answer::Raw(503, String::new()));
    for (true_s, expected) in [(299, Ok(())), (300, Err(ListRefusal::Expired.into()))] {
        broker.clock.advance_s(true_s - offset_s(&broker));
        clock.back_ms.store(true_s * 1000, Ordering::SeqCst);
        assert_eq!(outcome(&broker, &listed, 0).await, expected, "{true_s}");
    }
}

#[tokio::test]
async fn a_clock_set_back_makes_no_list_fresh() {
    let (broker, listed) = start(&[]).await;
    assert_eq!(outcome(&broker, &listed, 0).await, Ok(()));
    broker.clock.advance_s(-10);
    // The test's steady clock is its wall clock, so a step back makes the list one from the future: it is
    // asked for again, and what comes is older than the one at hand.
    publish_claims(&broker, &claims(&broker, &[0]));
    let _ = outcome(&broker, &listed, 0).await;
    assert_eq!((fetches(&broker), listed.last_outage()), (2, Some(Outage::OlderList)));
}

#[tokio::test]
async fn without_a_list_nobody_gets_in() {
    let broker = Broker::start().await;
    let listed = listed(&broker).await;
    let other = Es256::new();
    let foreign = other.signing.sign(LIST_TOKEN_TYP, &claims(&broker, &[])).unwrap();
    let task = broker.key.signing.sign("at+jwt", &claims(&broker, &[])).unwrap();
    let good = claims(&broker, &[]);
    let expired = ListClaims { exp: NOW_S, ..good.clone() };
    let sign = |claims: &ListClaims| broker.key.signing.sign(LIST_TOKEN_TYP, claims).unwrap();
    let elsewhere = ListClaims { sub: uri_of(&broker.issuer, "b"), ..good.clone() };
    let bomb = EncodedList::of(&StatusList::new(StatusBits::One, LIST_ENTRIES_MAX * 64));
    let too_large = ListClaims { status_list: bomb, ..good.clone() };
    for (answered, refusal) in [
        (Answer::Raw(404, String::new()), ListRefusal::Missing),
        (Answer::Raw(500, sign(&good)), ListRefusal::Missing),
        (Answer::Redirect(format!("{}/status/b", broker.issuer)), ListRefusal::Missing),
        (Answer::Raw(200, "x".repeat(300_000)), ListRefusal::Missing),
        (Answer::Raw(200, String::new()), ListRefusal::Token(Refusal::Malformed)),
        (Answer::Json(json!({"status_list": {}})), ListRefusal::Token(Refusal::Malformed)),
        (Answer::Raw(200, foreign), ListRefusal::Token(Refusal::UnknownKey)),
        (Answer::Raw(200, task), ListRefusal::Token(Refusal::Type)),
        (Answer::Raw(200, sign(&expired)), ListRefusal::Expired),
        (Answer::Raw(200, sign(&elsewhere)), ListRefusal::Subject),
    ] {
        answer(&broker, answered);
        assert_eq!(outcome(&broker, &listed, 0).await, Err(refusal.into()));
        let again = fetches(&broker);
        assert_eq!(outcome(&broker, &listed, 0).await, Err(refusal.into()));
        assert_eq!(fetches(&broker), again, "no second try within 5 s");
        broker.clock.advance_s(5);
    }
    assert_eq!(listed.last_outage(), Some(Outage::List(ListRefusal::Subject)));
    publish_claims(&broker, &too_large);
    assert!(matches!(outcome(&broker, &listed, 0).await, Err(Refused::List(ListRefusal::List(_)))));
    publish(&broker, &[]);
    broker.clock.advance_s(5);
    assert_eq!(outcome(&broker, &listed, 0).await, Ok(()));
}

#[tokio::test]
async fn a_list_under_another_ones_url_is_refused() {
    let (broker, listed) = start(&[3]).await;
    // Somebody swaps two lists of the same broker: both are genuine.
    let b = ListClaims { sub: uri_of(&broker.issuer, "b"), ..claims(&broker, &[]) };
    publish_claims(&broker, &b);
    assert_eq!(outcome(&broker, &listed, 3).await, Err(ListRefusal::Subject.into()));
}

#[tokio::test]
async fn an_older_list_does_not_replace_a_newer_one() {
    let (broker, listed) = start(&[]).await;
    let old = claims(&broker, &[]);
    broker.clock.advance_s(60);
    publish(&broker, &[3]);
    assert_eq!(outcome(&broker, &listed, 3).await, Err(Refused::Inactive));
    publish_claims(&broker, &old);
    broker.clock.advance_s(20);
    assert_eq!(outcome(&broker, &listed, 3).await, Err(Refused::Inactive), "played again, while it is not expired");
    assert_eq!(listed.last_outage(), Some(Outage::OlderList));
}

#[tokio::test]
async fn a_list_signed_by_a_new_key_is_read() {
    let (broker, listed) = start(&[]).await;
    assert_eq!(outcome(&broker, &listed, 0).await, Ok(()));
    let lists_key = Es256::new();
    broker.set(&broker.jwks, Answer::Json(json!({"keys": [broker.key.signing.jwk(), lists_key.signing.jwk()]})));
    broker.clock.advance_s(60);
    answer(&broker, Answer::Raw(200, lists_key.signing.sign(LIST_TOKEN_TYP, &claims(&broker, &[3])).unwrap()));
    assert_eq!(outcome(&broker, &listed, 3).await, Err(Refused::Inactive));
    assert_eq!(broker.fetches(), 2, "the unknown `kid` was looked up");
}

#[tokio::test]
async fn a_token_that_dies_while_its_list_is_fetched_is_refused() {
    let (broker, listed) = start(&[]).await;
    let mut claims = listed_claims(broker.claims(), &uri_of(&broker.issuer, "a"), 0);
    claims.exp = NOW_S + 2;
    let token = broker.key.signing.sign("at+jwt", &claims).unwrap();
    broker.slow_s.store(3, Ordering::SeqCst);
    assert_eq!(listed.check(&token).await.unwrap_err(), Refused::Token(Refusal::Expired));
}

#[tokio::test]
async fn a_bad_token_fetches_no_list() {
    let (broker, listed) = start(&[]).await;
    let forger = Es256::new();
    let forged = forger.signing.sign("at+jwt", &listed_claims(broker.claims(), &uri_of(&broker.issuer, "x"), 0));
    for token in ["", "x", &forged.unwrap(), &broker.token()] {
        assert!(listed.check(token).await.is_err());
    }
    let elsewhere = listed_claims(broker.claims(), "https://evil.example/status/a", 0);
    let elsewhere = broker.key.signing.sign("at+jwt", &elsewhere).unwrap();
    assert_eq!(listed.check(&elsewhere).await.unwrap_err(), Refusal::Claim("status").into());
    assert_eq!(listed.check(&broker.token()).await.unwrap_err(), Refusal::Claim("status").into(), "no `status`");
    assert_eq!(fetches(&broker), 0);
}

#[tokio::test]
async fn refresh_fetches_ahead_of_need() {
    let (broker, listed) = start(&[]).await;
    listed.refresh().await;
    assert_eq!(fetches(&broker), 0, "nothing is known yet");
    assert_eq!(outcome(&broker, &listed, 3).await, Ok(()));
    publish(&broker, &[3]);
    broker.clock.advance_s(7);
    listed.refresh().await;
    assert_eq!(fetches(&broker), 1, "not half over");
    broker.clock.advance_s(1);
    listed.refresh().await;
    assert_eq!((outcome(&broker, &listed, 3).await, fetches(&broker)), (Err(Refused::Inactive), 2));
    broker.clock.advance_s(300);
    listed.refresh().await;
    assert_eq!(fetches(&broker), 2, "an expired one is forgotten, not fetched for ever");
}

#[tokio::test]
async fn a_bound_token_is_looked_up_too_and_only_with_its_proof() {
    let (broker, listed) = start(&[3]).await;
    let key = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
    let url = "https://db-0.example/rows";
    for (idx, expected) in [(0, Ok(())), (3, Err(Refused::Inactive))] {
        let mut claims = listed_claims(broker.claims(), &uri_of(&broker.issuer, "a"), idx);
        claims.cnf = Some(dayfly_verifier::Confirmation::Jkt(key.thumbprint()));
        let token = broker.key.signing.sign("at+jwt", &claims).unwrap();
        let rules = dpop::ProofRules { method: "GET", url, token: Some(&token) };
        let proof = dpop::prove(&key, &rules, None, &format!("p-{idx}"), NOW_S).unwrap();
        let of = ProofOf { proof: &proof, method: "GET", url };
        assert_eq!(listed.check_bound(&token, &of).await.map(drop), expected);
        assert_eq!(listed.check(&token).await.unwrap_err(), Refusal::Claim("cnf").into());
    }
}

#[tokio::test]
async fn a_wrong_setting_shows_at_start() {
    let broker = Broker::start().await;
    let settings = |issuer: &str| ListSettings {
        ca_pem: Some(broker.ca_pem.clone()),
        ..ListSettings::new(issuer, "https://db-0.example")
    };
    for issuer in ["http://127.0.0.1:1", "https://127.0.0.1:1/", "x", &format!("{}/", broker.issuer)] {
        assert!(Listed::new(settings(issuer)).await.is_err(), "{issuer}");
    }
    broker.set(&broker.jwks, Answer::Raw(404, String::new()));
    assert!(Listed::new(settings(&broker.issuer)).await.is_err());
}
