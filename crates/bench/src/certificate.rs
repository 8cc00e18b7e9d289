//! Requests for certificates, made before the clock starts, and what must come of each.

use std::sync::Arc;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use dayfly::http::shapes::TokenAnswer;
use dayfly_domain::LeaseId;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    client::{Connection, FORM},
    evidence::EvidenceError,
    folder::CERTIFIED_TEMPLATE,
    scenario::{EXCHANGE, JWT},
};

const X509: &str = "urn:dayfly:token-type:x509";
const HANDLE: &str = "urn:dayfly:token-type:task-control";

/// A request, with the key that it is signed with.
#[derive(Debug, Clone)]
pub(crate) struct Csr {
    der: Vec<u8>,
    /// The point, uncompressed.
    key: Vec<u8>,
}

/// What the leaf of a chain says.
#[derive(Debug, PartialEq, Eq)]
struct Leaf {
    serial: Vec<u8>,
    key: Vec<u8>,
}

impl Csr {
    pub fn make() -> Result<Self, EvidenceError> {
        let key = KeyPair::generate().map_err(|_| EvidenceError::Key)?;
        let made = CertificateParams::default().serialize_request(&key).map_err(|_| EvidenceError::Sign)?;
        Ok(Self { der: made.der().to_vec(), key: key.der_bytes().to_vec() })
    }

    /// Each with a key of its own.
    pub fn make_all(count: usize) -> Result<Arc<[Self]>, EvidenceError> {
        (0..count).map(|_| Self::make()).collect::<Result<Vec<_>, _>>().map(Into::into)
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub fn pem(&self) -> String {
        let text = STANDARD.encode(&self.der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", lines.join("\n"))
    }

    /// Evidence for a task with a certificate.
    pub async fn exchange(&self, connection: &mut Connection, evidence: &str) -> Result<TokenAnswer, String> {
        let subject = format!("subject_token_type={JWT}&scope={CERTIFIED_TEMPLATE}&subject_token={evidence}");
        let answer = self.ask(connection, &subject).await?;
        if answer.task_control.is_some() { Ok(answer) } else { Err("there is no handle".to_owned()) }
    }

    /// One more certificate for the task of this handle: a renewal.
    pub async fn renew(&self, connection: &mut Connection, handle: &str) -> Result<TokenAnswer, String> {
        self.ask(connection, &format!("subject_token_type={HANDLE}&subject_token={handle}")).await
    }

    async fn ask(&self, connection: &mut Connection, subject: &str) -> Result<TokenAnswer, String> {
        let csr = URL_SAFE_NO_PAD.encode(&self.der);
        let form = format!("grant_type={EXCHANGE}&requested_token_type={X509}&csr={csr}&{subject}");
        let body = connection.post("/oauth2/token", FORM, None, form).await?.body_of(200)?;
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|error| format!("no answer of ours: {error}"))?;
        let leaf = Leaf::first_of(answer.access_token.as_bytes()).ok_or("there is no certificate")?;
        let whole = answer.issued_token_type == X509 && chain(answer.access_token.as_bytes()).len() == 3;
        match whole && leaf.key == self.key && answer.lease_id == lease_of(&leaf.serial) {
            true => Ok(answer),
            false => Err("a certificate of another shape".to_owned()),
        }
    }

    /// Whether the first certificate in this PEM is for the key of the request.
    pub fn is_served_by(&self, pem: &[u8]) -> bool {
        Leaf::first_of(pem).is_some_and(|leaf| leaf.key == self.key)
    }
}

impl Leaf {
    fn first_of(pem: &[u8]) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem).ok()?;
        let (_, read) = X509Certificate::from_der(&der).ok()?;
        let key = read.public_key().subject_public_key.data.to_vec();
        Some(Self { serial: read.raw_serial().to_vec(), key })
    }
}

/// All certificates in this PEM.
pub(crate) fn chain(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).map_while(Result::ok).collect()
}

/// The serial number of a chain's leaf, read from the certificate itself.
pub(crate) fn serial_of(pem: &[u8]) -> Option<u128> {
    Leaf::first_of(pem).and_then(|leaf| Some(u128::from_be_bytes(leaf.serial.try_into().ok()?)))
}

fn lease_of(serial: &[u8]) -> Option<LeaseId> {
    serial.try_into().ok().map(|octets| LeaseId::from_u128(u128::from_be_bytes(octets)))
}
