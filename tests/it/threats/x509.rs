//! Section H: what a request for a certificate may not talk the broker into. Each bad request leaves the
//! evidence that came with it as it was: at the end it still opens a task.

use std::{collections::BTreeSet, fs};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly::mint::pki::CaSigner;
use dayfly_domain::Reason;
use num_bigint::BigUint;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SigningKey,
};
use serde_json::{Value, json};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{
    certs::{
        CERT_BUNDLE, HANDLE, Hand, JWT, NAME, X509, asked, attribute, chain, csr, csr_of, der, feed, new_key, open,
        openssl, text,
    },
    world::{Job, World, form, handle, lease, raw_form, token},
};

/// One piece of evidence that all bad requests come with.
pub(super) struct Desk {
    world: World,
    evidence: String,
    template: &'static str,
    /// A key for requests by hand.
    pub key: KeyPair,
}

impl Desk {
    pub fn new(template: &'static str) -> Self {
        let mut world = World::of(CERT_BUNDLE);
        let evidence = world.evidence(&Job::shop());
        Self { world, evidence, template, key: new_key() }
    }

    /// Evidence for one more task.
    pub fn renew(&mut self) {
        self.evidence = self.world.evidence(&Job::shop());
    }

    pub async fn ask(&self, csr: &str) -> (u16, Value) {
        let answer = self.world.call(asked((JWT, &self.evidence), csr, &[("scope", self.template)])).await;
        assert!(!answer.text.contains(csr) || csr.len() < 8, "it comes back: {}", answer.text);
        (answer.status, answer.json())
    }

    /// Refused as what it is; says what was told.
    pub async fn refused(&self, what: &str, csr: &str) -> String {
        let (status, body) = self.ask(csr).await;
        assert_eq!(
            (status, &body["error"], &body["reason"]),
            (400, &json!("invalid_request"), &json!("E-CSR")),
            "{what}: {body}"
        );
        body["error_description"].as_str().unwrap().to_owned()
    }

    /// The leaf, DER.
    pub async fn granted(&self, what: &str, csr: &str) -> Vec<u8> {
        let (status, body) = self.ask(csr).await;
        assert_eq!(status, 200, "{what}: {body}");
        chain(body["access_token"].as_str().unwrap())[0].to_vec()
    }
}

fn asking(with: impl FnOnce(&mut CertificateParams)) -> String {
    csr_of(&new_key(), with)
}

pub(super) fn names(sans: Vec<SanType>) -> String {
    asking(|params| params.subject_alt_names = sans)
}

pub(super) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(super) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

pub(super) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

#[tokio::test]
async fn t_122_a_name_that_is_not_granted_is_refused() {
    let desk = Desk::new("serve");
    let key = new_key();
    let own = "spiffe://example.org/serve/ci/shop";
    for (what, name) in [
        ("an address", SanType::IpAddress("10.0.0.1".parse().unwrap())),
        ("mail", SanType::Rfc822Name("a@example.org".try_into().unwrap())),
        ("a host", dns("other.example.org")),
        ("a pattern", dns("*.example.org")),
        ("more than the host", dns("api.example.org.")),
        ("other case", dns("API.example.org")),
    ] {
        desk.refused(what, &names(vec![name.clone()])).await;
        desk.refused(what, &names(vec![uri(own), dns("api"), name])).await;
    }
    let other = der(0xa0, &[&der(0x06, &[&[0x2a, 3]]), &der(0xa0, &[&der(0x0c, &[b"admin"])])]);
    let folder = der(0xa4, &[&der(0x30, &[])]);
    for (what, name) in [("another form", other), ("a folder", folder), ("an identifier", der(0x88, &[&[0x2a, 3]]))] {
        let request = Hand::asking(&key, &[(SUBJECT_ALT_NAME, der(0x30, &[&name]))]);
        desk.refused(what, &text(&request.by(&key))).await;
    }
    let leaf = desk.granted("what is granted", &names(vec![uri(own), dns("api")])).await;
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let issued = leaf.subject_alternative_name().unwrap().unwrap().value.to_owned();
    let issued: Vec<_> = issued.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(issued, [format!("URI({own})"), "DNSName(api.example.org)".into(), "DNSName(api)".into()]);
}

