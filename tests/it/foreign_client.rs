//! A foreign OAuth client, unmodified, with evidence of a foreign provider: exchange with DPoP and
//! its nonce, introspection with a key of its own, renewal, revocation.

use std::{fs, path::Path, process::Stdio};

use serde_json::{Value, json};

use super::{
    dev,
    foreign::{node, skipped, with_input},
    idp::{self, Provider},
    served::{Authority, Served},
};

const BOUND: &str = "https://bound.staging.example.org";

/// The tables of the service's story, and a target that wants proof and says who may ask for it.
fn bundle(idp: &str) -> String {
    let more = format!(
        r#"
[target.bound]
uri         = "{BOUND}"
environment = "staging"
owner       = "team-orders"
binding     = "dpop"
verifies    = "introspect"
actions     = ["orders:write"]

[[target.bound.verifier]]
issuer = "bound-server"

[issuer.bound-server]
profile = "oidc"
owner   = "team-orders"
kind    = "verifier"
url     = "bound-server-1"
keys    = {{ jwks_file = "bound.jwks.json" }}

[task.write]
purpose   = "write the orders"
owner     = "team-orders"
grants    = {{ bound = ["orders:write"] }}
ttl       = "5m"
deadline  = "1h"
review_by = 2027-06-30

[[task.write.allow]]
id     = "write-staging"
issuer = "company"
claims = {{ env = "staging", team = "orders" }}
"#
    );
    format!("{}{more}", idp::bundle(idp))
}

fn serve(work: &Path, authority: &Authority, idp: &str) -> Served {
    Served::first(work, authority, |_| {
        let made = node(work, "client.mjs").args(["key", "server.jwk", "bundle/bound.jwks.json"]).status().unwrap();
        assert!(made.success());
        fs::write(work.join("bundle/ca.pem"), authority.pem()).unwrap();
        bundle(idp)
    })
}

#[test]
fn an_unmodified_client_exchanges_with_dpop_introspects_with_its_own_key_and_revokes() {
    if skipped("node") {
        return;
    }
    let (work, authority) = (dev::work(), Authority::new());
    let work = work.path();
    let idp = Provider::start(work, &authority);
    let broker = serve(work, &authority, &idp.url);
    fs::write(work.join("ca.pem"), authority.pem()).unwrap();
    let ask = json!({
        "issuer": broker.issuer,
        "evidence": idp.token(&broker.issuer),
        "template": "write",
        "resource": BOUND,
        "clientId": "bound-server-1",
        "keyFile": "server.jwk",
    });
    let mut command = node(work, "client.mjs");
    command.arg("story").env("NODE_EXTRA_CA_CERTS", "ca.pem").stdin(Stdio::piped());
    let told = with_input(&mut command, ask.to_string().as_bytes());
    assert!(told.status.success(), "{}\n{}", dev::text(&told.stderr), broker.said());
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();

    assert!(told["nonces"]["wanted"].as_u64().unwrap() >= 1, "it was asked for a nonce, and gave it: {told}");
    assert_eq!(told["first"]["token_type"], "dpop");
    assert_eq!((&told["claims"]["cnf"]["jkt"], &told["claims"]["aud"]), (&told["jkt"], &json!(BOUND)));
    let seen = &told["seen"];
    assert_eq!((&seen["active"], &seen["cnf"]["jkt"]), (&json!(true), &told["jkt"]), "{seen}");
    assert_eq!(seen["task_id"], told["first"]["task_id"]);
    for refused in [&told["unproven"], &told["stolen"]] {
        assert_eq!(refused[0], 400, "a handle without its key: {refused}");
    }
    assert_eq!(told["superseded"], json!({ "active": false }));
    assert_eq!(told["renewed"]["active"], json!(true));
    assert_eq!(told["after"], json!({ "active": false }), "revoked");
    let ended = broker.verb(&[
        "lease",
        "show",
        told["second"]["lease_id"].as_str().unwrap(),
        "--state",
        "state",
        "--output",
        "json",
    ]);
    assert!(ended.contains(r#""cause":"presented""#), "{ended}");
    assert!(broker.verb(&["ledger", "verify", "--state", "state"]).contains("verified"));
}
