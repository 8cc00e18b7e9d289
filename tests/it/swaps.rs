//! A bundle takes the place of another: as a whole, and what it no longer carries ends at once.

use dayfly::flow::{EventFilter, Exchange, Subject};
use dayfly_domain::{Cause, Reason, State};

use crate::world::{
    BUNDLE, Job, OPERATOR, SHOP_URI, STOCK_URI, World, ask, ask_on, handle, lease, reason, secret, token,
};

#[tokio::test]
async fn a_row_that_is_gone_ends_its_tasks() {
    let mut world = World::on_file();
    let (gone, kept) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::shop(), "pair").await);
    world.bundle.edit("shop-deploys", "shop-deploys-anew");
    let swapped = world.flow.load_bundle("local:0").await.unwrap();
    assert_eq!((swapped.ended, swapped.rollback, swapped.from != Some(swapped.to)), (1, false, true));
    assert!(!world.active(&token(&gone)).await && world.active(&token(&kept)).await);
    let task = world.flow.task(&OPERATOR, gone.task).await.unwrap();
    assert_eq!((task.state, task.cause), (State::Ended, Some(Cause::Policy)));
    assert_eq!(reason(world.feed(&handle(&gone), None).await), Reason::Ended);
    assert!(world.try_open(&Job::shop(), ask("deploy")).await.is_ok(), "an end by policy blocks nothing");
    world.restart().await;
    assert!(!world.active(&token(&gone)).await && world.verify().problems.is_empty());
}

#[tokio::test]
async fn what_is_disabled_is_gone() {
    for (head, ended, others) in [
        ("[issuer.ci]", true, true),
        ("[owner.team-pay]", true, false),
        ("[task.pay]", true, false),
        ("[[task.pay.allow]]", true, false),
        ("[[task.deploy.allow]]", false, true),
    ] {
        let mut world = World::new();
        let (pay, shop) = (world.open(&Job::pay(), "pay").await, world.open(&Job::shop(), "deploy").await);
        world.bundle.edit(head, &format!("{head}\ndisabled = true"));
        world.flow.load_bundle("test").await.unwrap();
        assert_eq!(world.active(&token(&pay)).await, !ended, "{head}");
        assert_eq!(world.active(&token(&shop)).await, !others, "{head}");
    }
}

#[tokio::test]
async fn a_target_that_is_gone_ends_its_leases_and_leaves_the_task() {
    let mut world = World::new();
    let shop = world.try_open(&Job::shop(), ask_on("ship", Some(SHOP_URI), None)).await.unwrap();
    let stock = [
        world.feed_ask(&handle(&shop), None, ask_on("", Some(STOCK_URI), None)).await.unwrap(),
        world.feed_ask(&handle(&shop), None, ask_on("", Some(STOCK_URI), None)).await.unwrap(),
    ];
    world.bundle.edit("[target.stock]", "[target.stock]\ndisabled = true");
    assert_eq!(world.flow.load_bundle("test").await.unwrap().ended, 2);
    for gone in &stock {
        assert!(!world.active(&token(gone)).await);
        assert_eq!(world.flow.lease(&OPERATOR, lease(gone)).await.unwrap().cause, Some(Cause::Policy));
    }
    assert!(world.active(&token(&shop)).await);
    assert!(world.feed_ask(&handle(&shop), None, ask_on("", Some(SHOP_URI), None)).await.is_ok());
    let refused = world.feed_ask(&handle(&shop), None, ask_on("", Some(STOCK_URI), None)).await;
    assert_eq!(reason(refused), Reason::Target);
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn a_bad_bundle_never_replaces_a_good_one() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    for bad in ["format = 1", "not toml", &BUNDLE.replace("owner   = \"team-shop\"", "owner = \"nobody\""), ""] {
        world.bundle.set(bad);
        world.flow.load_bundle("local:0").await.unwrap_err();
        assert!(world.flow.readiness().unwrap_err()[0].starts_with("bundle: "), "{bad}");
        assert!(world.active(&token(&issued)).await && world.feed(&handle(&issued), None).await.is_ok());
    }
    let broken_promise = format!(
        "{BUNDLE}\n[[test]]\nname = \"nobody deploys\"\nissuer = \"ci\"\ntask = \"deploy\"\nexpect = \"deny\"\n\
         claims = {{ sub = \"shop\", org = \"acme\", event = \"push\" }}\n"
    );
    world.bundle.set(&broken_promise);
    let refused = world.flow.load_bundle("local:0").await.unwrap_err().to_string();
    assert!(refused.contains("nobody deploys"), "{refused}");
    world.bundle.set(BUNDLE);
    world.flow.load_bundle("local:0").await.unwrap();
    assert_eq!(world.flow.readiness(), Ok(()));
    let events = world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items;
    assert_eq!(events.iter().filter(|event| event.body["outcome"] == "refused").count(), 5);
}