#[tokio::test]
async fn t_123_what_a_ca_could_do_is_not_to_be_asked() {
    let desk = Desk::new("migrate");
    for (what, request) in [
        ("CA", asking(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("CA of none", asking(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)))),
        ("signing certificates", asking(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign])),
        (
            "signing CRLs",
            asking(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign]),
        ),
        ("encipherment", asking(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment])),
        ("any purpose", asking(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any])),
        ("signing OCSP", asking(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning])),
        (
            "signing code",
            asking(|params| {
                params.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::CodeSigning]
            }),
        ),
        ("a server", asking(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
        (
            "no revocation",
            asking(|params| {
                params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 56], vec![5, 0])];
            }),
        ),
    ] {
        desk.refused(what, &request).await;
    }
    let harmless = asking(|params| {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let leaf = desk.granted("a client", &harmless).await;
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    assert!(!leaf.is_ca() && !leaf.key_usage().unwrap().unwrap().value.key_cert_sign());
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.client_auth && !purposes.server_auth && !purposes.any);
}

#[tokio::test]
async fn t_124_another_spiffe_id_is_refused() {
    let desk = Desk::new("migrate");
    for bad in [
        "spiffe://example.org/migrate/ci/pay",
        "spiffe://example.org/serve/ci/shop",
        "spiffe://other.org/migrate/ci/shop",
        "spiffe://example.org/migrate/ci/shop/untrusted",
        "spiffe://example.org/migrate/ci/shop/",
        "spiffe://EXAMPLE.org/migrate/ci/shop",
        "spiffe://example.org/migrate/ci/./shop",
        "spiffe://example.org/migrate/ci/%73hop",
        "spiffe://u@example.org/migrate/ci/shop",
        "spiffe://example.org:443/migrate/ci/shop",
        "spiffe://example.org/migrate/ci/shop?x",
        "spiffe://example.org/migrate/ci/shop#x",
        "https://example.org/migrate/ci/shop",
    ] {
        desk.refused(bad, &names(vec![uri(bad)])).await;
        desk.refused(bad, &names(vec![uri(NAME), uri(bad)])).await;
        desk.refused(bad, &names(vec![uri(bad), uri(NAME)])).await;
    }
    desk.granted("its own", &names(vec![uri(NAME)])).await;
}

#[tokio::test]
async fn t_125_a_claim_becomes_no_other_name() {
    let mut world = World::of(CERT_BUNDLE);
    for bad in ["../admin", "a/b", "*", "a,b", "%2f", "a\0b", "a\nb", "..", ".", "", " ", "ä"] {
        let job = Job::shop().with("sub", bad);
        let refused = open(&mut world, &job, "migrate", &csr(&new_key())).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Claim, "{bad:?}");
    }
}

#[tokio::test]
async fn t_126_a_certificate_always_has_its_one_name() {
    let mut world = World::of(CERT_BUNDLE);
    for (job, template) in [(Job::shop(), "migrate"), (Job::shop().with("sub", "fork").with("event", "fork"), "peek")] {
        let issued = open(&mut world, &job, template, &csr(&new_key())).await.unwrap();
        let leaf = chain(&token(&issued)).remove(0);
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap().value;
        let [x509_parser::extensions::GeneralName::URI(name)] = names.general_names[..] else { panic!("{names:?}") };
        assert!(
            name.starts_with(&format!("spiffe://example.org/{template}/ci/")) && !name.contains([',', '*']),
            "{name}"
        );
    }
}

