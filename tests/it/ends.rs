//! Ends: by the handle, by an operator, by possession; what they block, and what lives on.

use dayfly_domain::{Cause, Channel, Reason, State, TaskId};

use crate::world::{Job, OPERATOR, START, World, ask, client_handle, handle, lease, reason, secret, token};

#[tokio::test]
async fn a_handle_ends_its_own_task_and_no_other() {
    let mut world = World::new();
    let job = Job::shop().run("1");
    let (mine, sibling) = (world.open(&job, "deploy").await, world.open(&job, "deploy").await);
    assert_eq!(reason(world.end(&handle(&mine), sibling.task).await), Reason::NotFound);
    assert_eq!(reason(world.end(&handle(&mine), TaskId::from_u128(7)).await), Reason::NotFound);
    let caller = world.caller(&handle(&mine)).await;
    assert_eq!(reason(world.flow.end_lease(&caller, lease(&sibling), None).await), Reason::NotFound);
    for block in [true, false] {
        let asked = world.flow.end_task(&caller, mine.task, None, Some(block)).await;
        assert_eq!(reason(asked), Reason::Scope, "blocks are an operator's");
    }
    assert!(world.active(&token(&sibling)).await && world.active(&token(&mine)).await);
}

#[tokio::test]
async fn ending_twice_gives_the_first_answer_whoever_asks() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.feed(&handle(&issued), None).await.unwrap();
    world.pass_s(5);
    let first = world.end(&handle(&issued), issued.task).await.unwrap();
    assert_eq!((first.cause, first.ended_at, first.leases_ended), (Some(Cause::Completed), Some(START.plus_s(5)), 2));
    assert_eq!((first.channels[0].channel, first.channels[0].known), (Channel::Introspection, true));
    assert_eq!(first.channels[0].worst_case_at, START.plus_s(45), "the server's cache and leeway");
    world.pass_s(5);
    assert_eq!(world.end(&handle(&issued), issued.task).await.unwrap(), first);
    assert_eq!(world.revoke(issued.task, None).await.unwrap(), first);
    world.restart().await;
    assert_eq!(world.end(&handle(&issued), issued.task).await.unwrap(), first);
    let report = world.verify();
    assert!(report.problems.is_empty(), "{report:?}");
}

#[tokio::test]
async fn a_job_that_ends_its_task_first_does_not_dodge_the_block() {
    let mut world = World::on_file();
    let job = Job::shop().run("1");
    let issued = world.open(&job, "deploy").await;
    let ended = world.end(&handle(&issued), issued.task).await.unwrap();
    world.open(&job, "deploy").await;
    assert_eq!(world.revoke(issued.task, Some(false)).await.unwrap(), ended, "the operator wants no block");
    world.open(&job, "deploy").await;
    assert_eq!(world.revoke(issued.task, None).await.unwrap(), ended);
    let evidence = world.evidence(&job);
    assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Blocked);
    world.restart().await;
    let evidence = world.evidence(&job);
    assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Blocked);
    let report = world.verify();
    assert!(report.problems.is_empty(), "{report:?}");
}

#[tokio::test]
async fn the_end_of_an_expired_task_is_answered_without_a_cause() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.pass_s(3600);
    for _ in 0..2 {
        let ended = world.end(&handle(&issued), issued.task).await.unwrap();
        assert_eq!((ended.state, ended.cause, ended.ended_at, ended.leases_ended), (State::Expired, None, None, 0));
        world.upkeep.each_second();
    }
    assert!(world.flow.task(&world.caller(&handle(&issued)).await, issued.task).await.is_ok());
}

#[tokio::test]
async fn a_lease_ends_alone() {
    let mut world = World::new();
    let first = world.open(&Job::shop().run("1"), "deploy").await;
    let second = world.feed(&handle(&first), None).await.unwrap();
    let caller = world.caller(&handle(&first)).await;
    let ended = world.flow.end_lease(&caller, lease(&first), Some("leaked".into())).await.unwrap();
    assert_eq!((ended.state, ended.cause, ended.leases_ended), (State::Ended, Some(Cause::Completed), 1));
    assert!(!world.active(&token(&first)).await && world.active(&token(&second)).await);
    assert!(world.feed(&handle(&first), None).await.is_ok(), "the task lives, and nothing is blocked");
    assert_eq!(world.flow.end_lease(&caller, lease(&first), None).await.unwrap(), ended);
    let view = world.flow.lease(&OPERATOR, lease(&first)).await.unwrap();
    assert_eq!((view.ended_by.as_deref(), view.reason.as_deref()), (Some("handle"), Some("leaked")));
}

#[tokio::test]
async fn whoever_holds_a_token_may_revoke_it_and_nothing_else() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    let second = world.feed(&handle(&issued), None).await.unwrap();
    let presented = secret(&token(&issued));
    for _ in 0..2 {
        world.flow.revoke_presented(&presented).await.unwrap();
    }
    assert!(!world.active(&token(&issued)).await && world.active(&token(&second)).await);
    let view = world.flow.lease(&OPERATOR, lease(&issued)).await.unwrap();
    assert_eq!(view.cause, Some(Cause::Presented));
    assert!(world.feed(&handle(&issued), None).await.is_ok());
    let mut forged = token(&second);
    forged.truncate(forged.len() - 2);
    for unknown in [forged.as_str(), "a.b.c", ""] {
        world.flow.revoke_presented(&secret(unknown)).await.unwrap();
    }
    assert!(world.active(&token(&second)).await, "an id is never a capability");
}

