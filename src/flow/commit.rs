//! The one writer: it owns the order. For each batch it checks the fence, writes, applies the
//! changes to the lease table in order, and only then acknowledges (laws L1, L2, L6).
//!
//! In: groups of one request each, all or nothing. Out: acknowledgements. `run` gives it a thread.

use std::{
    collections::{HashSet, VecDeque},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use dayfly_domain::{BlockId, Cause, Kind, LeaseId, State, TaskId, UnixMs};
use tokio::sync::{mpsc, oneshot};

use super::{
    Shared,
    group::{EndGroup, Group, IssueGroup, NotCommitted, QUEUE_MAX, Subject, What, each_end_once},
    mass::TombGroup,
    usage::Counted,
};
use crate::{
    lease::{Asks, End, Fence, Label, Now, Overtaken, Table},
    ledger::{self, Entry, Stamp},
    store::{BlockRow, Change, EndRow, LeaseRow, Store, StoreError},
    sys::entropy,
};

/// Groups in one commit.
pub const BATCH_MAX: usize = 256;
/// How long an end that is not yet durable waits before it is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How old the time in the store may be while nothing else is written.
const TIME_KEPT_MS: i64 = 60_000;
/// Tries at a stop that wrote nothing, before the rest is given up.
const LAST_TRIES: u32 = 4;

/// The writer's side.
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Store,
    queue: mpsc::Receiver<Group>,
    /// Groups that wait for the next batch, because this one already touches their task.
    carried: VecDeque<Group>,
    /// Ends that count in memory but could not be written.
    retry: Vec<Group>,
    /// Uses of entitlements that are not yet in the store's sums.
    pub(super) counted: Counted,
}

/// A group that passed the fence.
struct Ready {
    /// The sequence number that its first event got.
    first: u64,
    /// What it changes, within the batch's changes.
    range: Range<usize>,
    reply: Reply,
}

/// A batch that passed the fence: changes in order, and whose they are.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    ready: Vec<Ready>,
}

pub(super) type Prepared = (Vec<Change>, Reply);

