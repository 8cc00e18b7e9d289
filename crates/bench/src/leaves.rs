//! Certificates for one key, as many as are asked for, planned and signed in this process on every core: ids drawn
//! as a broker draws them, each leaf built, read again, signed and checked as a broker does it. The serial number is
//! read from the certificate. No evidence, no HTTP and no store: with those, see `--by handle`.

use std::thread;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly::{
    intake::{self, ProvenKey, prove_key},
    mint::{
        Terms,
        pki::{LeafPlan, Pki, Places, Since},
    },
    policy::{self, Ask, BundleEnv, Circumstances, Decision, Grant, Policy, What},
    sys::{clock::Clock, entropy, files::SourceFile},
};
use dayfly_domain::{BindingKind, Kind, LeaseId, TaskId, Workload};
use serde::Serialize;
use serde_json::json;

use crate::{
    certificate::{Csr, serial_of},
    report::Machine,
    sys::thread_cpu,
};

const BUNDLE: &str = r#"format       = 1
trust_domain = "bench.test"
[owner.team]
[issuer.github]
profile = "github"
owner   = "team"
pin     = { repository_owner_id = "4411" }
[target.db]
uri         = "https://db.bench.test"
environment = "staging"
owner       = "team"
binding     = "mtls"
verifies    = "crl"
actions     = ["db:migrate"]
[task.migrate]
purpose   = "change the tables"
owner     = "team"
grants    = { db = ["db:migrate"] }
ttl       = "15m"
review_by = 2099-12-31
[[task.migrate.allow]]
id     = "shop"
issuer = "github"
claims = { repository_id = "88120" }
"#;

#[derive(Debug, Serialize)]
pub struct LeavesReport {
    pub scenario: &'static str,
    /// Certificates, all for one key.
    pub n: usize,
    /// Serial numbers among them.
    pub distinct: usize,
    /// Of the threads that made them.
    pub cpu_us_each: f64,
    pub machine: Machine,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
#[error("no certificate was made: {0}")]
pub struct LeavesFault(String);

fn said(error: impl std::fmt::Display) -> LeavesFault {
    LeavesFault(error.to_string())
}

/// As many as `n`.
pub fn measure(n: usize) -> Result<LeavesReport, LeavesFault> {
    dayfly_verifier::crypto::init().map_err(said)?;
    let desk = Desk::lay()?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (desk, part) = (&desk, |core| (n * (core + 1) / cores) - (n * core / cores));
    let made = thread::scope(|scope| {
        let working: Vec<_> = (0..cores).map(part).map(|n| scope.spawn(move || desk.make(n))).collect();
        let ended = |worker: thread::ScopedJoinHandle<'_, _>| worker.join().map_err(|_| said("a thread died"))?;
        working.into_iter().map(ended).collect::<Result<Vec<_>, _>>()
    })?;
    let cpu_us: f64 = made.iter().map(|(_, cpu_us)| cpu_us).sum();
    let mut serials: Vec<u128> = made.into_iter().flat_map(|(serials, _)| serials).collect();
    let n = serials.len();
    serials.sort_unstable();
    serials.dedup();
    Ok(LeavesReport {
        scenario: "serials",
        n,
        distinct: serials.len(),
        cpu_us_each: cpu_us / n.max(1) as f64,
        machine: Machine::here(&std::env::current_exe().unwrap_or_default()),
    })
}

/// What all of them have in common.
struct Desk {
    pki: Pki,
    key: ProvenKey,
    grant: Grant,
    workload: Workload,
}

impl Desk {
    fn lay() -> Result<Self, LeavesFault> {
        let places = Places { base: "http://pki.bench.test".to_owned() };
        let pki = Pki::in_memory("bench.test", places, Clock::Machine.wall()).map_err(said)?;
        let key = prove_key(&URL_SAFE_NO_PAD.encode(Csr::make().map_err(said)?.der())).map_err(said)?;
        let policy = policy()?;
        let bundle = policy.bundle();
        let claims = json!({
            "repository_id": "88120", "repository_owner_id": "4411", "event_name": "push", "ref": "refs/heads/main",
            "run_id": "7", "run_attempt": "1", "sub": "repo:acme/shop:ref:refs/heads/main", "actor_id": "1",
            "repository": "acme/shop", "repository_owner": "acme", "sha": "0123456789abcdef0123456789abcdef01234567",
        });
        let members = claims.as_object().expect("an object was written");
        let workload = intake::read(&bundle.issuers["github"], &bundle.profiles["github"], members)
            .map_err(|refused| said(format!("{refused:?}")))?;
        let what = What::Credential { kind: Kind::X509, resource: None, actions: None };
        let ask = Ask { template: "migrate".to_owned(), what, ttl_s: None, ticket: None };
        let now = Circumstances { proven: BindingKind::Mtls, evidence_age_s: 3, held: &[] };
        match policy.decide(&workload, &ask, now) {
            Decision::Permit(grant) => Ok(Self { pki, key, grant, workload }),
            Decision::Deny(denied) => Err(said(denied.reason)),
        }
    }

    fn make(&self, n: usize) -> Result<(Vec<u128>, f64), LeavesFault> {
        let before = thread_cpu();
        let serials = (0..n).map(|_| self.one()).collect::<Result<_, _>>()?;
        Ok((serials, (thread_cpu() - before).as_secs_f64() * 1e6))
    }

    /// The number within the certificate.
    fn one(&self) -> Result<u128, LeavesFault> {
        let now = Clock::Machine.wall();
        // As `flow` draws it.
        let lease = LeaseId::from_parts(now.as_ms().max(0) as u64, entropy::bytes().map_err(said)?);
        let terms = Terms {
            issuer: "https://dayfly.bench.test",
            trust_domain: "bench.test",
            workload: &self.workload,
            task: TaskId::from_u128(1),
            lease,
            now,
            deadline: now.plus_s(900),
            ticket: None,
        };
        let since = Since { evidence_iat_s: now.as_s(), opened_at: now };
        let plan = LeafPlan::new(&self.grant, &terms, since, &self.key, &self.pki).map_err(said)?;
        let signed = plan.sign().map_err(said)?;
        serial_of(signed.token.expose().as_bytes()).ok_or_else(|| said("it cannot be read"))
    }
}

fn policy() -> Result<Policy, LeavesFault> {
    let env = BundleEnv { issuer_url: "https://dayfly.bench.test".to_owned(), broker_binding: BindingKind::Bearer };
    let files = [SourceFile { path: "bench.toml".to_owned(), bytes: BUNDLE.as_bytes().to_vec() }];
    let first = |problems: Vec<dayfly_domain::bundle::Problem>| {
        LeavesFault(problems.first().map_or_else(String::new, ToString::to_string))
    };
    let (bundle, _) = policy::parse(&files, &env, &mut |_| Err(std::io::ErrorKind::NotFound.into())).map_err(first)?;
    Policy::compile(bundle).map_err(first)
}

impl LeavesReport {
    /// One line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a report has only plain members")
    }

    /// For people.
    pub fn row(&self) -> String {
        let Self { n, distinct, cpu_us_each, .. } = self;
        format!("{n} certificates for one key: {distinct} serial numbers; {cpu_us_each:.1} us of CPU each")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_number_of_its_own() {
        let report = measure(50).unwrap();
        assert_eq!((report.n, report.distinct), (50, 50));
    }
}
