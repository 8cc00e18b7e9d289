//! The JSON of an event: written once, hashed, stored and exported as it is.
//!
//! It holds ids, enums, numbers, hashes and the words of the bundle. Who exactly, on whose
//! ticket and why in words lives in the erasable detail, to which the body commits.

use std::collections::BTreeMap;

use dayfly_domain::{BlockId, Cause, EventId, Kind, LeaseId, TaskId};
use serde::{Deserialize, Serialize};

/// What a reader sees in place of an erased detail.
pub const DETAILS_ERASED: &str = "erased";

/// Every member that a body can have; integers only, times in Unix milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Body {
    pub v: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<EventId>,
    pub at: i64,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
    /// Ids of the forbids that denied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Of a task: target name -> actions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<BTreeMap<String, Vec<String>>>,
    /// When the evidence of a task expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence_until: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_kind: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
    /// Granted, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<i64>,
    /// Of the lease, or the deadline of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// When a supersede takes effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<i64>,
    /// SHA-256, hex: of the credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The evidence key, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// SHA-256 of the handle, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// RFC 7638 thumbprint of the key that the handle, or the credential, is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jkt: Option<String>,
    /// Of a token that is bound to a client certificate: base64url of the certificate's SHA-256 (RFC 8705).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x5t: Option<String>,
    /// Of a certificate, or of a handle that is bound to one's key: base64url of SHA-256 over its public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spki: Option<String>,
    /// Of an end by selector: how many tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Of an end by selector: what it names, not the values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The block that was written or lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockId>,
    /// Of a block that was lifted: the event that had written it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_by: Option<u64>,
    /// A block until then was written with this end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_until: Option<i64>,
    /// Fingerprint of the bundle, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_bundle: Option<String>,
    /// The new bundle was active before and had been replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<bool>,
    /// Key ids: the key that signs from now on, and the one it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_kid: Option<String>,
    /// The key that was tainted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tainted_kid: Option<String>,
    /// `ca`: the key is that of an issuing CA.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub key_use: Option<String>,
    /// Both clocks at a start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256(salt || detail bytes), hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

/// The context under which policy decided, so that a decision can be explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Seconds asked.
    pub ttl: i64,
    /// `jwt`, `x509` or `task`.
    pub kind: String,
    pub binding: String,
    pub age_s: i64,
    /// `target#action`, sorted.
    pub ask: Vec<String>,
    /// The same, of what the job's live tasks held; absent: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<String>,
}
