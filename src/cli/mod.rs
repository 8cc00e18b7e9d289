//! The command line: what people type and see. Arguments and variables come in; data goes to
//! stdout, talk to stderr, and an exit code out. It holds no rules: the client verbs ask a broker,
//! the others start one or read its files.

pub mod args;
pub mod failure;
pub mod session;
pub mod settings;
pub mod table;

mod api;
mod block;
mod ca;
mod cert;
mod compared;
mod demo;
mod dev;
mod doctor;
mod door;
mod ended;
mod exec;
mod explain;
mod identity;
mod issuer;
mod key;
mod lease;
mod ledger;
mod policy;
mod print;
mod progress;
mod proof;
mod publish;
mod replay;
mod revoke;
#[cfg(test)]
mod samples;
mod serve;
mod task;
mod token;
mod trust;
mod usage;
mod variables;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, Parser, error::ErrorKind};

use args::{
    BlockVerb, CaVerb, Cli, Colour, DevVerb, ErrorFormat, IssuerVerb, KeyVerb, LeaseVerb, LedgerVerb, PolicyVerb,
    TaskVerb, TrustVerb, Verb,
};
pub use failure::EXITS;
use failure::{ExecExit, Exit, Failure};
use session::{Screen, Session, Vars};
pub use variables::{DEV_VARIABLES, EXEC_VARIABLES, VARIABLES, Variable};

/// Everything that can be typed, for the reference.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses, runs, says what went wrong, and gives the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let vars = Vars::Process;
    if let Some(failure) = exec::session_step(&args) {
        Screen::new(Colour::Auto, &vars).fail(&failure, ErrorFormat::Text);
        return ExitCode::from(failure.exit());
    }
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, &args, &vars),
    };
    let (format, screen) = (cli.style.error_format, Screen::new(cli.style.color, &vars));
    match Session::new(&cli.style, own_variables(&cli.verb, vars)).and_then(|session| run(cli.verb, &session)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen.fail(&failure, format);
            ExitCode::from(failure.exit())
        }
    }
}

/// `dev token` makes the same token, and `demo` tells the same story, wherever they run: no
/// `DAYFLY_*` counts there.
fn own_variables(verb: &Verb, vars: Vars) -> Vars {
    match verb {
        Verb::Dev(args) if args.verb.is_some() => vars.only(&["NO_COLOR", "TERM"]),
        Verb::Demo(_) => vars.only(&["NO_COLOR", "TERM"]),
        _ => vars,
    }
}

fn run(verb: Verb, session: &Session) -> Result<(), Failure> {
    match verb {
        Verb::Demo(args) => demo::run(&args, session),
        Verb::Dev(args) => match args.verb {
            Some(DevVerb::Token(args)) => dev::token(&args, session),
            None => dev::run(&args.run, session),
        },
        Verb::Serve(args) => serve::run(&args, session),
        Verb::Policy(PolicyVerb::Check(args)) => policy::check(&args, session),
        Verb::Policy(PolicyVerb::Show(args)) => policy::show(&args, session),
        Verb::Ca(CaVerb::Init(args)) => ca::init(&args, session),
        Verb::Ca(CaVerb::Import(args)) => ca::import(&args, session),
        Verb::Ledger(LedgerVerb::Verify(args)) => finished(ledger::verify(&args, session)),
        client => talk(client, session),
    }
}

