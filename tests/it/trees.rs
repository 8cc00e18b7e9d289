//! Trees of tasks. No verb opens a child yet: the rows are put there by another hand, as one would.

use dayfly_domain::{Cause, State};
use serde_json::{Value, json};

use crate::world::{Job, OPERATOR, World, get, handle, lease, local, token};

/// Everything of a task but what is its own.
const COPY: &str =
    "template, purpose, ticket, job, permit, owner, environment, issuer, profile, workload, untrusted, grants";

/// 64 children of a task, and 64 of each of those; their ids are `seed` and their number.
fn brood(root: &str, now_ms: i64) -> String {
    let id = |number: &str| format!("CAST(substr(unhex('{root}'), 1, 12) || unhex(printf('%08x', {number})) AS BLOB)");
    let insert = |number: &str, parent: &str, many: u32| {
        format!(
            "INSERT INTO task (id, parent, {COPY}, evidence_key, evidence_iat_s, evidence_exp_s, handle_hash, bound, opened_at, \
             deadline) WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {many}) \
             SELECT {}, {parent}, {COPY}, randomblob(32), evidence_iat_s, evidence_exp_s, randomblob(32), bound, {now_ms}, \
             deadline FROM task, n WHERE id = unhex('{root}');\n",
            id(number)
        )
    };
    let children = insert("1 + i", &format!("unhex('{root}')"), 64);
    let grandchildren = insert("1000 + i", &id("1 + i / 64"), 64 * 64);
    format!("{children}{grandchildren}")
}

async fn listed(world: &World, what: &str, state: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/{what}?limit=500&state={state}{cursor}");
        let page = world.call(local(get(&path, None))).await.json();
        all.extend(page["items"].as_array().unwrap_or_else(|| panic!("{page}")).iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn an_end_reaches_4160_tasks_below_it_with_one_record() {
    let mut world = World::on_file();
    let root = world.open(&Job::shop().run("root"), "deploy").await;
    let child = world.open(&Job::shop().run("child"), "deploy").await;
    let grandchild = world.open(&Job::shop().run("grandchild"), "deploy").await;
    let beside = world.open(&Job::shop().run("beside"), "deploy").await;
    world.stop().await;
    let hex = |id: dayfly_domain::TaskId| format!("{:032x}", id.as_u128());
    let (top, middle, bottom) = (hex(root.task), hex(child.task), hex(grandchild.task));
    world.sql(&brood(&top, world.now().as_ms()));
    // The real ones take the places of two that were made up.
    world.sql(&format!(
        "UPDATE task SET parent = unhex('{top}') WHERE id = unhex('{middle}'); \
         UPDATE task SET parent = unhex('{middle}') WHERE id = unhex('{bottom}')"
    ));
    world.start_again().unwrap();
    assert_eq!(listed(&world, "tasks", "active").await.len(), 4 + 64 + 64 * 64);
    assert!(world.active(&token(&grandchild)).await);

    let rows = |world: &World| {
        let connection = rusqlite::Connection::open(world.file()).unwrap();
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        (count("SELECT count(*) FROM event"), count("SELECT count(*) FROM task WHERE end_at IS NOT NULL"))
    };
    let (events, ended) = rows(&world);
    assert_eq!(ended, 0);
    let answer = world.end(&handle(&root), root.task).await.unwrap();
    assert_eq!((answer.state, answer.cause), (State::Ended, Some(Cause::Completed)));
    assert_eq!(rows(&world), (events + 1, 1), "one event, one row");

    for dead in [&root, &child, &grandchild] {
        assert!(!world.active(&token(dead)).await);
    }
    assert!(world.active(&token(&beside)).await);
    let below = listed(&world, "tasks", "ended").await;
    assert_eq!(below.len(), 3 + 64 + 64 * 64);
    assert_eq!(below.iter().filter(|task| task["cause"] == "parent_ended").count(), 2 + 64 + 64 * 64);
    assert_eq!(listed(&world, "tasks", "active").await.len(), 1);
    let leases = listed(&world, "leases", "ended").await;
    let of = |issued| leases.iter().find(|shown| shown["id"] == json!(lease(issued).to_string())).unwrap();
    assert_eq!((&of(&child)["cause"], &of(&grandchild)["cause"]), (&json!("parent_ended"), &json!("parent_ended")));
    assert_eq!(listed(&world, "leases", "active").await.len(), 1);

    // Nothing below goes on, and nothing of it comes back.
    let refused = world.feed(&handle(&grandchild), None).await.unwrap_err();
    assert_eq!(refused.reason.code(), "E-ENDED");
    let beat = world.call(crate::world::post_json(
        &crate::hold::path(grandchild.task),
        Some(&handle(&grandchild)),
        &json!({}),
    ));
    let beat = beat.await.json();
    assert!(beat["detail"].as_str().unwrap().ends_with("cause parent_ended"), "{beat}");
    world.restart().await;
    assert!(!world.active(&token(&grandchild)).await);
    let view = world.flow.task(&OPERATOR, grandchild.task).await.unwrap();
    assert_eq!((view.state, view.cause), (State::Ended, Some(Cause::ParentEnded)));
}

#[tokio::test]
async fn a_parents_row_is_kept_as_long_as_a_childs() {
    let mut world = World::on_file();
    let root = world.open(&Job::shop().run("root"), "deploy").await;
    let child = world.open(&Job::shop().run("child"), "deploy").await;
    world.end(&handle(&root), root.task).await.unwrap();
    world.stop().await;
    let hex = |id: dayfly_domain::TaskId| format!("{:032x}", id.as_u128());
    // The child's evidence can be presented longer than anything is kept.
    world.sql(&format!(
        "UPDATE task SET parent = unhex('{}'), evidence_exp_s = evidence_exp_s + 1000000 WHERE id = unhex('{}')",
        hex(root.task),
        hex(child.task)
    ));
    world.start_again().unwrap();
    for _ in 0..3 {
        world.pass_s(86_400);
        world.upkeep.each_second();
        world.upkeep.each_minute().await;
        world.open(&Job::pay(), "pay").await;
    }
    let kept = |id| world.reader.task(id).unwrap().is_some();
    assert!(kept(root.task) && kept(child.task));
    let view = world.flow.task(&OPERATOR, child.task).await.unwrap();
    assert_eq!((view.state, view.cause), (State::Ended, Some(Cause::ParentEnded)));
    for _ in 0..14 {
        world.pass_s(86_400);
        world.upkeep.each_second();
        world.upkeep.each_minute().await;
        world.open(&Job::pay(), "pay").await;
    }
    assert!(world.reader.task(root.task).unwrap().is_none() && world.reader.task(child.task).unwrap().is_none());
}
