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
    id: [u64; 2],
    pub handle: Half,
    /// What of the label is the job's own.
    job: Brief,
    pub evidence: u64,
    seq: u64,
    opened_at: UnixMs,
    /// After the opening; shorter than it is rather than longer.
    deadline_ms: u32,
    /// Whole seconds; later than it is rather than earlier.
    evidence_until_s: u32,
    /// In [`Shared::origins`]; nowhere: nobody stands here.
    origin: Place,
    /// In [`Shared::labels`]; nowhere: it has no label.
    label: Place,
    /// In [`Shared::claims`].
    claims: Place,
    /// In [`Shared::keys`].
    key: Place,
    /// The newest of its leases.
    pub newest: Place,
    /// In [`Shared::of_tasks`].
    more: Place,
}

/// What few tasks have.
#[derive(Debug, Clone, Copy, Default)]
struct TaskMore {
    parent: Option<TaskId>,
    end: Option<End>,
}

#[derive(Debug, Clone)]
pub struct PackedLease {
    id: [u64; 2],
    credential: Half,
    seq: u64,
    issued_at: UnixMs,
    /// After the issue; shorter than it is rather than longer.
    expires_ms: u32,
    /// In [`Shared::terms`]; nowhere: nobody stands here.
    terms: Place,
    /// Nowhere: its task is not kept.
    pub task: Place,
    /// The lease of the same task before this one.
    pub before: Place,
    /// In [`Shared::of_leases`].
    more: Place,
    counted: bool,
}

/// What few leases have.
#[derive(Debug, Clone, Copy, Default)]
struct LeaseMore {
    end: Option<End>,
    /// Where it is not that of its task.
    key: Option<Option<Thumbprint>>,
    /// Where its task is not kept.
    task: Option<TaskId>,
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
    /// Issuer and first part of jobs' labels.
    labels: Pool<Arc<str>>,
    claims: Pool<Arc<str>>,
    keys: Pool<Thumbprint>,
    texts: Texts,
    of_tasks: Slab<TaskMore>,
    of_leases: Slab<LeaseMore>,
}

impl Default for PackedTask {
    fn default() -> Self {
        Self {
            id: [0; 2],
            handle: Half::default(),
            job: Brief::default(),
            evidence: 0,
            seq: 0,
            opened_at: UnixMs::default(),
            deadline_ms: 0,
            evidence_until_s: 0,
            origin: NOWHERE,
            label: NOWHERE,
            claims: NOWHERE,
            key: NOWHERE,
            newest: NOWHERE,
            more: NOWHERE,
        }
    }
}

impl Default for PackedLease {
    fn default() -> Self {
        Self {
            id: [0; 2],
            credential: Half::default(),
            seq: 0,
            issued_at: UnixMs::default(),
            expires_ms: 0,
            terms: NOWHERE,
            task: NOWHERE,
            before: NOWHERE,
            more: NOWHERE,
            counted: false,
        }
    }
}

pub fn half(hash: &[u8; 32]) -> Half {
    std::array::from_fn(|at| hash[at])
}

fn halves(id: u128) -> [u64; 2] {
    [(id >> 64) as u64, id as u64]
}

