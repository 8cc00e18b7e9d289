//! Resource servers that introspect with a `client_assertion` (RFC 7523 section 2.2), through the
//! HTTP door: each refusal is named after its attack.

use axum::{body::Body, http::Request};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::{Reason, Secret};
use serde_json::{Value, json};

use crate::world::{
    Answer, BUNDLE, CI, ISSUER, Job, SHOP_URI, START, World, ask, form, handle, local, post_json, reason, token,
};

/// Two servers with keys of their own (one key, so that only names keep them apart), a platform
/// that vouches for many, and what each may ask about.
const VERIFIERS: &str = r#"
[profile.pods]
algs      = ["ES256"]
max_age   = "5m"
principal = ["sub"]
untrusted = [{ stage = ["preview"] }]
refuse    = [{ stage = ["debug"], code = "E-EVENT" }]

[profile.pods.claims]
sub   = { at = "/sub", type = "string", required = true, segment = "hash128" }
org   = { at = "/org", type = "string", required = true }
stage = { at = "/stage", type = "string", required = true }
ready = { at = "/ready", type = "bool" }

[issuer.shop-server]
profile = "oidc"
owner   = "team-shop"
kind    = "verifier"
url     = "shop-0"
keys    = { jwks_file = "other.json" }

[issuer.pay-server]
profile = "oidc"
owner   = "team-pay"
kind    = "verifier"
url     = "pay-0"
keys    = { jwks_file = "other.json" }

[issuer.idle-server]
profile = "oidc"
owner   = "team-pay"
kind    = "verifier"
url     = "idle-0"
keys    = { jwks_file = "other.json" }

[issuer.pods]
profile  = "pods"
owner    = "team-shop"
kind     = "verifier"
url      = "https://pods.example.org"
audience = "dayfly-introspection"
keys     = { jwks_file = "other.json" }
pin      = { org = "acme" }

[[target.shop.verifier]]
issuer = "shop-server"

[[target.shop.verifier]]
issuer = "pods"
claims = { sub = ["system:serviceaccount:shop:web", "system:serviceaccount:shop:api"] }

[[target.pay.verifier]]
issuer = "pay-server"

[[target.pay.verifier]]
issuer = "pods"
claims = { sub = "system:serviceaccount:shop:api" }
"#;

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn world() -> World {
    World::of(&format!("{BUNDLE}{VERIFIERS}"))
}

/// What a server with a key of its own says; signed by [`assertion`].
fn own(client: &str) -> Job {
    Job(json!({ "iss": client, "sub": client }))
}

fn pod(sub: &str) -> Job {
    let sub = format!("system:serviceaccount:shop:{sub}");
    Job(
        json!({ "iss": "https://pods.example.org", "aud": "dayfly-introspection", "sub": sub, "org": "acme", "stage": "live" }),
    )
}

fn assertion(world: &World, job: Job) -> String {
    world.sign_as_other(job)
}

fn asks(assertion: &str, token: &str) -> Request<Body> {
    asks_with(&[("client_assertion", assertion), ("token", token)])
}

fn asks_with(fields: &[(&str, &str)]) -> Request<Body> {
    let fields: Vec<_> = [("client_assertion_type", JWT_BEARER)].into_iter().chain(fields.iter().copied()).collect();
    form("/oauth2/introspect", None, &fields)
}

/// Asks about a token that lives, so that every refusal is of the one who asks.
async fn refused(world: &mut World, assertion: &str) -> (u16, String) {
    let issued = world.open(&Job::shop(), "deploy").await;
    told(&world.call(asks(assertion, &token(&issued))).await)
}

fn told(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    let reason = body["reason"].as_str().or(body["active"].as_bool().map(|active| if active { "active" } else { "" }));
    (answer.status, reason.unwrap_or_default().to_owned())
}

fn no_client() -> (u16, String) {
    (401, "E-CLIENT".to_owned())
}

fn active() -> (u16, String) {
    (200, "active".to_owned())
}

