//! Everything that is done to a table, at once and for thousands of times, on real threads and the
//! product's own locks, while somebody watches that it goes on. `crates/races` looks at few steps in
//! every order; this at many steps in whatever order the machine takes them.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use dayfly_domain::{Cause, LeaseId, State, TaskId, UnixMs};

use super::{Asks, BehindRow, End, Fence, Job, Limits, Now, Quotas, Table, model_tests::blank_row};
use crate::store::{Change, EndRow, LeaseRow, TaskRow, TombRow};

const AT: UnixMs = UnixMs::from_s(1_800_000_000);
const ROUNDS: u64 = 1_500;
/// A thread that waits for another one that waits for it does so for ever.
const STALLED: Duration = Duration::from_secs(120);
const PLENTY: Quotas = Quotas { owner: u32::MAX, production: 0, workload: u32::MAX };
const LIMITS: Limits = Limits { per_job: u32::MAX, keys_per_job: None };

struct Soak {
    table: Table,
    now_ms: AtomicI64,
    /// Tasks that were opened.
    opened: AtomicU64,
    /// The writer; the next sequence number.
    writer: Mutex<u64>,
}

fn task_id(number: u64) -> TaskId {
    TaskId::from_parts(number, [1; 10])
}

fn lease_id(number: u64, renewed: u64) -> LeaseId {
    LeaseId::from_parts(number, [renewed as u8; 10])
}

impl Soak {
    fn now(&self) -> Now {
        Now::exactly(UnixMs::new(self.now_ms.load(Ordering::SeqCst)))
    }

    fn write(&self, changes: impl FnOnce(&Self, u64, Now) -> Vec<Change>) {
        let mut seq = self.writer.lock().unwrap();
        *seq += 2;
        let changes = changes(self, *seq, self.now());
        changes.iter().for_each(|change| self.table.apply(change));
    }

    fn open(&self, number: u64) {
        self.write(|soak, seq, now| {
            let mut evidence_key = [0; 32];
            evidence_key[..8].copy_from_slice(&number.to_le_bytes());
            let task = TaskRow {
                id: task_id(number),
                job: (!number.is_multiple_of(3)).then(|| format!("7/{}", number % 50)),
                owner: format!("team-{}", number % 5),
                evidence_key,
                handle_hash: evidence_key,
                opened_at: now.at,
                deadline: now.at.plus_s(30),
                seq,
                ..blank_row()
            };
            let lease = lease_row(lease_id(number, 0), task.id, seq, now);
            let mut fence = Fence::new(&soak.table, PLENTY, now);
            match fence.open(&task, Some(&lease), LIMITS, Asks::Lease) {
                Ok(()) => vec![Change::OpenTask(task), Change::AddLease(lease)],
                Err(refused) => panic!("{refused}"),
            }
        });
        self.opened.fetch_max(number, Ordering::SeqCst);
        self.now_ms.fetch_add(50, Ordering::SeqCst);
    }

    fn renew(&self, number: u64, times: u64) {
        self.write(|soak, seq, now| {
            let lease = lease_row(lease_id(number, times), task_id(number), seq, now);
            if Fence::new(&soak.table, PLENTY, now).feed(lease.task, Some(&lease), Asks::Lease).is_err() {
                return Vec::new();
            }
            let end = EndRow { at: now.at, cause: Cause::Superseded, seq: seq + 1 };
            let ended = soak.table.outliving(lease.task, "shop", now.at, now);
            let ended = ended.into_iter().map(|id| Change::EndLease(id, end));
            [Change::AddLease(lease)].into_iter().chain(ended).collect()
        });
    }

    fn end(&self, number: u64) {
        let mark = End { at: self.now().at, cause: Cause::Completed, seq: None };
        if self.table.mark_task(task_id(number), mark).is_some() {
            let row = |seq| EndRow { at: mark.at, cause: mark.cause, seq };
            self.write(|_, seq, _| vec![Change::EndTask(task_id(number), row(seq))]);
            assert_ne!(self.table.task_state(task_id(number), self.now()), Some(State::Active));
        }
    }

