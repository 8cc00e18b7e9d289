//! Laws L10 and L11 under clocks that lie.

use dayfly_domain::{Reason, State};

use crate::world::{Job, OPERATOR, START, World, ask, handle, lease, reason, secret, token};

#[tokio::test]
async fn t_096_a_jump_ahead_issues_nothing_and_what_expired_stays_expired() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.clock.step_wall_ms(1_000_000);
    assert_eq!(reason(world.feed(&handle(&issued), None).await), Reason::Clock);
    let evidence = world.evidence(&Job::shop());
    assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Clock);
    assert!(world.flow.readiness().unwrap_err()[0].starts_with("clock_unsafe"));
    assert!(!world.active(&token(&issued)).await, "expired under either clock is expired");
    world.clock.step_wall_ms(-1_000_000);
    world.pass_s(1);
    assert_eq!(world.flow.readiness(), Ok(()));
    assert!(!world.active(&token(&issued)).await, "a jump revives nothing");
    let fed = world.feed(&handle(&issued), None).await.unwrap();
    assert!(world.active(&token(&fed)).await, "issuing again once the clocks agree");
}

#[tokio::test]
async fn what_is_issued_after_the_clocks_agreed_again_outlives_a_small_disagreement() {
    let mut world = World::new();
    let before = world.open(&Job::shop().run("1"), "deploy").await;
    world.clock.step_wall_ms(3_600_000);
    assert!(!world.active(&token(&before)).await);
    world.clock.step_wall_ms(-3_600_000);
    world.pass_s(1);
    let after = world.open(&Job::shop().run("2"), "deploy").await;
    for step_ms in [10_000, -3_600_000] {
        world.clock.step_wall_ms(step_ms);
        assert!(world.active(&token(&after)).await, "{step_ms} ms");
        assert!(!world.active(&token(&before)).await, "a jump revives nothing");
        world.clock.step_wall_ms(-step_ms);
        world.pass_s(1);
    }
    assert_eq!(world.flow.readiness(), Ok(()));
    assert!(world.active(&token(&after)).await);
}

#[tokio::test]
async fn t_096_a_jump_back_revives_nothing() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.pass_s(900);
    assert!(!world.active(&token(&issued)).await);
    world.clock.step_wall_ms(-600_000);
    assert!(!world.active(&token(&issued)).await);
    assert_eq!(reason(world.feed(&handle(&issued), None).await), Reason::Clock);
    world.clock.step_wall_ms(600_000);
    assert!(world.feed(&handle(&issued), None).await.is_ok());
    assert!(!world.active(&token(&issued)).await);
}

#[tokio::test]
async fn ends_are_taken_while_the_clock_is_wrong() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.clock.step_wall_ms(-60_000);
    assert_eq!(world.end(&handle(&issued), issued.task).await.unwrap().state, State::Ended);
    assert!(!world.active(&token(&issued)).await);
}

/// An expiry by a wrong clock is forgotten at a restart; an end that somebody asked for is not.
#[tokio::test]
async fn an_end_while_the_clock_is_wrong_is_kept() {
    let mut world = World::on_file();
    let (by_task, by_lease, by_hand) = (
        world.open(&Job::shop().run("1"), "deploy").await,
        world.open(&Job::shop().run("2"), "deploy").await,
        world.open(&Job::shop().run("3"), "deploy").await,
    );
    world.clock.step_wall_ms(86_400_000);
    assert_eq!(world.revoke(by_task.task, None).await.unwrap().state, State::Ended);
    assert_eq!(world.flow.end_lease(&OPERATOR, lease(&by_lease), None).await.unwrap().state, State::Ended);
    world.flow.revoke_presented(&secret(&token(&by_hand))).await.unwrap();
    world.clock.step_wall_ms(-86_400_000);
    world.restart().await;
    for issued in [&by_task, &by_lease, &by_hand] {
        assert!(!world.active(&token(issued)).await, "an acknowledged end is never lost");
    }
}

#[tokio::test]
async fn a_store_ahead_of_the_wall_waits_for_it() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.pass_s(600);
    let second = world.open(&Job::shop(), "deploy").await;
    world.stop().await;
    world.clock.step_wall_ms(-300_000);
    world.start_again().unwrap();
    let evidence = world.evidence(&Job::shop());
    assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Clock);
    assert!(world.flow.readiness().is_err());
    assert!(world.active(&token(&second)).await, "what lives by the store's time lives on");
    let view = world.flow.lease(&OPERATOR, lease(&issued)).await.unwrap();
    assert_eq!(view.row.expires, START.plus_s(900));
    world.pass_s(300);
    assert!(world.try_open(&Job::shop(), ask("deploy")).await.is_ok());
}

/// Nobody asks for anything for an hour: the time is on disk all the same.
#[tokio::test]
async fn what_expired_while_nothing_was_written_does_not_live_after_a_start_in_the_past() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.pass_s(1_000);
    world.upkeep.each_ten_seconds();
    world.stop().await;
    world.clock.step_wall_ms(-900_000);
    world.start_again().unwrap();
    assert!(!world.active(&token(&issued)).await, "it had expired, and no clock brings it back");
}

#[tokio::test]
async fn what_expired_before_a_restart_does_not_live_after_it() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.pass_s(901);
    world.open(&Job::shop(), "deploy").await;
    world.stop().await;
    world.clock.step_wall_ms(-800_000);
    world.start_again().unwrap();
    assert!(!world.active(&token(&issued)).await, "the store's high water counts");
}