#[tokio::test]
async fn t_127_nothing_is_issued_without_an_authenticated_caller() {
    let mut world = World::of(CERT_BUNDLE);
    let (request, evidence) = (csr(&new_key()), world.evidence(&Job::shop()));
    let bearer = world.open(&Job::shop(), "deploy").await;
    let cert = open(&mut world, &Job::shop(), "migrate", &request).await.unwrap();
    let forged = evidence.rsplit_once('.').unwrap().0.to_owned() + ".AAAA";
    let pem = token(&cert);
    let subjects = [
        (JWT, ""),
        (JWT, "x"),
        (JWT, &forged),
        (HANDLE, "dtc_x"),
        (JWT, &token(&bearer)),
        (HANDLE, &token(&bearer)),
        (JWT, &pem),
        (X509, &pem),
        (HANDLE, &pem),
        ("urn:ietf:params:oauth:token-type:saml2", &evidence),
        ("urn:ietf:params:oauth:token-type:access_token", &token(&bearer)),
    ];
    for (kind, subject) in subjects {
        let answer = world.call(asked((kind, subject), &request, &[("scope", "migrate")])).await;
        assert_eq!(answer.status, 400, "{kind} {subject}: {}", answer.text);
        assert!(!answer.text.contains("BEGIN CERTIFICATE"));
    }
    for grant in ["client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer", "password", "x"] {
        let fields =
            [("grant_type", grant), ("assertion", &evidence), ("csr", &request), ("requested_token_type", X509)];
        let answer = world.call(form("/oauth2/token", None, &fields)).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("unsupported_grant_type")));
    }
    for path in ["/pki/sign", "/pki/a/sign"] {
        assert_eq!(world.call(raw_form(path, None, &request)).await.status, 405, "lists are fetched there: {path}");
    }
    for path in ["/v1/certificates", "/.well-known/est/simpleenroll", "/scep", "/acme/new-order"] {
        assert_eq!(world.call(raw_form(path, None, &request)).await.status, 404, "{path}");
    }
    // The pair of words goes together or not at all.
    let with = async |more: &[(&str, &str)]| {
        let mut fields =
            vec![("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"), ("subject_token_type", JWT)];
        fields.extend([("subject_token", evidence.as_str()), ("scope", "migrate")]);
        fields.extend(more);
        world.call(form("/oauth2/token", None, &fields)).await.json()["reason"].clone()
    };
    assert_eq!(with(&[("requested_token_type", X509)]).await, "E-REQUEST");
    assert_eq!(with(&[("csr", &request)]).await, "E-REQUEST");
    assert_eq!(with(&[("csr", &request), ("requested_token_type", HANDLE)]).await, "E-REQUEST");
    assert_eq!(with(&[("csr", ""), ("requested_token_type", X509)]).await, "E-REQUEST");
}

/// A request that the real openssl makes; `None` where it cannot make such a key.
fn by_openssl(arguments: &[&str]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, out) = (at("key"), at("csr"));
    let fixed = ["req", "-new", "-nodes", "-subj", "/CN=x", "-keyout", &key, "-outform", "DER", "-out", &out];
    openssl(&[&fixed[..], arguments].concat()).0.then(|| fs::read(&out).unwrap())
}

#[tokio::test]
async fn t_128_keys_of_other_curves_are_refused() {
    let desk = Desk::new("oldkeys");
    for curve in ["secp256k1", "prime192v1", "secp224r1", "secp384r1", "secp521r1", "brainpoolP256r1"] {
        let option = format!("ec_paramgen_curve:{curve}");
        let Some(request) = by_openssl(&["-newkey", "ec", "-pkeyopt", &option]) else { continue };
        desk.refused(curve, &text(&request)).await;
    }
    for form in ["ec_param_enc:explicit"] {
        let arguments = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-pkeyopt", form];
        desk.refused(form, &text(&by_openssl(&arguments).unwrap())).await;
    }
    for kind in ["ed448", "x25519"] {
        if let Some(request) = by_openssl(&["-newkey", kind]) {
            desk.refused(kind, &text(&request)).await;
        }
    }
    let (key, good) = (new_key(), Hand::of(&new_key()).spki);
    for (what, point) in [
        ("infinity", vec![0]),
        ("all zeros", [&[4][..], &[0; 64]].concat()),
        ("off the curve", [&good[26..90], &[good[90] ^ 1]].concat()),
        ("compressed", [&[2][..], &good[27..59]].concat()),
        ("cut", good[26..90].to_vec()),
    ] {
        let spki = der(0x30, &[&good[2..23], &der(0x03, &[&[0], &point])]);
        desk.refused(what, &text(&Hand { spki, ..Hand::of(&key) }.by(&key))).await;
    }
    // Anybody signs for a point of small order.
    for point in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let algorithm = der(0x30, &[&[0x06, 0x03, 0x2b, 0x65, 0x70]]);
        let spki = der(0x30, &[&algorithm, &der(0x03, &[&[0], &point])]);
        let said = desk.refused("small order", &text(&Hand { spki, algorithm, ..Hand::of(&key) }.with(&[0; 64]))).await;
        assert!(said.contains("weak"), "{said}");
    }
    desk.granted("Ed25519", &text(&by_openssl(&["-newkey", "ed25519"]).unwrap())).await;
}

