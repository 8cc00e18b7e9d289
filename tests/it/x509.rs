//! Certificates for one task: asked over HTTP, checked by a foreign hand, renewed, ended with their task.

use std::fs;

use dayfly_domain::{Bound, Kind, Reason, State};
use serde_json::json;

use crate::{
    certs::{
        CERT_BUNDLE, DB_URI, HANDLE, JWT, NAME, X509, ask_x509, asked, chain, csr, feed, new_key, open, openssl, pem,
    },
    world::{Answer, Job, OPERATOR, START, World, handle, lease, reason, sha256, token},
};

fn world() -> World {
    World::of(CERT_BUNDLE)
}

/// What `openssl verify` says of a chain: only the root is trusted, and the moment is the world's.
fn verified(world: &World, chain_pem: &str, more: &[&str]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let ders = chain(chain_pem);
    fs::write(at("leaf"), pem(&ders[0])).unwrap();
    fs::write(at("above"), ders[1..].iter().map(|der| pem(der)).collect::<String>()).unwrap();
    fs::write(at("root"), pem(world.flow.pki().unwrap().root())).unwrap();
    let moment = world.now().as_s().to_string();
    let (leaf, above, root) = (at("leaf"), at("above"), at("root"));
    let fixed = ["verify", "-x509_strict", "-check_ss_sig", "-attime", &moment, "-CAfile", &root, "-untrusted", &above];
    openssl(&[&fixed[..], more, &[&leaf]].concat())
}

#[tokio::test]
async fn a_csr_becomes_a_certificate_that_openssl_accepts() {
    let mut world = world();
    let (key, evidence) = (new_key(), world.evidence(&Job::shop()));
    let answer: Answer = world.call(asked((JWT, &evidence), &csr(&key), &[("scope", "migrate")])).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    assert_eq!((&body["issued_token_type"], &body["token_type"]), (&json!(X509), &json!("N_A")));
    assert_eq!((&body["expires_in"], &body["authorization_details"][0]["locations"]), (&json!(900), &json!([DB_URI])));
    let pem = body["access_token"].as_str().unwrap();
    assert_eq!(chain(pem).len(), 3, "leaf, issuing CA, area CA");
    let (accepted, said) = verified(&world, pem, &["-purpose", "sslclient"]);
    assert!(accepted, "{said}");
    let (accepted, said) = verified(&world, pem, &["-purpose", "sslserver"]);
    assert!(!accepted, "it serves nothing: {said}");
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
}
