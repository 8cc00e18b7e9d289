//! How tasks and leases are kept: as few bytes as say what their records say, and all of it back.
//!
//! What many have in common stands in pools; times are offsets where they fit, and what few have is
//! kept apart. SHA-256 is kept by its first 128 bits: whoever wants to pass for a handle or a
//! credential that is kept needs another preimage of these, which is 2^128 work as it is for an AES key;
//! collisions, which are easier, are of no use to who cannot choose both sides of the comparison, and
//! two handles that were made to collide are refused as one. Evidence is known by 64 bits under a key
//! of this process: nobody outside can aim at it, a chance meeting (one in 2^64 for each that is kept)
//! refuses an honest ask, and the unique index of the store has the last word (law L9).

use std::sync::Arc;

use dayfly_domain::{LeaseId, TaskId, UnixMs};
use dayfly_verifier::Thumbprint;

use super::{
    brief::{Brief, Texts},
    pool::Pool,
    slab::{NOWHERE, Place, Slab},
};
use crate::lease::table::{End, Lease, Task};

/// The first half of a SHA-256.
pub type Half = [u8; 16];

#[derive(Debug, Clone)]
pub struct PackedTask {
    /// Of its first 48 bits the moment of the opening, unless [`TaskMore`] says another.
    id: Wide<16>,
    pub handle: Half,
    /// What of the label is the job's own.
    job: Brief,
    evidence: Wide<8>,
    seq: Wide<8>,
    /// After the opening; shorter than it is rather than longer.
    deadline_ms: u32,
    /// Whole seconds; later than it is rather than earlier.
    evidence_until_s: u32,
    /// In [`Shared::origins`]; nowhere: nobody stands here.
    origin: Place,
    /// In [`Shared::runs`].
    run: Place,
    /// In [`Shared::keys`].
    key: Place,
    /// The newest of its leases.
    pub newest: Place,
    /// In [`Shared::of_tasks`].
    more: Place,
}

/// What few tasks have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct TaskMore {
    opened_at: Option<UnixMs>,
    parent: Option<TaskId>,
    end: Option<End>,
}

#[derive(Debug, Clone)]
pub struct PackedLease {
    id: Wide<16>,
    credential: Half,
    /// After that of its task, unless [`LeaseMore`] says another.
    seq: u32,
    /// After the opening of its task, unless [`LeaseMore`] says another.
    issued_ms: u32,
    /// After the issue; shorter than it is rather than longer. The lowest bit of twice as much: whether it
    /// stands in the counts.
    expires_ms: u32,
    /// In [`Shared::terms`]; nowhere: nobody stands here.
    terms: Place,
    /// Nowhere: its task is not kept.
    pub task: Place,
    /// The lease of the same task before this one.
    pub before: Place,
    /// In [`Shared::of_leases`].
    more: Place,
}

/// What few leases have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct LeaseMore {
    end: Option<End>,
    /// Where it is not that of its task.
    key: Option<Option<Thumbprint>>,
    /// Where its task is not kept.
    task: Option<TaskId>,
    /// Its sequence number and when it was issued, where they are not soon after those of its task.
    issued: Option<(u64, UnixMs)>,
}

/// A number in bytes, so that records need no padding.
type Wide<const N: usize> = [u8; N];

/// What a run says of itself: nearly all runs of a workflow say the same beside what the label says.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Run {
    /// Issuer and first part of the job's label, if it has one.
    label: Option<Arc<str>>,
    claims: Arc<str>,
    by_reference: bool,
}

/// Where tasks come from and what they may do: some hundreds, whatever the number of tasks.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Origin {
    template: Arc<str>,
    owner: Arc<str>,
    environment: Arc<str>,
    issuer: Arc<str>,
    row: Arc<str>,
    workload: Arc<str>,
    grants: Arc<str>,
    untrusted: bool,
}

/// What credentials were granted, and by which key they were signed.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Terms {
    target: Arc<str>,
    row: Arc<str>,
    kid: Option<Arc<str>>,
}

/// What records share, and what few of them have.
#[derive(Debug, Default)]
pub struct Shared {
    origins: Pool<Origin>,
    terms: Pool<Terms>,
    runs: Pool<Run>,
    keys: Pool<Thumbprint>,
    texts: Texts,
    of_tasks: Slab<TaskMore>,
    of_leases: Slab<LeaseMore>,
}

impl Default for PackedTask {
    fn default() -> Self {
        Self {
            id: [0; 16],
            handle: Half::default(),
            job: Brief::default(),
            evidence: [0; 8],
            seq: [0; 8],
            deadline_ms: 0,
            evidence_until_s: 0,
            origin: NOWHERE,
            run: NOWHERE,
            key: NOWHERE,
            newest: NOWHERE,
            more: NOWHERE,
        }
    }
}

