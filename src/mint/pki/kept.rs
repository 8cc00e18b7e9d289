//! What is kept of the authority in its folder: `authority.json` is written by ceremonies alone, and holds
//! the area CAs with all that is above them; `issuing.json` is written by the broker alone, and holds the
//! CAs that take turns. Each is replaced whole.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use dayfly_domain::UnixMs;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{
    admit::{admit_area, admit_chain},
    ca::{Ca, CaId},
    pkcs11::{AreaToken, KeptToken},
    sealed::{Purpose, SealKey, Sealed},
    signer::{CaSigner, FileKey, PkiError},
};
use crate::sys::files;

/// Names of the files below the authority's folder.
pub const AUTHORITY_FILE: &str = "authority.json";
pub const ISSUING_FILE: &str = "issuing.json";
const CEREMONY_LOCK: &str = "ceremony.lock";
const VERSION: u32 = 1;

/// The authority's folder, and what its keys are sealed under.
#[derive(Debug, Clone)]
pub struct Folder {
    pub dir: PathBuf,
    pub seal: Arc<SealKey>,
    /// Where an area CA's key is made; `None`: sealed, in the folder.
    pub token: Option<AreaToken>,
}

/// What ceremonies made.
#[derive(Debug, Clone)]
pub struct Authority {
    pub trust_domain: String,
    /// Grows whenever the roots change.
    pub sequence: u64,
    /// What relying parties trust.
    pub roots: Vec<CertificateDer<'static>>,
    /// The first signs; the others' issuing CAs may still have leaves that live.
    pub areas: Vec<Area>,
    /// Of the CAs above the area CAs, as they were signed.
    pub crls: Vec<UpperCrl>,
}

#[derive(Debug, Clone)]
pub struct Area {
    pub ca: Arc<Ca>,
    /// What signed it, and so on; the root last.
    pub above: Vec<CertificateDer<'static>>,
    /// It stands on the CRL of the CA above it, or its root was left.
    pub revoked: bool,
}

/// A CRL that no key of ours signs while the broker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpperCrl {
    pub issuer: CaId,
    pub der: Arc<[u8]>,
    pub next_update: UnixMs,
}

impl Authority {
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let areas = |all: &Self| {
            all.areas.iter().map(|area| (area.ca.der().clone(), area.above.clone(), area.revoked)).collect::<Vec<_>>()
        };
        self.sequence == other.sequence && self.crls == other.crls && areas(self) == areas(other)
    }
}

impl Area {
    /// Itself, what is above it, the root.
    pub(super) fn chain(&self) -> Chain {
        std::iter::once(self.ca.der()).chain(&self.above).cloned().collect()
    }

    pub fn root(&self) -> &CertificateDer<'static> {
        self.above.last().unwrap_or(self.ca.der())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptAuthority {
    pub version: u32,
    pub trust_domain: String,
    pub sequence: u64,
    pub areas: Vec<KeptArea>,
    /// A key whose certificate the company's own CA has yet to sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<KeptAreaKey>,
    pub crls: Vec<String>,
    /// What the roots' CRLs list.
    #[serde(default)]
    pub revoked: Vec<KeptRevoked>,
    /// Roots that nobody is to trust any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptArea {
    /// The area CA, what is above it, the root: base64 DER.
    pub chain: Vec<String>,
    pub key: KeptAreaKey,
}

/// The key of an area CA: sealed here, or in a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum KeptAreaKey {
    Sealed(KeptKey),
    Token(KeptToken),
}

/// A sealed key and its name, which the seal is bound to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptKey {
    pub id: String,
    pub sealed: Sealed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptRevoked {
    /// The area CA.
    pub id: String,
    pub root: String,
    /// Hexadecimal.
    pub serial: String,
    pub at_s: i64,
}

impl KeptAuthority {
    pub fn empty(trust_domain: &str) -> Self {
        Self {
            version: VERSION,
            trust_domain: trust_domain.to_owned(),
            sequence: 0,
            areas: Vec::new(),
            pending: None,
            crls: Vec::new(),
            revoked: Vec::new(),
            left: Vec::new(),
        }
    }

    /// Of each area CA: itself, what is above it, the root.
    pub fn chains(&self) -> Result<Vec<Chain>, PkiError> {
        let read = |text: &String| decoded(text).map(CertificateDer::from);
        let chains = self.areas.iter().map(|area| area.chain.iter().map(read).collect::<Option<Chain>>());
        chains.collect::<Option<Vec<_>>>().ok_or_else(|| PkiError::Read("it is no base64".to_owned()))
    }

    /// The CAs that stand above an area CA of ours.
    pub fn above(&self) -> Result<Vec<CaId>, PkiError> {
        let chains = self.chains()?;
        chains.iter().flat_map(|chain| chain.iter().skip(1)).map(|der| CaId::of_certificate(der)).collect()
    }

