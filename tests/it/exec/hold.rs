//! The dead-man: what a killed, a stopped or an ended job costs, what a broker that restarts does not,
//! and `dayfly token --hold`, which is the same for a shell.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use dayfly_verifier::StatusRef;
use rustix::process::Signal;
use serde_json::Value;

use super::{Running, Stage, WAITS, stat};
use crate::{
    by_list,
    dev::{self, Dev, good, wait_until},
    outside, process,
};

/// The least that a template may have.
const GRACE: Duration = Duration::from_secs(10);
/// Beats come so often, and the broker looks once a second.
const BEAT: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(4);
/// A list is signed at most once a second; and as much for a busy machine.
const LIST: Duration = Duration::from_secs(2);

/// Its lease and its token in a line, and then the same.
pub const SHOWS: &[&str] =
    &["sh", "-c", "echo $DAYFLY_LEASE $(cat \"$DAYFLY_TOKEN_FILE\"); read -r line; echo alive; exit 6"];
const STAYS: &[&str] = &["sh", "-c", "echo $DAYFLY_LEASE; read -r line; echo alive; exit 6"];

/// A broker whose job has the least grace, and whose server goes by the status list; started by something.
pub fn stage_by(by: &[&str]) -> Stage {
    let work = dev::work();
    by_list::policies(work.path());
    let file = work.path().join("mine/shop.toml");
    let text = fs::read_to_string(&file).unwrap();
    let head = "[task.deploy-staging]\n";
    assert!(text.contains(head));
    fs::write(file, text.replace(head, &format!("{head}grace = \"10s\"\n"))).unwrap();
    let args = ["--policies", "mine"];
    let broker =
        if by.is_empty() { Dev::start(work.path(), &args) } else { Dev::start_through(work.path(), by, &args) };
    Stage { broker: Some(broker), work }
}

fn stage() -> Stage {
    stage_by(&[])
}

/// A lease as the operator sees it.
fn lease(stage: &Stage, id: &str) -> Value {
    serde_json::from_str(&good(stage.work(), &["lease", "show", id, "--output", "json"])).unwrap()
}

/// As a scrape reads it.
fn ended_total(stage: &Stage, cause: &str) -> u64 {
    let text = process::ops(stage.work(), "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("dayfly_ended_total{{cause=\"{cause}\"}} ")));
    line.map_or(0, |count| count.parse().unwrap())
}

fn cause(stage: &Stage, id: &str) -> String {
    lease(stage, id)["cause"].as_str().unwrap_or_default().to_owned()
}

/// What a job said of itself.
pub struct Known {
    pub lease: String,
    pub token: String,
    pub entry: StatusRef,
}

pub fn known(running: &mut Running) -> Known {
    let line = running.line();
    let (lease, token) = line.split_once(' ').unwrap();
    Known { lease: lease.to_owned(), token: token.to_owned(), entry: outside::entry(token) }
}

impl Known {
    /// Introspection and the list agree.
    fn agree(&self, work: &Path, live: bool) {
        assert_eq!((outside::is_active(work, &self.token), outside::bit(work, &self.entry) == 0), (live, live));
    }

    /// Waits for the end; what it took at introspection, and on the list.
    pub fn measure(&self, work: &Path, began: Instant) -> (Duration, Duration) {
        wait_until("the end", || !outside::is_active(work, &self.token));
        let introspection = began.elapsed();
        wait_until("the list", || outside::bit(work, &self.entry) == 1);
        (introspection, began.elapsed())
    }
}

/// Both within the grace, and not long before it is over.
pub fn assert_in_time(how: &str, (introspection, list): (Duration, Duration)) {
    println!("{how}: introspection after {} ms, list after {} ms", introspection.as_millis(), list.as_millis());
    assert!(introspection > GRACE - BEAT - SLACK && introspection < GRACE + SLACK, "{how}: {introspection:?}");
    assert!(list < GRACE + SLACK + LIST, "{how}: {list:?}");
}

#[test]
fn a_job_that_is_killed_or_stopped_loses_its_credential_within_the_grace_and_nothing_else() {
    let stage = stage();
    let [mut killed, mut stopped, mut undisturbed] = [0; 3].map(|_| stage.start(&[], SHOWS));
    let [of_killed, of_stopped, of_undisturbed] = [&mut killed, &mut stopped, &mut undisturbed].map(known);
    for job in [&of_killed, &of_stopped, &of_undisturbed] {
        job.agree(stage.work(), true);
    }
    let began = Instant::now();
    killed.signal(Signal::KILL);
    stopped.signal(Signal::STOP);
    for (how, job) in [("kill -9", &of_killed), ("SIGSTOP", &of_stopped)] {
        assert_in_time(how, job.measure(stage.work(), began));
        assert_eq!(cause(&stage, &job.lease), "hold_lost");
    }
    assert_eq!(outside::causes(stage.work()), ["hold_lost", "hold_lost"]);
    assert_eq!(ended_total(&stage, "hold_lost"), 2);
    of_undisturbed.agree(stage.work(), true);
    assert_eq!(lease(&stage, &of_undisturbed.lease)["state"], "active");

    stopped.signal(Signal::CONT);
    let said = stopped.heard_on_stderr("is over, so its credential is dead");
    assert!(said.contains("warning: the task tsk_"), "{said}");
    for (running, exit) in [(killed, None), (stopped, Some(6)), (undisturbed, Some(6))] {
        let (code, out, said) = running.tell("go\n").end();
        assert_eq!((code, out.as_str()), (exit, "alive\n"), "the command itself was never touched: {said}");
        assert!(exit.is_none() || said.contains("dayfly: ended"), "{said}");
    }
    assert_eq!(cause(&stage, &of_undisturbed.lease), "completed");
    assert_eq!(outside::causes(stage.work()), ["completed", "hold_lost", "hold_lost"]);
    assert_eq!((ended_total(&stage, "completed"), ended_total(&stage, "hold_lost")), (1, 2));
}

