//! Ends by selector: one mark, in force at once for everything that it means, whatever the number.
//! The rows of what it ended are caught up later; then it is forgotten here.
//!
//! A tomb that was asked and is not yet on the record has no place in the order: it ends all that
//! matches, until it has one. From then on it ends what came before it, whatever the clocks say.

use std::{collections::HashSet, sync::Arc};

use arc_swap::ArcSwap;
use dayfly_domain::{Cause, LeaseId, LeaseWords, Matcher, Selector, State, TaskId, TaskWords, UnixMs};

use super::{
    blocks::{Block, speaks_of},
    table::{End, Lease, Table, Task},
    time::Now,
};
use crate::{
    store::TombRow,
    sys::sync::atomic::{AtomicU64, Ordering},
};

/// One end by selector that rows may be behind of.
#[derive(Debug)]
pub struct Tomb {
    /// Of this process.
    pub number: u64,
    pub matcher: Matcher,
    pub end: End,
    /// What it means is refused from now on, also before that is on the record.
    pub blocks: bool,
    /// Rows that are known to be behind.
    left: AtomicU64,
}

/// A row that does not yet say that it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BehindRow {
    Task(TaskId),
    Lease(LeaseId),
}

/// What a look at everything that is live found.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    pub tasks: u64,
    pub leases: u64,
    /// Of the leases those whose tasks live on.
    pub single: u64,
    /// All that are live, meant or not.
    pub live: u64,
    /// Some of the leases.
    pub sample: Vec<LeaseId>,
    /// Of each target the lease that would have lived longest.
    pub longest: Vec<Lease>,
}

/// Issuer, owner, template and row that opened a task.
pub type Origin = [Arc<str>; 4];

/// What of a bundle live tasks and leases hang on.
#[derive(Debug, Default)]
pub struct Origins {
    pub tasks: HashSet<Origin>,
    /// Of a lease's task, with the row that granted it and its target.
    pub leases: HashSet<(Origin, Arc<str>, Arc<str>)>,
}

/// So many leases are shown of those that are meant.
pub const SAMPLE_MAX: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Tombs {
    all: ArcSwap<Vec<Arc<Tomb>>>,
    count: AtomicU64,
}

impl Tomb {
    fn follows(&self, seq: u64) -> bool {
        self.end.seq.is_none_or(|own| seq < own)
    }

    /// What had run out before was not ended by it.
    fn ends_task(&self, task: &Task, words: &TaskWords<'_>) -> bool {
        self.follows(task.seq) && self.end.at < task.deadline && self.matcher.task(words)
    }

    /// It ended the task, whose own record does not say so on disk.
    fn leaves_task(&self, task: &Task) -> bool {
        task.end.is_none_or(|end| end.seq.is_none()) && self.ends_task(task, &task.words())
    }

    /// By itself, whatever becomes of its task.
    fn ends_lease(&self, lease: &Lease, words: &TaskWords<'_>) -> bool {
        self.matcher.means_single_leases()
            && self.follows(lease.seq)
            && self.end.at < lease.expires
            && self.matcher.lease(words, &lease.words())
    }

    /// Whether this is the end that the other one says.
    fn is(&self, end: &End) -> bool {
        (self.end.at, self.end.seq) == (end.at, end.seq)
    }

    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    pub fn note_left(&self, left: u64) {
        self.left.store(left, Ordering::Relaxed);
    }
}

impl Tombs {
    pub fn all(&self) -> arc_swap::Guard<Arc<Vec<Arc<Tomb>>>> {
        self.all.load()
    }

    fn add(&self, selector: Selector, end: End, blocks: bool) -> Arc<Tomb> {
        let number = self.count.fetch_add(1, Ordering::AcqRel);
        let tomb = Arc::new(Tomb { number, matcher: Matcher::new(selector), end, blocks, left: AtomicU64::new(0) });
        self.all.rcu(|all| all.iter().cloned().chain([tomb.clone()]).collect::<Vec<_>>());
        tomb
    }

    /// It is on the record; at start: it was.
    pub fn place(&self, row: &TombRow) {
        let asked = |tomb: &&Arc<Tomb>| {
            tomb.end.seq.is_none()
                && (tomb.end.at, tomb.end.cause) == (row.at, row.cause)
                && *tomb.matcher.selector() == row.selector
        };
        let end = End { at: row.at, cause: row.cause, seq: Some(row.seq) };
        let Some(tomb) = self.all.load().iter().find(asked).cloned() else {
            self.add(row.selector.clone(), end, false);
            return;
        };
        let matcher = tomb.matcher.clone();
        let placed = Tomb { number: tomb.number, matcher, end, blocks: tomb.blocks, left: AtomicU64::new(0) };
        let placed = Arc::new(placed);
        let replace = |all: &Arc<Vec<Arc<Tomb>>>| {
            let new = |one: &Arc<Tomb>| if one.number == placed.number { placed.clone() } else { one.clone() };
            all.iter().map(new).collect::<Vec<_>>()
        };
        self.all.rcu(replace);
    }

