//! What the ledger proves: a mixed story verifies, and every hand that touches the file shows.

use dayfly::ledger::Report;
use dayfly_domain::UnixMs;

use crate::world::{Job, OPERATOR, SHOP_URI, START, World, ask, ask_on, handle, lease, secret, token, verify};

/// A bit of everything: opened, fed, renewed, ended in every way, refused, swapped, restarted.
async fn story() -> World {
    let mut world = World::on_file();
    let first = world.open(&Job::shop().run("1"), "deploy").await;
    world.feed(&handle(&first), Some(30)).await.unwrap();
    let second = world.open(&Job::shop().run("2"), "deploy").await;
    world.feed(&handle(&second), Some(60)).await.unwrap();
    world.flow.end_lease(&OPERATOR, lease(&second), None).await.unwrap();
    let third = world.open(&Job::shop().run("3"), "deploy").await;
    world.revoke(third.task, None).await.unwrap();
    let fourth = world.open(&Job::shop().run("4"), "deploy").await;
    world.flow.revoke_presented(&secret(&token(&fourth))).await.unwrap();
    world.try_open(&Job::shop(), ask("pay")).await.unwrap_err();
    let ship = world.try_open(&Job::shop(), ask_on("ship", Some(SHOP_URI), None)).await.unwrap();
    world.bundle.edit("shop-ships", "shop-ships-anew");
    world.flow.load_bundle("test").await.unwrap();
    assert!(!world.active(&token(&ship)).await);
    world.restart().await;
    world.open(&Job::pay(), "pay").await;
    world.pass_s(45);
    // Rows that the swap ended follow; the next look sees that none is left.
    for _ in 0..2 {
        world.upkeep.catch_up().await;
        world.open(&Job::pay(), "pay").await;
    }
    world
}

/// What is noticed after a hand was on the file.
async fn after(statement: &str) -> Report {
    let mut world = story().await;
    world.stop().await;
    world.sql(statement);
    verify(&world.reader, world.now())
}

#[tokio::test]
async fn a_mixed_story_verifies() {
    let world = story().await;
    let report = world.verify();
    assert_eq!((report.problems, report.more, report.erased), (vec![], 0, 0));
    assert_eq!((report.tasks, report.leases), (8, 10));
    assert_eq!(world.verify().root, report.root);
}

#[tokio::test]
async fn an_edit_of_an_event_is_noticed() {
    let body = "CAST(replace(CAST(body AS TEXT), 'deploy:create', 'deploy:status') AS BLOB)";
    for statement in [
        format!("UPDATE event SET body = {body} WHERE CAST(body AS TEXT) LIKE '%deploy:create%'"),
        "DELETE FROM event WHERE seq = 3".into(),
        "DELETE FROM event WHERE seq = (SELECT max(seq) FROM event)".into(),
        "UPDATE event SET at = at + 1 WHERE seq = 4".into(),
        "UPDATE event SET task = NULL WHERE seq = 3".into(),
        "UPDATE event SET leaf = zeroblob(32) WHERE seq = 2".into(),
        "UPDATE detail SET bytes = CAST('{}' AS BLOB) WHERE seq = 2".into(),
        "UPDATE detail SET salt = zeroblob(32) WHERE seq = 2".into(),
        "INSERT INTO detail VALUES (1, zeroblob(32), zeroblob(2))".into(),
        "UPDATE event SET seq = -1 WHERE seq = 2; UPDATE event SET seq = 2 WHERE seq = 3; UPDATE event SET seq = 3 WHERE seq = -1"
            .into(),
    ] {
        assert!(!after(&statement).await.problems.is_empty(), "{statement}");
    }
}

#[tokio::test]
async fn l10_a_revival_in_the_rows_is_noticed() {
    let null = "SET end_at = NULL, end_cause = NULL, end_seq = NULL";
    for statement in [
        format!("UPDATE task {null} WHERE end_cause = 'revoked'"),
        format!("UPDATE task {null} WHERE end_cause = 'policy'"),
        format!("UPDATE lease {null} WHERE end_cause = 'superseded'"),
        format!("UPDATE lease {null} WHERE end_cause = 'presented'"),
        "UPDATE lease SET end_at = end_at + 100000 WHERE end_cause = 'revoked'".into(),
        "UPDATE lease SET end_cause = 'completed' WHERE end_cause = 'revoked'".into(),
    ] {
        assert!(!after(&statement).await.problems.is_empty(), "{statement}");
    }
}

