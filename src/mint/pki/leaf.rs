//! Exactly what certificate will be signed. In: a grant, the broker's terms, a proven key, the CA that
//! signs. Out: a chain in PEM whose leaf was read again before it was signed, and after.

use std::sync::Arc;

use dayfly_domain::{KeyKind, LeaseId, Secret, SubjectKind, UnixMs, bundle::Leaf};
use rcgen::{
    CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyIdMethod, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use ring::digest;
use rustls_pki_types::CertificateDer;

use super::{Ca, CaId, Pki, ca::moment, der, kept::pem, lint};
use crate::{
    intake::ProvenKey,
    mint::{MintError, Signed, Terms, Window, name::subject, window},
    policy::Grant,
};

/// Since when the task can have anything.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    pub evidence_iat_s: i64,
    pub opened_at: UnixMs,
}

/// Not `Clone`: a plan is spent once.
#[derive(Debug)]
pub struct LeafPlan<'a> {
    pub(super) key: &'a ProvenKey,
    pub(super) ca: Arc<Ca>,
    /// The serial number is its 16 octets.
    pub(super) lease: LeaseId,
    /// The one URI.
    pub(super) name: String,
    pub(super) dns: Vec<String>,
    /// The template, where it is the name of reviewed code: for servers that read nothing but a subject.
    pub(super) common_name: Option<String>,
    pub(super) not_before_s: i64,
    /// Inclusive: the last second in which it is valid.
    pub(super) not_after_s: i64,
    pub(super) crl: String,
    pub(super) ca_issuers: String,
    pub(super) ocsp: String,
    window: Window,
    /// What stands between the leaf and the root: its CA first.
    above: Vec<CertificateDer<'static>>,
}

impl<'a> LeafPlan<'a> {
    // SECURITY: `t_122_a_name_that_is_not_granted_is_refused`, `t_124_another_spiffe_id_is_refused`.
    pub fn new(
        grant: &Grant,
        terms: &Terms<'_>,
        since: Since,
        key: &'a ProvenKey,
        pki: &Pki,
    ) -> Result<Self, MintError> {
        let target = grant.target().ok_or(MintError::NoTarget)?;
        let asked = window(grant, target, terms.deadline, terms.now)?;
        let last = UnixMs::from_s(asked.exp_s - 1);
        let ca = pki.active(pki.lasts_until().map_or(last, |end| end.min(last)));
        let ca = ca.map_err(|error| MintError::Key(error.to_string()))?;
        // Law L3: no credential outlives the key that signed it.
        let window = Window { exp_s: asked.exp_s.min(ca.not_after().as_s() + 1), ..asked };
        if window.exp_s <= window.iat_s {
            return Err(MintError::Key("the issuing CA is about to end".to_owned()));
        }
        let name = subject(terms.trust_domain, grant.template(), terms.workload);
        let wishes = key.wishes();
        let foreign = wishes.uris.iter().any(|uri| *uri != name)
            || wishes.dns.iter().any(|dns| !grant.serves().contains(dns))
            || (wishes.server && grant.serves().is_empty());
        if foreign {
            return Err(MintError::Foreign);
        }
        if let Some(name) = pki.forbidden(ca.id(), grant.serves()) {
            return Err(MintError::Key(format!("the CAs above constrain DNS names, and `{name}` is out")));
        }
        allowed(key, grant, pki)?;
        let places = pki.places();
        Ok(Self {
            key,
            lease: terms.lease,
            name,
            dns: grant.serves().to_vec(),
            common_name: common_name(grant, terms),
            not_before_s: not_before_s(terms.now, since, grant.leaf(), &ca),
            not_after_s: window.exp_s - 1,
            crl: pki.crl_of(ca.id(), terms.lease),
            ca_issuers: places.certificate(ca.id()),
            ocsp: places.ocsp(),
            window,
            above: pki.chain(ca.id()),
            ca,
        })
    }

    pub fn window(&self) -> Window {
        self.window
    }

    pub fn ca(&self) -> &CaId {
        self.ca.id()
    }

