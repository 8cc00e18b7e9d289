//! The template of `deploy/ci/gitlab`, as a runner runs it: inputs filled in, `before_script` and `script` in one
//! shell, `after_script` in another one that knows the job's variables only.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Output},
};

use super::{Stage, over, snippet};
use crate::{
    dev::{self, text},
    foreign::with_input,
};

const HOW_TO: &str = include_str!("../../../docs/how-to/gitlab-ci.md");
const TEMPLATE: &str = include_str!("../../../deploy/ci/gitlab/dayfly.gitlab-ci.yml");
const SHELLS: &[&[&str]] = &[&["bash", "-eo", "pipefail"], &["sh", "-e"]];

/// A `- |` block below this key.
fn script(key: &str) -> String {
    let block = snippet::after(TEMPLATE, &format!("\n  {key}:\n    - |\n"));
    let lines = block.lines().take_while(|line| line.is_empty() || line.starts_with("      "));
    lines.map(|line| format!("{}\n", line.get(6..).unwrap_or_default())).collect()
}

/// Its variables, each with the input that it is filled from.
fn variables() -> Vec<(String, String)> {
    let body = snippet::after(TEMPLATE, "\n  variables:\n").split("\n  before_script:").next().unwrap();
    let mut lines = body.lines();
    let mut found = Vec::new();
    while let (Some(name), Some(value), Some(expand)) = (lines.next(), lines.next(), lines.next()) {
        assert_eq!(expand.trim(), "expand: false", "{name}");
        let input = value.trim().strip_prefix("value: \"$[[ inputs.").and_then(|rest| rest.strip_suffix(" ]]\""));
        found.push((name.trim().trim_end_matches(':').to_owned(), input.unwrap().to_owned()));
    }
    found
}

/// The inputs and what they are where a pipeline does not say.
fn inputs() -> BTreeMap<String, String> {
    let spec = snippet::after(TEMPLATE, "  inputs:\n").split("\n---\n").next().unwrap();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut input = "";
    for line in spec.lines() {
        if let Some(name) = line.strip_prefix("    ").filter(|line| !line.starts_with(' ')) {
            input = name.trim_end_matches(':');
            found.insert(input.to_owned(), String::new());
        } else if let Some(value) = line.trim().strip_prefix("default: ") {
            found.insert(input.to_owned(), value.trim_matches('"').to_owned());
        }
    }
    found
}

/// How the job's own shell ended, and then the other.
struct Ran {
    job: Output,
    after: Output,
}

impl Stage {
    /// A job of this script.
    fn gitlab(&self, shell: &[&str], own: &str, given: &[(&str, &str)]) -> Ran {
        let whole = format!("{}{own}\n", script("before_script"));
        let job = with_input(&mut self.gitlab_shell(shell, given, &whole), b"");
        let after = with_input(&mut self.gitlab_shell(&shell[..1], given, &script("after_script")), b"");
        Ran { job, after }
    }

    fn gitlab_shell(&self, shell: &[&str], given: &[(&str, &str)], script: &str) -> Command {
        let mut filled = inputs();
        let own = [
            ("addr", self.var("DAYFLY_ADDR")),
            ("task", self.var("DAYFLY_DEV_TASK")),
            ("ca", self.var("DAYFLY_CA")),
            ("dayfly", env!("CARGO_BIN_EXE_dayfly").to_owned()),
        ];
        let given = given.iter().map(|(name, value)| (*name, (*value).to_owned()));
        filled.extend(own.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value)));
        let evidence = dev::evidence(self.path(), "id-token");
        let token = fs::read_to_string(self.path().join(evidence)).unwrap();
        let mut command = Command::new(shell[0]);
        // As the runner does it: what the job wrote is one text, and stdin is nobody's.
        command.args(&shell[1..]).args(["-c", ": | eval \"$0\"", script]);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("GITLAB_CI", "true").env("CI_JOB_ID", "4711");
        command.env("CI_PROJECT_DIR", self.file("project")).env("DAYFLY_ID_TOKEN", token.trim());
        command.envs(variables().into_iter().map(|(name, input)| (name, filled[&input].clone())));
        command.current_dir(self.path());
        command
    }

    /// Nothing of the job is left beside its checkout.
    fn is_clean(&self) -> bool {
        fs::read_dir(self.path().join("project.tmp")).is_ok_and(|mut left| left.next().is_none())
    }

    fn ends(&self) {
        dev::wait_until("the end of the task", || self.tasks()[0]["state"] == "ended");
    }
}

