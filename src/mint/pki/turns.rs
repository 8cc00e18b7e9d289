//! Who signs certificates now. Issuing CAs take turns: a next one, the active one, retired ones whose
//! leaves may still live.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dayfly_domain::UnixMs;
use rustls_pki_types::CertificateDer;

use super::{
    ca::{CA_TIERS, Ca, CaId, CaTerms, Tier},
    signer::{FileKey, PkiError},
};
use crate::sys::entropy;

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

#[derive(Debug, Clone)]
struct Turns {
    active: Arc<Ca>,
    next: Option<Arc<Ca>>,
    retired: Vec<Arc<Ca>>,
}

/// The CAs of one trust domain. The root's key is never here.
#[derive(Debug)]
pub struct Pki {
    places: Places,
    root: CertificateDer<'static>,
    area: Arc<Ca>,
    turns: ArcSwap<Turns>,
}

impl Pki {
    /// Three tiers that live and die with the process: for `dev` in memory, and for tests.
    pub fn in_memory(trust_domain: &str, places: Places, now: UnixMs) -> Result<Self, PkiError> {
        let [root_tier, area_tier, issuing_tier] = CA_TIERS;
        let from = now.plus_s(-60);
        let key = || FileKey::generate().map(Arc::new);
        let serial = || entropy::bytes().map_err(|_| PkiError::Key("there is no randomness".to_owned()));
        let terms = |tier: Tier, crl| {
            Ok::<_, PkiError>(CaTerms { tier, trust_domain, serial: serial()?, from, life_s: tier.life_s, crl })
        };
        let root = Ca::root(&terms(root_tier, None)?, key()?)?;
        let crl = Some(places.crl(root.id(), 0));
        let area = root.subordinate(&terms(area_tier, crl)?, key()?)?;
        let crl = Some(places.crl(area.id(), 0));
        let active = area.subordinate(&terms(issuing_tier, crl)?, key()?)?;
        let turns = Turns { active: Arc::new(active), next: None, retired: Vec::new() };
        let root = root.der().clone();
        Ok(Self { places, root, area: Arc::new(area), turns: ArcSwap::from_pointee(turns) })
    }

    pub fn places(&self) -> &Places {
        &self.places
    }

    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    pub fn area(&self) -> &Arc<Ca> {
        &self.area
    }

    /// The CA that signs a leaf which is valid until `exp`.
    pub fn active(&self, exp: UnixMs) -> Result<Arc<Ca>, PkiError> {
        let turns = self.turns.load();
        (turns.active.not_after() >= exp).then(|| turns.active.clone()).ok_or(PkiError::NoCa)
    }

    /// Whether the CA of this id signs nothing more, because somebody else may have its key.
    pub fn is_tainted(&self, _id: &str) -> bool {
        false
    }

    /// All that may have signed a leaf that lives, the active one first.
    pub fn issuing(&self) -> Vec<Arc<Ca>> {
        let turns = self.turns.load();
        std::iter::once(&turns.active).chain(&turns.next).chain(&turns.retired).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs::from_s(1_800_000_000);

    #[test]
    fn each_tier_is_signed_by_the_one_above_and_ends_no_later() {
        let pki = Pki::in_memory("example.org", Places { base: "http://pki.test".into() }, NOW).unwrap();
        let (area, issuing) = (pki.area(), pki.active(NOW.plus_s(900)).unwrap());
        assert!(issuing.not_after() <= area.not_after());
        assert_eq!(issuing.not_after().as_s() - issuing.not_before().as_s(), 3 * 86_400 - 1);
        assert!(pki.active(NOW.plus_s(4 * 86_400)).is_err(), "none lives that long");
    }
}
