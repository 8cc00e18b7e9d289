//! Lists as files: what `dayfly publish` took from a broker, a web server that knows nothing of it serves,
//! and servers that go by lists decide by it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use dayfly::sys::clock::Clock;
use dayfly_domain::{LeaseId, TaskId, UnixMs};
use dayfly_verifier::{
    Detail, ListSettings, Listed, Refused, Status, StatusRef, TaskClaims,
    crypto::SigningKey,
    status::{EncodedList, LIST_TOKEN_TYP, ListClaims, ListRefusal, StatusBits, StatusList},
};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    task::{JoinSet, block_in_place},
};
use tokio_rustls::TlsAcceptor;

use super::{
    dev::{dayfly, text, wait_until},
    foreign::{python, skipped, with_input},
    servers::Server,
};

const TARGET: &str = "https://db-0.example";
const ACTION: &str = "db:migrate";

/// Answers one request with the file that its path names below the folder, as any web server does.
async fn serve_one(mut stream: impl AsyncRead + AsyncWrite + Unpin, dir: PathBuf) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let path = dir.join(head.split(' ').nth(1)?.trim_start_matches('/'));
    let list = path.parent().is_some_and(|parent| parent.ends_with("status"));
    let kind = if list { "application/statuslist+jwt" } else { "application/json" };
    let path = if path.is_dir() { path.join("index.json") } else { path };
    let (status, body) = fs::read(&path).map_or((404, Vec::new()), |body| (200, body));
    let head = format!(
        "HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()?;
    stream.shutdown().await.ok()
}

/// A broker's documents behind its socket, and the place where the copies of them are served.
struct Place {
    work: tempfile::TempDir,
    key: SigningKey,
    issuer: String,
    ca_pem: String,
    doors: JoinSet<()>,
}

impl Place {
    async fn start() -> Self {
        let work = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("https://{}", listener.local_addr().unwrap());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let key = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
        let mut place = Self { work, key, issuer, ca_pem: made.cert.pem(), doors: JoinSet::new() };
        fs::write(place.path("ca.pem"), &place.ca_pem).unwrap();
        fs::create_dir_all(place.path("state")).unwrap();
        place.doors.spawn(files(listener, TlsAcceptor::from(Arc::new(tls)), place.path("www")));
        let socket = UnixListener::bind(place.path("state/dayfly.sock")).unwrap();
        place.doors.spawn(broker(socket, place.path("broker")));
        let issuer = &place.issuer;
        let metadata = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/oauth2/jwks")}).to_string();
        place.says(".well-known/oauth-authorization-server", &metadata);
        place.says("oauth2/jwks", &json!({"keys": [place.key.jwk()]}).to_string());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn says(&self, path: &str, text: &str) {
        let path = self.path("broker").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn uri(&self) -> String {
        format!("{}/status/a", self.issuer)
    }

    /// The broker has a new list, on which these have ended, and which is good for so long.
    fn lists(&self, ended: &[u32], exp_s: i64) {
        let mut list = StatusList::new(StatusBits::One, 4096);
        assert!(ended.iter().all(|index| list.set(*index, 1)));
        let iat = Clock::Machine.wall().as_s();
        let status_list = EncodedList::of(&list);
        let claims = ListClaims { sub: self.uri(), iat, exp: iat + exp_s, ttl: 1, status_list };
        self.says("status/a", &self.key.sign(LIST_TOKEN_TYP, &claims).unwrap());
        let named = json!({"uri": self.uri(), "target": TARGET, "expires_at": "2030-01-01T00:00:00Z"});
        self.says("status/index.json", &json!({ "lists": [named] }).to_string());
    }

    fn publish(&self) -> String {
        let mut command = dayfly(&["publish", "www", "--state", "state", "--output", "name"]);
        let done = block_in_place(|| command.current_dir(self.work.path()).output().unwrap());
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout).to_owned()
    }

    fn token(&self, idx: u32) -> String {
        let (iat, sub) = (Clock::Machine.wall().as_s(), "spiffe://dayfly.example/shop/ci".to_owned());
        let detail = Detail {
            kind: "dayfly_task".to_owned(),
            template: "migrate".to_owned(),
            locations: vec![TARGET.to_owned()],
            actions: vec![ACTION.to_owned()],
            purpose: "move the schema".to_owned(),
            ticket: None,
        };
        let claims = TaskClaims {
            iss: self.issuer.clone(),
            iat,
            nbf: iat,
            exp: iat + 900,
            jti: LeaseId::from_parts(u64::from(idx), [1; 10]),
            client_id: sub.clone(),
            sub,
            aud: TARGET.to_owned(),
            authorization_details: vec![detail],
            txn: TaskId::from_parts(1, [2; 10]),
            owner: "shop".to_owned(),
            cnf: None,
            status: Some(Status { status_list: StatusRef { idx, uri: self.uri() } }),
        };
        self.key.sign("at+jwt", &claims).unwrap()
    }
}

async fn files(listener: TcpListener, tls: TlsAcceptor, dir: PathBuf) {
    let mut served = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, dir) = (tls.clone(), dir.clone());
        served.spawn(async move {
            if let Ok(stream) = tls.accept(tcp).await {
                serve_one(stream, dir).await;
            }
        });
    }
}

async fn broker(listener: UnixListener, dir: PathBuf) {
    let mut served = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let dir = dir.clone();
        served.spawn(async move {
            serve_one(stream, dir).await;
        });
    }
}

/// The machine's clock, and a while that a test lets pass.
#[derive(Default)]
struct Later(AtomicI64);

impl dayfly_verifier::Clock for Later {
    fn now(&self) -> UnixMs {
        Clock::Machine.wall().plus_ms(self.0.load(Ordering::SeqCst))
    }
}

