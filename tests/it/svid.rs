//! X.509-SVIDs of a foreign trust domain as evidence, over a real listener: `curl --cert` opens a task, and what
//! is not quite an SVID, or not quite shown, opens none.

use std::fs;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly::flow::BundleSource;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    foreign::skipped,
    mtls::{EXCHANGE, Hall, Holder, TOKEN, answers, is, run, why, with_fields},
    world::{BUNDLE, START, World},
};

const API: &str = "spiffe://prod.example/ns/pay/sa/api";
const SVID: (&str, &str) = ("subject_token_type", "urn:dayfly:token-type:x509-svid");
const MESH: &str = r#"
[issuer.mesh]
profile = "spiffe"
owner   = "team-shop"
url     = "spiffe://prod.example"
keys    = { x509_roots = "mesh.pem" }

[[task.deploy.allow]]
id     = "api-deploys"
issuer = "mesh"
claims = { spiffe_id = "spiffe://prod.example/ns/pay/sa/api" }
"#;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(START.as_s() + seconds).unwrap()
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (at(-86_400), at(30 * 86_400));
    params
}

/// A root of this name: any two of them look alike.
fn root() -> Ca {
    let mut params = ca_params("prod.example");
    params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![7; 20]);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// As SPIRE makes them: an hour, both uses, the key usage critical.
fn params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.is_ca = IsCa::ExplicitNoCa;
    (params.not_before, params.not_after) = (at(-60), at(3_540));
    params
}

/// A broker that trusts `prod.example`, behind its listener.
struct Mesh {
    world: World,
    hall: Hall,
    root: Ca,
}

/// A workload: its files, and its certificate as a request names it.
struct Workload {
    holder: Holder,
    named: String,
}

impl Mesh {
    async fn new() -> Self {
        let root = root();
        let world = World::with_bytes(&format!("{BUNDLE}{MESH}"), &[("mesh.pem", root.pem().as_bytes())]);
        let hall = Hall::of(&world).await;
        Self { world, hall, root }
    }

    /// A leaf of `ca`.
    fn workload(&self, ca: &Ca, params: CertificateParams) -> Workload {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, ca).unwrap();
        let name = &URL_SAFE_NO_PAD.encode(&ring::digest::digest(&ring::digest::SHA256, leaf.der()).as_ref()[..9]);
        Workload { holder: self.hall.holder(name, &leaf.pem(), &key), named: URL_SAFE_NO_PAD.encode(leaf.der()) }
    }

    fn api(&self) -> Workload {
        self.workload(&self.root, params(API))
    }

    fn ask(&self, workload: &Workload) -> (u16, Value) {
        self.hall.post(Some(&workload.holder), TOKEN, &asked(&workload.named))
    }

    /// What is said to a leaf that is changed so.
    fn said(&self, change: impl FnOnce(&mut CertificateParams)) -> (u16, String) {
        let mut params = params(API);
        change(&mut params);
        why(&self.ask(&self.workload(&self.root, params)))
    }
}

