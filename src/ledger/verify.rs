//! Proof that nothing logged was changed or removed, and that rows and events tell one story.
//!
//! What it does not prove: that nothing was signed without a record.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
};

use dayfly_domain::{Bound, Cause, Claims, EventId, Kind, LeaseId, Selector, TaskId, UnixMs};
use ring::digest;
use serde::{Deserialize, Serialize};

use super::{
    body::Body,
    event::{commitment, hex},
    tombs::Tombs,
    tree::{Tree, leaf_hash},
};
use crate::store::{BlockRow, EndRow, EventRow, LeaseRow, Snapshot, StoreError, TaskRow};

/// At most so many problems are told one by one.
const PROBLEMS_MAX: usize = 50;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub events: u64,
    pub tasks: u64,
    pub leases: u64,
    /// Tree hash of RFC 6962 over all events, hex.
    pub root: String,
    pub erased: u64,
    pub problems: Vec<String>,
    /// Problems beyond those listed.
    pub more: u64,
}

/// Fed with all events in order, then with all tasks and leases, from one snapshot.
#[derive(Debug, Default)]
struct Verification {
    tree: Tree,
    tasks: u64,
    leases: u64,
    erased: u64,
    problems: Vec<String>,
    more: u64,
    opened: HashMap<TaskId, Opened>,
    issued: HashMap<LeaseId, Issued>,
    ends: HashMap<u64, Ending>,
    ids: HashMap<EventId, u64>,
    /// Blocks that an end wrote, by its sequence number: of which task, until when.
    blocks: HashMap<u64, (Option<TaskId>, i64)>,
    /// Blocks that were lifted, by the event that had written them.
    lifted: BTreeSet<u64>,
    tombs: Tombs,
    /// Under which bundle, after the last swap.
    bundle: Option<String>,
    /// All bundles that were ever swapped in.
    swapped: BTreeSet<String>,
}

/// No task stands deeper.
const LEVELS_MAX: usize = 8;

/// Task, lease, cause and time of an end.
type Ending = (Option<TaskId>, Option<LeaseId>, Option<Cause>, Option<i64>);

#[derive(Debug)]
struct Opened {
    evidence: String,
    handle: String,
    /// What its handle is bound to.
    key: Option<(Bound, String)>,
    deadline: i64,
    /// Owner, issuer, template, row, environment: what decides who may see it and when it ends by
    /// policy.
    words: [Option<String>; 5],
    grants: Option<BTreeMap<String, Vec<String>>>,
    evidence_until: Option<i64>,
    /// Hashes of what only the detail says; `None` once it is erased.
    named: Option<Named>,
    seen: bool,
    /// As its row says.
    parent: Option<TaskId>,
    ended: bool,
}

/// What something is bound to, as its event says.
fn key_of(jkt: Option<String>, certificate: Option<String>) -> Option<(Bound, String)> {
    jkt.map(|key| (Bound::Jkt, key)).or(certificate.map(|key| (Bound::X5t, key)))
}

/// What a detail says of a task, as hashes: that keeps the names of many tasks out of memory.
#[derive(Debug)]
struct Named {
    /// Workload, job, ticket, profile, trust, age of the evidence.
    who: [u8; 32],
    /// Under which its job is counted and blocked.
    label: [u8; 32],
    claims: [u8; 32],
}

#[derive(Deserialize)]
struct OpenedDetail {
    workload: String,
    job: Option<String>,
    ticket: Option<String>,
    untrusted: bool,
    profile: String,
    issued_at_s: i64,
    claims: Claims,
}

#[derive(Debug)]
struct Issued {
    seq: u64,
    task: Option<TaskId>,
    until: i64,
    credential: String,
    key: Option<(Bound, String)>,
    kind: Option<Kind>,
    at: i64,
    /// Target and row.
    words: [Option<String>; 2],
    actions: Vec<String>,
    seen: bool,
    /// As its row says.
    ended_at: Option<i64>,
}

/// Name under which the store keeps the bundle's fingerprint.
pub const CURRENT_BUNDLE: &str = "bundle";
/// And, before each fingerprint, the names of all that ever decided: what a rollback is judged by.
pub const SEEN_BUNDLE: &str = "bundle_seen/";

