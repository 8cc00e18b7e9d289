//! Counts against what a look at every lease finds, under whatever order of openings, ends and jumps.

use std::collections::BTreeMap;

use dayfly_domain::{Bound, Cause, Kind, TaskId};
use proptest::prelude::*;

use super::*;
use crate::{
    lease::{End, Fence, Limits, Overtaken},
    store::{Change, EndRow, LeaseRow, TaskRow},
};

const AT: UnixMs = UnixMs::from_s(1_000);
const LIMITS: Limits = Limits { per_job: 1_000, keys_per_job: None };
const QUOTAS: Quotas = Quotas { owner: 8, production: 2, workload: 5 };

/// Whose task it is.
#[derive(Debug, Clone, Copy)]
struct Of {
    owner: &'static str,
    environment: &'static str,
    workload: &'static str,
    untrusted: bool,
}

const SHOP: Of = Of { owner: "shop", environment: "staging", workload: "ci/1", untrusted: false };

fn task_row(number: u32, of: Of, parent: Option<TaskId>) -> TaskRow {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    TaskRow {
        id: task_id(number),
        parent,
        template: "deploy".into(),
        purpose: String::new(),
        ticket: None,
        job: None,
        row: String::new(),
        owner: of.owner.into(),
        environment: of.environment.into(),
        issuer: "ci".into(),
        profile: "ci".into(),
        workload: of.workload.into(),
        untrusted: of.untrusted,
        grants: "{}".into(),
        evidence_key: key,
        evidence_iat_s: 990,
        evidence_exp_s: 1_600,
        claims: None,
        handle_hash: key,
        bound: Bound::None,
        thumbprint: None,
        opened_at: AT,
        deadline: AT.plus_s(900),
        seq: 0,
        held: false,
        end: None,
    }
}

fn lease_row(number: u32, task: u32, at: UnixMs, life_s: i64) -> LeaseRow {
    LeaseRow {
        id: lease_id(number),
        task: task_id(task),
        seq: 1,
        target: "shop".into(),
        kind: Kind::Jwt,
        row: String::new(),
        actions: "[]".into(),
        issued_at: at,
        expires: at.plus_s(life_s),
        credential_hash: [9; 32],
        thumbprint: None,
        kid: None,
        status: None,
        end: None,
    }
}

fn task_id(number: u32) -> TaskId {
    TaskId::from_u128(u128::from(number) + 1)
}

fn lease_id(number: u32) -> LeaseId {
    LeaseId::from_u128(u128::from(number) + 1)
}

/// What the counts say: all owners, all workloads.
fn counted(table: &Table) -> (BTreeMap<String, (u32, u32)>, BTreeMap<u64, u32>) {
    let owners = table.owner_uses().into_iter().filter(|(_, used)| used.all() > 0);
    let owners = owners.map(|(owner, used)| (owner.to_string(), (used.production, used.outside))).collect();
    (owners, table.counts.workloads.iter().map(|entry| (*entry.key(), *entry.value())).collect())
}

/// The same by a look at every lease for which this holds.
fn recounted(table: &Table, counts: impl Fn(&Lease) -> bool) -> (BTreeMap<String, (u32, u32)>, BTreeMap<u64, u32>) {
    let (mut owners, mut workloads) = (BTreeMap::<String, (u32, u32)>::new(), BTreeMap::new());
    for lease in table.leases.iter().map(|entry| entry.value().clone()).filter(counts) {
        let holder = table.counts.of_task(&table.task(lease.task).unwrap());
        let (production, outside) = owners.entry(holder.owner.to_string()).or_default();
        *if holder.production { production } else { outside } += 1;
        *workloads.entry(holder.workload).or_default() += 1;
    }
    (owners, workloads)
}

#[derive(Debug, Clone)]
enum Step {
    Open {
        of: Of,
        below: Option<u32>,
    },
    Issue {
        task: u32,
        life_s: i64,
    },
    MarkTask(u32),
    MarkLease(u32),
    /// Durable, after so many seconds.
    EndLease {
        lease: u32,
        after_s: i64,
    },
    EndTask(u32),
    Pass {
        ms: i64,
    },
    Forget {
        max: usize,
    },
    /// A batch begins.
    Batch,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let of = (prop::sample::select(vec!["shop", "pay"]), prop::sample::select(vec!["production", "staging", "test"]));
    let of = (of, prop::sample::select(vec!["ci/1", "ci/2"]), any::<bool>());
    let of = of.prop_map(|((owner, environment), workload, untrusted)| Of { owner, environment, workload, untrusted });
    let number = || 0..12u32;
    let step = prop_oneof![
        3 => (of, prop::option::of(number())).prop_map(|(of, below)| Step::Open { of, below }),
        8 => (number(), 1..300i64).prop_map(|(task, life_s)| Step::Issue { task, life_s }),
        1 => number().prop_map(Step::MarkTask),
        2 => number().prop_map(Step::MarkLease),
        3 => (number(), 0..60i64).prop_map(|(lease, after_s)| Step::EndLease { lease, after_s }),
        1 => number().prop_map(Step::EndTask),
        3 => (0..200_000i64).prop_map(|ms| Step::Pass { ms }),
        2 => (1..4usize).prop_map(|max| Step::Forget { max }),
        2 => Just(Step::Batch),
    ];
    prop::collection::vec(step, 1..120)
}

