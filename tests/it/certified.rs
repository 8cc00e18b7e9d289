//! What a certificate of ours is worth on a connection to the broker (RFC 8705): it binds its own task's tokens,
//! holds a handle, and is evidence of nothing. Over a real listener, with `curl --cert`.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly::mint::pki::{Ceremony, Folder, Pki, Places, SealKey};
use dayfly_domain::UnixMs;
use dayfly_verifier::{CertificateRefusal, Clock, Jws, KeySet, Offline, dpop::ProofRules};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, SerialNumber};
use serde_json::{Value, json};

use crate::{
    certs::{HANDLE, JWT, X509, chain, csr, openssl},
    foreign::skipped,
    mtls::{EXCHANGE, Hall, Holder, TOKEN, is, why},
    world::{ISSUER, Job, START, World, sha256},
};

const MESH: &str = "https://mesh.example.org";

/// The test world with a service whose callers have certificates, tokens bound to these, or both.
const MESH_BUNDLE: &str = concat!(
    include_str!("world.toml"),
    r#"
[target.mesh]
uri         = "https://mesh.example.org"
environment = "staging"
owner       = "team-shop"
binding     = "mtls"
verifies    = "introspect"
actions     = ["mesh:call"]

[task.serve]
purpose   = "answer the mesh"
owner     = "team-shop"
grants    = { mesh = ["mesh:call"] }
ttl       = "15m"
deadline  = "1h"
review_by = 2099-01-01

[[task.serve.allow]]
id     = "shop-serves"
issuer = "ci"
claims = { sub = "shop" }
"#
);

/// A task with a certificate.
struct Task {
    handle: String,
    id: String,
    lease: String,
    key: KeyPair,
    pem: String,
    holder: Holder,
}

struct Place {
    world: World,
    hall: Hall,
    count: u8,
}

impl Place {
    async fn new() -> Self {
        Self::of(World::of(MESH_BUNDLE)).await
    }

    async fn of(world: World) -> Self {
        let hall = Hall::of(&world).await;
        Self { world, hall, count: 0 }
    }

    /// Opens a task for a certificate of the mesh.
    fn task(&mut self) -> Task {
        self.task_of(&[("scope", "serve")])
    }

    fn task_of(&mut self, asked: &[(&str, &str)]) -> Task {
        let (key, evidence) = (KeyPair::generate().unwrap(), self.evidence());
        let csr = csr(&key);
        let mut fields = vec![EXCHANGE, ("subject_token_type", JWT), ("subject_token", &evidence)];
        fields.extend([("requested_token_type", X509), ("csr", &csr)]);
        fields.extend(asked);
        let (status, answer) = self.hall.post(None, TOKEN, &fields);
        assert_eq!(status, 200, "{answer}");
        let (pem, handle) = (text(&answer, "access_token"), text(&answer, "task_control"));
        let holder = self.holder(&pem, &key);
        Task { handle, id: text(&answer, "task_id"), lease: text(&answer, "lease_id"), key, pem, holder }
    }

    fn evidence(&mut self) -> String {
        self.count += 1;
        self.world.evidence(&Job::shop().run(&self.count.to_string()))
    }

    fn holder(&mut self, pem: &str, key: &KeyPair) -> Holder {
        self.count += 1;
        self.hall.holder(&format!("holder-{}", self.count), pem, key)
    }

    /// A token of the task, over a connection with this certificate.
    fn token(&self, holder: Option<&Holder>, handle: &str) -> (u16, Value) {
        self.hall.post(holder, TOKEN, &fed(handle))
    }

    fn end(&self, lease: &str) {
        let (status, answer) = self.local(&format!("/v1/leases/{lease}/end"));
        assert_eq!(status, 200, "{answer}");
    }

    fn local(&self, path: &str) -> (u16, Value) {
        let request = crate::world::local(crate::world::post_json(path, None, &json!({})));
        let answer = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async { self.world.call(request).await })
        });
        (answer.status, answer.json())
    }
}

fn fed(handle: &str) -> [(&str, &str); 3] {
    [EXCHANGE, ("subject_token_type", HANDLE), ("subject_token", handle)]
}

fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("no {name}: {answer}")).to_owned()
}

fn claims(answer: &Value) -> Value {
    let jws = Jws::parse(answer["access_token"].as_str().unwrap()).unwrap();
    Value::Object(jws.unverified_claims().clone())
}

/// A clock that stands.
struct At(UnixMs);

