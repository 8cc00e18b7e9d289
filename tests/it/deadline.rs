//! Law L11: expiry is a pure function of time; nothing is written for it.

use dayfly_domain::{Reason, State};

use crate::world::{Job, OPERATOR, World, handle, lease, reason, token};

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
