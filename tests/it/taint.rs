//! A signing key leaked: the key is out at once and for ever, what it signed is dead, and the answer says
//! until when whoever has it is believed.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use dayfly::{
    flow::{EventFilter, Exchange, Subject},
    mint::{KeyState, KeyUse, KeyView, Keyring},
};
use dayfly_domain::{Cause, LeaseId, State};
use dayfly_verifier::{Jws, KeySet, crypto::SigningKey, read_task_token};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    dev::{self, Dev, wait_until},
    world::{Answer, ISSUER, Job, OPERATOR, SHOP_URI, World, ask, get, handle, lease, local, post_json, secret, token},
};

async fn taint(world: &World, kid: &str) -> Answer {
    let body = json!({ "reason": "it was in a log" });
    world.call(local(post_json(&format!("/v1/keys/{kid}/taint"), None, &body))).await
}

fn kid(token: &str) -> String {
    Jws::parse(token).unwrap().kid().unwrap().to_owned()
}

/// Those that are published for tokens: active, next, retired.
async fn published(world: &World) -> Vec<String> {
    let ours: Vec<_> = of_use(world, KeyUse::Tokens).await.into_iter().map(|key| key.kid).collect();
    let jwks = world.flow.jwks();
    let kids: Vec<_> =
        jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
    let of_lists = kids.iter().filter(|kid| !ours.contains(kid)).count();
    assert!(of_lists >= 2, "the active and the next key of lists");
    kids.into_iter().filter(|kid| ours.contains(kid)).collect()
}

async fn of_use(world: &World, wanted: KeyUse) -> Vec<KeyView> {
    let all = world.flow.keys(&OPERATOR).await.unwrap();
    all.into_iter().filter(|(what, _)| *what == wanted).map(|(_, key)| key).collect()
}

async fn events(world: &World, kind: &str) -> Vec<Value> {
    let all = world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items;
    let of_kind = all.into_iter().filter(|event| event.body["type"] == kind);
    of_kind.map(|event| Value::Object(event.body)).collect()
}

fn verifies(world: &World, token: &str) -> bool {
    let keys = KeySet::parse(world.flow.jwks().to_string().as_bytes()).unwrap();
    read_task_token(token, &keys, ISSUER, SHOP_URI, world.now()).is_ok()
}

#[tokio::test]
async fn t_197_a_tainted_key_is_out_at_once_and_what_it_signed_is_dead() {
    let mut world = World::on_file();
    let first = world.open(&Job::shop().run("1"), "deploy").await;
    let before = published(&world).await;
    let leaked = kid(&token(&first));
    world.pass_s(600);
    let answer = taint(&world, &leaked).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let told = answer.json();
    assert_eq!((&told["state"], &told["was"], &told["dry_run"]), (&json!("tainted"), &json!("active"), &json!(false)));
    assert_eq!((&told["leases_ended"], &told["signs"]), (&json!(1), &json!(before[1])));
    assert!(!published(&world).await.contains(&leaked) && published(&world).await.len() == 2);
    assert!(!verifies(&world, &token(&first)) && !world.active(&token(&first)).await);
    let view = world.flow.lease(&OPERATOR, lease(&first)).await.unwrap();
    assert_eq!((view.state, view.cause), (State::Ended, Some(Cause::KeyTainted)));
    // Its task lives on, and gets a credential that a verifier with yesterday's JWKS knows.
    let again = world.feed(&handle(&first), None).await.unwrap();
    assert!(kid(&token(&again)) == before[1] && verifies(&world, &token(&again)));
    assert!(world.active(&token(&again)).await);
    let events = events(&world, "key_tainted").await;
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["tainted_kid"], &events[0]["kid"]), (&json!(leaked), &json!(before[1])));
    assert_eq!(events[0]["count"], 1);
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
}

/// Law L12: whoever has the key writes any `exp`, so no lease's own bounds it.
#[tokio::test]
async fn t_197_the_answer_says_until_when_a_thief_is_believed() {
    let mut world = World::new();
    let leaked = kid(&token(&world.open(&Job::shop(), "deploy").await));
    let jwks = world.call(get("/oauth2/jwks", None)).await;
    let told = taint(&world, &leaked).await.json();
    let max_age_s = told["jwks_max_age_s"].as_i64().unwrap();
    assert!(jwks.head("cache-control").contains(&format!("max-age={max_age_s}")), "{}", jwks.head("cache-control"));
    let targets = told["targets"].as_array().unwrap();
    let bundle = world.flow.entitlements(&OPERATOR, Default::default(), 500, None).await.unwrap().items;
    assert!(bundle.iter().all(|row| row.target == "broker" || targets.iter().any(|told| told["target"] == row.target)));
    let by = |channel: &str| targets.iter().filter(|bound| bound["channel"] == channel).count();
    assert!(by("introspection") > 0 && by("introspection") + by("jwks") == targets.len(), "{told}");
    let later = |bound: &Value, s| bound["worst_case_at"] == json!(world.now().plus_s(s).to_string());
    for bound in targets {
        let base = if bound["channel"] == "jwks" { max_age_s } else { 0 };
        assert!((1..=600).any(|own_s| later(bound, base + own_s)), "{bound}");
        assert_eq!(bound["known"], true);
    }
    assert!(told["revocation"].as_array().unwrap().len() <= 2);
    // The next one was published when the broker started, this very second: not all know it yet.
    assert_eq!(told["signs_known_at"], world.now().plus_s(max_age_s).to_string());
}

