//! Certificates for one task: asked over HTTP, checked by a foreign hand, renewed, ended with their task.

use std::fs;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::{Bound, Kind, Reason, State};
use serde_json::json;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::{
    certs::{CERT_BUNDLE, DB_URI, HANDLE, JWT, NAME, X509, asked, chain, csr, feed, new_key, open, openssl, pem},
    world::{Answer, Job, OPERATOR, START, World, ask, client_handle, handle, lease, sha256, token},
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

#[tokio::test]
async fn the_leaf_is_what_the_wire_says_and_nothing_more() {
    let mut world = world();
    world.clock.advance_ms(700);
    let issued = open(&mut world, &Job::shop(), "migrate", &csr(&new_key())).await.unwrap();
    let der = &chain(&token(&issued))[0];
    let (rest, leaf) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    assert_eq!(leaf.raw_serial(), lease(&issued).as_u128().to_be_bytes(), "the lease id");
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!((names.critical, &names.value.general_names[..]), (false, &[GeneralName::URI(NAME)][..]));
    assert_eq!(leaf.subject().to_string(), "CN=migrate");
    let (from, to) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    assert_eq!((from, to), (START.as_s(), START.as_s() + 899), "inclusive: 900 seconds from the opening on");
    let credential = issued.credential.as_ref().unwrap();
    assert_eq!((credential.kind, credential.expires.as_s(), credential.ttl_s), (Kind::X509, to + 1, 900));
    let view = world.flow.lease(&OPERATOR, lease(&issued)).await.unwrap();
    assert_eq!((view.bound, view.row.kind, view.row.credential_hash), (Bound::X5t, Kind::X509, sha256(der)));
    let spki = URL_SAFE_NO_PAD.encode(sha256(leaf.public_key().raw));
    assert_eq!(view.row.thumbprint, Some(spki));
    let pki = world.flow.pki().unwrap();
    assert_eq!(view.row.kid.as_deref(), Some(pki.issuing()[0].id().as_str()));
}

#[tokio::test]
async fn a_renewed_certificate_is_valid_a_minute_back_but_not_before_its_task() {
    let mut world = world();
    let first = open(&mut world, &Job::shop(), "migrate", &csr(&new_key())).await.unwrap();
    let from = |pem: &str| {
        let der = chain(pem).remove(0);
        X509Certificate::from_der(&der).unwrap().1.validity().not_before.timestamp() - START.as_s()
    };
    for (pass_s, expected) in [(20, 0), (100, 60)] {
        world.pass_s(pass_s);
        let next = feed(&world, &handle(&first), None, &csr(&new_key())).await.unwrap();
        assert_eq!(from(&token(&next)), expected);
    }
    world.pass_s(3000);
    let last = feed(&world, &handle(&first), None, &csr(&new_key())).await.unwrap();
    assert_eq!(last.credential.unwrap().ttl_s, 480, "never past the task's deadline");
}

#[tokio::test]
async fn renewal_supersedes_and_the_end_of_the_task_ends_all() {
    let mut world = world();
    let key = new_key();
    let evidence = world.evidence(&Job::shop());
    let first = world.call(asked((JWT, &evidence), &csr(&key), &[("scope", "migrate")])).await.json();
    let control = first["task_control"].as_str().unwrap().to_owned();
    let second = world.call(asked((HANDLE, &control), &csr(&key), &[("supersede", "30")])).await.json();
    assert_eq!(second["task_id"], first["task_id"]);
    let state = async |answer: &serde_json::Value| {
        let id = answer["lease_id"].as_str().unwrap().parse().unwrap();
        world.flow.lease(&OPERATOR, id).await.unwrap().state
    };
    assert_eq!((state(&first).await, state(&second).await), (State::Active, State::Active));
    world.pass_s(30);
    assert_eq!((state(&first).await, state(&second).await), (State::Ended, State::Active));
    world.end(&control, first["task_id"].as_str().unwrap().parse().unwrap()).await.unwrap();
    assert_eq!(state(&second).await, State::Ended);
    let after = world.call(asked((HANDLE, &control), &csr(&key), &[])).await;
    assert_eq!((after.status, &after.json()["reason"]), (400, &json!("E-ENDED")));
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
}

#[tokio::test]
async fn only_a_task_that_serves_has_dns_names_and_may_be_a_server() {
    let mut world = world();
    let issued = open(&mut world, &Job::shop(), "serve", &csr(&new_key())).await.unwrap();
    for purpose in ["sslclient", "sslserver"] {
        let (accepted, said) = verified(&world, &token(&issued), &["-purpose", purpose]);
        assert!(accepted, "{purpose}: {said}");
    }
    let named = |name: &str| verified(&world, &token(&issued), &["-verify_hostname", name]);
    assert!(named("api.example.org").0 && named("api").0);
    assert!(!named("migrate").0 && !named("other.example.org").0);
}

#[tokio::test]
async fn unreviewed_code_has_no_subject() {
    let mut world = world();
    let fork = Job::shop().with("sub", "fork").with("event", "fork");
    let issued = open(&mut world, &fork, "peek", &csr(&new_key())).await.unwrap();
    let der = chain(&token(&issued)).remove(0);
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical && leaf.subject().iter().next().is_none());
    let uri = GeneralName::URI("spiffe://example.org/peek/ci/fork/untrusted");
    assert_eq!(names.value.general_names, [uri]);
    assert!(verified(&world, &token(&issued), &[]).0);
}

