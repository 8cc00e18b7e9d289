//! The rows of the store, as plain data.

use dayfly_domain::{
    BindingKind, BlockId, Bound, Cause, EventId, Kind, LeaseId, ListId, Selector, State, TaskId, UnixMs,
    bundle::BundleFile,
};

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
    /// Of its `task_opened` event.
    pub seq: u64,
    /// It beats: from the first beat on it ends when they stop.
    pub held: bool,
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
    /// What it is bound to; [`LeaseRow::bound`] reads it.
    pub thumbprint: Option<String>,
    /// Of the key that signed; absent where an older store did not say.
    pub kid: Option<String>,
    /// Where the target verifies by list.
    pub status: Option<StatusSlot>,
    pub end: Option<EndRow>,
}

/// Before the thumbprint of a client certificate, in the row of a token that is bound to one.
const OF_CERTIFICATE: &str = "x5t:";

impl LeaseRow {
    /// How the row of a token says that it is bound to a client certificate.
    pub fn certificate_text(thumbprint: &str) -> String {
        format!("{OF_CERTIFICATE}{thumbprint}")
    }

    /// What the credential is bound to, and its thumbprint: a DPoP key's, a client certificate's, or, of a
    /// certificate, its own public key's.
    pub fn bound(&self) -> (Bound, Option<&str>) {
        match (self.kind, self.thumbprint.as_deref()) {
            (_, None) => (Bound::None, None),
            (Kind::X509, key) => (Bound::X5t, key),
            (Kind::Jwt, Some(text)) => match text.strip_prefix(OF_CERTIFICATE) {
                Some(certificate) => (Bound::X5t, Some(certificate)),
                None => (Bound::Jkt, Some(text)),
            },
        }
    }
}

/// A place on a status list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusSlot {
    pub list: ListId,
    pub index: u32,
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

/// What may not be issued until when. The end of a task blocks (job, issuer, template), or without a
/// label (workload, template), until its deadline; an end by selector blocks that selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRow {
    pub id: BlockId,
    pub selector: Selector,
    /// Absent: until it is lifted.
    pub until: Option<UnixMs>,
    /// The event that wrote it.
    pub seq: u64,
}

/// A mass end: every task or lease that matches, and whose event precedes this one, ended then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TombRow {
    /// Its event, and so its place in the order.
    pub seq: u64,
    pub at: UnixMs,
    pub cause: Cause,
    pub selector: Selector,
    /// Leases that were live and ended by it.
    pub count: u64,
    /// The rows of all that it ended say so themselves.
    pub done: bool,
}

/// A status list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRow {
    pub id: ListId,
    /// Whose leases stand on it: a target, or what small targets of an environment share.
    pub scope: String,
    /// The hour in which they expire, Unix seconds of its end.
    pub hour_s: i64,
    /// How many places it has.
    pub slots: u32,
    /// What the places are filled from that nobody has.
    pub seed: [u8; 32],
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
    /// The task has begun to beat.
    Hold(TaskId),
    AddBlock(BlockRow),
    LiftBlock(BlockId),
    AddTomb(TombRow),
    /// No row is behind the tomb of this sequence number any more.
    TombDone(u64),
    /// What is there already stays as it is.
    AddList(ListRow),
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
