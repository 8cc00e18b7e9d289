//! The last look before a commit: is it still allowed? One batch, in order.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use dayfly_domain::{BlockId, State, TaskId, TaskWords};
use dayfly_verifier::Thumbprint;

use super::{
    blocks::Block,
    certified::key_of,
    counts::{Added, Asks, Holder, Quota, Quotas},
    jobs::{Holding, Job, Seen},
    matching::{claims_of, lease_words, task_words},
    table::{Label, Table, bound_to},
    time::Now,
};
use crate::store::{LeaseRow, TaskRow};

/// What happened between the decision and the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overtaken {
    #[error("the evidence has opened a task")]
    Replayed,
    #[error("task {0} or its job has shown another key")]
    Conflict(TaskId),
    #[error("the task has ended")]
    Ended,
    #[error("the handle belongs to another task")]
    HandleUsed,
    #[error("an operator blocked it")]
    Blocked,
    #[error("the job has as many live tasks of the template as it may have")]
    PerJob,
    #[error("the task that it would open below has ended")]
    ParentEnded,
    #[error("it would go on after the task that it would open below")]
    OutlivesParent,
    #[error("its tree is as deep as a tree may be")]
    TooDeep,
    #[error("its parent has as many open children as it may have")]
    TooManyChildren,
    #[error("the key is another workload's")]
    KeyOfAnother,
    #[error("the quota {0:?} is used up")]
    Quota(Quota),
}

/// How much of a template one job may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Live tasks.
    pub per_job: u32,
    /// Distinct keys of tasks that are remembered; `None`: any number.
    pub keys_per_job: Option<u32>,
}

/// The fence of one batch: the table, and what earlier groups of the batch will have added.
#[derive(Debug)]
pub struct Fence<'a> {
    table: &'a Table,
    quotas: Quotas,
    now: Now,
    /// Leases of earlier groups.
    added: Added,
    evidence: HashSet<[u8; 32]>,
    handles: HashSet<[u8; 32]>,
    opened: HashMap<Label, u32>,
    /// In which tasks were opened, and what these hold.
    jobs: HashMap<Job, HashSet<Holding>>,
    blocked: HashSet<Label>,
    /// Tasks that this batch opens.
    tasks: HashSet<TaskId>,
    /// How many of them below which task.
    children: HashMap<TaskId, usize>,
    lifted: HashSet<BlockId>,
    /// Keys that earlier groups get certificates for, and whose they are then.
    certified: HashMap<Thumbprint, Arc<str>>,
}

impl<'a> Fence<'a> {
    pub fn new(table: &'a Table, quotas: Quotas, now: Now) -> Self {
        table.release_due(now);
        Self {
            table,
            quotas,
            now,
            added: Added::default(),
            evidence: HashSet::new(),
            handles: HashSet::new(),
            opened: HashMap::new(),
            jobs: HashMap::new(),
            blocked: HashSet::new(),
            tasks: HashSet::new(),
            children: HashMap::new(),
            lifted: HashSet::new(),
            certified: HashMap::new(),
        }
    }

    /// Whether this batch opens a task that the new one would have to be judged by. It is judged
    /// once that one is durable: a batch may fail.
    pub fn follows(&self, task: &TaskRow, job_counts: bool) -> bool {
        self.evidence.contains(&task.evidence_key)
            || task.parent.is_some_and(|parent| self.tasks.contains(&parent))
            || job_counts && self.jobs.contains_key(&Job::of_row(task))
    }

    /// Whether this batch gives the job something that it did not hold when the decision was made.
    /// More of the same changes nothing, and need not be waited for.
    // SECURITY: `more_of_what_a_job_holds_waits_for_no_batch_and_anything_else_does`.
    pub fn adds_to(&self, seen: &Seen) -> bool {
        let opened = self.jobs.get(&seen.job);
        opened.is_some_and(|opened| opened.iter().any(|holding| !seen.holdings.contains(holding)))
    }

    /// Whether a job holds what it held when the decision was made.
    // SECURITY: `two_exchanges_at_once_do_not_both_pass_a_forbid_on_what_is_held`.
    pub fn unchanged(&self, seen: &Seen) -> bool {
        self.table.holdings(&seen.job, seen.but, self.now) == seen.holdings
    }

    /// May this task open? Remembers it for the rest of the batch when it may.
    // SECURITY: `t_081_evidence_is_used_once`, `an_ended_job_stays_blocked`.
    pub fn open(
        &mut self,
        task: &TaskRow,
        lease: Option<&LeaseRow>,
        limits: Limits,
        asks: Asks,
    ) -> Result<(), Overtaken> {
        self.unused(task)?;
        if self.handles.contains(&task.handle_hash) || self.table.task_of_handle(&task.handle_hash).is_some() {
            return Err(Overtaken::HandleUsed);
        }
        let label = Label::of_row(task);
        self.not_blocked(&label)?;
        self.not_selected(task, lease)?;
        self.within(task, &label, limits)?;
        self.own_key(lease, &task.workload)?;
        let beside = task.parent.and_then(|parent| self.children.get(&parent)).copied().unwrap_or_default();
        self.table.takes_child(task, beside, self.now)?;
        let owner = task.owner.as_str().into();
        self.room(self.table.counts.holder(owner, &task.environment, &task.workload, task.untrusted), asks)?;
        self.tasks.insert(task.id);
        if let Some(parent) = task.parent {
            *self.children.entry(parent).or_default() += 1;
        }
        self.evidence.insert(task.evidence_key);
        self.handles.insert(task.handle_hash);
        self.jobs.entry(label.job()).or_default().insert(Holding::of_row(task));
        *self.opened.entry(label).or_default() += 1;
        Ok(())
    }

