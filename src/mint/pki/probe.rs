//! Whether anything below an area CA would be believed: a certificate is made as the broker will make them,
//! checked as a server checks it, and thrown away. What a company's CA put into its certificates is found out
//! before anybody depends on it.

use std::sync::Arc;

use dayfly_domain::UnixMs;
use dayfly_verifier::x509::{Anchors, PeerRules, Revocation, check_peer};
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType, SerialNumber};
use rustls_pki_types::CertificateDer;

use super::{
    ca::{Above, Ca, CaTerms, ISSUING, moment},
    sealed::random,
    signer::{CaKey, FileKey, PkiError},
    turns::Places,
};

const NAME: &str = "probe";
/// A leaf of so many seconds is enough to be looked at.
const LIFE_S: i64 = 300;

/// `above`: what signed the area CA, and so on; the root last.
// SECURITY: `a_chain_that_servers_would_refuse_is_refused_at_the_import`.
pub fn probe(
    area: &Ca,
    above: &[CertificateDer<'_>],
    trust_domain: &str,
    places: &Places,
    now: UnixMs,
) -> Result<(), PkiError> {
    let refused = |why: &dyn std::fmt::Display| {
        PkiError::Refused(format!("servers would refuse whatever is signed below this area CA: {why}"))
    };
    let (root, between) = above.split_last().ok_or(PkiError::NoCa)?;
    let issuing = issuing(area, trust_domain, places, now)?;
    let leaf = leaf(&issuing, trust_domain, now)?;
    let own = [leaf, issuing.der().clone(), area.der().clone()];
    let chain: Vec<_> = own.into_iter().chain(between.iter().cloned()).collect();
    let anchors = Anchors::from_der(std::slice::from_ref(root)).map_err(|error| refused(&error))?;
    let rules = PeerRules::new(trust_domain).map_err(|error| refused(&error))?;
    let rules = rules.admit(NAME.parse().map_err(|error| refused(&error))?).with_revocation(Revocation::Elsewhere);
    check_peer(&chain, &anchors, &rules, None, now).map(drop).map_err(|error| refused(&error))
}

fn issuing(area: &Ca, trust_domain: &str, places: &Places, now: UnixMs) -> Result<Ca, PkiError> {
    let above = Above { crl: places.crl(area.id(), 0), certificate: places.certificate(area.id()) };
    let terms = CaTerms {
        tier: ISSUING,
        trust_domain,
        serial: random()?,
        from: now,
        life_s: LIFE_S,
        above: Some(above),
        dns: &[],
    };
    area.subordinate(&terms, Arc::new(FileKey::generate()?))
}

fn leaf(issuing: &Ca, trust_domain: &str, now: UnixMs) -> Result<CertificateDer<'static>, PkiError> {
    let build = |error: rcgen::Error| PkiError::Build(error.to_string());
    let key = FileKey::generate()?;
    let mut params = CertificateParams::default();
    let mut serial: [u8; 16] = random()?;
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = moment(now.as_s())?;
    params.not_after = moment(now.as_s().saturating_add(LIFE_S).min(issuing.not_after().as_s()))?;
    params.distinguished_name = DistinguishedName::new();
    let name = format!("spiffe://{trust_domain}/{NAME}/{NAME}/{NAME}");
    params.subject_alt_names = vec![SanType::URI(name.as_str().try_into().map_err(build)?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params.signed_by(&CaKey(&key), &issuing.issuer()?).map_err(build)?.der().clone())
}
