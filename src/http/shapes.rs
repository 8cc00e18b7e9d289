//! The JSON shapes of the wire, in one place: written by the server, read by the command line
//! and the load generator. Unknown members are ignored when an answer is read.

mod ends;
mod explanation;

use std::collections::BTreeMap;

use dayfly_domain::{BlockId, Bound, Cause, Channel, EventId, Kind, LeaseId, State, TaskId, UnixMs};
/// One object of RFC 9396, as granted: the same in the answer and in the token.
pub use dayfly_verifier::Detail as AuthorizationDetail;
use serde::{Deserialize, Serialize};

pub use ends::{Block, EndRequest, EndedBySelector, Filter};
pub use explanation::{
    ComparedClaim, ComparedRow, Comparison, EvidenceCheck, Explanation, PolicyByHand, RecordedDecision, UnderForce,
    WouldGrant,
};

/// Where an event stands: a stream (32 hex digits) and a sequence number from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPoint {
    pub stream: String,
    pub seq: u64,
}

/// How a verifier of the target learns of an end: usually within, at worst within (seconds).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub channel: Channel,
    pub usual_s: u64,
    pub bound_s: u64,
}

/// What a channel knows after an end (law L12).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub channel: Channel,
    /// The channel already answers `inactive`.
    pub known: bool,
    /// When the last verifier on this channel stops honouring the credential, at worst.
    pub worst_case_at: UnixMs,
}

/// Answer of `/oauth2/token` (RFC 8693 section 2.2.1, and ours).
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The task token; or, for a task without a credential, the task id (no secret).
    pub access_token: String,
    pub issued_token_type: String,
    /// `Bearer`, `DPoP` or `N_A`.
    pub token_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_details: Option<Vec<AuthorizationDetail>>,
    pub task_id: TaskId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<LeaseId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMs>,
    pub task_deadline: UnixMs,
    /// Only when the broker made the handle; shown once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_control: Option<String>,
    pub ledger: LedgerPoint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Vec<Revocation>>,
}

/// OAuth error (RFC 6749 section 5.2), with our members.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OAuthError {
    pub error: String,
    pub error_description: String,
    /// `E-...`
    pub reason: String,
    pub request_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<EventId>,
    /// With `E-NOT-DURABLE`: the end is in force in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<bool>,
    /// Where the template says `explain = "caller"`: the caller's own claims beside the nearest row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// RFC 9457 problem, with our members.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// `{iss}/problems/e-...`
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub reason: String,
    pub request_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<EventId>,
    /// With `E-NOT-DURABLE`: the end is in force in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<bool>,
    /// With `E-BUNDLE`: what to put right, as `dayfly policy check` shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<BundleError>>,
    /// With `E-COUNT`: how many live leases match now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// How many errors there are beyond those listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors_omitted: Option<u64>,
}

/// Something that keeps a bundle from loading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleError {
    /// The file, below the top of the bundle.
    pub path: String,
    /// Where in it: `task.deploy-prod.allow[0].claims.ref`, or `line 7`.
    pub at: String,
    pub what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Something that loads and is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleLint {
    pub at: String,
    pub what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Answer to a load of the bundle. Fingerprints are SHA-256, 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleLoad {
    /// What was in force before; the same as `to` when nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What is in force now.
    pub to: String,
    /// `to` had been in force before, and was replaced.
    pub rollback: bool,
    /// Tasks and single leases that ended because the new bundle no longer carries them.
    pub ended: u64,
    pub issuers: u64,
    pub targets: u64,
    pub templates: u64,
    pub rows: u64,
    /// Tests of the bundle's own, all passed.
    pub tests_passed: u64,
    pub lints: Vec<BundleLint>,
}

/// Where a signing key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Published, and signs nothing yet.
    Next,
    /// Signs.
    Active,
    /// Signs no more; published while tokens it signed may live.
    Retired,
    /// Taken out for ever: not published, and what it signed is dead.
    Tainted,
}

/// Another issuing CA signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaTurned {
    /// Absent: nobody did before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub to: String,
}

/// A CA, as operators see it; its certificate is at `/pki/{id}.cer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ca {
    /// Its subject key identifier, in hex.
    pub id: String,
    /// `root`, `area` or `issuing`.
    pub tier: String,
    pub state: KeyState,
    /// When it took this state.
    pub since: UnixMs,
    /// When it leaves this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMs>,
}

/// A signing key, as operators see it; its public part is in the JWKS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// `sig` (task tokens) or `status_list`.
    #[serde(rename = "use")]
    pub usage: String,
    pub alg: String,
    pub state: KeyState,
    /// When it took this state.
    pub since: UnixMs,
    /// When it leaves this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMs>,
}

/// A status list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusList {
    /// Where it is, and its token's `sub`.
    pub uri: String,
    /// Targets whose leases stand on it, or may: of those that the caller may know of.
    pub targets: Vec<String>,
    /// When no lease on it lives any more.
    pub expires_at: UnixMs,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusLists {
    pub lists: Vec<StatusList>,
}

