//! A company whose broker reaches the outside by a proxy alone: a real `serve` with `HTTPS_PROXY`, and an
//! issuer with a name that only the proxy knows.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use dayfly::sys::clock::Clock;
use dayfly_verifier::crypto::SigningKey;
use serde_json::{Value, json};

use super::{
    platform::{DISCOVERY, Platform, Reply},
    stage::key,
};
use crate::{
    dev,
    served::{Authority, Served},
    threats::stand::{EXCHANGE, JWT},
};

const ISSUER: &str = "https://issuer.test";

/// Takes every CONNECT to one place, and keeps what it was told.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn to(place: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let seen = heads.clone();
        // It ends with the process of the tests.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, stream) = (seen.clone(), stream.unwrap());
                thread::spawn(move || tunnel(stream, place, &seen));
            }
        });
        Self { address, heads }
    }

    fn url(&self) -> String {
        format!("http://dayfly:pass%2Dword@{}", self.address)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn tunnel(mut client: TcpStream, place: SocketAddr, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    seen.lock().unwrap().push(String::from_utf8(head).ok()?);
    let mut server = TcpStream::connect(place).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut up, mut down) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let back = thread::spawn(move || {
        let _ = std::io::copy(&mut down, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
    let _ = std::io::copy(&mut up, &mut server);
    let _ = server.shutdown(std::net::Shutdown::Write);
    back.join().ok()
}

/// The issuer behind the proxy.
fn platform(work: &Path, authority: &Authority) -> Platform {
    let (cert, key) = authority.write_leaf_with(work, "issuer", |params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("issuer.test".try_into().unwrap())];
    });
    Platform::with_certificate(&cert, &key)
}

fn publishes(platform: &Platform, jwks_uri: &str, key: &SigningKey) {
    let document = json!({ "issuer": ISSUER, "jwks_uri": jwks_uri });
    let jwks = json!({ "keys": [key.jwk()] });
    platform.answers(move |asked| Reply::json(if asked.path() == DISCOVERY { &document } else { &jwks }));
}

fn serve(work: &Path, authority: &Authority, env: &[(&str, &str)]) -> Served {
    Served::first_in(env, work, authority, |_| {
        std::fs::write(work.join("bundle/ca.pem"), authority.pem()).unwrap();
        crate::idp::bundle(ISSUER)
            .replace(", allow_private = true", "")
            .replace("at+jwt", "JWT")
            .replace("RS256", "ES256")
    })
}

fn opens(broker: &Served, key: &SigningKey, jti: &str) -> (u16, Value) {
    let now = Clock::Machine.wall().as_s();
    let claims = json!({
        "iss": ISSUER, "sub": "orders", "aud": broker.issuer, "iat": now, "exp": now + 300, "jti": jti,
        "env": "staging", "team": "orders",
    });
    let token = key.sign("JWT", &claims).unwrap();
    let ask = [("grant_type", EXCHANGE), ("subject_token_type", JWT), ("subject_token", &*token), ("scope", "sync")];
    broker.post("/oauth2/token", &ask)
}

#[test]
fn t_049_by_a_proxy_the_inside_stays_as_closed_as_without() {
    let (work, authority, key) = (dev::work(), Authority::new(), key());
    let work = work.path();
    let (platform, canary) = (platform(work, &authority), Platform::canary());
    publishes(&platform, &format!("{ISSUER}/jwks"), &key);
    let proxy = Proxy::to(platform.address);
    let broker = serve(work, &authority, &[("HTTPS_PROXY", &proxy.url()), ("NO_PROXY", "other.test")]);
    let (status, answer) = opens(&broker, &key, "first");
    assert_eq!(status, 200, "{answer}");
    let heads = proxy.heads();
    assert_eq!(heads.len(), 2, "discovery and keys: {heads:?}");
    for head in &heads {
        assert!(head.starts_with("CONNECT issuer.test:443 HTTP/1.1\r\nHost: issuer.test:443\r\n"), "{head}");
        // dayfly:pass-word
        assert!(head.contains("Proxy-Authorization: Basic ZGF5Zmx5OnBhc3Mtd29yZA==\r\n"), "{head}");
        assert!(!head.contains("eyJ"));
    }
    for asked in platform.asked() {
        assert!(!asked.head.to_ascii_lowercase().contains("authorization"), "the proxy's password is the proxy's");
    }
    for jwks_uri in [
        format!("https://{}/jwks", canary.address),
        format!("https://localhost:{}/jwks", canary.address.port()),
        "https://10.0.0.1/jwks".to_owned(),
        "https://[::ffff:169.254.169.254]/jwks".to_owned(),
        "https://2852039166/jwks".to_owned(),
        "https://metadata.google.internal/jwks".to_owned(),
        "https://kubernetes/jwks".to_owned(),
        format!("http://{}/jwks", canary.address),
        format!("https://issuer.test@{}/jwks", canary.address),
    ] {
        let before = proxy.heads().len();
        publishes(&platform, &jwks_uri, &key);
        // An operator is heard once a second.
        let refused = loop {
            let refused =
                dev::dayfly(&["issuer", "refresh", "company", "--state", "state"]).current_dir(work).output().unwrap();
            if !dev::text(&refused.stderr).contains("E-BUSY") {
                break refused;
            }
        };
        let said = dev::text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(75), "{jwks_uri}: {said}");
        assert!(said.contains("key set: ") && !said.contains("metadata"), "{said}");
        let later = proxy.heads();
        assert_eq!(later.len(), before + 1, "only discovery goes out: {jwks_uri} {later:?}");
        assert!(later[before].starts_with("CONNECT issuer.test:443"));
    }
    assert_eq!(canary.connections(), 0);
    // The keys that it has go on.
    assert_eq!(opens(&broker, &key, "second").0, 200);
    assert!(!broker.said().contains("pass-word") && !broker.said().contains("ZGF5"), "{}", broker.said());
    let listed = broker.verb(&["issuer", "ls", "--state", "state"]);
    assert!(listed.contains("company") && listed.contains("fresh"), "{listed}");
    assert!(broker.ops("/metrics").contains("dayfly_issuer_keys{issuer=\"company\"} 1"));
}