    /// Evidence that comes back with another key, or with one where there was none, was stolen: from
    /// the task, or before it by whoever opened the task.
    // SECURITY: `t_065_used_evidence_under_another_key_is_a_conflict`.
    fn unused(&self, task: &TaskRow) -> Result<(), Overtaken> {
        if self.evidence.contains(&task.evidence_key) {
            return Err(Overtaken::Replayed);
        }
        match self.table.opened_by(&task.evidence_key) {
            Some((id, first)) if first != bound_to(task) => Err(Overtaken::Conflict(id)),
            Some(_) => Err(Overtaken::Replayed),
            None => Ok(()),
        }
    }

    // SECURITY: `a_second_key_in_a_job_is_a_conflict`.
    fn within(&self, task: &TaskRow, label: &Label, limits: Limits) -> Result<(), Overtaken> {
        if task.job.is_none() {
            return Ok(());
        }
        if let (Some(most), Some(key)) = (limits.keys_per_job, bound_to(task)) {
            let bound = self.table.keys_of(label);
            let known: HashSet<_> = bound.iter().map(|(_, key)| *key).collect();
            let too_many = !known.contains(&key) && known.len() >= most as usize;
            if let (true, Some((id, _))) = (too_many, bound.first()) {
                return Err(Overtaken::Conflict(*id));
            }
        }
        let live = self.table.live_of(label, self.now) + self.opened.get(label).copied().unwrap_or_default();
        if live >= limits.per_job { Err(Overtaken::PerJob) } else { Ok(()) }
    }

    /// May this task get a further credential? Remembers that it does.
    pub fn feed(&mut self, id: TaskId, lease: Option<&LeaseRow>, asks: Asks) -> Result<(), Overtaken> {
        if self.table.task_state(id, self.now) != Some(State::Active) {
            return Err(Overtaken::Ended);
        }
        let task = self.table.task(id).ok_or(Overtaken::Ended)?;
        self.not_blocked(&Label::of(&task))?;
        self.not_selected_by(&task.words(), lease)?;
        self.own_key(lease, &task.workload)?;
        self.room(self.table.counts.of_task(&task), asks)
    }

    /// By all its claims, those too that nothing could be ended by.
    // SECURITY: `a_block_by_selector_refuses_what_matches_and_nothing_else`.
    fn not_selected(&self, task: &TaskRow, lease: Option<&LeaseRow>) -> Result<(), Overtaken> {
        if !self.table.blocks.has_others() && !self.table.has_tombs() {
            return Ok(());
        }
        let claims = claims_of(task, |_| true);
        self.not_selected_by(&task_words(task, &claims), lease)
    }

    fn not_selected_by(&self, task: &TaskWords<'_>, lease: Option<&LeaseRow>) -> Result<(), Overtaken> {
        let lease = lease.map(lease_words);
        let refused =
            self.table.blocks.on_words(task, lease.as_ref(), self.now) || self.table.tombs.refuse(task, lease.as_ref());
        if refused { Err(Overtaken::Blocked) } else { Ok(()) }
    }

    /// A key that two workloads have a certificate for is known to both. What is refused later for want of
    /// room keeps the key to its workload for this batch alone.
    // SECURITY: `t_129_another_workloads_key_is_refused`.
    fn own_key(&mut self, lease: Option<&LeaseRow>, workload: &str) -> Result<(), Overtaken> {
        let Some((lease, key)) = lease.and_then(|lease| Some((lease, key_of(lease)?))) else { return Ok(()) };
        let earlier = self.certified.entry(key).or_insert_with(|| workload.into());
        let own = **earlier == *workload && self.table.certified.may_have(lease, workload, self.now);
        if own { Ok(()) } else { Err(Overtaken::KeyOfAnother) }
    }

    /// The last check of all, because it counts: what is refused for anything else takes no room.
    // SECURITY: `t_098_asks_at_once_do_not_pass_a_quota_together`.
    fn room(&mut self, holder: Holder, asks: Asks) -> Result<(), Overtaken> {
        self.table.room(self.quotas, &holder, &self.added, asks, self.now).map_err(Overtaken::Quota)?;
        if asks != Asks::Nothing {
            self.added.add(&holder);
        }
        Ok(())
    }

    /// A block that this batch writes: it counts for the groups behind it.
    pub fn block(&mut self, label: Label) {
        self.blocked.insert(label);
    }

    /// The block, if it stands and this batch does not lift it already.
    pub fn lift(&mut self, id: BlockId) -> Option<Block> {
        let block = self.table.blocks.get(id, self.now)?;
        self.lifted.insert(id).then_some(block)
    }

    pub fn is_blocked(&self, label: &Label) -> bool {
        self.blocked.contains(label) || self.table.is_blocked(label, self.now)
    }

    fn not_blocked(&self, label: &Label) -> Result<(), Overtaken> {
        if self.is_blocked(label) { Err(Overtaken::Blocked) } else { Ok(()) }
    }
}