#[test]
fn a_command_whose_task_an_operator_ends_is_told_and_lives() {
    let stage = Stage::new();
    let mut running = stage.start(&[], STAYS);
    let id = running.line();
    let task = lease(&stage, &id)["task"].as_str().unwrap().to_owned();
    good(stage.work(), &["revoke", &task]);
    running.heard_on_stderr("is over, so its credential is dead");
    let (code, out, said) = running.tell("go\n").end();
    assert_eq!((code, out.as_str()), (Some(6), "alive\n"));
    assert!(said.contains("it had ended before: revoked"), "{said}");
}

#[test]
fn a_broker_that_is_killed_and_comes_back_finds_the_job_as_it_was() {
    let mut stage = stage();
    let mut running = stage.start(&[], STAYS);
    let id = running.line();
    drop(stage.broker.take());
    // Longer than its grace: it is told, and nothing is ended by a broker that was away.
    running.heard_on_stderr("the broker has not answered for 10 s");
    stage.broker = Some(Dev::start(stage.work(), &["--policies", "mine"]));
    running.heard_on_stderr("the broker answers again, and the task is alive");
    assert_eq!(lease(&stage, &id)["state"], "active");
    let (code, ..) = running.tell("go\n").end();
    assert_eq!((code, cause(&stage, &id).as_str()), (Some(6), "completed"));
}

/// `token --hold` in a session of its own.
fn sidecar(stage: &Stage, more: &[&str]) -> Command {
    let env = dev::env(stage.work());
    let evidence = dev::evidence(stage.work(), "evidence");
    let mut command = Command::new("setsid");
    command.arg(env!("CARGO_BIN_EXE_dayfly")).args(["token", "--task", &env["DAYFLY_DEV_TASK"], "--hold"]);
    command.args(["--evidence-file", &evidence]).args(more).env_clear().envs(env).current_dir(stage.work());
    command
}

#[test]
fn a_sidecar_renews_and_ends_its_task_when_it_is_told_to() {
    let stage = Stage::new();
    for signal in [Signal::TERM, Signal::INT] {
        let running = Running::start(&mut sidecar(&stage, &["--out", "job.token", "--ttl", "4s"]));
        let token = stage.work().join("job.token");
        wait_until("the token", || token.exists());
        let first = fs::read_to_string(&token).unwrap();
        wait_until("the renewal", || fs::read_to_string(&token).unwrap() != first);
        assert_eq!(stage.tasks().matches(r#""state":"active""#).count(), 1);
        running.signal(signal);
        let (code, out, said) = running.end();
        assert_eq!((code, out.as_str()), (Some(0), ""), "{said}");
        assert!(said.contains("dayfly: ended      tsk_"), "{said}");
        assert!(!token.exists() && !stage.work().join("job.token.task").exists());
    }
    assert_eq!(stage.tasks().matches(r#""cause":"completed""#).count(), 2);
}

#[test]
fn a_sidecar_without_a_file_gives_each_token_a_line() {
    let stage = Stage::new();
    let mut running = Running::start(&mut sidecar(&stage, &["--ttl", "4s"]));
    let (first, second) = (running.line(), running.line());
    assert!(first.starts_with("eyJ") && second.starts_with("eyJ") && first != second);
    running.signal(Signal::TERM);
    let (code, _, said) = running.end();
    assert_eq!(code, Some(0));
    assert!(!said.contains("no handle was kept"), "it is held: {said}");
}

#[test]
fn a_sidecar_ends_its_task_when_its_parent_is_gone() {
    let stage = Stage::new();
    let inner = sidecar(&stage, &["--out", "job.token"]);
    let words: Vec<_> = inner.get_args().map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    // The shell is killed while its sidecar runs.
    let line = format!("{} & echo $!; read -r line", words.join(" "));
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).env_clear().current_dir(stage.work());
    shell.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut shell = Running::start(&mut shell);
    let sidecar: u32 = shell.line().parse().unwrap();
    wait_until("the token", || stage.work().join("job.token").exists());
    assert_eq!(stat(sidecar, super::PARENT), shell.id().to_string());
    shell.signal(Signal::KILL);
    wait_until("the end", || stage.tasks().contains(r#""cause":"completed""#));
    wait_until("the files", || !stage.work().join("job.token").exists());
}

#[test]
fn a_job_goes_on_when_the_broker_is_gone_for_good() {
    let mut stage = Stage::new();
    let mut running = stage.start(&[], WAITS);
    assert_eq!(running.line(), "ready");
    drop(stage.broker.take());
    let (code, _, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("could not be ended"), "{said}");
}
