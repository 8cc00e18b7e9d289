//! Refusals that teach, and decisions explained: to the caller where the owner allows it, to operators
//! by dry run, and by the program from the outside.

use std::{fs, path::Path};

use axum::{body::Body, http::Request};
use dayfly::flow::{EventFilter, EventView};
use dayfly_domain::{EventId, Reason};
use serde_json::{Map, Value, json};

use crate::{
    dev::{self, Dev, wait_until},
    world::{
        Answer, BUNDLE, CI, ISSUER, Job, OPERATOR, SHOP_URI, World, ask, form, handle, lease, local, post_json, token,
    },
};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const SIMULATE: &str = "/v1/simulate";

/// Who may operate the broker, and see nothing of the record; and who sees their own rows as well.
const OPERATES: &str = r#"
[task.operate]
purpose   = "operate the broker"
owner     = "team-pay"
grants    = { broker = ["broker:operate"] }
ttl       = "15m"
review_by = 2099-01-01

[[task.operate.allow]]
id     = "pay-operates"
issuer = "ci"
claims = { sub = "pay" }

[task.oversee]
purpose   = "operate the broker and read the payments' record"
owner     = "team-pay"
grants    = { broker = ["broker:operate", "ledger:read", "leases:read"] }
ttl       = "15m"
review_by = 2099-01-01

[[task.oversee.allow]]
id     = "pay-oversees"
issuer = "ci"
claims = { sub = "pay" }
"#;

const PERMIT: &str = r#"@id("operators") @purpose("a job operates the broker")
permit (principal is Dayfly::Workload, action == Dayfly::Action::"broker:operate", resource == Dayfly::Target::"broker");"#;

fn operated() -> World {
    World::with_cedar(&format!("{BUNDLE}{OPERATES}"), PERMIT, &[])
}

/// The same world, where the owner of `deploy` lets callers see.
fn telling() -> World {
    World::of(&BUNDLE.replacen("[task.deploy]", "[task.deploy]\nexplain = \"caller\"", 1))
}

async fn exchange(world: &World, evidence: &str, template: &str) -> Answer {
    let fields =
        [("grant_type", EXCHANGE), ("subject_token", evidence), ("subject_token_type", JWT), ("scope", template)];
    world.call(form("/oauth2/token", None, &fields)).await
}

async fn simulate(world: &World, body: Value) -> Answer {
    world.call(local(post_json(SIMULATE, None, &body))).await
}

async fn explained(world: &World, body: Value) -> Value {
    let answer = simulate(world, body.clone()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text);
    answer.json()
}

fn by_token(token: &str, body: &Value) -> Request<Body> {
    post_json(SIMULATE, Some(token), body)
}

async fn refused(world: &mut World, job: &Job, template: &str) -> EventId {
    let id = world.try_open(job, ask(template)).await.unwrap_err().decision.unwrap();
    settle(world).await;
    id
}

/// Refusals are answered before they are written; an end waits for the writer.
async fn settle(world: &mut World) {
    let issued = world.open(&Job::shop().run("settle"), "ship-nothing").await;
    world.end(&handle(&issued), issued.task).await.unwrap();
}

async fn events(world: &World) -> Vec<EventView> {
    world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items
}

#[tokio::test]
async fn a_refusal_shows_the_callers_claims_beside_the_nearest_row() {
    let mut world = telling();
    let evidence = world.evidence(&Job::shop().with("sub", "cart"));
    let answer = exchange(&world, &evidence, "deploy").await;
    assert_eq!((answer.status, &answer.json()["reason"]), (400, &json!("E-NOMATCH")));
    let claims = json!([{ "claim": "sub", "seen": "cart", "wanted": ["shop"], "ok": false }]);
    assert_eq!(answer.json()["comparison"], json!({ "row": "shop-deploys", "claims": claims }));
    let fork = world.evidence(&Job::shop().with("event", "fork"));
    let told = exchange(&world, &fork, "deploy").await.json();
    assert_eq!(told["comparison"]["claims"][0]["ok"], true);
    assert!(told["comparison"]["obstacles"][0].as_str().unwrap().contains("unreviewed code"), "{told}");
}

