//! The roots that a server trusts. In: certificates as the operator handed them over. Out: anchors for paths.

use dayfly_domain::UnixMs;
use rustls::pki_types::{CertificateDer, TrustAnchor, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates of CAs that may stand at the end of a chain; at least one.
#[derive(Debug, Clone)]
pub struct Anchors(Vec<Anchor>);

/// A CA by its name and key, DER of both.
#[derive(Debug, Clone)]
pub(super) struct Authority {
    pub subject: Vec<u8>,
    /// SubjectPublicKeyInfo.
    pub key: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Anchor {
    trusted: TrustAnchor<'static>,
    own: Authority,
    not_before: UnixMs,
    not_after: UnixMs,
}

/// Why a certificate cannot be an anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnchorsError {
    #[error("there is no certificate")]
    None,
    #[error("there is something else than certificates")]
    Malformed,
    #[error("a certificate is none of a CA, so it cannot vouch for others")]
    NotCa,
}

impl Anchors {
    /// From one or more PEM blocks `CERTIFICATE`; text around them is passed over, other blocks are refused.
    pub fn from_pem(pem: &[u8]) -> Result<Self, AnchorsError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        Self::from_der(&certificates.map_err(|_| AnchorsError::Malformed)?)
    }

    /// From DER, one certificate each.
    pub fn from_der(certificates: &[CertificateDer<'_>]) -> Result<Self, AnchorsError> {
        let anchors: Vec<_> = certificates.iter().map(anchor).collect::<Result<_, _>>()?;
        if anchors.is_empty() { Err(AnchorsError::None) } else { Ok(Self(anchors)) }
    }

    /// Those within their own dates: a path may not end at a root that is over.
    pub(super) fn at(&self, now: UnixMs) -> Vec<TrustAnchor<'static>> {
        self.good_at(now).map(|anchor| anchor.trusted.clone()).collect()
    }

    pub(super) fn authorities(&self, now: UnixMs) -> Vec<Authority> {
        self.good_at(now).map(|anchor| anchor.own.clone()).collect()
    }

    /// Of all, in force or not; DER.
    pub(super) fn names(&self) -> impl Iterator<Item = Vec<u8>> {
        self.0.iter().map(|anchor| anchor.own.subject.clone())
    }

    fn good_at(&self, now: UnixMs) -> impl Iterator<Item = &Anchor> {
        let good =
            move |anchor: &&Anchor| anchor.not_before.as_s() <= now.as_s() && now.as_s() <= anchor.not_after.as_s();
        self.0.iter().filter(good)
    }

    /// Their names, DER: what a client is told that it may come with.
    pub(super) fn subjects(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|anchor| anchor.trusted.subject.as_ref())
    }
}

impl Authority {
    /// As its certificate says.
    pub fn read(der: &[u8]) -> Option<Self> {
        X509Certificate::from_der(der).ok().map(|(_, read)| Self::of(&read))
    }

    fn of(read: &X509Certificate<'_>) -> Self {
        Self { subject: read.subject().as_raw().to_vec(), key: read.public_key().raw.to_vec() }
    }
}

// SECURITY: `t_137_a_leaf_is_no_anchor`; a leaf as an anchor would let whoever holds its key name anybody.
fn anchor(der: &CertificateDer<'_>) -> Result<Anchor, AnchorsError> {
    let (rest, read) = X509Certificate::from_der(der).map_err(|_| AnchorsError::Malformed)?;
    let signs = read.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
    if !rest.is_empty() {
        return Err(AnchorsError::Malformed);
    }
    if !read.is_ca() || !signs {
        return Err(AnchorsError::NotCa);
    }
    let trusted = webpki::anchor_from_trusted_cert(der).map_err(|_| AnchorsError::Malformed)?.to_owned();
    let at = |time: x509_parser::time::ASN1Time| UnixMs::from_s(time.timestamp());
    let own = Authority::of(&read);
    Ok(Anchor { trusted, own, not_before: at(read.validity().not_before), not_after: at(read.validity().not_after) })
}