    pub fn done(&self, seq: u64) {
        let others = |all: &Arc<Vec<Arc<Tomb>>>| {
            all.iter().filter(|tomb| tomb.end.seq != Some(seq)).cloned().collect::<Vec<_>>()
        };
        self.all.rcu(others);
    }

    /// Whether a tomb that is not yet on the record refuses this already.
    // SECURITY: `what_an_end_blocks_is_refused_before_it_is_on_the_record`.
    pub fn refuse(&self, task: &TaskWords<'_>, lease: Option<&LeaseWords<'_>>) -> bool {
        let refuses = |tomb: &&Arc<Tomb>| tomb.blocks && tomb.end.seq.is_none();
        self.all.load().iter().filter(refuses).any(|tomb| speaks_of(&tomb.matcher, task, lease))
    }
}

impl Table {
    /// Ends everything that the selector means, from now on, durable or not.
    pub fn ask_tomb(&self, selector: Selector, at: UnixMs, cause: Cause, blocks: bool) -> Arc<Tomb> {
        let tomb = self.tombs.add(selector, End { at, cause, seq: None }, blocks);
        self.counts.note_reach();
        tomb
    }

    /// How many ends by selector were ever asked here.
    pub fn ends_asked(&self) -> u64 {
        self.tombs.count.load(Ordering::Acquire)
    }

    /// Those that rows may be behind of, and those that are not yet on the record.
    pub fn tombs(&self) -> Vec<Arc<Tomb>> {
        self.tombs.all().to_vec()
    }

    /// The block on exactly this that stands until it is lifted.
    pub fn standing_block(&self, selector: &Selector) -> Option<Block> {
        self.blocks.standing(selector)
    }

    /// How many blocks stand until they are lifted.
    pub fn standing_blocks(&self) -> usize {
        self.blocks.count_standing()
    }

    pub fn has_tombs(&self) -> bool {
        !self.tombs.all().is_empty()
    }

    pub fn tomb(&self, number: u64) -> Option<Arc<Tomb>> {
        self.tombs.all().iter().find(|tomb| tomb.number == number).cloned()
    }

    /// The earliest end of a task, its own or by selector; not that of what is above it.
    /// INVARIANT: `tombs` were read before the task was. A tomb goes when everything that it ended says
    /// so itself: in the other order it could be missed in both.
    pub(super) fn first_end(task: &Task, tombs: &[Arc<Tomb>]) -> Option<End> {
        if tombs.is_empty() {
            return task.end;
        }
        let words = task.words();
        let by_selector = tombs.iter().filter(|tomb| tomb.ends_task(task, &words)).map(|tomb| tomb.end);
        task.end.into_iter().chain(by_selector).min_by_key(|end| end.at)
    }

    /// The end of a task by selector, where it has none of its own.
    pub fn end_by_selector(&self, id: TaskId) -> Option<End> {
        let tombs = self.tombs.all();
        let task = self.tasks.get(&id).filter(|task| task.end.is_none())?;
        Self::first_end(&task, &tombs)
    }

    /// The end by selector of a lease alone. INVARIANT: as for [`Table::first_end`], for the end that the
    /// lease has itself.
    pub(super) fn single_end(&self, lease: &Lease, tombs: &[Arc<Tomb>]) -> Option<End> {
        if tombs.is_empty() {
            return None;
        }
        let task = self.tasks.get(&lease.task)?;
        let words = task.words();
        tombs.iter().filter(|tomb| tomb.ends_lease(lease, &words)).map(|tomb| tomb.end).min_by_key(|end| end.at)
    }

    /// Live tasks and leases that the selector means. `each` lease is shown, and so is each task that
    /// has none.
    pub fn meant(&self, matcher: &Matcher, now: Now, mut each: impl FnMut(Option<LeaseId>, TaskId, &str)) -> Survey {
        let live = |lease: &Lease| self.lease_state(lease, now).0 == State::Active;
        let mut survey = Survey::default();
        for id in self.candidates(|task| matcher.task(&task.words()) || task.parent.is_some()) {
            if self.task_state(id, now) == Some(State::Active) && self.means_tree(matcher, id) {
                survey.tasks += 1;
                if self.tasks.get(&id).is_some_and(|task| task.leases.is_empty()) {
                    each(None, id, "");
                }
            }
        }
        for entry in self.leases.iter().filter(|entry| live(entry.value())) {
            let lease = entry.value();
            survey.live += 1;
            let with_task = self.means_tree(matcher, lease.task);
            if with_task || self.means_lease(matcher, lease) {
                each(Some(*entry.key()), lease.task, &lease.target);
                survey.add(*entry.key(), lease, !with_task);
            }
        }
        survey
    }

