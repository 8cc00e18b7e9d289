//! A whole broker in the test's hand: a stepped clock, a bundle made of text, evidence signed by a
//! stand-in issuer, the writer on a thread of its own. Stories call the verbs or the HTTP door.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use axum::{Router, body::Body, http::Request};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly::{
    config::Caps,
    flow::{
        BundleSource, Caller, EndAnswer, Exchange, Flow, Introspected, Issued, Loaded, Presented, Refused, Shown,
        StartError, Startup, Subject, Upkeep, start,
    },
    http::{Door, Front, Peer, router},
    ledger::{self, Report},
    mint::pki::{Pki, Places},
    policy::{Ask, BundleEnv, What, parse},
    revoke::Sizes,
    run::limits::allowance,
    store::{Reader, Store},
    sys::{
        clock::{Clock, Stepped},
        files::SourceFile,
    },
};
use dayfly_domain::{BindingKind, Kind, LeaseId, Reason, Secret, TaskId, UnixMs, bundle::Problem};
use dayfly_verifier::crypto::SigningKey;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use ring::digest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

pub const ISSUER: &str = "https://broker.example.org";
pub const BROKER_URI: &str = "https://broker.example.org/v1";
pub const CI: &str = "https://ci.example.org";
pub const SHOP_URI: &str = "https://shop.example.org";
pub const STOCK_URI: &str = "https://stock.example.org";
pub const START: UnixMs = UnixMs::from_s(1_800_000_000);
pub const BUNDLE: &str = include_str!("world.toml");
/// Limits that no story reaches by accident: time stands still, so nothing is ever earned back.
pub const PLENTY: Caps = Caps {
    connections: 4096,
    connections_per_address: 256,
    address_rate_per_s: 1_000_000,
    address_burst: 1_000_000,
    workload_rate_per_s: 1_000_000,
    workload_burst: 1_000_000,
    storm_per_minute: 1_000_000,
    owner_leases: 1_000_000,
    production_reserve_percent: 0,
    workload_leases: 1_000_000,
};
pub const OPERATOR: Caller = Caller::Operator { uid: 1000 };

pub struct World {
    pub flow: Flow,
    pub upkeep: Upkeep,
    pub clock: Arc<Stepped>,
    pub bundle: Arc<Text>,
    pub reader: Reader,
    writer: Option<JoinHandle<()>>,
    /// What this world's writer counts; the process's own recorder is everybody's.
    counts: Arc<PrometheusRecorder>,
    key: SigningKey,
    other: SigningKey,
    folder: Option<TempDir>,
    strict: bool,
    sizes: Sizes,
    caps: Caps,
    count: u64,
}

/// A bundle whose text a test changes.
pub struct Text {
    text: Mutex<String>,
    jwks: Vec<u8>,
    /// What `other.json` holds: the keys of nobody in the bundle, unless a test says so.
    other_jwks: Vec<u8>,
    /// Further files of keys or Cedar, by name.
    files: BTreeMap<String, Vec<u8>>,
    /// The authority, which lives as long as the world, whatever restarts.
    pki: Arc<Pki>,
}

impl Text {
    pub fn set(&self, text: &str) {
        *self.text.lock().unwrap() = text.to_owned();
    }

    /// Replaces what must be there.
    pub fn edit(&self, from: &str, to: &str) {
        let mut text = self.text.lock().unwrap();
        assert!(text.contains(from), "`{from}` is not in the bundle");
        *text = text.replace(from, to);
    }
}

impl BundleSource for Text {
    fn load(&self) -> Result<Loaded, Vec<Problem>> {
        let text = self.text.lock().unwrap().clone();
        let mut files = vec![SourceFile { path: "world.toml".into(), bytes: text.into_bytes() }];
        let cedar = self.files.iter().filter(|(name, _)| name.ends_with(".cedar"));
        files.extend(cedar.map(|(name, text)| SourceFile { path: name.clone(), bytes: text.clone() }));
        let env = BundleEnv { issuer_url: ISSUER.into(), broker_binding: BindingKind::Bearer };
        let (bundle, lints) = parse(&files, &env, &mut |path| {
            let own = if path == "other.json" { &self.other_jwks } else { &self.jwks };
            Ok(self.files.get(path).unwrap_or(own).clone())
        })?;
        Loaded::of(bundle, lints)
    }
}

