//! Where tasks and leases are kept: packed records behind one lock, found by id, handle and evidence.
//!
//! In and out go [`Task`] and [`Lease`], whole and owned: nobody outside holds the lock, so nothing can
//! be asked while it is held, and there is no order of locks to keep. What is kept of them is in
//! `packed`. Each question is one look; each change is one move.

mod brief;
mod packed;
mod pool;
mod slab;

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
};

use dayfly_domain::{LeaseId, TaskId, UnixMs};
use dayfly_verifier::Thumbprint;
use hashbrown::HashTable;

use super::{
    jobs::Job,
    table::{End, Lease, Task},
};
pub(super) use packed::half;
pub(super) use slab::Place;

use crate::sys::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use packed::{Mutable, PackedLease, PackedTask, Shared};
use slab::{NOWHERE, Slab};

/// What a task is found by, beside its id.
pub(super) struct Keys<'a> {
    pub evidence: &'a [u8; 32],
    pub handle: &'a [u8; 32],
}

/// INVARIANT: each place in an index holds a record whose key it is, and each record is in each index
/// of its kind once; a lease whose `task` is somewhere is in the chain of that task.
#[derive(Debug, Default)]
struct Records {
    tasks: Slab<PackedTask>,
    leases: Slab<PackedLease>,
    shared: Shared,
    by_task: HashTable<Place>,
    by_handle: HashTable<Place>,
    by_evidence: HashTable<Place>,
    by_lease: HashTable<Place>,
    /// Tasks that are the only ones of their jobs, by job.
    alone: HashTable<Place>,
    /// Keyed: handles and evidence are chosen by clients.
    hasher: RandomState,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Tasks(Arc<RwLock<Records>>);

#[derive(Debug, Clone)]
pub(super) struct Leases(Arc<RwLock<Records>>);

/// One of all, as it was when its page was read.
pub(super) struct Entry<K, V> {
    key: K,
    value: V,
}

/// All of them, a page at a time; between pages others may come and go.
pub(super) struct Iter<'a, K, V> {
    records: &'a RwLock<Records>,
    page: usize,
    read: fn(&Records, usize, &mut VecDeque<Entry<K, V>>) -> bool,
    ready: VecDeque<Entry<K, V>>,
}

impl<K, V> Entry<K, V> {
    pub fn key(&self) -> &K {
        &self.key
    }

    pub fn value(&self) -> &V {
        &self.value
    }
}

impl<K, V> Iterator for Iter<'_, K, V> {
    type Item = Entry<K, V>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            if !(self.read)(&read(self.records), self.page, &mut self.ready) {
                return None;
            }
            self.page += 1;
        }
        self.ready.pop_front()
    }
}

impl Tasks {
    /// The leases of these tasks.
    pub fn leases(&self) -> Leases {
        Leases(self.0.clone())
    }

    pub fn get(&self, id: &TaskId) -> Option<Task> {
        let records = read(&self.0);
        let place = records.place_of_task(*id)?;
        Some(records.task(place))
    }

    /// What says whether a task has ended, without the rest: asked for every introspection.
    pub fn ends_of(&self, id: &TaskId) -> Option<(Option<End>, Option<TaskId>)> {
        let records = read(&self.0);
        let place = records.place_of_task(*id)?;
        Some(records.shared.end_and_parent(records.tasks.at(place)))
    }

    /// Where it stands until it is removed, and until when it matters.
    pub fn insert(&self, id: TaskId, task: &Task, keys: &Keys<'_>) -> (Place, UnixMs) {
        write(&self.0).add_task(id, task, keys)
    }

    /// As it was when it was removed: no lease of it is known that is not among its own.
    pub fn remove(&self, place: Place) -> Option<(TaskId, Task)> {
        write(&self.0).remove_task(place)
    }

    pub fn at(&self, place: Place) -> Option<(TaskId, Task)> {
        let records = read(&self.0);
        let task = Some(records.tasks.at(place)).filter(|task| !task.is_vacant())?;
        Some((task.id(), records.whole_task(task)))
    }

    /// The task that was said to be the only one of this job.
    pub fn alone_in(&self, job: &Job) -> Option<(Place, TaskId, Task)> {
        let records = read(&self.0);
        let found = records.alone.find(records.hash(job), |place| records.job_of(*place) == *job)?;
        Some((*found, records.tasks.at(*found).id(), records.task(*found)))
    }

    /// The task is the only one of its job.
    pub fn is_alone(&self, place: Place, job: &Job) {
        let mut records = write(&self.0);
        let hash = records.hash(job);
        let mut alone = std::mem::take(&mut records.alone);
        alone.insert_unique(hash, place, |place| records.hash(records.job_of(*place)));
        records.alone = alone;
    }

