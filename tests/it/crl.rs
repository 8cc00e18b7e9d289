//! Certificates that ended before their time: what CRLs, OCSP and introspection say of them, held against
//! each other and against the real `openssl` at every step.

use std::{fs, path::PathBuf};

use axum::{
    body::Body,
    http::{HeaderMap, Request},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use dayfly::{flow::Issued, mint::pki::Ca};
use dayfly_domain::{Cause, Channel, Kind, LeaseId, Reason};
use serde_json::json;
use tempfile::TempDir;
use tower::ServiceExt;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::{
    certs::{CERT_BUNDLE, DB_URI, NAME, chain, csr, feed, new_key, open, openssl, pem},
    world::{Job, OPERATOR, START, World, form, get, handle, lease, local, post_json, reason, secret, sha256, token},
};

fn world() -> World {
    World::of(CERT_BUNDLE)
}

async fn migrate(world: &mut World) -> Issued {
    open(world, &Job::shop(), "migrate", &csr(&new_key())).await.unwrap()
}

/// What a fetch gives: not everything is text.
pub struct Fetched {
    pub status: u16,
    headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Fetched {
    fn head(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub async fn fetch(world: &World, request: Request<Body>) -> Fetched {
    let (parts, body) = world.door().oneshot(request).await.unwrap().into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 22).await.unwrap().to_vec();
    Fetched { status: parts.status.as_u16(), headers: parts.headers, bytes }
}

pub fn issuing(world: &World) -> std::sync::Arc<Ca> {
    world.flow.pki().unwrap().active(world.now()).unwrap()
}

/// Where the certificate says that its CRL is.
pub fn crl_path(leaf: &[u8]) -> String {
    let (_, read) = X509Certificate::from_der(leaf).unwrap();
    let text = String::from_utf8_lossy(read.as_raw()).into_owned();
    let from = text.find("http://pki.example.org/pki/").unwrap() + "http://pki.example.org".len();
    text[from..from + text[from..].find(".crl").unwrap() + 4].to_owned()
}

/// Serial numbers and reasons on the CRL that a certificate names, fetched now, and its number.
async fn listed(world: &World, leaf: &[u8]) -> (Vec<(LeaseId, u8)>, u64) {
    let fetched = fetch(world, get(&crl_path(leaf), None)).await;
    assert_eq!((fetched.status, fetched.head("content-type")), (200, "application/pkix-crl"));
    let (rest, list) = CertificateRevocationList::from_der(&fetched.bytes).unwrap();
    assert!(rest.is_empty());
    let number = list.crl_number().unwrap().iter_u64_digits().next().unwrap();
    let entry = |entry: &x509_parser::revocation_list::RevokedCertificate<'_>| {
        let serial: [u8; 16] = entry.raw_serial().try_into().unwrap();
        (LeaseId::from_u128(u128::from_be_bytes(serial)), entry.reason_code().unwrap().1.0)
    };
    (list.iter_revoked_certificates().map(entry).collect(), number)
}

/// A peer that has a chain and the root, and the real `openssl`.
pub struct Peer {
    folder: TempDir,
}

impl Peer {
    pub fn new(world: &World, chain_pem: &str) -> Self {
        let peer = Self { folder: tempfile::tempdir().unwrap() };
        let ders = chain(chain_pem);
        peer.keep("leaf.pem", pem(&ders[0]).as_bytes());
        peer.keep("issuing.pem", pem(&ders[1]).as_bytes());
        peer.keep("above.pem", ders[1..].iter().map(|der| pem(der)).collect::<String>().as_bytes());
        peer.keep("root.pem", pem(&world.flow.pki().unwrap().root()).as_bytes());
        peer
    }

    fn at(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    fn keep(&self, name: &str, bytes: &[u8]) {
        fs::write(self.at(name), bytes).unwrap();
    }

    /// `openssl verify` with a CRL for every level, fetched now.
    pub async fn verifies(&self, world: &World) -> (bool, String) {
        let bundle = fetch(world, get("/pki/bundle.crl", None)).await;
        assert_eq!(bundle.status, 200);
        self.keep("bundle.crl", &bundle.bytes);
        let [root, above, crl, leaf] = ["root.pem", "above.pem", "bundle.crl", "leaf.pem"].map(|name| self.at(name));
        let moment = world.now().as_s().to_string();
        let fixed = ["verify", "-x509_strict", "-crl_check_all", "-attime", &moment, "-CAfile", &root];
        openssl(&[&fixed[..], &["-untrusted", &above, "-CRLfile", &crl, &leaf]].concat())
    }

    /// `openssl ocsp`: makes the request, and checks the answer that the broker gave to it.
    pub async fn asks(&self, world: &World, more: &[&str]) -> String {
        let [issuer, leaf, request] = ["issuing.pem", "leaf.pem", "ask.der"].map(|name| self.at(name));
        let made = openssl(&[&["ocsp"], more, &["-issuer", &issuer, "-cert", &leaf, "-reqout", &request]].concat());
        assert!(made.0, "{}", made.1);
        let answer = fetch(world, ocsp_post(fs::read(&request).unwrap())).await;
        assert_eq!((answer.status, answer.head("content-type")), (200, "application/ocsp-response"));
        self.keep("answer.der", &answer.bytes);
        let [root, above, reply] = ["root.pem", "above.pem", "answer.der"].map(|name| self.at(name));
        let moment = world.now().as_s().to_string();
        let signed = ["-CAfile", &root, "-verify_other", &above, "-attime", &moment, "-validity_period", "400000000"];
        // Otherwise it adds a nonce of its own to the request that it compares with.
        let hash = more.iter().find(|option| **option == "-sha256").unwrap_or(&"-sha1");
        let read =
            ["ocsp", hash, "-no_nonce", "-reqin", &request, "-respin", &reply, "-issuer", &issuer, "-cert", &leaf];
        let (content, said) = openssl(&[&read[..], &signed].concat());
        assert!(content && said.contains("Response verify OK"), "{said}");
        said.replace(&leaf, "leaf")
    }
}

fn ocsp_post(der: Vec<u8>) -> Request<Body> {
    let request = Request::post("/pki/ocsp").header("content-type", "application/ocsp-request");
    request.body(Body::from(der)).unwrap()
}

/// What everybody says of a certificate, a second after the last change: all of them the same.
pub async fn revoked_as(world: &World, issued: &Issued) -> Option<u8> {
    world.pass_s(1);
    let credential = token(issued);
    let leaf = &chain(&credential)[0];
    let peer = Peer::new(world, &credential);
    let entry = listed(world, leaf).await.0.into_iter().find(|(id, _)| *id == lease(issued)).map(|(_, why)| why);
    let (accepted, said) = peer.verifies(world).await;
    assert_eq!(accepted, entry.is_none(), "{said}");
    assert!(accepted || said.contains("certificate revoked"), "{said}");
    let asked = peer.asks(world, &[]).await;
    assert_eq!(asked.contains("leaf: good"), entry.is_none(), "{asked}");
    assert_eq!(asked.contains("leaf: revoked"), entry.is_some(), "{asked}");
    for named in [credential.clone(), STANDARD.encode(leaf), lease(issued).to_string()] {
        assert_eq!(world.active(&named).await, entry.is_none());
    }
    if let Some(why) = entry {
        let name = match why {
            1 => "keyCompromise",
            4 => "superseded",
            5 => "cessationOfOperation",
            // This `openssl` has no word for `privilegeWithdrawn` here.
            _ => "(UNKNOWN)",
        };
        assert!(asked.contains(&format!("Reason: {name}")), "{asked}");
    }
    entry
}

#[tokio::test]
async fn a_certificate_that_ended_is_refused_by_openssl_and_everybody_says_why() {
    let mut world = world();
    let issued = migrate(&mut world).await;
    assert_eq!(revoked_as(&world, &issued).await, None);
    world.flow.end_lease(&OPERATOR, lease(&issued), Some("leaked".into())).await.unwrap();
    assert_eq!(revoked_as(&world, &issued).await, Some(9));

    let done = migrate(&mut world).await;
    world.end(&handle(&done), done.task).await.unwrap();
    assert_eq!(revoked_as(&world, &done).await, Some(5));

    let filter = json!({ "filter": { "target": "db" }, "reason": "breach", "expected_count": 1 });
    let swept = migrate(&mut world).await;
    let answer = world.call(local(post_json("/v1/end", None, &filter))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(revoked_as(&world, &swept).await, Some(9));
}

#[tokio::test]
async fn what_a_renewal_replaced_is_revoked_when_that_is_due() {
    let mut world = world();
    let first = migrate(&mut world).await;
    let second = feed(&world, &handle(&first), Some(30), &csr(&new_key())).await.unwrap();
    world.pass_s(28);
    assert_eq!(revoked_as(&world, &first).await, None, "for a second more");
    assert_eq!(revoked_as(&world, &first).await, Some(4));
    assert_eq!(revoked_as(&world, &second).await, None);
}

#[tokio::test]
async fn a_bundle_that_no_longer_carries_it_revokes_a_certificate() {
    let mut world = world();
    let issued = migrate(&mut world).await;
    world.bundle.edit("[task.migrate]", "[task.migrate]\ndisabled = true");
    world.flow.load_bundle("local:0").await.unwrap();
    let gone = revoked_as(&world, &issued).await;
    let cause = world.flow.lease(&OPERATOR, lease(&issued)).await.unwrap().cause;
    assert_eq!((gone, cause), (Some(9), Some(Cause::Policy)));
}

#[tokio::test]
async fn t_108_the_answer_to_an_end_says_when_servers_that_go_by_crls_know() {
    let mut world = world();
    let (one, other) = (migrate(&mut world).await, migrate(&mut world).await);
    let promised = &one.credential.as_ref().unwrap().revocation;
    assert_eq!((promised[0].channel, promised[0].usual_s, promised[0].bound_s), (Channel::Crl, 16, 630));
    let channel = async |world: &World, issued: &Issued| {
        world.flow.end_lease(&OPERATOR, lease(issued), None).await.unwrap().channels[0]
    };
    let leaf = chain(&token(&one))[0].clone();
    let known = channel(&world, &one).await;
    assert_eq!((known.channel, known.known, known.worst_case_at), (Channel::Crl, true, START.plus_s(630)));
    assert_eq!(listed(&world, &leaf).await.0.len(), 1, "and so it is");
    assert!(!channel(&world, &other).await.known, "this second's list is out");
    assert_eq!(listed(&world, &leaf).await.0.len(), 1, "and without it");
    world.pass_s(1);
    assert!(channel(&world, &other).await.known, "asked again");
    assert_eq!(listed(&world, &leaf).await.0.len(), 2);
}

#[tokio::test]
async fn lists_go_on_after_a_restart_with_greater_numbers() {
    let mut world = World::on_file_with(CERT_BUNDLE, "");
    let (ended, expired, live) = (migrate(&mut world).await, migrate(&mut world).await, migrate(&mut world).await);
    let leaf = chain(&token(&live))[0].clone();
    world.flow.end_lease(&OPERATOR, lease(&ended), None).await.unwrap();
    world.flow.end_lease(&OPERATOR, lease(&expired), None).await.unwrap();
    let (before, number) = listed(&world, &leaf).await;
    world.restart().await;
    let (after, next) = listed(&world, &leaf).await;
    assert!(before == after && next > number, "{number} {next}");
    assert_eq!(revoked_as(&world, &ended).await, Some(9));
    assert_eq!(revoked_as(&world, &live).await, None);

    world.flow.end_lease(&OPERATOR, lease(&live), None).await.unwrap();
    world.stop().await;
    world.pass_s(900);
    world.start_again().unwrap();
    assert_eq!(listed(&world, &leaf).await.0.len(), 3, "expired while nobody made a list: on one more");
    world.pass_s(60);
    assert_eq!(listed(&world, &leaf).await.0.len(), 3, "the first whose `thisUpdate` lies after");
    world.pass_s(60);
    let (none, last) = listed(&world, &leaf).await;
    assert!(none.is_empty() && last > next);
}

#[tokio::test]
async fn a_list_is_kept_by_caches_and_made_anew_each_minute() {
    let mut world = world();
    let issued = migrate(&mut world).await;
    let path = crl_path(&chain(&token(&issued))[0]);
    let first = fetch(&world, get(&path, None)).await;
    assert_eq!(first.head("cache-control"), "public, max-age=15");
    let again = Request::get(&path).header("if-none-match", first.head("etag")).body(Body::empty()).unwrap();
    let again = fetch(&world, again).await;
    assert_eq!((again.status, again.bytes.len()), (304, 0));
    world.pass_s(59);
    assert_eq!(fetch(&world, get(&path, None)).await.bytes, first.bytes);
    world.pass_s(1);
    assert_ne!(fetch(&world, get(&path, None)).await.bytes, first.bytes);
    let ca = issuing(&world);
    for path in [
        format!("/pki/{}/1.crl", ca.id()),
        format!("/pki/{}/00.crl", ca.id()),
        format!("/pki/{}/0.der", ca.id()),
        format!("/pki/{}/0.crl", ca.id().as_str().to_uppercase()),
        "/pki/00/0.crl".to_owned(),
    ] {
        assert_eq!(fetch(&world, get(&path, None)).await.status, 404, "{path}");
    }
    assert_eq!(fetch(&world, get(&format!("{path}?at=1"), None)).await.status, 400);
    for level in [world.flow.pki().unwrap().area().id().to_string(), root_id(&world)] {
        assert_eq!(fetch(&world, get(&format!("/pki/{level}/0.crl"), None)).await.status, 200, "{level}");
    }
    let bundle = fetch(&world, get("/pki/bundle.crl", None)).await;
    assert_eq!(String::from_utf8(bundle.bytes).unwrap().matches("BEGIN X509 CRL").count(), 3);
}

fn root_id(world: &World) -> String {
    dayfly::mint::pki::CaId::of_certificate(&world.flow.pki().unwrap().root()).unwrap().to_string()
}

/// The area CA's list has it for as long as it would have been valid, and is then quiet again.
#[tokio::test]
async fn a_tainted_ca_that_is_over_is_not_listed_anew_each_second() {
    let world = world();
    let pki = world.flow.pki().unwrap().clone();
    let gone = issuing(&world);
    world.flow.taint_key(&OPERATOR, gone.id().as_str(), None, false).await.unwrap();
    let path = format!("/pki/{}/0.crl", pki.area().id());
    let entries = async || {
        let fetched = fetch(&world, get(&path, None)).await;
        let (_, list) = CertificateRevocationList::from_der(&fetched.bytes).unwrap();
        (list.iter_revoked_certificates().count(), fetched.head("etag").to_owned())
    };
    world.pass_s(2);
    let (count, first) = entries().await;
    world.pass_s(2);
    assert_eq!((count, entries().await.1), (1, first), "nothing is new");
    let left = gone.not_after().as_s() - world.now().as_s();
    world.pass_s(left + 120);
    entries().await;
    world.pass_s(61);
    let (count, last) = entries().await;
    assert_eq!(count, 0);
    world.pass_s(2);
    assert_eq!(entries().await, (0, last));
}

#[tokio::test]
async fn openssl_reads_our_crl_and_finds_it_signed() {
    let mut world = world();
    let issued = migrate(&mut world).await;
    world.flow.end_lease(&OPERATOR, lease(&issued), None).await.unwrap();
    let peer = Peer::new(&world, &token(&issued));
    let path = crl_path(&chain(&token(&issued))[0]);
    peer.keep("one.crl", &fetch(&world, get(&path, None)).await.bytes);
    let (one, above) = (peer.at("one.crl"), peer.at("above.pem"));
    let (content, said) =
        openssl(&["crl", "-inform", "DER", "-in", &one, "-noout", "-text", "-verify", "-CAfile", &above]);
    assert!(content && said.contains("verify OK"), "{said}");
    for part in ["Version 2 (0x1)", "X509v3 Issuing Distribution Point: critical", "Privilege Withdrawn", &path] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let serial = format!("{:032X}", lease(&issued).as_u128());
    assert!(said.contains(&serial), "{serial}: {said}");
}

#[tokio::test]
async fn an_ocsp_answer_is_kept_by_caches_unless_it_has_a_nonce() {
    let mut world = world();
    let issued = migrate(&mut world).await;
    let peer = Peer::new(&world, &token(&issued));
    assert!(peer.asks(&world, &["-sha256"]).await.contains("leaf: good"));
    let with_nonce = fetch(&world, ocsp_post(fs::read(peer.at("ask.der")).unwrap())).await;
    assert_eq!((with_nonce.head("cache-control"), with_nonce.head("etag")), ("no-store", ""));
    assert!(peer.asks(&world, &["-no_nonce"]).await.contains("leaf: good"));
    let der = fs::read(peer.at("ask.der")).unwrap();
    let text = STANDARD.encode(&der);
    let escaped = text.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    for path in [format!("/pki/ocsp/{escaped}"), format!("/pki/ocsp/{}", text.replace('=', ""))] {
        let answer = fetch(&world, get(&path, None)).await;
        assert_eq!((answer.status, answer.head("content-type")), (200, "application/ocsp-response"), "{path}");
        assert_eq!(answer.head("cache-control"), "max-age=15, public, no-transform, must-revalidate");
        assert_eq!(answer.head("last-modified"), "Fri, 15 Jan 2027 07:59:00 GMT");
        assert_eq!(answer.head("expires"), "Fri, 15 Jan 2027 08:05:00 GMT");
        assert!(!answer.head("etag").is_empty() && answer.bytes[..2] == [0x30, 0x82]);
    }
}

#[tokio::test]
async fn t_143_a_serial_that_was_never_issued_is_unknown_and_not_good() {
    let mut world = world();
    let issued = migrate(&mut world).await;
    let peer = Peer::new(&world, &token(&issued));
    let asks = async |serial: u128, issuer: &str, more: &[&str]| {
        let (request, number, issuer) = (peer.at("odd.der"), format!("0x{serial:032x}"), peer.at(issuer));
        let more = more.iter().map(|name| peer.at(name)).collect::<Vec<_>>();
        let mut arguments = vec!["ocsp", "-issuer", &issuer, "-serial", &number, "-reqout", &request];
        more.iter().for_each(|leaf| arguments.extend(["-cert", leaf]));
        assert!(openssl(&arguments).0);
        fetch(&world, ocsp_post(fs::read(&request).unwrap())).await.bytes
    };
    let said = |answer: &[u8]| {
        peer.keep("odd.answer", answer);
        openssl(&["ocsp", "-respin", &peer.at("odd.answer"), "-noverify", "-resp_text"]).1
    };
    let own = lease(&issued).as_u128();
    assert!(said(&asks(own, "issuing.pem", &[]).await).contains("Cert Status: good"));
    for never in [own ^ 1, own ^ (1 << 120), 5, u128::MAX >> 1] {
        let said = said(&asks(never, "issuing.pem", &[]).await);
        assert!(said.contains("Cert Status: unknown") && !said.contains("good"), "{said}");
    }
    let both = said(&asks(own ^ 1, "issuing.pem", &["leaf.pem"]).await);
    assert!(both.contains("Cert Status: unknown") && both.contains("Cert Status: good"), "{both}");
    let area_serial = u128::from_be_bytes(issuing(&world).serial().unwrap().try_into().unwrap());
    peer.keep("area.pem", pem(world.flow.pki().unwrap().area().der()).as_bytes());
    assert!(said(&asks(area_serial, "area.pem", &[]).await).contains("Cert Status: good"), "an issuing CA");
    assert!(said(&asks(own, "area.pem", &[]).await).contains("Cert Status: unknown"));
    let stranger = rcgen::generate_simple_self_signed(["stranger".to_owned()]).unwrap();
    peer.keep("stranger.pem", stranger.cert.pem().as_bytes());
    assert_eq!(asks(own, "stranger.pem", &[]).await, [0x30, 3, 0x0a, 1, 6], "unauthorized");
    assert_eq!(asks(own, "root.pem", &[]).await, [0x30, 3, 0x0a, 1, 6], "the root answers nothing here");
}

#[tokio::test]
async fn t_132_what_is_no_ocsp_request_is_told_so() {
    let world = world();
    const MALFORMED: [u8; 5] = [0x30, 3, 0x0a, 1, 1];
    for bad in [Vec::new(), vec![0x30; 4_097], b"{}".to_vec(), vec![0x30, 0x80, 0, 0], vec![0xff; 60_000]] {
        let answer = fetch(&world, ocsp_post(bad)).await;
        assert_eq!((answer.status, answer.bytes.as_slice()), (200, &MALFORMED[..]));
        assert_eq!(answer.head("cache-control"), "no-store");
    }
    for path in ["/pki/ocsp/%", "/pki/ocsp/%7b", "/pki/ocsp/AAAA", "/pki/ocsp/MAMCAQE=?x"] {
        assert_eq!(fetch(&world, get(path, None)).await.bytes, MALFORMED, "{path}");
    }
    assert_eq!(fetch(&world, get("/pki/ocsp/!!", None)).await.status, 404);
    assert_eq!(fetch(&world, ocsp_post(vec![0; 70_000])).await.status, 413);
    let untyped = Request::post("/pki/ocsp").body(Body::from(vec![0x30, 0])).unwrap();
    assert_eq!(fetch(&world, untyped).await.status, 415);
}

#[tokio::test]
async fn a_certificate_is_introspected_by_itself_and_by_its_serial_number() {
    let mut world = world();
    let issued = migrate(&mut world).await;
    let credential = token(&issued);
    let leaf = &chain(&credential)[0];
    let id = lease(&issued);
    let hex = format!("{:032x}", id.as_u128());
    let expected = json!({
        "active": true,
        "iss": "https://broker.example.org",
        "sub": NAME,
        "client_id": NAME,
        "aud": DB_URI,
        "iat": START.as_s(),
        "exp": START.as_s() + 900,
        "jti": id,
        "txn": issued.task,
        "task_id": issued.task,
        "owner": "team-shop",
        "cnf": { "x5t#S256": URL_SAFE_NO_PAD.encode(sha256(leaf)) },
        "authorization_details": [{
            "type": "dayfly_task", "template": "migrate", "locations": [DB_URI],
            "actions": ["db:migrate", "db:read"], "purpose": "change the tables",
        }],
    });
    let named = [
        credential.clone(),
        pem(leaf),
        STANDARD.encode(leaf),
        URL_SAFE_NO_PAD.encode(leaf),
        hex.clone(),
        id.to_string(),
    ];
    for text in &named {
        let fields = [("token", text.as_str()), ("token_type_hint", "urn:dayfly:token-type:x509")];
        let answer = world.call(local(form("/oauth2/introspect", None, &fields))).await;
        assert_eq!(answer.json(), expected, "{text}");
    }
    let stranger = world.open(&Job::pay(), "pay-watch").await;
    let _ = world.caller(&token(&stranger)).await;
    for text in &named {
        let answer = world.call(form("/oauth2/introspect", None, &[("token", text.as_str())])).await;
        assert_eq!(answer.status, 401, "nobody asks");
    }
    world.flow.end_lease(&OPERATOR, id, None).await.unwrap();
    for text in &named {
        assert!(!world.active(text).await, "{text}");
    }
}

/// The id of a token's lease is not the token.
#[tokio::test]
async fn an_id_is_no_token() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "deploy").await;
    assert!(world.active(&token(&issued)).await);
    assert!(!world.active(&lease(&issued).to_string()).await);
    assert!(!world.active(&format!("{:032x}", lease(&issued).as_u128())).await);
}

#[tokio::test]
async fn t_136_a_certificate_is_not_revoked_by_whoever_has_seen_it() {
    let mut world = world();
    let issued = migrate(&mut world).await;
    let leaf = &chain(&token(&issued))[0];
    for text in [token(&issued), STANDARD.encode(leaf), "-----BEGIN CERTIFICATE-----".into()] {
        let answer = world.call(form("/oauth2/revoke", None, &[("token", &text)])).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("unsupported_token_type")), "{text}");
        assert_eq!(answer.json()["reason"], "E-TOKEN-TYPE");
    }
    assert_eq!(reason(world.flow.revoke_presented(&secret(&token(&issued))).await), Reason::TokenType);
    for id in [lease(&issued).to_string(), format!("{:032x}", lease(&issued).as_u128())] {
        let answer = world.call(form("/oauth2/revoke", None, &[("token", &id)])).await;
        assert_eq!((answer.status, &*answer.text), (200, ""), "an id is no token: {id}");
    }
    assert_eq!(revoked_as(&world, &issued).await, None);
    let path = format!("/v1/leases/{}/end", lease(&issued));
    let other = world.open(&Job::pay(), "pay-watch").await;
    assert!(matches!(world.call(post_json(&path, Some(&token(&other)), &json!({}))).await.status, 403 | 404));
    assert_eq!(world.call(post_json(&path, Some(&handle(&issued)), &json!({}))).await.status, 200);
    assert_eq!(revoked_as(&world, &issued).await, Some(5), "its own task's handle does");
}