/// A job of the stand-in CI: what its token says.
#[derive(Clone)]
pub struct Job(pub Value);

impl Job {
    /// A job of the shop, in a run of its own.
    pub fn shop() -> Self {
        Self(json!({ "sub": "shop", "org": "acme", "event": "push" }))
    }

    pub fn pay() -> Self {
        Self::shop().with("sub", "pay")
    }

    pub fn with(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.0[claim] = value.into();
        self
    }

    pub fn run(self, run: &str) -> Self {
        self.with("run", run)
    }
}

/// All that a template grants on its one target.
pub fn ask(template: &str) -> Ask {
    let what = What::Credential { kind: Kind::Jwt, resource: None, actions: None };
    Ask { template: template.into(), what, ttl_s: None, ticket: None }
}

pub fn ask_on(template: &str, uri: Option<&str>, actions: Option<&[&str]>) -> Ask {
    let actions = actions.map(|actions| actions.iter().map(|action| (*action).to_owned()).collect());
    let what = What::Credential { kind: Kind::Jwt, resource: uri.map(str::to_owned), actions };
    Ask { what, ..ask(template) }
}

pub fn secret(text: &str) -> Presented {
    Secret::new(text.to_owned())
}

/// A handle as clients make them, and the hash that they send.
pub fn client_handle(number: u8) -> (String, [u8; 32]) {
    let handle = format!("dtc_{}", URL_SAFE_NO_PAD.encode([number; 32]));
    let hash = sha256(handle.as_bytes());
    (handle, hash)
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap()
}

/// The text of the credential.
pub fn token(issued: &Issued) -> String {
    issued.credential.as_ref().expect("a credential was asked").token.expose().clone()
}

pub fn lease(issued: &Issued) -> LeaseId {
    issued.credential.as_ref().expect("a credential was asked").lease
}

/// The handle that the broker made.
pub fn handle(issued: &Issued) -> String {
    issued.handle.as_ref().expect("the broker made the handle").expose().clone()
}

pub fn reason<T: std::fmt::Debug>(result: Result<T, Refused>) -> Reason {
    result.expect_err("this must be refused").reason
}

impl World {
    pub fn new() -> Self {
        Self::of(BUNDLE)
    }

    pub fn of(bundle: &str) -> Self {
        Self::made(bundle, BTreeMap::new(), None, false)
    }

    /// With limits that can be reached; on a file, where it is to survive [`World::restart`].
    pub fn with_caps(bundle: &str, caps: Caps, on_file: bool) -> Self {
        let folder = on_file.then(|| tempfile::tempdir().unwrap());
        Self::limited(bundle, BTreeMap::new(), folder, false, caps)
    }

    /// With issuers whose keys are these files.
    pub fn with_files(bundle: &str, files: &[(&str, &Value)]) -> Self {
        let files = files.iter().map(|(name, keys)| ((*name).to_owned(), keys.to_string().into_bytes()));
        Self::made(bundle, files.collect(), None, false)
    }

    /// With files of any kind.
    pub fn with_bytes(bundle: &str, files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
        Self::made(bundle, files.collect(), None, false)
    }

    /// The same with Cedar policies beside the tables.
    pub fn with_cedar(bundle: &str, cedar: &str, files: &[(&str, &Value)]) -> Self {
        let files = files.iter().map(|(name, keys)| ((*name).to_owned(), keys.to_string().into_bytes()));
        let cedar = ("world.cedar".to_owned(), cedar.as_bytes().to_vec());
        Self::made(bundle, files.chain([cedar]).collect(), None, false)
    }

