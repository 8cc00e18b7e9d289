//! Who waits for which batch.

use dayfly_domain::{Bound, Span};

use super::*;
use crate::{
    flow::{Allowance, Folder, Rate, Startup, Upkeep, mass::Slice, start},
    lease::{Asks, BehindRow, Holding, Job, Limits, Quotas, Seen},
    policy::BundleEnv,
    store::{LeaseRow, TaskRow},
    sys::clock::{Clock, Stepped},
};

const AT: UnixMs = UnixMs::from_s(1_800_000_000);

fn task_row(number: u8, template: &str) -> TaskRow {
    TaskRow {
        id: TaskId::from_parts(1, [number; 10]),
        parent: None,
        template: template.into(),
        purpose: String::new(),
        ticket: None,
        job: None,
        row: String::new(),
        owner: String::new(),
        environment: String::new(),
        issuer: "ci".into(),
        profile: "oidc".into(),
        workload: "ci/shop".into(),
        untrusted: false,
        grants: "{}".into(),
        evidence_key: [number; 32],
        evidence_iat_s: 990,
        evidence_exp_s: 1_600,
        claims: None,
        handle_hash: [number; 32],
        bound: Bound::None,
        thumbprint: None,
        opened_at: AT,
        deadline: AT.plus_s(900),
        seq: 0,
        held: false,
        end: None,
    }
}

/// An opening that was decided while the job held tasks of these templates.
fn opening(row: TaskRow, held: &[&str]) -> Group {
    let holding = |template: &&str| Holding { template: (*template).into(), grants: "{}".into() };
    let job = Job::of_row(&row);
    Group::Issue(Box::new(IssueGroup {
        decided_under: dayfly_domain::bundle::Fingerprint([0; 32]),
        seen: Some(Seen { job, but: None, holdings: held.iter().map(holding).collect() }),
        ends_asked: 0,
        task: Subject::Open { row: Box::new(row), limits: LIMITS },
        lease: None,
        events: Vec::new(),
        supersede_s: None,
        ack: oneshot::channel().0,
    }))
}

const QUOTAS: Quotas = Quotas { owner: 1, production: 0, workload: 1 };
const LIMITS: Limits = Limits { per_job: 9, keys_per_job: None };

#[test]
fn more_of_what_a_job_holds_waits_for_no_batch_and_anything_else_does() {
    let table = Table::default();
    let mut fence = Fence::new(&table, QUOTAS, Now::exactly(AT));
    fence.open(&task_row(1, "deploy"), None, LIMITS, Asks::Nothing).unwrap();
    assert!(!follows(&opening(task_row(2, "deploy"), &["deploy"]), &fence), "the job holds it already");
    assert!(follows(&opening(task_row(2, "deploy"), &[]), &fence), "it was decided as if nothing was held");
    fence.open(&task_row(2, "count"), None, LIMITS, Asks::Nothing).unwrap();
    assert!(follows(&opening(task_row(3, "deploy"), &["deploy"]), &fence), "now the job holds more");
    let other = TaskRow { workload: "ci/pay".into(), ..task_row(4, "deploy") };
    assert!(!follows(&opening(other, &[]), &fence), "another job");
}

/// A broker on a bundle that believes nobody.
fn writer(dir: &std::path::Path) -> (Upkeep, Writer) {
    dayfly_verifier::crypto::init().unwrap();
    std::fs::write(dir.join("a.toml"), "format = 1\ntrust_domain = \"example.org\"\n[owner.o]\n").unwrap();
    let env = BundleEnv { issuer_url: "https://b.example".into(), broker_binding: dayfly_domain::BindingKind::Dpop };
    let startup = Startup {
        issuer: "https://b.example".into(),
        clock: Clock::Stepped(Stepped::at(AT)),
        store: Store::memory().unwrap(),
        keys_dir: None,
        source: Arc::new(Folder { path: dir.to_owned(), env }),
        strict_rollback: false,
        review_grace: Span::seconds(1),
        list_sizes: Default::default(),
        allowance: Allowance { workload: Rate::new(1, 1), storm_per_minute: 1, quotas: QUOTAS },
        pki: None,
    };
    let (_, writer, upkeep) = start(startup).unwrap_or_else(|error| panic!("{error:?}"));
    (upkeep, writer)
}

#[test]
fn what_is_carried_takes_no_room_from_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (_upkeep, mut writer) = writer(dir.path());
    writer.carried.extend((0..2 * BATCH_MAX).map(|_| Group::Wake));
    writer.shared.queue.try_send(opening(task_row(1, "deploy"), &[])).unwrap();
    let gathered = writer.gather().unwrap();
    assert_eq!(gathered.len(), 2 * BATCH_MAX + 1);
    assert!(matches!(gathered.last(), Some(Group::Issue(_))), "who comes last is looked at with the rest");
    (0..2 * BATCH_MAX).for_each(|_| writer.shared.queue.try_send(Group::Wake).unwrap());
    assert_eq!(writer.gather().unwrap().len(), BATCH_MAX, "and no more than a batch of them");
}

