//! `serve`: from settings to a running broker, and back.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use dayfly_domain::{
    BindingKind, UnixMs,
    bundle::{Bundle, Fingerprint, Lint, Problem, example_ids, overdue_lints},
};
use tokio::net::TcpListener;

use super::{
    Ended, LaunchError, Parts, PkiSettingsError, Running,
    limits::{self, Limits, TooFewFiles},
    notify, pki,
    signals::{Signal, Signals},
    tls::{self, Tls},
};
use crate::{
    config::{Caps, SOCKET_NAME, Settings},
    flow::{BundleSource, Folder, Loaded, NotSwapped, StartError, Startup, goes_back},
    policy::BundleEnv,
    store::{Reader, Store, StoreError},
    sys::{
        clock::Clock,
        files,
        net::{Certified, Fetcher, Life, NetError},
    },
};

const KEYS: &str = crate::mint::KEYS_FILE;
/// Name of the database below the state folder.
pub const DATABASE: &str = "dayfly.db";

/// Why `serve` does not run. The broker has issued nothing.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the bundle in `{path}` is not usable")]
    Bundle { path: PathBuf, problems: Vec<Problem> },
    #[error("the TLS files are not usable: {0}")]
    Tls(#[from] NetError),
    #[error("`{path}` is not usable: {source}")]
    State { path: PathBuf, source: io::Error },
    #[error("another process holds `{0}`")]
    Locked(PathBuf),
    #[error("the store `{path}` is not usable: {source}")]
    Store { path: PathBuf, source: StoreError },
    #[error(transparent)]
    Files(#[from] TooFewFiles),
    #[error("`{0}` holds the keys or the log of a broker, but its store is gone")]
    StoreGone(PathBuf),
    #[error("`{address}` cannot be listened on: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the authority is not usable: {0}")]
    Pki(#[from] PkiSettingsError),
    #[error("signals cannot be listened to: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("{0} died; the broker does not go on without it")]
    Broken(&'static str),
}

/// Runs until a signal ends it. `ready` is called once everything is served.
pub async fn serve(settings: &Settings, ready: impl FnOnce(SocketAddr)) -> Result<(), ServeError> {
    super::install_metrics();
    let mut signals = Signals::listen().map_err(ServeError::Signals)?;
    let (caps, fewer) = caps(settings)?;
    let _lock = prepare_state(&settings.state_dir)?;
    keep_private(&settings.state_dir)?;
    let source = source(settings);
    // Said here, with the file of each problem, before anything is touched.
    let trust_domain = load(settings, &source)?.policy.bundle().trust_domain.clone();
    let _pki_lock = pki::lock(settings)?;
    let pki = pki::open(settings, &trust_domain, Clock::Machine.wall())?;
    let tls = Arc::new(Tls::load(tls::files(settings))?);
    let api = listen(settings.listen).await?;
    let address = api.local_addr().unwrap_or(settings.listen);
    let ops = listen(settings.metrics_listen).await?;
    let public = match settings.pki.as_ref().and_then(|pki| pki.listen) {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let startup = Startup {
        issuer: settings.issuer.clone(),
        clock: Clock::Machine,
        store: open_store(&settings.state_dir)?,
        keys_dir: Some(settings.state_dir.clone()),
        source: Arc::new(source),
        strict_rollback: settings.strict_rollback,
        review_grace: settings.review_grace,
        list_sizes: Default::default(),
        allowance: limits::allowance(caps),
        pki: pki.map(Arc::new),
    };
    let socket = settings.socket.then(|| settings.state_dir.join(SOCKET_NAME));
    if let Some(fewer) = fewer {
        tracing::warn!(%fewer, "the limit of open files is too small for `limits.connections`");
    }
    let parts =
        Parts { startup, api, tls: tls.config(), ops: Some(ops), pki: public, socket, limits: Limits::of(caps) };
    let mut running = super::launch(parts)?;
    running.also("tls", tls.clone().watch(running.flow.clone(), running.stopper()));
    running.also("issuers", super::fetch_ahead(running.flow.clone(), running.stopper()));
    notify::tell("READY=1");
    ready(address);
    let ended = attend(running, &mut signals, async |flow| reload(flow, &tls).await).await;
    match ended {
        Ended::Stopped => Ok(()),
        Ended::Broken(what) => Err(ServeError::Broken(what)),
    }
}

/// Answers signals until one ends the broker, or a part of it dies.
pub(crate) async fn attend(
    mut running: Running,
    signals: &mut Signals,
    on_reload: impl AsyncFn(&crate::flow::Flow),
) -> Ended {
    let flow = running.flow.clone();
    let ended = loop {
        tokio::select! {
            what = running.broken() => break Ended::Broken(what),
            signal = signals.next() => match signal {
                Signal::Stop => break Ended::Stopped,
                Signal::Reload => {
                    notify::tell("RELOADING=1");
                    // A load may take as long as its folder does; a stop does not wait for it.
                    tokio::select! {
                        () = on_reload(&flow) => {}
                        () = signals.stop() => break Ended::Stopped,
                    }
                    notify::tell("READY=1");
                }
            },
        }
    };
    notify::tell("STOPPING=1");
    running.stop().await;
    ended
}

/// Bundle and TLS files; what is bad leaves the old in place and says so.
async fn reload(flow: &crate::flow::Flow, tls: &Tls) {
    tls.load_again(flow);
    // It says itself what came of it, in log, ledger and readiness.
    let _ = flow.load_bundle("signal:HUP").await;
}

/// Everything `serve` would refuse, without serving: settings, TLS, file modes, bundle, its tests, the
/// store if there is one.
pub fn check(settings: &Settings) -> Result<Vec<Lint>, ServeError> {
    let now = Clock::Machine.wall();
    let Certified { life, is_authority, .. } = tls::files(settings).load(now)?;
    let Loaded { policy, mut lints } = load(settings, &source(settings))?;
    Fetcher::by_environment().map_err(|error| LaunchError::from(StartError::from(error)))?;
    lints.extend(caps(settings)?.1.map(too_few_files));
    lints.extend(is_authority.then(|| authority_as_leaf(settings)));
    lints.extend(life.is_short(now).then(|| soon_expired(settings, life)));
    lints.extend(check_pki(settings, policy.bundle(), now)?);
    let state = &settings.state_dir;
    files::could_be_private_dir(state).map_err(|source| ServeError::State { path: state.clone(), source })?;
    for name in [DATABASE.to_owned(), format!("{DATABASE}-wal"), format!("{DATABASE}-shm"), KEYS.to_owned()] {
        let path = state.join(name);
        if path.exists() {
            files::require_private(&path).map_err(|source| ServeError::State { path, source })?;
        }
    }
    lints.extend(check_store(settings, policy.bundle().fingerprint)?);
    Ok(lints)
}

/// The authority as a start would find it; nothing is made.
fn check_pki(settings: &Settings, bundle: &Bundle, now: UnixMs) -> Result<Vec<Lint>, ServeError> {
    let Some(pki) = pki::open(settings, &bundle.trust_domain, now)? else { return Ok(Vec::new()) };
    let health = pki.health(now);
    // A start makes the first issuing CA.
    let over = health.faults.into_iter().filter(|_| now > health.area_until);
    // A token that is away keeps no broker from starting: what it signed goes on.
    let token = pki.area().signer().probe().err().map(|error| format!("the area CA does not sign: {error}"));
    let lint = |what| Lint { at: "pki".to_owned(), what, help: None };
    Ok(over.chain(health.warnings).chain(pki.unservable(bundle)).chain(token).map(lint).collect())
}

/// The store as a start would find it, read beside whoever has it: nothing is made, locked or changed.
// SECURITY: `a_check_refuses_what_the_store_would_refuse_and_changes_nothing`.
fn check_store(settings: &Settings, bundle: Fingerprint) -> Result<Option<Lint>, ServeError> {
    if !store_is_there(&settings.state_dir)? {
        return Ok(None);
    }
    let path = settings.state_dir.join(DATABASE);
    let goes_back = match Reader::open(&path).and_then(|reader| goes_back(&reader, bundle)) {
        Ok(goes_back) => goes_back,
        Err(error @ StoreError::Older { .. }) => return Ok(Some(older(&path, &error))),
        Err(source) => return Err(ServeError::Store { path, source }),
    };
    match (goes_back, settings.strict_rollback) {
        (false, _) => Ok(None),
        (true, false) => Ok(Some(rollback(settings))),
        (true, true) => Err(LaunchError::from(StartError::from(NotSwapped::Rollback)).into()),
    }
}

fn older(path: &Path, error: &StoreError) -> Lint {
    let help = "an older broker does not run on it after that";
    Lint { at: path.display().to_string(), what: error.to_string(), help: Some(help.to_owned()) }
}

fn rollback(settings: &Settings) -> Lint {
    let what = "the bundle was active before and was replaced; it would be taken again, and what it grants with it";
    let help = "`strict_rollback = true` refuses to go back";
    Lint { at: settings.policies_dir.display().to_string(), what: what.to_owned(), help: Some(help.to_owned()) }
}

/// The settings' limits, as far as this process can hold them.
fn caps(settings: &Settings) -> Result<(Caps, Option<TooFewFiles>), TooFewFiles> {
    limits::fitting(settings.limits, files::open_files(limits::files_needed(settings.limits)))
}

fn authority_as_leaf(settings: &Settings) -> Lint {
    let at = settings.tls.cert_file.display().to_string();
    Lint { at, what: tls::AUTHORITY_AS_LEAF.to_owned(), help: Some(tls::AUTHORITY_AS_LEAF_HELP.to_owned()) }
}

fn too_few_files(fewer: TooFewFiles) -> Lint {
    let help = "raise the limit of open files (`LimitNOFILE=` of systemd, `ulimit -n`), or lower `limits.connections`";
    Lint { at: "limits.connections".to_owned(), what: fewer.to_string(), help: Some(help.to_owned()) }
}

fn soon_expired(settings: &Settings, life: Life) -> Lint {
    let at = settings.tls.cert_file.display().to_string();
    let help = "put a new certificate in place, and reload";
    Lint { at, what: format!("expires at {}", life.until), help: Some(help.to_owned()) }
}

fn source(settings: &Settings) -> Production {
    let env = BundleEnv { issuer_url: settings.issuer.clone(), broker_binding: BindingKind::Dpop };
    Production(Folder { path: settings.policies_dir.clone(), env })
}

fn load(settings: &Settings, source: &Production) -> Result<Loaded, ServeError> {
    let failed = |problems| ServeError::Bundle { path: settings.policies_dir.clone(), problems };
    source.load().map_err(failed)
}

/// The folder of a broker in earnest. What a start refuses, a later load refuses too: otherwise
/// the next start would be the one that fails.
// SECURITY: `what_a_start_refuses_a_reload_refuses_too`.
struct Production(Folder);

impl BundleSource for Production {
    fn load(&self) -> Result<Loaded, Vec<Problem>> {
        let Loaded { policy, mut lints } = self.0.load()?;
        let examples = example_ids(policy.bundle());
        if !examples.is_empty() {
            let problem = |at: String| {
                Problem::new("", at, "an example id, which no platform issues")
                    .help("write the real ids of your platform")
            };
            return Err(examples.into_iter().map(problem).collect());
        }
        lints.extend(overdue_lints(policy.bundle(), Clock::Machine.wall()));
        Ok(Loaded { policy, lints })
    }

    fn place(&self) -> Option<String> {
        self.0.place()
    }
}

/// The state folder, private and ours alone.
pub(crate) fn prepare_state(dir: &Path) -> Result<files::StateLock, ServeError> {
    let failed = |source| ServeError::State { path: dir.to_owned(), source };
    files::private_dir(dir).map_err(failed)?;
    if !fs::metadata(dir).map_err(failed)?.is_dir() {
        return Err(failed(io::Error::other("it is not a folder")));
    }
    files::lock_state(dir).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => ServeError::Locked(dir.join("lock")),
        _ => failed(source),
    })
}

/// A state folder that was there before, and open to others, is closed to them.
// SECURITY: `a_state_folder_that_others_may_read_is_closed_to_them`.
fn keep_private(dir: &Path) -> Result<(), ServeError> {
    let failed = |source| ServeError::State { path: dir.to_owned(), source };
    if files::close_to_others(dir).map_err(failed)? {
        tracing::warn!(path = %dir.display(), "the state folder was open to others: its mode is 0700 now");
    }
    Ok(())
}

/// The store of a state folder. Keys without their store are no first start: whoever lost the
/// store would take used evidence again, and forget what it revoked (laws L2, L9).
// SECURITY: `keys_without_their_store_are_no_first_start`.
pub(crate) fn open_store(state: &Path) -> Result<Store, ServeError> {
    let path = state.join(DATABASE);
    if store_is_there(state)? && !state.join(KEYS).exists() {
        tracing::warn!("the store has no keys beside it: new ones are made, and older tokens verify nowhere");
    }
    Store::open(&path).map_err(|source| ServeError::Store { path, source })
}

fn store_is_there(state: &Path) -> Result<bool, ServeError> {
    let has_bytes = |file: PathBuf| fs::metadata(file).is_ok_and(|file| file.len() > 0);
    let there = has_bytes(state.join(DATABASE));
    if !there && (has_bytes(state.join(KEYS)) || has_bytes(state.join(format!("{DATABASE}-wal")))) {
        return Err(ServeError::StoreGone(state.to_owned()));
    }
    Ok(there)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_start_refuses_a_reload_refuses_too() {
        dayfly_verifier::crypto::init().unwrap();
        let env = BundleEnv { issuer_url: "https://b.example".to_owned(), broker_binding: BindingKind::Dpop };
        let shipped = Folder { path: concat!(env!("CARGO_MANIFEST_DIR"), "/policies").into(), env };
        assert!(shipped.load().is_ok(), "as a bundle it is good");
        let problems = Production(shipped).load().unwrap_err();
        assert!(problems.iter().all(|problem| problem.what.contains("an example id")), "{problems:?}");
    }
}