/// One table, driven by numbers: a number that is not there does nothing.
struct Driven {
    table: Table,
    at: UnixMs,
    tasks: u32,
    leases: u32,
}

impl Driven {
    fn now(&self) -> Now {
        Now::exactly(self.at)
    }

    fn take(&mut self, step: Step) {
        let now = self.now();
        let end = End { at: self.at, cause: Cause::Revoked, seq: None };
        let written = |at| EndRow { at, cause: Cause::Superseded, seq: 7 };
        match step {
            Step::Open { of, below } => {
                let parent = below.filter(|below| *below < self.tasks).map(task_id);
                let row = TaskRow { deadline: self.at.plus_s(300), ..task_row(self.tasks, of, parent) };
                self.table.apply(&Change::OpenTask(row));
                self.tasks += 1;
            }
            // As the fence does: what has ended gets nothing.
            Step::Issue { task, life_s } if self.table.task_state(task_id(task), now) == Some(State::Active) => {
                let deadline = self.table.task(task_id(task)).unwrap().deadline;
                let row = lease_row(self.leases, task, self.at, life_s);
                let expires = row.expires.min(deadline);
                self.table.apply(&Change::AddLease(LeaseRow { expires, ..row }));
                self.leases += 1;
            }
            Step::Issue { .. } => {}
            Step::MarkTask(task) => drop(self.table.mark_task(task_id(task), end)),
            Step::MarkLease(lease) => drop(self.table.mark_lease(lease_id(lease), end)),
            // Nobody writes an end that is later than the one there is.
            Step::EndLease { lease, after_s } => {
                let at = self.at.plus_s(after_s);
                let earlier =
                    self.table.lease(lease_id(lease)).and_then(|lease| lease.end).is_some_and(|end| end.at <= at);
                if !earlier {
                    self.table.apply(&Change::EndLease(lease_id(lease), written(at)));
                }
            }
            Step::EndTask(task) => self.table.apply(&Change::EndTask(task_id(task), written(self.at))),
            Step::Pass { ms } => self.at = self.at.plus_ms(ms),
            Step::Forget { max } => drop(self.table.forget_expired(now, max)),
            Step::Batch => self.table.release_due(now),
        }
    }
}

proptest! {
    #[test]
    fn counts_are_what_a_recount_finds(steps in steps()) {
        let mut driven = Driven { table: Table::default(), at: AT, tasks: 0, leases: 0 };
        for step in steps {
            driven.take(step);
            let (table, now) = (&driven.table, driven.now());
            prop_assert_eq!(counted(table), recounted(table, |lease| lease.counted), "a count is its marks");
            let live = |lease: &Lease| table.lease_state(lease, now).0 == State::Active;
            let unmarked = table.leases.iter().any(|entry| live(entry.value()) && !entry.value().counted);
            prop_assert!(!unmarked, "nothing that lives is left out");
        }
        let (table, now) = (&driven.table, driven.now());
        table.release_over(now);
        let live = |lease: &Lease| table.lease_state(lease, now).0 == State::Active;
        prop_assert_eq!(counted(table), recounted(table, live), "and after a look it is exact");
        let after = Now::exactly(driven.at.plus_s(100_000));
        while table.forget_expired(after, 3) > 0 {}
        prop_assert_eq!(counted(table), Default::default(), "nothing is left of what is forgotten");
    }
}

/// Tries to open tasks one after another in one batch; gives what became of each.
fn open(table: &Table, numbers: std::ops::Range<u32>, of: Of) -> Vec<Result<(), Overtaken>> {
    let mut fence = Fence::new(table, QUOTAS, Now::exactly(AT));
    numbers.map(|number| fence.open(&task_row(number, of, None), None, LIMITS, Asks::Lease)).collect()
}

/// The same, and those that may are committed.
fn issue(table: &Table, numbers: std::ops::Range<u32>, of: Of) -> usize {
    let allowed = open(table, numbers.clone(), of);
    for number in numbers.zip(&allowed).filter(|(_, allowed)| allowed.is_ok()).map(|(number, _)| number) {
        table.apply(&Change::OpenTask(task_row(number, of, None)));
        table.apply(&Change::AddLease(lease_row(number, number, AT, 900)));
    }
    allowed.iter().filter(|allowed| allowed.is_ok()).count()
}

