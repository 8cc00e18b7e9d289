//! The end of everything that one owner has, by one `POST /v1/end` of the local operator: how long until
//! it counts, until it is on the record, and until every row says so.
//!
//! The leases are real: each was exchanged for evidence of its own, each hangs on a task of its own.

use std::{fmt::Write, time::Duration};

use dayfly::http::shapes::{Block, EndRequest, EndedBySelector, Filter, List, TokenAnswer};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::{
    Fault, Plan,
    broker::Broker,
    client::Connection,
    folder::OWNER,
    report::Machine,
    scenario::{JSON, exchange_all, is_active, sign},
    sys::Usage,
};

/// Leases that introspection is asked about, spread over all.
const SAMPLES: usize = 64;
/// Between two looks at a sample, and at the rows.
const PAUSE: Duration = Duration::from_millis(2);
const LOOK: Duration = Duration::from_millis(50);
/// The broker looks for rows that are behind once a second: quiet for so long, none is left.
const QUIET: Duration = Duration::from_millis(2_500);
const GIVE_UP: Duration = Duration::from_secs(300);

/// One end of many. Times count from the moment the request was sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnerReport {
    pub scenario: String,
    /// Live leases, each with its task.
    pub n: usize,
    /// Leases that the broker says it ended.
    pub ended: u64,
    pub errors: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    pub samples: usize,
    /// Introspections while it was under way.
    pub asked: usize,
    /// When the last of the samples was told to be inactive.
    pub effective_ms: f64,
    /// When the request was answered: it is on the record.
    pub answered_ms: f64,
    /// When no row was behind any more.
    pub caught_up_ms: f64,
    /// User and system time of the broker's process until it was answered and effective; the samples'
    /// introspections are in it.
    pub cpu_effective_ms: f64,
    /// The same until no row was behind.
    pub cpu_caught_up_ms: f64,
    pub cpu_us_per_lease: f64,
    /// Without a lease, with all of them, with none alive.
    pub rss_kb_empty: u64,
    pub rss_kb_before: u64,
    pub rss_kb_after: u64,
    pub bytes_written: u64,
    pub machine: Machine,
}

/// Starts a broker, has it issue, ends all of it, ends the broker.
pub async fn owner(plan: &Plan) -> Result<OwnerReport, Fault> {
    let broker = Broker::start(&plan.broker, &plan.log).await?;
    let measured = Ending { plan, broker: &broker }.measure().await;
    broker.stop().await;
    measured
}

struct Ending<'a> {
    plan: &'a Plan,
    broker: &'a Broker,
}

/// What was seen of the samples.
#[derive(Default)]
struct Seen {
    last: Duration,
    asked: usize,
}

impl Ending<'_> {
    async fn measure(&self) -> Result<OwnerReport, Fault> {
        let evidence = sign(self.broker, self.plan.n).await?;
        let empty = self.usage()?;
        let live = exchange_all(self.broker, evidence, self.plan.load.connections()).await?;
        let samples: Vec<_> = live.iter().step_by(live.len().div_ceil(SAMPLES)).cloned().collect();
        let mut probe = Connection::on_socket(self.broker).await?;
        let mut operator = Connection::on_socket(self.broker).await?;
        let mut report = OwnerReport { n: live.len(), samples: samples.len(), ..OwnerReport::default() };
        for sample in &samples {
            let active = is_active(&mut probe, None, sample).await.map_err(Fault::Prepare)?;
            report.check(active, "a sample is not active before the end");
        }
        let before = self.usage()?;
        let began = Instant::now();
        let ((ended, answered), seen) = tokio::join!(end(&mut operator, began), watch(&mut probe, &samples, began));
        let (ended, seen) = (ended.map_err(Fault::Prepare)?, seen.map_err(Fault::Prepare)?);
        let effective = self.usage()?;
        let caught_up = catch_up(&mut operator, began).await.map_err(Fault::Prepare)?;
        let after = self.usage()?;
        report.check(ended.count == live.len() as u64, "the broker ended another number");
        for sample in &samples {
            let active = is_active(&mut probe, None, sample).await.map_err(Fault::Prepare)?;
            report.check(!active, "a sample is active again");
        }
        let cpu_caught_up = after.cpu.saturating_sub(before.cpu);
        Ok(OwnerReport {
            scenario: "owner".to_owned(),
            ended: ended.count,
            asked: seen.asked,
            effective_ms: millis(seen.last),
            answered_ms: millis(answered),
            caught_up_ms: millis(caught_up),
            cpu_effective_ms: millis(effective.cpu.saturating_sub(before.cpu)),
            cpu_caught_up_ms: millis(cpu_caught_up),
            cpu_us_per_lease: millis(cpu_caught_up) * 1e3 / live.len().max(1) as f64,
            rss_kb_empty: empty.rss_kb,
            rss_kb_before: before.rss_kb,
            rss_kb_after: after.rss_kb,
            bytes_written: after.bytes_written.saturating_sub(before.bytes_written),
            machine: Machine::here(&self.plan.broker),
            ..report
        })
    }

    fn usage(&self) -> Result<Usage, Fault> {
        Usage::of(self.broker.pid()).map_err(Fault::Process)
    }
}

