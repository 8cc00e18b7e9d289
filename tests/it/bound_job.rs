//! A job with a key, as its author types it: `--dpop-key` against a target that asks for a proof. The
//! broker has only just started, so that its nonce is answered on the way.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

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