#[tokio::test]
async fn a_certificate_of_ours_that_no_record_knows_is_an_alarm() {
    let mut world = world();
    let issued = migrate(&mut world).await;
    let ca = issuing(&world);
    let forged = |serial: u128, with: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial.to_be_bytes()));
        params.not_before = time::OffsetDateTime::from_unix_timestamp(START.as_s()).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(START.as_s() + 900).unwrap();
        with(&mut params);
        let made = params.signed_by(&new_key(), &ca.issuer().unwrap()).unwrap();
        made.pem()
    };
    let unknown = lease(&issued).as_u128() ^ 1;
    assert!(!world.active(&forged(unknown, &|_| ())).await);
    assert_eq!(world.flow.forged_or_lost(), 1);
    // A twin of what is known, an OCSP signer, a CA of ours, what has expired, what others signed.
    assert!(!world.active(&forged(lease(&issued).as_u128(), &|_| ())).await, "it is not the one of the lease");
    let signer = |params: &mut rcgen::CertificateParams| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::OcspSigning];
    };
    assert!(!world.active(&forged(unknown, &signer)).await);
    assert!(!world.active(&pem(ca.der())).await);
    let old = |params: &mut rcgen::CertificateParams| params.not_after = params.not_before;
    let old = forged(unknown, &old);
    world.pass_s(1);
    assert!(!world.active(&old).await);
    let stranger = rcgen::generate_simple_self_signed(["stranger".to_owned()]).unwrap();
    assert!(!world.active(&stranger.cert.pem()).await);
    assert_eq!(world.flow.forged_or_lost(), 1);
    assert!(world.active(&token(&issued)).await);
    let row = world.reader.lease(lease(&issued)).unwrap().unwrap().0;
    assert_eq!((row.kind, row.kid.as_deref()), (Kind::X509, Some(ca.id().as_str())));
}

