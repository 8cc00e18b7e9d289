//! Answers that were signed a moment ago. How a certificate stands is looked up for each request; while it
//! stands as it stood, the same question is not signed again. In: a CertID, a status. Out: the answer, if it is
//! young enough.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dayfly_domain::UnixMs;

use super::{CertStatus, OCSP_MAX_AGE_S, OcspAnswer, OcspRequest};

/// A kilobyte each, for each CA.
pub(super) const KEPT_MAX: usize = 4_096;

/// Of one signer: they go with it.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<HashMap<Box<[u8]>, Kept>>);

#[derive(Debug)]
struct Kept {
    status: CertStatus,
    answer: OcspAnswer,
    made_at: UnixMs,
}

impl Answers {
    // SECURITY: `an_answer_is_kept_only_while_the_certificate_stands_as_it_stood`.
    pub fn of(&self, request: &OcspRequest<'_>, statuses: &[CertStatus], now: UnixMs) -> Option<OcspAnswer> {
        let (id, status) = kept_by(request, statuses)?;
        let answers = self.answers();
        let kept = answers.get(id).filter(|kept| kept.status == status && kept.is_young(now))?;
        Some(kept.answer.clone())
    }

    /// Where there is no room, nothing is kept.
    pub fn keep(&self, request: &OcspRequest<'_>, statuses: &[CertStatus], answer: &OcspAnswer, now: UnixMs) {
        let Some((id, status)) = kept_by(request, statuses) else { return };
        let mut answers = self.answers();
        if answers.len() >= KEPT_MAX {
            answers.retain(|_, kept| kept.is_young(now));
        }
        if answers.len() < KEPT_MAX {
            answers.insert(id.into(), Kept { status, answer: answer.clone(), made_at: now });
        }
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Whoever was answered may go by it for as long.
    fn is_young(&self, now: UnixMs) -> bool {
        (self.made_at..self.made_at.plus_s(i64::from(OCSP_MAX_AGE_S))).contains(&now)
    }
}

/// One certificate that was issued, and no nonce: numbers that were made up take no room.
fn kept_by<'a>(request: &OcspRequest<'a>, statuses: &[CertStatus]) -> Option<(&'a [u8], CertStatus)> {
    match (&request.asked[..], statuses, request.nonce) {
        ([asked], [status @ (CertStatus::Good | CertStatus::Revoked(_))], None) => Some((asked.raw, *status)),
        _ => None,
    }
}
