//! `dayfly-bench exchange|introspect|revoke|beat|owner|memory|flood|policy|list`.

use std::process::ExitCode;

use clap::Parser;
use dayfly_bench::{
    Fault, Plan, UNKNOWN,
    args::{Args, What},
    flood, list, measure, memory, owner, policy,
};

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "data on stdout, talk on stderr")]
fn main() -> ExitCode {
    let args = Args::parse();
    if args.what == What::Policy {
        let tell = |one: &policy::PolicyReport| println!("{}", if args.json { one.line() } else { one.row() });
        return match policy::measure(args.n(), tell) {
            Ok(()) => ExitCode::SUCCESS,
            Err(what) => {
                eprintln!("dayfly-bench: {what}");
                ExitCode::FAILURE
            }
        };
    }
    if args.what == What::List {
        return match list::measure(args.n().clamp(1, 1_000)) {
            Ok(report) => {
                println!("{}", if args.json { report.line() } else { report.row() });
                ExitCode::SUCCESS
            }
            Err(what) => {
                eprintln!("dayfly-bench: {what}");
                ExitCode::FAILURE
            }
        };
    }
    let measured = args.plan().and_then(|plan| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(told(&args, &plan)).map_err(|error| error.to_string())
    });
    match measured {
        Ok((text, errors)) => {
            print!("{text}");
            if errors > 0 {
                return ExitCode::FAILURE;
            }
        }
        Err(what) => {
            eprintln!("dayfly-bench: {what}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
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
        _ => {
            let report = measure(plan).await?;
            (said(report.line(), report.table()), report.errors)
        }
    })
}
