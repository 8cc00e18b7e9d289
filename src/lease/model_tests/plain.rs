//! What the lease table means, without any cleverness: everything there ever was, in vectors, and
//! every question answered by looking at all of it. It remembers; what the table has forgotten it
//! is told, and checks that it was time.

use dayfly_domain::{Cause, LeaseId, State, TaskId, UnixMs};

use crate::lease::{Counts, LEVELS_MAX, Limits, Now, Overtaken};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlainEnd {
    pub at: UnixMs,
    pub cause: Cause,
    pub durable: bool,
}

#[derive(Debug, Clone)]
pub(super) struct PlainTask {
    pub id: TaskId,
    pub parent: Option<TaskId>,
    pub template: String,
    pub grants: String,
    /// The label with its issuer, or the workload.
    pub job: String,
    pub labelled: bool,
    pub evidence: [u8; 32],
    pub handle: [u8; 32],
    pub key: Option<u8>,
    pub deadline: UnixMs,
    pub evidence_until: UnixMs,
    pub end: Option<PlainEnd>,
    /// Seen to have expired, by whatever clock.
    pub seen_expired: bool,
    pub forgotten: bool,
}

#[derive(Debug, Clone)]
pub(super) struct PlainLease {
    pub id: LeaseId,
    pub task: TaskId,
    pub target: String,
    pub expires: UnixMs,
    pub end: Option<PlainEnd>,
    pub seen_expired: bool,
    pub forgotten: bool,
}

#[derive(Debug, Default)]
pub(super) struct Plain {
    pub tasks: Vec<PlainTask>,
    pub leases: Vec<PlainLease>,
    /// Job, template, until.
    pub blocks: Vec<(String, String, UnixMs)>,
}

impl Plain {
    pub fn task(&self, id: TaskId) -> &PlainTask {
        self.tasks.iter().find(|task| task.id == id).expect("only tasks that were opened are asked about")
    }

    pub fn task_mut(&mut self, id: TaskId) -> &mut PlainTask {
        self.tasks.iter_mut().find(|task| task.id == id).expect("only tasks that were opened are asked about")
    }

    pub fn lease(&self, id: LeaseId) -> &PlainLease {
        self.leases.iter().find(|lease| lease.id == id).expect("only leases that were issued are asked about")
    }

    pub fn lease_mut(&mut self, id: LeaseId) -> &mut PlainLease {
        self.leases.iter_mut().find(|lease| lease.id == id).expect("only leases that were issued are asked about")
    }

    /// Time has passed, or jumped: what is over now stays over.
    pub fn look(&mut self, now: Now) {
        self.tasks.iter_mut().for_each(|task| task.seen_expired |= task.deadline <= now.latest);
        self.leases.iter_mut().for_each(|lease| lease.seen_expired |= lease.expires <= now.latest);
    }

    /// What ended it or anything above it by now, the earliest; with equals the nearest.
    fn end_of_tree(&self, id: TaskId, now: Now) -> Option<PlainEnd> {
        let task = self.task(id);
        let own = task.end.filter(|end| end.at <= now.at);
        // Nothing is forgotten before what is below it.
        let above = task.parent.and_then(|parent| self.end_of_tree(parent, now));
        let above = above.map(|end| PlainEnd { cause: Cause::ParentEnded, ..end });
        [own, above].into_iter().flatten().min_by_key(|end| end.at)
    }

    pub fn task_state(&self, id: TaskId, now: Now) -> State {
        let task = self.task(id);
        match self.end_of_tree(id, now) {
            // An end counts for what had not run out by itself.
            Some(end) if end.at < task.deadline || task.end.is_some_and(|own| own.at <= now.at) => State::Ended,
            _ if task.seen_expired => State::Expired,
            _ => State::Active,
        }
    }

    pub fn lease_state(&self, id: LeaseId, now: Now) -> (State, Option<PlainEnd>) {
        let lease = self.lease(id);
        let own = lease.end.filter(|end| end.at <= now.at);
        let ends = [own, self.end_of_tree(lease.task, now)];
        let first = ends.into_iter().flatten().filter(|end| end.at < lease.expires).min_by_key(|end| end.at);
        match first {
            Some(end) => (State::Ended, Some(end)),
            None if lease.seen_expired => (State::Expired, None),
            None => (State::Active, None),
        }
    }

