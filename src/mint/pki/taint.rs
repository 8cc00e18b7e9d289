//! An issuing CA whose key somebody else may have. It leaves at once and for ever: it signs nothing more, its
//! key goes, and its area CA's CRL lists it. An area CA is not taken back here: its root's CRL does that, at
//! a ceremony.

use std::sync::Arc;

use dayfly_domain::UnixMs;

use super::{
    ca::CaId,
    gone::Gone,
    signer::PkiError,
    turns::{Held, Pki, Turns},
};
use crate::mint::{KeyState, NotTainted, Tainting, keyring::KeyringError};

/// A CA as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaView {
    pub id: CaId,
    /// `root`, `area` or `issuing`.
    pub tier: &'static str,
    pub state: KeyState,
    pub since: UnixMs,
    /// When it leaves this state; a tainted one has left.
    pub until: Option<UnixMs>,
}

impl Pki {
    /// Takes an issuing CA out, whatever it is. An active one gives way to the next; where there is none, nothing
    /// is issued until a rotation makes one: that may ask a token, and a taint waits for none. A tainted one stays
    /// what it is.
    // SECURITY: `a_tainted_ca_never_signs_again`, `a_ca_that_is_tainted_while_a_token_hangs_is_out_at_once_and_stays_out`.
    pub fn taint(&self, id: &str, now: UnixMs) -> Result<Tainting, NotTainted> {
        let _replacing = self.replacing();
        let old = self.turns.load_full();
        if let Some(gone) = old.tainted.iter().find(|gone| gone.revoked.id.as_str() == id) {
            if !gone.saved {
                self.keep(Turns::clone(&old)).map_err(unsaved)?;
            }
            return Ok(Tainting { at: gone.revoked.at, was: gone.was });
        }
        let (was, turns) =
            old.without(id, now).map_err(|error| NotTainted::Stuck(error.into()))?.ok_or(NotTainted::Unknown)?;
        if let Err(error) = self.save(&turns) {
            // Ends count from the moment they are asked (law L6). A CA that is in no file yet signs nothing.
            self.turns.store(Arc::new(turns));
            return Err(unsaved(error));
        }
        self.turns.store(Arc::new(turns.saved()));
        Ok(Tainting { at: now, was })
    }

    /// What the store keeps of a tainted CA, so that a file from before, or none, does not take it off the CRL.
    pub fn tainted_text(&self, id: &str) -> Option<String> {
        let turns = self.turns.load();
        let gone = turns.tainted.iter().find(|gone| gone.revoked.id.as_str() == id)?;
        Some(serde_json::to_string(&gone.stored(KeyState::Tainted)).expect("plain members become JSON"))
    }

    /// Tainted CAs as the store has kept them; the names of those that the file did not know.
    // SECURITY: `a_tainted_ca_stays_on_its_area_cas_list_though_its_file_is_gone`.
    pub fn restore(&self, kept: &[String], now: UnixMs) -> Result<Vec<CaId>, NotTainted> {
        let _replacing = self.replacing();
        let mut turns = Turns::clone(&self.turns.load_full());
        let read = kept.iter().filter_map(|text| serde_json::from_str(text).ok().as_ref().and_then(Gone::opened));
        let mut restored = Vec::new();
        for gone in read.filter(|gone| !gone.is_over(now)) {
            let known = turns.all().any(|held| *held.ca.id() == gone.revoked.id)
                || turns.gone().any(|one| one.revoked.id == gone.revoked.id);
            if !known {
                restored.push(gone.revoked.id.clone());
                turns.tainted.push(Gone { saved: false, ..gone });
            }
        }
        if !restored.is_empty() {
            self.keep(turns).map_err(unsaved)?;
        }
        Ok(restored)
    }

    pub fn is_tainted(&self, id: &str) -> bool {
        self.turns.load().tainted.iter().any(|gone| gone.revoked.id.as_str() == id)
    }

    pub fn tainting(&self, id: &str) -> Option<Tainting> {
        let turns = self.turns.load();
        let gone = turns.tainted.iter().find(|gone| gone.revoked.id.as_str() == id);
        gone.map(|gone| Tainting { at: gone.revoked.at, was: gone.was })
    }

