//! CRLs: brought up to the lease table, made anew when they read differently or are old, and given to
//! whoever asks. All of them are looked at together, once a second at most, off the request threads.

use std::sync::Arc;

use dayfly_domain::{LeaseId, Reason, UnixMs};
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::{
    Flow, Shared,
    group::{Group, NotCommitted},
    words::Refused,
};
use crate::{
    lease::Now,
    mint::pki::{Ca, Pki, PkiError},
    revoke::{
        self, CRL_BACK_S, CRL_LIFE_S, CRL_NUMBER_WORD, CrlReason, CrlTerms, DueCrl, PublishedCrl, Revocation, sign_crl,
    },
    store::{Reader, StoreError},
    sys::offload::{carried, offload},
};

/// A CA of ours, and how many lists it has.
type Shards = Vec<(Arc<str>, u32)>;

impl Flow {
    /// One list of one CA, DER. Whatever is no list of ours is not found.
    pub async fn crl(&self, ca: &str, shard: u32) -> Result<PublishedCrl, Refused> {
        self.press_crls().await?;
        self.crls.shelf().get(&(ca.into(), shard)).cloned().ok_or_else(|| Reason::NotFound.into())
    }

    /// All of them, of every level, PEM.
    pub async fn crl_bundle(&self) -> Result<PublishedCrl, Refused> {
        self.press_crls().await?;
        self.crls.shelf().all().cloned().ok_or_else(|| Reason::NotFound.into())
    }

    /// Makes what has to be made. One at a time: whoever comes second finds done what happened before it came.
    pub(super) async fn press_crls(&self) -> Result<(), Refused> {
        let Some(pki) = self.pki().cloned() else { return Ok(()) };
        if self.crls.is_fresh(self.time.now().at) {
            return Ok(());
        }
        let turn = self.pressing.clone().lock_owned().await;
        let now = self.time.now();
        if self.crls.is_fresh(now.at) {
            return Ok(());
        }
        let flow = self.clone();
        // The turn goes with the work: after a caller who leaves, nobody publishes an older list over a newer one.
        carried(async move { flow.press_in_turn(pki, now, turn).await }).await.map_err(|_| Reason::Internal)?
    }

    async fn press_in_turn(&self, pki: Arc<Pki>, now: Now, turn: OwnedMutexGuard<()>) -> Result<(), Refused> {
        let (flow, own) = (self.clone(), pki.clone());
        let due = offload(move || flow.due_crls(&own, now)).await.map_err(|_| Reason::Internal)?;
        // A token takes as long as it takes: these wait for none.
        let (far, near): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| is_remote(&pki, &due.place.0));
        let number = if near.is_empty() { 0 } else { self.crl_number(now).await };
        let (flow, own) = (self.clone(), pki.clone());
        let made = offload(move || flow.make_crls(&own, near, number, now.at)).await;
        drop(turn);
        self.sign_afar(pki, far, now.at).await;
        made.map_err(|_| Reason::Internal.into())
    }

    fn due_crls(&self, pki: &Pki, now: Now) -> Vec<DueCrl> {
        self.settle_lists(now);
        // What the list has said once past its end is not said again.
        let said_until = now.at.plus_s(-CRL_BACK_S);
        for ca in pki.revoked().into_iter().filter(|ca| ca.not_after.plus_s(1) > said_until) {
            let revocation = Revocation { at: ca.at, reason: CrlReason::KeyCompromise };
            match ca.serial.try_into() {
                Ok(serial) => self.crls.withdraw(ca.issuer.as_str(), serial, revocation, ca.not_after.plus_s(1)),
                // INVARIANT: what an area CA of ours signed has 16 octets.
                Err(_) => tracing::error!(ca = %ca.id, "a tainted CA has no serial number of ours: it is on no CRL"),
            }
        }
        self.crls.due(&shards(pki), now.at)
    }

    /// A number that is kept before any list has it. Where the store cannot be written the lists go out all the
    /// same: the time is in the number, and an end must be heard of (law L6).
    pub(super) async fn crl_number(&self, now: Now) -> u64 {
        let number = self.crls.next_number(now.at);
        let kept = if self.store_fault.load().is_some() {
            Err(NotCommitted::Store)
        } else {
            self.keep_crl_number(number).await
        };
        if kept.is_err() {
            tracing::warn!(number, "the number of a CRL could not be written; the time keeps later ones above it");
        }
        number
    }

    async fn keep_crl_number(&self, number: u64) -> Result<(), NotCommitted> {
        let (ack, done) = oneshot::channel();
        self.submit(Group::Word(CRL_NUMBER_WORD.to_owned(), number.to_string(), ack), done).await
    }

    fn make_crls(&self, pki: &Pki, due: Vec<DueCrl>, number: u64, now: UnixMs) {
        let mut made = Vec::new();
        for due in due {
            match made_crl(pki, &due, number, now) {
                Ok(list) => {
                    self.note_news(&due);
                    made.push((due, list));
                }
                Err(error) => tracing::error!(%error, ca = &*due.place.0, "a CRL was not made; the last one goes on"),
            }
        }
        let upper = pki.upper_crls().into_iter().map(|crl| (Arc::from(crl.issuer.as_str()), crl.der)).collect();
        self.crls.publish(made, &shards(pki), upper, now);
        let known: Vec<_> = pki.issuing().iter().chain(&pki.areas()).map(|ca| ca.id().clone()).collect();
        revoke::keep_signers(&self.ocsp, &known);
    }

    pub(super) fn note_news(&self, due: &DueCrl) {
        let shown_at = self.time.now().at;
        for ended_at in &due.news {
            let seconds = (shown_at.as_ms() - ended_at.as_ms()).max(0) as f64 / 1_000.0;
            metrics::histogram!("dayfly_end_propagation_seconds", "channel" => "crl").record(seconds);
        }
    }
}

