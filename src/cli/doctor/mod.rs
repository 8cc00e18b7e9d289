//! `dayfly doctor`: what is wrong with a broker and its surroundings, and the command that mends it. In:
//! settings, state folder, bundle, the running broker if there is one. Out: findings. It changes nothing,
//! takes no lock, and goes on after the first thing that is wrong.

mod broker;
mod bundle;
mod finding;
mod issuers;
mod machine;
mod place;

use std::path::{Path, PathBuf};

use dayfly_domain::BindingKind;

use super::{args::DoctorArgs, failure::Failure, policy::NOBODY, serve, session::Session, settings};
use crate::{
    config::{SOCKET_NAME, Settings},
    flow::{Folder, Loaded},
    policy::BundleEnv,
    run::DATABASE,
    sys::{
        files,
        net::{Fetcher, peer_process},
    },
};
use broker::Near;
use finding::{Finding, Verdict, count, show};
use machine::Remembered;

pub async fn run(args: &DoctorArgs, session: &Session) -> Result<(), Failure> {
    serve::own_crypto()?;
    let findings = examine(args, session).await;
    session.screen.data(&show(&findings, session.output))?;
    let (wrong, warnings) = (count(&findings, Verdict::Wrong), count(&findings, Verdict::Warning));
    session.screen.say(&format!("{} looked at: {wrong} wrong, {warnings} to be warned of", findings.len()));
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::failed("something is wrong; what mends it is said with it")),
        many => Err(Failure::failed(format!("{many} things are wrong; what mends each is said with it"))),
    }
}

/// What there is to look at.
#[derive(Debug, Default)]
struct Patient {
    settings: Option<Settings>,
    file: Option<PathBuf>,
    state: Option<PathBuf>,
    policies: Option<PathBuf>,
    /// A folder of `dayfly dev`, whose bundle has examples, an overlay and a stand-in for an issuer.
    is_dev: bool,
}

async fn examine(args: &DoctorArgs, session: &Session) -> Vec<Finding> {
    let (mut found, patient) = patient(args, session);
    let first = session.clock.read();
    let now = first.wall;
    found.extend(patient.settings.iter().flat_map(|settings| place::tls(settings, now)));
    let loaded = patient.policies.as_deref().and_then(|policies| {
        let (said, loaded) = bundle::bundle(&folder(policies, patient.settings.as_ref()), patient.is_dev, now);
        found.extend(said);
        loaded
    });
    found.extend(open_to_all(&patient));
    let mut remembered = Remembered::default();
    let closed = patient.state.as_deref().and_then(place::closed);
    found.extend(patient.state.as_deref().map(disk).unwrap_or_default());
    if let Some(state) = patient.state.as_ref().filter(|_| closed.is_none()) {
        found.extend(place::state(state));
        let bundle = loaded.as_ref().map(|loaded| loaded.policy.bundle()).filter(|_| !patient.is_dev);
        let strict = patient.settings.as_ref().is_some_and(|settings| settings.strict_rollback);
        let (said, high_water) = bundle::store(&state.join(DATABASE), bundle, strict);
        found.extend(said);
        remembered = Remembered { high_water, written: place::last_written(state) };
    }
    let may_ask = !args.offline && !patient.is_dev;
    let near = match closed {
        // Neither its store nor its socket can be seen.
        Some(closed) => {
            found.push(closed);
            None
        }
        None => running(&patient, &mut found, session).await,
    };
    found.extend(of_issuers(near.as_ref(), loaded.as_ref(), may_ask, session).await);
    found.extend(limits(&patient).await);
    // Last, so that the two readings are apart.
    found.extend(machine::clock(first, session.clock.read(), remembered));
    found
}

