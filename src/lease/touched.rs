//! What happened to leases since somebody last looked: for whoever tells others of ends. Kept only once a
//! lease stands on a status list; whoever makes that so looks every second.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use dayfly_domain::{LeaseId, TaskId};

/// Whose end is to be looked up anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    Lease(LeaseId),
    /// All of its own leases.
    Task(TaskId),
    /// Any lease may have ended.
    Everything,
    /// The table forgets it: whether it had ended before it expired.
    Over(LeaseId, bool),
}

#[derive(Debug)]
pub(super) struct Touches {
    wanted: AtomicBool,
    /// There are tasks below others.
    nested: AtomicBool,
    since: Mutex<Vec<Touched>>,
}

impl Default for Touches {
    /// Nobody has looked at anything yet.
    fn default() -> Self {
        let since = Mutex::new(vec![Touched::Everything]);
        Self { wanted: AtomicBool::new(false), nested: AtomicBool::new(false), since }
    }
}

impl Touches {
    /// From now on somebody looks.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    pub fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    pub fn push(&self, touched: Touched) {
        if self.are_wanted() {
            self.since().push(touched);
        }
    }

    /// A task has ended, and with it everything below it: who that is, only they know.
    pub fn push_task(&self, id: TaskId) {
        self.push(Touched::Task(id));
        if self.nested.load(Ordering::Acquire) {
            self.push(Touched::Everything);
        }
    }

    /// From now on an end of a task may be one of others too.
    pub fn nest(&self) {
        self.nested.store(true, Ordering::Release);
    }

    pub fn take(&self) -> Vec<Touched> {
        std::mem::take(&mut *self.since())
    }

    fn since(&self) -> MutexGuard<'_, Vec<Touched>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