/// Verifies a whole store, as it is at one moment.
pub fn verify(snapshot: &Snapshot<'_>, now: UnixMs) -> Result<Report, StoreError> {
    let mut all = Verification::default();
    snapshot.each_event(0, |row| {
        all.event(&row);
        ControlFlow::Continue(())
    })?;
    snapshot.each_tomb(|row| {
        let problem = all.tombs.row(&row);
        problem.into_iter().for_each(|problem| all.problem(problem));
    })?;
    snapshot.each_task(|row| all.task(&row, now))?;
    snapshot.each_lease(|row| all.lease(&row, now))?;
    snapshot.each_block(|row| all.block(&row))?;
    all.bundle(snapshot.meta(CURRENT_BUNDLE)?.as_deref());
    for fingerprint in std::mem::take(&mut all.swapped) {
        if snapshot.meta(&format!("{SEEN_BUNDLE}{fingerprint}"))?.is_none() {
            all.problem(format!("bundle {fingerprint} was active, and the store has forgotten it"));
        }
    }
    Ok(all.finish(now))
}

impl Named {
    fn is_of(&self, row: &TaskRow) -> bool {
        let claims = row.claims.as_deref().map(serde_json::from_str::<Claims>);
        let same = claims.is_none_or(|claims| claims.is_ok_and(|claims| digest_of(&claims) == self.claims));
        let who = (&row.workload, &row.job, &row.ticket, &row.profile, row.untrusted, row.evidence_iat_s);
        same && digest_of(&who) == self.who
    }
}

fn named(detail: &[u8], issuer: &str) -> Option<Named> {
    let OpenedDetail { workload, job, ticket, untrusted, profile, issued_at_s, claims } =
        serde_json::from_slice(detail).ok()?;
    let labelled = job.as_ref().map(|job| format!("{issuer}/{job}"));
    let unlabelled = Some(&workload).filter(|_| job.is_none());
    Some(Named {
        label: digest_of(&(&labelled, &unlabelled)),
        who: digest_of(&(&workload, &job, &ticket, &profile, untrusted, issued_at_s)),
        claims: digest_of(&claims),
    })
}

fn digest_of<T: Serialize>(value: &T) -> [u8; 32] {
    let mut out = [0; 32];
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    out.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());
    out
}

impl Verification {
    fn event(&mut self, row: &EventRow) {
        let seq = self.tree.size();
        if row.seq != seq {
            self.problem(format!("event {}: expected sequence {seq}, an event is missing or doubled", row.seq));
        }
        let leaf = leaf_hash(&row.body);
        if leaf != row.leaf {
            self.problem(format!("event {seq}: the body does not match its leaf hash"));
        }
        self.tree.push(leaf);
        if self.ids.insert(row.id, seq).is_some() {
            self.problem(format!("event {seq}: its id stands twice"));
        }
        match serde_json::from_slice::<Body>(&row.body) {
            Ok(body) => self.body(seq, row, body),
            Err(_) => self.problem(format!("event {seq}: the body is not readable")),
        }
    }

    fn body(&mut self, seq: u64, row: &EventRow, body: Body) {
        if body.id != Some(row.id) || body.at != row.at.as_ms() || body.task != row.task || body.lease != row.lease {
            self.problem(format!("event {seq}: the columns do not match the body"));
        }
        self.detail(seq, row, body.details.as_deref());
        if let Some(until) = body.blocked_until {
            self.blocks.insert(seq, (body.task, until));
        }
        if let Some(written_by) = body.written_by {
            self.blocks.remove(&written_by);
            self.lifted.insert(written_by);
        }
        match body.kind.as_str() {
            "tombstone" => self.tombs.event(seq, row, &body),
            "task_opened" => self.opened(seq, row, body),
            "issued" => self.issued(seq, body),
            "bundle_swapped" => {
                self.swapped.extend(body.bundle.clone());
                self.bundle = body.bundle;
            }
            "task_ended" | "lease_ended" => {
                self.ends.insert(seq, (body.task, body.lease, body.cause, body.ended_at));
            }
            _ => {}
        }
    }

    fn detail(&mut self, seq: u64, row: &EventRow, committed: Option<&str>) {
        match (&row.detail, committed) {
            (Some(detail), Some(committed)) if hex(&commitment(detail)) == committed => {}
            (None, None) => {}
            (None, Some(_)) => self.erased += 1,
            _ => self.problem(format!("event {seq}: the details do not match their commitment")),
        }
    }

