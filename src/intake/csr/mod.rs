//! A request for a certificate (PKCS#10, RFC 2986). In: a stranger's text. Out: [`ProvenKey`], a public key
//! whose secret half signed the request, and what the request wants beside it, so that whatever would not be
//! granted is refused and not left out.
//!
//! Nothing else of a request is used. Its subject is read for its form only: every tool writes one, and it
//! grants nothing.

mod der;
mod weak;
mod wishes;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::{KeyKind, Reason};
use dayfly_verifier::is_anyones_ed25519;
use der::{BIT_STRING, Element, INTEGER, SEQUENCE, SET};
use ring::{digest, signature};
pub use wishes::Wishes;

/// Longest request, in octets of DER.
pub const CSR_MAX_BYTES: usize = 16 * 1024;

/// A public key of whoever asks. Made only here, by the check of a request's signature.
#[derive(Debug)]
pub struct ProvenKey {
    kind: KeyKind,
    spki: Vec<u8>,
    /// The key within `spki`.
    key: Vec<u8>,
    wishes: Wishes,
}

/// Why a request is refused. Never quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    #[error("`csr` is not base64url of at most 16 KiB, without padding")]
    Text,
    #[error("`csr` is not one PKCS#10 request in DER")]
    Form,
    #[error("the key of the request is of a kind that is not taken")]
    Key,
    #[error("the key of the request is weak: others can have its secret half")]
    Weak,
    #[error("the request is signed in a way that is not taken")]
    Algorithm,
    #[error("the request is not signed with its own key")]
    Signature,
    #[error("the request has an attribute other than one `extensionRequest`")]
    Attribute,
    #[error("the request asks to be a CA")]
    Ca,
    #[error("the request asks for another key usage than `digitalSignature`")]
    Usage,
    #[error("the request asks for another purpose than `clientAuth`, or `serverAuth` where the template serves")]
    Purpose,
    #[error("the request asks for a name that is neither a URI nor a DNS name")]
    NameForm,
    #[error("the request asks for an extension that is not for it to ask")]
    Extension,
}

impl CsrError {
    pub fn reason(self) -> Reason {
        match self {
            Self::Text
            | Self::Form
            | Self::Key
            | Self::Weak
            | Self::Algorithm
            | Self::Signature
            | Self::Attribute
            | Self::Ca
            | Self::Usage
            | Self::Purpose
            | Self::NameForm
            | Self::Extension => Reason::Csr,
        }
    }
}

impl ProvenKey {
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The key alone, as the BIT STRING of `spki` holds it.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// base64url of SHA-256 over [`ProvenKey::spki`].
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &self.spki))
    }

    pub fn wishes(&self) -> &Wishes {
        &self.wishes
    }
}

/// Reads a request and checks that it is signed with its own key.
// SECURITY: `t_129_a_request_is_signed_with_its_own_key`, `t_123_what_a_ca_could_do_is_not_to_be_asked`.
pub fn prove_key(csr: &str) -> Result<ProvenKey, CsrError> {
    // The engine refuses padding, foreign letters and loose bits at the end: one spelling only.
    let der = URL_SAFE_NO_PAD.decode(csr).ok().filter(|der| der.len() <= CSR_MAX_BYTES).ok_or(CsrError::Text)?;
    let read = Read::of(&der).ok_or(CsrError::Form)?;
    let (kind, key) = key_of(&read.spki)?;
    let wishes = Wishes::read(&read.attributes)?;
    let verified = signature::UnparsedPublicKey::new(algorithm(kind, read.algorithm)?, key);
    verified.verify(read.info, read.signature).map_err(|_| CsrError::Signature)?;
    Ok(ProvenKey { kind, spki: read.spki.raw.to_vec(), key: key.to_vec(), wishes })
}

/// `CertificationRequest`, taken apart.
struct Read<'a> {
    info: &'a [u8],
    spki: Element<'a>,
    attributes: Vec<Element<'a>>,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Read<'a> {
    fn of(der: &'a [u8]) -> Option<Self> {
        let outer = Element::whole(der)?.children(SEQUENCE)?;
        let [info, algorithm, signature] = outer[..] else { return None };
        let inner = info.children(SEQUENCE)?;
        let [version, subject, spki, attributes] = inner[..] else { return None };
        let form = version.content(INTEGER)? == [0] && is_name(&subject)? && algorithm.tag == SEQUENCE;
        let attributes = attributes.children(0xa0)?;
        let sorted = attributes.is_sorted_by(|one, next| one.raw < next.raw);
        let signature = whole_octets(&signature)?;
        (form && sorted).then_some(Self { info: info.raw, spki, attributes, algorithm: algorithm.raw, signature })
    }
}

