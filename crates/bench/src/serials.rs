//! Certificates for one key, as many as are asked for: each by a whole exchange with a broker, durable, and the
//! serial number read from the certificate that came back. Whether any two are the same.
//!
//! Each handle renews so often; the request, and so the key, is the same for all of them.

use std::fmt::Write;

use dayfly::http::shapes::TokenAnswer;
use serde::{Deserialize, Serialize};

use crate::{
    Fault, Plan,
    broker::Broker,
    certificate::{Csr, serial_of},
    client::Connection,
    load::{self, Visit},
    report::{Before, Machine},
    scenario::{certify_all, sign},
};

/// Certificates that one task has.
const EACH_TASK: usize = 100;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SerialsReport {
    pub scenario: String,
    /// Certificates, all for one key.
    pub n: usize,
    pub tasks: usize,
    /// Serial numbers among them.
    pub distinct: usize,
    pub errors: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    pub cpu_us_per_op: f64,
    pub rate_per_s: f64,
    pub rss_kb_after: u64,
    pub bytes_written: u64,
    pub machine: Machine,
}

/// Starts a broker, has it certify one key again and again, ends it.
pub async fn serials(plan: &Plan) -> Result<SerialsReport, Fault> {
    let broker = Broker::certifying(&plan.broker, &plan.log).await?;
    let measured = certified(plan, &broker).await;
    broker.stop().await;
    measured
}

async fn certified(plan: &Plan, broker: &Broker) -> Result<SerialsReport, Fault> {
    let csr = Csr::make()?;
    let tasks = plan.n.div_ceil(EACH_TASK);
    let evidence = sign(broker, tasks).await?;
    let csrs = vec![csr.clone(); tasks].into();
    let before = Before::read(broker.pid()).map_err(Fault::Process)?;
    let live = certify_all(broker, evidence, csrs, plan.load.connections()).await?;
    let mut renewing = Vec::new();
    for _ in 0..plan.load.connections() {
        let connection = Connection::over_tls(broker).await?;
        renewing.push(Renewing { connection, csr: csr.clone(), live: live.clone(), serials: Vec::new() });
    }
    let (outcome, renewing) = load::closed(renewing, 0..plan.n - tasks).await;
    let report = before.report(broker.pid(), outcome.took, plan.n).map_err(Fault::Process)?;
    let mut serials: Vec<u128> = renewing.into_iter().flat_map(|one| one.serials).collect();
    serials.extend(live.iter().filter_map(|first| serial_of(first.access_token.as_bytes())));
    let n = serials.len();
    serials.sort_unstable();
    serials.dedup();
    Ok(SerialsReport {
        scenario: "serials".to_owned(),
        n,
        tasks,
        distinct: serials.len(),
        errors: outcome.errors + (plan.n - n) + (n - serials.len()),
        first_error: outcome.first_error,
        cpu_us_per_op: report.cpu_us_per_op,
        rate_per_s: outcome.done as f64 / outcome.took.as_secs_f64(),
        rss_kb_after: report.rss_kb_after,
        bytes_written: report.bytes_written,
        machine: Machine::here(&plan.broker),
    })
}

/// Renews in turn, and keeps the serial numbers.
struct Renewing {
    connection: Connection,
    csr: Csr,
    live: std::sync::Arc<[TokenAnswer]>,
    serials: Vec<u128>,
}

impl Visit for Renewing {
    async fn visit(&mut self, index: usize) -> Result<(), String> {
        let handle = self.live[index % self.live.len()].task_control.as_deref().ok_or("there is no handle")?;
        let answer = self.csr.renew(&mut self.connection, handle).await?;
        let serial = serial_of(answer.access_token.as_bytes()).ok_or("there is no serial number")?;
        self.serials.push(serial);
        Ok(())
    }
}

impl SerialsReport {
    /// One line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a report has only plain members")
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let rows = [
            ("certificates", format!("{} for one key, by {} tasks", self.n, self.tasks)),
            ("serial numbers", format!("{} distinct", self.distinct)),
            ("wrong", self.errors.to_string()),
            ("CPU of the broker", format!("{:.1} us each", self.cpu_us_per_op)),
            ("rate", format!("{:.0}/s", self.rate_per_s)),
            ("memory", format!("{} kB after", self.rss_kb_after)),
            ("written", format!("{} bytes", self.bytes_written)),
            ("machine", self.machine.text()),
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
