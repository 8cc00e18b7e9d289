//! Who signs certificates now. Issuing CAs take turns: a next one, which verifiers that keep CRLs learn of a
//! day ahead, the active one, retired ones whose leaves may still live. A tainted one has left for ever: of it
//! only what is public is kept.
//!
//! What is new is written before it is used: a CA that is in no file never signs.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicI64, Ordering},
};

use arc_swap::ArcSwap;
use dayfly_domain::UnixMs;
use rustls_pki_types::CertificateDer;

use super::{
    admit::admit_issuing,
    ca::{Above, Ca, CaId, CaTerms, DAY_S, ISSUING},
    ceremony::Ceremony,
    gone::{Gone, RevokedCa, Stored},
    kept::{Area, Authority, Folder, ISSUING_FILE, KeptKey, UpperCrl, decoded, encoded},
    sealed::{Purpose, random},
    signer::{FileKey, PkiError},
};
use crate::mint::KeyState;

/// How long the next CA is known before it signs, and how much of its life a CA keeps for its leaves once it
/// has retired.
const AHEAD_S: i64 = DAY_S;
const LEFT_S: i64 = DAY_S;
/// How long after its last leaf is over a retired CA still signs its CRL.
pub const CRL_SLACK_S: i64 = 600;
/// A clock that is behind by this much takes a new CA.
const BACKDATED_S: i64 = 60;

/// Where what is public of the authority is fetched: plain http (RFC 5280 section 8, circular checks).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `http://pki.example.org`, no slash at the end.
    pub base: String,
}

impl Places {
    /// The CA's own certificate, DER.
    pub fn certificate(&self, ca: &CaId) -> String {
        format!("{}/pki/{ca}.cer", self.base)
    }

    /// One shard of the CA's CRL, DER. The issuing distribution point in the CRL is this, byte for byte.
    pub fn crl(&self, ca: &CaId, shard: u32) -> String {
        format!("{}/pki/{ca}/{shard}.crl", self.base)
    }

    pub fn ocsp(&self) -> String {
        format!("{}/pki/ocsp", self.base)
    }
}

/// Another CA signs from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaRotation {
    /// `None`: nobody did before.
    pub from: Option<CaId>,
    pub to: CaId,
}

/// What came of a turn.
struct Turned {
    rotation: Option<CaRotation>,
    /// Whether there is a next one where there should be.
    prepared: Result<(), PkiError>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    pub active: Option<Held>,
    pub next: Option<Held>,
    pub retired: Vec<Held>,
    /// Their leaves are over and their keys destroyed, but their certificates are still valid: whoever has such
    /// a key forges with it, and it can be tainted.
    pub left: Vec<Gone>,
    pub tainted: Vec<Gone>,
}

#[derive(Debug, Clone)]
pub(super) struct Held {
    pub ca: Arc<Ca>,
    pub area: CaId,
    pub(super) key: KeptKey,
    /// When it took its state.
    pub since: UnixMs,
    /// The last second in which a leaf of it is valid.
    pub(super) last_exp_s: Arc<AtomicI64>,
    /// It is in the file.
    pub saved: bool,
}

/// The CAs of one trust domain. The root's key is never here.
#[derive(Debug)]
pub struct Pki {
    places: Places,
    folder: Option<Folder>,
    authority: ArcSwap<Authority>,
    pub(super) turns: ArcSwap<Turns>,
    /// Rotations take turns: one may wait for a token that takes its time.
    turn: Mutex<()>,
    /// Whoever replaces `turns` and their file: for no longer than a file takes, so that no taint waits for a token.
    replacing: Mutex<()>,
    /// Why the last rotation failed, while it is so.
    pub(super) fault: ArcSwap<Option<String>>,
    /// What was said of the authority's health, and when.
    pub(super) told: Mutex<Option<(Vec<String>, UnixMs)>>,
}

