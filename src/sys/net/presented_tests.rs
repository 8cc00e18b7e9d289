//! Handshakes in memory, with clients that show what they like.

use std::io::{Read, Write};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig,
    client::ResolvesClientCert,
    crypto::ring::sign::any_supported_type,
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use time::OffsetDateTime;

use super::*;
use crate::sys::net::testing::Authority;

const NOW: UnixMs = UnixMs::from_s(1_800_000_000);

type Ca = CertifiedIssuer<'static, KeyPair>;

fn at(unix_s: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix_s).unwrap()
}

/// Parameters that hold for an hour around `NOW`.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (at(NOW.as_s() - 1_800), at(NOW.as_s() + 1_800));
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn root(name: &str) -> Ca {
    CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap()
}

fn leaf_params() -> CertificateParams {
    let mut params = params("leaf");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A leaf of a CA, alone.
fn leaf(ca: &Ca, params: CertificateParams) -> PresentedChain {
    let made = params.signed_by(&KeyPair::generate().unwrap(), ca).unwrap();
    PresentedChain::read(&[made.der().clone()]).unwrap()
}

fn verified(chain: &PresentedChain, roots: &[&Ca]) -> bool {
    let roots: Vec<_> = roots.iter().map(|root| root.der().clone()).collect();
    chain.verify(&roots, NOW).is_ok()
}

/// Shows a chain, and signs with a key, whether or not they belong together.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl Shows {
    fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Self(Arc::new(CertifiedKey::new(chain, any_supported_type(&key).unwrap())))
    }
}

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A server, and clients that trust it.
struct Pair {
    server: Arc<ServerConfig>,
    authority: Authority,
}

impl Pair {
    fn new() -> Self {
        let authority = Authority::new();
        Self { server: authority.server("broker.test"), authority }
    }

    fn client(&self, shows: Option<Shows>, tls: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut trusted = RootCertStore::empty();
        for root in certificates(&self.authority.pem()).unwrap() {
            trusted.add(root).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[tls]).unwrap();
        let builder = builder.with_root_certificates(trusted);
        Arc::new(match shows {
            Some(shows) => builder.with_client_cert_resolver(Arc::new(shows)),
            None => builder.with_no_client_auth(),
        })
    }

    /// A whole handshake, and a byte each way, so that tickets would have come.
    fn meet(&self, client: &Arc<ClientConfig>) -> Result<ServerConnection, Error> {
        let mut client = ClientConnection::new(client.clone(), ServerName::try_from("broker.test").unwrap())?;
        let mut server = ServerConnection::new(self.server.clone())?;
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut greeted = false;
        for _ in 0..10 {
            if !greeted && !server.is_handshaking() {
                (greeted, _) = (true, server.writer().write_all(b"x").unwrap());
            }
            client.write_tls(&mut to_server).unwrap();
            server.write_tls(&mut to_client).unwrap();
            while !to_server.is_empty() {
                let read = server.read_tls(&mut &*to_server).unwrap();
                to_server.drain(..read);
                server.process_new_packets()?;
            }
            while !to_client.is_empty() {
                let read = client.read_tls(&mut &*to_client).unwrap();
                to_client.drain(..read);
                client.process_new_packets()?;
            }
        }
        assert_eq!(client.reader().read(&mut [0; 8]).unwrap(), 1, "the handshake is done");
        Ok(server)
    }
}

/// Any self-signed certificate, with its key.
fn own() -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    (params("me").self_signed(&key).unwrap().der().clone(), key)
}

#[test]
fn whoever_shows_nothing_is_let_in_and_has_proven_nothing() {
    let pair = Pair::new();
    for tls in [&TLS13, &TLS12] {
        assert!(PresentedChain::of(&pair.meet(&pair.client(None, tls)).unwrap()).is_none());
    }
}

#[test]
fn what_is_shown_is_known_by_its_hashes_and_vouched_for_by_nobody() {
    let pair = Pair::new();
    for tls in [&TLS13, &TLS12] {
        let (der, key) = own();
        let client = pair.client(Some(Shows::new(vec![der.clone()], &key)), tls);
        let shown = PresentedChain::of(&pair.meet(&client).unwrap()).unwrap();
        assert_eq!((shown.leaf(), shown.fingerprint()), (&*der, &sha256(&der)));
        assert!(matches!(shown.verify(&[], NOW), Err(ChainError::NoRoot)));
        let other = root("other");
        assert!(matches!(shown.verify(&[other.der().clone()], NOW), Err(ChainError::Chain(_))));
        assert!(!format!("{shown:?}").contains("me"));
    }
}

#[test]
fn a_stolen_certificate_without_its_key_is_no_handshake() {
    let pair = Pair::new();
    let ((der, _), (_, thief)) = (own(), own());
    for tls in [&TLS13, &TLS12] {
        let refused = pair.meet(&pair.client(Some(Shows::new(vec![der.clone()], &thief)), tls));
        assert!(matches!(refused, Err(Error::InvalidCertificate(CertificateError::BadSignature))), "{refused:?}");
    }
}

#[test]
fn t_138_no_session_is_resumed() {
    let pair = Pair::new();
    for tls in [&TLS13, &TLS12] {
        let (der, key) = own();
        for shows in [Some(Shows::new(vec![der], &key)), None] {
            let (shown, client) = (shows.is_some(), pair.client(shows, tls));
            for _ in 0..3 {
                let met = pair.meet(&client).unwrap();
                assert_eq!(met.handshake_kind(), Some(HandshakeKind::Full));
                assert_eq!(PresentedChain::of(&met).is_some(), shown);
            }
        }
    }
    assert_eq!(pair.server.max_early_data_size, 0);
}

