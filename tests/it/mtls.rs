//! Client certificates at the broker's listener, with clients of others: `curl` and `openssl s_client`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use arc_swap::ArcSwap;
use dayfly::{
    run::accept::{Door, serve_tls},
    sys::net::server_config,
};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{foreign::skipped, served::Authority, world::World};

pub const TOKEN: &str = "/oauth2/token";
pub const EXCHANGE: (&str, &str) = ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");

/// A world behind a real listener.
pub struct Hall {
    pub dir: TempDir,
    pub address: SocketAddr,
    stop: CancellationToken,
}

/// A certificate and its key, in files.
#[derive(Clone)]
pub struct Holder {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Drop for Hall {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Hall {
    pub async fn of(world: &World) -> Self {
        let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
        let (cert, key) = authority.write_leaf(dir.path(), "broker");
        fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let tls = server_config(&fs::read(cert).unwrap(), &fs::read(key).unwrap()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let door = Door::new(world.door());
        tokio::spawn(serve_tls(listener, Arc::new(ArcSwap::new(tls)), door, stop.clone()));
        Self { dir, address, stop }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes `NAME.cert` (the chain) and `NAME.key`.
    pub fn holder(&self, name: &str, chain_pem: &str, key: &KeyPair) -> Holder {
        let holder = Holder { cert: self.path(&format!("{name}.cert")), key: self.path(&format!("{name}.key")) };
        fs::write(&holder.cert, chain_pem).unwrap();
        fs::write(&holder.key, key.serialize_pem()).unwrap();
        holder
    }

    /// A certificate that its own key signed.
    pub fn self_signed(&self, name: &str, key: &KeyPair) -> Holder {
        let made = CertificateParams::new(Vec::new()).unwrap().self_signed(key).unwrap();
        self.holder(name, &made.pem(), key)
    }

    /// `curl` with what everyone needs, and a certificate or none.
    pub fn curl(&self, holder: Option<&Holder>) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(self.path("ca.pem"));
        if let Some(Holder { cert, key }) = holder {
            curl.arg("--cert").arg(cert).arg("--key").arg(key);
        }
        curl.stdin(Stdio::null());
        curl
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// One form, on a connection of its own.
    pub fn post(&self, holder: Option<&Holder>, path: &str, fields: &[(&str, &str)]) -> (u16, Value) {
        self.post_with(holder, path, fields, &[])
    }

    /// The same with further arguments.
    pub fn post_with(
        &self,
        holder: Option<&Holder>,
        path: &str,
        fields: &[(&str, &str)],
        more: &[&str],
    ) -> (u16, Value) {
        let mut curl = self.curl(holder);
        with_fields(&mut curl, fields);
        curl.args(more).args(["--write-out", "\n%{http_code}"]).arg(self.url(path));
        answers(&run(&mut curl)).remove(0)
    }

    pub fn get(&self, holder: Option<&Holder>, path: &str, bearer: &str) -> (u16, Value) {
        let mut curl = self.curl(holder);
        curl.args(["--header", &format!("Authorization: Bearer {bearer}"), "--write-out", "\n%{http_code}"]);
        answers(&run(curl.arg(self.url(path)))).remove(0)
    }
}

pub fn with_fields(curl: &mut Command, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        curl.args(["--data-urlencode", &format!("{name}={value}")]);
    }
}

/// What `curl` printed: each body, then its status on a line of its own.
pub fn answers(output: &Output) -> Vec<(u16, Value)> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let told: Vec<_> = lines
        .chunks(2)
        .map(|told| (told[1].parse().unwrap(), serde_json::from_str(told[0]).unwrap_or(Value::Null)))
        .collect();
    assert!(!told.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    told
}

/// Runs a program of others while the broker answers it.
pub fn run(command: &mut Command) -> Output {
    tokio::task::block_in_place(|| command.output()).expect("this test needs `curl` and `openssl`")
}

/// The reason of a refusal.
pub fn why((status, answer): &(u16, Value)) -> (u16, String) {
    (*status, answer["reason"].as_str().unwrap_or_default().to_owned())
}

pub fn is(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

/// What `openssl` says of a session that it tries to take up again.
fn sessions(hall: &Hall, holder: &Holder, tls: &str) -> Vec<String> {
    let file = hall.path(&format!("session{tls}"));
    let connect = |way: &str, file: &Path| {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &hall.address.to_string(), tls, "-ign_eof", way]).arg(file);
        openssl.arg("-CAfile").arg(hall.path("ca.pem")).arg("-cert").arg(&holder.cert).arg("-key").arg(&holder.key);
        let head = "GET /oauth2/jwks HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let output = tokio::task::block_in_place(|| crate::foreign::with_input(&mut openssl, head.as_bytes()));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let first = connect("-sess_out", &file);
    assert!(first.contains("HTTP/1.1 200 OK"), "{first}");
    // TLS 1.2 writes a session without an id, TLS 1.3 none at all: there is nothing to take up.
    let second = if file.exists() { connect("-sess_in", &file) } else { String::new() };
    vec![first, second]
}

#[tokio::test(flavor = "multi_thread")]
async fn t_138_openssl_finds_no_session_to_resume() {
    if skipped("openssl") {
        return;
    }
    let world = World::new();
    let hall = Hall::of(&world).await;
    let holder = hall.self_signed("me", &KeyPair::generate().unwrap());
    for tls in ["-tls1_3", "-tls1_2"] {
        for said in sessions(&hall, &holder, tls) {
            assert!(!said.contains("Reused, "), "{said}");
            assert!(!said.contains("Post-Handshake New Session Ticket"), "{said}");
            assert!(!said.contains("Early data was accepted"), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t_133_openssls_large_rsa_key_is_refused_in_the_handshake() {
    if skipped("openssl") || skipped("curl") {
        return;
    }
    let world = World::new();
    let hall = Hall::of(&world).await;
    for (bits, taken) in [("rsa:2048", true), ("rsa:4224", false)] {
        // `curl` takes what follows a colon for a password.
        let name = bits.replace(':', "-");
        let holder = Holder { cert: hall.path(&format!("{name}.cert")), key: hall.path(&format!("{name}.key")) };
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", bits, "-nodes", "-subj", "/CN=me", "-days", "1", "-out"]);
        assert!(run(openssl.arg(&holder.cert).arg("-keyout").arg(&holder.key)).status.success());
        let met = run(hall.curl(Some(&holder)).args(["--fail", &hall.url("/oauth2/jwks")]));
        assert_eq!(met.status.success(), taken, "{bits}: {}", String::from_utf8_lossy(&met.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_nobody_is_as_good_as_none() {
    if skipped("curl") {
        return;
    }
    let mut world = World::new();
    let hall = Hall::of(&world).await;
    let stranger = hall.self_signed("stranger", &KeyPair::generate().unwrap());
    let evidence = world.evidence(&crate::world::Job::shop());
    let jwt = ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt");
    let (status, answer) =
        hall.post(Some(&stranger), TOKEN, &[EXCHANGE, jwt, ("subject_token", &evidence), ("scope", "deploy")]);
    assert_eq!((status, &answer["token_type"]), (200, &"Bearer".into()), "{answer}");
    let claims = dayfly_verifier::Jws::parse(answer["access_token"].as_str().unwrap()).unwrap();
    assert!(claims.unverified_claims().get("cnf").is_none());
    let handle = answer["task_control"].as_str().unwrap();
    let (status, _) = hall.get(None, &format!("/v1/tasks/{}", answer["task_id"].as_str().unwrap()), handle);
    assert_eq!(status, 200, "and its handle is bound to nothing");
}