#[tokio::test]
async fn a_server_asks_about_its_own_targets_tokens() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    let shown = assertion(&world, own("shop-0"));
    let answer = world.call(asks(&shown, &token(&issued))).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["active"], &body["aud"]), (200, &json!(true), &json!(SHOP_URI)));
    assert_eq!(body["task_id"], json!(issued.task));
    assert_eq!(answer.head("cache-control"), "no-store");
    let named = [("client_assertion", &*shown), ("token", &token(&issued)), ("client_id", "shop-0")];
    assert_eq!(told(&world.call(asks_with(&named)).await), active());
    world.end(&handle(&issued), issued.task).await.unwrap();
    assert_eq!(world.call(asks(&shown, &token(&issued))).await.text, "{\"active\":false}", "an end is heard at once");
}

#[tokio::test]
async fn a_replayed_assertion_is_fine_and_opens_nothing() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    let shown = assertion(&world, own("shop-0").with("jti", "once"));
    for _ in 0..3 {
        assert_eq!(told(&world.call(asks(&shown, &token(&issued))).await), active());
    }
    let body = world.call(asks(&shown, &token(&issued))).await.json();
    assert!(["access_token", "task_control"].iter().all(|name| body.get(name).is_none()));
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn an_expired_assertion_is_refused_at_its_exp_though_remembered() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    let (kept, unseen) = (own("shop-0").with("exp", START.as_s() + 60), own("shop-0").with("exp", START.as_s() + 61));
    let (kept, unseen) = (assertion(&world, kept), assertion(&world, unseen));
    assert_eq!(told(&world.call(asks(&kept, &token(&issued))).await), active());
    world.clock.advance_ms(59_999);
    assert_eq!(told(&world.call(asks(&kept, &token(&issued))).await), active());
    world.clock.advance_ms(1);
    assert_eq!(told(&world.call(asks(&kept, &token(&issued))).await), no_client());
    assert_eq!(told(&world.call(asks(&unseen, &token(&issued))).await), active());
    world.pass_s(1);
    assert_eq!(told(&world.call(asks(&unseen, &token(&issued))).await), no_client());
}

#[tokio::test]
async fn an_assertion_older_than_its_profile_allows_is_refused_though_remembered() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    let shown = assertion(&world, pod("web").with("exp", START.as_s() + 3600));
    assert_eq!(told(&world.call(asks(&shown, &token(&issued))).await), active());
    world.clock.advance_ms(299_999);
    assert_eq!(told(&world.call(asks(&shown, &token(&issued))).await), active());
    world.clock.advance_ms(1);
    assert_eq!(told(&world.call(asks(&shown, &token(&issued))).await), no_client());
}

#[tokio::test]
async fn t_096_a_wrong_clock_keeps_no_outcome_alive() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    let shown = assertion(&world, own("shop-0").with("exp", START.as_s() + 60));
    let ask = || asks(&shown, &token(&issued));
    let fresh = assertion(&world, own("shop-0").with("exp", START.as_s() + 50));
    assert_eq!(told(&world.call(ask()).await).0, 200);
    world.clock.step_wall_ms(60_000);
    assert_eq!(told(&world.call(ask()).await), no_client(), "over by the wall is over");
    assert_eq!(told(&world.call(asks(&fresh, &token(&issued))).await), no_client(), "remembered or not");
    world.clock.step_wall_ms(-60_000);
    world.pass_s(1);
    assert_eq!(told(&world.call(ask()).await), no_client(), "and stays so");
}

#[tokio::test]
async fn t_096_a_clock_set_back_keeps_no_outcome_alive() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    let shown = assertion(&world, own("shop-0").with("exp", START.as_s() + 60));
    assert_eq!(told(&world.call(asks(&shown, &token(&issued))).await), active());
    world.clock.step_wall_ms(-600_000);
    world.pass_s(59);
    assert_eq!(told(&world.call(asks(&shown, &token(&issued))).await), active());
    world.pass_s(1);
    assert_eq!(told(&world.call(asks(&shown, &token(&issued))).await), no_client());
}

