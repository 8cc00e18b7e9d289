//! Asking the broker: what is accepted, for how long, and that everything else is refused.

use std::sync::{Arc, atomic::Ordering};

use dayfly_verifier::{
    Credential, Offline, Online, OnlineSettings, Outage, ProofOf, Refusal, Refused, SetupError, dpop,
};
use serde_json::json;

use crate::{
    broker::{Answer, Broker},
    support::*,
};

#[tokio::test]
async fn an_active_token_passes_and_is_asked_about_once() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let online = broker.online(5).await.unwrap();
    let token = broker.token();
    for _ in 0..3 {
        assert_eq!(online.check(&token).await.unwrap().claims(), &broker.claims());
    }
    assert_eq!(broker.questions(), 1);
    assert_eq!(*broker.last_bearer.lock().unwrap(), "Bearer introspector");
    assert_eq!(*broker.last_form.lock().unwrap(), format!("token={token}&token_type_hint=access_token"));
}

#[tokio::test]
async fn an_ended_token_is_refused_after_max_stale() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let (online, token) = (broker.online(5).await.unwrap(), broker.token());
    assert!(online.check(&token).await.is_ok());
    broker.set(&broker.introspect, Answer::Json(json!({"active": false})));
    broker.clock.advance_s(4);
    assert!(online.check(&token).await.is_ok(), "within max_stale");
    broker.clock.advance_s(1);
    assert_eq!(online.check(&token).await.unwrap_err(), Refused::Inactive);
    assert_eq!(online.check(&token).await.unwrap_err(), Refused::Inactive);
    assert_eq!(broker.questions(), 2, "the inactive answer is kept too");
}

#[tokio::test]
async fn without_max_stale_every_request_is_asked_about() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let (online, token) = (broker.online(0).await.unwrap(), broker.token());
    assert!(online.check(&token).await.is_ok());
    broker.set(&broker.introspect, Answer::Json(json!({"active": false})));
    assert_eq!(online.check(&token).await.unwrap_err(), Refused::Inactive);
}

#[tokio::test]
async fn a_broken_answer_refuses() {
    let broker = Broker::start().await;
    let (online, token) = (broker.online(5).await.unwrap(), broker.token());
    let cases = [
        (Answer::Raw(500, "{\"active\":true}".into()), Outage::Status(500)),
        (Answer::Raw(401, String::new()), Outage::Status(401)),
        (Answer::Redirect(format!("{}/oauth2/jwks", broker.issuer)), Outage::Status(302)),
        (Answer::Raw(200, String::new()), Outage::Answer),
        (Answer::Raw(200, "true".into()), Outage::Answer),
        (Answer::Json(json!({})), Outage::Answer),
        (Answer::Json(json!({"active": "true"})), Outage::Answer),
        (Answer::Json(json!({"active": 1})), Outage::Answer),
        (Answer::Raw(200, "x".repeat(300 * 1024)), Outage::TooLarge),
    ];
    for (answer, outage) in cases {
        broker.set(&broker.introspect, answer);
        assert_eq!(online.check(&token).await.unwrap_err(), Refused::Unavailable, "{outage}");
        assert_eq!(online.last_outage(), Some(outage));
    }
    broker.set(&broker.introspect, broker.active());
    assert!(online.check(&token).await.is_ok(), "nothing of that was kept");
    assert_eq!(online.last_outage(), None);
}

#[tokio::test]
async fn an_answer_about_another_token_refuses() {
    let broker = Broker::start().await;
    let (online, token, claims) = (broker.online(5).await.unwrap(), broker.token(), broker.claims());
    for answer in [
        json!({"active": true}),
        json!({"active": true, "jti": claims.jti}),
        json!({"active": true, "aud": claims.aud}),
        json!({"active": true, "jti": "lse_00000000000000000000000000", "aud": claims.aud}),
        json!({"active": true, "jti": claims.jti, "aud": "https://db-1.example"}),
        json!({"active": true, "jti": claims.jti, "aud": [claims.aud, "https://db-1.example"]}),
    ] {
        broker.set(&broker.introspect, Answer::Json(answer.clone()));
        assert_eq!(online.check(&token).await.unwrap_err(), Refused::Unavailable, "{answer}");
    }
}

