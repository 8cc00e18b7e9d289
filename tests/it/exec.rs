//! `dayfly exec` from the outside: each point of its contract (docs/how-to/run-a-job.md), with the real
//! program against a real broker. Signals, groups and sessions are as the kernel shows them.

mod cut;
mod files;
mod hold;
mod signals;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    dev::{self, Dev, good, text},
    foreign::skipped,
};

static EVIDENCE: AtomicU32 = AtomicU32::new(0);

/// A broker, and a job that may open tasks there.
pub struct Stage {
    pub broker: Option<Dev>,
    work: TempDir,
}

impl Stage {
    pub fn new() -> Self {
        let work = dev::work();
        let broker = Some(Dev::start(work.path(), &[]));
        Self { broker, work }
    }

    pub fn work(&self) -> &Path {
        self.work.path()
    }

    /// `exec` with evidence of its own, in a session without a terminal, and only these variables.
    pub fn exec(&self, options: &[&str], command: &[&str]) -> Command {
        self.exec_by(&["setsid"], options, command)
    }

    /// The same, started by something else.
    pub fn exec_by(&self, by: &[&str], options: &[&str], command: &[&str]) -> Command {
        let env = dev::env(self.work());
        // Each its own: several may be under way.
        let name = format!("evidence-{}", EVIDENCE.fetch_add(1, Ordering::Relaxed));
        let own = ["--evidence-file".to_owned(), dev::evidence(self.work(), &name)];
        let own = own.iter().filter(|_| !options.contains(&"--evidence-file"));
        // Whatever the tests were started by ignores (`nohup`, a job in the background) is not ignored here.
        let mut whole = Command::new("env");
        whole.arg("--default-signal").args(by).arg(env!("CARGO_BIN_EXE_dayfly"));
        whole.args(["exec", "--task", &env["DAYFLY_DEV_TASK"]]).args(own).args(options).arg("--");
        whole.args(command).env_clear().envs(env).env("PATH", "/usr/bin:/bin").current_dir(self.work());
        whole.stdin(Stdio::null());
        whole
    }

    pub fn run(&self, options: &[&str], command: &[&str]) -> Output {
        self.exec(options, command).output().unwrap()
    }

    pub fn start(&self, options: &[&str], command: &[&str]) -> Running {
        Running::start(&mut self.exec(options, command))
    }

    /// What the operator sees of all tasks of the job.
    pub fn tasks(&self) -> String {
        let template = dev::env(self.work())["DAYFLY_DEV_TASK"].clone();
        good(self.work(), &["task", "ls", "--template", &template, "--output", "json"])
    }
}

/// An `exec` under way. Its command talks to the test by lines, and waits for its stdin to close.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    said: String,
    _within: Sender<()>,
}

