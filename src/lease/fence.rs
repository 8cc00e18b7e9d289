//! The last look before a commit: is it still allowed? One batch, in order.

use std::collections::{HashMap, HashSet};

use dayfly_domain::{State, TaskId};

use super::{
    table::{Label, Table},
    time::Now,
};
use crate::store::TaskRow;

/// What happened between the decision and the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overtaken {
    #[error("the evidence has opened a task")]
    Replayed,
    #[error("the task has ended")]
    Ended,
    #[error("the handle belongs to another task")]
    HandleUsed,
    #[error("an operator blocked it")]
    Blocked,
    #[error("the job has as many live tasks of the template as it may have")]
    PerJob,
}

/// The fence of one batch: the table, and what earlier groups of the batch will have added.
#[derive(Debug)]
pub struct Fence<'a> {
    table: &'a Table,
    now: Now,
    evidence: HashSet<[u8; 32]>,
    handles: HashSet<[u8; 32]>,
    opened: HashMap<Label, u32>,
    blocked: HashSet<Label>,
}

impl<'a> Fence<'a> {
    pub fn new(table: &'a Table, now: Now) -> Self {
        Self {
            table,
            now,
            evidence: HashSet::new(),
            handles: HashSet::new(),
            opened: HashMap::new(),
            blocked: HashSet::new(),
        }
    }

    /// May this task open? Remembers it for the rest of the batch when it may.
    // SECURITY: `t_081_evidence_is_used_once`, `an_ended_job_stays_blocked`.
    pub fn open(&mut self, task: &TaskRow, per_job: u32) -> Result<(), Overtaken> {
        if self.evidence.contains(&task.evidence_key) || self.table.evidence.contains_key(&task.evidence_key) {
            return Err(Overtaken::Replayed);
        }
        if self.handles.contains(&task.handle_hash) || self.table.handles.contains_key(&task.handle_hash) {
            return Err(Overtaken::HandleUsed);
        }
        let label = Label::of_row(task);
        self.not_blocked(&label)?;
        if task.job.is_some() && self.live(&label) >= per_job {
            return Err(Overtaken::PerJob);
        }
        self.evidence.insert(task.evidence_key);
        self.handles.insert(task.handle_hash);
        *self.opened.entry(label).or_default() += 1;
        Ok(())
    }

    /// May this task get a further credential?
    pub fn feed(&self, id: TaskId) -> Result<(), Overtaken> {
        if self.table.task_state(id, self.now) != Some(State::Active) {
            return Err(Overtaken::Ended);
        }
        let task = self.table.task(id).ok_or(Overtaken::Ended)?;
        self.not_blocked(&Label::of(&task))
    }

    /// A block that this batch writes: it counts for the groups behind it.
    pub fn block(&mut self, label: Label) {
        self.blocked.insert(label);
    }

    fn not_blocked(&self, label: &Label) -> Result<(), Overtaken> {
        let blocked = self.blocked.contains(label) || self.table.is_blocked(label, self.now);
        if blocked { Err(Overtaken::Blocked) } else { Ok(()) }
    }

    fn live(&self, label: &Label) -> u32 {
        let tasks = self.table.jobs.get(label).map(|tasks| tasks.clone()).unwrap_or_default();
        let live = |id: &TaskId| self.table.task_state(*id, self.now) == Some(State::Active);
        let kept = tasks.iter().filter(|id| live(id)).count() as u32;
        kept + self.opened.get(label).copied().unwrap_or_default()
    }
}
