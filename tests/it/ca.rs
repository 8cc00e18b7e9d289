//! The authority as a company runs it: a ceremony, a broker that signs below it, a foreign hand that checks
//! what it signed, keys that leak, files that are put back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use dayfly::{
    flow::EventFilter,
    mint::{
        KeyState,
        pki::{CaId, Ceremony, Folder, Pki, Places, SealKey, Transcript, fingerprint},
    },
    sys::net::Client,
};
use dayfly_domain::{Cause, Reason, State};
use dayfly_verifier::crypto::SigningKey;
use http_body_util::Full;
use hyper::Request;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::{
    certs::{CERT_BUNDLE, JWT, X509, chain, csr, feed, new_key, open, openssl},
    dev::{self, text},
    served::{Authority, Served, send},
    world::{CI, Job, OPERATOR, START, World, handle, lease, local, post_json, reason},
};

const BUNDLE: &str = "format = 1\ntrust_domain = \"example.org\"\n";

/// A folder for one broker, with the seal key and a place for the root that is not the broker's.
struct Company {
    dir: tempfile::TempDir,
}

impl Company {
    fn new() -> Self {
        let company = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(company.path("vault")).unwrap();
        company.secret("seal.key", &"5ea1".repeat(16));
        company.secret("passphrase", "correct horse battery staple\n");
        company
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn secret(&self, name: &str, content: &str) {
        dayfly::sys::files::write_atomic(&self.path(name), content.as_bytes(), 0o600).unwrap();
    }

    fn settings(&self, address: std::net::SocketAddr) -> String {
        let seal = self.path("seal.key");
        format!("[pki]\nurl = 'http://{address}'\nlisten = '{address}'\nseal = 'file:{}'\n", seal.display())
    }

    /// `dayfly ca init` with more arguments.
    fn init(&self, more: &[&str]) -> std::process::Output {
        let passphrase = ["--passphrase-file", "passphrase", "--config", "dayfly.toml"];
        let args = [&["ca", "init"][..], &passphrase, more].concat();
        dev::dayfly(&args).current_dir(self.dir.path()).output().unwrap()
    }
}

fn good(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

fn get(address: std::net::SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let answer = send(&Client::plain(address), Request::get(path).body(Full::default()).unwrap());
    (answer.status, answer.body)
}

/// What `dayfly ca ls` says: id, tier, state.
fn cas(broker: &Served) -> Vec<(String, String, String)> {
    let said = broker.verb(&["ca", "ls", "--config", "dayfly.toml", "--output", "jsonl"]);
    let read = |line: &str| {
        let ca: Value = serde_json::from_str(line).unwrap();
        let member = |name: &str| ca[name].as_str().unwrap().to_owned();
        (member("id"), member("tier"), member("state"))
    };
    said.lines().map(read).collect()
}

fn one(broker: &Served, tier: &str, state: &str) -> String {
    let found = cas(broker).into_iter().find(|(_, its, now)| (its.as_str(), now.as_str()) == (tier, state));
    found.unwrap_or_else(|| panic!("no {tier} CA is {state}: {:?}", cas(broker))).0
}

fn refused_check(work: &Path) -> String {
    let output = dev::dayfly(&["serve", "--check", "--config", "dayfly.toml"]).current_dir(work).output().unwrap();
    assert!(!output.status.success(), "{}", text(&output.stdout));
    text(&output.stderr).to_owned()
}

#[test]
fn a_ceremony_gives_a_broker_cas_that_openssl_accepts_and_a_leaked_one_stays_out() {
    let (company, tls) = (Company::new(), Authority::new());
    let address = crate::served::free_address();
    let mut transcript = String::new();
    let mut broker = Served::first_with(company.dir.path(), &tls, BUNDLE, &company.settings(address), |_| {
        transcript = good(&company.init(&["--root-key", "vault/root.key"]));
        let again = company.init(&["--root-key", "vault/elsewhere.key"]);
        assert_eq!(again.status.code(), Some(2), "another root takes a word: {}", text(&again.stderr));
        let inside = company.init(&["--root-key", "state/root.key"]);
        assert!(!inside.status.success() && text(&inside.stderr).contains("the broker's"), "{}", text(&inside.stderr));
        company.secret("passphrase", "correct horse battery stapler\n");
        let wrong = company.init(&["--root-key", "vault/root.key"]);
        assert!(!wrong.status.success() && text(&wrong.stderr).contains("the passphrase is another"));
        assert!(!text(&wrong.stderr).contains("stapler"), "a passphrase is never said again");
    });

    // What a verifier is given, and what it checks with it.
    for (what, file) in [("root", "root.pem"), ("all", "all.pem")] {
        broker.verb(&["ca", "export", what, "--out", file, "--config", "dayfly.toml"]);
    }
    let issuing = one(&broker, "issuing", "active");
    broker.verb(&["ca", "export", &issuing, "--out", "issuing.pem", "--config", "dayfly.toml"]);
    let at = |name: &str| company.path(name).to_str().unwrap().to_owned();
    let (root, all, leaf) = (at("root.pem"), at("all.pem"), at("issuing.pem"));
    let checked = openssl(&["verify", "-x509_strict", "-check_ss_sig", "-CAfile", &root, "-untrusted", &all, &leaf]);
    assert!(checked.0, "{}", checked.1);
    let der = CertificateDer::from_pem_file(company.path("root.pem")).unwrap();
    assert!(transcript.contains(&fingerprint(&der)), "{transcript}");
    let stranger = Authority::new();
    fs::write(company.path("other.pem"), stranger.pem()).unwrap();
    let other = at("other.pem");
    assert!(!openssl(&["verify", "-CAfile", &other, "-untrusted", &all, &leaf]).0);

    // Without TLS: this, and nothing else.
    let (status, bundle) = get(address, "/spiffe/bundle");
    let bundle: Value = serde_json::from_slice(&bundle).unwrap();
    assert_eq!((status, &bundle["keys"][0]["use"], &bundle["spiffe_sequence"]), (200, &json!("x509-svid"), &json!(1)));
    let (status, served) = get(address, &format!("/pki/{issuing}.cer"));
    assert_eq!((status, served), (200, CertificateDer::from_pem_file(company.path("issuing.pem")).unwrap().to_vec()));
    for path in ["/oauth2/jwks", "/v1/keys", "/healthz", "/metrics", "/pki/none.cer", "/pki/authority.json"] {
        assert_eq!(get(address, path).0, 404, "{path}");
    }

    a_leaked_ca_stays_out(&company, &mut broker, &issuing);
    turns_by_hand(&company, &mut broker);
    what_does_not_open_is_no_start(&company, &mut broker);
}

fn a_leaked_ca_stays_out(company: &Company, broker: &mut Served, issuing: &str) {
    // A leak: the CA is out, and stays out also when its file is put back from before.
    let file = company.path("state/pki/issuing.json");
    let before = fs::read(&file).unwrap();
    let taint = ["ca", "taint", issuing, "--reason", "a backup got out", "--confirm", "--config", "dayfly.toml"];
    broker.verb(&taint);
    let next = one(broker, "issuing", "active");
    assert_ne!(next, issuing);
    broker.restart();
    assert_eq!((one(broker, "issuing", "tainted"), one(broker, "issuing", "active")), (issuing.to_owned(), next));
    broker.stop();
    dayfly::sys::files::write_atomic(&file, &before, 0o600).unwrap();
    broker.restart_after_stop();
    assert_eq!(one(broker, "issuing", "tainted"), issuing, "the ledger knows it");
    assert_ne!(one(broker, "issuing", "active"), issuing);
    // Nor is it off its area CA's list when the file is gone.
    broker.stop();
    fs::remove_file(&file).unwrap();
    broker.restart_after_stop();
    assert_eq!(one(broker, "issuing", "tainted"), issuing, "the store has kept its certificate");
    let turns = broker.verb(&["ledger", "show", "--config", "dayfly.toml", "--output", "jsonl"]);
    let rotated = turns.lines().filter(|line| line.contains("\"key_rotated\"") && line.contains("\"use\":\"ca\""));
    assert!(rotated.count() >= 1, "{turns}");
}

/// What CRLs of this CA list, as everybody fetches them: serial numbers.
fn listed(company: &Company, address: std::net::SocketAddr, ca: &str) -> Vec<Vec<u8>> {
    let (status, pems) = get(address, "/pki/bundle.crl");
    assert_eq!(status, 200);
    fs::write(company.path("bundle.crl"), &pems).unwrap();
    let ders = rustls_pki_types::CertificateRevocationListDer::pem_slice_iter(&pems).map(Result::unwrap);
    let of_ca = |der: &[u8]| {
        let (_, read) = CertificateRevocationList::from_der(der).unwrap();
        let own = read.extensions().iter().any(|extension| contains(extension.value, ca));
        own.then(|| read.iter_revoked_certificates().map(|one| one.raw_serial().to_vec()).collect::<Vec<_>>())
    };
    ders.filter_map(|der| of_ca(&der)).flatten().collect()
}

/// What a ceremony made is fetched within a second.
fn until_listed(company: &Company, address: std::net::SocketAddr, ca: &str, expected: &[Vec<u8>]) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let found = listed(company, address, ca);
        if found.len() == expected.len() && expected.iter().all(|serial| found.contains(serial)) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{found:?} is listed, and not {expected:?}");
    }
}