/// T-118: without the owner's leave an unknown template and one that is not the caller's look the
/// same; strangers and garbage are told nothing at all.
#[tokio::test]
async fn t_118_a_refusal_tells_nothing_unless_the_owner_allows_it() {
    let mut world = telling();
    let mut told = Vec::new();
    for template in ["pay", "no-such-template"] {
        let evidence = world.evidence(&Job::shop());
        let mut answer = exchange(&world, &evidence, template).await.json();
        for own in ["request_id", "decision_id"] {
            answer.as_object_mut().unwrap().remove(own).unwrap();
        }
        told.push(answer);
    }
    assert_eq!(told[0], told[1]);
    assert!(told[0].get("comparison").is_none());
    for job in [
        Job::shop().with("org", "evil"),
        Job::shop().with("iss", "https://evil.example.org"),
        Job::shop().with("aud", "https://other.example.org"),
        Job::shop().with("event", "target"),
    ] {
        let evidence = world.evidence(&job);
        let answer = exchange(&world, &evidence, "deploy").await;
        assert_eq!((answer.status, answer.json().get("comparison")), (400, None), "{}", answer.text);
    }
    let garbage = exchange(&world, "a.b.c", "deploy").await;
    assert_eq!(garbage.json().get("comparison"), None);
}

#[tokio::test]
async fn a_refusal_on_the_record_is_explained_under_its_own_bundle() {
    let mut world = World::of(&with_ship_nothing(BUNDLE));
    let id = refused(&mut world, &Job::shop().with("sub", "cart"), "deploy").await;
    let told = explained(&world, json!({ "event": id })).await;
    assert_eq!((&told["outcome"], &told["reason"]), (&json!("deny"), &json!("E-NOMATCH")));
    assert_eq!((&told["workload"], &told["recorded"]["type"]), (&json!("ci/cart"), &json!("denied")));
    let row = &told["rows"][0];
    assert_eq!((&row["id"], &row["claims"][0]["seen"]), (&json!("shop-deploys"), &json!("cart")));
    assert_eq!(told["would_permit"], json!(["row `shop-deploys` with `sub` `shop`"]));
    assert!(told.get("in_force").is_none() && told.get("notes").is_none(), "{told}");

    // The row is changed so that the job would be let in.
    world.bundle.edit(
        "id     = \"shop-deploys\"\nissuer = \"ci\"\nclaims = { sub = \"shop\" }",
        "id     = \"shop-deploys\"\nissuer = \"ci\"\nclaims = { sub = [\"shop\", \"cart\"] }",
    );
    world.flow.load_bundle("test").await.unwrap();
    let told = explained(&world, json!({ "event": id })).await;
    assert_eq!((&told["outcome"], &told["bundle"]), (&json!("deny"), &told["recorded"]["bundle"]));
    let now = &told["in_force"];
    assert_eq!(
        (&now["outcome"], &now["by"], &now["differs"]),
        (&json!("permit"), &json!("shop-deploys"), &json!(true))
    );
    let told = explained(&world, json!({ "event": id, "bundle": "in_force" })).await;
    assert_eq!((&told["outcome"], &told["bundle"]), (&json!("permit"), &now["bundle"]));
    let told = explained(&world, json!({ "event": id, "bundle": now["bundle"] })).await;
    assert_eq!(told["outcome"], "permit");
    let gone = simulate(&world, json!({ "event": id, "bundle": "00".repeat(32) })).await;
    assert_eq!((gone.status, &gone.json()["reason"]), (422, &json!("E-INVALID")));
}

