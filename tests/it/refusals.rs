//! Three kinds of refused evidence: garbage and strangers leave no trace in the ledger; a known
//! workload's refusal can be looked up by its id.

use dayfly::flow::{EventFilter, EventView};
use dayfly_domain::{EventId, Reason};
use serde_json::json;

use crate::world::{ISSUER, Job, OPERATOR, World, ask, handle, reason};

async fn denied(world: &World) -> Vec<EventView> {
    let events = world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items;
    events.into_iter().filter(|event| event.body["type"] == "denied").collect()
}

/// Refusals are answered before they are written; an end waits for the writer.
async fn settle(world: &mut World) {
    let issued = world.open(&Job::shop().run("settle"), "deploy").await;
    world.end(&handle(&issued), issued.task).await.unwrap();
}

#[tokio::test]
async fn a_known_workloads_refusal_can_be_looked_up() {
    let mut world = World::new();
    let refused = world.try_open(&Job::shop().run("1"), ask("pay")).await.unwrap_err();
    let id: EventId = refused.decision.unwrap();
    settle(&mut world).await;
    let event = world.flow.event(&OPERATOR, id).await.unwrap();
    assert_eq!((&event.body["type"], &event.body["reason"]), (&json!("denied"), &json!("E-NOMATCH")));
    assert_eq!((&event.body["template"], &event.body["issuer"]), (&json!("pay"), &json!("ci")));
    let details = event.details.unwrap();
    assert_eq!((&details["workload"], &details["claims"]["run"]), (&json!("ci/shop"), &json!("1")));
    assert!(!serde_json::to_string(&event.body).unwrap().contains("ci/shop"), "who it was can be erased");
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn garbage_and_strangers_leave_no_event() {
    let mut world = World::new();
    let good = world.evidence(&Job::shop());
    let mut broken = good.clone();
    broken.replace_range(good.len() - 20..good.len() - 10, "AAAAAAAAAA");
    let other = World::new().evidence(&Job::shop());
    let at = world.now().as_s();
    for (evidence, why) in [
        (broken, Reason::Signature),
        (other, Reason::Signature),
        ("a.b.c".to_owned(), Reason::Signature),
        (world.evidence(&Job::shop().with("iss", "https://evil.example.org")), Reason::Issuer),
        (world.evidence(&Job::shop().with("iss", ISSUER)), Reason::Own),
        (world.evidence(&Job::shop().with("aud", "https://other.example.org")), Reason::Audience),
        (world.evidence(&Job::shop().with("org", "evil")), Reason::Stranger),
        (world.evidence(&Job::shop().with("exp", at - 1)), Reason::Expired),
        (world.evidence(&Job::shop().with("iat", at - 700)), Reason::Expired),
        (world.evidence(&Job::shop().with("run", "")), Reason::Claim),
        (world.evidence(&Job::shop().with("run", 7)), Reason::Claim),
    ] {
        let refused = world.present(&evidence, ask("deploy")).await.unwrap_err();
        assert_eq!((refused.reason, refused.decision), (why, None));
    }
    settle(&mut world).await;
    assert!(denied(&world).await.is_empty());
}

#[tokio::test]
async fn of_identical_refusals_three_are_events_and_the_rest_share_one() {
    let mut world = World::new();
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(world.try_open(&Job::shop(), ask("pay")).await.unwrap_err().decision.unwrap());
    }
    assert!(ids[3] == ids[4] && ids[4] == ids[5] && ids[2] != ids[3]);
    assert_ne!(world.try_open(&Job::pay(), ask("deploy")).await.unwrap_err().decision, Some(ids[3]), "another kind");
    settle(&mut world).await;
    assert_eq!(denied(&world).await.len(), 4);
    assert_eq!(reason(world.flow.event(&OPERATOR, ids[3]).await), Reason::NotFound, "its minute is not over");
    world.pass_s(60);
    world.upkeep.each_second();
    settle(&mut world).await;
    let shared = world.flow.event(&OPERATOR, ids[3]).await.unwrap();
    assert_eq!(shared.body["count"], 3);
    assert_eq!(denied(&world).await.len(), 5);
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn a_shared_refusal_is_written_at_the_shutdown() {
    let mut world = World::on_file();
    let mut last = None;
    for _ in 0..4 {
        last = world.try_open(&Job::shop(), ask("pay")).await.unwrap_err().decision;
    }
    world.restart().await;
    assert_eq!(world.flow.event(&OPERATOR, last.unwrap()).await.unwrap().body["count"], 1);
}

#[tokio::test]
async fn an_exchange_is_counted_for_the_issuer_that_was_proven() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    let evidence = world.evidence(&Job::shop().run("2"));
    assert_eq!(reason(world.present(&evidence, ask("nothing-of-that-name")).await), Reason::NoMatch);
    world.end(&handle(&issued), issued.task).await.unwrap();
    assert_eq!(reason(world.feed(&handle(&issued), None).await), Reason::Ended);
    assert_eq!(reason(world.present("no.token.here", ask("deploy")).await), Reason::Signature);
    let counted = recorder.handle().render();
    let by = |issuer: &str| {
        let mut results: Vec<&str> = Vec::new();
        for line in counted.lines().filter(|line| line.contains(&format!("{{issuer=\"{issuer}\""))) {
            results.extend(line.split("result=\"").nth(1).and_then(|rest| rest.split('"').next()));
        }
        results.sort_unstable();
        results
    };
    assert_eq!(by(&issued.issuer), ["E-ENDED", "E-NOMATCH", "issued"], "{counted}");
    assert_eq!(by("none"), ["E-SIGNATURE"], "{counted}");
}