    fn opened(&mut self, seq: u64, row: &EventRow, body: Body) {
        let Some(task) = body.task else {
            return self.problem(format!("event {seq}: a task was opened without an id"));
        };
        let named = row.detail.as_ref().and_then(|detail| named(&detail.bytes, body.issuer.as_deref()?));
        let opened = Opened {
            evidence: body.evidence.unwrap_or_default(),
            handle: body.handle.unwrap_or_default(),
            key: key_of(body.jkt, body.spki),
            deadline: body.until.unwrap_or_default(),
            words: [body.owner, body.issuer, body.template, body.row, body.environment],
            grants: body.grants,
            evidence_until: body.evidence_until,
            named,
            seen: false,
            parent: None,
            ended: false,
        };
        if self.opened.insert(task, opened).is_some() {
            self.problem(format!("event {seq}: task {task} was opened twice"));
        }
    }

    fn issued(&mut self, seq: u64, body: Body) {
        let Some(lease) = body.lease else {
            return self.problem(format!("event {seq}: a credential was issued without an id"));
        };
        let until = body.until.unwrap_or_default();
        let credential = body.credential.unwrap_or_default();
        let words = [body.target, body.row];
        let actions = body.actions.unwrap_or_default();
        let key = key_of(body.jkt, body.x5t.or(body.spki));
        let (kind, at, task) = (body.credential_kind, body.at, body.task);
        let issued =
            Issued { seq, task, until, credential, key, kind, at, words, actions, seen: false, ended_at: None };
        if self.issued.insert(lease, issued).is_some() {
            self.problem(format!("event {seq}: lease {lease} was issued twice"));
        }
    }

    fn task(&mut self, row: &TaskRow, now: UnixMs) {
        self.tasks += 1;
        let Some(opened) = self.opened.get_mut(&row.id) else {
            return self.problem(format!("task {}: no event opened it", row.id));
        };
        (opened.seen, opened.parent, opened.ended) = (true, row.parent, row.end.is_some());
        let same = opened.evidence == hex(&row.evidence_key)
            && opened.handle == hex(&row.handle_hash)
            && opened.key == row.thumbprint.clone().map(|print| (row.bound, print))
            && (row.bound == Bound::None) == row.thumbprint.is_none()
            && opened.deadline == row.deadline.as_ms()
            && opened.evidence_until == Some(UnixMs::from_s(row.evidence_exp_s).as_ms())
            && opened.grants == serde_json::from_str(&row.grants).ok()
            && opened.words
                == [&row.owner, &row.issuer, &row.template, &row.row, &row.environment].map(|word| Some(word.clone()))
            && opened.named.as_ref().is_none_or(|named| named.is_of(row));
        if !same {
            self.problem(format!("task {}: the row does not match its event", row.id));
        }
        let what = format!("task {}", row.id);
        match self.tombs.task(row, self.is_over(row.parent), now) {
            Some(Ok(())) => {}
            Some(Err(problem)) => self.problem(format!("{what}: {problem}")),
            None => self.end(&what, row.end, Some(row.id), None),
        }
    }

    fn lease(&mut self, row: &LeaseRow, now: UnixMs) {
        self.leases += 1;
        let Some(issued) = self.issued.get_mut(&row.id) else {
            return self.problem(format!("lease {}: no event issued it", row.id));
        };
        issued.seen = true;
        issued.ended_at = row.end.map(|end| end.at.as_ms());
        let same = issued.seq == row.seq
            && issued.task == Some(row.task)
            && issued.until == row.expires.as_ms()
            && issued.credential == hex(&row.credential_hash)
            && issued.key == row.bound().1.map(|print| (row.bound().0, print.to_owned()))
            && (issued.kind, issued.at) == (Some(row.kind), row.issued_at.as_ms())
            && issued.words == [&row.target, &row.row].map(|word| Some(word.clone()))
            && serde_json::from_str::<Vec<String>>(&row.actions).is_ok_and(|actions| actions == issued.actions);
        if !same {
            self.problem(format!("lease {}: the row does not match its event", row.id));
        }
        let what = format!("lease {}", row.id);
        let words = self.opened.get(&row.task).map(|task| &task.words);
        match self.tombs.lease(row, words, self.is_over(Some(row.task)), now) {
            Some(Ok(())) => {}
            Some(Err(problem)) => self.problem(format!("{what}: {problem}")),
            None => self.end(&what, row.end, Some(row.task), Some(row.id)),
        }
    }