    /// It is not any more.
    pub fn not_alone(&self, place: Place, job: &Job) {
        let mut records = write(&self.0);
        let hash = records.hash(job);
        remove(&mut records.alone, hash, place);
    }

    /// `end`: the end that the task has from now on, by what it is. What it was before, and its end.
    pub fn change_end(&self, id: &TaskId, end: impl FnOnce(&Task) -> Option<End>) -> Option<(Task, Option<End>)> {
        let mut records = write(&self.0);
        let place = records.place_of_task(*id)?;
        let task = records.task(place);
        let end = end(&task);
        let Records { tasks, shared, .. } = &mut *records;
        shared.end_task(tasks.at_mut(place), end);
        Some((task, end))
    }

    pub fn change_claims(&self, id: &TaskId, claims: Arc<str>) {
        let mut records = write(&self.0);
        if let Some(place) = records.place_of_task(*id) {
            let task = Task { claims, ..records.task(place) };
            let Records { tasks, shared, .. } = &mut *records;
            shared.change_claims(tasks.at_mut(place), &task);
        }
    }

    /// The task that this evidence opened, and the key that its handle is bound to.
    pub fn of_evidence(&self, key: &[u8; 32]) -> Option<(TaskId, Option<Thumbprint>)> {
        let records = read(&self.0);
        let mark = records.hasher.hash_one(key);
        let found = records.by_evidence.find(mark, |place| records.tasks.at(*place).evidence() == mark)?;
        Some(records.bound(*found))
    }

    /// The task of a handle, and the key that the handle is bound to. How long the look takes may tell of
    /// the hash: that is of no use without the handle.
    pub fn of_handle(&self, hash: &[u8; 32]) -> Option<(TaskId, Option<Thumbprint>)> {
        let (records, half) = (read(&self.0), half(hash));
        let found = records.by_handle.find(records.hash(half), |place| records.tasks.at(*place).handle == half)?;
        Some(records.bound(*found))
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        read(&self.0).tasks.len()
    }

    pub fn iter(&self) -> Iter<'_, TaskId, Task> {
        let read = |records: &Records, number: usize, out: &mut VecDeque<_>| {
            let Some(page) = records.tasks.page(number) else { return false };
            let live = page.iter().filter(|task| !task.is_vacant());
            out.extend(live.map(|task| Entry { key: task.id(), value: records.whole_task(task) }));
            true
        };
        Iter { records: &self.0, page: 0, read, ready: VecDeque::new() }
    }
}

impl Leases {
    pub fn get(&self, id: &LeaseId) -> Option<Lease> {
        let records = read(&self.0);
        let place = records.place_of_lease(*id)?;
        Some(records.whole_lease(records.leases.at(place)))
    }

    /// The end that it has itself. The outer `None`: it is not known.
    pub fn end_of(&self, id: &LeaseId) -> Option<Option<End>> {
        let records = read(&self.0);
        let place = records.place_of_lease(*id)?;
        Some(records.shared.end_of_lease(records.leases.at(place)))
    }

    pub fn at(&self, place: Place) -> Option<LeaseId> {
        let records = read(&self.0);
        Some(records.leases.at(place)).filter(|lease| !lease.is_vacant()).map(PackedLease::id)
    }

    /// Where it stands until it is removed.
    pub fn insert(&self, lease: &Lease) -> Place {
        write(&self.0).add_lease(lease)
    }

    pub fn remove(&self, place: Place) {
        write(&self.0).remove_lease(place);
    }

    pub fn change<R>(&self, id: &LeaseId, change: impl FnOnce(&mut Mutable) -> R) -> Option<R> {
        let mut records = write(&self.0);
        let place = records.place_of_lease(*id)?;
        let Records { leases, shared, .. } = &mut *records;
        Some(shared.change_lease(leases.at_mut(place), change))
    }

    pub fn iter(&self) -> Iter<'_, LeaseId, Lease> {
        let read = |records: &Records, number: usize, out: &mut VecDeque<_>| {
            let Some(page) = records.leases.page(number) else { return false };
            let live = page.iter().filter(|lease| !lease.is_vacant());
            out.extend(live.map(|lease| Entry { key: lease.id(), value: records.whole_lease(lease) }));
            true
        };
        Iter { records: &self.0, page: 0, read, ready: VecDeque::new() }
    }
}

