//! Evidence and jobs that show a second key: refused, alarmed, and shown on the task.

use std::sync::atomic::{AtomicU64, Ordering};

use dayfly::{
    flow::{Exchange, Issued, Possession, Refused, Subject},
    policy::Ask,
};
use dayfly_domain::Reason;
use dayfly_verifier::{
    crypto::SigningKey,
    dpop::{ProofRules, prove},
};
use serde_json::json;

use crate::{
    evidence::twin,
    threats::{forge::Forge, stand::Stand},
    world::{BUNDLE, ISSUER, Job, OPERATOR, World, ask, get, local, reason, secret},
};

const TOKEN: &str = "/oauth2/token";

fn key() -> SigningKey {
    SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap()
}

/// A world past its first seconds, where no nonce is needed.
fn world(keys_per_job: Option<u32>) -> World {
    let line = keys_per_job.map_or(String::new(), |keys| format!("\nkeys_per_job = {keys}\nper_job = 64"));
    let world = World::on_file_with(&BUNDLE.replace("[task.deploy]", &format!("[task.deploy]{line}")), "");
    world.pass_s(10);
    world
}

fn exchange(world: &World, evidence: &str, key: Option<&SigningKey>, ask: Ask) -> Exchange {
    let possession = key.map(|key| {
        let url = format!("{ISSUER}{TOKEN}");
        let rules = ProofRules { method: "POST", url: &url, token: None };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let jti = format!("conflict-{}", NEXT.fetch_add(1, Ordering::SeqCst));
        let proof = prove(key, &rules, None, &jti, world.now().as_s()).unwrap();
        Possession { proof: secret(&proof), method: "POST", path: TOKEN.to_owned() }
    });
    Exchange { subject: Subject::Evidence { token: secret(evidence), control_s256: None }, ask, possession, csr: None }
}

async fn present(world: &World, evidence: &str, key: Option<&SigningKey>) -> Result<Issued, Refused> {
    world.flow.exchange(exchange(world, evidence, key, ask("deploy"))).await
}

async fn conflicts(world: &World, task: dayfly_domain::TaskId) -> u64 {
    world.flow.task(&OPERATOR, task).await.unwrap().conflicts.unwrap()
}

#[tokio::test]
async fn t_065_used_evidence_under_another_key_is_a_conflict() {
    let mut world = world(None);
    let (own, other) = (key(), key());
    for first in [Some(&own), None] {
        let evidence = world.evidence(&Job::shop());
        let issued = present(&world, &evidence, first).await.unwrap();
        let others = [Some(&other), if first.is_some() { None } else { Some(&own) }];
        for thief in others {
            assert_eq!(reason(present(&world, &evidence, thief).await), Reason::Conflict);
        }
        assert_eq!(reason(present(&world, &evidence, first).await), Reason::Replayed, "a repetition is none");
        // Whatever it is tried for, and whether or not policy would permit it.
        let asked = exchange(&world, &evidence, Some(&other), ask("pay"));
        assert_eq!(reason(world.flow.exchange(asked).await), Reason::Conflict);
        world.revoke(issued.task, Some(false)).await.unwrap();
        // What the end was written after is on the record.
        assert_eq!(conflicts(&world, issued.task).await, 3);
        assert_eq!(reason(present(&world, &evidence, Some(&other)).await), Reason::Conflict, "ended, not forgotten");
    }
}

