//! Foreign eyes on our token: servers that know only the standards and their own library.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use super::{
    dev::{self, Dev},
    foreign::{node, python, skipped, with_input},
};

const STAGING: &str = "https://deploy.staging.shop.example.org";
const PRODUCTION: &str = "https://deploy.shop.example.org";

/// Holds a verifier to a token of `dev`: it finds the keys by itself, reads the claims, refuses
/// every altered token, and the true one where it does not belong.
fn hold(verify: impl Fn(&Path, &str, &str, &str) -> Command) {
    let work = dev::work();
    let work = work.path();
    let _dev = Dev::start(work, &[]);
    let issued = dev::job(work, "job.token");
    assert!(issued.status.success(), "{}", dev::text(&issued.stderr));
    let vars = dev::env(work);
    let (issuer, ca) = (vars["DAYFLY_ADDR"].as_str(), vars["DAYFLY_CA"].as_str());
    let token = fs::read(work.join("job.token")).unwrap();
    let check = |audience: &str| with_input(&mut verify(work, issuer, ca, audience), &token);

    let seen = check(STAGING);
    assert!(seen.status.success(), "{}", dev::text(&seen.stderr));
    let said = dev::text(&seen.stdout);
    let claims: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(claims["iss"], issuer);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 900);
    assert!(said.lines().any(|line| line == "refused 17"), "{said}");
    assert!(!check(PRODUCTION).status.success(), "another server's token");
}

#[test]
fn pyjwt_verifies_our_token_by_discovery_and_refuses_every_altered_one() {
    if skipped("python") {
        return;
    }
    hold(|_, issuer, ca, audience| {
        let mut command = python("verify_pyjwt.py");
        command.args([issuer, ca, "-", audience]);
        command
    });
}

#[test]
fn authlib_verifies_our_token_as_an_rfc_9068_access_token_and_refuses_every_altered_one() {
    if skipped("python") {
        return;
    }
    hold(|_, issuer, ca, audience| {
        let mut command = python("verify_authlib.py");
        command.args([issuer, ca, "-", audience]);
        command
    });
}

#[test]
fn jose_verifies_our_token_by_discovery_and_refuses_every_altered_one() {
    if skipped("node") {
        return;
    }
    hold(|work, issuer, ca, audience| {
        let mut command = node(work, "verify_jose.mjs");
        command.args([issuer, audience]).env("NODE_EXTRA_CA_CERTS", ca);
        command
    });
}
