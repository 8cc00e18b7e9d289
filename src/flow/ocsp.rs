//! An OCSP answer: the lease table says how each certificate stands, and the rows where memory has
//! forgotten it.

use std::sync::Arc;

use dayfly_domain::{Kind, LeaseId, State};

use super::Flow;
use crate::{
    lease::{End, Now},
    mint::pki::{Ca, CaId, Pki},
    revoke::{self, Asked, CertStatus, CrlReason, NotAnswered, OCSP_ASKED_MAX, OcspAnswer, OcspRequest, Revocation},
    sys::offload::offload,
};

/// Rows of what is over are kept for a day: a number that is older, or of the future, is in none.
const KEPT_MS: u64 = 25 * 3_600 * 1_000;
const AHEAD_MS: u64 = 60 * 1_000;
const _: () = assert!(OCSP_ASKED_MAX <= 16, "each may cost a read");

impl Flow {
    /// DER in; what is signed is an answer, whatever else is told without a signature.
    pub async fn ocsp(&self, der: &[u8]) -> Result<OcspAnswer, NotAnswered> {
        let answered = self.ocsp_answer(der).await;
        let outcome = answered.as_ref().map_or_else(|refused| refused.as_str(), |_| "answered");
        metrics::counter!("dayfly_ocsp_total", "outcome" => outcome).increment(1);
        answered
    }

    async fn ocsp_answer(&self, der: &[u8]) -> Result<OcspAnswer, NotAnswered> {
        let request = OcspRequest::parse(der)?;
        let pki = self.pki().ok_or(NotAnswered::Unauthorized)?;
        let cas: Vec<_> = pki.issuing().into_iter().chain(pki.areas()).collect();
        let ca = revoke::asked_ca(&request, &cas)?;
        let now = self.time.now();
        let mut statuses = Vec::with_capacity(request.asked.len());
        for asked in &request.asked {
            statuses.push(self.cert_status(pki, ca, asked, now).await?);
        }
        revoke::ocsp_answer(&request, &statuses, ca, &self.ocsp, now.at).inspect_err(|error| match error {
            // What keeps a token from signing was told where it was asked.
            NotAnswered::TryLater => {}
            error => tracing::error!(%error, ca = %ca.id(), "an OCSP request is not answered"),
        })
    }

    async fn cert_status(
        &self,
        pki: &Pki,
        ca: &Arc<Ca>,
        asked: &Asked<'_>,
        now: Now,
    ) -> Result<CertStatus, NotAnswered> {
        if pki.areas().iter().any(|area| area.id() == ca.id()) {
            return Ok(asked.serial().map_or(CertStatus::Unknown, |serial| status_of_ca(pki, ca, &serial)));
        }
        let Some(id) = asked.lease() else { return Ok(CertStatus::Unknown) };
        if let Some(lease) = self.table.lease(id) {
            let own = lease.kid.as_deref() == Some(ca.id().as_str());
            return Ok(if own { status_of(self.table.lease_state(&lease, now)) } else { CertStatus::Unknown });
        }
        self.kept_status(id, ca.id(), now).await
    }

    /// Of a certificate that memory does not know: it expired, or never was.
    // SECURITY: `t_143_a_serial_that_was_never_issued_is_unknown_and_not_good`.
    async fn kept_status(&self, id: LeaseId, ca: &CaId, now: Now) -> Result<CertStatus, NotAnswered> {
        // The number begins with the time at which it was drawn: most that were made up cost no read.
        let drawn_ms = (id.as_u128() >> 80) as u64;
        let now_ms = now.at.as_ms().unsigned_abs();
        if !(now_ms.saturating_sub(KEPT_MS + LONGEST_MS)..now_ms + AHEAD_MS).contains(&drawn_ms) {
            return Ok(CertStatus::Unknown);
        }
        let flow = self.clone();
        let read = move || {
            let found = flow.reader.lease(id)?;
            found.map(|(row, task)| flow.lease_end(&row, &task, now).map(|state| (row, state))).transpose()
        };
        let found = offload(read).await.map_err(|_| NotAnswered::Internal)?.map_err(|_| NotAnswered::TryLater)?;
        let own = found.filter(|(row, _)| row.kind == Kind::X509 && row.kid.as_deref() == Some(ca.as_str()));
        Ok(own.map_or(CertStatus::Unknown, |(_, state)| status_of(state)))
    }
}

/// The longest life of a certificate.
const LONGEST_MS: u64 = 24 * 3_600 * 1_000;

fn status_of((state, end): (State, Option<End>)) -> CertStatus {
    match (state, end) {
        (State::Ended, Some(end)) => CertStatus::Revoked(Revocation { at: end.at, reason: end.cause.into() }),
        (State::Ended, None) => CertStatus::Unknown,
        // What has expired was not revoked before.
        (State::Active | State::Expired, _) => CertStatus::Good,
    }
}

/// Of an issuing CA, by its area CA.
fn status_of_ca(pki: &Pki, area: &Ca, serial: &revoke::Serial) -> CertStatus {
    if let Some(ca) = pki.revoked().into_iter().find(|ca| ca.issuer == *area.id() && ca.serial == serial) {
        return CertStatus::Revoked(Revocation { at: ca.at, reason: CrlReason::KeyCompromise });
    }
    let known = pki.issuing().iter().any(|ca| is_of(ca, area, serial));
    let left = || pki.left().iter().any(|ca| ca.issuer == *area.id() && ca.serial == serial);
    if known || left() { CertStatus::Good } else { CertStatus::Unknown }
}

/// The serial numbers are random: two CAs of two areas do not share one.
fn is_of(ca: &Ca, area: &Ca, serial: &revoke::Serial) -> bool {
    ca.id() != area.id() && ca.serial().is_ok_and(|own| own == serial)
}
