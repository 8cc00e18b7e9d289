//! The hold: a task whose client falls silent ends, and nothing else does.

use dayfly::flow::{EventFilter, Issued};
use dayfly_domain::{Cause, Reason, State, TaskId};
use serde_json::{Value, json};

use crate::world::{Answer, Job, OPERATOR, World, client_handle, get, handle, local, post_json, reason, token};

pub fn path(task: TaskId) -> String {
    format!("/v1/tasks/{task}/beat")
}

async fn beat(world: &World, issued: &Issued) -> Answer {
    world.call(post_json(&path(issued.task), Some(&handle(issued)), &json!({}))).await
}

async fn beats(world: &World, issued: &Issued) {
    let answer = beat(world, issued).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// A task that beats, in a job of its own.
async fn held(world: &mut World, run: &str) -> Issued {
    let issued = world.open(&Job::shop().run(run), "deploy").await;
    beats(world, &issued).await;
    issued
}

async fn shown(world: &World, issued: &Issued) -> Value {
    world.call(local(get(&format!("/v1/tasks/{}", issued.task), None))).await.json()
}

/// Waits for what was ended without anybody who waits for it: one more commit lies behind it.
async fn settled(world: &mut World) {
    world.open(&Job::pay(), "pay").await;
}

#[tokio::test]
async fn a_task_whose_client_falls_silent_ends_one_grace_after_its_last_beat() {
    let mut world = World::new();
    world.live_s(1);
    let (issued, other) = (held(&mut world, "1").await, held(&mut world, "2").await);
    let untouched = world.open(&Job::shop().run("3"), "deploy").await;
    for _ in 0..6 {
        world.live_s(5);
        beats(&world, &issued).await;
        beats(&world, &other).await;
    }
    assert!(world.active(&token(&issued)).await);
    for _ in 0..2 {
        world.live_s(5);
        beats(&world, &other).await;
    }
    world.live_s(4);
    assert!(world.active(&token(&issued)).await, "14 s are no grace");
    world.live_s(2);
    assert!(!world.active(&token(&issued)).await);
    assert!(world.active(&token(&other)).await && world.active(&token(&untouched)).await);

    settled(&mut world).await;
    let task = shown(&world, &issued).await;
    assert_eq!(
        (&task["state"], &task["cause"], &task["ended_by"], &task["reason"]),
        (&json!("ended"), &json!("hold_lost"), &json!("broker"), &json!("no beat for 15s"))
    );
    let again = beat(&world, &issued).await;
    assert_eq!((again.status, &again.json()["reason"]), (409, &json!("E-NOT-ACTIVE")));
    assert!(again.json()["detail"].as_str().unwrap().ends_with("cause hold_lost"), "{}", again.text);
    assert_eq!(reason(world.feed(&handle(&issued), None).await), Reason::Ended);
    let end = world.end(&handle(&issued), issued.task).await.unwrap();
    assert_eq!((end.state, end.cause, end.leases_ended), (State::Ended, Some(Cause::HoldLost), 1));
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn a_beat_says_when_to_beat_again() {
    let mut world = World::new();
    world.bundle.edit("deadline  = \"1h\"", "deadline  = \"1h\"\ngrace     = \"1m\"");
    world.flow.load_bundle("a test").await.unwrap();
    let (long, short) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::pay(), "pay").await);
    let said = beat(&world, &long).await.json();
    let deadline = long.deadline.to_string();
    assert_eq!(said, json!({ "state": "active", "deadline": deadline, "beat_s": 5, "grace_s": 60 }));
    assert_eq!(beat(&world, &short).await.json()["grace_s"], 15);
    world.live_s(30);
    assert!(world.active(&token(&long)).await && !world.active(&token(&short)).await);
}