#[tokio::test]
async fn going_back_is_an_event_and_going_nowhere_is_none() {
    let world = World::new();
    let events = world.verify().events;
    assert_eq!(world.flow.load_bundle("test").await.unwrap().ended, 0);
    assert_eq!(world.verify().events, events, "the same bundle again is no swap");
    world.bundle.edit("release the shop", "release the whole shop");
    assert!(!world.flow.load_bundle("test").await.unwrap().rollback);
    world.bundle.set(BUNDLE);
    assert!(world.flow.load_bundle("test").await.unwrap().rollback);
    let all = world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items;
    let swaps: Vec<_> = all.iter().filter(|event| event.body["type"] == "bundle_swapped").collect();
    assert_eq!((swaps.len(), &swaps[0].body["rollback"]), (3, &true.into()));
    assert_eq!(swaps[0].body["previous_bundle"], swaps[1].body["bundle"]);
}

#[tokio::test]
async fn a_strict_broker_does_not_go_back() {
    let mut world = World::strict_on_file();
    world.bundle.edit("release the shop", "release the whole shop");
    let newer = world.flow.load_bundle("test").await.unwrap();
    world.bundle.set(BUNDLE);
    world.flow.load_bundle("test").await.unwrap_err();
    let issued = world.open(&Job::shop(), "deploy").await;
    assert_eq!(issued.credential.as_ref().unwrap().purpose, "release the whole shop");
    world.stop().await;
    assert!(world.start_again().is_err(), "nor at a start");
    world.bundle.edit("release the shop", "release the whole shop");
    world.start_again().unwrap();
    assert_eq!(world.flow.load_bundle("test").await.unwrap().to, newer.to);
    assert!(world.active(&token(&issued)).await);
}

#[tokio::test]
async fn a_start_under_another_bundle_is_a_swap() {
    let mut world = World::on_file();
    let (gone, kept) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::shop(), "pair").await);
    world.stop().await;
    world.bundle.edit("shop-deploys", "shop-deploys-anew");
    world.start_again().unwrap();
    let ended = world.flow.task(&OPERATOR, gone.task).await.unwrap();
    assert_eq!((ended.state, ended.cause), (State::Ended, Some(Cause::Policy)));
    assert!(!world.active(&token(&gone)).await && world.active(&token(&kept)).await);
    assert!(world.verify().problems.is_empty());
}

/// While bundles are swapped, nothing is committed that was decided under another than the one in
/// force: it is decided again, and refused the second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_credential_is_issued_under_the_bundle_in_force() {
    let mut world = World::new();
    let mut asking = Vec::new();
    for number in 0..120 {
        let (flow, evidence) = (world.flow.clone(), world.evidence(&Job::shop().run(&number.to_string())));
        asking.push(tokio::spawn(async move {
            let subject = Subject::Evidence { token: secret(&evidence), control_s256: None };
            match flow.exchange(Exchange { subject, ask: ask("deploy"), possession: None, csr: None }).await {
                Ok(_) => {}
                Err(refused) => assert!([Reason::Overtaken].contains(&refused.reason), "{refused:?}"),
            }
        }));
        if number % 10 == 0 {
            world.bundle.set(&BUNDLE.replace("release the shop", &format!("release the shop {number}")));
            world.flow.load_bundle("test").await.unwrap();
        }
    }
    for asked in asking {
        asked.await.unwrap();
    }
    let mut events = world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items;
    events.reverse();
    let (mut current, mut issued) = (None, 0);
    for event in &events {
        match event.body["type"].as_str().unwrap() {
            "bundle_swapped" => current = event.body.get("bundle").cloned(),
            "issued" => {
                assert_eq!(event.body.get("bundle"), current.as_ref());
                issued += 1;
            }
            _ => {}
        }
    }
    assert!(issued > 60 && world.verify().problems.is_empty(), "{issued}");
}

#[tokio::test]
async fn t_180_every_decision_names_the_bundle_it_was_made_under() {
    let mut world = World::new();
    let mut under = Vec::new();
    for _ in 0..2 {
        world.open(&Job::shop(), "deploy").await;
        world.try_open(&Job::shop(), ask("pay")).await.unwrap_err();
        world.bundle.edit("release the shop", "release the shop again");
        let swapped = world.flow.load_bundle("test").await.unwrap();
        under.push(swapped.from.unwrap().to_string());
    }
    let events = world.flow.events(&OPERATOR, EventFilter::default(), 50, None).await.unwrap().items;
    let of = |kind: &str| -> Vec<String> {
        let made = events.iter().rev().filter(|event| event.body["type"] == kind);
        made.map(|event| event.body["bundle"].as_str().unwrap().to_owned()).collect()
    };
    for kind in ["task_opened", "issued", "denied"] {
        assert_eq!(of(kind), under, "{kind}");
    }
    assert_ne!(under[0], under[1]);
}
