//! What a client's certificate is worth here (RFC 8705). One of ours is no evidence (law L13): it proves a
//! key, which binds what its own task is given, or a new task's handle. Any other proves its key to whoever
//! is bound to that, and nothing else.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::{LeaseId, State, TaskId};
use dayfly_verifier::{Confirmation, Jws, Thumbprint};

use super::Shared;
use crate::{
    intake::{Leaf, LeafRecord, Witness},
    lease::{Lease, Now},
    mint::pki::CaId,
    store::LeaseRow,
    sys::net::{PresentedChain, VerifiedClient},
};

impl Shared {
    /// The witness that binds a credential of `task` to the client's certificate: one of ours, whose lease lives
    /// and is that task's, or that of one above it.
    // SECURITY: what we issued is told by its hash in the record, and by its chain, and neither by a name;
    // `a_certificate_of_another_task_binds_nothing`, `t_137_a_forged_twin_of_our_certificate_binds_nothing`
    pub(super) fn leaf(&self, client: Option<&PresentedChain>, task: TaskId, now: Now) -> Option<Leaf> {
        let (lease, client) = self.own(client?, now)?;
        let record = LeafRecord {
            is_of_it: lease.is_of(client.chain().fingerprint()),
            is_live: self.table.lease_state(&lease, now).0 == State::Active,
            is_of_task: self.is_at_or_above(lease.task, task),
            expires: lease.expires,
        };
        Leaf::check(&client, record)
    }

    /// The key of a live certificate of ours, whichever task has it: a new handle is bound to it.
    // SECURITY: `a_handle_is_bound_to_the_key_that_opened_its_task`
    pub(super) fn own_key(&self, client: Option<&PresentedChain>, now: Now) -> Option<Thumbprint> {
        let (lease, client) = self.own(client?, now)?;
        let live = self.table.lease_state(&lease, now).0 == State::Active;
        live.then(|| Thumbprint::of_hash(*client.chain().key()))
    }

    /// Whether the connection proves what this is bound to: the key, with whatever certificate, or this very
    /// certificate while its lease lives.
    // SECURITY: `a_bound_handle_without_its_key_is_unknown`, `a_bound_token_is_nobodys_without_its_certificate`
    pub(super) fn proves(&self, client: Option<&PresentedChain>, bound: &Thumbprint, now: Now) -> bool {
        let Some(client) = client else { return false };
        let is = |hash: &[u8; 32]| Thumbprint::of_hash(*hash).matches(bound);
        is(client.key()) || is(client.fingerprint()) && self.own_key(Some(client), now).is_some()
    }

    /// The lease of exactly this certificate, and the certificate below our root: the record first, so that a
    /// stranger costs no signature. A client need not send what stands above its own.
    fn own(&self, client: &PresentedChain, now: Now) -> Option<(Lease, VerifiedClient)> {
        let lease = self.table.lease(LeaseId::from_u128(client.serial()?))?;
        let tainted = lease.kid.as_deref().is_some_and(|kid| self.is_tainted(kid));
        let pki = self.pki.as_ref().filter(|_| lease.is_of(client.fingerprint()) && !tainted)?;
        // By the CAs of its own chain: another area CA may have taken over since.
        let ca = lease.kid.as_deref().and_then(CaId::named)?;
        let verified = client.verify_by(&pki.roots(), &pki.chain(&ca), now.at);
        verified
            .map(|client| (lease, client))
            .inspect_err(|error| tracing::debug!(%error, "a certificate of ours"))
            .ok()
    }

    /// Whether this is a certificate of ours, in force or not.
    pub(super) fn is_own(&self, client: Option<&PresentedChain>) -> bool {
        let lease = |client: &PresentedChain| self.table.lease(LeaseId::from_u128(client.serial()?));
        client.is_some_and(|client| lease(client).is_some_and(|lease| lease.is_of(client.fingerprint())))
    }

    /// Whether a certificate of the task, or of one above it, lives.
    pub(super) fn is_live_certificate(&self, fingerprint: &[u8; 32], task: TaskId, now: Now) -> bool {
        let mut next = Some(task);
        while let Some(found) = next.and_then(|id| self.table.task(id)) {
            let mut leases = found.leases.iter().filter_map(|id| self.table.lease(*id));
            if let Some(lease) = leases.find(|lease| lease.is_of(fingerprint)) {
                let tainted = lease.kid.as_deref().is_some_and(|kid| self.is_tainted(kid));
                return !tainted && self.table.lease_state(&lease, now).0 == State::Active;
            }
            next = found.parent;
        }
        false
    }

    fn is_at_or_above(&self, above: TaskId, task: TaskId) -> bool {
        let mut next = Some(task);
        while let Some(id) = next {
            if id == above {
                return true;
            }
            next = self.table.task(id).and_then(|task| task.parent);
        }
        false
    }
}

/// The fingerprint of the certificate that a token of ours is bound to, if it is to one.
pub(super) fn x5t(token: &Jws) -> Option<[u8; 32]> {
    let text = token.unverified_claims().get("cnf")?.get("x5t#S256")?.as_str()?;
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// What a token is bound to, as its lease's row has it.
pub(super) fn bound_text(witness: Witness<'_>) -> String {
    match witness.confirmation() {
        Confirmation::Jkt(key) => key.to_string(),
        Confirmation::X5t(certificate) => LeaseRow::certificate_text(&certificate.to_string()),
    }
}
