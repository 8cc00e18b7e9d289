//! What `deploy/` promises: the unit confines the broker and does not loop, the example of
//! production loads and is refused until its ids are real, the image holds one binary, and a
//! signing key is replaced the way the runbook says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use clap::Parser;
use dayfly::{
    cli::args::{Cli, Verb},
    config::Settings,
    flow::{BundleSource, Folder},
    policy::BundleEnv,
    run::limits::Limits,
};
use dayfly_domain::{BindingKind, bundle::example_ids};
use rustix::process::Signal;
use serde_json::Value;

use super::dev::{self, Dev};

const UNIT: &str = include_str!("../../deploy/dayfly.service");
const IMAGE: &str = include_str!("../../deploy/Containerfile");
const SETTINGS: &str = include_str!("../../deploy/production/dayfly.toml");

/// What keeps a broken-into broker in its place, or keeps an outage short. Each line must be there.
const UNIT_MUST_SAY: &[&str] = &[
    "Type=notify",
    "NotifyAccess=main",
    "Restart=on-failure",
    "RestartPreventExitStatus=1 2",
    "WatchdogSec=30",
    "User=dayfly",
    "UMask=0077",
    "StateDirectory=dayfly",
    "StateDirectoryMode=0700",
    "LimitCORE=0",
    "AmbientCapabilities=",
    "CapabilityBoundingSet=",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateIPC=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectControlGroups=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "ProcSubset=pid",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "SocketBindDeny=any",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
];

/// `key=value` lines of a unit, in order; a key may come twice.
fn directives(unit: &str) -> Vec<(&str, &str)> {
    let said = unit.lines().filter(|line| !line.starts_with(['#', '[']));
    said.filter_map(|line| line.split_once('=')).collect()
}

fn directive(key: &str) -> &'static str {
    let found = directives(UNIT).into_iter().find(|(name, _)| *name == key);
    found.unwrap_or_else(|| panic!("the unit says no `{key}`")).1
}

#[test]
fn the_unit_keeps_the_broker_in_its_place() {
    let lines: BTreeSet<&str> = UNIT.lines().collect();
    let missing: Vec<_> = UNIT_MUST_SAY.iter().filter(|line| !lines.contains(**line)).collect();
    assert!(missing.is_empty(), "the unit does not say {missing:?}");
    // A second value of these would take back the first.
    for once in ["CapabilityBoundingSet", "NoNewPrivileges", "ProtectSystem", "User", "Restart"] {
        assert_eq!(directives(UNIT).iter().filter(|(key, _)| *key == once).count(), 1, "{once}");
    }
}

#[test]
fn the_unit_starts_what_the_command_line_takes() {
    let start = directive("ExecStart");
    let Verb::Serve(args) = Cli::try_parse_from(start.split_whitespace()).unwrap().verb else {
        panic!("`{start}` does not serve")
    };
    assert_eq!((args.check, args.config.as_deref()), (false, Some(Path::new("/etc/dayfly/dayfly.toml"))));
    assert!(directive("ExecReload").contains("-HUP $MAINPID"));
}

#[test]
fn the_unit_gives_the_broker_time_to_drain_and_files_for_its_connections() {
    let limits = Limits::default();
    let stop_s: u64 = directive("TimeoutStopSec").parse().unwrap();
    assert!(stop_s > limits.drain.as_secs() + 5, "{stop_s} s end the drain");
    let files: usize = directive("LimitNOFILE").parse().unwrap();
    assert!(files >= 2 * limits.connections);
}

#[test]
fn unit_image_and_settings_speak_of_the_same_ports_and_folders() {
    let settings = Settings::parse(SETTINGS).unwrap();
    let bound: Vec<_> = directives(UNIT).into_iter().filter(|(key, _)| *key == "SocketBindAllow").collect();
    let wanted = [settings.listen, settings.metrics_listen].map(|address| format!("tcp:{}", address.port()));
    assert_eq!(bound.iter().map(|(_, value)| *value).collect::<Vec<_>>(), wanted);
    assert!(settings.metrics_listen.ip().is_loopback(), "metrics are served in the clear");
    assert_eq!(settings.state_dir, Path::new("/var/lib").join(directive("StateDirectory")));
    assert_eq!(instructions("EXPOSE"), [settings.listen.port().to_string()]);
    assert!(instructions("VOLUME")[0].contains(settings.state_dir.to_str().unwrap()));
}

