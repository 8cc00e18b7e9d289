//! Rows that nobody reviewed: they warn, then permit nothing new, and end nothing.

use dayfly_domain::Reason;

use crate::world::{Job, World, ask, handle, reason, token};

/// The worlds' clocks begin at eight in the morning of the last day of the grace.
const REVIEW: &str = "review_by = 2026-12-16";
const LATER: &str = "review_by = 2099-01-01";

#[tokio::test]
async fn a_row_past_its_grace_permits_nothing_new_and_ends_nothing() {
    let mut world = World::on_file();
    world.bundle.edit(LATER, REVIEW);
    world.flow.load_bundle("test").await.unwrap();
    // Ten minutes before midnight.
    world.pass_s(15 * 3600 + 50 * 60);
    world.upkeep.each_minute().await;
    let issued = world.open(&Job::shop(), "deploy").await;
    assert!(world.feed(&handle(&issued), None).await.is_ok());

    world.pass_s(11 * 60);
    world.upkeep.each_minute().await;
    let refused = world.try_open(&Job::shop(), ask("deploy")).await.unwrap_err();
    assert_eq!(refused.reason, Reason::NoMatch);
    assert_eq!(reason(world.feed(&handle(&issued), None).await), Reason::NoMatch, "no further credential either");
    assert!(world.active(&token(&issued)).await, "what was issued lives to its end");
    assert!(refused.hint.is_some_and(|hint| hint.contains("past its review date")));

    world.restart().await;
    assert!(world.active(&token(&issued)).await);
    assert_eq!(reason(world.try_open(&Job::shop(), ask("deploy")).await), Reason::NoMatch, "from the start");
    world.bundle.edit(REVIEW, LATER);
    world.flow.load_bundle("test").await.unwrap();
    assert!(world.feed(&handle(&issued), None).await.is_ok(), "somebody reviewed it");
    assert!(world.try_open(&Job::shop(), ask("deploy")).await.is_ok());
}
