//! How many leases are live, by owner and by workload: what quotas are judged by, without a look at
//! the leases themselves.
//!
//! A lease is counted from the commit that issued it, and carries a mark that it is. Whatever ends it
//! takes the mark away, and only who took the mark counts it down: however many ends meet, it is
//! counted down once, and at the latest when it is forgotten. So a count may be late, never lost. It is
//! late where an end reaches what it does not touch (a task above, a tombstone): then the leases are
//! looked at once, before anybody is refused.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::Arc,
};

use dayfly_domain::{LeaseId, State, TaskId, UnixMs};

use super::{
    calendar::Calendar,
    table::{Lease, Table, Task},
    time::Now,
};
use crate::sys::sync::{
    DashMap, Entry, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

/// How many leases may be live at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Of one owner.
    pub owner: u32,
    /// Of them, what only targets in the environment `production` may use.
    pub production: u32,
    /// Of one workload; trusted and untrusted are two.
    pub workload: u32,
}

/// The quota that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    Owner,
    /// What the owner may have outside of production.
    OwnerOutside,
    Workload,
}

/// What a group asks of the quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// A task without a credential.
    Nothing,
    Lease,
    /// A lease that takes the place of one that ends within a minute. Work that is under way is not
    /// ended by a quota: for that minute there may be twice as many.
    Replacement,
}

/// The environment that has a share of its own.
pub const PRODUCTION: &str = "production";

/// Whom a lease is counted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    owner: Arc<str>,
    production: bool,
    /// Of its name, under a key of this process, and of whether it is untrusted.
    workload: u64,
}

/// Live leases of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnerUse {
    pub production: u32,
    /// In all other environments.
    pub outside: u32,
}

/// What a batch will add.
#[derive(Debug, Default)]
pub(super) struct Added {
    owners: HashMap<Arc<str>, OwnerUse>,
    workloads: HashMap<u64, u32>,
}

#[derive(Debug)]
pub(super) struct Counts {
    owners: DashMap<Arc<str>, OwnerUse>,
    workloads: DashMap<u64, u32>,
    names: RandomState,
    /// Ends that are known and lie ahead.
    ahead: Mutex<Calendar<LeaseId>>,
    /// Some task has another above it.
    trees: AtomicBool,
    /// Ends may have reached leases that are still counted.
    late: AtomicBool,
    looked_ms: AtomicI64,
    /// The latest moment that a batch was written at.
    at_ms: AtomicI64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            owners: DashMap::new(),
            workloads: DashMap::new(),
            names: RandomState::new(),
            ahead: Mutex::default(),
            trees: AtomicBool::new(false),
            late: AtomicBool::new(true),
            looked_ms: AtomicI64::new(i64::MIN),
            at_ms: AtomicI64::new(i64::MIN),
        }
    }
}

impl OwnerUse {
    fn of(&mut self, production: bool) -> &mut u32 {
        if production { &mut self.production } else { &mut self.outside }
    }

    /// In every environment.
    pub fn all(self) -> u32 {
        self.production.saturating_add(self.outside)
    }

    pub fn and(self, more: Self) -> Self {
        Self { production: self.production + more.production, outside: self.outside + more.outside }
    }
}

impl Added {
    pub fn add(&mut self, holder: &Holder) {
        *self.owners.entry(holder.owner.clone()).or_default().of(holder.production) += 1;
        *self.workloads.entry(holder.workload).or_default() += 1;
    }
}

impl Counts {
    pub fn holder(&self, owner: Arc<str>, environment: &str, workload: &str, untrusted: bool) -> Holder {
        let workload = self.names.hash_one((workload, untrusted));
        Holder { owner, production: environment == PRODUCTION, workload }
    }

    pub fn of_task(&self, task: &Task) -> Holder {
        self.holder(task.owner.clone(), &task.environment, &task.workload, task.untrusted)
    }

    pub fn add(&self, holder: &Holder) {
        *self.owners.entry(holder.owner.clone()).or_default().of(holder.production) += 1;
        *self.workloads.entry(holder.workload).or_default() += 1;
    }

    fn take(&self, holder: &Holder) {
        if let Some(mut owner) = self.owners.get_mut(&holder.owner) {
            let count = owner.of(holder.production);
            *count = count.saturating_sub(1);
        }
        if let Entry::Occupied(mut workload) = self.workloads.entry(holder.workload) {
            *workload.get_mut() = workload.get().saturating_sub(1);
            if *workload.get() == 0 {
                workload.remove();
            }
        }
    }

    /// A task that has another above it ends without being touched.
    pub fn note_open(&self, task: &Task) {
        if task.parent.is_some() {
            self.trees.store(true, Ordering::Relaxed);
        }
    }

    fn note_task_end(&self) {
        if self.trees.load(Ordering::Relaxed) {
            self.late.store(true, Ordering::SeqCst);
        }
    }

    /// An end that touches none of what it ends: it is to be looked for at once.
    pub fn note_reach(&self) {
        self.looked_ms.store(i64::MIN, Ordering::SeqCst);
        self.late.store(true, Ordering::SeqCst);
    }