pub(super) enum Reply {
    Issue(oneshot::Sender<Result<u64, NotCommitted>>, u64),
    End(EndGroup, End),
    /// It had ended before: only the block is new.
    Late(EndGroup, End),
    Tomb(TombGroup, u64),
    Note(oneshot::Sender<Result<(), NotCommitted>>),
    Nothing,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, store: Store, queue: mpsc::Receiver<Group>) -> Self {
        Self { shared, store, queue, carried: VecDeque::new(), retry: Vec::new(), counted: Counted::default() }
    }

    /// Works until it is told to stop; everything queued before that is written first.
    pub fn run(mut self) {
        while let Some(groups) = self.gather() {
            self.batch(groups);
        }
        self.finish();
        self.save_counts();
    }

    /// Writes what waits, ends that failed before too. As long as some of it gets written it goes on;
    /// what does not is tried a few times more, and said.
    fn finish(&mut self) {
        let mut tries = LAST_TRIES;
        loop {
            let ends = self.shared.take_ends(usize::MAX).into_iter().map(Group::End);
            let tombs = self.shared.mass.take_asked().into_iter().map(Group::Tomb);
            let last: Vec<Group> = self.carried.drain(..).chain(tombs).chain(ends).collect();
            let waiting = last.len() + self.retry.len();
            self.batch(last);
            let left = self.carried.len() + self.retry.len();
            if left == 0 {
                return;
            }
            if left >= waiting {
                tries -= 1;
                if tries == 0 {
                    // What is carried waits behind an end of the same task that cannot be written.
                    return tracing::error!(
                        left,
                        "the stop leaves ends unwritten: after a restart they are not in force"
                    );
                }
                std::thread::sleep(RETRY);
            }
        }
    }

    /// What is queued, at most a batch beside what is carried; waits when there is nothing. `None`:
    /// stop.
    // SECURITY: `what_is_carried_takes_no_room_from_what_comes`.
    fn gather(&mut self) -> Option<Vec<Group>> {
        // What is carried may wait for an end of the same task that could not be written: not
        // without a pause either.
        let first = if self.carried.is_empty() || !self.retry.is_empty() { self.wait()? } else { None };
        let mut groups: Vec<Group> = self.carried.drain(..).collect();
        let room = (groups.len() + BATCH_MAX).min(QUEUE_MAX);
        groups.extend(first);
        groups.extend(self.gather_asked());
        groups.extend(self.shared.mass.take_slice().map(Group::Behind));
        groups.extend(self.shared.take_ends(BATCH_MAX).into_iter().map(Group::End));
        while groups.len() < room {
            match self.queue.try_recv() {
                Ok(Group::Stop) => {
                    self.batch(groups);
                    return None;
                }
                Ok(group) => groups.push(group),
                Err(_) => break,
            }
        }
        Some(groups)
    }

    fn gather_asked(&self) -> Vec<Group> {
        self.shared.mass.take_asked().into_iter().map(Group::Tomb).collect()
    }

    /// The outer `None`: stop. The inner: nothing came, but there are ends to try again.
    fn wait(&mut self) -> Option<Option<Group>> {
        if self.retry.is_empty() {
            if self.shared.has_ends() || self.shared.mass.waits() {
                return Some(None);
            }
            return self.queue.blocking_recv().filter(|group| !matches!(group, Group::Stop)).map(Some);
        }
        // The queue has no blocking receive with a deadline; a failing disk is no hot path.
        std::thread::sleep(RETRY);
        match self.queue.try_recv() {
            Ok(Group::Stop) | Err(mpsc::error::TryRecvError::Disconnected) => None,
            Ok(group) => Some(Some(group)),
            Err(mpsc::error::TryRecvError::Empty) => Some(None),
        }
    }

    /// One commit. A swap of the bundle closes the batch and is done alone.
    fn batch(&mut self, groups: Vec<Group>) {
        let again = self.retry.drain(..);
        let mut groups = each_end_once(again.chain(groups));
        loop {
            let swap = groups
                .iter()
                .position(|group| matches!(group, Group::Swap(_) | Group::Prune | Group::Probe | Group::Count));
            let rest = swap.map(|at| groups.split_off(at));
            self.write(groups);
            let Some(mut rest) = rest else { return };
            match rest.pop_front() {
                Some(Group::Swap(swap)) => self.swap(*swap),
                Some(Group::Prune) => self.prune(),
                Some(Group::Probe) => self.probe(),
                Some(Group::Count) => {
                    self.save_counts();
                    self.keep_time();
                }
                _ => {}
            }
            groups = rest;
        }
    }

    /// A start on a clock that was set back goes on from the last write, so there is one a minute.
    // SECURITY: `what_expired_while_nothing_was_written_does_not_live_after_a_start_in_the_past`.
    fn keep_time(&mut self) {
        let now = self.shared.time.now().at;
        if now.as_ms() - self.store.high_water().as_ms() < TIME_KEPT_MS {
            return;
        }
        if let Err(error) = self.store.write(&[], now) {
            tracing::warn!(%error, "the time was not written down");
        }
    }

    pub(super) fn write(&mut self, groups: VecDeque<Group>) {
        let now = self.shared.time.now();
        let shared = self.shared.clone();
        let mut fence = Fence::new(&shared.table, shared.allowance.quotas(), now);
        let mut seq = self.store.next_seq();
        let mut touched = HashSet::new();
        let mut batch = Batch::default();
        let records = self.shared.take_records();
        if !records.is_empty() {
            let first = seq;
            batch.push(first, numbered(records, &mut seq), Reply::Nothing);
        }
        for group in groups {
            if self.crowded(&group, &mut touched) || follows(&group, &fence) {
                self.carried.push_back(group);
                continue;
            }
            let mut next = seq;
            let group = match group {
                Group::Behind(slice) => {
                    if let Some((changes, reply)) = self.prepare_slice(slice, &mut touched) {
                        batch.push(seq, changes, reply);
                    }
                    continue;
                }
                other => other,
            };
            if let Some((changes, reply)) = self.prepare(group, &mut fence, &mut next, now) {
                batch.push(seq, changes, reply);
                seq = next;
            }
        }
        self.commit(batch, now);
    }

    /// Whether this batch already touches the group's task: then it waits for the next one, so
    /// that it sees what the earlier one did.
    fn crowded(&self, group: &Group, touched: &mut HashSet<TaskId>) -> bool {
        let task = match group {
            Group::Issue(issue) => match &issue.task {
                Subject::Open { .. } => None,
                Subject::Feed(task) => Some(*task),
            },
            Group::End(end) => match end.what {
                What::Task(task) => Some(task),
                What::Lease(lease) => self.shared.table.lease(lease).map(|lease| lease.task),
            },
            Group::Hold(task, _) => Some(*task),
            _ => None,
        };
        task.is_some_and(|task| !touched.insert(task))
    }

    fn prepare(&self, group: Group, fence: &mut Fence<'_>, seq: &mut u64, now: Now) -> Option<Prepared> {
        match group {
            Group::Issue(group) => self.prepare_issue(*group, fence, seq, now),
            Group::End(group) => self.prepare_end(group, fence, seq, now),
            Group::Tomb(group) => self.prepare_tomb(group, seq, now),
            Group::Lift(id, actor, ack) => self.prepare_lift(id, &actor, ack, fence, seq, now),
            Group::Note(entry, ack) => Some((numbered(vec![entry], seq), Reply::Note(ack))),
            Group::Remember(entry, key, ack) => {
                let word = Change::Meta(key, entry.id.to_string());
                let changes = numbered(vec![entry], seq).into_iter().chain([word]).collect();
                Some((changes, Reply::Note(ack)))
            }
            Group::Word(word, text, ack) => Some((vec![Change::Meta(word, text)], Reply::Note(ack))),
            Group::Block(entry, label, until, ack) => {
                let at = *seq;
                let mut changes = numbered(vec![entry], seq);
                fence.block(label.clone());
                changes.push(Change::AddBlock(block(label, until, at, now)?));
                Some((changes, Reply::Note(ack)))
            }
            Group::Hold(id, ack) => self.prepare_hold(id, ack, now),
            Group::Wake
            | Group::Stop
            | Group::Swap(_)
            | Group::Prune
            | Group::Probe
            | Group::Count
            | Group::Behind(_) => None,
        }
    }

    /// Once for each task: of many first beats the first is written, and answers for the others.
    fn prepare_hold(&self, id: TaskId, ack: oneshot::Sender<Result<(), NotCommitted>>, now: Now) -> Option<Prepared> {
        let table = &self.shared.table;
        let over = table.task_state(id, now) != Some(State::Active);
        if over || table.holds.is_held(id) {
            // A caller that has gone away needs no answer.
            let _ = ack.send(if over { Err(Overtaken::Ended.into()) } else { Ok(()) });
            return None;
        }
        Some((vec![Change::Hold(id)], Reply::Note(ack)))
    }

    fn prepare_issue(&self, group: IssueGroup, fence: &mut Fence<'_>, seq: &mut u64, now: Now) -> Option<Prepared> {
        let IssueGroup { decided_under, seen, ends_asked, task, mut lease, events, supersede_s, ack } = group;
        let ended = self.replaced(&task, lease.as_ref(), supersede_s, now);
        let asks = match (&lease, ended.is_empty()) {
            (None, _) => Asks::Nothing,
            (Some(_), true) => Asks::Lease,
            (Some(_), false) => Asks::Replacement,
        };
        let allowed = if decided_under != self.shared.policy.load().bundle().fingerprint {
            Err(NotCommitted::OtherBundle)
        } else if seen.is_some_and(|seen| !fence.unchanged(&seen)) {
            Err(NotCommitted::OtherJob)
        // SECURITY: `t_092_nothing_that_was_decided_before_an_end_by_selector_leaves_after_it`.
        } else if ends_asked != self.shared.table.ends_asked() {
            Err(NotCommitted::OtherEnds)
        } else if self.shared.is_signed_by_tainted(lease.as_ref()) {
            Err(NotCommitted::OtherKey)
        } else {
            match &task {
                Subject::Open { row, limits } => {
                    fence.open(row, lease.as_ref(), *limits, asks).map_err(NotCommitted::from)
                }
                Subject::Feed(id) => fence.feed(*id, lease.as_ref(), asks).map_err(NotCommitted::from),
            }
        };
        if let Err(refused) = allowed {
            // A caller that has gone away needs no answer.
            let _ = ack.send(Err(refused));
            return None;
        }
        // The first event of a task is the one that opens it.
        let opened_at = *seq;
        let mut changes = numbered(events, seq);
        let point = seq.saturating_sub(1);
        let id = match task {
            Subject::Open { mut row, .. } => {
                let id = row.id;
                row.seq = opened_at;
                changes.push(Change::OpenTask(*row));
                id
            }
            Subject::Feed(id) => id,
        };
        if let Some(lease) = &mut lease {
            lease.seq = point;
            let list = lease.status.and_then(|slot| self.shared.lists.unwritten(slot.list));
            changes.extend(list.map(Change::AddList));
            changes.push(Change::AddLease(lease.clone()));
            for (earlier, at) in ended {
                changes.extend(end_lease(earlier, id, Cause::Superseded, at, "handle", None, seq, now)?);
            }
        }
        Some((changes, Reply::Issue(ack, point)))
    }

    /// The earlier leases of the task for the same target, and of the same kind, that outlive the supersede: a
    /// token takes the place of no certificate.
    fn replaced(&self, task: &Subject, by: Option<&LeaseRow>, after_s: Option<u8>, now: Now) -> Vec<(LeaseId, UnixMs)> {
        let (Subject::Feed(task), Some(by), Some(after_s)) = (task, by, after_s) else { return Vec::new() };
        let at = now.at.plus_s(i64::from(after_s));
        let earlier = self.shared.table.outliving(*task, &by.target, at, now).into_iter();
        let is_same = |id: &LeaseId| self.shared.crls.has(*id) == (by.kind == Kind::X509);
        earlier.filter(is_same).map(|id| (id, at)).collect()
    }

    fn commit(&mut self, batch: Batch, now: Now) {
        if batch.changes.is_empty() {
            return;
        }
        let began = Instant::now();
        let written = self.store.write(&batch.changes, now.at);
        metrics::histogram!("dayfly_commit_duration_seconds").record(began.elapsed().as_secs_f64());
        metrics::histogram!("dayfly_commit_batch_size").record(batch.ready.len() as f64);
        if matches!(written, Err(StoreError::Full)) {
            // As a whole: that parts of it fit says nothing.
            self.shared.note_write(&written, batch.changes.len());
        }
        let alone = match &written {
            // One group cannot be written: the others must not pay for it.
            Err(StoreError::Conflict | StoreError::Missing) => batch.ready.len() > 1,
            // What issues more than fits must not keep an end from being written.
            Err(StoreError::Full) => batch.ready.iter().any(|ready| !ready.reply.is_end()),
            _ => false,
        };
        let Batch { mut changes, ready } = batch;
        if alone {
            let full = matches!(written, Err(StoreError::Full));
            ready.into_iter().for_each(|ready| self.commit_alone(ready, &mut changes, full, now));
        } else {
            self.settle(ready, &changes, &written);
        }
    }

    /// The same group at the sequence number that is next now. On a full disk only ends are tried.
    fn commit_alone(&mut self, mut ready: Ready, all: &mut [Change], full: bool, now: Now) {
        let changes = &mut all[ready.range.clone()];
        if full && !ready.reply.is_end() {
            return self.settle(vec![ready], &[], &Err(StoreError::Full));
        }
        let back = ready.first.saturating_sub(self.store.next_seq());
        changes.iter_mut().for_each(|change| move_back(change, ready.first, back));
        ready.reply.move_back(back);
        let written = self.store.write(changes, now.at);
        self.settle(vec![ready], changes, &written);
    }

    fn settle(&mut self, ready: Vec<Ready>, changes: &[Change], written: &Result<(), StoreError>) {
        // A row that clashes is one request's fault; the store is well.
        if !matches!(written, Err(StoreError::Conflict)) {
            self.shared.note_write(written, changes.len());
        }
        let failed = match written {
            Ok(()) => {
                changes.iter().for_each(|change| self.shared.lists.apply(change));
                changes.iter().for_each(|change| self.shared.crls.apply(change));
                changes.iter().for_each(|change| self.shared.table.apply(change));
                self.count(changes);
                count_replaced(changes);
                None
            }
            Err(error) => {
                // The table forgets a task before its row goes: its handle is still taken.
                let taken = matches!(error, StoreError::Conflict);
                if taken {
                    tracing::error!(%error, "a request clashes with what is kept; nothing of it is in force");
                }
                Some(if taken { Overtaken::HandleUsed.into() } else { NotCommitted::Store })
            }
        };
        ready.into_iter().for_each(|ready| self.reply(ready.reply, failed));
    }

    fn reply(&mut self, reply: Reply, failed: Option<NotCommitted>) {
        match (reply, failed) {
            (Reply::Issue(ack, point), None) => drop(ack.send(Ok(point))),
            (Reply::Issue(ack, _), Some(failed)) => drop(ack.send(Err(failed))),
            (Reply::Note(ack), failed) => drop(ack.send(failed.map_or(Ok(()), Err))),
            (Reply::End(mut group, end), None) => {
                metrics::counter!("dayfly_ended_total", "cause" => end.cause.as_str()).increment(1);
                reply_end(&mut group, Ok(end));
            }
            (Reply::Late(mut group, end), None) => reply_end(&mut group, Ok(end)),
            (Reply::End(mut group, _) | Reply::Late(mut group, _), Some(_)) => {
                reply_end(&mut group, Err(NotCommitted::Store));
                self.retry.push(Group::End(group));
            }
            (Reply::Tomb(group, seq), None) => self.tomb_is_durable(group, seq),
            (Reply::Tomb(mut group, _), Some(_)) => {
                group.reply(Err(NotCommitted::Store));
                self.retry.push(Group::Tomb(group));
            }
            (Reply::Nothing, _) => {}
        }
    }
}