impl Pki {
    /// Three tiers that live and die with the process: for `dev` in memory, and for tests.
    pub fn in_memory(trust_domain: &str, places: Places, now: UnixMs) -> Result<Self, PkiError> {
        let ceremony = Ceremony { trust_domain, places: &places, dns: &[], now, by: "" };
        let pki = Self::with(ceremony.in_memory()?, places, None, Turns::default());
        pki.rotate(now)?;
        Ok(pki)
    }

    /// What a ceremony made, and the CAs of an earlier start. Makes none: [`Pki::rotate`] does.
    pub fn open(folder: Folder, places: Places, now: UnixMs) -> Result<Self, PkiError> {
        let missing = || PkiError::Missing(super::kept::authority_file(&folder.dir));
        let kept = folder.authority()?.filter(|kept| !kept.areas.is_empty()).ok_or_else(missing)?;
        let authority = kept.opened(&folder, now)?;
        let stored: Vec<Stored> = folder.read(ISSUING_FILE)?.unwrap_or_default();
        let turns = Turns::opened(&stored, &folder)?;
        Ok(Self::with(authority, places, Some(folder), turns))
    }

    fn with(authority: Authority, places: Places, folder: Option<Folder>, turns: Turns) -> Self {
        Self {
            places,
            folder,
            authority: ArcSwap::from_pointee(authority),
            turns: ArcSwap::from_pointee(turns),
            turn: Mutex::default(),
            replacing: Mutex::default(),
            fault: ArcSwap::default(),
            told: Mutex::default(),
        }
    }

    pub fn places(&self) -> &Places {
        &self.places
    }

    pub fn authority(&self) -> Arc<Authority> {
        self.authority.load_full()
    }

