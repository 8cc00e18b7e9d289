//! `dayfly trust add` from outside: the page of docs/how-to is run line by line, from a bundle without a
//! row to a job that has its credential; a refusal of the ledger becomes a row; a person says yes or no.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::process::Signal;

use super::dev::{self, Dev, text, wait_until};

const PAGE: &str = include_str!("../../docs/how-to/trust-a-workflow.md");
const SHOP: &str = include_str!("../../policies/shop.toml");

/// The blocks of this language on the page, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let mut rest = PAGE;
    let mut found = Vec::new();
    while let Some((_, after)) = rest.split_once(&format!("\n```{language}\n")) {
        let (block, after) = after.split_once("\n```\n").expect("the block ends");
        found.push(block);
        rest = after;
    }
    found
}

/// The lines of a block that begin with this command, with `\` at an end of line taken as sh does.
fn commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| line.starts_with("dayfly "));
    lines.map(|line| line.split(" #").next().unwrap().trim_end().to_owned()).collect()
}

/// A line of the page, as a shell with this program in its path runs it.
fn typed(work: &Path, line: &str) -> Output {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_dayfly"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).env_clear().env("PATH", path).current_dir(work).stdin(Stdio::null());
    command.output().unwrap()
}

fn done(work: &Path, line: &str) -> String {
    let output = typed(work, line);
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// The bundle of the page: a task without rows.
fn policies(work: &Path) -> PathBuf {
    let dir = work.join("policies");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("shop.toml"), format!("{}\n", blocks("toml")[0])).unwrap();
    dir.join("shop.toml")
}

#[test]
fn the_page_leads_from_nothing_to_a_row_in_one_command() {
    let work = dev::work();
    let work = work.path();
    let file = policies(work);
    let before = fs::read_to_string(&file).unwrap();
    assert!(!before.contains("allow"), "the page begins with a task that nobody may run");

    let lines: Vec<String> = blocks("sh").into_iter().flat_map(commands).collect();
    let find =
        |part: &str| lines.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no `{part}`")).clone();
    let add = find("trust add github acme/shop");
    let asked = typed(work, &add);
    assert_eq!(asked.status.code(), Some(2), "without a terminal nobody can say yes");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);

    let said = done(work, &format!("{add} --yes"));
    let shown = blocks("diff")[0];
    assert!(said.contains(shown), "the page shows what is printed:\n{said}\n--- the page\n{shown}");
    assert!(fs::read_to_string(&file).unwrap().starts_with(before.split("[target").next().unwrap().trim_end()));
    let checked = done(work, &find("policy check"));
    assert!(checked.contains("tests passed  7"), "{checked}");
    for line in lines.iter().filter(|line| line.contains("--dry-run")) {
        done(work, line);
    }
}

/// The stand-in speaks as the workflow of the page; dev takes the bundle as it was written.
#[test]
fn the_job_of_the_page_gets_its_credential_and_another_branch_does_not() {
    let work = dev::work();
    let work = work.path();
    policies(work);
    let add = blocks("sh").into_iter().flat_map(commands).find(|line| line.contains("trust add github")).unwrap();
    done(work, &format!("{add} --yes"));
    let _dev = Dev::start(work, &["--policies", "policies"]);
    let job = |name: &str, claims: &str| {
        fs::write(work.join(name), claims).unwrap();
        let token = dev::good(work, &["dev", "token", "--state", "state", "--claims", name]);
        fs::write(work.join("evidence"), token).unwrap();
        let out = format!("{name}.token");
        let key = format!("{name}.key");
        dev::verb(
            work,
            &["token", "--task", "deploy-prod", "--evidence-file", "evidence", "--out", &out, "--dpop-key", &key],
        )
    };
    let claims = |environment: &str| {
        format!(
            r#"{{"repository_id":"88120","repository_owner_id":"4411","repository":"acme/shop","event_name":"push",
                "ref":"refs/heads/main","environment":"{environment}"}}"#
        )
    };
    let issued = job("main.json", &claims("production"));
    assert!(issued.status.success(), "{}", text(&issued.stderr));
    assert!(text(&issued.stderr).contains("15m"), "{}", text(&issued.stderr));
    let refused = job("other.json", &claims("staging"));
    assert!(text(&refused.stderr).contains("E-NOMATCH"), "{}", text(&refused.stderr));
}

