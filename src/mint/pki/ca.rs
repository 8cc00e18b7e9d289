//! One CA: its certificate, its key, and what it may sign.

use std::{fmt, sync::Arc};

use dayfly_domain::UnixMs;
use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType,
    GeneralSubtree, IsCa, Issuer, KeyUsagePurpose, NameConstraints, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{
    extensions::ParsedExtension,
    prelude::{FromDer, X509Certificate},
};

use super::{
    der,
    signer::{CaKey, CaSigner, PkiError, Unsigned},
};

/// Of the root, the area CA, an issuing CA: how deep it stands, how long it lives at most, and how many CAs
/// may follow below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    pub name: &'static str,
    pub life_s: i64,
    /// `None`: not limited.
    pub path_len: Option<u8>,
}

pub(super) const DAY_S: i64 = 86_400;
pub const CA_TIERS: [Tier; 3] = [
    Tier { name: "root", life_s: 3_650 * DAY_S, path_len: None },
    Tier { name: "area", life_s: 90 * DAY_S, path_len: Some(1) },
    Tier { name: "issuing", life_s: 3 * DAY_S, path_len: Some(0) },
];
pub const ROOT: Tier = CA_TIERS[0];
pub const AREA: Tier = CA_TIERS[1];
pub const ISSUING: Tier = CA_TIERS[2];

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
        Self::of_point(key.public_key())
    }

    /// Of a public key's octets.
    pub fn of_point(point: &[u8]) -> Self {
        Self::of_octets(&key_identifier(point))
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

    /// Its name as text; `None` where it is no even number of hexadecimal digits.
    pub fn named(text: &str) -> Option<Self> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let whole = (2..=128).contains(&text.len()) && text.len().is_multiple_of(2) && text.bytes().all(digit);
        whole.then(|| Self(text.into()))
    }

    pub(super) fn of_octets(octets: &[u8]) -> Self {
        Self(hex(octets).into())
    }

    /// The key identifier itself.
    pub fn octets(&self) -> Vec<u8> {
        let nibble = |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 };
        self.0.as_bytes().chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect()
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
    not_before: UnixMs,
    not_after: UnixMs,
    /// Read once: it stands in everything that this signs.
    name: Arc<[u8]>,
    drafting: Arc<Issuer<'static, Unsigned>>,
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
    /// Where the parent's CRL and certificate are; `None` for a root.
    pub above: Option<Above>,
    /// Leaves below may have DNS names in these domains alone; none: in any. Never a constraint on URIs:
    /// there are verifiers that refuse every chain with one.
    pub dns: &'a [String],
}

/// What a CA certificate says of the CA that signed it: plain http URLs.
#[derive(Debug, Clone)]
pub struct Above {
    pub crl: String,
    pub certificate: String,
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
        Self::new(made.map_err(|error| CaKey(self.signer()).unbuilt(&error))?.der().clone(), signer)
    }

    /// A certificate and the key that it is for.
    pub fn new(der: CertificateDer<'static>, signer: Arc<dyn CaSigner>) -> Result<Self, PkiError> {
        let (rest, read) = X509Certificate::from_der(&der).map_err(|error| PkiError::Read(error.to_string()))?;
        let own = read.public_key().subject_public_key.data.as_ref() == signer.public_key();
        if !rest.is_empty() || !own || !read.is_ca() {
            return Err(PkiError::Read("it is no CA certificate of this key".to_owned()));
        }
        let (not_before, not_after) = window(&der)?;
        // What is published under a name says that name: a company's own CA may derive it in another way.
        let id = CaId::of_certificate(&der)?;
        let name = read.subject().as_raw().into();
        let drafting = Issuer::from_ca_cert_der(&der, Unsigned(signer.clone()));
        let drafting = Arc::new(drafting.map_err(|error| PkiError::Build(error.to_string()))?);
        Ok(Self { id, der, signer, not_before, not_after, name, drafting })
    }

    pub fn id(&self) -> &CaId {
        &self.id
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Its subject, DER, octet for octet.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Of its certificate.
    pub fn serial(&self) -> Result<Vec<u8>, PkiError> {
        serial_of(&self.der)
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

    /// As the builder of leaves takes it, which signs nothing.
    pub(super) fn drafting(&self) -> &Issuer<'static, Unsigned> {
        &self.drafting
    }

    /// As the builder of certificates takes it.
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
    params.distinguished_name = name(terms.trust_domain, terms.tier, key);
    params.is_ca = IsCa::Ca(terms.tier.path_len.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = parent.is_some();
    params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(key_identifier(key.public_key()));
    if let Some(Above { crl, certificate }) = &terms.above {
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![crl.clone()] }];
        params.custom_extensions = vec![authority_information(certificate)];
    }
    let permitted_subtrees: Vec<_> = terms.dns.iter().cloned().map(GeneralSubtree::DnsName).collect();
    if !permitted_subtrees.is_empty() {
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    }
    Ok(params)
}

/// Its first second and its last.
pub(super) fn window(der: &[u8]) -> Result<(UnixMs, UnixMs), PkiError> {
    let (_, read) = X509Certificate::from_der(der).map_err(|error| PkiError::Read(error.to_string()))?;
    let at = |time: x509_parser::time::ASN1Time| UnixMs::from_s(time.timestamp());
    Ok((at(read.validity().not_before), at(read.validity().not_after)))
}

pub(super) fn serial_of(der: &[u8]) -> Result<Vec<u8>, PkiError> {
    let (_, read) = X509Certificate::from_der(der).map_err(|error| PkiError::Read(error.to_string()))?;
    Ok(read.raw_serial().to_vec())
}

/// `ub-common-name` (RFC 5280 appendix A).
const COMMON_NAME_MAX_CHARS: usize = 64;

/// Of its own, for each CA: CRLs are found by it.
fn name(trust_domain: &str, tier: Tier, key: &dyn CaSigner) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    let id = CaId::of_key(key);
    let own = format!(" {} {}", tier.name, &id.as_str()[..8]);
    let domain: String = trust_domain.chars().take(COMMON_NAME_MAX_CHARS - own.len()).collect();
    name.push(DnType::CommonName, format!("{domain}{own}"));
    name
}

/// What an area CA asks of the company's own CA: its name, its key, and to be a CA. PKCS#10, DER.
pub fn area_request(trust_domain: &str, signer: &dyn CaSigner) -> Result<Vec<u8>, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(trust_domain, AREA, signer);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let made = params.serialize_request(&CaKey(signer)).map_err(|error| CaKey(signer).unbuilt(&error))?;
    Ok(made.der().to_vec())
}

/// Authority information access with the one place of the parent's certificate (RFC 5280 section 4.2.2.1).
fn authority_information(certificate: &str) -> CustomExtension {
    let place = [der::element(der::OID, der::CA_ISSUERS), der::element(der::URI, certificate.as_bytes())].concat();
    CustomExtension::from_oid_content(der::AUTHORITY_INFO_ACCESS, der::sequence(&der::sequence(&place)))
}

pub(super) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The first 20 octets of SHA-256 over the public key (RFC 7093 section 2, method 1).
fn key_identifier(point: &[u8]) -> Vec<u8> {
    let digest = ring::digest::digest(&ring::digest::SHA256, point);
    digest.as_ref()[..20].to_vec()
}

pub(super) fn moment(unix_s: i64) -> Result<OffsetDateTime, PkiError> {
    OffsetDateTime::from_unix_timestamp(unix_s).map_err(|error| PkiError::Build(error.to_string()))
}
