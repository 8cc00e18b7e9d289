//! The keys that sign status lists: their own, in a file of their own, published beside those of task
//! tokens. A list key signs nothing but lists, and no other key signs lists: each ring has one verb.

use std::{path::Path, sync::Arc};

use dayfly_domain::UnixMs;
use dayfly_verifier::{
    KeySet, USE_LISTS, USE_MEMBER,
    status::{LIST_TOKEN_TYP, ListClaims},
};

use super::{
    keyring::{Keyring, KeyringError, Rotation},
    plan::MintError,
};

/// Name of the file below the state folder.
pub const LIST_KEYS_FILE: &str = "list-keys.json";
/// No list lives longer (`list_life` of a target).
const LIFE_MAX_S: i64 = 24 * 3_600;

/// What the keys of a ring sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    Tokens,
    Lists,
}

#[derive(Debug)]
pub struct ListKeyring(Keyring);

impl ListKeyring {
    /// As [`Keyring::open`]. Lists are on no record: before a restart the active key may have signed one of
    /// the longest life.
    pub fn open(dir: &Path, now: UnixMs) -> Result<Self, KeyringError> {
        let ring = Keyring::open_file(dir.join(LIST_KEYS_FILE), now)?;
        ring.note_exp(now.plus_s(LIFE_MAX_S));
        Ok(Self(ring))
    }

    /// Keys that live and die with the process.
    pub fn in_memory(now: UnixMs) -> Result<Self, KeyringError> {
        Keyring::in_memory(now).map(Self)
    }

    /// The status list token.
    // SECURITY: `t_108_a_list_is_signed_by_a_list_key_and_a_token_never`.
    pub fn sign(&self, claims: &ListClaims) -> Result<String, MintError> {
        let key = self.0.active(claims.exp).map_err(|error| MintError::Key(error.to_string()))?;
        let token = key.sign(LIST_TOKEN_TYP, claims).map_err(|error| MintError::Key(error.to_string()))?;
        // Tainted while it signed: another try has another key.
        if self.0.is_tainted(key.kid()) { Err(MintError::Key("it was tainted".to_owned())) } else { Ok(token) }
    }

    /// As [`Keyring::jwks`]; each key says that it is for lists, so that our verifier takes no token of it.
    pub fn jwks(&self) -> serde_json::Value {
        let mut jwks = self.0.jwks();
        for key in jwks["keys"].as_array_mut().into_iter().flatten() {
            key[USE_MEMBER] = USE_LISTS.into();
        }
        jwks
    }

    /// For what goes for every ring: which keys are there, and which of them are tainted.
    pub fn ring(&self) -> &Keyring {
        &self.0
    }

    /// As [`Keyring::public`].
    pub fn public(&self) -> Arc<KeySet> {
        self.0.public()
    }

    /// As [`Keyring::rotate`].
    pub fn rotate(&self, now: UnixMs) -> Result<Option<Rotation>, KeyringError> {
        self.0.rotate(now)
    }
}
