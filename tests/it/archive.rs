//! Bundles of earlier: kept as they were read, and deciding as they did.

use dayfly::{
    flow::ArchiveError,
    policy::{Circumstances, Decision, Policy},
};
use dayfly_domain::{BindingKind, ClaimValue, Workload, bundle::Fingerprint};

use crate::world::{BUNDLE, ISSUER, Job, World, ask};

/// A job of the shop, as the claims of the world's CI prove it.
fn workload() -> Workload {
    let text = |(name, value): (&str, &str)| (name.to_owned(), ClaimValue::String(value.to_owned()));
    Workload {
        issuer: "ci".parse().unwrap(),
        profile: "ci".parse().unwrap(),
        principal: "ci/shop".into(),
        untrusted: false,
        job: None,
        claims: [("sub", "shop"), ("org", "acme"), ("event", "push")].map(text).into(),
    }
}

/// The row that lets the shop deploy.
fn decided(policy: &Policy) -> Option<String> {
    let circumstances = Circumstances { proven: BindingKind::Bearer, evidence_age_s: 0, held: &[] };
    match policy.decide(&workload(), &ask("deploy"), circumstances) {
        Decision::Permit(grant) => Some(grant.row().to_string()),
        Decision::Deny(_) => None,
    }
}

#[tokio::test]
async fn a_decision_can_be_made_again_under_the_bundle_of_its_time() {
    let mut world = World::on_file();
    world.bundle.edit("shop-deploys", "shop-deploys-anew");
    let swapped = world.flow.load_bundle("test").await.unwrap();
    let before = swapped.from.unwrap();
    world.bundle.edit("id     = \"shop-deploys-anew\"", "disabled = true\nid = \"shop-deploys-never\"");
    let last = world.flow.load_bundle("test").await.unwrap().to;
    for _ in 0..2 {
        let at = |fingerprint| world.flow.policy_at(&fingerprint).unwrap().unwrap();
        assert_eq!(decided(&at(before)).as_deref(), Some("shop-deploys"));
        assert_eq!(decided(&at(swapped.to)).as_deref(), Some("shop-deploys-anew"));
        assert_eq!(decided(&at(last)), None);
        assert_eq!(at(before).bundle().fingerprint, before);
        assert!(world.flow.policy_of(Fingerprint([7; 32])).await.unwrap().is_none());
        world.restart().await;
    }
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn a_file_that_did_not_change_is_kept_once() {
    let world = World::on_file();
    for number in 0..5 {
        world.bundle.set(&format!("{BUNDLE}\n# {number}\n"));
        world.flow.load_bundle("test").await.unwrap();
    }
    // Back again: nothing new is kept.
    world.bundle.set(&format!("{BUNDLE}\n# 0\n"));
    world.flow.load_bundle("test").await.unwrap();
    let connection = rusqlite::Connection::open(world.file()).unwrap();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM bundle"), 6);
    assert_eq!(count("SELECT count(*) FROM bundle_part WHERE path = 'builtin/profiles/github.toml'"), 6);
    let others = count("SELECT count(DISTINCT path) FROM bundle_part") - 1;
    assert_eq!(count("SELECT count(*) FROM bundle_file"), others + 6, "only `world.toml` has several texts");
}

#[tokio::test]
async fn a_bundle_that_was_altered_in_the_store_decides_nothing() {
    let world = World::on_file();
    world.bundle.edit("shop-deploys", "shop-deploys-anew");
    let before = world.flow.load_bundle("test").await.unwrap().from.unwrap();
    world.sql(
        "UPDATE bundle_file SET bytes = CAST(replace(CAST(bytes AS TEXT), '\"shop-deploys\"', '\"somebody-else\"') AS BLOB)",
    );
    assert!(matches!(world.flow.policy_at(&before), Err(ArchiveError::Altered(_))));
    world.sql("UPDATE bundle_file SET bytes = CAST('format = [' AS BLOB)");
    assert!(matches!(world.flow.policy_at(&before), Err(ArchiveError::Unreadable(_))));
}

/// A broker that was updated: its store knows no bundles yet.
#[tokio::test]
async fn the_bundle_in_force_is_kept_at_the_next_start() {
    let mut world = World::on_file();
    let _ = world.open(&Job::shop(), "deploy").await;
    world.stop().await;
    world.sql("DELETE FROM bundle; DELETE FROM bundle_part; DELETE FROM bundle_file");
    world.start_again().unwrap();
    world.bundle.edit("shop-deploys", "shop-deploys-anew");
    let before = world.flow.load_bundle("test").await.unwrap().from.unwrap();
    assert!(world.flow.policy_at(&before).unwrap().is_some());
}

/// The same files, read with other settings, make other decisions.
#[tokio::test]
async fn a_bundle_is_not_kept_with_the_settings_of_another_time() {
    let mut world = World::on_file();
    let _ = world.open(&Job::shop(), "deploy").await;
    world.stop().await;
    world.sql("UPDATE bundle SET issuer_url = 'https://before.example', broker_binding = 'dpop'");
    world.start_again().unwrap();
    let connection = rusqlite::Connection::open(world.file()).unwrap();
    let settings = "SELECT issuer_url || ' ' || broker_binding FROM bundle";
    let kept: String = connection.query_row(settings, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, format!("{ISSUER} bearer"));
}
