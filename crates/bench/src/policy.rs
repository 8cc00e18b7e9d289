//! What a decision and a load of a bundle cost, by the number of rows. In this process, without a
//! broker: policy alone, in CPU time of the thread that does it.

use std::{fmt::Write as _, hint::black_box};

use dayfly::{
    intake,
    policy::{self, Ask, BundleEnv, Circumstances, Decision, Policy, What},
    sys::files::SourceFile,
};
use dayfly_domain::{BindingKind, Workload, bundle::Bundle};
use serde::Serialize;
use serde_json::json;

use crate::{report::Machine, sys::thread_cpu};

/// Rows of the bundles that are measured.
pub const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Rows of one template where they are spread.
const EACH: usize = 10;
/// Workloads that ask in turn.
const ASKING: usize = 64;
/// Loads of each bundle; the cheapest counts.
const LOADS: usize = 5;

const HEAD: &str = r#"format       = 1
trust_domain = "bench.test"
[owner.team]
[issuer.github]
profile = "github"
owner   = "team"
pin     = { repository_owner_id = "4411" }
[target.shop]
uri         = "https://deploy.shop.bench.test"
environment = "staging"
owner       = "team"
binding     = "bearer"
verifies    = "introspect"
tags        = ["inside"]
actions     = ["deploy:create", "deploy:status"]
"#;

const FORBIDS: &str = r#"@id("bound") @purpose("no bearer tokens for long")
forbid (principal, action == Dayfly::Action::"run", resource)
when { context.ttl > 3600 } unless { context.binding == "dpop" };
@id("apart") @purpose("one deployment in a job")
forbid (principal, action == Dayfly::Action::"run", resource)
when { context.ask_tags.contains("inside") && context.held_tags.contains("inside") };
"#;

/// One bundle, measured.
#[derive(Debug, Serialize)]
pub struct PolicyReport {
    pub scenario: &'static str,
    pub rows: usize,
    pub templates: usize,
    /// From text to a policy that decides, checks and validation included.
    pub load_ms: f64,
    /// A decision that permits.
    pub permit_us: f64,
    /// One that finds no row.
    pub deny_us: f64,
    pub machine: Machine,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFault {
    #[error("the bundle does not load: {0}")]
    Bundle(String),
    #[error("a decision came out wrong")]
    Decision,
}

/// Each size, all rows in one template and spread over templates; `n` decisions each. Told as it
/// goes: large bundles take a while.
pub fn measure(n: usize, mut tell: impl FnMut(&PolicyReport)) -> Result<(), PolicyFault> {
    let mut cases = SIZES.into_iter().flat_map(|rows| [(rows, rows), (rows, EACH)]);
    cases.try_for_each(|(rows, each)| one(rows, each, n).map(|report| tell(&report)))
}

fn one(rows: usize, each: usize, n: usize) -> Result<PolicyReport, PolicyFault> {
    let files = [file("bench.toml", &bundle(rows, each)), file("bench.cedar", FORBIDS)];
    let mut load_ms = f64::MAX;
    let mut policy = load(&files)?;
    for _ in 0..LOADS {
        let before = thread_cpu();
        policy = black_box(load(&files)?);
        load_ms = load_ms.min((thread_cpu() - before).as_secs_f64() * 1e3);
    }
    let asking = (0..ASKING).map(|at| at * 7_919 % rows).map(|row| (workload(policy.bundle(), row), row / each));
    let known: Vec<_> = asking.collect::<Vec<_>>();
    let strangers: Vec<_> = known.iter().map(|(_, task)| (workload(policy.bundle(), rows), *task)).collect();
    Ok(PolicyReport {
        scenario: "policy",
        rows,
        templates: rows.div_ceil(each),
        load_ms,
        permit_us: decisions(&policy, &known, n, true)?,
        deny_us: decisions(&policy, &strangers, n, false)?,
        machine: Machine::here(&std::env::current_exe().unwrap_or_default()),
    })
}

fn decisions(policy: &Policy, asking: &[(Workload, usize)], n: usize, permits: bool) -> Result<f64, PolicyFault> {
    let asking: Vec<_> = asking.iter().map(|(workload, task)| (workload, ask(*task))).collect();
    let mut before = thread_cpu();
    for at in 0..n + ASKING {
        if at == ASKING {
            // Everybody has asked once.
            before = thread_cpu();
        }
        let (workload, ask) = &asking[at % asking.len()];
        let now = Circumstances { proven: BindingKind::Bearer, evidence_age_s: 3, held: &[] };
        let permitted = matches!(black_box(policy.decide(workload, ask, now)), Decision::Permit(_));
        if permitted != permits {
            return Err(PolicyFault::Decision);
        }
    }
    Ok((thread_cpu() - before).as_secs_f64() * 1e6 / n as f64)
}

fn ask(task: usize) -> Ask {
    Ask { template: format!("t{task}"), what: What::TaskOnly, ttl_s: None, ticket: None }
}

fn load(files: &[SourceFile]) -> Result<Policy, PolicyFault> {
    let env = BundleEnv { issuer_url: "https://dayfly.bench.test".to_owned(), broker_binding: BindingKind::Bearer };
    let none = &mut |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let said = |problems: Vec<dayfly_domain::bundle::Problem>| {
        PolicyFault::Bundle(problems.first().map_or_else(String::new, ToString::to_string))
    };
    let (bundle, _) = policy::parse(files, &env, none).map_err(said)?;
    Policy::compile(bundle).map_err(said)
}

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.to_owned(), bytes: text.as_bytes().to_vec() }
}

