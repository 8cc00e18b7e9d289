//! An authority of three tiers in a test's hand: leaves and lists of any kind, rightly signed.

use dayfly_verifier::{
    LeaseId, UnixMs,
    x509::{Anchors, CrlSet, PeerIdentity, PeerRefusal, PeerRules, check_peer},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::support::NOW_S;

pub const DOMAIN: &str = "prod.example";
pub const NAME: &str = "spiffe://prod.example/orders-mtls/github/4411/88120";
pub const LEASE: u128 = 0x019f_ffff_ffff_0102_0304_0506_0708_090a;
/// Seconds that a leaf of [`Pki::leaf`] lives from `NOW_S` on.
pub const TTL_S: i64 = 900;

pub fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

/// A CA: what it signs with, and where its list is.
pub struct Tier {
    pub issuer: Issuer<'static, KeyPair>,
    pub der: CertificateDer<'static>,
    pub serial: u128,
    pub crl: String,
}

pub struct Pki {
    pub root: Tier,
    pub area: Tier,
    pub issuing: Tier,
}

pub struct Leaf {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
}

/// What a list says.
#[derive(Clone)]
pub struct Said {
    pub number: u64,
    pub next_s: i64,
    pub revoked: Vec<u128>,
}

impl Default for Said {
    fn default() -> Self {
        Self { number: 7, next_s: NOW_S + 3_600, revoked: vec![] }
    }
}

impl Pki {
    pub fn new() -> Self {
        Self::until(NOW_S + 86_400)
    }

    /// The area CA is valid until then.
    pub fn until(area_s: i64) -> Self {
        let root = Tier::make("root", 1, ca_params("root", NOW_S + 86_400), None);
        let area = Tier::make("area", 2, ca_params("area", area_s), Some(&root));
        let issuing = Tier::make("issuing", 3, ca_params("issuing", NOW_S + 86_400), Some(&area));
        Self { root, area, issuing }
    }

    pub fn anchors(&self) -> Anchors {
        Anchors::from_der(std::slice::from_ref(&self.root.der)).unwrap()
    }

    pub fn leaf(&self) -> Leaf {
        self.leaf_of(leaf_params())
    }

    pub fn leaf_of(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuing.issuer).unwrap().der().clone();
        Leaf { chain: vec![der, self.issuing.der.clone(), self.area.der.clone()], key }
    }

    /// With a key that nobody has.
    pub fn leaf_for(&self, key: &impl PublicKeyData) -> Vec<CertificateDer<'static>> {
        let der = leaf_params().signed_by(key, &self.issuing.issuer).unwrap().der().clone();
        vec![der, self.issuing.der.clone(), self.area.der.clone()]
    }

    /// All lists, and what the issuing CA's says.
    pub fn crls(&self, said: &Said) -> CrlSet {
        let usual = Said::default();
        set(&[self.issuing.list(said), self.area.list(&usual), self.root.list(&usual)])
    }

    pub fn check(&self, leaf: &Leaf) -> Result<PeerIdentity, PeerRefusal> {
        self.check_at(&leaf.chain, NOW_S)
    }

    pub fn check_at(&self, chain: &[CertificateDer<'_>], now_s: i64) -> Result<PeerIdentity, PeerRefusal> {
        self.check_by(chain, &self.crls(&Said::default()), now_s)
    }

    pub fn check_by(
        &self,
        chain: &[CertificateDer<'_>],
        crls: &CrlSet,
        now_s: i64,
    ) -> Result<PeerIdentity, PeerRefusal> {
        check_peer(chain, &self.anchors(), &rules(), Some(crls), UnixMs::from_s(now_s))
    }
}

impl Tier {
    pub fn make(name: &str, serial: u128, mut params: CertificateParams, parent: Option<&Self>) -> Self {
        let key = KeyPair::generate().unwrap();
        params.serial_number = Some(SerialNumber::from_slice(&serial.to_be_bytes()));
        params.crl_distribution_points = parent.iter().map(|parent| point(&parent.crl)).collect();
        let signed = match parent {
            Some(parent) => params.signed_by(&key, &parent.issuer),
            None => params.self_signed(&key),
        };
        let der = signed.unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        Self { issuer, der, serial, crl: format!("http://pki.example/pki/{name}/0.crl") }
    }

    /// The list of this CA, DER.
    pub fn list(&self, said: &Said) -> Vec<u8> {
        self.list_at(said, &self.crl)
    }

    pub fn list_at(&self, said: &Said, place: &str) -> Vec<u8> {
        signed_list(&self.issuer, said, place)
    }
}

pub fn signed_list(issuer: &Issuer<'_, KeyPair>, said: &Said, place: &str) -> Vec<u8> {
    let revoked = said.revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&serial.to_be_bytes()),
        revocation_time: at(NOW_S - 5),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: at(NOW_S - 10),
        next_update: at(said.next_s),
        crl_number: SerialNumber::from(said.number),
        issuing_distribution_point: Some(CrlIssuingDistributionPoint { distribution_point: point(place), scope: None }),
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().der().to_vec()
}

pub fn rules() -> PeerRules {
    PeerRules::new(DOMAIN).unwrap().admit("orders-mtls".parse().unwrap())
}

pub fn set(lists: &[Vec<u8>]) -> CrlSet {
    CrlSet::parse(pem(lists).as_bytes()).unwrap()
}

pub fn pem(lists: &[Vec<u8>]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let block = |der: &Vec<u8>| format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", STANDARD.encode(der));
    lists.iter().map(block).collect()
}

pub fn ca_params(name: &str, until_s: i64) -> CertificateParams {
    let mut params = params(name, until_s);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// As the broker makes them.
pub fn leaf_params() -> CertificateParams {
    named_params(&[SanType::URI(NAME.try_into().unwrap())])
}

pub fn named_params(names: &[SanType]) -> CertificateParams {
    let mut params = params("", NOW_S + TTL_S - 1);
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names.to_vec();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from_slice(&LEASE.to_be_bytes()));
    params.crl_distribution_points = vec![point("http://pki.example/pki/issuing/0.crl")];
    params
}

pub fn lease() -> LeaseId {
    LeaseId::from_u128(LEASE)
}

fn params(name: &str, until_s: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = at(NOW_S - 60);
    params.not_after = at(until_s);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn point(uri: &str) -> CrlDistributionPoint {
    CrlDistributionPoint { uris: vec![uri.to_owned()] }
}
