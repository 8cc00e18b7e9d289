//! What a start refuses, `serve --check` refuses with the same words: an expired certificate, a
//! store of another version, a bundle that goes back. A check beside a running broker changes nothing.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use rcgen::{BasicConstraints, CertificateParams, IsCa};
use time::{Duration, OffsetDateTime};

use crate::{
    dev::{self, wait_until},
    served::{Authority, Served},
};

const BUNDLE: &str = "format = 1\ntrust_domain = \"example.org\"\n[owner.team]\n";

/// Exit code and words of `serve` with one more option.
fn serve(work: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output =
        dev::dayfly(&[&["serve", "--config", "dayfly.toml"], args].concat()).current_dir(work).output().unwrap();
    (output.status.code(), dev::text(&output.stderr).to_owned())
}

/// A check and a start say no, both with these words and with help.
fn refused(work: &Path, exit: i32, words: &str) {
    for args in [&["--check"][..], &[]] {
        let (code, said) = serve(work, args);
        assert_eq!(code, Some(exit), "{args:?}: {said}");
        assert!(said.contains(words) && said.contains("help:"), "{args:?}: {said}");
    }
}

fn broker(work: &Path, authority: &Authority) -> Served {
    Served::first(work, authority, |_| BUNDLE.to_owned())
}

/// Valid between so many minutes from now.
fn between(from: i64, until: i64) -> impl Fn(&mut CertificateParams) {
    move |params| {
        let at = |minutes| OffsetDateTime::now_utc() + Duration::minutes(minutes);
        (params.not_before, params.not_after) = (at(from), at(until));
    }
}