#[test]
fn t_133_an_oversized_client_certificate_is_refused_before_any_signature() {
    let pair = Pair::new();
    let (der, key) = own();
    let refused = |chain: Vec<CertificateDer<'static>>| {
        let met = pair.meet(&pair.client(Some(Shows::new(chain, &key)), &TLS13));
        matches!(met, Err(Error::InvalidCertificate(CertificateError::BadEncoding)))
    };
    assert!(!refused(vec![der.clone(); CHAIN_MAX]));
    assert!(refused(vec![der.clone(); CHAIN_MAX + 1]));
    let mut large = params("large");
    large.distinguished_name.push(DnType::OrganizationName, "x".repeat(CERTIFICATE_MAX_BYTES));
    assert!(refused(vec![large.self_signed(&key).unwrap().der().clone()]));
    let trailed: Vec<u8> = der.iter().copied().chain([0]).collect();
    assert!(refused(vec![CertificateDer::from(trailed)]));
    assert!(refused(vec![der, CertificateDer::from(b"not a certificate".to_vec())]));
}

/// SubjectPublicKeyInfo of an RSA key with a modulus of so many bits, and this exponent.
fn rsa(bits: usize, exponent: &[u8]) -> Vec<u8> {
    let tlv = |tag: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], body].concat()
    };
    let modulus = [&[0][..], &vec![0xff; bits / 8]].concat();
    let key = tlv(0x30, &[tlv(2, &modulus), tlv(2, exponent)].concat());
    let kind = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
    tlv(0x30, &[kind.to_vec(), tlv(3, &[&[0], &key[..]].concat())].concat())
}

#[test]
fn t_133_a_key_that_burns_time_is_refused() {
    let bounded = |der: &[u8]| is_bounded_key(&SubjectPublicKeyInfo::from_der(der).unwrap().1);
    for bits in [2_048, 3_072, 4_096] {
        assert!(bounded(&rsa(bits, &[1, 0, 1])), "{bits}");
    }
    for bits in [1_024, 4_104, 8_192, 16_384] {
        assert!(!bounded(&rsa(bits, &[1, 0, 1])), "{bits}");
    }
    assert!(!bounded(&rsa(2_048, &[0x7f; 64])));
    let mut unknown = rsa(2_048, &[1, 0, 1]);
    unknown[16] = 10;
    assert!(!bounded(&unknown), "RSASSA-PSS is none that we check");
}

#[test]
fn a_chain_leads_to_its_root_and_to_no_other() {
    let (one, other) = (root("one"), root("other"));
    let shown = leaf(&one, leaf_params());
    assert!(verified(&shown, &[&one]) && verified(&shown, &[&other, &one]));
    assert!(!verified(&shown, &[&other]) && !verified(&shown, &[]));
}

#[test]
fn t_137_a_certificate_of_the_same_name_leads_nowhere() {
    let same = |key: KeyPair| {
        let mut params = ca_params("example.org root");
        params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![7; 20]);
        CertifiedIssuer::self_signed(params, key).unwrap()
    };
    let (ours, twin) = (same(KeyPair::generate().unwrap()), same(KeyPair::generate().unwrap()));
    assert!(verified(&leaf(&ours, leaf_params()), &[&ours]));
    assert!(!verified(&leaf(&twin, leaf_params()), &[&ours]));
    let chain = PresentedChain::read(&[leaf(&twin, leaf_params()).chain[0].clone(), twin.der().clone()]).unwrap();
    assert!(!verified(&chain, &[&ours]), "nor with the twin beside it");
}

#[test]
fn t_137_only_a_ca_is_a_root() {
    let (der, key) = own();
    let shown = PresentedChain::read(std::slice::from_ref(&der)).unwrap();
    assert!(matches!(shown.verify(&[der], NOW), Err(ChainError::NoRoot)), "itself");
    let pem = params("me").self_signed(&key).unwrap().pem();
    assert!(roots(pem.as_bytes()).is_err() && roots(b"").is_err());
    let good = root("one");
    assert_eq!(roots(good.pem().as_bytes()).unwrap(), [good.der().clone()]);
    assert!(roots((good.pem() + &pem).as_bytes()).is_err());
}

#[test]
fn t_144_a_chain_is_as_good_as_its_weakest_certificate() {
    let ca = root("one");
    let over = |mut params: CertificateParams| {
        params.not_after = at(NOW.as_s() - 1);
        params
    };
    assert!(!verified(&leaf(&ca, over(leaf_params())), &[&ca]), "an expired leaf");
    let mut early = leaf_params();
    early.not_before = at(NOW.as_s() + 1);
    assert!(!verified(&leaf(&ca, early), &[&ca]), "one of tomorrow");
    let old = CertifiedIssuer::self_signed(over(ca_params("old")), KeyPair::generate().unwrap()).unwrap();
    assert!(!verified(&leaf(&old, leaf_params()), &[&old]), "an expired root");
    let middle = |params: CertificateParams| {
        let middle = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &ca).unwrap();
        let end = leaf_params().signed_by(&KeyPair::generate().unwrap(), &middle).unwrap();
        PresentedChain::read(&[end.der().clone(), middle.der().clone()]).unwrap()
    };
    assert!(verified(&middle(ca_params("middle")), &[&ca]));
    assert!(!verified(&middle(over(ca_params("middle"))), &[&ca]), "an expired intermediate");
    assert!(!verified(&middle(leaf_params()), &[&ca]), "an intermediate that is no CA");
}

#[test]
fn t_144_a_certificate_for_servers_is_no_clients() {
    let ca = root("one");
    let mut server = leaf_params();
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert!(!verified(&leaf(&ca, server), &[&ca]));
    let itself = PresentedChain::read(&[ca.der().clone()]).unwrap();
    assert!(!verified(&itself, &[&ca]), "nor is a CA's own");
}
