//! What is asked, and what must be answered. Everything that can be made before the clock starts
//! is made here.

use std::sync::Arc;

use dayfly::http::shapes::{Beat, Ended, TokenAnswer};
use dayfly_domain::State;
use serde::Deserialize;

use crate::{
    Fault,
    broker::{Broker, now_s},
    certificate::Csr,
    client::{Connection, FORM},
    evidence::EvidenceError,
    folder::TEMPLATE,
    load::{self, Visit},
    ocsp::Asked,
};

pub(crate) const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(crate) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
pub(crate) const JSON: &str = "application/json";
/// Tokens that introspection asks about, in turn; and certificates that OCSP is asked about.
const TOKENS: usize = 1_000;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// RS256 evidence of two kilobytes for an ES256 token on a bearer target, durable.
    Exchange,
    /// A live token, by a verifier whose assertion is always the same.
    IntrospectByAssertion,
    /// A live token, by the local operator; no TLS.
    IntrospectBySocket,
    /// `/oauth2/revoke`.
    RevokeByToken,
    /// `/v1/leases/{id}/end` with the handle of the lease's task.
    RevokeByHandle,
    /// `/v1/tasks/{id}/end` with its handle.
    RevokeTask,
    /// `/v1/tasks/{id}/beat` with its handle: a task for each connection.
    Beat,
    /// RS256 evidence of two kilobytes and a request with a P-256 key of its own for a certificate, durable.
    Certificate,
    /// A live certificate, over plain http.
    Ocsp,
    /// The same with a nonce each.
    OcspWithNonce,
}

/// What is ready when the clock starts. An index of a request picks what it is about.
#[derive(Clone)]
pub(crate) enum Prepared {
    Exchange(Arc<[String]>),
    Introspect { assertion: Option<Arc<str>>, live: Arc<[TokenAnswer]> },
    RevokeByToken(Arc<[TokenAnswer]>),
    RevokeByHandle(Arc<[TokenAnswer]>),
    RevokeTask(Arc<[TokenAnswer]>),
    Beat(Arc<[TokenAnswer]>),
    Certificate { evidence: Arc<[String]>, csrs: Arc<[Csr]> },
    Ocsp { asked: Arc<[Asked]>, with_nonce: bool },
}

/// A connection with its work.
pub(crate) struct Visitor {
    connection: Connection,
    /// Which of the connections it is.
    number: usize,
    work: Prepared,
}

/// Of RFC 7662, what is checked.
#[derive(Deserialize)]
struct Introspected {
    active: bool,
    jti: Option<String>,
}

impl Scenario {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::IntrospectByAssertion => "introspect by assertion",
            Self::IntrospectBySocket => "introspect by socket",
            Self::RevokeByToken => "revoke by token",
            Self::RevokeByHandle => "revoke by handle",
            Self::RevokeTask => "revoke a task",
            Self::Beat => "beat",
            Self::Certificate => "certificate",
            Self::Ocsp => "ocsp",
            Self::OcspWithNonce => "ocsp with a nonce",
        }
    }

    /// Whether its broker issues certificates.
    pub const fn certifies(self) -> bool {
        matches!(self, Self::Certificate | Self::Ocsp | Self::OcspWithNonce)
    }
}

impl Prepared {
    pub async fn make(scenario: Scenario, broker: &Broker, total: usize, connections: usize) -> Result<Self, Fault> {
        let wanted = match scenario {
            Scenario::IntrospectByAssertion | Scenario::IntrospectBySocket => total.min(TOKENS),
            Scenario::Ocsp | Scenario::OcspWithNonce => total.min(TOKENS),
            Scenario::Exchange | Scenario::RevokeByToken | Scenario::RevokeByHandle | Scenario::RevokeTask => total,
            Scenario::Certificate => total,
            Scenario::Beat => connections,
        };
        let evidence = sign(broker, wanted).await?;
        let live = || exchange_all(broker, evidence.clone(), connections);
        Ok(match scenario {
            Scenario::Exchange => Self::Exchange(evidence),
            Scenario::IntrospectByAssertion => {
                let assertion = broker.verifier.assertion(now_s())?;
                Self::Introspect { assertion: Some(assertion.into()), live: live().await? }
            }
            Scenario::IntrospectBySocket => Self::Introspect { assertion: None, live: live().await? },
            Scenario::RevokeByToken => Self::RevokeByToken(live().await?),
            Scenario::RevokeByHandle => Self::RevokeByHandle(live().await?),
            Scenario::RevokeTask => Self::RevokeTask(live().await?),
            Scenario::Beat => Self::Beat(live().await?),
            Scenario::Certificate => Self::Certificate { csrs: Csr::make_all(evidence.len())?, evidence },
            Scenario::Ocsp | Scenario::OcspWithNonce => {
                let csrs = Csr::make_all(evidence.len())?;
                let live = certify_all(broker, evidence, csrs, connections).await?;
                let asked: Option<Arc<[_]>> = live.iter().map(Asked::about).collect();
                let asked = asked.ok_or_else(|| Fault::Prepare("a chain of another shape".to_owned()))?;
                Self::Ocsp { asked, with_nonce: scenario == Scenario::OcspWithNonce }
            }
        })
    }