/// A folder with the example and a certificate of its own; `edit` is done to every file's text.
fn production(edit: impl Fn(&str) -> String) -> tempfile::TempDir {
    let work = tempfile::tempdir().unwrap();
    let policies = work.path().join("policies");
    fs::create_dir(&policies).unwrap();
    for entry in fs::read_dir("deploy/production/policies").unwrap() {
        let entry = entry.unwrap();
        fs::write(policies.join(entry.file_name()), edit(&fs::read_to_string(entry.path()).unwrap())).unwrap();
    }
    let own = rcgen::generate_simple_self_signed(["dayfly.example.com".to_owned()]).unwrap();
    fs::write(work.path().join("tls.pem"), own.cert.pem()).unwrap();
    dayfly::sys::files::write_atomic(&work.path().join("tls.key"), own.signing_key.serialize_pem().as_bytes(), 0o600)
        .unwrap();
    let here = work.path().to_str().unwrap();
    let text = SETTINGS.replace("/etc/dayfly", here).replace("/var/lib/dayfly", &format!("{here}/state"));
    fs::write(work.path().join("dayfly.toml"), text).unwrap();
    work
}

/// What a user writes in place of the placeholders.
fn with_real_ids(text: &str) -> String {
    text.replace("\"00", "\"9")
}

fn check(work: &Path) -> (Option<i32>, String) {
    let config = work.join("dayfly.toml");
    let output = dev::dayfly(&["serve", "--check", "--config", config.to_str().unwrap()]).output().unwrap();
    (output.status.code(), dev::text(&output.stderr).to_owned())
}

#[test]
fn the_example_of_production_loads_and_passes_its_own_tests() {
    for work in [production(str::to_owned), production(with_real_ids)] {
        let env = BundleEnv { issuer_url: "https://dayfly.example.com".into(), broker_binding: BindingKind::Dpop };
        let loaded = Folder { path: work.path().join("policies"), env }.load().unwrap();
        assert!(loaded.lints.is_empty(), "{:?}", loaded.lints);
        assert!(loaded.policy.bundle().tests.len() >= 10);
    }
}

#[test]
fn the_example_of_production_is_refused_until_its_ids_are_real() {
    let work = production(str::to_owned);
    let (exit, said) = check(work.path());
    assert_eq!(exit, Some(1), "{said}");
    assert!(said.contains("issuer.github.pin.repository_owner_id") && said.contains("an example id"), "{said}");
    // One that is left is enough.
    let work = production(|text| text.replace("\"0004411\"", "\"4411\""));
    assert_eq!(check(work.path()).0, Some(1));
    let work = production(with_real_ids);
    let (exit, said) = check(work.path());
    assert_eq!(exit, Some(0), "{said}");
}

#[test]
fn the_example_of_production_binds_every_credential_that_matters() {
    let env = BundleEnv { issuer_url: "https://dayfly.example.com".into(), broker_binding: BindingKind::Dpop };
    let loaded = Folder { path: "deploy/production/policies".into(), env }.load().unwrap();
    let bundle = loaded.policy.bundle();
    let bearer: Vec<_> = bundle
        .targets
        .values()
        .filter(|target| target.binding == BindingKind::Bearer)
        .map(|t| t.name.as_str())
        .collect();
    assert_eq!(bearer, ["shop-staging"]);
    assert!(!example_ids(bundle).is_empty());
    let verified = bundle.targets.values().filter(|target| target.name.as_str() != "broker");
    verified.for_each(|target| assert!(!target.verifiers.is_empty(), "{}", target.name));
}

/// The final stage's instructions of one kind.
fn instructions(kind: &str) -> Vec<&'static str> {
    let last = &IMAGE[IMAGE.rfind("\nFROM ").unwrap()..];
    last.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' ')).collect()
}

