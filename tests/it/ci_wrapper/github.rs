//! The action of `deploy/ci/github`, its first and its last step, below a stand-in for the runner
//! (`tests/interop/ci/github_runner.mjs`).

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Stage, over, snippet};
use crate::{
    dev::{text, wait_until},
    foreign::{plain_node, skipped, with_input},
};

const HOW_TO: &str = include_str!("../../../docs/how-to/github-actions.md");
const ACTION: &str = "deploy/ci/github";

impl Stage {
    /// A job whose step has these inputs; `more` is what else the runner is told. Nothing, where the
    /// runner itself was killed.
    fn run_by_github(&self, inputs: &Value, more: &Value) -> Option<Value> {
        let mut all = json!({
            "task": self.var("DAYFLY_DEV_TASK"), "addr": self.var("DAYFLY_ADDR"), "ca": self.var("DAYFLY_CA"),
            "dayfly": env!("CARGO_BIN_EXE_dayfly"),
        });
        merge(&mut all, inputs);
        let mut spec = json!({
            "work": self.path(), "inputs": all, "env": { "SSL_CERT_FILE": self.file("runner.pem") },
            "job": self.var("DAYFLY_DEV_CLAIMS"), "dayfly": env!("CARGO_BIN_EXE_dayfly"), "state": self.file("state"),
            "tls": { "key": self.file("runner.key"), "cert": self.file("runner.pem") },
        });
        merge(&mut spec, more);
        let mut runner = plain_node("ci/github_runner.mjs");
        let ran = with_input(runner.arg(ACTION), spec.to_string().as_bytes());
        ran.status.code()?;
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        Some(serde_json::from_slice(&ran.stdout).unwrap())
    }

    fn github(&self, inputs: &Value, more: &Value) -> Value {
        self.run_by_github(inputs, more).unwrap()
    }
}

fn merge(into: &mut Value, from: &Value) {
    for (name, value) in from.as_object().unwrap() {
        into[name] = value.clone();
    }
}

fn log(step: &Value) -> &str {
    step["log"].as_str().unwrap()
}

#[test]
fn later_steps_have_a_credential_that_ends_with_the_job() {
    if skipped("node") {
        return;
    }
    let stage = Stage::new();
    let next = "cat \"$OUT_token_file\"; echo; stat -c %a \"$OUT_token_file\" \"$OUT_task_file\"; env";
    let ran = stage.github(&json!({}), &json!({ "between": next }));
    let (main, post) = (&ran["main"], &ran["post"]);
    assert_eq!((&main["code"], &post["code"]), (&json!(0), &json!(0)), "{ran}");
    let out = ran["between"]["out"].as_str().unwrap();
    let token = out.lines().next().unwrap();
    assert!(token.starts_with("eyJ") && out.contains("\n600\n600\n"), "{out}");
    // Masked, and nowhere but in its file.
    assert_eq!(ran["masks"][0], token);
    assert!(ran["masks"][1].as_str().unwrap().starts_with("dtc_"));
    assert!(!main.to_string().contains("eyJ") && !main.to_string().contains("dtc_"), "{main}");
    assert_eq!(out.matches(token).count(), 1, "in no variable: {out}");
    assert!(main["outputs"]["lease-id"].as_str().unwrap().starts_with("lse_"));
    assert_eq!(stage.tasks()[0]["id"], main["outputs"]["task-id"]);
    assert_eq!(stage.one_task(), over("completed"));
    assert_eq!(ran["left"], json!([]), "no file stays");
    assert_eq!(ran["audiences"], json!([stage.var("DAYFLY_ADDR")]));
}

#[test]
fn the_workflows_of_the_how_to_are_what_runs_here() {
    if skipped("node") {
        return;
    }
    let stage = Stage::new();
    let workflows: Vec<&str> = snippet::blocks(HOW_TO, "name: ").collect();
    assert_eq!(workflows.len(), 2);
    // No such server is there: what would be sent is shown.
    let shown = |script: &Value| script.as_str().unwrap().replace("curl ", "echo curl ");
    for workflow in workflows {
        let steps = snippet::after(workflow, "uses: acme/dayfly/deploy/ci/github@");
        let mut inputs: Value = Value::Object(snippet::pairs(steps, "with:").into_iter().collect());
        assert_eq!(inputs["addr"], "https://dayfly.acme.example");
        inputs["addr"] = stage.var("DAYFLY_ADDR").into();
        if inputs["run"].is_string() {
            inputs["run"] = shown(&inputs["run"]).into();
            let ran = stage.github(&inputs, &json!({}));
            assert_eq!(ran["main"]["code"], 0, "{ran}");
            assert!(log(&ran["main"]).contains("Authorization: Bearer *** https://deploy"), "{}", log(&ran["main"]));
        } else {
            let next = snippet::pairs(steps, "- env:").into_iter().find(|(name, _)| name == "run").unwrap().1;
            let next = format!("TOKEN_FILE=\"$OUT_token_file\"\n{}", shown(&next));
            let ran = stage.github(&inputs, &json!({ "between": next }));
            assert_eq!((&ran["main"]["code"], &ran["between"]["code"]), (&json!(0), &json!(0)), "{ran}");
            assert!(ran["between"]["out"].as_str().unwrap().contains("Authorization: Bearer eyJ"), "{ran}");
        }
    }
    assert!(stage.tasks().iter().all(|task| task["cause"] == "completed"), "{:?}", stage.tasks());
}

