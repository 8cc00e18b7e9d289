//! What was measured, as one line of JSON or a table.

use std::{fmt::Write, fs, io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::sys::Usage;

/// One measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub scenario: String,
    /// `closed` or `open`.
    pub mode: String,
    pub n: usize,
    pub errors: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    pub connections: usize,
    /// Of an open loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_rate_per_s: Option<f64>,
    /// User and system time of the broker's process.
    pub cpu_us_per_op: f64,
    pub rate_per_s: f64,
    #[serde(flatten)]
    pub times: Times,
    pub rss_kb_before: u64,
    pub rss_kb_after: u64,
    /// What the broker caused to be sent to the disk.
    pub bytes_written: u64,
    pub machine: Machine,
}

/// Latencies, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// Where it was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// The folder of the broker's program (`release`, `debug`) and this version.
    pub build: String,
    /// How many wanted a core, of the last minute (`/proc/loadavg`); the bench's own are in it.
    pub load: String,
}

/// The broker when the clock starts.
pub(crate) struct Before(Usage);

impl Before {
    pub fn read(pid: u32) -> io::Result<Self> {
        Usage::of(pid).map(Self)
    }

    /// What has changed since.
    pub fn report(&self, pid: u32, took: Duration, done: usize) -> io::Result<Report> {
        let (before, after) = (self.0, Usage::of(pid)?);
        let done = done.max(1) as f64;
        Ok(Report {
            cpu_us_per_op: micros(after.cpu.saturating_sub(before.cpu)) / done,
            rate_per_s: done / took.as_secs_f64(),
            rss_kb_before: before.rss_kb,
            rss_kb_after: after.rss_kb,
            bytes_written: after.bytes_written.saturating_sub(before.bytes_written),
            ..Report::default()
        })
    }
}

impl Times {
    pub fn of(latencies_ns: &[u64]) -> Self {
        let mut sorted = latencies_ns.to_vec();
        sorted.sort_unstable();
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).map_or(0.0, |ns| *ns as f64 / 1000.0)
        };
        Self { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999), max_us: at(1.0) }
    }
}

impl Machine {
    pub fn here(broker: &Path) -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
        let profile = broker.parent().and_then(Path::file_name).map_or("?", |name| name.to_str().unwrap_or("?"));
        Self {
            cpu: model.unwrap_or(std::env::consts::ARCH).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            build: format!("{profile} {}", env!("CARGO_PKG_VERSION")),
            load: fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or("?").to_owned(),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        format!("{}, {} cores, {}, load {}", self.cpu, self.cores, self.kernel, self.load)
    }
}

impl Report {
    /// One line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a report has only plain members")
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let rows = [
            ("scenario", format!("{} ({} loop, {} connections)", self.scenario, self.mode, self.connections)),
            ("requests", format!("{}, of them wrong {}", self.n, self.errors)),
            ("CPU of the broker", format!("{:.1} us/op", self.cpu_us_per_op)),
            ("rate", self.rates()),
            ("latency p50", format!("{:.0} us", self.times.p50_us)),
            ("latency p99", format!("{:.0} us", self.times.p99_us)),
            ("latency p99.9", format!("{:.0} us", self.times.p999_us)),
            ("latency max", format!("{:.0} us", self.times.max_us)),
            ("memory", format!("{} kB before, {} kB after", self.rss_kb_before, self.rss_kb_after)),
            ("written", format!("{} bytes", self.bytes_written)),
            ("machine", self.machine.text()),
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

    fn rates(&self) -> String {
        let asked = self.asked_rate_per_s.map_or(String::new(), |rate| format!(" of {rate:.0} asked"));
        format!("{:.0}/s{asked}", self.rate_per_s)
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_seen() {
        let ns: Vec<u64> = (1..=1000).rev().map(|ms| ms * 1_000_000).collect();
        let times = Times::of(&ns);
        assert_eq!(times, Times { p50_us: 500_000.0, p99_us: 990_000.0, p999_us: 999_000.0, max_us: 1_000_000.0 });
        assert_eq!(Times::of(&[]), Times::default());
    }
}
