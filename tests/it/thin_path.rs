//! The thin path: evidence, a token, its use, its end.

use dayfly_domain::{Cause, Channel, Reason, State, UnixMs};
use dayfly_verifier::{KeySet, read_task_token};
use serde_json::{Map, Value, json};

use crate::world::{BROKER_URI, CI, ISSUER, Job, SHOP_URI, START, World, ask, handle, lease, reason, token};

fn keys(world: &World) -> KeySet {
    KeySet::parse(world.flow.jwks().to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn evidence_becomes_a_token_that_lives_until_its_task_ends() {
    let mut world = World::new();
    let issued = world.open(&Job::shop().run("7"), "deploy").await;
    let text = token(&issued);
    let introspected = world.introspect(&text).await.unwrap();
    assert_eq!((introspected.task, &introspected.claims["aud"]), (issued.task, &json!(SHOP_URI)));
    let ended = world.end(&handle(&issued), issued.task).await.unwrap();
    assert_eq!((ended.state, ended.cause, ended.leases_ended), (State::Ended, Some(Cause::Completed), 1));
    assert!(world.introspect(&text).await.is_none());
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
}

#[tokio::test]
async fn a_task_token_says_what_the_wire_says_and_nothing_more() {
    let mut world = World::new();
    world.clock.advance_ms(700);
    let mut asked = ask("deploy");
    (asked.ttl_s, asked.ticket) = (Some(120), Some("OPS-1".into()));
    let issued = world.try_open(&Job::shop().run("7"), asked).await.unwrap();
    let verified = read_task_token(&token(&issued), &keys(&world), ISSUER, SHOP_URI, world.now()).unwrap();
    let claims = verified.claims();
    assert_eq!((claims.exp - claims.iat, claims.iat, claims.nbf), (120, START.as_s(), START.as_s()));
    assert_eq!((claims.jti, claims.txn), (lease(&issued), issued.task));
    assert_eq!(claims.sub, "spiffe://example.org/deploy/ci/shop");
    assert!(claims.sub.len() <= 127);
    let raw = world.introspect(&token(&issued)).await.unwrap().claims;
    let expected = json!({
        "iss": ISSUER, "iat": claims.iat, "nbf": claims.iat, "exp": claims.exp, "jti": claims.jti, "sub": claims.sub,
        "client_id": claims.sub, "aud": SHOP_URI, "txn": issued.task, "owner": "team-shop",
        "authorization_details": [{ "type": "dayfly_task", "template": "deploy", "locations": [SHOP_URI],
            "actions": ["deploy:create", "deploy:status"], "purpose": "release the shop", "ticket": "OPS-1" }],
    });
    assert_eq!(Value::Object(raw), expected);
    let credential = issued.credential.unwrap();
    assert_eq!((credential.ttl_s, credential.expires), (120, UnixMs::from_s(claims.exp)));
    assert_eq!(issued.deadline, UnixMs::from_s(START.as_s() + 3600));
}

#[tokio::test]
async fn a_long_name_is_hashed_to_127_bytes() {
    let mut world = World::new();
    let long = "s".repeat(200);
    world.bundle.edit("claims = { sub = \"shop\" }", &format!("claims = {{ sub = \"{long}\" }}"));
    world.flow.load_bundle("test").await.unwrap();
    let issued = world.open(&Job::shop().with("sub", long), "deploy").await;
    let claims = world.introspect(&token(&issued)).await.unwrap().claims;
    assert!(claims["sub"].as_str().unwrap().len() <= 127);
}

#[tokio::test]
async fn our_own_tokens_are_no_evidence() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "watch").await;
    assert_eq!(reason(world.present(&token(&issued), ask("deploy")).await), Reason::Own);
    assert_eq!(world.caller(&token(&issued)).await.owner(), "team-shop");
    let shop = world.open(&Job::shop(), "deploy").await;
    assert_eq!(world.caller(&token(&shop)).await.owner(), "nobody", "a token for a target is no caller");
    let verified = read_task_token(&token(&issued), &keys(&world), ISSUER, BROKER_URI, world.now()).unwrap();
    assert_eq!(verified.claims().aud, BROKER_URI);
}

#[tokio::test]
async fn the_answer_names_the_bound_of_the_targets_own_way() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    let reach = issued.credential.unwrap().revocation;
    assert_eq!((reach[0].channel, reach[0].usual_s, reach[0].bound_s), (Channel::Introspection, 10, 40));
    let asked = crate::world::ask_on("ship", Some(crate::world::STOCK_URI), None);
    let stock = world.try_open(&Job::shop(), asked).await.unwrap();
    let reach = stock.credential.as_ref().unwrap().revocation.clone();
    assert_eq!((reach[0].channel, reach[0].bound_s), (Channel::Expiry, 930));
    let ended = world.end(&handle(&stock), stock.task).await.unwrap();
    assert_eq!((ended.channels[0].channel, ended.channels[0].known), (Channel::Expiry, false));
    assert_eq!(ended.channels[0].worst_case_at, START.plus_s(930));
}

#[tokio::test]
async fn a_task_alone_has_no_credential_until_it_is_fed() {
    let mut world = World::new();
    let asked = dayfly::policy::Ask { what: dayfly::policy::What::TaskOnly, ..ask("deploy") };
    let issued = world.try_open(&Job::shop(), asked).await.unwrap();
    assert!(issued.credential.is_none());
    let fed = world.feed(&handle(&issued), None).await.unwrap();
    assert_eq!(fed.task, issued.task);
    assert!(fed.handle.is_none() && world.active(&token(&fed)).await);
}

#[tokio::test]
async fn a_token_is_matched_whole_not_by_its_id() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    let claims: Map<String, Value> = world.introspect(&token(&issued)).await.unwrap().claims;
    let forged = world.sign(Job(Value::Object(claims)));
    assert!(!world.active(&forged).await);
    let cut = &token(&issued)[..token(&issued).len() - 4];
    for bad in [cut, "", "a.b.c", CI, &handle(&issued)] {
        assert!(!world.active(bad).await, "{bad}");
    }
}

trait Owner {
    fn owner(&self) -> &str;
}

impl Owner for dayfly::flow::Caller {
    fn owner(&self) -> &str {
        match self {
            Self::Token { owner, .. } => owner,
            Self::Nobody => "nobody",
            Self::Operator { .. } | Self::Handle { .. } | Self::Verifier { .. } => "another",
        }
    }
}