#[tokio::test]
async fn a_dry_run_taints_nothing() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    let (leaked, before) = (kid(&token(&issued)), published(&world).await);
    let path = format!("/v1/keys/{leaked}/taint");
    let answer = world.call(local(post_json(&path, None, &json!({ "dry_run": true })))).await;
    let told = answer.json();
    assert_eq!((answer.status, &told["dry_run"], &told["state"]), (200, &json!(true), &json!("active")));
    assert_eq!((&told["leases_ended"], &told["signs"]), (&json!(1), &json!(before[1])));
    assert_eq!(published(&world).await, before);
    assert!(world.active(&token(&issued)).await && events(&world, "key_tainted").await.is_empty());
}

#[tokio::test]
async fn what_is_no_key_is_not_found_and_taints_nothing() {
    let world = World::new();
    let before = published(&world).await;
    let shouted = before[0].to_uppercase();
    let cut = &before[0][..before[0].len() - 1];
    let long = "x".repeat(5_000);
    for bad in ["no-such", "tainted", "%2e%2e", "..", "*", &shouted, cut, &format!("{}=", before[0]), &long] {
        assert_eq!(taint(&world, bad).await.status, 404, "{bad}");
    }
    for body in [
        json!({ "reason": "" }),
        json!({ "reason": 7 }),
        json!({ "dry_run": "yes" }),
        json!({ "dryrun": true }),
        json!({ "confirm": true }),
        json!({ "reason": format!("dtc_{}", "A".repeat(43)) }),
    ] {
        let request = local(post_json(&format!("/v1/keys/{}/taint", before[0]), None, &body));
        assert_eq!(world.call(request).await.status, 422, "{body}");
    }
    assert_eq!(published(&world).await, before);
    assert!(events(&world, "key_tainted").await.is_empty());
}

#[tokio::test]
async fn twice_is_the_first_answer_and_one_event() {
    let mut world = World::on_file();
    let leaked = kid(&token(&world.open(&Job::shop(), "deploy").await));
    let first = taint(&world, &leaked).await;
    world.pass_s(5);
    let second = taint(&world, &leaked).await;
    assert_eq!((second.status, second.json()), (200, first.json()));
    world.restart().await;
    world.upkeep.record_taints().await;
    assert_eq!(taint(&world, &leaked).await.json(), first.json(), "and after a restart");
    assert_eq!((events(&world, "key_tainted").await.len(), events(&world, "tombstone").await.len()), (1, 1));
    assert!(!published(&world).await.contains(&leaked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_active_and_the_next_key_at_once_many_times() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    let leaked = published(&world).await;
    let asking: Vec<_> = (0..12)
        .map(|number| {
            let (flow, kid) = (world.flow.clone(), leaked[number % 2].clone());
            tokio::spawn(async move { flow.taint_key(&OPERATOR, &kid, None, false).await })
        })
        .collect();
    for asked in asking {
        asked.await.unwrap().unwrap();
    }
    assert_eq!(events(&world, "key_tainted").await.len(), 2);
    let now = published(&world).await;
    assert!(now.len() == 2 && leaked.iter().all(|kid| !now.contains(kid)));
    assert!(!world.active(&token(&issued)).await);
    let fresh = world.feed(&handle(&issued), None).await.unwrap();
    assert!(verifies(&world, &token(&fresh)) && world.active(&token(&fresh)).await);
}

#[tokio::test]
async fn every_key_can_be_tainted_and_a_fresh_one_signs() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.pass_s(24 * 3600);
    world.upkeep.each_minute().await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        for kid in published(&world).await {
            assert_eq!(taint(&world, &kid).await.status, 200);
            seen.push(kid);
        }
    }
    assert!(seen.len() >= 7 && published(&world).await.iter().all(|kid| !seen.contains(kid)));
    assert!(!world.active(&token(&issued)).await);
    world.restart().await;
    let fresh = world.open(&Job::shop().run("9"), "deploy").await;
    assert!(verifies(&world, &token(&fresh)) && !seen.contains(&kid(&token(&fresh))));
    let states = of_use(&world, KeyUse::Tokens).await;
    let tainted = states.iter().filter(|key| key.state == KeyState::Tainted).count();
    assert_eq!(tainted, seen.len());
}