    /// The roots of area CAs that are not taken back; that of the newest is trusted unless it was left.
    pub fn trusted(&self) -> Result<Vec<CertificateDer<'static>>, PkiError> {
        let mut trusted = Vec::new();
        for (place, chain) in self.chains()?.iter().enumerate() {
            let Some(root) = chain.last() else { continue };
            let out = if place == 0 { self.has_left(root)? } else { self.is_revoked(chain)? };
            if !out && !trusted.contains(root) {
                trusted.push(root.clone());
            }
        }
        Ok(trusted)
    }

    pub fn has_left(&self, root: &CertificateDer<'_>) -> Result<bool, PkiError> {
        let id = CaId::of_certificate(root)?;
        Ok(self.left.iter().any(|left| left == id.as_str()))
    }

    /// By us, by a CRL of the CA above it, or with its root.
    pub fn is_revoked(&self, chain: &[CertificateDer<'_>]) -> Result<bool, PkiError> {
        let [area, above, ..] = chain else { return Ok(false) };
        let id = CaId::of_certificate(area)?;
        let root = chain.last().map_or(Ok(false), |root| self.has_left(root))?;
        if root || self.revoked.iter().any(|revoked| revoked.id == id.as_str()) {
            return Ok(true);
        }
        let (above, serial) = (CaId::of_certificate(above)?, super::ca::serial_of(area)?);
        let mut crls = self.crls.iter().filter_map(|text| decoded(text));
        Ok(crls.any(|der| upper_crl(&der).is_ok_and(|crl| crl.issuer == above) && is_listed(&der, &serial)))
    }

    /// With keys that sign. What is not in force any more is left out; the first that is signs.
    pub fn opened(&self, folder: &Folder, now: UnixMs) -> Result<Authority, PkiError> {
        let file = || PkiError::Form(folder.dir.join(AUTHORITY_FILE));
        if self.version != VERSION {
            return Err(file());
        }
        let areas = self.areas.iter().map(|area| area.opened(folder, self).map_err(|e| named(e, &file)));
        let mut areas = areas.collect::<Result<Vec<_>, _>>()?;
        // The newest is kept, over or not: it says what is wrong.
        let mut place = 0..;
        areas.retain(|area| place.next() == Some(0) || area.ca.not_after() >= now);
        for area in &mut areas {
            area.revoked = self.is_revoked(&area.chain())?;
        }
        let crls = self.crls.iter().map(|text| upper_crl(&decoded(text).ok_or_else(file)?));
        let mut crls = crls.collect::<Result<Vec<_>, _>>()?;
        // Nobody makes the next one of a CA that none of ours is below any more.
        let above = areas.iter().flat_map(|area| &area.above).map(|der| CaId::of_certificate(der));
        let above = above.collect::<Result<Vec<_>, _>>()?;
        crls.retain(|crl| above.contains(&crl.issuer));
        let (trust_domain, sequence, roots) = (self.trust_domain.clone(), self.sequence, self.trusted()?);
        Ok(Authority { trust_domain, sequence, roots, areas, crls })
    }
}

/// A file that holds no certificate is a wrong file.
fn named(error: PkiError, file: &impl Fn() -> PkiError) -> PkiError {
    match error {
        PkiError::Read(_) => file(),
        other => other,
    }
}

impl KeptArea {
    fn opened(&self, folder: &Folder, all: &KeptAuthority) -> Result<Area, PkiError> {
        let signer = self.key.opened(folder)?;
        let chain = self.chain.iter().map(|text| decoded(text).map(CertificateDer::from));
        let chain = chain.collect::<Option<Vec<_>>>().ok_or_else(|| PkiError::Read("it is no base64".to_owned()))?;
        let (first, above) = chain.split_first().ok_or_else(|| PkiError::Read("there is none".to_owned()))?;
        let ca = Ca::new(first.clone(), signer)?;
        let chain: Vec<&[u8]> = chain.iter().map(|der| der.as_ref()).collect();
        // What a token signs is checked each time that it signs; it may be away now.
        match ca.signer().is_remote() {
            true => admit_chain(&chain, None)?,
            false => admit_area(&chain, ca.signer(), None)?,
        }
        let revoked = all.revoked.iter().any(|revoked| revoked.id == ca.id().as_str());
        Ok(Area { ca: Arc::new(ca), above: above.to_vec(), revoked })
    }
}

impl KeptAreaKey {
    /// A new one, where the folder's keys are.
    pub fn make(folder: &Folder) -> Result<(Arc<dyn CaSigner>, Self), PkiError> {
        if let Some(token) = &folder.token {
            let (key, kept) = token.key()?;
            return Ok((Arc::new(key), Self::Token(kept)));
        }
        let key = FileKey::generate()?;
        let kept = KeptKey::seal(&folder.seal, Purpose::Area, &key)?;
        Ok((Arc::new(key), Self::Sealed(kept)))
    }

    pub fn opened(&self, folder: &Folder) -> Result<Arc<dyn CaSigner>, PkiError> {
        match self {
            Self::Sealed(key) => Ok(Arc::new(key.opened(&folder.seal, Purpose::Area)?)),
            Self::Token(key) => Ok(Arc::new(key.opened(folder.token.as_ref())?)),
        }
    }