/// A request for an RSA key that nobody signed: its key is looked at before its signature.
fn rsa(modulus: &BigUint, exponent: u64) -> String {
    let octets = |number: Vec<u8>| if number[0] >= 0x80 { [vec![0], number].concat() } else { number };
    let numbers =
        [modulus.to_bytes_be(), BigUint::from(exponent).to_bytes_be()].map(|number| der(0x02, &[&octets(number)]));
    let key = der(0x30, &[&numbers[0], &numbers[1]]);
    let rsa = |last| der(0x30, &[&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, last, 0x05, 0x00]]);
    let spki = der(0x30, &[&rsa(1), &der(0x03, &[&[0], &key])]);
    text(&Hand { spki, algorithm: rsa(11), ..Hand::of(&new_key()) }.with(&[1; 256]))
}

#[tokio::test]
async fn t_128_weak_rsa_keys_are_refused() {
    let desk = Desk::new("oldkeys");
    let weak = async |what: &str, modulus: &BigUint, exponent: u64| {
        let said = desk.refused(what, &rsa(modulus, exponent)).await;
        assert!(said.contains("weak"), "{what}: {said}");
    };
    let corpus: Value = serde_json::from_str(include_str!("../../corpus/jose/wycheproof.json")).unwrap();
    let modulus = |name: &str| {
        let n = corpus["keys"][name]["keys"][0]["n"].as_str().unwrap();
        BigUint::from_bytes_be(&URL_SAFE_NO_PAD.decode(n).unwrap())
    };
    let good = modulus("rsa");
    let said = desk.refused("not signed", &rsa(&good, 65_537)).await;
    assert!(said.contains("not signed with its own key"), "{said}");
    weak("ROCA", &modulus("jwk-roca"), 65_537).await;
    for exponent in [1, 2, 3, 17, 65_536, u64::MAX] {
        weak("exponent", &good, exponent).await;
    }
    let bits = |bits: u32| (BigUint::from(1_u8) << bits) - 1_u8;
    weak("1024 bits", &modulus("jwk-1024"), 65_537).await;
    weak("2047 bits", &(&good >> 1_u8 | BigUint::from(1_u8)), 65_537).await;
    weak("2052 bits", &((&good << 4_u8) + 1_u8), 65_537).await;
    weak("small factors", &bits(2048), 65_537).await;
    let near = (BigUint::from(3_u8) << 1022_u32) + 1_u8;
    weak("close primes", &(&near * (&near + 210_u8)), 65_537).await;
    weak("a square", &(&near * &near), 65_537).await;
}

#[tokio::test]
async fn t_128_rsa_keys_only_where_the_template_takes_them() {
    let desk = Desk::new("oldkeys");
    let request = text(&by_openssl(&["-newkey", "rsa:2048"]).unwrap());
    desk.granted("any key", &request).await;
    let other = Desk::new("migrate");
    let said = other.refused("P-256 only", &request).await;
    assert!(said.contains("keys of this kind"), "{said}");
    let three = by_openssl(&["-newkey", "rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"]).unwrap();
    other.refused("exponent 3", &text(&three)).await;
}

