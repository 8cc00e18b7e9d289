//! What live leases take of the broker's memory: resident, with all that goes with a lease (its task, its
//! evidence that is used up, pages of the store), as issued, and after a new start on the same store.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    Fault, Plan,
    broker::Broker,
    client::Connection,
    report::Machine,
    scenario::{exchange_all, is_active, sign},
    sys::Usage,
};

/// Leases that must still live after the new start.
const SAMPLES: usize = 16;

/// One measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryReport {
    pub scenario: String,
    /// Live leases, each with its task.
    pub n: usize,
    pub errors: usize,
    pub rss_kb_empty: u64,
    pub rss_kb_issued: u64,
    pub rss_kb_started_again: u64,
    /// Beyond the empty broker.
    pub bytes_per_lease_issued: f64,
    pub bytes_per_lease_started_again: f64,
    /// From the signal that ends it until it serves again.
    pub started_again_ms: f64,
    pub machine: Machine,
}

/// Starts a broker, has it issue, starts it again, ends it.
pub async fn memory(plan: &Plan) -> Result<MemoryReport, Fault> {
    let mut broker = Broker::start(&plan.broker, &plan.log).await?;
    let measured = held(plan, &mut broker).await;
    broker.stop().await;
    measured
}

async fn held(plan: &Plan, broker: &mut Broker) -> Result<MemoryReport, Fault> {
    let evidence = sign(broker, plan.n).await?;
    // A first start makes keys and a store: what it leaves behind is nothing that leases take.
    broker.start_again(&plan.broker, &plan.log).await?;
    let empty = rss_kb(broker)?;
    let live = exchange_all(broker, evidence, plan.load.connections()).await?;
    let issued = rss_kb(broker)?;
    let began = Instant::now();
    broker.start_again(&plan.broker, &plan.log).await?;
    let started_again_ms = began.elapsed().as_secs_f64() * 1e3;
    let started_again = rss_kb(broker)?;
    let mut errors = 0;
    let mut probe = Connection::on_socket(broker).await?;
    for sample in live.iter().step_by(live.len().div_ceil(SAMPLES)) {
        let active = is_active(&mut probe, None, sample).await.map_err(Fault::Prepare)?;
        errors += usize::from(!active);
    }
    let each = |kb: u64| kb.saturating_sub(empty) as f64 * 1024.0 / live.len().max(1) as f64;
    Ok(MemoryReport {
        scenario: "memory".to_owned(),
        n: live.len(),
        errors,
        rss_kb_empty: empty,
        rss_kb_issued: issued,
        rss_kb_started_again: started_again,
        bytes_per_lease_issued: each(issued),
        bytes_per_lease_started_again: each(started_again),
        started_again_ms,
        machine: Machine::here(&plan.broker),
    })
}

fn rss_kb(broker: &Broker) -> Result<u64, Fault> {
    Usage::of(broker.pid()).map(|usage| usage.rss_kb).map_err(Fault::Process)
}

impl MemoryReport {
    /// One line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a report has only plain members")
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let row = |kb: u64, each: f64| format!("{kb} kB, {each:.0} bytes a lease");
        let rows = [
            ("leases", format!("{}, of the samples not active {}", self.n, self.errors)),
            ("empty", format!("{} kB", self.rss_kb_empty)),
            ("issued", row(self.rss_kb_issued, self.bytes_per_lease_issued)),
            ("started again", row(self.rss_kb_started_again, self.bytes_per_lease_started_again)),
            ("a new start", format!("{:.0} ms", self.started_again_ms)),
            ("build", self.machine.build.clone()),
        ];
        for (name, value) in rows {
            // A string takes whatever is written to it.
            let _ = writeln!(text, "{name:<18} {value}");
        }
        text
    }
}
