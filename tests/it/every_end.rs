//! Every kind of end, told the same way: introspection, the status list, the ledger and the metric name
//! the same end, and whoever goes by them knows of it within the time that was stated.
//!
//! Time is stepped, so what is measured is the broker's own delay. With real processes: `exec/hold.rs` and
//! `exec/cut.rs`.

use std::collections::BTreeMap;

use dayfly::flow::{EventFilter, Issued};
use dayfly_domain::{Cause, Channel, State, UnixMs};
use dayfly_verifier::Jws;
use serde_json::json;

use crate::{
    hold, lists, mass,
    world::{Job, OPERATOR, World, ask, client_handle, handle, lease, local, post_json, reason, secret, token},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Completed,
    CompletedAlone,
    Silent,
    Superseded,
    SupersededLater,
    Presented,
    Revoked,
    RevokedAlone,
    BySelector,
    Policy,
    KeyTainted,
    ParentEnded,
}

/// One kind of end, and what everybody is to say of it.
struct Kind {
    how: How,
    cause: Cause,
    /// The event on the record; that of a parent names the parent's own cause.
    event: (&'static str, Cause),
    /// From the act, or the last beat, to the moment from which nobody is to be told `active`.
    within_ms: i64,
}

const fn kind(how: How, cause: Cause, event: &'static str) -> Kind {
    Kind { how, cause, event: (event, cause), within_ms: 0 }
}

/// Grace (`grace` is not set: 15 s), and the broker looks once a second.
const SILENT_MS: i64 = 16_000;
const OVERLAP_S: u8 = 30;
/// A list is held against the table at most once a second.
const LIST_MS: i64 = 1_000;
/// How finely is measured.
const STEP_MS: i64 = 250;

const KINDS: [Kind; 12] = [
    kind(How::Completed, Cause::Completed, "task_ended"),
    kind(How::CompletedAlone, Cause::Completed, "lease_ended"),
    Kind { within_ms: SILENT_MS, ..kind(How::Silent, Cause::HoldLost, "task_ended") },
    kind(How::Superseded, Cause::Superseded, "lease_ended"),
    Kind { within_ms: OVERLAP_S as i64 * 1_000, ..kind(How::SupersededLater, Cause::Superseded, "lease_ended") },
    kind(How::Presented, Cause::Presented, "lease_ended"),
    kind(How::Revoked, Cause::Revoked, "task_ended"),
    kind(How::RevokedAlone, Cause::Revoked, "lease_ended"),
    kind(How::BySelector, Cause::Revoked, "tombstone"),
    kind(How::Policy, Cause::Policy, "tombstone"),
    kind(How::KeyTainted, Cause::KeyTainted, "tombstone"),
    Kind { event: ("task_ended", Cause::Completed), ..kind(How::ParentEnded, Cause::ParentEnded, "task_ended") },
];

/// A credential that is going to end, and everything that was true before.
struct Stage {
    world: World,
    issued: Issued,
    /// Of another owner, template and target.
    other: Issued,
    parent: Issued,
    counts: BTreeMap<String, u64>,
    seq: u64,
    /// Of the list that a server may have fetched last.
    list_expires_at: UnixMs,
}

impl Stage {
    async fn set(how: How) -> Self {
        let mut world = World::on_file_with(&lists::bundle(), "");
        world.live_s(1);
        let parent = world.open(&Job::shop().run("0"), "deploy").await;
        let issued = world.open(&Job::shop().run("1"), "flush").await;
        let other = world.open(&Job::pay(), "sell").await;
        if how == How::ParentEnded {
            // No door opens a task below another one yet; rows, table and lists know of them.
            world.stop().await;
            world.sql(
                "UPDATE task SET parent = (SELECT id FROM task WHERE template = 'deploy') WHERE template = 'flush'",
            );
            world.start_again().unwrap();
        }
        lists::agree(&world, &token(&other), true).await;
        lists::agree(&world, &token(&issued), true).await;
        world.upkeep.each_second();
        // A moment before the end: the worst there is.
        let list = lists::fetch(&world, &lists::place(&token(&issued)).0).await;
        let list_expires_at = UnixMs::from_s(list.expires_at_s());
        let (counts, seq) = (ends(&world), newest(&world).await);
        Self { world, issued, other, parent, counts, seq, list_expires_at }
    }

