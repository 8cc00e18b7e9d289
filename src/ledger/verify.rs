//! Proof that nothing logged was changed or removed, and that rows and events tell one story.
//!
//! What it does not prove: that nothing was signed without a record.

use std::collections::HashMap;

use dayfly_domain::{Cause, EventId, LeaseId, TaskId, UnixMs};

use super::{
    body::Body,
    event::{commitment, hex},
    tree::{Tree, leaf_hash},
};
use crate::store::{EndRow, EventRow, LeaseRow, TaskRow};

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
pub struct Verification {
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
}

/// Task, lease, cause and time of an end.
type Ending = (Option<TaskId>, Option<LeaseId>, Option<Cause>, Option<i64>);

#[derive(Debug)]
struct Opened {
    evidence: String,
    handle: String,
    deadline: i64,
    /// Owner, issuer, template, row: what decides who may see it and when it ends by policy.
    words: [Option<String>; 4],
    seen: bool,
}

#[derive(Debug)]
struct Issued {
    seq: u64,
    task: Option<TaskId>,
    until: i64,
    credential: String,
    /// Target and row.
    words: [Option<String>; 2],
    actions: Vec<String>,
    seen: bool,
    /// As its row says.
    ended_at: Option<i64>,
}

impl Verification {
    pub fn event(&mut self, row: &EventRow) {
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
        match body.kind.as_str() {
            "task_opened" => self.opened(seq, body),
            "issued" => self.issued(seq, body),
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

    fn opened(&mut self, seq: u64, body: Body) {
        let Some(task) = body.task else {
            return self.problem(format!("event {seq}: a task was opened without an id"));
        };
        let opened = Opened {
            evidence: body.evidence.unwrap_or_default(),
            handle: body.handle.unwrap_or_default(),
            deadline: body.until.unwrap_or_default(),
            words: [body.owner, body.issuer, body.template, body.row],
            seen: false,
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
        let issued = Issued { seq, task: body.task, until, credential, words, actions, seen: false, ended_at: None };
        if self.issued.insert(lease, issued).is_some() {
            self.problem(format!("event {seq}: lease {lease} was issued twice"));
        }
    }

    pub fn task(&mut self, row: &TaskRow) {
        self.tasks += 1;
        let Some(opened) = self.opened.get_mut(&row.id) else {
            return self.problem(format!("task {}: no event opened it", row.id));
        };
        opened.seen = true;
        let same = opened.evidence == hex(&row.evidence_key)
            && opened.handle == hex(&row.handle_hash)
            && opened.deadline == row.deadline.as_ms()
            && opened.words == [&row.owner, &row.issuer, &row.template, &row.row].map(|word| Some(word.clone()));
        if !same {
            self.problem(format!("task {}: the row does not match its event", row.id));
        }
        self.end(&format!("task {}", row.id), row.end, Some(row.id), None);
    }

    pub fn lease(&mut self, row: &LeaseRow) {
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
            && issued.words == [&row.target, &row.row].map(|word| Some(word.clone()))
            && serde_json::from_str::<Vec<String>>(&row.actions).is_ok_and(|actions| actions == issued.actions);
        if !same {
            self.problem(format!("lease {}: the row does not match its event", row.id));
        }
        self.end(&format!("lease {}", row.id), row.end, Some(row.task), Some(row.id));
    }

    fn end(&mut self, what: &str, end: Option<EndRow>, task: Option<TaskId>, lease: Option<LeaseId>) {
        let Some(end) = end else { return };
        let expected = (task, lease, Some(end.cause), Some(end.at.as_ms()));
        if self.ends.remove(&end.seq) != Some(expected) {
            self.problem(format!("{what}: no event of sequence {} ended it so", end.seq));
        }
    }

    /// `now`: what was still live then must have its row.
    pub fn finish(mut self, now: UnixMs) -> Report {
        let live_task = |opened: &Opened| !opened.seen && opened.deadline > now.as_ms();
        let live_lease = |issued: &Issued| !issued.seen && issued.until > now.as_ms();
        let tasks: Vec<_> = self.opened.iter().filter(|(_, it)| live_task(it)).map(|(id, _)| *id).collect();
        let leases: Vec<_> = self.issued.iter().filter(|(_, it)| live_lease(it)).map(|(id, _)| *id).collect();
        tasks.iter().for_each(|id| self.problem(format!("task {id}: its row is gone before its deadline")));
        leases.iter().for_each(|id| self.problem(format!("lease {id}: its row is gone before it expires")));
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