fn words(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap()
}

#[test]
fn the_image_runs_one_binary_as_nobody() {
    let user = instructions("USER");
    let [user] = user[..] else { panic!("{user:?}") };
    let ids: Vec<u32> = user.split(':').map(|id| id.parse().unwrap()).collect();
    assert!(ids.len() == 2 && ids.iter().all(|id| *id > 1_000), "{user}");
    let [binary] = &words(instructions("ENTRYPOINT")[0])[..] else { panic!("one word starts it") };
    assert!(instructions("COPY").iter().any(|copy| copy.ends_with(binary.as_str())), "{binary}");
    let line: Vec<String> = [binary.clone()].into_iter().chain(words(instructions("CMD")[0])).collect();
    assert!(matches!(Cli::try_parse_from(line).unwrap().verb, Verb::Serve(_)));
    // Nothing is installed where it runs; what is there was copied.
    assert!(instructions("RUN").is_empty());
}

#[test]
fn the_image_is_built_from_the_lock_and_from_nothing_elsewhere() {
    let lines: Vec<&str> = IMAGE.lines().filter(|line| !line.starts_with('#')).collect();
    let text = lines.join("\n");
    for never in ["ADD ", "http://", "https://", "ARG ", "ENV ", ":latest", "curl", "wget"] {
        assert!(!text.contains(never), "`{never}` in the Containerfile");
    }
    assert!(text.contains("cargo build --locked --release"));
    let from: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(from.len(), 2);
    assert!(from.iter().all(|image| image.contains(':') && !image.contains('/')), "{from:?}");
    let version = format!("rust:{}-", env!("CARGO_PKG_RUST_VERSION"));
    assert!(from[0].starts_with(&version), "{} is not {version}", from[0]);
}

#[test]
fn the_image_is_built_without_history_keys_and_build_output() {
    let ignore = fs::read_to_string(".containerignore").unwrap();
    assert_eq!(ignore, fs::read_to_string(".dockerignore").unwrap(), "two engines, one context");
    let rules: Vec<&str> = ignore.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(rules[0], "*", "what is not named stays out");
    let named: Vec<&str> = rules.iter().filter_map(|rule| rule.strip_prefix('!')).collect();
    assert!(named.iter().all(|path| Path::new(path).exists()), "{named:?}");
    assert!(["Cargo.lock", "src", "crates", "policies"].iter().all(|needed| named.contains(needed)));
    assert!(rules.contains(&"**/*.key") && rules.contains(&"**/target"));
}

fn signing_keys(work: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(work.join("state/token-keys.json")).unwrap();
    let stored: Vec<BTreeMap<String, Value>> = serde_json::from_str(&text).unwrap();
    stored.iter().map(|key| key["pkcs8"].as_str().unwrap().to_owned()).collect()
}

/// The runbook's answer to a leaked signing key, until there is a verb for it.
#[test]
fn a_leaked_signing_key_is_replaced_by_removing_its_file() {
    let work = dev::work();
    let work = work.path();
    let broker = Dev::start(work, &[]);
    assert!(dev::job(work, "job.token").status.success());
    let old = signing_keys(work);
    assert!(broker.end(Signal::TERM).success());
    fs::remove_file(work.join("state/token-keys.json")).unwrap();

    let broker = Dev::start(work, &[]);
    assert!(signing_keys(work).is_disjoint(&old), "new keys");
    assert!(broker.said().contains("older tokens verify nowhere"), "{}", broker.said());
    let task = dev::env(work)["DAYFLY_DEV_TASK"].clone();
    let live = || dev::good(work, &["task", "ls", "--template", &task, "--state", "active", "--output", "name"]);
    let known = live();
    assert_eq!(known.lines().count(), 1, "what was issued is still known, and must be ended: {known}");
    dev::good(work, &["revoke", known.trim(), "--no-block", "--reason", "the signing key leaked"]);
    assert_eq!(live(), "");
    assert!(dev::good(work, &["ledger", "verify", "--state", "state"]).contains("verified"));
}
