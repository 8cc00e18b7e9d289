//! What is never used is found: uses are counted once, through stops, kills and other bundles.

use dayfly::flow::{EntitlementFilter, EntitlementView};
use serde_json::Value;

use crate::world::{BUNDLE, Job, OPERATOR, SHOP_URI, STOCK_URI, World, ask_on, get, handle, local, token};

/// Entitlements of a template as `row target#action`, with their counts.
async fn used(world: &World, template: &str) -> Vec<(String, u64)> {
    let named = |view: EntitlementView| (format!("{} {}#{}", view.row, view.target, view.action), view.count);
    listed(world, template, None).await.into_iter().map(named).collect()
}

async fn listed(world: &World, template: &str, unused_for_s: Option<i64>) -> Vec<EntitlementView> {
    world.upkeep.each_ten_seconds();
    // The writer takes groups in order: what it was told before this is done then.
    world.flow.load_bundle("test").await.unwrap();
    let unused_since = unused_for_s.map(|seconds| world.now().plus_s(-seconds));
    let filter = EntitlementFilter { template: Some(template.to_owned()), unused_since };
    world.flow.entitlements(&OPERATOR, filter, 500, None).await.unwrap().items
}

fn count(what: &[(&str, u64)]) -> Vec<(String, u64)> {
    what.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn what_was_issued_is_counted_by_row_target_and_action() {
    let mut world = World::new();
    assert_eq!(
        used(&world, "deploy").await,
        count(&[("shop-deploys shop#deploy:create", 0), ("shop-deploys shop#deploy:status", 0)])
    );
    let first = world.open(&Job::shop(), "deploy").await;
    world.pass_s(5);
    world.feed_ask(&handle(&first), None, ask_on("", Some(SHOP_URI), Some(&["deploy:status"]))).await.unwrap();
    let ship = world.try_open(&Job::shop(), ask_on("ship", Some(SHOP_URI), None)).await.unwrap();
    world.feed_ask(&handle(&ship), None, ask_on("", Some(STOCK_URI), None)).await.unwrap();
    assert_eq!(
        used(&world, "deploy").await,
        count(&[("shop-deploys shop#deploy:create", 1), ("shop-deploys shop#deploy:status", 2)])
    );
    assert!(used(&world, "ship").await.iter().all(|(_, count)| *count == 1));
    let views = listed(&world, "deploy", None).await;
    assert_eq!(views[0].last_used.unwrap().plus_s(5), views[1].last_used.unwrap());
    assert_eq!(views[0].owner, "team-shop");
    // A refusal, and a task without a credential, use nothing.
    world.try_open(&Job::shop().with("event", "fork"), ask_on("deploy", None, None)).await.unwrap_err();
    assert_eq!(used(&world, "deploy").await[0].1, 1);
}

#[tokio::test]
async fn a_kill_loses_nothing_and_counts_nothing_twice() {
    let mut world = World::on_file();
    let create = |used: Vec<(String, u64)>| used[0].1;
    for _ in 0..3 {
        world.open(&Job::shop(), "deploy").await;
    }
    assert_eq!(create(used(&world, "deploy").await), 3, "written");
    world.sql(
        "CREATE TABLE was AS SELECT * FROM used; CREATE TABLE was_to AS SELECT * FROM meta WHERE key = 'used_to';",
    );
    for _ in 0..4 {
        world.open(&Job::shop(), "deploy").await;
    }
    world.stop().await;
    // What a kill leaves: all that is committed, and sums of earlier.
    world.sql(
        "DELETE FROM used; INSERT INTO used SELECT * FROM was; DROP TABLE was;
         INSERT OR REPLACE INTO meta SELECT * FROM was_to; DROP TABLE was_to;",
    );
    for _ in 0..3 {
        world.start_again().unwrap();
        assert_eq!(create(used(&world, "deploy").await), 7);
        world.stop().await;
    }
    // A store from before uses were counted: the ledger has them all.
    world.sql("DELETE FROM used; DELETE FROM meta WHERE key = 'used_to'");
    world.start_again().unwrap();
    assert_eq!(create(used(&world, "deploy").await), 7);
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn sums_that_cannot_be_written_are_kept() {
    let mut world = World::on_file();
    world.sql("CREATE TRIGGER no BEFORE INSERT ON used BEGIN SELECT RAISE(ABORT, 'no'); END");
    world.open(&Job::shop(), "deploy").await;
    assert_eq!(used(&world, "deploy").await[0].1, 0);
    world.sql("DROP TRIGGER no");
    world.open(&Job::shop(), "deploy").await;
    assert_eq!(used(&world, "deploy").await[0].1, 2);
}

#[tokio::test]
async fn what_was_not_used_for_long_is_sifted_out() {
    let mut world = World::new();
    let first = world.open(&Job::shop(), "deploy").await;
    world.pass_s(3600);
    world.open(&Job::shop(), "deploy").await;
    drop(first);
    let names = |views: Vec<EntitlementView>| views.into_iter().map(|view| view.action).collect::<Vec<_>>();
    assert_eq!(names(listed(&world, "deploy", Some(60)).await), Vec::<String>::new());
    let status = ask_on("deploy", None, Some(&["deploy:status"]));
    world.pass_s(3600);
    world.try_open(&Job::shop(), status).await.unwrap();
    assert_eq!(names(listed(&world, "deploy", Some(60)).await), ["deploy:create"]);
    assert!(listed(&world, "pay", Some(86_400)).await.iter().all(|view| view.count == 0 && view.last_used.is_none()));
}

#[tokio::test]
async fn another_bundle_lists_its_own_rows_and_remembers() {
    let mut world = World::new();
    world.open(&Job::shop(), "deploy").await;
    world.bundle.edit("shop-deploys", "shop-deploys-anew");
    assert_eq!(used(&world, "deploy").await[0], ("shop-deploys-anew shop#deploy:create".to_owned(), 0));
    world.bundle.set(BUNDLE);
    assert_eq!(used(&world, "deploy").await[0].1, 1);
}

#[tokio::test]
async fn an_owner_sees_its_own_templates_page_by_page() {
    let mut world = World::new();
    let watch = token(&world.open(&Job::shop(), "watch").await);
    let all = world.call(get("/v1/entitlements?limit=500", Some(&watch))).await.json();
    let all: Vec<Value> = all["items"].as_array().unwrap().clone();
    assert!(all.iter().any(|item| item["template"] == "deploy"));
    assert!(all.iter().all(|item| item["owner"] == "team-shop"), "{all:?}");
    let mut paged: Vec<Value> = Vec::new();
    let mut path = "/v1/entitlements?limit=2".to_owned();
    loop {
        let page = world.call(get(&path, Some(&watch))).await.json();
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/entitlements?limit=2&cursor={cursor}");
    }
    assert_eq!(paged, all);
    let stolen = world.call(local(get(&path, None))).await;
    assert_eq!(stolen.status, 400, "a cursor is its caller's own");
    for bad in ["template=", "unused_since=30d", "row=x", "limit=0"] {
        let answer = world.call(local(get(&format!("/v1/entitlements?{bad}"), None))).await;
        assert!([400, 422].contains(&answer.status), "{bad}: {}", answer.text);
    }
}

/// Of one template with many rows, as pages of `limit`.
async fn page(
    world: &World,
    unused_for_s: i64,
    limit: usize,
    cursor: Option<&str>,
) -> (Vec<(String, String)>, Option<String>) {
    let unused_since = Some(world.now().plus_s(-unused_for_s));
    let filter = EntitlementFilter { template: Some("deploy".to_owned()), unused_since };
    let listing = world.flow.entitlements(&OPERATOR, filter, limit, cursor).await.unwrap();
    let names = listing.items.into_iter().map(|view| (view.row, view.action)).collect();
    (names, listing.next_cursor)
}

#[tokio::test]
async fn a_use_between_two_pages_hides_no_entitlement() {
    let mut world = World::new();
    let rows: String = (0..20)
        .map(|row| {
            format!("[[task.deploy.allow]]\nid = \"row-{row:02}\"\nissuer = \"ci\"\nclaims = {{ sub = \"s{row}\" }}\n")
        })
        .collect();
    world.bundle.set(&format!("{BUNDLE}\n{rows}"));
    world.flow.load_bundle("test").await.unwrap();
    let (all, none) = page(&world, 0, 500, None).await;
    assert!(all.len() >= 42 && none.is_none(), "{all:?}");
    assert!(all.is_sorted(), "{all:?}");
    // The cursor belongs to its filter, so the moment that it names must not move.
    let (first, next) = page(&world, 0, 3, None).await;
    world.try_open(&Job::shop().with("sub", "s0"), ask_on("deploy", None, None)).await.unwrap();
    world.upkeep.each_ten_seconds();
    world.flow.load_bundle("test").await.unwrap();
    let (rest, _) = page(&world, 0, 500, next.as_deref()).await;
    assert!(!page(&world, 0, 500, None).await.0.contains(&all[0]), "what was used is sifted out now");
    assert_eq!([first, rest].concat(), all, "and nothing behind it was passed over");
}