/// The verbs that talk to a broker, on a runtime of one thread.
fn talk(verb: Verb, session: &Session) -> Result<(), Failure> {
    finished(async {
        match verb {
            Verb::Token(args) => token::run(&args, session).await,
            Verb::Exec(args) => exec::run(&args, session).await,
            Verb::Cert(args) => cert::run(&args, session).await,
            Verb::Task(TaskVerb::Ls(args)) => task::ls(&args, session).await,
            Verb::Task(TaskVerb::Show(args)) => task::show(&args, session).await,
            Verb::Task(TaskVerb::End(args)) => task::end(&args, session).await,
            Verb::Lease(LeaseVerb::Ls(args)) => lease::ls(&args, session).await,
            Verb::Lease(LeaseVerb::Show(args)) => lease::show(&args, session).await,
            Verb::Revoke(args) => revoke::run(&args, session).await,
            Verb::Block(BlockVerb::Ls(args)) => block::ls(&args, session).await,
            Verb::Block(BlockVerb::Lift(args)) => block::lift(&args, session).await,
            Verb::Ledger(LedgerVerb::Show(args)) => ledger::show(&args, session).await,
            Verb::Policy(PolicyVerb::Replay(args)) => replay::run(&args, session).await,
            Verb::Policy(PolicyVerb::Usage(args)) => usage::run(&args, session).await,
            Verb::Explain(args) => explain::run(&args, session).await,
            Verb::Key(KeyVerb::Ls(args)) => key::ls(&args, session).await,
            Verb::Key(KeyVerb::Taint(args)) => key::taint::run(&args, session).await,
            Verb::Ca(CaVerb::Ls(args)) => ca::ls(&args, session).await,
            Verb::Ca(CaVerb::Rotate(args)) => ca::rotate(&args, session).await,
            Verb::Ca(CaVerb::Taint(args)) => key::taint::run(&args, session).await,
            Verb::Ca(CaVerb::Export(args)) => ca::export(&args, session).await,
            Verb::Issuer(IssuerVerb::Ls(args)) => issuer::ls(&args, session).await,
            Verb::Issuer(IssuerVerb::Refresh(args)) => issuer::refresh(&args, session).await,
            Verb::Publish(args) => publish::run(&args, session).await,
            Verb::Doctor(args) => doctor::run(&args, session).await,
            Verb::Trust(TrustVerb::Add(args)) => trust::add(&args, session).await,
            Verb::Demo(_)
            | Verb::Dev(_)
            | Verb::Serve(_)
            | Verb::Ca(CaVerb::Init(_) | CaVerb::Import(_))
            | Verb::Policy(PolicyVerb::Check(_) | PolicyVerb::Show(_))
            | Verb::Ledger(LedgerVerb::Verify(_)) => {
                unreachable!("`run` keeps the verbs that need no broker")
            }
        }
    })
}

/// Nobody waits for threads that are still reading when the verb has ended: what a platform's program
/// left running holds its end of a pipe for as long as it likes.
// SECURITY: `what_an_agent_left_running_keeps_nobody_waiting`.
fn finished(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed("the process cannot start its runtime").because(error))?;
    let ended = runtime.block_on(work);
    runtime.shutdown_background();
    ended
}

/// Help and version are data; anything else is a usage error, in the format that was asked for.
fn not_understood(error: &clap::Error, args: &[OsString], vars: &Vars) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let shown = Screen::new(Colour::Never, vars).data(&error.render().to_string());
        return shown.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if wants_json(args) {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Screen::new(Colour::Never, vars).fail(&Failure::usage(first).help("dayfly help"), ErrorFormat::Json);
    } else {
        // A closed stderr is no second failure.
        let _ = error.print();
    }
    let is_exec = args.iter().skip(1).find(|arg| !arg.as_encoded_bytes().starts_with(b"-"));
    let is_exec = is_exec.is_some_and(|verb| verb == "exec");
    ExitCode::from(if is_exec { ExecExit::NotStarted as u8 } else { Exit::Usage as u8 })
}

fn wants_json(args: &[OsString]) -> bool {
    let pair = |pair: &[OsString]| pair[0] == "--error-format" && pair[1] == "json";
    args.windows(2).any(pair) || args.iter().any(|arg| arg == "--error-format=json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_left_running_keeps_nobody_waiting() {
        use std::{sync::mpsc, time::Duration};
        let (hold, held) = mpsc::channel::<()>();
        let (over, was_over) = mpsc::channel();
        finished(async {
            let (started, begun) = tokio::sync::oneshot::channel();
            drop(tokio::task::spawn_blocking(move || {
                started.send(()).unwrap();
                let waited = held.recv_timeout(Duration::from_secs(10));
                over.send(waited)
            }));
            begun.await.unwrap();
            Ok(())
        })
        .unwrap();
        assert!(was_over.try_recv().is_err(), "it waited");
        drop(hold);
    }

    #[test]
    fn dev_token_ignores_the_variables() {
        let vars = || Vars::given(&[("DAYFLY_OUTPUT", "nonsense")]);
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap().verb;
        assert_eq!(own_variables(&parse("dayfly dev token --state d"), vars()).raw("DAYFLY_OUTPUT"), None);
        assert!(own_variables(&parse("dayfly dev"), vars()).raw("DAYFLY_OUTPUT").is_some());
    }

    #[test]
    fn scripts_get_usage_errors_as_json_too() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(wants_json(&words("dayfly nonsense --error-format json")));
        assert!(wants_json(&words("dayfly --error-format=json nonsense")));
        assert!(!wants_json(&words("dayfly --error-format text json")));
    }
}
