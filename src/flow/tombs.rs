//! The writer's side of an end by selector: one event, one tomb, perhaps a block, in one commit; then
//! the rows of what it ended, slice by slice, with other batches in between.

use std::{collections::HashSet, sync::Arc};

use dayfly_domain::{Cause, Selector, TaskId};

use super::{
    Shared, Upkeep,
    commit::{Prepared, Reply, Writer, numbered},
    group::{Group, NotCommitted},
    mass::{SLICE_ROWS, Slice, TombGroup},
};
use crate::{
    lease::{BehindRow, Now, Table, Tomb},
    ledger::{self, Stamp, Tombstone},
    store::{BlockRow, Change, EndRow, TombRow},
    sys::offload::offload,
};

/// Tombs that are caught up with in one look.
const LOOK_MAX: usize = 16;

impl Writer {
    pub(super) fn prepare_tomb(&self, mut group: TombGroup, seq: &mut u64, now: Now) -> Option<Prepared> {
        let tomb = match self.shared.table.tomb(group.number) {
            Some(tomb) if tomb.end.seq.is_none() => tomb,
            // It is on the record, and nothing may be behind it any more.
            other => {
                group.reply(other.and_then(|tomb| tomb.end.seq).ok_or(NotCommitted::Gone));
                return None;
            }
        };
        match self.tomb_changes(&tomb, &group, seq, now) {
            Some((changes, at)) => Some((changes, Reply::Tomb(group, at))),
            None => {
                // No entropy; it stays in force and is tried again.
                group.reply(Err(NotCommitted::Store));
                self.shared.mass.ask(group);
                None
            }
        }
    }

    fn tomb_changes(&self, tomb: &Tomb, group: &TombGroup, seq: &mut u64, now: Now) -> Option<(Vec<Change>, u64)> {
        let (selector, end) = (tomb.matcher.selector(), tomb.end);
        let facts = Tombstone {
            selector,
            cause: end.cause,
            ended_at: end.at,
            leases: group.leases,
            tasks: group.tasks,
            block: group.block,
        };
        let entry = ledger::tombstone(Stamp::draw(now.at).ok()?, &facts, &group.actor, group.reason.as_deref());
        let at = *seq;
        let mut changes = numbered(vec![entry], seq);
        // The block first: whoever asks the same in between finds the tomb on its way, or the block.
        // SECURITY: `many_operators_at_once_end_once`.
        let block = group.block.map(|id| BlockRow { id, selector: selector.clone(), until: None, seq: at });
        changes.extend(block.map(Change::AddBlock));
        changes.push(Change::AddTomb(TombRow {
            seq: at,
            at: end.at,
            cause: end.cause,
            selector: selector.clone(),
            count: group.leases,
            done: false,
        }));
        Some((changes, at))
    }

    pub(super) fn tomb_is_durable(&self, mut group: TombGroup, seq: u64) {
        if let Some(tomb) = self.shared.table.tomb(group.number) {
            metrics::counter!("dayfly_ended_total", "cause" => tomb.end.cause.as_str()).increment(1);
        }
        group.reply(Ok(seq));
    }

    /// What this batch touches otherwise waits: the next look finds it, if it still is behind.
    pub(super) fn prepare_slice(&self, slice: Slice, touched: &mut HashSet<TaskId>) -> Option<Prepared> {
        let Slice { seq, rows, last } = slice;
        let table = &self.shared.table;
        let tomb = table.tombs().into_iter().find(|tomb| tomb.end.seq == Some(seq))?;
        if last {
            return Some((vec![Change::TombDone(seq)], Reply::Nothing));
        }
        let end = EndRow { at: tomb.end.at, cause: tomb.end.cause, seq };
        // An older tomb, or an end of its own, may have been quicker.
        let rows = rows.into_iter().filter(|row| table.is_behind(&tomb, *row));
        let rows: Vec<_> = rows.filter_map(|row| Some((row, task_of(table, row)?))).collect();
        let free: Vec<_> = rows.into_iter().filter(|(_, task)| !touched.contains(task)).collect();
        touched.extend(free.iter().map(|(_, task)| *task));
        let changes: Vec<_> = free.into_iter().map(|(row, _)| ended(row, end)).collect();
        tomb.note_left(tomb.left().saturating_sub(changes.len() as u64));
        (!changes.is_empty()).then_some((changes, Reply::Nothing))
    }

    /// Ends what the selectors mean, in force at once, and writes it as soon as it can be written.
    pub(super) fn end_selected(&mut self, selectors: Vec<Selector>, cause: Cause, actor: &str, now: Now) -> u64 {
        let table = &self.shared.table;
        let asked: Vec<_> =
            selectors.into_iter().map(|selector| table.ask_tomb(selector, now.at, cause, false)).collect();
        let mut ended = 0;
        let mut groups = Vec::new();
        for tomb in asked {
            let found = table.ended_by(&tomb, now);
            ended += found.tasks + found.single;
            let (leases, tasks) = (found.leases, found.tasks);
            let actor = actor.to_owned();
            let (number, acks) = (tomb.number, Vec::new());
            groups.push(Group::Tomb(TombGroup { number, actor, reason: None, leases, tasks, block: None, acks }));
        }
        if !groups.is_empty() {
            self.write(groups.into());
        }
        ended
    }
}

fn task_of(table: &Table, row: BehindRow) -> Option<TaskId> {
    match row {
        BehindRow::Task(id) => Some(id),
        BehindRow::Lease(id) => table.lease(id).map(|lease| lease.task),
    }
}

fn ended(row: BehindRow, end: EndRow) -> Change {
    match row {
        BehindRow::Task(id) => Change::EndTask(id, end),
        BehindRow::Lease(id) => Change::EndLease(id, end),
    }
}

impl Shared {
    /// Looks for rows that are behind a tomb and hands them to the writer; none: the tomb has done its
    /// work. The oldest first.
    fn look_behind(&self) {
        let tombs = self.table.tombs();
        metrics::gauge!("dayfly_tombs_behind").set(tombs.len() as f64);
        if !self.mass.is_catching_up() {
            let placed = tombs.iter().filter(|tomb| tomb.end.seq.is_some());
            placed.take(LOOK_MAX).for_each(|tomb| self.catch_up_with(tomb));
        }
        let left: u64 = tombs.iter().map(|tomb| tomb.left()).sum();
        metrics::gauge!("dayfly_tomb_rows_behind").set(left as f64);
    }

    fn catch_up_with(&self, tomb: &Arc<Tomb>) {
        let Some(seq) = tomb.end.seq else { return };
        let rows = self.table.behind(tomb);
        tomb.note_left(rows.len() as u64);
        let last = rows.is_empty();
        let slices = rows.chunks(SLICE_ROWS).map(|rows| Slice { seq, rows: rows.to_vec(), last: false });
        self.mass.catch_up(slices.chain(last.then(|| Slice { seq, rows: Vec::new(), last })));
        // A full queue means that the writer is awake anyway.
        let _ = self.queue.try_send(Group::Wake);
    }
}

impl Upkeep {
    /// Every second: rows that an end by selector has left behind. Looks at everything that is live, on
    /// a thread of its own, and only where there is such an end.
    pub async fn catch_up(&self) {
        if !self.flow.table.has_tombs() {
            metrics::gauge!("dayfly_tombs_behind").set(0.0);
            metrics::gauge!("dayfly_tomb_rows_behind").set(0.0);
            return;
        }
        let flow = self.flow.clone();
        // A look that was not taken is taken a second later.
        let _ = offload(move || flow.look_behind()).await;
    }
}