/// Whether these octets have the key identifier in them.
fn contains(octets: &[u8], id: &str) -> bool {
    octets.windows(id.len() / 2).any(|part| part.iter().map(|octet| format!("{octet:02x}")).collect::<String>() == id)
}

fn serial(address: std::net::SocketAddr, ca: &str) -> Vec<u8> {
    let (status, der) = get(address, &format!("/pki/{ca}.cer"));
    assert_eq!(status, 200);
    X509Certificate::from_der(&der).unwrap().1.raw_serial().to_vec()
}

/// RUNBOOK, "The folder got out", step by step.
#[test]
fn a_stolen_folder_is_answered_as_the_runbook_says() {
    let (company, tls) = (Company::new(), Authority::new());
    let address = crate::served::free_address();
    let mut broker = Served::first_with(company.dir.path(), &tls, BUNDLE, &company.settings(address), |_| {
        good(&company.init(&["--root-key", "vault/root.key"]));
    });
    let (root, stolen, issuing) =
        (one(&broker, "root", "active"), one(&broker, "area", "active"), one(&broker, "issuing", "active"));
    let mut out = vec![serial(address, &stolen)];
    // 1. What was signed below it ends.
    good(&company.init(&["--root-key", "vault/root.key", "--revoke", &stolen]));
    broker.verb(&["ca", "rotate", "--config", "dayfly.toml"]);
    assert_eq!(
        (one(&broker, "area", "tainted"), one(&broker, "issuing", "tainted")),
        (stolen.clone(), issuing.clone())
    );
    let events = broker.verb(&["ledger", "show", "--config", "dayfly.toml", "--output", "jsonl"]);
    let tainted = events.lines().find(|line| line.contains("\"key_tainted\"")).unwrap();
    assert!(tainted.contains("\"ceremony\"") && tainted.contains(&issuing), "{tainted}");
    until_listed(&company, address, &root, &out);
    // 2. Another seal key, and an empty folder: what is below the area CA of between goes too.
    let between = one(&broker, "area", "active");
    out.push(serial(address, &between));
    two_brokers_do_not_share_an_authority(&company, &mut broker);
    fs::rename(company.path("state/pki"), company.path("stolen")).unwrap();
    company.secret("seal.key", &"5ea3".repeat(16));
    let said = good(&company.init(&["--root-key", "vault/root.key", "--revoke", &between]));
    assert!(said.contains("lists   2"), "{said}");
    broker.restart_after_stop();
    until_listed(&company, address, &root, &out);
    assert_eq!(one(&broker, "issuing", "tainted"), issuing, "of those with leases the store knows");
    assert_eq!(one(&broker, "root", "active"), root);
    // A root that leaked is given out no more.
    let last = one(&broker, "area", "active");
    let other = company.init(&["--root-key", "vault/new.key", "--new-root", "--revoke", &last]);
    assert!(!other.status.success() && text(&other.stderr).contains(&root), "{}", text(&other.stderr));
    good(&company.init(&["--root-key", "vault/new.key", "--new-root", "--revoke", &root]));
    broker.verb(&["ca", "rotate", "--config", "dayfly.toml"]);
    assert_ne!(one(&broker, "root", "active"), root);
    assert_eq!(cas(&broker).iter().filter(|(_, tier, _)| tier == "root").count(), 1);
}

