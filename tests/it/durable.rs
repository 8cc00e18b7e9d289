//! Laws L1, L2 and L6: no record, no credential; an end counts at once and is retried until it is
//! on the record. The file is broken by another hand and mended again.

use dayfly_domain::{Cause, Reason, State};

use crate::world::{Job, OPERATOR, World, ask, handle, lease, reason, secret, token};

const BREAK: &str = "ALTER TABLE event RENAME TO event_gone";
const MEND: &str = "ALTER TABLE event_gone RENAME TO event";

#[tokio::test]
async fn without_a_writer_nothing_is_issued() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.stop().await;
    let evidence = world.evidence(&Job::shop());
    assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Store);
    assert_eq!(reason(world.feed(&handle(&issued), None).await), Reason::Store);
    let report = world.verify();
    assert_eq!((report.tasks, report.leases), (1, 1));
}

#[tokio::test]
async fn a_store_that_cannot_be_written_issues_nothing_and_says_so() {
    let mut world = World::on_file();
    world.sql(BREAK);
    let evidence = world.evidence(&Job::shop());
    assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Store);
    assert!(world.flow.readiness().unwrap_err()[0].starts_with("store: "));
    assert_eq!((world.flow.live_tasks(), world.reader.snapshot(|_| ()).is_ok()), (0, true));
    world.sql(MEND);
    let issued = world.present(&evidence, ask("deploy")).await.unwrap();
    assert!(world.active(&token(&issued)).await, "the evidence was not used up");
    assert_eq!(world.flow.readiness(), Ok(()));
    assert_eq!(world.verify().tasks, 1);
}

#[tokio::test]
async fn an_end_counts_at_once_and_is_written_when_the_store_is_back() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop().run("1"), "deploy").await;
    let other = world.open(&Job::shop().run("2"), "deploy").await;
    world.sql(BREAK);
    assert_eq!(reason(world.end(&handle(&issued), issued.task).await), Reason::NotDurable);
    assert!(!world.active(&token(&issued)).await, "ended in memory");
    assert_eq!(reason(world.flow.end_lease(&OPERATOR, lease(&other), None).await), Reason::NotDurable);
    assert!(!world.active(&token(&other)).await);
    world.sql(MEND);
    let again = world.end(&handle(&issued), issued.task).await.unwrap();
    assert_eq!((again.state, again.cause), (State::Ended, Some(Cause::Completed)));
    world.restart().await;
    assert!(!world.active(&token(&issued)).await && !world.active(&token(&other)).await);
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
}

/// 200 is said only when durable, by whichever door one asks for the same thing again.
#[tokio::test]
async fn an_end_that_is_not_durable_is_not_acknowledged_by_another_door() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.sql(BREAK);
    assert_eq!(reason(world.end(&handle(&issued), issued.task).await), Reason::NotDurable);
    let presented = secret(&token(&issued));
    assert_eq!(reason(world.flow.revoke_presented(&presented).await), Reason::NotDurable);
    assert_eq!(reason(world.flow.end_lease(&OPERATOR, lease(&issued), None).await), Reason::NotDurable);
    assert_eq!(reason(world.revoke(issued.task, None).await), Reason::NotDurable);
    world.sql(MEND);
    world
        .flow
        .revoke_presented(&presented)
        .await
        .unwrap_or_else(|refused| assert_eq!(refused.reason, Reason::NotDurable));
    world.restart().await;
    world.flow.revoke_presented(&presented).await.unwrap();
    assert!(!world.active(&token(&issued)).await);
}

#[tokio::test]
async fn readiness_tells_a_broken_store_from_a_request_that_cannot_be_kept() {
    let mut world = World::on_file();
    let (_, hash) = crate::world::client_handle(3);
    let evidence = world.evidence(&Job::shop());
    world.present_with(&evidence, Some(hash), ask("deploy")).await.unwrap();
    // Memory forgets the task, its row is kept: the hash is still taken.
    world.pass_s(3 * 3600);
    world.upkeep.each_second();
    let evidence = world.evidence(&Job::shop());
    assert_eq!(reason(world.present_with(&evidence, Some(hash), ask("deploy")).await), Reason::HandleUsed);
    assert_eq!(world.flow.readiness(), Ok(()));
}

/// What waits behind an end that cannot be written neither spins nor keeps the broker from stopping.
#[tokio::test]
async fn a_shutdown_over_a_broken_store_comes_to_an_end() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    let further = world.feed(&handle(&issued), None).await.unwrap();
    world.sql(BREAK);
    let (one, two) = tokio::join!(
        world.flow.end_lease(&OPERATOR, lease(&issued), None),
        world.flow.end_lease(&OPERATOR, lease(&further), None)
    );
    assert_eq!((reason(one), reason(two)), (Reason::NotDurable, Reason::NotDurable));
    world.stop().await;
    world.sql(MEND);
    assert!(world.verify().problems.is_empty());
}

/// Ends of several leases of one task are written one after the other, all of them.
#[tokio::test]
async fn ends_that_waited_are_all_written() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    let further = world.feed(&handle(&issued), None).await.unwrap();
    world.sql(BREAK);
    for one in [&issued, &further] {
        assert_eq!(reason(world.flow.end_lease(&OPERATOR, lease(one), None).await), Reason::NotDurable);
    }
    world.sql(MEND);
    for one in [&issued, &further] {
        assert_eq!(world.flow.end_lease(&OPERATOR, lease(one), None).await.unwrap().cause, Some(Cause::Revoked));
    }
    world.restart().await;
    assert!(!world.active(&token(&issued)).await && !world.active(&token(&further)).await);
    assert!(world.verify().problems.is_empty());
}

/// Nothing else is queued at the stop: the end that failed a moment ago is still tried again.
#[tokio::test]
async fn a_stop_writes_the_ends_that_could_not_be_written_before() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.sql(BREAK);
    assert_eq!(reason(world.end(&handle(&issued), issued.task).await), Reason::NotDurable);
    world.sql(MEND);
    world.restart().await;
    assert!(!world.active(&token(&issued)).await, "a restart forgot an end that was in force");
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
}
