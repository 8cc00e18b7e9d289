//! The rows of the store, as plain data.

use dayfly_domain::{BindingKind, Bound, Cause, EventId, Kind, LeaseId, State, TaskId, UnixMs, bundle::BundleFile};

/// One run of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    pub id: TaskId,
    pub parent: Option<TaskId>,
    pub template: String,
    pub purpose: String,
    pub ticket: Option<String>,
    pub job: Option<String>,
    /// The permit that decided at the opening.
    pub row: String,
    pub owner: String,
    pub environment: String,
    pub issuer: String,
    pub profile: String,
    /// The principal, `<issuer name>/<ids...>`.
    pub workload: String,
    pub untrusted: bool,
    /// JSON object: target name -> sorted array of actions.
    pub grants: String,
    /// Unique: evidence opens one task, once (law L9).
    pub evidence_key: [u8; 32],
    pub evidence_iat_s: i64,
    pub evidence_exp_s: i64,
    /// JSON object of the profile's typed claims; erased when the task ends.
    pub claims: Option<String>,
    /// Unique: SHA-256 of the handle.
    pub handle_hash: [u8; 32],
    pub bound: Bound,
    /// Key thumbprint, where bound.
    pub thumbprint: Option<String>,
    pub opened_at: UnixMs,
    pub deadline: UnixMs,
    pub end: Option<EndRow>,
}

/// How a task or a lease ended. Who and why stand in the detail of event `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndRow {
    /// For a superseded lease this may lie ahead: from then on it is ended for every reader.
    pub at: UnixMs,
    pub cause: Cause,
    /// The event that ended it.
    pub seq: u64,
}

/// One credential. What is not here is read from its `issued` event and its task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    pub id: LeaseId,
    pub task: TaskId,
    /// Of its `issued` event.
    pub seq: u64,
    /// Name of the target.
    pub target: String,
    pub kind: Kind,
    /// The permit that decided.
    pub row: String,
    /// JSON array of the granted actions, sorted.
    pub actions: String,
    pub issued_at: UnixMs,
    pub expires: UnixMs,
    /// SHA-256 of the credential.
    pub credential_hash: [u8; 32],
    pub thumbprint: Option<String>,
    pub end: Option<EndRow>,
}

/// One fact. `body` is hashed, stored and exported as it is; `leaf` = SHA-256(0x00 || body).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    pub seq: u64,
    pub id: EventId,
    pub at: UnixMs,
    pub task: Option<TaskId>,
    pub lease: Option<LeaseId>,
    pub body: Vec<u8>,
    pub leaf: [u8; 32],
    pub detail: Option<DetailRow>,
}

/// The erasable part of an event, committed to in its body as SHA-256(salt || bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetailRow {
    pub salt: [u8; 32],
    pub bytes: Vec<u8>,
}

/// What may not be issued until when: on (job, template), or without a label on
/// (workload, template).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRow {
    pub template: String,
    pub job: Option<String>,
    pub workload: Option<String>,
    pub until: UnixMs,
    /// The event that wrote it.
    pub seq: u64,
}

/// A bundle as it was read, with whose it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleRow {
    pub fingerprint: [u8; 32],
    pub kept_at: UnixMs,
    /// What its meaning depends on beside its files.
    pub issuer_url: String,
    pub broker_binding: BindingKind,
    /// Each with the SHA-256 of its bytes.
    pub files: Vec<([u8; 32], BundleFile)>,
}

/// So many credentials more under a permit with an action on a target, the last of them then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedRow {
    pub template: String,
    pub row: String,
    pub target: String,
    pub action: String,
    pub count: u64,
    pub last_at: UnixMs,
}

/// One step of a batch; all of a batch is written, or none.
#[expect(clippy::large_enum_variant, reason = "a batch is short and its largest rows are the common ones")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Event(EventRow),
    OpenTask(TaskRow),
    AddLease(LeaseRow),
    /// Also erases the task's claims.
    EndTask(TaskId, EndRow),
    EndLease(LeaseId, EndRow),
    AddBlock(BlockRow),
    /// What is kept already stays as it is.
    KeepBundle(BundleRow),
    /// Adds to what was counted.
    Count(UsedRow),
    /// A remembered word, by its key; replaces what stood there. The store's own keys are refused.
    Meta(String, String),
}

/// Rows to read, newest first. Times and states are judged by `now`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    pub state: Option<State>,
    pub task: Option<TaskId>,
    pub job: Option<String>,
    pub workload: Option<String>,
    pub owner: Option<String>,
    pub issuer: Option<String>,
    pub template: Option<String>,
    /// Its grants name this target.
    pub target: Option<String>,
    /// Deadline at or before.
    pub expires_before: Option<UnixMs>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseFilter {
    pub state: Option<State>,
    pub task: Option<TaskId>,
    pub job: Option<String>,
    pub workload: Option<String>,
    pub owner: Option<String>,
    pub issuer: Option<String>,
    pub template: Option<String>,
    pub target: Option<String>,
    pub kind: Option<Kind>,
    pub expires_before: Option<UnixMs>,
}

/// Events to read: all that is given must hold. `since` is inclusive, `until` is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub task: Option<TaskId>,
    pub lease: Option<LeaseId>,
    pub since: Option<UnixMs>,
    pub until: Option<UnixMs>,
}

/// Where a page starts (exclusive) and how many rows it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<K> {
    pub before: Option<K>,
    pub limit: usize,
}
