//! The live tasks and leases, in memory: compact records with shared strings.
//!
//! Changes come in through [`Table::apply`], in the order of the commit, and through the marks of
//! ends, which count from the moment they are asked. No guard of a map is held across an await or
//! another insert.

use std::{collections::HashSet, sync::Arc};

use arc_swap::ArcSwap;
use dayfly_domain::{Bound, Cause, LeaseId, Selector, State, TaskId, UnixMs};
use dayfly_verifier::Thumbprint;
use subtle::ConstantTimeEq;

use super::{
    blocks::Blocks,
    calendar::Calendar,
    certified::Certified,
    counts::Counts as Live,
    hold::Holds,
    jobs::{Alike, Job},
    matching::{Revocable, claims_of},
    records::{Keys, Leases, Place, Tasks, half},
    time::Now,
    tomb::{Tomb, Tombs},
    touched::{Touched, Touches},
    tree::Brood,
};
use crate::{
    store::{BlockRow, Change, EndRow, LeaseRow, TaskRow},
    sys::sync::{DashMap, DashSet, Mutex, MutexGuard},
};

/// How something ended. `seq` is known once it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub at: UnixMs,
    pub cause: Cause,
    pub seq: Option<u64>,
}

/// A task, as long as its record matters in memory.
#[derive(Debug, Clone)]
pub struct Task {
    pub parent: Option<TaskId>,
    pub template: Arc<str>,
    pub owner: Arc<str>,
    pub environment: Arc<str>,
    pub issuer: Arc<str>,
    pub row: Arc<str>,
    pub workload: Arc<str>,
    /// JSON object: target name -> sorted array of actions.
    pub grants: Arc<str>,
    pub untrusted: bool,
    /// What may be ended by, of its claims: a text that selectors look into.
    pub claims: Arc<str>,
    /// The job's label, below its issuer: two platforms may number their jobs alike.
    pub job: Option<Arc<str>>,
    pub opened_at: UnixMs,
    pub deadline: UnixMs,
    /// Of its `task_opened` event.
    pub seq: u64,
    /// When the evidence can no longer be presented (its `exp` and leeway).
    pub evidence_until: UnixMs,
    /// Of the key that the handle is bound to.
    pub thumbprint: Option<Thumbprint>,
    pub end: Option<End>,
    pub leases: Vec<LeaseId>,
}

/// One credential.
#[derive(Debug, Clone)]
pub struct Lease {
    pub id: LeaseId,
    pub task: TaskId,
    pub seq: u64,
    pub target: Arc<str>,
    /// The permit that granted it.
    pub row: Arc<str>,
    /// Of the key that signed; absent where an older store did not say.
    pub kid: Option<Arc<str>>,
    pub issued_at: UnixMs,
    pub expires: UnixMs,
    /// The first half of its SHA-256: 128 bits that nobody finds another preimage of.
    pub credential_hash: [u8; 16],
    /// Of the key that the credential is bound to.
    pub thumbprint: Option<Thumbprint>,
    pub end: Option<End>,
    /// It stands in the counts (`counts.rs`).
    pub(super) counted: bool,
}

/// Who a block or a limit speaks of: a job's label, or without one the workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Label {
    template: Arc<str>,
    job: Option<Arc<str>>,
    workload: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub active: u64,
    pub ended: u64,
}

#[derive(Debug)]
pub struct Table {
    pub(super) tasks: Tasks,
    pub(super) leases: Leases,
    /// Of jobs that have had more than one task.
    pub(super) jobs: DashMap<Job, Vec<Alike>>,
    pub(super) broods: DashMap<TaskId, Brood>,
    pub(super) blocks: Blocks,
    pub(super) tombs: Tombs,
    revocable: ArcSwap<Revocable>,
    /// Tasks that beat.
    pub holds: Holds,
    words: DashSet<Arc<str>>,
    lease_calendar: Mutex<Calendar<Place>>,
    task_calendar: Mutex<Calendar<Place>>,
    pub(super) touches: Touches,
    pub(super) counts: Live,
    pub(super) certified: Certified,
}