#[test]
fn a_refusal_becomes_a_row_and_the_same_job_gets_in() {
    let work = dev::work();
    let work = work.path();
    fs::create_dir(work.join("policies")).unwrap();
    fs::write(work.join("policies/shop.toml"), SHOP).unwrap();
    let dev = Dev::start(work, &["--policies", "policies"]);
    let claims = |event: &str| {
        format!(
            r#"{{"repository_id":"0099","repository_owner_id":"0004411","repository":"acme/new","event_name":"{event}",
                "ref":"refs/heads/main","environment":"staging"}}"#
        )
    };
    let job = |event: &str, out: &str| {
        fs::write(work.join("claims.json"), claims(event)).unwrap();
        let token = dev::good(work, &["dev", "token", "--state", "state", "--claims", "claims.json"]);
        fs::write(work.join("evidence"), token).unwrap();
        dev::verb(work, &["token", "--task", "deploy-staging", "--evidence-file", "evidence", "--out", out])
    };
    let decision = |output: &Output| {
        let said = text(&output.stderr);
        let at = said.find("evt_").unwrap_or_else(|| panic!("{said}"));
        said[at..at + 30].to_owned()
    };
    let first = decision(&job("push", "a.token"));
    let unreviewed = decision(&job("pull_request", "b.token"));
    let add = |evt: &str, more: &str| {
        typed(work, &format!("dayfly trust add --from {evt} --state state --policies policies {more}"))
    };
    wait_until("the refusals", || {
        dev::verb(work, &["ledger", "show", &unreviewed, "--state", "state"]).status.success()
    });
    let refused = add(&unreviewed, "--yes");
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains("--untrusted"), "{refused:?}");
    assert_eq!(fs::read_to_string(work.join("policies/shop.toml")).unwrap(), SHOP);

    let added = add(&first, "--yes");
    assert!(added.status.success(), "{}", text(&added.stderr));
    let row = "claims = { repository_id = \"0099\", ref = \"refs/heads/main\", environment = \"staging\" }";
    assert!(text(&added.stdout).contains(row), "{}", text(&added.stdout));
    dev::signal(dev.child(), Signal::HUP);
    wait_until("the new bundle", || dev.said().contains("bundle loaded"));
    let issued = job("push", "c.token");
    assert!(issued.status.success(), "{}", text(&issued.stderr));
    assert!(text(&job("pull_request", "d.token").stderr).contains("E-NOMATCH"));
}

/// Somebody at a terminal, which `script` makes.
fn at_a_terminal(work: &Path, line: &str, answer: &str) -> Output {
    let mut command = Command::new("script");
    command.args(["-qec", line, "/dev/null"]).env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "dumb");
    let piped = command.current_dir(work).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("this test needs `script` of util-linux");
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_person_is_asked_and_only_a_yes_writes() {
    let work = dev::work();
    let work = work.path();
    let file = policies(work);
    let before = fs::read_to_string(&file).unwrap();
    let add = blocks("sh").into_iter().flat_map(commands).find(|line| line.contains("trust add github")).unwrap();
    let add = add.replacen("dayfly", env!("CARGO_BIN_EXE_dayfly"), 1);
    for answer in ["n\n", "\n", "yes please\n"] {
        let output = at_a_terminal(work, &add, answer);
        assert_eq!(output.status.code(), Some(1), "{answer:?}: {}", text(&output.stdout));
        assert!(text(&output.stdout).contains("[y/N]"), "{}", text(&output.stdout));
        assert_eq!(fs::read_to_string(&file).unwrap(), before, "{answer:?}");
    }
    let silent = at_a_terminal(work, &format!("{add} --no-input"), "y\n");
    assert_eq!((silent.status.code(), fs::read_to_string(&file).unwrap()), (Some(2), before.clone()));
    let output = at_a_terminal(work, &add, "y\n");
    assert!(output.status.success(), "{}", text(&output.stdout));
    assert_ne!(fs::read_to_string(&file).unwrap(), before);
}

/// As nobody, where the tests run as root, whom no mode stops.
#[test]
fn a_folder_that_cannot_be_written_is_said_and_left_as_it_was() {
    let work = dev::work();
    let work = work.path();
    let file = policies(work);
    let before = fs::read_to_string(&file).unwrap();
    for (path, mode) in [(work, 0o755), (file.as_path(), 0o644), (file.parent().unwrap(), 0o555)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let add = blocks("sh").into_iter().flat_map(commands).find(|line| line.contains("trust add github")).unwrap();
    let as_nobody = if rustix::process::geteuid().is_root() { "setpriv --reuid 65534 --clear-groups " } else { "" };
    let refused = typed(work, &format!("{as_nobody}{add} --yes"));
    let said = text(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("cannot be written; nothing was changed"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    fs::set_permissions(file.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
}