#[tokio::test]
async fn a_conflict_is_shown_and_survives_a_restart() {
    let mut world = world(None);
    let evidence = world.evidence(&Job::shop());
    let issued = present(&world, &evidence, Some(&key())).await.unwrap();
    let refused = present(&world, &evidence, Some(&key())).await.unwrap_err();
    for _ in 0..5 {
        present(&world, &evidence, None).await.unwrap_err();
    }
    world.restart().await;
    world.pass_s(10);
    assert_eq!(reason(present(&world, &evidence, Some(&key())).await), Reason::Conflict, "the key is remembered");
    let other = world.open(&Job::shop(), "deploy").await;
    let event = world.call(local(get(&format!("/v1/ledger/{}", refused.decision.unwrap()), None))).await.json();
    assert_eq!((&event["reason"], &event["task"]), (&json!("E-CONFLICT"), &json!(issued.task)), "{event}");
    let shown = world.call(local(get(&format!("/v1/tasks/{}", issued.task), None))).await.json();
    assert_eq!(shown["conflicts"], 7, "{shown}");
    let shown_first = shown;
    let shown = world.call(local(get(&format!("/v1/tasks/{}", other.task), None))).await.json();
    assert!(shown.get("conflicts").is_none(), "{shown}");
    let all = world.call(local(get("/v1/tasks", None))).await.json();
    let listed = all["items"].as_array().unwrap();
    assert!(listed.iter().any(|task| task["id"] == shown_first["id"]), "{all}");
    assert!(listed.iter().all(|task| task.get("conflicts").is_none()), "a list reads no events for each row: {all}");
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn a_thief_who_tries_on_fills_no_log() {
    let mut stand = Stand::with(world(None), Forge::new());
    // A line that another test meets first is switched off for all while there is one subscriber.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let evidence = stand.world.evidence(&Job::shop());
    present(&stand.world, &evidence, Some(&key())).await.unwrap();
    for _ in 0..20 {
        assert_eq!(reason(present(&stand.world, &evidence, None).await), Reason::Conflict);
    }
    let told = stand.log().matches("one of the two may be a thief").count();
    assert_eq!(told, 3, "as many as have events of their own in a minute");
    assert_eq!(stand.counted("dayfly_evidence_conflict_total", ""), 20);
}

/// A token without `jti` and its malleable twin, each with a key of its own, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t_081_of_256_uses_at_once_exactly_one_opens_and_the_others_are_told_apart() {
    let mut world = world(None);
    let evidence = world.sign(Job::shop());
    let forms = [evidence.clone(), twin(&evidence)];
    let keys: Vec<_> = (0..8).map(|_| key()).collect();
    let asking: Vec<_> = (0..256)
        .map(|at| {
            let shown = (at % 9 > 0).then(|| &keys[at % 9 - 1]);
            let (flow, exchange) = (world.flow.clone(), exchange(&world, &forms[at % 2], shown, ask("deploy")));
            tokio::spawn(async move { flow.exchange(exchange).await })
        })
        .collect();
    let (mut opened, mut replayed, mut conflicting) = (Vec::new(), 0, 0);
    for asked in asking {
        match asked.await.unwrap() {
            Ok(issued) => opened.push(issued.task),
            Err(Refused { reason: Reason::Replayed, .. }) => replayed += 1,
            Err(Refused { reason: Reason::Conflict, .. }) => conflicting += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    // Each key came 28 or 29 times: its own repetitions are replays, all else is a conflict.
    assert_eq!(opened.len(), 1);
    assert!((27..=28).contains(&replayed) && replayed + conflicting == 255, "{replayed} {conflicting}");
    world.restart().await;
    world.pass_s(10);
    let late = present(&world, &forms[1], Some(&key())).await;
    assert_eq!(reason(late), Reason::Conflict);
    world.stop().await;
    assert_eq!(conflicts(&world, opened[0]).await, conflicting + 1);
}

#[tokio::test]
async fn a_second_key_in_a_job_is_a_conflict() {
    let mut world = world(Some(1));
    let (own, other) = (key(), key());
    let mut step = async |run: &str, key: Option<&SigningKey>| {
        let evidence = world.evidence(&Job::shop().run(run));
        present(&world, &evidence, key).await
    };
    let first = step("1", Some(&own)).await.unwrap();
    assert_eq!(reason(step("1", Some(&other)).await), Reason::Conflict);
    assert!(step("1", Some(&own)).await.is_ok(), "the same key again");
    assert!(step("1", None).await.is_ok(), "no key is not another key");
    assert!(step("2", Some(&other)).await.is_ok(), "another job");
    assert_eq!(conflicts(&world, first.task).await, 1, "the task that was there first shows it");
    world.revoke(first.task, Some(false)).await.unwrap();
    let evidence = world.evidence(&Job::shop().run("1"));
    assert_eq!(reason(present(&world, &evidence, Some(&other)).await), Reason::Conflict, "the key is remembered");
    world.restart().await;
    world.pass_s(10);
    assert_eq!(reason(present(&world, &evidence, Some(&other)).await), Reason::Conflict, "after a restart too");
    assert!(present(&world, &evidence, Some(&own)).await.is_ok(), "the evidence itself was not used up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_keys_in_a_job_at_once_no_more_than_allowed_get_in() {
    let mut world = world(Some(2));
    let mut asking = Vec::new();
    for _ in 0..32 {
        let (key, evidence) = (key(), world.evidence(&Job::shop().run("1")));
        let (flow, exchange) = (world.flow.clone(), exchange(&world, &evidence, Some(&key), ask("deploy")));
        asking.push(tokio::spawn(async move { flow.exchange(exchange).await.map_err(|refused| refused.reason) }));
    }
    let mut passed = 0;
    for asked in asking {
        match asked.await.unwrap() {
            Ok(_) => passed += 1,
            Err(reason) => assert_eq!(reason, Reason::Conflict),
        }
    }
    assert_eq!(passed, 2);
}