#[test]
fn what_goes_around_the_proxy_is_not_its_to_know() {
    let (work, authority, key) = (dev::work(), Authority::new(), key());
    let work = work.path();
    let platform = platform(work, &authority);
    let proxy = Proxy::to(platform.address);
    let broker = serve(work, &authority, &[("https_proxy", &proxy.url()), ("no_proxy", ".test")]);
    let (status, answer) = opens(&broker, &key, "first");
    assert_eq!((status, &answer["reason"]), (503, &json!("E-ISSUER-DOWN")));
    assert!(broker.ops("/readyz").contains("\"issuer\":\"company\",\"state\":\"down\""), "{}", broker.ops("/readyz"));
    assert!(broker.ops("/readyz").starts_with("HTTP/1.1 200"));
    assert!(proxy.heads().is_empty());
}

#[test]
fn a_proxy_that_cannot_be_used_stops_the_start_and_keeps_its_password() {
    let (work, authority) = (dev::work(), Authority::new());
    let work = work.path();
    let mut broker = serve(work, &authority, &[]);
    assert!(broker.stop().success());
    for args in [&["serve", "--config", "dayfly.toml"][..], &["serve", "--check", "--config", "dayfly.toml"]] {
        let mut command = dev::dayfly(args);
        command.current_dir(work).env("HTTPS_PROXY", "socks5://dayfly:canary@proxy.test:1080");
        let refused = command.output().unwrap();
        let said = dev::text(&refused.stderr);
        assert!(!refused.status.success() && said.contains("HTTPS_PROXY") && !said.contains("canary"), "{said}");
    }
}
