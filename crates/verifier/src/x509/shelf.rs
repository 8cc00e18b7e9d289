//! The lists that a server goes by, over time. They come over plain http, from whoever answers: what a list
//! says counts once its signature holds under a CA whose own chain holds, and no sooner. In: sets as they are
//! fetched, CAs as chains are presented. Out: the set to ask.

use std::sync::Arc;

use super::{
    CRLS_MAX, CrlError, CrlSet,
    anchors::Authority,
    crls::{List, Place},
};

/// Lists about one place that nobody has vouched for yet.
const CLAIMS_MAX: usize = 4;

/// Of each place one list that is proven, and some that wait for a chain to be held against.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    proven: Vec<Arc<List>>,
    /// The newest last.
    claimed: Vec<Arc<List>>,
}

impl Shelf {
    /// A place that is not in the set keeps its list: what is not said again is not taken back.
    // SECURITY: `an_older_list_does_not_replace_a_newer_one`, `a_list_that_is_left_out_is_not_forgotten`
    pub fn put(&mut self, set: CrlSet) -> Result<(), CrlError> {
        let lists = set.into_lists();
        if lists.iter().any(|list| self.proven(&list.place).is_some_and(|held| held.number > list.number)) {
            return Err(CrlError::Older);
        }
        for list in lists {
            let is_known = self.proven(&list.place).is_some_and(|held| held.number == list.number)
                || self.claimed.iter().any(|claim| claim.der == list.der);
            if !is_known {
                self.claim(list);
            }
        }
        Ok(())
    }

    fn claim(&mut self, list: Arc<List>) {
        let of_place = |claim: &Arc<List>| claim.place == list.place;
        let full = self.claimed.iter().filter(|claim| of_place(claim)).count() >= CLAIMS_MAX;
        let oldest = if full { self.claimed.iter().position(of_place) } else { None };
        let oldest = oldest.or((self.claimed.len() >= CRLS_MAX).then_some(0));
        oldest.map(|at| self.claimed.remove(at));
        self.claimed.push(list);
    }

    fn proven(&self, place: &Place) -> Option<&Arc<List>> {
        self.proven.iter().find(|list| list.place == *place)
    }

    pub fn waits(&self) -> bool {
        !self.claimed.is_empty()
    }

    /// Whether a list waits that one of these names could vouch for.
    pub fn waits_for(&self, mut subjects: impl FnMut(&[u8]) -> bool) -> bool {
        self.claimed.iter().any(|claim| subjects(&claim.place.issuer))
    }

    /// What these CAs signed is proven, the newest of each place; what claims to be theirs and is not, is gone.
    /// A list that has been over for long says nothing that an older one could take back.
    // SECURITY: `a_forged_list_keeps_nobody_out`
    pub fn prove(&mut self, authorities: &[Authority], now_s: i64) {
        let own = |list: &Arc<List>| authorities.iter().any(|ca| ca.subject == list.place.issuer);
        let (theirs, others): (Vec<_>, Vec<_>) = self.claimed.drain(..).partition(own);
        self.claimed = others;
        for list in theirs {
            if !authorities.iter().any(|ca| list.is_signed_by(ca)) {
                continue;
            }
            match self.proven.iter_mut().find(|held| held.place == list.place) {
                Some(held) if list.number > held.number => *held = list,
                Some(_) => {}
                None => self.proven.push(list),
            }
        }
        self.proven.retain(|list| list.next_update_s > now_s - FORGOTTEN_AFTER_S);
    }

    /// `None`: there is no list that counts.
    pub fn set(&self) -> Option<CrlSet> {
        (!self.proven.is_empty()).then(|| CrlSet::of(self.proven.clone()))
    }
}

/// Past its `nextUpdate`. Whatever is older was over before.
const FORGOTTEN_AFTER_S: i64 = 86_400;
