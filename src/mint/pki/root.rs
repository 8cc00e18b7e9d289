//! The root's own file: its key, sealed with a passphrase, and what it has signed and taken back. The broker's
//! folder may be stolen, lost or put back from before: what a root took back is said by whoever holds the root.
//!
//! In: a file and its passphrase. Out: the root, and a record that only the passphrase writes.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{
    ca::{Ca, CaId},
    kept::{KeptRevoked, decoded, encoded},
    sealed::{PassphraseSealed, Purpose, SealKey, Sealed},
    signer::{FileKey, PkiError},
};
use crate::sys::files;

/// The root with its key, for as long as a ceremony lasts.
#[derive(Debug)]
pub struct RootKey {
    pub(super) ca: Ca,
    /// `None`: of a root that nobody keeps.
    file: Option<RootFile>,
}

#[derive(Debug)]
struct RootFile {
    path: PathBuf,
    /// What the passphrase opens the file with.
    seal: SealKey,
}

/// The root's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptRoot {
    dayfly_root: u32,
    id: String,
    certificate: String,
    key: PassphraseSealed,
    record: RootRecord,
    /// Whoever has the file alone writes no record.
    record_seal: Sealed,
}

/// What a root has done so far. Nothing is ever taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RootRecord {
    /// Of its last CRL.
    pub crl_number: u64,
    pub areas: Vec<SignedArea>,
    pub revoked: Vec<KeptRevoked>,
}

/// An area CA that the root signed, wherever its key is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignedArea {
    pub id: String,
    /// Hexadecimal.
    pub serial: String,
}

impl RootKey {
    /// Writes the file, which must not be there yet.
    pub(super) fn make(ca: Ca, key: &FileKey, path: &Path, passphrase: &str) -> Result<Self, PkiError> {
        let (sealed, seal) = PassphraseSealed::seal(passphrase, ca.id(), key.pkcs8())?;
        let record = RootRecord::default();
        let kept = KeptRoot {
            dayfly_root: 1,
            id: ca.id().as_str().to_owned(),
            certificate: encoded(ca.der()),
            key: sealed,
            record_seal: seal.attest(Purpose::RootRecord, ca.id(), &record.text())?,
            record,
        };
        files::write_new(path, &kept.text(), 0o600).map_err(|source| failed(path, source))?;
        Ok(Self { ca, file: Some(RootFile { path: path.to_owned(), seal }) })
    }

    pub(super) fn unkept(ca: Ca) -> Self {
        Self { ca, file: None }
    }

    /// The root of an earlier ceremony.
    pub fn open(file: &Path, passphrase: &str) -> Result<Self, PkiError> {
        files::require_private(file).map_err(|source| failed(file, source))?;
        let (_, kept) = KeptRoot::read(file)?;
        let form = || PkiError::Form(file.to_owned());
        let (id, der) = CaId::named(&kept.id).zip(decoded(&kept.certificate)).ok_or_else(form)?;
        let (key, seal) = kept.key.open(passphrase, &id)?;
        kept.attested(&seal, &id)?;
        let ca = Ca::new(der.into(), Arc::new(FileKey::from_pkcs8(&key)?))?;
        if *ca.id() != id {
            return Err(form());
        }
        Ok(Self { ca, file: Some(RootFile { path: file.to_owned(), seal }) })
    }

    pub fn id(&self) -> &CaId {
        self.ca.id()
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        self.ca.der()
    }

    /// As the file has it now.
    pub(super) fn record(&self) -> Result<RootRecord, PkiError> {
        let Some(file) = &self.file else { return Ok(RootRecord::default()) };
        let (_, kept) = KeptRoot::read(&file.path)?;
        kept.attested(&file.seal, self.id())?;
        Ok(kept.record)
    }

    /// `after` takes the place of `before`, unless another ceremony was quicker.
    pub(super) fn keep(&self, before: &RootRecord, after: RootRecord) -> Result<(), PkiError> {
        let Some(file) = &self.file else { return Ok(()) };
        let (text, mut kept) = KeptRoot::read(&file.path)?;
        if kept.record != *before {
            return Err(PkiError::Refused("another ceremony with this root was held meanwhile".to_owned()));
        }
        kept.record_seal = file.seal.attest(Purpose::RootRecord, self.id(), &after.text())?;
        kept.record = after;
        files::rewrite(&file.path, &text, &kept.text()).map_err(|source| failed(&file.path, source))
    }
}

impl KeptRoot {
    fn read(path: &Path) -> Result<(Vec<u8>, Self), PkiError> {
        let text = files::read_capped(path).map_err(|source| failed(path, source))?;
        let kept: Option<Self> = serde_json::from_slice(&text).ok();
        let kept = kept.filter(|kept| kept.dayfly_root == 1).ok_or_else(|| PkiError::Form(path.to_owned()))?;
        Ok((text, kept))
    }

    fn text(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("plain members become JSON")
    }

    // SECURITY: `what_a_root_took_back_is_not_rubbed_out_of_its_file`.
    fn attested(&self, seal: &SealKey, id: &CaId) -> Result<(), PkiError> {
        seal.attested(Purpose::RootRecord, id, &self.record.text(), &self.record_seal)
    }
}

impl RootRecord {
    /// The same for the same record.
    fn text(&self) -> String {
        serde_json::to_string(self).expect("plain members become JSON")
    }

    pub fn has_signed(&self, id: &CaId) -> Option<&SignedArea> {
        self.areas.iter().find(|area| area.id == id.as_str())
    }
}

fn failed(path: &Path, source: std::io::Error) -> PkiError {
    PkiError::File { path: path.to_owned(), source }
}

impl fmt::Display for RootKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.ca.id())
    }
}
