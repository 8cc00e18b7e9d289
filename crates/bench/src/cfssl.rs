//! The same requests for certificates, to the broker and to `cfssl serve` in turn: what each takes of the CPU.
//!
//! The broker checks RS256 evidence, decides by policy, opens a task with a lease on disk, builds, reads again and
//! signs, over TLS. `cfssl` checks the request's own signature and signs what it asks for, over plain http: it
//! knows no caller, decides nothing and keeps nothing.

use std::{
    fmt::Write as _,
    fs, io,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    Fault, Plan,
    broker::{Broker, free_address},
    certificate::Csr,
    client::{ClientError, Connection},
    load::{self, Outcome, Visit},
    report::Machine,
    scenario::{JSON, Prepared, sign},
    sys::Usage,
};

const ROUNDS: usize = 3;
const START_WITHIN: Duration = Duration::from_secs(20);

/// Both, round by round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CfsslReport {
    pub scenario: String,
    /// Certificates of each, all rounds.
    pub n: usize,
    pub errors: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    pub connections: usize,
    /// User and system time of its process for a certificate.
    pub dayfly_cpu_us: Vec<f64>,
    /// Empty where it is missing.
    pub cfssl_cpu_us: Vec<f64>,
    /// Of the middle ones: what the broker takes of what `cfssl` takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    pub machine: Machine,
}

/// Starts both, has them certify, ends them. Without `cfssl`: the broker alone.
pub async fn cfssl(plan: &Plan) -> Result<CfsslReport, Fault> {
    let other = Cfssl::start().await?;
    let broker = Broker::certifying(&plan.broker, &plan.log).await?;
    let measured = in_turn(plan, &broker, other.as_ref()).await;
    broker.stop().await;
    measured
}

async fn in_turn(plan: &Plan, broker: &Broker, other: Option<&Cfssl>) -> Result<CfsslReport, Fault> {
    let (warm_up, each, connections) = (plan.warm_up, plan.n.div_ceil(ROUNDS), plan.load.connections());
    let total = warm_up + ROUNDS * each;
    let (evidence, csrs) = (sign(broker, total).await?, Csr::make_all(total)?);
    let mut ours = Prepared::Certificate { evidence, csrs: csrs.clone() }.visitors(broker, connections).await?;
    let mut theirs = Vec::new();
    for _ in 0..other.map_or(0, |_| connections) {
        let address = other.map_or(broker.address, |other| other.address);
        theirs.push(Asking { connection: Connection::plain(address).await?, csrs: csrs.clone() });
    }
    let mut report = CfsslReport { scenario: "cfssl".to_owned(), connections, ..CfsslReport::default() };
    (_, ours) = load::closed(ours, 0..warm_up).await;
    (_, theirs) = load::closed(theirs, 0..warm_up).await;
    for round in 0..ROUNDS {
        let range = warm_up + round * each..warm_up + (round + 1) * each;
        let (outcome, cpu_us);
        (outcome, ours, cpu_us) = part(ours, range.clone(), broker.pid()).await?;
        report.n += outcome.done;
        report.add(outcome);
        report.dayfly_cpu_us.push(cpu_us);
        if let Some(other) = other {
            let (outcome, cpu_us);
            (outcome, theirs, cpu_us) = part(theirs, range, other.child.id()).await?;
            report.add(outcome);
            report.cfssl_cpu_us.push(cpu_us);
        }
    }
    report.ratio = middle(&report.dayfly_cpu_us).zip(middle(&report.cfssl_cpu_us)).map(|(own, other)| own / other);
    report.machine = Machine::here(&plan.broker);
    Ok(report)
}

/// What was done, and the CPU time of that process for each.
async fn part<V: Visit>(
    visitors: Vec<V>,
    range: std::ops::Range<usize>,
    pid: u32,
) -> Result<(Outcome, Vec<V>, f64), Fault> {
    let before = Usage::of(pid).map_err(Fault::Process)?;
    let (outcome, visitors) = load::closed(visitors, range).await;
    let after = Usage::of(pid).map_err(Fault::Process)?;
    let cpu_us = after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / outcome.done.max(1) as f64;
    Ok((outcome, visitors, cpu_us))
}