#[tokio::test]
async fn certificates_are_for_servers_that_check_them() {
    let mut world = world();
    let csr = csr(&new_key());
    for (template, what) in [("deploy", "a bearer target"), ("both", "several targets")] {
        let refused = open(&mut world, &Job::shop(), template, &csr).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Target, "{what}: {refused:?}");
    }
    let crl = world.try_open(&Job::shop(), ask("migrate")).await.unwrap_err();
    assert!(crl.reason == Reason::Target && crl.hint.as_ref().unwrap().contains("crl"), "{crl:?}");
    let stranger = open(&mut world, &Job::pay(), "migrate", &csr).await.unwrap_err();
    assert_eq!((stranger.reason, stranger.hint), (Reason::NoMatch, None));
}

#[tokio::test]
async fn policy_sees_what_is_asked() {
    let forbid = |condition: &str| {
        let cedar = format!(
            "@id(\"x\") @purpose(\"x\") forbid (principal, action == Dayfly::Action::\"run\", resource) when {{ {condition} }};"
        );
        World::with_cedar(CERT_BUNDLE, &cedar, &[])
    };
    for seen in ["context.kind == \"x509\"", "context.binding == \"mtls\"", "context.kind == \"jwt\""] {
        let mut world = forbid(seen);
        let certificate = open(&mut world, &Job::shop(), "migrate", &csr(&new_key())).await.map(drop);
        assert_eq!(certificate.is_ok(), seen.contains("jwt"), "{seen}");
    }
    let mut world = forbid("context.kind == \"x509\"");
    assert!(world.try_open(&Job::shop(), ask("deploy")).await.is_ok());
}

#[tokio::test]
async fn a_certificate_is_for_all_or_nothing() {
    let mut world = world();
    let request = csr(&new_key());
    let asking = |actions: &str| {
        format!("[{{\"type\":\"dayfly_task\",\"template\":\"migrate\",\"actions\":{actions},\"ttl\":60}}]")
    };
    for (actions, status) in [("[\"db:read\"]", 400), ("[\"db:read\",\"db:migrate\"]", 200)] {
        let evidence = world.evidence(&Job::shop());
        let details = asking(actions);
        let answer = world.call(asked((JWT, &evidence), &request, &[("authorization_details", &details)])).await;
        assert_eq!(answer.status, status, "{actions}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_again_with_the_handle() {
    let mut world = World::on_file_with(CERT_BUNDLE, "");
    let (control, hash) = client_handle(7);
    let control_s256 = URL_SAFE_NO_PAD.encode(hash);
    let key = new_key();
    let evidence = world.evidence(&Job::shop());
    let more = [("scope", "migrate"), ("task_control_s256", control_s256.as_str())];
    let lost = world.call(asked((JWT, &evidence), &csr(&key), &more)).await.json();
    world.restart().await;
    let again = world.call(asked((JWT, &evidence), &csr(&key), &more)).await;
    assert_eq!(again.json()["reason"], "E-REPLAYED");
    let found = world.call(asked((HANDLE, &control), &csr(&key), &[("supersede", "0")])).await.json();
    assert_eq!(found["task_id"], lost["task_id"]);
    let state = async |answer: &serde_json::Value| {
        let id = answer["lease_id"].as_str().unwrap().parse().unwrap();
        world.flow.lease(&OPERATOR, id).await.unwrap().state
    };
    assert_eq!((state(&lost).await, state(&found).await), (State::Ended, State::Active));
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
}

#[tokio::test]
async fn what_cannot_be_recorded_never_leaves() {
    let mut world = world();
    world.stop().await;
    let refused = open(&mut world, &Job::shop(), "migrate", &csr(&new_key())).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Store);
}