/// For [`settle`], beside whatever is looked at.
fn with_ship_nothing(bundle: &str) -> String {
    let template = "\n[task.ship-nothing]\npurpose = \"nothing\"\nowner = \"team-shop\"\ngrants = { shop = [\"deploy:status\"] }\n\
        ttl = \"15m\"\nreview_by = 2099-01-01\n[[task.ship-nothing.allow]]\nid = \"settles\"\nissuer = \"ci\"\nclaims = { sub = \"shop\", run = \"settle\" }\n";
    format!("{bundle}{template}")
}

#[tokio::test]
async fn a_lease_names_its_row_and_every_claim_that_mattered() {
    let mut world = World::new();
    let issued = world.open(&Job::shop().run("7"), "deploy").await;
    for body in [json!({ "lease": lease(&issued) }), json!({ "event": events(&world).await[0].body["id"] })] {
        let told = explained(&world, body).await;
        assert_eq!((&told["outcome"], &told["grant"]["by"]), (&json!("permit"), &json!("shop-deploys")), "{told}");
        assert_eq!(told["grant"]["actions"], json!(["deploy:create", "deploy:status"]));
        assert_eq!(
            told["rows"][0]["claims"],
            json!([{ "claim": "sub", "seen": "shop", "wanted": ["shop"], "ok": true }])
        );
        assert_eq!((&told["recorded"]["type"], &told["job"]), (&json!("issued"), &json!("shop/7")));
    }
    // Its task is over; the record is enough.
    world.revoke(issued.task, None).await.unwrap();
    assert_eq!(explained(&world, json!({ "lease": lease(&issued) })).await["grant"]["by"], "shop-deploys");
    let ended = events(&world).await[0].body["id"].clone();
    let answer = simulate(&world, json!({ "event": ended })).await;
    assert_eq!((answer.status, &answer.json()["reason"]), (422, &json!("E-INVALID")), "an end is no decision");
}

#[tokio::test]
async fn what_no_rule_refused_is_told_as_that() {
    let mut world = World::of(&with_ship_nothing(BUNDLE));
    let evidence = world.evidence(&Job::shop());
    world.present(&evidence, ask("deploy")).await.unwrap();
    let id = world.present(&evidence, ask("deploy")).await.unwrap_err().decision.unwrap();
    settle(&mut world).await;
    let told = explained(&world, json!({ "event": id })).await;
    assert_eq!((&told["outcome"], &told["reason"]), (&json!("deny"), &json!("E-REPLAYED")));
    assert!(told["notes"][0].as_str().unwrap().contains("policy permits it"), "{told}");
    let told = explained(&world, json!({ "evidence": evidence, "template": "deploy" })).await;
    assert_eq!(told["reason"], "E-REPLAYED", "the same before it is tried");
    let id = refused(&mut world, &Job::shop().with("event", "target"), "deploy").await;
    let told = explained(&world, json!({ "event": id })).await;
    assert_eq!(told["reason"], "E-EVENT");
    assert!(told["obstacles"][0].as_str().unwrap().contains("refuses every run with `event` `target`"), "{told}");
}

/// A decision on the record, under a bundle that says this instead of that.
async fn told_after(world: &mut World, event: &Value, from: &str, to: &str) -> Value {
    world.bundle.edit(from, to);
    world.flow.load_bundle("test").await.unwrap();
    explained(world, json!({ "event": event, "bundle": "in_force" })).await
}

const PINNED: &str = "pin     = { org = \"acme\" }";

#[tokio::test]
async fn a_pin_of_another_bundle_is_read_again() {
    let mut world = World::new();
    let _ = world.open(&Job::shop(), "deploy").await;
    let event = events(&world).await[0].body["id"].clone();
    let told = told_after(&mut world, &event, PINNED, "pin     = { org = \"other\" }").await;
    assert_eq!((&told["outcome"], &told["reason"]), (&json!("deny"), &json!("E-STRANGER")), "{told}");
}

