//! `dayfly cert` from the outside: a service with certificates of a real broker, checked by real OpenSSL.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use rcgen::{KeyPair, PublicKeyData};
use rustix::process::Signal;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    dev::{self, Dev, good, text, wait_until},
    exec::Running,
    foreign::skipped,
};

static EVIDENCE: AtomicU32 = AtomicU32::new(0);

/// A broker whose bundle has a server that wants certificates, and a service.
pub struct Stage {
    _broker: Dev,
    work: TempDir,
}

impl Stage {
    pub fn new() -> Self {
        let work = dev::work();
        let policies = work.path().join("policies");
        fs::create_dir(&policies).unwrap();
        let shop = include_str!("../../policies/shop.toml").split("[[test]]").next().unwrap();
        fs::write(policies.join("shop.toml"), shop).unwrap();
        fs::write(policies.join("orders.toml"), include_str!("cert_files.toml")).unwrap();
        let broker = Dev::start(work.path(), &["--policies", "policies"]);
        Self { _broker: broker, work }
    }

    pub fn work(&self) -> &Path {
        self.work.path()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.work().join(name)
    }

    /// Evidence that was never shown, in this file.
    pub fn fresh(&self, name: &str) {
        let other = dev::evidence(self.work(), &format!("{name}.new"));
        fs::rename(self.at(&other), self.at(name)).unwrap();
    }

    /// `cert` with evidence of its own.
    pub fn cert(&self, task: &str, options: &[&str]) -> Command {
        let name = format!("evidence-{}", EVIDENCE.fetch_add(1, Ordering::Relaxed));
        self.fresh(&name);
        let mut command = dev::dayfly(&["cert", "--task", task]);
        if !options.contains(&"--evidence-file") {
            command.args(["--evidence-file", &name]);
        }
        command.args(options).envs(dev::env(self.work())).env("PATH", "/usr/bin:/bin").current_dir(self.work());
        command
    }

    /// One that must come.
    pub fn issued(&self, options: &[&str]) -> Output {
        let output = self.cert("orders-mtls", options).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        output
    }

    pub fn lease(&self, id: &str) -> Value {
        serde_json::from_str(&good(self.work(), &["lease", "show", id, "--output", "json"])).unwrap()
    }

    /// What is public of the authority, as anybody fetches it.
    pub fn public(&self, path: &str) -> Vec<u8> {
        let url = format!("{}{path}", dev::env(self.work())["DAYFLY_DEV_PKI"]);
        let fetched = Command::new("curl").args(["-sSf", "--max-time", "10", &url]).output().unwrap();
        assert!(fetched.status.success(), "{url}: {}", text(&fetched.stderr));
        fetched.stdout
    }
}

pub fn openssl(args: &[&str], work: &Path) -> (bool, String) {
    let output = Command::new("openssl").args(args).current_dir(work).stdin(Stdio::null()).output().unwrap();
    (output.status.success(), text(&output.stdout).to_owned() + text(&output.stderr))
}

