//! Who signs OCSP answers: a key in memory with a short certificate of the CA that it speaks for
//! (RFC 6960 section 4.2.2.2), renewed by itself.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use dayfly_domain::UnixMs;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod,
    KeyUsagePurpose, SerialNumber,
};
use ring::digest;
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::kept::Answers;
use crate::{
    mint::pki::{Ca, CaId, CaKey, CaSigner, FileKey, PkiError},
    sys::entropy,
};

/// How long a signer's certificate lives. It is on no CRL (`id-pkix-ocsp-nocheck`), so it is short.
pub const SIGNER_LIFE_S: i64 = 6 * 3_600;
/// A new one is made when this much of the life is left.
const RENEWED_BEFORE_S: i64 = SIGNER_LIFE_S / 2;
/// As every certificate: the clock of a server may be that much behind.
const BACK_S: i64 = 60;

/// `id-pkix-ocsp-nocheck`.
const NOCHECK: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 5];

/// The signers of the CAs of ours.
#[derive(Debug, Default)]
pub struct OcspSigners(Mutex<HashMap<CaId, Arc<OcspSigner>>>);

/// A delegated key with its certificate.
pub struct OcspSigner {
    key: FileKey,
    der: CertificateDer<'static>,
    /// SHA-1 of the public key: how the answer names its signer.
    key_hash: Vec<u8>,
    renew_at: UnixMs,
    from: UnixMs,
    /// The last second.
    until: UnixMs,
    answers: Answers,
}

impl fmt::Debug for OcspSigner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "OcspSigner(renewed at {})", self.renew_at)
    }
}

impl OcspSigners {
    /// The one in force, made anew where it is old or there is none. `None`: the CA's key is in a token, and
    /// nobody who asks reaches that.
    // SECURITY: `whoever_asks_about_a_ca_in_a_token_never_reaches_the_token`.
    pub(super) fn of(&self, ca: &Ca, now: UnixMs) -> Result<Option<Arc<OcspSigner>>, PkiError> {
        let mut signers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = signers.get(ca.id());
        if let Some(signer) = held.filter(|signer| signer.is_fresh(now)) {
            return Ok(Some(signer.clone()));
        }
        if ca.signer().is_remote() {
            return Ok(held.filter(|signer| signer.is_valid(now)).cloned());
        }
        let signer = Arc::new(OcspSigner::delegated(ca, now)?);
        signers.insert(ca.id().clone(), signer.clone());
        Ok(Some(signer))
    }

    /// Whether it is time for another one.
    pub(super) fn is_due(&self, ca: &Ca, now: UnixMs) -> bool {
        let signers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !signers.get(ca.id()).is_some_and(|signer| signer.is_fresh(now))
    }

    /// Another one, with nobody waiting.
    pub(super) fn renew(&self, ca: &Ca, now: UnixMs) -> Result<(), PkiError> {
        let signer = Arc::new(OcspSigner::delegated(ca, now)?);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(ca.id().clone(), signer);
        Ok(())
    }

    pub(super) fn keep(&self, cas: &[CaId]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| cas.contains(id));
    }
}

impl OcspSigner {
    fn delegated(ca: &Ca, now: UnixMs) -> Result<Self, PkiError> {
        let key = FileKey::generate()?;
        let from = now.plus_s(-BACK_S).max(ca.not_before());
        let until = now.plus_s(SIGNER_LIFE_S - 1).min(ca.not_after());
        // Until the CA itself is over there is no better one.
        let renew_at = if until == ca.not_after() { until.plus_s(1) } else { until.plus_s(1 - RENEWED_BEFORE_S) };
        if now >= until.plus_s(1) || now < from {
            return Err(PkiError::NoCa);
        }
        let made = params(&key, from, until)?.signed_by(&CaKey(&key), &ca.issuer()?);
        let der = made.map_err(|error| CaKey(ca.signer()).unbuilt(&error))?.der().clone();
        let key_hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.public_key()).as_ref().to_vec();
        Ok(Self { key, der, key_hash, renew_at, from, until, answers: Answers::default() })
    }

    fn is_fresh(&self, now: UnixMs) -> bool {
        (self.from..self.renew_at).contains(&now)
    }

    fn is_valid(&self, now: UnixMs) -> bool {
        (self.from..=self.until).contains(&now)
    }

    pub fn key_hash(&self) -> &[u8] {
        &self.key_hash
    }

    pub fn certificate(&self) -> &[u8] {
        &self.der
    }

    /// What it signed a moment ago.
    pub(super) fn answers(&self) -> &Answers {
        &self.answers
    }

    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        self.key.sign(message)
    }
}

fn params(key: &FileKey, from: UnixMs, until: UnixMs) -> Result<CertificateParams, PkiError> {
    let moment =
        |at: UnixMs| OffsetDateTime::from_unix_timestamp(at.as_s()).map_err(|error| PkiError::Build(error.to_string()));
    let mut serial: [u8; 16] = entropy::bytes().map_err(|_| PkiError::Key("there is no randomness".to_owned()))?;
    // Positive, of full length, and no lease's: those begin with the time, far below this.
    serial[0] = serial[0] & 0x7f | 0x40;
    let key_id = digest::digest(&digest::SHA256, key.public_key()).as_ref()[..20].to_vec();
    let mut name = DistinguishedName::new();
    let hex: String = key_id[..4].iter().map(|octet| format!("{octet:02x}")).collect();
    name.push(DnType::CommonName, format!("OCSP {hex}"));
    let mut nocheck = CustomExtension::from_oid_content(NOCHECK, vec![0x05, 0x00]);
    nocheck.set_criticality(false);
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (moment(from)?, moment(until)?);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = name;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_id);
    params.custom_extensions = vec![nocheck];
    Ok(params)
}
