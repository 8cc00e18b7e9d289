//! What ten thousand tokens with unknown key ids do to valid exchanges. The issuer is found by discovery,
//! as in earnest, so that a broker could be made to fetch for them.
//!
//! Each round has three parts on one broker: exchanges alone, unknown key ids alone, both at once. The cost
//! of a valid exchange under the flood is what both took, less what the unknown key ids took alone.

use std::{fmt::Write, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Fault, Plan,
    broker::Broker,
    client::{Connection, FORM},
    load::{self, Outcome, Visit},
    origin::Origin,
    report::{Machine, Times},
    scenario,
    sys::Usage,
};

/// Tokens with an unknown key id, in each part that has them.
pub const UNKNOWN: usize = 10_000;
const ROUNDS: usize = 3;

/// One measurement; of rounds, the median.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FloodReport {
    pub scenario: String,
    /// Valid exchanges, all rounds.
    pub n: usize,
    /// Tokens with an unknown key id, all rounds.
    pub unknown: usize,
    pub errors: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    pub connections: usize,
    /// How often the issuer's keys were asked for.
    pub fetches: usize,
    pub exchange_cpu_us: f64,
    pub unknown_cpu_us: f64,
    pub exchange_under_flood_cpu_us: f64,
    /// Of the last but one: 1.0 is no difference.
    pub ratio: f64,
    pub exchange: Times,
    pub exchange_under_flood: Times,
    pub machine: Machine,
}

/// Starts a broker with an issuer of its own, floods it, ends it. `unknown`: by default [`UNKNOWN`].
pub async fn flood(plan: &Plan, unknown: usize) -> Result<FloodReport, Fault> {
    let origin = Origin::start().await.map_err(Fault::Origin)?;
    let broker = Broker::discovering(&plan.broker, &plan.log, &origin).await?;
    let measured = Flood { plan, broker: &broker, unknown }.measure(&origin).await;
    broker.stop().await;
    measured
}

struct Flood<'a> {
    plan: &'a Plan,
    broker: &'a Broker,
    unknown: usize,
}

/// What a part took.
struct Part {
    cpu: Duration,
    latencies_ns: Vec<u64>,
}

impl Flood<'_> {
    async fn measure(&self, origin: &Origin) -> Result<FloodReport, Fault> {
        let (warm_up, each) = (self.plan.warm_up, (self.plan.n / (2 * ROUNDS)).max(1));
        let connections = self.plan.load.connections();
        let evidence = scenario::sign(self.broker, warm_up + 2 * ROUNDS * each).await?;
        let stolen = evidence.first().cloned().unwrap_or_default();
        let mut valid = scenario::exchanging(self.broker, evidence, connections).await?;
        let mut unknown = Vec::new();
        for _ in 0..connections {
            let connection = Connection::over_tls(self.broker).await?;
            unknown.push(Unknown { connection, token: stolen.clone() });
        }
        let mut report = FloodReport::default();
        let (outcome, after) = load::closed(valid, 0..warm_up).await;
        valid = after;
        report.add(outcome);
        let (mut alone, mut flooded, mut ratios, mut costs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut next = warm_up;
        for round in 0..ROUNDS {
            let number = round * 2 * self.unknown;
            let (first, second) = (next..next + each, next + each..next + 2 * each);
            next = second.end;
            let before = self.cpu()?;
            let (outcome, after) = load::closed(valid, first).await;
            let exchanges = Part { cpu: self.cpu()? - before, latencies_ns: report.add(outcome) };
            let before = self.cpu()?;
            let (outcome, others) = load::closed(unknown, number..number + self.unknown).await;
            let strangers = self.cpu()? - before;
            report.add(outcome);
            let before = self.cpu()?;
            let ((outcome, after), (flood, others)) = tokio::join!(
                load::closed(after, second),
                load::closed(others, number + self.unknown..number + 2 * self.unknown)
            );
            let both = Part { cpu: self.cpu()? - before, latencies_ns: report.add(outcome) };
            report.add(flood);
            (valid, unknown) = (after, others);
            let cost = |cpu: Duration, count: usize| cpu.as_secs_f64() * 1e6 / count as f64;
            let under = cost(both.cpu.saturating_sub(strangers), each);
            costs.push([cost(exchanges.cpu, each), cost(strangers, self.unknown), under]);
            ratios.push(under / cost(exchanges.cpu, each));
            alone.extend(exchanges.latencies_ns);
            flooded.extend(both.latencies_ns);
        }
        let column = |at: usize| median(costs.iter().map(|costs| costs[at]).collect());
        Ok(FloodReport {
            scenario: "flood of unknown key ids".to_owned(),
            n: 2 * ROUNDS * each,
            unknown: 2 * ROUNDS * self.unknown,
            connections,
            fetches: origin.fetches(),
            exchange_cpu_us: column(0),
            unknown_cpu_us: column(1),
            exchange_under_flood_cpu_us: column(2),
            ratio: median(ratios),
            exchange: Times::of(&alone),
            exchange_under_flood: Times::of(&flooded),
            machine: Machine::here(&self.plan.broker),
            ..report
        })
    }

    fn cpu(&self) -> Result<Duration, Fault> {
        Usage::of(self.broker.pid()).map(|usage| usage.cpu).map_err(Fault::Process)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Shows one token under ever new key ids.
struct Unknown {
    connection: Connection,
    token: String,
}

impl Visit for Unknown {
    async fn visit(&mut self, index: usize) -> Result<(), String> {
        let header = json!({ "alg": "RS256", "kid": format!("nobody-{index}"), "typ": "JWT" });
        let rest = self.token.split_once('.').map_or("", |(_, rest)| rest);
        let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
        let answer = self.connection.post("/oauth2/token", FORM, None, scenario::exchange_form(&token)).await?;
        let body: Value = serde_json::from_slice(&answer.body_of(400)?).map_err(|error| error.to_string())?;
        if body["reason"] == "E-SIGNATURE" { Ok(()) } else { Err(format!("refused with {}", body["reason"])) }
    }
}

impl FloodReport {
    fn add(&mut self, outcome: Outcome) -> Vec<u64> {
        self.errors += outcome.errors;
        self.first_error = self.first_error.take().or(outcome.first_error);
        outcome.latencies_ns
    }

    /// One line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a report has only plain members")
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let rows = [
            ("requests", format!("{} valid, {} unknown, of them wrong {}", self.n, self.unknown, self.errors)),
            ("fetches", format!("{} of the issuer's keys", self.fetches)),
            ("an exchange", format!("{:.1} us of CPU, p99 {:.0} us", self.exchange_cpu_us, self.exchange.p99_us)),
            ("an unknown key id", format!("{:.1} us of CPU", self.unknown_cpu_us)),
            (
                "under the flood",
                format!(
                    "{:.1} us of CPU an exchange, p99 {:.0} us",
                    self.exchange_under_flood_cpu_us, self.exchange_under_flood.p99_us
                ),
            ),
            ("ratio", format!("{:.2}", self.ratio)),
            ("build", self.machine.build.clone()),
        ];
        for (name, value) in rows {
            // A string takes whatever is written to it.
            let _ = writeln!(text, "{name:<18} {value}");
        }
        if let Some(what) = &self.first_error {
            let _ = writeln!(text, "{:<18} {what}", "first wrong answer");
        }
        text
    }
}