/// The serial of a leaf in a file, if the file is whole: one key, and a chain whose leaf is for it.
pub fn whole(bundle: &[u8]) -> String {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(bundle).map(Result::unwrap).collect();
    let key = KeyPair::try_from(&PrivateKeyDer::from_pem_slice(bundle).unwrap()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    assert_eq!(leaf.public_key().raw, key.subject_public_key_info(), "key and certificate belong together");
    assert_eq!(chain.len(), 3, "leaf, issuing CA, area CA");
    leaf.raw_serial_as_string()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_certificate_comes_in_three_files_that_openssl_accepts() {
    if skipped("openssl") || skipped("curl") {
        return;
    }
    let stage = Stage::new();
    let output = stage.issued(&["--out", "tls", "--layout", "split", "--output", "json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["key_file"], &told["template"]), (&"tls.key".into(), &"orders-mtls".into()));
    assert!(!text(&output.stdout).contains("BEGIN"), "neither key nor certificate on stdout");
    for name in ["tls.key", "tls.crt", "tls.ca", "tls.task"] {
        assert_eq!(mode(&stage.at(name)), 0o600, "{name}");
    }
    let strict = ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "tls.ca", "-untrusted", "tls.crt"];
    let (accepted, said) = openssl(&[&strict[..], &["tls.crt"]].concat(), stage.work());
    assert!(accepted, "{said}");
    fs::write(stage.at("crl"), stage.public("/pki/bundle.crl")).unwrap();
    let listed = [&strict[..], &["-crl_check_all", "-CRLfile", "crl", "tls.crt"]].concat();
    let (accepted, said) = openssl(&listed, stage.work());
    assert!(accepted, "{said}");

    let (_, shown) = openssl(&["x509", "-noout", "-ext", "subjectAltName", "-in", "tls.crt"], stage.work());
    assert_eq!(shown.matches("URI:spiffe://example.org/orders-mtls/github/").count(), 1, "{shown}");
    assert_eq!(shown.matches(':').count() - 1, 2, "and no other name: {shown}");
    let (_, from_key) = openssl(&["pkey", "-in", "tls.key", "-pubout"], stage.work());
    let (_, from_leaf) = openssl(&["x509", "-noout", "-pubkey", "-in", "tls.crt"], stage.work());
    assert_eq!(from_key, from_leaf);
    let (_, serial) = openssl(&["x509", "-noout", "-serial", "-in", "tls.crt"], stage.work());
    let lease: dayfly_domain::LeaseId = told["lease_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(serial.trim(), format!("serial={:032X}", lease.as_u128()), "the serial number is the lease");
    let shown = stage.lease(&lease.to_string());
    assert_eq!((&shown["kind"], &shown["state"]), (&"x509".into(), &"active".into()));

    good(stage.work(), &["task", "end", "--task-file", "tls.task"]);
    wait_until("the list", || {
        fs::write(stage.at("crl"), stage.public("/pki/bundle.crl")).unwrap();
        let (accepted, said) = openssl(&listed, stage.work());
        assert!(accepted || said.contains("certificate revoked"), "{said}");
        !accepted
    });
}

#[test]
fn the_next_call_renews_with_the_handle_under_a_new_key_and_runs_the_hook() {
    let stage = Stage::new();
    let options = ["--out", "tls.pem", "--on-renew", "echo new >> hooked", "--output", "json"];
    let first: Value = serde_json::from_slice(&stage.issued(&options).stdout).unwrap();
    let before = fs::read(stage.at("tls.pem")).unwrap();
    assert_eq!((mode(&stage.at("tls.pem")), whole(&before).len() > 40), (0o600, true));
    fs::write(stage.at("none"), "no evidence").unwrap();
    let second = stage.issued(&[&options[..], &["--evidence-file", "none"]].concat());
    let second: Value = serde_json::from_slice(&second.stdout).unwrap();
    let after = fs::read(stage.at("tls.pem")).unwrap();
    assert_ne!(whole(&before), whole(&after));
    assert_eq!((&first["task_id"], first["lease_id"] == second["lease_id"]), (&second["task_id"], false));
    let key = |bundle: &[u8]| PrivateKeyDer::from_pem_slice(bundle).unwrap();
    assert_ne!(key(&before), key(&after), "never the same key twice");
    assert_eq!(fs::read_to_string(stage.at("hooked")).unwrap(), "new\nnew\n");
}

#[test]
fn a_hook_that_fails_is_a_warning() {
    let stage = Stage::new();
    let output = stage.issued(&["--out", "tls.pem", "--on-renew", "exit 3"]);
    assert!(text(&output.stderr).contains("the hook of --on-renew failed with exit status: 3"));
    whole(&fs::read(stage.at("tls.pem")).unwrap());
}

#[test]
fn a_watched_certificate_is_renewed_whole_and_its_task_ends_with_the_watch() {
    let stage = Stage::new();
    let options = ["--out", "tls.pem", "--ttl", "6s", "--watch", "--on-renew", "echo new >> hooked"];
    let mut watch = Running::start(&mut stage.cert("orders-mtls", &options));
    watch.heard_on_stderr("written");
    let read = || fs::read(stage.at("tls.pem")).unwrap();
    let first = whole(&read());
    // Read as often as can be: it is never missing, never half.
    wait_until("a new certificate", || whole(&read()) != first);
    wait_until("the hook", || fs::read_to_string(stage.at("hooked")).is_ok_and(|said| said == "new\nnew\n"));
    let task = good(stage.work(), &["task", "ls", "--template", "orders-mtls", "--output", "name"]);
    watch.signal(Signal::TERM);
    let (code, _, said) = watch.end();
    assert_eq!(code, Some(0), "{said}");
    let shown = good(stage.work(), &["task", "show", task.trim(), "--output", "json"]);
    assert!(shown.contains(r#""state":"ended""#) && shown.contains(r#""cause":"completed""#), "{shown}");
    for name in ["tls.pem", "tls.pem.task"] {
        assert!(!stage.at(name).exists(), "{name} stays");
    }
}

#[test]
fn a_watched_service_outlives_its_task_with_fresh_evidence() {
    let stage = Stage::new();
    stage.fresh("pod");
    let options = ["--out", "tls.pem", "--watch", "--evidence-file", "pod"];
    let mut watch = Running::start(&mut stage.cert("orders-brief", &options));
    watch.heard_on_stderr("written");
    // As the platform does it for a pod.
    stage.fresh("pod");
    let tasks = || good(stage.work(), &["task", "ls", "--template", "orders-brief", "--output", "name"]);
    assert_eq!(tasks().lines().count(), 1);
    wait_until("the next task", || {
        whole(&fs::read(stage.at("tls.pem")).unwrap());
        tasks().lines().count() == 2
    });
    watch.signal(Signal::INT);
    let (code, _, said) = watch.end();
    assert_eq!(code, Some(0), "{said}");
    let live =
        good(stage.work(), &["task", "ls", "--state", "active", "--template", "orders-brief", "--output", "name"]);
    assert_eq!(live, "", "both are over");
}

#[test]
fn a_watch_without_a_next_task_ends_with_a_failure_and_leaves_nothing() {
    let stage = Stage::new();
    let mut watch = Running::start(&mut stage.cert("orders-brief", &["--out", "tls.pem", "--watch"]));
    watch.heard_on_stderr("written");
    // Its evidence is used up.
    let (code, _, said) = watch.end();
    assert!(code.is_some_and(|code| code != 0) && said.contains("E-REPLAYED"), "{code:?} {said}");
    assert!(!stage.at("tls.pem").exists(), "a dead certificate serves nobody");
}

#[test]
fn where_no_certificate_is_given_nothing_is_written() {
    let stage = Stage::new();
    let refused = |options: &[&str]| stage.cert("deploy-staging", options).output().unwrap();
    let output = refused(&["--out", "tls.pem"]);
    assert!(!output.status.success() && text(&output.stderr).contains("no certificate was issued"));
    assert!(!stage.at("tls.pem").exists() && !stage.at("tls.pem.task").exists());
    let output = refused(&["--out", "tls", "--task-file", "tls"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}