impl Batch {
    fn push(&mut self, first: u64, changes: Vec<Change>, reply: Reply) {
        let start = self.changes.len();
        self.changes.extend(changes);
        self.ready.push(Ready { first, range: start..self.changes.len(), reply });
    }
}

impl Reply {
    fn is_end(&self) -> bool {
        matches!(self, Self::End(..) | Self::Late(..) | Self::Tomb(..))
    }

    fn move_back(&mut self, by: u64) {
        match self {
            Self::Issue(_, point) => *point -= by,
            Self::Tomb(_, seq) => *seq -= by,
            Self::End(_, end) => end.seq = end.seq.map(|seq| seq - by),
            Self::Late(..) | Self::Note(_) | Self::Nothing => {}
        }
    }
}

/// Numbers a change anew, `by` places earlier. What names an event of an earlier commit goes on naming it.
// SECURITY: `rows_that_are_caught_up_keep_the_name_of_their_end`.
fn move_back(change: &mut Change, first: u64, by: u64) {
    let seq = match change {
        Change::Event(row) => &mut row.seq,
        Change::AddLease(row) => &mut row.seq,
        Change::EndTask(_, end) | Change::EndLease(_, end) => &mut end.seq,
        Change::AddBlock(row) => &mut row.seq,
        Change::AddTomb(row) => &mut row.seq,
        Change::OpenTask(row) => &mut row.seq,
        Change::Hold(_)
        | Change::LiftBlock(_)
        | Change::TombDone(_)
        | Change::AddList(_)
        | Change::KeepBundle(_)
        | Change::Count(_)
        | Change::Meta(..) => return,
    };
    if *seq >= first {
        *seq -= by;
    }
}