    /// The last second of an issuing CA, also of one that is out.
    pub fn ends(&self, id: &str) -> Option<UnixMs> {
        let turns = self.turns.load();
        let held = turns.all().find(|held| held.ca.id().as_str() == id).map(|held| held.ca.not_after());
        let gone = || turns.gone().find(|gone| gone.revoked.id.as_str() == id);
        held.or_else(|| gone().map(|gone| gone.revoked.not_after))
    }

    /// What this CA is, if it is an issuing CA of ours.
    pub fn state(&self, id: &str) -> Option<KeyState> {
        let issuing = self.view().into_iter().filter(|ca| ca.tier == ISSUING);
        issuing.into_iter().find(|ca| ca.id.as_str() == id).map(|ca| ca.state)
    }

    /// The issuing CA that signs now.
    pub fn active_id(&self) -> Option<CaId> {
        self.turns.load().active.as_ref().map(|held| held.ca.id().clone())
    }

    /// Roots, area CAs, issuing CAs.
    pub fn view(&self) -> Vec<CaView> {
        let (turns, authority) = (self.turns.load(), self.authority());
        let mut all: Vec<CaView> = self.roots().iter().filter_map(|root| CaView::of_root(root)).collect();
        all.extend(authority.areas.iter().zip(0..).map(|(area, place)| CaView {
            id: area.ca.id().clone(),
            tier: "area",
            state: match (area.revoked, place) {
                (true, _) => KeyState::Tainted,
                (false, 0) => KeyState::Active,
                _ => KeyState::Retired,
            },
            since: area.ca.not_before(),
            until: Some(area.ca.not_after()),
        }));
        let view = |state, held: &Held, until| CaView {
            id: held.ca.id().clone(),
            tier: ISSUING,
            state,
            since: held.since,
            until: Some(until),
        };
        let retires = turns.active.as_ref().map(Held::retires);
        all.extend(turns.active.iter().map(|held| view(KeyState::Active, held, held.retires())));
        all.extend(turns.next.iter().map(|held| view(KeyState::Next, held, retires.unwrap_or(held.since))));
        all.extend(turns.retired.iter().map(|held| view(KeyState::Retired, held, held.leaves())));
        let gone = |state, gone: &Gone, until| CaView {
            id: gone.revoked.id.clone(),
            tier: ISSUING,
            state,
            since: gone.revoked.at,
            until,
        };
        all.extend(turns.left.iter().map(|one| gone(KeyState::Retired, one, Some(one.revoked.not_after))));
        all.extend(turns.tainted.iter().map(|one| gone(KeyState::Tainted, one, None)));
        all
    }
}

impl Turns {
    /// `None`: there is no such CA.
    fn without(&self, id: &str, now: UnixMs) -> Result<Option<(KeyState, Self)>, PkiError> {
        let is = |held: &Held| held.ca.id().as_str() == id;
        let mut turns = self.clone();
        let (was, held) = if let Some(held) = turns.active.take_if(|held| is(held)) {
            (KeyState::Active, held)
        } else if let Some(held) = turns.next.take_if(|held| is(held)) {
            (KeyState::Next, held)
        } else if let Some(at) = turns.retired.iter().position(is) {
            (KeyState::Retired, turns.retired.remove(at))
        } else if let Some(at) = turns.left.iter().position(|gone| gone.revoked.id.as_str() == id) {
            let mut gone = turns.left.remove(at);
            (gone.revoked.at, gone.saved) = (now, false);
            turns.tainted.push(gone);
            return Ok(Some((KeyState::Retired, turns)));
        } else {
            return Ok(None);
        };
        turns.tainted.push(held.gone(was, now)?);
        if was == KeyState::Active {
            turns.active = turns.next.take().map(|next| Held { since: now, ..next });
        }
        Ok(Some((was, turns)))
    }
}

const ISSUING: &str = "issuing";

impl CaView {
    fn of_root(der: &[u8]) -> Option<Self> {
        let (id, (since, until)) = (CaId::of_certificate(der).ok()?, super::ca::window(der).ok()?);
        Some(Self { id, tier: "root", state: KeyState::Active, since, until: Some(until) })
    }
}

/// A file of ours is a file of keys.
fn unsaved(error: PkiError) -> NotTainted {
    NotTainted::Unsaved(KeyringError::from(error))
}
