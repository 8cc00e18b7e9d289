//! Handles: one per task, whole or nothing, worth nothing once the task is over.

use dayfly::policy::Ask;
use dayfly_domain::Reason;

use crate::world::{Job, World, ask, client_handle, handle, reason, secret, token};

#[tokio::test]
async fn the_client_may_make_the_handle_and_the_broker_never_sees_it() {
    let mut world = World::new();
    let (handle, hash) = client_handle(7);
    let evidence = world.evidence(&Job::shop());
    let issued = world.present_with(&evidence, Some(hash), ask("deploy")).await.unwrap();
    assert!(issued.handle.is_none());
    assert!(world.active(&token(&world.feed(&handle, None).await.unwrap())).await);
    world.end(&handle, issued.task).await.unwrap();
}

#[tokio::test]
async fn t_044_a_cut_handle_is_no_handle() {
    let mut world = World::new();
    let good = handle(&world.open(&Job::shop(), "deploy").await);
    let (unknown, _) = client_handle(9);
    let swapped = if good.ends_with('A') { "E" } else { "A" };
    let other_end = format!("{}{swapped}", &good[..good.len() - 1]);
    for bad in [
        &good[..good.len() - 1],
        &good[1..],
        &format!("{good}A"),
        &format!("{good}="),
        &format!(" {good}"),
        &good.to_uppercase(),
        &good.replace("dtc_", "dtc-"),
        &good.replace("dtc_", ""),
        &other_end,
        &unknown,
        "dtc_",
        "",
    ] {
        assert_eq!(reason(world.feed(bad, None).await), Reason::Handle, "{bad}");
    }
    assert!(world.feed(&good, None).await.is_ok());
}

#[tokio::test]
async fn a_token_or_evidence_is_no_handle_and_a_handle_no_evidence() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    let evidence = world.evidence(&Job::shop());
    assert_eq!(reason(world.feed(&token(&issued), None).await), Reason::Handle);
    assert_eq!(reason(world.feed(&evidence, None).await), Reason::Handle);
    assert_eq!(reason(world.present(&handle(&issued), ask("deploy")).await), Reason::Signature);
    world.flow.revoke_presented(&secret(&handle(&issued))).await.unwrap();
    assert!(world.active(&token(&issued)).await, "a handle is not revoked by possession");
}

#[tokio::test]
async fn a_hash_belongs_to_one_task_for_ever() {
    let mut world = World::new();
    let (handle, hash) = client_handle(7);
    let evidence = world.evidence(&Job::shop());
    let issued = world.present_with(&evidence, Some(hash), ask("deploy")).await.unwrap();
    world.end(&handle, issued.task).await.unwrap();
    let evidence = world.evidence(&Job::shop());
    assert_eq!(reason(world.present_with(&evidence, Some(hash), ask("deploy")).await), Reason::HandleUsed);
    assert_eq!(reason(world.feed(&handle, None).await), Reason::Ended);
}

#[tokio::test]
async fn a_task_stays_with_its_template() {
    let mut world = World::new();
    let handle = handle(&world.open(&Job::shop(), "deploy").await);
    for other in ["ship", "pay", "nothing", "Deploy", "deploy "] {
        assert_eq!(reason(world.feed_ask(&handle, None, ask(other)).await), Reason::Template, "{other}");
    }
    assert!(world.feed_ask(&handle, None, ask("deploy")).await.is_ok());
}

#[tokio::test]
async fn the_ticket_is_that_of_the_opening() {
    let mut world = World::new();
    let asked = Ask { ticket: Some("OPS-1".into()), ..ask("deploy") };
    let issued = world.try_open(&Job::shop(), asked).await.unwrap();
    let fed = world.feed(&handle(&issued), None).await.unwrap();
    assert_eq!(fed.credential.as_ref().unwrap().ticket.as_deref(), Some("OPS-1"));
    let claims = world.introspect(&token(&fed)).await.unwrap().claims;
    assert_eq!(claims["authorization_details"][0]["ticket"], "OPS-1");
}

#[tokio::test]
async fn an_ended_or_expired_task_feeds_nobody() {
    let mut world = World::new();
    let ended = world.open(&Job::shop(), "deploy").await;
    world.end(&handle(&ended), ended.task).await.unwrap();
    assert_eq!(reason(world.feed(&handle(&ended), None).await), Reason::Ended);
    let expired = world.open(&Job::shop(), "deploy").await;
    world.pass_s(3600);
    assert_eq!(reason(world.feed(&handle(&expired), None).await), Reason::Ended);
    world.upkeep.each_second();
    assert_eq!(reason(world.feed(&handle(&expired), None).await), Reason::Ended, "forgotten by memory");
}