    /// With this authority instead of one in memory.
    pub fn certified_by(bundle: &str, pki: Pki) -> Self {
        Self::below(bundle, BTreeMap::new(), None, false, PLENTY, pki)
    }

    /// On a file, with keys beside it: survives [`World::restart`].
    pub fn on_file() -> Self {
        Self::made(BUNDLE, BTreeMap::new(), Some(tempfile::tempdir().unwrap()), false)
    }

    /// On a file, with another bundle and Cedar policies.
    pub fn on_file_with(bundle: &str, cedar: &str) -> Self {
        let files = BTreeMap::from([("world.cedar".to_owned(), cedar.as_bytes().to_vec())]);
        Self::made(bundle, files, Some(tempfile::tempdir().unwrap()), false)
    }

    pub fn strict_on_file() -> Self {
        Self::made(BUNDLE, BTreeMap::new(), Some(tempfile::tempdir().unwrap()), true)
    }

    fn made(bundle: &str, files: BTreeMap<String, Vec<u8>>, folder: Option<TempDir>, strict: bool) -> Self {
        Self::limited(bundle, files, folder, strict, PLENTY)
    }

    fn limited(
        bundle: &str,
        files: BTreeMap<String, Vec<u8>>,
        folder: Option<TempDir>,
        strict: bool,
        caps: Caps,
    ) -> Self {
        Self::below(bundle, files, folder, strict, caps, pki(START))
    }

    fn below(
        bundle: &str,
        files: BTreeMap<String, Vec<u8>>,
        folder: Option<TempDir>,
        strict: bool,
        caps: Caps,
        pki: Pki,
    ) -> Self {
        dayfly_verifier::crypto::init().unwrap();
        let (key, other) = (new_key(), new_key());
        let jwks = |key: &SigningKey| serde_json::to_vec(&json!({ "keys": [key.jwk()] })).unwrap();
        let text = Mutex::new(bundle.to_owned());
        let pki = Arc::new(pki);
        let bundle = Arc::new(Text { text, jwks: jwks(&key), other_jwks: jwks(&other), files, pki });
        let clock = Stepped::at(START);
        let sizes = Sizes::default();
        let counts = Arc::new(PrometheusBuilder::new().build_recorder());
        let broker = broker(&clock, &bundle, folder.as_ref(), strict, sizes, caps, &counts);
        let Broker { flow, upkeep, reader, writer } = broker.unwrap_or_else(|error| panic!("{error:?}"));
        let writer = Some(writer);
        Self { flow, upkeep, clock, bundle, reader, writer, counts, key, other, folder, strict, sizes, caps, count: 0 }
    }

    /// With status lists of these sizes, from a restart on.
    pub async fn resize(&mut self, sizes: Sizes) {
        self.sizes = sizes;
        self.restart().await;
    }

