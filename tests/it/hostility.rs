//! Hostility: a foreign program throws random, mutated and replayed requests at every route of the
//! broker's own table, from several threads, while tasks begin and end and a good client is served.
//!
//! For some seconds here; for minutes by hand: `DAYFLY_HOSTILITY_S=180 cargo test --test it hostility`.

use std::{
    env,
    io::Write,
    path::Path,
    process::{Output, Stdio},
};

use dayfly::http::{Listener, ROUTES, RouteRow};
use dayfly_domain::{REASONS, ReasonRow};
use serde_json::{Value, json};

use super::{
    dev::{self, Dev},
    foreign::{python, skipped},
};

const SECONDS: u64 = 12;

fn seconds() -> u64 {
    env::var("DAYFLY_HOSTILITY_S").map_or(SECONDS, |text| text.parse().unwrap())
}

/// The broker's own tables: a new route or reason is covered by being there.
fn routes() -> Value {
    let listener = |listener| if listener == Listener::Ops { "ops" } else { "broker" };
    let route =
        |row: &RouteRow| json!({ "verb": row.verb.as_str(), "path": row.path, "listener": listener(row.listener) });
    ROUTES.iter().map(route).collect()
}

fn reasons() -> Value {
    let reason = |row: &ReasonRow| json!({ "code": row.code, "status": row.status, "oauth": row.oauth });
    REASONS.iter().map(reason).collect()
}

/// Lays siege to a broker of `dev` for some seconds: how it went, and what it said.
fn siege(work: &Path, dev: &Dev, seconds: u64, reasons: Value) -> Output {
    let vars = dev::env(work);
    let siege = json!({
        "routes": routes(),
        "reasons": reasons,
        "broker": vars["DAYFLY_ADDR"],
        "ca": vars["DAYFLY_CA"],
        "ops": vars["DAYFLY_METRICS"],
        "pid": dev.child().id(),
        "program": env!("CARGO_BIN_EXE_dayfly"),
        "state": work.join("state"),
        "claims": vars["DAYFLY_DEV_CLAIMS"],
        "task": vars["DAYFLY_DEV_TASK"],
        "tasks": ["deploy-staging", "deploy-staging", "deploy-prod", "dayfly-dev", "nothing"],
        "audiences": [
            "https://deploy.staging.shop.example.org",
            "https://deploy.shop.example.org",
            format!("{}/v1", vars["DAYFLY_ADDR"]),
            "https://nowhere.example.org"
        ],
        "operator_token_file": vars["DAYFLY_OPERATOR_TOKEN_FILE"],
        "seconds": seconds,
    });
    let mut command = python("hostility.py");
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir(work);
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(siege.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn every_route_stands_a_siege() {
    if skipped("python") {
        return;
    }
    let work = dev::work();
    let work = work.path();
    let dev = Dev::start(work, &[]);
    let output = siege(work, &dev, seconds(), reasons());
    let (told, found) = (dev::text(&output.stdout), dev::text(&output.stderr));
    assert!(output.status.success(), "{told}\n{found}");
    let told: Value = serde_json::from_str(told).unwrap_or_else(|_| panic!("no report: {told}\n{found}"));
    println!("{told}");

    assert!(told["answers"].as_u64().unwrap() > 200, "it was no siege: {told}");
    assert!(told["reasons"].as_object().unwrap().len() > 8, "it was all the same: {told}");
    assert!(told["issued"].as_u64().unwrap() > 5, "nothing was at stake: {told}");
    assert!(!dev.said().contains("panicked"), "{}", dev.said());
    assert!(dev::good(work, &["ledger", "verify", "--state", "state"]).contains("verified"));
    assert!(dev.end(rustix::process::Signal::TERM).success(), "it was alive to the end");
}

#[test]
fn a_siege_notices_an_answer_that_may_not_be() {
    if skipped("python") {
        return;
    }
    let work = dev::work();
    let dev = Dev::start(work.path(), &[]);
    let mut reasons = reasons();
    for row in reasons.as_array_mut().unwrap() {
        row["status"] = json!(row["status"].as_u64().unwrap() + 1);
    }
    let output = siege(work.path(), &dev, 2, reasons);
    assert_eq!(output.status.code(), Some(1));
    let found = dev::text(&output.stderr);
    assert!(found.contains("finding: `E-") && found.contains("does not go with"), "{found}");
}
