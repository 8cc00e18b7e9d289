//! What happened to leases since somebody last looked: for whoever tells others of ends. Kept only once a
//! lease stands on a status list or is of a certificate; whoever makes that so looks every second.

use dayfly_domain::{Kind, LeaseId, State, TaskId};

use super::{
    table::{End, Table},
    time::Now,
};
use crate::sys::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// Whose end is to be looked up anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    Lease(LeaseId),
    /// All of its own leases.
    Task(TaskId),
    /// Any lease may have ended.
    Everything,
    /// The table forgets it: whether it had ended before it expired, and how, where that is known.
    Over(LeaseId, bool, Option<End>),
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

    /// What becomes of a certificate is looked at by whoever makes CRLs.
    pub fn want_for(&self, kind: Kind) {
        if kind == Kind::X509 {
            self.want();
        }
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

impl Table {
    /// What happened since the last call to leases that may stand on a status list or a CRL.
    pub fn touched(&self) -> Vec<Touched> {
        self.touches.take()
    }

    /// The lease is about to be forgotten: how it stood when it expired.
    pub(super) fn note_over(&self, id: LeaseId, now: Now) {
        if let Some(lease) = self.touches.are_wanted().then(|| self.lease(id)).flatten() {
            // Whose task is gone, nobody can speak for: it is shown as ended.
            let gone = self.task_state(lease.task, now).is_none();
            let (state, end) = self.lease_state(&lease, now);
            self.touches.push(Touched::Over(id, gone || state == State::Ended, end));
        }
    }
}