/// What `dayfly-verifier` says, as a status.
async fn status(listed: &Listed, token: &str) -> u16 {
    listed.check(token).await.map_or_else(|refused| refused.status(), |_| 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_travels_by_file_to_a_server_of_ours() {
    let place = Place::start().await;
    place.lists(&[], 300);
    assert_eq!(place.publish(), format!("{}\n", place.uri()));
    let settings = ListSettings {
        ca_pem: Some(place.ca_pem.clone().into_bytes()),
        ..ListSettings::new(place.issuer.as_str(), TARGET)
    };
    let clock = Arc::new(Later::default());
    let listed = Listed::with_clock(settings, clock.clone()).await.unwrap();
    let (ended, lives) = (place.token(7), place.token(8));
    assert_eq!((status(&listed, &ended).await, status(&listed, &lives).await), (200, 200));
    place.lists(&[7], 300);
    place.publish();
    clock.0.fetch_add(1_000, Ordering::SeqCst);
    assert_eq!((status(&listed, &ended).await, status(&listed, &lives).await), (401, 200));
    fs::remove_file(place.path("www/status/a")).unwrap();
    clock.0.fetch_add(200_000, Ordering::SeqCst);
    assert_eq!(status(&listed, &lives).await, 200, "the last one is used on");
    clock.0.fetch_add(100_000, Ordering::SeqCst);
    assert_eq!(listed.check(&lives).await.unwrap_err(), Refused::List(ListRefusal::Expired));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_travels_by_file_to_a_server_in_python() {
    if skipped("python") {
        return;
    }
    let place = Place::start().await;
    place.lists(&[], 300);
    place.publish();
    let (ended, lives) = (place.token(7), place.token(8));
    let ca = place.path("ca.pem");
    let server = block_in_place(|| {
        let mut command = python("list_server.py");
        Server::start(command.args([&place.issuer, TARGET]).arg(&ca).arg(ACTION).stderr(Stdio::null()))
    });
    block_in_place(|| {
        assert_eq!((server.bearer(&ended), server.bearer(&lives)), (200, 200));
        assert_eq!(server.get(&[]), (401, "Bearer".to_owned()));
        let foreign = [place.token(4096), place.key.sign("statuslist+jwt", &json!({})).unwrap(), "x.y.z".to_owned()];
        assert!(foreign.iter().all(|token| server.bearer(token) == 401));
        place.lists(&[7], 4);
        place.publish();
        wait_until("the end", || server.bearer(&ended) == 401);
        assert_eq!(server.bearer(&lives), 200);
        fs::remove_file(place.path("www/status/a")).unwrap();
        wait_until("the list's end", || server.bearer(&lives) == 503);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_decoder_follows_tokens_to_their_lists() {
    if skipped("python") {
        return;
    }
    let place = Place::start().await;
    place.lists(&[0, 7, 4095], 300);
    place.publish();
    let said = follow(&place, &[0, 1, 7, 8, 4095, 4096]);
    let values: Vec<&Value> = said.iter().map(|said| &said["value"]).collect();
    assert_eq!(values[..5], [&json!(1), &json!(0), &json!(1), &json!(0), &json!(1)], "{said:?}");
    assert!(said[5]["refused"].is_string(), "past the end: {}", said[5]);
}

fn follow(place: &Place, indices: &[u32]) -> Vec<Value> {
    let tokens: String = indices.iter().map(|idx| place.token(*idx) + "\n").collect();
    let mut command = python("status_list.py");
    let command = command.args(["follow", &place.issuer]).arg(place.path("ca.pem"));
    let said = block_in_place(|| with_input(command, tokens.as_bytes()));
    assert!(said.status.success(), "{}", text(&said.stderr));
    text(&said.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_gone_is_taken_away_and_a_foreign_file_is_not() {
    let place = Place::start().await;
    place.lists(&[], 300);
    place.publish();
    let www = place.path("www");
    fs::write(www.join("status/readme"), "not ours").unwrap();
    place.says("status/index.json", &json!({"lists": []}).to_string());
    assert_eq!(place.publish(), "");
    let held = |path: &str| Path::new(&www).join(path).exists();
    assert!(!held("status/a") && held("status/readme") && held("oauth2/jwks"));
    assert!(held(".well-known/openid-configuration"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_writes_what_changes_and_outlives_the_broker() {
    let place = Place::start().await;
    place.lists(&[], 300);
    let said = place.path("said");
    let mut command = dayfly(&["publish", "www", "--watch", "--every", "1s", "--state", "state"]);
    let command = command.current_dir(place.work.path()).stderr(fs::File::create(&said).unwrap());
    let mut child = command.spawn().unwrap();
    let read = |path: &str| fs::read_to_string(place.path(path)).unwrap_or_default();
    block_in_place(|| {
        wait_until("its promise", || read("said").contains("hears of an end 1 s later than from the broker: 5 s"));
        let first = read("www/status/a");
        place.lists(&[7], 300);
        wait_until("the new list", || read("www/status/a") != first);
        assert_eq!(read("www/status/a"), read("broker/status/a"));
        fs::rename(place.path("state/dayfly.sock"), place.path("away")).unwrap();
        wait_until("a warning", || read("said").contains("warning: nothing was published"));
        assert_eq!(read("www/status/a"), read("broker/status/a"), "what is on file stays");
        fs::rename(place.path("away"), place.path("state/dayfly.sock")).unwrap();
        wait_until("the broker's return", || read("said").matches("published: 1 status list").count() == 2);
    });
    assert!(child.try_wait().unwrap().is_none(), "it goes on");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(read("said").matches("warning").count(), 1, "told once: {}", read("said"));
}
