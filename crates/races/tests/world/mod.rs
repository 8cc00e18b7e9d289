//! A broker of nothing but its table: the steps of its doors and of its writer, in their order.

use std::sync::Arc;

use dayfly_domain::{BlockId, Bound, Cause, Kind, LeaseId, Selector, State, TaskId, UnixMs};
use dayfly_races::{
    lease::{Asks, BehindRow, End, Fence, Holding, Job, Limits, Now, Overtaken, Quotas, Table},
    store::{BlockRow, Change, EndRow, LeaseRow, TaskRow, TombRow},
};
use shuttle::{
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
    thread,
};

const AT: UnixMs = UnixMs::from_s(1_800_000_000);
const TTL_S: i64 = 60;
const PLENTY: Quotas = Quotas { owner: 100, production: 0, workload: 100 };
const LIMITS: Limits = Limits { per_job: 16, keys_per_job: Some(9) };

pub struct World {
    pub table: Table,
    now_ms: AtomicI64,
    /// There is one writer; what it has in hand is nobody else's. The next sequence number.
    writer: Mutex<u64>,
}

pub fn task_id(number: u8) -> TaskId {
    TaskId::from_parts(u64::from(number), [1; 10])
}

pub fn lease_id(number: u8) -> LeaseId {
    LeaseId::from_parts(u64::from(number), [2; 10])
}

impl World {
    pub fn new() -> Arc<Self> {
        let table = Table::default();
        Arc::new(Self { table, now_ms: AtomicI64::new(AT.as_ms()), writer: Mutex::new(1) })
    }

    pub fn spawn(self: &Arc<Self>, work: impl FnOnce(&Self) + Send + 'static) -> thread::JoinHandle<()> {
        let world = self.clone();
        thread::spawn(move || work(&world))
    }

    fn now(&self) -> Now {
        Now::exactly(UnixMs::new(self.now_ms.load(Ordering::SeqCst)))
    }

    /// Opens a task of an owner with its first lease, of the same number.
    pub fn open(&self, number: u8, evidence: u8, owner: &str) -> Result<(), Overtaken> {
        let mut seq = self.writer.lock().unwrap();
        let now = self.now();
        let (task, lease) = (task_row(number, evidence, owner, *seq, now), lease_row(number, number, *seq, now));
        Fence::new(&self.table, PLENTY, now).open(&task, Some(&lease), LIMITS, Asks::Lease)?;
        *seq += 1;
        self.apply(&[Change::OpenTask(task), Change::AddLease(lease)]);
        Ok(())
    }

    /// A further lease of a task, and the end of the ones before it.
    pub fn feed(&self, task: u8, number: u8, supersede_s: Option<u8>) -> Result<(), Overtaken> {
        let mut seq = self.writer.lock().unwrap();
        let now = self.now();
        let lease = lease_row(number, task, *seq, now);
        Fence::new(&self.table, PLENTY, now).feed(task_id(task), Some(&lease), Asks::Lease)?;
        *seq += 1;
        let at = now.at.plus_s(i64::from(supersede_s.unwrap_or_default()));
        let earlier = supersede_s.map(|_| self.table.outliving(task_id(task), &lease.target, at, now));
        let mut changes = vec![Change::AddLease(lease)];
        for id in earlier.unwrap_or_default() {
            changes.push(Change::EndLease(id, EndRow { at, cause: Cause::Superseded, seq: *seq }));
            *seq += 1;
        }
        self.apply(&changes);
        Ok(())
    }

    pub fn end_task(&self, number: u8, cause: Cause) {
        let id = task_id(number);
        if self.table.mark_task(id, End { at: self.now().at, cause, seq: None }).is_none() {
            return;
        }
        let mut seq = self.writer.lock().unwrap();
        if let Some(End { at, cause, seq: None }) = self.table.task(id).and_then(|task| task.end) {
            self.apply(&[Change::EndTask(id, EndRow { at, cause, seq: *seq })]);
            *seq += 1;
        }
    }

    pub fn end_lease(&self, number: u8, cause: Cause) {
        let id = lease_id(number);
        if self.table.mark_lease(id, End { at: self.now().at, cause, seq: None }).is_none() {
            return;
        }
        let mut seq = self.writer.lock().unwrap();
        if let Some(End { at, cause, seq: None }) = self.table.lease(id).and_then(|lease| lease.end) {
            self.apply(&[Change::EndLease(id, EndRow { at, cause, seq: *seq })]);
            *seq += 1;
        }
    }

