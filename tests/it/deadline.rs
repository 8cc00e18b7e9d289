//! Law L11: expiry is a pure function of time; nothing is written for it.

use dayfly::flow::EventFilter;
use dayfly_domain::{Reason, State};

use crate::world::{Job, OPERATOR, World, ask, handle, lease, reason, token};

#[tokio::test]
async fn a_lease_and_its_task_expire_without_a_write() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    let events = world.verify().events;
    world.clock.advance_ms(899_999);
    assert!(world.active(&token(&issued)).await);
    world.clock.advance_ms(1);
    assert!(!world.active(&token(&issued)).await);
    assert_eq!(world.flow.lease(&OPERATOR, lease(&issued)).await.unwrap().state, State::Expired);
    assert_eq!(world.flow.task(&OPERATOR, issued.task).await.unwrap().state, State::Active);
    world.pass_s(2699);
    assert!(world.active(&token(&world.feed(&handle(&issued), None).await.unwrap())).await);
    world.pass_s(1);
    assert_eq!(world.flow.task(&OPERATOR, issued.task).await.unwrap().state, State::Expired);
    assert_eq!(reason(world.feed(&handle(&issued), None).await), Reason::Ended);
    assert_eq!(world.flow.live_tasks(), 0);
    let report = world.verify();
    assert_eq!((report.events, report.problems), (events + 1, vec![]), "one further credential, no expiry");
}

#[tokio::test]
async fn what_memory_forgot_is_still_read() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.end(&handle(&issued), issued.task).await.unwrap();
    world.pass_s(4000);
    world.upkeep.each_second();
    let task = world.flow.task(&OPERATOR, issued.task).await.unwrap();
    let lease = world.flow.lease(&OPERATOR, lease(&issued)).await.unwrap();
    assert_eq!((task.state, lease.state), (State::Ended, State::Ended));
    assert_eq!((task.leases_active, task.leases_ended), (0, 1));
    assert!(!world.active(&token(&issued)).await);
}

#[tokio::test]
async fn a_task_whose_leases_all_expired_counts_none() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.pass_s(900);
    let ended = world.end(&handle(&issued), issued.task).await.unwrap();
    assert_eq!((ended.state, ended.leases_ended), (State::Ended, 0));
    assert!(ended.channels.is_empty(), "plain expiry reaches no channel");
}

#[tokio::test]
async fn old_rows_are_dropped_and_their_events_stay() {
    let mut world = World::on_file();
    let evidence = world.evidence(&Job::shop());
    let old = world.present(&evidence, ask("deploy")).await.unwrap();
    world.pass_s(1800);
    world.upkeep.each_minute().await;
    assert!(world.flow.task(&OPERATOR, old.task).await.is_ok(), "not before its time");
    world.pass_s(25 * 3600);
    world.upkeep.each_second();
    world.upkeep.each_minute().await;
    let live = world.open(&Job::shop(), "deploy").await;
    assert_eq!(reason(world.flow.task(&OPERATOR, old.task).await), Reason::NotFound);
    assert_eq!(reason(world.feed(&handle(&old), None).await), Reason::Handle);
    assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Expired);
    let of_old = EventFilter { task: Some(old.task), ..EventFilter::default() };
    assert_eq!(world.flow.events(&OPERATOR, of_old, 50, None).await.unwrap().items.len(), 2);
    let report = world.verify();
    assert_eq!((report.tasks, report.problems), (1, vec![]));
    assert!(world.active(&token(&live)).await);
}

#[tokio::test]
async fn a_broker_that_just_started_drops_nothing() {
    let mut world = World::on_file();
    let old = world.open(&Job::shop(), "deploy").await;
    world.stop().await;
    world.pass_s(30 * 3600);
    world.start_again().unwrap();
    world.upkeep.each_minute().await;
    world.open(&Job::shop(), "deploy").await;
    assert!(world.flow.task(&OPERATOR, old.task).await.is_ok(), "its clock may be wrong");
}