    pub async fn visitors(&self, broker: &Broker, connections: usize) -> Result<Vec<Visitor>, Fault> {
        let mut visitors = Vec::new();
        for number in 0..connections {
            let connection = match self {
                Self::Introspect { assertion: None, .. } => Connection::on_socket(broker).await?,
                Self::Ocsp { .. } => Connection::plain(broker.public.unwrap_or(broker.address)).await?,
                _ => Connection::over_tls(broker).await?,
            };
            visitors.push(Visitor { connection, number, work: self.clone() });
        }
        Ok(visitors)
    }
}

/// Signing costs a millisecond each: on every core there is.
pub(crate) async fn sign(broker: &Broker, count: usize) -> Result<Arc<[String]>, Fault> {
    let now = now_s();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<_> = (0..cores)
        .map(|core| {
            let platform = broker.platform.clone();
            let range = (count * core / cores)..(count * (core + 1) / cores);
            tokio::task::spawn_blocking(move || {
                range.map(|number| platform.sign(number, now)).collect::<Result<Vec<_>, _>>()
            })
        })
        .collect();
    let mut evidence = Vec::with_capacity(count);
    for part in parts {
        evidence.extend(part.await.map_err(|_| EvidenceError::Sign)??);
    }
    Ok(evidence.into())
}

/// Connections that exchange this evidence, each piece once.
pub(crate) async fn exchanging(
    broker: &Broker,
    evidence: Arc<[String]>,
    connections: usize,
) -> Result<Vec<Visitor>, Fault> {
    Prepared::Exchange(evidence).visitors(broker, connections).await
}

/// Live leases for what ends them or asks about them.
pub(crate) async fn exchange_all(
    broker: &Broker,
    evidence: Arc<[String]>,
    connections: usize,
) -> Result<Arc<[TokenAnswer]>, Fault> {
    collect(broker, evidence, None, connections).await
}

/// The same, of certificates.
pub(crate) async fn certify_all(
    broker: &Broker,
    evidence: Arc<[String]>,
    csrs: Arc<[Csr]>,
    connections: usize,
) -> Result<Arc<[TokenAnswer]>, Fault> {
    collect(broker, evidence, Some(csrs), connections).await
}

async fn collect(
    broker: &Broker,
    evidence: Arc<[String]>,
    csrs: Option<Arc<[Csr]>>,
    connections: usize,
) -> Result<Arc<[TokenAnswer]>, Fault> {
    let mut collectors = Vec::new();
    for _ in 0..connections {
        let connection = Connection::over_tls(broker).await?;
        collectors.push(Collector { connection, evidence: evidence.clone(), csrs: csrs.clone(), issued: Vec::new() });
    }
    let (outcome, collectors) = load::closed(collectors, 0..evidence.len()).await;
    if let Some(what) = outcome.first_error {
        return Err(Fault::Prepare(what));
    }
    Ok(collectors.into_iter().flat_map(|collector| collector.issued).collect())
}

/// Exchanges and keeps what it got.
struct Collector {
    connection: Connection,
    evidence: Arc<[String]>,
    /// Of certificates.
    csrs: Option<Arc<[Csr]>>,
    issued: Vec<TokenAnswer>,
}

impl Visit for Collector {
    async fn visit(&mut self, index: usize) -> Result<(), String> {
        let (connection, evidence) = (&mut self.connection, &self.evidence[index]);
        let answer = match &self.csrs {
            Some(csrs) => csrs[index].exchange(connection, evidence).await?,
            None => exchange(connection, evidence).await?,
        };
        self.issued.push(answer);
        Ok(())
    }
}