#[test]
fn a_certificate_that_nobody_would_take_is_refused_by_a_start() {
    let (work, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let work = work.path();
    assert!(broker(work, &authority).stop().success());
    authority.write_leaf_with(work, "broker", between(-60, -1));
    refused(work, 1, "the certificate expired at ");
    authority.write_leaf_with(work, "broker", between(60, 120));
    refused(work, 69, "the certificate is not valid before ");
    authority.write_leaf_with(work, "broker", between(-60, 10));
    let (code, said) = serve(work, &["--check"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("broker.cert: expires at "), "{said}");
}

#[test]
fn a_bad_certificate_never_replaces_a_good_one() {
    let (work, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let work = work.path();
    let broker = broker(work, &authority);
    let expiry = || {
        let metrics = broker.ops("/metrics");
        let line = metrics.lines().find(|line| line.starts_with("dayfly_tls_certificate_expiry_timestamp_seconds "));
        line.unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let first = expiry();
    assert!(broker.ops("/readyz").starts_with("HTTP/1.1 200"));

    authority.write_leaf_with(work, "broker", between(-60, -1));
    broker.reload();
    wait_until("the refusal", || broker.ops("/readyz").contains("tls: the files were not loaded"));
    assert!(broker.ops("/readyz").contains("the certificate expired at "), "{}", broker.ops("/readyz"));
    assert_eq!((broker.post("/oauth2/introspect", &[]).0, expiry()), (400, first), "the old one is served");

    fs::write(work.join("broker.cert"), "half a file").unwrap();
    broker.reload();
    wait_until("the next refusal", || broker.ops("/readyz").contains("no PEM certificate"));

    authority.write_leaf_with(work, "broker", between(-60, 60 * 24 * 30));
    broker.reload();
    wait_until("readiness", || broker.ops("/readyz").starts_with("HTTP/1.1 200"));
    assert!(expiry() < first);
    assert_eq!(broker.said().matches("the TLS certificate was loaded").count(), 1, "{}", broker.said());
    assert_eq!(broker.post("/oauth2/introspect", &[]).0, 400);
}

#[test]
fn a_check_refuses_what_the_store_would_refuse_and_changes_nothing() {
    let (work, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let work = work.path();
    let mut broker = broker(work, &authority);
    let put = |bundle: &str| fs::write(work.join("bundle/bundle.toml"), bundle).unwrap();
    put(&format!("{BUNDLE}# other\n"));
    broker.reload();
    wait_until("the swap", || broker.verb(&["ledger", "show", "--state", "state"]).contains("bundle_swapped"));
    assert_eq!(serve(work, &["--check"]).0, Some(0), "beside a running broker");
    put(BUNDLE);
    let (code, said) = serve(work, &["--check"]);
    assert!(code == Some(0) && said.contains("was active before"), "{said}");
    assert!(broker.stop().success());

    let settings = fs::read_to_string(work.join("dayfly.toml")).unwrap();
    fs::write(work.join("dayfly.toml"), format!("strict_rollback = true\n{settings}")).unwrap();
    let before = state(work);
    assert_eq!(serve(work, &["--check"]).0, Some(1));
    assert_eq!(state(work), before);
    refused(work, 1, "the bundle was active before and was replaced");
    put(&format!("{BUNDLE}# other\n"));
    assert_eq!(serve(work, &["--check"]).0, Some(0), "what was in force last");

    let database = work.join("state/dayfly.db");
    let newer = "UPDATE meta SET value = 99 WHERE key = 'schema_version'";
    rusqlite::Connection::open(&database).unwrap().execute(newer, []).unwrap();
    let (code, said) = serve(work, &["--check"]);
    assert!(code == Some(1) && said.contains("schema 99"), "{said}");
    fs::remove_file(&database).unwrap();
    refused(work, 1, "its store is gone");
    fs::remove_dir_all(work.join("state")).unwrap();
    assert_eq!(serve(work, &["--check"]).0, Some(0), "a first start");
    assert!(!work.join("state").exists(), "nothing was made");
}

#[test]
fn a_check_refuses_a_filter_and_a_folder_that_a_start_refuses() {
    let (work, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let work = work.path();
    assert!(broker(work, &authority).stop().success());
    let settings = fs::read_to_string(work.join("dayfly.toml")).unwrap();
    let put = |settings: &str| fs::write(work.join("dayfly.toml"), settings).unwrap();

    put(&format!("log = 'dayfly=loudest'\n{settings}"));
    refused(work, 2, "the log filter is wrong");
    put(&settings.replace("/state'", "/broker.key/state'"));
    refused(work, 1, "broker.key/state` is not usable");
    put(&settings.replace("/state'", "/broker.key'"));
    refused(work, 1, "broker.key` is not usable");
}

/// Soft and hard limit are those of the shell that becomes the broker.
#[test]
fn a_broker_that_could_let_almost_nobody_in_does_not_start() {
    let (work, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let work = work.path();
    assert!(broker(work, &authority).stop().success());
    for check in ["--check", ""] {
        let line =
            format!("ulimit -n 714 && exec '{}' serve --config dayfly.toml {check}", env!("CARGO_BIN_EXE_dayfly"));
        let output = Command::new("/bin/sh").args(["-c", &line]).env_clear().current_dir(work).output().unwrap();
        let said = dev::text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("10 fit") && said.contains("at least 16"), "{said}");
    }
}

#[test]
fn a_state_folder_that_others_may_read_is_closed_to_them() {
    let (work, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let work = work.path();
    let state = work.join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let mut broker = broker(work, &authority);
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o7777, 0o700);
    assert!(broker.said().contains("the state folder was open to others"), "{}", broker.said());
    assert!(broker.stop().success());
}

#[test]
fn a_certificate_of_an_authority_is_warned_of() {
    let (work, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let work = work.path();
    let mut broker = broker(work, &authority);
    assert!(!broker.said().contains("CaUsedAsEndEntity"), "{}", broker.said());
    authority.write_leaf_with(work, "broker", |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let (code, said) = serve(work, &["--check"]);
    assert!(code == Some(0) && said.contains("broker.cert: is a CA's own"), "{said}");
    broker.restart();
    assert!(broker.said().contains("CaUsedAsEndEntity"), "{}", broker.said());
}

#[test]
fn what_alarms_hang_on_is_counted_from_zero() {
    let (work, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let metrics = broker(work.path(), &authority).ops("/metrics");
    for counter in [
        "forged_or_lost_total",
        "panics_total",
        "refusals_dropped_total",
        "verifiers_refused_total{reason=\"E-SIGNATURE\"}",
        "evidence_refused_total{reason=\"E-STRANGER\"}",
        "proofs_refused_total{reason=\"E-DPOP\"}",
        "connections_refused_total{door=\"tls\",why=\"per_address\"}",
    ] {
        assert!(metrics.contains(&format!("\ndayfly_{counter} 0\n")), "{counter}: {metrics}");
    }
}

/// Names and sizes of what is in the state folder.
fn state(work: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(work.join("state")).unwrap().map(Result::unwrap);
    let mut all: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())).collect();
    all.sort();
    all
}
