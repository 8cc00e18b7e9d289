//! What the table answers.

use dayfly_domain::Kind;

use super::*;

const AT: UnixMs = UnixMs::from_s(1_000);

fn task_row(number: u8, parent: Option<TaskId>) -> TaskRow {
    let text = String::new;
    TaskRow {
        id: TaskId::from_parts(1, [number; 10]),
        parent,
        template: "deploy".into(),
        purpose: text(),
        ticket: None,
        job: None,
        row: text(),
        owner: text(),
        environment: text(),
        issuer: text(),
        profile: text(),
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

fn lease_row(task: TaskId) -> LeaseRow {
    LeaseRow {
        id: LeaseId::from_parts(1, [9; 10]),
        task,
        seq: 1,
        target: "shop".into(),
        kind: Kind::Jwt,
        row: String::new(),
        actions: "[]".into(),
        issued_at: AT,
        expires: AT.plus_s(900),
        credential_hash: [9; 32],
        thumbprint: None,
        kid: None,
        status: None,
        end: None,
    }
}

fn state(table: &Table, lease: LeaseId, seconds: i64) -> State {
    table.lease_state(&table.lease(lease).unwrap(), Now::exactly(AT.plus_s(seconds))).0
}

#[test]
fn jobs_of_two_issuers_are_two_jobs() {
    let of = |issuer: &str| {
        let row = TaskRow { issuer: issuer.into(), job: Some("7/1".into()), ..task_row(1, None) };
        Label::of_row(&row)
    };
    assert!(of("github") != of("ghes") && of("github") == of("github"));
    let table = Table::default();
    let row = TaskRow { issuer: "github".into(), job: Some("7/1".into()), ..task_row(1, None) };
    table.apply(&Change::OpenTask(row.clone()));
    assert_eq!(Label::of(&table.task(row.id).unwrap()), Label::of_row(&row), "one label, however it is asked");
}

#[test]
fn a_supersede_does_not_revive_what_was_ended_meanwhile() {
    let (table, task) = (Table::default(), task_row(1, None));
    let lease = lease_row(task.id);
    let (id, ahead) = (lease.id, EndRow { at: AT.plus_s(30), cause: Cause::Superseded, seq: 7 });
    table.apply(&Change::OpenTask(task));
    table.apply(&Change::AddLease(lease));
    // The supersede is on its way to the store when the lease is ended by hand.
    let mark = End { at: AT.plus_s(1), cause: Cause::Revoked, seq: None };
    table.mark_lease(id, mark).unwrap();
    table.apply(&Change::EndLease(id, ahead));
    assert_eq!(state(&table, id, 1), State::Ended);
    assert_eq!(table.lease(id).unwrap().end, Some(mark), "and the mark is still to be written");
    table.apply(&Change::EndLease(id, EndRow { at: mark.at, cause: mark.cause, seq: 8 }));
    assert_eq!(table.lease(id).unwrap().end, Some(End { seq: Some(8), ..mark }));
}

#[test]
fn an_end_above_is_an_end_below() {
    let table = Table::default();
    let (top, middle) = (task_row(1, None), task_row(2, Some(task_row(1, None).id)));
    let bottom = task_row(3, Some(middle.id));
    let (lease, ids) = (lease_row(bottom.id), [top.id, middle.id, bottom.id]);
    let id = lease.id;
    [top, middle, bottom].into_iter().for_each(|row| table.apply(&Change::OpenTask(row)));
    table.apply(&Change::AddLease(lease));
    table.mark_task(ids[1], End { at: AT.plus_s(5), cause: Cause::Completed, seq: None });
    let now = Now::exactly(AT.plus_s(5));
    let states = ids.map(|id| table.task_state(id, now).unwrap());
    assert_eq!(states, [State::Active, State::Ended, State::Ended], "never a parent");
    let (state, end) = table.lease_state(&table.lease(id).unwrap(), now);
    assert_eq!((state, end.map(|end| end.cause)), (State::Ended, Some(Cause::ParentEnded)));
    assert_eq!(self::state(&table, id, 4), State::Active, "not before");
}

#[test]
fn a_block_is_not_shortened_by_another() {
    let (table, label) = (Table::default(), Label::of_row(&task_row(1, None)));
    for seconds in [60, 30] {
        let until = Some(AT.plus_s(seconds));
        let id = dayfly_domain::BlockId::from_parts(1, [0; 10]);
        table.apply(&Change::AddBlock(BlockRow { id, selector: label.selector(), until, seq: 0 }));
    }
    assert!(table.is_blocked(&label, Now::exactly(AT.plus_s(59))));
}

#[test]
fn what_ended_with_its_parent_stays_ended_when_its_time_is_over() {
    let table = Table::default();
    let top = task_row(1, None);
    let below = TaskRow { deadline: AT.plus_s(60), ..task_row(2, Some(top.id)) };
    let (parent, child) = (top.id, below.id);
    [top, below].into_iter().for_each(|row| table.apply(&Change::OpenTask(row)));
    table.mark_task(parent, End { at: AT.plus_s(5), cause: Cause::Revoked, seq: None });
    let state = |seconds| table.task_state(child, Now::exactly(AT.plus_s(seconds)));
    assert_eq!([4, 5, 60].map(state), [State::Active, State::Ended, State::Ended].map(Some));
}

#[test]
fn the_first_end_stays() {
    let (table, task) = (Table::default(), task_row(1, None));
    let id = task.id;
    table.apply(&Change::OpenTask(task));
    let first = End { at: AT, cause: Cause::Completed, seq: None };
    assert_eq!(table.mark_task(id, first), Some(first));
    assert_eq!(table.mark_task(id, End { cause: Cause::Revoked, ..first }), Some(first));
}

#[test]
fn evidence_and_handle_are_remembered_as_long_as_either_may_come_back() {
    let (table, task) = (Table::default(), task_row(1, None));
    let (id, hash) = (task.id, task.handle_hash);
    table.apply(&Change::OpenTask(TaskRow { deadline: AT.plus_s(5), ..task }));
    // The evidence's `exp` and its leeway come later than the deadline.
    assert_eq!(table.forget_expired(Now::exactly(AT.plus_s(629)), 10), 0);
    assert_eq!(table.task_of_handle(&hash), Some(id));
    assert_eq!(table.forget_expired(Now::exactly(AT.plus_s(630)), 10), 1);
    assert!(table.task_of_handle(&hash).is_none() && table.tasks.len() == 0 && table.jobs.is_empty());
}