async fn end(operator: &mut Connection, began: Instant) -> (Result<EndedBySelector, String>, Duration) {
    let answer = ask_end(operator).await;
    (answer, began.elapsed())
}

async fn ask_end(operator: &mut Connection) -> Result<EndedBySelector, String> {
    let filter = Filter { owner: Some(OWNER.to_owned()), ..Filter::default() };
    let ask = EndRequest { filter, reason: Some("measured".to_owned()), ..EndRequest::default() };
    let body = serde_json::to_string(&ask).map_err(|error| error.to_string())?;
    let body = operator.post("/v1/end", JSON, None, body).await?.body_of(200)?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

/// Asks about each sample until it is inactive.
async fn watch(probe: &mut Connection, samples: &[TokenAnswer], began: Instant) -> Result<Seen, String> {
    let mut seen = Seen::default();
    for sample in samples {
        loop {
            seen.asked += 1;
            let active = is_active(probe, None, sample).await?;
            seen.last = began.elapsed();
            if !active {
                break;
            }
            if seen.last > GIVE_UP {
                return Err("a sample never became inactive".to_owned());
            }
            sleep(PAUSE).await;
        }
    }
    Ok(seen)
}

/// When rows were behind for the last time.
async fn catch_up(operator: &mut Connection, began: Instant) -> Result<Duration, String> {
    let (answered, mut last) = (began.elapsed(), began.elapsed());
    while began.elapsed() < last + QUIET {
        sleep(LOOK).await;
        let body = operator.get("/v1/blocks").await?.body_of(200)?;
        let blocks: List<Block> = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let behind: u64 = blocks.items.iter().map(|block| block.behind).sum();
        if behind > 0 {
            last = began.elapsed();
        }
        if last > answered + GIVE_UP {
            return Err(format!("{behind} rows are behind after {} s", GIVE_UP.as_secs()));
        }
    }
    Ok(last)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl OwnerReport {
    fn check(&mut self, good: bool, what: &str) {
        if !good {
            self.errors += 1;
            self.first_error.get_or_insert_with(|| what.to_owned());
        }
    }

    /// One line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a report has only plain members")
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let rows = [
            ("leases", format!("{}, ended {}, answers that were wrong {}", self.n, self.ended, self.errors)),
            (
                "effective",
                format!("{:.0} ms ({} samples, asked {} times)", self.effective_ms, self.samples, self.asked),
            ),
            ("on the record", format!("{:.0} ms", self.answered_ms)),
            ("rows caught up", format!("{:.0} ms", self.caught_up_ms)),
            (
                "CPU of the broker",
                format!(
                    "{:.0} ms until effective, {:.0} ms in all, {:.1} us a lease",
                    self.cpu_effective_ms, self.cpu_caught_up_ms, self.cpu_us_per_lease
                ),
            ),
            (
                "memory",
                format!(
                    "{} kB empty, {} kB live, {} kB ended",
                    self.rss_kb_empty, self.rss_kb_before, self.rss_kb_after
                ),
            ),
            ("written", format!("{} bytes", self.bytes_written)),
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