#[tokio::test]
async fn t_128_a_blocked_key_is_refused() {
    let mut world = World::of(CERT_BUNDLE);
    let key = new_key();
    let request = csr(&key);
    let first = open(&mut world, &Job::shop(), "migrate", &request).await.unwrap();
    let thumbprint = URL_SAFE_NO_PAD.encode(crate::world::sha256(&key.subject_public_key_info()));
    world.bundle.edit("format       = 1", &format!("format = 1\nblocked_keys = [\"{thumbprint}\"]"));
    world.flow.load_bundle("test").await.unwrap();
    let refused = feed(&world, &handle(&first), None, &request).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Csr);
    assert!(refused.decision.is_some(), "it is on the record");
    assert!(feed(&world, &handle(&first), None, &csr(&new_key())).await.is_ok());
}

#[tokio::test]
async fn t_129_a_request_is_signed_with_its_own_key() {
    let desk = Desk::new("oldkeys");
    let (key, other) = (new_key(), new_key());
    desk.refused("by another", &text(&Hand::of(&key).by(&other))).await;
    let good = Hand::of(&key).by(&key);
    let mut bent = good.clone();
    *bent.last_mut().unwrap() ^= 1;
    desk.refused("bent", &text(&bent)).await;
    desk.refused("no signature", &text(&Hand::of(&key).with(&[]))).await;
    let swapped = Hand { spki: Hand::of(&other).spki, ..Hand::of(&key) };
    desk.refused("of another key", &text(&swapped.with(&SigningKey::sign(&key, &Hand::of(&key).info()).unwrap())))
        .await;
    let psychic = der(0x30, &[&der(0x02, &[&[0]]), &der(0x02, &[&[0]])]);
    desk.refused("zeros", &text(&Hand::of(&key).with(&psychic))).await;
    for digest in ["-sha1", "-md5", "-sha224"] {
        for kind in [&["-newkey", "rsa:2048"][..], &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]] {
            if let Some(request) = by_openssl(&[kind, &[digest]].concat()) {
                desk.refused(digest, &text(&request)).await;
            }
        }
    }
    let none = Hand { algorithm: der(0x30, &[&der(0x06, &[&[0x2a, 3]])]), ..Hand::of(&key) };
    desk.refused("another algorithm", &text(&none.by(&key))).await;
    desk.granted("its own", &text(&good)).await;
}

#[tokio::test]
async fn t_129_the_key_of_a_ca_is_refused() {
    let desk = Desk::new("migrate");
    let pki = desk.world.flow.pki().unwrap().clone();
    let mut cas = pki.issuing();
    cas.push(pki.area().clone());
    for ca in cas {
        let point = der(0x03, &[&[0], ca.signer().public_key()]);
        let spki = der(0x30, &[&Hand::of(&new_key()).spki[2..23], &point]);
        let request = Hand { spki, ..Hand::of(&new_key()) };
        let signature = CaSigner::sign(ca.signer(), &request.info()).unwrap();
        desk.refused("of a CA", &text(&request.with(&signature))).await;
    }
}

#[tokio::test]
async fn t_129_another_workloads_key_is_refused() {
    let mut world = World::of(CERT_BUNDLE);
    let request = csr(&new_key());
    let fork = Job::shop().with("sub", "fork").with("event", "fork");
    let first = open(&mut world, &Job::shop(), "migrate", &request).await.unwrap();
    assert!(feed(&world, &handle(&first), Some(0), &request).await.is_ok(), "its own, again");
    assert!(open(&mut world, &Job::shop(), "serve", &request).await.is_ok(), "of the same workload");
    let refused = open(&mut world, &fork, "peek", &request).await.unwrap_err();
    assert!(refused.reason == Reason::Csr && refused.decision.is_some(), "{refused:?}");
    world.end(&handle(&first), first.task).await.unwrap();
    assert_eq!(open(&mut world, &fork, "peek", &request).await.unwrap_err().reason, Reason::Csr, "ended, not over");
    world.live_s(901);
    let second = open(&mut world, &fork, "peek", &request).await;
    assert!(second.is_ok(), "over: {second:?}");
}

