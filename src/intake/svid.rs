//! X.509-SVIDs of a foreign trust domain as evidence (the SPIFFE X509-SVID standard, sections 2 to 5). In: what a
//! client showed in its handshake, and the certificate that its request names. Out: [`Proven`], whose claims are
//! the one SPIFFE ID in it.
//!
//! A certificate is public and lives long, so it is not what is used up. What is shown once is the handshake: a
//! signature by the certificate's key over both sides' random bytes, which nobody can show again. So each
//! connection opens one task (law L9).

use dayfly_domain::{
    Reason, UnixMs,
    bundle::{Bundle, Issuer, IssuerKind},
    spiffe::SpiffeId,
};
use ring::digest;
use serde_json::{Map, Value};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{IntakeError, MAX_AHEAD_S, Origin, Proven};
use crate::sys::net::{ChainError, PresentedChain};

/// Why a client's certificate is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum SvidRefusal {
    #[error("the connection was opened without the certificate that `subject_token` names")]
    NotPresented,
    #[error("a client certificate is evidence over TLS 1.3 only")]
    Session,
    #[error("the certificate is no X.509-SVID: {0}")]
    Form(&'static str),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("the certificate is valid for more than a day from now")]
    Long,
}

impl SvidRefusal {
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotPresented | Self::Session => Reason::Certificate,
            Self::Form(_) | Self::Long => Reason::Claim,
            Self::Chain(ChainError::Expired) => Reason::Expired,
            Self::Chain(ChainError::NoRoot | ChainError::Chain(_)) => Reason::Signature,
        }
    }
}

/// Proves the workload behind a connection. `named`: DER of the certificate that the request says it means.
// SECURITY: `our_own_certificate_is_no_evidence`, `t_137_an_svid_below_a_twin_of_the_root_is_refused`,
// `a_handshake_opens_one_task`, `t_146_a_common_name_is_nobody`.
pub fn prove_svid(
    client: Option<&PresentedChain>,
    named: &[u8],
    bundle: &Bundle,
    now: UnixMs,
) -> Result<Proven, IntakeError> {
    let client = client.filter(|client| client.leaf() == named).ok_or(SvidRefusal::NotPresented)?;
    let svid = Svid::read(client.leaf())?;
    let id = SpiffeId::parse(&svid.id).ok_or(SvidRefusal::Form("its URI is no SPIFFE ID"))?;
    if id.trust_domain() == bundle.trust_domain {
        return Err(IntakeError::Own);
    }
    let origin = origin(bundle, id)?;
    let roots = origin.issuer.roots().unwrap_or_default();
    let roots = crate::sys::net::roots(roots).map_err(|_| SvidRefusal::Chain(ChainError::NoRoot))?;
    client.verify(&roots, now).map_err(SvidRefusal::from)?;
    if svid.until.as_s() - now.as_s() > i64::from(MAX_AHEAD_S) {
        return Err(SvidRefusal::Long.into());
    }
    let session = client.session().ok_or(SvidRefusal::Session)?;
    let payload = Map::from_iter([("sub".to_owned(), Value::String(svid.id.clone()))]);
    Ok(Proven {
        workload: origin.read_payload(&payload)?,
        evidence_key: evidence_key(&origin.issuer.url, client.fingerprint(), session),
        issued_at: svid.from,
        expires: svid.until,
        unconfirmed: false,
    })
}

/// The issuer that vouches for certificates of this trust domain.
fn origin<'a>(bundle: &'a Bundle, id: SpiffeId<'_>) -> Result<Origin<'a>, IntakeError> {
    let fits = |issuer: &&Issuer| {
        let vouches = issuer.kind == IssuerKind::Workload && !issuer.disabled && issuer.roots().is_some();
        vouches && issuer.trust_domain() == Some(id.trust_domain())
    };
    let issuer = bundle.issuers.values().find(fits).ok_or(IntakeError::UnknownIssuer)?;
    let profile = bundle.profiles.get(&issuer.profile).ok_or(IntakeError::UnknownIssuer)?;
    Ok(Origin { issuer, profile })
}

/// What a leaf says of itself.
#[derive(Debug)]
struct Svid {
    id: String,
    from: UnixMs,
    /// The first moment at which it is over.
    until: UnixMs,
}

impl Svid {
    /// Section 2: one URI. Section 4: no CA, and a key that signs for itself alone.
    fn read(der: &[u8]) -> Result<Self, SvidRefusal> {
        let form = SvidRefusal::Form;
        let (_, leaf) = X509Certificate::from_der(der).map_err(|_| form("it cannot be read"))?;
        let twice = |_| form("it has an extension twice, or one that cannot be read");
        let names = leaf.subject_alternative_name().map_err(twice)?.ok_or(form("it names nobody"))?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let (Some(id), None) = (uris.next(), uris.next()) else { return Err(form("it has not exactly one URI")) };
        if leaf.basic_constraints().map_err(twice)?.is_some_and(|basic| basic.value.ca) {
            return Err(form("it is a CA's"));
        }
        let usage = leaf.key_usage().map_err(twice)?.filter(|usage| usage.critical);
        let usage = usage.ok_or(form("its key usage is missing, or not critical"))?.value;
        if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
            return Err(form("its key usage is not that of a leaf"));
        }
        let (from, until) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
        Ok(Self { id: id.to_owned(), from: UnixMs::from_s(from), until: UnixMs::from_s(until).plus_s(1) })
    }
}

/// SHA-256(issuer URL, 0, "x5", fingerprint, what only this handshake has).
fn evidence_key(issuer: &str, fingerprint: &[u8; 32], session: &[u8; 32]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [issuer.as_bytes(), &[0], b"x5", fingerprint, session] {
        context.update(part);
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn read(change: impl FnOnce(&mut CertificateParams)) -> Result<String, SvidRefusal> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri("spiffe://prod.example/ns/pay/sa/api")];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        change(&mut params);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Svid::read(made.der()).map(|svid| svid.id)
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn a_leaf_is_known_by_its_one_uri() {
        assert_eq!(read(|_| {}).unwrap(), "spiffe://prod.example/ns/pay/sa/api");
        assert!(read(|params| params.subject_alt_names.push(dns("api.prod.example"))).is_ok());
        assert!(read(|params| params.subject_alt_names.push(uri("spiffe://prod.example/ns/pay/sa/admin"))).is_err());
        assert!(read(|params| params.subject_alt_names = vec![dns("api.prod.example")]).is_err());
    }

    #[test]
    fn t_146_a_common_name_is_nobody() {
        let named = read(|params| {
            params.subject_alt_names.clear();
            params.distinguished_name.push(rcgen::DnType::CommonName, "spiffe://prod.example/ns/pay/sa/api");
        });
        assert!(matches!(named, Err(SvidRefusal::Form("it names nobody"))), "{named:?}");
    }

    #[test]
    fn a_certificate_that_could_sign_others_is_no_leaf() {
        assert!(read(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).is_err());
        assert!(read(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)).is_err());
        assert!(read(|params| params.key_usages.push(KeyUsagePurpose::CrlSign)).is_err());
        assert!(read(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]).is_err());
        assert!(read(|params| params.key_usages.clear()).is_err());
    }

    #[test]
    fn each_handshake_is_evidence_of_its_own() {
        let key = |print: u8, session: u8| evidence_key("spiffe://prod.example", &[print; 32], &[session; 32]);
        assert_eq!(key(1, 2), key(1, 2));
        assert!(key(1, 2) != key(1, 3) && key(1, 2) != key(2, 2));
        assert_ne!(key(1, 2), evidence_key("spiffe://stage.example", &[1; 32], &[2; 32]));
    }
}
