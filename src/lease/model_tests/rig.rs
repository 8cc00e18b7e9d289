//! A broker without its doors: the real table, fence and time, rows kept as the store keeps them,
//! and the steps of the writer in its order. A restart folds the rows into a new table.

use std::{collections::BTreeMap, sync::Arc};

use dayfly_domain::{BlockId, Cause, LeaseId, TaskId, UnixMs};

use crate::{
    lease::{Asks, End, Fence, Label, Limits, Now, Overtaken, Quotas, Table, Time},
    store::{BlockRow, Change, EndRow, LeaseRow, TaskRow},
    sys::clock::{Clock, Stepped},
};

/// Quotas are counted here, and judged in `counts_tests.rs`.
const PLENTY: Quotas = Quotas { owner: u32::MAX, production: 0, workload: u32::MAX };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Task(TaskId),
    Lease(LeaseId),
}

/// What survives a restart.
#[derive(Default)]
pub(super) struct Disk {
    pub tasks: BTreeMap<TaskId, TaskRow>,
    pub leases: BTreeMap<LeaseId, LeaseRow>,
    pub blocks: Vec<BlockRow>,
    pub high_water: UnixMs,
    pub seq: u64,
}

pub(super) struct Rig {
    pub clock: Arc<Stepped>,
    time: Time,
    pub table: Table,
    pub disk: Disk,
    /// Ends in force that are not written yet, and whether they block.
    waiting: Vec<(What, bool)>,
}

impl Rig {
    pub fn start(at: UnixMs) -> Self {
        let clock = Stepped::at(at);
        let time = Time::start(Clock::Stepped(clock.clone()), UnixMs::default());
        Self { clock, time, table: Table::default(), disk: Disk::default(), waiting: Vec::new() }
    }

    pub fn now(&self) -> Now {
        self.time.now()
    }

    /// Opens a task with its first lease.
    pub fn open(&mut self, row: TaskRow, lease: Option<LeaseRow>, limits: Limits) -> Result<(), Overtaken> {
        let asks = if lease.is_some() { Asks::Lease } else { Asks::Nothing };
        Fence::new(&self.table, PLENTY, self.now()).open(&row, lease.as_ref(), limits, asks)?;
        if self.disk.clashes(&row) {
            return Err(Overtaken::HandleUsed);
        }
        let mut changes = vec![Change::OpenTask(row)];
        changes.extend(lease.map(Change::AddLease));
        self.commit(changes, None);
        Ok(())
    }

    /// A further lease; `supersede_s` ends the earlier ones of its target. `meanwhile` is marked
    /// after the fence and before the commit is applied.
    pub fn feed(
        &mut self,
        lease: LeaseRow,
        supersede_s: Option<u8>,
        meanwhile: Option<(What, End)>,
    ) -> Result<(), Overtaken> {
        let now = self.now();
        Fence::new(&self.table, PLENTY, now).feed(lease.task, Some(&lease), Asks::Lease)?;
        let at = supersede_s.map(|seconds| now.at.plus_s(i64::from(seconds)));
        let ended = at.map(|at| self.table.outliving(lease.task, &lease.target, at, now)).unwrap_or_default();
        let mut changes = vec![Change::AddLease(lease)];
        for id in ended {
            let end = EndRow { at: at.unwrap_or_default(), cause: Cause::Superseded, seq: self.next_seq() };
            changes.push(Change::EndLease(id, end));
        }
        self.commit(changes, meanwhile);
        Ok(())
    }

    /// An end from now on, as its doors mark it; it is written later. Whether there was anything to end.
    pub fn end(&mut self, what: What, end: End, block: bool) -> bool {
        let marked = match what {
            What::Task(id) => self.table.mark_task(id, end),
            What::Lease(id) => self.table.mark_lease(id, end),
        };
        if marked.is_some_and(|end| end.seq.is_none()) {
            self.waiting.push((what, block));
        }
        marked.is_some()
    }

    /// What waits is written, as [`crate::flow`]'s writer does it.
    pub fn write(&mut self) {
        for (what, block) in std::mem::take(&mut self.waiting) {
            let mark = match what {
                What::Task(id) => self.table.task(id).and_then(|task| task.end),
                What::Lease(id) => self.table.lease(id).and_then(|lease| lease.end),
            };
            let Some(End { at, cause, seq: None }) = mark else { continue };
            let end = EndRow { at, cause, seq: self.next_seq() };
            let mut changes = Vec::new();
            match what {
                What::Lease(id) => changes.push(Change::EndLease(id, end)),
                What::Task(id) => {
                    changes.push(Change::EndTask(id, end));
                    let task = self.table.task(id).filter(|_| block);
                    changes.extend(task.map(|_| {
                        let row = &self.disk.tasks[&id];
                        Change::AddBlock(block_row(&Label::of_row(row), row.deadline, end.seq))
                    }));
                }
            }
            self.commit(changes, None);
        }
    }

    pub fn forget(&mut self, max: usize) {
        let now = self.now();
        if now.safe {
            while self.table.forget_expired(now, max) >= max {}
        }
    }

    /// Ends that were not written are gone; so is what only this process knew of the clocks.
    pub fn restart(&mut self) {
        self.waiting.clear();
        self.time = Time::start(Clock::Stepped(self.clock.clone()), self.disk.high_water);
        let now = self.now().at;
        // Every start is on the record, with its time.
        self.disk.high_water = self.disk.high_water.max(now);
        self.table = Table::default();
        self.disk.tasks.values().for_each(|row| self.table.apply(&Change::OpenTask(row.clone())));
        let live = self.disk.leases.values().filter(|row| row.expires > now);
        live.for_each(|row| self.table.apply(&Change::AddLease(row.clone())));
        let kept = self.disk.blocks.iter().filter(|row| row.until.is_none_or(|until| until > now));
        kept.for_each(|row| self.table.apply(&Change::AddBlock(row.clone())));
    }

    fn commit(&mut self, changes: Vec<Change>, meanwhile: Option<(What, End)>) {
        changes.iter().for_each(|change| self.disk.write(change));
        self.disk.high_water = self.disk.high_water.max(self.now().at);
        if let Some((what, end)) = meanwhile {
            self.end(what, end, false);
        }
        changes.iter().for_each(|change| self.table.apply(change));
    }

    fn next_seq(&mut self) -> u64 {
        self.disk.seq += 1;
        self.disk.seq
    }
}

impl Disk {
    /// The unique indexes have the last word (law L9).
    fn clashes(&self, new: &TaskRow) -> bool {
        let clash = |row: &TaskRow| row.evidence_key == new.evidence_key || row.handle_hash == new.handle_hash;
        self.tasks.values().any(clash)
    }

    fn write(&mut self, change: &Change) {
        match change {
            Change::OpenTask(row) => drop(self.tasks.insert(row.id, row.clone())),
            Change::AddLease(row) => drop(self.leases.insert(row.id, row.clone())),
            Change::EndTask(id, end) => {
                self.tasks.entry(*id).and_modify(|row| row.end = Some(*end));
            }
            Change::EndLease(id, end) => {
                self.leases.entry(*id).and_modify(|row| row.end = Some(*end));
            }
            Change::AddBlock(row) => self.blocks.push(row.clone()),
            other => panic!("the rig writes no {other:?}"),
        }
    }
}

fn block_row(label: &Label, until: UnixMs, seq: u64) -> BlockRow {
    let id = BlockId::from_parts(seq, [0; 10]);
    BlockRow { id, selector: label.selector(), until: Some(until), seq }
}
