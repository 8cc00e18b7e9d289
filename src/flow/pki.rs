//! What the doors show of the authority.

use std::{collections::BTreeSet, sync::Arc};

use dayfly_domain::{Kind, Reason};
use serde_json::Value;

use super::{
    Flow,
    words::{Caller, Refused},
};
use crate::{
    mint::pki::{CaRotation, CaView, Pki, PkiHealth, spiffe_bundle},
    store::LeaseRow,
    sys::offload::{carried, offload},
};

/// A turn that an operator asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaTurn {
    pub from: Option<String>,
    pub to: String,
}

impl Flow {
    /// The certificate of a CA of ours, DER.
    pub fn ca_certificate(&self, id: &str) -> Option<Vec<u8>> {
        self.pki()?.certificate(id).map(|der| der.to_vec())
    }

    /// The SPIFFE trust bundle; absent where there is no authority.
    pub fn spiffe_bundle(&self) -> Option<Value> {
        let pki = self.pki()?;
        spiffe_bundle(&pki.roots(), pki.sequence()).inspect_err(|error| tracing::error!(%error, "no trust bundle")).ok()
    }

    /// The CAs, as operators see them.
    pub async fn cas(&self, caller: &Caller) -> Result<Vec<CaView>, Refused> {
        self.operator(caller).await?;
        Ok(self.pki().map(|pki| pki.view()).unwrap_or_default())
    }

    /// The next issuing CA takes over at once.
    // SECURITY: `t_134_an_invalid_new_issuer_never_becomes_active_and_issuing_goes_on_under_the_old`.
    pub async fn rotate_ca(&self, caller: &Caller) -> Result<CaTurn, Refused> {
        self.operator(caller).await?;
        let pki = self.pki().ok_or(Reason::NotFound)?.clone();
        let flow = self.clone();
        // A caller who leaves in the middle does not take the event along.
        let turned = carried(async move { flow.turn_ca(pki).await });
        turned.await.map_err(|_| Reason::Internal)?
    }

    async fn turn_ca(&self, pki: Arc<Pki>) -> Result<CaTurn, Refused> {
        let now = self.time.now();
        if !now.safe {
            return Err(Reason::Clock.into());
        }
        let own = pki.clone();
        let rotated = offload(move || own.rotate_now(now.at)).await.map_err(|_| Reason::Internal)?;
        let rotated = rotated.inspect_err(|error| tracing::error!(%error, "no CA took over; the old one goes on"));
        let rotated = rotated.ok().flatten().ok_or(Reason::Key)?;
        self.record_ca_rotation(&rotated).await;
        self.condemn(&pki).await;
        let text = |id: crate::mint::pki::CaId| id.as_str().to_owned();
        Ok(CaTurn { from: rotated.from.map(text), to: text(rotated.to) })
    }

    /// What is wrong with the authority, and what will be soon; and what it cannot do that the bundle asks of it.
    pub fn pki_health(&self) -> Option<PkiHealth> {
        let pki = self.pki()?;
        let mut health = pki.health(self.time.now().at);
        health.warnings.extend(pki.unservable(self.policy.load().bundle()));
        Some(health)
    }

    /// What readiness tells, and keeps nobody from being served: where no certificate can be issued, tokens are,
    /// and what was issued is answered for.
    // SECURITY: `an_authority_that_is_over_takes_no_token_away`.
    pub fn warnings(&self) -> Vec<String> {
        let PkiHealth { faults, warnings, .. } = self.pki_health().unwrap_or_default();
        faults.into_iter().chain(warnings).map(|line| format!("pki: {line}")).collect()
    }

    /// Every minute: CAs take their turns.
    pub(super) async fn rotate_cas(&self) {
        let now = self.time.now();
        let Some(pki) = self.pki().filter(|_| now.safe).cloned() else { return };
        let own = pki.clone();
        match offload(move || own.rotate(now.at)).await {
            Ok(Ok(Some(rotation))) => self.record_ca_rotation(&rotation).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::error!(%error, "issuing CAs did not take turns"),
            Err(error) => tracing::error!(%error, "issuing CAs did not take turns"),
        }
        self.condemn(&pki).await;
        if let Some(health) = self.pki_health() {
            self.gauge_pki(&health);
        }
    }

    /// What a ceremony took back takes along what is below it.
    async fn condemn(&self, pki: &Pki) {
        if !pki.condemned().is_empty() {
            self.record_taints().await;
        }
    }

    async fn record_ca_rotation(&self, rotation: &CaRotation) {
        let from = rotation.from.as_ref().map_or("", |id| id.as_str());
        self.record_rotation(from, rotation.to.as_str(), Some("ca")).await;
    }

    fn gauge_pki(&self, health: &PkiHealth) {
        let PkiHealth { root_until, area_until, issuing_until, root_crl_until, faults, warnings } = health;
        let lines: Vec<&String> = faults.iter().chain(warnings).collect();
        if self.pki().is_some_and(|pki| pki.is_news(&lines, self.time.now().at)) {
            lines.iter().for_each(|line| tracing::warn!(pki = line, "the authority wants attention"));
        }
        let tiers = [("root", Some(*root_until)), ("area", Some(*area_until)), ("issuing", *issuing_until)];
        for (tier, until) in tiers {
            metrics::gauge!("dayfly_ca_expiry_timestamp_seconds", "tier" => tier)
                .set(until.unwrap_or_default().as_s() as f64);
        }
        metrics::gauge!("dayfly_root_crl_expiry_timestamp_seconds")
            .set(root_crl_until.unwrap_or_default().as_s() as f64);
    }
}

/// What live leases say of CAs: until when each is needed, and which are gone with their keys.
#[derive(Debug, Default)]
pub(super) struct Signers {
    lost: BTreeSet<String>,
}

impl Signers {
    pub fn note(&mut self, pki: Option<&Pki>, row: &LeaseRow) {
        let (Kind::X509, Some(id)) = (row.kind, row.kid.as_deref()) else { return };
        let known = pki.is_some_and(|pki| pki.note_exp(id, row.expires) || pki.is_tainted(id));
        if !known {
            self.lost.insert(id.to_owned());
        }
    }

    /// A folder from before, or none: what these CAs signed can be ended, and no CRL will say so.
    // SECURITY: `certificates_of_a_ca_that_is_lost_are_told`.
    pub fn tell(&self) {
        for ca in &self.lost {
            tracing::error!(ca, "live certificates were signed by a CA whose key is not here: no CRL can list them");
        }
    }
}
