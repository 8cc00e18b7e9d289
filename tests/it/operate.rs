//! Operating the broker over HTTP: a bundle is loaded again, keys are looked at; by whom, and by
//! nobody else.

use std::collections::BTreeSet;

use axum::{body::Body, http::Request};
use dayfly::flow::{Caller, EventFilter};
use dayfly_domain::Reason;
use serde_json::{Value, json};

use crate::world::{Answer, BUNDLE, Job, OPERATOR, World, client_handle, get, handle, local, post_json, reason, token};

const LOAD: &str = "/v1/bundle/load";
const KEYS: &str = "/v1/keys";

/// A template whose tokens may operate the broker, and the policy that lets them.
const OPERATES: &str = r#"
[task.operate]
purpose   = "operate the broker"
owner     = "team-shop"
grants    = { broker = ["broker:operate", "ledger:read"] }
ttl       = "15m"
review_by = 2099-01-01

[[task.operate.allow]]
id     = "shop-operates"
issuer = "ci"
claims = { sub = "shop" }
"#;

const PERMIT: &str = r#"@id("operators") @purpose("a job reloads the bundle")
permit (principal is Dayfly::Workload, action == Dayfly::Action::"broker:operate", resource == Dayfly::Target::"broker");"#;

fn operated() -> World {
    World::with_cedar(&format!("{BUNDLE}{OPERATES}"), PERMIT, &[])
}

fn load(bearer: Option<&str>) -> Request<Body> {
    post_json(LOAD, bearer, &json!({}))
}

async fn load_as_operator(world: &World) -> Answer {
    world.call(local(load(None))).await
}

fn told(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["reason"].as_str().unwrap_or_default().to_owned())
}

async fn swaps(world: &World) -> Vec<Value> {
    let all = world.call(local(get("/v1/ledger?limit=500", None))).await.json();
    let swaps = all["items"].as_array().unwrap().iter().filter(|event| event["type"] == "bundle_swapped");
    swaps.cloned().collect()
}

#[tokio::test]
async fn a_bundle_is_loaded_again_and_once_more() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.bundle.edit("shop-deploys", "shop-deploys-anew");
    let first = load_as_operator(&world).await;
    assert_eq!((first.status, first.head("cache-control")), (200, "no-store"), "{}", first.text);
    let first = first.json();
    assert_eq!((&first["rollback"], &first["ended"], &first["rows"]), (&json!(false), &json!(1), &json!(7)));
    assert!(first["from"] != first["to"] && !world.active(&token(&issued)).await);
    assert_eq!(swaps(&world).await[0]["actor"], "local:1000");
    let before = swaps(&world).await.len();
    let again = load_as_operator(&world).await.json();
    assert_eq!((&again["from"], &again["to"], &again["ended"]), (&first["to"], &first["to"], &json!(0)));
    assert_eq!(swaps(&world).await.len(), before, "the same bundle again is no swap");
    assert_eq!(world.call(local(empty(LOAD))).await.json(), again, "an empty body says the same");
}

fn empty(path: &str) -> Request<Body> {
    let mut request = post_json(path, None, &json!({}));
    request.headers_mut().remove("content-type");
    *request.body_mut() = Body::empty();
    request
}

#[tokio::test]
async fn a_bundle_with_errors_is_refused_with_all_of_them() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.bundle.set(
        &BUNDLE.replace("owner   = \"team-shop\"", "owner = \"nobody\"").replace("ttl       = \"15m\"", "ttl = \"0s\""),
    );
    let answer = load_as_operator(&world).await;
    let body = answer.json();
    assert_eq!((answer.status, answer.head("content-type")), (422, "application/problem+json"), "{}", answer.text);
    assert_eq!(body["reason"], "E-BUNDLE");
    let errors = body["errors"].as_array().unwrap();
    assert!(errors.len() > 1 && errors.iter().all(|error| error["path"] == "world.toml" && error["what"].is_string()));
    let asked = world.flow.events(&OPERATOR, EventFilter::default(), 1, None).await.unwrap().items;
    assert_eq!((&asked[0].body["id"], &asked[0].body["outcome"]), (&body["decision_id"], &json!("refused")));
    assert!(world.flow.readiness().unwrap_err()[0].starts_with("bundle: "));
    assert!(world.active(&token(&issued)).await && world.feed(&handle(&issued), None).await.is_ok());
    world.bundle.set(BUNDLE);
    assert_eq!(load_as_operator(&world).await.status, 200);
    assert_eq!(world.flow.readiness(), Ok(()));
}