#[test]
fn what_a_tainted_key_signed_meanwhile_is_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (_upkeep, writer) = writer(dir.path());
    let kid = writer.shared.keyring.active_kid();
    let signed = |kid: &str| -> (Group, oneshot::Receiver<Result<u64, NotCommitted>>) {
        let (ack, answer) = oneshot::channel();
        let row = task_row(1, "deploy");
        let lease = LeaseRow {
            id: LeaseId::from_parts(1, [1; 10]),
            task: row.id,
            seq: 0,
            target: "shop".into(),
            kind: Kind::Jwt,
            row: String::new(),
            actions: "[]".into(),
            issued_at: AT,
            expires: AT.plus_s(900),
            credential_hash: [1; 32],
            thumbprint: None,
            kid: Some(kid.to_owned()),
            status: None,
            end: None,
        };
        let group = IssueGroup {
            decided_under: writer.shared.policy.load().bundle().fingerprint,
            seen: None,
            ends_asked: 0,
            task: Subject::Open { row: Box::new(row), limits: LIMITS },
            lease: Some(lease),
            events: Vec::new(),
            supersede_s: None,
            ack,
        };
        (Group::Issue(Box::new(group)), answer)
    };
    let (group, mut answer) = signed(&kid);
    writer.shared.keyring.taint(&kid, AT).unwrap();
    let (shared, now) = (writer.shared.clone(), Now::exactly(AT));
    let (mut fence, mut seq) = (Fence::new(&shared.table, QUOTAS, now), 0);
    assert!(writer.prepare(group, &mut fence, &mut seq, now).is_none());
    assert_eq!(answer.try_recv(), Ok(Err(NotCommitted::OtherKey)), "signed before it was tainted");
    let (group, _answer) = signed(&writer.shared.keyring.active_kid());
    assert!(writer.prepare(group, &mut fence, &mut seq, now).is_some());
}

/// An opening that was decided under the bundle in force, and who waits for it.
fn decided(writer: &Writer, number: u8) -> (Group, oneshot::Receiver<Result<u64, NotCommitted>>) {
    let mut row = task_row(number, "deploy");
    row.owner = "team-shop".into();
    let stamp = || Stamp::draw(AT).unwrap();
    let entry = ledger::operator(stamp(), ledger::Outcome::Success, "test", "open", &Default::default());
    let (ack, answer) = oneshot::channel();
    let group = Group::Issue(Box::new(IssueGroup {
        decided_under: writer.shared.policy.load().bundle().fingerprint,
        seen: None,
        ends_asked: writer.shared.table.ends_asked(),
        task: Subject::Open { row: Box::new(row), limits: LIMITS },
        lease: None,
        events: vec![entry],
        supersede_s: None,
        ack,
    }));
    (group, answer)
}

fn asked(writer: &Writer, selector: &str, block: bool) {
    let tomb = writer.shared.table.ask_tomb(selector.parse().unwrap(), AT, Cause::Revoked, block);
    let block = block.then(|| BlockId::from_parts(1, [9; 10]));
    let (actor, reason, acks) = ("test".to_owned(), None, Vec::new());
    writer.shared.mass.ask(TombGroup { number: tomb.number, actor, reason, leases: 0, tasks: 0, block, acks });
}

/// The writer is the barrier: it has not yet looked at what was decided when the end is asked.
#[test]
fn t_092_nothing_that_was_decided_before_an_end_by_selector_leaves_after_it() {
    for block in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (_upkeep, mut writer) = writer(dir.path());
        let state = |writer: &Writer, number| {
            writer.shared.table.task_state(TaskId::from_parts(1, [number; 10]), Now::exactly(AT))
        };
        let (before, mut early) = decided(&writer, 1);
        writer.shared.queue.try_send(before).unwrap();
        asked(&writer, r#"owner == "team-shop""#, block);
        let (behind, mut late) = decided(&writer, 2);
        writer.shared.queue.try_send(behind).unwrap();
        let batch = writer.gather().unwrap();
        assert_eq!(batch.len(), 3);
        writer.batch(batch);
        if block {
            let refused = Err(NotCommitted::Overtaken(Overtaken::Blocked));
            let early = early.try_recv().unwrap();
            assert!(early == Err(NotCommitted::OtherEnds), "it is decided again, and then refused: {early:?}");
            assert_eq!(late.try_recv().unwrap(), refused);
            assert_eq!((state(&writer, 1), state(&writer, 2)), (None, None), "the evidence is not used up");
            let (after, mut answer) = decided(&writer, 3);
            writer.batch(vec![after]);
            assert_eq!(answer.try_recv().unwrap(), refused, "and it stays so");
        } else {
            assert_eq!(early.try_recv().unwrap(), Err(NotCommitted::OtherEnds), "it is decided again");
            assert!(late.try_recv().unwrap().is_ok());
            let states = (state(&writer, 1), state(&writer, 2));
            assert_eq!(states, (None, Some(State::Active)), "what was decided after it");
        }
        writer.shared.table.tombs().iter().for_each(|tomb| assert!(tomb.end.seq.is_some()));
    }
}