#[tokio::test]
async fn a_row_that_is_gone_is_gone_for_a_remembered_assertion() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    let shown = assertion(&world, own("shop-0"));
    assert_eq!(told(&world.call(asks(&shown, &token(&issued))).await), active());
    world.bundle.edit("[[target.shop.verifier]]\nissuer = \"shop-server\"", "");
    assert_eq!(told(&world.call(asks(&shown, &token(&issued))).await), active(), "half a checkout is never live");
    world.flow.load_bundle("test").await.unwrap();
    let answer = world.call(asks(&shown, &token(&issued))).await;
    assert_eq!(told(&answer), (403, "E-SCOPE".to_owned()));
    assert!(answer.head("www-authenticate").contains("insufficient_scope"));
}

#[tokio::test]
async fn a_swap_drops_what_was_remembered() {
    for edit in [
        ("url     = \"shop-0\"\n", "url     = \"shop-0\"\ndisabled = true\n"),
        ("url     = \"shop-0\"\n", "url     = \"shop-1\"\n"),
        (
            "kind    = \"verifier\"\nurl     = \"shop-0\"\nkeys    = { jwks_file = \"other.json\" }",
            "kind    = \"verifier\"\nurl     = \"shop-0\"\nkeys    = { jwks_file = \"ci.json\" }",
        ),
        ("url     = \"shop-0\"\n", "url     = \"shop-0\"\naudience = \"another\"\n"),
    ] {
        let mut world = world();
        let issued = world.open(&Job::shop(), "deploy").await;
        let shown = assertion(&world, own("shop-0"));
        assert_eq!(told(&world.call(asks(&shown, &token(&issued))).await), active());
        world.bundle.edit(edit.0, edit.1);
        world.flow.load_bundle("test").await.unwrap();
        assert_eq!(told(&world.call(asks(&shown, &token(&issued))).await), no_client(), "{}", edit.1);
    }
}

#[tokio::test]
async fn a_disabled_target_gives_nothing() {
    let mut world = world();
    let issued = world.open(&Job::pay(), "pay").await;
    let (one, both) = (assertion(&world, own("pay-0")), assertion(&world, pod("api")));
    assert_eq!(told(&world.call(asks(&one, &token(&issued))).await), active());
    assert_eq!(told(&world.call(asks(&both, &token(&issued))).await), active());
    world.bundle.edit("[target.pay]", "[target.pay]\ndisabled = true");
    world.flow.load_bundle("test").await.unwrap();
    assert_eq!(told(&world.call(asks(&one, &token(&issued))).await), (403, "E-SCOPE".to_owned()));
    assert_eq!(world.call(asks(&both, &token(&issued))).await.text, "{\"active\":false}");
}

#[tokio::test]
async fn a_foreign_targets_token_is_inactive() {
    let mut world = world();
    let (shop, pay) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::pay(), "pay").await);
    let (of_shop, of_pay) = (assertion(&world, own("shop-0")), assertion(&world, own("pay-0")));
    let broker = token(&world.open(&Job::shop(), "watch").await);
    let inactive = "{\"active\":false}";
    for (shown, asked) in
        [(&of_shop, &token(&pay)), (&of_pay, &token(&shop)), (&of_shop, &broker), (&of_shop, shown_as_token(&of_shop))]
    {
        let answer = world.call(asks(shown, asked)).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, inactive));
    }
    assert_eq!(told(&world.call(asks(&of_pay, &token(&pay))).await), active());
    let api = assertion(&world, pod("api"));
    assert_eq!(told(&world.call(asks(&api, &token(&pay))).await), active());
    assert_eq!(told(&world.call(asks(&api, &token(&shop))).await), active(), "every row that matches gives its target");
}

fn shown_as_token(assertion: &String) -> &String {
    assertion
}