    /// Stops the broker as a shutdown does and starts it on the same file.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().unwrap_or_else(|error| panic!("{error:?}"));
    }

    pub fn start_again(&mut self) -> Result<(), StartError> {
        let Broker { flow, upkeep, reader, writer } =
            broker(&self.clock, &self.bundle, self.folder.as_ref(), self.strict, self.sizes, self.caps, &self.counts)?;
        (self.flow, self.upkeep, self.reader, self.writer) = (flow, upkeep, reader, Some(writer));
        Ok(())
    }

    /// Stops the writer; nothing can be recorded from then on.
    pub async fn stop(&mut self) {
        self.upkeep.shut_down().await;
        if let Some(writer) = self.writer.take() {
            writer.join().unwrap();
        }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.as_ref().expect("this world is on a file").path().join("dayfly.db")
    }

    /// Another hand on the file: breaks it, mends it, tampers with it.
    pub fn sql(&self, statements: &str) {
        rusqlite::Connection::open(self.file()).unwrap().execute_batch(statements).unwrap();
    }

    pub fn now(&self) -> UnixMs {
        self.clock_now()
    }

    fn clock_now(&self) -> UnixMs {
        Clock::Stepped(self.clock.clone()).wall()
    }

    pub fn pass_s(&self, seconds: i64) {
        self.clock.advance_ms(seconds * 1000);
    }

    /// Lives through so many seconds, with the upkeep of each.
    pub fn live_s(&self, seconds: i64) {
        for _ in 0..seconds {
            self.pass_s(1);
            self.upkeep.each_second();
        }
    }

    /// Evidence of a job, each time with a new `jti`.
    pub fn evidence(&mut self, job: &Job) -> String {
        self.count += 1;
        let jti = format!("jti-{}", self.count);
        self.sign(job.clone().with("jti", jti))
    }

    /// Evidence whose `jti` is whatever the job says.
    pub fn sign(&self, job: Job) -> String {
        self.sign_with(&self.key, job)
    }

    /// Signed by the key in `other.json`.
    pub fn sign_as_other(&self, job: Job) -> String {
        self.sign_with(&self.other, job)
    }

    fn sign_with(&self, key: &SigningKey, job: Job) -> String {
        let iat = self.clock_now().as_s();
        let Job(mut claims) = job;
        for (name, value) in
            [("iss", json!(CI)), ("aud", json!(ISSUER)), ("iat", json!(iat)), ("exp", json!(iat + 600))]
        {
            if claims.get(name).is_none() {
                claims[name] = value;
            }
        }
        key.sign("JWT", &claims).unwrap()
    }

    pub async fn present(&self, evidence: &str, ask: Ask) -> Result<Issued, Refused> {
        self.present_with(evidence, None, ask).await
    }

    pub async fn present_with(&self, evidence: &str, hash: Option<[u8; 32]>, ask: Ask) -> Result<Issued, Refused> {
        let subject = Subject::Evidence { token: secret(evidence), control_s256: hash };
        self.flow.exchange(Exchange { subject, ask, possession: None, csr: None }).await
    }

    /// Opens a task with fresh evidence.
    pub async fn try_open(&mut self, job: &Job, ask: Ask) -> Result<Issued, Refused> {
        let evidence = self.evidence(job);
        self.present(&evidence, ask).await
    }

    pub async fn open(&mut self, job: &Job, template: &str) -> Issued {
        self.try_open(job, ask(template)).await.unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    /// A further credential of the handle's task, by the template's one target.
    pub async fn feed(&self, handle: &str, supersede_s: Option<u8>) -> Result<Issued, Refused> {
        self.feed_ask(handle, supersede_s, ask("")).await
    }

    pub async fn feed_ask(&self, handle: &str, supersede_s: Option<u8>, ask: Ask) -> Result<Issued, Refused> {
        let subject = Subject::Handle { handle: secret(handle), supersede_s };
        self.flow.exchange(Exchange { subject, ask, possession: None, csr: None }).await
    }

    pub async fn caller(&self, bearer: &str) -> Caller {
        self.flow.caller(&Shown { secret: secret(bearer), bound: false, possession: None }).await.unwrap()
    }

    /// As the local operator sees it.
    pub async fn introspect(&self, token: &str) -> Option<Introspected> {
        self.flow.introspect(&OPERATOR, &secret(token)).await.unwrap()
    }

    pub async fn active(&self, token: &str) -> bool {
        self.introspect(token).await.is_some()
    }

    pub async fn end(&self, handle: &str, task: TaskId) -> Result<EndAnswer, Refused> {
        self.flow.end_task(&self.caller(handle).await, task, None, None).await
    }

    pub async fn revoke(&self, task: TaskId, block: Option<bool>) -> Result<EndAnswer, Refused> {
        self.flow.end_task(&OPERATOR, task, Some("an operator said so".into()), block).await
    }

    /// What the writer has counted, as `/metrics` shows it.
    pub fn counted(&self) -> String {
        self.counts.handle().render()
    }

    /// The ledger against the rows.
    pub fn verify(&self) -> Report {
        verify(&self.reader, self.clock_now())
    }

    /// The broker's door as a connection over TCP sees it.
    pub fn door(&self) -> Router {
        router(Front { flow: self.flow.clone(), door: Door::new(ISSUER, "test") })
    }

    pub async fn call(&self, request: Request<Body>) -> Answer {
        let response = self.door().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        // A certificate is no text, and nobody here asks for one by its text.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status.as_u16(), headers: parts.headers, text }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that fails leaves its writer waiting; the process's end takes it along.
        drop(self.writer.take());
    }
}