    /// Builds what is to be signed and reads it again; only then it is signed, and read once more.
    // SECURITY: `what_is_not_as_planned_is_never_signed`.
    pub fn sign(self) -> Result<Signed, MintError> {
        let tbs = self.tbs()?;
        lint::tbs(&self, &tbs)?;
        let signature = self.ca.signer().sign(&tbs).map_err(|error| MintError::Key(error.to_string()))?;
        let leaf = der::signed(&tbs, &signature);
        lint::leaf(&self, &tbs, &leaf)?;
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &leaf).as_ref());
        let above = self.above.iter().map(|der| &der[..]);
        let chain = std::iter::once(&leaf[..]).chain(above).map(|der| pem("CERTIFICATE", der)).collect::<String>();
        Ok(Signed { token: Secret::new(chain), hash, kid: self.ca.id().to_string(), window: self.window })
    }

    /// `TBSCertificate`, DER.
    fn tbs(&self) -> Result<Vec<u8>, MintError> {
        let build = |error: rcgen::Error| MintError::Key(error.to_string());
        let made = self.params()?.signed_by(&LeafKey(self.key), self.ca.drafting()).map_err(build)?;
        der::first_of(made.der()).map(<[u8]>::to_vec).ok_or(MintError::Mismatch)
    }

    fn params(&self) -> Result<CertificateParams, MintError> {
        let text = |text: &str| text.try_into().map_err(|_| MintError::Mismatch);
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&self.lease.as_u128().to_be_bytes()));
        params.not_before = moment(self.not_before_s).map_err(|_| MintError::Mismatch)?;
        params.not_after = moment(self.not_after_s).map_err(|_| MintError::Mismatch)?;
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = &self.common_name {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        params.subject_alt_names.push(SanType::URI(text(&self.name)?));
        for dns in &self.dns {
            params.subject_alt_names.push(SanType::DnsName(text(dns)?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !self.dns.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        params.key_identifier_method = KeyIdMethod::PreSpecified(self.key_identifier());
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![self.crl.clone()] }];
        params.custom_extensions = vec![CustomExtension::from_oid_content(der::AUTHORITY_INFO_ACCESS, self.access())];
        Ok(params)
    }

    /// As of the CAs (RFC 7093 section 2, method 1).
    pub(super) fn key_identifier(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, self.key.key()).as_ref()[..20].to_vec()
    }

    /// `AuthorityInfoAccessSyntax` (RFC 5280 section 4.2.2.1).
    fn access(&self) -> Vec<u8> {
        let at = |method: &[u8], uri: &str| {
            der::sequence(&[der::element(der::OID, method), der::element(der::URI, uri.as_bytes())].concat())
        };
        der::sequence(&[at(OCSP, &self.ocsp), at(der::CA_ISSUERS, &self.ca_issuers)].concat())
    }
}

/// Of a kind that the profile takes, and nobody else's.
// SECURITY: `t_129_the_key_of_a_ca_is_refused`, `t_128_a_blocked_key_is_refused`.
fn allowed(key: &ProvenKey, grant: &Grant, pki: &Pki) -> Result<(), MintError> {
    if !grant.leaf().keys.contains(&key.kind()) {
        return Err(MintError::KeyKind);
    }
    let has = |der: &[u8]| der.windows(key.key().len()).any(|octets| octets == key.key());
    if pki.certificates().iter().any(|der| has(der)) { Err(MintError::KeyTaken) } else { Ok(()) }
}

/// Servers that read nothing but a subject are not to take unreviewed code for the template.
fn common_name(grant: &Grant, terms: &Terms<'_>) -> Option<String> {
    match (grant.leaf().subject, terms.workload.untrusted) {
        (SubjectKind::Template, false) => Some(grant.template().to_string()),
        (SubjectKind::Template, true) | (SubjectKind::None, _) => None,
    }
}

const OCSP: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01];

/// Not before the task, its evidence or the CA; never ahead of now, though a platform's clock may be.
fn not_before_s(now: UnixMs, since: Since, leaf: &Leaf, ca: &Ca) -> i64 {
    let earliest = [
        now.as_s() - i64::from(leaf.backdate.as_s()),
        since.evidence_iat_s,
        since.opened_at.as_s(),
        ca.not_before().as_s(),
    ];
    earliest.into_iter().max().unwrap_or_default().min(now.as_s())
}

/// The key that the certificate is for, as its builder takes it. Never read from a request by the builder.
struct LeafKey<'a>(&'a ProvenKey);

impl PublicKeyData for LeafKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.key()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.0.kind() {
            KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
            KeyKind::Rsa => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use rcgen::KeyPair;