/// Rows as they are written: a repository, a branch, an environment.
fn bundle(rows: usize, each: usize) -> String {
    let mut text = HEAD.to_owned();
    for row in 0..rows {
        if row % each == 0 {
            let task = row / each;
            // A string takes whatever is written to it.
            let _ = write!(
                text,
                "[task.t{task}]\npurpose = \"release\"\nowner = \"team\"\ngrants = {{ shop = [\"deploy:create\"] }}\n\
                 ttl = \"15m\"\nreview_by = 2099-12-31\n"
            );
        }
        let _ = write!(
            text,
            "[[task.t{}.allow]]\nid = \"row-{row}\"\nissuer = \"github\"\nclaims = {{ repository_id = \"{}\", \
             ref = \"refs/heads/{}\", environment = \"staging\" }}\n",
            row / each,
            88_000 + row / 4,
            ["main", "next", "fix", "old"][row % 4],
        );
    }
    text
}

fn workload(bundle: &Bundle, row: usize) -> Workload {
    let claims = json!({
        "repository_id": (88_000 + row / 4).to_string(), "repository_owner_id": "4411", "event_name": "push",
        "ref": format!("refs/heads/{}", ["main", "next", "fix", "old"][row % 4]), "environment": "staging",
        "run_id": "7", "run_attempt": "1", "sub": "repo:acme/shop:ref:refs/heads/main", "actor_id": "1",
        "repository": "acme/shop", "repository_owner": "acme", "sha": "0123456789abcdef0123456789abcdef01234567",
    });
    let (issuer, profile) = (&bundle.issuers["github"], &bundle.profiles["github"]);
    let members = claims.as_object().expect("an object was written");
    intake::read(issuer, profile, members).expect("the claims are those of the profile")
}

impl PolicyReport {
    /// One line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a report has only plain members")
    }

    /// For people.
    pub fn row(&self) -> String {
        let Self { rows, templates, load_ms, permit_us, deny_us, .. } = self;
        format!(
            "{rows:>6} rows in {templates:>4} templates: load {load_ms:>8.1} ms, permit {permit_us:>6.1} us, deny {deny_us:>6.1} us"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_decides_as_it_should() {
        for each in [EACH, 40] {
            let report = one(40, each, 1).unwrap();
            assert!(report.permit_us > 0.0 && report.load_ms > 0.0 && report.templates == 40 / each);
        }
    }
}