#[tokio::test]
async fn a_forgery_by_a_ca_that_is_out_is_an_alarm() {
    let mut world = world();
    let issued = migrate(&mut world).await;
    let (leaked, pki) = (issuing(&world), world.flow.pki().unwrap().clone());
    let forged = |change: u128| {
        let mut params = rcgen::CertificateParams::default();
        let serial = lease(&issued).as_u128() ^ change;
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial.to_be_bytes()));
        params.not_before = time::OffsetDateTime::from_unix_timestamp(START.as_s()).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(START.as_s() + 86_400).unwrap();
        params.signed_by(&new_key(), &leaked.issuer().unwrap()).unwrap().pem()
    };
    // Its leaves are over, and its key is destroyed here; somebody has a copy.
    pki.rotate_now(world.now()).unwrap().unwrap();
    world.pass_s(3 * 3_600);
    pki.rotate(world.now()).unwrap();
    assert!(pki.issuing().iter().all(|ca| ca.id() != leaked.id()));
    assert!(!world.active(&forged(1)).await);
    assert_eq!(world.flow.forged_or_lost(), 1);
    pki.taint(leaked.id().as_str(), world.now()).unwrap();
    assert!(!world.active(&forged(2)).await);
    assert_eq!(world.flow.forged_or_lost(), 2);
    assert!(!world.active(&pem(leaked.der())).await);
    assert_eq!(world.flow.forged_or_lost(), 2, "it has no lease, and needs none");
}
