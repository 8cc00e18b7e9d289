//! `dayfly ledger verify`: every event against its hash, the rows against their events.

use std::path::Path;

use serde_json::json;

use crate::{
    cli::{
        args::{LedgerVerifyArgs, Output},
        failure::{Exit, Failure},
        print::document,
        progress::Progress,
        session::Session,
        settings,
        table::pairs,
    },
    ledger::{self, Report},
    run::DATABASE,
    store::{Reader, StoreError},
    sys::{clock::Clock, offload::offload},
};

/// Reads the store beside a running broker; needs no broker.
pub async fn verify(args: &LedgerVerifyArgs, session: &Session) -> Result<(), Failure> {
    let state = match &args.state {
        Some(state) => state.clone(),
        None => settings::require(None, &session.vars)?.1.state_dir,
    };
    let (database, clock) = (state.join(DATABASE), session.clock.clone());
    let reading = offload(move || read(&database, &clock));
    let read = Progress::of(&session.vars).watch("verifying the ledger", reading).await;
    let (stream, report) = read.map_err(|_| Failure::failed("the ledger was not read to its end"))??;
    session.screen.data(&show(&stream, &report, session.output))?;
    if report.problems.is_empty() {
        return Ok(());
    }
    let what = format!("the ledger does not hold, {} found", report.problems.len() as u64 + report.more);
    Err(report
        .problems
        .iter()
        .fold(Failure::failed(what), Failure::because)
        .help("copy the state folder before anything else, and do not start a broker on it"))
}

fn read(path: &Path, clock: &Clock) -> Result<(String, Report), Failure> {
    if !path.exists() {
        let what = format!("there is no store `{}`", path.display());
        return Err(Failure::new(Exit::NotFound, what).help("name the broker's state folder with `--state DIR`"));
    }
    verify_file(path, clock)
        .map_err(|error| Failure::failed(format!("the store `{}` cannot be read", path.display())).because(error))
}

/// One consistent view of events, tasks and leases.
fn verify_file(path: &Path, clock: &Clock) -> Result<(String, Report), StoreError> {
    Reader::open(path)?
        .snapshot(|snapshot| Ok((snapshot.stream().to_owned(), ledger::verify(snapshot, clock.wall())?)))?
}

fn show(stream: &str, report: &Report, output: Output) -> String {
    let Report { events, tasks, leases, root, erased, problems, more } = report;
    if output == Output::Name {
        return format!("{root}\n");
    }
    if output != Output::Table {
        return document(json!({
            "schema_version": 1, "stream": stream, "events": events, "tasks": tasks, "leases": leases,
            "root": root, "erased": erased, "problems": problems, "more": more,
        }));
    }
    let verdict = if problems.is_empty() { "verified" } else { "does not hold" };
    pairs(&[
        ("ledger", verdict.to_owned()),
        ("stream", stream.to_owned()),
        ("events", events.to_string()),
        ("root", root.clone()),
        ("tasks", tasks.to_string()),
        ("leases", leases.to_string()),
        ("erased details", erased.to_string()),
    ])
}
