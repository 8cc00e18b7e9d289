//! The authority as the settings name it: its folder, the key that opens it, and the token with the area CA's
//! key.

use std::{io, path::PathBuf, sync::Arc};

use dayfly_domain::UnixMs;
use zeroize::Zeroizing;

use crate::{
    config::{self, Pkcs11Uri, SealSource, Settings},
    mint::pki::{AreaToken, Folder, Pki, PkiError, Places, SealKey},
    sys::{
        credentials, env, files,
        token::{Token, TokenError, TokenPlace},
    },
};

/// Name of the authority's folder below the state folder, unless the settings say otherwise.
const FOLDER: &str = "pki";
/// In it, whoever signs below it.
const LOCK: &str = "broker.lock";

/// Why there is no authority, though the settings name one.
#[derive(Debug, thiserror::Error)]
pub enum PkiSettingsError {
    #[error("the seal key `{from}` cannot be read: {source}")]
    Seal { from: SealSource, source: io::Error },
    #[error("the seal key `{0}` is not set")]
    Unset(SealSource),
    #[error("the PIN `{from}` cannot be read: {source}")]
    Pin { from: SealSource, source: io::Error },
    #[error("the PIN `{0}` is not one line of text")]
    NoPin(SealSource),
    #[error("`pki.area_key`: {0}")]
    Token(TokenError),
    #[error("`{from}`: {source}")]
    SealKey { from: SealSource, source: PkiError },
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("another broker holds `{0}`: each needs an authority's folder of its own")]
    Locked(PathBuf),
    #[error("`{path}` cannot be locked: {source}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("the authority is that of `{authority}`, and the bundle's trust domain is `{bundle}`")]
    TrustDomain { authority: String, bundle: String },
}

/// The authority's folder and the places that stand in certificates.
pub fn pki_folder(settings: &Settings, table: &config::Pki) -> Result<(Folder, Places), PkiSettingsError> {
    let seal = Arc::new(seal_key(&table.seal)?);
    let token = table.area_key.as_ref().map(area_token).transpose()?;
    Ok((Folder { dir: pki_dir(settings, table), seal, token }, Places { base: table.url.clone() }))
}

pub fn pki_dir(settings: &Settings, table: &config::Pki) -> PathBuf {
    table.dir.clone().unwrap_or_else(|| settings.state_dir.join(FOLDER))
}

/// Held for as long as this broker's CAs take turns in the folder: of two, each would write over the other's,
/// and what one has tainted would sign at the other. Ceremonies write another file, and go on beside it.
// SECURITY: `two_brokers_do_not_share_an_authority`.
pub(super) fn lock(settings: &Settings) -> Result<Option<files::StateLock>, PkiSettingsError> {
    let dir = settings.pki.as_ref().map(|table| pki_dir(settings, table));
    // Where there is none, opening it says so.
    let Some(path) = dir.filter(|dir| dir.is_dir()).map(|dir| dir.join(LOCK)) else { return Ok(None) };
    files::lock(&path).map(Some).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => PkiSettingsError::Locked(path),
        _ => PkiSettingsError::Lock { path, source },
    })
}

/// `None`: the settings name none. `trust_domain`: of the bundle.
pub(super) fn open(settings: &Settings, trust_domain: &str, now: UnixMs) -> Result<Option<Pki>, PkiSettingsError> {
    let Some(table) = &settings.pki else { return Ok(None) };
    let (folder, places) = pki_folder(settings, table)?;
    let pki = Pki::open(folder, places, now)?;
    let authority = pki.authority().trust_domain.clone();
    if authority != trust_domain {
        return Err(PkiSettingsError::TrustDomain { authority, bundle: trust_domain.to_owned() });
    }
    Ok(Some(pki))
}

// SECURITY: a seal key that others may read is none; `a_seal_key_that_others_may_read_is_refused`.
fn seal_key(source: &SealSource) -> Result<SealKey, PkiSettingsError> {
    let bytes = secret(source).map_err(|error| PkiSettingsError::Seal { from: source.clone(), source: error })?;
    SealKey::parse(&bytes).map_err(|error| PkiSettingsError::SealKey { from: source.clone(), source: error })
}

/// The token is not asked yet: it may be away.
fn area_token(uri: &Pkcs11Uri) -> Result<AreaToken, PkiSettingsError> {
    let place = TokenPlace {
        module: uri.module.clone(),
        label: uri.token.clone(),
        serial: uri.serial.clone(),
        manufacturer: uri.manufacturer.clone(),
        model: uri.model.clone(),
    };
    let token = Arc::new(Token::new(place, pin(&uri.pin)?).map_err(PkiSettingsError::Token)?);
    Ok(AreaToken { token, label: uri.object.clone(), id: uri.id.clone() })
}

// SECURITY: a PIN that others may read is none; `a_pin_that_others_may_read_is_refused`.
fn pin(source: &SealSource) -> Result<Zeroizing<String>, PkiSettingsError> {
    let bytes = secret(source).map_err(|error| PkiSettingsError::Pin { from: source.clone(), source: error })?;
    let text = std::str::from_utf8(&bytes).map(|text| text.trim_end_matches(['\n', '\r']));
    match text {
        Ok(text) if !text.is_empty() && !text.contains(char::is_control) => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(PkiSettingsError::NoPin(source.clone())),
    }
}

fn secret(source: &SealSource) -> io::Result<Zeroizing<Vec<u8>>> {
    let bytes = match source {
        SealSource::File(path) => {
            files::require_private(path)?;
            files::read_capped(path)?
        }
        SealSource::Credential(name) => credentials::read(name)?,
        SealSource::Env(name) => {
            let unset = || io::Error::new(io::ErrorKind::NotFound, "it is not set");
            env::var(name).ok_or_else(unset)?.into_bytes()
        }
    };
    Ok(Zeroizing::new(bytes))
}