/// A line that never comes fails its test instead of keeping all of them waiting.
const WITHIN: Duration = Duration::from_secs(300);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let (within, over) = mpsc::channel();
        thread::spawn(move || {
            if over.recv_timeout(WITHIN) == Err(RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        Self { stdin: child.stdin.take(), child, stdout, stderr, said: String::new(), _within: within }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Reads our talk up to this.
    pub fn heard_on_stderr(&mut self, part: &str) -> String {
        while !self.said.contains(part) {
            let read = self.stderr.read_line(&mut self.said).unwrap();
            assert!(read > 0, "`{part}` was never said: {}", self.said);
        }
        self.said.clone()
    }

    /// A line for the command.
    pub fn tell(mut self, line: &str) -> Self {
        self.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        self
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line).unwrap();
        assert!(read > 0, "it ended without a further line: {}", self.said);
        line.trim_end().to_owned()
    }

    /// Lets the command end. Its exit code, what it wrote, and what we said.
    pub fn end(mut self) -> (Option<i32>, String, String) {
        drop(self.stdin.take());
        let mut out = String::new();
        self.stdout.read_to_string(&mut out).unwrap();
        self.stderr.read_to_string(&mut self.said).unwrap();
        (self.child.wait().unwrap().code(), out, std::mem::take(&mut self.said))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that says `ready`, and lasts until its stdin closes.
pub const WAITS: &[&str] = &["sh", "-c", "echo ready; while read -r line; do :; done"];

/// A number of `/proc/PID/stat`, counted from the state on.
pub fn stat(pid: u32, field: usize) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(field).unwrap().to_owned()
}

pub const PARENT: usize = 1;
pub const GROUP: usize = 2;
pub const SESSION: usize = 3;

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn the_exit_code_is_the_commands_and_128_and_the_signal_where_one_ended_it() {
    let stage = Stage::new();
    for (line, expected) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 125", 125),
        ("exit 255", 255),
        ("exit 256", 0),
        ("exit 100000", 100_000 % 256),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("kill -SEGV $$", 139),
    ] {
        let output = stage.run(&[], &["sh", "-c", line]);
        assert_eq!(code(&output), Some(expected), "{line}: {}", text(&output.stderr));
    }
    assert!(!stage.tasks().contains(r#""state":"active""#), "every task is ended");
}

#[test]
fn what_cannot_be_executed_is_126_what_is_not_found_127_and_nothing_is_asked_then() {
    let stage = Stage::new();
    fs::write(stage.work().join("plain"), "#!/bin/sh\n").unwrap();
    for (name, expected) in [("./plain", 126), ("/tmp", 126), ("./nothing", 127), ("no-such-program", 127), ("", 127)] {
        let output = stage.run(&[], &[name]);
        let said = text(&output.stderr);
        assert_eq!(code(&output), Some(expected), "{name}: {said}");
        assert!(said.starts_with("error: ") && !said.contains("identity"), "{said}");
    }
    assert_eq!(stage.tasks().matches("tsk_").count(), 0);
}

#[test]
fn an_interpreter_that_is_not_there_is_127_and_its_task_is_ended() {
    let stage = Stage::new();
    fs::write(stage.work().join("script"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(stage.work().join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = stage.run(&[], &["./script"]);
    assert_eq!(code(&output), Some(127), "{}", text(&output.stderr));
    assert!(!stage.tasks().contains(r#""state":"active""#));
}

#[test]
fn when_the_wrapper_fails_first_the_code_is_125_and_the_command_is_not_started() {
    let stage = Stage::new();
    let mark = stage.work().join("started");
    let touch = ["touch", mark.to_str().unwrap()];
    let cases: &[&[&str]] = &[
        &["--target", "https://nowhere.example"],
        &["--action", "no:such"],
        &["--addr", "https://127.0.0.1:1"],
        &["--dpop-key", "/no/such/folder/key"],
        &["--no-such-option"],
    ];
    for options in cases {
        let output = stage.run(options, &touch);
        assert_eq!(code(&output), Some(125), "{options:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).starts_with("error: ") || text(&output.stderr).contains("\nerror: "));
    }
    assert!(!mark.exists());
    let json = stage.run(&["--error-format", "json", "--target", "https://nowhere.example"], &touch);
    assert!(text(&json.stderr).contains(r#""code":"E-TARGET""#) && text(&json.stderr).contains(r#""exit":125"#));
}

#[test]
fn stdout_is_the_commands_alone_and_stdin_too() {
    let stage = Stage::new();
    let lines = stage.start(&["--output", "json"], &["cat"]);
    let sent: String = (0..1000).map(|n| format!("line {n}\n")).collect();
    let (exit, out, said) = lines.tell(&sent).end();
    assert_eq!((exit, out.as_str()), (Some(0), sent.as_str()), "{said}");
    let words = ["dayfly: identity   file", "dayfly: lease      lse_", "dayfly: ended      tsk_"];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

#[test]
fn it_stays_the_parent() {
    let stage = Stage::new();
    let mut running = stage.start(&[], &["sh", "-c", "echo $$ $PPID; while read -r line; do :; done"]);
    let line = running.line();
    let (child, parent) = line.split_once(' ').unwrap();
    assert_eq!(parent, running.id().to_string());
    assert_ne!(child, parent);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn as_pid_1_it_reaps_what_others_leave() {
    if skipped("unshare") {
        return;
    }
    let stage = Stage::new();
    let by = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    // Orphans end at once; as long as one of them is a zombie, the command waits.
    let orphans = "echo $PPID; for n in 1 2 3 4; do (true &); done; \
                   while grep -qs '^State:.Z' /proc/[0-9]*/status; do :; done; echo reaped; exit 7";
    let output = stage.exec_by(&by, &[], &["sh", "-c", orphans]).output().unwrap();
    assert_eq!((code(&output), text(&output.stdout)), (Some(7), "1\nreaped\n"), "{}", text(&output.stderr));
}

#[test]
fn nobody_is_inside_of_another_exec_by_what_it_left_there() {
    let stage = Stage::new();
    let inner = [env!("CARGO_BIN_EXE_dayfly"), "exec", "--task", "deploy-staging", "--", "true"];
    let output = stage.run(&[], &inner);
    let said = text(&output.stderr);
    assert_eq!(code(&output), Some(125));
    assert!(said.contains("inside of `dayfly exec`") && said.contains("--evidence-file"), "{said}");
    // With evidence of its own it has a task of its own, and ends only that.
    let env = dev::env(stage.work());
    let made = dev::dayfly(&["dev", "token", "--state", "state", "--claims", &env["DAYFLY_DEV_CLAIMS"]]);
    let made = { made }.current_dir(stage.work()).output().unwrap();
    fs::write(stage.work().join("other"), made.stdout).unwrap();
    let inner = [&inner[..4], &["--evidence-file", "other", "--", "sh", "-c", "echo inner $DAYFLY_LEASE"]].concat();
    let line = format!("{}; echo outer $DAYFLY_LEASE; wc -c <$DAYFLY_TOKEN_FILE >/dev/null", shell(&inner));
    let output = stage.run(&[], &["sh", "-c", &line]);
    let leases: Vec<_> = text(&output.stdout).lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert!(leases.len() == 2 && leases[0] != leases[1], "{}", text(&output.stderr));
    let (inner, outer) =
        text(&output.stderr).split_once("dayfly: ended").map(|(_, rest)| rest.split_once('\n')).unwrap().unwrap();
    assert!(inner.contains("1 lease ended") && outer.contains("1 lease ended"), "{}", text(&output.stderr));
}

/// Words as a shell reads them.
fn shell(words: &[&str]) -> String {
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_task_ends_with_its_command_and_a_failed_end_is_a_warning() {
    let mut stage = Stage::new();
    let mut running = stage.start(&[], WAITS);
    assert_eq!(running.line(), "ready");
    assert_eq!(stage.tasks().matches(r#""state":"active""#).count(), 1);
    let (exit, _, said) = running.end();
    assert_eq!(exit, Some(0));
    let line = said.lines().find(|line| line.starts_with("dayfly: ended      tsk_")).unwrap();
    assert!(line.contains(" after ") && line.contains("1 lease ended"), "{line}");
    let tasks = stage.tasks();
    assert!(tasks.contains(r#""cause":"completed""#) && !tasks.contains(r#""state":"active""#), "{tasks}");

    let mut running = stage.start(&[], &["sh", "-c", "echo ready; while read -r line; do :; done; exit 9"]);
    assert_eq!(running.line(), "ready");
    drop(stage.broker.take());
    let (exit, _, said) = running.end();
    assert_eq!(exit, Some(9), "{said}");
    assert!(said.contains("warning: the task tsk_") && said.contains("could not be ended"), "{said}");
}

#[test]
fn a_target_that_wants_a_key_gets_one_that_is_made_for_the_job() {
    let stage = Stage::new();
    let sample = fs::read(&dev::env(stage.work())["DAYFLY_DEV_CLAIMS"]).unwrap();
    let mut claims: serde_json::Value = serde_json::from_slice(&sample).unwrap();
    claims["environment"] = "production".into();
    fs::write(stage.work().join("claims.json"), claims.to_string()).unwrap();
    let evidence = good(stage.work(), &["dev", "token", "--state", "state", "--claims", "claims.json"]);
    fs::write(stage.work().join("production"), evidence).unwrap();
    let options = ["--task", "deploy-prod", "--evidence-file", "production"];
    let show = "stat -c '%a %n' \"$DAYFLY_DPOP_KEY\"; ls \"${DAYFLY_DPOP_KEY%/*}\"";
    let mut whole = dev::dayfly(&["exec"]);
    whole.args(options).args(["--", "sh", "-c", show]).envs(dev::env(stage.work())).current_dir(stage.work());
    let output = whole.output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let shown = text(&output.stdout);
    assert!(shown.starts_with("600 /") && shown.ends_with("/dpop.pem\ndpop.pem\nlock\ntask\ntoken\n"), "{shown}");
    assert!(said.contains("1 lease ended"), "{said}");
}
