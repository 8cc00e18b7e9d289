//! A key that somebody else may have. It leaves at once and for ever: it signs nothing more, is in no
//! JWKS, and a restart does not bring it back. Its secret part goes with it.
//!
//! In: a `kid`. Out: what it was, and the key that signs instead. The file is written before anything
//! is said of it; when that fails, memory knows all the same, and the next rotation tries again.

use std::sync::Arc;

use dayfly_domain::UnixMs;
use dayfly_verifier::KeySet;
use serde_json::{Value, json};

use super::{Held, KeyState, KeyView, Keyring, KeyringError, Keys, Stored};

/// Tainted keys whose signatures are still recognised; all of them stay tainted.
const SUSPECTS_MAX: usize = 32;

/// Why a key was not tainted for good.
#[derive(Debug, thiserror::Error)]
pub enum NotTainted {
    #[error("no key of that name")]
    Unknown,
    /// It is in memory, and with a restart it would not be.
    #[error("the keys could not be written: {0}")]
    Unsaved(KeyringError),
    #[error("no key can take its place: {0}")]
    Stuck(KeyringError),
}

/// A key that is tainted, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tainting {
    pub at: UnixMs,
    /// What it was before.
    pub was: KeyState,
}

/// A tainted key: its name and its public part.
#[derive(Debug, Clone)]
pub(super) struct Gone {
    pub kid: String,
    pub jwk: Value,
    pub was: KeyState,
    pub since: UnixMs,
    pub saved: bool,
}

impl Keyring {
    /// Takes a key out, whatever it is. An active one gives way to the next, which verifiers know
    /// already; the place of the next is filled anew. A tainted one stays what it is.
    // SECURITY: `a_tainted_key_never_signs_again`.
    pub fn taint(&self, kid: &str, now: UnixMs) -> Result<Tainting, NotTainted> {
        let _turn = self.turn();
        let old = self.keys.load_full();
        if let Some(gone) = old.tainted.iter().find(|gone| gone.kid == kid) {
            if !gone.saved {
                self.replace(Keys::clone(&old)).map_err(NotTainted::Unsaved)?;
            }
            return Ok(gone.tainting());
        }
        let (was, keys) = old.without(kid, now).map_err(NotTainted::Stuck)?.ok_or(NotTainted::Unknown)?;
        if let Err(error) = self.save(&keys) {
            // Ends count from the moment they are asked (law L6). A key that is in no file yet signs
            // nothing.
            self.keys.store(Arc::new(keys));
            return Err(NotTainted::Unsaved(error));
        }
        self.keys.store(Arc::new(keys.saved()));
        Ok(Tainting { at: now, was })
    }

    pub fn is_tainted(&self, kid: &str) -> bool {
        self.keys.load().tainted.iter().any(|gone| gone.kid == kid)
    }

    /// What this key is, if it is one of ours.
    pub fn state(&self, kid: &str) -> Option<KeyState> {
        self.view().into_iter().find(|key| key.kid == kid).map(|key| key.state)
    }

    /// Since when a key is in the JWKS that is or was to sign.
    pub fn published(&self, kid: &str) -> Option<UnixMs> {
        let keys = self.keys.load();
        let mut held = [&keys.active, &keys.next].into_iter().chain(&keys.retired);
        held.find(|held| held.key.kid() == kid).map(|held| held.published)
    }

    /// When and as what a key was tainted, if it was.
    pub fn tainting(&self, kid: &str) -> Option<Tainting> {
        self.keys.load().tainted.iter().find(|gone| gone.kid == kid).map(Gone::tainting)
    }

    /// The public parts of tainted keys: to recognise what is signed with them, never to believe it.
    pub fn suspect(&self) -> Arc<KeySet> {
        self.keys.load().suspect.clone()
    }
}

