//! Tasks by job, over all templates: what limits, combinations and shared keys are judged by, at a
//! cost that does not grow with what other jobs do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dayfly_domain::{State, TaskId};
use dayfly_verifier::Thumbprint;

use super::{
    records::Place,
    table::{Label, Table, Task, platform_job},
    time::Now,
};
use crate::{store::TaskRow, sys::sync::Entry};

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
    /// Of those that are remembered and bound to a key, ended or not.
    keys: BTreeMap<TaskId, Thumbprint>,
    /// How many are remembered.
    known: usize,
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

impl Alike {
    fn of(task: &Task) -> Self {
        let (open, keys) = (BTreeSet::new(), BTreeMap::new());
        Self { template: task.template.clone(), grants: task.grants.clone(), open, keys, known: 0 }
    }

    fn is_of(&self, task: &Task) -> bool {
        self.template == task.template && self.grants == task.grants
    }

    fn add(&mut self, id: TaskId, task: &Task) {
        self.known += 1;
        self.keys.extend(task.thumbprint.map(|key| (id, key)));
        if task.end.is_none() {
            self.open.insert(id);
        }
    }

    fn holding(&self) -> Holding {
        Holding { template: self.template.clone(), grants: self.grants.clone() }
    }
}

/// A job has one task nearly always: then its record says all there is to say, and only of jobs that
/// have had more are there lists.
impl Table {
    /// What the live tasks of a job may do, sorted, each once; not counting `but`.
    pub fn holdings(&self, job: &Job, but: Option<TaskId>, now: Now) -> Vec<Holding> {
        let live = |id: &TaskId| Some(*id) != but && self.task_state(*id, now) == Some(State::Active);
        // The newest first: it is the one that is likely alive.
        let held = |alike: &&Alike| alike.open.iter().rev().any(live);
        let mut held = self.in_job(job, |alike| alike.iter().filter(held).map(Alike::holding).collect::<Vec<_>>());
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
        let bound = |(id, key): (&TaskId, &Thumbprint)| (*id, *key);
        self.of_label(label, |alike| alike.keys.iter().map(bound).collect::<Vec<_>>()).concat()
    }

    fn of_label<T>(&self, label: &Label, each: impl Fn(&Alike) -> T) -> Vec<T> {
        let of_template = |alike: &&Alike| alike.template == *label.template();
        self.in_job(&label.job(), |alike| alike.iter().filter(of_template).map(&each).collect())
    }

    /// INVARIANT: a list is there before the only task of a job stops being the only one, so that who
    /// looks in this order misses none. Nobody waits for a job while holding a record, so records may be
    /// asked below a job.
    fn in_job<T>(&self, job: &Job, look: impl Fn(&[Alike]) -> Vec<T>) -> Vec<T> {
        if let Some((_, id, task)) = self.tasks.alone_in(job) {
            let mut alike = Alike::of(&task);
            alike.add(id, &task);
            return look(&[alike]);
        }
        self.jobs.get(job).map(|alike| look(&alike)).unwrap_or_default()
    }

    pub(super) fn add_to_job(&self, place: Place, id: TaskId, task: &Task) {
        match self.jobs.entry(Job::of(task)) {
            Entry::Occupied(mut list) => add(list.get_mut(), id, task),
            Entry::Vacant(room) => {
                let job = room.key().clone();
                let Some((first, first_id, first_task)) = self.tasks.alone_in(&job) else {
                    return self.tasks.is_alone(place, &job);
                };
                let mut list = Vec::new();
                add(&mut list, first_id, &first_task);
                add(&mut list, id, task);
                let list = room.insert(list);
                self.tasks.not_alone(first, &job);
                drop(list);
            }
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

    /// Once its record is gone, and with it that it was the only one.
    pub(super) fn take_from_job(&self, id: TaskId, task: &Task) {
        let job = Job::of(task);
        if let Some(mut list) = self.jobs.get_mut(&job) {
            if let Some(alike) = list.iter_mut().find(|alike| alike.is_of(task)) {
                alike.open.remove(&id);
                alike.keys.remove(&id);
                alike.known -= 1;
            }
            list.retain(|alike| alike.known > 0);
        }
        self.jobs.remove_if(&job, |_, alike| alike.is_empty());
    }
}

fn add(list: &mut Vec<Alike>, id: TaskId, task: &Task) {
    let at = list.iter().position(|alike| alike.is_of(task)).unwrap_or_else(|| {
        list.push(Alike::of(task));
        list.len() - 1
    });
    list[at].add(id, task);
}