/// The settings, and the folders that they or the options name.
fn patient(args: &DoctorArgs, session: &Session) -> (Vec<Finding>, Patient) {
    let mut patient = Patient { state: args.state.clone(), policies: args.policies.clone(), ..Patient::default() };
    // A folder of `dayfly dev` has no settings: those that lie about are of another broker.
    if let Some(state) = args.state.as_deref().filter(|_| args.config.is_none()) {
        patient.is_dev = state.join("dev.env").exists();
        let what = if patient.is_dev {
            "a folder of `dayfly dev`, which has none"
        } else {
            "none are looked at: the folder is given"
        };
        return (vec![Finding::ok("settings", what)], patient);
    }
    let finding = match settings::load(args.config.as_deref(), &session.vars) {
        Ok(Some((file, settings))) => {
            let ok = Finding::ok("settings", format!("`{}`", file.display()));
            patient.state.get_or_insert_with(|| settings.state_dir.clone());
            patient.policies.get_or_insert_with(|| settings.policies_dir.clone());
            (patient.file, patient.settings) = (Some(file), Some(settings));
            ok
        }
        Ok(None) => Finding::wrong(
            "settings",
            "there are none",
            "cp deploy/production/dayfly.toml /etc/dayfly/   # or name them: --config FILE, or a folder of `dev`: --state DIR",
        ),
        Err(failure) => {
            let causes = failure.parts().causes.join(": ");
            let mend = "dayfly serve --check   # every key: docs/REFERENCE.md, Settings";
            Finding::wrong("settings", format!("{}: {causes}", failure.parts().what), mend)
        }
    };
    (vec![finding], patient)
}

fn folder(policies: &Path, settings: Option<&Settings>) -> Folder {
    let issuer_url = settings.map_or_else(|| NOBODY.to_owned(), |settings| settings.issuer.clone());
    Folder { path: policies.to_owned(), env: BundleEnv { issuer_url, broker_binding: BindingKind::Dpop } }
}

/// Settings, bundle and each of its files.
fn open_to_all(patient: &Patient) -> Vec<Finding> {
    let mut paths: Vec<_> = patient.file.iter().chain(&patient.policies).cloned().collect();
    if let Some(policies) = &patient.policies {
        let files = files::read_tree(policies, &[".toml", ".cedar"]).unwrap_or_default();
        paths.extend(files.into_iter().map(|file| policies.join(file.path)));
    }
    place::writable(&paths)
}

fn disk(state: &Path) -> Vec<Finding> {
    // Of a folder that is not there yet: where it would be made.
    let there = state.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    match files::space(there) {
        Ok(space) => machine::disk(there, space),
        Err(error) => vec![Finding::wrong("disk", format!("`{}`: {error}", there.display()), "df -h")],
    }
}

async fn running(patient: &Patient, found: &mut Vec<Finding>, session: &Session) -> Option<Near> {
    let state = patient.state.as_deref()?;
    let (said, near) = broker::socket(state, patient.settings.as_ref()).await;
    found.extend(said);
    let near = near?;
    if let Some(settings) = &patient.settings {
        found.extend(broker::ops(settings).await);
    }
    match near.api.keys().await {
        Ok(keys) => found.extend(broker::keys(&keys, session.clock.wall())),
        Err(error) => {
            let mend = "run this as root, or as the broker's user";
            found.push(Finding::warning("keys", format!("the broker does not tell its keys: {error}"), mend));
        }
    }
    Some(near)
}

/// As the broker knows them; where none runs, or it is too old to tell, by asking them.
async fn of_issuers(near: Option<&Near>, loaded: Option<&Loaded>, may_ask: bool, session: &Session) -> Vec<Finding> {
    if let Some(near) = near
        && let Ok(known) = near.api.issuers().await
    {
        return issuers::told(&known);
    }
    let Some(loaded) = loaded.filter(|_| may_ask) else { return Vec::new() };
    match Fetcher::by_environment() {
        Ok(fetcher) => issuers::asked(loaded.policy.bundle(), fetcher, session.clock.wall()).await,
        Err(error) => vec![Finding::wrong("issuers", error.to_string(), "put HTTPS_PROXY and NO_PROXY right")],
    }
}

/// Of the process that serves the socket; where none does, of one started from here.
async fn limits(patient: &Patient) -> Option<Finding> {
    let caps = patient.settings.as_ref()?.limits;
    let socket = patient.state.as_deref()?.join(SOCKET_NAME);
    let process = peer_process(&socket).await.ok().flatten();
    let of = |whose: &str| files::read_text(Path::new(&format!("/proc/{whose}/limits"))).ok();
    let running = process.and_then(|id| of(&id.to_string())).and_then(|text| machine::hard_limit(&text));
    match running {
        Some(may) => Some(machine::open_files(caps, "the broker", may)),
        None => {
            machine::hard_limit(&of("self")?).map(|may| machine::open_files(caps, "a broker started from here", may))
        }
    }
}
