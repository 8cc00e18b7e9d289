//! One CA: its certificate, its key, and what it may sign.

use std::{fmt, sync::Arc};

use dayfly_domain::UnixMs;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, DistinguishedName,
    DnType, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{
    extensions::ParsedExtension,
    prelude::{FromDer, X509Certificate},
};

use super::signer::{CaKey, CaSigner, PkiError};

/// Of the root, the area CA, an issuing CA: how deep it stands, how long it lives at most, and how many CAs
/// may follow below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    pub name: &'static str,
    pub life_s: i64,
    /// `None`: not limited.
    pub path_len: Option<u8>,
}

const DAY_S: i64 = 86_400;
/// Of the CRL that a ceremony signs.
pub const ROOT_CRL_LIFE_S: i64 = 100 * DAY_S;
pub const CA_TIERS: [Tier; 3] = [
    Tier { name: "root", life_s: 3_650 * DAY_S, path_len: None },
    Tier { name: "area", life_s: 90 * DAY_S, path_len: Some(1) },
    Tier { name: "issuing", life_s: 3 * DAY_S, path_len: Some(0) },
];

/// Names a CA: its subject key identifier in lower-case hex, 40 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaId(Arc<str>);

impl fmt::Display for CaId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl CaId {
    pub fn of_key(key: &dyn CaSigner) -> Self {
        Self(hex(&key_identifier(key)).into())
    }

    /// As the certificate says itself: its subject key identifier.
    pub fn of_certificate(der: &[u8]) -> Result<Self, PkiError> {
        let (_, read) = X509Certificate::from_der(der).map_err(|error| PkiError::Read(error.to_string()))?;
        let found = read.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(hex(id.0)),
            _ => None,
        });
        found.map(|id| Self(id.into())).ok_or_else(|| PkiError::Read("it has no subject key identifier".to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Ca {
    id: CaId,
    der: CertificateDer<'static>,
    signer: Arc<dyn CaSigner>,
    serial: [u8; 16],
    not_before: UnixMs,
    not_after: UnixMs,
}

/// What a new CA certificate says beside its tier.
#[derive(Debug)]
pub struct CaTerms<'a> {
    pub tier: Tier,
    pub trust_domain: &'a str,
    /// 16 random octets; the sign bit is cleared.
    pub serial: [u8; 16],
    pub from: UnixMs,
    /// At most this; never past the parent's or the tier's end.
    pub life_s: i64,
    /// Where the parent's CRL is; `None` for a root.
    pub crl: Option<String>,
}

impl Ca {
    /// Signs itself.
    pub fn root(terms: &CaTerms<'_>, signer: Arc<dyn CaSigner>) -> Result<Self, PkiError> {
        let params = params(terms, signer.as_ref(), None)?;
        let made = params.self_signed(&CaKey(signer.as_ref())).map_err(|error| PkiError::Build(error.to_string()))?;
        Self::new(made.der().clone(), signer)
    }

    /// A CA below this one.
    pub fn subordinate(&self, terms: &CaTerms<'_>, signer: Arc<dyn CaSigner>) -> Result<Self, PkiError> {
        let params = params(terms, signer.as_ref(), Some(self))?;
        let made = params.signed_by(&CaKey(signer.as_ref()), &self.issuer()?);
        Self::new(made.map_err(|error| PkiError::Build(error.to_string()))?.der().clone(), signer)
    }

    /// A certificate and the key that it is for.
    pub fn new(der: CertificateDer<'static>, signer: Arc<dyn CaSigner>) -> Result<Self, PkiError> {
        let (rest, read) = X509Certificate::from_der(&der).map_err(|error| PkiError::Read(error.to_string()))?;
        let own = read.public_key().subject_public_key.data.as_ref() == signer.public_key();
        if !rest.is_empty() || !own || !read.is_ca() {
            return Err(PkiError::Read("it is no CA certificate of this key".to_owned()));
        }
        let at = |time: x509_parser::time::ASN1Time| UnixMs::from_s(time.timestamp());
        let (not_before, not_after) = (at(read.validity().not_before), at(read.validity().not_after));
        let mut serial = [0; 16];
        let octets = read.raw_serial();
        octets.iter().rev().zip(serial.iter_mut().rev()).for_each(|(octet, place)| *place = *octet);
        Ok(Self { id: CaId::of_key(signer.as_ref()), der, signer, serial, not_before, not_after })
    }

    pub fn id(&self) -> &CaId {
        &self.id
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub fn signer(&self) -> &dyn CaSigner {
        self.signer.as_ref()
    }

    pub fn not_before(&self) -> UnixMs {
        self.not_before
    }

    /// The last second in which it is valid.
    pub fn not_after(&self) -> UnixMs {
        self.not_after
    }

    /// Of its certificate: 16 octets in what is ours; of another length, the last ones.
    pub fn serial(&self) -> [u8; 16] {
        self.serial
    }

    /// A root's list that nothing is on, for as long as a ceremony's lasts. It names no distribution point:
    /// OpenSSL, asked for a list of every level, looks for the root itself too, which has none.
    pub fn empty_crl(&self, from: UnixMs) -> Result<Vec<u8>, PkiError> {
        let terms = CertificateRevocationListParams {
            this_update: moment(from.as_s())?,
            next_update: moment(from.as_s() + ROOT_CRL_LIFE_S)?,
            crl_number: SerialNumber::from_slice(&from.as_ms().unsigned_abs().to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::PreSpecified(key_identifier(self.signer())),
        };
        let made = terms.signed_by(&self.issuer()?).map_err(|error| PkiError::Build(error.to_string()))?;
        Ok(made.der().to_vec())
    }

    /// As the builder of certificates and CRLs takes it.
    pub fn issuer(&self) -> Result<Issuer<'static, CaKey<'_>>, PkiError> {
        Issuer::from_ca_cert_der(&self.der, CaKey(self.signer.as_ref()))
            .map_err(|error| PkiError::Build(error.to_string()))
    }
}

fn params(terms: &CaTerms<'_>, key: &dyn CaSigner, parent: Option<&Ca>) -> Result<CertificateParams, PkiError> {
    let from_s = terms.from.as_s();
    let longest = from_s + terms.life_s.min(terms.tier.life_s) - 1;
    let until_s = parent.map_or(longest, |parent| longest.min(parent.not_after.as_s()));
    let mut params = CertificateParams::default();
    params.not_before = moment(from_s)?;
    params.not_after = moment(until_s)?;
    let mut serial = terms.serial;
    // Positive, and of full length (RFC 5280 section 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let mut name = DistinguishedName::new();
    // Each CA has a name of its own: CRLs are found by it.
    let id = CaId::of_key(key);
    name.push(DnType::CommonName, format!("{} {} {}", terms.trust_domain, terms.tier.name, &id.as_str()[..8]));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(terms.tier.path_len.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = parent.is_some();
    params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(key_identifier(key));
    params.crl_distribution_points =
        terms.crl.iter().map(|uri| CrlDistributionPoint { uris: vec![uri.clone()] }).collect();
    Ok(params)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The first 20 octets of SHA-256 over the public key (RFC 7093 section 2, method 1).
fn key_identifier(key: &dyn CaSigner) -> Vec<u8> {
    let digest = ring::digest::digest(&ring::digest::SHA256, CaKey(key).der_bytes());
    digest.as_ref()[..20].to_vec()
}

pub(super) fn moment(unix_s: i64) -> Result<OffsetDateTime, PkiError> {
    OffsetDateTime::from_unix_timestamp(unix_s).map_err(|error| PkiError::Build(error.to_string()))
}