#[test]
fn what_an_end_blocks_is_refused_before_it_is_on_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let (_upkeep, mut writer) = writer(dir.path());
    writer.shared.table.ask_tomb(r#"owner == "team-shop""#.parse().unwrap(), AT, Cause::Revoked, true);
    let (group, mut answer) = decided(&writer, 1);
    writer.batch(vec![group]);
    assert_eq!(answer.try_recv().unwrap(), Err(NotCommitted::Overtaken(Overtaken::Blocked)));
}

/// A task whose own end counts, and is not yet written.
fn completed(writer: &mut Writer) -> TaskId {
    let (group, _answer) = decided(writer, 1);
    writer.batch(vec![group]);
    let id = TaskId::from_parts(1, [1; 10]);
    writer.shared.table.mark_task(id, End { at: AT, cause: Cause::Completed, seq: None });
    id
}

/// An operator's end that finds the job's own end on its way.
#[test]
fn a_job_that_ends_its_task_in_the_same_moment_does_not_dodge_the_block() {
    let dir = tempfile::tempdir().unwrap();
    let (_upkeep, mut writer) = writer(dir.path());
    let id = completed(&mut writer);
    let end = |actor: &str, block| {
        let (ack, answer) = oneshot::channel();
        let actor = actor.to_owned();
        let group = EndGroup { what: What::Task(id), actor, reason: None, block, acks: vec![ack] };
        (Group::End(group), answer)
    };
    let ((own, _), (operator, mut answer)) = (end("handle", false), end("local:0", true));
    writer.batch(vec![own, operator]);
    while !writer.carried.is_empty() {
        let carried = writer.carried.drain(..).collect();
        writer.batch(carried);
    }
    let first = answer.try_recv().unwrap().unwrap();
    assert_eq!((first.cause, first.at), (Cause::Completed, AT), "the first end is the answer");
    let (again, mut refused) = decided(&writer, 2);
    writer.batch(vec![again]);
    assert_eq!(refused.try_recv().unwrap(), Err(NotCommitted::Overtaken(Overtaken::Blocked)));
}

#[test]
fn rows_that_are_caught_up_keep_the_name_of_their_end() {
    let row = |seq| Change::EndTask(TaskId::from_parts(1, [1; 10]), EndRow { at: AT, cause: Cause::Revoked, seq });
    let (mut earlier, mut own) = (row(7), row(12));
    move_back(&mut earlier, 10, 2);
    move_back(&mut own, 10, 2);
    assert_eq!((earlier, own), (row(7), row(10)));
}

/// A slice of rows and an end of its own of the same task, in one batch: one of the two waits.
#[test]
fn a_task_is_not_ended_twice_in_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let (_upkeep, mut writer) = writer(dir.path());
    let id = completed(&mut writer);
    asked(&writer, r#"owner == "team-shop""#, false);
    let groups = writer.gather_asked();
    writer.batch(groups);
    let tomb = writer.shared.table.tombs()[0].clone();
    assert_eq!(writer.shared.table.behind(&tomb), [BehindRow::Task(id)], "its own end is not durable");
    let seq = tomb.end.seq.unwrap();
    let slice = Slice { seq, rows: writer.shared.table.behind(&tomb), last: false };
    let own = EndGroup { what: What::Task(id), actor: "handle".into(), reason: None, block: false, acks: Vec::new() };
    writer.batch(vec![Group::End(own), Group::Behind(slice)]);
    assert!(writer.shared.table.behind(&tomb).is_empty());
    writer.batch(vec![Group::Behind(Slice { seq, rows: Vec::new(), last: true })]);
    assert!(writer.shared.table.tombs().is_empty());
    let report = writer.shared.reader.snapshot(|rows| ledger::verify(rows, AT)).unwrap().unwrap();
    let about_ends: Vec<_> = report.problems.iter().filter(|problem| problem.contains("end")).collect();
    assert!(about_ends.is_empty(), "{about_ends:?}");
}
