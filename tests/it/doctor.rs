//! `dayfly doctor` beside a real broker: a healthy one has nothing wrong, and what is broken on purpose is
//! named with the command that mends it. It changes nothing, runs or not.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::{
    dev::{self, Dev, text, wait_until},
    served::{Authority, Served},
};

const BUNDLE: &str = "format = 1\ntrust_domain = \"example.org\"\n[owner.team]\n";

/// Exit code and findings.
fn doctor(work: &Path, more: &[&str]) -> (Option<i32>, Vec<Value>) {
    let args = [&["doctor", "--config", "dayfly.toml", "--output", "json"], more].concat();
    let output = dev::dayfly(&args).current_dir(work).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    (output.status.code(), said["checks"].as_array().unwrap().clone())
}

/// One thing is wrong: in this area, with these words, mended so.
fn wrong(work: &Path, area: &str, what: &str, mend: &str) {
    let (code, checks) = doctor(work, &["--offline"]);
    assert_eq!(code, Some(1), "{checks:#?}");
    let found = checks.iter().find(|check| check["verdict"] == "wrong" && check["area"] == area);
    let found = found.unwrap_or_else(|| panic!("nothing wrong in {area}: {checks:#?}"));
    let has = |key: &str, part: &str| found[key].as_str().unwrap().contains(part);
    assert!(has("what", what) && has("mend", mend), "{found:#?}");
}

fn count(checks: &[Value], verdict: &str) -> usize {
    checks.iter().filter(|check| check["verdict"] == verdict).count()
}

/// Every file below, with its bytes' length, mode and time.
fn tree(dir: &Path) -> BTreeMap<String, (u64, u32, Option<std::time::SystemTime>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let meta = entry.metadata().unwrap();
        let name = entry.path().display().to_string();
        // What SQLite shares among readers is in memory, and its time with it.
        let changed = (!name.ends_with("-shm") && !meta.is_dir()).then(|| meta.modified().unwrap());
        found.insert(name, (if meta.is_dir() { 0 } else { meta.len() }, meta.permissions().mode(), changed));
        if meta.is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found
}

#[test]
fn a_healthy_broker_has_nothing_wrong_and_nothing_is_changed() {
    let (work, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let work = work.path();
    let mut broker = Served::first(work, &authority, |_| BUNDLE.to_owned());
    let (code, checks) = doctor(work, &[]);
    assert_eq!((code, count(&checks, "wrong")), (Some(0), 0), "{checks:#?}");
    let areas: Vec<_> = checks.iter().map(|check| check["area"].as_str().unwrap()).collect();
    for area in ["settings", "tls", "bundle", "state", "disk", "store", "broker", "keys", "limits", "clock"] {
        assert!(areas.contains(&area), "{area}: {areas:?}");
    }
    let said = |part: &str| checks.iter().any(|check| check["what"].as_str().unwrap().contains(part));
    assert!(
        said("it is ready") && said("answers on its socket") && said("the one in force") && said("the broker may open")
    );

    assert!(broker.stop().success());
    let before = tree(work);
    let (code, checks) = doctor(work, &[]);
    assert_eq!((code, count(&checks, "wrong")), (Some(0), 0), "{checks:#?}");
    assert!(checks.iter().any(|check| check["verdict"] == "warning" && check["area"] == "broker"), "{checks:#?}");
    let after = tree(work);
    assert!(before.iter().all(|(name, seen)| after.get(name) == Some(seen)), "{before:#?}\n{after:#?}");
}

#[test]
fn what_is_broken_is_named_with_what_mends_it() {
    let (work, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let work = work.path();
    let broker = Served::first(work, &authority, |_| BUNDLE.to_owned());
    let mode = |name: &str, mode| fs::set_permissions(work.join(name), fs::Permissions::from_mode(mode)).unwrap();

    mode("state/token-keys.json", 0o644);
    wrong(work, "state", "token-keys.json` has mode 0644", "chmod 0600");
    mode("state/token-keys.json", 0o600);

    mode("bundle/bundle.toml", 0o666);
    wrong(work, "trust", "bundle.toml` has mode 0666", "chmod o-w");
    mode("bundle/bundle.toml", 0o644);

    authority.write_leaf_with(work, "broker", |params| {
        let at = |minutes| OffsetDateTime::now_utc() + Duration::minutes(minutes);
        (params.not_before, params.not_after) = (at(-60), at(-1));
    });
    wrong(work, "tls", "expired at", "systemctl reload");
    authority.write_leaf_with(work, "broker", |params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("elsewhere.example".try_into().unwrap())];
    });
    wrong(work, "tls", "is not for `127.0.0.1`", "subjectAltName");
    authority.write_leaf(work, "broker");

    fs::write(work.join("bundle/bundle.toml"), "format = 1\ncolour = 2\n").unwrap();
    wrong(work, "bundle", "colour", "dayfly policy check");
    broker.reload();
    wait_until("the refusal", || broker.ops("/readyz").contains("bundle:"));
    wrong(work, "broker", "not ready: bundle", "A bad bundle");
    fs::write(work.join("bundle/bundle.toml"), format!("{BUNDLE}# not loaded yet\n")).unwrap();
    let (_, checks) = doctor(work, &["--offline"]);
    let changed = |check: &Value| check["what"].as_str().unwrap().contains("changed and not loaded");
    assert!(checks.iter().any(changed), "{checks:#?}");

    let settings = fs::read_to_string(work.join("dayfly.toml")).unwrap();
    fs::write(work.join("dayfly.toml"), settings.replace(&broker.issuer, "https://127.0.0.1:1")).unwrap();
    wrong(work, "broker", "the settings say `https://127.0.0.1:1`", "systemctl restart");
    fs::write(work.join("dayfly.toml"), format!("colour = 1\n{settings}")).unwrap();
    wrong(work, "settings", "colour", "docs/REFERENCE.md");
    fs::remove_file(work.join("dayfly.toml")).unwrap();
    wrong(work, "settings", "cannot be read", "dayfly serve --check");
}

#[test]
fn a_store_ahead_of_the_clock_is_wrong() {
    let (work, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let work = work.path();
    let mut broker = Served::first(work, &authority, |_| BUNDLE.to_owned());
    assert!(broker.stop().success());
    let database = rusqlite::Connection::open(work.join("state/dayfly.db")).unwrap();
    let ahead = (OffsetDateTime::now_utc() + Duration::hours(3)).unix_timestamp() * 1000;
    database.execute("UPDATE meta SET value = ?1 WHERE key = 'high_water_ms'", [ahead.to_string()]).unwrap();
    drop(database);
    wrong(work, "clock", "behind the store's last write", "timedatectl");
}

#[test]
fn a_folder_of_dev_is_looked_at_as_one() {
    let work = dev::work();
    let work = work.path();
    let _dev = Dev::start(work, &[]);
    let output = dev::dayfly(&["doctor", "--state", "state"]).current_dir(work).output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    assert!(said.contains("a folder of `dayfly dev`") && said.contains("answers on its socket"), "{said}");
}