fn two_brokers_do_not_share_an_authority(company: &Company, broker: &mut Served) {
    let lock = company.path("state/pki/broker.lock");
    let taken = dayfly::sys::files::lock(&lock).map(drop);
    assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the broker has it");
    broker.stop();
    let _other = dayfly::sys::files::lock(&lock).unwrap();
    let output = dev::dayfly(&["serve", "--config", "dayfly.toml"]).current_dir(company.dir.path()).output().unwrap();
    assert!(!output.status.success() && text(&output.stderr).contains("another broker holds"), "{output:?}");
}

fn turns_by_hand(company: &Company, broker: &mut Served) {
    // By hand, and at another ceremony.
    let signs = one(broker, "issuing", "active");
    broker.verb(&["ca", "rotate", "--config", "dayfly.toml"]);
    assert_eq!(one(broker, "issuing", "retired"), signs);
    let area = one(broker, "area", "active");
    company.secret("passphrase", "correct horse battery staple\n");
    good(&company.init(&["--root-key", "vault/root.key", "--revoke", &area]));
    broker.restart();
    assert_eq!(one(broker, "area", "tainted"), area);
}

fn what_does_not_open_is_no_start(company: &Company, broker: &mut Served) {
    // What does not open is no start.
    broker.stop();
    let seal = fs::read_to_string(company.path("seal.key")).unwrap();
    company.secret("seal.key", &"5ea2".repeat(16));
    assert!(refused_check(company.dir.path()).contains("the seal does not open"));
    company.secret("seal.key", &seal);
    dayfly::sys::files::set_mode(&company.path("seal.key"), 0o644).unwrap();
    assert!(refused_check(company.dir.path()).contains("chmod 0600"), "a_seal_key_that_others_may_read_is_refused");
    company.secret("seal.key", &seal);
    let authority = company.path("state/pki/authority.json");
    let whole = fs::read(&authority).unwrap();
    dayfly::sys::files::write_atomic(&authority, &whole[..whole.len() / 2], 0o600).unwrap();
    assert!(refused_check(company.dir.path()).contains("is not what the ceremony"));
    fs::remove_file(&authority).unwrap();
    assert!(refused_check(company.dir.path()).contains("there is no authority yet"));
    for secret in ["root.key", "passphrase"] {
        let known = fs::read_to_string(company.path("broker.said")).unwrap();
        assert!(!known.contains("staple") && !known.contains(&seal), "{secret}");
    }
}

