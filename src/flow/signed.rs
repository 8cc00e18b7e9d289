//! What was signed, as the commit and the answer take it: a lease's row, its event, the credential.

use dayfly_domain::{BindingKind, Reason, UnixMs};

use super::{
    issue::{json, stamp},
    words::{IssuedCredential, Refused},
};
use crate::{
    lease::Now,
    ledger::{self, Asked, Entry, Issue},
    mint::{MintError, Signed, Terms},
    policy::Grant,
    revoke::{self, Checking},
    store::{LeaseRow, TaskRow},
};

/// The row of what was signed; `thumbprint`: of the key that it is bound to.
pub(super) fn lease_row(
    grant: &Grant,
    terms: &Terms<'_>,
    signed: &Signed,
    thumbprint: Option<String>,
) -> Result<LeaseRow, Refused> {
    let target = grant.target().ok_or(Reason::Target)?;
    Ok(LeaseRow {
        id: terms.lease,
        task: terms.task,
        seq: 0,
        target: target.name.to_string(),
        kind: target.kind,
        row: grant.row().to_string(),
        actions: json(&target.actions),
        issued_at: terms.now,
        expires: UnixMs::from_s(signed.window.exp_s),
        credential_hash: signed.hash,
        thumbprint,
        kid: Some(signed.kid.clone()),
        status: None,
        end: None,
    })
}

pub(super) fn not_minted(error: MintError) -> Refused {
    tracing::warn!(%error, "nothing was minted");
    let reason = error.reason();
    Refused { hint: (reason == Reason::Csr).then(|| error.to_string()), ..reason.into() }
}

pub(super) fn issued_event(
    row: &TaskRow,
    lease: &LeaseRow,
    signed: &Signed,
    asked: Asked<'_>,
    bundle: dayfly_domain::bundle::Fingerprint,
    now: Now,
) -> Result<Entry, Refused> {
    let ttl_s = signed.window.exp_s - signed.window.iat_s;
    let facts = Issue { task: row, lease, asked, bundle, ttl_s, ticket: row.ticket.as_deref() };
    Ok(ledger::issued(stamp(now)?, &facts))
}

pub(super) fn credential(
    grant: &Grant,
    row: &TaskRow,
    lease: &LeaseRow,
    signed: Signed,
    binding: BindingKind,
) -> Option<IssuedCredential> {
    let target = grant.target()?;
    let ttl_s = (signed.window.exp_s - signed.window.iat_s).max(0) as u64;
    let checking = Checking {
        verifies: target.verifies,
        cache_s: target.cache.as_s(),
        leeway_s: target.leeway.as_s(),
        list_life_s: target.list_life.as_s(),
    };
    Some(IssuedCredential {
        lease: lease.id,
        token: signed.token,
        kind: target.kind,
        binding,
        target_uri: target.uri.clone(),
        actions: target.actions.iter().map(ToString::to_string).collect(),
        purpose: grant.purpose().to_string(),
        ticket: row.ticket.clone(),
        ttl_s,
        expires: lease.expires,
        revocation: revoke::reach(checking, ttl_s),
    })
}
