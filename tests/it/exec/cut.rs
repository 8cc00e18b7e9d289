//! A job whose network is cut: in a network namespace of the test's own, where broker and job reach each
//! other until its loopback goes down. The broker's socket is a file, and answers all the while.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use rustix::process::Signal;

use super::{
    Running, code,
    hold::{SHOWS, assert_in_time, known, stage_by},
};
use crate::{dev, foreign::skipped, outside};

/// `ip` is not always where users look.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Becomes what follows it, in a namespace with nothing but a loopback.
const APART: [&str; 7] =
    ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""];

#[test]
fn a_job_that_is_cut_off_loses_its_credential_within_the_grace() {
    if skipped("netns") {
        return;
    }
    let stage = stage_by(&APART);
    let broker = stage.broker.as_ref().unwrap().child().id().to_string();
    let inside = ["nsenter", "--target", &broker, "--user", "--net", "--preserve-credentials"];
    let loopback = |state: &str| {
        let mut command = Command::new(inside[0]);
        command.args(&inside[1..]).args(["ip", "link", "set", "lo", state]).env("PATH", PATH).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", dev::text(&output.stderr));
    };
    let by = [&inside[..], &["setsid"]].concat();
    let mut running = Running::start(stage.exec_by(&by, &[], SHOWS).env("PATH", PATH));
    let job = known(&mut running);
    assert!(outside::is_active(stage.work(), &job.token));

    let began = Instant::now();
    loopback("down");
    assert_in_time("network cut", job.measure(stage.work(), began));
    assert_eq!(outside::causes(stage.work()), ["hold_lost"]);

    loopback("up");
    running.heard_on_stderr("is over, so its credential is dead");
    let (exit, out, _) = running.tell("go\n").end();
    assert_eq!((exit, out.as_str()), (Some(6), "alive\n"), "the command itself was never touched");
    assert_eq!(outside::causes(stage.work()), ["hold_lost"], "what ended once has ended");
    assert!(outside::bit(stage.work(), &job.entry) == 1 && !outside::is_active(stage.work(), &job.token));
    let mut verify = dev::dayfly(&["ledger", "verify", "--state", "state"]);
    let said = verify.current_dir(stage.work()).output().unwrap();
    assert_eq!(code(&said), Some(0), "{}", dev::text(&said.stderr));
    assert!(stage.broker.unwrap().end(Signal::TERM).success());
}
