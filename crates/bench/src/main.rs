//! `dayfly-bench exchange|introspect|revoke|beat|owner|memory|flood|policy|list|certificate|cfssl|ocsp|crl|serials`.

use std::process::ExitCode;

use clap::Parser;
use dayfly_bench::{
    Fault, Plan, UNKNOWN,
    args::{Args, What},
    cfssl, crl, flood, leaves, list, measure, memory, owner, policy, serials,
};

#[allow(clippy::print_stdout, reason = "data on stdout")]
fn main() -> ExitCode {
    let args = Args::parse();
    let say = |line: String, row: String| println!("{}", if args.json { line } else { row });
    let alone = match args.what {
        What::Policy => policy::measure(args.n(), |one| say(one.line(), one.row())).map_err(|what| what.to_string()),
        What::List => list::measure(args.n().clamp(1, 1_000))
            .map(|report| say(report.line(), report.row()))
            .map_err(|what| what.to_string()),
        What::Crl => {
            crl::measure(args.n()).map(|report| say(report.line(), report.row())).map_err(|what| what.to_string())
        }
        What::Serials if args.by.is_none() => {
            leaves::measure(args.n()).map(|report| say(report.line(), report.row())).map_err(|what| what.to_string())
        }
        _ => return with_broker(&args),
    };
    ended(alone)
}

#[allow(clippy::print_stdout, reason = "data on stdout")]
fn with_broker(args: &Args) -> ExitCode {
    let measured = args.plan().and_then(|plan| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(told(args, &plan)).map_err(|error| error.to_string())
    });
    match measured {
        Ok((text, errors)) => {
            print!("{text}");
            if errors > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(what) => ended(Err(what)),
    }
}

#[allow(clippy::print_stderr, reason = "talk on stderr")]
fn ended(how: Result<(), String>) -> ExitCode {
    match how {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("dayfly-bench: {what}");
            ExitCode::FAILURE
        }
    }
}

/// What was measured, as it was asked for, and how much of it was wrong.
async fn told(args: &Args, plan: &Plan) -> Result<(String, usize), Fault> {
    let said = |line: String, table: String| if args.json { format!("{line}\n") } else { table };
    Ok(match args.what {
        What::Flood => {
            let report = flood(plan, UNKNOWN).await?;
            (said(report.line(), report.table()), report.errors)
        }
        What::Owner => {
            let report = owner(plan).await?;
            (said(report.line(), report.table()), report.errors)
        }
        What::Memory => {
            let report = memory(plan).await?;
            (said(report.line(), report.table()), report.errors)
        }
        What::Cfssl => {
            let report = cfssl(plan).await?;
            (said(report.line(), report.table()), report.errors)
        }
        What::Serials => {
            let report = serials(plan).await?;
            (said(report.line(), report.table()), report.errors)
        }
        _ => {
            let report = measure(plan).await?;
            (said(report.line(), report.table()), report.errors)
        }
    })
}