#[tokio::test]
async fn every_claim_of_a_row_must_match() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    for (job, expected) in [
        (pod("web"), active()),
        (pod("other"), (403, "E-SCOPE".to_owned())),
        (pod("web2"), (403, "E-SCOPE".to_owned())),
        (own("idle-0"), (403, "E-SCOPE".to_owned())),
        (pod("web").with("org", "evil"), no_client()),
        (pod("web").with("org", ""), no_client()),
        (pod("web").with("ready", "true"), no_client()),
        (pod("web").with("stage", "debug"), no_client()),
    ] {
        let shown = assertion(&world, job);
        assert_eq!(told(&world.call(asks(&shown, &token(&issued))).await), expected);
    }
}

#[tokio::test]
async fn a_verifier_for_unreviewed_code_matches_no_row() {
    let mut world = world();
    let shown = assertion(&world, pod("web").with("stage", "preview"));
    assert_eq!(refused(&mut world, &shown).await, (403, "E-SCOPE".to_owned()));
}

#[tokio::test]
async fn t_033_an_assertion_for_another_audience_or_two_is_refused() {
    let mut world = world();
    for aud in [
        json!("https://other.example.org"),
        json!(format!("{ISSUER}/")),
        json!(format!("{ISSUER}/oauth2/introspect")),
        json!([ISSUER, "https://other.example.org"]),
        json!([ISSUER, ISSUER]),
        json!([]),
        json!(1),
        Value::Null,
    ] {
        let shown = assertion(&world, own("shop-0").with("aud", aud.clone()));
        assert_eq!(refused(&mut world, &shown).await, no_client(), "{aud}");
    }
    let shown = assertion(&world, own("shop-0").with("aud", json!([ISSUER])));
    assert_eq!(refused(&mut world, &shown).await, active(), "one is one, however it is written");
}

#[tokio::test]
async fn t_029_an_assertion_without_a_claim_that_it_needs_is_refused() {
    let mut world = world();
    let now = START.as_s();
    for (claim, bad) in [
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", Value::Null),
        ("exp", json!(now)),
        ("exp", json!("soon")),
        ("exp", json!(now + 90_000)),
        ("exp", Value::Null),
        ("iat", json!(now + 60)),
        ("iat", json!(now - 601)),
        ("iat", Value::Null),
        ("nbf", json!(now + 60)),
        ("iss", Value::Null),
        ("iss", json!("SHOP-0")),
        ("iss", json!(["shop-0"])),
    ] {
        let shown = assertion(&world, own("shop-0").with(claim, bad.clone()));
        assert_eq!(refused(&mut world, &shown).await, no_client(), "{claim} {bad}");
    }
    let without_sub = assertion(&world, Job(json!({ "iss": "shop-0" })));
    assert_eq!(refused(&mut world, &without_sub).await, no_client());
}

#[tokio::test]
async fn t_027_another_issuers_key_is_no_verifier() {
    let mut world = world();
    let forged = world.sign(own("shop-0"));
    assert_eq!(refused(&mut world, &forged).await, no_client());
    let stranger = world.sign(own("nobody-0"));
    assert_eq!(refused(&mut world, &stranger).await, no_client());
}

#[tokio::test]
async fn t_001_an_unsigned_or_symmetric_assertion_is_refused() {
    let mut world = world();
    let good = assertion(&world, own("shop-0"));
    let [_, payload, signature] = <[&str; 3]>::try_from(good.split('.').collect::<Vec<_>>()).unwrap();
    let with_header = |header: Value, signature: &str| {
        format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(header.to_string()))
    };
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[3] ^= 1;
    for bad in [
        with_header(json!({ "alg": "none", "typ": "JWT" }), ""),
        with_header(json!({ "alg": "none", "typ": "JWT" }), signature),
        with_header(json!({ "alg": "HS256", "typ": "JWT" }), signature),
        with_header(json!({ "alg": "ES256", "typ": "at+jwt" }), signature),
        good.replace(signature, &URL_SAFE_NO_PAD.encode(&flipped)),
        good[..good.len() - 4].to_owned(),
        "x".to_owned(),
        "a.b.c".to_owned(),
        "x".repeat(20_000),
    ] {
        assert_eq!(refused(&mut world, &bad).await, no_client(), "{bad:.80}");
    }
}

