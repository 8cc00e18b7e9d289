//! How issuers are: what operators see, what is fetched ahead, and what one that is away does to the rest.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    platform::{Platform, Reply},
    stage::{DOWN, INSIDE, OPENED, Stage, UNKNOWN_KEY, is, issuer, key},
};
use crate::{
    served::Authority,
    threats::stand::Stand,
    world::{get, local, post_json},
};

fn silent(authority: &Authority) -> Platform {
    let platform = Platform::start(authority);
    platform.answers(|_| Reply::Silence(Vec::new()));
    platform
}

#[tokio::test]
async fn keys_are_fetched_ahead_so_that_nobody_waits_for_them() {
    let (authority, key) = (Authority::new(), key());
    let platform = Platform::start(&authority);
    platform.publishes(&[&key]);
    let mut stage = Stage::with(&authority, &platform);
    assert_eq!(stage.issuer("one").await["state"], "waiting");
    stage.world.flow.fetch_issuers_ahead();
    is(stage.opens(&platform.url(), &key).await, OPENED);
    assert_eq!(platform.fetches(), 1, "the request waited for the fetch that was under way");
    let fetched = stage.issuer("one").await;
    assert_eq!((&fetched["state"], &fetched["keys"], &fetched["failures"]), (&json!("fresh"), &json!(1), &json!(0)));
    stage.world.pass_s(239);
    stage.world.flow.fetch_issuers_ahead();
    is(stage.opens(&platform.url(), &key).await, OPENED);
    assert_eq!(platform.connections(), 2, "not yet");

    // From then on they are asked for; who knows a key goes on meanwhile, also past their freshness.
    platform.answers(|_| Reply::Silence(Vec::new()));
    stage.world.pass_s(1);
    stage.world.flow.fetch_issuers_ahead();
    stage.world.pass_s(100);
    let began = Instant::now();
    is(stage.opens(&platform.url(), &key).await, OPENED);
    assert!(began.elapsed() < Duration::from_secs(2), "the fetch takes five");
}

#[tokio::test]
async fn an_issuer_that_is_away_keeps_nothing_else_from_working() {
    let (authority, key) = (Authority::new(), key());
    let (away, mute, good) = (Platform::start(&authority), silent(&authority), Platform::start(&authority));
    good.publishes(&[&key]);
    let tables = [("away", away.url()), ("mute", mute.url()), ("good", good.url())];
    let away = format!("https://{}", away.stop());
    let began = Instant::now();
    let tables: String = tables.iter().map(|(name, url)| issuer(name, url, INSIDE)).collect();
    let mut stage = Stage::of(&authority, &tables);
    stage.world.flow.fetch_issuers_ahead();
    is(stage.opens(&good.url(), &key).await, OPENED);
    assert_eq!(stage.world.flow.readiness(), Ok(()));
    is(stage.opens(&away, &key).await, DOWN);
    assert!(began.elapsed() < Duration::from_secs(3), "the one that says nothing takes five");
    let unwell: Vec<_> = stage.world.flow.issuers_unwell().into_iter().map(|view| view.name.to_string()).collect();
    assert_eq!(unwell, ["away"], "of the other nobody knows yet");
    assert_eq!(stage.issuer("away").await["why"], "discovery: its host refuses the connection");
    drop(mute);
}