#[tokio::test]
async fn a_bundle_with_a_thousand_errors_is_a_bounded_answer() {
    let world = World::new();
    let rows = |number: usize| {
        format!("[owner.o{number}]\n[target.t{number}]\nuri = \"x\"\nowner = \"{}\"\n", "n".repeat(2_000))
    };
    world.bundle.set(&format!("{BUNDLE}{}", (0..1_000).map(rows).collect::<String>()));
    let answer = load_as_operator(&world).await;
    assert_eq!(told(&answer), (422, "E-BUNDLE".to_owned()));
    assert!(answer.text.len() < 256 << 10, "{}", answer.text.len());
    let readiness = world.flow.readiness().unwrap_err();
    assert!(readiness[0].len() < 10_000);
}

#[tokio::test]
async fn a_strict_broker_says_that_it_does_not_go_back() {
    let world = World::strict_on_file();
    world.bundle.edit("release the shop", "release the whole shop");
    let newer = load_as_operator(&world).await.json();
    world.bundle.set(BUNDLE);
    let refused = load_as_operator(&world).await;
    assert_eq!(told(&refused), (409, "E-ROLLBACK".to_owned()));
    assert!(refused.json()["detail"].as_str().unwrap().contains("strict_rollback"));
    assert!(world.flow.readiness().unwrap_err()[0].contains("strict_rollback"));
    world.bundle.edit("release the shop", "release the whole shop");
    let again = load_as_operator(&world).await.json();
    assert_eq!((&again["from"], &again["to"]), (&newer["to"], &newer["to"]));
}

#[tokio::test]
async fn a_lax_broker_goes_back_and_says_so() {
    let world = World::new();
    world.bundle.edit("release the shop", "release the whole shop");
    load_as_operator(&world).await;
    world.bundle.set(BUNDLE);
    let back = load_as_operator(&world).await;
    assert_eq!((back.status, &back.json()["rollback"]), (200, &json!(true)));
}

#[tokio::test]
async fn only_who_may_operate_the_broker_loads_and_looks_at_keys() {
    let mut world = operated();
    let (mine, watch) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::shop(), "watch").await);
    let operator = world.open(&Job::shop(), "operate").await;
    let (unknown, _) = client_handle(7);
    world.bundle.edit("release the shop", "release the whole shop");
    let count = swaps(&world).await.len();
    for (bearer, status, code) in [
        (None, 401, "E-CLIENT"),
        (Some("nonsense".to_owned()), 401, "E-CLIENT"),
        (Some(unknown), 401, "E-CLIENT"),
        (Some(token(&mine)), 401, "E-CLIENT"),
        (Some(handle(&mine)), 403, "E-SCOPE"),
        (Some(handle(&operator)), 403, "E-SCOPE"),
        (Some(token(&watch)), 403, "E-SCOPE"),
    ] {
        for request in [load(bearer.as_deref()), get(KEYS, bearer.as_deref())] {
            let path = request.uri().to_string();
            assert_eq!(told(&world.call(request).await), (status, code.to_owned()), "{path} {bearer:?}");
        }
    }
    assert_eq!(swaps(&world).await.len(), count, "none of that loaded anything");
    let verifier = Caller::Verifier { issuer: "ci".into(), targets: ["broker".into()].into() };
    assert_eq!(reason(world.flow.keys(&verifier).await), Reason::Scope);
    assert!(world.flow.operate_load(&verifier).await.is_err());
    let loaded = world.call(load(Some(&token(&operator)))).await;
    assert_eq!(loaded.status, 200, "{}", loaded.text);
    assert_eq!(swaps(&world).await[0]["actor"], operator.task.to_string(), "who loaded is on the record");
    assert_eq!(world.call(get(KEYS, Some(&token(&operator)))).await.status, 200);
    world.end(&handle(&operator), operator.task).await.unwrap();
    assert_eq!(told(&world.call(load(Some(&token(&operator)))).await), (401, "E-CLIENT".to_owned()));
}