pub(super) fn numbered(entries: Vec<Entry>, seq: &mut u64) -> Vec<Change> {
    let number = |entry: Entry| {
        let row = entry.at_seq(*seq);
        *seq += 1;
        Change::Event(row)
    };
    entries.into_iter().map(number).collect()
}

#[expect(clippy::too_many_arguments, reason = "one call in two places; a struct would only rename them")]
pub(super) fn end_lease(
    id: LeaseId,
    task: TaskId,
    cause: Cause,
    at: UnixMs,
    actor: &str,
    reason: Option<&str>,
    seq: &mut u64,
    now: Now,
) -> Option<Vec<Change>> {
    let entry = ledger::lease_ended(Stamp::draw(now.at).ok()?, id, task, cause, at, actor, reason);
    let number = *seq;
    let mut changes = numbered(vec![entry], seq);
    changes.push(Change::EndLease(id, EndRow { at, cause, seq: number }));
    Some(changes)
}

/// An end of what a renewal replaced is on the record as any other, and nobody waits for it.
fn count_replaced(changes: &[Change]) {
    let replaced = |change: &&Change| matches!(change, Change::EndLease(_, end) if end.cause == Cause::Superseded);
    for _ in changes.iter().filter(replaced) {
        metrics::counter!("dayfly_ended_total", "cause" => Cause::Superseded.as_str()).increment(1);
    }
}

pub(super) fn block(label: Label, until: UnixMs, seq: u64, now: Now) -> Option<BlockRow> {
    let id = BlockId::from_parts(now.at.as_ms().max(0) as u64, entropy::bytes().ok()?);
    Some(BlockRow { id, selector: label.selector(), until: Some(until), seq })
}

pub(super) fn reply_end(group: &mut EndGroup, answer: Result<End, NotCommitted>) {
    for ack in group.acks.drain(..) {
        // A caller that has gone away needs no answer.
        let _ = ack.send(answer);
    }
}

/// Whether the group would be judged by a task that this batch opens: it is when that one is there.
fn follows(group: &Group, fence: &Fence<'_>) -> bool {
    let Group::Issue(issue) = group else { return false };
    let held = issue.seen.as_ref().is_some_and(|seen| fence.adds_to(seen));
    match &issue.task {
        Subject::Open { row, limits } => held || fence.follows(row, limits.keys_per_job.is_some()),
        Subject::Feed(_) => held,
    }
}

/// Whether the lease is live, as introspection would say it.
pub(super) fn live(table: &Table, lease: LeaseId, now: Now) -> bool {
    table.lease(lease).is_some_and(|lease| table.lease_state(&lease, now).0 == State::Active)
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
