//! `dayfly serve`: the broker itself, or only the check of what it would start with.

use super::{
    args::ServeArgs,
    failure::{Exit, Failure},
    session::Session,
    settings,
};
use crate::{
    config::Settings,
    flow::{NotSwapped, StartError},
    run::{self, LaunchError, ServeError},
    sys::{log, net::NetError},
};

/// What mends a bundle that `strict_rollback` refuses.
pub const NOT_BACK: &str = "an old bundle may grant what was taken away; if it is meant, change a byte of it (a comment with the reason), or lift `strict_rollback`";

pub fn run(args: &ServeArgs, session: &Session) -> Result<(), Failure> {
    let (file, settings) = settings::require(args.config.as_deref(), &session.vars)?;
    own_crypto()?;
    let filter = session.vars.get("DAYFLY_LOG").unwrap_or_else(|| settings.log.clone());
    let wrong = |error| {
        let help = "write a level (`info`) or levels by target (`dayfly=debug,info`) in DAYFLY_LOG, or as `log` in the settings";
        Failure::usage("the log filter is wrong").because(error).help(help)
    };
    if args.check {
        log::check(&filter).map_err(wrong)?;
        let lints = run::check(&settings).map_err(|error| failure(&error))?;
        lints.iter().for_each(|lint| session.screen.warn(&lint.to_string()));
        session
            .screen
            .say(&format!("`{}` is good: settings, TLS, file modes, bundle, its tests, and the store", file.display()));
        return Ok(());
    }
    log::start(&filter).map_err(wrong)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed("the process cannot start its runtime").because(error))?;
    let served = runtime.block_on(serve(&settings, session));
    runtime.shutdown_timeout(run::UNFINISHED);
    served
}

async fn serve(settings: &Settings, session: &Session) -> Result<(), Failure> {
    let ready = |address| session.screen.say(&format!("{} is served at {address}", settings.issuer));
    run::serve(settings, ready).await.map_err(|error| failure(&error))
}

/// One crypto provider: ours must have won the process-wide slot.
pub fn own_crypto() -> Result<(), Failure> {
    dayfly_verifier::crypto::init()
        .map_err(|error| Failure::failed("another crypto provider is installed in this process").because(error))
}

/// What went wrong, with all its causes, and what to do.
pub fn failure(error: &ServeError) -> Failure {
    let problems = match error {
        ServeError::Bundle { problems, .. } => problems.as_slice(),
        ServeError::Launch(LaunchError::Start(StartError::Bundle(problems))) => problems.as_slice(),
        _ => &[],
    };
    let exit = match error {
        // What may go well the next time: a supervisor starts it again.
        ServeError::Tls(NetError::NotYet(_)) => Exit::Unavailable,
        ServeError::Locked(_) | ServeError::Listen { .. } | ServeError::Broken(_) => Exit::Unavailable,
        _ => Exit::Failure,
    };
    let failure = problems.iter().fold(Failure::new(exit, error.to_string()), Failure::because);
    match error {
        ServeError::Bundle { .. } => failure.help("dayfly policy check --policies DIR"),
        ServeError::Tls(NetError::Expired(_)) => failure
            .help("put a new certificate and its key in place, both files that `[tls]` in the settings names; if it is not expired, the machine's clock is wrong"),
        ServeError::Tls(NetError::NotYet(_)) => failure.help("look at the machine's clock first (`timedatectl`)"),
        ServeError::StoreGone(_) => failure
            .help("put the store back; only if all it knew may be forgotten, remove `token-keys.json` and `dayfly.db-wal` and start anew"),
        ServeError::Launch(LaunchError::Start(StartError::Swap(NotSwapped::Rollback))) => failure.help(NOT_BACK),
        ServeError::Files(_) => failure
            .help("at least 16 connections must fit: raise the limit of open files (`LimitNOFILE=` of systemd, `ulimit -n`)"),
        ServeError::State { .. } => failure
            .help("`state_dir` must be a folder of the broker's own user that nobody else may use, or one that this user can make"),
        ServeError::Locked(_) => failure.help("stop the other broker, or give this one a state_dir of its own"),
        _ => failure,
    }
}