/// An end by hand took the place of a supersede that lay ahead; putting that back is a revival.
#[tokio::test]
async fn l10_an_end_put_off_to_its_supersede_is_noticed() {
    let earlier = "SELECT seq FROM event WHERE event.lease = lease.id AND CAST(body AS TEXT) LIKE '%superseded%'";
    let statement = format!(
        "UPDATE lease SET end_cause = 'superseded', end_at = {}, end_seq = ({earlier}) WHERE end_cause = 'revoked'",
        START.plus_s(60).as_ms()
    );
    assert!(!after(&statement).await.problems.is_empty());
}

#[tokio::test]
async fn l3_a_longer_life_in_the_rows_is_noticed() {
    for statement in [
        "UPDATE lease SET expires = expires + 1",
        "UPDATE task SET deadline = deadline + 1000",
        "UPDATE lease SET credential_hash = zeroblob(32) WHERE end_at IS NULL",
        "UPDATE lease SET seq = seq + 1",
        "UPDATE lease SET task = (SELECT id FROM task WHERE template = 'pay') WHERE target = 'shop'",
        "UPDATE task SET evidence_key = randomblob(32)",
        "UPDATE task SET handle_hash = randomblob(32)",
    ] {
        assert!(!after(statement).await.problems.is_empty(), "{statement}");
    }
}

#[tokio::test]
async fn a_row_of_another_owner_template_or_target_is_noticed() {
    for statement in [
        "UPDATE task SET owner = 'team-pay' WHERE owner = 'team-shop'",
        "UPDATE task SET template = 'pair' WHERE template = 'deploy'",
        "UPDATE task SET issuer = 'other'",
        "UPDATE task SET environment = 'other'",
        "UPDATE task SET grants = '{}'",
        "UPDATE task SET workload = 'ci/1'",
        "UPDATE task SET job = 'another'",
        "UPDATE task SET claims = '{}' WHERE claims IS NOT NULL",
        "UPDATE task SET evidence_exp_s = evidence_exp_s - 100",
        "DELETE FROM block",
        "UPDATE block SET until = until - 1000",
        "UPDATE block SET selector = replace(selector, 'template == \"', 'template == \"x')",
        "UPDATE block SET selector = replace(selector, 'job == \"', 'job == \"x')",
        "UPDATE block SET selector = 'workload == \"other\" && template == \"deploy\"'",
        "UPDATE block SET selector = 'template == \"deploy\"'",
        "UPDATE block SET until = NULL",
        "UPDATE task SET untrusted = 1",
        "UPDATE task SET profile = 'other'",
        "UPDATE task SET evidence_iat_s = evidence_iat_s - 1",
        "UPDATE lease SET issued_at = issued_at - 1",
        "UPDATE meta SET value = 'other' WHERE key = 'bundle'",
        "DELETE FROM meta WHERE key LIKE 'bundle_seen/%'",
        "UPDATE task SET permit = 'another-row' WHERE template = 'deploy'",
        "UPDATE lease SET target = 'broker' WHERE target = 'shop'",
        "UPDATE lease SET permit = 'another-row'",
        "UPDATE lease SET actions = '[\"tasks:end\"]'",
    ] {
        assert!(!after(statement).await.problems.is_empty(), "{statement}");
    }
}

#[tokio::test]
async fn a_live_row_that_is_gone_is_noticed() {
    for statement in [
        "DELETE FROM lease WHERE end_at IS NULL",
        "DELETE FROM lease WHERE end_cause = 'presented'",
        "DELETE FROM task WHERE template = 'pay'",
        "INSERT INTO task SELECT zeroblob(16), parent, template, purpose, ticket, job, permit, owner, environment, issuer, \
         profile, workload, untrusted, grants, randomblob(32), evidence_iat_s, evidence_exp_s, claims, randomblob(32), \
         bound, thumbprint, opened_at, deadline, end_at, end_cause, end_seq, seq, held FROM task LIMIT 1",
    ] {
        assert!(!after(statement).await.problems.is_empty(), "{statement}");
    }
}

#[tokio::test]
async fn an_erased_detail_still_verifies_and_reads_erased() {
    let report = after("DELETE FROM detail WHERE seq IN (2, 3)").await;
    assert_eq!((report.problems, report.erased), (vec![], 2));
    let whole = story().await.verify();
    assert_eq!(whole.events, report.events);
}

#[tokio::test]
async fn rows_that_were_pruned_after_their_time_are_no_problem() {
    let mut world = story().await;
    world.stop().await;
    world.sql("DELETE FROM lease; DELETE FROM task");
    let long_after = UnixMs::from_s(START.as_s() + 86_400);
    assert_eq!(verify(&world.reader, long_after).problems, Vec::<String>::new());
}
