//! What the command finds: files before variables, none of the job's own ways to be somebody, and
//! tokens that are renewed in place.

use std::{collections::BTreeMap, fs, path::Path};

use super::{Stage, WAITS, code, dev, text};
use crate::dev::wait_until;

fn variables(shown: &str) -> BTreeMap<&str, &str> {
    shown.lines().filter_map(|line| line.split_once('=')).collect()
}

#[test]
fn files_come_before_variables_0700_and_0600_and_are_gone_afterwards() {
    let stage = Stage::new();
    let show = "env; stat -c 'mode %a %n' \"${DAYFLY_TOKEN_FILE%/*}\" \"$DAYFLY_TOKEN_FILE\" \"$DAYFLY_TASK_FILE\"; \
                stat -f -c 'type %T' \"$DAYFLY_TOKEN_FILE\"; cat \"$DAYFLY_TOKEN_FILE\" \"$DAYFLY_TASK_FILE\"";
    let output = stage.run(&[], &["sh", "-c", show]);
    let shown = text(&output.stdout);
    let vars = variables(shown);
    let token = Path::new(vars["DAYFLY_TOKEN_FILE"]);
    let modes: Vec<_> = shown.lines().filter_map(|line| line.strip_prefix("mode ")).map(|line| &line[..3]).collect();
    assert_eq!(modes, ["700", "600", "600"]);
    assert!(vars["DAYFLY_LEASE"].starts_with("lse_") && !vars.contains_key("DAYFLY_DPOP_KEY"));
    let secrets: Vec<_> = shown.lines().rev().take(2).collect();
    assert!(secrets[0].starts_with("dtc_") && secrets[1].starts_with("eyJ"));
    assert!(
        vars.values().all(|value| !value.starts_with("eyJ") && !value.starts_with("dtc_")),
        "no secret in a variable"
    );
    if Path::new("/dev/shm").is_dir() {
        assert!(token.starts_with("/dev/shm/") && shown.contains("type tmpfs"), "{}", token.display());
    }
    assert!(!token.parent().unwrap().exists());
    assert!(!text(&output.stderr).contains("eyJ") && !text(&output.stderr).contains("dtc_"));
}

#[test]
fn the_runtime_folder_of_the_user_is_preferred_and_a_failed_ask_leaves_nothing_there() {
    let stage = Stage::new();
    let Ok(runtime) = tempfile::tempdir_in("/dev/shm") else { return };
    let mut whole = stage.exec(&[], &["sh", "-c", "echo $DAYFLY_TOKEN_FILE"]);
    let output = whole.env("XDG_RUNTIME_DIR", runtime.path()).output().unwrap();
    assert!(Path::new(text(&output.stdout)).starts_with(runtime.path()), "{}", text(&output.stderr));
    let mut whole = stage.exec(&["--action", "no:such"], &["true"]);
    assert_eq!(code(&whole.env("XDG_RUNTIME_DIR", runtime.path()).output().unwrap()), Some(125));
    assert_eq!(fs::read_dir(runtime.path()).unwrap().count(), 0);
}

/// What a job may have to prove itself with.
const MINTS: [&str; 13] = [
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "BITBUCKET_STEP_OIDC_TOKEN",
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "BUILDKITE_AGENT_JOB_API_TOKEN",
    "CIRCLE_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN_V2",
    "DAYFLY_ID_TOKEN",
    "DAYFLY_ID_TOKEN_FILE",
    "SYSTEM_ACCESSTOKEN",
    "SYSTEM_OIDCREQUESTURI",
    "TFC_WORKLOAD_IDENTITY_TOKEN",
    // As GitLab names it after the broker.
    "GITLAB",
];

#[test]
fn what_mints_identity_tokens_is_not_passed_on_and_everything_else_is() {
    let stage = Stage::new();
    let addr = dev::env(stage.work())["DAYFLY_ADDR"].clone();
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let gitlab: String = addr.chars().map(letter).chain("_ID_TOKEN".chars()).collect();
    let names = MINTS.map(|name| if name == "GITLAB" { gitlab.clone() } else { name.to_owned() });
    let with = |whole: &mut std::process::Command| {
        whole.env("GITLAB_CI", "true").env("OTHER_ID_TOKEN", "x").envs(names.iter().map(|name| (name, "x")));
        text(&whole.output().unwrap().stdout).to_owned()
    };
    let shown = with(&mut stage.exec(&[], &["env"]));
    let vars = variables(&shown);
    for name in &names {
        assert!(!vars.contains_key(name.as_str()), "{name}");
    }
    assert!(vars.contains_key("OTHER_ID_TOKEN") && vars["GITLAB_CI"] == "true" && vars["DAYFLY_ADDR"] == addr);
    let shown = with(&mut stage.exec(&["--keep-env", "CIRCLE_OIDC_TOKEN"], &["env"]));
    let vars = variables(&shown);
    assert!(vars.contains_key("CIRCLE_OIDC_TOKEN") && !vars.contains_key("CIRCLE_OIDC_TOKEN_V2"));
}

#[test]
fn a_token_is_renewed_in_place_at_half_life_and_the_hook_runs() {
    let stage = Stage::new();
    let hook = "echo talk; cp \"$DAYFLY_TOKEN_FILE\" renewed.part && mv renewed.part renewed";
    let options = ["--ttl", "4s", "--on-renew", hook];
    // The command keeps the first file open: it is replaced, never written over.
    let command =
        ["sh", "-c", "exec 3<\"$DAYFLY_TOKEN_FILE\"; echo $DAYFLY_TOKEN_FILE; while read -r l; do :; done; cat <&3"];
    let mut running = stage.start(&options, &command);
    let file = running.line();
    let first = fs::read_to_string(&file).unwrap();
    let renewed = stage.work().join("renewed");
    wait_until("the hook", || renewed.exists());
    let second = fs::read_to_string(&renewed).unwrap();
    assert!(second.starts_with("eyJ") && second != first);
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions()) & 0o777, 0o600);
    let (exit, out, said) = running.end();
    assert_eq!((exit, out), (Some(0), first), "stdout is the command's alone: {said}");
    assert!(said.contains("talk"), "the hook talks to stderr: {said}");
    let leases = dev::good(stage.work(), &["lease", "ls", "--output", "json"]);
    assert!(leases.contains(r#""cause":"superseded""#) || leases.matches(r#""state":"ended""#).count() > 1, "{leases}");
}

#[test]
fn a_hook_that_fails_is_told_and_harms_nothing() {
    let stage = Stage::new();
    let mut running = stage.start(&["--ttl", "2s", "--on-renew", "touch ran; exit 3"], WAITS);
    assert_eq!(running.line(), "ready");
    wait_until("the hook", || stage.work().join("ran").exists());
    let (exit, _, said) = running.end();
    assert_eq!(exit, Some(0), "{said}");
}

#[test]
fn the_wrappers_own_variables_and_memory_are_not_the_commands_to_read() {
    let stage = Stage::new();
    let mut whole = stage.exec(&[], &["stat", "-c", "%U", "/proc/self/environ"]);
    assert!(whole.output().unwrap().status.success());
    let mut running = stage.start(&[], WAITS);
    assert_eq!(running.line(), "ready");
    // Not dumpable: what /proc shows of it belongs to root, whoever it runs as.
    let environ = format!("/proc/{}/environ", running.id());
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(environ).unwrap()), 0);
    running.end();
}
