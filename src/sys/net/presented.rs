//! Client certificates. The handshake proves that whoever connects holds the key of the certificate it
//! shows; it says nothing of what that certificate is worth, and lets every chain pass that is within
//! bounds. In: a finished handshake. Out: a [`PresentedChain`], and by one function alone, `verify`, a
//! [`VerifiedClient`] below roots that the caller names, at a time that the caller names.

use std::{sync::Arc, time::Duration};

use dayfly_domain::UnixMs;
use ring::digest;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, HandshakeKind, ProtocolVersion, RootCertStore,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::{
        ServerConnection, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::{
    asn1_rs::{Oid, oid},
    prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate},
    public_key::PublicKey,
};

use super::tls::{Life, NetError, certificates};

/// Certificates that a client may show, its own included.
pub const CHAIN_MAX: usize = 6;
/// Each of them.
pub const CERTIFICATE_MAX_BYTES: usize = 8 << 10;
/// All of them: strangers' certificates are kept as long as their connections.
pub const CHAIN_MAX_BYTES: usize = 16 << 10;
const SESSION: &[u8] = b"EXPORTER-Dayfly-Evidence";
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;

/// What a client showed in its handshake, whose first certificate's key it holds. Nobody has vouched for it.
/// Only a finished handshake makes one: no header, and no session that was resumed.
// SECURITY: `t_147_a_forwarded_certificate_is_nobodys`, `t_138_no_session_is_resumed`
#[derive(Clone)]
pub struct PresentedChain {
    chain: Arc<[CertificateDer<'static>]>,
    fingerprint: [u8; 32],
    key: [u8; 32],
    serial: Option<u128>,
    session: Option<[u8; 32]>,
}

/// A client whose chain holds: signatures up to a root that was named, times, and its use (clientAuth).
/// Made only by [`PresentedChain::verify`].
#[derive(Debug, Clone)]
pub struct VerifiedClient(PresentedChain);

/// Why a chain is worth nothing. Never quotes it.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error("no root is in force")]
    NoRoot,
    #[error("a certificate of the chain is expired, or not yet valid")]
    Expired,
    #[error("the chain does not lead to a root: {0}")]
    Chain(Error),
}

impl PresentedChain {
    /// `None`: without a certificate, or resumed, so that no key was proven now.
    pub fn of(connection: &ServerConnection) -> Option<Self> {
        if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            return None;
        }
        let tls13 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let session = tls13.then(|| connection.export_keying_material([0; 32], SESSION, None).ok()).flatten();
        Self::read(connection.peer_certificates()?).map(|presented| Self { session, ..presented })
    }

    fn read(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let leaf = chain.first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let serial = <[u8; 16]>::try_from(parsed.raw_serial()).ok().map(u128::from_be_bytes);
        Some(Self {
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            fingerprint: sha256(leaf),
            key: sha256(parsed.public_key().raw),
            serial,
            session: None,
        })
    }

    /// DER of the certificate whose key was proven.
    pub fn leaf(&self) -> &[u8] {
        &self.chain[0]
    }

    /// What the client sent above it.
    pub fn above(&self) -> &[CertificateDer<'static>] {
        &self.chain[1..]
    }

    /// SHA-256 of that certificate's DER (RFC 8705 section 3.1).
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// SHA-256 of its SubjectPublicKeyInfo: the same for every certificate of that key.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Its serial number, where that is 16 octets, as ours are.
    pub fn serial(&self) -> Option<u128> {
        self.serial
    }

    /// What this handshake alone has (RFC 8446 section 7.5): nobody can make another that has it too. Absent with
    /// TLS 1.2, whose sessions are not all told apart by it (RFC 7627).
    pub fn session(&self) -> Option<&[u8; 32]> {
        self.session.as_ref()
    }

    /// Whether it leads to one of `roots` (exactly these), at `now`, and may authenticate a client, by the
    /// intermediates that the client sent. Names are not looked at, least of all the common name.
    // SECURITY: `t_137_a_certificate_of_the_same_name_leads_nowhere`, `t_137_only_a_ca_is_a_root`,
    // `t_144_a_chain_is_as_good_as_its_weakest_certificate`
    pub fn verify(&self, roots: &[CertificateDer<'_>], now: UnixMs) -> Result<VerifiedClient, ChainError> {
        self.verify_by(roots, self.above(), now)
    }

    /// The same by these intermediates.
    pub fn verify_by(
        &self,
        roots: &[CertificateDer<'_>],
        between: &[CertificateDer<'_>],
        now: UnixMs,
    ) -> Result<VerifiedClient, ChainError> {
        let mut anchors = RootCertStore::empty();
        for root in roots.iter().filter(|root| is_root_now(root, now)) {
            anchors.add(root.clone().into_owned()).map_err(ChainError::Chain)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let path = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), provider).build();
        let path = path.map_err(|_| ChainError::NoRoot)?;
        let at = UnixTime::since_unix_epoch(Duration::from_millis(now.as_ms().max(0) as u64));
        path.verify_client_cert(&self.chain[0], between, at).map_err(ChainError::of)?;
        Ok(VerifiedClient(self.clone()))
    }
}

impl ChainError {
    fn of(error: Error) -> Self {
        use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        match error {
            Error::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }) => {
                Self::Expired
            }
            other => Self::Chain(other),
        }
    }
}

