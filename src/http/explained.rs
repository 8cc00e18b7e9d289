//! Explanations in the shapes of the wire. Everything is taken apart by name.

use dayfly_domain::{Reason, Workload, told};

use super::shapes::{
    ComparedClaim, ComparedRow, Comparison, EvidenceCheck, Explanation, PolicyByHand, RecordedDecision, UnderForce,
    WouldGrant,
};
use crate::{
    flow::explain::{Explained, InForce, Recorded},
    intake::Check,
    policy::{
        ByHand, ClaimSeen, Comparison as Compared, Explanation as Told, Outcome, Permitted, RowObstacle, RowSeen, Seen,
    },
};

pub(super) fn comparison(comparison: Compared) -> Comparison {
    let Compared { row, claims, obstacles } = comparison;
    Comparison { row: row.to_string(), claims: claims.into_iter().map(claim).collect(), obstacles }
}

impl From<Explained> for Explanation {
    fn from(explained: Explained) -> Self {
        let Explained { bundle, template, reason, workload, policy, obstacles, checks, recorded, in_force, notes } =
            explained;
        let told_by_policy = policy.map(parts).unwrap_or_default();
        let (issuer, untrusted) =
            workload.as_ref().map(|workload| (workload.issuer.to_string(), workload.untrusted)).unzip();
        let job = workload.as_ref().and_then(|workload| workload.job.as_deref().map(told));
        Self {
            outcome: outcome(reason),
            reason: code(reason),
            bundle: bundle.to_string(),
            template: told(&template),
            workload: workload.map(|Workload { principal, .. }| told(&principal)),
            issuer,
            job,
            untrusted,
            obstacles: obstacles.into_iter().chain(told_by_policy.obstacles).collect(),
            checks: checks.into_iter().map(check).collect(),
            recorded: recorded.map(self::recorded),
            in_force: in_force.map(self::in_force),
            notes,
            // What a row grants is moot where the profile refuses the run.
            grant: told_by_policy.grant.filter(|_| reason.is_none()),
            rows: told_by_policy.rows,
            rows_omitted: told_by_policy.rows_omitted,
            forbids: told_by_policy.forbids,
            opaque: told_by_policy.opaque,
            would_permit: told_by_policy.would_permit,
        }
    }
}

/// What policy says, as the wire has it.
#[derive(Default)]
struct Parts {
    grant: Option<WouldGrant>,
    rows: Vec<ComparedRow>,
    rows_omitted: u64,
    forbids: Vec<PolicyByHand>,
    opaque: Vec<PolicyByHand>,
    obstacles: Vec<String>,
    would_permit: Vec<String>,
}

fn parts(explanation: Told) -> Parts {
    let Told { outcome, rows, rows_omitted, forbids, opaque, obstacles, would_permit } = explanation;
    let grant = match outcome {
        Outcome::Permit(Permitted { by, opaque, target, actions, ttl_max_s }) => Some(WouldGrant {
            by: by.to_string(),
            opaque,
            target: target.map(|target| target.to_string()),
            actions,
            ttl_max_s: ttl_max_s.into(),
        }),
        Outcome::Deny(_) => None,
    };
    let by_hand =
        |all: Vec<ByHand>| all.into_iter().map(|ByHand { id, purpose }| PolicyByHand { id, purpose }).collect();
    Parts {
        grant,
        rows: rows.into_iter().map(row).collect(),
        rows_omitted: rows_omitted as u64,
        forbids: by_hand(forbids),
        opaque: by_hand(opaque),
        obstacles,
        would_permit,
    }
}

fn row(row: RowSeen) -> ComparedRow {
    let RowSeen { id, issuer, owner, differences, claims, obstacles } = row;
    ComparedRow {
        id: id.to_string(),
        issuer: issuer.to_string(),
        owner: owner.to_string(),
        differences: differences as u64,
        claims: claims.into_iter().map(claim).collect(),
        obstacles: obstacles.iter().map(RowObstacle::fact).collect(),
    }
}

fn claim(claim: ClaimSeen) -> ComparedClaim {
    let ClaimSeen { claim, seen, wanted, ok } = claim;
    let (seen, other_type) = match seen {
        Seen::Value(text) => (Some(text), false),
        Seen::Missing => (None, false),
        Seen::OtherType => (None, true),
    };
    ComparedClaim { claim, seen, other_type, wanted, ok }
}

fn check(check: Check) -> EvidenceCheck {
    let Check { what, seen, wanted, ok, note } = check;
    EvidenceCheck { what, seen, wanted, ok, note }
}

fn recorded(recorded: Recorded) -> RecordedDecision {
    let Recorded { event, kind, at, reason, row, bundle, count } = recorded;
    RecordedDecision { event, kind, at, reason, row, bundle, count }
}

fn in_force(in_force: InForce) -> UnderForce {
    let InForce { bundle, reason, by, differs } = in_force;
    UnderForce { bundle: bundle.to_string(), outcome: outcome(reason), reason: code(reason), by, differs }
}

fn outcome(reason: Option<Reason>) -> String {
    if reason.is_none() { "permit" } else { "deny" }.to_owned()
}

fn code(reason: Option<Reason>) -> Option<String> {
    reason.map(|reason| reason.code().to_owned())
}
