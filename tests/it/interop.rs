//! Foreign eyes on our token: a server that knows only the standards and its own library.

use std::{env, path::PathBuf, process::Command};

use super::dev::{self, Dev};

/// Whether the runner said that this tool cannot be had; without that word a missing tool fails.
fn skipped(tool: &str) -> bool {
    env::var("DAYFLY_TEST_SKIP").is_ok_and(|skip| skip.split(',').any(|skipped| skipped == tool))
}

/// The Python that `tests/run` prepared with what `tests/interop/requirements.lock` pins.
fn python() -> PathBuf {
    let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/target/interop/venv/bin/python");
    let python = env::var_os("DAYFLY_TEST_PYTHON").map_or_else(|| PathBuf::from(usual), PathBuf::from);
    assert!(python.exists(), "no Python with PyJWT at `{}`: run tests/run", python.display());
    python
}

#[test]
fn pyjwt_verifies_our_token_by_discovery_and_refuses_every_altered_one() {
    if skipped("python") {
        return;
    }
    let work = dev::work();
    let work = work.path();
    let _dev = Dev::start(work, &[]);
    let issued = dev::job(work, "job.token");
    assert!(issued.status.success(), "{}", dev::text(&issued.stderr));
    let token = std::fs::read_to_string(work.join("job.token")).unwrap();
    let vars = dev::env(work);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/verify_pyjwt.py");
    let check = |audience: &str| {
        let mut command = Command::new(python());
        command.args([script, &vars["DAYFLY_ADDR"], &vars["DAYFLY_CA"], token.trim(), audience]);
        command.output().unwrap()
    };
    let seen = check("https://deploy.staging.shop.example.org");
    assert!(seen.status.success(), "{}", dev::text(&seen.stderr));
    let said = dev::text(&seen.stdout);
    let claims: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(claims["iss"], vars["DAYFLY_ADDR"]);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 900);
    assert!(said.lines().any(|line| line == "refused 17"), "{said}");
    assert!(!check("https://deploy.shop.example.org").status.success(), "another server's token");
}