impl VerifiedClient {
    pub fn chain(&self) -> &PresentedChain {
        &self.0
    }
}

impl std::fmt::Debug for PresentedChain {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("PresentedChain").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Roots out of a PEM text: all of it, or an error.
pub fn roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let all = certificates(pem).ok_or(NetError::Authority)?;
    let good = all.iter().all(|der| whole(der).is_some_and(|root| root.is_ca()));
    if good { Ok(all) } else { Err(NetError::Authority) }
}

/// A CA, in its time: the library looks at neither in what it is told to trust.
fn is_root_now(der: &CertificateDer<'_>, now: UnixMs) -> bool {
    whole(der).is_some_and(|root| root.is_ca() && Life::of(&root).holds(now).is_ok())
}

/// A certificate and nothing behind it.
fn whole(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, parsed)| parsed)
}

/// Asks each client for a certificate and takes whatever is within bounds, from clients that have one.
/// What it lets pass is [`PresentedChain`]'s, and proves a key and nothing else.
#[derive(Debug)]
pub(super) struct AnyChain(WebPkiSupportedAlgorithms);

impl AnyChain {
    pub fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ClientCertVerifier for AnyChain {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hint: roots of ours and of others come and go while connections live.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    // SECURITY: `t_133_an_oversized_client_certificate_is_refused_before_any_signature`
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let all = || std::iter::once(end_entity).chain(intermediates);
        let bytes: usize = all().map(|der| der.len()).sum();
        if intermediates.len() >= CHAIN_MAX || bytes > CHAIN_MAX_BYTES || !all().all(is_bounded) {
            return Err(CertificateError::BadEncoding.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

fn is_bounded(der: &CertificateDer<'_>) -> bool {
    der.len() <= CERTIFICATE_MAX_BYTES && whole(der).is_some_and(|parsed| is_bounded_key(parsed.public_key()))
}

const RSA: Oid<'static> = oid!(1.2.840.113549.1.1.1);
const EC: Oid<'static> = oid!(1.2.840.10045.2.1);
const ED25519: Oid<'static> = oid!(1.3.101.112);

/// Of a kind that is known, and no RSA key whose signatures take long to check.
fn is_bounded_key(key: &SubjectPublicKeyInfo<'_>) -> bool {
    match &key.algorithm.algorithm {
        kind if *kind == EC || *kind == ED25519 => true,
        kind if *kind == RSA => match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => {
                let significant = |bytes: &[u8]| bytes.iter().skip_while(|byte| **byte == 0).count();
                RSA_BITS.contains(&(significant(rsa.modulus) * 8)) && significant(rsa.exponent) <= 4
            }
            _ => false,
        },
        _ => false,
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
#[path = "presented_tests.rs"]
mod tests;