impl Shared {
    /// Whether servers that fetch their CRLs now read in them that these have ended.
    pub(super) fn crls_show(&self, leases: &[LeaseId], now: UnixMs) -> bool {
        // Those that are being made may be without it.
        let idle = self.pressing.try_lock();
        leases.iter().filter_map(|lease| self.crls.would_show(*lease, now)).all(|shown| shown && idle.is_ok())
    }

    /// Whether whoever fetches one now has it held against the leases first.
    pub(super) fn crls_are_due(&self, now: UnixMs) -> bool {
        self.crls.is_empty() || self.pressing.try_lock().is_ok() && !self.crls.is_fresh(now)
    }

    pub(super) fn gauge_crls(&self) {
        let (live, revoked) = self.crls.counts();
        metrics::gauge!("dayfly_certificates", "state" => "live").set(live as f64);
        metrics::gauge!("dayfly_certificates", "state" => "revoked").set(revoked as f64);
    }
}

/// Those that sign leaves, and the one above them. Each keeps its lists for as long as it is known.
fn shards(pki: &Pki) -> Shards {
    let below = pki.issuing().into_iter().map(|ca| (Arc::from(ca.id().as_str()), pki.crl_shards(ca.id())));
    below.chain(pki.areas().iter().map(|area| (Arc::from(area.id().as_str()), 1))).collect()
}

pub(super) fn made_crl(pki: &Pki, due: &DueCrl, number: u64, now: UnixMs) -> Result<PublishedCrl, PkiError> {
    let (name, shard) = &due.place;
    let ca = ca_named(pki, name).ok_or(PkiError::NoCa)?;
    // A CA says nothing of a time before it was.
    let this_update = now.plus_s(-CRL_BACK_S).max(ca.not_before());
    let next_update = now.plus_s(i64::from(CRL_LIFE_S));
    let uri = pki.places().crl(ca.id(), *shard);
    let terms = CrlTerms { uri: &uri, number, this_update, next_update };
    Ok(PublishedCrl::new(sign_crl(&ca, terms, due.entries.clone())?, this_update, now))
}

fn is_remote(pki: &Pki, name: &str) -> bool {
    ca_named(pki, name).is_some_and(|ca| ca.signer().is_remote())
}

fn ca_named(pki: &Pki, name: &str) -> Option<Arc<Ca>> {
    pki.issuing().into_iter().chain(pki.areas()).find(|ca| ca.id().as_str() == name)
}

/// Where an earlier process ended. What cannot be read is none: the time is above it.
pub(super) fn last_crl_number(reader: &Reader) -> Result<u64, StoreError> {
    Ok(reader.meta(CRL_NUMBER_WORD)?.and_then(|text| text.parse().ok()).unwrap_or_default())
}
