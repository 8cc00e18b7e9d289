//! The keys that sign status lists: their own, in a file of their own, published beside those of task
//! tokens. A list key signs nothing but lists, and no other key signs lists: each ring has one verb.

use std::{path::Path, sync::Arc};

use dayfly_domain::UnixMs;
use dayfly_verifier::{
    KeySet,
    status::{LIST_TOKEN_TYP, ListClaims},
};

use super::{
    keyring::{KeyView, Keyring, KeyringError, Rotation},
    plan::MintError,
};

/// Name of the file below the state folder.
pub const LIST_KEYS_FILE: &str = "list-keys.json";
/// No list lives longer (`list_life` of a target).
const LIFE_MAX_S: i64 = 24 * 3_600;

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
        key.sign(LIST_TOKEN_TYP, claims).map_err(|error| MintError::Key(error.to_string()))
    }

    /// As [`Keyring::jwks`].
    pub fn jwks(&self) -> serde_json::Value {
        self.0.jwks()
    }

    /// As [`Keyring::public`].
    pub fn public(&self) -> Arc<KeySet> {
        self.0.public()
    }

    pub fn view(&self) -> Vec<KeyView> {
        self.0.view()
    }

    /// As [`Keyring::rotate`].
    pub fn rotate(&self, now: UnixMs) -> Result<Option<Rotation>, KeyringError> {
        self.0.rotate(now)
    }
}
