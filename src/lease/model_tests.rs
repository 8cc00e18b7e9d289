//! Random lives of a lease table, each step held against a plain reference: the state and the cause
//! of everything, what is counted, used, held and blocked.

mod plain;
mod rig;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::{Bound, Cause, Kind, LeaseId, State, TaskId, UnixMs};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{End, Holding, Job, Label, Limits, Now, Overtaken};
use crate::store::{LeaseRow, TaskRow};
use plain::{Plain, PlainEnd, PlainLease, PlainTask};
use rig::{Rig, What};

const AT: UnixMs = UnixMs::from_s(1_800_000_000);
/// Disagreements of the clocks that are told apart; of more, more expires than the reference says.
const JUMPS: usize = 3;

#[derive(Debug, Clone)]
struct Opening {
    evidence: u8,
    handle: u8,
    job: u8,
    template: u8,
    actions: u8,
    key: u8,
    parent: Option<Index>,
    ttl_s: i64,
    evidence_s: i64,
    lease: Option<Ask>,
    per_job: u32,
    keys_per_job: Option<u32>,
}

#[derive(Debug, Clone)]
struct Ask {
    target: u8,
    ttl_s: i64,
}

#[derive(Debug, Clone)]
enum Step {
    Open(Opening),
    Feed { task: Index, ask: Ask, supersede_s: Option<u8>, meanwhile: Option<Index> },
    EndTask { task: Index, cause: Cause, block: bool },
    EndLease { lease: Index, cause: Cause },
    Write,
    Pass { ms: i64 },
    JumpWall { ms: i64 },
    Forget { max: usize },
    Restart,
}

fn asks() -> impl Strategy<Value = Ask> {
    (0..2u8, 1..120i64).prop_map(|(target, ttl_s)| Ask { target, ttl_s })
}

