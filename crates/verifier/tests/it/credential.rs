//! What `Online` shows to the broker: an assertion of its own, its platform's token, or a bearer.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use dayfly_verifier::{
    Clock, Credential, Jws, KeySet, Online, OnlineSettings, Outage, Refused, Rules, SetupError, crypto::SigningKey,
    verify,
};
use serde_json::json;

use crate::broker::{Answer, Broker};

const CLIENT: &str = "db-0";

/// A key as `openssl genpkey` writes it.
fn key_file(dir: &Path) -> (std::path::PathBuf, SigningKey) {
    let der = SigningKey::generate_pkcs8().unwrap();
    let label = "PRIVATE KEY";
    let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der.expose()));
    let path = dir.join("verifier.pem");
    std::fs::write(&path, pem).unwrap();
    (path, SigningKey::from_pkcs8(der.expose()).unwrap())
}

async fn online(broker: &Broker, credential: Credential) -> Result<Online, SetupError> {
    let settings = OnlineSettings { credential, ..broker.settings(0) };
    Online::with_clock(settings, broker.clock.clone()).await
}

fn own(key_file: &Path) -> Credential {
    Credential::OwnKey { client_id: CLIENT.to_owned(), key_file: key_file.to_owned() }
}

/// The assertion of the last question, which came in the form and not in a header.
fn shown(broker: &Broker) -> String {
    assert_eq!(*broker.last_bearer.lock().unwrap(), "");
    let form = broker.last_form.lock().unwrap().clone();
    let kind = "&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&";
    assert!(form.contains(kind), "{form}");
    form.split_once("&client_assertion=").unwrap().1.to_owned()
}

#[tokio::test]
async fn an_own_key_signs_an_assertion_and_uses_it_again() {
    let (broker, dir) = (Broker::start().await, tempfile::tempdir().unwrap());
    broker.set(&broker.introspect, broker.active());
    let (path, key) = key_file(dir.path());
    let online = online(&broker, own(&path)).await.unwrap();
    let token = broker.token();
    online.check(&token).await.unwrap();
    let first = shown(&broker);
    let keys = KeySet::parse(json!({ "keys": [key.jwk()] }).to_string().as_bytes()).unwrap();
    let rules = Rules::new(CLIENT, broker.issuer.as_str());
    let verified = verify(&Jws::parse(&first).unwrap(), &keys, &rules, broker.clock.now()).unwrap();
    let lives_s = verified.expires_at_s() - broker.clock.now().as_s();
    assert!((60..=300).contains(&lives_s), "{lives_s}");
    assert_eq!(verified.claims()["sub"], CLIENT);
    broker.clock.advance_s(239);
    online.check(&token).await.unwrap();
    assert_eq!(shown(&broker), first);
    broker.clock.advance_s(1);
    online.check(&token).await.unwrap();
    assert_ne!(shown(&broker), first, "renewed while it has a minute left");
    broker.clock.advance_s(-5);
    let third = shown(&broker);
    let _ = online.check(&token).await;
    assert_ne!(shown(&broker), third, "a clock set back");
}

#[tokio::test]
async fn a_refused_assertion_is_not_shown_again() {
    let (broker, dir) = (Broker::start().await, tempfile::tempdir().unwrap());
    let online = online(&broker, own(&key_file(dir.path()).0)).await.unwrap();
    let token = broker.token();
    broker.set(&broker.introspect, Answer::Raw(401, String::new()));
    assert_eq!(online.check(&token).await.unwrap_err(), Refused::Unavailable, "our own fault, not the caller's");
    assert_eq!(online.last_outage(), Some(Outage::Status(401)));
    let first = shown(&broker);
    broker.set(&broker.introspect, broker.active());
    online.check(&token).await.unwrap();
    assert_ne!(shown(&broker), first);
}

#[tokio::test]
async fn a_platforms_token_is_read_for_each_question() {
    let (broker, dir) = (Broker::start().await, tempfile::tempdir().unwrap());
    broker.set(&broker.introspect, broker.active());
    let path = dir.path().join("token");
    let online = online(&broker, Credential::AssertionFile(path.clone())).await.unwrap();
    let token = broker.token();
    for text in ["a.b.c", "d.e.f\n"] {
        std::fs::write(&path, text).unwrap();
        online.check(&token).await.unwrap();
        assert_eq!(shown(&broker), text.trim());
    }
    let asked = broker.questions();
    for bad in ["", " \n", "a.b.c&token=x", "a b", "a\nb", "a%2e"] {
        std::fs::write(&path, bad).unwrap();
        assert_eq!(online.check(&token).await.unwrap_err(), Refused::Unavailable, "{bad:?}");
        assert_eq!(online.last_outage(), Some(Outage::Credential));
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(online.check(&token).await.unwrap_err(), Refused::Unavailable);
    assert_eq!(broker.questions(), asked, "nothing was sent");
}

#[tokio::test]
async fn a_key_that_is_none_shows_at_the_start() {
    let (broker, dir) = (Broker::start().await, tempfile::tempdir().unwrap());
    let (path, _) = key_file(dir.path());
    let nameless = Credential::OwnKey { client_id: " ".to_owned(), key_file: path.clone() };
    assert_eq!(online(&broker, nameless).await.unwrap_err(), SetupError::Key);
    let good = std::fs::read_to_string(&path).unwrap();
    for bad in ["", "no pem", &good.replace("PRIVATE KEY", "PUBLIC KEY"), &good[..60], &"x".repeat(20_000)] {
        std::fs::write(&path, bad).unwrap();
        assert_eq!(online(&broker, own(&path)).await.unwrap_err(), SetupError::Key);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(online(&broker, own(&path)).await.unwrap_err(), SetupError::Key);
    assert_eq!(broker.fetches(), 0);
}