#[tokio::test]
async fn t_094_the_action_alone_without_a_permit_operates_nothing() {
    let mut world = World::of(&format!("{BUNDLE}{OPERATES}"));
    let operator = world.open(&Job::shop(), "operate").await;
    assert_eq!(told(&world.call(load(Some(&token(&operator)))).await), (403, "E-SCOPE".to_owned()));
    assert_eq!(told(&world.call(get(KEYS, Some(&token(&operator)))).await), (403, "E-SCOPE".to_owned()));
}

#[tokio::test]
async fn a_load_takes_nothing_from_its_caller() {
    let world = World::new();
    world.bundle.edit("release the shop", "release the whole shop");
    let raw = |text: &'static str, media_type: Option<&'static str>| {
        let mut request = local(post_json(LOAD, None, &json!({})));
        *request.body_mut() = Body::from(text);
        request.headers_mut().remove("content-type");
        media_type.map(|value| request.headers_mut().insert("content-type", value.parse().unwrap()));
        request
    };
    for (request, status, code) in [
        (raw("{\"path\":\"/etc\"}", Some("application/json")), 422, "E-INVALID"),
        (raw("[]", Some("application/json")), 422, "E-INVALID"),
        (raw("null", Some("application/json")), 422, "E-INVALID"),
        (raw("{\"a\":1,\"a\":1}", Some("application/json")), 400, "E-REQUEST"),
        (raw("{", Some("application/json")), 400, "E-REQUEST"),
        (raw("", Some("application/json")), 400, "E-REQUEST"),
        (raw("{}", None), 415, "E-MEDIA-TYPE"),
        (raw("{}", Some("text/plain")), 415, "E-MEDIA-TYPE"),
        (raw("a=b", Some("application/x-www-form-urlencoded")), 415, "E-MEDIA-TYPE"),
        (local(post_json("/v1/bundle/load?path=/etc", None, &json!({}))), 400, "E-REQUEST"),
        (local(get(LOAD, None)), 405, "E-METHOD"),
        (local(post_json(KEYS, None, &json!({}))), 405, "E-METHOD"),
        (local(get("/v1/keys?private=1", None)), 400, "E-REQUEST"),
        (local(post_json("/v1/bundle", None, &json!({}))), 404, "E-NOT-FOUND"),
    ] {
        let (path, before) = (request.uri().to_string(), swaps(&world).await.len());
        assert_eq!(told(&world.call(request).await), (status, code.to_owned()), "{path}");
        assert_eq!(swaps(&world).await.len(), before);
    }
    let large = local(post_json(LOAD, None, &json!({ "x": "x".repeat(70_000) })));
    assert_eq!(told(&world.call(large).await), (413, "E-TOO-LARGE".to_owned()));
}

/// Loads take turns: every change of the bundle is one swap, in one chain, whoever asks at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_loads_at_once_are_one_chain_of_swaps() {
    let world = World::new();
    let mut asking = Vec::new();
    for number in 0..12 {
        world.bundle.set(&BUNDLE.replace("release the shop", &format!("release the shop {}", number / 4)));
        let (door, request) = (world.door(), local(load(None)));
        asking.push(tokio::spawn(tower::ServiceExt::oneshot(door, request)));
    }
    let mut loaded = 0;
    for asked in asking {
        let status = asked.await.unwrap().unwrap().status().as_u16();
        // On a slow machine a turn may not come in time: said, and nothing is loaded by it.
        assert!([200, 503].contains(&status), "{status}");
        loaded += usize::from(status == 200);
    }
    assert!(loaded > 1);
    let last = load_as_operator(&world).await.json();
    let mut chain = swaps(&world).await;
    chain.reverse();
    assert!(chain.windows(2).all(|pair| pair[1]["previous_bundle"] == pair[0]["bundle"]));
    assert_eq!(chain.last().unwrap()["bundle"], last["to"]);
    assert_eq!(world.flow.readiness(), Ok(()));
    assert!(world.verify().problems.is_empty());
}

