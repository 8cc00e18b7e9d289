//! A signing key leaked: it leaves at once and for ever, what it signed ends, and the answer says until
//! when whoever has it is still believed (law L12).
//!
//! The order is what survives a crash: first the key file, so that the key never signs again; then one
//! tombstone for all that it had signed; then the event, which is remembered under the key's name. What is
//! missing of the last two is made up for by the upkeep, at the latest after the next start. A key file
//! that knows nothing of an event (a copy from before) is corrected at the start, or there is none.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use dayfly_domain::{BindingKind, EventId, Matcher, Name, Reason, Selector, UnixMs, bundle::Target};
use tokio::{sync::oneshot, time::timeout};

use super::{
    Flow, Shared,
    group::Group,
    rings::Ring,
    select::EndedBySelector,
    words::{Caller, Refused},
};
use crate::{
    lease::Now,
    ledger::{self, Body, KeyTaint, Stamp},
    mint::{JWKS_MAX_AGE_S, KeyState, NotTainted, pki::Pki},
    revoke::{self, Checking, Known},
    store::{LeaseRow, Reader},
    sys::offload::{carried, offload},
};

/// Before the name of a tainted key: where the store remembers its event.
const TAINTED: &str = "tainted:";
/// Before the name of a tainted CA: where the store remembers its certificate.
const TAINTED_CA: &str = "tainted_ca:";

/// How long an answer waits for a CA in the place of the tainted one.
const REPLACED_WITHIN: Duration = Duration::from_secs(2);

/// Who taints what is below an area CA that was taken back.
const CEREMONY: &str = "ceremony";

/// What a taint did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaintAnswer {
    pub kid: String,
    pub was: KeyState,
    pub dry_run: bool,
    pub at: UnixMs,
    pub leases_ended: u64,
    /// The key that signs from then on; `None`: it has yet to be made.
    pub signs: Option<String>,
    /// When the last verifier knows that key that goes by the JWKS.
    pub signs_known_at: Option<UnixMs>,
    pub targets: Vec<TargetKnown>,
    /// The same by channel.
    pub channels: Vec<Known>,
}

/// Until when a target's servers may believe the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetKnown {
    pub target: Name,
    pub known: Known,
}

/// Taints that are in force and not yet on the record.
#[derive(Debug, Default)]
pub(super) struct Taints {
    /// Whoever records one takes turns: there is one event for each key.
    turn: tokio::sync::Mutex<()>,
    waiting: Mutex<BTreeMap<String, Asked>>,
    /// On the record.
    done: Mutex<BTreeSet<String>>,
}

/// Who asked, and why.
#[derive(Debug, Clone)]
struct Asked {
    actor: String,
    reason: Option<String>,
}

/// What the ledger says of a taint.
struct Recorded {
    at: UnixMs,
    leases: u64,
    signs: String,
}

impl Flow {
    /// Takes a key out of use. Twice is answered as once. `E-NOT-DURABLE`: it is in force, and tried again.
    // SECURITY: `only_who_may_operate_the_broker_taints_a_key`.
    pub async fn taint_key(
        &self,
        caller: &Caller,
        kid: &str,
        reason: Option<String>,
        dry_run: bool,
    ) -> Result<TaintAnswer, Refused> {
        let actor = self.operator(caller).await?;
        let was = self.ring_of(kid).and_then(|ring| ring.state(kid)).ok_or_else(|| self.no_key(kid))?;
        if dry_run && was != KeyState::Tainted {
            return Ok(self.would_taint(kid, was));
        }
        let (flow, kid) = (self.clone(), kid.to_owned());
        // A caller who leaves in the middle leaves nothing half done.
        let tainted = async move { flow.taint_and_record(kid, Asked { actor, reason }).await };
        carried(tainted).await.map_err(|_| Reason::Internal)?
    }

    /// A CA above the issuing ones is ours too, and not the broker's to take back.
    fn no_key(&self, kid: &str) -> Refused {
        let above = self.pki.as_ref().is_some_and(|pki| pki.view().iter().any(|ca| ca.id.as_str() == kid));
        let hint = "a root or an area CA is taken back at a ceremony: `dayfly ca init --revoke`";
        Refused { hint: above.then(|| hint.to_owned()), ..Reason::NotFound.into() }
    }