/// What a taint did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyTaint {
    pub kid: String,
    pub state: KeyState,
    /// What it was before.
    pub was: KeyState,
    /// Nothing was done: what would happen.
    pub dry_run: bool,
    pub tainted_at: UnixMs,
    /// Credentials that it had signed and that lived.
    pub leases_ended: u64,
    /// The key that signs from then on. Absent in a dry run where it has yet to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs: Option<String>,
    /// From then on every verifier that fetches the JWKS as it is told to knows `signs`. Ahead: until then
    /// some may refuse what it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs_known_at: Option<UnixMs>,
    /// How long a verifier may go on with keys it has fetched.
    pub jwks_max_age_s: u64,
    /// When what the key signs, or forges, is refused, at worst: of each target.
    pub targets: Vec<TargetBound>,
    /// The same of each channel.
    pub revocation: Vec<Known>,
}

/// How one target's servers learn that a key is out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetBound {
    pub target: String,
    pub channel: Channel,
    pub known: bool,
    pub worst_case_at: UnixMs,
}

/// How an issuer's keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IssuerState {
    /// Confirmed a moment ago.
    Fresh,
    /// Confirmed some time ago and still believed; the last fetches failed.
    Stale,
    /// There are none that are believed: its tokens get `E-ISSUER-DOWN`.
    Down,
    /// Nobody has asked yet.
    Waiting,
    /// They came with the bundle.
    Pinned,
    /// The issuer is switched off in the bundle.
    Disabled,
}

/// An issuer of the bundle in force, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    pub name: String,
    pub profile: String,
    /// `workload` or `verifier`.
    pub kind: String,
    pub url: String,
    /// Where its keys come from: `discovery`, `endpoint` (of a SPIFFE trust bundle) or `file`.
    pub source: String,
    pub state: IssuerState,
    /// That can verify.
    pub keys: u64,
    /// When the keys were last seen to be these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<UnixMs>,
    /// When they were last asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_at: Option<UnixMs>,
    /// Fetches of keys, and reviews of tokens, that failed since the process knows this issuer.
    pub failures: u64,
    /// Why the last fetch failed, if it did, or else the last review; nothing that the other side said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseCount {
    pub active: u64,
    pub ended: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    pub state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    pub template: String,
    pub purpose: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    pub owner: String,
    pub workload: String,
    pub issuer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    pub opened_at: UnixMs,
    pub deadline: UnixMs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TaskId>,
    pub grants: BTreeMap<String, Vec<String>>,
    pub bound: Bound,
    pub leases: LeaseCount,
    /// How often its evidence, or its job, was shown with another key: an alarm. Absent: never,
    /// or in a list, where it is not counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub conflicts: u64,
    /// While its client beats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// How a task's hold stands. `last_beat_at` is absent while none came since the broker started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_beat_at: Option<UnixMs>,
    pub grace_s: u32,
    /// When the task ends unless a beat comes.
    pub lapses_at: UnixMs,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Answer of `/v1/tasks/{id}/beat`: beat again within `beat_s`; `grace_s` after the last one the task
/// ends. What has ended is answered with `E-NOT-ACTIVE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub state: State,
    pub deadline: UnixMs,
    pub beat_s: u32,
    pub grace_s: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub id: LeaseId,
    pub task: TaskId,
    pub state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    pub kind: Kind,
    pub workload: String,
    pub owner: String,
    pub target: String,
    pub actions: Vec<String>,
    pub template: String,
    pub row: String,
    pub bound: Bound,
    pub issued_at: UnixMs,
    pub expires_at: UnixMs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub ledger: LedgerPoint,
}

/// Answer to an end. `id` is the task's or the lease's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub id: String,
    pub state: State,
    /// Absent when it had expired by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMs>,
    pub leases_ended: u64,
    pub revocation: Vec<Known>,
}

/// What of an event may be erased, or the word `erased`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Details {
    Open(serde_json::Map<String, serde_json::Value>),
    Erased(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub id: EventId,
    pub seq: u64,
    pub at: UnixMs,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
    /// Fingerprint of the bundle, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Ids of the forbids that denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<String>>,
    /// What the decision was made on: seconds and actions asked, binding, age of the evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<serde_json::Map<String, serde_json::Value>>,
    /// Of a swap: the fingerprint that was replaced, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_bundle: Option<String>,
    /// Of a swap: the new fingerprint had been active before, and was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<bool>,
    /// Deadline of an opened task, end of an issued credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<i64>,
    /// When an end takes effect; a superseded lease's may lie ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMs>,
    /// Until when nothing more is issued for the job (or the workload) and template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_until: Option<UnixMs>,
    /// Of an end by selector: how many tasks, and what its selector names; its text is in the details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
    /// The block that was written or lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockId>,
    /// Of a block that was lifted: the sequence number of the event that had written it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_by: Option<u64>,
    /// Thumbprint of the key that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jkt: Option<String>,
    /// Thumbprint of the client certificate that a token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x5t: Option<String>,
    /// Thumbprint of a certificate's public key: the certificate's own, or the one that a handle is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spki: Option<String>,
    /// Of a rotation, a taint or a start: the key that signs from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_kid: Option<String>,
    /// `ca`: the key that signs is that of an issuing CA.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub key_use: Option<String>,
    /// The key that was tainted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tainted_kid: Option<String>,
    /// Of a start: the program's version, and both clocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// An action on a target that a row of the bundle in force gives, and its use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entitlement {
    pub template: String,
    /// The row, or a permit written by hand.
    pub row: String,
    /// Who answers for the row.
    pub owner: String,
    pub target: String,
    pub action: String,
    /// Credentials issued with it since `counted_since`.
    pub count: u64,
    /// Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<UnixMs>,
    pub counted_since: UnixMs,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List<T> {
    pub items: Vec<T>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