impl Clock for At {
    fn now(&self) -> UnixMs {
        self.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_bound_to_the_certificate_of_its_connection() {
    if skipped("curl") || skipped("openssl") {
        return;
    }
    let mut place = Place::new().await;
    let task = place.task();
    let (status, answer) = place.token(Some(&task.holder), &task.handle);
    assert_eq!((status, &answer["token_type"]), (200, &json!("Bearer")), "{answer}");
    let der = chain(&task.pem).remove(0);
    let print = URL_SAFE_NO_PAD.encode(sha256(&der));
    assert_eq!(claims(&answer)["cnf"], json!({ "x5t#S256": print }));
    let cert = task.holder.cert.to_str().unwrap();
    let (_, said) = openssl(&["x509", "-in", cert, "-noout", "-fingerprint", "-sha256"]);
    let hex: String = sha256(&der).iter().map(|byte| format!("{byte:02X}:")).collect();
    assert!(said.contains(hex.trim_end_matches(':')), "openssl has the same: {said}");

    let token = text(&answer, "access_token");
    let shown = place.world.introspect(&token).await.expect("active");
    assert_eq!(shown.claims["cnf"], json!({ "x5t#S256": print }));
    let (_, lease) = place.hall.get(None, &format!("/v1/leases/{}", text(&answer, "lease_id")), &task.handle);
    assert_eq!((&lease["bound"], &lease["kind"]), (&json!("x5t"), &json!("jwt")), "{lease}");
    let keys = KeySet::parse(place.world.flow.jwks().to_string().as_bytes()).unwrap();
    let offline = Offline::new(keys, ISSUER, MESH).with_clock(Arc::new(At(place.world.now())));
    assert!(offline.check_certified(&token, Some(&der)).is_ok(), "a server with the verifier crate lets it in");
    assert_eq!(offline.check_certified(&token, None).unwrap_err(), CertificateRefusal::Missing.into());
    assert!(place.world.verify().problems.is_empty(), "{:?}", place.world.verify());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_certificate_a_task_gets_no_token() {
    if skipped("curl") {
        return;
    }
    let mut place = Place::new().await;
    let task = place.task();
    assert_eq!(why(&place.token(None, &task.handle)), is(400, "E-CERTIFICATE"));
    let own = place.hall.self_signed("own", &task.key);
    assert_eq!(why(&place.token(Some(&own), &task.handle)), is(400, "E-CERTIFICATE"), "its key is not enough");
    let evidence = place.evidence();
    let asked = [EXCHANGE, ("subject_token_type", JWT), ("subject_token", &evidence), ("scope", "serve")];
    assert_eq!(why(&place.hall.post(None, TOKEN, &asked)), is(400, "E-CERTIFICATE"), "nor a new task");
    assert!(place.world.verify().problems.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_task_binds_nothing() {
    if skipped("curl") {
        return;
    }
    let mut place = Place::new().await;
    let (one, other) = (place.task(), place.task());
    for (holder, handle) in [(&one.holder, &other.handle), (&other.holder, &one.handle)] {
        assert_eq!(why(&place.token(Some(holder), handle)), is(400, "E-CERTIFICATE"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_certificate_binds_nothing() {
    if skipped("curl") {
        return;
    }
    let mut place = Place::new().await;
    let task = place.task();
    assert_eq!(place.token(Some(&task.holder), &task.handle).0, 200);
    place.end(&task.lease);
    assert_eq!(why(&place.token(Some(&task.holder), &task.handle)), is(400, "E-CERTIFICATE"));
    let renewed = csr(&task.key);
    let fields = [&fed(&task.handle)[..], &[("requested_token_type", X509), ("csr", &renewed)]].concat();
    let (status, answer) = place.hall.post(None, TOKEN, &fields);
    assert_eq!(status, 200, "{answer}");
    let holder = place.holder(&text(&answer, "access_token"), &task.key);
    assert_eq!(place.token(Some(&holder), &task.handle).0, 200, "a new one of the same key does");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_stays_open_is_judged_anew_each_time() {
    if skipped("curl") {
        return;
    }
    let mut place = Place::new().await;
    // The task lives longer than its certificate.
    let details = json!([{ "type": "dayfly_task", "template": "serve", "ttl": 60 }]).to_string();
    let task = place.task_of(&[("authorization_details", &details)]);
    let (status, answer) = place.token(Some(&task.holder), &task.handle);
    assert_eq!((status, &answer["expires_in"]), (200, &json!(60)), "it outlives no certificate: {answer}");
    place.world.pass_s(61);
    assert_eq!(why(&place.token(Some(&task.holder), &task.handle)), is(400, "E-CERTIFICATE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t_137_a_forged_twin_of_our_certificate_binds_nothing() {
    if skipped("curl") {
        return;
    }
    let mut place = Place::new().await;
    let task = place.task();
    let issuing = place.world.flow.pki().unwrap().active(START).unwrap();
    // The CA's name and key identifier, and another key.
    let twin = Issuer::from_ca_cert_der(issuing.der(), KeyPair::generate().unwrap()).unwrap();
    let ours = chain(&task.pem).remove(0);
    let mut leaf = CertificateParams::default();
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.subject_alt_names = vec![SanType::URI("spiffe://example.org/serve/ci/shop".try_into().unwrap())];
    let serial = x509_parser::parse_x509_certificate(&ours).unwrap().1.raw_serial().to_vec();
    leaf.serial_number = Some(SerialNumber::from_slice(&serial));
    let forged = leaf.signed_by(&task.key, &twin).unwrap();
    let holder = place.holder(&(forged.pem() + &crate::certs::pem(issuing.der())), &task.key);
    assert_eq!(why(&place.token(Some(&holder), &task.handle)), is(400, "E-CERTIFICATE"));
    let mut own = CertificateParams::default();
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    own.serial_number = Some(SerialNumber::from_slice(&serial));
    let itself = own.self_signed(&task.key).unwrap();
    let holder = place.holder(&itself.pem(), &task.key);
    assert_eq!(why(&place.token(Some(&holder), &task.handle)), is(400, "E-CERTIFICATE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_certificate_is_no_evidence() {
    if skipped("curl") {
        return;
    }
    let mut place = Place::new().await;
    let task = place.task();
    let named = URL_SAFE_NO_PAD.encode(&chain(&task.pem)[0]);
    let svid = ("subject_token_type", "urn:dayfly:token-type:x509-svid");
    let asked = [EXCHANGE, svid, ("subject_token", &named), ("scope", "serve")];
    assert_eq!(why(&place.hall.post(Some(&task.holder), TOKEN, &asked)), is(400, "E-OWN"));
    let as_jwt = [EXCHANGE, ("subject_token_type", JWT), ("subject_token", &named), ("scope", "serve")];
    assert_eq!(why(&place.hall.post(Some(&task.holder), TOKEN, &as_jwt)), is(400, "E-SIGNATURE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_and_a_certificate_bind_what_the_target_wants() {
    if skipped("curl") {
        return;
    }
    let mut place = Place::new().await;
    let task = place.task();
    let client = crate::world::new_key();
    let url = format!("{ISSUER}{TOKEN}");
    let rules = ProofRules { method: "POST", url: &url, token: None };
    let iat = place.world.now().as_s();
    let nonce = place.world.flow.proof_nonce();
    let proof = dayfly_verifier::dpop::prove(&client, &rules, Some(&nonce), "one", iat).unwrap();
    let header = ["--header", &format!("DPoP: {proof}")];
    let (status, answer) = place.hall.post_with(Some(&task.holder), TOKEN, &fed(&task.handle), &header);
    assert_eq!(status, 200, "{answer}");
    assert!(claims(&answer)["cnf"].get("x5t#S256").is_some() && claims(&answer)["cnf"].get("jkt").is_none());
    let other = dayfly_verifier::dpop::prove(&client, &rules, Some(&nonce), "two", iat).unwrap();
    let header = ["--header", &format!("DPoP: {other}")];
    let alone = place.hall.post_with(None, TOKEN, &fed(&task.handle), &header);
    assert_eq!(why(&alone), is(400, "E-CERTIFICATE"), "a proof is no certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_is_bound_to_the_key_that_opened_its_task() {
    if skipped("curl") {
        return;
    }
    let mut place = Place::new().await;
    let (first, thief) = (place.task(), place.task());
    let evidence = place.evidence();
    let asked = [EXCHANGE, ("subject_token_type", JWT), ("subject_token", &evidence), ("scope", "deploy")];
    let (status, opened) = place.hall.post(Some(&first.holder), TOKEN, &asked);
    assert_eq!(status, 200, "{opened}");
    assert!(claims(&opened).get("cnf").is_none(), "a token of another task is not bound to it");
    let (handle, id) = (text(&opened, "task_control"), text(&opened, "task_id"));
    let path = format!("/v1/tasks/{id}");

    for holder in [None, Some(&thief.holder)] {
        assert_eq!(why(&place.token(holder, &handle)), is(400, "E-HANDLE"));
        assert_eq!(place.hall.get(holder, &path, &handle).0, 401);
    }
    let (status, shown) = place.hall.get(Some(&first.holder), &path, &handle);
    assert_eq!((status, &shown["bound"]), (200, &json!("x5t")), "{shown}");
    assert_eq!(place.token(Some(&first.holder), &handle).0, 200);
    let own = place.hall.self_signed("own", &first.key);
    assert_eq!(place.token(Some(&own), &handle).0, 200, "it is the key that counts");
    place.end(&first.lease);
    assert_eq!(place.token(Some(&first.holder), &handle).0, 200, "whatever becomes of the certificate");
    assert!(place.world.verify().problems.is_empty(), "{:?}", place.world.verify());

    let evidence = place.evidence();
    let asked = [EXCHANGE, ("subject_token_type", JWT), ("subject_token", &evidence), ("scope", "deploy")];
    let (_, opened) = place.hall.post(Some(&first.holder), TOKEN, &asked);
    let path = format!("/v1/tasks/{}", text(&opened, "task_id"));
    let (status, shown) = place.hall.get(None, &path, &text(&opened, "task_control"));
    assert_eq!((status, &shown["bound"]), (200, &json!("none")), "an ended certificate binds no handle");
    assert_eq!(first.id.len(), opened["task_id"].as_str().unwrap().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_below_the_area_ca_of_before_binds_as_long_as_it_lives() {
    if skipped("curl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = || Folder {
        dir: dir.path().join("pki"),
        seal: Arc::new(SealKey::parse(&std::array::from_fn::<u8, 32, _>(|at| at as u8 + 1)).unwrap()),
        token: None,
    };
    let places = Places { base: "http://pki.example.org".into() };
    let ceremony = Ceremony { trust_domain: "example.org", places: &places, dns: &[], now: START, by: "a test" };
    ceremony.without_root(&folder()).unwrap();
    let pki = Pki::open(folder(), places.clone(), START).unwrap();
    pki.rotate(START).unwrap();
    let mut place = Place::of(World::certified_by(MESH_BUNDLE, pki)).await;
    let task = place.task();

    let (pki, before) = (place.world.flow.pki().unwrap().clone(), place.world.flow.pki().unwrap().area());
    // Another root too: what the old one carries lives on all the same.
    ceremony.without_root(&folder()).unwrap();
    pki.rotate(START.plus_s(1)).unwrap();
    assert_ne!(pki.area().id(), before.id());
    let (status, answer) = place.token(Some(&task.holder), &task.handle);
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_dead_with_the_certificate_that_it_is_bound_to() {
    if skipped("curl") {
        return;
    }
    let mut place = Place::new().await;
    let (task, other) = (place.task(), place.task());
    let [token, others] = [&task, &other].map(|task| {
        let (status, answer) = place.token(Some(&task.holder), &task.handle);
        assert_eq!(status, 200, "{answer}");
        text(&answer, "access_token")
    });
    assert!(place.world.active(&token).await && place.world.active(&others).await);
    place.end(&task.lease);
    assert!(!place.world.active(&token).await, "though its own lease lives");
    assert!(place.world.active(&others).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_takes_the_place_of_no_certificate() {
    if skipped("curl") {
        return;
    }
    let mut place = Place::new().await;
    let task = place.task();
    let asked = [&fed(&task.handle)[..], &[("supersede", "0")]].concat();
    let (first, again) =
        (place.hall.post(Some(&task.holder), TOKEN, &asked), place.hall.post(Some(&task.holder), TOKEN, &asked));
    assert_eq!((first.0, again.0), (200, 200), "{} {}", first.1, again.1);
    place.world.pass_s(1);
    assert!(place.world.active(&task.lease).await, "the certificate lives");
    assert!(!place.world.active(&text(&first.1, "access_token")).await, "the token of before does not");
    assert!(place.world.active(&text(&again.1, "access_token")).await);
}

#[tokio::test]
async fn a_load_changes_no_trust_domain_under_the_authority() {
    let world = World::of(MESH_BUNDLE);
    let other = MESH_BUNDLE.replace("trust_domain = \"example.org\"", "trust_domain = \"example.net\"");
    assert_ne!(other, MESH_BUNDLE);
    world.bundle.set(&other);
    let refused = world.flow.load_bundle("a test").await.unwrap_err();
    assert!(refused.to_string().contains("the trust domain changes with another authority"), "{refused}");
    world.bundle.set(MESH_BUNDLE);
    assert!(world.flow.load_bundle("a test").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_says_that_tokens_are_bound_to_certificates() {
    let place = Place::new().await;
    let (status, metadata) = place.hall.get(None, "/.well-known/oauth-authorization-server", "x");
    assert_eq!((status, &metadata["tls_client_certificate_bound_access_tokens"]), (200, &json!(true)));
    assert!(metadata.get("mtls_endpoint_aliases").is_none(), "it is one listener");
}

#[tokio::test]
async fn a_bound_token_is_nobodys_without_its_certificate() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "watch").await;
    let token = crate::world::token(&issued);
    assert!(matches!(world.caller(&token).await, dayfly::flow::Caller::Token { .. }));
    world.stop().await;
    let print = URL_SAFE_NO_PAD.encode([7; 32]);
    world.sql(&format!("UPDATE lease SET thumbprint = 'x5t:{print}'"));
    world.start_again().unwrap();
    assert!(matches!(world.caller(&token).await, dayfly::flow::Caller::Nobody));
}