    async fn taint_and_record(&self, kid: String, asked: Asked) -> Result<TaintAnswer, Refused> {
        self.taints.wait_for(&kid, asked);
        let unsaved = self.take_out(&kid).await?;
        let recorded = self.record_taint(&kid).await;
        self.replace_ca(&kid).await;
        let Recorded { at, leases, signs } = recorded?;
        let tainting = self.ring_of(&kid).and_then(|ring| ring.tainting(&kid));
        let tainting = tainting.filter(|_| !unsaved).ok_or(Reason::NotDurable)?;
        // Asked again, when that one may be out as well, or none did.
        let now_signs = || self.ring_of(&kid).and_then(Ring::signs);
        let signs = if signs.is_empty() || self.has_tainted(&signs) { now_signs() } else { Some(signs) };
        Ok(self.taint_answer(&kid, tainting.was, signs, leases, at))
    }

    /// After the taint of a CA that left none: after the try to end what it had signed. Upkeep tries it again.
    async fn replace_ca(&self, tainted: &str) {
        if self.pki().is_some_and(|pki| pki.is_tainted(tainted) && pki.active_id().is_none()) {
            let flow = self.clone();
            let replaced = carried(async move { flow.rotate_cas().await });
            // A token may take longer; then the answer does not say who signs.
            let _late = timeout(REPLACED_WITHIN, replaced).await;
        }
    }

    /// Whether this key is out of use for ever.
    pub fn has_tainted(&self, kid: &str) -> bool {
        self.is_tainted(kid)
    }

    /// From here on nothing is signed with it. `true`: a restart would not know of it yet.
    async fn take_out(&self, kid: &str) -> Result<bool, Refused> {
        let (flow, own, now) = (self.clone(), kid.to_owned(), self.time.now().at);
        let taint = move || {
            let tainted = flow.ring_of(&own).map_or(Err(NotTainted::Unknown), |ring| ring.taint(&own, now));
            // What it signed is sent no more, whatever became of its file.
            flow.lists.recall();
            flow.crls.recall();
            tainted
        };
        let tainted = offload(taint).await.map_err(|_| Reason::Internal)?;
        match tainted {
            Ok(_) => Ok(false),
            Err(NotTainted::Unsaved(error)) => {
                tracing::error!(%error, kid, "a tainted key could not be written; it is out of use all the same");
                Ok(true)
            }
            Err(NotTainted::Stuck(error)) => {
                tracing::error!(%error, kid, "a key was not tainted");
                self.taints.forget(kid);
                Err(Reason::Key.into())
            }
            Err(NotTainted::Unknown) => {
                self.taints.forget(kid);
                Err(Reason::NotFound.into())
            }
        }
    }

    fn would_taint(&self, kid: &str, was: KeyState) -> TaintAnswer {
        let view = self.ring_of(kid).map(Ring::view).unwrap_or_default();
        let by_state = |wanted| view.iter().find(|(_, state)| *state == wanted).map(|(kid, _)| kid.clone());
        let signs = by_state(if was == KeyState::Active { KeyState::Next } else { KeyState::Active });
        let now = self.time.now();
        TaintAnswer { dry_run: true, ..self.taint_answer(kid, was, signs, self.signed_by(kid, now), now.at) }
    }

    fn taint_answer(&self, kid: &str, was: KeyState, signs: Option<String>, leases: u64, at: UnixMs) -> TaintAnswer {
        let targets = match self.pki.as_ref().filter(|pki| pki.state(kid).is_some()) {
            Some(pki) => self.ca_reaches(at, pki.ends(kid).unwrap_or(at)),
            None => self.key_reaches(at),
        };
        let signs = signs.filter(|signs| !signs.is_empty());
        let published = signs.as_deref().and_then(|signs| self.ring_of(signs)?.published(signs));
        TaintAnswer {
            kid: kid.to_owned(),
            was,
            dry_run: false,
            at,
            leases_ended: leases,
            signs,
            signs_known_at: published.map(|published| published.plus_s(JWKS_MAX_AGE_S)),
            channels: revoke::merged(targets.iter().map(|target| target.known)),
            targets,
        }
    }

