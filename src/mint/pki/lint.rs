//! A certificate, read by other code than built it and held against its plan: whatever is there that the
//! plan does not say, or is not there, stops it.

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use x509_parser::{
    certificate::{TbsCertificate, X509Certificate},
    extensions::{DistributionPointName, GeneralName, ParsedExtension, X509Extension},
    prelude::FromDer,
    x509::X509Version,
};

use super::{ca::hex, der, leaf::LeafPlan};
use crate::mint::MintError;

// What identifiers say, as DER has them.
/// 1.2.840.10045.4.3.2
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 1.3.6.1.5.5.7.48.1 and .2
const ACCESS_OCSP: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01];
const ACCESS_CA_ISSUERS: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02];
/// authorityInfoAccess (1.3.6.1.5.5.7.1.1), and 2.5.29 with 14 subjectKeyIdentifier, 15 keyUsage,
/// 17 subjectAltName, 19 basicConstraints, 31 cRLDistributionPoints, 35 authorityKeyIdentifier, 37 extKeyUsage.
const EXTENSIONS: [&[u8]; 8] = [
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x01],
    &[0x55, 0x1d, 14],
    &[0x55, 0x1d, 15],
    &[0x55, 0x1d, 17],
    &[0x55, 0x1d, 19],
    &[0x55, 0x1d, 31],
    &[0x55, 0x1d, 35],
    &[0x55, 0x1d, 37],
];

/// What is to be signed.
pub(super) fn tbs(plan: &LeafPlan<'_>, tbs: &[u8]) -> Result<(), MintError> {
    let (rest, read) = TbsCertificate::from_der(tbs).map_err(|_| MintError::Mismatch)?;
    let same = rest.is_empty()
        && read.as_ref() == tbs
        && has_its_parts(tbs)
        && read.extensions().iter().all(|extension| der::is_plain(extension.value))
        && read.version == X509Version::V3
        && is_serial(read.raw_serial(), plan.lease.as_u128())
        && is_ecdsa_sha256(&read.signature)
        && read.issuer.as_raw() == plan.ca.name()
        && read.validity.not_before.timestamp() == plan.not_before_s
        && read.validity.not_after.timestamp() == plan.not_after_s
        && is_subject(plan, &read)
        && read.subject_pki.raw == plan.key.spki()
        && read.issuer_uid.is_none()
        && read.subject_uid.is_none()
        && has_exactly(plan, read.extensions());
    same.then_some(()).ok_or(MintError::Mismatch)
}

/// What was signed: the same, and by the CA.
pub(super) fn leaf(plan: &LeafPlan<'_>, tbs: &[u8], leaf: &[u8]) -> Result<(), MintError> {
    let (rest, read) = X509Certificate::from_der(leaf).map_err(|_| MintError::Mismatch)?;
    let same = rest.is_empty() && read.tbs_certificate.as_ref() == tbs && is_ecdsa_sha256(&read.signature_algorithm);
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, plan.ca.signer().public_key());
    let signed = read.signature_value.unused_bits == 0 && key.verify(tbs, &read.signature_value.data).is_ok();
    (same && signed).then_some(()).ok_or(MintError::Mismatch)
}

/// Version, serial, algorithm, issuer, times, subject, key, extensions: of what has but one encoding, that.
fn has_its_parts(tbs: &[u8]) -> bool {
    let all = der::all_of(tbs).unwrap_or_default();
    let [version, serial, algorithm, _, times, _, _, extensions] = all[..] else { return false };
    let moments = der::all_of(times).unwrap_or_default();
    let is_moment = |moment: &&[u8]| matches!(moment, [0x17, 13, ..] | [0x18, 15, ..]);
    der::is_plain(tbs)
        && version == [0xa0, 3, 2, 1, 2]
        && serial[0] == 0x02
        && algorithm == der::ECDSA_SHA256
        && times[0] == 0x30
        && moments.iter().all(is_moment)
        && extensions[0] == 0xa3
}

