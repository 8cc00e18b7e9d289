//! A certificate for a task: the branch of issuing that signs X.509. In: a grant and a key that was proven.
//! Out: the row of its lease and the signed chain, which leaves with the commit like any credential.

use dayfly_domain::{Kind, Reason};

use super::{
    Flow,
    signed::{lease_row, not_minted},
    words::Refused,
};
use crate::{
    intake::{CsrError, ProvenKey, prove_key},
    mint::{
        MintError, Signed, Terms,
        pki::{LeafPlan, Since},
    },
    policy::{Ask, Grant, Policy, What},
    store::{LeaseRow, TaskRow},
};

impl Flow {
    /// Before anything is used up.
    pub(super) fn can_certify(&self, ask: &Ask) -> Result<(), Refused> {
        if wants_certificate(ask) && self.pki().is_none() {
            let hint = "this broker has no authority for certificates".to_owned();
            return Err(Refused { hint: Some(hint), ..Reason::Request.into() });
        }
        Ok(())
    }

    /// Serial, names, times and purposes come from the grant; of the request, the key.
    pub(super) fn certify(
        &self,
        policy: &Policy,
        grant: &Grant,
        terms: &Terms<'_>,
        row: &TaskRow,
        key: &ProvenKey,
    ) -> Result<(LeaseRow, Signed), Refused> {
        let pki = self.pki().ok_or(Reason::Key)?;
        let thumbprint = key.thumbprint();
        // SECURITY: `t_128_a_blocked_key_is_refused`.
        if policy.bundle().blocked_keys.contains(&thumbprint) {
            return Err(not_minted(MintError::KeyTaken));
        }
        let since = Since { evidence_iat_s: row.evidence_iat_s, opened_at: row.opened_at };
        let plan = LeafPlan::new(grant, terms, since, key, pki).map_err(not_minted)?;
        let signed = plan.sign().map_err(not_minted)?;
        let lease = lease_row(grant, terms, &signed, Some(thumbprint))?;
        Ok((lease, signed))
    }
}

fn wants_certificate(ask: &Ask) -> bool {
    matches!(ask.what, What::Credential { kind: Kind::X509, .. })
}

/// The key of the request, where a certificate is asked.
pub(super) fn key(ask: &Ask, csr: Option<&str>) -> Result<Option<ProvenKey>, Refused> {
    if !wants_certificate(ask) {
        return Ok(None);
    }
    prove_key(csr.unwrap_or_default()).map(Some).map_err(told)
}

/// What is wrong with a request helps whoever made it, and says nothing of anybody else.
fn told(error: CsrError) -> Refused {
    Refused { hint: Some(error.to_string()), ..error.reason().into() }
}