    /// Of the area CA that signs now.
    pub fn root(&self) -> CertificateDer<'static> {
        self.area_of_now().root().clone()
    }

    /// The area CA that signs issuing CAs now.
    pub fn area(&self) -> Arc<Ca> {
        self.area_of_now().ca
    }

    fn area_of_now(&self) -> Area {
        self.authority.load().areas.first().cloned().expect("an authority without an area CA is not opened")
    }

    /// All area CAs whose issuing CAs may still have leaves that live; the one of now first.
    pub fn areas(&self) -> Vec<Arc<Ca>> {
        self.authority.load().areas.iter().map(|area| area.ca.clone()).collect()
    }

    /// What a relying party trusts.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.authority.load().roots.clone()
    }

    /// Grows whenever the roots change.
    pub fn sequence(&self) -> u64 {
        self.authority.load().sequence
    }

    /// CRLs of the CAs above ours, as the ceremony left them.
    pub fn upper_crls(&self) -> Vec<UpperCrl> {
        self.authority.load().crls.clone()
    }

    /// Of every CA of ours and above ours, also of those that are out.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let (turns, authority) = (self.turns.load(), self.authority.load());
        let mut all: Vec<_> = turns.all().map(|held| held.ca.der().clone()).collect();
        all.extend(turns.gone().map(|gone| gone.certificate.clone()));
        all.extend(authority.areas.iter().flat_map(|area| [area.ca.der()].into_iter().chain(&area.above)).cloned());
        all
    }

    /// The certificate of a CA of ours or above ours, also of one that is out.
    pub fn certificate(&self, id: &str) -> Option<CertificateDer<'static>> {
        self.certificates().into_iter().find(|der| CaId::of_certificate(der).is_ok_and(|own| own.as_str() == id))
    }

    /// What is sent after a leaf: the issuing CA, its area CA, and what is between that and the root.
    pub fn chain(&self, ca: &CaId) -> Vec<CertificateDer<'static>> {
        let turns = self.turns.load();
        let Some(held) = turns.all().find(|held| held.ca.id() == ca) else { return Vec::new() };
        let authority = self.authority.load();
        let area = authority.areas.iter().find(|area| *area.ca.id() == held.area);
        let above = area.map_or(&[][..], |area| &area.above);
        let between = &above[..above.len().saturating_sub(1)];
        let own = [Some(held.ca.der()), area.map(|area| area.ca.der())];
        own.into_iter().flatten().chain(between).cloned().collect()
    }

    /// The CA that signs a leaf whose last second is `exp`.
    // INVARIANT: it says `exp` before it looks who signs, and whoever retires is kept for `CRL_SLACK_S`.
    pub fn active(&self, exp: UnixMs) -> Result<Arc<Ca>, PkiError> {
        let turns = self.turns.load();
        let held = turns.active.as_ref().ok_or(PkiError::NoCa)?;
        if !held.saved {
            return Err(PkiError::Unsaved);
        }
        if held.ca.not_after() < exp {
            return Err(PkiError::NoCa);
        }
        held.last_exp_s.fetch_max(exp.as_s(), Ordering::SeqCst);
        Ok(held.ca.clone())
    }

    /// The last second in which a leaf that is signed now may be valid.
    pub fn lasts_until(&self) -> Option<UnixMs> {
        self.turns.load().active.as_ref().map(|held| held.ca.not_after())
    }

    /// After a restart: what a live lease says its CA signed. `false`: its key is not here.
    pub fn note_exp(&self, id: &str, exp: UnixMs) -> bool {
        let turns = self.turns.load();
        let held = turns.all().find(|held| held.ca.id().as_str() == id);
        held.map(|held| held.last_exp_s.fetch_max(exp.as_s(), Ordering::SeqCst)).is_some()
    }

    /// All that may have signed a leaf that lives, the active one first.
    pub fn issuing(&self) -> Vec<Arc<Ca>> {
        self.turns.load().all().map(|held| held.ca.clone()).collect()
    }

    /// Everybody that signs leaves or issuing CAs, or did: of whom a certificate may be forged.
    pub fn signers(&self) -> Vec<CertificateDer<'static>> {
        let (turns, authority) = (self.turns.load(), self.authority.load());
        let held = turns.all().map(|held| held.ca.der().clone());
        let gone = turns.gone().map(|gone| gone.certificate.clone());
        held.chain(gone).chain(authority.areas.iter().map(|area| area.ca.der().clone())).collect()
    }

    /// Issuing CAs that are no longer needed, and whose certificates are still valid.
    pub fn left(&self) -> Vec<RevokedCa> {
        self.turns.load().left.iter().map(|gone| gone.revoked.clone()).collect()
    }

    /// Issuing CAs below an area CA that was taken back, which are not yet tainted themselves.
    pub fn condemned(&self) -> Vec<CaId> {
        let (turns, authority) = (self.turns.load(), self.authority.load());
        let out = |area: &CaId| authority.areas.iter().any(|one| one.revoked && one.ca.id() == area);
        let held = turns.all().filter(|held| out(&held.area)).map(|held| held.ca.id());
        let left = turns.left.iter().filter(|gone| out(&gone.revoked.issuer)).map(|gone| &gone.revoked.id);
        held.chain(left).cloned().collect()
    }

    /// Issuing CAs that are out for ever.
    pub fn revoked(&self) -> Vec<RevokedCa> {
        self.turns.load().tainted.iter().map(|gone| gone.revoked.clone()).collect()
    }

    /// Takes in what a ceremony left meanwhile, prepares the next CA, lets it take over when it is its turn,
    /// and forgets who has no leaf left. On a failure the old ones go on.
    pub fn rotate(&self, now: UnixMs) -> Result<Option<CaRotation>, PkiError> {
        self.turn_over(now, false)
    }

    /// The next CA takes over at once, known ahead or not.
    pub fn rotate_now(&self, now: UnixMs) -> Result<Option<CaRotation>, PkiError> {
        self.turn_over(now, true)
    }

    /// A turn that was taken is told, whatever else went wrong: of that, health tells.
    // SECURITY: `t_134_a_turn_is_told_though_the_file_of_a_ceremony_is_broken`.
    fn turn_over(&self, now: UnixMs, at_once: bool) -> Result<Option<CaRotation>, PkiError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let reread = self.take_in(now).and_then(|()| self.area_of_now().ca.signer().probe());
        let turned = self.turned(now, at_once);
        let (rotation, fault) = match (turned, reread) {
            (Ok(Turned { rotation, prepared }), reread) => (rotation, prepared.and(reread).err()),
            (Err(error), _) => (None, Some(error)),
        };
        self.fault.store(Arc::new(fault.as_ref().map(ToString::to_string)));
        match (rotation, fault) {
            (None, Some(fault)) => Err(fault),
            (rotation, _) => Ok(rotation),
        }
    }

    fn turned(&self, now: UnixMs, at_once: bool) -> Result<Turned, PkiError> {
        let old = self.turns.load_full();
        let mut new = Turns::clone(&old);
        new.leave_out(&self.authority.load(), now);
        let area = self.area_of_now().ca;
        if at_once {
            new.retire_next(area.id(), now);
        }
        // Below an area CA that is nearly over, the next one would last no longer.
        let over = area.not_after();
        let lasts = |held: &Held| held.ca.not_after() < over;
        let due = new.active.as_ref().is_none_or(|held| at_once || now >= held.retires() && lasts(held));
        let ahead = new.active.as_ref().is_some_and(|held| now >= held.retires().plus_s(-AHEAD_S) && lasts(held));
        // Without a next one the old one goes on, unless it may not.
        let prepared = if due || ahead { self.prepare(&mut new, now) } else { Ok(()) };
        let known = |held: &Held| at_once || old.active.is_none() || now >= held.since.plus_s(AHEAD_S);
        let ends = new.active.as_ref().is_none_or(|held| now.plus_s(AHEAD_S / 2) >= held.ca.not_after());
        let mut rotation = None;
        if due && new.next.as_ref().is_some_and(|next| ends || known(next)) {
            rotation = new.take_over(now);
        }
        // SECURITY: `a_ca_that_is_tainted_while_a_token_hangs_is_out_at_once_and_stays_out`.
        if (rotation.is_some() || new.differs(&old)) && !self.replace(&old, new)? {
            return self.turned(now, at_once);
        }
        Ok(Turned { rotation, prepared })
    }

    /// A ceremony was held while the broker ran. What is not as it should be changes nothing.
    fn take_in(&self, now: UnixMs) -> Result<(), PkiError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let Some(kept) = folder.authority()? else { return Ok(()) };
        let found = kept.opened(folder, now)?;
        let held = self.authority.load();
        if found.trust_domain != held.trust_domain || found.areas.is_empty() {
            return Err(PkiError::Refused("another ceremony's file took the place of ours".to_owned()));
        }
        if !found.is_like(&held) {
            tracing::info!(area = %found.areas[0].ca.id(), "a ceremony was held: what it made is in use");
            self.authority.store(Arc::new(found));
        }
        Ok(())
    }

    /// A next CA, where there is none. It is looked at before it is taken.
    fn prepare(&self, turns: &mut Turns, now: UnixMs) -> Result<(), PkiError> {
        if turns.next.is_none() {
            turns.next = Some(self.generate(now)?);
        }
        Ok(())
    }

    fn generate(&self, now: UnixMs) -> Result<Held, PkiError> {
        let area = self.area_of_now();
        if now > area.ca.not_after() || area.revoked {
            return Err(PkiError::Refused("the area CA is over: hold a ceremony (`dayfly ca init`)".to_owned()));
        }
        let key = FileKey::generate()?;
        let kept = match &self.folder {
            Some(folder) => KeptKey::seal(&folder.seal, Purpose::Issuing, &key)?,
            None => KeptKey::unkept(&key),
        };
        let above = Above { crl: self.places.crl(area.ca.id(), 0), certificate: self.places.certificate(area.ca.id()) };
        let authority = self.authority.load();
        let terms = CaTerms {
            tier: ISSUING,
            trust_domain: &authority.trust_domain,
            serial: random()?,
            from: now.plus_s(-BACKDATED_S).max(area.ca.not_before()),
            life_s: ISSUING.life_s,
            above: Some(above),
            dns: &[],
        };
        let ca = area.ca.subordinate(&terms, Arc::new(key))?;
        admit_issuing(&ca, &area.ca, now)?;
        let (ca, area) = (Arc::new(ca), area.ca.id().clone());
        Ok(Held { ca, area, key: kept, since: now, last_exp_s: Arc::default(), saved: false })
    }

    /// Whoever has this looks at `turns` and replaces them; no signer is asked meanwhile.
    pub(super) fn replacing(&self) -> MutexGuard<'_, ()> {
        self.replacing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was made of `old` takes its place. `false`: something else did meanwhile, after a taint.
    fn replace(&self, old: &Arc<Turns>, new: Turns) -> Result<bool, PkiError> {
        let _replacing = self.replacing();
        if !Arc::ptr_eq(old, &self.turns.load()) {
            return Ok(false);
        }
        self.keep(new).map(|()| true)
    }

    /// First the file. For whoever is [`Pki::replacing`].
    pub(super) fn keep(&self, turns: Turns) -> Result<(), PkiError> {
        self.save(&turns)?;
        self.turns.store(Arc::new(turns.saved()));
        Ok(())
    }

    pub(super) fn save(&self, turns: &Turns) -> Result<(), PkiError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        folder.write(ISSUING_FILE, &turns.stored())
    }
}