/// A job of the stand-in CI, as its token says it now; and who signs it.
fn evidence(key: &SigningKey, broker: &Served, run: u32) -> String {
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": CI, "aud": broker.issuer, "iat": now_s, "exp": now_s + 600, "jti": format!("jti-{run}"),
        "sub": "shop", "org": "acme", "event": "push",
    });
    key.sign("JWT", &claims).unwrap()
}

#[test]
fn t_134_issuing_goes_on_and_every_turn_is_on_record_while_the_authoritys_file_is_broken() {
    let (company, tls, key) = (Company::new(), Authority::new(), crate::world::new_key());
    let address = crate::served::free_address();
    let broker = Served::first_with(company.dir.path(), &tls, CERT_BUNDLE, &company.settings(address), |work| {
        fs::write(work.join("bundle/ci.json"), json!({ "keys": [key.jwk()] }).to_string()).unwrap();
        good(&company.init(&["--root-key", "vault/root.key"]));
    });
    let mut runs = 0..;
    let mut issuer = || {
        let (evidence, request) = (evidence(&key, &broker, runs.next().unwrap()), csr(&new_key()));
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token_type", JWT),
            ("subject_token", &evidence),
            ("requested_token_type", X509),
            ("csr", &request),
            ("scope", "migrate"),
        ];
        let (status, answer) = broker.post("/oauth2/token", &fields);
        assert_eq!(status, 200, "{answer}");
        let signer = chain(answer["access_token"].as_str().unwrap()).remove(1);
        CaId::of_certificate(&signer).unwrap().to_string()
    };
    let first = one(&broker, "issuing", "active");
    assert_eq!(issuer(), first);
    let file = company.path("state/pki/authority.json");
    let whole = fs::read(&file).unwrap();
    let mut bent = whole.clone();
    let place = bent.len() / 2;
    bent[place] = if bent[place] == b'A' { b'B' } else { b'A' };
    let mut signs = first;
    for broken in [b"{}".to_vec(), whole[..whole.len() / 2].to_vec(), bent, Vec::new(), whole.clone()] {
        dayfly::sys::files::write_atomic(&file, &broken, 0o600).unwrap();
        assert_eq!((one(&broker, "issuing", "active"), issuer()), (signs.clone(), signs.clone()));
        // Made under the area CA that the broker holds, whatever lies in the file.
        let turn = broker.verb(&["ca", "rotate", "--config", "dayfly.toml", "--output", "json"]);
        let turn: Value = serde_json::from_str(&turn).unwrap();
        assert_eq!((&turn["from"], &turn["to"]), (&json!(signs), &json!(issuer())));
        turn["to"].as_str().unwrap().clone_into(&mut signs);
        let events = broker.verb(&["ledger", "show", "--config", "dayfly.toml", "--output", "jsonl"]);
        assert!(events.lines().any(|line| line.contains("\"key_rotated\"") && line.contains(&signs)), "{events}");
    }
}