impl Keys {
    /// The same without this key; `None`: there is no such key.
    fn without(&self, kid: &str, now: UnixMs) -> Result<Option<(KeyState, Self)>, KeyringError> {
        let Self { next, active, retired, tainted, .. } = self;
        let is = |held: &&Held| held.key.kid() == kid;
        let (was, held) = match [active, next].into_iter().chain(retired).find(is) {
            None => return Ok(None),
            Some(held) if held.key.kid() == active.key.kid() => (KeyState::Active, held),
            Some(held) if held.key.kid() == next.key.kid() => (KeyState::Next, held),
            Some(held) => (KeyState::Retired, held),
        };
        let gone = Gone { kid: kid.to_owned(), jwk: held.key.jwk(), was, since: now, saved: false };
        let kept = retired.iter().filter(|held| held.key.kid() != kid).cloned().collect();
        let tainted = tainted.iter().cloned().chain([gone]).collect();
        let (next, active) = match was {
            KeyState::Active => (Held::generate(now)?, Held { since: now, ..next.clone() }),
            KeyState::Next => (Held::generate(now)?, active.clone()),
            KeyState::Retired | KeyState::Tainted => (next.clone(), active.clone()),
        };
        Ok(Some((was, Self::of(next, active, kept, tainted)?)))
    }
}

impl Gone {
    fn tainting(&self) -> Tainting {
        Tainting { at: self.since, was: self.was }
    }

    pub fn view(&self) -> KeyView {
        KeyView { kid: self.kid.clone(), state: KeyState::Tainted, since: self.since, until: None }
    }

    pub fn stored(&self) -> Stored {
        Stored {
            state: KeyState::Tainted,
            since_s: self.since.as_s(),
            until_s: 0,
            published_s: None,
            pkcs8: None,
            jwk: Some(self.jwk.clone()),
            was: Some(self.was),
        }
    }

    pub fn from_stored(stored: &Stored) -> Option<Self> {
        let jwk = stored.jwk.clone()?;
        let kid = jwk.get("kid")?.as_str()?.to_owned();
        Some(Self { kid, jwk, was: stored.was?, since: UnixMs::from_s(stored.since_s), saved: true })
    }

