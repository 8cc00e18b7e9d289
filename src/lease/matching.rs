//! What selectors see of what is live, and of what is about to be.

use std::collections::{BTreeMap, BTreeSet};

use dayfly_domain::{Claims, LeaseWords, TaskWords, claim_text};

use super::table::{Lease, Task};
use crate::store::{LeaseRow, TaskRow};

/// Of each profile in use the claims that things may be ended by.
pub type Revocable = BTreeMap<String, BTreeSet<String>>;

impl Task {
    pub(super) fn words(&self) -> TaskWords<'_> {
        let job = self.job.as_deref();
        TaskWords {
            job: job.and_then(|job| job.strip_prefix(&*self.issuer)?.strip_prefix('/')),
            workload: &self.workload,
            owner: &self.owner,
            issuer: &self.issuer,
            row: &self.row,
            template: &self.template,
            claims: &self.claims,
        }
    }
}

impl Lease {
    pub(super) fn words(&self) -> LeaseWords<'_> {
        LeaseWords { target: &self.target, row: &self.row, key: self.kid.as_deref() }
    }
}

pub(super) fn task_words<'a>(row: &'a TaskRow, claims: &'a str) -> TaskWords<'a> {
    TaskWords {
        job: row.job.as_deref(),
        workload: &row.workload,
        owner: &row.owner,
        issuer: &row.issuer,
        row: &row.row,
        template: &row.template,
        claims,
    }
}

pub(super) fn lease_words(row: &LeaseRow) -> LeaseWords<'_> {
    LeaseWords { target: &row.target, row: &row.row, key: row.kid.as_deref() }
}

/// The claims of a task's row that `keep` names; none once they are erased.
pub(super) fn claims_of(row: &TaskRow, keep: impl Fn(&str) -> bool) -> String {
    let claims = row.claims.as_deref().and_then(|text| serde_json::from_str::<Claims>(text).ok());
    claims.map_or_else(String::new, |claims| claim_text(&claims, keep))
}