impl Turns {
    /// The active one first.
    pub fn all(&self) -> impl Iterator<Item = &Held> {
        self.active.iter().chain(&self.next).chain(&self.retired)
    }

    /// Of whom nothing but what is public is kept.
    pub fn gone(&self) -> impl Iterator<Item = &Gone> {
        self.left.iter().chain(&self.tainted)
    }

    /// Who is over leaves; who cannot sign any more, because its area CA was taken back or it has no time
    /// left, retires.
    fn leave_out(&mut self, authority: &Authority, now: UnixMs) {
        let carried = |held: &Held| {
            let area = authority.areas.iter().find(|area| *area.ca.id() == held.area);
            area.is_some_and(|area| !area.revoked) && now <= held.ca.not_after()
        };
        for held in [self.active.take_if(|held| !carried(held)), self.next.take_if(|held| !carried(held))] {
            self.retired.extend(held.map(|held| Held { since: now, ..held }));
        }
        // SECURITY: `an_issuing_ca_that_has_left_is_tainted_like_any_other_while_its_certificate_is_valid`.
        let (retired, over) = std::mem::take(&mut self.retired).into_iter().partition(|held| now < held.leaves());
        self.retired = retired;
        let gone = |held: Held| held.gone(KeyState::Retired, now).inspect_err(|error| tracing::error!(%error)).ok();
        self.left.extend(Vec::into_iter(over).filter_map(gone));
        for gone in [&mut self.left, &mut self.tainted] {
            gone.retain(|gone| !gone.is_over(now));
        }
    }