#[tokio::test]
async fn a_workloads_evidence_is_no_assertion() {
    let mut world = world();
    let evidence = world.evidence(&Job::shop());
    assert_eq!(refused(&mut world, &evidence).await, no_client());
    assert!(world.present(&evidence, ask("deploy")).await.is_ok(), "and it was not used up by that");
}

#[tokio::test]
async fn our_own_tokens_are_no_assertion() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "watch").await;
    assert_eq!(refused(&mut world, &token(&issued)).await, no_client());
    assert_eq!(refused(&mut world, &handle(&issued)).await, no_client());
    let named = world.sign_as_other(own(ISSUER));
    assert_eq!(refused(&mut world, &named).await, no_client());
}

#[tokio::test]
async fn an_assertion_is_no_evidence() {
    let world = world();
    for job in [own("shop-0"), pod("web")] {
        let shown = assertion(&world, job);
        let refusal = world.present(&shown, ask("deploy")).await;
        assert_eq!(reason(refusal), Reason::Issuer, "counted as of an unknown issuer");
    }
    assert!(world.verify().problems.is_empty());
}

/// A platform is an issuer twice: for its jobs and for its servers, by audience.
#[tokio::test]
async fn one_platforms_two_audiences_are_never_mixed() {
    let twice = VERIFIERS.replace("https://pods.example.org", CI);
    let mut world = World::of(&format!("{BUNDLE}{twice}"));
    let server = |job: Job| job.with("iss", CI).with("aud", "dayfly-introspection");
    let (job, shown) = (world.sign_as_other(pod("web").with("aud", ISSUER)), world.sign_as_other(server(pod("web"))));
    assert_eq!(refused(&mut world, &shown).await, active());
    assert_eq!(refused(&mut world, &job).await, no_client(), "a job's audience");
    let evidence = world.sign(server(Job::shop()));
    assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Audience, "a server's audience");
}

#[tokio::test]
async fn a_verifier_reads_and_ends_nothing() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    let shown = assertion(&world, own("shop-0"));
    for path in ["/v1/tasks", "/v1/leases", "/v1/ledger"] {
        let answer = world.call(crate::world::get(path, Some(&shown))).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    let end = post_json(&format!("/v1/tasks/{}/end", issued.task), Some(&shown), &json!({}));
    assert_eq!(world.call(end).await.status, 401);
    let caller = world.flow.verifier(&Secret::new(shown), None).await.unwrap();
    assert_eq!(reason(world.flow.end_task(&caller, issued.task, None, None).await), Reason::Scope);
    assert_eq!(reason(world.flow.task(&caller, issued.task).await), Reason::Scope);
    let listed = world.flow.tasks(&caller, Default::default(), 50, None).await;
    assert_eq!(reason(listed), Reason::Scope);
    assert!(world.active(&token(&issued)).await);
}

#[tokio::test]
async fn another_client_id_is_no_client() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    let shown = assertion(&world, own("shop-0"));
    for client in ["pay-0", "SHOP-0", "shop-0 ", "shop-server"] {
        let fields = [("client_assertion", &*shown), ("token", &token(&issued)), ("client_id", client)];
        assert_eq!(told(&world.call(asks_with(&fields)).await), no_client(), "{client}");
    }
}