impl Visit for Visitor {
    async fn visit(&mut self, index: usize) -> Result<(), String> {
        let connection = &mut self.connection;
        match &self.work {
            Prepared::Exchange(evidence) => exchange(connection, &evidence[index]).await.map(drop),
            Prepared::Introspect { assertion, live } => {
                introspect(connection, assertion.as_deref(), &live[index % live.len()]).await
            }
            Prepared::RevokeByToken(live) => revoke(connection, &live[index]).await,
            Prepared::RevokeByHandle(live) => end(connection, &live[index]).await,
            Prepared::RevokeTask(live) => end_task(connection, &live[index]).await,
            Prepared::Beat(live) => beat(connection, &live[self.number]).await,
            Prepared::Certificate { evidence, csrs } => {
                csrs[index].exchange(connection, &evidence[index]).await.map(drop)
            }
            Prepared::Ocsp { asked, with_nonce: false } => asked[index % asked.len()].ask(connection).await,
            Prepared::Ocsp { asked, with_nonce: true } => asked[index % asked.len()].ask_once(connection).await,
        }
    }
}

pub(crate) fn exchange_form(evidence: &str) -> String {
    format!("grant_type={EXCHANGE}&subject_token_type={JWT}&scope={TEMPLATE}&subject_token={evidence}")
}

async fn exchange(connection: &mut Connection, evidence: &str) -> Result<TokenAnswer, String> {
    let body = connection.post("/oauth2/token", FORM, None, exchange_form(evidence)).await?.body_of(200)?;
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|error| format!("no answer of ours: {error}"))?;
    let whole = answer.token_type == "Bearer"
        && answer.access_token.split('.').count() == 3
        && answer.lease_id.is_some()
        && answer.task_control.is_some();
    if whole { Ok(answer) } else { Err("a token of another shape".to_owned()) }
}

async fn introspect(connection: &mut Connection, assertion: Option<&str>, of: &TokenAnswer) -> Result<(), String> {
    match is_active(connection, assertion, of).await? {
        true => Ok(()),
        false => Err("a live token is not active".to_owned()),
    }
}

/// What introspection says of a token; of another one, it is a wrong answer.
pub(crate) async fn is_active(
    connection: &mut Connection,
    assertion: Option<&str>,
    of: &TokenAnswer,
) -> Result<bool, String> {
    let mut form = format!("token={}", of.access_token);
    if let Some(assertion) = assertion {
        form.push_str(&format!("&client_assertion_type={ASSERTION}&client_assertion={assertion}"));
    }
    let body = connection.post("/oauth2/introspect", FORM, None, form).await?.body_of(200)?;
    let answer: Introspected = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let jti = of.lease_id.map(|lease| lease.to_string());
    match answer.active && answer.jti != jti {
        true => Err(format!("active, with jti {:?} instead of {jti:?}", answer.jti)),
        false => Ok(answer.active),
    }
}

async fn revoke(connection: &mut Connection, of: &TokenAnswer) -> Result<(), String> {
    let form = format!("token={}", of.access_token);
    connection.post("/oauth2/revoke", FORM, None, form).await?.body_of(200).map(drop)
}

async fn end(connection: &mut Connection, of: &TokenAnswer) -> Result<(), String> {
    let lease = of.lease_id.ok_or("there is no lease to end")?;
    ended(connection, of, format!("/v1/leases/{lease}/end")).await
}

async fn end_task(connection: &mut Connection, of: &TokenAnswer) -> Result<(), String> {
    ended(connection, of, format!("/v1/tasks/{}/end", of.task_id)).await
}

async fn ended(connection: &mut Connection, of: &TokenAnswer, path: String) -> Result<(), String> {
    let body = connection.post(&path, JSON, of.task_control.as_deref(), "{}".to_owned()).await?.body_of(200)?;
    let ended: Ended = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    match ended.leases_ended {
        1 => Ok(()),
        other => Err(format!("{other} leases ended")),
    }
}

async fn beat(connection: &mut Connection, of: &TokenAnswer) -> Result<(), String> {
    let path = format!("/v1/tasks/{}/beat", of.task_id);
    let body = connection.post(&path, JSON, of.task_control.as_deref(), "{}".to_owned()).await?.body_of(200)?;
    let answer: Beat = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    match answer.state {
        State::Active => Ok(()),
        other => Err(format!("the task is {}", other.as_str())),
    }
}