/// `Name`: sets of an identifier and a text.
fn is_name(subject: &Element<'_>) -> Option<bool> {
    let mut good = true;
    for set in subject.children(SEQUENCE)? {
        let pairs = set.children(SET)?;
        good &= !pairs.is_empty();
        for pair in pairs {
            let pair = pair.children(SEQUENCE)?;
            good &= matches!(pair[..], [Element { tag: der::OID, .. }, value] if !matches!(value.tag, SEQUENCE | SET));
        }
    }
    Some(good)
}

/// Of a BIT STRING of whole octets.
fn whole_octets<'a>(bits: &Element<'a>) -> Option<&'a [u8]> {
    match bits.content(BIT_STRING)?.split_first()? {
        (0, octets) => Some(octets),
        _ => None,
    }
}

// Each algorithm identifier has one encoding (RFC 5480, 8410, 5758).
const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];
const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
const RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const RSA_SHA256: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00];
const RSA_SHA384: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c, 0x05, 0x00];
const RSA_SHA512: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d, 0x05, 0x00];
const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_SHA384: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];

/// A P-256 point is taken uncompressed only; that it is on its curve is checked with the signature.
// SECURITY: `t_128_keys_of_other_curves_are_refused`.
fn key_of<'a>(spki: &Element<'a>) -> Result<(KeyKind, &'a [u8]), CsrError> {
    let parts = spki.children(SEQUENCE).ok_or(CsrError::Form)?;
    let [algorithm, key] = parts[..] else { return Err(CsrError::Form) };
    let key = whole_octets(&key).ok_or(CsrError::Form)?;
    match (algorithm.raw, key) {
        (P256, [4, ..]) if key.len() == 65 => Ok((KeyKind::P256, key)),
        (ED25519, _) => match <[u8; 32]>::try_from(key) {
            Ok(point) if is_anyones_ed25519(point) => Err(CsrError::Weak),
            Ok(_) => Ok((KeyKind::Ed25519, key)),
            Err(_) => Err(CsrError::Key),
        },
        // SECURITY: `t_133_an_oversized_key_is_refused_before_it_is_used`.
        (RSA, _) => match rsa(key).ok_or(CsrError::Form)? {
            (modulus, exponent) if weak::is_sound_rsa(modulus, exponent) => Ok((KeyKind::Rsa, key)),
            _ => Err(CsrError::Weak),
        },
        _ => Err(CsrError::Key),
    }
}

/// `RSAPublicKey` (RFC 8017 section A.1.1): modulus and exponent, neither of them negative.
fn rsa(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let parts = Element::whole(key)?.children(SEQUENCE)?;
    let [modulus, exponent] = parts[..] else { return None };
    Some((number(&modulus)?, number(&exponent)?))
}

fn number<'a>(part: &Element<'a>) -> Option<&'a [u8]> {
    let octets = part.content(INTEGER)?;
    (octets[0] < 0x80).then(|| octets.strip_prefix(&[0]).unwrap_or(octets))
}

fn algorithm(kind: KeyKind, algorithm: &[u8]) -> Result<&'static dyn signature::VerificationAlgorithm, CsrError> {
    match (kind, algorithm) {
        (KeyKind::P256, ECDSA_SHA256) => Ok(&signature::ECDSA_P256_SHA256_ASN1),
        (KeyKind::P256, ECDSA_SHA384) => Ok(&signature::ECDSA_P256_SHA384_ASN1),
        (KeyKind::Rsa, RSA_SHA256) => Ok(&signature::RSA_PKCS1_2048_8192_SHA256),
        (KeyKind::Rsa, RSA_SHA384) => Ok(&signature::RSA_PKCS1_2048_8192_SHA384),
        (KeyKind::Rsa, RSA_SHA512) => Ok(&signature::RSA_PKCS1_2048_8192_SHA512),
        (KeyKind::Ed25519, ED25519) => Ok(&signature::ED25519),
        _ => Err(CsrError::Algorithm),
    }
}
