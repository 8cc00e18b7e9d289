//! The story itself. Each step does one thing as its user would, over the wire, and is an error
//! when it does not come out as told.

use std::{sync::Arc, time::Duration};

use dayfly_domain::{Reason, Secret, State};
use dayfly_verifier::{Credential, Online, OnlineSettings};
use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use super::{
    page::{Page, millis},
    server::{self, Check},
};
use crate::{
    cli::{
        api::{Answer, Api, ApiError, Request, Transport, encode},
        dev::{
            broker::DevBroker,
            bundle::Told,
            home::Home,
            token::{self, Given},
        },
        failure::Failure,
        token::handle::Handle,
    },
    http::shapes::TokenAnswer,
    ledger::{self, Report},
    run::{DATABASE, accept},
    store::Reader,
    sys::{clock::Clock, files},
};

/// How long the resource server uses an answer of the broker again.
const MAX_STALE: Duration = Duration::from_secs(1);
/// What the verifier states as the worst case: a question takes 2 s at most.
const BOUND: Duration = Duration::from_secs(3);

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const EVIDENCE_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";
const FORM: &str = "application/x-www-form-urlencoded";

/// Everyone in the story.
pub struct Story {
    pub(super) broker: DevBroker,
    pub(super) home: Home,
    told: Told,
    pub(super) page: Page,
    pub(super) clock: Clock,
}

/// What the CI job holds.
struct Job {
    evidence: Secret<String>,
    handle: Handle,
    answer: TokenAnswer,
}

impl Job {
    fn token(&self) -> Secret<String> {
        Secret::new(self.answer.access_token.clone())
    }
}

impl Story {
    pub fn new(broker: DevBroker, home: Home, page: Page, clock: Clock) -> Result<Self, Failure> {
        let told = broker.told()?;
        Ok(Self { broker, home, told, page, clock })
    }

    pub async fn tell(&mut self, start: Duration) -> Result<(), Failure> {
        self.broker_starts(start)?;
        self.stand_in_speaks()?;
        let job = self.job_gets_a_token().await?;
        let server = self.server_accepts(&job).await?;
        self.operator_looks(&job).await?;
        self.evidence_is_used_up(&job).await?;
        let ended = self.task_ends(&job).await?;
        self.everyone_refuses(&job, &server, ended).await?;
        self.job_is_killed().await?;
        Box::pin(self.service_has_a_certificate()).await?;
        self.ledger_is_proven()?;
        self.close_the_book()
    }

    /// Drains, and lets go of the folder.
    pub async fn close(self) {
        self.broker.running.stop().await;
    }

    fn broker_starts(&mut self, took: Duration) -> Result<(), Failure> {
        let Told { rows, tests, .. } = &self.told;
        let what = format!("starts: its bundle has {rows} rows, its {tests} tests pass");
        self.page.step("broker", &what, Some(took))?;
        self.page.more(&format!("{} · SQLite on disk", self.broker.addresses.issuer_url()))
    }

    fn stand_in_speaks(&mut self) -> Result<(), Failure> {
        let played = &self.told.played;
        self.page.step("stand-in", &format!("plays the CI platform, the bundle's `{}`", played.name), None)?;
        self.page.more(&format!("{} · the broker finds its keys there", played.url))
    }

    async fn job_gets_a_token(&mut self) -> Result<Job, Failure> {
        let evidence = self.evidence()?;
        let (handle, api) = (Handle::make()?, Api::new(self.to_broker()?, None));
        let started = Instant::now();
        let answer = self.exchange(&api, &evidence, &handle).await;
        let took = started.elapsed();
        let answer = answer.map_err(|error| error.failure("the job got no token"))?;
        self.page.step("CI job", "shows its OIDC token, gets one task's credential", Some(took))?;
        let detail = answer.authorization_details.as_ref().and_then(|details| details.first());
        let detail = detail.ok_or_else(|| wrong("the answer does not say what was granted"))?;
        let life_s = answer.expires_in.unwrap_or_default();
        self.page.more(&format!("{} · task `{}`, \"{}\"", answer.task_id, detail.template, detail.purpose))?;
        let lease = answer.lease_id.ok_or_else(|| wrong("the answer names no lease"))?;
        self.page.more(&format!("{lease} · good for {life_s} s"))?;
        self.page.more(&format!("at {}", detail.locations.join(" ")))?;
        self.page.more(&format!("for {}", detail.actions.join(", ")))?;
        Ok(Job { evidence, handle, answer })
    }

