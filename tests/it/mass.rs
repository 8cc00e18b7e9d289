//! Ends by selector: everything that is meant, at once, whatever the number; what is refused from then
//! on, and how it may be again.

use std::collections::BTreeSet;

use dayfly::flow::{
    EndBySelector, EndedBySelector, EventFilter, Issued, MassEnd, NotEnded, Refused, bounds::TOMBS_MAX,
};
use dayfly_domain::{BlockId, Cause, Channel, LeaseId, Reason, State};
use serde_json::{Value, json};

use crate::world::{
    Answer, BUNDLE, Job, OPERATOR, SHOP_URI, START, STOCK_URI, World, ask, ask_on, delete, get, handle, lease, local,
    post_json, reason, secret, token,
};

pub fn by(text: &str) -> EndBySelector {
    EndBySelector { selector: text.parse().unwrap(), reason: None, dry_run: false, expected: None, block: true }
}

pub async fn end(world: &World, ask: EndBySelector) -> Result<MassEnd, Refused> {
    match world.flow.end_by_selector(&OPERATOR, ask).await? {
        EndedBySelector::Ended(ended) => Ok(*ended),
        EndedBySelector::NotEnded(why) => panic!("{why}"),
    }
}

async fn not_ended(world: &World, ask: EndBySelector) -> NotEnded {
    match world.flow.end_by_selector(&OPERATOR, ask).await.unwrap() {
        EndedBySelector::Ended(ended) => panic!("{ended:?}"),
        EndedBySelector::NotEnded(why) => why,
    }
}

pub async fn post(world: &World, body: &Value) -> Answer {
    world.call(local(post_json("/v1/end", None, body))).await
}

/// Until no row is behind.
pub async fn caught_up(world: &World) {
    for _ in 0..20 {
        let behind = blocks(world).await.iter().map(|block| block["behind"].as_u64().unwrap()).sum::<u64>();
        world.upkeep.catch_up().await;
        // What is queued behind it is written behind it.
        world.flow.load_bundle("test").await.unwrap();
        if behind == 0
            && world
                .reader
                .snapshot(|rows| {
                    let mut left = 0;
                    rows.each_tomb(|tomb| left += u32::from(!tomb.done)).unwrap();
                    left
                })
                .unwrap()
                == 0
        {
            return;
        }
    }
    panic!("rows stay behind");
}