    /// The latest of them.
    pub fn jwks(all: &[Self]) -> Value {
        json!({ "keys": all.iter().rev().take(SUSPECTS_MAX).map(|gone| &gone.jwk).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mint::KEYS_FILE;

    const START: UnixMs = UnixMs::from_s(1_800_000_000);

    fn ring() -> Keyring {
        dayfly_verifier::crypto::init().unwrap();
        Keyring::in_memory(START).unwrap()
    }

    fn kid(ring: &Keyring, state: KeyState) -> String {
        ring.view().into_iter().find(|key| key.state == state).unwrap().kid
    }

    fn is_published(ring: &Keyring, kid: &str) -> bool {
        ring.jwks().to_string().contains(kid) || ring.public().contains(Some(kid), "ES256")
    }

    #[test]
    fn a_tainted_key_never_signs_again() {
        let ring = ring();
        let (active, next) = (kid(&ring, KeyState::Active), kid(&ring, KeyState::Next));
        let at = START.plus_s(60);
        assert_eq!(ring.taint(&active, at).unwrap(), Tainting { at, was: KeyState::Active });
        assert_eq!((ring.active_kid(), ring.active(0).unwrap().kid().to_owned()), (next.clone(), next.clone()));
        assert!(!is_published(&ring, &active) && is_published(&ring, &next));
        assert!(ring.is_tainted(&active) && ring.suspect().contains(Some(&active), "ES256"));
        assert_eq!(ring.public().len(), 2, "a new next is there at once");
        for day in 1..4 {
            ring.rotate(at.plus_s(day * super::super::ACTIVE_S)).unwrap().unwrap();
            assert!(!is_published(&ring, &active) && ring.active_kid() != active);
        }
        assert_eq!(ring.state(&active), Some(KeyState::Tainted));
    }

    #[test]
    fn the_next_and_a_retired_key_can_be_tainted() {
        let ring = ring();
        ring.active(START.as_s() + 200_000).unwrap();
        ring.rotate(START.plus_s(super::super::ACTIVE_S)).unwrap().unwrap();
        let (retired, active, next) =
            (kid(&ring, KeyState::Retired), kid(&ring, KeyState::Active), kid(&ring, KeyState::Next));
        assert_eq!(ring.taint(&retired, START).unwrap().was, KeyState::Retired);
        assert_eq!(ring.taint(&next, START).unwrap().was, KeyState::Next);
        assert_eq!(ring.active_kid(), active, "it goes on");
        assert!(!is_published(&ring, &retired) && !is_published(&ring, &next));
        assert_eq!(ring.taint(&retired, START.plus_s(9)).unwrap(), Tainting { at: START, was: KeyState::Retired });
        assert!(matches!(ring.taint("no-such", START), Err(NotTainted::Unknown)));
        assert!(matches!(ring.taint("", START), Err(NotTainted::Unknown)));
    }

    #[test]
    fn all_keys_can_be_tainted_and_a_fresh_one_signs() {
        let ring = ring();
        let before: Vec<String> = ring.view().into_iter().map(|key| key.kid).collect();
        std::thread::scope(|scope| {
            before.iter().for_each(|kid| drop(scope.spawn(|| ring.taint(kid, START.plus_s(5)).unwrap())));
        });
        assert!(before.iter().all(|kid| ring.is_tainted(kid) && !is_published(&ring, kid)));
        assert!(!before.contains(&ring.active_kid()) && ring.active(0).is_ok());
        assert_eq!(ring.published(&ring.active_kid()), Some(START.plus_s(5)), "nobody knew it before");
    }

    #[test]
    fn a_rotation_waits_until_a_fresh_next_is_known() {
        let ring = ring();
        let due = START.plus_s(super::super::ACTIVE_S);
        ring.taint(&kid(&ring, KeyState::Next), due.plus_s(-1)).unwrap();
        assert_eq!(ring.rotate(due.plus_s(298)).unwrap(), None);
        assert!(ring.rotate(due.plus_s(299)).unwrap().is_some());
    }

    #[test]
    fn a_taint_survives_the_file_and_its_secret_does_not() {
        dayfly_verifier::crypto::init().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::open(dir.path(), START).unwrap();
        let tainted = ring.active_kid();
        let text = || std::fs::read_to_string(dir.path().join(KEYS_FILE)).unwrap();
        let secret = serde_json::from_str::<Value>(&text()).unwrap()[0]["pkcs8"].as_str().unwrap().to_owned();
        ring.taint(&tainted, START.plus_s(1)).unwrap();
        assert!(!text().contains(&secret) && text().contains(&tainted));
        let again = Keyring::open(dir.path(), START.plus_s(2)).unwrap();
        assert_eq!(again.view(), ring.view());
        assert!(again.is_tainted(&tainted) && !is_published(&again, &tainted));
        assert_eq!(again.taint(&tainted, START.plus_s(3)).unwrap().at, START.plus_s(1));
    }

    #[test]
    fn what_cannot_be_written_is_in_force_and_signs_with_no_unwritten_key() {
        dayfly_verifier::crypto::init().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ring = Keyring::open(dir.path(), START).unwrap();
        let (active, next) = (kid(&ring, KeyState::Active), kid(&ring, KeyState::Next));
        let away = dir.path().with_extension("away");
        std::fs::rename(dir.path(), &away).unwrap();
        assert!(matches!(ring.taint(&active, START), Err(NotTainted::Unsaved(_))));
        assert_eq!(ring.active(0).unwrap().kid(), next, "the next is in the file");
        assert!(matches!(ring.taint(&next, START), Err(NotTainted::Unsaved(_))));
        assert!(matches!(ring.active(0), Err(KeyringError::Unsaved)));
        assert!(matches!(ring.taint(&active, START), Err(NotTainted::Unsaved(_))), "it is no success yet");
        assert!(ring.rotate(START).is_err());
        std::fs::rename(&away, dir.path()).unwrap();
        ring.rotate(START).unwrap();
        assert!(ring.active(0).is_ok() && ring.taint(&active, START).is_ok());
        assert_eq!(Keyring::open(dir.path(), START).unwrap().view(), ring.view());
    }
}
