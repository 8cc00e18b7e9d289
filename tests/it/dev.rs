//! `dayfly dev` from the outside: the program, its files and its signals, as a script sees them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The program with none of the variables of whoever runs the tests.
pub fn dayfly(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dayfly"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

pub fn signal(child: &Child, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(id, signal).unwrap();
}

/// Waits for another process: nothing tells us when it is done.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what} never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A running `dayfly dev`, ended with the test.
pub struct Dev {
    child: Child,
    said: PathBuf,
}

impl Dev {
    /// Starts and waits for `dev.env`.
    pub fn start(work: &Path, args: &[&str]) -> Self {
        Self::ready(work, dayfly(&["dev"]), args)
    }

    /// The same under a program that becomes the broker, such as `unshare`.
    pub fn start_through(work: &Path, through: &[&str], args: &[&str]) -> Self {
        let mut command = Command::new(through[0]);
        command.args(&through[1..]).args([env!("CARGO_BIN_EXE_dayfly"), "dev"]).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::var("PATH").unwrap());
        Self::ready(work, command, args)
    }

    fn ready(work: &Path, command: Command, args: &[&str]) -> Self {
        let dev = Self::spawn(work, command, args);
        let env = work.join("state/dev.env");
        wait_until("dev.env", || env.exists());
        dev
    }

    fn spawn(work: &Path, mut command: Command, args: &[&str]) -> Self {
        // Of an earlier start; a script that waits for it must not find it.
        let _ = fs::remove_file(work.join("state/dev.env"));
        let (said, state) = (work.join("said"), work.join("state"));
        let stderr = fs::File::create(&said).unwrap();
        command
            .args(["--state", state.to_str().unwrap()])
            .args(args)
            .current_dir(work)
            .stdout(Stdio::null())
            .stderr(stderr);
        Self { child: command.spawn().unwrap(), said }
    }

    pub fn child(&self) -> &Child {
        &self.child
    }

    pub fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    pub fn end(mut self, with: Signal) -> ExitStatus {
        signal(&self.child, with);
        self.child.wait().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn env(work: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(work.join("state/dev.env")).unwrap();
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap();
    text.lines().map(pair).collect()
}

/// A verb with what `dev.env` says.
pub fn verb(work: &Path, args: &[&str]) -> Output {
    let env = env(work);
    let token_file = env["DAYFLY_OPERATOR_TOKEN_FILE"].clone();
    dayfly(args).envs(env).env("DAYFLY_TOKEN_FILE", token_file).current_dir(work).output().unwrap()
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Standard output of a verb that must succeed.
pub fn good(work: &Path, args: &[&str]) -> String {
    let output = verb(work, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// A token of the stand-in for the claims that the bundle lets through, in a file.
pub fn evidence(work: &Path, name: &str) -> String {
    let claims = env(work)["DAYFLY_DEV_CLAIMS"].clone();
    fs::write(work.join(name), good(work, &["dev", "token", "--state", "state", "--claims", &claims])).unwrap();
    name.to_owned()
}

pub fn job(work: &Path, out: &str) -> Output {
    let evidence = evidence(work, &format!("{out}.evidence"));
    let task = env(work)["DAYFLY_DEV_TASK"].clone();
    verb(work, &["token", "--task", &task, "--evidence-file", &evidence, "--out", out])
}

pub fn work() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_script_finds_all_it_needs_and_a_killed_broker_goes_on() {
    let work = work();
    let work = work.path();
    let dev = Dev::start(work, &[]);
    let first = env(work);
    let keys: Vec<_> = first.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "DAYFLY_ADDR",
            "DAYFLY_CA",
            "DAYFLY_DEV_CLAIMS",
            "DAYFLY_DEV_ISSUER",
            "DAYFLY_DEV_PKI",
            "DAYFLY_DEV_TASK",
            "DAYFLY_METRICS",
            "DAYFLY_OPERATOR_TOKEN_FILE"
        ]
    );
    assert!(dev.said().contains("not for production"), "{}", dev.said());
    let issued = job(work, "job.token");
    assert!(issued.status.success(), "{}", text(&issued.stderr));
    let live = good(work, &["lease", "ls", "--template", &first["DAYFLY_DEV_TASK"], "--output", "name"]);
    assert_eq!(live.lines().count(), 1, "{live}");

    assert!(!dev.end(Signal::KILL).success());
    let dev = Dev::start(work, &[]);
    assert_eq!(env(work), first);
    let lease = good(work, &["lease", "show", live.trim(), "--output", "json"]);
    assert!(lease.contains(r#""state":"active""#), "{lease}");
    let replayed = verb(work, &["token", "--task", "deploy-staging", "--evidence-file", "job.token.evidence"]);
    assert!(text(&replayed.stderr).contains("E-REPLAYED"), "{}", text(&replayed.stderr));
    good(work, &["task", "end", "--task-file", "job.token.task"]);
    assert!(good(work, &["lease", "show", live.trim(), "--output", "json"]).contains(r#""state":"ended""#));
    good(work, &["ledger", "verify", "--state", "state"]);
    assert!(dev.end(Signal::TERM).success());
    good(work, &["ledger", "verify", "--state", "state"]);
}

#[test]
fn what_is_secret_is_its_owners_alone() {
    let work = work();
    let _dev = Dev::start(work.path(), &[]);
    for entry in fs::read_dir(work.path().join("state")).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", entry.file_name());
    }
}

#[test]
fn a_reload_takes_the_new_bundle_and_a_bad_one_leaves_the_old() {
    let work = work();
    let work = work.path();
    fs::create_dir(work.join("policies")).unwrap();
    let shop = include_str!("../../policies/shop.toml").split("[[test]]").next().unwrap();
    let write = |text: &str| fs::write(work.join("policies/shop.toml"), text).unwrap();
    write(shop);
    let dev = Dev::start(work, &[]);
    assert!(job(work, "a").status.success());

    write(&shop.replace("ttl ", "tttl "));
    signal(&dev.child, Signal::HUP);
    wait_until("the refusal of the bundle", || dev.said().contains("the old bundle stays"));
    assert!(job(work, "b").status.success());

    write(&shop.replace("refs/heads/main\", environment = \"staging", "refs/heads/dev\", environment = \"staging"));
    signal(&dev.child, Signal::HUP);
    wait_until("the new bundle", || dev.said().contains("bundle loaded"));
    let claims = fs::read_to_string(work.join("state/dev-claims.json")).unwrap();
    assert!(claims.contains("refs/heads/dev"), "{claims}");
    assert!(job(work, "c").status.success());
    let old = claims.replace("refs/heads/dev", "refs/heads/main");
    fs::write(work.join("state/dev-claims.json"), old).unwrap();
    let refused = job(work, "d");
    assert!(text(&refused.stderr).contains("E-NOMATCH"), "{}", text(&refused.stderr));
    assert!(dev.end(Signal::INT).success());
}

#[test]
fn a_bundle_without_a_fitting_task_leaves_two_lines_out() {
    let work = work();
    let work = work.path();
    let shop = include_str!("../../policies/shop.toml").split("[[test]]").next().unwrap();
    fs::create_dir(work.join("bundle")).unwrap();
    fs::write(work.join("bundle/shop.toml"), shop.replace("\"bearer\"", "\"dpop\"")).unwrap();
    let _dev = Dev::start(work, &["--policies", "bundle"]);
    let env = env(work);
    assert_eq!(env.len(), 6, "{env:?}");
    assert!(!env.contains_key("DAYFLY_DEV_TASK") && !env.contains_key("DAYFLY_DEV_CLAIMS"));
}

#[test]
fn a_folder_has_one_broker_and_only_loopback() {
    let work = work();
    let work = work.path();
    let dev = Dev::start(work, &[]);
    let second = verb(work, &["dev", "--state", "state"]);
    assert_eq!(second.status.code(), Some(69));
    assert!(text(&second.stderr).contains("another process holds"), "{}", text(&second.stderr));
    assert!(work.join("state/dev.env").exists(), "the first one's file");
    let taken = env(work)["DAYFLY_ADDR"].trim_start_matches("https://").to_owned();
    let other = verb(work, &["dev", "--state", "other", "--listen", &taken]);
    assert_eq!(other.status.code(), Some(69), "{}", text(&other.stderr));
    assert!(text(&other.stderr).contains(&taken));
    let far = verb(work, &["dev", "--state", "far", "--listen", "0.0.0.0:0"]);
    assert_eq!(far.status.code(), Some(2));
    assert!(!work.join("far").exists());
    assert!(dev.end(Signal::TERM).success());
}

#[test]
fn an_issuer_that_cannot_be_played_is_told_with_those_that_can() {
    let work = work();
    let refused = dayfly(&["dev", "--state", "state", "--as", "nobody"]).current_dir(work.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("issuer.nobody") && text(&refused.stderr).contains("`github`"));
}

#[test]
fn dev_token_needs_no_broker_and_ignores_variables() {
    let work = work();
    let work = work.path();
    assert!(Dev::start(work, &[]).end(Signal::TERM).success());
    let mut command = dayfly(&["dev", "token", "--state", "state", "--without", "jti"]);
    for name in ["DAYFLY_ADDR", "DAYFLY_CA", "DAYFLY_CONFIG", "DAYFLY_OUTPUT", "DAYFLY_STATE"] {
        command.env(name, "nonsense");
    }
    let output = command.current_dir(work).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let token = text(&output.stdout);
    assert_eq!((token.matches('.').count(), token.lines().count(), token.ends_with('\n')), (2, 1, true));
    assert_eq!(text(&output.stderr), "");
    let unknown =
        dayfly(&["dev", "token", "--state", "state", "--as", "dayfly-dev"]).current_dir(work).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("it plays `github`"));
}

#[test]
fn without_state_nothing_is_left_behind() {
    let work = work();
    let said = work.path().join("said");
    let mut command = dayfly(&["dev"]);
    command.env("TMPDIR", work.path()).current_dir("/").stdout(Stdio::null());
    let dev = Dev { child: command.stderr(fs::File::create(&said).unwrap()).spawn().unwrap(), said: said.clone() };
    let others = |path: &PathBuf| *path != said;
    let folders = || {
        let entries = fs::read_dir(work.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(others).collect::<Vec<_>>()
    };
    wait_until("dev.env", || folders().iter().any(|dir| dir.join("dev.env").exists()));
    let dir = folders().remove(0);
    assert!(!dir.join("dayfly.db").exists() && !dir.join("token-keys.json").exists(), "they are in memory");
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let token = dayfly(&["dev", "token", "--state", dir.to_str().unwrap()]).output().unwrap();
    assert!(token.status.success());
    assert!(dev.end(Signal::INT).success());
    assert_eq!(folders(), Vec::<PathBuf>::new());
}

#[test]
fn a_bundle_that_forbids_its_operator_is_served_all_the_same() {
    let work = work();
    let work = work.path();
    let shop = include_str!("../../policies/shop.toml").split("[[test]]").next().unwrap();
    fs::create_dir(work.join("bundle")).unwrap();
    fs::write(work.join("bundle/shop.toml"), shop).unwrap();
    let forbid = "@id(\"one-issuer\") @purpose(\"only the platform\")\n\
        forbid (principal is Dayfly::Workload, action == Dayfly::Action::\"run\", resource)\n\
        unless { principal.issuer == \"github\" };\n";
    fs::write(work.join("bundle/only.cedar"), forbid).unwrap();
    let dev = Dev::start(work, &["--policies", "bundle"]);
    assert!(dev.said().contains("E-FORBIDDEN"), "{}", dev.said());
    let evidence = evidence_without_operator(work);
    let task = env(work)["DAYFLY_DEV_TASK"].clone();
    let issued = dayfly(&["token", "--task", &task, "--evidence-file", &evidence, "--out", "job"])
        .envs(env(work))
        .current_dir(work)
        .output()
        .unwrap();
    assert!(issued.status.success(), "{}", text(&issued.stderr));
}

/// As [`evidence`], with nobody's token at hand.
fn evidence_without_operator(work: &Path) -> String {
    let claims = env(work)["DAYFLY_DEV_CLAIMS"].clone();
    let made = dayfly(&["dev", "token", "--state", "state", "--claims", &claims]).current_dir(work).output().unwrap();
    fs::write(work.join("evidence"), &made.stdout).unwrap();
    "evidence".to_owned()
}
