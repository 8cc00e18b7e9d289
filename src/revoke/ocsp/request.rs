//! An OCSP request, from anybody: read strictly, and no deeper than it may be.

use dayfly_domain::LeaseId;
use ring::digest;

use super::{
    super::{
        Serial,
        der::{Input, NULL, NotDer, OCTET_STRING, OID, SEQUENCE, context},
        lease_of,
    },
    NotAnswered, OCSP_ASKED_MAX, OCSP_MAX_BYTES,
};
use crate::mint::pki::Ca;

/// `id-pkix-ocsp-nonce`.
pub(super) const NONCE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x02];
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// RFC 9654 section 2.1.
const NONCE_MAX_BYTES: usize = 128;
/// RFC 5280 section 4.1.2.2.
const SERIAL_MAX_BYTES: usize = 20;

/// What is asked.
#[derive(Debug)]
pub struct OcspRequest<'a> {
    pub asked: Vec<Asked<'a>>,
    /// The extension's value, as it is echoed.
    pub(super) nonce: Option<&'a [u8]>,
}

/// One certificate, named by its issuer's name and key, and its serial number.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The whole CertID, as it is echoed.
    pub(super) raw: &'a [u8],
    hash: Option<&'static digest::Algorithm>,
    name_hash: &'a [u8],
    key_hash: &'a [u8],
    serial: &'a [u8],
}

impl<'a> OcspRequest<'a> {
    // SECURITY: `t_132_a_request_is_short_and_flat`.
    pub fn parse(der: &'a [u8]) -> Result<Self, NotAnswered> {
        if der.len() > OCSP_MAX_BYTES {
            return Err(NotAnswered::Malformed);
        }
        let mut whole = Input::whole(der, SEQUENCE)?;
        let mut request = whole.inside(SEQUENCE)?;
        // Who signed a request does not matter here: the answer is for everybody (RFC 5019 section 2.1).
        whole.optional(context(0))?;
        whole.end()?;
        // `version` is v1 by default, and what is default is not written.
        request.optional(context(1))?;
        let mut list = request.inside(SEQUENCE)?;
        let nonce = match request.optional(context(2))? {
            Some(extensions) => nonce(extensions)?,
            None => None,
        };
        request.end()?;
        let mut asked = Vec::new();
        while !list.is_empty() {
            if asked.len() == OCSP_ASKED_MAX {
                return Err(NotAnswered::Malformed);
            }
            asked.push(Asked::parse(list.inside(SEQUENCE)?)?);
        }
        if asked.is_empty() { Err(NotAnswered::Malformed) } else { Ok(Self { asked, nonce }) }
    }
}

impl<'a> Asked<'a> {
    fn parse(mut request: Input<'a>) -> Result<Self, NotDer> {
        let raw = request.raw(SEQUENCE)?;
        if let Some(extensions) = request.optional(context(0))? {
            each_extension(extensions, |_, _| Err(NotDer))?;
        }
        request.end()?;
        let mut id = Input::whole(raw, SEQUENCE)?;
        let hash = algorithm(id.inside(SEQUENCE)?)?;
        let name_hash = id.inside(OCTET_STRING)?.octets();
        let key_hash = id.inside(OCTET_STRING)?.octets();
        let serial = id.positive()?;
        id.end()?;
        if serial.len() > SERIAL_MAX_BYTES { Err(NotDer) } else { Ok(Self { raw, hash, name_hash, key_hash, serial }) }
    }

    /// Whether it names this CA as the issuer.
    pub fn is_of(&self, ca: &Ca) -> bool {
        let is = |octets: &[u8], hashed: &[u8]| {
            self.hash.is_some_and(|algorithm| digest::digest(algorithm, octets).as_ref() == hashed)
        };
        is(ca.name(), self.name_hash) && is(ca.signer().public_key(), self.key_hash)
    }

    /// The lease that a certificate with this serial number would have.
    pub fn lease(&self) -> Option<LeaseId> {
        self.serial().map(|serial| lease_of(&serial))
    }

    /// `None`: none of ours has such a one.
    pub fn serial(&self) -> Option<Serial> {
        let octets = self.serial.strip_prefix(&[0]).unwrap_or(self.serial);
        let mut serial = Serial::default();
        serial[16_usize.checked_sub(octets.len())?..].copy_from_slice(octets);
        Some(serial)
    }
}

/// `None`: one that is not known here; whatever it makes of our names is not ours.
fn algorithm(mut id: Input<'_>) -> Result<Option<&'static digest::Algorithm>, NotDer> {
    let name = id.inside(OID)?.octets();
    let known = match name {
        _ if name == SHA1 => Some(&digest::SHA1_FOR_LEGACY_USE_ONLY),
        _ if name == SHA256 => Some(&digest::SHA256),
        _ => None,
    };
    if known.is_some() {
        if id.optional(NULL)?.is_some_and(|null| !null.is_empty()) {
            return Err(NotDer);
        }
        id.end()?;
    }
    Ok(known)
}

/// The nonce, if there is one, of 1 to 128 octets (RFC 9654).
fn nonce(extensions: Input<'_>) -> Result<Option<&[u8]>, NotDer> {
    let mut nonce = None;
    each_extension(extensions, |name, value| {
        if name != NONCE {
            return Err(NotDer);
        }
        let length = Input::whole(value, OCTET_STRING)?.octets().len();
        let once = nonce.replace(value).is_none();
        if once && (1..=NONCE_MAX_BYTES).contains(&length) { Ok(()) } else { Err(NotDer) }
    })?;
    Ok(nonce)
}

/// Gives each extension to `take`. What `take` does not know is ignored, unless it is critical.
fn each_extension<'a>(
    mut explicit: Input<'a>,
    mut take: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), NotDer>,
) -> Result<(), NotDer> {
    let mut all = explicit.inside(SEQUENCE)?;
    explicit.end()?;
    if all.is_empty() {
        return Err(NotDer);
    }
    while !all.is_empty() {
        let mut extension = all.inside(SEQUENCE)?;
        let name = extension.inside(OID)?.octets();
        let critical = extension.flag()?;
        let value = extension.inside(OCTET_STRING)?.octets();
        extension.end()?;
        if critical || name == NONCE {
            take(name, value)?;
        }
    }
    Ok(())
}