#[tokio::test]
async fn an_unreachable_broker_refuses() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let (online, token) = (broker.online(5).await.unwrap(), broker.token());
    assert!(online.check(&token).await.is_ok());
    tokio::time::pause();
    broker.set(&broker.introspect, Answer::Never);
    broker.clock.advance_s(4);
    assert!(online.check(&token).await.is_ok(), "an answer younger than max_stale is there");
    broker.clock.advance_s(1);
    assert_eq!(online.check(&token).await.unwrap_err(), Refused::Unavailable);
    assert_eq!(online.last_outage(), Some(Outage::Timeout));
}

#[tokio::test]
async fn a_bad_token_asks_nobody() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let online = broker.online(5).await.unwrap();
    let forged = Es256::new().signing.sign("at+jwt", &broker.claims()).unwrap();
    for _ in 0..3 {
        assert_eq!(online.check(&forged).await.unwrap_err(), Refused::Token(Refusal::UnknownKey));
    }
    assert_eq!(online.check("x").await.unwrap_err(), Refused::Token(Refusal::Malformed));
    assert_eq!((broker.questions(), broker.fetches()), (0, 1));
}

#[tokio::test]
async fn an_expired_token_is_refused_though_its_answer_is_fresh() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let (online, token) = (broker.online(3600).await.unwrap(), broker.token());
    broker.clock.advance_s(299);
    assert!(online.check(&token).await.is_ok());
    broker.clock.advance_s(1);
    assert_eq!(online.check(&token).await.unwrap_err(), Refused::Token(Refusal::Expired));
}

#[tokio::test]
async fn a_token_that_expires_while_it_is_asked_about_is_refused() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let (online, token) = (broker.online(5).await.unwrap(), broker.token());
    broker.clock.advance_s(299);
    broker.slow_s.store(1, Ordering::SeqCst);
    assert_eq!(online.check(&token).await.unwrap_err(), Refused::Token(Refusal::Expired));
    assert_eq!(broker.questions(), 1);
}

#[tokio::test]
async fn nobody_listening_refuses() {
    let broker = Broker::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let settings = OnlineSettings { issuer, ..broker.settings(5) };
    assert_eq!(Online::new(settings).await.unwrap_err(), SetupError::Keys(Outage::Connection));
}

#[tokio::test]
async fn a_credential_file_is_read_again_when_it_changes() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let settings = OnlineSettings { credential: Credential::BearerFile(path.clone()), ..broker.settings(0) };
    let online = Online::with_clock(settings, broker.clock.clone()).await.unwrap();
    let token = broker.token();
    for bad in ["", " \n", "a\nb"] {
        std::fs::write(&path, bad).unwrap();
        assert_eq!(online.check(&token).await.unwrap_err(), Refused::Unavailable);
        assert_eq!(online.last_outage(), Some(Outage::Credential));
    }
    for credential in ["first", "second\n"] {
        std::fs::write(&path, credential).unwrap();
        assert!(online.check(&token).await.is_ok());
        assert_eq!(*broker.last_bearer.lock().unwrap(), format!("Bearer {}", credential.trim()));
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(online.check(&token).await.unwrap_err(), Refused::Unavailable);
}

#[tokio::test]
async fn t_053_random_kids_cause_one_fetch() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let online = broker.online(5).await.unwrap();
    let stranger = Es256::new();
    let random = |number: i32| {
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": number.to_string()}).to_string();
        stranger.token(header, json!({}).to_string())
    };
    broker.clock.advance_s(30);
    for number in 0..50 {
        let refused = online.check(&random(number)).await.unwrap_err();
        assert_eq!(refused, Refused::Token(Refusal::UnknownKey));
    }
    assert_eq!(broker.fetches(), 2, "one at the start, one in 30 s");
    broker.set(&broker.jwks, Answer::Json(json!({"keys": []})));
    broker.clock.advance_s(30);
    for number in 0..50 {
        assert!(online.check(&random(number)).await.is_err());
    }
    assert_eq!(broker.fetches(), 3, "an empty set does not lift the limit");
}

