//! The answer, written out (RFC 6960 section 4.2).

use dayfly_domain::UnixMs;

use super::{
    super::{CRL_BACK_S, der},
    CertStatus, OCSP_LIFE_S, OcspAnswer, OcspRequest,
    request::NONCE,
    signer::OcspSigner,
};
use crate::mint::pki::PkiError;

/// `id-pkix-ocsp-basic`.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// Anybody could have written it.
pub(super) fn unsigned(status: u8) -> Vec<u8> {
    der::sequence(&[&[der::ENUMERATED, 1, status]])
}

pub(super) fn signed(
    request: &OcspRequest<'_>,
    statuses: &[CertStatus],
    signer: &OcspSigner,
    now: UnixMs,
) -> Result<OcspAnswer, PkiError> {
    let (this_update, next_update) = (now.plus_s(-CRL_BACK_S), now.plus_s(i64::from(OCSP_LIFE_S)));
    let updates = [der::generalized(this_update), der::element(der::context(0), &[&der::generalized(next_update)])];
    let answers: Vec<u8> = request
        .asked
        .iter()
        .zip(statuses)
        .flat_map(|(asked, status)| der::sequence(&[asked.raw, &certificate(status), &updates[0], &updates[1]]))
        .collect();
    let extensions = request.nonce.map(|nonce| {
        let all = der::sequence(&[&der::extension(NONCE, false, nonce)]);
        der::element(der::context(1), &[&all])
    });
    let by_key = der::element(der::context(2), &[&der::element(der::OCTET_STRING, &[signer.key_hash()])]);
    let data = der::sequence(&[
        &by_key,
        &der::generalized(now),
        &der::sequence(&[&answers]),
        extensions.as_deref().unwrap_or_default(),
    ]);
    let signature = der::bit_string(&signer.sign(&data)?);
    let certificates = der::element(der::context(0), &[&der::sequence(&[signer.certificate()])]);
    let basic = der::sequence(&[&data, der::ECDSA_SHA256, &signature, &certificates]);
    let octets = der::element(der::OCTET_STRING, &[&basic]);
    let whole = der::element(der::context(0), &[&der::sequence(&[&der::oid(BASIC), &octets])]);
    Ok(OcspAnswer {
        der: der::sequence(&[&[der::ENUMERATED, 1, 0], &whole]),
        this_update,
        next_update,
        is_single: request.nonce.is_some(),
    })
}

fn certificate(status: &CertStatus) -> Vec<u8> {
    match status {
        CertStatus::Good => der::element(der::context_plain(0), &[]),
        CertStatus::Unknown => der::element(der::context_plain(2), &[]),
        CertStatus::Revoked(revocation) => {
            let reason = der::element(der::context(0), &[&[der::ENUMERATED, 1, revocation.reason as u8]]);
            der::element(der::context(1), &[&der::generalized(revocation.at), &reason])
        }
    }
}