    /// Not more than once a second for what holders can bring about themselves.
    fn may_look(&self, now: Now) -> bool {
        let since = now.at.as_ms().saturating_sub(self.looked_ms.load(Ordering::SeqCst));
        since >= LOOKED_EACH_MS && self.late.swap(false, Ordering::SeqCst)
    }

    fn room(&self, quotas: Quotas, holder: &Holder, added: &Added, times: u32) -> Result<(), Quota> {
        let Quotas { owner, production, workload } = quotas;
        let most = |quota: u32| quota.saturating_mul(times);
        let before = added.workloads.get(&holder.workload).copied().unwrap_or_default();
        let live = self.workloads.get(&holder.workload).map_or(0, |count| *count);
        if live + before >= most(workload) {
            return Err(Quota::Workload);
        }
        let before = added.owners.get(&holder.owner).copied().unwrap_or_default();
        let used = self.owner(&holder.owner).and(before);
        if used.all() >= most(owner) {
            return Err(Quota::Owner);
        }
        if !holder.production && used.outside >= most(owner.saturating_sub(production)) {
            return Err(Quota::OwnerOutside);
        }
        Ok(())
    }

    fn owner(&self, owner: &str) -> OwnerUse {
        self.owners.get(owner).map_or_else(OwnerUse::default, |used| *used)
    }

    fn ahead(&self) -> MutexGuard<'_, Calendar<LeaseId>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LOOKED_EACH_MS: i64 = 1_000;

impl Table {
    /// Whether one more lease may be counted, beside what the batch adds.
    // SECURITY: `a_flood_outside_of_production_leaves_production_its_share`,
    // `t_098_asks_at_once_do_not_pass_a_quota_together`.
    pub(super) fn room(
        &self,
        quotas: Quotas,
        holder: &Holder,
        added: &Added,
        asks: Asks,
        now: Now,
    ) -> Result<(), Quota> {
        let times = match asks {
            Asks::Nothing => return Ok(()),
            Asks::Lease => 1,
            Asks::Replacement => 2,
        };
        match self.counts.room(quotas, holder, added, times) {
            Err(_) if self.counts.may_look(now) => {
                self.release_over(now);
                self.counts.room(quotas, holder, added, times)
            }
            answer => answer,
        }
    }

    /// Counts the lease down when its end is there.
    pub(super) fn release_at(&self, id: LeaseId, at: UnixMs) {
        let now = UnixMs::new(self.counts.at_ms.load(Ordering::SeqCst));
        if at <= now {
            self.release_ended(id, now);
        } else {
            self.counts.ahead().insert(at, id);
        }
    }

    /// Counts down the leases of a task that has ended.
    pub(super) fn release_task(&self, id: TaskId) {
        let leases = self.tasks.get(&id).map(|task| task.leases.clone()).unwrap_or_default();
        leases.into_iter().for_each(|lease| self.release(lease));
        self.counts.note_task_end();
    }

    /// Counts down whatever has ended by now; from here on it is so late.
    pub fn release_due(&self, now: Now) {
        self.counts.at_ms.fetch_max(now.at.as_ms(), Ordering::SeqCst);
        loop {
            let due = self.counts.ahead().drain(now.at, SLICE);
            due.iter().for_each(|id| self.release_ended(*id, now.at));
            if due.len() < SLICE {
                return;
            }
        }
    }

    fn release_ended(&self, id: LeaseId, now: UnixMs) {
        let ended = self.leases.get(&id).is_some_and(|lease| lease.end.is_some_and(|end| end.at <= now));
        if ended {
            self.release(id);
        }
    }

    /// Counts down whatever is over, however it ended. Looks at every lease.
    pub fn release_over(&self, now: Now) {
        self.counts.looked_ms.store(now.at.as_ms(), Ordering::SeqCst);
        let over = |lease: &Lease| lease.counted && self.lease_state(lease, now).0 != State::Active;
        let ids: Vec<_> = self.leases.iter().filter(|entry| over(entry.value())).map(|entry| *entry.key()).collect();
        ids.into_iter().for_each(|id| self.release(id));
    }

    pub(super) fn release(&self, id: LeaseId) {
        let task = self.leases.get(&id).filter(|lease| lease.counted).map(|lease| lease.task);
        let holder = task.and_then(|task| self.tasks.get(&task).map(|task| self.counts.of_task(&task)));
        if let Some(holder) = holder {
            self.release_for(id, &holder);
        }
    }

    /// Whoever takes the mark counts the lease down.
    // SECURITY: `counts_are_what_a_recount_finds`.
    pub(super) fn release_for(&self, id: LeaseId, holder: &Holder) {
        let counted = self.leases.change(&id, |lease| std::mem::take(&mut lease.counted));
        if counted == Some(true) {
            self.counts.take(holder);
        }
    }

    /// Live leases by owner: for a gauge.
    pub fn owner_uses(&self) -> Vec<(Arc<str>, OwnerUse)> {
        self.counts.owners.iter().map(|entry| (entry.key().clone(), *entry.value())).collect()
    }

    /// Those of the workload that has the most: for a gauge.
    pub fn fullest_workload(&self) -> u32 {
        self.counts.workloads.iter().map(|entry| *entry.value()).max().unwrap_or_default()
    }
}

const SLICE: usize = 1_000;

#[cfg(test)]
#[path = "counts_tests.rs"]
mod tests;