impl Default for PackedLease {
    fn default() -> Self {
        Self {
            id: [0; 16],
            credential: Half::default(),
            seq: 0,
            issued_ms: 0,
            expires_ms: 0,
            terms: NOWHERE,
            task: NOWHERE,
            before: NOWHERE,
            more: NOWHERE,
        }
    }
}

pub fn half(hash: &[u8; 32]) -> Half {
    std::array::from_fn(|at| hash[at])
}

/// Milliseconds after; `None` where they do not fit.
fn after_ms(from: UnixMs, until: UnixMs) -> Option<u32> {
    u32::try_from(until.as_ms().checked_sub(from.as_ms())?).ok()
}

/// The same, shorter rather than longer.
fn at_most_ms(from: UnixMs, until: UnixMs) -> u32 {
    after_ms(from, until).unwrap_or(if until <= from { 0 } else { u32::MAX })
}

/// When an id was drawn, as far as it says.
fn drawn_at(id: &Wide<16>) -> UnixMs {
    UnixMs::new((u128::from_be_bytes(*id) >> 80) as i64)
}

impl PackedTask {
    pub fn id(&self) -> TaskId {
        TaskId::from_u128(u128::from_be_bytes(self.id))
    }

    pub fn evidence(&self) -> u64 {
        u64::from_be_bytes(self.evidence)
    }

    fn seq(&self) -> u64 {
        u64::from_be_bytes(self.seq)
    }

    pub fn is_vacant(&self) -> bool {
        self.origin == NOWHERE
    }

    fn evidence_until(&self) -> UnixMs {
        UnixMs::from_s(i64::from(self.evidence_until_s))
    }
}

impl PackedLease {
    pub fn id(&self) -> LeaseId {
        LeaseId::from_u128(u128::from_be_bytes(self.id))
    }

    pub fn is_vacant(&self) -> bool {
        self.terms == NOWHERE
    }

    fn counted(&self) -> bool {
        self.expires_ms & 1 == 1
    }
}

impl Shared {
    pub fn pack_task(&mut self, id: TaskId, task: &Task, handle: &[u8; 32], evidence: u64) -> PackedTask {
        let (label, job) = match task.job.as_deref() {
            Some(job) => {
                let (label, own) = job.split_at(label_end(job, &task.issuer));
                (Some(label.into()), Brief::new(own, &mut self.texts))
            }
            None => (None, Brief::default()),
        };
        let id = id.as_u128().to_be_bytes();
        let opened_at = (drawn_at(&id) != task.opened_at).then_some(task.opened_at);
        let more = TaskMore { opened_at, parent: task.parent, end: task.end };
        PackedTask {
            id,
            handle: half(handle),
            job,
            evidence: evidence.to_be_bytes(),
            seq: task.seq.to_be_bytes(),
            deadline_ms: at_most_ms(task.opened_at, task.deadline),
            evidence_until_s: u32::try_from(task.evidence_until.plus_ms(999).as_s().max(0)).unwrap_or(u32::MAX),
            origin: self.origins.share(Origin::of(task)),
            run: self.runs.share(Run::new(label, task)),
            key: task.thumbprint.map_or(NOWHERE, |key| self.keys.share(key)),
            newest: NOWHERE,
            more: if more == TaskMore::default() { NOWHERE } else { self.of_tasks.put(more) },
        }
    }

    /// Without its leases: who has them adds them.
    pub fn task(&self, packed: &PackedTask) -> Task {
        let Origin { template, owner, environment, issuer, row, workload, grants, untrusted } =
            self.origins.get(packed.origin);
        let job = self.job(packed);
        let TaskMore { end, parent, .. } = self.more_of_task(packed);
        Task {
            parent,
            template: template.clone(),
            owner: owner.clone(),
            environment: environment.clone(),
            issuer: issuer.clone(),
            row: row.clone(),
            workload: workload.clone(),
            grants: grants.clone(),
            untrusted: *untrusted,
            claims: self.runs.get(packed.run).claims_in_full(job.as_deref(), issuer),
            job,
            opened_at: self.opened_at(packed),
            deadline: self.deadline(packed),
            seq: packed.seq(),
            evidence_until: packed.evidence_until(),
            thumbprint: self.key(packed),
            end,
            leases: Vec::new(),
        }
    }

    fn opened_at(&self, packed: &PackedTask) -> UnixMs {
        self.more_of_task(packed).opened_at.unwrap_or(drawn_at(&packed.id))
    }

    fn deadline(&self, packed: &PackedTask) -> UnixMs {
        self.opened_at(packed).plus_ms(i64::from(packed.deadline_ms))
    }

    /// When neither the task nor its evidence matters any more.
    pub fn over_at(&self, packed: &PackedTask) -> UnixMs {
        self.deadline(packed).max(packed.evidence_until())
    }

