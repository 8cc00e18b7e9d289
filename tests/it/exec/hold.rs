//! The dead-man: what a killed, a stopped or an ended job costs, what a broker that restarts does not,
//! and `dayfly token --hold`, which is the same for a shell.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use super::{Running, Stage, WAITS, stat};
use crate::dev::{self, Dev, good, wait_until};

/// The least that a template may have.
const GRACE: Duration = Duration::from_secs(10);
/// Beats come so often, and the broker looks once a second.
const BEAT: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(4);

const STAYS: &[&str] = &["sh", "-c", "echo $DAYFLY_LEASE; read -r line; echo alive; exit 6"];

/// A broker whose job has the least grace.
fn stage() -> Stage {
    let work = dev::work();
    let policies = work.path().join("mine");
    fs::create_dir(&policies).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    fs::copy(shipped.join("production.cedar"), policies.join("production.cedar")).unwrap();
    let text = fs::read_to_string(shipped.join("shop.toml")).unwrap();
    let head = "[task.deploy-staging]\n";
    assert!(text.contains(head));
    fs::write(policies.join("shop.toml"), text.replace(head, &format!("{head}grace = \"10s\"\n"))).unwrap();
    let broker = Some(Dev::start(work.path(), &["--policies", "mine"]));
    Stage { broker, work }
}

/// A lease as the operator sees it.
fn lease(stage: &Stage, id: &str) -> Value {
    serde_json::from_str(&good(stage.work(), &["lease", "show", id, "--output", "json"])).unwrap()
}

fn cause(stage: &Stage, id: &str) -> String {
    lease(stage, id)["cause"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_job_that_is_killed_or_stopped_loses_its_credential_within_the_grace_and_nothing_else() {
    let stage = stage();
    let [mut killed, mut stopped, mut undisturbed] = [0; 3].map(|_| stage.start(&[], STAYS));
    let [of_killed, of_stopped, of_undisturbed] =
        [&mut killed, &mut stopped, &mut undisturbed].map(|running| running.line());
    let began = Instant::now();
    killed.signal(Signal::KILL);
    stopped.signal(Signal::STOP);
    for id in [&of_killed, &of_stopped] {
        wait_until("the end", || cause(&stage, id) == "hold_lost");
    }
    let took = began.elapsed();
    assert!(took > GRACE - BEAT - SLACK && took < GRACE + SLACK, "{took:?}");
    assert_eq!(lease(&stage, &of_undisturbed)["state"], "active");

    stopped.signal(Signal::CONT);
    let said = stopped.heard_on_stderr("is over, so its credential is dead");
    assert!(said.contains("warning: the task tsk_"), "{said}");
    for (running, exit) in [(killed, None), (stopped, Some(6)), (undisturbed, Some(6))] {
        let (code, out, said) = running.tell("go\n").end();
        assert_eq!((code, out.as_str()), (exit, "alive\n"), "the command itself was never touched: {said}");
        assert!(exit.is_none() || said.contains("dayfly: ended"), "{said}");
    }
    assert_eq!(cause(&stage, &of_undisturbed), "completed");
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