    use super::*;
    use crate::{intake::prove_key, mint::pki::Places};

    const NOW: UnixMs = UnixMs::from_s(1_800_000_000);

    fn pki() -> Pki {
        Pki::in_memory("example.org", Places { base: "http://pki.test".into() }, NOW).unwrap()
    }

    fn key() -> ProvenKey {
        let request = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
        prove_key(&URL_SAFE_NO_PAD.encode(request.der())).unwrap()
    }

    fn plan<'a>(pki: &Pki, key: &'a ProvenKey, dns: &[&str]) -> LeafPlan<'a> {
        let ca = pki.active(NOW).unwrap();
        LeafPlan {
            key,
            lease: LeaseId::from_parts(1_800_000_000_000, [7; 10]),
            name: "spiffe://example.org/deploy/ci/shop".into(),
            dns: dns.iter().map(|name| (*name).to_owned()).collect(),
            common_name: Some("deploy".into()),
            not_before_s: NOW.as_s(),
            not_after_s: NOW.as_s() + 899,
            crl: pki.places().crl(ca.id(), 0),
            ca_issuers: pki.places().certificate(ca.id()),
            ocsp: pki.places().ocsp(),
            window: Window { iat_s: NOW.as_s(), exp_s: NOW.as_s() + 900 },
            above: pki.chain(ca.id()),
            ca,
        }
    }

    #[test]
    fn what_is_not_as_planned_is_never_signed() {
        let (pki, other_pki, key, other_key) = (pki(), pki(), key(), key());
        let tbs = plan(&pki, &key, &["db"]).tbs().unwrap();
        assert!(lint::tbs(&plan(&pki, &key, &["db"]), &tbs).is_ok());
        let with = |change: fn(&mut LeafPlan<'_>)| {
            let mut plan = plan(&pki, &key, &["db"]);
            change(&mut plan);
            plan
        };
        for (what, changed) in [
            ("key", plan(&pki, &other_key, &["db"])),
            ("CA", LeafPlan { ca: other_pki.active(NOW).unwrap(), ..plan(&pki, &key, &["db"]) }),
            ("no DNS name", plan(&pki, &key, &[])),
            ("two DNS names", plan(&pki, &key, &["db", "db2"])),
            ("serial", with(|plan| plan.lease = LeaseId::from_u128(7))),
            ("name", with(|plan| plan.name.push('x'))),
            ("subject", with(|plan| plan.common_name = None)),
            ("another subject", with(|plan| plan.common_name = Some("root".into()))),
            ("begin", with(|plan| plan.not_before_s += 1)),
            ("end", with(|plan| plan.not_after_s += 1)),
            ("CRL", with(|plan| plan.crl.push('x'))),
            ("CA's place", with(|plan| plan.ca_issuers.push('x'))),
            ("OCSP", with(|plan| plan.ocsp.push('x'))),
        ] {
            assert!(lint::tbs(&changed, &tbs).is_err(), "{what}");
        }
        let unnoticed = (0..tbs.len()).filter(|&at| {
            let mut bent = tbs.clone();
            bent[at] ^= 1;
            lint::tbs(&plan(&pki, &key, &["db"]), &bent).is_ok()
        });
        assert_eq!(unnoticed.collect::<Vec<_>>(), Vec::<usize>::new(), "{tbs:02x?}");
    }

    #[test]
    fn what_was_signed_is_read_once_more() {
        let (pki, other, key) = (pki(), pki(), key());
        let plan = || plan(&pki, &key, &[]);
        let tbs = plan().tbs().unwrap();
        let leaf = |ca: &Ca| der::signed(&tbs, &ca.signer().sign(&tbs).unwrap());
        assert!(lint::leaf(&plan(), &tbs, &leaf(&plan().ca)).is_ok());
        assert!(lint::leaf(&plan(), &tbs, &leaf(&other.active(NOW).unwrap())).is_err(), "by another CA");
        assert!(lint::leaf(&plan(), &tbs, &[&leaf(&plan().ca)[..], &[0]].concat()).is_err(), "something after it");
        assert!(lint::leaf(&plan(), &tbs[..9], &leaf(&plan().ca)).is_err(), "of something else");
        let signed = plan().sign().unwrap();
        assert_eq!(signed.token.expose().matches("BEGIN CERTIFICATE").count(), 3);
    }
}
