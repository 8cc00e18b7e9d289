//! What a proof of possession is worth with the secret that it comes with (RFC 9449): a bound handle
//! or token without its own key's proof is worth nothing anywhere.
//!
//! The order is the same at every door, so that strangers cost little: the form of the proof, then the
//! secret, then the proof's signature, then the memory of used proofs.

use dayfly_verifier::{
    Binding, Thumbprint,
    dpop::{ProofRules, UnverifiedProof},
};

use super::{
    Flow,
    words::{Possession, Presented, Refused},
};
use crate::{
    intake::ProofError,
    lease::{Now, bound_to},
    store::TaskRow,
    sys::net::PresentedChain,
};

/// A key that must be proven again, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Free,
    By(Thumbprint),
}

impl Held {
    /// What a task's handle is bound to.
    pub fn of_task(row: &TaskRow) -> Self {
        Self::to(bound_to(row))
    }

    /// What is bound to this key, or to none.
    pub fn to(thumbprint: Option<Thumbprint>) -> Self {
        thumbprint.map_or(Self::Free, Self::By)
    }
}

impl Flow {
    /// The nonce to put into a proof now (RFC 9449 section 8).
    pub fn proof_nonce(&self) -> String {
        self.proofs.nonce(self.time.now().at)
    }

    /// Form, request and nonce of a proof. `token`: what goes with it in `Authorization`.
    // SECURITY: a_proof_is_held_against_the_issuer_and_never_the_host
    pub(super) fn read_proof(
        &self,
        possession: &Possession,
        token: Option<&Presented>,
        now: Now,
    ) -> Result<UnverifiedProof, Refused> {
        let url = format!("{}{}", self.issuer, possession.path);
        let token = token.map(|token| token.expose().as_str());
        let rules = ProofRules { method: possession.method, url: &url, token };
        self.proofs.read(possession.proof.expose(), &rules, now.at).map_err(told)
    }

    /// Signature and first use, for a secret that is held so. `Ok(Err(NotHeld))`: the proof is good, but
    /// not for this secret; it is then not used up either. What the connection's certificate proves already needs
    /// no proof, and one that comes with it is of whatever key it is.
    pub(super) fn hold(
        &self,
        held: Held,
        proof: Option<UnverifiedProof>,
        client: Option<&PresentedChain>,
        now: Now,
    ) -> Result<Result<Option<Binding>, NotHeld>, Refused> {
        let held = if self.is_held_by(held, client, now) { Held::Free } else { held };
        let Some(proof) = proof else {
            return Ok(if held == Held::Free { Ok(None) } else { Err(NotHeld) });
        };
        let proof = proof.verify().map_err(|refusal| told(refusal.into()))?;
        // SECURITY: t_094_a_handle_with_another_key_is_unknown
        if !matches!(held, Held::Free) && held != Held::By(proof.thumbprint()) {
            return Ok(Err(NotHeld));
        }
        self.proofs.accept(proof, now.at).map(|binding| Ok(Some(binding))).map_err(told)
    }

    /// Whether the connection proves the key that this is bound to.
    pub(super) fn is_held_by(&self, held: Held, client: Option<&PresentedChain>, now: Now) -> bool {
        match held {
            Held::Free => false,
            Held::By(bound) => self.proves(client, &bound, now),
        }
    }
}

/// The secret is another key's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotHeld;

fn told(error: ProofError) -> Refused {
    metrics::counter!("dayfly_proofs_refused_total", "reason" => error.reason().code()).increment(1);
    // Which check failed helps whoever builds a client, and nobody else.
    Refused { hint: Some(error.to_string()), ..error.reason().into() }
}