/// A caller who leaves changes nothing about what readiness says: the load that came after a bad
/// one has cleared it.
#[tokio::test]
async fn a_caller_who_leaves_in_the_middle_leaves_no_stale_fault() {
    let world = World::new();
    world.bundle.set("nonsense");
    assert_eq!(load_as_operator(&world).await.status, 422);
    world.bundle.set(BUNDLE);
    let flow = world.flow.clone();
    let asked = tokio::spawn(async move { flow.load_bundle("local:0").await });
    tokio::task::yield_now().await;
    asked.abort();
    let _ = asked.await;
    assert_eq!(load_as_operator(&world).await.status, 200);
    assert_eq!(world.flow.readiness(), Ok(()));
}

#[tokio::test]
async fn a_load_without_a_store_is_refused_and_the_old_bundle_stays() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.bundle.edit("shop-deploys", "shop-deploys-anew");
    world.sql("ALTER TABLE event RENAME TO event_gone");
    assert_eq!(told(&load_as_operator(&world).await), (503, "E-STORE".to_owned()));
    assert!(world.active(&token(&issued)).await);
    world.sql("ALTER TABLE event_gone RENAME TO event");
    assert_eq!(load_as_operator(&world).await.status, 200);
    assert!(!world.active(&token(&issued)).await);
}

#[tokio::test]
async fn keys_are_shown_without_what_signs() {
    let mut world = World::on_file();
    let shown = world.call(local(get(KEYS, None))).await;
    assert_eq!((shown.status, shown.head("cache-control")), (200, "no-store"));
    let items = shown.json()["items"].as_array().unwrap().clone();
    let states: Vec<_> = items.iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["active", "next", "active", "next"]);
    let uses: Vec<_> = items.iter().map(|key| key["use"].as_str().unwrap()).collect();
    assert_eq!(uses, ["sig", "sig", "status_list", "status_list"]);
    let published = world.call(get("/oauth2/jwks", None)).await.json();
    for key in &items {
        let members: BTreeSet<_> = key.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["alg", "kid", "since", "state", "until", "use"].into(), "nothing else");
        let jwk = published["keys"].as_array().unwrap().iter().find(|jwk| jwk["kid"] == key["kid"]).unwrap();
        assert_eq!((&jwk["use"], &jwk["alg"]), (&json!("sig"), &key["alg"]));
        assert_eq!(jwk.get("dayfly_use").is_some(), key["use"] == "status_list");
    }
    let issued = world.open(&Job::shop(), "deploy").await;
    world.pass_s(24 * 3600);
    world.upkeep.each_minute().await;
    let after = world.call(local(get(KEYS, None))).await.json();
    let states: Vec<_> = after["items"].as_array().unwrap().iter().map(|key| key["state"].clone()).collect();
    assert_eq!(states, ["active", "next", "retired", "active", "next", "retired"]);
    assert_eq!(after["items"][0]["kid"], items[1]["kid"]);
    assert!(!shown.text.contains("pkcs8") && !world.active(&token(&issued)).await);
}

#[tokio::test]
async fn an_event_without_a_task_takes_the_right_to_operate() {
    let mut world = operated();
    let (watch, operator) = (world.open(&Job::shop(), "watch").await, world.open(&Job::shop(), "operate").await);
    let of = async |bearer: String| {
        let list = world.call(get("/v1/ledger?limit=500", Some(&bearer))).await.json();
        list["items"].as_array().unwrap().iter().any(|event| event["type"] == "start")
    };
    assert!(!of(token(&watch)).await && of(token(&operator)).await);
}
