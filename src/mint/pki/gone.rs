//! What is kept of an issuing CA that signs no more: its certificate, and why it is gone. Nothing secret. It is
//! kept for as long as somebody may take its certificate for valid.

use dayfly_domain::UnixMs;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{
    ca::{CaId, DAY_S},
    kept::{KeptKey, decoded, encoded},
    signer::PkiError,
    turns::Held,
};
use crate::mint::KeyState;

/// How long it is kept past its end: a list that was made after it says so once, and clocks differ.
const PAST_ITS_END_S: i64 = DAY_S;

/// An issuing CA that is out for ever: what its area CA's CRL lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedCa {
    pub id: CaId,
    /// Who signed it.
    pub issuer: CaId,
    pub serial: Vec<u8>,
    pub at: UnixMs,
    pub not_after: UnixMs,
}

#[derive(Debug, Clone)]
pub(super) struct Gone {
    pub revoked: RevokedCa,
    pub was: KeyState,
    pub certificate: CertificateDer<'static>,
    pub saved: bool,
}

/// An issuing CA in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    pub state: KeyState,
    pub since_s: i64,
    pub area: String,
    pub certificate: String,
    /// Of a tainted CA, and of a retired one that has left, nothing secret is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeptKey>,
    /// Of a CA without a key: what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<KeyState>,
}

impl Held {
    /// What is left of it once it is tainted, or nobody needs it any more.
    pub fn gone(&self, was: KeyState, now: UnixMs) -> Result<Gone, PkiError> {
        let revoked = RevokedCa {
            id: self.ca.id().clone(),
            issuer: self.area.clone(),
            serial: self.ca.serial()?,
            at: now,
            not_after: self.ca.not_after(),
        };
        Ok(Gone { revoked, was, certificate: self.ca.der().clone(), saved: false })
    }
}

impl Gone {
    /// Nobody takes its certificate any more, and every list that had to name it has.
    pub fn is_over(&self, now: UnixMs) -> bool {
        now > self.revoked.not_after.plus_s(PAST_ITS_END_S)
    }

    pub fn stored(&self, state: KeyState) -> Stored {
        Stored {
            state,
            since_s: self.revoked.at.as_s(),
            area: self.revoked.issuer.as_str().to_owned(),
            certificate: encoded(&self.certificate),
            key: None,
            was: Some(self.was),
        }
    }

    pub fn opened(stored: &Stored) -> Option<Self> {
        let certificate = CertificateDer::from(decoded(&stored.certificate)?);
        let revoked = RevokedCa {
            id: CaId::of_certificate(&certificate).ok()?,
            issuer: CaId::named(&stored.area)?,
            serial: super::ca::serial_of(&certificate).ok()?,
            at: UnixMs::from_s(stored.since_s),
            not_after: super::ca::window(&certificate).ok()?.1,
        };
        Some(Self { revoked, was: stored.was?, certificate, saved: true })
    }
}
