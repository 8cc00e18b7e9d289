//! OCSP requests (RFC 6960) about live certificates, as OpenSSL makes them, and what must be answered.

use dayfly::http::shapes::TokenAnswer;
use ring::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
    rand::SecureRandom,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{certificate::chain, client::Connection, sys};

const PATH: &str = "/pki/ocsp";
const MEDIA_TYPE: &str = "application/ocsp-request";
const NONCE_BYTES: usize = 32;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// `AlgorithmIdentifier` of SHA-1, and `id-pkix-ocsp-nonce`.
const SHA1: &[u8] = &[0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00];
const NONCE: &[u8] = &[0x06, 0x09, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x02];
/// After what begins an answer: `responseStatus` is `successful`.
const SUCCESSFUL: &[u8] = &[0x0a, 0x01, 0x00];
const GOOD: &[u8] = &[0x80, 0x00];

/// A certificate that is asked about: its CertID.
#[derive(Debug, Clone)]
pub(crate) struct Asked(Vec<u8>);

impl Asked {
    /// `None`: there is no chain of certificates in the answer.
    pub fn about(issued: &TokenAnswer) -> Option<Self> {
        let chain = chain(issued.access_token.as_bytes());
        let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
        let (_, ca) = X509Certificate::from_der(chain.get(1)?).ok()?;
        let hash = |octets: &[u8]| element(OCTET_STRING, &[digest(&SHA1_FOR_LEGACY_USE_ONLY, octets).as_ref()]);
        let (name, key) = (hash(ca.subject().as_raw()), hash(&ca.public_key().subject_public_key.data));
        Some(Self(element(SEQUENCE, &[SHA1, &name, &key, &element(INTEGER, &[leaf.raw_serial()])])))
    }

    /// `POST`, without a nonce: what it answers may be kept.
    pub async fn ask(&self, connection: &mut Connection) -> Result<(), String> {
        let answer = self.answered(connection, &[]).await?;
        if holds(&answer, NONCE) { Err("there is a nonce in it".to_owned()) } else { Ok(()) }
    }

    /// With a nonce of its own: it is answered for this request alone.
    pub async fn ask_once(&self, connection: &mut Connection) -> Result<(), String> {
        let mut nonce = [0; NONCE_BYTES];
        sys::random().fill(&mut nonce).map_err(|_| "there is no randomness")?;
        let value = element(OCTET_STRING, &[&element(OCTET_STRING, &[&nonce])]);
        let extension = element(SEQUENCE, &[NONCE, &value]);
        let extensions = element(0xa2, &[&element(SEQUENCE, &[&extension])]);
        let answer = self.answered(connection, &extensions).await?;
        if holds(&answer, &nonce) { Ok(()) } else { Err("the nonce is not in it".to_owned()) }
    }

    async fn answered(&self, connection: &mut Connection, extensions: &[u8]) -> Result<Vec<u8>, String> {
        let list = element(SEQUENCE, &[&element(SEQUENCE, &[&self.0])]);
        let request = element(SEQUENCE, &[&element(SEQUENCE, &[&list, extensions])]);
        let body = connection.post(PATH, MEDIA_TYPE, None, request).await?.body_of(200)?;
        let good = holds(body.get(..7).unwrap_or_default(), SUCCESSFUL) && holds(&body, &[&self.0[..], GOOD].concat());
        if good { Ok(body.to_vec()) } else { Err("a live certificate is not good".to_owned()) }
    }
}

fn holds(octets: &[u8], part: &[u8]) -> bool {
    octets.windows(part.len()).any(|window| window == part)
}

/// DER of less than 256 octets.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    if content.len() > 0x7f {
        out.push(0x81);
    }
    out.push(content.len() as u8);
    out.extend(content);
    out
}