/// A running `cfssl serve`, ended with this.
struct Cfssl {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Cfssl {
    /// `None`: it is not installed.
    async fn start() -> Result<Option<Self>, Fault> {
        let dir = laid().map_err(|error| Fault::Other(error.to_string()))?;
        let address = free_address().map_err(|error| Fault::Other(error.to_string()))?;
        let mut command = Command::new("cfssl");
        command.args(["serve", "-address", "127.0.0.1", "-port", &address.port().to_string(), "-loglevel", "5"]);
        command.args(["-ca", "ca.pem", "-ca-key", "ca.key", "-config", "cfssl.json"]).current_dir(dir.path());
        let child = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            child => child.map_err(|error| Fault::Other(error.to_string()))?,
        };
        // From here on the child has an owner who ends it.
        let mut started = Self { child, address, _dir: dir };
        started.listening().await?;
        Ok(Some(started))
    }

    async fn listening(&mut self) -> Result<(), Fault> {
        let began = Instant::now();
        loop {
            match Connection::plain(self.address).await {
                Ok(_) => return Ok(()),
                Err(ClientError::Connect(_)) if began.elapsed() < START_WITHIN => {}
                Err(error) => return Err(error.into()),
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Fault::Other(format!("it ended at once: {status}")));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Cfssl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A P-256 CA, and a profile that says of a certificate about what the broker's says.
fn laid() -> io::Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("dayfly-bench-cfssl-").tempdir()?;
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    let profile = json!({ "signing": { "default": {
        "expiry": "24h",
        "usages": ["digital signature", "client auth"],
        "issuer_urls": ["http://pki.bench.test/pki/1.cer"],
        "ocsp_url": "http://pki.bench.test/pki/ocsp",
        "crl_url": "http://pki.bench.test/pki/1/0.crl",
    } } });
    fs::write(dir.path().join("ca.pem"), certificate.pem())?;
    // Whose folder it is in is its owner's alone.
    fs::write(dir.path().join("ca.key"), key.serialize_pem())?;
    fs::write(dir.path().join("cfssl.json"), profile.to_string())?;
    Ok(dir)
}

/// A connection to `cfssl`.
struct Asking {
    connection: Connection,
    csrs: Arc<[Csr]>,
}

#[derive(Deserialize)]
struct Answer {
    result: Made,
}

#[derive(Deserialize)]
struct Made {
    certificate: String,
}

impl Visit for Asking {
    async fn visit(&mut self, index: usize) -> Result<(), String> {
        let csr = &self.csrs[index];
        let body = json!({ "certificate_request": csr.pem(), "hosts": ["db.shop.bench.test"] }).to_string();
        let answer = self.connection.post("/api/v1/cfssl/sign", JSON, None, body).await?.body_of(200)?;
        let answer: Answer = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        match csr.is_served_by(answer.result.certificate.as_bytes()) {
            true => Ok(()),
            false => Err("`cfssl` made a certificate of another shape".to_owned()),
        }
    }
}

fn middle(of: &[f64]) -> Option<f64> {
    let mut all = of.to_vec();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

impl CfsslReport {
    fn add(&mut self, outcome: Outcome) {
        self.errors += outcome.errors;
        self.first_error = self.first_error.take().or(outcome.first_error);
    }

    /// One line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a report has only plain members")
    }

    /// For people.
    pub fn table(&self) -> String {
        let list = |all: &[f64]| {
            let all: Vec<_> = all.iter().map(|us| format!("{us:.1}")).collect();
            format!("{} us of CPU for a certificate", all.join(", "))
        };
        let other = match self.cfssl_cpu_us.is_empty() {
            true => "is missing here: nothing to hold it against (Debian: golang-cfssl)".to_owned(),
            false => list(&self.cfssl_cpu_us),
        };
        let mut text = String::new();
        let rows = [
            ("certificates", format!("{} each, wrong {}", self.n, self.errors)),
            ("dayfly", list(&self.dayfly_cpu_us)),
            ("cfssl", other),
            ("ratio", self.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))),
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
}
