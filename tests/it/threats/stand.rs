//! A broker that is watched while bad requests come in: what it answered, kept, counted and logged.

use std::{
    io,
    sync::{Arc, Mutex},
};

use axum::{body::Body, http::Request};
use dayfly::flow::EventFilter;
use dayfly_domain::EventId;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use serde_json::Value;

use super::forge::Forge;
use crate::world::{Answer, BUNDLE, Job, OPERATOR, World, form};

pub const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
pub const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
pub const CONTROL: &str = "urn:dayfly:token-type:task-control";
/// Stands in every forged token; it must come out nowhere.
pub const CANARY: &str = "canary-6f1d2c";
/// Whose evidence may be signed with any algorithm there is.
pub const MULTI: &str = "https://multi.example.org";

/// A bundle with an issuer of many algorithms, whose keys the test holds.
pub fn bundle() -> String {
    let profile = r#"
[profile.multi]
algs      = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
typ       = ["JWT", ""]
max_age   = "10m"
principal = ["sub"]

[profile.multi.claims]
sub = { at = "/sub", type = "string", required = true }
org = { at = "/org", type = "string", required = true }

[issuer.multi]
profile = "multi"
owner   = "team-shop"
url     = "https://multi.example.org"
keys    = { jwks_file = "multi.json" }
pin     = { org = "acme" }

[[task.deploy.allow]]
id     = "multi-deploys"
issuer = "multi"
claims = { sub = "shop" }
"#;
    format!("{BUNDLE}{profile}")
}

/// What a refusal says: status, OAuth error, reason.
pub type Said = (u16, &'static str, &'static str);

pub const SIGNATURE: Said = (400, "invalid_request", "E-SIGNATURE");
pub const ISSUER_UNKNOWN: Said = (400, "invalid_request", "E-ISSUER");
pub const AUDIENCE: Said = (400, "invalid_request", "E-AUDIENCE");
pub const EXPIRED: Said = (400, "invalid_request", "E-EXPIRED");
pub const CLAIM: Said = (400, "invalid_request", "E-CLAIM");
pub const REQUEST: Said = (400, "invalid_request", "E-REQUEST");

/// Tasks, leases and events there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub tasks: u64,
    pub leases: u64,
    pub events: u64,
    pub denied: usize,
}

pub struct Stand {
    pub world: World,
    pub forge: Forge,
    metrics: PrometheusHandle,
    log: Log,
    _counting: metrics::LocalRecorderGuard<'static>,
    _logging: tracing::subscriber::DefaultGuard,
}