#[tokio::test]
async fn an_ended_job_stays_blocked() {
    let mut world = World::on_file();
    let job = Job::shop().run("1");
    let (mine, sibling) = (world.open(&job, "deploy").await, world.open(&job, "deploy").await);
    let other_template = world.open(&job, "pair").await;
    let ended = world.revoke(mine.task, None).await.unwrap();
    assert_eq!(ended.cause, Some(Cause::Revoked));
    for _ in 0..2 {
        assert_eq!(reason(world.try_open(&job, ask("deploy")).await), Reason::Blocked);
        assert_eq!(reason(world.feed(&handle(&sibling), None).await), Reason::Blocked);
        assert!(world.active(&token(&sibling)).await, "credentials already out live on");
        assert!(world.feed(&handle(&other_template), None).await.is_ok());
        assert!(world.try_open(&Job::shop().run("2"), ask("deploy")).await.is_ok(), "another job");
        world.restart().await;
    }
    world.pass_s(3599);
    assert_eq!(reason(world.try_open(&job, ask("deploy")).await), Reason::Blocked);
    world.pass_s(1);
    world.upkeep.each_second();
    assert!(world.try_open(&job, ask("deploy")).await.is_ok(), "the block ends with the task's deadline");
}

#[tokio::test]
async fn a_refused_blocked_job_keeps_its_evidence() {
    let mut world = World::new();
    let job = Job::shop().run("1");
    let mine = world.open(&job, "deploy").await;
    world.revoke(mine.task, None).await.unwrap();
    let evidence = world.evidence(&job);
    assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Blocked);
    assert!(world.present(&evidence, ask("pair")).await.is_ok());
}

#[tokio::test]
async fn an_operator_may_end_without_a_block() {
    let mut world = World::new();
    let job = Job::shop().run("1");
    let mine = world.open(&job, "deploy").await;
    world.revoke(mine.task, Some(false)).await.unwrap();
    assert!(world.try_open(&job, ask("deploy")).await.is_ok());
    let view = world.flow.task(&OPERATOR, mine.task).await.unwrap();
    assert_eq!((view.ended_by.as_deref(), view.reason.as_deref()), (Some("local:1000"), Some("an operator said so")));
}

#[tokio::test]
async fn without_a_job_label_the_block_is_on_the_workload() {
    let mut world = World::new();
    let mine = world.open(&Job::shop(), "deploy").await;
    world.revoke(mine.task, None).await.unwrap();
    assert_eq!(reason(world.try_open(&Job::shop(), ask("deploy")).await), Reason::Blocked);
    assert!(world.try_open(&Job::shop().run("1"), ask("deploy")).await.is_ok(), "a job of its own");
}

#[tokio::test]
async fn a_token_with_tasks_end_revokes_and_blocks() {
    let mut world = World::new();
    let watch = world.open(&Job::shop().run("9"), "watch").await;
    let mine = world.open(&Job::shop().run("1"), "deploy").await;
    let theirs = world.open(&Job::pay(), "pay").await;
    let caller = world.caller(&token(&watch)).await;
    let ended = world.flow.end_task(&caller, mine.task, None, None).await.unwrap();
    assert_eq!(ended.cause, Some(Cause::Revoked));
    assert_eq!(reason(world.try_open(&Job::shop().run("1"), ask("deploy")).await), Reason::Blocked);
    assert_eq!(reason(world.flow.end_task(&caller, theirs.task, None, None).await), Reason::NotFound);
    assert_eq!(reason(world.flow.end_lease(&caller, lease(&theirs), None).await), Reason::NotFound);
    let glance = world.open(&Job::shop().run("9"), "glance").await;
    let caller = world.caller(&token(&glance)).await;
    assert_eq!(reason(world.flow.end_task(&caller, mine.task, None, None).await), Reason::Scope);
    assert_eq!(reason(world.flow.introspect(&caller, &secret(&token(&mine))).await), Reason::Scope);
}

#[tokio::test]
async fn per_job_limits_live_tasks_of_one_template_in_one_job() {
    let mut world = World::on_file();
    let job = Job::shop().run("1");
    let (one, _two) = (world.open(&job, "pair").await, world.open(&job, "pair").await);
    let evidence = world.evidence(&job);
    assert_eq!(reason(world.present(&evidence, ask("pair")).await), Reason::PerJob);
    world.restart().await;
    assert_eq!(reason(world.present(&evidence, ask("pair")).await), Reason::PerJob);
    assert!(world.try_open(&job, ask("deploy")).await.is_ok(), "another template");
    assert!(world.try_open(&Job::shop().run("2"), ask("pair")).await.is_ok(), "another job");
    for _ in 0..4 {
        assert!(world.try_open(&Job::shop(), ask("pair")).await.is_ok(), "no label, no limit");
    }
    world.end(&handle(&one), one.task).await.unwrap();
    assert!(world.present(&evidence, ask("pair")).await.is_ok());
    assert_eq!(reason(world.try_open(&job, ask("pair")).await), Reason::PerJob);
    world.pass_s(900);
    assert!(world.try_open(&job, ask("pair")).await.is_ok(), "expired tasks do not count");
}

#[tokio::test]
async fn a_handle_of_an_ended_task_reads_and_ends_and_nothing_else() {
    let mut world = World::new();
    let (mine, hash) = client_handle(2);
    let evidence = world.evidence(&Job::shop());
    let issued = world.present_with(&evidence, Some(hash), ask("deploy")).await.unwrap();
    world.end(&mine, issued.task).await.unwrap();
    let caller = world.caller(&mine).await;
    assert_eq!(world.flow.task(&caller, issued.task).await.unwrap().state, State::Ended);
    assert!(world.end(&mine, issued.task).await.is_ok());
    assert_eq!(reason(world.feed(&mine, None).await), Reason::Ended);
    assert_eq!(reason(world.flow.introspect(&caller, &secret(&token(&issued))).await), Reason::Scope);
}