#[tokio::test]
async fn t_129_a_restart_forgets_no_key() {
    let mut world = World::on_file_with(CERT_BUNDLE, "");
    let request = csr(&new_key());
    open(&mut world, &Job::shop(), "migrate", &request).await.unwrap();
    world.restart().await;
    let fork = Job::shop().with("sub", "fork").with("event", "fork");
    assert_eq!(open(&mut world, &fork, "peek", &request).await.unwrap_err().reason, Reason::Csr);
}

#[tokio::test]
async fn t_130_a_request_has_one_encoding() {
    let desk = Desk::new("migrate");
    let key = new_key();
    let hand = || Hand::of(&key);
    let by = |hand: Hand| hand.by(&key);
    let good = by(hand());
    assert_eq!(good[1], 0x81, "between 128 and 255 octets: {}", good.len());
    let named = |tag: u8, value: &[u8]| {
        let pair = der(0x30, &[&[0x06, 0x03, 0x55, 0x04, 0x03], &der(tag, &[value])]);
        der(0x30, &[&der(0x31, &[&pair])])
    };
    let extension = |id: &[u8], value: Vec<u8>| (id.to_vec(), value);
    let san = |name: &[u8]| extension(SUBJECT_ALT_NAME, der(0x30, &[&der(0x86, &[name])]));
    let asking = |extensions: &[(Vec<u8>, Vec<u8>)]| {
        let all: Vec<(&[u8], Vec<u8>)> = extensions.iter().map(|(id, value)| (&id[..], value.clone())).collect();
        Hand::asking(&key, &all)
    };
    let broken: Vec<(&str, Vec<u8>)> = vec![
        ("something after it", [&good[..], &[0]].concat()),
        ("a whole one after it", [&good[..], &good[..]].concat()),
        ("less than it says", good[..good.len() - 1].to_vec()),
        ("a longer length", [&[0x30, 0x82, 0x00][..], &good[2..]].concat()),
        ("no length", [&[0x30, 0x80][..], &good[3..], &[0, 0]].concat()),
        ("another version", by(Hand { version: der(0x02, &[&[1]]), ..hand() })),
        ("a long version", by(Hand { version: vec![0x02, 0x02, 0x00, 0x00], ..hand() })),
        ("no attributes", by(Hand { attributes: Vec::new(), ..hand() })),
        (
            "something after the attributes",
            by(Hand { attributes: [der(0xa0, &[]), der(0x05, &[])].concat(), ..hand() }),
        ),
        (
            "a password",
            by(Hand {
                attributes: der(
                    0xa0,
                    &[&attribute(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07], &der(0x0c, &[b"secret"]))],
                ),
                ..hand()
            }),
        ),
        ("an extension twice", by(asking(&[san(NAME.as_bytes()), san(NAME.as_bytes())]))),
        ("names of nothing", by(asking(&[extension(SUBJECT_ALT_NAME, der(0x30, &[]))]))),
        (
            "something after a name",
            by(asking(&[extension(
                SUBJECT_ALT_NAME,
                [der(0x30, &[&der(0x86, &[NAME.as_bytes()])]), vec![0x05, 0x00]].concat(),
            )])),
        ),
        ("NUL in a name", by(asking(&[san(&[NAME.as_bytes(), b"\0"].concat())]))),
        ("BMPString", by(Hand { subject: named(0x1e, &[0, 0x61]), ..hand() })),
        ("T61String", by(Hand { subject: named(0x14, b"a"), ..hand() })),
        ("UniversalString", by(Hand { subject: named(0x1c, &[0, 0, 0, 0x61]), ..hand() })),
        ("no UTF-8", by(Hand { subject: named(0x0c, &[0xff, 0xfe]), ..hand() })),
        ("NUL in a subject", by(Hand { subject: named(0x0c, b"a\0b"), ..hand() })),
        ("a long subject", by(Hand { subject: named(0x0c, &[b'a'; 40_000]), ..hand() })),
    ];
    for (what, request) in &broken {
        desk.refused(what, &text(request)).await;
    }
}