    pub fn counts(&self, id: TaskId, now: Now) -> Counts {
        let mut counts = Counts::default();
        for lease in self.leases.iter().filter(|lease| lease.task == id && !lease.forgotten) {
            match self.lease_state(lease.id, now).0 {
                State::Active => counts.active += 1,
                State::Ended => counts.ended += 1,
                State::Expired => {}
            }
        }
        counts
    }

    pub fn active_leases(&self, now: Now) -> usize {
        self.leases.iter().filter(|lease| self.lease_state(lease.id, now).0 == State::Active).count()
    }

    pub fn is_blocked(&self, job: &str, template: &str, now: Now) -> bool {
        self.blocks.iter().any(|block| block.0 == job && block.1 == template && block.2 > now.at)
    }

    /// What live tasks of a job may do.
    pub fn holdings(&self, job: &str, but: Option<TaskId>, now: Now) -> Vec<(String, String)> {
        let live = |task: &&PlainTask| {
            task.job == job && Some(task.id) != but && !task.forgotten && self.task_state(task.id, now) == State::Active
        };
        let mut held: Vec<_> =
            self.tasks.iter().filter(live).map(|task| (task.template.clone(), task.grants.clone())).collect();
        held.sort();
        held.dedup();
        held
    }

    /// What the fence must say to an opening.
    pub fn may_open(&self, new: &PlainTask, limits: Limits, now: Now) -> Result<(), Overtaken> {
        let known = || self.tasks.iter().filter(|task| !task.forgotten);
        if let Some(first) = known().find(|task| task.evidence == new.evidence) {
            return Err(if first.key == new.key { Overtaken::Replayed } else { Overtaken::Conflict(first.id) });
        }
        if known().any(|task| task.handle == new.handle) {
            return Err(Overtaken::HandleUsed);
        }
        if self.is_blocked(&new.job, &new.template, now) {
            return Err(Overtaken::Blocked);
        }
        self.may_hold(new, limits, now)?;
        if new.parent.is_some_and(|parent| self.level(parent) >= LEVELS_MAX) {
            return Err(Overtaken::TooDeep);
        }
        // Forgotten here, and still kept by the store.
        let kept = self.tasks.iter().any(|task| task.evidence == new.evidence || task.handle == new.handle);
        if kept { Err(Overtaken::HandleUsed) } else { Ok(()) }
    }

    fn level(&self, id: TaskId) -> usize {
        1 + self.task(id).parent.map_or(0, |parent| self.level(parent))
    }

    fn may_hold(&self, new: &PlainTask, limits: Limits, now: Now) -> Result<(), Overtaken> {
        if !new.labelled {
            return Ok(());
        }
        let known = || self.tasks.iter().filter(|task| !task.forgotten);
        let alike: Vec<_> = known().filter(|task| task.job == new.job && task.template == new.template).collect();
        let mut keys: Vec<_> = alike.iter().filter_map(|task| task.key).collect();
        keys.sort_unstable();
        keys.dedup();
        if let (Some(most), Some(key)) = (limits.keys_per_job, new.key) {
            // Whose the first key was is told by the order of the groups; any of the bound ones will do.
            let bound = alike.iter().find(|task| task.key.is_some());
            if let (false, true, Some(task)) = (keys.contains(&key), keys.len() >= most as usize, bound) {
                return Err(Overtaken::Conflict(task.id));
            }
        }
        let live = alike.iter().filter(|task| self.task_state(task.id, now) == State::Active).count();
        if live >= limits.per_job as usize { Err(Overtaken::PerJob) } else { Ok(()) }
    }

    /// What the fence must say to a further credential.
    pub fn may_feed(&self, id: TaskId, now: Now) -> Result<(), Overtaken> {
        let task = self.task(id);
        if task.forgotten || self.task_state(id, now) != State::Active {
            return Err(Overtaken::Ended);
        }
        if self.is_blocked(&task.job, &task.template, now) { Err(Overtaken::Blocked) } else { Ok(()) }
    }
}