#[test]
fn a_script_has_the_credential_and_nothing_of_the_actions_own() {
    if skipped("node") {
        return;
    }
    let stage = Stage::new();
    let script = "cat \"$DAYFLY_TOKEN_FILE\"\nenv\necho said >&2\nfalse\necho unreached";
    let ran = stage.github(&json!({ "run": script }), &json!({}));
    let main = &ran["main"];
    assert_eq!((&main["code"], &ran["post"]["code"]), (&json!(1), &json!(0)), "{ran}");
    let said = log(main);
    assert!(said.contains("***\n") && said.contains("said\n") && !said.contains("unreached"), "{said}");
    for never in ["eyJ", "dtc_", "ID_TOKEN", "ACTIONS_RUNTIME", "INPUT_", "GITHUB_STATE", "runner-token"] {
        assert!(!said.contains(never), "{never}: {said}");
    }
    assert_eq!(stage.one_task(), over("completed"));
    assert_eq!((&main["outputs"], &ran["left"]), (&json!({}), &json!([])));
}

#[test]
fn the_step_ends_as_the_script_does() {
    if skipped("node") {
        return;
    }
    let stage = Stage::new();
    for (script, code) in [("exit 7", 7), ("false | true", 1), ("kill -TERM $$", 143)] {
        assert_eq!(stage.github(&json!({ "run": script }), &json!({}))["main"]["code"], code, "{script}");
    }
}

#[test]
fn a_cancelled_script_is_told_and_its_credential_is_dead() {
    if skipped("node") {
        return;
    }
    let stage = Stage::new();
    let script = "trap 'echo told; exit 3' INT\necho ready\nfor i in {1..300}; do sleep 0.1; done";
    let ran = stage.github(&json!({ "run": script }), &json!({ "cancel": { "at": "ready\n", "with": ["SIGINT"] } }));
    assert!(log(&ran["main"]).contains("told"), "{ran}");
    assert_eq!((&ran["main"]["code"], &ran["post"]["code"]), (&json!(3), &json!(0)));
    assert_eq!(stage.one_task(), over("completed"));
}

#[test]
fn a_step_that_was_killed_leaves_a_handle_and_the_post_step_ends_the_task() {
    if skipped("node") {
        return;
    }
    let stage = Stage::new();
    let script = "echo $PPID\necho ready\nexec sleep 30";
    let cancel = json!({ "cancel": { "at": "ready\n", "with": ["SIGKILL"] } });
    let ran = stage.github(&json!({ "run": script }), &cancel);
    assert_eq!((&ran["main"]["signal"], &ran["post"]["code"]), (&json!("SIGKILL"), &json!(0)), "{ran}");
    assert_eq!(stage.one_task(), over("completed"));
    assert_eq!(ran["left"], json!([]));
    // The runner's own sweep ends what a killed step leaves behind.
    let exec: i32 = log(&ran["main"]).lines().find_map(|line| line.parse().ok()).unwrap();
    let _ = kill_process(Pid::from_raw(exec).unwrap(), Signal::TERM);
}

#[test]
fn a_step_that_is_stopped_while_it_asks_leaves_nothing() {
    if skipped("node") {
        return;
    }
    for with in ["SIGINT", "SIGKILL"] {
        let stage = Stage::new();
        // The handle is there before the broker is asked.
        let cancel = json!({ "cancel": { "at": "\u{0}", "file": "token.task", "with": [with] } });
        let ran = stage.github(&json!({}), &cancel);
        assert_eq!(ran["post"]["code"], 0, "{ran}");
        wait_until("the end of all tasks", || stage.tasks().iter().all(|task| task["state"] == "ended"));
        assert!(stage.tasks().iter().all(|task| task["cause"] == "completed"), "{:?}", stage.tasks());
        assert_eq!(ran["left"], json!([]), "{with}");
    }
}

#[test]
fn a_sidecar_outlives_no_runner() {
    if skipped("node") {
        return;
    }
    let stage = Stage::new();
    // Nobody is left to run the post step.
    assert_eq!(stage.run_by_github(&json!({}), &json!({ "between": "kill -KILL $PPID" })), None);
    wait_until("the end of the task", || stage.tasks()[0]["state"] == "ended");
    assert_eq!(stage.one_task(), over("completed"), "by its sidecar, before the grace");
}

