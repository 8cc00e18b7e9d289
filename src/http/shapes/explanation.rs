//! The shapes of an explanation: of a refusal to its caller, and of a dry run to operators. All text
//! in them is printable and cut.

use dayfly_domain::{EventId, UnixMs};
use serde::{Deserialize, Serialize};

/// The caller's own claims beside the row that comes nearest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    pub row: String,
    pub claims: Vec<ComparedClaim>,
    /// What no claim of the row says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obstacles: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedClaim {
    pub claim: String,
    /// Absent: missing, or of another type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// The claim is there, but not of the type that is declared for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other_type: bool,
    /// One of these.
    pub wanted: Vec<String>,
    pub ok: bool,
}

/// Answer of a dry run (`/v1/simulate`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// `permit` or `deny`.
    pub outcome: String,
    /// `E-...` of a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Fingerprint of the bundle that this is under, hex.
    pub bundle: String,
    pub template: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The evidence speaks for unreviewed code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrusted: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<WouldGrant>,
    /// The row that decides, or those that come nearest.
    #[serde(default)]
    pub rows: Vec<ComparedRow>,
    #[serde(default)]
    pub rows_omitted: u64,
    /// The forbids that spoke.
    #[serde(default)]
    pub forbids: Vec<PolicyByHand>,
    /// Permits written by hand for the template: they cannot be taken apart.
    #[serde(default)]
    pub opaque: Vec<PolicyByHand>,
    /// What stands in the way beside rows and forbids.
    #[serde(default)]
    pub obstacles: Vec<String>,
    /// What would permit, in words.
    #[serde(default)]
    pub would_permit: Vec<String>,
    /// The evidence, piece by piece.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<EvidenceCheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<RecordedDecision>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<UnderForce>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldGrant {
    /// The row, or the permit written by hand, that decides.
    pub by: String,
    /// It is written by hand.
    pub opaque: bool,
    /// Name of the target; absent where no credential is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    pub actions: Vec<String>,
    /// The task's deadline may come sooner.
    pub ttl_max_s: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedRow {
    pub id: String,
    pub issuer: String,
    pub owner: String,
    pub differences: u64,
    pub claims: Vec<ComparedClaim>,
    pub obstacles: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyByHand {
    pub id: String,
    pub purpose: String,
}

/// One thing that evidence must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceCheck {
    pub what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// One of these; empty: anything.
    pub wanted: Vec<String>,
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The decision as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedDecision {
    pub event: EventId,
    #[serde(rename = "type")]
    pub kind: String,
    pub at: UnixMs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// The answer under the bundle in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderForce {
    pub bundle: String,
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Another outcome than explained here, or by another permit.
    pub differs: bool,
}