impl<'a> IntoIterator for &'a Tasks {
    type Item = Entry<TaskId, Task>;
    type IntoIter = Iter<'a, TaskId, Task>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a Leases {
    type Item = Entry<LeaseId, Lease>;
    type IntoIter = Iter<'a, LeaseId, Lease>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Records {
    fn hash(&self, key: impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    fn place_of_task(&self, id: TaskId) -> Option<Place> {
        self.by_task.find(self.hash(id), |place| self.tasks.at(*place).id() == id).copied()
    }

    fn place_of_lease(&self, id: LeaseId) -> Option<Place> {
        self.by_lease.find(self.hash(id), |place| self.leases.at(*place).id() == id).copied()
    }

    fn task(&self, place: Place) -> Task {
        self.whole_task(self.tasks.at(place))
    }

    fn job_of(&self, place: Place) -> Job {
        let task = self.tasks.at(place);
        Job::new(self.shared.job(task), self.shared.workload(task).clone())
    }

    fn bound(&self, place: Place) -> (TaskId, Option<Thumbprint>) {
        let task = self.tasks.at(place);
        (task.id(), self.shared.key(task))
    }

    fn whole_task(&self, packed: &PackedTask) -> Task {
        let mut task = self.shared.task(packed);
        let mut next = packed.newest;
        while next != NOWHERE {
            let lease = self.leases.at(next);
            task.leases.push(lease.id());
            next = lease.before;
        }
        task.leases.reverse();
        task
    }

    fn whole_lease(&self, packed: &PackedLease) -> Lease {
        let task = (packed.task != NOWHERE).then(|| self.tasks.at(packed.task));
        self.shared.lease(packed, task)
    }

    fn add_task(&mut self, id: TaskId, task: &Task, keys: &Keys<'_>) -> (Place, UnixMs) {
        let Self { tasks, shared, by_task, by_handle, by_evidence, hasher, .. } = self;
        let mark = hasher.hash_one(keys.evidence);
        let packed = shared.pack_task(id, task, keys.handle, mark);
        let (handle, over_at) = (packed.handle, shared.over_at(&packed));
        let place = tasks.put(packed);
        by_task.insert_unique(hasher.hash_one(id), place, |place| hasher.hash_one(tasks.at(*place).id()));
        by_handle.insert_unique(hasher.hash_one(handle), place, |place| hasher.hash_one(tasks.at(*place).handle));
        by_evidence.insert_unique(mark, place, |place| tasks.at(*place).evidence());
        (place, over_at)
    }

    fn remove_task(&mut self, place: Place) -> Option<(TaskId, Task)> {
        if self.tasks.at(place).is_vacant() {
            return None;
        }
        let task = self.task(place);
        let job = self.hash(self.job_of(place));
        remove(&mut self.alone, job, place);
        let packed = self.tasks.take(place);
        let mut next = packed.newest;
        while next != NOWHERE {
            let lease = self.leases.at_mut(next);
            next = lease.before;
            self.shared.orphan(lease, &packed);
        }
        remove(&mut self.by_task, self.hasher.hash_one(packed.id()), place);
        remove(&mut self.by_handle, self.hasher.hash_one(packed.handle), place);
        remove(&mut self.by_evidence, packed.evidence(), place);
        self.shared.forget_task(&packed);
        Some((packed.id(), task))
    }

    fn add_lease(&mut self, lease: &Lease) -> Place {
        let task = self.place_of_task(lease.task);
        let mut packed = self.shared.pack_lease(lease, task.map(|place| (place, self.tasks.at(place))));
        if let Some(task) = task {
            packed.before = self.tasks.at(task).newest;
        }
        let place = self.leases.put(packed);
        if let Some(task) = task {
            self.tasks.at_mut(task).newest = place;
        }
        let Self { leases, by_lease, hasher, .. } = self;
        by_lease.insert_unique(hasher.hash_one(lease.id), place, |place| hasher.hash_one(leases.at(*place).id()));
        place
    }

    fn remove_lease(&mut self, place: Place) {
        if self.leases.at(place).is_vacant() {
            return;
        }
        self.unchain(place);
        let packed = self.leases.take(place);
        remove(&mut self.by_lease, self.hasher.hash_one(packed.id()), place);
        self.shared.forget_lease(&packed);
    }

    /// Out of the chain of its task.
    fn unchain(&mut self, place: Place) {
        let (task, before) = (self.leases.at(place).task, self.leases.at(place).before);
        if task == NOWHERE {
            return;
        }
        let newest = self.tasks.at(task).newest;
        if newest == place {
            self.tasks.at_mut(task).newest = before;
            return;
        }
        let mut next = newest;
        while next != NOWHERE {
            let lease = self.leases.at_mut(next);
            if lease.before == place {
                lease.before = before;
                return;
            }
            next = lease.before;
        }
    }
}

/// Each place is in an index once, so that it is enough to know the entry by.
fn remove(index: &mut HashTable<Place>, hash: u64, place: Place) {
    if let Ok(entry) = index.find_entry(hash, |other| *other == place) {
        entry.remove();
    }
}

fn read(records: &RwLock<Records>) -> RwLockReadGuard<'_, Records> {
    records.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(records: &RwLock<Records>) -> RwLockWriteGuard<'_, Records> {
    records.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