    pub fn key(&self, packed: &PackedTask) -> Option<Thumbprint> {
        (packed.key != NOWHERE).then(|| *self.keys.get(packed.key))
    }

    pub fn end_and_parent(&self, packed: &PackedTask) -> (Option<End>, Option<TaskId>) {
        let more = self.more_of_task(packed);
        (more.end, more.parent)
    }

    pub fn job(&self, packed: &PackedTask) -> Option<Arc<str>> {
        let mut job = self.runs.get(packed.run).label.as_ref()?.to_string();
        packed.job.add_to(&mut job, &self.texts);
        Some(job.into())
    }

    /// Without a label, the workload is the job.
    pub fn workload(&self, packed: &PackedTask) -> &Arc<str> {
        &self.origins.get(packed.origin).workload
    }

    pub fn end_task(&mut self, packed: &mut PackedTask, end: Option<End>) {
        match (packed.more, end) {
            (NOWHERE, None) => {}
            (NOWHERE, end) => packed.more = self.of_tasks.put(TaskMore { end, ..TaskMore::default() }),
            (more, end) => self.of_tasks.at_mut(more).end = end,
        }
    }

    pub fn change_claims(&mut self, packed: &mut PackedTask, task: &Task) {
        let label = self.runs.get(packed.run).label.clone();
        self.runs.give_back(packed.run);
        packed.run = self.runs.share(Run::new(label, task));
    }

    pub fn forget_task(&mut self, packed: &PackedTask) {
        self.origins.give_back(packed.origin);
        self.runs.give_back(packed.run);
        packed.job.forget(&mut self.texts);
        if packed.key != NOWHERE {
            self.keys.give_back(packed.key);
        }
        if packed.more != NOWHERE {
            self.of_tasks.take(packed.more);
        }
    }

    fn more_of_task(&self, packed: &PackedTask) -> TaskMore {
        if packed.more == NOWHERE { TaskMore::default() } else { *self.of_tasks.at(packed.more) }
    }

    /// `task`: where it stands, and how.
    pub fn pack_lease(&mut self, lease: &Lease, task: Option<(Place, &PackedTask)>) -> PackedLease {
        let terms = Terms { target: lease.target.clone(), row: lease.row.clone(), kid: lease.kid.clone() };
        let as_task = task.is_some_and(|(_, task)| self.key(task) == lease.thumbprint);
        let soon = task.and_then(|(_, task)| {
            let seq = u32::try_from(lease.seq.checked_sub(task.seq())?).ok()?;
            Some((seq, after_ms(self.opened_at(task), lease.issued_at)?))
        });
        let more = LeaseMore {
            end: lease.end,
            key: (!as_task).then_some(lease.thumbprint),
            task: task.is_none().then_some(lease.task),
            issued: soon.is_none().then_some((lease.seq, lease.issued_at)),
        };
        let (seq, issued_ms) = soon.unwrap_or_default();
        let lasts_ms = at_most_ms(lease.issued_at, lease.expires).min(u32::MAX / 2);
        PackedLease {
            id: lease.id.as_u128().to_be_bytes(),
            credential: lease.credential_hash,
            seq,
            issued_ms,
            expires_ms: lasts_ms << 1 | u32::from(lease.counted),
            terms: self.terms.share(terms),
            task: task.map_or(NOWHERE, |(place, _)| place),
            before: NOWHERE,
            more: if more == LeaseMore::default() { NOWHERE } else { self.of_leases.put(more) },
        }
    }

    pub fn lease(&self, packed: &PackedLease, task: Option<&PackedTask>) -> Lease {
        let Terms { target, row, kid } = self.terms.get(packed.terms);
        let more = self.more_of_lease(packed);
        let (seq, issued_at) = self.issued(packed, &more, task);
        Lease {
            id: packed.id(),
            task: more.task.or(task.map(PackedTask::id)).unwrap_or(TaskId::from_u128(0)),
            seq,
            target: target.clone(),
            row: row.clone(),
            kid: kid.clone(),
            issued_at,
            expires: issued_at.plus_ms(i64::from(packed.expires_ms >> 1)),
            credential_hash: packed.credential,
            thumbprint: more.key.unwrap_or_else(|| task.and_then(|task| self.key(task))),
            end: more.end,
            counted: packed.counted(),
        }
    }

    fn issued(&self, packed: &PackedLease, more: &LeaseMore, task: Option<&PackedTask>) -> (u64, UnixMs) {
        let soon = |task: &PackedTask| {
            let at = self.opened_at(task).plus_ms(i64::from(packed.issued_ms));
            (task.seq() + u64::from(packed.seq), at)
        };
        // INVARIANT: a lease without a task in memory says so itself.
        more.issued.or_else(|| task.map(soon)).unwrap_or_default()
    }

