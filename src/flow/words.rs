//! What the doors hand to the verbs and get back.

use std::sync::Arc;

use dayfly_domain::{BindingKind, Bound, Cause, EventId, Kind, LeaseId, Reason, Secret, State, TaskId, UnixMs};

use crate::{
    policy::{Ask, Comparison},
    revoke::{Known, Reach},
    store::{LeaseRow, TaskRow},
};

/// A secret text as it came in: a token or a handle.
pub type Presented = Secret<String>;

/// Why a verb was refused. The outside sees the reason, the hint and the decision's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub reason: Reason,
    /// More than the reason's own help: for this caller, never a secret.
    pub hint: Option<String>,
    /// The `denied` event, where there is a decision.
    pub decision: Option<EventId>,
    /// The caller's own claims beside the nearest row, where the template's owner allows that.
    pub comparison: Option<Box<Comparison>>,
    /// When to come again, where that is not a second from now.
    pub retry_after_s: Option<u32>,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, hint: None, decision: None, comparison: None, retry_after_s: None }
    }
}

/// What opens a task, or feeds one.
#[derive(Debug)]
pub enum Subject {
    /// A platform's token: opens a task. `control_s256`: SHA-256 of the client's own handle.
    Evidence { token: Presented, control_s256: Option<[u8; 32]> },
    /// A handle: a further credential of its task. `supersede_s`: when this task's earlier leases
    /// for the same target end; absent to keep them.
    Handle { handle: Presented, supersede_s: Option<u8> },
}

/// A proof of possession as it came in (RFC 9449), with the request that it must be for.
#[derive(Debug)]
pub struct Possession {
    /// The `DPoP` header.
    pub proof: Presented,
    pub method: &'static str,
    /// Path of the request; the proof names it below the configured issuer, never below `Host`.
    pub path: String,
}

/// A token exchange, parsed. With a handle `ask.template` may be empty: the task's.
#[derive(Debug)]
pub struct Exchange {
    pub subject: Subject,
    pub ask: Ask,
    pub possession: Option<Possession>,
    /// A request for a certificate, base64url of DER: with an ask for one.
    pub csr: Option<String>,
}

/// What a request shows to be recognised by: a token for the broker, or a handle.
#[derive(Debug)]
pub struct Shown {
    pub secret: Presented,
    /// `Authorization: DPoP`; otherwise `Bearer`, which is worth nothing for what is bound.
    pub bound: bool,
    pub possession: Option<Possession>,
}

/// Where an event stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub stream: Arc<str>,
    pub seq: u64,
}

/// A task that was opened or fed.
#[derive(Debug)]
pub struct Issued {
    pub task: TaskId,
    pub template: String,
    /// Name of the issuer whose evidence opened it.
    pub issuer: String,
    pub deadline: UnixMs,
    /// Only when the broker made the handle.
    pub handle: Option<Presented>,
    pub point: Point,
    /// `None` when no credential was asked.
    pub credential: Option<IssuedCredential>,
}

#[derive(Debug)]
pub struct IssuedCredential {
    pub lease: LeaseId,
    pub token: Presented,
    pub kind: Kind,
    /// `Dpop` whenever a proof came, whatever the target asks for.
    pub binding: BindingKind,
    pub target_uri: Arc<str>,
    pub actions: Vec<String>,
    pub purpose: String,
    pub ticket: Option<String>,
    /// Granted TTL in seconds, exactly `exp - iat`.
    pub ttl_s: u64,
    pub expires: UnixMs,
    pub revocation: Vec<Reach>,
}

/// Who is calling a `/v1` route or introspection. Made only by `Flow::caller` and, for the local
/// socket, from the peer's credentials.
#[derive(Debug, Clone)]
pub enum Caller {
    Nobody,
    /// On the local socket: every built-in action.
    Operator {
        uid: u32,
    },
    /// A live task token for the target `broker`.
    Token {
        task: TaskId,
        lease: LeaseId,
        owner: Arc<str>,
        actions: Arc<[Arc<str>]>,
    },
    /// A handle whose task's row is kept; it may have ended.
    Handle {
        task: TaskId,
    },
    /// A resource server that proved itself with a `client_assertion`; it may introspect for these
    /// targets (by name) and nothing else.
    Verifier {
        issuer: Arc<str>,
        targets: Arc<[Arc<str>]>,
    },
}

/// RFC 7662: the members of an active token, as the token itself says them.
#[derive(Debug, Clone, PartialEq)]
pub struct Introspected {
    pub claims: serde_json::Map<String, serde_json::Value>,
    pub task: TaskId,
}

/// What an end did. The same answer again for whoever ends twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndAnswer {
    pub id: String,
    pub state: State,
    pub cause: Option<Cause>,
    pub ended_at: Option<UnixMs>,
    pub leases_ended: u64,
    pub channels: Vec<Known>,
}

/// A task as shown: its row, judged now.
#[derive(Debug, Clone)]
pub struct TaskView {
    pub row: TaskRow,
    pub state: State,
    pub cause: Option<Cause>,
    pub ended_at: Option<UnixMs>,
    pub ended_by: Option<String>,
    pub reason: Option<String>,
    pub leases_active: u64,
    pub leases_ended: u64,
    /// How often its evidence, or its job, was shown with another key; counted for a single task, and
    /// not for lists.
    pub conflicts: Option<u64>,
    /// While its client beats.
    pub hold: Option<HoldView>,
}

/// How a task's hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldView {
    /// `None`: not since the broker started.
    pub last_beat_at: Option<UnixMs>,
    pub grace_s: u32,
    /// When the task ends unless a beat comes.
    pub lapses_at: UnixMs,
}

/// A lease as shown, with what it has of its task.
#[derive(Debug, Clone)]
pub struct LeaseView {
    pub row: LeaseRow,
    pub workload: String,
    pub owner: String,
    pub template: String,
    pub bound: Bound,
    pub state: State,
    pub cause: Option<Cause>,
    pub ended_at: Option<UnixMs>,
    pub ended_by: Option<String>,
    pub reason: Option<String>,
    pub point: Point,
}

/// An event as shown: its body as written, and its details unless erased.
#[derive(Debug, Clone)]
pub struct EventView {
    pub seq: u64,
    pub body: serde_json::Map<String, serde_json::Value>,
    /// `None`: erased, or it never had any (then the body has no `details`).
    pub details: Option<serde_json::Map<String, serde_json::Value>>,
}

/// One page of a list, newest first.
#[derive(Debug, Clone)]
pub struct Listing<T> {
    pub items: Vec<T>,
    pub next_cursor: Option<String>,
}
