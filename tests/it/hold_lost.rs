//! The hold over real processes: a client that is killed or stopped loses its task within the grace (one
//! that is cut off: `exec/cut.rs`); a broker that is killed or stopped takes nobody's.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::dev::{self, Dev, wait_until};

/// The shortest there is.
const GRACE: Duration = Duration::from_secs(10);
/// A look each second, the end's own way, and a machine that has other things to do.
const SLACK: Duration = Duration::from_secs(8);

/// The shipped bundle with the shortest grace.
fn work() -> TempDir {
    let work = dev::work();
    let policies = work.path().join("mine");
    fs::create_dir(&policies).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    fs::copy(shipped.join("production.cedar"), policies.join("production.cedar")).unwrap();
    let tables = fs::read_to_string(shipped.join("shop.toml")).unwrap();
    fs::write(policies.join("shop.toml"), tables.replace("purpose   =", "grace     = \"10s\"\npurpose   =")).unwrap();
    work
}

/// A job under `dayfly exec`. Its command waits for us, so that nothing is left behind a killed wrapper.
struct Client(Child);

impl Client {
    fn start(work: &Path, name: &str) -> (Self, String) {
        let before = tasks(work);
        let evidence = dev::evidence(work, &format!("{name}.evidence"));
        let task = dev::env(work)["DAYFLY_DEV_TASK"].clone();
        let exec = ["exec", "--task", &task, "--evidence-file", &evidence, "--", "cat"];
        let said = fs::File::create(work.join(format!("{name}.said"))).unwrap();
        let mut start = Command::new(env!("CARGO_BIN_EXE_dayfly"));
        start.args(exec).env_clear().envs(dev::env(work)).env("PATH", env_path());
        let child = start.current_dir(work).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(said).spawn().unwrap();
        let client = Self(child);
        let mut opened = None;
        wait_until("a task that beats", || {
            let new = tasks(work).into_iter().find(|task| !before.iter().any(|old| old["id"] == task["id"]));
            opened = new.filter(|task| task["hold"]["last_beat_at"].is_string());
            opened.is_some()
        });
        let id = opened.unwrap()["id"].as_str().unwrap().to_owned();
        (client, id)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn env_path() -> String {
    std::env::var("PATH").unwrap()
}

/// Over the socket, whatever became of the network.
fn tasks(work: &Path) -> Vec<Value> {
    let mut list = dev::dayfly(&["task", "ls", "--state-dir", "state", "--output", "json"]);
    let listed = list.current_dir(work).output().unwrap();
    let listed: Value = serde_json::from_str(dev::text(&listed.stdout)).unwrap_or_default();
    listed["items"].as_array().cloned().unwrap_or_default()
}

fn shown(work: &Path, id: &str) -> Value {
    let mut show = dev::dayfly(&["task", "show", id, "--state", "state", "--output", "json"]);
    let shown = show.current_dir(work).output().unwrap();
    serde_json::from_str(dev::text(&shown.stdout)).unwrap_or_default()
}

fn is_lost(work: &Path, id: &str) -> bool {
    shown(work, id)["cause"] == "hold_lost"
}

fn is_active(work: &Path, id: &str) -> bool {
    shown(work, id)["state"] == "active"
}

#[test]
fn a_client_that_is_killed_or_stopped_loses_its_task_and_its_neighbour_does_not() {
    let work = work();
    let work = work.path();
    let _broker = Dev::start(work, &["--policies", "mine"]);
    let (killed, killed_task) = Client::start(work, "killed");
    let (stopped, stopped_task) = Client::start(work, "stopped");
    let (_alive, alive_task) = Client::start(work, "alive");
    let began = Instant::now();
    dev::signal(&killed.0, Signal::KILL);
    dev::signal(&stopped.0, Signal::STOP);
    wait_until("the end of both", || is_lost(work, &killed_task) && is_lost(work, &stopped_task));
    assert!(began.elapsed() < GRACE + SLACK, "{:?}", began.elapsed());
    assert!(is_active(work, &alive_task));
    let task = shown(work, &killed_task);
    assert_eq!((&task["ended_by"], &task["reason"]), (&"broker".into(), &"no beat for 10s".into()));
    assert_eq!(task["leases"]["active"], 0);
    // It goes on where it was stopped, and gets nothing any more.
    dev::signal(&stopped.0, Signal::CONT);
    wait_until("that it is told", || fs::read_to_string(work.join("stopped.said")).unwrap().contains("is over"));
    assert!(is_lost(work, &stopped_task));
    assert!(dev::good(work, &["ledger", "verify", "--state", "state"]).contains("verified"));
}

#[test]
fn a_broker_that_is_killed_ends_nobody_but_who_died_meanwhile() {
    let work = work();
    let work = work.path();
    let broker = Dev::start(work, &["--policies", "mine"]);
    let (_alive, alive_task) = Client::start(work, "alive");
    let (dying, dying_task) = Client::start(work, "dying");
    dev::signal(broker.child(), Signal::KILL);
    drop(broker);
    dev::signal(&dying.0, Signal::KILL);
    let down = Instant::now();
    wait_until("a grace while nobody is there", || down.elapsed() > GRACE);
    let _broker = Dev::start(work, &["--policies", "mine"]);
    let back = Instant::now();
    assert!(is_active(work, &alive_task) && is_active(work, &dying_task), "nothing was ended by the start");
    wait_until("the end of who died", || is_lost(work, &dying_task));
    assert!(back.elapsed() > GRACE / 2 && back.elapsed() < GRACE + SLACK, "{:?}", back.elapsed());
    assert!(is_active(work, &alive_task));
    assert!(dev::good(work, &["ledger", "verify", "--state", "state"]).contains("verified"));
}

#[test]
fn t_104_a_broker_that_was_stopped_ends_nobody() {
    let work = work();
    let work = work.path();
    let broker = Dev::start(work, &["--policies", "mine"]);
    let (_alive, alive_task) = Client::start(work, "alive");
    let (dying, dying_task) = Client::start(work, "dying");
    dev::signal(broker.child(), Signal::STOP);
    dev::signal(&dying.0, Signal::KILL);
    let stopped = Instant::now();
    wait_until("more than a grace", || stopped.elapsed() > GRACE + Duration::from_secs(2));
    dev::signal(broker.child(), Signal::CONT);
    let back = Instant::now();
    wait_until("the end of who died", || is_lost(work, &dying_task));
    assert!(back.elapsed() > GRACE / 2, "not at once, it was the broker that was away: {:?}", back.elapsed());
    assert!(is_active(work, &alive_task));
    assert!(broker.said().contains("every grace begins anew"), "{}", broker.said());
}