/// Positive, and without a zero too many.
fn is_serial(raw: &[u8], lease: u128) -> bool {
    let value = raw.iter().try_fold(0_u128, |value, &octet| value.checked_mul(256)?.checked_add(octet.into()));
    raw.len() <= 17 && raw.first().is_some_and(|&first| first < 0x80) && value == Some(lease) && lease != 0
}

fn is_ecdsa_sha256(algorithm: &x509_parser::x509::AlgorithmIdentifier<'_>) -> bool {
    algorithm.algorithm.as_bytes() == ECDSA_SHA256 && algorithm.parameters.is_none()
}

fn is_subject(plan: &LeafPlan<'_>, read: &TbsCertificate<'_>) -> bool {
    let parts: Vec<_> = read.subject.iter_attributes().collect();
    match (&plan.common_name, &parts[..]) {
        (None, []) => true,
        (Some(name), [part]) => {
            part.attr_type().as_bytes() == COMMON_NAME && part.as_str().is_ok_and(|text| text == name)
        }
        _ => false,
    }
}

/// Each extension once, of this criticality and with this value; no other.
fn has_exactly(plan: &LeafPlan<'_>, extensions: &[X509Extension<'_>]) -> bool {
    let mut seen: Vec<&[u8]> = extensions.iter().map(|extension| extension.oid.as_bytes()).collect();
    seen.sort_unstable();
    seen == EXTENSIONS && extensions.iter().all(|extension| is_planned(plan, extension))
}

fn is_planned(plan: &LeafPlan<'_>, extension: &X509Extension<'_>) -> bool {
    let critical = extension.critical;
    match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(from) => {
            let id = from.key_identifier.as_ref().map(|id| hex(id.0));
            let alone = from.authority_cert_issuer.is_none() && from.authority_cert_serial.is_none();
            !critical && alone && id.as_deref() == Some(plan.ca.id().as_str())
        }
        ParsedExtension::SubjectKeyIdentifier(id) => !critical && id.0 == plan.key_identifier(),
        // Bit 0 alone, in its one form.
        ParsedExtension::KeyUsage(usage) => critical && usage.flags == 1 && extension.value == [3, 2, 7, 0x80],
        ParsedExtension::BasicConstraints(limits) => critical && !limits.ca && limits.path_len_constraint.is_none(),
        ParsedExtension::SubjectAlternativeName(names) => {
            let dns = plan.dns.iter().map(|name| GeneralName::DNSName(name));
            let planned = std::iter::once(GeneralName::URI(&plan.name)).chain(dns);
            critical == plan.common_name.is_none() && names.general_names.iter().cloned().eq(planned)
        }
        ParsedExtension::ExtendedKeyUsage(purposes) => {
            let others = purposes.any
                || purposes.code_signing
                || purposes.email_protection
                || purposes.time_stamping
                || purposes.ocsp_signing
                || !purposes.other.is_empty();
            !critical && purposes.client_auth && purposes.server_auth != plan.dns.is_empty() && !others
        }
        ParsedExtension::CRLDistributionPoints(points) => match &points.points[..] {
            [point] => {
                let named = matches!(&point.distribution_point, Some(DistributionPointName::FullName(names))
                    if names[..] == [GeneralName::URI(&plan.crl)]);
                !critical && named && point.reasons.is_none() && point.crl_issuer.is_none()
            }
            _ => false,
        },
        ParsedExtension::AuthorityInfoAccess(access) => {
            let seen = access.accessdescs.iter().map(|at| (at.access_method.as_bytes(), at.access_location.clone()));
            let planned = [(ACCESS_OCSP, &plan.ocsp), (ACCESS_CA_ISSUERS, &plan.ca_issuers)]
                .map(|(method, uri)| (method, GeneralName::URI(uri)));
            !critical && seen.eq(planned)
        }
        _ => false,
    }
}