    /// Whoever turns by hand wants what the last ceremony made: a next one from before it is passed over.
    fn retire_next(&mut self, area: &CaId, now: UnixMs) {
        let before = self.next.take_if(|next| next.area != *area);
        self.retired.extend(before.map(|next| Held { since: now, ..next }));
    }

    fn take_over(&mut self, now: UnixMs) -> Option<CaRotation> {
        let next = self.next.take()?;
        let old = self.active.take();
        let rotation = CaRotation { from: old.as_ref().map(|held| held.ca.id().clone()), to: next.ca.id().clone() };
        self.active = Some(Held { since: now, ..next });
        self.retired.extend(old.map(|held| Held { since: now, ..held }));
        Some(rotation)
    }

    fn differs(&self, old: &Self) -> bool {
        let names = |turns: &Self| turns.all().map(|held| held.ca.id().clone()).collect::<Vec<_>>();
        let lengths = |turns: &Self| [turns.retired.len(), turns.left.len(), turns.tainted.len()];
        names(self) != names(old) || lengths(self) != lengths(old) || !self.is_saved()
    }

    fn is_saved(&self) -> bool {
        self.all().all(|held| held.saved) && self.gone().all(|gone| gone.saved)
    }

    /// What is in the file now.
    pub fn saved(mut self) -> Self {
        let held = self.active.iter_mut().chain(&mut self.next).chain(&mut self.retired);
        held.for_each(|held| held.saved = true);
        self.left.iter_mut().chain(&mut self.tainted).for_each(|gone| gone.saved = true);
        self
    }