fn whole([high, low]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

fn after_ms(from: UnixMs, until: UnixMs) -> u32 {
    u32::try_from(until.as_ms().saturating_sub(from.as_ms()).max(0)).unwrap_or(u32::MAX)
}

impl PackedTask {
    pub fn id(&self) -> TaskId {
        TaskId::from_u128(whole(self.id))
    }

    pub fn is_vacant(&self) -> bool {
        self.origin == NOWHERE
    }

    pub fn deadline(&self) -> UnixMs {
        self.opened_at.plus_ms(i64::from(self.deadline_ms))
    }

    /// When neither the task nor its evidence matters any more.
    pub fn over_at(&self) -> UnixMs {
        self.deadline().max(self.evidence_until())
    }

    fn evidence_until(&self) -> UnixMs {
        UnixMs::from_s(i64::from(self.evidence_until_s))
    }
}

impl PackedLease {
    pub fn id(&self) -> LeaseId {
        LeaseId::from_u128(whole(self.id))
    }

    pub fn is_vacant(&self) -> bool {
        self.terms == NOWHERE
    }

    pub fn expires(&self) -> UnixMs {
        self.issued_at.plus_ms(i64::from(self.expires_ms))
    }
}

impl Shared {
    pub fn pack_task(&mut self, id: TaskId, task: &Task, handle: &[u8; 32], evidence: u64) -> PackedTask {
        let (label, job) = match task.job.as_deref() {
            Some(job) => {
                let (label, own) = job.split_at(label_end(job, &task.issuer));
                (self.labels.share(label.into()), Brief::new(own, &mut self.texts))
            }
            None => (NOWHERE, Brief::default()),
        };
        let mut packed = PackedTask {
            id: halves(id.as_u128()),
            handle: half(handle),
            job,
            evidence,
            seq: task.seq,
            opened_at: task.opened_at,
            deadline_ms: after_ms(task.opened_at, task.deadline),
            evidence_until_s: u32::try_from(task.evidence_until.plus_ms(999).as_s().max(0)).unwrap_or(u32::MAX),
            origin: self.origins.share(Origin::of(task)),
            label,
            claims: self.claims.share(claims_by_reference(task)),
            key: task.thumbprint.map_or(NOWHERE, |key| self.keys.share(key)),
            newest: NOWHERE,
            more: NOWHERE,
        };
        if task.parent.is_some() || task.end.is_some() {
            packed.more = self.of_tasks.put(TaskMore { parent: task.parent, end: task.end });
        }
        packed
    }

    /// Without its leases: who has them adds them.
    pub fn task(&self, packed: &PackedTask) -> Task {
        let Origin { template, owner, environment, issuer, row, workload, grants, untrusted } =
            self.origins.get(packed.origin);
        let job = self.job(packed);
        let (end, parent) = self.end_and_parent(packed);
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
            claims: claims_in_full(self.claims.get(packed.claims), job.as_deref(), issuer),
            job,
            opened_at: packed.opened_at,
            deadline: packed.deadline(),
            seq: packed.seq,
            evidence_until: packed.evidence_until(),
            thumbprint: self.key(packed),
            end,
            leases: Vec::new(),
        }
    }

    pub fn key(&self, packed: &PackedTask) -> Option<Thumbprint> {
        (packed.key != NOWHERE).then(|| *self.keys.get(packed.key))
    }

    pub fn end_and_parent(&self, packed: &PackedTask) -> (Option<End>, Option<TaskId>) {
        let more = self.more_of_task(packed);
        (more.end, more.parent)
    }

    pub fn job(&self, packed: &PackedTask) -> Option<Arc<str>> {
        if packed.label == NOWHERE {
            return None;
        }
        let mut job = self.labels.get(packed.label).to_string();
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
            (NOWHERE, end) => packed.more = self.of_tasks.put(TaskMore { parent: None, end }),
            (more, end) => self.of_tasks.at_mut(more).end = end,
        }
    }

    pub fn change_claims(&mut self, packed: &mut PackedTask, task: &Task) {
        self.claims.give_back(packed.claims);
        packed.claims = self.claims.share(claims_by_reference(task));
    }

    pub fn forget_task(&mut self, packed: &PackedTask) {
        self.origins.give_back(packed.origin);
        self.claims.give_back(packed.claims);
        packed.job.forget(&mut self.texts);
        if packed.label != NOWHERE {
            self.labels.give_back(packed.label);
        }
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

    /// `task`: where it stands, and the key that its handle is bound to.
    pub fn pack_lease(&mut self, lease: &Lease, task: Option<(Place, Option<Thumbprint>)>) -> PackedLease {
        let terms = Terms { target: lease.target.clone(), row: lease.row.clone(), kid: lease.kid.clone() };
        let as_task = task.is_some_and(|(_, key)| key == lease.thumbprint);
        let more = LeaseMore {
            end: lease.end,
            key: (!as_task).then_some(lease.thumbprint),
            task: task.is_none().then_some(lease.task),
        };
        let plain = as_task && lease.end.is_none();
        PackedLease {
            id: halves(lease.id.as_u128()),
            credential: lease.credential_hash,
            seq: lease.seq,
            issued_at: lease.issued_at,
            expires_ms: after_ms(lease.issued_at, lease.expires),
            terms: self.terms.share(terms),
            task: task.map_or(NOWHERE, |(place, _)| place),
            before: NOWHERE,
            more: if plain { NOWHERE } else { self.of_leases.put(more) },
            counted: lease.counted,
        }
    }

    pub fn lease(&self, packed: &PackedLease, task: Option<&PackedTask>) -> Lease {
        let Terms { target, row, kid } = self.terms.get(packed.terms);
        let more = self.more_of_lease(packed);
        Lease {
            id: packed.id(),
            task: more.task.or(task.map(PackedTask::id)).unwrap_or(TaskId::from_u128(0)),
            seq: packed.seq,
            target: target.clone(),
            row: row.clone(),
            kid: kid.clone(),
            issued_at: packed.issued_at,
            expires: packed.expires(),
            credential_hash: packed.credential,
            thumbprint: more.key.unwrap_or_else(|| task.and_then(|task| self.key(task))),
            end: more.end,
            counted: packed.counted,
        }
    }

    pub fn end_of_lease(&self, packed: &PackedLease) -> Option<End> {
        self.more_of_lease(packed).end
    }

    /// What of a lease may change.
    pub fn change_lease<R>(&mut self, packed: &mut PackedLease, change: impl FnOnce(&mut Mutable) -> R) -> R {
        let before = self.more_of_lease(packed);
        let mut mutable = Mutable { end: before.end, counted: packed.counted };
        let answer = change(&mut mutable);
        packed.counted = mutable.counted;
        if mutable.end != before.end {
            self.set_more(packed, LeaseMore { end: mutable.end, ..before });
        }
        answer
    }

    /// Its task is forgotten before it.
    pub fn orphan(&mut self, packed: &mut PackedLease, task: &PackedTask) {
        let more = self.more_of_lease(packed);
        let key = more.key.unwrap_or_else(|| self.key(task));
        self.set_more(packed, LeaseMore { task: Some(task.id()), key: Some(key), ..more });
        (packed.task, packed.before) = (NOWHERE, NOWHERE);
    }

    pub fn forget_lease(&mut self, packed: &PackedLease) {
        self.terms.give_back(packed.terms);
        if packed.more != NOWHERE {
            self.of_leases.take(packed.more);
        }
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
    let below =
        if job.starts_with(issuer) { job[issuer.len()..].find('/').map(|at| issuer.len() + at + 1) } else { None };
    let below = below.unwrap_or(0);
    job[below..].find('/').map_or(below, |at| below + at + 1)
}

/// Stands before the number of a part of the label.
const PART: char = '\u{11}';
/// Shorter ones are not worth it.
const PART_LEAST: usize = 4;

/// The claims of a run that its label says already, such as its number, are kept as references to it:
/// what is left is the same for all runs.
fn claims_by_reference(task: &Task) -> Arc<str> {
    let Some(job) = task.job.as_deref().filter(|_| !task.claims.contains(PART) && !task.claims.is_empty()) else {
        return task.claims.clone();
    };
    let mut claims = task.claims.to_string();
    for (number, part) in own_parts(job, &task.issuer) {
        claims = claims.replace(part, &format!("{PART}{number}"));
    }
    claims.into()
}

fn claims_in_full(kept: &Arc<str>, job: Option<&str>, issuer: &str) -> Arc<str> {
    let Some(job) = job.filter(|_| kept.contains(PART)) else { return kept.clone() };
    let mut claims = kept.to_string();
    for (number, part) in own_parts(job, issuer) {
        claims = claims.replace(&format!("{PART}{number}"), part);
    }
    claims.into()
}

/// The parts of a label that are the job's own, the long ones, by number: one digit.
fn own_parts<'a>(job: &'a str, issuer: &str) -> impl Iterator<Item = (usize, &'a str)> {
    let own = &job[label_end(job, issuer)..];
    own.split('/').enumerate().take(9).filter(|(_, part)| part.len() >= PART_LEAST)
}
