//! What a sender-constrained credential is bound to: a key that whoever asks was just shown to hold. Two
//! checks make such a witness, and nothing else does: a proof of possession (RFC 9449), or a connection whose
//! client certificate is a live one of ours, of the task that asks (RFC 8705). Neither is evidence (law L13).

use dayfly_domain::{BindingKind, UnixMs};
use dayfly_verifier::{Binding, Confirmation, Thumbprint};

use crate::sys::net::VerifiedClient;

/// The witness without which nothing is minted for a target that binds its credentials.
#[derive(Debug, Clone, Copy)]
pub enum Witness<'a> {
    Proof(&'a Binding),
    Leaf(&'a Leaf),
}

impl Witness<'_> {
    pub fn kind(&self) -> BindingKind {
        match self {
            Self::Proof(_) => BindingKind::Dpop,
            Self::Leaf(_) => BindingKind::Mtls,
        }
    }

    /// As the credential says it.
    pub fn confirmation(&self) -> Confirmation {
        match self {
            Self::Proof(binding) => Confirmation::Jkt(binding.thumbprint()),
            Self::Leaf(leaf) => Confirmation::X5t(leaf.fingerprint),
        }
    }

    /// When what it is bound to ends, where that has an end: a credential outlives no certificate.
    pub fn until(&self) -> Option<UnixMs> {
        match self {
            Self::Proof(_) => None,
            Self::Leaf(leaf) => Some(leaf.until),
        }
    }
}

/// A certificate of ours on this very connection, whose lease lives and belongs to the task that asks.
/// Only [`Leaf::check`] makes one.
#[derive(Debug, Clone)]
pub struct Leaf {
    fingerprint: Thumbprint,
    until: UnixMs,
}

/// What the record says of the lease that a certificate's serial number names.
#[derive(Debug, Clone, Copy)]
pub struct LeafRecord {
    /// SHA-256 of the certificate that was issued is this one's.
    pub is_of_it: bool,
    pub is_live: bool,
    /// It was issued to the task that asks, or to one above it.
    pub is_of_task: bool,
    pub expires: UnixMs,
}

impl Leaf {
    // SECURITY: `a_certificate_of_another_task_binds_nothing`, `an_ended_certificate_binds_nothing`
    pub fn check(client: &VerifiedClient, record: LeafRecord) -> Option<Self> {
        let LeafRecord { is_of_it, is_live, is_of_task, expires } = record;
        let fingerprint = Thumbprint::of_hash(*client.chain().fingerprint());
        (is_of_it && is_live && is_of_task).then_some(Self { fingerprint, until: expires })
    }
}
