//! Renewal: a further credential, and when the earlier ones end.

use dayfly::flow::Issued;
use dayfly_domain::{Cause, State};

use crate::world::{
    Job, OPERATOR, SHOP_URI, START, STOCK_URI, World, ask, ask_on, client_handle, handle, lease, reason, token,
};

async fn state(world: &World, issued: &Issued) -> (State, Option<Cause>) {
    let view = world.flow.lease(&OPERATOR, lease(issued)).await.unwrap();
    (view.state, view.cause)
}

#[tokio::test]
async fn a_superseded_lease_lives_on_for_its_overlap_and_ends_without_a_write() {
    let mut world = World::new();
    let first = world.open(&Job::shop(), "deploy").await;
    world.pass_s(60);
    let second = world.feed(&handle(&first), Some(30)).await.unwrap();
    let events = world.verify().events;
    world.pass_s(29);
    assert!(world.active(&token(&first)).await && world.active(&token(&second)).await);
    assert_eq!(state(&world, &first).await, (State::Active, None));
    world.pass_s(1);
    assert!(!world.active(&token(&first)).await && world.active(&token(&second)).await);
    assert_eq!(state(&world, &first).await, (State::Ended, Some(Cause::Superseded)));
    let view = world.flow.lease(&OPERATOR, lease(&first)).await.unwrap();
    assert_eq!(view.ended_at, Some(START.plus_s(90)));
    let report = world.verify();
    assert_eq!((report.events, report.problems), (events, vec![]));
}

#[tokio::test]
async fn supersede_0_ends_the_earlier_ones_at_once() {
    let mut world = World::new();
    let first = world.open(&Job::shop(), "deploy").await;
    let second = world.feed(&handle(&first), None).await.unwrap();
    assert!(world.active(&token(&first)).await, "absent keeps them");
    let third = world.feed(&handle(&first), Some(0)).await.unwrap();
    assert!(!world.active(&token(&first)).await && !world.active(&token(&second)).await);
    assert!(world.active(&token(&third)).await);
}

#[tokio::test]
async fn only_earlier_leases_of_the_same_target_are_superseded() {
    let mut world = World::new();
    let shop = world.try_open(&Job::shop(), ask_on("ship", Some(SHOP_URI), None)).await.unwrap();
    let other = world.try_open(&Job::shop(), ask_on("ship", Some(SHOP_URI), None)).await.unwrap();
    world.feed_ask(&handle(&shop), Some(0), ask_on("", Some(STOCK_URI), None)).await.unwrap();
    assert!(world.active(&token(&shop)).await);
    world.feed_ask(&handle(&shop), Some(0), ask_on("", Some(SHOP_URI), None)).await.unwrap();
    assert!(!world.active(&token(&shop)).await && world.active(&token(&other)).await, "never another task's");
}

#[tokio::test]
async fn one_that_expires_before_its_overlap_is_over_just_expires() {
    let mut world = World::new();
    let mut short = ask("deploy");
    short.ttl_s = Some(20);
    let first = world.try_open(&Job::shop(), short).await.unwrap();
    let fed = world.feed(&handle(&first), Some(30)).await.unwrap();
    world.pass_s(20);
    assert_eq!(state(&world, &first).await, (State::Expired, None));
    world.pass_s(20);
    assert_eq!(state(&world, &first).await, (State::Expired, None));
    assert!(world.active(&token(&fed)).await && world.verify().problems.is_empty());
}

#[tokio::test]
async fn an_overlap_that_was_promised_is_not_stretched_by_the_next_renewal() {
    let mut world = World::new();
    let first = world.open(&Job::shop(), "deploy").await;
    world.feed(&handle(&first), Some(10)).await.unwrap();
    world.feed(&handle(&first), Some(60)).await.unwrap();
    world.pass_s(10);
    assert!(!world.active(&token(&first)).await);
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn a_superseded_lease_can_still_be_ended_at_once() {
    let mut world = World::on_file();
    let first = world.open(&Job::shop(), "deploy").await;
    world.feed(&handle(&first), Some(60)).await.unwrap();
    let ended = world.flow.end_lease(&OPERATOR, lease(&first), None).await.unwrap();
    assert_eq!((ended.state, ended.cause, ended.ended_at), (State::Ended, Some(Cause::Revoked), Some(START)));
    assert!(!world.active(&token(&first)).await);
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
    world.restart().await;
    assert!(!world.active(&token(&first)).await, "ended never revives");
    assert_eq!(state(&world, &first).await, (State::Ended, Some(Cause::Revoked)));
}

/// The end of the task is the end of the lease; a supersede that lay ahead changes nothing later.
#[tokio::test]
async fn how_a_lease_ended_does_not_change_when_its_supersede_comes_due() {
    let mut world = World::on_file();
    let first = world.open(&Job::shop(), "deploy").await;
    world.feed(&handle(&first), Some(30)).await.unwrap();
    world.pass_s(5);
    world.end(&handle(&first), first.task).await.unwrap();
    let before = world.flow.lease(&OPERATOR, lease(&first)).await.unwrap();
    world.pass_s(60);
    let after = world.flow.lease(&OPERATOR, lease(&first)).await.unwrap();
    assert_eq!((before.cause, before.ended_at), (Some(Cause::Completed), Some(START.plus_s(5))));
    assert_eq!((after.cause, after.ended_at), (before.cause, before.ended_at));
    world.restart().await;
    let kept = world.flow.lease(&OPERATOR, lease(&first)).await.unwrap();
    assert_eq!((kept.cause, kept.ended_at), (before.cause, before.ended_at));
    world.pass_s(3600);
    world.upkeep.each_second();
    let forgotten = world.flow.lease(&OPERATOR, lease(&first)).await.unwrap();
    assert_eq!((forgotten.cause, forgotten.ended_at), (before.cause, before.ended_at));
}

#[tokio::test]
async fn a_lost_answer_is_found_again_by_the_handle() {
    let mut world = World::new();
    let (handle, hash) = client_handle(5);
    assert_eq!(reason(world.feed(&handle, Some(0)).await), dayfly_domain::Reason::Handle, "nothing was committed");
    let evidence = world.evidence(&Job::shop());
    let unseen = world.present_with(&evidence, Some(hash), ask("deploy")).await.unwrap();
    let replay = world.present_with(&evidence, Some(hash), ask("deploy")).await;
    assert_eq!(reason(replay), dayfly_domain::Reason::Replayed);
    let found = world.feed(&handle, Some(0)).await.unwrap();
    assert_eq!(found.task, unseen.task);
    assert!(world.active(&token(&found)).await && !world.active(&token(&unseen)).await);
}

#[tokio::test]
async fn a_renewal_is_decided_anew_under_the_current_bundle() {
    let mut world = World::new();
    let first = world.open(&Job::shop(), "deploy").await;
    world.bundle.edit(
        "grants    = { shop = [\"deploy:create\", \"deploy:status\"] }",
        "grants    = { shop = [\"deploy:status\"] }",
    );
    world.flow.load_bundle("test").await.unwrap();
    let second = world.feed(&handle(&first), Some(30)).await.unwrap();
    assert_eq!(second.credential.unwrap().actions, ["deploy:status"]);
    let more = ask_on("", None, Some(&["deploy:create"]));
    assert_eq!(reason(world.feed_ask(&handle(&first), None, more).await), dayfly_domain::Reason::Details);
}
