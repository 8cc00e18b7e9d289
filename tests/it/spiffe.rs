//! Workloads of a foreign SPIFFE trust domain, by their JWT-SVIDs: whose an SVID is, which keys may
//! sign one, and the whole way with an authority made of other people's libraries.

use std::fs;

use dayfly::flow::BundleSource;
use dayfly_domain::Reason;
use dayfly_verifier::crypto::SigningKey;
use serde_json::{Value, json};

use crate::{
    dev,
    foreign::{Talker, python, skipped},
    served::{Authority, Served},
    world::{BUNDLE, CI, ISSUER, Job, World, ask, reason},
};

const API: &str = "spiffe://prod.example/ns/pay/sa/api";
const MESH: &str = r#"
[issuer.mesh]
profile = "spiffe"
owner   = "team-shop"
url     = "spiffe://prod.example"
keys    = { spiffe_bundle = "mesh.json" }

[[task.deploy.allow]]
id     = "api-deploys"
issuer = "mesh"
claims = { spiffe_id = "spiffe://prod.example/ns/pay/sa/api" }
"#;

/// A broker that trusts `prod.example`, and what signs for it.
struct Mesh {
    world: World,
    jwt: SigningKey,
    x509: SigningKey,
}

fn new_key() -> SigningKey {
    SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap()
}

fn entry(key: &SigningKey, purpose: &str) -> Value {
    let mut jwk = key.jwk();
    jwk["use"] = purpose.into();
    jwk
}

impl Mesh {
    fn new() -> Self {
        dayfly_verifier::crypto::init().unwrap();
        let (jwt, x509) = (new_key(), new_key());
        let keys = [entry(&x509, "x509-svid"), entry(&jwt, "jwt-svid")];
        let bundle = json!({ "keys": keys, "spiffe_sequence": 1, "spiffe_refresh_hint": 300 });
        let world = World::with_files(&format!("{BUNDLE}{MESH}"), &[("mesh.json", &bundle)]);
        Self { world, jwt, x509 }
    }