#[tokio::test]
async fn what_a_tainted_ca_signed_is_dead_and_its_task_gets_a_certificate_of_another() {
    let mut world = World::of(CERT_BUNDLE);
    let first = open(&mut world, &Job::shop(), "migrate", &csr(&new_key())).await.unwrap();
    let pki = world.flow.pki().unwrap().clone();
    let leaked = pki.active_id().unwrap().to_string();
    let body = json!({ "reason": "it was in a backup" });
    let answer = world.call(local(post_json(&format!("/v1/keys/{leaked}/taint"), None, &body))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let told = answer.json();
    assert_eq!((&told["state"], &told["was"], &told["leases_ended"]), (&json!("tainted"), &json!("active"), &json!(1)));
    assert_eq!(told["signs"], json!(pki.active_id().unwrap().as_str()));
    let signs = || pki.active_id().unwrap().to_string();
    let view = world.flow.lease(&OPERATOR, lease(&first)).await.unwrap();
    assert_eq!((view.state, view.cause), (State::Ended, Some(Cause::KeyTainted)));
    let again = feed(&world, &handle(&first), None, &csr(&new_key())).await.unwrap();
    let view = world.flow.lease(&OPERATOR, lease(&again)).await.unwrap();
    assert_eq!((view.state, view.row.kid), (State::Active, Some(pki.active_id().unwrap().to_string())));
    assert_eq!(pki.state(&leaked), Some(KeyState::Tainted));
    assert_eq!(pki.revoked()[0].id.as_str(), leaked, "its area CA's CRL lists it");
    let events = world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items;
    let of = |kind: &str| {
        events.iter().filter(|event| event.body["type"] == kind).map(|event| &event.body).collect::<Vec<_>>()
    };
    assert_eq!(of("key_tainted").len(), 1);
    assert!(of("key_tainted")[0].get("kid").is_none(), "none was ready to sign");
    let rotated: Vec<_> = of("key_rotated").into_iter().filter(|body| body["kid"] == signs()).collect();
    assert!(rotated.len() == 1 && rotated[0].get("previous_kid").is_none(), "{rotated:?}");
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
}

fn sealed(dir: &Path) -> Folder {
    let seal = SealKey::parse(&std::array::from_fn::<u8, 32, _>(|at| at as u8 + 1)).unwrap();
    Folder { dir: dir.join("pki"), seal: std::sync::Arc::new(seal), token: None }
}

/// Whoever checks such a chain refuses it, so it is not made, and operators are told of it beforehand.
#[tokio::test]
async fn a_name_outside_the_area_cas_constraint_gets_no_certificate() {
    let below = |dns: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let folder = sealed(dir.path());
        let places = Places { base: "http://pki.example.org".into() };
        let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        let ceremony = Ceremony { trust_domain: "example.org", places: &places, dns: &dns, now: START, by: "a test" };
        ceremony.without_root(&folder).unwrap();
        let pki = Pki::open(folder, places, START).unwrap();
        pki.rotate(START).unwrap();
        (dir, World::certified_by(CERT_BUNDLE, pki))
    };
    let told = |world: &World| {
        world
            .flow
            .warnings()
            .into_iter()
            .filter(|line| line.contains("task `serve` gets no certificate, for `api`"))
            .count()
    };
    let (_dir, mut world) = below(&["example.org"]);
    let refused = open(&mut world, &Job::shop(), "serve", &csr(&new_key())).await;
    assert_eq!(reason(refused), Reason::Key, "`api` is below nothing that is permitted");
    assert_eq!((told(&world), world.flow.readiness()), (1, Ok(())));
    open(&mut world, &Job::shop(), "migrate", &csr(&new_key())).await.expect("who serves nothing has no such name");
    let (_dir, mut world) = below(&["example.org", "api"]);
    open(&mut world, &Job::shop(), "serve", &csr(&new_key())).await.unwrap();
    assert_eq!(told(&world), 0);
}