#[tokio::test]
async fn what_an_issuer_says_is_in_no_answer_log_or_metric() {
    let (authority, known) = (Authority::new(), key());
    let platform = Platform::start(&authority);
    let stage = Stage::with(&authority, &platform);
    let Stage { world, .. } = stage;
    let stand = Stand::with(world, crate::threats::forge::Forge::new());
    let canary = "canary-6f1d2c";
    for reply in [
        Reply::status("500 canary-6f1d2c", "X: canary-6f1d2c\r\n", canary),
        Reply::status("302 Found", "Location: https://canary-6f1d2c.test/\r\n", canary),
        Reply::json(&json!({ "issuer": platform.url(), "jwks_uri": "https://canary-6f1d2c.test/" })),
        Reply::json(&json!({ "issuer": canary, "jwks_uri": canary })),
        Reply::json(&json!({ "issuer": platform.url(), "jwks_uri": "canary-6f1d2c" })),
        Reply::status("200 OK", "", canary),
    ] {
        platform.answers(move |_| reply.clone());
        let token = {
            let claims = json!({ "iss": platform.url(), "sub": "shop" });
            known.sign("JWT", &claims).unwrap()
        };
        let answer = stand.present(&token).await;
        assert_eq!(answer.status, 503, "{}", answer.text);
        let refused = stand.world.call(local(post_json("/v1/issuers/one/refresh", None, &json!({}))));
        let refused = refused.await;
        assert_eq!((refused.status, &refused.json()["reason"]), (503, &json!("E-ISSUER-DOWN")));
        let listed = stand.world.call(local(get("/v1/issuers", None))).await;
        stand.world.upkeep.each_second();
        for text in [answer.text, refused.text, listed.text, stand.log(), stand.metrics()] {
            assert!(!text.contains(canary), "{text}");
        }
        stand.world.pass_s(31);
    }
    assert_eq!(stand.counted("dayfly_jwks_fetch_failures_total", "issuer=\"one\""), 12);
}

#[tokio::test]
async fn a_refresh_is_on_the_record_with_what_came_of_it() {
    let (authority, old) = (Authority::new(), key());
    let platform = Platform::start(&authority);
    platform.publishes(&[&old]);
    let mut stage = Stage::with(&authority, &platform);
    assert_eq!(stage.refresh("one").await.status, 200);
    stage.world.pass_s(1);
    platform.answers(|_| Reply::status("500 No", "", ""));
    let refused = stage.refresh("one").await;
    assert_eq!(refused.json()["detail"], "discovery: the answer has status 500");
    let events = stage.world.call(local(get("/v1/ledger?limit=2", None))).await.json()["items"].clone();
    assert_eq!(refused.json()["decision_id"], events[0]["id"]);
    for (event, outcome) in [(&events[0], "refused"), (&events[1], "success")] {
        assert_eq!((&event["type"], &event["outcome"]), (&json!("operator"), &json!(outcome)), "{event}");
        let said = event.to_string();
        assert!(said.contains("issuer_refresh") && said.contains("\"one\"") && said.contains("local:1000"), "{said}");
    }
    // Keys that are there stay: a failed refresh takes nothing away.
    is(stage.opens(&platform.url(), &old).await, OPENED);
    is(stage.opens(&platform.url(), &key()).await, UNKNOWN_KEY);
    assert_eq!(stage.refresh("nobody").await.status, 404);
    assert_eq!(stage.refresh("ci").await.json()["state"], "pinned");
}

#[tokio::test]
async fn gauges_say_how_old_keys_are_until_the_issuer_is_gone() {
    let (authority, key) = (Authority::new(), key());
    let platform = Platform::start(&authority);
    platform.publishes(&[&key]);
    let mut stage = Stage::with(&authority, &platform);
    is(stage.opens(&platform.url(), &key).await, OPENED);
    let stand = Stand::with(stage.world, crate::threats::forge::Forge::new());
    stand.world.pass_s(120);
    stand.world.upkeep.each_second();
    let shown = |name: &str| {
        let metrics = stand.metrics();
        let line = metrics.lines().find(|line| line.starts_with(name) && line.contains("one"));
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_owned()
    };
    assert_eq!((shown("dayfly_issuer_keys{"), shown("dayfly_issuer_keys_age_seconds{")), ("1".into(), "120".into()));
    stand.world.bundle.set(crate::world::BUNDLE);
    stand.world.flow.load_bundle("test").await.unwrap();
    stand.world.upkeep.each_second();
    assert_eq!((shown("dayfly_issuer_keys{"), shown("dayfly_issuer_keys_age_seconds{")), ("0".into(), "0".into()));
}