#[tokio::test]
async fn t_130_a_request_is_one_text() {
    let desk = Desk::new("migrate");
    let key = new_key();
    let good = Hand::of(&key).by(&key);
    let whole = text(&good);
    for (what, request) in [
        ("padding", format!("{whole}=")),
        ("another alphabet", whole.replacen(|_: char| true, "+", 1)),
        ("PEM", "-----BEGIN CERTIFICATE REQUEST-----".into()),
        ("blanks", format!("{whole} ")),
        ("lines", format!("{}\n{}", &whole[..64], &whole[64..])),
    ] {
        desk.refused(what, &request).await;
    }
    desk.granted("the same, whole", &whole).await;
    let other = Desk::new("migrate");
    let leaf = other
        .granted("a subject of any name", &text(&Hand { subject: named("root"), ..Hand::of(&key) }.by(&key)))
        .await;
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    assert_eq!(leaf.subject().to_string(), "CN=migrate", "grants nothing");
}

fn named(name: &str) -> Vec<u8> {
    let pair = der(0x30, &[&[0x06, 0x03, 0x55, 0x04, 0x03], &der(0x0c, &[name.as_bytes()])]);
    der(0x30, &[&der(0x31, &[&pair])])
}

#[tokio::test]
async fn t_132_a_flood_of_nesting_is_refused_at_once() {
    let desk = Desk::new("migrate");
    let mut nested = vec![0x05, 0x00];
    while nested.len() < 16_000 {
        nested = der(0x30, &[&nested]);
    }
    desk.refused("4,000 deep", &text(&nested)).await;
    let open_ended = [0x30, 0x80].repeat(8_000);
    desk.refused("8,000 without an end", &text(&open_ended)).await;
    let huge = "A".repeat(2 << 20);
    let answer = desk.world.call(asked((JWT, &desk.evidence), &huge, &[("scope", "migrate")])).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn t_133_an_oversized_key_is_refused_before_it_is_used() {
    let desk = Desk::new("oldkeys");
    let modulus = (BigUint::from(1_u8) << 16_383_u32) + 1_u8;
    let said = desk.refused("16,384 bits", &rsa(&modulus, 65_537)).await;
    assert!(said.contains("weak"), "{said}");
    let odd = (BigUint::from(1_u8) << 4_103_u32) + 1_u8;
    assert!(desk.refused("4,104 bits", &rsa(&odd, 65_537)).await.contains("weak"));
}

#[tokio::test]
async fn t_135_one_key_gets_a_serial_each_time() {
    let mut world = World::of(CERT_BUNDLE);
    let request = csr(&new_key());
    let first = open(&mut world, &Job::shop(), "migrate", &request).await.unwrap();
    let control = handle(&first);
    let mut serials = BTreeSet::new();
    for _ in 0..64 {
        let next = feed(&world, &control, None, &request).await.unwrap();
        let leaf = chain(&token(&next)).remove(0);
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        assert_eq!(leaf.raw_serial(), lease(&next).as_u128().to_be_bytes());
        assert!(leaf.raw_serial()[0] < 0x80 && serials.insert(leaf.raw_serial().to_vec()));
    }
}

#[tokio::test]
async fn t_136_a_handle_ends_no_certificate_of_another_task() {
    let mut world = World::of(CERT_BUNDLE);
    let fork = Job::shop().with("sub", "fork").with("event", "fork");
    let own = open(&mut world, &Job::shop(), "migrate", &csr(&new_key())).await.unwrap();
    let others = open(&mut world, &fork, "peek", &csr(&new_key())).await.unwrap();
    let caller = world.caller(&handle(&own)).await;
    let refused = world.flow.end_lease(&caller, lease(&others), None).await.unwrap_err();
    assert_eq!(refused.reason, Reason::NotFound, "not visible, so not known");
    assert!(world.flow.end_lease(&caller, lease(&own), None).await.is_ok());
}