    pub fn end_of_lease(&self, packed: &PackedLease) -> Option<End> {
        self.more_of_lease(packed).end
    }

    /// What of a lease may change.
    pub fn change_lease<R>(&mut self, packed: &mut PackedLease, change: impl FnOnce(&mut Mutable) -> R) -> R {
        let before = self.more_of_lease(packed);
        let mut mutable = Mutable { end: before.end, counted: packed.counted() };
        let answer = change(&mut mutable);
        packed.expires_ms = packed.expires_ms & !1 | u32::from(mutable.counted);
        if mutable.end != before.end {
            self.set_more(packed, LeaseMore { end: mutable.end, ..before });
        }
        answer
    }

    /// Its task is forgotten before it.
    pub fn orphan(&mut self, packed: &mut PackedLease, task: &PackedTask) {
        let more = self.more_of_lease(packed);
        let key = more.key.unwrap_or_else(|| self.key(task));
        let issued = self.issued(packed, &more, Some(task));
        self.set_more(packed, LeaseMore { task: Some(task.id()), key: Some(key), issued: Some(issued), ..more });
        (packed.task, packed.before) = (NOWHERE, NOWHERE);
    }

    pub fn forget_lease(&mut self, packed: &PackedLease) {
        self.terms.give_back(packed.terms);
        if packed.more != NOWHERE {
            self.of_leases.take(packed.more);
        }
    }

    #[cfg(test)]
    pub fn kept(&self) -> usize {
        let pools = [self.origins.len(), self.terms.len(), self.runs.len(), self.keys.len()];
        let slabs = [self.texts.len(), self.of_tasks.len(), self.of_leases.len()];
        pools.iter().chain(&slabs).sum()
    }

    fn more_of_lease(&self, packed: &PackedLease) -> LeaseMore {
        if packed.more == NOWHERE { LeaseMore::default() } else { *self.of_leases.at(packed.more) }
    }

    fn set_more(&mut self, packed: &mut PackedLease, more: LeaseMore) {
        match packed.more {
            NOWHERE => packed.more = self.of_leases.put(more),
            place => *self.of_leases.at_mut(place) = more,
        }
    }
}

/// What of a lease may change.
#[derive(Debug, Clone, Copy)]
pub struct Mutable {
    pub end: Option<End>,
    /// It stands in the counts of quotas.
    pub counted: bool,
}

impl Origin {
    fn of(task: &Task) -> Self {
        Self {
            template: task.template.clone(),
            owner: task.owner.clone(),
            environment: task.environment.clone(),
            issuer: task.issuer.clone(),
            row: task.row.clone(),
            workload: task.workload.clone(),
            grants: task.grants.clone(),
            untrusted: task.untrusted,
        }
    }
}

/// A label is below its issuer, and its first part is what its jobs share, if it has more than one.
fn label_end(job: &str, issuer: &str) -> usize {
    let rest = job.strip_prefix(issuer).and_then(|rest| rest.find('/'));
    let below = rest.map_or(0, |at| issuer.len() + at + 1);
    job[below..].find('/').map_or(below, |at| below + at + 1)
}

/// Stands before the number of a part of the label.
const PART: char = '\u{11}';
/// Shorter ones are not worth it.
const PART_LEAST: usize = 4;

impl Run {
    /// The claims of a run that its label says already, such as its number, are kept as references to
    /// it: what is left is the same for all runs.
    fn new(label: Option<Arc<str>>, task: &Task) -> Self {
        let job = task.job.as_deref().filter(|_| !task.claims.contains(PART) && !task.claims.is_empty());
        let parts = job.map_or(Vec::new(), |job| own_parts(job, &task.issuer));
        if parts.is_empty() {
            return Self { label, claims: task.claims.clone(), by_reference: false };
        }
        let refer = |claims: String, (number, part): (usize, &str)| claims.replace(part, &format!("{PART}{number}"));
        let claims = parts.into_iter().fold(task.claims.to_string(), refer);
        Self { label, claims: claims.into(), by_reference: true }
    }

    /// Back in the other order, so that each step undoes one.
    fn claims_in_full(&self, job: Option<&str>, issuer: &str) -> Arc<str> {
        let Some(job) = job.filter(|_| self.by_reference) else { return self.claims.clone() };
        let fill = |claims: String, (number, part): (usize, &str)| claims.replace(&format!("{PART}{number}"), part);
        own_parts(job, issuer).into_iter().rev().fold(self.claims.to_string(), fill).into()
    }
}

/// The parts of a label that are the job's own, the long ones, by number: one digit.
fn own_parts<'a>(job: &'a str, issuer: &str) -> Vec<(usize, &'a str)> {
    let own = &job[label_end(job, issuer)..];
    own.split('/').enumerate().take(9).filter(|(_, part)| part.len() >= PART_LEAST).collect()
}