#[tokio::test]
async fn a_rotated_key_is_found_and_a_removed_one_is_refused() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let online = broker.online(0).await.unwrap();
    let (old, next) = (broker.token(), Es256::new());
    let new = next.signing.sign("at+jwt", &broker.claims()).unwrap();
    broker.set(&broker.jwks, Answer::Json(json!({"keys": [next.signing.jwk()]})));
    broker.clock.advance_s(29);
    assert_eq!(online.check(&new).await.unwrap_err(), Refused::Token(Refusal::UnknownKey), "cooling down");
    broker.clock.advance_s(1);
    assert!(online.check(&new).await.is_ok());
    assert_eq!(online.check(&old).await.unwrap_err(), Refused::Token(Refusal::UnknownKey));
}

#[tokio::test]
async fn t_056_a_removed_key_is_refused_within_300_s() {
    let broker = Broker::start().await;
    let audience = broker.claims().aud;
    let offline = Offline::discover(&broker.issuer, &audience, Some(broker.ca_pem.clone())).await.unwrap();
    let offline = offline.with_clock(broker.clock.clone());
    let claims = dayfly_verifier::TaskClaims { exp: NOW_S + 4000, ..broker.claims() };
    let token = broker.key.signing.sign("at+jwt", &claims).unwrap();
    broker.set(&broker.jwks, Answer::Json(json!({"keys": [Es256::new().signing.jwk()]})));
    broker.clock.advance_s(299);
    assert!(offline.check_fresh(&token).await.is_ok());
    broker.clock.advance_s(1);
    assert!(offline.check(&token).is_ok(), "check alone fetches nothing");
    assert_eq!(offline.check_fresh(&token).await.unwrap_err(), Refused::Token(Refusal::UnknownKey));
}

#[tokio::test]
async fn t_055_stale_keys_are_refused_after_an_hour() {
    let broker = Broker::start().await;
    let audience = broker.claims().aud;
    let offline = Offline::discover(&broker.issuer, &audience, Some(broker.ca_pem.clone())).await.unwrap();
    let offline = offline.with_clock(broker.clock.clone());
    let claims = dayfly_verifier::TaskClaims { exp: NOW_S + 9000, ..broker.claims() };
    let token = broker.key.signing.sign("at+jwt", &claims).unwrap();
    broker.set(&broker.metadata, Answer::Raw(500, String::new()));
    broker.clock.advance_s(3600);
    assert!(offline.check_fresh(&token).await.is_ok());
    broker.clock.advance_s(1);
    assert_eq!(offline.check_fresh(&token).await.unwrap_err(), Refused::Unavailable);
    assert_eq!(offline.check(&token).unwrap_err(), Refused::Unavailable);
}

#[tokio::test]
async fn t_047_a_redirect_is_not_followed() {
    let broker = Broker::start().await;
    for place in [&broker.metadata, &broker.jwks] {
        let good = place.lock().unwrap().clone();
        broker.set(place, Answer::Redirect(format!("{}/oauth2/jwks", broker.issuer)));
        assert_eq!(broker.online(5).await.unwrap_err(), SetupError::Keys(Outage::Status(302)));
        broker.set(place, good);
    }
    assert!(broker.online(5).await.is_ok());
}

#[tokio::test]
async fn t_058_an_unknown_root_is_refused() {
    let (broker, other) = (Broker::start().await, Broker::start().await);
    let wrong = OnlineSettings { ca_pem: Some(other.ca_pem.clone()), ..broker.settings(5) };
    assert_eq!(Online::new(wrong).await.unwrap_err(), SetupError::Keys(Outage::Tls));
    let localhost = broker.issuer.replace("127.0.0.1", "localhost");
    let wrong = OnlineSettings { issuer: localhost, ..broker.settings(5) };
    assert_eq!(Online::new(wrong).await.unwrap_err(), SetupError::Keys(Outage::Tls), "wrong host");
    for pem in [&b""[..], b"no pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let wrong = OnlineSettings { ca_pem: Some(pem.to_vec()), ..broker.settings(5) };
        assert_eq!(Online::new(wrong).await.unwrap_err(), SetupError::Roots);
    }
}

