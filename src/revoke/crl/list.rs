//! A complete CRL (RFC 5280 section 5), built and signed.
//!
//! By hand and not with the builder of certificates: that one would copy each name and entry several
//! times, and ten thousand of them are written within the second in which they ended.

use std::cmp::Reverse;

use dayfly_domain::UnixMs;

use super::{super::der, entry::CrlEntry};
use crate::mint::pki::{Ca, PkiError};

/// What a CRL says beside its entries.
#[derive(Debug, Clone, Copy)]
pub struct CrlTerms<'a> {
    /// Where it is fetched: byte for byte what the certificates say.
    pub uri: &'a str,
    pub number: u64,
    pub this_update: UnixMs,
    pub next_update: UnixMs,
}

const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
const DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 0x1c];

/// What is not there is good: the list is complete for its distribution point.
pub fn sign_crl(ca: &Ca, terms: CrlTerms<'_>, mut entries: Vec<CrlEntry>) -> Result<Vec<u8>, PkiError> {
    // Newest first: what was just ended is what is looked for.
    entries.sort_unstable_by_key(|entry| (Reverse(entry.revocation.at), entry.serial));
    let updates = [der::time(terms.this_update), der::time(terms.next_update)];
    let parts = [
        &[der::INTEGER, 1, 1][..],
        der::ECDSA_SHA256,
        ca.name(),
        &updates[0],
        &updates[1],
        &revoked(&entries),
        &extensions(&ca.id().octets(), terms),
    ];
    let list = der::sequence(&parts);
    let signature = ca.signer().sign(&list)?;
    Ok(der::sequence(&[&list, der::ECDSA_SHA256, &der::bit_string(&signature)]))
}

/// Absent when nothing is (section 5.1.2.6).
fn revoked(entries: &[CrlEntry]) -> Vec<u8> {
    const ENTRY_BYTES: usize = 50;
    if entries.is_empty() {
        return Vec::new();
    }
    let mut all = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    entries.iter().for_each(|entry| entry.write(&mut all));
    der::sequence(&[&all])
}

fn extensions(key_id: &[u8], terms: CrlTerms<'_>) -> Vec<u8> {
    let authority = der::sequence(&[&der::element(der::context_plain(0), &[key_id])]);
    let uri = der::element(der::context_plain(6), &[terms.uri.as_bytes()]);
    // distributionPoint, fullName, and the one name in it.
    let point = der::element(der::context(0), &[&der::element(der::context(0), &[&uri])]);
    let all = der::sequence(&[
        &der::extension(AUTHORITY_KEY, false, &authority),
        &der::extension(CRL_NUMBER, false, &der::integer(&terms.number.to_be_bytes())),
        &der::extension(DISTRIBUTION_POINT, true, &der::sequence(&[&point])),
    ]);
    der::element(der::context(0), &[&all])
}