fn asked(named: &str) -> [(&str, &str); 4] {
    [EXCHANGE, SVID, ("subject_token", named), ("scope", "deploy")]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_opens_a_task() {
    if skipped("curl") {
        return;
    }
    let mesh = Mesh::new().await;
    let (status, answer) = mesh.ask(&mesh.api());
    assert_eq!(status, 200, "{answer}");
    let task = answer["task_id"].as_str().unwrap();
    let (_, shown) = mesh.hall.get(None, &format!("/v1/tasks/{task}"), answer["task_control"].as_str().unwrap());
    assert_eq!((&shown["workload"], &shown["issuer"]), (&"mesh/ns/pay/sa/api".into(), &"mesh".into()), "{shown}");
    assert!(mesh.world.verify().problems.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_opens_one_task() {
    if skipped("curl") {
        return;
    }
    let mesh = Mesh::new().await;
    let api = mesh.api();
    let mut curl = mesh.hall.curl(Some(&api.holder));
    let url = mesh.hall.url(TOKEN);
    for next in [false, true] {
        if next {
            curl.arg("--next").args(["--silent", "--cacert"]).arg(mesh.hall.path("ca.pem"));
            curl.arg("--cert").arg(&api.holder.cert).arg("--key").arg(&api.holder.key);
        }
        with_fields(&mut curl, &asked(&api.named));
        curl.args(["--write-out", "\n%{http_code}\n", &url]);
    }
    let told = answers(&run(&mut curl));
    assert_eq!((told[0].0, why(&told[1])), (200, is(400, "E-REPLAYED")), "on one connection: {told:?}");
    let (status, again) = mesh.ask(&api);
    assert_eq!(status, 200, "on another: {again}");
    assert_ne!(again["task_id"], told[0].1["task_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn t_147_a_forwarded_certificate_is_nobodys() {
    if skipped("curl") {
        return;
    }
    let mesh = Mesh::new().await;
    let api = mesh.api();
    let pem = fs::read_to_string(&api.holder.cert).unwrap();
    let (one_line, escaped) = (pem.replace('\n', " "), pem.replace('\n', "%0A"));
    let xfcc = format!("Hash={};Cert=\"{escaped}\";URI={API}", "0".repeat(64));
    let headers = [
        format!("X-Forwarded-Client-Cert: {xfcc}"),
        format!("X-SSL-Cert: {escaped}"),
        format!("X-SSL-Client-Cert: {one_line}"),
        format!("Client-Cert: :{}:", api.named),
        format!("X_Forwarded_Client_Cert: {xfcc}"),
        "X-SSL-Client-Verify: SUCCESS".to_owned(),
        "User-Agent: GoogleHC/1.0".to_owned(),
    ];
    let arguments: Vec<&str> = headers.iter().flat_map(|header| ["--header", header.as_str()]).collect();
    let stranger = mesh.hall.self_signed("stranger", &KeyPair::generate().unwrap());
    for holder in [None, Some(&stranger)] {
        let told = mesh.hall.post_with(holder, TOKEN, &asked(&api.named), &arguments);
        assert_eq!(why(&told), is(400, "E-CERTIFICATE"), "{told:?}");
    }
    let told = mesh.hall.post_with(Some(&api.holder), TOKEN, &asked(&api.named), &arguments);
    assert_eq!(told.0, 200, "nor do they take anything away: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_than_the_connections_is_refused() {
    if skipped("curl") {
        return;
    }
    let mesh = Mesh::new().await;
    let (api, other) = (mesh.api(), mesh.api());
    for named in [other.named.as_str(), "AA", &api.named[4..]] {
        assert_eq!(why(&mesh.hall.post(Some(&api.holder), TOKEN, &asked(named))), is(400, "E-CERTIFICATE"));
    }
    for named in ["+/", &format!("{}=", api.named), &fs::read_to_string(&api.holder.cert).unwrap()] {
        assert_eq!(why(&mesh.hall.post(Some(&api.holder), TOKEN, &asked(named))), is(400, "E-REQUEST"), "{named}");
    }
    let told = mesh.hall.post_with(Some(&api.holder), TOKEN, &asked(&api.named), &["--tls-max", "1.2"]);
    assert_eq!(why(&told), is(400, "E-CERTIFICATE"), "its handshakes cannot be told apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn t_137_an_svid_below_a_twin_of_the_root_is_refused() {
    if skipped("curl") {
        return;
    }
    let mesh = Mesh::new().await;
    let twin = root();
    let mut forged = mesh.workload(&twin, params(API));
    assert_eq!(why(&mesh.ask(&forged)), is(400, "E-SIGNATURE"));
    let chain = fs::read_to_string(&forged.holder.cert).unwrap() + &twin.pem();
    let key = KeyPair::from_pem(&fs::read_to_string(&forged.holder.key).unwrap()).unwrap();
    forged.holder = mesh.hall.holder("forged", &chain, &key);
    assert_eq!(why(&mesh.ask(&forged)), is(400, "E-SIGNATURE"), "with the twin beside it");
}

#[tokio::test(flavor = "multi_thread")]
async fn t_144_an_svid_below_a_ca_that_is_over_or_may_not_sign_it_is_refused() {
    if skipped("curl") {
        return;
    }
    let mesh = Mesh::new().await;
    let below = |change: &dyn Fn(&mut CertificateParams)| {
        let mut between = ca_params("between");
        change(&mut between);
        let between = CertifiedIssuer::signed_by(between, KeyPair::generate().unwrap(), &mesh.root).unwrap();
        let mut shown = mesh.workload(&between, params(API));
        let chain = fs::read_to_string(&shown.holder.cert).unwrap() + &between.pem();
        let key = KeyPair::from_pem(&fs::read_to_string(&shown.holder.key).unwrap()).unwrap();
        shown.holder = mesh.hall.holder(&shown.named[shown.named.len() - 16..], &chain, &key);
        why(&mesh.ask(&shown))
    };
    assert_eq!(below(&|_| ()), is(200, ""));
    assert_eq!(below(&|ca| ca.not_after = at(-1)), is(400, "E-EXPIRED"));
    assert_eq!(below(&|ca| ca.not_before = at(1)), is(400, "E-EXPIRED"));
    assert_eq!(below(&|ca| ca.is_ca = IsCa::ExplicitNoCa), is(400, "E-SIGNATURE"));
    let server = |ca: &mut CertificateParams| ca.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(below(&server), is(400, "E-SIGNATURE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t_146_a_common_name_is_no_svid() {
    if skipped("curl") {
        return;
    }
    let mesh = Mesh::new().await;
    let named = |sans: Vec<SanType>| {
        mesh.said(|params| {
            params.distinguished_name.push(DnType::CommonName, API);
            params.subject_alt_names = sans;
        })
    };
    assert_eq!(named(Vec::new()), is(400, "E-CLAIM"));
    assert_eq!(named(vec![SanType::DnsName("prod.example".try_into().unwrap())]), is(400, "E-CLAIM"));
    let other = SanType::URI("spiffe://prod.example/ns/pay/sa/admin".try_into().unwrap());
    assert_eq!(named(vec![other]), is(400, "E-NOMATCH"), "the URI counts, not the name");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_svid_of_the_trust_domain_opens_nothing() {
    if skipped("curl") {
        return;
    }
    let mesh = Mesh::new().await;
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let named = |text: &str| mesh.said(|params| params.subject_alt_names = vec![uri(text)]);
    assert_eq!(named("spiffe://stage.example/ns/pay/sa/api"), is(400, "E-ISSUER"));
    assert_eq!(named("spiffe://example.org/deploy/ci/shop"), is(400, "E-OWN"), "our own trust domain");
    assert_eq!(named("spiffe://prod.example/ns/pay/sa/admin"), is(400, "E-NOMATCH"));
    for bad in
        ["spiffe://prod.example", "spiffe://prod.example/a/../b", "spiffe://Prod.example/a", "https://prod.example/a"]
    {
        assert_eq!(named(bad), is(400, "E-CLAIM"), "{bad}");
    }
    assert_eq!(mesh.said(|params| params.subject_alt_names.push(uri(API))), is(400, "E-CLAIM"), "two of them");
    assert_eq!(mesh.said(|params| params.not_after = at(-1)), is(400, "E-EXPIRED"));
    assert_eq!(mesh.said(|params| params.not_before = at(1)), is(400, "E-EXPIRED"));
    assert_eq!(mesh.said(|params| params.not_after = at(2 * 86_400)), is(400, "E-CLAIM"), "for days");
    let server =
        |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(mesh.said(server), is(400, "E-SIGNATURE"));
    assert_eq!(mesh.said(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), is(400, "E-CLAIM"));
}

#[test]
fn roots_are_cas_and_go_with_a_trust_domain() {
    let leaf = params(API).self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let told = |from: &str, to: &str| {
        let world = World::with_bytes(&format!("{BUNDLE}{MESH}"), &[("mesh.pem", root().pem().as_bytes())]);
        world.bundle.edit(from, to);
        world.bundle.load().err().map(|problems| problems.iter().map(ToString::to_string).collect::<String>())
    };
    assert_eq!(told("mesh.pem", "mesh.pem"), None);
    for (from, to, what) in [
        ("url     = \"spiffe://prod.example\"", "url     = \"https://prod.example\"", "is no trust domain"),
        ("{ x509_roots = \"mesh.pem\" }", "{ x509_roots = \"mesh.pem\", jwks_file = \"ci.json\" }", "not both"),
        (
            "{ x509_roots = \"mesh.pem\" }",
            "{ x509_roots = \"mesh.pem\", allow_private = true }",
            "go with what is fetched",
        ),
        ("{ x509_roots = \"mesh.pem\" }", "{ x509_roots = \"ci.json\" }", "holds no PEM certificate"),
        ("url     = \"spiffe://prod.example\"", "url     = \"spiffe://example.org\"", "our own trust domain"),
    ] {
        let told = told(from, to).unwrap_or_default();
        assert!(told.contains(what), "{to}: {told}");
    }
    let pinned =
        std::panic::catch_unwind(|| World::with_bytes(&format!("{BUNDLE}{MESH}"), &[("mesh.pem", leaf.as_bytes())]));
    assert!(pinned.is_err(), "a leaf is no root");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_signs_no_tokens() {
    let mut world = World::with_bytes(&format!("{BUNDLE}{MESH}"), &[("mesh.pem", root().pem().as_bytes())]);
    let job = crate::world::Job::shop().with("sub", API).with("iss", "spiffe://prod.example");
    let refused = world.try_open(&job, crate::world::ask("deploy")).await;
    assert_eq!(crate::world::reason(refused), dayfly_domain::Reason::Issuer);
}
