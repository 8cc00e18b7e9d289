//! What a broker costs, measured from outside: a release broker of its own, evidence signed
//! before the clock starts, every answer checked. In: a scenario and a load. Out: one report.
//!
//! It is a client like any other and is never linked into the product; of the broker's library it
//! uses the shapes of the wire, and policy, which it measures in this process.

pub mod args;
mod broker;
mod certificate;
mod cfssl;
mod client;
pub mod crl;
mod evidence;
mod flood;
mod folder;
pub mod leaves;
pub mod list;
pub mod load;
mod memory;
mod ocsp;
mod origin;
mod owner;
pub mod policy;
mod report;
mod scenario;
mod serials;
mod sys;

use std::path::PathBuf;

use crate::{
    broker::Broker,
    report::{Before, Times},
    scenario::Prepared,
};
pub use crate::{
    cfssl::{CfsslReport, cfssl},
    flood::{FloodReport, UNKNOWN, flood},
    load::Load,
    memory::{MemoryReport, memory},
    owner::{OwnerReport, owner},
    report::{Machine, Report},
    scenario::Scenario,
    serials::{SerialsReport, serials},
};

/// What to measure, and against which broker.
#[derive(Debug, Clone)]
pub struct Plan {
    pub scenario: Scenario,
    pub load: Load,
    /// Operations that are measured.
    pub n: usize,
    /// Operations before the clock starts.
    pub warm_up: usize,
    /// The program that is started; ended again with the measurement.
    pub broker: PathBuf,
    /// The log filter of the broker.
    pub log: String,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Broker(#[from] broker::BrokerError),
    #[error("{0}")]
    Evidence(#[from] evidence::EvidenceError),
    #[error("{0}")]
    Client(#[from] client::ClientError),
    #[error("the preparation failed: {0}")]
    Prepare(String),
    #[error("the platform cannot be played: {0}")]
    Origin(std::io::Error),
    #[error("`cfssl` cannot be held against it: {0}")]
    Other(String),
    #[error("the process table cannot be read: {0}")]
    Process(std::io::Error),
}

/// Starts a broker, loads it, ends it.
pub async fn measure(plan: &Plan) -> Result<Report, Fault> {
    let broker = match plan.scenario.certifies() {
        true => Broker::certifying(&plan.broker, &plan.log).await?,
        false => Broker::start(&plan.broker, &plan.log).await?,
    };
    let measured = measure_with(plan, &broker).await;
    broker.stop().await;
    measured
}

async fn measure_with(plan: &Plan, broker: &Broker) -> Result<Report, Fault> {
    let total = plan.n + plan.warm_up;
    let prepared = Prepared::make(plan.scenario, broker, total, plan.load.connections()).await?;
    let visitors = prepared.visitors(broker, plan.load.connections()).await?;
    let warm = load::closed(visitors, 0..plan.warm_up).await;
    let before = Before::read(broker.pid()).map_err(Fault::Process)?;
    let (outcome, _) = match plan.load {
        Load::Closed { .. } => load::closed(warm.1, plan.warm_up..total).await,
        Load::Open { rate, .. } => load::open(warm.1, plan.warm_up..total, rate, sys::pace).await,
    };
    let times = Times::of(&outcome.latencies_ns);
    let mut report = before.report(broker.pid(), outcome.took, outcome.done).map_err(Fault::Process)?;
    report.scenario = plan.scenario.name().to_owned();
    report.mode = plan.load.name().to_owned();
    report.n = plan.n;
    report.errors = outcome.errors;
    report.first_error = outcome.first_error;
    report.connections = plan.load.connections();
    report.asked_rate_per_s = plan.load.rate();
    report.times = times;
    report.machine = Machine::here(&plan.broker);
    Ok(report)
}