#[tokio::test]
async fn a_beat_for_anothers_task_is_unknown() {
    let mut world = World::new();
    let (own, others) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::pay(), "pay").await);
    let none = TaskId::from_u128(7);
    let call = async |task, bearer: Option<&str>| world.call(post_json(&path(task), bearer, &json!({}))).await;
    let own_handle = handle(&own);
    let (foreign, unknown) = (call(others.task, Some(&own_handle)).await, call(none, Some(&own_handle)).await);
    assert_eq!((foreign.status, unknown.status), (404, 404));
    assert_eq!(foreign.json()["title"], unknown.json()["title"]);
    for bearer in [None, Some("garbage"), Some(&*client_handle(9).0)] {
        assert_eq!(call(own.task, bearer).await.status, 401, "{bearer:?}");
    }
    world.live_s(60);
    assert!(world.active(&token(&own)).await && world.active(&token(&others)).await, "nobody has begun to beat");
}

#[tokio::test]
async fn nothing_but_the_tasks_own_handle_beats() {
    let mut world = World::new();
    let task = world.open(&Job::shop(), "deploy").await;
    let watch = token(&world.open(&Job::shop(), "watch").await);
    let request = || post_json(&path(task.task), Some(&watch), &json!({}));
    assert_eq!(world.call(request()).await.json()["reason"], "E-SCOPE");
    let operator = world.call(local(post_json(&path(task.task), None, &json!({})))).await;
    assert_eq!((operator.status, &operator.json()["reason"]), (403, &json!("E-SCOPE")));
    // Its own credential is no handle either.
    let own = world.call(post_json(&path(task.task), Some(&token(&task)), &json!({}))).await;
    assert_eq!(own.status, 401);
    assert_eq!(reason(world.flow.beat(&OPERATOR, task.task).await), Reason::Scope);
}

#[tokio::test]
async fn a_beat_has_nothing_to_say() {
    let mut world = World::new();
    let task = world.open(&Job::shop(), "deploy").await;
    let bearer = handle(&task);
    for (body, status) in [(json!({}), 200), (json!({ "grace_s": 3600 }), 422), (json!([]), 422), (json!(null), 422)] {
        let answer = world.call(post_json(&path(task.task), Some(&bearer), &body)).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
    }
    let query = world.call(post_json(&format!("{}?grace_s=1", path(task.task)), Some(&bearer), &json!({}))).await;
    assert_eq!(query.status, 400, "{}", query.text);
    assert_eq!(world.call(get(&path(task.task), Some(&bearer))).await.status, 405);
}

#[tokio::test]
async fn an_ended_or_expired_task_cannot_be_held() {
    let mut world = World::new();
    world.live_s(1);
    let (ended, expiring) = (held(&mut world, "1").await, world.open(&Job::pay(), "pay").await);
    world.end(&handle(&ended), ended.task).await.unwrap();
    let answer = beat(&world, &ended).await;
    assert_eq!((answer.status, &answer.json()["reason"]), (409, &json!("E-NOT-ACTIVE")));
    assert!(answer.json()["detail"].as_str().unwrap().ends_with("cause completed"), "{}", answer.text);
    for _ in 0..180 {
        world.live_s(5);
        let answer = beat(&world, &expiring).await;
        let lives = world.now() < expiring.deadline;
        assert_eq!(answer.status, if lives { 200 } else { 409 }, "a hold does not put the deadline off");
    }
    let task = shown(&world, &expiring).await;
    assert_eq!((&task["state"], &task["cause"]), (&json!("expired"), &Value::Null));
}

#[tokio::test]
async fn a_renewal_is_no_beat() {
    let mut world = World::new();
    world.live_s(1);
    let issued = held(&mut world, "1").await;
    for seconds in [5, 5, 4] {
        world.live_s(seconds);
        world.feed(&handle(&issued), None).await.unwrap();
    }
    world.live_s(2);
    assert!(!world.active(&token(&issued)).await);
}

