//! Ends by selector on the record: over a broken store, over clocks that jump, over restarts, beside
//! exchanges, and against the rows.

use dayfly::flow::{EndBySelector, Exchange, Subject};
use dayfly_domain::{Cause, Reason, State};
use serde_json::json;

use crate::{
    mass::{by, caught_up, clean, end, kinds, post, states},
    world::{Job, OPERATOR, START, World, ask, handle, reason, secret, token},
};

const BREAK: &str = "ALTER TABLE event RENAME TO event_gone";
const MEND: &str = "ALTER TABLE event_gone RENAME TO event";

/// Law L6: in force at once, said to be so, and on the record as soon as there is one.
#[tokio::test]
async fn an_end_by_selector_over_a_broken_store_is_in_force_and_is_written_later() {
    let mut world = World::on_file();
    let (shop, pay) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::pay(), "pay").await);
    world.sql(BREAK);
    for _ in 0..2 {
        let answer = post(&world, &json!({ "filter": { "owner": "team-shop" } })).await;
        let problem = answer.json();
        assert_eq!(
            (answer.status, &problem["reason"], &problem["effective"]),
            (503, &json!("E-NOT-DURABLE"), &json!(true))
        );
    }
    assert!(!world.active(&token(&shop)).await && world.active(&token(&pay)).await);
    assert_eq!(reason(world.end(&handle(&shop), shop.task).await), Reason::NotDurable, "by any door");
    assert_eq!(states(&world, "tasks?owner=team-shop").await, [("ended".to_owned(), "revoked".to_owned())]);
    world.sql(MEND);
    let ended = end(&world, by(r#"owner == "team-shop""#)).await.unwrap();
    assert_eq!((ended.leases, ended.tasks, ended.ended_at), (1, 1, Some(START)));
    assert_eq!(reason(world.try_open(&Job::shop(), ask("deploy")).await), Reason::Blocked);
    assert_eq!(kinds(&world).await.iter().filter(|kind| *kind == "tombstone").count(), 1);
    world.restart().await;
    assert!(!world.active(&token(&shop)).await);
    caught_up(&world).await;
    clean(&world);
}

/// What is over with its task has no end of its own, and none is missed.
#[tokio::test]
async fn the_leases_of_a_task_that_had_ended_are_not_said_to_live_on() {
    let mut world = World::on_file();
    let (done, lives) = (world.open(&Job::shop().run("1"), "deploy").await, world.open(&Job::shop(), "deploy").await);
    world.end(&handle(&done), done.task).await.unwrap();
    end(&world, EndBySelector { block: false, ..by(r#"target == "shop""#) }).await.unwrap();
    caught_up(&world).await;
    assert!(!world.active(&token(&lives)).await);
    clean(&world);
    world.restart().await;
    clean(&world);
}

/// A stop tries the ends by selector once more, as it does every end.
#[tokio::test]
async fn a_stop_writes_the_end_by_selector_that_could_not_be_written_before() {
    let mut world = World::on_file();
    let shop = world.open(&Job::shop(), "deploy").await;
    world.sql(BREAK);
    assert_eq!(reason(end(&world, by(r#"owner == "team-shop""#)).await), Reason::NotDurable);
    world.sql(MEND);
    world.restart().await;
    assert!(!world.active(&token(&shop)).await);
    clean(&world);
}

#[tokio::test]
async fn t_102_the_order_of_the_ledger_decides_and_no_clock() {
    let mut world = World::on_file();
    let before = world.open(&Job::shop(), "deploy").await;
    let free = EndBySelector { block: false, ..by(r#"owner == "team-shop""#) };
    assert_eq!(end(&world, free.clone()).await.unwrap().leases, 1);
    // In the same millisecond: it comes after, so it lives.
    let after = world.open(&Job::shop(), "deploy").await;
    assert!(!world.active(&token(&before)).await && world.active(&token(&after)).await);
    // The wall runs ahead and is set back: what was issued in its future ends with the rest.
    world.clock.step_wall_ms(4_000);
    let ahead = world.open(&Job::shop(), "pair").await;
    world.clock.step_wall_ms(-4_000);
    assert_eq!(end(&world, free).await.unwrap().leases, 2);
    for gone in [&before, &after, &ahead] {
        assert!(!world.active(&token(gone)).await);
    }
    let fresh = world.open(&Job::shop(), "pair").await;
    caught_up(&world).await;
    world.restart().await;
    assert!(world.active(&token(&fresh)).await && !world.active(&token(&ahead)).await);
    clean(&world);
}

/// The clock jumps while the end is asked, and back again: it is kept, and revives nothing.
#[tokio::test]
async fn an_end_by_selector_while_the_clock_is_wrong_is_kept() {
    for jump_ms in [3_600_000, -3_600_000] {
        let mut world = World::on_file();
        let shop = world.open(&Job::shop(), "deploy").await;
        world.clock.step_wall_ms(jump_ms);
        end(&world, by(r#"owner == "team-shop""#)).await.unwrap();
        caught_up(&world).await;
        world.clock.step_wall_ms(-jump_ms);
        world.restart().await;
        assert!(!world.active(&token(&shop)).await, "{jump_ms}");
        let view = world.flow.task(&OPERATOR, shop.task).await.unwrap();
        assert_eq!((view.state, view.cause), (State::Ended, Some(Cause::Revoked)), "{jump_ms}");
        clean(&world);
    }
}

/// Ended twice, over a broken store, with restarts in between: nothing is alive at any moment.
#[tokio::test]
async fn t_100_an_owner_that_is_ended_again_and_again_leaves_nothing_alive() {
    let mut world = World::on_file();
    let mut issued = Vec::new();
    for run in 0..10 {
        issued.push(world.open(&Job::shop().run(&run.to_string()), "deploy").await);
    }
    end(&world, by(r#"owner == "team-shop""#)).await.unwrap();
    for round in 0..4 {
        for one in &issued {
            assert!(!world.active(&token(one)).await, "{round}");
        }
        match round {
            0 => world.restart().await,
            1 => {
                world.sql(BREAK);
                world.upkeep.catch_up().await;
                assert!(end(&world, by(r#"owner == "team-shop""#)).await.is_err(), "its event cannot be read");
                world.sql(MEND);
            }
            2 => caught_up(&world).await,
            _ => {}
        }
    }
    assert!(states(&world, "leases?state=active").await.is_empty());
    assert_eq!(
        world
            .reader
            .snapshot(|rows| {
                let mut live = 0;
                rows.each_task(|task| live += u32::from(task.end.is_none())).unwrap();
                live
            })
            .unwrap(),
        0
    );
    clean(&world);
}

/// As after a kill: the tomb is on the record, no row is. From the first answer on all of it is dead.
#[tokio::test]
async fn t_103_the_first_answer_after_a_start_knows_every_end_by_selector() {
    let mut world = World::on_file();
    let mut issued = Vec::new();
    for run in 0..5 {
        issued.push(world.open(&Job::shop().run(&run.to_string()), "deploy").await);
    }
    end(&world, by(r#"owner == "team-shop""#)).await.unwrap();
    let rows = world.reader.snapshot(|rows| {
        let mut live = 0;
        rows.each_task(|task| live += u32::from(task.end.is_none())).unwrap();
        live
    });
    assert_eq!(rows.unwrap(), 5, "the rows are behind");
    world.restart().await;
    for one in &issued {
        assert!(!world.active(&token(one)).await);
        assert_eq!(reason(world.feed(&handle(one), None).await), Reason::Ended);
    }
    assert_eq!(reason(world.try_open(&Job::shop(), ask("deploy")).await), Reason::Blocked);
    caught_up(&world).await;
    clean(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_end_by_selector_beside_exchanges_leaves_nothing_alive() {
    for block in [true, false] {
        let mut world = World::on_file();
        let issued = world.open(&Job::shop(), "deploy").await;
        let mut asking = Vec::new();
        for number in 0..30 {
            let subject = match number % 3 {
                0 => Subject::Handle { handle: secret(&handle(&issued)), supersede_s: None },
                _ => Subject::Evidence { token: secret(&world.evidence(&Job::shop())), control_s256: None },
            };
            let template = if number % 3 == 0 { "" } else { "deploy" };
            let (flow, exchange) =
                (world.flow.clone(), Exchange { subject, ask: ask(template), possession: None, csr: None });
            asking.push(tokio::spawn(async move {
                flow.exchange(exchange).await.map(|issued| (token(&issued), issued.point.seq))
            }));
        }
        let ended = end(&world, EndBySelector { block, ..by(r#"owner == "team-shop""#) }).await.unwrap();
        let seq = world.flow.event(&OPERATOR, ended.event.unwrap()).await.unwrap().seq;
        for asked in asking {
            match asked.await.unwrap() {
                Ok((token, at)) => assert_eq!(world.active(&token).await, at > seq && !block, "{at} {seq}"),
                Err(refused) => assert!(matches!(refused.reason, Reason::Ended | Reason::Blocked), "{refused:?}"),
            }
        }
        assert!(!world.active(&token(&issued)).await);
        caught_up(&world).await;
        clean(&world);
    }
}

/// What a bundle takes away stays ended when it gives it back, and what comes then lives.
#[tokio::test]
async fn what_a_bundle_gives_back_is_given_anew() {
    let mut world = World::on_file();
    let (shop, pay) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::pay(), "pay").await);
    world.bundle.edit("[owner.team-pay]", "[owner.team-pay]\ndisabled = true");
    assert_eq!(world.flow.load_bundle("test").await.unwrap().ended, 1);
    assert!(world.active(&token(&shop)).await && !world.active(&token(&pay)).await);
    world.bundle.edit("[owner.team-pay]\ndisabled = true", "[owner.team-pay]");
    world.flow.load_bundle("test").await.unwrap();
    let fresh = world.open(&Job::pay(), "pay").await;
    assert!(!world.active(&token(&pay)).await && world.active(&token(&fresh)).await);
    caught_up(&world).await;
    world.restart().await;
    assert!(!world.active(&token(&pay)).await && world.active(&token(&fresh)).await);
    assert_eq!(kinds(&world).await.iter().filter(|kind| *kind == "tombstone").count(), 1, "one for all of it");
    let view = world.flow.task(&OPERATOR, pay.task).await.unwrap();
    assert_eq!((view.cause, view.ended_by.as_deref()), (Some(Cause::Policy), Some("bundle")));
    clean(&world);
}

/// Rows that say something else than the tombs.
#[tokio::test]
async fn verify_finds_what_a_tomb_did_not_do() {
    for (tamper, told) in [
        ("UPDATE task SET end_at = NULL, end_cause = NULL, end_seq = NULL WHERE owner = 'team-shop'", "lives on"),
        ("UPDATE task SET end_cause = 'completed' WHERE owner = 'team-shop'", "did not end it so"),
        (
            "UPDATE task SET end_at = (SELECT at FROM tomb), end_cause = 'revoked', end_seq = (SELECT seq FROM tomb) WHERE owner = 'team-pay'",
            "did not end it so",
        ),
        ("UPDATE tomb SET selector = 'owner == \"team-pay\"'", "does not match its event"),
        ("DELETE FROM tomb", "is gone"),
        ("DELETE FROM block", "the block that it records is gone"),
        ("UPDATE block SET selector = 'owner == \"team-pay\"'", "wrote it so"),
    ] {
        let mut world = World::on_file();
        world.open(&Job::shop(), "deploy").await;
        world.open(&Job::pay(), "pay").await;
        end(&world, by(r#"owner == "team-shop""#)).await.unwrap();
        caught_up(&world).await;
        clean(&world);
        world.sql(tamper);
        let report = world.verify();
        assert!(report.problems.iter().any(|problem| problem.contains(told)), "{tamper}: {report:?}");
    }
}
