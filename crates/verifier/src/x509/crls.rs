//! Revocation lists: what the broker publishes as `/pki/bundle.crl`, or any part of it. In: bytes. Out: a set to
//! ask, in which the newest list of each place counts. Their signatures are checked with each chain.

use std::sync::Arc;

use rustls::pki_types::{CertificateRevocationListDer, pem::PemObject};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::{
    num_bigint::BigUint,
    oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
    prelude::{CertificateRevocationList, FromDer, SubjectPublicKeyInfo},
};

use super::anchors::Authority;

/// A file of lists that is read.
pub const CRL_BUNDLE_MAX_BYTES: usize = 32 << 20;
/// Lists of one set.
pub const CRLS_MAX: usize = 1024;

/// The lists that a server goes by; at least one.
#[derive(Debug)]
pub struct CrlSet(Vec<Arc<List>>);

#[derive(Debug)]
pub(super) struct List {
    pub place: Place,
    pub number: BigUint,
    pub next_update_s: i64,
    pub der: Vec<u8>,
    list: CertRevocationList<'static>,
}

/// What a list is about: a CA, and which part of what it issued. DER of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub issuer: Vec<u8>,
    distribution_point: Option<Vec<u8>>,
}

/// Why a file of lists is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    #[error("there is no revocation list")]
    None,
    #[error("there are too many revocation lists, or they are too large")]
    Size,
    #[error("a revocation list is malformed, or of a kind that is not understood")]
    Malformed,
    #[error("a revocation list is older than the one that is in force")]
    Older,
}

impl CrlSet {
    /// From PEM blocks `X509 CRL`, or a single list in DER. Each must have a number and a `nextUpdate`.
    pub fn parse(bytes: &[u8]) -> Result<Self, CrlError> {
        if bytes.len() > CRL_BUNDLE_MAX_BYTES {
            return Err(CrlError::Size);
        }
        let ders = ders(bytes)?;
        if ders.len() > CRLS_MAX {
            return Err(CrlError::Size);
        }
        let mut set: Vec<Arc<List>> = Vec::new();
        for list in ders.iter().map(|der| List::read(der)) {
            let list = Arc::new(list?);
            match set.iter_mut().find(|there| there.place == list.place) {
                Some(there) if list.number > there.number => *there = list,
                Some(_) => {}
                None => set.push(list),
            }
        }
        if set.is_empty() { Err(CrlError::None) } else { Ok(Self(set)) }
    }

    /// How many lists there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn lists(&self) -> Vec<&CertRevocationList<'static>> {
        self.0.iter().map(|list| &list.list).collect()
    }

    pub(super) fn of(lists: Vec<Arc<List>>) -> Self {
        Self(lists)
    }

    pub(super) fn into_lists(self) -> Vec<Arc<List>> {
        self.0
    }
}

fn ders(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'_>>, CrlError> {
    // A SEQUENCE: no PEM begins so.
    if bytes.first() == Some(&0x30) {
        return Ok(vec![CertificateRevocationListDer::from(bytes)]);
    }
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    lists.map_err(|_| CrlError::Malformed)
}

impl List {
    // SECURITY: `t_140_a_broken_list_is_an_error_and_no_panic`
    fn read(der: &[u8]) -> Result<Self, CrlError> {
        let (rest, read) = CertificateRevocationList::from_der(der).map_err(|_| CrlError::Malformed)?;
        let number = read.crl_number().cloned();
        let (Some(number), Some(next_update), []) = (number, read.next_update(), rest) else {
            return Err(CrlError::Malformed);
        };
        let mut points = read.extensions().iter().filter(|ext| ext.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        let place = Place {
            issuer: read.issuer().as_raw().to_vec(),
            distribution_point: points.next().map(|point| point.value.to_vec()),
        };
        let list = OwnedCertRevocationList::from_der(der).map_err(|_| CrlError::Malformed)?;
        Ok(Self { place, number, next_update_s: next_update.timestamp(), der: der.to_vec(), list: list.into() })
    }

    /// Whether this CA signed it.
    pub fn is_signed_by(&self, ca: &Authority) -> bool {
        let key = SubjectPublicKeyInfo::from_der(&ca.key);
        let list = CertificateRevocationList::from_der(&self.der);
        let (Ok((_, key)), Ok((_, list))) = (key, list) else { return false };
        ca.subject == self.place.issuer && list.verify_signature(&key).is_ok()
    }
}
