use dayfly_domain::{Bound, Cause};

use super::*;
use crate::{
    lease::{Asks, Fence, Limits, Quotas},
    store::Change,
};

const AT: UnixMs = UnixMs::from_s(1_000);
const PLENTY: Quotas = Quotas { owner: u32::MAX, production: 0, workload: u32::MAX };
const LIMITS: Limits = Limits { per_job: 10_000, keys_per_job: None };

fn row(number: u32, parent: Option<u32>) -> TaskRow {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    let text = String::new;
    TaskRow {
        id: id(number),
        parent: parent.map(id),
        template: "deploy".into(),
        purpose: text(),
        ticket: None,
        job: Some(number.to_string()),
        row: text(),
        owner: text(),
        environment: text(),
        issuer: "ci".into(),
        profile: text(),
        workload: "ci/shop".into(),
        untrusted: false,
        grants: "{}".into(),
        evidence_key: hash,
        evidence_iat_s: 990,
        evidence_exp_s: 1_200,
        claims: None,
        handle_hash: hash,
        bound: Bound::None,
        thumbprint: None,
        opened_at: AT,
        deadline: AT.plus_s(900),
        seq: 0,
        held: false,
        end: None,
    }
}

fn id(number: u32) -> TaskId {
    TaskId::from_u128(u128::from(number))
}

fn open(table: &Table, row: TaskRow) {
    table.apply(&Change::OpenTask(row));
}

/// As the writer would, one at a time.
fn try_open(table: &Table, row: TaskRow, seconds: i64) -> Result<(), Overtaken> {
    Fence::new(table, PLENTY, Now::exactly(AT.plus_s(seconds))).open(&row, None, LIMITS, Asks::Nothing)?;
    open(table, row);
    Ok(())
}

fn end(table: &Table, number: u32, seconds: i64) {
    let end = End { at: AT.plus_s(seconds), cause: Cause::Completed, seq: None };
    assert_eq!(table.mark_task(id(number), end), Some(end));
}

#[test]
fn a_tree_grows_neither_too_deep_nor_too_broad() {
    let table = Table::default();
    open(&table, row(1, None));
    for number in 2..=4 {
        assert_eq!(try_open(&table, row(number, Some(number - 1)), 0), Ok(()), "{number}");
    }
    assert_eq!(try_open(&table, row(5, Some(4)), 0), Err(Overtaken::TooDeep));
    for number in 100..163 {
        assert_eq!(try_open(&table, row(number, Some(1)), 0), Ok(()), "{number}");
    }
    assert_eq!(try_open(&table, row(200, Some(1)), 0), Err(Overtaken::TooManyChildren));
    end(&table, 110, 1);
    assert_eq!(try_open(&table, row(200, Some(1)), 1), Ok(()), "an ended child gives its place back");
    assert_eq!(try_open(&table, row(201, Some(1)), 1), Err(Overtaken::TooManyChildren));
    assert_eq!(try_open(&table, row(201, Some(2)), 1), Ok(()), "each has its own");
}

#[test]
fn an_expired_child_gives_its_place_back() {
    let table = Table::default();
    open(&table, row(1, None));
    for number in 2..66 {
        try_open(&table, TaskRow { deadline: AT.plus_s(10), ..row(number, Some(1)) }, 0).unwrap();
    }
    assert_eq!(try_open(&table, row(70, Some(1)), 9), Err(Overtaken::TooManyChildren));
    assert_eq!(try_open(&table, row(70, Some(1)), 10), Ok(()));
    assert_eq!(table.broods.get(&id(1)).unwrap().open, [id(70)], "what has expired is not looked at again");
}

#[test]
fn children_of_one_batch_count_and_wait_for_their_parent() {
    let table = Table::default();
    open(&table, row(1, None));
    let mut fence = Fence::new(&table, PLENTY, Now::exactly(AT));
    for number in 2..66 {
        assert_eq!(fence.open(&row(number, Some(1)), None, LIMITS, Asks::Nothing), Ok(()), "{number}");
    }
    assert_eq!(fence.open(&row(70, Some(1)), None, LIMITS, Asks::Nothing), Err(Overtaken::TooManyChildren));
    assert!(fence.follows(&row(71, Some(2)), false), "its parent may yet fail to be written");
    assert!(!fence.follows(&row(71, Some(1)), false));
}

#[test]
fn below_an_end_nothing_opens() {
    let table = Table::default();
    open(&table, row(1, None));
    open(&table, row(2, Some(1)));
    open(&table, row(3, Some(2)));
    end(&table, 1, 5);
    for parent in 1..=3 {
        assert_eq!(try_open(&table, row(10, Some(parent)), 5), Err(Overtaken::ParentEnded), "{parent}");
    }
    assert_eq!(try_open(&table, row(10, Some(99)), 0), Err(Overtaken::ParentEnded), "an unknown parent is none");
    open(&table, row(20, None));
    let longer = TaskRow { deadline: AT.plus_s(901), ..row(21, Some(20)) };
    assert_eq!(try_open(&table, longer, 0), Err(Overtaken::OutlivesParent));
    assert_eq!(try_open(&table, row(21, Some(20)), 900), Err(Overtaken::ParentEnded), "an expired parent takes none");
}

#[test]
fn how_a_child_stands_says_whose_end_it_was() {
    let table = Table::default();
    open(&table, row(1, None));
    open(&table, row(2, Some(1)));
    open(&table, row(3, Some(2)));
    end(&table, 3, 1);
    end(&table, 1, 5);
    let stands = |number, seconds| table.standing(id(number), Now::exactly(AT.plus_s(seconds))).unwrap();
    assert_eq!((stands(2, 4).state, stands(2, 4).end), (State::Active, None));
    for seconds in [5, 10_000] {
        let standing = stands(2, seconds);
        assert_eq!((standing.state, standing.end.unwrap().cause), (State::Ended, Cause::ParentEnded));
    }
    assert_eq!(stands(3, 10).end.unwrap().cause, Cause::Completed, "its own came first");
}

#[test]
fn a_parent_is_not_forgotten_before_its_children() {
    let table = Table::default();
    open(&table, row(1, None));
    open(&table, row(2, Some(1)));
    // The evidence of the youngest can be presented longer than anybody lives.
    open(&table, TaskRow { evidence_exp_s: 5_000, ..row(3, Some(2)) });
    end(&table, 1, 5);
    let now = Now::exactly(AT.plus_s(1_000));
    table.forget_expired(now, 10);
    let stands = |number| table.standing(id(number), now).map(|standing| standing.end.map(|end| end.cause));
    assert_eq!(stands(3), Some(Some(Cause::ParentEnded)), "what ended it is still known");
    assert!(stands(1).is_some() && stands(2).is_some());
    table.forget_expired(Now::exactly(AT.plus_s(5_030)), 10);
    assert!(table.tasks.len() == 0 && table.broods.is_empty());
}

#[test]
fn a_parent_without_children_is_forgotten_in_its_time() {
    let table = Table::default();
    open(&table, row(1, None));
    open(&table, TaskRow { deadline: AT.plus_s(10), ..row(2, Some(1)) });
    assert_eq!(table.forget_expired(Now::exactly(AT.plus_s(231)), 10), 1);
    assert!(table.broods.is_empty() && table.tasks.len() == 1);
    table.forget_expired(Now::exactly(AT.plus_s(900)), 10);
    assert_eq!(table.tasks.len(), 0);
}