    /// Every target of the bundle: whoever has the key forges for those too that it never signed for.
    fn key_reaches(&self, at: UnixMs) -> Vec<TargetKnown> {
        self.each_reach(|_| true, |checking| revoke::known_of_key(checking, at, JWKS_MAX_AGE_S))
    }

    /// The same of a CA that would have been over at `until`: of those who take certificates.
    fn ca_reaches(&self, at: UnixMs, until: UnixMs) -> Vec<TargetKnown> {
        // A token signs the list in its own time.
        let remote = self.pki.as_ref().is_some_and(|pki| pki.areas().iter().any(|area| area.signer().is_remote()));
        let shown = !remote && self.crls_are_due(self.time.now().at);
        let takes = |target: &Target| target.binding == BindingKind::Mtls;
        self.each_reach(takes, |checking| revoke::known_of_ca(checking, at, until, shown))
    }

    fn each_reach(&self, of: impl Fn(&Target) -> bool, known: impl Fn(Checking) -> Known) -> Vec<TargetKnown> {
        let policy = self.policy.load();
        let served = policy.bundle().targets.values().filter(|target| !target.disabled && !target.builtin);
        let served = served.filter(|target| of(target));
        let known = |target| known(Checking::from(target));
        served.map(|target| TargetKnown { target: target.name.clone(), known: known(target) }).collect()
    }

    /// Makes up for what could not be recorded when it was asked.
    pub(super) async fn record_taints(&self) {
        self.taint_condemned().await;
        let all: Vec<_> = self.rings().flat_map(Ring::view).collect();
        let tainted = all.into_iter().filter(|(_, state)| *state == KeyState::Tainted);
        for (kid, _) in tainted.filter(|(kid, _)| !self.taints.is_done(kid)) {
            if self.record_taint(&kid).await.is_err() {
                tracing::warn!(kid, "a tainted key is not yet on the record");
            }
        }
    }

    /// A ceremony took an area CA back: whoever has its key makes issuing CAs, and what those below it signed is
    /// believed no more.
    // SECURITY: `what_was_signed_below_a_revoked_area_ca_ends`.
    async fn taint_condemned(&self) {
        let condemned = self.pki().map(|pki| pki.condemned()).unwrap_or_default();
        for ca in condemned {
            let reason = Some("its area CA was taken back".to_owned());
            self.taints.wait_for(ca.as_str(), Asked { actor: CEREMONY.to_owned(), reason });
            if let Err(refused) = self.take_out(ca.as_str()).await {
                tracing::error!(%ca, reason = ?refused.reason, "an issuing CA whose area CA was taken back is not tainted");
            }
        }
    }

    /// The tombstone and the event, once for each key.
    async fn record_taint(&self, kid: &str) -> Result<Recorded, Refused> {
        let _turn = self.taints.turn.lock().await;
        if let Some(recorded) = self.recorded_taint(kid).await? {
            self.taints.finish(kid);
            return Ok(recorded);
        }
        let Asked { actor, reason } = self.taints.asked(kid);
        let leases = match self.end_by_key(actor.clone(), kid, reason.clone()).await? {
            EndedBySelector::Ended(ended) => ended.leases,
            // Nothing of an end may wait: it is tried again.
            EndedBySelector::NotEnded(_) => return Err(Reason::NotDurable.into()),
        };
        self.keep_tainted_ca(kid).await?;
        // Where no CA could take the place of another, there is none.
        let signs = self.ring_of(kid).map(|ring| ring.signs().unwrap_or_default()).ok_or(Reason::NotFound)?;
        let stamp = Stamp::draw(self.time.now().at).map_err(|_| Reason::NotDurable)?;
        let entry = ledger::key_tainted(stamp, &KeyTaint { kid, signs: &signs, leases }, &actor, reason.as_deref());
        let (ack, done) = oneshot::channel();
        let group = Group::Remember(entry, format!("{TAINTED}{kid}"), ack);
        self.submit(group, done).await.map_err(|_| Reason::NotDurable)?;
        metrics::counter!("dayfly_keys_tainted_total").increment(1);
        tracing::error!(
            kid,
            signs,
            leases,
            actor,
            "a key is tainted: what it signed is dead, and whoever has it forges until the keys that verifiers keep are fetched anew"
        );
        self.taints.finish(kid);
        self.recorded_taint(kid).await?.ok_or_else(|| Reason::Internal.into())
    }