impl Default for Table {
    fn default() -> Self {
        let tasks = Tasks::default();
        Self {
            leases: tasks.leases(),
            tasks,
            jobs: DashMap::new(),
            broods: DashMap::new(),
            blocks: Blocks::default(),
            tombs: Tombs::default(),
            revocable: ArcSwap::default(),
            holds: Holds::default(),
            words: DashSet::new(),
            lease_calendar: Mutex::default(),
            task_calendar: Mutex::default(),
            touches: Touches::default(),
            counts: Live::default(),
            certified: Certified::default(),
        }
    }
}

impl Label {
    pub fn new(template: Arc<str>, job: Option<Arc<str>>, workload: Arc<str>) -> Self {
        match job {
            Some(job) => Self { template, job: Some(job), workload: None },
            None => Self { template, job: None, workload: Some(workload) },
        }
    }

    /// Under which a task is counted and blocked.
    pub fn of(task: &Task) -> Self {
        Self::new(task.template.clone(), task.job.clone(), task.workload.clone())
    }

    /// Without the template.
    pub fn job(&self) -> Job {
        Job::of_label(self.job.clone(), self.workload.clone())
    }

    pub(super) fn template(&self) -> &Arc<str> {
        &self.template
    }

    /// The same, from a task's row.
    pub fn of_row(row: &TaskRow) -> Self {
        let job = job_of_row(row).map(Arc::from);
        Self::new(Arc::from(&*row.template), job, Arc::from(&*row.workload))
    }

    /// What speaks of the same tasks.
    pub fn selector(&self) -> Selector {
        let text = |word: &Arc<str>| word.to_string();
        let job = self.job.as_deref().and_then(|job| job.split_once('/'));
        Selector {
            template: Some(text(&self.template)),
            issuer: job.map(|(issuer, _)| issuer.to_owned()),
            job: job.map(|(_, job)| job.to_owned()),
            workload: self.workload.as_ref().map(text),
            ..Selector::default()
        }
    }

    /// The label that a block speaks of; `None` where its selector is another one.
    pub fn of_block(row: &BlockRow) -> Option<Self> {
        Self::of_selector(&row.selector)
    }

    pub(super) fn of_selector(selector: &Selector) -> Option<Self> {
        let Selector { template: Some(template), job, issuer, workload, .. } = selector else { return None };
        let job = issuer.as_ref().zip(job.as_ref()).map(|(issuer, job)| platform_job(issuer, job).into());
        let workload = workload.as_deref().map(Arc::from);
        let label = Self { template: Arc::from(&**template), job, workload };
        (label.selector() == *selector && label.job.is_some() != label.workload.is_some()).then_some(label)
    }
}

impl Task {
    pub fn state(&self, now: Now) -> State {
        match self.end {
            Some(end) if end.at <= now.at => State::Ended,
            _ if now.expired(self.opened_at, self.deadline) => State::Expired,
            _ => State::Active,
        }
    }
}

impl Lease {
    /// Whether this is the credential, by its SHA-256.
    pub fn is_of(&self, hash: &[u8; 32]) -> bool {
        half(hash).ct_eq(&self.credential_hash).into()
    }
}

