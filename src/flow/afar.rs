//! What is signed by a key in a token: CRLs of area CAs, and certificates of those who answer OCSP for them.
//! One at a time, with nobody waiting for long: a token that is slow, hangs or is gone keeps no other list, no
//! answer and no request, and strangers cannot make it work.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dayfly_domain::UnixMs;

use super::{Flow, crls::made_crl};
use crate::{
    mint::pki::{Ca, Pki},
    revoke::{self, DueCrl},
    sys::offload::{carried, offload},
};

/// A token that is quick is waited for, so that whoever fetches reads what it signed.
const WAITED_FOR: Duration = Duration::from_millis(500);
/// After a failure nothing is asked of it for so long.
const REST_S: i64 = 15;

/// Who is at it, and why it failed last.
#[derive(Debug, Default)]
pub(super) struct Afar {
    turn: Arc<tokio::sync::Mutex<()>>,
    failed: Mutex<Option<(UnixMs, String)>>,
}

impl Flow {
    /// Signs these lists, and what else is due.
    pub(super) async fn sign_afar(&self, pki: Arc<Pki>, lists: Vec<DueCrl>, now: UnixMs) {
        let signers = revoke::due_signers(&self.ocsp, pki.areas(), now);
        if lists.is_empty() && signers.is_empty() || self.afar.rests(now) {
            return;
        }
        let Ok(turn) = self.afar.turn.clone().try_lock_owned() else { return };
        let flow = self.clone();
        let work = carried(async move {
            let _turn = turn;
            flow.signed_afar(pki, lists, signers, now).await;
        });
        // What is not done by then is carried on.
        let _ = tokio::time::timeout(WAITED_FOR, work).await;
    }

    async fn signed_afar(&self, pki: Arc<Pki>, lists: Vec<DueCrl>, signers: Vec<Arc<Ca>>, now: UnixMs) {
        let number = if lists.is_empty() { 0 } else { self.crl_number(self.time.now()).await };
        let flow = self.clone();
        let sign = move || {
            let mut failed = None;
            let made = lists.into_iter().map(|due| (made_crl(&pki, &due, number, now), due));
            let made: Vec<_> = made
                .filter_map(|(list, due)| list.map_err(|error| failed = Some(error)).ok().map(|list| (due, list)))
                .collect();
            for ca in signers {
                failed = revoke::renew_signer(&flow.ocsp, &ca, now).err().or(failed);
            }
            (made, failed.map(|error| error.to_string()))
        };
        let Ok((made, failed)) = offload(sign).await else { return };
        self.afar.note(failed, now);
        if made.is_empty() {
            return;
        }
        made.iter().for_each(|(due, _)| self.note_news(due));
        // Whoever publishes does so in turn.
        let _pressing = self.pressing.lock().await;
        self.crls.add(made);
    }
}

impl Afar {
    /// Also when the clock went back, it does not rest for longer.
    fn rests(&self, now: UnixMs) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().is_some_and(|(at, _)| (*at..at.plus_s(REST_S)).contains(&now))
    }

    /// A failure is told once, until it is another one or none.
    fn note(&self, error: Option<String>, now: UnixMs) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &error
            && failed.as_ref().is_none_or(|(_, before)| before != error)
        {
            tracing::error!(error, "the area CA signs no CRL and no OCSP signer; the last ones go on");
        } else if error.is_none() && failed.is_some() {
            tracing::info!("the area CA signs again");
        }
        *failed = error.map(|error| (now, error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_a_token_rests_for_a_while() {
        let (afar, at) = (Afar::default(), UnixMs::from_s(1_800_000_000));
        assert!(!afar.rests(at));
        afar.note(Some("it is gone".to_owned()), at);
        let rests = [0, REST_S - 1, REST_S, -1].map(|later| afar.rests(at.plus_s(later)));
        assert_eq!(rests, [true, true, false, false]);
        afar.note(None, at.plus_s(REST_S));
        assert!(!afar.rests(at));
    }
}