    pub fn id(&self) -> &str {
        match self {
            Self::Sealed(key) => &key.id,
            Self::Token(key) => &key.id,
        }
    }

    /// Where it is, as a transcript says it.
    pub fn place(&self, folder: &Folder) -> String {
        match (self, &folder.token) {
            (Self::Token(key), Some(token)) => format!("in the token `{}`, id {}", token.token.name(), key.named()),
            (Self::Token(key), None) => format!("in a token, id {}", key.named()),
            (Self::Sealed(_), _) => "sealed".to_owned(),
        }
    }
}

impl KeptKey {
    pub fn seal(seal: &SealKey, purpose: Purpose, key: &FileKey) -> Result<Self, PkiError> {
        let id = CaId::of_key(key);
        Ok(Self { sealed: seal.seal(purpose, &id, key.pkcs8())?, id: id.as_str().to_owned() })
    }

    /// Of a key that lives and dies with the process: nothing.
    pub fn unkept(key: &FileKey) -> Self {
        Self { id: CaId::of_key(key).as_str().to_owned(), sealed: Sealed::nothing() }
    }

    pub fn opened(&self, seal: &SealKey, purpose: Purpose) -> Result<FileKey, PkiError> {
        let id = CaId::named(&self.id).ok_or(PkiError::Sealed)?;
        let key = FileKey::from_pkcs8(&seal.open(purpose, &id, &self.sealed)?)?;
        if CaId::of_key(&key) == id { Ok(key) } else { Err(PkiError::Sealed) }
    }
}

/// The area CA first, the root last.
pub(super) type Chain = Vec<CertificateDer<'static>>;

fn is_listed(crl: &[u8], serial: &[u8]) -> bool {
    use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};
    let Ok((_, read)) = CertificateRevocationList::from_der(crl) else { return false };
    read.iter_revoked_certificates().any(|revoked| revoked.raw_serial() == serial)
}

/// A CRL, read for who signed it and how long it counts.
pub(super) fn upper_crl(der: &[u8]) -> Result<UpperCrl, PkiError> {
    use x509_parser::{extensions::ParsedExtension, prelude::FromDer, revocation_list::CertificateRevocationList};
    let no_crl = || PkiError::Read("it is no CRL with an authority key identifier and an end".to_owned());
    let (rest, read) = CertificateRevocationList::from_der(der).map_err(|_| no_crl())?;
    let issuer = read.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(aki) => aki.key_identifier.as_ref().map(|id| CaId::of_octets(id.0)),
        _ => None,
    });
    let next_update = read.next_update().map(|time| UnixMs::from_s(time.timestamp()));
    match (rest, issuer, next_update) {
        ([], Some(issuer), Some(next_update)) => Ok(UpperCrl { issuer, der: der.into(), next_update }),
        _ => Err(no_crl()),
    }
}

impl Folder {
    /// `None`: no ceremony has been held.
    pub(super) fn authority(&self) -> Result<Option<KeptAuthority>, PkiError> {
        self.read(AUTHORITY_FILE)
    }

    pub(super) fn keep_authority(&self, kept: &KeptAuthority) -> Result<(), PkiError> {
        self.write(AUTHORITY_FILE, kept)
    }

    /// One ceremony at a time: each reads what is there, and writes it whole.
    // SECURITY: `two_ceremonies_at_once_lose_nothing`.
    pub(super) fn hold_ceremony(&self) -> Result<files::StateLock, PkiError> {
        files::private_dir(&self.dir).map_err(|source| PkiError::File { path: self.dir.clone(), source })?;
        let path = self.dir.join(CEREMONY_LOCK);
        files::lock(&path).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => PkiError::Refused("another ceremony is held in this folder".to_owned()),
            _ => PkiError::File { path, source },
        })
    }

    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, PkiError> {
        let path = self.dir.join(name);
        let failed = |source| PkiError::File { path: path.clone(), source };
        match files::require_private(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            private => private.map_err(failed)?,
        }
        let bytes = Zeroizing::new(files::read_capped(&path).map_err(failed)?);
        serde_json::from_slice(&bytes).map(Some).map_err(|_| PkiError::Form(path))
    }

    pub(super) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), PkiError> {
        let path = self.dir.join(name);
        let failed = |source| PkiError::File { path: path.clone(), source };
        files::private_dir(&self.dir).map_err(failed)?;
        let bytes = serde_json::to_vec_pretty(value).expect("plain members become JSON");
        files::write_atomic(&path, &bytes, 0o600).map_err(failed)
    }
}

pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

pub(super) fn encoded(der: &[u8]) -> String {
    STANDARD.encode(der)
}

/// PEM of one object.
pub fn pem(label: &str, der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = encoded(der);
    let mut out = String::with_capacity(text.len() + text.len() / LINE + 2 * label.len() + 40);
    out.extend(["-----BEGIN ", label, "-----\n"]);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        out.extend([line, "\n"]);
        rest = after;
    }
    out.extend(["-----END ", label, "-----\n"]);
    out
}

/// Where what a folder is for lies.
pub fn authority_file(dir: &Path) -> PathBuf {
    dir.join(AUTHORITY_FILE)
}
