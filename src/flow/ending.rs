//! The writer's side of an end by word: what the first end was, its event, its rows, and the block that goes
//! with it.

use dayfly_domain::TaskId;

use super::{
    commit::{Prepared, Reply, Writer, block, end_lease, numbered, reply_end},
    group::{EndGroup, NotCommitted, What},
};
use crate::{
    lease::{End, Fence, Label, Now},
    ledger::{self, Stamp},
    store::{Change, EndRow},
};

impl Writer {
    pub(super) fn prepare_end(
        &self,
        mut group: EndGroup,
        fence: &mut Fence<'_>,
        seq: &mut u64,
        now: Now,
    ) -> Option<Prepared> {
        let table = &self.shared.table;
        let mark = match group.what {
            What::Task(id) => table.end_of_task(id),
            What::Lease(id) => table.lease(id).and_then(|lease| lease.end),
        };
        // Ended and durable: the first end is the answer. Gone: nothing left to end.
        let mark = match mark {
            Some(end @ End { seq: None, .. }) => end,
            Some(end) if self.owes_block(&group, fence, now) => {
                return self.prepare_late_block(group, end, fence, seq, now);
            }
            other => {
                reply_end(&mut group, other.ok_or(NotCommitted::Gone));
                return None;
            }
        };
        let changes = match group.what {
            What::Task(id) => self.end_task(id, &group, mark, seq, now),
            What::Lease(id) => {
                let task = table.lease(id)?.task;
                let (actor, reason) = (group.actor.as_str(), group.reason.as_deref());
                end_lease(id, task, mark.cause, mark.at, actor, reason, seq, now)
            }
        };
        let Some(changes) = changes else {
            reply_end(&mut group, Err(NotCommitted::Store));
            return None;
        };
        for change in &changes {
            if let Change::AddBlock(row) = change
                && let Some(label) = Label::of_block(row)
            {
                fence.block(label);
            }
        }
        let durable = End { seq: Some(seq.saturating_sub(1)), ..mark };
        Some((changes, Reply::End(group, durable)))
    }

    /// Whether a job was quicker: its task has ended by another end, and the block of this one is missing.
    fn owes_block(&self, group: &EndGroup, fence: &Fence<'_>, now: Now) -> bool {
        let What::Task(id) = group.what else { return false };
        let task = self.shared.table.task(id).filter(|task| group.block && task.deadline > now.at);
        task.is_some_and(|task| !fence.is_blocked(&Label::of(&task)))
    }

    /// The block of an end that came second.
    // SECURITY: `a_job_that_ends_its_task_in_the_same_moment_does_not_dodge_the_block`.
    fn prepare_late_block(
        &self,
        mut group: EndGroup,
        end: End,
        fence: &mut Fence<'_>,
        seq: &mut u64,
        now: Now,
    ) -> Option<Prepared> {
        let What::Task(id) = group.what else { return None };
        let changes = self.shared.table.task(id).and_then(|task| {
            let (actor, reason) = (group.actor.as_str(), group.reason.as_deref());
            let entry = ledger::blocked(Stamp::draw(now.at).ok()?, id, task.deadline, actor, reason);
            let at = *seq;
            let row = block(Label::of(&task), task.deadline, at, now)?;
            let mut changes = numbered(vec![entry], seq);
            changes.push(Change::AddBlock(row));
            fence.block(Label::of(&task));
            Some(changes)
        });
        let Some(changes) = changes else {
            reply_end(&mut group, Err(NotCommitted::Store));
            return None;
        };
        Some((changes, Reply::Late(group, end)))
    }

    fn end_task(&self, id: TaskId, group: &EndGroup, mark: End, seq: &mut u64, now: Now) -> Option<Vec<Change>> {
        let task = self.shared.table.task(id)?;
        let ended = self.shared.table.ended_with(&task, mark.at).len() as u64;
        let until = group.block.then_some(task.deadline);
        let stamp = Stamp::draw(now.at).ok()?;
        let (actor, reason) = (group.actor.as_str(), group.reason.as_deref());
        let entry = ledger::task_ended(stamp, id, mark.cause, mark.at, until, ended, actor, reason);
        let at = *seq;
        let mut changes = numbered(vec![entry], seq);
        changes.push(Change::EndTask(id, EndRow { at: mark.at, cause: mark.cause, seq: at }));
        if let Some(until) = until {
            changes.push(Change::AddBlock(block(Label::of(&task), until, at, now)?));
        }
        Some(changes)
    }
}
