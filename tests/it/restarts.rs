//! What survives a restart: leases, ends, blocks, handles, keys.

use base64::{Engine, engine::general_purpose::STANDARD};
use dayfly_domain::{Cause, State};
use dayfly_verifier::{KeySet, crypto::SigningKey, read_task_token};

use crate::world::{ISSUER, Job, OPERATOR, SHOP_URI, World, handle, lease, token};

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let mut world = World::on_file();
    let live = world.open(&Job::shop().run("1"), "deploy").await;
    let ended = world.open(&Job::shop().run("2"), "deploy").await;
    world.end(&handle(&ended), ended.task).await.unwrap();
    let jwks = world.flow.jwks();
    world.restart().await;
    assert!(world.active(&token(&live)).await && !world.active(&token(&ended)).await);
    let view = world.flow.lease(&OPERATOR, lease(&ended)).await.unwrap();
    assert_eq!((view.state, view.cause), (State::Ended, Some(Cause::Completed)));
    assert_eq!(world.flow.jwks(), jwks, "the keys are kept");
    let keys = KeySet::parse(jwks.to_string().as_bytes()).unwrap();
    let further = world.feed(&handle(&live), Some(0)).await.unwrap();
    assert!(read_task_token(&token(&further), &keys, ISSUER, SHOP_URI, world.now()).is_ok());
    assert!(!world.active(&token(&live)).await);
    world.end(&handle(&live), live.task).await.unwrap();
    world.restart().await;
    assert!(!world.active(&token(&further)).await);
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn a_supersede_that_lay_ahead_comes_due_after_a_restart() {
    let mut world = World::on_file();
    let first = world.open(&Job::shop(), "deploy").await;
    world.feed(&handle(&first), Some(30)).await.unwrap();
    world.pass_s(10);
    world.restart().await;
    assert!(world.active(&token(&first)).await);
    world.pass_s(20);
    assert!(!world.active(&token(&first)).await);
}

#[tokio::test]
async fn what_expired_while_the_broker_was_down_is_expired() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.stop().await;
    world.pass_s(900);
    world.start_again().unwrap();
    assert!(!world.active(&token(&issued)).await);
    let view = world.flow.lease(&OPERATOR, lease(&issued)).await.unwrap();
    assert_eq!(view.state, State::Expired);
    assert!(world.feed(&handle(&issued), None).await.is_ok(), "its task still lives");
}

#[tokio::test]
async fn a_start_is_an_event_with_both_clocks() {
    let mut world = World::on_file();
    world.restart().await;
    let events = world.flow.events(&OPERATOR, dayfly::flow::EventFilter::default(), 50, None).await.unwrap().items;
    let kinds: Vec<_> = events.iter().map(|event| event.body["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["start", "start", "bundle_swapped"]);
    assert_eq!(events[0].body["wall_ms"], world.now().as_ms());
    assert_eq!(events[0].body["boot_ms"], 0);
}

#[tokio::test]
async fn tokens_of_a_rotated_key_live_on() {
    let mut world = World::on_file();
    world.pass_s(24 * 3600 - 60);
    let issued = world.open(&Job::shop(), "deploy").await;
    world.pass_s(60);
    world.upkeep.each_minute().await;
    let keys = KeySet::parse(world.flow.jwks().to_string().as_bytes()).unwrap();
    assert!(read_task_token(&token(&issued), &keys, ISSUER, SHOP_URI, world.now()).is_ok());
    let further = world.feed(&handle(&issued), None).await.unwrap();
    let kid = |token: &str| dayfly_verifier::Jws::parse(token).unwrap().kid().unwrap().to_owned();
    assert_ne!(kid(&token(&issued)), kid(&token(&further)));
    world.restart().await;
    assert!(world.active(&token(&issued)).await && world.active(&token(&further)).await);
    world.pass_s(900);
    world.upkeep.each_minute().await;
    assert!(!world.flow.jwks().to_string().contains(&kid(&token(&issued))), "gone with its last token");
}

/// A record that was lost is no reason to believe a signature: inactive, and an alarm.
#[tokio::test]
async fn a_well_signed_token_without_a_record_is_inactive() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.stop().await;
    world.sql("DELETE FROM lease");
    world.start_again().unwrap();
    assert!(!world.active(&token(&issued)).await);
    world.flow.revoke_presented(&dayfly_domain::Secret::new(token(&issued))).await.unwrap();
    assert!(world.feed(&handle(&issued), None).await.is_ok());
}

/// Whoever has our key signs what he likes: for a year, for anybody, of another kind, without an
/// `exp`. Each is an alarm, and none of them is active.
#[tokio::test]
async fn whatever_is_signed_with_our_key_over_no_lease_is_an_alarm() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    let honest = dayfly_verifier::Jws::parse(&token(&issued)).unwrap().into_unverified_claims();
    let stored = std::fs::read(world.file().with_file_name("token-keys.json")).unwrap();
    let stored: serde_json::Value = serde_json::from_slice(&stored).unwrap();
    let pkcs8 = STANDARD.decode(stored[0]["pkcs8"].as_str().unwrap()).unwrap();
    let ours = SigningKey::from_pkcs8(&pkcs8).unwrap();
    let stranger = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
    let forged = |key: &SigningKey, typ: &str, changes: &[(&str, serde_json::Value)]| {
        let mut claims = honest.clone();
        claims.insert("jti".into(), dayfly_domain::LeaseId::from_parts(7, [7; 10]).to_string().into());
        for (name, value) in changes {
            claims.insert((*name).into(), value.clone());
        }
        key.sign(typ, &claims).unwrap()
    };
    let now_s = world.now().as_s();
    let seen = async |token: String| {
        assert!(!world.active(&token).await);
        world.flow.forged_or_lost()
    };
    let alarms = [
        forged(&ours, "at+jwt", &[]),
        forged(&ours, "at+jwt", &[("exp", (now_s + 365 * 86_400).into())]),
        forged(&ours, "at+jwt", &[("exp", i64::MAX.into()), ("aud", serde_json::json!(["a", "b"]))]),
        forged(&ours, "JWT", &[("exp", serde_json::Value::Null), ("iat", "now".into())]),
        forged(&ours, "at+jwt", &[("jti", "mine".into())]),
    ];
    for (count, token) in (1..).zip(alarms) {
        assert_eq!(seen(token).await, count);
    }
    for silent in [
        forged(&ours, "at+jwt", &[("exp", now_s.into())]),
        forged(&ours, "at+jwt", &[("iss", "https://other.example".into())]),
        forged(&ours, "at+jwt", &[("jti", honest["jti"].clone())]),
        forged(&stranger, "at+jwt", &[]),
    ] {
        assert_eq!(seen(silent).await, 5);
    }
    let broker = forged(&ours, "at+jwt", &[("aud", crate::world::BROKER_URI.into())]);
    assert!(matches!(world.caller(&broker).await, dayfly::flow::Caller::Nobody));
    assert_eq!(world.flow.forged_or_lost(), 6, "a forged token is told of wherever it is shown");
}