    /// Whether a task, or what it hangs on, has ended by its row: what is below is over with it, and has no
    /// end of its own.
    fn is_over(&self, task: Option<TaskId>) -> bool {
        let mut above = task.and_then(|task| self.opened.get(&task));
        for _ in 0..LEVELS_MAX {
            match above {
                Some(task) if task.ended => return true,
                Some(task) => above = task.parent.and_then(|parent| self.opened.get(&parent)),
                None => return false,
            }
        }
        false
    }

    fn end(&mut self, what: &str, end: Option<EndRow>, task: Option<TaskId>, lease: Option<LeaseId>) {
        let Some(end) = end else { return };
        let expected = (task, lease, Some(end.cause), Some(end.at.as_ms()));
        if self.ends.remove(&end.seq) != Some(expected) {
            self.problem(format!("{what}: no event of sequence {} ended it so", end.seq));
        }
    }

    fn block(&mut self, row: &BlockRow) {
        if row.until.is_none() {
            if !self.tombs.block(row) || self.lifted.contains(&row.seq) {
                self.problem(format!("block {}: no end of sequence {} wrote it so, or it was lifted", row.id, row.seq));
            }
            return;
        }
        let written = self.blocks.remove(&row.seq);
        let task = written.and_then(|(task, _)| self.opened.get(&task?));
        let same = task.is_some_and(|task| {
            let Selector { job, issuer, workload, template, .. } = &row.selector;
            let job = issuer.as_ref().zip(job.as_ref()).map(|(issuer, job)| format!("{issuer}/{job}"));
            task.words[2] == *template
                && task.named.as_ref().is_none_or(|named| named.label == digest_of(&(&job, workload)))
        });
        if !same || written.map(|(_, until)| until) != row.until.map(UnixMs::as_ms) {
            self.problem(format!("block {}: no end of sequence {} wrote it so", row.id, row.seq));
        }
    }

    /// `recorded`: the fingerprint that the store says decided last.
    fn bundle(&mut self, recorded: Option<&str>) {
        if self.bundle.as_deref() != recorded {
            self.problem("the store names another bundle than its last swap".to_owned());
        }
    }

    /// `now`: what was still live then must have its row.
    fn finish(mut self, now: UnixMs) -> Report {
        let live_task = |opened: &Opened| !opened.seen && opened.deadline > now.as_ms();
        let live_lease = |issued: &Issued| !issued.seen && issued.until > now.as_ms();
        let tasks: Vec<_> = self.opened.iter().filter(|(_, it)| live_task(it)).map(|(id, _)| *id).collect();
        let leases: Vec<_> = self.issued.iter().filter(|(_, it)| live_lease(it)).map(|(id, _)| *id).collect();
        tasks.iter().for_each(|id| self.problem(format!("task {id}: its row is gone before its deadline")));
        leases.iter().for_each(|id| self.problem(format!("lease {id}: its row is gone before it expires")));
        let blocks: Vec<_> =
            self.blocks.iter().filter(|(_, (_, until))| *until > now.as_ms()).map(|(seq, _)| *seq).collect();
        blocks.iter().for_each(|seq| self.problem(format!("event {seq}: the block that it records is gone")));
        let gone = self.tombs.gone(&self.lifted);
        gone.into_iter().for_each(|problem| self.problem(problem));
        self.unused_ends();
        Report {
            events: self.tree.size(),
            tasks: self.tasks,
            leases: self.leases,
            root: hex(&self.tree.root()),
            erased: self.erased,
            problems: self.problems,
            more: self.more,
        }
    }

    /// Ends that no row shows although the row is still kept: somebody revived it (law L10).
    fn unused_ends(&mut self) {
        let mut left: Vec<_> = self.ends.drain().collect();
        left.sort_unstable_by_key(|(seq, _)| *seq);
        for (seq, (task, lease, _, at)) in left {
            let kept = match (task, lease) {
                // An end that lay ahead may have given way to an earlier one of the same lease,
                // never the other way round.
                (_, Some(lease)) => self.issued.get(&lease).is_some_and(|issued| {
                    issued.seen && issued.ended_at.is_none_or(|ended| at.is_some_and(|at| at <= ended))
                }),
                (Some(task), None) => self.opened.get(&task).is_some_and(|opened| opened.seen),
                (None, None) => true,
            };
            if kept {
                self.problem(format!("event {seq}: the end that it records is not in the rows"));
            }
        }
    }

    fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        } else {
            self.more += 1;
        }
    }
}