    /// What an SVID of the API says, with changes; `null` takes a claim away.
    fn claims(&self, changes: Value) -> Value {
        let iat = self.world.now().as_s();
        let mut claims = json!({ "sub": API, "aud": [ISSUER], "iat": iat, "exp": iat + 300 });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    fn svid(&self, changes: Value) -> String {
        self.jwt.sign("JWT", &self.claims(changes)).unwrap()
    }

    async fn refused(&self, svid: &str) -> Reason {
        reason(self.world.present(svid, ask("deploy")).await)
    }
}

#[tokio::test]
async fn an_svid_without_iss_and_jti_opens_one_task() {
    let mesh = Mesh::new();
    let svid = mesh.svid(json!({}));
    let issued = mesh.world.present(&svid, ask("deploy")).await.unwrap();
    let row = mesh.world.reader.task(issued.task).unwrap().unwrap();
    assert_eq!(&*row.workload, "mesh/ns/pay/sa/api");
    assert_eq!(mesh.refused(&svid).await, Reason::Replayed);
    mesh.world.pass_s(1);
    assert!(mesh.world.present(&mesh.svid(json!({})), ask("deploy")).await.is_ok(), "a new SVID is new evidence");
    let other = mesh.svid(json!({ "sub": "spiffe://prod.example/ns/pay/sa/other" }));
    assert_eq!(mesh.refused(&other).await, Reason::NoMatch);
}

#[tokio::test]
async fn a_trust_domain_is_known_whole() {
    let mesh = Mesh::new();
    for domain in ["prod.example.evil", "prod.exampl", "rod.example", "prod.example.", "evil-prod.example"] {
        let svid = mesh.svid(json!({ "sub": format!("spiffe://{domain}/ns/pay/sa/api") }));
        assert_eq!(mesh.refused(&svid).await, Reason::Issuer, "{domain}");
    }
    for sub in [
        "spiffe://Prod.example/ns/pay/sa/api",
        "SPIFFE://prod.example/ns/pay/sa/api",
        "spiffe://prod.example:443/ns/pay/sa/api",
        "spiffe://a@prod.example/ns/pay/sa/api",
        "spiffe://prod.example",
        "spiffe://prod.example/",
        "spiffe://prod.example/ns/pay/sa/api/",
        "spiffe://prod.example/ns//pay/sa/api",
        "spiffe://prod.example/ns/./pay/sa/api",
        "spiffe://prod.example/x/../ns/pay/sa/api",
        "spiffe://prod.example/ns/p%61y/sa/api",
        "spiffe://prod.example/ns/pay/sa/api?x",
        " spiffe://prod.example/ns/pay/sa/api",
        "prod.example/ns/pay/sa/api",
    ] {
        assert_eq!(mesh.refused(&mesh.svid(json!({ "sub": sub }))).await, Reason::Issuer, "{sub}");
    }
}

#[tokio::test]
async fn an_id_of_our_own_trust_domain_is_no_evidence() {
    let mesh = Mesh::new();
    let sub = "spiffe://example.org/deploy/ci/shop";
    for changes in [json!({ "sub": sub }), json!({ "sub": sub, "iss": CI }), json!({ "sub": sub, "iss": "x" })] {
        assert_eq!(mesh.refused(&mesh.svid(changes.clone())).await, Reason::Own, "{changes}");
    }
    assert_eq!(mesh.refused(&mesh.svid(json!({ "iss": ISSUER }))).await, Reason::Own);
}

#[tokio::test]
async fn a_path_that_says_untrusted_is_refused() {
    let mesh = Mesh::new();
    let svid = mesh.svid(json!({ "sub": format!("{API}/untrusted") }));
    assert_eq!(mesh.refused(&svid).await, Reason::Claim);
}

/// `iss` decides only where the bundle knows it; then that issuer's keys decide, and nobody else's.
#[tokio::test]
async fn an_svid_cannot_choose_its_issuer() {
    let mesh = Mesh::new();
    assert_eq!(mesh.refused(&mesh.svid(json!({ "iss": CI }))).await, Reason::Signature);
    for iss in [json!([CI]), json!({}), json!(7), json!(null), json!(true)] {
        let mut claims = mesh.claims(json!({}));
        claims["iss"] = iss.clone();
        assert_eq!(mesh.refused(&mesh.jwt.sign("JWT", &claims).unwrap()).await, Reason::Issuer, "{iss}");
    }
    let unknown = mesh.svid(json!({ "iss": "https://oidc.prod.example" }));
    assert!(mesh.world.present(&unknown, ask("deploy")).await.is_ok(), "no one in the bundle, so it says nothing");
    let url = mesh.svid(json!({ "iss": "spiffe://prod.example" }));
    assert!(mesh.world.present(&url, ask("deploy")).await.is_ok());
    let forged = mesh.svid(json!({ "iss": "spiffe://prod.example", "sub": "spiffe://other.example/a" }));
    assert_eq!(mesh.refused(&forged).await, Reason::Issuer);
}

#[tokio::test]
async fn an_issuers_token_is_no_svid() {
    let mesh = Mesh::new();
    let job = Job::shop().with("sub", API);
    assert_eq!(mesh.refused(&mesh.world.sign(job.clone())).await, Reason::Claim, "its `sub` is no principal of the CI");
    let unknown = mesh.world.sign(job.with("iss", "https://unknown.example"));
    assert_eq!(mesh.refused(&unknown).await, Reason::Signature, "the trust domain's keys decide, not the CI's");
}

#[tokio::test]
async fn t_031_an_svid_says_when_it_ends_and_how_old_it_is() {
    let mesh = Mesh::new();
    let now = mesh.world.now().as_s();
    for (changes, why) in [
        (json!({ "exp": null }), Reason::Claim),
        (json!({ "iat": null }), Reason::Claim),
        (json!({ "exp": now }), Reason::Expired),
        (json!({ "iat": now - 601 }), Reason::Expired),
        (json!({ "iat": now + 31 }), Reason::Expired),
        (json!({ "exp": now + 25 * 3600 }), Reason::Claim),
        (json!({ "aud": null }), Reason::Audience),
        (json!({ "aud": [] }), Reason::Audience),
        (json!({ "aud": [ISSUER, "https://other.example"] }), Reason::Audience),
        (json!({ "aud": "spiffe://example.org" }), Reason::Audience),
    ] {
        assert_eq!(mesh.refused(&mesh.svid(changes.clone())).await, why, "{changes}");
    }
}

#[tokio::test]
async fn t_017_a_key_of_another_use_signs_no_svid() {
    let mesh = Mesh::new();
    let svid = mesh.x509.sign("JWT", &mesh.claims(json!({}))).unwrap();
    assert_eq!(mesh.refused(&svid).await, Reason::Signature);
    assert_eq!(mesh.refused(&new_key().sign("JWT", &mesh.claims(json!({}))).unwrap()).await, Reason::Signature);
}

#[tokio::test]
async fn t_025_only_jwt_jose_or_no_type_is_an_svid() {
    let mesh = Mesh::new();
    for typ in ["at+jwt", "dpop+jwt", "jwt", "application/jwt", "wit+jwt"] {
        let svid = mesh.jwt.sign(typ, &mesh.claims(json!({}))).unwrap();
        assert_eq!(mesh.refused(&svid).await, Reason::Signature, "{typ}");
    }
    let jose = mesh.jwt.sign("JOSE", &mesh.claims(json!({}))).unwrap();
    assert!(mesh.world.present(&jose, ask("deploy")).await.is_ok());
}

/// What a bundle with these tables in place of the mesh's is told.
fn told(from: &str, to: &str) -> String {
    assert!(MESH.contains(from), "nothing to break");
    let mesh = Mesh::new();
    mesh.world.bundle.set(&format!("{BUNDLE}{}", MESH.replace(from, to)));
    let problems = mesh.world.bundle.load().err().unwrap_or_default();
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn a_spiffe_id_needs_its_trust_domain() {
    const URL: &str = "\"spiffe://prod.example\"";
    const KEYS: &str = "{ spiffe_bundle = \"mesh.json\" }";
    for (from, to, what) in [
        (URL, "\"https://prod.example\"", "is no trust domain"),
        (URL, "\"spiffe://prod.example/ns\"", "is no trust domain"),
        (URL, "\"spiffe://prod.example/\"", "is no trust domain"),
        (URL, "\"spiffe://Prod.example\"", "is no trust domain"),
        (URL, "\"spiffe://prod.example:8443\"", "is no trust domain"),
        (URL, "\"spiffe://example.org\"", "our own trust domain"),
        (URL, "\"spiffe://xn--example-.org\"", "decodes to plain ASCII"),
        (KEYS, "{ jwks_file = \"mesh.json\" }", "trust bundle"),
        (KEYS, "{ discovery = true }", "trust bundle"),
        (KEYS, "{ spiffe_bundle = \"mesh.json\", jwks_file = \"ci.json\" }", "not both"),
        (KEYS, "{ spiffe_bundle = \"mesh.json\", allow_private = true }", "go with what is fetched"),
        (KEYS, "{ spiffe_bundle_url = \"http://prod.example/bundle\" }", "no `https` URL"),
        (KEYS, "{ spiffe_bundle_url = \"https://broker.example.org/bundle\" }", "is our own"),
        (KEYS, "{ spiffe_bundle = \"ci.json\" }", "no usable key"),
        ("profile = \"spiffe\"", "profile = \"oidc\"", "does not read the SPIFFE ID"),
        (
            "profile = \"spiffe\"",
            "profile = \"oidc\"\nclaims.id = { at = \"/id\", type = \"string\", segment = \"spiffe_path\" }",
            "does not read the SPIFFE ID",
        ),
        ("profile = \"spiffe\"", "profile = \"spiffe\"\nkind = \"verifier\"", "workloads only"),
    ] {
        let said = told(from, to);
        assert!(said.contains(what), "{to}: {said}");
    }
    assert_eq!(told("mesh", "mesh"), "");
    assert_eq!(told(KEYS, "{ spiffe_bundle_url = \"https://prod.example/bundle\" }"), "");
}

/// The authority of a trust domain: PyJWT signs, the `spiffe` package is asked what it thinks.
struct Spire {
    talker: Talker,
    url: String,
    bundle: Value,
}

impl Spire {
    fn start(work: &std::path::Path, authority: &Authority) -> Self {
        let (cert, key) = authority.write_leaf(work, "spire");
        let mut talker = Talker::start(python("spiffe_authority.py").arg("prod.example").args([cert, key]));
        let said = talker.hear();
        Self { talker, url: said["url"].as_str().unwrap().to_owned(), bundle: said["bundle"].clone() }
    }

    /// An SVID, and whether the foreign library takes it.
    fn svid(&mut self, audience: &str, key: &str, header: Value, claims: Value) -> (String, bool) {
        let asked = json!({ "audience": audience, "key": key, "header": header, "claims": claims });
        let said = self.talker.ask(&asked.to_string());
        (said["token"].as_str().unwrap().to_owned(), said["valid"].is_string())
    }
}

fn bundle(keys: &str) -> String {
    format!(
        r#"
format       = 1
trust_domain = "example.org"

[owner.team-pay]
contact = "pay@example.org"

[issuer.prod-mesh]
profile = "spiffe"
owner   = "team-pay"
url     = "spiffe://prod.example"
keys    = {keys}

[target.orders]
uri         = "https://orders.example.org"
environment = "staging"
owner       = "team-pay"
binding     = "bearer"
verifies    = "introspect"
actions     = ["orders:read"]

[task.read-orders]
purpose   = "read the orders that are to be paid"
owner     = "team-pay"
grants    = {{ orders = ["orders:read"] }}
ttl       = "5m"
review_by = 2099-01-01

[[task.read-orders.allow]]
id     = "pay-api"
issuer = "prod-mesh"
claims = {{ spiffe_id = "{API}" }}
"#
    )
}

fn open(broker: &Served, svid: &str) -> (u16, String) {
    let ask = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token", svid),
        ("scope", "read-orders"),
    ];
    let (status, answer) = broker.post("/oauth2/token", &ask);
    (status, answer["reason"].as_str().unwrap_or_default().to_owned())
}

fn now_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// What the foreign library refuses is refused here; what it takes is taken, but for what we ask more.
fn agrees_with_the_foreign_library(broker: &Served, spire: &mut Spire) {
    let (ours, now) = (broker.issuer.clone(), now_s());
    let claims = |sub: &str, aud: Value| json!({ "sub": sub, "aud": aud, "iat": now, "exp": now + 300 });
    let good = claims(API, json!([ours]));
    let (svid, valid) = spire.svid(&ours, "jwt", json!({}), good.clone());
    assert_eq!((valid, open(broker, &svid).0), (true, 200));
    assert_eq!(open(broker, &svid), (400, "E-REPLAYED".to_owned()));

    let elsewhere = claims(API, json!(["https://elsewhere.example"]));
    let other_domain = claims("spiffe://other.example/ns/pay/sa/api", json!([ours]));
    let dotted = claims("spiffe://prod.example/ns/../pay", json!([ours]));
    let mut over = good.clone();
    over["exp"] = json!(now - 60);
    for (key, header, claims, why) in [
        ("x509", json!({}), good.clone(), "E-SIGNATURE"),
        ("jwt", json!({ "kid": "another" }), good.clone(), "E-SIGNATURE"),
        ("jwt", json!({}), elsewhere, "E-AUDIENCE"),
        ("jwt", json!({}), other_domain, "E-ISSUER"),
        ("jwt", json!({}), dotted, "E-ISSUER"),
        ("jwt", json!({}), over, "E-EXPIRED"),
        ("jwt", json!({ "typ": "at+jwt" }), good.clone(), "E-SIGNATURE"),
    ] {
        let (svid, valid) = spire.svid(&ours, key, header, claims);
        assert_eq!((valid, open(broker, &svid)), (false, (400, why.to_owned())), "{why}");
    }
    let two = claims(API, json!([ours, "https://elsewhere.example"]));
    let (svid, valid) = spire.svid(&ours, "jwt", json!({}), two);
    assert_eq!((valid, open(broker, &svid)), (true, (400, "E-AUDIENCE".to_owned())), "for us and for nobody else");
}

#[test]
fn a_foreign_trust_domain_by_a_file() {
    if skipped("python") {
        return;
    }
    let (work, authority) = (dev::work(), Authority::new());
    let mut spire = Spire::start(work.path(), &authority);
    let broker = Served::first(work.path(), &authority, |_| {
        fs::write(work.path().join("bundle/prod.json"), spire.bundle.to_string()).unwrap();
        bundle("{ spiffe_bundle = \"prod.json\" }")
    });
    agrees_with_the_foreign_library(&broker, &mut spire);
    assert_eq!(spire.talker.ask("\"fetches\"")["fetches"], 0);
}

#[test]
fn a_foreign_trust_domain_by_its_bundle_endpoint() {
    if skipped("python") {
        return;
    }
    let (work, authority) = (dev::work(), Authority::new());
    let mut spire = Spire::start(work.path(), &authority);
    let broker = Served::first(work.path(), &authority, |_| {
        fs::write(work.path().join("bundle/ca.pem"), authority.pem()).unwrap();
        let url = &spire.url;
        bundle(&format!("{{ spiffe_bundle_url = \"{url}\", ca_file = \"ca.pem\", allow_private = true }}"))
    });
    agrees_with_the_foreign_library(&broker, &mut spire);
    let fetches = spire.talker.ask("\"fetches\"")["fetches"].as_u64().unwrap();
    assert!((1..=2).contains(&fetches), "{fetches}: one fetch, and one more for the unknown `kid` at most");
}