fn openings() -> impl Strategy<Value = Opening> {
    let names = (0..40u8, 0..40u8, 0..4u8, 0..2u8, 0..2u8, 0..3u8);
    let times = (1..200i64, 0..300i64);
    let limits = (1..4u32, proptest::option::of(1..3u32));
    let rest = (proptest::option::weighted(0.4, any::<Index>()), proptest::option::weighted(0.8, asks()));
    (names, times, limits, rest).prop_map(|(names, (ttl_s, evidence_s), (per_job, keys_per_job), (parent, lease))| {
        let (evidence, handle, job, template, actions, key) = names;
        Opening {
            evidence,
            handle,
            job,
            template,
            actions,
            key,
            parent,
            ttl_s,
            evidence_s,
            lease,
            per_job,
            keys_per_job,
        }
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let superseded = proptest::option::weighted(0.7, prop_oneof![Just(0u8), 1..=60u8]);
    let feed = (any::<Index>(), asks(), superseded, proptest::option::weighted(0.3, any::<Index>()));
    let task_causes = prop_oneof![Just(Cause::Completed), Just(Cause::Revoked), Just(Cause::Policy)];
    let lease_causes = prop_oneof![Just(Cause::Presented), Just(Cause::Revoked), Just(Cause::Policy)];
    prop_oneof![
        8 => openings().prop_map(Step::Open),
        8 => feed.prop_map(|(task, ask, supersede_s, meanwhile)| Step::Feed { task, ask, supersede_s, meanwhile }),
        2 => (any::<Index>(), task_causes, any::<bool>())
            .prop_map(|(task, cause, block)| Step::EndTask { task, cause, block }),
        3 => (any::<Index>(), lease_causes).prop_map(|(lease, cause)| Step::EndLease { lease, cause }),
        4 => Just(Step::Write),
        6 => (1..40_000i64).prop_map(|ms| Step::Pass { ms }),
        1 => prop_oneof![-300_000..300_000i64, -3_000..3_000i64].prop_map(|ms| Step::JumpWall { ms }),
        3 => (1..20usize).prop_map(|max| Step::Forget { max }),
        1 => Just(Step::Restart),
    ]
}

/// The table and the reference, side by side.
struct Pair {
    rig: Rig,
    plain: Plain,
    jumps: usize,
    made: u64,
    /// Tasks whose end is to be followed by a block.
    blocking: Vec<TaskId>,
}

impl Pair {
    fn start() -> Self {
        Self { rig: Rig::start(AT), plain: Plain::default(), jumps: 0, made: 0, blocking: Vec::new() }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Open(opening) => self.open(opening)?,
            Step::Feed { task, ask, supersede_s, meanwhile } => {
                self.feed(task, ask, *supersede_s, meanwhile.as_ref())?
            }
            Step::EndTask { task, cause, block } => self.end_task(task, *cause, *block)?,
            Step::EndLease { lease, cause } => self.end_lease(lease, *cause)?,
            Step::Write => self.write(),
            Step::Pass { ms } => self.rig.clock.advance_ms(*ms),
            Step::JumpWall { ms } if self.jumps < JUMPS => {
                self.jumps += 1;
                self.rig.clock.step_wall_ms(*ms);
            }
            Step::JumpWall { .. } => {}
            Step::Forget { max } => self.forget(*max)?,
            Step::Restart => self.restart()?,
        }
        let now = self.rig.now();
        self.plain.look(now);
        self.agree(now)
    }

    fn open(&mut self, opening: &Opening) -> Result<(), TestCaseError> {
        let now = self.rig.now();
        let parent = opening.parent.as_ref().filter(|_| !self.plain.tasks.is_empty());
        let parent = parent.map(|parent| parent.get(&self.plain.tasks).id);
        let parent = parent.filter(|id| self.plain.may_feed(*id, now).is_ok());
        if !now.safe {
            return Ok(());
        }
        let row = self.task_row(opening, parent, now);
        let lease = opening.lease.as_ref().map(|ask| self.lease_row(row.id, row.deadline, ask, now));
        let limits = Limits { per_job: opening.per_job, keys_per_job: opening.keys_per_job };
        let (task, expected) = (plain_task(&row, opening.key), {
            let task = plain_task(&row, opening.key);
            self.plain.may_open(&task, limits, now)
        });
        let opened = self.rig.open(row, lease.clone(), limits);
        match (&opened, &expected) {
            (Err(Overtaken::Conflict(one)), Err(Overtaken::Conflict(other))) => {
                let (one, other) = (self.plain.task(*one), self.plain.task(*other));
                prop_assert!(one.evidence == other.evidence || one.key.is_some() && one.job == other.job);
            }
            _ => prop_assert_eq!(&opened, &expected),
        }
        if opened.is_ok() {
            self.plain.tasks.push(task);
            self.plain.leases.extend(lease.as_ref().map(plain_lease));
        }
        Ok(())
    }

    fn feed(
        &mut self,
        task: &Index,
        ask: &Ask,
        supersede_s: Option<u8>,
        meanwhile: Option<&Index>,
    ) -> Result<(), TestCaseError> {
        let now = self.rig.now();
        if self.plain.tasks.is_empty() || !now.safe {
            return Ok(());
        }
        let task = task.get(&self.plain.tasks).clone();
        let row = self.lease_row(task.id, task.deadline, ask, now);
        let mark = End { at: now.at, cause: Cause::Revoked, seq: None };
        let meanwhile = meanwhile.filter(|_| !self.plain.leases.is_empty());
        let meanwhile =
            meanwhile.map(|lease| lease.get(&self.plain.leases).id).filter(|id| self.can_end_lease(*id, now));
        let expected = self.plain.may_feed(task.id, now);
        let lease = plain_lease(&row);
        let at = supersede_s.map(|seconds| now.at.plus_s(i64::from(seconds)));
        let fed = self.rig.feed(row, supersede_s, meanwhile.map(|id| (What::Lease(id), mark)));
        prop_assert_eq!(&fed, &expected);
        if fed.is_err() {
            return Ok(());
        }
        let superseded: Vec<_> = at.map(|at| self.superseded(&lease, at, now)).unwrap_or_default();
        if let Some(id) = meanwhile {
            mark_lease(self.plain.lease_mut(id), mark);
        }
        for id in superseded {
            let end = PlainEnd { at: at.unwrap_or_default(), cause: Cause::Superseded, durable: true };
            let lease = self.plain.lease_mut(id);
            // A mark of an earlier moment stays; it will be written.
            if !lease.end.is_some_and(|mark| !mark.durable && mark.at < end.at) {
                lease.end = Some(end);
            }
        }
        self.plain.leases.push(lease);
        Ok(())
    }

    fn superseded(&self, new: &PlainLease, at: UnixMs, now: Now) -> Vec<LeaseId> {
        let earlier = self.plain.leases.iter().filter(|lease| lease.task == new.task && lease.target == new.target);
        let live = earlier.filter(|lease| self.plain.lease_state(lease.id, now).0 == State::Active);
        let outlives = |lease: &&PlainLease| lease.expires > at && lease.end.is_none_or(|end| end.at > at);
        live.filter(outlives).map(|lease| lease.id).collect()
    }

    fn end_task(&mut self, task: &Index, cause: Cause, block: bool) -> Result<(), TestCaseError> {
        let now = self.rig.now();
        if self.plain.tasks.is_empty() {
            return Ok(());
        }
        let task = task.get(&self.plain.tasks).clone();
        if task.forgotten || task.end.is_some() || task.deadline <= now.at {
            return Ok(());
        }
        let marked = self.rig.end(What::Task(task.id), End { at: now.at, cause, seq: None }, block);
        prop_assert!(marked);
        self.plain.task_mut(task.id).end = Some(PlainEnd { at: now.at, cause, durable: false });
        if block {
            self.blocking.push(task.id);
        }
        Ok(())
    }

    fn end_lease(&mut self, lease: &Index, cause: Cause) -> Result<(), TestCaseError> {
        let now = self.rig.now();
        if self.plain.leases.is_empty() {
            return Ok(());
        }
        let id = lease.get(&self.plain.leases).id;
        if self.can_end_lease(id, now) {
            let end = End { at: now.at, cause, seq: None };
            prop_assert!(self.rig.end(What::Lease(id), end, false));
            mark_lease(self.plain.lease_mut(id), end);
        }
        Ok(())
    }

    /// As its doors judge: what is over on the record needs no end.
    fn can_end_lease(&self, id: LeaseId, now: Now) -> bool {
        let over = match self.plain.lease_state(id, now) {
            (State::Ended, end) => end.is_some_and(|end| end.durable),
            (State::Expired, _) => self.plain.lease(id).expires <= now.at,
            _ => false,
        };
        !over && !self.plain.lease(id).forgotten
    }

    fn write(&mut self) {
        self.rig.write();
        for id in std::mem::take(&mut self.blocking) {
            let task = self.plain.task(id);
            // Its record may have gone before it was written: then there is nothing to end.
            if !task.forgotten {
                self.plain.blocks.push((task.job.clone(), task.template.clone(), task.deadline));
            }
        }
        let ends = self.plain.tasks.iter_mut().filter(|task| !task.forgotten).filter_map(|task| task.end.as_mut());
        let ends = ends.chain(
            self.plain.leases.iter_mut().filter(|lease| !lease.forgotten).filter_map(|lease| lease.end.as_mut()),
        );
        ends.for_each(|end| end.durable = true);
    }

    fn forget(&mut self, max: usize) -> Result<(), TestCaseError> {
        let now = self.rig.now();
        self.rig.forget(max);
        if !now.safe {
            return Ok(());
        }
        let due = |until: UnixMs| until.plus_ms(999).as_s() <= now.at.as_s();
        // Those below were opened later; what is forgotten is forgotten after them.
        let mut remembered = std::collections::BTreeSet::new();
        for task in self.plain.tasks.iter_mut().rev() {
            task.forgotten |= due(task.deadline.max(task.evidence_until)) && !remembered.contains(&task.id);
            if !task.forgotten {
                remembered.extend(task.parent);
            }
            prop_assert_eq!(self.rig.table.task(task.id).is_none(), task.forgotten, "{:?}", task);
        }
        for lease in &mut self.plain.leases {
            lease.forgotten |= due(lease.expires);
            prop_assert_eq!(self.rig.table.lease(lease.id).is_none(), lease.forgotten, "{:?}", lease);
        }
        Ok(())
    }

    /// Only what was written is still so.
    fn restart(&mut self) -> Result<(), TestCaseError> {
        self.rig.restart();
        self.blocking.clear();
        self.jumps = 0;
        let now = self.rig.now();
        let Plain { tasks, leases, blocks } = &mut self.plain;
        for task in tasks {
            let row = &self.rig.disk.tasks[&task.id];
            let end = row.end.map(|end| PlainEnd { at: end.at, cause: end.cause, durable: true });
            if let Some(before) = task.end.filter(|end| end.durable && !task.forgotten) {
                prop_assert_eq!(Some(before), end, "what was acknowledged is kept");
            }
            (task.end, task.seen_expired, task.forgotten) = (end, false, false);
        }
        for lease in leases {
            let row = &self.rig.disk.leases[&lease.id];
            let end = row.end.map(|end| PlainEnd { at: end.at, cause: end.cause, durable: true });
            if let Some(before) = lease.end.filter(|end| end.durable) {
                prop_assert_eq!(Some(before), end, "what was acknowledged is kept");
            }
            (lease.end, lease.seen_expired, lease.forgotten) = (end, false, row.expires <= now.at);
        }
        blocks.retain(|(.., until)| *until > now.at);
        Ok(())
    }

    /// Every answer of the table is that of the reference.
    fn agree(&self, now: Now) -> Result<(), TestCaseError> {
        let (table, plain) = (&self.rig.table, &self.plain);
        for task in plain.tasks.iter().filter(|task| !task.forgotten) {
            let held = table.task(task.id);
            prop_assert!(held.is_some(), "{:?} is remembered", task);
            let held = held.expect("it was just looked at");
            prop_assert_eq!(table.task_state(task.id, now), Some(plain.task_state(task.id, now)), "{:?}", task);
            prop_assert_eq!(held.end.map(PlainEnd::from), task.end);
            prop_assert_eq!(table.counts(&held, now), plain.counts(task.id, now), "{:?}", task);
            prop_assert_eq!(table.opened_by(&task.evidence).map(|(id, _)| id), Some(task.id));
            prop_assert_eq!(table.owned_by(&task.handle).map(|(id, _)| id), Some(task.id));
            prop_assert_eq!(held.thumbprint, key_text(task.key).map(|text| text.parse().expect("43 characters")));
        }
        for lease in plain.leases.iter().filter(|lease| !lease.forgotten) {
            let held = table.lease(lease.id);
            prop_assert!(held.is_some(), "{:?} is remembered", lease);
            let (state, end) = table.lease_state(&held.expect("it was just looked at"), now);
            let expected = plain.lease_state(lease.id, now);
            prop_assert_eq!((state, end.map(PlainEnd::from)), expected, "{:?} of {:?}", lease, plain.task(lease.task));
        }
        let live = plain.active_leases(now);
        prop_assert_eq!(table.active_leases(now), live);
        let counted = || table.owner_uses().into_iter().map(|(_, used)| used.all() as usize).sum::<usize>();
        prop_assert!(counted() >= live, "a quota misses nothing that lives");
        table.release_over(now);
        prop_assert_eq!(counted(), live, "nor counts for ever what is over");
        self.agree_on_evidence()?;
        self.agree_on_jobs(now)
    }

    fn agree_on_evidence(&self) -> Result<(), TestCaseError> {
        for number in 0..40 {
            let known = self.plain.tasks.iter().filter(|task| !task.forgotten);
            let (used, taken) = known.fold((false, false), |(used, taken), task| {
                (used || task.evidence == [number; 32], taken || task.handle == [number; 32])
            });
            prop_assert_eq!(self.rig.table.is_used(&[number; 32]), used);
            prop_assert_eq!(self.rig.table.task_of_handle(&[number; 32]).is_some(), taken);
        }
        Ok(())
    }

    fn agree_on_jobs(&self, now: Now) -> Result<(), TestCaseError> {
        for number in 0..4 {
            let (label, name) = (job_label(number), job_name(number));
            let job = Job::of_parts("ci", label.as_deref(), "ci/shop");
            for but in self.plain.tasks.iter().map(|task| Some(task.id)).take(3).chain([None]) {
                let pair = |holding: &Holding| (holding.template.to_string(), holding.grants.to_string());
                let held: Vec<_> = self.rig.table.holdings(&job, but, now).iter().map(pair).collect();
                prop_assert_eq!(held, self.plain.holdings(&name, but, now), "job {:?}", label);
            }
            for template in 0..2 {
                let row = TaskRow { job: job_label(number), template: template_name(template), ..blank_row() };
                let blocked = self.rig.table.is_blocked(&Label::of_row(&row), now);
                prop_assert_eq!(blocked, self.plain.is_blocked(&name, &row.template, now));
            }
        }
        Ok(())
    }

    fn task_row(&mut self, opening: &Opening, parent: Option<TaskId>, now: Now) -> TaskRow {
        self.made += 1;
        let mut random = [7; 10];
        random[..8].copy_from_slice(&self.made.to_be_bytes());
        let deadline = now.at.plus_s(opening.ttl_s);
        // Law L3.
        let deadline = parent.map_or(deadline, |parent| deadline.min(self.plain.task(parent).deadline));
        TaskRow {
            // Some are drawn when they are opened, as all are in earnest.
            id: TaskId::from_parts(if self.made.is_multiple_of(2) { now.at.as_ms().unsigned_abs() } else { 0 }, random),
            parent,
            template: template_name(opening.template),
            job: job_label(opening.job),
            grants: format!("{{\"shop\":[\"{}\"]}}", opening.actions),
            evidence_key: [opening.evidence; 32],
            evidence_exp_s: now.at.as_s() + opening.evidence_s,
            handle_hash: [opening.handle; 32],
            bound: if opening.key == 0 { Bound::None } else { Bound::Jkt },
            thumbprint: key_text(Some(opening.key).filter(|key| *key > 0)),
            opened_at: now.at,
            deadline,
            ..blank_row()
        }
    }

    fn lease_row(&mut self, task: TaskId, deadline: UnixMs, ask: &Ask, now: Now) -> LeaseRow {
        self.made += 1;
        LeaseRow {
            id: LeaseId::from_parts(self.made, [9; 10]),
            task,
            seq: self.made,
            target: format!("target-{}", ask.target),
            kind: Kind::Jwt,
            row: "row".into(),
            actions: "[]".into(),
            issued_at: now.at,
            expires: now.at.plus_s(ask.ttl_s).min(deadline),
            credential_hash: [9; 32],
            thumbprint: None,
            kid: None,
            status: None,
            end: None,
        }
    }
}

impl From<End> for PlainEnd {
    fn from(end: End) -> Self {
        Self { at: end.at, cause: end.cause, durable: end.seq.is_some() }
    }
}

/// The first of two ends stays, unless it lies ahead of the other.
fn mark_lease(lease: &mut PlainLease, end: End) {
    if lease.end.is_none_or(|first| first.at > end.at) {
        lease.end = Some(end.into());
    }
}

fn plain_task(row: &TaskRow, key: u8) -> PlainTask {
    PlainTask {
        id: row.id,
        parent: row.parent,
        template: row.template.clone(),
        grants: row.grants.clone(),
        job: row.job.as_ref().map_or_else(|| row.workload.clone(), |job| format!("ci {job}")),
        labelled: row.job.is_some(),
        evidence: row.evidence_key,
        handle: row.handle_hash,
        key: Some(key).filter(|key| *key > 0),
        deadline: row.deadline,
        evidence_until: UnixMs::from_s(row.evidence_exp_s + 30),
        end: None,
        seen_expired: false,
        forgotten: false,
    }
}

fn plain_lease(row: &LeaseRow) -> PlainLease {
    PlainLease {
        id: row.id,
        task: row.task,
        target: row.target.clone(),
        expires: row.expires,
        end: None,
        seen_expired: false,
        forgotten: false,
    }
}

/// Without a label, the workload is the job.
fn job_label(number: u8) -> Option<String> {
    (number > 0).then(|| format!("7/{number}"))
}

fn job_name(number: u8) -> String {
    job_label(number).map_or("ci/shop".to_owned(), |label| format!("ci {label}"))
}

fn template_name(number: u8) -> String {
    format!("template-{number}")
}

/// A key's thumbprint as rows have it.
fn key_text(key: Option<u8>) -> Option<String> {
    key.map(|key| URL_SAFE_NO_PAD.encode([key; 32]))
}

pub(super) fn blank_row() -> TaskRow {
    let text = String::new;
    TaskRow {
        id: TaskId::from_parts(0, [0; 10]),
        parent: None,
        template: text(),
        purpose: text(),
        ticket: None,
        job: None,
        row: "row".into(),
        owner: "owner".into(),
        environment: "production".into(),
        issuer: "ci".into(),
        profile: "oidc".into(),
        workload: "ci/shop".into(),
        untrusted: false,
        grants: "{}".into(),
        evidence_key: [0; 32],
        evidence_iat_s: 0,
        evidence_exp_s: 0,
        claims: None,
        handle_hash: [0; 32],
        bound: Bound::None,
        thumbprint: None,
        opened_at: AT,
        deadline: AT,
        seq: 0,
        held: false,
        end: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_life_is_that_of_the_reference(steps in vec(steps(), 1..120)) {
        let mut pair = Pair::start();
        for step in &steps {
            pair.step(step)?;
        }
    }
}
