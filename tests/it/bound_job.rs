//! A job with a key, as its author types it: `--dpop-key` against a target that asks for a proof. The
//! broker has only just started, so that its nonce is answered on the way.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::dev::{self, Dev, good, text, verb};

/// Evidence of the run that may deploy to production, in a file.
fn production_evidence(work: &Path) -> &'static str {
    let sample = fs::read(&dev::env(work)["DAYFLY_DEV_CLAIMS"]).unwrap();
    let mut claims: Value = serde_json::from_slice(&sample).unwrap();
    claims["environment"] = "production".into();
    fs::write(work.join("claims.json"), claims.to_string()).unwrap();
    let token = good(work, &["dev", "token", "--state", "state", "--claims", "claims.json"]);
    fs::write(work.join("evidence"), token).unwrap();
    "evidence"
}

#[test]
fn a_job_with_a_key_gets_renews_and_ends_what_is_bound_to_it() {
    let work = dev::work();
    let work = work.path();
    let _dev = Dev::start(work, &[]);
    let evidence = production_evidence(work);
    let open = ["token", "--task", "deploy-prod", "--evidence-file", evidence, "--out", "job.token"];
    let without = verb(work, &open);
    assert_eq!(without.status.code(), Some(4));
    let said = text(&without.stderr);
    assert!(said.contains("E-DPOP") && said.contains("--dpop-key FILE"), "{said}");

    good(work, &[&open[..], &["--dpop-key", "job.key"]].concat());
    assert_eq!(fs::metadata(work.join("job.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let first = fs::read_to_string(work.join("job.token")).unwrap();
    let shown = good(work, &["lease", "ls", "--template", "deploy-prod", "--output", "json"]);
    assert!(shown.contains(r#""bound":"jkt""#), "{shown}");

    let renew = ["token", "--task", "deploy-prod", "--out", "job.token"];
    assert!(!verb(work, &renew).status.success(), "the handle alone");
    assert!(!verb(work, &[&renew[..], &["--dpop-key", "other.key"]].concat()).status.success());
    good(work, &[&renew[..], &["--dpop-key", "job.key"]].concat());
    assert_ne!(fs::read_to_string(work.join("job.token")).unwrap(), first);

    let end = ["task", "end", "--task-file", "job.token.task"];
    let refused = verb(work, &end);
    assert_eq!(refused.status.code(), Some(4));
    assert!(text(&refused.stderr).contains("--dpop-key"), "{}", text(&refused.stderr));
    good(work, &[&end[..], &["--dpop-key", "job.key"]].concat());
    assert!(good(work, &["task", "ls", "--state", "ended"]).contains("completed"));
}

#[test]
fn a_handle_outlives_every_call_that_cannot_show_its_task_to_be_over() {
    let work = dev::work();
    let work = work.path();
    let _dev = Dev::start(work, &[]);
    let open = ["token", "--task", "deploy-prod", "--out", "job.token", "--evidence-file"];
    let first = production_evidence(work);
    good(work, &[&open[..], &[first, "--dpop-key", "job.key"]].concat());
    let kept = || fs::read_to_string(work.join("job.token.task")).unwrap();
    let (handle, token) = (kept(), fs::read_to_string(work.join("job.token")).unwrap());
    let fresh = production_evidence(work);
    for key in [&[][..], &["--dpop-key", "other.key"]] {
        let refused = verb(work, &[&open[..], &[fresh], key].concat());
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains("--dpop-key"), "{said}");
        assert_eq!(said.contains("E-HANDLE-USED") && said.contains("--task-file OTHER"), !key.is_empty(), "{said}");
        assert_eq!((kept(), fs::read_to_string(work.join("job.token")).unwrap()), (handle.clone(), token.clone()));
    }
    good(work, &["task", "end", "--task-file", "job.token.task", "--dpop-key", "job.key"]);
    // The evidence was not used up, and the handle is of a task that is over.
    good(work, &[&open[..], &[fresh, "--dpop-key", "job.key"]].concat());
    assert_ne!(kept(), handle);
}

#[test]
fn two_calls_with_one_evidence_take_turns_and_share_a_task() {
    let work = dev::work();
    let work = work.path();
    let _dev = Dev::start(work, &[]);
    let (evidence, env) = (dev::evidence(work, "evidence"), dev::env(work));
    let line = ["token", "--task", &env["DAYFLY_DEV_TASK"], "--evidence-file", &evidence, "--out", "job.token"];
    let start = || dev::dayfly(&line).envs(&env).current_dir(work).stderr(Stdio::null()).spawn().unwrap();
    let calls: Vec<_> = (0..4).map(|_| start()).collect();
    for mut call in calls {
        assert!(call.wait().unwrap().success());
    }
    assert_eq!(good(work, &["task", "ls", "--template", line[2], "--output", "name"]).lines().count(), 1);
    good(work, &["task", "end", "--task-file", "job.token.task"]);
}

#[test]
fn a_token_that_cannot_be_handed_over_is_not_asked_for() {
    let work = dev::work();
    let work = work.path();
    let _dev = Dev::start(work, &[]);
    let (evidence, env) = (dev::evidence(work, "evidence"), dev::env(work));
    let task = &env["DAYFLY_DEV_TASK"];
    std::os::unix::fs::symlink("elsewhere", work.join("link")).unwrap();
    for (out, exit) in [("state", 2), ("link", 2), ("/dev/full", 2), ("none/job.token", 1)] {
        let refused = verb(work, &["token", "--task", task, "--evidence-file", &evidence, "--out", out]);
        assert_eq!(refused.status.code(), Some(exit), "{out}: {}", text(&refused.stderr));
    }
    assert!(!work.join("state.task").exists() && !work.join("link.task").exists());
    let script = format!("exec {} token --task {task} --evidence-file {evidence} >&-", env!("CARGO_BIN_EXE_dayfly"));
    let closed = Command::new("sh").args(["-c", &script]).envs(&env).current_dir(work).output().unwrap();
    assert_eq!(closed.status.code(), Some(1));
    assert!(text(&closed.stderr).contains("stdout is closed"), "{}", text(&closed.stderr));
    good(work, &["token", "--task", task, "--evidence-file", &evidence, "--out", "job.token"]);
}