#[tokio::test]
async fn a_restart_starts_every_grace_anew_and_ends_nothing_by_itself() {
    let mut world = World::on_file();
    world.live_s(1);
    let (alive, dead) = (held(&mut world, "1").await, held(&mut world, "2").await);
    let untouched = world.open(&Job::shop().run("3"), "deploy").await;
    world.live_s(5);
    world.stop().await;
    // Down for longer than any of their graces.
    world.pass_s(600);
    world.start_again().unwrap();
    let hold = &shown(&world, &alive).await["hold"];
    assert!(hold.get("last_beat_at").is_none() && hold["grace_s"] == 15, "{hold}");
    world.live_s(13);
    assert!(world.active(&token(&alive)).await && world.active(&token(&dead)).await);
    beats(&world, &alive).await;
    world.live_s(4);
    assert!(!world.active(&token(&dead)).await, "its job died meanwhile: one grace later");
    assert!(world.active(&token(&alive)).await && world.active(&token(&untouched)).await);
    settled(&mut world).await;
    world.restart().await;
    assert!(!world.active(&token(&dead)).await && world.active(&token(&alive)).await);
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn a_broker_that_was_suspended_ends_nothing_by_itself() {
    let mut world = World::new();
    world.live_s(1);
    let (alive, dead) = (held(&mut world, "1").await, held(&mut world, "2").await);
    world.live_s(3);
    world.pass_s(120);
    world.live_s(14);
    assert!(world.active(&token(&alive)).await && world.active(&token(&dead)).await);
    beats(&world, &alive).await;
    world.live_s(3);
    assert!(world.active(&token(&alive)).await && !world.active(&token(&dead)).await);
}

#[tokio::test]
async fn moving_the_wall_clock_ends_no_held_task_and_revives_none() {
    for step_s in [30, 600, -30, -3_600, -5 * 365 * 86_400] {
        let mut world = World::new();
        world.live_s(1);
        let (alive, dead) = (held(&mut world, "1").await, held(&mut world, "2").await);
        world.live_s(5);
        world.clock.step_wall_ms(step_s * 1_000);
        world.live_s(5);
        beats(&world, &alive).await;
        assert!(world.active(&token(&alive)).await && world.active(&token(&dead)).await, "{step_s}");
        world.live_s(4);
        assert!(world.active(&token(&dead)).await, "{step_s}: no sooner");
        world.live_s(2);
        assert!(world.active(&token(&alive)).await && !world.active(&token(&dead)).await, "{step_s}: no later");
        world.clock.step_wall_ms(-step_s * 1_000);
        world.live_s(5);
        beats(&world, &alive).await;
        assert!(world.active(&token(&alive)).await && !world.active(&token(&dead)).await, "{step_s}: and back");
        assert_eq!(beat(&world, &dead).await.status, 409);
    }
}

#[tokio::test]
async fn a_first_beat_that_cannot_be_recorded_holds_nothing() {
    let mut world = World::on_file();
    world.live_s(1);
    let issued = world.open(&Job::shop(), "deploy").await;
    world.sql("ALTER TABLE task RENAME TO task_gone");
    let answer = beat(&world, &issued).await;
    assert_eq!((answer.status, &answer.json()["reason"]), (503, &json!("E-STORE")));
    world.sql("ALTER TABLE task_gone RENAME TO task");
    world.live_s(60);
    assert!(world.active(&token(&issued)).await, "no beat was answered");
    beats(&world, &issued).await;
    world.restart().await;
    world.live_s(17);
    assert!(!world.active(&token(&issued)).await);
}

#[tokio::test]
async fn a_lost_hold_counts_at_once_and_is_written_when_the_store_is_back() {
    let mut world = World::on_file();
    world.live_s(1);
    let issued = held(&mut world, "1").await;
    world.sql("ALTER TABLE event RENAME TO event_gone");
    world.live_s(17);
    assert!(!world.active(&token(&issued)).await);
    assert_eq!(reason(world.end(&handle(&issued), issued.task).await), Reason::NotDurable);
    world.sql("ALTER TABLE event_gone RENAME TO event");
    let end = world.end(&handle(&issued), issued.task).await.unwrap();
    assert_eq!(end.cause, Some(Cause::HoldLost));
    world.restart().await;
    assert!(!world.active(&token(&issued)).await);
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn a_client_that_dies_with_its_first_beat_is_ended() {
    let mut world = World::new();
    world.live_s(1);
    let issued = world.open(&Job::shop(), "deploy").await;
    let caller = world.caller(&handle(&issued)).await;
    {
        let first = world.flow.beat(&caller, issued.task);
        tokio::pin!(first);
        tokio::select! {
            biased;
            // Asked once: it is on its way to the writer, and nobody waits for its answer.
            _ = &mut first => {}
            () = std::future::ready(()) => {}
        }
    }
    settled(&mut world).await;
    world.live_s(17);
    assert!(!world.active(&token(&issued)).await);
}

#[tokio::test]
async fn many_beats_of_one_task_at_once_are_cheap_and_harmless() {
    let mut world = World::new();
    world.live_s(1);
    let issued = world.open(&Job::shop(), "deploy").await;
    let (caller, task) = (world.caller(&handle(&issued)).await, issued.task);
    let mut first = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (flow, caller) = (world.flow.clone(), caller.clone());
        first.spawn(async move { flow.beat(&caller, task).await });
    }
    for beat in first.join_all().await {
        assert_eq!(beat.unwrap().state, State::Active);
    }
    let newest = async || world.flow.events(&OPERATOR, EventFilter::default(), 1, None).await.unwrap().items[0].seq;
    let before = newest().await;
    for _ in 0..3 {
        for _ in 0..1_000 {
            world.flow.beat(&caller, issued.task).await.unwrap();
        }
        world.live_s(1);
    }
    assert_eq!(newest().await, before, "no beat leaves an event");
    world.live_s(13);
    assert!(world.active(&token(&issued)).await, "the last one counts");
    world.live_s(3);
    assert!(!world.active(&token(&issued)).await);
}

/// So many held tasks, all of which have just beaten.
async fn crowd(world: &mut World, count: usize) -> Vec<Issued> {
    let mut all = Vec::new();
    for number in 0..count {
        all.push(held(world, &number.to_string()).await);
    }
    world.live_s(1);
    all
}

async fn all_beat(world: &World, tasks: &[Issued]) {
    for issued in tasks {
        beats(world, issued).await;
    }
}

async fn count_active(world: &World, tasks: &[Issued]) -> usize {
    let mut count = 0;
    for issued in tasks {
        count += usize::from(world.active(&token(issued)).await);
    }
    count
}

#[tokio::test]
async fn of_500_held_tasks_100_fall_silent_and_nothing_ends_for_a_minute() {
    let mut world = World::new();
    world.live_s(1);
    let tasks = crowd(&mut world, 500).await;
    let (silent, beating) = tasks.split_at(100);
    for _ in 0..14 {
        all_beat(&world, beating).await;
        world.live_s(5);
        assert_eq!(count_active(&world, silent).await, 100);
    }
    assert!(world.flow.readiness().is_ok(), "the alarm is a metric and a line in the log");
    let (back, dead) = silent.split_at(20);
    for _ in 0..3 {
        all_beat(&world, back).await;
        all_beat(&world, beating).await;
        world.live_s(5);
    }
    assert_eq!((count_active(&world, back).await, count_active(&world, dead).await), (20, 0));
    assert_eq!(count_active(&world, beating).await, 400);
    settled(&mut world).await;
    assert_eq!(shown(&world, &dead[7]).await["cause"], "hold_lost");
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn a_storm_spares_nobody_past_a_deadline() {
    let mut world = World::new();
    world.bundle.edit("deadline  = \"1h\"", "deadline  = \"30s\"");
    world.flow.load_bundle("a test").await.unwrap();
    world.live_s(1);
    let tasks = crowd(&mut world, 40).await;
    world.live_s(20);
    assert_eq!(count_active(&world, &tasks).await, 40, "a storm");
    let lapses_at = &shown(&world, &tasks[0]).await["hold"]["lapses_at"];
    assert_eq!(lapses_at, &json!(tasks[0].deadline.to_string()));
    world.live_s(10);
    assert_eq!(count_active(&world, &tasks).await, 0);
}

#[tokio::test]
async fn fifteen_of_500_fall_silent_and_end() {
    let mut world = World::new();
    world.live_s(1);
    let tasks = crowd(&mut world, 500).await;
    let (silent, beating) = tasks.split_at(15);
    for _ in 0..4 {
        all_beat(&world, beating).await;
        world.live_s(5);
    }
    assert_eq!((count_active(&world, silent).await, count_active(&world, beating).await), (0, 485));
}