#[tokio::test]
async fn an_issuer_is_a_plain_https_url() {
    let broker = Broker::start().await;
    for issuer in [
        broker.issuer.replace("https", "http"),
        format!("{}/", broker.issuer),
        format!("{}?a", broker.issuer),
        format!("{}#a", broker.issuer),
        broker.issuer.replace("//", "//a@"),
        String::new(),
    ] {
        let settings = OnlineSettings { issuer: issuer.clone(), ..broker.settings(5) };
        assert_eq!(Online::new(settings).await.unwrap_err(), SetupError::Issuer, "{issuer}");
    }
    broker.set(&broker.metadata, Answer::Json(json!({"issuer": "https://other.example", "jwks_uri": "x"})));
    assert_eq!(broker.online(5).await.unwrap_err(), SetupError::Keys(Outage::Answer));
}

#[tokio::test]
async fn concurrent_requests_wait_for_the_key_they_need() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let online = Arc::new(broker.online(5).await.unwrap());
    let next = Es256::new();
    broker.set(&broker.jwks, Answer::Json(json!({"keys": [next.signing.jwk()]})));
    broker.clock.advance_s(30);
    assert_eq!(all_pass(&online, next.signing.sign("at+jwt", &broker.claims()).unwrap()).await, 20);
    assert_eq!(broker.fetches(), 2);
}

/// How many of 20 checks at once pass.
async fn all_pass(online: &Arc<Online>, token: String) -> usize {
    let check = |online: Arc<Online>, token: String| async move { online.check(&token).await.is_ok() };
    let checks: Vec<_> = (0..20).map(|_| tokio::spawn(check(online.clone(), token.clone()))).collect();
    let mut passed = 0;
    for check in checks {
        passed += usize::from(check.await.unwrap());
    }
    passed
}

#[tokio::test]
async fn concurrent_requests_share_one_fetch() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let online = Arc::new(broker.online(5).await.unwrap());
    broker.clock.advance_s(300);
    let claims = dayfly_verifier::TaskClaims { exp: NOW_S + 4000, ..broker.claims() };
    let token = broker.key.signing.sign("at+jwt", &claims).unwrap();
    assert_eq!(all_pass(&online, token).await, 20);
    assert_eq!(broker.fetches(), 2);
}

#[tokio::test]
async fn a_bound_token_is_asked_for_too_and_only_with_its_proof() {
    let broker = Broker::start().await;
    broker.set(&broker.introspect, broker.active());
    let (online, holder) = (broker.online(5).await.unwrap(), Es256::new());
    let cnf = serde_json::from_value(json!({"jkt": holder.signing.kid()})).unwrap();
    let claims = dayfly_verifier::TaskClaims { cnf: Some(cnf), ..broker.claims() };
    let token = broker.key.signing.sign("at+jwt", &claims).unwrap();
    assert_eq!(online.check(&token).await.unwrap_err(), Refusal::Claim("cnf").into());
    let rules = dpop::ProofRules { method: "GET", url: "https://db-0.example/rows", token: Some(&token) };
    let proof = |jti| dpop::prove(&holder.signing, &rules, None, jti, NOW_S).unwrap();
    let shown = |proof| ProofOf { proof, method: rules.method, url: rules.url };
    let (first, second) = (proof("1"), proof("2"));
    assert_eq!(online.check_bound(&token, &shown(&first)).await.unwrap().claims(), &claims);
    assert!(online.check_bound(&token, &shown(&first)).await.is_err(), "each proof is good once");
    broker.set(&broker.introspect, Answer::Json(json!({"active": false})));
    broker.clock.advance_s(5);
    assert_eq!(online.check_bound(&token, &shown(&second)).await.unwrap_err(), Refused::Inactive);
}
