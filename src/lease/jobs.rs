//! Tasks by job, over all templates: what limits, combinations and shared keys are judged by, at a
//! cost that does not grow with what other jobs do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dayfly_domain::{State, TaskId};
use dayfly_verifier::Thumbprint;

use super::{
    table::{Label, Table, Task, platform_job},
    time::Now,
};
use crate::store::TaskRow;

/// What tasks are held together by: the job's label, or without one the workload, as a block
/// speaks of them. A workload without a label is one job: a combination that is refused inside a
/// job is not to be had by leaving the label out.
// SECURITY: `without_a_label_the_workload_is_the_job`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    job: Option<Arc<str>>,
    workload: Option<Arc<str>>,
}

/// Tasks of a job that may do the same.
#[derive(Debug)]
pub(super) struct Alike {
    template: Arc<str>,
    grants: Arc<str>,
    /// Not ended; some may have expired. In the order in which they were opened.
    open: BTreeSet<TaskId>,
    /// Of those that are remembered, ended or not.
    keys: BTreeMap<TaskId, Option<Thumbprint>>,
}

/// What live tasks of a job may do: a template, and what it granted when they were opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holding {
    pub template: Arc<str>,
    /// JSON object: target name -> sorted array of actions.
    pub grants: Arc<str>,
}

/// What a decision knew of a job, so that the fence can tell whether it is still so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub job: Job,
    /// The task that asks.
    pub but: Option<TaskId>,
    pub holdings: Vec<Holding>,
}

impl Job {
    pub fn new(job: Option<Arc<str>>, workload: Arc<str>) -> Self {
        match job {
            Some(job) => Self { job: Some(job), workload: None },
            None => Self { job: None, workload: Some(workload) },
        }
    }

    /// One of the two is there.
    pub(super) fn of_label(job: Option<Arc<str>>, workload: Option<Arc<str>>) -> Self {
        Self { job, workload }
    }

    pub fn of(task: &Task) -> Self {
        Self::new(task.job.clone(), task.workload.clone())
    }

    pub fn of_row(row: &TaskRow) -> Self {
        Self::of_parts(&row.issuer, row.job.as_deref(), &row.workload)
    }

    /// Of a workload that has no task yet.
    pub fn of_parts(issuer: &str, job: Option<&str>, workload: &str) -> Self {
        Self::new(job.map(|job| platform_job(issuer, job).into()), workload.into())
    }
}

impl Holding {
    pub(super) fn of_row(row: &TaskRow) -> Self {
        Self { template: row.template.as_str().into(), grants: row.grants.as_str().into() }
    }
}

impl Table {
    /// What the live tasks of a job may do, sorted, each once; not counting `but`.
    pub fn holdings(&self, job: &Job, but: Option<TaskId>, now: Now) -> Vec<Holding> {
        // INVARIANT: nobody waits for a job while holding a task, so one may be asked below the other.
        let Some(alike) = self.jobs.get(job) else { return Vec::new() };
        let live = |id: &TaskId| Some(*id) != but && self.task_state(*id, now) == Some(State::Active);
        // The newest first: it is the one that is likely alive.
        let held = alike.iter().filter(|alike| alike.open.iter().rev().any(live));
        let mut held: Vec<_> =
            held.map(|alike| Holding { template: alike.template.clone(), grants: alike.grants.clone() }).collect();
        held.sort();
        held
    }

    /// How many tasks of the label are live.
    pub(super) fn live_of(&self, label: &Label, now: Now) -> u32 {
        let live = |id: &&TaskId| self.task_state(**id, now) == Some(State::Active);
        self.of_label(label, |alike| alike.open.iter().filter(live).count() as u32).into_iter().sum()
    }

    /// The tasks of a label that are remembered, ended or not, and the keys that they are bound to.
    pub(super) fn keys_of(&self, label: &Label) -> Vec<(TaskId, Thumbprint)> {
        let bound = |(id, key): (&TaskId, &Option<Thumbprint>)| Some((*id, (*key)?));
        self.of_label(label, |alike| alike.keys.iter().filter_map(bound).collect::<Vec<_>>()).concat()
    }

    fn of_label<T>(&self, label: &Label, each: impl Fn(&Alike) -> T) -> Vec<T> {
        let Some(job) = self.jobs.get(&label.job()) else { return Vec::new() };
        job.iter().filter(|alike| alike.template == *label.template()).map(each).collect()
    }

    pub(super) fn add_to_job(&self, id: TaskId, task: &Task, grants: Arc<str>) {
        let mut job = self.jobs.entry(Job::of(task)).or_default();
        let same = |alike: &Alike| alike.template == task.template && alike.grants == grants;
        let at = job.iter().position(same).unwrap_or_else(|| {
            let (open, keys) = (BTreeSet::new(), BTreeMap::new());
            job.push(Alike { template: task.template.clone(), grants, open, keys });
            job.len() - 1
        });
        job[at].keys.insert(id, task.thumbprint);
        if task.end.is_none() {
            job[at].open.insert(id);
        }
    }

    /// An ended task holds nothing; the key that it was bound to is remembered.
    pub(super) fn end_in_job(&self, id: TaskId, job: &Job) {
        if let Some(mut alike) = self.jobs.get_mut(job) {
            for alike in alike.iter_mut() {
                alike.open.remove(&id);
            }
        }
    }

    pub(super) fn take_from_job(&self, id: TaskId, task: &Task) {
        let job = Job::of(task);
        if let Some(mut alike) = self.jobs.get_mut(&job) {
            for alike in alike.iter_mut() {
                alike.open.remove(&id);
                alike.keys.remove(&id);
            }
            alike.retain(|alike| !alike.keys.is_empty());
        }
        self.jobs.remove_if(&job, |_, alike| alike.is_empty());
    }
}