#[tokio::test]
async fn t_074_repeated_empty_or_half_sent_parameters_are_refused() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    let (shown, asked) = (assertion(&world, own("shop-0")), token(&issued));
    let request = |fields: &[(&str, &str)]| form("/oauth2/introspect", None, fields);
    for fields in [
        &[("client_assertion", &*shown), ("token", &asked)][..],
        &[("client_assertion_type", JWT_BEARER), ("token", &asked)],
        &[("client_assertion_type", JWT_BEARER), ("client_assertion", ""), ("token", &asked)],
        &[("client_assertion_type", ""), ("client_assertion", &shown), ("token", &asked)],
        &[("client_assertion_type", JWT_BEARER), ("client_assertion", &shown), ("token", "")],
        &[("client_assertion_type", JWT_BEARER), ("client_assertion", &shown)],
        &[("client_assertion_type", JWT_BEARER), ("client_assertion", &shown), ("token", &asked), ("client_id", "")],
        &[
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", &shown),
            ("client_assertion", &shown),
            ("token", &asked),
        ],
        &[
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", &shown),
            ("token", &asked),
        ],
    ] {
        assert_eq!(told(&world.call(request(fields)).await), (400, "E-REQUEST".to_owned()), "{fields:?}");
    }
    let other = [("client_assertion_type", "urn:x"), ("client_assertion", &*shown), ("token", &asked)];
    assert_eq!(told(&world.call(request(&other)).await), no_client());
}

#[tokio::test]
async fn an_assertion_in_the_query_is_refused() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    let shown = assertion(&world, own("shop-0"));
    let path = format!("/oauth2/introspect?client_assertion_type={JWT_BEARER}&client_assertion={shown}");
    let answer = world.call(form(&path, None, &[("token", &token(&issued))])).await;
    assert_eq!(told(&answer), (400, "E-REQUEST".to_owned()));
    assert!(!answer.text.contains(&shown));
}

#[tokio::test]
async fn two_ways_to_authenticate_are_refused() {
    let mut world = world();
    let watch = world.open(&Job::shop(), "watch").await;
    let shown = assertion(&world, own("shop-0"));
    for (header, value) in [
        ("authorization", format!("Bearer {}", token(&watch))),
        ("authorization", "Basic c2hvcC0wOg==".to_owned()),
        ("dpop", "a.b.c".to_owned()),
    ] {
        let mut request = asks(&shown, &token(&watch));
        request.headers_mut().insert(header, value.parse().unwrap());
        assert_eq!(told(&world.call(request).await), (400, "E-REQUEST".to_owned()), "{header}");
    }
}

#[tokio::test]
async fn t_074_a_bad_assertion_never_falls_back_to_the_socket() {
    let mut world = world();
    let (shop, pay) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::pay(), "pay").await);
    assert_eq!(told(&world.call(local(asks("a.b.c", &token(&shop)))).await), no_client());
    let shown = assertion(&world, own("shop-0"));
    assert_eq!(told(&world.call(local(asks(&shown, &token(&shop)))).await), active());
    assert_eq!(world.call(local(asks(&shown, &token(&pay)))).await.text, "{\"active\":false}");
}

#[tokio::test]
async fn a_refused_assertion_says_nothing_of_why() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    let bad = [
        assertion(&world, own("nobody")),
        world.sign(own("shop-0")),
        assertion(&world, pod("web").with("org", "evil")),
        assertion(&world, own("shop-0").with("aud", "x")),
        "a.b.c".to_owned(),
    ];
    let mut said = std::collections::BTreeSet::new();
    for shown in &bad {
        let answer = world.call(asks(shown, &token(&issued))).await;
        assert_eq!((answer.status, answer.head("www-authenticate")), (401, "Bearer realm=\"dayfly\""));
        let body = answer.json();
        assert_eq!(body["error"], "invalid_client");
        assert!(!answer.text.contains(shown));
        said.insert(body["error_description"].to_string());
    }
    assert_eq!(said.len(), 1, "{said:?}");
}

#[tokio::test]
async fn an_issuer_whose_keys_cannot_be_had_is_an_outage() {
    let broken = VERIFIERS.replacen(
        "url     = \"pay-0\"\nkeys    = { jwks_file = \"other.json\" }",
        "url     = \"https://localhost:1\"",
        1,
    );
    let mut world = World::of(&format!("{BUNDLE}{broken}"));
    let shown = assertion(&world, own("https://localhost:1"));
    assert_eq!(refused(&mut world, &shown).await, (503, "E-ISSUER-DOWN".to_owned()));
}
