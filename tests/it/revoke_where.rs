//! `dayfly revoke --where` and `dayfly block` with the real program: what an operator types and sees.

use std::{collections::BTreeSet, path::Path, process::Output};

use serde_json::Value;

use crate::dev::{self, Dev, text};

/// On the broker's own socket.
fn asked(work: &Path, args: &[&str]) -> Output {
    dev::verb(work, &[args, &["--state", "state"]].concat())
}

fn json(work: &Path, args: &[&str]) -> Value {
    let output = asked(work, &[args, &["--output", "json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A broker with so many live credentials of the sample's repository; gives what selects them.
fn broker_with(work: &Path, jobs: usize) -> (Dev, String) {
    let broker = Dev::start(work, &[]);
    for number in 0..jobs {
        let opened = dev::job(work, &format!("token-{number}"));
        assert!(opened.status.success(), "{}", text(&opened.stderr));
    }
    let claims: Value =
        serde_json::from_slice(&std::fs::read(work.join(&dev::env(work)["DAYFLY_DEV_CLAIMS"])).unwrap()).unwrap();
    (broker, format!("repository_id == \"{}\"", claims["repository_id"].as_str().unwrap()))
}

fn active(work: &Path) -> u64 {
    let listed = dev::good(work, &["lease", "ls", "--state", "active", "--output", "name"]);
    let task = dev::env(work)["DAYFLY_DEV_TASK"].clone();
    let of_jobs = dev::good(work, &["lease", "ls", "--state", "active", "--template", &task, "--output", "name"]);
    assert!(listed.len() >= of_jobs.len());
    of_jobs.lines().count() as u64
}

#[test]
fn an_operator_ends_everything_of_a_repository() {
    let work = dev::work();
    let work = work.path();
    let (_broker, selector) = broker_with(work, 3);
    let revoke = |more: &[&str]| {
        asked(work, &[&["revoke", "--where", &selector, "--reason", "vendor's gone"][..], more].concat())
    };
    let dry = revoke(&["--dry-run"]);
    assert!(dry.status.success(), "{}", text(&dry.stderr));
    assert!(text(&dry.stderr).contains("would end 3 leases of 3 tasks; nothing was ended"), "{}", text(&dry.stderr));
    assert_eq!(text(&dry.stdout).matches("lse_").count(), 3, "a sample: {}", text(&dry.stdout));

    let without = revoke(&[]);
    assert_eq!((without.status.code(), active(work)), (Some(2), 3));
    let exact =
        format!("dayfly revoke --where '{selector}' --reason 'vendor'\"'\"'s gone' --state 'state' --confirm 3");
    assert!(text(&without.stderr).contains(&exact), "{}", text(&without.stderr));

    let wrong = revoke(&["--confirm", "2"]);
    assert_eq!((wrong.status.code(), active(work)), (Some(1), 3), "{}", text(&wrong.stderr));
    assert!(text(&wrong.stderr).contains("E-COUNT") && text(&wrong.stderr).contains("--dry-run"));

    let done = revoke(&["--confirm", "3"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let said = text(&done.stderr);
    assert!(said.contains("ended 3 leases of 3 tasks in ") && said.contains("worst case"), "{said}");
    assert!(said.contains(&format!("blocked: {selector} until lifted (dayfly block lift blk_")), "{said}");
    assert!(text(&done.stdout).contains("introspection  at once"), "{}", text(&done.stdout));
    assert_eq!(active(work), 0);
}

#[test]
fn a_block_stands_until_it_is_lifted() {
    let work = dev::work();
    let work = work.path();
    let (_broker, selector) = broker_with(work, 1);
    let ended = json(work, &["revoke", "--where", &selector, "--reason", "x", "--confirm", "1"]);
    assert_eq!((&ended["schema_version"], &ended["count"]), (&1.into(), &1.into()));
    let block = ended["block"].as_str().unwrap().to_owned();
    let refused = dev::job(work, "again");
    assert_eq!(refused.status.code(), Some(77));
    assert!(text(&refused.stderr).contains("E-BLOCKED"), "{}", text(&refused.stderr));
    let listed = json(work, &["block", "ls"]);
    let found: Vec<_> =
        listed["items"].as_array().unwrap().iter().filter(|item| item["id"] == block.as_str()).collect();
    assert_eq!((found.len(), &found[0]["where"], &found[0]["reason"]), (1, &selector.as_str().into(), &"x".into()));
    let dry = asked(work, &["block", "lift", &block, "--dry-run"]);
    assert!(dry.status.success() && text(&dry.stderr).contains("nothing was lifted"), "{}", text(&dry.stderr));
    assert_eq!(dev::job(work, "still").status.code(), Some(77));
    let lifted = asked(work, &["block", "lift", &block]);
    assert!(lifted.status.success(), "{}", text(&lifted.stderr));
    assert_eq!(asked(work, &["block", "lift", &block]).status.code(), Some(3), "it stands no more");
    assert!(dev::job(work, "anew").status.success());
    assert_eq!(active(work), 1, "what had ended stays ended");
}

#[test]
fn without_a_block_the_job_comes_back() {
    let work = dev::work();
    let work = work.path();
    let (_broker, selector) = broker_with(work, 1);
    let ended = json(work, &["revoke", "--where", &selector, "--reason", "x", "--confirm", "1", "--no-block"]);
    assert_eq!((&ended["count"], ended.get("block")), (&1.into(), None));
    assert!(dev::job(work, "again").status.success());
}

#[test]
fn what_matches_nothing_everything_or_is_not_understood() {
    let work = dev::work();
    let work = work.path();
    let (_broker, _) = broker_with(work, 1);
    let dry = |selector: &str| asked(work, &["revoke", "--where", selector, "--dry-run"]);
    let nothing = dry("repository_id == \"0\"");
    assert!(nothing.status.success(), "{}", text(&nothing.stderr));
    assert!(text(&nothing.stderr).contains("would end 0 leases of 0 tasks"), "{}", text(&nothing.stderr));
    for bad in ["", "owner == *", "owner == \"a\" || owner == \"b\"", "owner", "owner != \"x\""] {
        let refused = dry(bad);
        assert_eq!(refused.status.code(), Some(2), "{bad}");
        assert!(text(&refused.stderr).contains("--where"), "{}", text(&refused.stderr));
    }
    // Understood here, and refused by the broker: no such owner, no such claim, a key.
    for unknown in ["owner == \"no-such\"", "no_such_claim == \"x\"", "key == \"k\""] {
        assert_eq!(dry(unknown).status.code(), Some(2), "{unknown}");
    }
    for usage in [
        &["revoke"][..],
        &["revoke", "--where", "owner == \"x\""],
        &["revoke", "--where", "owner == \"x\"", "--reason", "x", "--confirm", "-1"],
        &["revoke", "--where", "owner == \"x\"", "--reason", "x", "--confirm", "1", "--dry-run"],
        &["revoke", "--confirm", "1", "tsk_0000000000g000000000000000"],
        &["revoke", "tsk_0000000000g000000000000000", "--where", "owner == \"x\""],
        &["block", "lift", "lse_0000000000g000000000000000"],
    ] {
        assert_eq!(asked(work, usage).status.code(), Some(2), "{usage:?}");
    }
    assert_eq!(active(work), 1);
    let tasks = json(work, &["ledger", "show", "--limit", "500"]);
    let kinds: BTreeSet<_> = tasks["items"].as_array().unwrap().iter().map(|event| event["type"].to_string()).collect();
    assert!(!kinds.contains("\"tombstone\""), "{kinds:?}");
}
