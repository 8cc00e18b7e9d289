//! The OCSP responder (RFC 6960, RFC 5019): whether a certificate of ours is good, revoked or none of ours
//! now. In: a request, and what each serial number stands for. Out: a signed answer.
//!
//! Each CA has a signer of its own, delegated by it: the CA's key signs no answers.

mod kept;
mod request;
mod response;
mod signer;

use std::sync::Arc;

use dayfly_domain::UnixMs;

use super::{Revocation, der::NotDer};
use crate::mint::pki::{Ca, CaId, PkiError};
pub use request::{Asked, OcspRequest};
pub use signer::OcspSigners;

/// A request, DER.
pub const OCSP_MAX_BYTES: usize = 4 << 10;
/// Certificates that are asked for in one request.
pub const OCSP_ASKED_MAX: usize = 16;
/// How long an answer may be gone by: its `nextUpdate`.
pub const OCSP_LIFE_S: u32 = 300;
/// How soon it is to be asked again: the answer's `max-age`, where there is no nonce in it.
pub const OCSP_MAX_AGE_S: u32 = 15;

/// RFC 6960 section 4.2.1; unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnswered {
    #[error("the request is malformed")]
    Malformed = 1,
    #[error("the answer could not be signed")]
    Internal = 2,
    #[error("too much is under way")]
    TryLater = 3,
    #[error("it is about certificates of others")]
    Unauthorized = 6,
}

/// What a serial number stands for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertStatus {
    Good,
    Revoked(Revocation),
    /// Never issued, as far as anybody knows.
    Unknown,
}

/// A signed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspAnswer {
    pub der: Vec<u8>,
    pub this_update: UnixMs,
    pub next_update: UnixMs,
    /// It answers this one request, and no other.
    pub is_single: bool,
}

impl From<NotDer> for NotAnswered {
    fn from(_: NotDer) -> Self {
        Self::Malformed
    }
}

impl From<PkiError> for NotAnswered {
    fn from(_: PkiError) -> Self {
        Self::Internal
    }
}

impl NotAnswered {
    /// For counts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Internal => "internal",
            Self::TryLater => "try_later",
            Self::Unauthorized => "unauthorized",
        }
    }

    /// The whole answer.
    pub fn der(self) -> Vec<u8> {
        response::unsigned(self as u8)
    }
}

/// The CA of ours that everything in the request is about.
// SECURITY: `t_143_what_is_not_ours_is_not_spoken_for`.
pub fn asked_ca<'a>(request: &OcspRequest<'_>, cas: &'a [Arc<Ca>]) -> Result<&'a Arc<Ca>, NotAnswered> {
    let ca = cas.iter().find(|ca| request.asked.iter().all(|asked| asked.is_of(ca)));
    // A signer speaks for the CA that delegated it, so what is of two CAs is asked in two requests.
    ca.ok_or(NotAnswered::Unauthorized)
}

/// What each certificate's status is, in the order of the request: signed now, or a moment ago where the same was
/// asked and is still so.
pub fn answer(
    request: &OcspRequest<'_>,
    statuses: &[CertStatus],
    ca: &Ca,
    signers: &OcspSigners,
    now: UnixMs,
) -> Result<OcspAnswer, NotAnswered> {
    let signer = signers.of(ca, now)?.ok_or(NotAnswered::TryLater)?;
    if let Some(kept) = signer.answers().of(request, statuses, now) {
        return Ok(kept);
    }
    let answer = response::signed(request, statuses, &signer, now)?;
    signer.answers().keep(request, statuses, &answer, now);
    Ok(answer)
}

/// CAs whose keys are in a token, and whose signers are to be made anew.
pub fn due_signers(signers: &OcspSigners, cas: Vec<Arc<Ca>>, now: UnixMs) -> Vec<Arc<Ca>> {
    let due = |ca: &Arc<Ca>| ca.signer().is_remote() && now <= ca.not_after() && signers.is_due(ca, now);
    cas.into_iter().filter(due).collect()
}

/// A new signer of this CA. It signs with the CA's key.
pub fn renew_signer(signers: &OcspSigners, ca: &Ca, now: UnixMs) -> Result<(), PkiError> {
    signers.renew(ca, now)
}

/// Under which the signers of CAs that are no more are forgotten.
pub fn keep_signers(signers: &OcspSigners, cas: &[CaId]) {
    signers.keep(cas);
}

#[cfg(test)]
mod tests;
