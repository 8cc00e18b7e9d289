//! What this server shows to the broker when it asks: an assertion (RFC 7523) or a token.

use std::{
    fmt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use dayfly_domain::Secret;
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::json;

use super::{Outage, SetupError};
use crate::{UnixMs, crypto::SigningKey, sys};

/// Longest credential of ours that is sent, in bytes.
const CREDENTIAL_MAX_BYTES: usize = 16 * 1024;

/// How long an assertion of our own lives. The broker remembers its outcome so long.
const LIFE_S: i64 = 300;
/// It is made anew when it has less left than this, so that it does not die on its way.
const RENEW_S: i64 = 60;
/// It begins a little in the past, for a broker whose clock is behind ours.
const BEHIND_S: i64 = 5;

const JWT_BEARER: &str = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";

/// What this server shows to the broker when it asks.
///
/// The first two are for servers: they prove an issuer of kind `verifier` that a row
/// `[[target.NAME.verifier]]` of the broker's bundle names, and may introspect for that target only.
#[derive(Debug)]
pub enum Credential {
    /// A file with a token of this server's platform, sent as `client_assertion`: a Kubernetes
    /// projected token, for one. Its audience is what the issuer's table says. Read for each
    /// question, since the platform renews it.
    AssertionFile(PathBuf),
    /// This server's own key; it signs assertions itself (`private_key_jwt`). An assertion lives
    /// five minutes and is sent with every question until it has a minute left.
    OwnKey {
        /// The `url` of the issuer's table in the bundle: `iss` and `sub` of the assertion.
        client_id: String,
        /// A P-256 private key, PKCS#8 in PEM (`BEGIN PRIVATE KEY`). Read once, at the start.
        key_file: PathBuf,
    },
    /// A file with a task token for the broker itself (`{iss}/v1`) that grants `introspect`, sent
    /// as `Authorization: Bearer`. Read for each question. What `dayfly dev` keeps for its operator.
    BearerFile(PathBuf),
    /// The same token, at hand.
    Bearer(Secret<String>),
}

/// A credential that is ready to be shown.
pub(super) enum Shown {
    AssertionFile(PathBuf),
    Own(Box<OwnKey>),
    BearerFile(PathBuf),
    Bearer(Secret<String>),
}

/// What goes into one question: a header, or fields of the form.
pub(super) enum Proof {
    Bearer(Secret<String>),
    /// Encoded, beginning with `&`.
    Fields(Secret<String>),
}

impl Shown {
    /// Reads what is read once. `audience`: the broker's issuer URL, that of our own assertions.
    pub(super) fn new(credential: Credential, audience: &str) -> Result<Self, SetupError> {
        Ok(match credential {
            Credential::AssertionFile(path) => Self::AssertionFile(path),
            Credential::BearerFile(path) => Self::BearerFile(path),
            Credential::Bearer(text) => Self::Bearer(text),
            Credential::OwnKey { client_id, key_file } => {
                let pem = sys::read_file(&key_file, CREDENTIAL_MAX_BYTES).map(Secret::new);
                let der = pem.and_then(|pem| PrivatePkcs8KeyDer::from_pem_slice(pem.expose()).ok());
                let key = der.and_then(|der| SigningKey::from_pkcs8(der.secret_pkcs8_der()).ok());
                let key = key.filter(|_| !client_id.trim().is_empty()).ok_or(SetupError::Key)?;
                Self::Own(Box::new(OwnKey { client_id, audience: audience.to_owned(), key, kept: Mutex::default() }))
            }
        })
    }

    pub(super) fn proof(&self, now: UnixMs) -> Result<Proof, Outage> {
        match self {
            Self::AssertionFile(path) => read(path).and_then(|token| fields(token.expose())),
            Self::Own(own) => own.assertion(now).and_then(|assertion| fields(assertion.expose())),
            Self::BearerFile(path) => Ok(Proof::Bearer(read(path)?)),
            Self::Bearer(text) => Ok(Proof::Bearer(trimmed(text.expose())?)),
        }
    }

    /// The broker did not accept it: the next question shows a new one, where we make them.
    pub(super) fn was_refused(&self) {
        if let Self::Own(own) = self {
            *own.kept() = None;
        }
    }
}

/// A key, and the assertion that is in use.
pub(super) struct OwnKey {
    client_id: String,
    audience: String,
    key: SigningKey,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    assertion: Secret<String>,
    made_s: i64,
}

impl OwnKey {
    fn assertion(&self, now: UnixMs) -> Result<Secret<String>, Outage> {
        let now_s = now.as_s();
        let mut kept = self.kept();
        // Not before it was made either: after a clock was set back, it may be from the future.
        let good = |kept: &&Kept| (kept.made_s..kept.made_s + LIFE_S - RENEW_S).contains(&now_s);
        if let Some(kept) = kept.as_ref().filter(good) {
            return Ok(Secret::new(kept.assertion.expose().clone()));
        }
        let claims = json!({
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.audience,
            "iat": now_s.saturating_sub(BEHIND_S),
            "exp": now_s.saturating_add(LIFE_S),
        });
        let assertion = self.key.sign("JWT", &claims).map_err(|_| Outage::Credential)?;
        *kept = Some(Kept { assertion: Secret::new(assertion.clone()), made_s: now_s });
        Ok(Secret::new(assertion))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By the client's name and the key's alone.
impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnKey").field("client_id", &self.client_id).field("key", &self.key).finish_non_exhaustive()
    }
}

fn read(path: &std::path::Path) -> Result<Secret<String>, Outage> {
    let bytes = sys::read_file(path, CREDENTIAL_MAX_BYTES).ok_or(Outage::Credential)?;
    let text = String::from_utf8(bytes).map(Secret::new).map_err(|_| Outage::Credential)?;
    trimmed(text.expose())
}

fn trimmed(text: &str) -> Result<Secret<String>, Outage> {
    match text.trim() {
        "" => Err(Outage::Credential),
        text => Ok(Secret::new(text.to_owned())),
    }
}

/// A JWT is base64url and dots, which a form needs not escape; anything else is none.
fn fields(assertion: &str) -> Result<Proof, Outage> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !assertion.bytes().all(plain) {
        return Err(Outage::Credential);
    }
    let text = format!("&client_assertion_type={JWT_BEARER}&client_assertion={assertion}");
    Ok(Proof::Fields(Secret::new(text)))
}
