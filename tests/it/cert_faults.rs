//! `dayfly cert`, and the verbs that look at certificates, when the machine fails them: a full disk, a reader that
//! went away, a kill. What did not happen is never told as done, and nothing half is left.

use std::{
    fs,
    io::Read,
    os::unix::process::ExitStatusExt,
    process::{Command, Output, Stdio},
};

use rustix::process::Signal;

use super::{
    cert_files::{Stage, whole},
    dev::{self, good, text, wait_until},
    exec::Running,
};

/// The same through a shell that first says this.
fn after(word: &str, command: &Command) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{word}; exec \"$0\" \"$@\"")]).arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let folder = command.get_current_dir().unwrap();
    // Through pipes: the limit is also one of files that are spoken to.
    let child = shell.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    child.spawn().unwrap().wait_with_output().unwrap()
}

fn full() -> fs::File {
    fs::OpenOptions::new().write(true).open("/dev/full").unwrap()
}

#[test]
fn t_145_what_cannot_be_told_is_a_failure() {
    let stage = Stage::new();
    let options = |out| ["--out", out, "--output", "json"];
    let told = stage.cert("orders-mtls", &options("full.pem")).stdout(full()).output().unwrap();
    assert_eq!(told.status.code(), Some(1), "{}", text(&told.stderr));
    assert!(text(&told.stderr).contains("stdout cannot be written"));
    whole(&fs::read(stage.at("full.pem")).unwrap());

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let told = stage.cert("orders-mtls", &options("gone.pem")).stdout(writer).output().unwrap();
    assert!(!told.status.success(), "nobody read it");
    whole(&fs::read(stage.at("gone.pem")).unwrap());

    let env = dev::env(stage.work());
    for verb in [&["lease", "ls"][..], &["task", "ls"], &["ca", "ls"], &["key", "ls"], &["doctor"]] {
        let mut command = dev::dayfly(verb);
        command.envs(&env).env("DAYFLY_TOKEN_FILE", &env["DAYFLY_OPERATOR_TOKEN_FILE"]).current_dir(stage.work());
        let told = command.stdout(full()).output().unwrap();
        assert!(!told.status.success(), "{verb:?}");
        assert!(text(&told.stderr).contains("stdout cannot be written"), "{verb:?}: {}", text(&told.stderr));
    }
}

#[test]
fn t_145_a_disk_that_is_full_is_a_failure_and_uses_up_no_evidence() {
    let stage = Stage::new();
    stage.fresh("kept");
    for layout in ["bundle", "split"] {
        let options = ["--out", "tls", "--layout", layout, "--evidence-file", "kept"];
        let command = stage.cert("orders-mtls", &options);
        let failed = after("trap '' XFSZ; ulimit -f 0", &command);
        assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
        assert!(text(&failed.stderr).contains("so no task is opened"), "{}", text(&failed.stderr));
        let left: Vec<_> = fs::read_dir(stage.work()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_str().unwrap().starts_with("tls")), "{left:?}");
        let killed = after("ulimit -f 0", &command);
        assert_eq!(killed.status.signal(), Some(Signal::XFSZ.as_raw()), "killed in the middle: {killed:?}");
        assert!(["tls", "tls.crt", "tls.key"].iter().all(|name| !stage.at(name).exists()));
        fs::remove_file(stage.at("tls.task")).unwrap();
    }
    // Room for the handle, and no more.
    let command = stage.cert("orders-mtls", &["--out", "tls.pem", "--evidence-file", "kept"]);
    let failed = after("trap '' XFSZ; ulimit -f 1", &command);
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    assert!(text(&failed.stderr).contains("cannot be written"), "{}", text(&failed.stderr));
    assert!(!stage.at("tls.pem").exists() && stage.at("tls.pem.task").exists(), "the task can be gone on with");
    stage.issued(&["--out", "tls.pem", "--evidence-file", "kept"]);
    whole(&fs::read(stage.at("tls.pem")).unwrap());
    assert_eq!(good(stage.work(), &["task", "ls", "--template", "orders-mtls", "--output", "name"]).lines().count(), 1);
}

#[test]
fn t_145_a_watch_that_is_killed_leaves_a_whole_certificate_and_no_success() {
    let stage = Stage::new();
    let options = ["--out", "tls.pem", "--ttl", "6s", "--watch"];
    let mut watch = Running::start(&mut stage.cert("orders-mtls", &options));
    watch.heard_on_stderr("written");
    let read = || fs::read(stage.at("tls.pem")).unwrap();
    let first = whole(&read());
    wait_until("a new certificate", || whole(&read()) != first);
    watch.signal(Signal::KILL);
    let (code, _, _) = watch.end();
    assert_eq!(code, None, "no exit code, so no success");
    let mut bytes = Vec::new();
    fs::File::open(stage.at("tls.pem")).unwrap().read_to_end(&mut bytes).unwrap();
    whole(&bytes);
    // Its task is still there, and so is its handle: the next call goes on with it.
    fs::write(stage.at("none"), "no evidence").unwrap();
    stage.issued(&["--out", "tls.pem", "--evidence-file", "none"]);
}