#[tokio::test]
async fn what_was_signed_below_a_revoked_area_ca_ends() {
    let dir = tempfile::tempdir().unwrap();
    let folder = sealed(dir.path());
    let places = Places { base: "http://pki.example.org".into() };
    let ceremony = Ceremony { trust_domain: "example.org", places: &places, dns: &[], now: START, by: "a test" };
    let mut told = Transcript::default();
    let root = ceremony.make_root(&dir.path().join("root"), "correct horse battery", &mut told).unwrap();
    ceremony.make_area(&folder, &root, &[], &mut told).unwrap();
    let pki = Pki::open(folder.clone(), places.clone(), START).unwrap();
    pki.rotate(START).unwrap();
    let mut world = World::certified_by(CERT_BUNDLE, pki);
    let first = open(&mut world, &Job::shop(), "migrate", &csr(&new_key())).await.unwrap();
    let pki = world.flow.pki().unwrap().clone();
    let (area, issuing) = (pki.area().id().clone(), pki.active_id().unwrap());

    ceremony.make_area(&folder, &root, std::slice::from_ref(&area), &mut told).unwrap();
    world.upkeep.each_minute().await;
    let view = world.flow.lease(&OPERATOR, lease(&first)).await.unwrap();
    assert_eq!((view.state, view.cause), (State::Ended, Some(Cause::KeyTainted)));
    let out = pki.revoked();
    assert_eq!((&out[0].id, &out[0].issuer), (&issuing, &area));
    let again = feed(&world, &handle(&first), None, &csr(&new_key())).await.unwrap();
    world.upkeep.each_minute().await;
    assert_eq!(world.flow.lease(&OPERATOR, lease(&again)).await.unwrap().state, State::Active);
    let events = world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items;
    let tainted: Vec<_> = events.iter().filter(|event| event.body["type"] == "key_tainted").collect();
    let actor = tainted[0].details.as_ref().map(|details| &details["actor"]);
    assert_eq!((tainted.len(), actor), (1, Some(&json!("ceremony"))));
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
}

#[tokio::test]
async fn an_authority_that_is_over_takes_no_token_away() {
    let world = World::of(CERT_BUNDLE);
    world.pass_s(91 * 86_400);
    world.upkeep.each_minute().await;
    assert!(!world.flow.pki_health().unwrap().faults.is_empty());
    assert_eq!(world.flow.readiness(), Ok(()), "a balancer would take away tokens and introspection too");
    let told = world.flow.warnings();
    assert!(told.iter().any(|line| line.starts_with("pki: the area CA") && line.contains("was over")), "{told:?}");
}

#[tokio::test]
async fn a_turn_whose_caller_leaves_is_on_the_record() {
    use std::{future::poll_fn, task::Poll};
    let world = World::of(CERT_BUNDLE);
    let pki = world.flow.pki().unwrap().clone();
    let (flow, before) = (world.flow.clone(), pki.active_id());
    let mut turn = Box::pin(flow.rotate_ca(&OPERATOR));
    while pki.active_id() == before {
        poll_fn(|context| Poll::Ready(turn.as_mut().poll(context).is_ready())).await;
        tokio::task::yield_now().await;
    }
    drop(turn);
    let rotated = async || {
        let events = world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items;
        let now = pki.active_id().unwrap().to_string();
        events.iter().any(|event| event.body["type"] == "key_rotated" && json!(event.body).to_string().contains(&now))
    };
    let told = async {
        while !rotated().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), told).await.expect("the event is written");
}