    async fn end(&mut self, how: How) {
        let (world, issued) = (&mut self.world, &self.issued);
        match how {
            How::Completed => drop(world.end(&handle(issued), issued.task).await.unwrap()),
            How::CompletedAlone => {
                let caller = world.caller(&handle(issued)).await;
                world.flow.end_lease(&caller, lease(issued), None).await.unwrap();
            }
            How::Silent => {
                let beat = post_json(&hold::path(issued.task), Some(&handle(issued)), &json!({}));
                assert_eq!(world.call(beat).await.status, 200);
            }
            How::Superseded => drop(world.feed(&handle(issued), Some(0)).await.unwrap()),
            How::SupersededLater => drop(world.feed(&handle(issued), Some(OVERLAP_S)).await.unwrap()),
            How::Presented => world.flow.revoke_presented(&secret(&token(issued))).await.unwrap(),
            How::Revoked => drop(world.revoke(issued.task, None).await.unwrap()),
            How::RevokedAlone => drop(world.flow.end_lease(&OPERATOR, lease(issued), None).await.unwrap()),
            How::BySelector => {
                let ended = mass::end(world, mass::by("template == \"flush\"")).await.unwrap();
                assert_eq!((ended.leases, ended.tasks), (1, 1));
            }
            How::Policy => {
                world.bundle.edit("[task.flush]\n", "[task.flush]\ndisabled = true\n");
                assert_eq!(world.flow.load_bundle("a test").await.unwrap().ended, 1);
            }
            How::KeyTainted => {
                let kid = Jws::parse(&token(issued)).unwrap().kid().unwrap().to_owned();
                let taint = local(post_json(&format!("/v1/keys/{kid}/taint"), None, &json!({})));
                assert_eq!(world.call(taint).await.status, 200);
            }
            How::ParentEnded => drop(world.end(&handle(&self.parent), self.parent.task).await.unwrap()),
        }
    }

    /// Milliseconds until introspection says so, and until the list does, to somebody who asks both all
    /// the time: that is when a list is latest.
    async fn measure(&self) -> (i64, i64) {
        let (world, text) = (&self.world, token(&self.issued));
        let (mut after_ms, mut introspection, mut list) = (0, None, None);
        while introspection.is_none() || list.is_none() {
            assert!(after_ms < 60_000, "{introspection:?} {list:?}");
            if !world.active(&text).await {
                introspection.get_or_insert(after_ms);
            }
            if lists::ended(world, &text).await {
                list.get_or_insert(after_ms);
            }
            world.clock.advance_ms(STEP_MS);
            after_ms += STEP_MS;
            if after_ms % 1_000 == 0 {
                world.upkeep.each_second();
            }
        }
        (introspection.unwrap(), list.unwrap())
    }

    /// One end more, of this cause, and none of another.
    async fn assert_recorded(&self, kind: &Kind, ended_at: UnixMs) {
        let (how, (name, cause)) = (kind.how, kind.event);
        let mut counts = self.counts.clone();
        *counts.entry(cause.as_str().to_owned()).or_default() += 1;
        assert_eq!(ends(&self.world), counts, "{how:?}: the metric");
        let events = self.world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items;
        let since = events.into_iter().filter(|event| event.seq > self.seq && event.body.contains_key("cause"));
        let ends: Vec<_> = since.collect();
        let [event] = ends.as_slice() else { panic!("{how:?}: {ends:?}") };
        let body = &event.body;
        assert_eq!((&body["type"], &body["cause"]), (&json!(name), &json!(cause.as_str())), "{how:?}");
        assert_eq!(body["ended_at"], json!(ended_at.as_ms()), "{how:?}");
        let task = if how == How::ParentEnded { self.parent.task } else { self.issued.task };
        let (tasks, leases) = (body.get("task").cloned(), body.get("lease").cloned());
        let expected = match name {
            "tombstone" => (None, None),
            "task_ended" => (Some(json!(task.to_string())), None),
            _ => (Some(json!(task.to_string())), Some(json!(lease(&self.issued).to_string()))),
        };
        assert_eq!((tasks, leases), expected, "{how:?}");
    }