    async fn exchange(&self, api: &Api, evidence: &Secret<String>, handle: &Handle) -> Result<TokenAnswer, ApiError> {
        let task = self.told.sample.as_ref().map(|sample| sample.task.to_string()).unwrap_or_default();
        let pairs = [
            ("grant_type", GRANT_TYPE),
            ("subject_token_type", EVIDENCE_TYPE),
            ("subject_token", evidence.expose()),
            ("task_control_s256", &handle.s256()),
            ("scope", &task),
        ];
        api.exchange(&pairs).await
    }

    async fn server_accepts(&mut self, job: &Job) -> Result<Transport, Failure> {
        let server = self.start_server(job).await?;
        let started = Instant::now();
        let answer = call(&server, &job.token()).await?;
        let took = started.elapsed();
        expect(answer.status == 200, || format!("the resource server answered {}", answer.status))?;
        self.page.step("server", "verifies the token, asks the broker, lets it in", Some(took))?;
        self.page.more(&format!("caller: {}", String::from_utf8_lossy(&answer.body)))?;
        Ok(server)
    }

    /// One that asks the broker about each token.
    async fn start_server(&mut self, job: &Job) -> Result<Transport, Failure> {
        let detail = job.answer.authorization_details.as_ref().and_then(|details| details.first());
        let audience = detail.and_then(|detail| detail.locations.first()).cloned().unwrap_or_default();
        let action = detail.and_then(|detail| detail.actions.first()).cloned().unwrap_or_default();
        let settings = OnlineSettings {
            issuer: self.broker.addresses.issuer_url(),
            audience,
            ca_pem: Some(self.ca_pem()),
            credential: Credential::BearerFile(self.home.operator_token_file()),
            max_stale: MAX_STALE,
        };
        let online = Online::new(settings).await.map_err(|error| no_server(&error))?;
        self.serve(Check::Asks(Arc::new(online)), action).await
    }