/// Whatever is in flight: once the taint is answered, nothing that the key signed is given out or active.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_tainted_key_signed_meanwhile_never_leaves() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    let leaked = kid(&token(&issued));
    let done = Arc::new(AtomicBool::new(false));
    let feeding: Vec<_> = (0..120)
        .map(|_| {
            let (flow, handle, done) = (world.flow.clone(), handle(&issued), done.clone());
            tokio::spawn(async move {
                let subject = Subject::Handle { handle: secret(&handle), supersede_s: None };
                let late = done.load(Ordering::SeqCst);
                let fed = flow.exchange(Exchange { subject, ask: ask(""), possession: None, csr: None }).await;
                fed.ok().map(|fed| (late, token(&fed)))
            })
        })
        .collect();
    assert_eq!(taint(&world, &leaked).await.status, 200);
    done.store(true, Ordering::SeqCst);
    let mut alive = 0;
    for fed in feeding {
        let Some((late, token)) = fed.await.unwrap() else { continue };
        let by_leaked = kid(&token) == leaked;
        assert!(!(late && by_leaked), "asked after the answer, and signed with the tainted key");
        assert_eq!(world.active(&token).await, !by_leaked);
        alive += usize::from(!by_leaked);
    }
    assert!(alive > 0 || world.feed(&handle(&issued), None).await.is_ok());
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
}

#[tokio::test]
async fn a_taint_that_is_not_durable_is_in_force() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    let leaked = kid(&token(&issued));
    world.sql("ALTER TABLE event RENAME TO event_gone");
    let answer = taint(&world, &leaked).await;
    let told = answer.json();
    assert_eq!((answer.status, &told["reason"], &told["effective"]), (503, &json!("E-NOT-DURABLE"), &json!(true)));
    assert!(!world.active(&token(&issued)).await && !published(&world).await.contains(&leaked));
    world.sql("ALTER TABLE event_gone RENAME TO event");
    world.upkeep.record_taints().await;
    let events = events(&world, "key_tainted").await;
    assert_eq!((events.len(), &events[0]["count"]), (1, &json!(1)), "made up for without being asked");
    assert_eq!(taint(&world, &leaked).await.status, 200);
    world.restart().await;
    assert!(!world.active(&token(&issued)).await && world.verify().problems.is_empty());
}

/// The state after a kill -9 between the key file and the ledger.
#[tokio::test]
async fn a_crash_after_the_key_file_is_made_up_for_at_the_start() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    let leaked = kid(&token(&issued));
    world.stop().await;
    let ring = Keyring::open(world.file().parent().unwrap(), world.now()).unwrap();
    ring.taint(&leaked, world.now()).unwrap();
    world.start_again().unwrap();
    assert!(
        !world.active(&token(&issued)).await && !published(&world).await.contains(&leaked),
        "from the first answer on"
    );
    assert!(events(&world, "key_tainted").await.is_empty());
    world.upkeep.record_taints().await;
    world.upkeep.record_taints().await;
    assert_eq!(events(&world, "key_tainted").await.len(), 1);
    let view = world.flow.lease(&OPERATOR, lease(&issued)).await.unwrap();
    assert_eq!(view.cause, Some(Cause::KeyTainted));
    assert!(world.verify().problems.is_empty());
}

/// A backup of the key file, put back after the taint: the ledger knows better.
#[tokio::test]
async fn a_key_file_from_before_the_taint_brings_nothing_back() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    let leaked = kid(&token(&issued));
    let file = world.file().with_file_name(dayfly::mint::KEYS_FILE);
    let before = fs::read(&file).unwrap();
    assert_eq!(taint(&world, &leaked).await.status, 200);
    world.stop().await;
    fs::write(&file, before).unwrap();
    world.start_again().unwrap();
    assert!(!published(&world).await.contains(&leaked));
    let fresh = world.open(&Job::shop().run("2"), "deploy").await;
    assert!(kid(&token(&fresh)) != leaked && !world.active(&token(&issued)).await);
    assert!(fs::read_to_string(&file).unwrap().contains("tainted"), "and the file says so again");
}