/// What came back over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: axum::http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub fn head(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A request over TCP, with a secret in its `Authorization` header or none.
pub fn get(path: &str, bearer: Option<&str>) -> Request<Body> {
    request("GET", path, bearer, None, Body::empty())
}

pub fn form(path: &str, bearer: Option<&str>, fields: &[(&str, &str)]) -> Request<Body> {
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", percent(value))).collect();
    request("POST", path, bearer, Some("application/x-www-form-urlencoded"), Body::from(pairs.join("&")))
}

/// A form body as it stands, good or bad.
pub fn raw_form(path: &str, bearer: Option<&str>, body: &str) -> Request<Body> {
    request("POST", path, bearer, Some("application/x-www-form-urlencoded"), Body::from(body.to_owned()))
}

pub fn post_json(path: &str, bearer: Option<&str>, body: &Value) -> Request<Body> {
    request("POST", path, bearer, Some("application/json"), Body::from(body.to_string()))
}

pub fn delete(path: &str, bearer: Option<&str>) -> Request<Body> {
    request("DELETE", path, bearer, None, Body::empty())
}

fn request(method: &str, path: &str, bearer: Option<&str>, media_type: Option<&str>, body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    if let Some(media_type) = media_type {
        request = request.header("content-type", media_type);
    }
    let mut request = request.body(body).unwrap();
    request.extensions_mut().insert(Peer::Tcp("192.0.2.1:4711".parse().unwrap()));
    request
}

/// The same request over the local socket.
pub fn local(mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(Peer::Local { uid: 1000 });
    request
}

pub fn new_key() -> SigningKey {
    SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap()
}

fn percent(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

pub fn verify(reader: &Reader, now: UnixMs) -> Report {
    reader.snapshot(|snapshot| ledger::verify(snapshot, now)).unwrap().unwrap()
}

struct Broker {
    flow: Flow,
    upkeep: Upkeep,
    reader: Reader,
    writer: JoinHandle<()>,
}

fn broker(
    clock: &Arc<Stepped>,
    bundle: &Arc<Text>,
    folder: Option<&TempDir>,
    strict: bool,
    sizes: Sizes,
    caps: Caps,
    counts: &Arc<PrometheusRecorder>,
) -> Result<Broker, StartError> {
    let store = match folder {
        Some(folder) => Store::open(&folder.path().join("dayfly.db"))?,
        None => Store::memory()?,
    };
    let reader = store.reader();
    let startup = Startup {
        issuer: ISSUER.into(),
        clock: Clock::Stepped(clock.clone()),
        store,
        keys_dir: folder.map(|folder| folder.path().to_owned()),
        source: bundle.clone(),
        strict_rollback: strict,
        review_grace: dayfly_domain::Span::seconds(30 * 86_400),
        list_sizes: sizes,
        allowance: allowance(caps),
        pki: Some(bundle.pki.clone()),
    };
    let (flow, writer, upkeep) = start(startup)?;
    let counts = counts.clone();
    let writer = std::thread::spawn(move || metrics::with_local_recorder(&*counts, || writer.run()));
    Ok(Broker { flow, upkeep, reader, writer })
}

fn pki(now: UnixMs) -> Pki {
    Pki::in_memory("example.org", Places { base: "http://pki.example.org".into() }, now).unwrap()
}