#[tokio::test]
async fn what_became_unreviewed_code_is_explained_as_that() {
    let mut world = World::new();
    let _ = world.open(&Job::shop(), "deploy").await;
    let event = events(&world).await[0].body["id"].clone();
    let told = told_after(&mut world, &event, "[{ event = [\"fork\"] }]", "[{ event = [\"fork\", \"push\"] }]").await;
    assert_eq!((&told["outcome"], &told["untrusted"]), (&json!("deny"), &json!(true)), "{told}");
}

#[tokio::test]
async fn an_action_that_is_gone_takes_no_other_with_it() {
    let mut world = World::new();
    let _ = world.open(&Job::shop(), "deploy").await;
    let event = events(&world).await[0].body["id"].clone();
    let grants = "grants    = { shop = [\"deploy:create\", \"deploy:status\"] }";
    let told = told_after(&mut world, &event, grants, "grants    = { shop = [\"deploy:create\"] }").await;
    assert_eq!((&told["outcome"], &told["grant"]["actions"]), (&json!("permit"), &json!(["deploy:create"])), "{told}");
    assert_eq!(told["notes"], json!(["with fewer actions: without deploy:status"]));
}

#[tokio::test]
async fn what_a_profile_refuses_no_longer_is_not_still_refused() {
    let mut world = World::of(&with_ship_nothing(BUNDLE));
    let id = json!(refused(&mut world, &Job::shop().with("event", "target"), "deploy").await);
    let refuse = "refuse    = [{ event = [\"target\"], code = \"E-EVENT\" }]";
    let told = told_after(&mut world, &id, refuse, "").await;
    assert_eq!((&told["outcome"], told.get("notes")), (&json!("permit"), None), "{told}");
}

#[tokio::test]
async fn the_bundle_in_force_forgets_no_fence() {
    let mut world = World::of(&with_ship_nothing(BUNDLE));
    let evidence = world.evidence(&Job::shop());
    world.present(&evidence, ask("deploy")).await.unwrap();
    let id = world.present(&evidence, ask("deploy")).await.unwrap_err().decision.unwrap();
    settle(&mut world).await;
    world.bundle.edit("\n[owner.team-shop]", "\n# anew\n[owner.team-shop]");
    world.flow.load_bundle("test").await.unwrap();
    let now = explained(&world, json!({ "event": id })).await["in_force"].take();
    assert_eq!((&now["reason"], &now["differs"]), (&json!("E-REPLAYED"), &json!(false)), "{now}");
}

/// A lapse ends nothing that was decided before it, and is seen by every dry run after it.
#[tokio::test]
async fn a_decision_is_explained_at_its_own_time_and_a_kept_bundle_lapses() {
    let row = "deadline  = \"1h\"\nreview_by = 2099-01-01\n\n[[task.deploy.allow]]";
    assert!(BUNDLE.contains(row));
    let mut world = World::of(&BUNDLE.replace(row, &row.replace("2099-01-01", "2027-01-20")));
    let _ = world.open(&Job::shop(), "deploy").await;
    let event = events(&world).await[0].body["id"].clone();
    world.pass_s(60 * 86_400);
    let kept = world.flow.load_bundle("test").await.unwrap().to.to_string();
    let told = explained(&world, json!({ "event": event })).await;
    assert_eq!((&told["outcome"], &told["grant"]["by"]), (&json!("permit"), &json!("shop-deploys")), "{told}");
    assert_eq!((&told["in_force"]["reason"], &told["in_force"]["differs"]), (&json!("E-NOMATCH"), &json!(true)));

    world.bundle.edit("\n[owner.team-shop]", "\n# anew\n[owner.team-shop]");
    world.flow.load_bundle("test").await.unwrap();
    let claims = json!({ "sub": "shop", "org": "acme", "event": "push" });
    let body = json!({ "issuer": "ci", "claims": claims, "template": "deploy", "bundle": kept });
    let told = explained(&world, body).await;
    assert_eq!((&told["outcome"], &told["reason"]), (&json!("deny"), &json!("E-NOMATCH")), "{told}");
}