    fn end_by_owner(&self, number: u64) {
        let (at, cause) = (self.now().at, Cause::Revoked);
        let selector: dayfly_domain::Selector = format!("owner == \"team-{}\"", number % 5).parse().unwrap();
        let asked = self.table.ask_tomb(selector.clone(), at, cause, false).number;
        self.write(|_, seq, _| vec![Change::AddTomb(TombRow { seq, at, cause, selector, count: 0, done: false })]);
        let tomb = self.table.tomb(asked).unwrap();
        let seq = tomb.end.seq.unwrap();
        self.write(|soak, _, _| {
            let end = EndRow { at, cause, seq };
            let behind = soak.table.behind(&tomb).into_iter().map(|row| match row {
                BehindRow::Task(id) => Change::EndTask(id, end),
                BehindRow::Lease(id) => Change::EndLease(id, end),
            });
            behind.chain([Change::TombDone(seq)]).collect()
        });
    }

    fn look(&self, number: u64) {
        let now = self.now();
        if let Some(lease) = self.table.lease(lease_id(number, 0)) {
            self.table.lease_state(&lease, now);
        }
        self.table.holdings(&Job::of_parts("ci", Some(&format!("7/{}", number % 50)), "ci/shop"), None, now);
        if number.is_multiple_of(100) {
            self.table.active_leases(now);
            self.table.release_over(now);
        }
    }

    /// A task that was opened lately.
    fn lately(&self, round: u64) -> u64 {
        self.opened.load(Ordering::SeqCst).saturating_sub(round % 7)
    }
}

fn lease_row(id: LeaseId, task: TaskId, seq: u64, now: Now) -> LeaseRow {
    LeaseRow {
        id,
        task,
        seq,
        target: "shop".into(),
        kind: dayfly_domain::Kind::Jwt,
        row: "row".into(),
        actions: "[]".into(),
        issued_at: now.at,
        expires: now.at.plus_s(20),
        credential_hash: [9; 32],
        thumbprint: None,
        kid: None,
        status: None,
        end: None,
    }
}

#[test]
fn t_105_issue_renew_end_and_sweep_at_once_never_stop() {
    let (now_ms, opened) = (AtomicI64::new(AT.as_ms()), AtomicU64::new(0));
    let soak = Arc::new(Soak { table: Table::default(), now_ms, opened, writer: Mutex::new(0) });
    let works: [fn(&Soak, u64); 6] = [
        |soak, round| soak.open(round + 1),
        |soak, round| soak.renew(soak.lately(round), 1 + round % 200),
        |soak, round| soak.end(soak.lately(round)),
        |soak, round| soak.look(soak.lately(round)),
        |soak, _| {
            soak.table.forget_expired(soak.now(), 7);
        },
        |soak, round| {
            if round % 50 == 0 {
                soak.end_by_owner(round)
            }
        },
    ];
    let (done, finished) = mpsc::channel();
    for work in works {
        let (soak, done) = (soak.clone(), done.clone());
        thread::spawn(move || {
            (0..ROUNDS).for_each(|round| work(&soak, round));
            done.send(()).unwrap();
        });
    }
    drop(done);
    for at in 0..works.len() {
        assert!(finished.recv_timeout(STALLED).is_ok(), "{at} threads are done, and the others wait for ever or fell");
    }
    soak.now_ms.fetch_add(3_600_000, Ordering::SeqCst);
    while soak.table.forget_expired(soak.now(), 1_000) > 0 {}
    assert_eq!((soak.table.active_leases(soak.now()), soak.table.tasks.len()), (0, 0));
    let counted: u32 = soak.table.owner_uses().iter().map(|(_, used)| used.all()).sum();
    assert_eq!(counted, 0, "nothing is counted for ever");
}