#[test]
fn a_post_step_without_a_main_one_has_nothing_to_do() {
    if skipped("node") {
        return;
    }
    let stage = Stage::new();
    let ran = stage.github(&json!({}), &json!({ "noMain": true }));
    assert_eq!(ran["post"]["code"], 0);
    assert!(log(&ran["post"]).contains("nothing to end") && !log(&ran["post"]).contains("::"));
}

#[test]
fn a_broker_that_is_gone_is_a_warning_and_one_that_refuses_fails_the_job() {
    if skipped("node") {
        return;
    }
    let stage = Stage::new();
    let broker = stage.broker.child().id();
    let gone = stage.github(&json!({}), &json!({ "between": format!("kill -KILL {broker}") }));
    assert_eq!(gone["post"]["code"], 0, "{gone}");
    assert!(log(&gone["post"]).contains("::warning title=dayfly::"), "{gone}");
    assert_eq!(gone["left"], json!([]));

    let stage = Stage::new();
    // A handle of nobody's.
    let other = "printf 'dtc_%s\\n' AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA >\"$OUT_task_file\"";
    let refused = stage.github(&json!({}), &json!({ "between": other }));
    assert_eq!(refused["post"]["code"], 1, "{refused}");
    assert!(log(&refused["post"]).contains("::error title=dayfly::the broker refused"), "{refused}");
    assert_eq!(stage.one_task(), over("completed"), "its sidecar knows the right one");
}

#[test]
fn a_job_that_may_not_is_told_why_and_runs_nothing() {
    if skipped("node") {
        return;
    }
    let stage = Stage::new();
    let ran = stage.github(&json!({ "task": "deploy-prod" }), &json!({}));
    assert_eq!(ran["main"]["code"], 77, "{ran}");
    let said = log(&ran["main"]);
    assert!(said.contains("::error title=dayfly::no token was issued: ") && said.contains("[E-NOMATCH]"), "{said}");
    let ran = stage.github(&json!({ "task": "deploy-prod", "run": "echo ran" }), &json!({}));
    assert_eq!(ran["main"]["code"], 125, "{ran}");
    let said = log(&ran["main"]);
    assert!(said.contains("the script did not run") && !said.contains("\nran\n"), "{said}");

    let ran = stage.github(&json!({}), &json!({ "noIdentity": true }));
    assert_eq!(ran["main"]["code"], 4);
    let lines = "%0Apermissions:%0A  id-token: write%0A  contents: read\n";
    assert!(log(&ran["main"]).contains(lines), "{ran}");
    assert!(HOW_TO.contains(&lines.replace("%0A", "\n")), "and the how-to says the same");

    let ran = stage.github(&json!({ "addr": "https://127.0.0.1:1" }), &json!({}));
    assert_eq!(ran["main"]["code"], 69, "{ran}");
    assert_eq!(stage.tasks().len(), 0);
}

#[test]
fn no_input_is_read_by_a_shell_or_taken_for_an_option() {
    if skipped("node") {
        return;
    }
    let stage = Stage::new();
    let mark = stage.file("mark");
    let nasty = format!("--help '`touch {mark}`\"; touch {mark}; $(touch {mark})");
    let ran = stage.github(&json!({ "ticket": nasty }), &json!({}));
    assert_eq!(ran["main"]["code"], 0, "{ran}");
    assert_eq!(stage.tasks()[0]["ticket"], nasty.as_str());
    for name in ["task", "target", "ttl", "actions", "addr", "dayfly"] {
        let ran = stage.github(&json!({ name: nasty }), &json!({}));
        assert_ne!(ran["main"]["code"], 0, "{name}: {ran}");
        assert_eq!(ran["post"]["code"], 0, "{name}: {ran}");
    }
    assert!(!std::path::Path::new(&mark).exists());
}

#[test]
fn no_input_commands_the_runner() {
    if skipped("node") {
        return;
    }
    let stage = Stage::new();
    // A line of its own would be a command to the runner, or another output; so would the older form.
    let commands = ["x\n::add-mask::a\n::set-env name=PATH::/evil", "x##[add-mask]a"];
    let steps = commands.iter().flat_map(|nasty| {
        let with = move |name: &str| [json!({ name: nasty }), json!({ name: nasty, "run": "echo ran" })];
        ["task", "ticket", "addr", "dayfly"].into_iter().flat_map(with)
    });
    for inputs in steps {
        let ran = stage.github(&inputs, &json!({}));
        let main = &ran["main"];
        assert_eq!((&main["code"], &ran["post"]["code"]), (&json!(2), &json!(0)), "{ran}");
        assert_eq!((&ran["masks"], &main["outputs"], &main["env"]), (&json!([]), &json!({}), &json!("")), "{inputs}");
        assert!(!log(main).contains("add-mask"), "{ran}");
    }
    assert_eq!(stage.tasks().len(), 0);
}