    /// Tasks and leases that this very end ended, as far as memory still knows them.
    pub fn ended_by(&self, tomb: &Tomb, now: Now) -> Survey {
        self.ended_so(|end| tomb.is(end), now)
    }

    /// The same of an end that is on the record, whether or not rows are behind.
    pub fn ended_at_seq(&self, seq: u64, now: Now) -> Survey {
        self.ended_so(|end| end.seq == Some(seq), now)
    }

    fn ended_so(&self, so: impl Fn(&End) -> bool, now: Now) -> Survey {
        let mut survey = Survey::default();
        for id in self.candidates(|_| true) {
            survey.tasks += u64::from(self.end_of_tree(id, now).is_some_and(|end| so(&end)));
        }
        for entry in &self.leases {
            let lease = entry.value();
            let (state, end) = self.lease_state(lease, now);
            survey.live += u64::from(state == State::Active);
            if end.is_some_and(|end| so(&end)) {
                let with_task = self.end_of_tree(lease.task, now).is_some_and(|end| so(&end));
                survey.add(*entry.key(), lease, !with_task);
            }
        }
        survey
    }

    /// What live tasks and leases hang on in a bundle, each once.
    pub fn origins(&self, now: Now) -> Origins {
        let mut origins = Origins::default();
        let tombs = self.tombs.all();
        let live = |task: &Task| Self::first_end(task, &tombs).is_none() && task.deadline > now.at;
        for entry in self.tasks.iter().filter(|entry| live(entry.value())) {
            origins.tasks.insert(entry.value().origin());
        }
        for entry in &self.leases {
            let lease = entry.value();
            if self.lease_state(lease, now).0 == State::Active {
                let origin = self.tasks.get(&lease.task).map(|task| task.origin());
                origins.leases.extend(origin.map(|origin| (origin, lease.row.clone(), lease.target.clone())));
            }
        }
        origins
    }

    /// The ids first: a guard of a task is held while no other task is asked for.
    pub(super) fn candidates(&self, wanted: impl Fn(&Task) -> bool) -> Vec<TaskId> {
        self.tasks.iter().filter(|entry| wanted(entry.value())).map(|entry| *entry.key()).collect()
    }

    /// Whether it means the task, or one above it.
    fn means_tree(&self, matcher: &Matcher, id: TaskId) -> bool {
        let mut next = Some(id);
        while let Some(task) = next.and_then(|id| self.tasks.get(&id)) {
            if matcher.task(&task.words()) {
                return true;
            }
            next = task.parent;
        }
        false
    }

    fn means_lease(&self, matcher: &Matcher, lease: &Lease) -> bool {
        matcher.means_single_leases()
            && self.tasks.get(&lease.task).is_some_and(|task| matcher.lease(&task.words(), &lease.words()))
    }

    /// The rows that a tomb on the record ended and that do not say so yet. What ended by itself
    /// meanwhile has its own end.
    pub fn behind(&self, tomb: &Tomb) -> Vec<BehindRow> {
        let tasks = self.tasks.iter().filter(|entry| tomb.leaves_task(entry.value()));
        let mut rows: Vec<_> = tasks.map(|entry| BehindRow::Task(*entry.key())).collect();
        if tomb.matcher.means_single_leases() {
            let leases = self.leases.iter().filter(|entry| self.leaves_lease(tomb, entry.value()));
            rows.extend(leases.map(|entry| BehindRow::Lease(*entry.key())));
        }
        rows
    }

    /// Whether the row still is behind the tomb.
    pub fn is_behind(&self, tomb: &Tomb, row: BehindRow) -> bool {
        match row {
            BehindRow::Task(id) => self.tasks.get(&id).is_some_and(|task| tomb.leaves_task(&task)),
            BehindRow::Lease(id) => self.leases.get(&id).is_some_and(|lease| self.leaves_lease(tomb, &lease)),
        }
    }

    fn leaves_lease(&self, tomb: &Tomb, lease: &Lease) -> bool {
        let over = |end: Option<End>| end.is_some_and(|end| end.seq.is_some() && end.at <= tomb.end.at);
        let Some(task) = self.tasks.get(&lease.task) else { return false };
        let words = task.words();
        let alone = !over(lease.end) && tomb.ends_lease(lease, &words);
        alone && !over(task.end) && !tomb.ends_task(&task, &words)
    }
}

impl Task {
    fn origin(&self) -> [Arc<str>; 4] {
        [&self.issuer, &self.owner, &self.template, &self.row].map(Clone::clone)
    }
}

impl Survey {
    fn add(&mut self, id: LeaseId, lease: &Lease, single: bool) {
        self.leases += 1;
        self.single += u64::from(single);
        if self.sample.len() < SAMPLE_MAX {
            self.sample.push(id);
        }
        match self.longest.iter_mut().find(|other| other.target == lease.target) {
            Some(other) if other.expires >= lease.expires => {}
            Some(other) => *other = lease.clone(),
            None => self.longest.push(lease.clone()),
        }
    }
}