#[test]
fn a_gitlab_job_has_a_credential_that_ends_with_it() {
    for shell in SHELLS {
        let stage = Stage::new();
        let own = "cut -c1-3 \"$DAYFLY_TOKEN_FILE\"\nstat -c %a \"$DAYFLY_TOKEN_FILE\" \"${DAYFLY_TOKEN_FILE%/*}\"\n\
            echo \"id:${DAYFLY_ID_TOKEN:-none}\"\nexit 7";
        let ran = stage.gitlab(shell, own, &[]);
        let (out, said) = (text(&ran.job.stdout), text(&ran.job.stderr));
        assert_eq!(ran.job.status.code(), Some(7), "{said}");
        assert_eq!(out, "eyJ\n600\n700\nid:none\n", "{shell:?}");
        assert!(said.contains("dayfly: lease      lse_"), "{said}");
        assert_eq!(ran.after.status.code(), Some(0), "{}", text(&ran.after.stderr));
        stage.ends();
        assert_eq!(stage.one_task(), over("completed"));
        assert!(stage.is_clean());
    }
}

#[test]
fn a_gitlab_job_that_is_killed_with_its_sidecar_is_ended_by_after_script() {
    for shell in SHELLS {
        let stage = Stage::new();
        // The container is gone, and all that ran in it.
        let ran = stage.gitlab(shell, "kill -KILL \"$dayfly_pid\" $$", &[]);
        assert_ne!(ran.job.status.code(), Some(0));
        assert!(text(&ran.after.stderr).contains("is ended (completed)"), "{}", text(&ran.after.stderr));
        assert_eq!(stage.one_task(), over("completed"));
        assert!(stage.is_clean());
    }
}

#[test]
fn a_gitlab_job_that_may_not_ends_with_the_brokers_reason() {
    for shell in SHELLS {
        let stage = Stage::new();
        for (given, code, part) in [
            (("task", "deploy-prod"), 77, "[E-NOMATCH]"),
            (("addr", "https://127.0.0.1:1"), 69, "error: "),
            (("dayfly", "no-such-program"), 127, "not found"),
        ] {
            let ran = stage.gitlab(shell, "echo unreached", &[given]);
            let said = text(&ran.job.stderr);
            assert_eq!(ran.job.status.code(), Some(code), "{given:?}: {said}");
            assert!(said.contains(part) && !text(&ran.job.stdout).contains("unreached"), "{said}");
            assert_eq!(ran.after.status.code(), Some(0));
            assert!(stage.is_clean());
        }
        assert_eq!(stage.tasks().len(), 0);
    }
}

#[test]
fn a_gitlab_job_without_an_identity_token_gets_the_lines_to_paste() {
    let stage = Stage::new();
    let mut job = stage.gitlab_shell(SHELLS[1], &[], &script("before_script"));
    let ran = with_input(job.env_remove("DAYFLY_ID_TOKEN"), b"");
    assert_eq!(ran.status.code(), Some(4));
    assert!(text(&ran.stderr).contains("id_tokens:\n  DAYFLY_ID_TOKEN:\n    aud: "), "{}", text(&ran.stderr));
}

#[test]
fn no_input_of_the_template_is_read_by_a_shell() {
    let stage = Stage::new();
    let mark = stage.file("mark");
    for shell in SHELLS {
        let nasty = format!("--help '`touch {mark}`\"; touch {mark}; $(touch {mark}) *\nx");
        for name in ["task", "target", "actions", "ttl", "ca", "addr", "dayfly"] {
            let ran = stage.gitlab(shell, "echo unreached", &[(name, &nasty)]);
            assert_ne!(ran.job.status.code(), Some(0), "{name}");
            assert!(!text(&ran.job.stdout).contains("unreached"), "{name}");
        }
        let kept = format!("--help '`touch {mark}`\"; $(touch {mark}) *");
        let ran = stage.gitlab(shell, "true", &[("ticket", &kept)]);
        assert_eq!(ran.job.status.code(), Some(0), "{}", text(&ran.job.stderr));
        assert_eq!(stage.tasks()[0]["ticket"], kept.as_str());
    }
    assert!(!fs::exists(&mark).unwrap());
    let scripts = [script("before_script"), script("after_script")].concat();
    assert!(!scripts.contains("$[["), "no input is text of a script");
}

#[test]
fn the_pipeline_of_the_how_to_is_what_runs_here() {
    let pipeline = snippet::blocks(HOW_TO, "include:").next().unwrap();
    let given = snippet::pairs(pipeline, "inputs:");
    let given: BTreeMap<&str, &str> =
        given.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
    assert_eq!(given["addr"], "https://dayfly.acme.example");
    assert!(given.keys().all(|name| inputs().contains_key(*name)), "{given:?}");
    assert!(pipeline.contains("extends: .dayfly\n") && inputs()["as"] == ".dayfly");
    let given: Vec<(&str, &str)> = given.into_iter().filter(|(name, _)| *name != "addr").collect();
    let own = snippet::after(pipeline, "  script:\n    - |\n").replace("curl ", "echo curl ");
    for shell in SHELLS {
        let stage = Stage::new();
        let ran = stage.gitlab(shell, &own, &given);
        assert!(text(&ran.job.stdout).contains("Authorization: Bearer eyJ"), "{}", text(&ran.job.stderr));
        stage.ends();
    }
}