#[test]
fn t_098_asks_at_once_do_not_pass_a_quota_together() {
    let table = Table::default();
    let asked = open(&table, 0..64, SHOP);
    assert_eq!(asked.iter().filter(|asked| asked.is_ok()).count(), 5);
    assert_eq!(asked[5], Err(Overtaken::Quota(Quota::Workload)));
    assert_eq!(issue(&table, 0..4, SHOP), 4, "nothing of it was committed, so nothing of it counts");
    assert_eq!(issue(&table, 4..64, SHOP), 1);
}

#[test]
fn a_flood_outside_of_production_leaves_production_its_share() {
    let table = Table::default();
    assert_eq!(issue(&table, 0..10, SHOP), 5);
    let test = Of { environment: "test", workload: "ci/2", ..SHOP };
    assert_eq!(issue(&table, 10..20, test), 1, "all that is not production together");
    assert_eq!(open(&table, 20..21, test), [Err(Overtaken::Quota(Quota::OwnerOutside))]);
    let production = Of { environment: "production", workload: "ci/3", ..SHOP };
    assert_eq!(issue(&table, 30..40, production), 2, "what is kept for it, and no more");
    assert_eq!(open(&table, 40..41, production), [Err(Overtaken::Quota(Quota::Owner))]);
    let other = Of { owner: "pay", workload: "ci/4", ..SHOP };
    assert_eq!(issue(&table, 50..60, other), 5, "another owner feels nothing of it");
}

#[test]
fn unreviewed_code_cannot_use_up_what_reviewed_code_has() {
    let table = Table::default();
    assert_eq!(issue(&table, 0..9, Of { untrusted: true, ..SHOP }), 5);
    assert_eq!(issue(&table, 9..10, SHOP), 1);
}

#[test]
fn an_end_frees_its_place_at_once() {
    let table = Table::default();
    assert_eq!(issue(&table, 0..9, SHOP), 5);
    let end = End { at: AT, cause: Cause::Revoked, seq: None };
    table.mark_lease(lease_id(0), end).unwrap();
    table.mark_task(task_id(1), end).unwrap();
    // Asked again, and written after that: still two.
    table.mark_task(task_id(1), end).unwrap();
    table.apply(&Change::EndLease(lease_id(0), EndRow { at: AT, cause: Cause::Revoked, seq: 3 }));
    table.apply(&Change::EndTask(task_id(1), EndRow { at: AT, cause: Cause::Revoked, seq: 4 }));
    assert_eq!(issue(&table, 10..20, SHOP), 2);
}

#[test]
fn an_end_far_above_frees_the_places_below() {
    let table = Table::default();
    table.apply(&Change::OpenTask(task_row(100, SHOP, None)));
    for number in 0..5 {
        table.apply(&Change::OpenTask(task_row(number, SHOP, Some(task_id(100)))));
        table.apply(&Change::AddLease(lease_row(number, number, AT, 900)));
    }
    assert_eq!(open(&table, 10..11, SHOP), [Err(Overtaken::Quota(Quota::Workload))]);
    table.mark_task(task_id(100), End { at: AT, cause: Cause::Revoked, seq: None }).unwrap();
    let mut fence = Fence::new(&table, QUOTAS, Now::exactly(AT.plus_s(1)));
    assert_eq!(fence.open(&task_row(10, SHOP, None), None, LIMITS, Asks::Lease), Ok(()));
}

#[test]
fn a_renewal_of_what_lives_is_not_refused_for_a_quota() {
    let table = Table::default();
    assert_eq!(issue(&table, 0..9, SHOP), 5);
    let mut fence = Fence::new(&table, QUOTAS, Now::exactly(AT));
    assert_eq!(fence.feed(task_id(0), None, Asks::Lease), Err(Overtaken::Quota(Quota::Workload)));
    let renewed = (0..9).filter(|_| fence.feed(task_id(0), None, Asks::Replacement).is_ok()).count();
    assert_eq!(renewed, 5, "but there are never more than twice as many");
    assert_eq!(fence.feed(task_id(0), None, Asks::Nothing), Ok(()));
}

#[test]
fn what_is_refused_for_anything_else_takes_no_place() {
    let table = Table::default();
    let mut fence = Fence::new(&table, QUOTAS, Now::exactly(AT));
    assert_eq!(fence.open(&task_row(0, SHOP, None), None, LIMITS, Asks::Lease), Ok(()));
    for _ in 0..20 {
        assert_eq!(fence.open(&task_row(0, SHOP, None), None, LIMITS, Asks::Lease), Err(Overtaken::Replayed));
    }
    assert_eq!((1..9).filter(|n| fence.open(&task_row(*n, SHOP, None), None, LIMITS, Asks::Lease).is_ok()).count(), 4);
}