    /// Before the event: a CA that is on the record as tainted comes back from the store.
    async fn keep_tainted_ca(&self, kid: &str) -> Result<(), Refused> {
        let Some(text) = self.pki().and_then(|pki| pki.tainted_text(kid)) else { return Ok(()) };
        let (ack, done) = oneshot::channel();
        let group = Group::Word(format!("{TAINTED_CA}{kid}"), text, ack);
        self.submit(group, done).await.map_err(|_| Reason::NotDurable.into())
    }

    async fn recorded_taint(&self, kid: &str) -> Result<Option<Recorded>, Refused> {
        let (reader, word) = (self.reader.clone(), format!("{TAINTED}{kid}"));
        let read = move || {
            let id: Option<EventId> = reader.meta(&word)?.and_then(|id| id.parse().ok());
            id.map_or(Ok(None), |id| reader.event(id))
        };
        let event = offload(read).await.map_err(|_| Reason::Internal)?;
        let event = event.map_err(|error| Refused::from(error.reason()))?;
        let body = event.and_then(|row| serde_json::from_slice::<Body>(&row.body).ok());
        Ok(body.map(|body| Recorded {
            at: UnixMs::new(body.at),
            leases: body.count.unwrap_or_default(),
            signs: body.kid.unwrap_or_default(),
        }))
    }
}

impl Shared {
    // SECURITY: nothing that a tainted key signed is committed after it was tainted;
    // what_a_tainted_key_signed_meanwhile_never_leaves
    pub(super) fn is_signed_by_tainted(&self, lease: Option<&LeaseRow>) -> bool {
        lease.and_then(|lease| lease.kid.as_deref()).is_some_and(|kid| self.is_tainted(kid))
    }

    /// A key of tokens, or a CA.
    pub(super) fn is_tainted(&self, kid: &str) -> bool {
        self.rings().any(|ring| ring.is_tainted(kid))
    }

    /// How many live leases the key signed.
    fn signed_by(&self, kid: &str, now: Now) -> u64 {
        let matcher = Matcher::new(Selector { key: Some(kid.to_owned()), ..Selector::default() });
        self.table.meant(&matcher, now, |_, _, _| ()).leases
    }
}

impl Taints {
    /// Who asks first is on the record.
    fn wait_for(&self, kid: &str, asked: Asked) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(kid.to_owned()).or_insert(asked);
    }

    /// After a crash nobody knows any more who had asked.
    fn asked(&self, kid: &str) -> Asked {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get(kid).cloned().unwrap_or_else(|| Asked { actor: "start".to_owned(), reason: None })
    }

    fn forget(&self, kid: &str) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(kid);
    }

    fn finish(&self, kid: &str) {
        self.forget(kid);
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(kid.to_owned());
    }

    fn is_done(&self, kid: &str) -> bool {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).contains(kid)
    }
}

/// A key file may be older than the ledger: what the ledger calls tainted is so from the start, or there
/// is no start.
// SECURITY: `a_key_file_from_before_the_taint_brings_nothing_back`.
pub(super) fn honour(reader: &Reader, ring: Ring<'_>, now: UnixMs) -> Result<(), super::StartError> {
    for (kid, _) in ring.view().into_iter().filter(|(_, state)| *state != KeyState::Tainted) {
        if reader.meta(&format!("{TAINTED}{kid}"))?.is_some() {
            tracing::warn!(kid, "the ledger says that this key is tainted, and the key file does not");
            ring.taint(&kid, now)?;
        }
    }
    match ring {
        Ring::Cas(pki) => restore(reader, pki, now),
        Ring::Keys(_) => Ok(()),
    }
}

/// Of tainted CAs the file may know nothing at all, when it is gone or from before: they stay on the CRL.
fn restore(reader: &Reader, pki: &Pki, now: UnixMs) -> Result<(), super::StartError> {
    let kept: Vec<String> = reader.meta_of(TAINTED_CA)?.into_iter().map(|(_, text)| text).collect();
    for ca in pki.restore(&kept, now)? {
        tracing::error!(%ca, "the ledger says that this CA is tainted, and the key file did not know it: it is on its area CA's list again");
    }
    Ok(())
}