    /// In force, on the record with its block, and caught up.
    pub fn end_by(&self, selector: &Selector, cause: Cause) {
        let at = self.now().at;
        let number = self.table.ask_tomb(selector.clone(), at, cause, true).number;
        let placed = {
            let mut seq = self.writer.lock().unwrap();
            let block = BlockRow { id: block_id(*seq), selector: selector.clone(), until: None, seq: *seq };
            let row = TombRow { seq: *seq, at, cause, selector: selector.clone(), count: 0, done: false };
            self.apply(&[Change::AddTomb(row), Change::AddBlock(block)]);
            *seq += 1;
            *seq - 1
        };
        let tomb = self.table.tomb(number).unwrap();
        assert_eq!(tomb.end.seq, Some(placed));
        let _writer = self.writer.lock().unwrap();
        for row in self.table.behind(&tomb) {
            let end = EndRow { at, cause, seq: placed };
            self.apply(&[match row {
                BehindRow::Task(id) => Change::EndTask(id, end),
                BehindRow::Lease(id) => Change::EndLease(id, end),
            }]);
        }
        self.apply(&[Change::TombDone(placed)]);
    }

    /// As introspection looks.
    pub fn lives(&self, number: u8) -> bool {
        let lease = self.table.lease(lease_id(number));
        lease.is_some_and(|lease| self.table.lease_state(&lease, self.now()).0 == State::Active)
    }

    pub fn state_of_task(&self, number: u8) -> State {
        self.table.task_state(task_id(number), self.now()).unwrap_or(State::Ended)
    }

    /// Looks again and again: what was seen to be over is not seen to live.
    pub fn look(&self) {
        let (mut over, mut seen) = ([false; 4], [false; 4]);
        for _ in 0..3 {
            for number in 1..4 {
                let at = usize::from(number);
                let lives = self.lives(number);
                assert!(!(lives && over[at]), "lease {number} lives again");
                seen[at] |= lives;
                over[at] |= seen[at] && !lives;
            }
        }
    }

    /// Everything runs out, and is forgotten a little at a time.
    pub fn pass_and_forget(&self) {
        self.now_ms.fetch_add((TTL_S + 1) * 1_000, Ordering::SeqCst);
        while self.table.forget_expired(self.now(), 1) > 0 {}
    }

    pub fn holdings(&self, owner: &str) -> Vec<Holding> {
        let job = Job::of_parts("ci", Some(owner), &format!("ci/{owner}"));
        self.table.holdings(&job, None, self.now())
    }

    /// Live leases as the quotas count them.
    pub fn counted(&self) -> usize {
        self.table.owner_uses().iter().map(|(_, used)| used.all() as usize).sum()
    }

    /// The quotas count what is there, once they have looked.
    pub fn recount(&self) -> usize {
        let now = self.now();
        self.table.release_over(now);
        let live = self.table.active_leases(now);
        assert_eq!(self.counted(), live, "counted, and live");
        live
    }

    /// What the store does takes its time.
    fn apply(&self, changes: &[Change]) {
        thread::yield_now();
        changes.iter().for_each(|change| self.table.apply(change));
    }
}

fn block_id(seq: u64) -> BlockId {
    BlockId::from_parts(seq, [3; 10])
}

fn task_row(number: u8, evidence: u8, owner: &str, seq: u64, now: Now) -> TaskRow {
    TaskRow {
        id: task_id(number),
        parent: None,
        template: format!("deploy-{owner}"),
        purpose: String::new(),
        ticket: None,
        job: Some(owner.to_owned()),
        row: "row".into(),
        owner: owner.to_owned(),
        environment: "staging".into(),
        issuer: "ci".into(),
        profile: "oidc".into(),
        workload: format!("ci/{owner}"),
        untrusted: false,
        grants: "{}".into(),
        evidence_key: [evidence; 32],
        evidence_iat_s: now.at.as_s(),
        evidence_exp_s: now.at.as_s(),
        claims: None,
        handle_hash: [number; 32],
        bound: Bound::None,
        thumbprint: None,
        opened_at: now.at,
        deadline: now.at.plus_s(TTL_S),
        seq,
        held: false,
        end: None,
    }
}

fn lease_row(number: u8, task: u8, seq: u64, now: Now) -> LeaseRow {
    LeaseRow {
        id: lease_id(number),
        task: task_id(task),
        seq,
        target: "shop".into(),
        kind: Kind::Jwt,
        row: "row".into(),
        actions: "[]".into(),
        issued_at: now.at,
        expires: now.at.plus_s(TTL_S),
        credential_hash: [number; 32],
        thumbprint: None,
        kid: None,
        status: None,
        end: None,
    }
}
