//! `dayfly dev`: a broker for development with a stand-in issuer, on loopback only; and
//! `dayfly dev token`, which makes the stand-in's tokens. `serve` knows nothing of this.

mod authority;
pub mod broker;
pub mod bundle;
mod env;
pub mod home;
mod pki;
mod sample;
mod stand_in;
pub mod token;

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use self::{
    broker::{DevBroker, Setup},
    bundle::{Text, Told},
    home::{Addresses, Home},
};
use super::{
    args::{DevRunArgs, DevTokenArgs},
    failure::Failure,
    session::Session,
};
use crate::{
    flow::Flow,
    run::{self, Ended, Signals},
    sys::log,
};

/// Keeps a development broker running until a signal ends it.
pub fn run(args: &DevRunArgs, session: &Session) -> Result<(), Failure> {
    let runtime = runtime()?;
    let kept = runtime.block_on(keep_running(args, session));
    runtime.shutdown_timeout(run::UNFINISHED);
    kept
}

/// Prints the token alone. Reads the stand-in's key; no broker, no lock, no `DAYFLY_*`.
pub fn token(args: &DevTokenArgs, session: &Session) -> Result<(), Failure> {
    token::run(args, session)
}

/// What a broker runs on.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::failed("the process cannot start its runtime").because(error))
}

/// A private folder that goes when it is dropped.
pub fn passing_folder() -> Result<tempfile::TempDir, Failure> {
    let private = std::fs::Permissions::from_mode(0o700);
    let made = tempfile::Builder::new().prefix("dayfly-").permissions(private).tempdir();
    made.map_err(|error| Failure::failed("there is no temporary folder").because(error))
}

async fn keep_running(args: &DevRunArgs, session: &Session) -> Result<(), Failure> {
    let filter = session.vars.get("DAYFLY_LOG").unwrap_or_else(|| "warn".to_owned());
    log::start(&filter).map_err(|error| Failure::usage("the log filter is wrong").because(error))?;
    run::install_metrics();
    let signals = Signals::listen();
    let mut signals = signals.map_err(|error| Failure::failed("signals cannot be listened to").because(error))?;
    let passing = if args.state.is_none() { Some(passing_folder()?) } else { None };
    let dir = args.state.as_deref().or(passing.as_ref().map(|dir| dir.path()));
    let home = Home::at(dir.unwrap_or(Path::new(".")))?;
    let setup = Setup {
        home: home.clone(),
        on_disk: args.state.is_some(),
        listen: args.listen,
        text: text(args.policies.as_deref())?,
        played: args.as_name.clone(),
        clock: session.clock.clone(),
    };
    let broker = Box::pin(DevBroker::start(setup)).await?;
    let told = broker.told()?;
    let DevBroker { running, addresses, bundle, operator, lock, .. } = broker;
    let warn = |failure: &Failure| session.screen.warn(&failure.text("the operator").replace('\n', "; "));
    // A bundle may forbid even its operator: that is worth seeing, and no reason not to serve it.
    let first = operator.renew().await.inspect_err(warn).ok();
    publish(&home, &addresses, &told)?;
    env::said(&addresses, &told, &bundle.text).iter().for_each(|line| session.screen.say(line));
    // Whoever does not listen to stdout may still use the broker.
    let _ = session.screen.data(&env::lines(&home, &told));
    let reload = async |flow: &Flow| {
        let loaded = flow.load_bundle("signal:HUP").await;
        match (loaded, bundle.told()) {
            (Ok(swapped), Some(told)) => {
                publish(&home, &addresses, &told).unwrap_or_else(|failure| session.screen.warn(&failure.parts().what));
                let Told { rows, tests, .. } = told;
                session.screen.say(&format!("bundle loaded: {rows} rows, {tests} tests passed, {}", swapped.to));
            }
            (Ok(_), None) => {}
            (Err(error), _) => session.screen.warn(&format!("the old bundle stays: {error}")),
        }
    };
    let ended = tokio::select! {
        ended = run::attend(running, &mut signals, reload) => ended,
        () = operator.keep_fresh(first, warn) => Ended::Stopped,
    };
    drop(lock);
    match ended {
        Ended::Stopped => Ok(()),
        Ended::Broken(what) => Err(Failure::failed(format!("{what} died; the broker does not go on without it"))),
    }
}

/// `--policies`, `./policies`, or the shipped bundle.
fn text(policies: Option<&Path>) -> Result<Text, Failure> {
    let absolute = |path: &Path| {
        let path = std::path::absolute(path);
        path.map_err(|error| Failure::usage("the bundle's folder has no path").because(error))
    };
    match policies {
        Some(path) => absolute(path).map(Text::Folder),
        None if Path::new("policies").is_dir() => absolute(Path::new("policies")).map(Text::Folder),
        None => Ok(Text::Shipped),
    }
}

/// Writes what scripts read; `dev.env` last.
fn publish(home: &Home, addresses: &Addresses, told: &Told) -> Result<(), Failure> {
    home.keep_played(&told.played)?;
    let claims: PathBuf = home.claims_file();
    match &told.sample {
        Some(sample) => home.put(&claims, &format!("{:#}\n", Value::Object(sample.claims.clone())))?,
        // Of an earlier bundle, where there is one.
        None => drop(std::fs::remove_file(&claims)),
    }
    home.put(&home.env_file(), &env::env(home, addresses, told))
}