async fn blocks(world: &World) -> Vec<Value> {
    let answer = world.call(local(get("/v1/blocks?limit=500", None))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["items"].as_array().unwrap().clone()
}

pub async fn states(world: &World, query: &str) -> Vec<(String, String)> {
    let answer = world.call(local(get(&format!("/v1/{query}"), None))).await;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = answer.json()["items"].as_array().unwrap().clone();
    items.iter().map(|item| (word(&item["state"]), word(&item["cause"]))).collect()
}

pub fn clean(world: &World) {
    let report = world.verify();
    assert!(report.problems.is_empty(), "{report:?}");
}

pub async fn kinds(world: &World) -> Vec<String> {
    let events = world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items;
    events.iter().map(|event| event.body["type"].as_str().unwrap().to_owned()).collect()
}

/// Introspection, lists, single rows and counts agree before a row is caught up, after, and after a
/// restart in between.
#[tokio::test]
async fn everything_of_an_owner_ends_at_once_and_all_who_ask_agree() {
    for restart in [false, true] {
        let mut world = World::on_file();
        let mut shop = Vec::new();
        for run in ["1", "2", "3"] {
            shop.push(world.open(&Job::shop().run(run), "deploy").await);
        }
        let further = world.feed(&handle(&shop[0]), None).await.unwrap();
        let pay = world.open(&Job::pay(), "pay").await;
        let answer =
            post(&world, &json!({ "filter": { "owner": "team-shop" }, "reason": "INC-7: the vendor left" })).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let ended = answer.json();
        assert_eq!((&ended["count"], &ended["tasks_ended"]), (&json!(4), &json!(3)));
        assert_eq!((&ended["state"], &ended["cause"]), (&json!("ended"), &json!("revoked")));
        assert_eq!(ended["ended_at"], START.to_string());
        assert_eq!(
            ended["revocation"],
            json!([{ "channel": "introspection", "known": true, "worst_case_at": START.plus_s(40).to_string() }])
        );
        assert_eq!(ended["worst_case"], json!({ "shop": START.plus_s(40).to_string() }));
        let sample = ended["sample"].as_array().unwrap();
        assert!(
            sample.len() == 4
                && sample.iter().all(|lease| lease["state"] == "ended" && lease["reason"] == "INC-7: the vendor left")
        );
        assert!(
            ended["id"].as_str().unwrap().starts_with("evt_") && ended["block"].as_str().unwrap().starts_with("blk_")
        );
        if restart {
            world.restart().await;
        }
        for when in ["before", "after"] {
            for one in shop.iter().chain([&further]) {
                assert!(!world.active(&token(one)).await, "{when}");
                let view = world.flow.lease(&OPERATOR, lease(one)).await.unwrap();
                assert_eq!(
                    (view.state, view.cause, view.ended_by.as_deref()),
                    (State::Ended, Some(Cause::Revoked), Some("local:1000"))
                );
            }
            assert!(world.active(&token(&pay)).await, "{when}: another owner's");
            let view = world.flow.task(&OPERATOR, shop[0].task).await.unwrap();
            assert_eq!((view.state, view.leases_active, view.leases_ended), (State::Ended, 0, 2), "{when}");
            let all = |kind: &str, count| (0..count).map(|_| ("ended".to_owned(), kind.to_owned())).collect::<Vec<_>>();
            assert_eq!(states(&world, "tasks?owner=team-shop&state=ended").await, all("revoked", 3), "{when}");
            assert_eq!(states(&world, "leases?owner=team-shop&state=ended").await, all("revoked", 4), "{when}");
            assert!(states(&world, "tasks?owner=team-shop&state=active").await.is_empty(), "{when}");
            assert!(states(&world, "leases?owner=team-shop&state=active").await.is_empty(), "{when}");
            assert_eq!(world.flow.live_tasks(), 1, "{when}");
            assert_eq!(reason(world.feed(&handle(&shop[1]), None).await), Reason::Ended, "{when}");
            clean(&world);
            if when == "before" {
                caught_up(&world).await;
            }
        }
        let row = world.reader.task(shop[0].task).unwrap().unwrap();
        assert!(row.end.is_some() && row.claims.is_none(), "claims are erased with the end");
        assert!(world.flow.introspect(&OPERATOR, &secret(&token(&pay))).await.unwrap().is_some());
        let ended = world.end(&handle(&shop[0]), shop[0].task).await.unwrap();
        assert_eq!((ended.cause, ended.ended_at), (Some(Cause::Revoked), Some(START)), "its own end comes too late");
        let once = kinds(&world).await.iter().filter(|kind| kind.ends_with("ended")).count();
        assert_eq!(once, 0, "one event for all");
        clean(&world);
    }
}

#[tokio::test]
async fn a_block_by_selector_refuses_what_matches_and_nothing_else() {
    let mut world = World::on_file();
    world.open(&Job::shop(), "deploy").await;
    let ended = end(&world, by(r#"owner == "team-shop" && template == "deploy""#)).await.unwrap();
    let block = ended.block.unwrap();
    let kept = world.evidence(&Job::shop());
    for _ in 0..2 {
        assert_eq!(reason(world.present(&kept, ask("deploy")).await), Reason::Blocked);
        assert_eq!(reason(world.try_open(&Job::shop().run("7"), ask("deploy")).await), Reason::Blocked);
        assert!(
            world.try_open(&Job::shop(), ask("pair")).await.is_ok()
                && world.try_open(&Job::pay(), ask("pay")).await.is_ok()
        );
        world.restart().await;
    }
    let listed = blocks(&world).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["where"], r#"owner == "team-shop" && template == "deploy""#);
    assert_eq!(listed[0]["filter"], json!({ "owner": "team-shop", "template": "deploy" }));
    assert_eq!(
        (&listed[0]["leases_ended"], &listed[0]["by"], &listed[0]["until"]),
        (&json!(1), &json!("local:1000"), &Value::Null)
    );
    world.pass_s(2 * 3_600);
    world.upkeep.each_second();
    assert_eq!(reason(world.try_open(&Job::shop(), ask("deploy")).await), Reason::Blocked, "until it is lifted");
    world.pass_s(1);
    let path = format!("/v1/blocks/{block}");
    let answer = world.call(local(delete(&path, None))).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    let answer = world.call(local(delete(&path, None))).await;
    assert_eq!((answer.status, &answer.json()["reason"]), (404, &json!("E-NOT-FOUND")), "it stands no more");
    assert!(world.try_open(&Job::shop(), ask("deploy")).await.is_ok() && blocks(&world).await.is_empty());
    world.restart().await;
    assert!(world.try_open(&Job::shop(), ask("deploy")).await.is_ok());
    clean(&world);
}

/// What was refused before it was lifted lives again; what ended does not.
#[tokio::test]
async fn a_lifted_block_revives_nothing() {
    let mut world = World::on_file();
    let gone = world.open(&Job::shop(), "deploy").await;
    let ended = end(&world, by(r#"owner == "team-shop""#)).await.unwrap();
    world.flow.lift_block(&OPERATOR, ended.block.unwrap()).await.unwrap();
    let (lifted, fresh) = (world.active(&token(&gone)).await, world.open(&Job::shop(), "deploy").await);
    assert!(!lifted && world.active(&token(&fresh)).await, "rows are still behind");
    caught_up(&world).await;
    assert!(!world.active(&token(&gone)).await && world.active(&token(&fresh)).await);
    world.restart().await;
    assert!(!world.active(&token(&gone)).await && world.active(&token(&fresh)).await);
    clean(&world);
}

#[tokio::test]
async fn the_same_end_again_is_the_same_answer_and_no_second_event() {
    let mut world = World::on_file();
    world.open(&Job::shop(), "deploy").await;
    let first = end(&world, by(r#"owner == "team-shop""#)).await.unwrap();
    let events = kinds(&world).await.len();
    world.pass_s(5);
    for round in 0..3 {
        let again = EndBySelector { expected: Some(77), ..by(r#"owner == "team-shop""#) };
        let again = end(&world, again).await.unwrap();
        assert_eq!(
            (again.event, again.block, again.ended_at, again.leases, again.tasks, again.channels),
            (first.event, first.block, first.ended_at, first.leases, first.tasks, first.channels.clone())
        );
        match round {
            0 => caught_up(&world).await,
            _ => world.restart().await,
        }
    }
    assert_eq!(kinds(&world).await.iter().filter(|kind| *kind == "tombstone").count(), 1);
    assert!(kinds(&world).await.len() <= events + 2, "starts, and nothing else");
    assert_eq!(blocks(&world).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_operators_at_once_end_once() {
    let mut world = World::on_file();
    for run in 0..8 {
        world.open(&Job::shop().run(&run.to_string()), "deploy").await;
    }
    let ending: Vec<_> = (0..8)
        .map(|_| {
            let flow = world.flow.clone();
            tokio::spawn(async move { flow.end_by_selector(&OPERATOR, by(r#"owner == "team-shop""#)).await.unwrap() })
        })
        .collect();
    let mut answers = BTreeSet::new();
    for ended in ending {
        let EndedBySelector::Ended(ended) = ended.await.unwrap() else { panic!("not ended") };
        answers.insert((ended.event.unwrap().to_string(), ended.leases, ended.tasks));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers.first().unwrap().1, 8);
    clean(&world);
}

#[tokio::test]
async fn a_dry_run_tells_and_changes_nothing() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    let events = kinds(&world).await.len();
    let answer = post(&world, &json!({ "filter": { "owner": "team-shop" }, "dry_run": true })).await.json();
    assert_eq!(
        (&answer["count"], &answer["tasks_ended"], &answer["id"], &answer["state"]),
        (&json!(1), &json!(1), &Value::Null, &Value::Null)
    );
    assert_eq!(answer["sample"][0]["id"], lease(&issued).to_string());
    assert_eq!(answer["sample"][0]["state"], "active");
    assert!(
        world.active(&token(&issued)).await && kinds(&world).await.len() == events && blocks(&world).await.is_empty()
    );
    assert!(world.try_open(&Job::shop(), ask("deploy")).await.is_ok());
}

#[tokio::test]
async fn of_another_number_than_was_seen_nothing_ends() {
    let mut world = World::new();
    let (one, _two) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::shop(), "pair").await);
    let answer = post(&world, &json!({ "filter": { "owner": "team-shop" }, "expected_count": 1 })).await;
    let problem = answer.json();
    assert_eq!(
        (answer.status, &problem["reason"], &problem["count"]),
        (409, &json!("E-COUNT"), &json!(2)),
        "{}",
        answer.text
    );
    assert!(world.active(&token(&one)).await && blocks(&world).await.is_empty());
    assert_eq!(post(&world, &json!({ "filter": { "owner": "team-shop" }, "expected_count": 2 })).await.status, 200);
    assert!(!world.active(&token(&one)).await);
}

/// It blocks what may come, and says that it ended nothing.
#[tokio::test]
async fn a_filter_that_matches_nothing_ends_nothing_and_blocks() {
    let mut world = World::on_file();
    let shop = world.open(&Job::shop(), "deploy").await;
    let ended = end(&world, by(r#"workload == "ci/mallory""#)).await.unwrap();
    assert_eq!((ended.leases, ended.tasks, ended.sample.len(), ended.channels.len()), (0, 0, 0, 0));
    assert!(ended.block.is_some() && world.active(&token(&shop)).await);
    let none = EndBySelector { block: false, ..by(r#"owner == "team-pay""#) };
    assert_eq!(end(&world, none).await.unwrap().block, None);
    caught_up(&world).await;
    clean(&world);
}

// SECURITY: a slip would end nothing and look like an end.
#[tokio::test]
async fn a_name_that_the_bundle_does_not_know_is_refused() {
    let mut world = World::new();
    let shop = world.open(&Job::shop(), "deploy").await;
    for (filter, told) in [
        (json!({ "owner": "team-shoop" }), "team-shop"),
        (json!({ "issuer": "github" }), "ci"),
        (json!({ "target": "shop-production" }), "stock"),
        (json!({ "template": "deploi" }), "deploy"),
        (json!({ "row": "shop-deploy" }), "shop-deploys"),
        (json!({ "workload": "shop" }), "issuer"),
        (json!({ "workload": "github/shop" }), "issuer"),
        (json!({ "claims": { "repo": "x" } }), "revocable"),
        (json!({}), "empty filter"),
        (json!({ "claims": {} }), "empty filter"),
    ] {
        let answer = post(&world, &json!({ "filter": filter })).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (422, &json!("E-INVALID")), "{filter}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(told), "{filter}: {detail}");
    }
    assert!(world.active(&token(&shop)).await && blocks(&world).await.is_empty());
}

#[tokio::test]
async fn leases_of_a_target_end_and_their_tasks_live_on() {
    let mut world = World::on_file();
    let shop = world.try_open(&Job::shop(), ask_on("ship", Some(SHOP_URI), None)).await.unwrap();
    let stock = world.feed_ask(&handle(&shop), None, ask_on("", Some(STOCK_URI), None)).await.unwrap();
    let ended = end(&world, by(r#"target == "stock""#)).await.unwrap();
    assert_eq!((ended.leases, ended.tasks), (1, 0));
    assert_eq!(
        (ended.channels[0].channel, ended.channels[0].known),
        (Channel::Expiry, false),
        "nobody tells that server"
    );
    for when in ["before", "after", "restarted"] {
        assert!(!world.active(&token(&stock)).await && world.active(&token(&shop)).await, "{when}");
        assert!(world.feed_ask(&handle(&shop), None, ask_on("", Some(SHOP_URI), None)).await.is_ok(), "{when}");
        let refused = world.feed_ask(&handle(&shop), None, ask_on("", Some(STOCK_URI), None)).await;
        assert_eq!(reason(refused), Reason::Blocked, "{when}");
        let refused = world.try_open(&Job::shop(), ask_on("ship", Some(STOCK_URI), None)).await;
        assert_eq!(reason(refused), Reason::Blocked, "{when}");
        let view = world.flow.task(&OPERATOR, shop.task).await.unwrap();
        assert_eq!((view.state, view.leases_ended), (State::Active, 1), "{when}");
        match when {
            "before" => caught_up(&world).await,
            _ => world.restart().await,
        }
        clean(&world);
    }
}

#[tokio::test]
async fn each_name_means_what_it_says() {
    let bundle = BUNDLE.replace(
        "sub   = { at = \"/sub\", type = \"string\", required = true }",
        "sub   = { at = \"/sub\", type = \"string\", required = true, revocable = true }",
    );
    for (selector, meant) in [
        (r#"job == "shop/1""#, vec![0]),
        (r#"workload == "ci/shop""#, vec![0, 1, 2]),
        (r#"issuer == "ci""#, vec![0, 1, 2, 3]),
        (r#"template == "pair""#, vec![2]),
        (r#"row == "shop-deploys""#, vec![0, 1]),
        (r#"sub == "pay""#, vec![3]),
        (r#"sub == "pay" && owner == "team-shop""#, vec![]),
        (r#"target == "pay""#, vec![3]),
    ] {
        let mut world = World::of(&bundle);
        let issued: Vec<Issued> = vec![
            world.open(&Job::shop().run("1"), "deploy").await,
            world.open(&Job::shop().run("2"), "deploy").await,
            world.open(&Job::shop().run("2"), "pair").await,
            world.open(&Job::pay(), "pay").await,
        ];
        let ended = end(&world, by(selector)).await.unwrap_or_else(|refused| panic!("{selector}: {refused:?}"));
        assert_eq!(ended.leases, meant.len() as u64, "{selector}");
        for (number, one) in issued.iter().enumerate() {
            assert_eq!(world.active(&token(one)).await, !meant.contains(&number), "{selector}: {number}");
        }
        let again = [
            world.try_open(&Job::shop().run("1"), ask("deploy")).await.is_ok(),
            world.try_open(&Job::shop().run("2"), ask("deploy")).await.is_ok(),
            world.try_open(&Job::shop().run("2"), ask("pair")).await.is_ok(),
            world.try_open(&Job::pay(), ask("pay")).await.is_ok(),
        ];
        for (number, may) in again.into_iter().enumerate() {
            assert_eq!(may, !meant.contains(&number), "{selector}: {number} anew");
        }
        caught_up(&world).await;
        clean(&world);
    }
}

/// A workload without a label is one job for the block of a task's end; for a selector it is all that the
/// workload does.
#[tokio::test]
async fn a_block_on_a_workload_means_its_jobs_too() {
    let mut world = World::new();
    end(&world, by(r#"workload == "ci/shop" && template == "deploy""#)).await.unwrap();
    assert_eq!(reason(world.try_open(&Job::shop(), ask("deploy")).await), Reason::Blocked);
    assert_eq!(reason(world.try_open(&Job::shop().run("1"), ask("deploy")).await), Reason::Blocked);
    assert!(world.try_open(&Job::shop().run("1"), ask("pair")).await.is_ok());
}

/// The bundle says anew what may be ended by: what was opened before is found by it too, and what was
/// ended by it stays ended when it no longer does.
#[tokio::test]
async fn a_claim_that_becomes_revocable_ends_what_was_opened_before() {
    let mut world = World::on_file();
    let shop = world.open(&Job::shop(), "deploy").await;
    assert_eq!(reason(end(&world, by(r#"org == "acme""#)).await), Reason::Invalid);
    let (fixed, revocable) = (
        "org   = { at = \"/org\", type = \"string\", required = true }",
        "org   = { at = \"/org\", type = \"string\", required = true, revocable = true }",
    );
    world.bundle.edit(fixed, revocable);
    world.flow.load_bundle("test").await.unwrap();
    assert_eq!(end(&world, by(r#"org == "acme""#)).await.unwrap().leases, 1);
    assert!(!world.active(&token(&shop)).await);
    world.bundle.edit(revocable, fixed);
    world.flow.load_bundle("test").await.unwrap();
    assert!(!world.active(&token(&shop)).await);
    world.restart().await;
    assert!(!world.active(&token(&shop)).await, "a_claim_that_is_no_longer_revocable_revives_nothing");
    assert_eq!(reason(world.try_open(&Job::pay(), ask("pay")).await), Reason::Blocked);
    clean(&world);
}

#[tokio::test]
async fn a_token_ends_by_selector_within_its_owner_and_no_further() {
    let mut world = World::new();
    let watch = world.open(&Job::shop().run("9"), "watch").await;
    let (shop, pay) = (world.open(&Job::shop().run("1"), "deploy").await, world.open(&Job::pay(), "pay").await);
    let caller = world.caller(&token(&watch)).await;
    for beyond in [
        r#"owner == "team-pay""#,
        r#"issuer == "ci""#,
        r#"workload == "ci/pay""#,
        r#"job == "shop/1""#,
        r#"template == "deploy""#,
    ] {
        let refused = world.flow.end_by_selector(&caller, by(beyond)).await;
        assert_eq!(refused.unwrap_err().reason, Reason::Scope, "{beyond}");
    }
    assert!(world.active(&token(&shop)).await && world.active(&token(&pay)).await && blocks(&world).await.is_empty());
    let asked = by(r#"owner == "team-shop" && job == "shop/1""#);
    let EndedBySelector::Ended(ended) = world.flow.end_by_selector(&caller, asked).await.unwrap() else {
        panic!("not ended")
    };
    assert_eq!(ended.leases, 1);
    assert!(!world.active(&token(&shop)).await && world.active(&token(&pay)).await);
    let mine = world.caller(&handle(&watch)).await;
    assert_eq!(
        world.flow.end_by_selector(&mine, by(r#"owner == "team-shop""#)).await.unwrap_err().reason,
        Reason::Scope
    );
    let glance = world.open(&Job::shop().run("9"), "glance").await;
    let glance = world.caller(&token(&glance)).await;
    assert_eq!(
        world.flow.end_by_selector(&glance, by(r#"owner == "team-shop""#)).await.unwrap_err().reason,
        Reason::Scope
    );
    assert_eq!(world.flow.lift_block(&caller, ended.block.unwrap()).await.unwrap_err().reason, Reason::Scope);
}

/// Whoever floods with ends that mean nothing keeps neither an operator nor a taint from ending.
#[tokio::test]
async fn ends_over_the_network_leave_room_for_the_operators() {
    let mut world = World::new();
    let watch = world.open(&Job::shop().run("9"), "watch").await;
    let caller = world.caller(&token(&watch)).await;
    let mut refused = None;
    for number in 0..TOMBS_MAX {
        let asked = by(&format!(r#"owner == "team-shop" && job == "shop/{number}00""#));
        if let Err(error) = world.flow.end_by_selector(&caller, EndBySelector { block: false, ..asked }).await {
            refused = Some((number, error.reason));
            break;
        }
    }
    assert_eq!(refused, Some((TOMBS_MAX / 2, Reason::Busy)));
    assert!(end(&world, by(r#"owner == "team-pay""#)).await.is_ok());
}

/// A forbid keeps one row out of reach: then nothing ends.
#[tokio::test]
async fn whoever_does_not_reach_all_that_is_meant_ends_nothing() {
    const FORBID: &str = r#"@id("not-pay") @purpose("payments are ended by hand")
        forbid (principal, action == Dayfly::Action::"leases:end", resource) when { resource.template == "pay" };"#;
    let mut world = World::with_cedar(BUNDLE, FORBID, &[]);
    let (shop, pay) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::pay(), "pay").await);
    assert_eq!(reason(end(&world, by(r#"issuer == "ci""#)).await), Reason::Scope);
    assert!(world.active(&token(&shop)).await && world.active(&token(&pay)).await && blocks(&world).await.is_empty());
    assert_eq!(end(&world, by(r#"owner == "team-shop""#)).await.unwrap().leases, 1);
}

#[tokio::test]
async fn an_end_of_very_much_is_one_a_minute() {
    let mut world = World::new();
    for run in 0..21 {
        world.open(&Job::shop().run(&run.to_string()), "deploy").await;
        world.open(&Job::shop().run(&run.to_string()), "pair").await;
    }
    assert_eq!(end(&world, by(r#"template == "deploy""#)).await.unwrap().leases, 21);
    world.pass_s(20);
    let again = not_ended(&world, by(r#"template == "pair""#)).await;
    assert_eq!(again, NotEnded::TooSoon { retry_after_s: 41 });
    let answer = post(&world, &json!({ "filter": { "template": "pair" } })).await;
    assert_eq!((answer.status, answer.head("retry-after"), &answer.json()["reason"]), (429, "41", &json!("E-MASS")));
    assert_eq!(end(&world, by(r#"template == "deploy""#)).await.unwrap().leases, 21, "the same again is no second one");
    assert_eq!(end(&world, by(r#"job == "shop/3""#)).await.unwrap().leases, 1, "a small one waits for nobody");
    world.pass_s(41);
    assert_eq!(end(&world, by(r#"template == "pair""#)).await.unwrap().leases, 20);
}

#[tokio::test]
async fn a_block_that_nobody_wrote_is_not_found() {
    let world = World::new();
    for id in [BlockId::from_u128(0).to_string(), "root".into(), LeaseId::from_u128(1).to_string()] {
        let answer = world.call(local(delete(&format!("/v1/blocks/{id}"), None))).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (404, &json!("E-NOT-FOUND")), "{id}");
    }
}

/// The block of a task's end is listed and lifted like any other.
#[tokio::test]
async fn the_block_of_a_task_is_lifted_too() {
    let mut world = World::on_file();
    let job = Job::shop().run("1");
    let issued = world.open(&job, "deploy").await;
    world.revoke(issued.task, None).await.unwrap();
    assert_eq!(reason(world.try_open(&job, ask("deploy")).await), Reason::Blocked);
    let listed = blocks(&world).await;
    assert_eq!((listed.len(), &listed[0]["until"]), (1, &json!(issued.deadline.to_string())));
    assert_eq!(listed[0]["where"], r#"job == "shop/1" && issuer == "ci" && template == "deploy""#);
    let id: BlockId = listed[0]["id"].as_str().unwrap().parse().unwrap();
    let (one, two) = tokio::join!(world.flow.lift_block(&OPERATOR, id), world.flow.lift_block(&OPERATOR, id));
    assert!(one.is_ok() != two.is_ok(), "one of the two lifts it");
    assert!(world.try_open(&job, ask("deploy")).await.is_ok() && !world.active(&token(&issued)).await);
    clean(&world);
    world.restart().await;
    assert!(world.try_open(&job, ask("deploy")).await.is_ok());
}