#[tokio::test]
async fn claims_and_evidence_are_put_to_policy() {
    let mut world = World::new();
    let claims = |sub: &str| json!({ "sub": sub, "org": "acme", "event": "push" });
    let of = |sub: &str, rest: Value| {
        let mut body = json!({ "issuer": "ci", "claims": claims(sub), "template": "deploy" });
        body.as_object_mut().unwrap().extend::<Map<_, _>>(rest.as_object().unwrap().clone());
        body
    };
    let told =
        explained(&world, of("shop", json!({ "ttl": 60, "actions": ["deploy:status"], "resource": SHOP_URI }))).await;
    assert_eq!(
        told["grant"],
        json!({ "by": "shop-deploys", "opaque": false, "target": "shop", "actions": ["deploy:status"], "ttl_max_s": 60 })
    );
    let told = explained(&world, of("shop", json!({ "actions": ["deploy:undo"] }))).await;
    assert_eq!((&told["outcome"], &told["rows"][0]["differences"]), (&json!("deny"), &json!(0)));
    assert!(told["obstacles"][0].as_str().unwrap().contains("out of deploy:create, deploy:status"), "{told}");
    let mut by_url = of("shop", json!({}));
    by_url.as_object_mut().unwrap().remove("issuer");
    by_url["claims"]["iss"] = json!(CI);
    assert_eq!(explained(&world, by_url.clone()).await["outcome"], "permit");
    by_url["claims"]["iss"] = json!("https://evil.example");
    assert_eq!(explained(&world, by_url).await["reason"], "E-ISSUER");
    let mut stranger = of("shop", json!({}));
    stranger["claims"]["org"] = json!("evil");
    let told = explained(&world, stranger).await;
    assert_eq!(told["reason"], "E-STRANGER");
    let pin = json!([{ "what": "pin org", "seen": "evil", "wanted": ["acme"], "ok": false }]);
    assert_eq!(told["checks"], pin);
    let evidence = world.evidence(&Job::shop());
    let told = explained(&world, json!({ "evidence": evidence, "template": "deploy" })).await;
    assert_eq!((&told["outcome"], &told["workload"]), (&json!("permit"), &json!("ci/shop")));
}

