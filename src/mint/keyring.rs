//! The keys that sign task tokens: next (in the JWKS a day ahead), active (a day), retired (until
//! the last `exp` they signed). They rotate by themselves. A tainted key has left for ever: of it only
//! the public part is kept.

mod taint;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use arc_swap::ArcSwap;
use base64::{Engine, engine::general_purpose::STANDARD};
use dayfly_domain::{Secret, UnixMs};
use dayfly_verifier::{KeySet, crypto::SigningKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::sys::files;
use taint::Gone;
pub use taint::{NotTainted, Tainting};

const ACTIVE_S: i64 = 24 * 3600;
/// How long a verifier may go on with the keys it fetched: the JWKS says `max-age=300`.
pub const JWKS_MAX_AGE_S: i64 = 300;
/// Name of the file below the state folder.
pub const KEYS_FILE: &str = "token-keys.json";

/// Why the keys cannot be used. Never quotes key material.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("`{path}` cannot be used: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("`{0}` does not hold a keyring")]
    Form(PathBuf),
    #[error("a key is not usable: {0}")]
    Key(#[from] dayfly_verifier::crypto::KeyError),
    #[error("the public keys are no key set: {0}")]
    Published(#[from] dayfly_verifier::KeySetError),
    #[error("the key that is to sign could not be written to its file yet")]
    Unsaved,
    /// Of the rings, one is of CAs.
    #[error(transparent)]
    Ca(#[from] super::pki::PkiError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    Next,
    Active,
    Retired,
    /// Never signs, never published, never accepted.
    Tainted,
}

/// What happened at a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    pub from: String,
    pub to: String,
}

/// A key as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyView {
    pub kid: String,
    pub state: KeyState,
    pub since: UnixMs,
    /// Of an active key, when it retires; of a retired one, when it leaves the JWKS. A tainted one
    /// is gone already.
    pub until: Option<UnixMs>,
}

#[derive(Debug)]
pub struct Keyring {
    file: Option<PathBuf>,
    keys: ArcSwap<Keys>,
    /// Whoever replaces the keys takes turns: a rotation, a taint.
    turn: Mutex<()>,
    /// The last `exp` that the active key signed.
    last_exp_s: AtomicI64,
}

#[derive(Debug, Clone)]
struct Keys {
    next: Held,
    active: Held,
    retired: Vec<Held>,
    tainted: Vec<Gone>,
    /// All but the tainted, as they are published.
    public: Arc<KeySet>,
    /// The tainted, to know what they signed when it is shown.
    suspect: Arc<KeySet>,
}

#[derive(Debug, Clone)]
struct Held {
    key: SigningKey,
    pkcs8: Arc<Secret<Vec<u8>>>,
    /// It is in the file: what it signs can be verified after a restart too.
    saved: bool,
    /// Since when it is in the JWKS.
    published: UnixMs,
    /// When it took its state.
    since: UnixMs,
    /// Of a retired key: the last `exp` it signed.
    until: UnixMs,
}

/// A key in the file. A broker from before there were tainted ones does not take a file with one.
#[derive(Serialize, Deserialize)]
struct Stored {
    state: KeyState,
    since_s: i64,
    until_s: i64,
    /// Absent where an older broker wrote the file, and of a tainted key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    published_s: Option<i64>,
    /// Of a tainted key nothing secret is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pkcs8: Option<Zeroizing<String>>,
    /// Of a tainted key; the others' follows from their secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwk: Option<serde_json::Value>,
    /// Of a tainted key: what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    was: Option<KeyState>,
}

impl Keyring {
    /// Opens `dir/token-keys.json`, or makes it with a first pair of keys. Every key proves
    /// itself by signing and verifying when it is loaded.
    pub fn open(dir: &Path, now: UnixMs) -> Result<Self, KeyringError> {
        Self::open_file(dir.join(KEYS_FILE), now)
    }

    pub(super) fn open_file(file: PathBuf, now: UnixMs) -> Result<Self, KeyringError> {
        if !file.exists() {
            let ring = Self::with(Some(file), Keys::fresh(now)?);
            ring.replace(Keys::clone(&ring.keys.load()))?;
            return Ok(ring);
        }
        let failed = |source| KeyringError::File { path: file.clone(), source };
        files::require_private(&file).map_err(failed)?;
        let bytes = Zeroizing::new(files::read_capped(&file).map_err(failed)?);
        let stored: Vec<Stored> = serde_json::from_slice(&bytes).map_err(|_| KeyringError::Form(file.clone()))?;
        let keys = Keys::from_stored(&stored)?.ok_or_else(|| KeyringError::Form(file.clone()))?;
        Ok(Self::with(Some(file), keys))
    }

    /// Keys that live and die with the process.
    pub fn in_memory(now: UnixMs) -> Result<Self, KeyringError> {
        Ok(Self::with(None, Keys::fresh(now)?.saved()))
    }

    fn with(file: Option<PathBuf>, keys: Keys) -> Self {
        Self { file, keys: ArcSwap::from_pointee(keys), turn: Mutex::default(), last_exp_s: AtomicI64::new(0) }
    }

    /// The key that signs now. `exp_s`: of what it is about to sign.
    pub fn active(&self, exp_s: i64) -> Result<SigningKey, KeyringError> {
        self.last_exp_s.fetch_max(exp_s, Ordering::SeqCst);
        let keys = self.keys.load();
        if keys.active.saved { Ok(keys.active.key.clone()) } else { Err(KeyringError::Unsaved) }
    }

    pub fn active_kid(&self) -> String {
        self.keys.load().active.key.kid().to_owned()
    }

    /// After a restart: what live leases say the active key may have signed.
    pub fn note_exp(&self, exp: UnixMs) {
        self.last_exp_s.fetch_max(exp.as_s() + 1, Ordering::SeqCst);
    }

    /// The public key set: next, active, and retired keys whose tokens may still live.
    pub fn jwks(&self) -> serde_json::Value {
        let keys = self.keys.load();
        jwks(&keys.active, &keys.next, &keys.retired)
    }

    /// The same, ready to verify with.
    pub fn public(&self) -> Arc<KeySet> {
        self.keys.load().public.clone()
    }

    pub fn view(&self) -> Vec<KeyView> {
        let keys = self.keys.load();
        let view = |held: &Held, state, until| KeyView {
            kid: held.key.kid().to_owned(),
            state,
            since: held.since,
            until: Some(until),
        };
        let mut all = vec![
            view(&keys.active, KeyState::Active, keys.active.since.plus_s(ACTIVE_S)),
            view(&keys.next, KeyState::Next, keys.active.since.plus_s(ACTIVE_S)),
        ];
        all.extend(keys.retired.iter().map(|held| view(held, KeyState::Retired, held.until)));
        all.extend(keys.tainted.iter().map(Gone::view));
        all
    }

    /// Rotates when the active key has served its day, and drops retired keys whose last token
    /// has expired. On a failure the old keys stay.
    pub fn rotate(&self, now: UnixMs) -> Result<Option<Rotation>, KeyringError> {
        let _turn = self.turn();
        let old = self.keys.load_full();
        let kept: Vec<Held> = old.retired.iter().filter(|held| held.until > now).cloned().collect();
        let gone = || old.tainted.clone();
        // One that took the place of a tainted key is not yet known everywhere.
        let due = old.active.since.plus_s(ACTIVE_S).max(old.next.published.plus_s(JWKS_MAX_AGE_S));
        if now < due {
            if kept.len() < old.retired.len() || !old.is_saved() {
                self.replace(Keys::of(old.next.clone(), old.active.clone(), kept, gone())?)?;
            }
            return Ok(None);
        }
        let rotation = Rotation { from: old.active.key.kid().to_owned(), to: old.next.key.kid().to_owned() };
        let until = UnixMs::from_s(self.last_exp_s.load(Ordering::SeqCst)).max(now);
        let retired = Held { since: now, until, ..old.active.clone() };
        let active = Held { since: now, ..old.next.clone() };
        let retired = kept.into_iter().chain([retired]).collect();
        self.replace(Keys::of(Held::generate(now)?, active, retired, gone())?)?;
        self.keep_until_last_exp(&rotation.from)?;
        Ok(Some(rotation))
    }

    /// A token may have been signed with the old key while it was being replaced. Whoever took
    /// the key said its `exp` before, so after the swap the last one is known.
    // INVARIANT: `active` writes `last_exp_s` before it loads the keys.
    fn keep_until_last_exp(&self, kid: &str) -> Result<(), KeyringError> {
        let last_exp = UnixMs::from_s(self.last_exp_s.load(Ordering::SeqCst));
        let keys = self.keys.load_full();
        let mut retired = keys.retired.clone();
        match retired.iter_mut().find(|held| held.key.kid() == kid && held.until < last_exp) {
            Some(held) => held.until = last_exp,
            None => return Ok(()),
        }
        self.replace(Keys::of(keys.next.clone(), keys.active.clone(), retired, keys.tainted.clone())?)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, keys: Keys) -> Result<(), KeyringError> {
        self.save(&keys)?;
        self.keys.store(Arc::new(keys.saved()));
        Ok(())
    }

    fn save(&self, keys: &Keys) -> Result<(), KeyringError> {
        let Some(file) = &self.file else { return Ok(()) };
        let stored: Vec<Stored> = keys.stored();
        let bytes = serde_json::to_vec(&stored).map(Zeroizing::new).map_err(|_| KeyringError::Form(file.clone()))?;
        files::write_atomic(file, &bytes, 0o600).map_err(|source| KeyringError::File { path: file.clone(), source })
    }
}

impl Held {
    fn generate(now: UnixMs) -> Result<Self, KeyringError> {
        Self::load(SigningKey::generate_pkcs8()?, now, UnixMs::default())
    }

    fn load(pkcs8: Secret<Vec<u8>>, since: UnixMs, until: UnixMs) -> Result<Self, KeyringError> {
        let key = SigningKey::from_pkcs8(pkcs8.expose())?;
        Ok(Self { key, pkcs8: Arc::new(pkcs8), saved: false, published: since, since, until })
    }

    /// `None`: nothing that can be read stands there.
    fn from_stored(stored: &Stored) -> Result<Option<Self>, KeyringError> {
        let pkcs8 = stored.pkcs8.as_ref().and_then(|pkcs8| STANDARD.decode(pkcs8.as_bytes()).ok());
        let (since, until) = (UnixMs::from_s(stored.since_s), UnixMs::from_s(stored.until_s));
        let held = pkcs8.map(|pkcs8| Self::load(Secret::new(pkcs8), since, until)).transpose()?;
        Ok(held.map(|held| Self { published: stored.published_s.map_or(since, UnixMs::from_s), ..held }))
    }

    fn stored(&self, state: KeyState) -> Stored {
        Stored {
            state,
            since_s: self.since.as_s(),
            until_s: self.until.as_s(),
            published_s: Some(self.published.as_s()),
            pkcs8: Some(Zeroizing::new(STANDARD.encode(self.pkcs8.expose()))),
            jwk: None,
            was: None,
        }
    }
}

impl Keys {
    fn fresh(now: UnixMs) -> Result<Self, KeyringError> {
        Self::of(Held::generate(now)?, Held::generate(now)?, Vec::new(), Vec::new())
    }

    fn of(next: Held, active: Held, retired: Vec<Held>, tainted: Vec<Gone>) -> Result<Self, KeyringError> {
        let public = Arc::new(KeySet::parse(jwks(&active, &next, &retired).to_string().as_bytes())?);
        let suspect = Arc::new(KeySet::parse(Gone::jwks(&tainted).to_string().as_bytes())?);
        Ok(Self { next, active, retired, tainted, public, suspect })
    }

    /// What is in the file now.
    fn saved(mut self) -> Self {
        let held = [&mut self.next, &mut self.active].into_iter().chain(&mut self.retired);
        held.for_each(|held| held.saved = true);
        self.tainted.iter_mut().for_each(|gone| gone.saved = true);
        self
    }

    fn is_saved(&self) -> bool {
        self.next.saved && self.active.saved && self.tainted.iter().all(|gone| gone.saved)
    }

    fn stored(&self) -> Vec<Stored> {
        let mut all = vec![self.active.stored(KeyState::Active), self.next.stored(KeyState::Next)];
        all.extend(self.retired.iter().map(|held| held.stored(KeyState::Retired)));
        all.extend(self.tainted.iter().map(Gone::stored));
        all
    }

    fn from_stored(stored: &[Stored]) -> Result<Option<Self>, KeyringError> {
        let (mut next, mut active, mut retired, mut tainted) = (None, None, Vec::new(), Vec::new());
        for key in stored {
            let held = || Held::from_stored(key);
            match key.state {
                KeyState::Next => next = held()?,
                KeyState::Active => active = held()?,
                KeyState::Retired => match held()? {
                    Some(held) => retired.push(held),
                    None => return Ok(None),
                },
                KeyState::Tainted => match Gone::from_stored(key) {
                    Some(gone) => tainted.push(gone),
                    None => return Ok(None),
                },
            }
        }
        let keys = next.zip(active).map(|(next, active)| Self::of(next, active, retired, tainted)).transpose()?;
        Ok(keys.map(Self::saved))
    }
}

fn jwks(active: &Held, next: &Held, retired: &[Held]) -> serde_json::Value {
    let all = [active, next].into_iter().chain(retired);
    serde_json::json!({ "keys": all.map(|held| held.key.jwk()).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMs = UnixMs::from_s(1_800_000_000);

    fn kids(ring: &Keyring) -> Vec<String> {
        let jwks = ring.jwks();
        jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn keys_are_published_a_day_ahead_and_leave_with_their_last_token() {
        dayfly_verifier::crypto::init().unwrap();
        let ring = Keyring::in_memory(START).unwrap();
        let first = kids(&ring);
        assert_eq!(ring.rotate(START.plus_s(ACTIVE_S - 1)).unwrap(), None);
        let at = START.plus_s(ACTIVE_S);
        ring.active(at.as_s() + 900).unwrap();
        let rotation = ring.rotate(at).unwrap().unwrap();
        assert_eq!((rotation.from, rotation.to), (first[0].clone(), first[1].clone()));
        assert_eq!(ring.active_kid(), first[1]);
        assert!(kids(&ring).contains(&first[0]), "tokens it signed still live");
        let public = ring.public();
        assert!(public.len() == 3 && kids(&ring).iter().all(|kid| public.contains(Some(kid), "ES256")));
        ring.rotate(at.plus_s(901)).unwrap();
        assert!(!kids(&ring).contains(&first[0]) && !ring.public().contains(Some(&first[0]), "ES256"));
    }

    #[test]
    fn the_file_is_private_and_survives() {
        dayfly_verifier::crypto::init().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let before = kids(&Keyring::open(dir.path(), START).unwrap());
        let file = dir.path().join(KEYS_FILE);
        files::require_private(&file).unwrap();
        assert_eq!(kids(&Keyring::open(dir.path(), START).unwrap()), before);
        std::fs::write(&file, b"[]").unwrap();
        assert!(matches!(Keyring::open(dir.path(), START), Err(KeyringError::Form(_))));
    }

    #[test]
    fn debug_shows_no_key() {
        dayfly_verifier::crypto::init().unwrap();
        let ring = Keyring::in_memory(START).unwrap();
        let shown = format!("{ring:?}");
        let secret = STANDARD.encode(ring.keys.load().active.pkcs8.expose());
        assert!(!shown.contains(&secret) && shown.contains("[redacted]"));
    }
}