    fn stored(&self) -> Vec<Stored> {
        let held = |state| move |held: &Held| held.stored(state);
        let mut all: Vec<Stored> = self.active.iter().map(held(KeyState::Active)).collect();
        all.extend(self.next.iter().map(held(KeyState::Next)));
        all.extend(self.retired.iter().map(held(KeyState::Retired)));
        all.extend(self.left.iter().map(|gone| gone.stored(KeyState::Retired)));
        all.extend(self.tainted.iter().map(|gone| gone.stored(KeyState::Tainted)));
        all
    }

    fn opened(stored: &[Stored], folder: &Folder) -> Result<Self, PkiError> {
        let form = || PkiError::Form(folder.dir.join(ISSUING_FILE));
        let mut turns = Self::default();
        for one in stored {
            let held = || Held::opened(one, folder)?.ok_or_else(form);
            match one.state {
                KeyState::Active if turns.active.is_none() => turns.active = Some(held()?),
                KeyState::Next if turns.next.is_none() => turns.next = Some(held()?),
                KeyState::Retired if one.key.is_none() => turns.left.push(Gone::opened(one).ok_or_else(form)?),
                KeyState::Retired => turns.retired.push(held()?),
                KeyState::Tainted => turns.tainted.push(Gone::opened(one).ok_or_else(form)?),
                KeyState::Active | KeyState::Next => return Err(form()),
            }
        }
        // SECURITY: a file in which a tainted CA stands a second time as one that signs is no file of ours.
        let held = |gone: &Gone| turns.all().any(|held| gone.revoked.id == *held.ca.id());
        if turns.gone().any(held) { Err(form()) } else { Ok(turns.saved()) }
    }
}

impl Held {
    /// From then on the next one signs.
    pub fn retires(&self) -> UnixMs {
        self.ca.not_after().plus_s(-LEFT_S)
    }

    /// Of a retired one: from then on nobody asks for its CRL.
    pub fn leaves(&self) -> UnixMs {
        self.since.max(UnixMs::from_s(self.last_exp_s.load(Ordering::SeqCst))).plus_s(CRL_SLACK_S)
    }

    fn stored(&self, state: KeyState) -> Stored {
        Stored {
            state,
            since_s: self.since.as_s(),
            area: self.area.as_str().to_owned(),
            certificate: encoded(self.ca.der()),
            key: Some(self.key.clone()),
            was: None,
        }
    }

    /// `None`: what stands there cannot be read.
    fn opened(stored: &Stored, folder: &Folder) -> Result<Option<Self>, PkiError> {
        let parts = decoded(&stored.certificate).zip(stored.key.clone()).zip(CaId::named(&stored.area));
        let Some(((der, key), area)) = parts else { return Ok(None) };
        let signer = Arc::new(key.opened(&folder.seal, Purpose::Issuing)?);
        let Ok(ca) = Ca::new(der.into(), signer) else { return Ok(None) };
        let (ca, since) = (Arc::new(ca), UnixMs::from_s(stored.since_s));
        Ok(Some(Self { ca, area, key, since, last_exp_s: Arc::default(), saved: true }))
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