    /// On a port of its own, under the same authority.
    pub(super) async fn serve(&mut self, check: Check, action: String) -> Result<Transport, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| no_server(&error))?;
        let address = listener.local_addr().map_err(|error| no_server(&error))?;
        let door = accept::Door::new(server::router(check, action));
        let running = &mut self.broker.running;
        let served = accept::serve_tls(listener, self.broker.tls.clone(), door, running.stopper());
        running.also("resource server", served);
        Transport::https(&format!("https://{address}"), Some(self.ca_pem())).map_err(|error| no_server(&error))
    }

    async fn operator_looks(&mut self, job: &Job) -> Result<(), Failure> {
        let api = Api::new(self.to_broker()?, Some(self.operator_token()?));
        let started = Instant::now();
        let leases = api.leases(&[("task", job.answer.task_id.to_string())], 10).await;
        let took = started.elapsed();
        let leases = leases.map_err(|error| error.failure("the operator sees nothing"))?.items;
        let [lease] = leases.as_slice() else { return Err(wrong("the operator sees another number of leases")) };
        expect(lease.state == State::Active, || format!("the lease is {}", lease.state))?;
        self.page.step("operator", "lists what is live: one lease, and who owns it", Some(took))?;
        self.page.more(&format!("owner {} · {} · entitled by row `{}`", lease.owner, lease.workload, lease.row))
    }

    async fn evidence_is_used_up(&mut self, job: &Job) -> Result<(), Failure> {
        let (other, api) = (Handle::make()?, Api::new(self.to_broker()?, None));
        let started = Instant::now();
        let again = self.exchange(&api, &job.evidence, &other).await;
        let took = started.elapsed();
        let reason = again.err().and_then(|error| error.reason());
        expect(reason == Some(Reason::Replayed), || "stolen evidence was not refused as replayed".to_owned())?;
        self.page.step("thief", "shows the same OIDC token again: E-REPLAYED", Some(took))
    }

    /// When it was ended.
    async fn task_ends(&mut self, job: &Job) -> Result<Instant, Failure> {
        let bearer = Secret::new(job.handle.expose().to_owned());
        let api = Api::new(self.to_broker()?, Some(bearer));
        let started = Instant::now();
        let ended = api.end_task(job.answer.task_id, None, None).await;
        let took = started.elapsed();
        let ended = ended.map_err(|error| error.failure("the task did not end"))?;
        expect(ended.leases_ended == 1, || format!("{} leases ended", ended.leases_ended))?;
        self.page.step("CI job", "is done, ends its task by handle: one lease ended", Some(took))?;
        for known in &ended.revocation {
            let knows = if known.known { "knows already" } else { "does not know yet" };
            self.page.more(&format!("channel {} {knows}", known.channel))?;
        }
        Ok(started)
    }

    async fn everyone_refuses(&mut self, job: &Job, server: &Transport, ended: Instant) -> Result<(), Failure> {
        let started = Instant::now();
        let active = self.introspect(&job.token()).await?;
        expect(active == json!({ "active": false }), || "introspection still says active".to_owned())?;
        self.page.step("broker", "introspection: {\"active\": false}", Some(started.elapsed()))?;
        while call(server, &job.token()).await?.status != 401 {
            expect(ended.elapsed() < BOUND, || format!("the resource server honours it after {} s", BOUND.as_secs()))?;
            sleep(Duration::from_millis(10)).await;
        }
        let refused = ended.elapsed();
        self.page.step("server", "refuses the token; measured from the end on", Some(refused))?;
        let (stale, bound) = (millis(MAX_STALE), millis(BOUND));
        self.page.more(&format!("it may reuse an answer for {stale}; stated worst case {bound}"))
    }

    pub(super) async fn introspect(&self, token: &Secret<String>) -> Result<Value, Failure> {
        let body = Some((FORM, Secret::new(format!("token={}", encode(token.expose())))));
        let authorization = Some(Secret::new(format!("Bearer {}", self.operator_token()?.expose())));
        let request = Request { method: Method::POST, path: "/oauth2/introspect".to_owned(), authorization, body };
        let answer = self.to_broker()?.send(&request).await;
        let answer = answer.map_err(|error| wrong("introspection gave no answer").because(error))?;
        serde_json::from_slice(&answer.body).map_err(|_| wrong("the answer to introspection is not JSON"))
    }

    pub(super) fn evidence(&self) -> Result<Secret<String>, Failure> {
        let sample = self.told.sample.as_ref().ok_or_else(|| wrong("the bundle has no task to play"))?;
        let keys = &self.broker.keys;
        let evidence =
            token::evidence(Given::of(&sample.claims), &self.told.played, &keys.stand_in, self.clock.wall(), &[]);
        evidence.map(Secret::new).map_err(|error| wrong("no evidence").because(error))
    }

    fn ledger_is_proven(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        let report = self.verify().map_err(|error| wrong("the ledger cannot be read").because(error))?;
        let took = started.elapsed();
        let clean = report.problems.is_empty() && report.more == 0;
        expect(clean, || format!("the ledger is not whole: {}", report.problems.join("; ")))?;
        let what = format!("is whole: {} events, none changed, none missing", report.events);
        self.page.step("ledger", &what, Some(took))?;
        self.page.more(&format!("root {}", report.root))
    }

    fn verify(&self) -> Result<Report, crate::store::StoreError> {
        let reader = Reader::open(&self.home.dir().join(DATABASE))?;
        reader.snapshot(|store| ledger::verify(store, self.clock.wall()))?
    }

    fn close_the_book(&self) -> Result<(), Failure> {
        self.page.line("")?;
        self.page.line("Nothing is left behind. Next, a broker of your own to play with:")?;
        self.page.line("  dayfly dev --state ./dayfly-dev")
    }

    pub(super) fn to_broker(&self) -> Result<Transport, Failure> {
        let transport = Transport::https(&self.broker.addresses.issuer_url(), Some(self.ca_pem()));
        transport.map_err(|error| wrong("the broker cannot be spoken to").because(error))
    }

    pub(super) fn ca_pem(&self) -> Vec<u8> {
        self.broker.keys.authority.cert_pem.clone().into_bytes()
    }

    fn operator_token(&self) -> Result<Secret<String>, Failure> {
        let unread = |error| wrong("the operator's token cannot be read").because(error);
        let bytes = files::read_capped(&self.home.operator_token_file()).map_err(unread)?;
        crate::cli::door::secret_text(bytes, "the operator's token")
    }
}

/// The job calls the resource server with its token.
pub(super) async fn call(server: &Transport, token: &Secret<String>) -> Result<Answer, Failure> {
    let authorization = Some(Secret::new(format!("Bearer {}", token.expose())));
    let request = Request { method: Method::GET, path: "/".to_owned(), authorization, body: None };
    server.send(&request).await.map_err(|error| wrong("the resource server gave no answer").because(error))
}

pub(super) fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(wrong(&otherwise())) }
}

pub(super) fn no_server(error: &dyn std::fmt::Display) -> Failure {
    wrong("the resource server does not start").because(error)
}

/// The story did not come out as told.
pub fn wrong(what: &str) -> Failure {
    Failure::failed(format!("the demo went wrong: {what}"))
}
