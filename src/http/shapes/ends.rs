//! Ends by selector, and blocks.

use std::collections::BTreeMap;

use dayfly_domain::{BlockId, Cause, EventId, Selector, State, UnixMs};
use serde::{Deserialize, Serialize};

use super::{Known, Lease, LedgerPoint};

/// What is meant: everything for which all that is named holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The platform's label, without the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Only leases of this target; their tasks live on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Only shown: of a block that the taint of a key wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Revocable claims, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
}

impl From<Selector> for Filter {
    fn from(selector: Selector) -> Self {
        let Selector { job, workload, owner, issuer, target, row, template, key, claims } = selector;
        Self { job, workload, owner, issuer, target, row, template, key, claims }
    }
}

/// Body of `POST /v1/end`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRequest {
    pub filter: Filter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only tell what would end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// End nothing when another number of leases matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_count: Option<u64>,
    /// Absent: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<bool>,
}

/// Answer of `POST /v1/end`. With `dry_run` what would have ended, and no `id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedBySelector {
    /// Of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<EventId>,
    /// Absent: nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    pub cause: Cause,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMs>,
    /// Live leases that ended, or would.
    pub count: u64,
    pub tasks_ended: u64,
    /// At most ten of the leases.
    pub sample: Vec<Lease>,
    /// What refuses the same from now on, until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockId>,
    pub revocation: Vec<Known>,
    /// Of each target when its last server stops believing, at worst.
    pub worst_case: BTreeMap<String, UnixMs>,
}

/// What may not be issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    pub id: BlockId,
    pub filter: Filter,
    /// The same as text: what follows `--where`.
    #[serde(rename = "where")]
    pub text: String,
    /// Absent: until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMs>,
    pub created_at: UnixMs,
    /// The event that wrote it.
    pub event: EventId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Of an end by selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leases_ended: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks_ended: Option<u64>,
    /// Rows on disk that do not yet say so; whatever is shown of them does.
    pub behind: u64,
    pub ledger: LedgerPoint,
}