#[tokio::test]
async fn evidence_that_never_reached_policy_is_explained_to_operators() {
    let mut world = World::new();
    let at = world.now().as_s();
    let mut broken = world.evidence(&Job::shop());
    let end = broken.len();
    broken.replace_range(end - 20..end - 10, "AAAAAAAAAA");
    for (job, reason, what, seen, wanted) in [
        (Job::shop().with("iss", "https://evil.example"), "E-ISSUER", "iss", "https://evil.example", CI),
        (Job::shop().with("iss", ISSUER), "E-OWN", "iss", ISSUER, CI),
        (Job::shop().with("aud", "https://other.example"), "E-AUDIENCE", "aud", "https://other.example", ISSUER),
        (Job::shop().with("exp", at - 61), "E-EXPIRED", "exp", "2027-01-15T07:58:59Z", ""),
        (Job::shop().with("org", "evil"), "E-STRANGER", "pin org", "evil", "acme"),
        (Job::shop().with("run", 7), "E-CLAIM", "run", "7", ""),
    ] {
        let evidence = world.evidence(&job);
        let told = explained(&world, json!({ "evidence": evidence, "template": "deploy" })).await;
        assert_eq!((&told["outcome"], &told["reason"]), (&json!("deny"), &json!(reason)), "{told}");
        let bad: Vec<_> = told["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
        let [check] = bad.as_slice() else { panic!("{bad:?}") };
        assert_eq!((check["what"].as_str().unwrap(), check["seen"].as_str().unwrap_or_default()), (what, seen));
        assert!(check["wanted"].to_string().contains(wanted), "{check}");
    }
    let told = explained(&world, json!({ "evidence": broken, "template": "deploy" })).await;
    assert_eq!(told["reason"], "E-SIGNATURE");
    assert!(told["checks"].as_array().unwrap().iter().all(|check| check["ok"] == true), "only the signature is wrong");
}

#[tokio::test]
async fn a_dry_run_leaves_nothing_behind() {
    let mut world = World::new();
    let evidence = world.evidence(&Job::shop());
    let before = events(&world).await.len();
    for _ in 0..3 {
        let answer = simulate(&world, json!({ "evidence": evidence, "template": "deploy" })).await;
        assert_eq!(answer.status, 200);
        let parts: Vec<_> = evidence.split('.').collect();
        assert!(parts.iter().all(|part| !answer.text.contains(part)), "{}", answer.text);
    }
    explained(
        &world,
        json!({ "evidence": world.sign(Job::shop().with("sub", "cart").with("jti", "x")), "template": "deploy" }),
    )
    .await;
    assert_eq!(events(&world).await.len(), before);
    assert!(world.present(&evidence, ask("deploy")).await.is_ok(), "the evidence is not used up");
    assert!(world.verify().problems.is_empty());
}

/// It would replace the live keys of an issuer of the same name, and ask at addresses that are no
/// longer trusted.
#[tokio::test]
async fn a_dry_run_asks_nobody_for_the_keys_of_a_kept_bundle() {
    let mut world = World::new();
    world.bundle.edit("\n[owner.team-shop]", "\n# anew\n[owner.team-shop]");
    let swapped = world.flow.load_bundle("test").await.unwrap();
    let evidence = world.evidence(&Job::shop());
    let under = |bundle: String| json!({ "evidence": evidence, "template": "deploy", "bundle": bundle });
    let before = simulate(&world, under(swapped.from.unwrap().to_string())).await;
    assert_eq!((before.status, &before.json()["reason"]), (422, &json!("E-INVALID")), "{}", before.text);
    assert_eq!(explained(&world, under(swapped.to.to_string())).await["outcome"], "permit");
}

/// The opening is the last of its task's events, however many pages they fill.
#[tokio::test]
async fn an_opening_at_the_end_of_a_full_page_is_found() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    for _ in 2..500 {
        world.feed(&handle(&issued), None).await.unwrap();
    }
    let of_task = EventFilter { task: Some(issued.task), ..EventFilter::default() };
    let page = world.flow.events(&OPERATOR, of_task, 500, None).await.unwrap();
    assert_eq!((page.items.len(), page.next_cursor), (500, None), "one page, and full");
    let last = page.items[0].body["id"].clone();
    world.sql("PRAGMA foreign_keys = OFF; DELETE FROM task");
    assert_eq!(explained(&world, json!({ "event": last })).await["grant"]["by"], "shop-deploys");
}

/// T-110: who may operate the broker does not by that read the record, and an event that is not theirs
/// looks like one that never was.
#[tokio::test]
async fn t_110_simulating_an_event_needs_the_right_to_read_it() {
    let mut world = operated();
    let issued = world.open(&Job::shop(), "deploy").await;
    let of_shop = events(&world).await[0].body["id"].clone();
    let operates = token(&world.open(&Job::pay(), "operate").await);
    let oversees = world.open(&Job::pay(), "oversee").await;
    let own = events(&world).await[0].body["id"].clone();
    let (unknown, no_lease) = ("evt_00000000000000000000000001", "lse_00000000000000000000000001");
    for body in [json!({ "event": of_shop }), json!({ "event": unknown }), json!({ "lease": lease(&issued) })] {
        let answer = world.call(by_token(&operates, &body)).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (403, &json!("E-SCOPE")), "{body}");
    }
    let oversees_token = token(&oversees);
    let hidden = async |body: Value| {
        let mut request = by_token(&oversees_token, &body);
        request.headers_mut().insert("x-request-id", "same".parse().unwrap());
        let answer = world.call(request).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (404, &json!("E-NOT-FOUND")), "{body}");
        answer.text
    };
    assert_eq!(hidden(json!({ "event": of_shop })).await, hidden(json!({ "event": unknown })).await);
    assert_eq!(hidden(json!({ "lease": lease(&issued) })).await, hidden(json!({ "lease": no_lease })).await);
    let answer = world.call(by_token(&oversees_token, &json!({ "event": own }))).await;
    assert_eq!((answer.status, &answer.json()["grant"]["by"]), (200, &json!("pay-oversees")), "{}", answer.text);
    // Who may not ask learns nothing of how to ask.
    let shop = token(&issued);
    for body in [json!({}), json!({ "nonsense": 1 })] {
        let answer = world.call(by_token(&shop, &body)).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (401, &json!("E-CLIENT")));
    }
}