/// What is signed with a leaked key over no lease of ours is an alarm still.
#[tokio::test]
async fn a_forgery_with_a_tainted_key_is_an_alarm_and_nothing_else() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    let stored: Value =
        serde_json::from_slice(&fs::read(world.file().with_file_name(dayfly::mint::KEYS_FILE)).unwrap()).unwrap();
    let pkcs8 =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, stored[0]["pkcs8"].as_str().unwrap());
    let thief = SigningKey::from_pkcs8(&pkcs8.unwrap()).unwrap();
    assert_eq!(thief.kid(), kid(&token(&issued)));
    let mut claims = Jws::parse(&token(&issued)).unwrap().into_unverified_claims();
    claims.insert("jti".into(), LeaseId::from_parts(7, [7; 10]).to_string().into());
    claims.insert("exp".into(), (world.now().as_s() + 1_000_000).into());
    let forged = thief.sign("at+jwt", &claims).unwrap();
    assert_eq!(taint(&world, thief.kid()).await.status, 200);
    assert!(!verifies(&world, &forged) && !world.active(&forged).await);
    assert_eq!(world.flow.forged_or_lost(), 1);
    // As a caller it is nobody, whatever it says of itself.
    claims.insert("aud".into(), format!("{ISSUER}/v1").into());
    let forged = thief.sign("at+jwt", &claims).unwrap();
    assert_eq!(world.call(get("/v1/keys", Some(&forged))).await.status, 401);
}

fn keys(work: &Path) -> Vec<Value> {
    let list: Value =
        serde_json::from_str(&dev::good(work, &["key", "ls", "--output", "json", "--state", "state"])).unwrap();
    list["items"].as_array().unwrap().clone()
}

fn key_in(work: &Path, state: &str) -> String {
    let found = keys(work).into_iter().find(|key| key["state"] == state).unwrap();
    found["kid"].as_str().unwrap().to_owned()
}

#[test]
fn an_operator_taints_a_key_from_the_command_line() {
    let work = dev::work();
    let work = work.path();
    let _broker = Dev::start(work, &[]);
    assert!(dev::job(work, "token").status.success());
    let leaked = key_in(work, "active");
    let taint = |more: &[&str]| {
        let line = ["key", "taint", &leaked, "--reason", "in a log", "--state", "state"];
        dev::verb(work, &[&line[..], more].concat())
    };
    let asked = taint(&[]);
    assert_eq!(asked.status.code(), Some(2));
    assert!(
        dev::text(&asked.stderr)
            .contains(&format!("dayfly key taint {leaked} --reason 'in a log' --confirm --state 'state'"))
    );
    let dry = taint(&["--dry-run"]);
    assert!(dry.status.success() && dev::text(&dry.stderr).contains("nothing was done"));
    assert_eq!(key_in(work, "active"), leaked);
    let done = taint(&["--confirm"]);
    assert!(done.status.success(), "{}", dev::text(&done.stderr));
    assert!(dev::text(&done.stderr).contains("is tainted (it was active)"), "{}", dev::text(&done.stderr));
    assert!(dev::text(&done.stdout).contains("BELIEVES THE KEY UNTIL"));
    assert_eq!(key_in(work, "tainted"), leaked);
    let unknown = dev::verb(work, &["key", "taint", "no-such", "--reason", "x", "--confirm", "--state", "state"]);
    assert_eq!(unknown.status.code(), Some(3));
    // The token of dev's own operator was signed with it too: there is a new one by itself.
    wait_until("a new operator's token", || dev::verb(work, &["lease", "ls"]).status.success());
    let leases = dev::good(work, &["lease", "ls", "--output", "json"]);
    assert!(leases.contains("key_tainted"), "{leases}");
}

#[test]
fn killed_while_a_key_is_tainted() {
    let work = dev::work();
    let work = work.path();
    let mut broker = Some(Dev::start(work, &[]));
    let file = work.join("state").join(dayfly::mint::KEYS_FILE);
    for round in 1..=3 {
        let leaked = key_in(work, "active");
        thread::scope(|scope| {
            scope.spawn(|| {
                dev::verb(work, &["key", "taint", &leaked, "--reason", "x", "--confirm", "--state", "state"])
            });
            // As soon as the file says it: the ledger may know of it or not.
            wait_until("the taint", || fs::read_to_string(&file).unwrap().matches("\"tainted\"").count() == round);
            broker.take().unwrap().end(Signal::KILL);
        });
        broker = Some(Dev::start(work, &[]));
        assert!(keys(work).iter().any(|key| key["kid"] == leaked.as_str() && key["state"] == "tainted"));
        let recorded = || {
            let events = dev::good(work, &["ledger", "show", "--output", "json", "--limit", "500", "--state", "state"]);
            events.matches(&format!("\"tainted_kid\":\"{leaked}\"")).count()
        };
        wait_until("the record", || recorded() > 0);
        assert_eq!(recorded(), 1);
    }
    let held = dev::dayfly(&["ledger", "verify", "--state", "state"]).current_dir(work).output().unwrap();
    assert!(held.status.success(), "{}", dev::text(&held.stderr));
}