impl Table {
    pub fn task(&self, id: TaskId) -> Option<Task> {
        self.tasks.get(&id)
    }

    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.leases.get(&id)
    }

    /// Whether this piece of evidence has opened a task that is remembered.
    pub fn is_used(&self, evidence_key: &[u8; 32]) -> bool {
        self.tasks.of_evidence(evidence_key).is_some()
    }

    pub fn task_of_handle(&self, hash: &[u8; 32]) -> Option<TaskId> {
        self.owned_by(hash).map(|(id, _)| id)
    }

    /// The task of a handle, and the key that it is bound to.
    pub fn owned_by(&self, handle_hash: &[u8; 32]) -> Option<(TaskId, Option<Thumbprint>)> {
        self.tasks.of_handle(handle_hash)
    }

    /// The task that this evidence opened, and the key that its handle is bound to.
    pub fn opened_by(&self, evidence_key: &[u8; 32]) -> Option<(TaskId, Option<Thumbprint>)> {
        self.tasks.of_evidence(evidence_key)
    }

    /// The state of a task with its ancestors: what ended above has ended below, and stays so when
    /// its time would have been over.
    pub fn task_state(&self, id: TaskId, now: Now) -> Option<State> {
        let (own, deadline) = self.tasks.get(&id).map(|task| (task.state(now), task.deadline))?;
        match (own, self.end_of_tree(id, now)) {
            (State::Active | State::Expired, Some(end)) if end.at < deadline => Some(State::Ended),
            _ => Some(own),
        }
    }

    /// The state of a lease and the end that made it so, whoever's it was: the earliest counts,
    /// so that a supersede that comes due later does not change how the lease ended.
    pub fn lease_state(&self, lease: &Lease, now: Now) -> (State, Option<End>) {
        let due = |end: &End| end.at <= now.at && end.at < lease.expires;
        // SECURITY: what an end by selector left to be caught up is asked first, then whether the records say
        // so by now; an_end_by_selector_is_not_missed_while_it_is_caught_up
        let tombs = self.tombs.all();
        let own = self.leases.end_of(&lease.id).unwrap_or(lease.end);
        let ends = [own, self.end_of_tree_by(&tombs, lease.task, now), self.single_end(lease, &tombs)];
        match ends.into_iter().flatten().filter(due).min_by_key(|end| end.at) {
            Some(end) => (State::Ended, Some(end)),
            None if now.expired(lease.issued_at, lease.expires) => (State::Expired, None),
            None => (State::Active, None),
        }
    }

    /// The end in force of a task or of anything above it: the earliest, of equals the nearest.
    pub(super) fn end_of_tree(&self, id: TaskId, now: Now) -> Option<End> {
        self.end_of_tree_by(&self.tombs.all(), id, now)
    }

    fn end_of_tree_by(&self, tombs: &[Arc<Tomb>], id: TaskId, now: Now) -> Option<End> {
        let due = |end: &End| end.at <= now.at;
        let (end, mut parent) = self.ends_of(id, tombs)?;
        let mut first = end.filter(due);
        while let Some((end, above)) = parent.and_then(|id| self.ends_of(id, tombs)) {
            let end = end.filter(due).map(|end| End { cause: Cause::ParentEnded, ..end });
            first = [first, end].into_iter().flatten().min_by_key(|end| end.at);
            parent = above;
        }
        first
    }

    /// The end of a task, its own or by selector, durable or not.
    pub fn end_of_task(&self, id: TaskId) -> Option<End> {
        self.ends_of(id, &self.tombs.all()).and_then(|(end, _)| end)
    }

    /// What says whether a task has ended, without its record: asked for every introspection.
    fn ends_of(&self, id: TaskId, tombs: &[Arc<Tomb>]) -> Option<(Option<End>, Option<TaskId>)> {
        if tombs.is_empty() {
            return self.tasks.ends_of(&id);
        }
        self.tasks.get(&id).map(|task| (Self::first_end(&task, tombs), task.parent))
    }

    /// How many leases of a task are live, and how many it had that ended before their time.
    pub fn counts(&self, task: &Task, now: Now) -> Counts {
        let mut counts = Counts::default();
        for lease in task.leases.iter().filter_map(|id| self.lease(*id)) {
            match self.lease_state(&lease, now).0 {
                State::Active => counts.active += 1,
                State::Ended => counts.ended += 1,
                State::Expired => {}
            }
        }
        counts
    }

    /// Whether new work under this label is refused.
    pub fn is_blocked(&self, label: &Label, now: Now) -> bool {
        self.blocks.on_label(label, now)
    }

    /// Live leases of a task, of one target or all.
    pub fn live_leases(&self, task: &Task, target: Option<&str>, now: Now) -> Vec<LeaseId> {
        let live = |id: &LeaseId| {
            self.lease(*id).is_some_and(|lease| {
                target.is_none_or(|target| &*lease.target == target) && self.lease_state(&lease, now).0 == State::Active
            })
        };
        task.leases.iter().copied().filter(live).collect()
    }

    /// Live leases of a task and target that would still live at `at`: what a supersede ends then.
    pub fn outliving(&self, task: TaskId, target: &str, at: UnixMs, now: Now) -> Vec<LeaseId> {
        let Some(task) = self.task(task) else { return Vec::new() };
        let outlives = |id: &LeaseId| {
            self.lease(*id).is_some_and(|lease| lease.expires > at && lease.end.is_none_or(|end| end.at > at))
        };
        self.live_leases(&task, Some(target), now).into_iter().filter(outlives).collect()
    }

    /// The leases that an end of their task at `at` ended: not those that were over before.
    pub fn ended_with(&self, task: &Task, at: UnixMs) -> Vec<Lease> {
        let ended = |lease: &Lease| lease.expires > at && lease.end.is_none_or(|end| end.at > at);
        task.leases.iter().filter_map(|id| self.lease(*id)).filter(ended).collect()
    }

    /// How many tasks are live. Looks at every one of them: for a gauge, not for a request.
    pub fn active_tasks(&self, now: Now) -> usize {
        let ids = self.candidates(|_| true);
        ids.into_iter().filter(|id| self.task_state(*id, now) == Some(State::Active)).count()
    }

    /// Marks an end from now on, durable or not. `None`: no such task; otherwise the first end.
    pub fn mark_task(&self, id: TaskId, end: End) -> Option<End> {
        let (tombs, mut earlier) = (self.tombs.all(), None);
        let (task, own) = self.tasks.change_end(&id, |task| {
            earlier = Self::first_end(task, &tombs).filter(|_| task.end.is_none());
            task.end.or(Some(end)).filter(|_| earlier.is_none())
        })?;
        if earlier.is_some() {
            return earlier;
        }
        self.let_go(id, task.parent, &Job::of(&task));
        own
    }

    /// As [`Table::mark_task`]; an end that lies ahead (supersede) gives way to an earlier one.
    pub fn mark_lease(&self, id: LeaseId, end: End) -> Option<End> {
        let (first, news) = self.leases.change(&id, |lease| match lease.end {
            Some(first) if first.at <= end.at => (first, false),
            _ => (*lease.end.insert(end), true),
        })?;
        if news {
            self.release(id);
            self.touches.push(Touched::Lease(id));
        }
        Some(first)
    }

    /// How many leases are live. Looks at every one of them: for a gauge, not for a request.
    pub fn active_leases(&self, now: Now) -> usize {
        self.leases.iter().filter(|entry| self.lease_state(entry.value(), now).0 == State::Active).count()
    }

    /// Folds one committed change in. Called in the order of the commit, and at start with what
    /// the store kept.
    pub fn apply(&self, change: &Change) {
        if matches!(change, Change::AddTomb(_)) {
            self.counts.note_reach();
        }
        match change {
            Change::OpenTask(row) => self.add_task(row),
            Change::AddLease(row) => self.add_lease(row),
            Change::EndTask(id, end) => {
                if let Some((task, _)) = self.tasks.change_end(id, |_| Some(End::from(*end))) {
                    self.let_go(*id, task.parent, &Job::of(&task));
                }
            }
            Change::EndLease(id, end) => {
                self.leases.change(id, |lease| {
                    // SECURITY: an end that was marked while this supersede was being written is
                    // not put off by it; a_supersede_does_not_revive_what_was_ended_meanwhile
                    let marked = lease.end.filter(|mark| mark.seq.is_none() && mark.at < end.at);
                    lease.end = marked.or(Some(End::from(*end)));
                });
                self.touches.push(Touched::Lease(*id));
                self.release_at(*id, end.at);
            }
            Change::AddBlock(row) => self.blocks.add(row),
            Change::LiftBlock(id) => self.blocks.lift(*id),
            Change::AddTomb(row) => {
                self.tombs.place(row);
                self.touches.push(Touched::Everything);
            }
            Change::TombDone(seq) => self.tombs.done(*seq),
            Change::Hold(id) => self.holds.begin(*id),
            Change::AddList(_) => self.touches.want(),
            Change::Event(_) | Change::KeepBundle(_) | Change::Count(_) | Change::Meta(..) => {}
        }
    }

    fn add_task(&self, row: &TaskRow) {
        let task = Task {
            parent: row.parent,
            template: self.word(&row.template),
            owner: self.word(&row.owner),
            environment: self.word(&row.environment),
            issuer: self.word(&row.issuer),
            row: self.word(&row.row),
            workload: self.word(&row.workload),
            grants: self.word(&row.grants),
            untrusted: row.untrusted,
            claims: self.claims_kept(row).into(),
            job: job_of_row(row).map(Arc::from),
            opened_at: row.opened_at,
            deadline: row.deadline,
            seq: row.seq,
            evidence_until: UnixMs::from_s(row.evidence_exp_s).plus_s(EVIDENCE_LEEWAY_S),
            thumbprint: bound_to(row),
            end: row.end.map(End::from),
            leases: Vec::new(),
        };
        if row.parent.is_some() {
            self.touches.nest();
        }
        let keys = Keys { evidence: &row.evidence_key, handle: &row.handle_hash };
        let (place, over_at) = self.tasks.insert(row.id, &task, &keys);
        self.counts.note_open(&task);
        self.add_to_job(place, row.id, &task);
        lock(&self.task_calendar).insert(over_at, place);
        let open = task.end.is_none();
        self.add_child(row.parent, row.id, open);
        if row.held && open {
            self.holds.begin(row.id);
        }
    }

    fn add_lease(&self, row: &LeaseRow) {
        self.touches.want_for(row.kind);
        let task = self.tasks.get(&row.task);
        task.iter().for_each(|task| self.certified.add(row, task));
        let holder = task.map(|task| self.counts.of_task(&task));
        let lease = Lease {
            id: row.id,
            task: row.task,
            seq: row.seq,
            target: self.word(&row.target),
            row: self.word(&row.row),
            kid: row.kid.as_deref().map(|kid| self.word(kid)),
            issued_at: row.issued_at,
            expires: row.expires,
            credential_hash: half(&row.credential_hash),
            // What cannot be read can be proven by no key: the credential is then nobody's.
            thumbprint: row.bound().1.map(|text| text.parse().unwrap_or(Thumbprint::NOBODY)),
            end: row.end.map(End::from),
            counted: holder.is_some(),
        };
        holder.iter().for_each(|holder| self.counts.add(holder));
        let place = self.leases.insert(&lease);
        let over = self.tasks.ends_of(&row.task).is_none_or(|(end, _)| end.is_some());
        if let (Some(holder), true) = (holder, over) {
            self.release_for(row.id, &holder);
        }
        row.end.iter().for_each(|end| self.release_at(row.id, end.at));
        lock(&self.lease_calendar).insert(row.expires, place);
    }

    /// What may be ended by, by profile. Says whether that is news: then what is known of tasks that
    /// were opened before is to be learnt anew.
    pub fn know(&self, revocable: Revocable) -> bool {
        *self.revocable.swap(Arc::new(revocable.clone())) != revocable
    }

    /// What a bundle lets things be ended by now, of a task that was opened under another one.
    pub fn learn(&self, row: &TaskRow) {
        self.tasks.change_claims(&row.id, self.claims_kept(row).into());
    }

    /// What an end by selector already names stays, whatever the bundle says meanwhile (law L10).
    // SECURITY: `a_claim_that_is_no_longer_revocable_revives_nothing`.
    fn claims_kept(&self, row: &TaskRow) -> String {
        let (revocable, tombs) = (self.revocable.load(), self.tombs.all());
        let of_tombs = tombs.iter().flat_map(|tomb| tomb.matcher.selector().claims.keys());
        let names: HashSet<&str> =
            revocable.get(&row.profile).into_iter().flatten().chain(of_tombs).map(|name| &**name).collect();
        if names.is_empty() { String::new() } else { claims_of(row, |name| names.contains(name)) }
    }

    /// Forgets what has expired, a slice at a time; returns how much it forgot. What is only
    /// forgotten here is still in the store while its row is kept.
    pub fn forget_expired(&self, now: Now, max: usize) -> usize {
        self.release_due(now);
        let leases = self.forget_leases(now, max);
        let tasks = lock(&self.task_calendar).drain(now.at, max);
        tasks.iter().for_each(|place| self.forget_task(*place));
        self.blocks.forget(now);
        if leases + tasks.len() > 0 {
            self.words.retain(|word| Arc::strong_count(word) > 1);
        }
        leases + tasks.len()
    }

    /// The same of leases alone.
    pub fn forget_leases(&self, now: Now, max: usize) -> usize {
        self.certified.forget(now, max);
        let leases = lock(&self.lease_calendar).drain(now.at, max);
        leases.iter().for_each(|place| self.forget_lease(*place, now));
        leases.len()
    }

    fn forget_lease(&self, place: Place, now: Now) {
        if let Some(id) = self.leases.at(place) {
            self.note_over(id, now);
            self.release(id);
            self.leases.remove(place);
        }
    }

    fn forget_task(&self, place: Place) {
        let waits = self.tasks.at(place).is_some_and(|(id, _)| !self.is_childless(id, place));
        if waits {
            return;
        }
        let Some((id, task)) = self.tasks.remove(place) else { return };
        // SECURITY: whoever gives it a lease from here on finds no task, and counts it down itself.
        let holder = self.counts.of_task(&task);
        task.leases.iter().for_each(|lease| self.release_for(*lease, &holder));
        self.take_from_job(id, &task);
        self.holds.release(id);
        if let Some(parent) = self.forget_child(task.parent, id) {
            self.forget_task(parent);
        }
    }

    fn word(&self, text: &str) -> Arc<str> {
        if let Some(word) = self.words.get(text) {
            return word.clone();
        }
        let word: Arc<str> = text.into();
        self.words.insert(word.clone());
        word
    }
}

// SECURITY: `jobs_of_two_issuers_are_two_jobs`.
pub(super) fn platform_job(issuer: &str, job: &str) -> String {
    format!("{issuer}/{job}")
}

fn job_of_row(row: &TaskRow) -> Option<String> {
    row.job.as_ref().map(|job| platform_job(&row.issuer, job))
}

/// The key that a task's handle is bound to. What cannot be read, or cannot be proven here, is nobody's.
pub fn bound_to(row: &TaskRow) -> Option<Thumbprint> {
    match (row.bound, row.thumbprint.as_deref().map(str::parse)) {
        (Bound::None, None) => None,
        (Bound::Jkt | Bound::X5t, Some(Ok(thumbprint))) => Some(thumbprint),
        (Bound::None | Bound::Jkt | Bound::X5t, _) => Some(Thumbprint::NOBODY),
    }
}

/// Evidence can be presented until `exp`; its key is kept this much longer.
const EVIDENCE_LEEWAY_S: i64 = 30;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl From<EndRow> for End {
    fn from(row: EndRow) -> Self {
        Self { at: row.at, cause: row.cause, seq: Some(row.seq) }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