#[tokio::test]
async fn secrets_are_in_no_explanation() {
    let mut world = World::of(&with_ship_nothing(BUNDLE));
    let job = Job::shop().with("sub", "cart").run("dtc_SECRETSECRET");
    let id = refused(&mut world, &job, "deploy").await;
    for body in [json!({ "event": id }), json!({ "issuer": "ci", "claims": job.0, "template": "dtc_SECRETSECRET" })] {
        let answer = simulate(&world, body).await;
        assert_eq!((answer.status, answer.text.contains("SECRETSECRET")), (200, false), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_reason_of_the_table_is_behind_every_denial() {
    let world = World::new();
    for template in ["deploy", "pay", "nowhere"] {
        let claims = json!({ "sub": "cart", "org": "acme", "event": "push" });
        let told = explained(&world, json!({ "issuer": "ci", "claims": claims, "template": template })).await;
        assert!(Reason::from_code(told["reason"].as_str().unwrap()).is_some(), "{told}");
    }
}

/// The shop's bundle in a folder, whose owner lets callers see why they were refused.
fn policies(work: &Path) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    fs::create_dir(work.join("mine")).unwrap();
    for name in ["shop.toml", "production.cedar"] {
        let text = fs::read_to_string(shipped.join(name)).unwrap();
        let text = text.replacen("[task.deploy-staging]", "[task.deploy-staging]\nexplain = \"caller\"", 1);
        fs::write(work.join("mine").join(name), text).unwrap();
    }
}

/// Evidence of the stand-in with other claims than the row wants.
fn evidence_with(work: &Path, name: &str, change: &[(&str, &str)]) -> Value {
    let file = work.join(dev::env(work)["DAYFLY_DEV_CLAIMS"].clone());
    let mut claims: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    change.iter().for_each(|(claim, value)| claims[*claim] = json!(value));
    let own = format!("{name}.json");
    fs::write(work.join(&own), claims.to_string()).unwrap();
    fs::write(work.join(name), dev::good(work, &["dev", "token", "--state", "state", "--claims", &own])).unwrap();
    claims
}

#[test]
fn the_program_says_what_to_change() {
    let work = dev::work();
    let work = work.path();
    policies(work);
    let _broker = Dev::start(work, &["--policies", "mine"]);
    let claims = evidence_with(work, "topic", &[("ref", "refs/heads/topic")]);
    let refused = dev::verb(work, &["token", "--task", "deploy-staging", "--evidence-file", "topic", "--out", "t"]);
    assert_eq!(refused.status.code(), Some(77));
    let said = dev::text(&refused.stderr);
    assert!(said.contains("this job has") && said.contains("nearest row `shop-staging-main` wants"), "{said}");
    let line = said.lines().find(|line| line.trim_start().starts_with("ref ")).unwrap();
    let cells: Vec<_> = line.split_whitespace().collect();
    assert_eq!(cells, ["ref", "refs/heads/topic", "refs/heads/main", "✗"]);
    assert!(!said.contains('\u{1b}'), "no colour where there is no terminal");
    let id = said.split_whitespace().find(|word| word.starts_with("evt_")).unwrap().to_owned();
    assert!(said.contains(&format!("dayfly explain {id}")), "{said}");

    // It is written a moment later than it is answered.
    wait_until("the event", || dev::verb(work, &["explain", &id]).status.success());
    let told = dev::good(work, &["explain", &id]);
    assert!(
        told.contains("deny E-NOMATCH") && told.contains("row `shop-staging-main` with `ref` `refs/heads/main`"),
        "{told}"
    );
    let told: Value = serde_json::from_str(&dev::good(work, &["explain", &id, "--output", "json"])).unwrap();
    assert_eq!((&told["schema_version"], &told["recorded"]["event"]), (&json!(1), &json!(id)));

    // The same without a record: a token, then its claims, at the broker and with the bundle alone.
    let of_token = ["explain", "--evidence-file", "topic", "--task", "deploy-staging", "--output", "json"];
    let told: Value = serde_json::from_str(&dev::good(work, &of_token)).unwrap();
    assert_eq!((&told["reason"], &told["rows"][0]["id"]), (&json!("E-NOMATCH"), &json!("shop-staging-main")));
    fs::write(work.join("claims"), claims.to_string()).unwrap();
    let of_claims = ["explain", "--claims", "claims", "--issuer", "github", "--task", "deploy-staging"];
    let at_broker = dev::good(work, &of_claims);
    let alone = dev::dayfly(&[&of_claims[..], &["--policies", "mine"]].concat()).current_dir(work).output().unwrap();
    assert!(alone.status.success(), "{}", dev::text(&alone.stderr));
    let rows = |text: &str| text.lines().filter(|line| line.contains("refs/heads/topic")).count();
    assert_eq!((rows(&at_broker), rows(dev::text(&alone.stdout))), (1, 1));
    let of_token = ["explain", "--evidence-file", "topic", "--task", "deploy-staging", "--policies", "mine"];
    let alone = dev::dayfly(&of_token).current_dir(work).output().unwrap();
    assert!(alone.status.success());
    assert!(dev::text(&alone.stderr).contains("signature was NOT checked"), "{}", dev::text(&alone.stderr));
}

#[test]
fn the_program_explains_a_lease_and_who_this_job_is() {
    let work = dev::work();
    let work = work.path();
    let _broker = Dev::start(work, &[]);
    let issued = dev::job(work, "job.token");
    assert!(issued.status.success(), "{}", dev::text(&issued.stderr));
    let live = dev::good(work, &["lease", "ls", "--template", "deploy-staging", "--output", "name"]);
    let told = dev::good(work, &["explain", live.trim()]);
    assert!(told.contains("by row `shop-staging-main` on shop-staging"), "{told}");
    assert!(told.lines().filter(|line| line.ends_with(" ok")).count() == 3, "{told}");
    assert_eq!(dev::verb(work, &["explain", "evt_00000000000000000000000001"]).status.code(), Some(3));

    let nobody = dev::dayfly(&["explain"]).current_dir(work).output().unwrap();
    assert!(nobody.status.success(), "{}", dev::text(&nobody.stderr));
    let probes = dev::text(&nobody.stdout);
    assert!(probes.contains("DAYFLY_ID_TOKEN") && probes.contains("is not set"), "{probes}");
    let evidence = fs::read_to_string(work.join("job.token.evidence")).unwrap();
    let mut verb = dev::dayfly(&["explain", "--task", "deploy-staging"]);
    let vars = dev::env(work);
    let operator = vars["DAYFLY_OPERATOR_TOKEN_FILE"].clone();
    verb.envs(vars).env("DAYFLY_TOKEN_FILE", operator).env("DAYFLY_ID_TOKEN", evidence.trim()).current_dir(work);
    let known = verb.output().unwrap();
    assert!(known.status.success(), "{}", dev::text(&known.stderr));
    let said = dev::text(&known.stdout);
    assert!(said.contains("E-REPLAYED") && said.contains("shop-staging-main"), "{said}");
    assert!(!said.contains(evidence.trim().split('.').next_back().unwrap()));
}