    async fn assert_over(&self, kind: &Kind) {
        let text = token(&self.issued);
        lists::agree(&self.world, &text, false).await;
        let view = self.world.flow.lease(&OPERATOR, lease(&self.issued)).await.unwrap();
        assert_eq!((view.state, view.cause), (State::Ended, Some(kind.cause)), "{:?}", kind.how);
        // Its key signed everything.
        lists::agree(&self.world, &token(&self.other), kind.how != How::KeyTainted).await;
    }
}

/// The counter by cause, as a scrape reads it.
fn ends(world: &World) -> BTreeMap<String, u64> {
    let text = world.counted();
    let lines = text.lines().filter_map(|line| line.strip_prefix("dayfly_ended_total{cause=\"")?.split_once("\"} "));
    lines.map(|(cause, count)| (cause.to_owned(), count.parse().unwrap())).collect()
}

async fn newest(world: &World) -> u64 {
    world.flow.events(&OPERATOR, EventFilter::default(), 1, None).await.unwrap().items[0].seq
}

/// Introspection, the list, the ledger and the metric say the same of every kind of end, now and after a
/// restart, and within the bound that was stated when it was issued and when it ended.
#[tokio::test]
async fn of_every_kind_of_end_all_who_tell_it_agree_within_the_stated_time() {
    println!("end               introspection  list      worst case stated");
    for kind in KINDS {
        let mut stage = Stage::set(kind.how).await;
        let promised = stage.issued.credential.as_ref().unwrap().revocation[0];
        let before = stage.world.now();
        stage.end(kind.how).await;
        let (introspection_ms, list_ms) = stage.measure().await;
        assert!((kind.within_ms - LIST_MS..=kind.within_ms).contains(&introspection_ms), "{:?}", kind.how);
        let lag_ms = list_ms - introspection_ms;
        assert!((0..=LIST_MS).contains(&lag_ms), "{:?}: {lag_ms}", kind.how);

        // Whoever asks for the end of what has ended is told of that end. What ended by itself is on the
        // record once a later commit is.
        stage.world.open(&Job::pay(), "pay").await;
        let told = stage.world.flow.end_lease(&OPERATOR, lease(&stage.issued), None).await.unwrap();
        assert_eq!((told.state, told.cause), (State::Ended, Some(kind.cause)), "{:?}", kind.how);
        let ended_at = told.ended_at.unwrap();
        assert!(ended_at <= before.plus_ms(introspection_ms), "{:?}", kind.how);
        let [known] = told.channels[..] else { panic!("{:?}: {told:?}", kind.how) };
        assert_eq!((known.channel, known.known), (Channel::StatusList, true), "{:?}", kind.how);
        // A server that fetches as it should, and one that cannot fetch at all.
        let stated = known.worst_case_at;
        assert!(before.plus_ms(list_ms) < stated && stage.list_expires_at <= stated, "{:?}", kind.how);
        assert!(lag_ms <= promised.usual_s as i64 * 1_000);
        assert!(stated <= ended_at.plus_s(promised.bound_s as i64), "{:?}: no later than was promised", kind.how);
        let stated_ms = stated.as_ms() - ended_at.as_ms();
        println!("{:<16} {introspection_ms:>9} ms {list_ms:>9} ms {stated_ms:>9} ms", format!("{:?}", kind.how));

        stage.assert_recorded(&kind, ended_at).await;
        for restarted in [false, true] {
            if restarted {
                stage.world.restart().await;
            }
            stage.assert_over(&kind).await;
            mass::clean(&stage.world);
        }
    }
}

/// Killed between commit and answer: nobody ever saw the credential, and nobody will use it.
#[tokio::test]
async fn what_was_committed_and_never_answered_is_found_by_the_handle_and_dead_on_the_list() {
    let mut world = World::on_file_with(&lists::bundle(), "");
    let (own, hash) = client_handle(5);
    let evidence = world.evidence(&Job::shop().run("1"));
    let unseen = world.present_with(&evidence, Some(hash), ask("flush")).await.unwrap();
    world.stop().await;
    world.start_again().unwrap();
    lists::agree(&world, &token(&unseen), true).await;
    let (_, others) = client_handle(6);
    for hash in [Some(hash), Some(others), None] {
        let again = world.present_with(&evidence, hash, ask("flush")).await;
        assert_eq!(reason(again), dayfly_domain::Reason::Replayed, "the evidence alone gets nothing");
    }
    let found = world.feed(&own, Some(0)).await.unwrap();
    assert_eq!(found.task, unseen.task);
    lists::agree(&world, &token(&unseen), false).await;
    lists::agree(&world, &token(&found), true).await;
    assert_eq!(ends(&world).get("superseded"), Some(&1));
    let states = mass::states(&world, "leases?template=flush").await;
    let words = [("active", ""), ("ended", "superseded")];
    assert_eq!(states, words.map(|(state, cause)| (state.to_owned(), cause.to_owned())));
    world.restart().await;
    lists::agree(&world, &token(&unseen), false).await;
    mass::clean(&world);
}
