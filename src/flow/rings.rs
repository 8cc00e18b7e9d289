//! Every ring whose keys sign credentials, seen alike: task tokens, status lists, certificates.

use dayfly_domain::UnixMs;

use super::Shared;
use crate::mint::{KeyState, Keyring, NotTainted, Tainting, pki::Pki};

#[derive(Clone, Copy)]
pub(super) enum Ring<'a> {
    /// Of task tokens, or of status lists.
    Keys(&'a Keyring),
    Cas(&'a Pki),
}

impl Shared {
    /// Every ring whose keys verifiers believe.
    pub(super) fn rings(&self) -> impl Iterator<Item = Ring<'_>> {
        [Ring::Keys(&self.keyring), Ring::Keys(self.list_keys.ring())]
            .into_iter()
            .chain(self.pki.as_deref().map(Ring::Cas))
    }

    pub(super) fn ring_of(&self, kid: &str) -> Option<Ring<'_>> {
        self.rings().find(|ring| ring.state(kid).is_some())
    }
}

impl Ring<'_> {
    pub fn state(self, kid: &str) -> Option<KeyState> {
        match self {
            Self::Keys(ring) => ring.state(kid),
            Self::Cas(pki) => pki.state(kid),
        }
    }

    pub fn taint(self, kid: &str, now: UnixMs) -> Result<Tainting, NotTainted> {
        match self {
            Self::Keys(ring) => ring.taint(kid, now),
            Self::Cas(pki) => pki.taint(kid, now),
        }
    }

    pub fn tainting(self, kid: &str) -> Option<Tainting> {
        match self {
            Self::Keys(ring) => ring.tainting(kid),
            Self::Cas(pki) => pki.tainting(kid),
        }
    }

    pub fn is_tainted(self, kid: &str) -> bool {
        match self {
            Self::Keys(ring) => ring.is_tainted(kid),
            Self::Cas(pki) => pki.is_tainted(kid),
        }
    }

    /// Name and state of each.
    pub fn view(self) -> Vec<(String, KeyState)> {
        match self {
            Self::Keys(ring) => ring.view().into_iter().map(|key| (key.kid, key.state)).collect(),
            Self::Cas(pki) => {
                let issuing = pki.view().into_iter().filter(|ca| pki.state(ca.id.as_str()).is_some());
                issuing.map(|ca| (ca.id.as_str().to_owned(), ca.state)).collect()
            }
        }
    }

    /// Who signs now.
    pub fn signs(self) -> Option<String> {
        match self {
            Self::Keys(ring) => Some(ring.active_kid()),
            Self::Cas(pki) => pki.active_id().map(|id| id.as_str().to_owned()),
        }
    }

    /// Since when a key that signs is known to those who fetch keys. A CA comes with what it signed.
    pub fn published(self, kid: &str) -> Option<UnixMs> {
        match self {
            Self::Keys(ring) => ring.published(kid),
            Self::Cas(_) => None,
        }
    }
}