/// Everything that was logged.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stand {
    pub fn new() -> Self {
        Self::of(&bundle())
    }

    pub fn of(bundle: &str) -> Self {
        let forge = Forge::new();
        Self::with(World::with_files(bundle, &[("multi.json", &forge.jwks())]), forge)
    }

    /// With these as the keys of `multi`.
    pub fn trusting(jwks: &Value) -> Self {
        Self::with(World::with_files(&bundle(), &[("multi.json", jwks)]), Forge::new())
    }

    pub fn with(world: World, forge: Forge) -> Self {
        // A guard borrows its recorder; a test binary may keep a few of them for ever.
        let recorder: &'static PrometheusRecorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
        let log = Log::default();
        let made = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || made.clone())
            .finish();
        Self {
            world,
            forge,
            metrics: recorder.handle(),
            log,
            _counting: metrics::set_default_local_recorder(recorder),
            _logging: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The sum of a counter over all its series with `part` in their labels.
    pub fn counted(&self, counter: &str, part: &str) -> u64 {
        let text = self.metrics.render();
        let series = text.lines().filter(|line| line.starts_with(counter) && line.contains(part));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    pub fn metrics(&self) -> String {
        self.metrics.render()
    }

    pub fn log(&self) -> String {
        String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap()
    }

    /// After everything that waits is written. Loading the same bundle goes through the writer
    /// and leaves nothing.
    pub async fn tally(&self) -> Tally {
        self.world.flow.load_bundle("test").await.unwrap();
        self.written().await
    }

    /// What is written already.
    async fn written(&self) -> Tally {
        let report = self.world.verify();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        let denied = self.events("denied").await.len();
        Tally { tasks: report.tasks, leases: report.leases, events: report.events, denied }
    }

    /// Bodies of the events of one type, newest first.
    pub async fn events(&self, kind: &str) -> Vec<Value> {
        let events = self.world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items;
        events.into_iter().map(|event| event.body).filter(|body| body["type"] == kind).map(Value::Object).collect()
    }

    pub async fn exchange(&self, fields: &[(&str, &str)]) -> Answer {
        self.world.call(exchange(fields)).await
    }

    /// Presents a token as evidence for `deploy`.
    pub async fn present(&self, token: &str) -> Answer {
        self.exchange(&evidence(token, "deploy")).await
    }

    pub async fn opens(&self, token: &str) -> Value {
        let answer = self.present(token).await;
        assert_eq!(answer.status, 200, "a positive control: {}", answer.text);
        answer.json()
    }

    /// Each of these tokens is refused as evidence like this, and leaves nothing behind but a
    /// count. `what` names a token in the message of a failure.
    pub async fn all_refused(&self, said: Said, tokens: impl IntoIterator<Item = (String, String)>) {
        self.refused_as(tokens.into_iter().map(|(what, token)| (what, token, said))).await;
    }

    pub async fn refused_as(&self, tokens: impl IntoIterator<Item = (String, String, Said)>) {
        let before = self.written().await;
        let counted = self.counted("dayfly_evidence_refused_total", "");
        let mut presented = 0;
        for (what, token, said) in tokens {
            let answer = self.present(&token).await;
            refusal(&answer, said, &what);
            silent(&answer.text, &token, &what);
            assert!(answer.json().get("decision_id").is_none(), "{what}: garbage and strangers leave no event");
            presented += 1;
        }
        assert!(presented > 0, "nothing was presented");
        assert_eq!(self.tally().await, before, "no task, no lease, no event");
        assert_eq!(self.counted("dayfly_evidence_refused_total", "") - counted, presented);
        let log = self.log();
        assert!(!log.contains(CANARY) && !log.contains("eyJ"), "{log}");
        assert!(!self.metrics().contains(CANARY));
    }

    /// Of a known workload: these requests are refused, each with a decision that can be looked
    /// up, and nothing is issued.
    pub async fn denied(&self, said: Said, requests: impl IntoIterator<Item = Request<Body>>) {
        let before = self.tally().await;
        let (counted, mut ids) = (self.counted("dayfly_denied_total", said.2), Vec::new());
        for request in requests {
            let answer = self.world.call(request).await;
            refusal(&answer, said, "of a known workload");
            let id: EventId = answer.json()["decision_id"].as_str().expect("a decision").parse().unwrap();
            ids.push(id);
        }
        assert_eq!(self.counted("dayfly_denied_total", said.2) - counted, ids.len() as u64);
        let (after, mut written) = (self.tally().await, 0);
        for id in ids {
            // From the fourth of a kind on they share an event, written when its minute is over.
            let Ok(event) = self.world.flow.event(&OPERATOR, id).await else { continue };
            assert_eq!((&event.body["type"], &event.body["reason"]), (&"denied".into(), &said.2.into()));
            written += 1;
        }
        assert_eq!((after.tasks, after.leases), (before.tasks, before.leases));
        assert_eq!((after.denied - before.denied, after.events - before.events), (written, written as u64));
    }

    /// Evidence of a job, with a canary in a claim that no profile declares.
    pub fn evidence(&mut self, job: &Job) -> String {
        self.world.evidence(&job.clone().with("note", CANARY))
    }
}

/// A refusal of an OAuth endpoint: what it says, and that it says no more.
pub fn refusal(answer: &Answer, (status, error, reason): Said, what: &str) {
    let body = answer.json();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    assert_eq!((answer.status, &*text("error"), &*text("reason")), (status, error, reason), "{what}");
    assert_eq!(answer.head("cache-control"), "no-store", "{what}");
    assert!(!text("request_id").is_empty(), "{what}");
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    assert!(text("error_description").bytes().all(plain), "{what}");
    for member in ["access_token", "task_control", "task_id", "lease_id"] {
        assert!(body.get(member).is_none(), "{what}: `{member}`");
    }
}

/// Neither the canary nor any part of the token is in the answer.
fn silent(answer: &str, token: &str, what: &str) {
    assert!(!answer.contains(CANARY), "{what}");
    for part in token.split('.').filter(|part| part.len() >= 12).take(8) {
        assert!(!answer.contains(part), "{what}: {answer}");
    }
}

pub fn exchange(fields: &[(&str, &str)]) -> Request<Body> {
    let fields: Vec<_> = [("grant_type", EXCHANGE)].into_iter().chain(fields.iter().copied()).collect();
    form("/oauth2/token", None, &fields)
}

pub fn evidence<'a>(token: &'a str, scope: &'a str) -> [(&'a str, &'a str); 3] {
    [("subject_token", token), ("subject_token_type", JWT), ("scope", scope)]
}

/// Any token as evidence of a kind (`jwt`, `id_token`).
pub fn exchange_of(token: &str, kind: &str) -> Request<Body> {
    let kind = format!("urn:ietf:params:oauth:token-type:{kind}");
    exchange(&[("subject_token", token), ("subject_token_type", &kind), ("scope", "deploy")])
}

/// Refused as bad evidence, whichever way, and nothing of it is said again.
pub fn refused_quietly(answer: &Answer, token: &str, what: &str) {
    let reason = answer.json()["reason"].as_str().unwrap_or_default().to_owned();
    let bad = ["E-SIGNATURE", "E-ISSUER", "E-REQUEST"].contains(&&*reason);
    assert!(answer.status == 400 && bad, "{what}: {} {}", answer.status, answer.text);
    silent(&answer.text, token, what);
}
