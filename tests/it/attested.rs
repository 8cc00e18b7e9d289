//! Workloads that a verifier appraised: attestation results (EARs) under the names of the draft and
//! the older ones, each submodule affirmed or the whole refused.

use dayfly::{
    flow::BundleSource,
    intake::{ClaimRefusal, read},
};
use dayfly_domain::{Reason, bundle::Bundle};
use serde_json::{Map, Value, json};

use crate::world::{BUNDLE, CI, Job, START, World, ask, reason};

const APPRAISER: &str = "https://verifier.example.org";
const TABLES: &str = r#"
[issuer.appraiser]
profile = "ear"
owner   = "team-shop"
url     = "https://verifier.example.org"
keys    = { jwks_file = "other.json" }

[[task.deploy.allow]]
id     = "attested-deploys"
issuer = "appraiser"
claims = { sub = "vm-1", policy_ids = "policy://strict" }
"#;

fn world() -> World {
    World::of(&format!("{BUNDLE}{TABLES}"))
}

/// A result in the draft's names.
fn result(submods: Value) -> Job {
    let claims = json!({
        "iss": APPRAISER, "sub": "vm-1", "eat_profile": "tag:ietf.org,2026:rats/ear#04",
        "ear_verifier_id": { "developer": "https://veraison-project.org", "build": "vsts 0.0.1" },
        "eat_nonce": "of nobody here", "submods": submods,
    });
    Job(claims)
}

fn part(status: impl Into<Value>) -> Value {
    json!({ "ear_status": status.into(), "ear_appraisal_policy_ids": ["policy://strict"] })
}

async fn refused(world: &World, job: Job) -> Reason {
    reason(world.present(&world.sign_as_other(job), ask("deploy")).await)
}

#[tokio::test]
async fn a_workload_that_is_affirmed_in_every_part_opens_a_task() {
    let world = world();
    for (jti, status) in [("1", json!("affirming")), ("2", json!(2))] {
        let job = result(json!({ "cpu": part(status.clone()), "gpu": part("affirming") })).with("jti", jti);
        assert!(world.present(&world.sign_as_other(job), ask("deploy")).await.is_ok(), "{status}");
    }
    let summed_up = result(json!({ "cpu": part(2) })).with("ear_status", "affirming").with("jti", "3");
    assert!(world.present(&world.sign_as_other(summed_up), ask("deploy")).await.is_ok());
}

/// As the libraries of before March 2026 write it, times as floats with it.
#[tokio::test]
async fn a_result_in_the_old_names_is_the_same() {
    let world = world();
    let submods = json!({ "cpu": { "ear.status": "affirming", "ear.appraisal-policy-id": "policy://strict" } });
    let old = result(submods).with("eat_profile", "tag:github.com,2023:veraison/ear");
    let old = old.with("iat", START.as_s() as f64);
    assert!(world.present(&world.sign_as_other(old), ask("deploy")).await.is_ok());
}

#[tokio::test]
async fn a_part_that_is_not_affirmed_refuses_the_whole() {
    let world = world();
    for status in [json!("none"), json!("warning"), json!("contraindicated"), json!(0), json!(32), json!(96)] {
        let job = result(json!({ "cpu": part(2), "gpu": part(status.clone()) }));
        assert_eq!(refused(&world, job).await, Reason::Appraisal, "{status}");
        let summed_up = result(json!({ "cpu": part(2) })).with("ear_status", status.clone());
        assert_eq!(refused(&world, summed_up).await, Reason::Appraisal, "{status}");
    }
}

#[tokio::test]
async fn a_part_that_cannot_be_read_refuses_the_whole() {
    let world = world();
    for other in [
        json!({}),
        json!({ "ear_status": null }),
        json!({ "ear_status": 3 }),
        json!({ "ear_status": 2.5 }),
        json!({ "ear_status": true }),
        json!({ "ear_status": "Affirming" }),
        json!({ "ear_status": "affirming", "ear.status": "affirming" }),
        json!(["JWT", "a nested token"]),
        json!("affirming"),
        json!(null),
    ] {
        let job = result(json!({ "cpu": part(2), "gpu": other.clone() }));
        assert_eq!(refused(&world, job).await, Reason::Claim, "{other}");
    }
    for submods in [json!({}), json!([part(2)]), json!(null), json!("affirming"), json!({ "cpu": {} })] {
        assert_eq!(refused(&world, result(submods.clone())).await, Reason::Claim, "{submods}");
    }
}

/// The row asks for a policy; what was appraised by another, or by nobody knows which, is not let in.
#[tokio::test]
async fn a_policy_speaks_of_every_part() {
    let world = world();
    let lax = json!({ "ear_status": 2, "ear_appraisal_policy_ids": ["policy://lax"] });
    assert_eq!(refused(&world, result(json!({ "cpu": part(2), "gpu": lax }))).await, Reason::NoMatch);
    let silent = json!({ "ear_status": 2 });
    assert_eq!(refused(&world, result(json!({ "cpu": silent }))).await, Reason::NoMatch);
    assert_eq!(refused(&world, result(json!({ "cpu": part(2), "gpu": silent }))).await, Reason::Claim);
}

#[tokio::test]
async fn a_result_that_is_for_nobody_or_about_nobody_is_refused() {
    let world = world();
    let good = || result(json!({ "cpu": part(2) }));
    for (claim, value, why) in [
        ("sub", json!(null), Reason::Claim),
        ("sub", json!(" "), Reason::Claim),
        ("aud", json!("https://another-party.example"), Reason::Audience),
        ("aud", json!(null), Reason::Audience),
        ("exp", json!(null), Reason::Claim),
        ("exp", json!((START.as_s() + 60) as f64), Reason::Claim),
        ("iat", json!(START.as_s() - 301), Reason::Expired),
        ("iat", json!((START.as_s() - 301) as f64), Reason::Expired),
        ("iat", json!(-1.5), Reason::Claim),
        ("iat", json!(1e300), Reason::Claim),
        ("iat", json!(-1.0), Reason::Claim),
        ("eat_profile", json!("test"), Reason::Claim),
        ("eat_profile", json!("tag:ietf.org,2026:rats/ear#99"), Reason::Claim),
        ("eat_profile", json!(["tag:ietf.org,2026:rats/ear#04"]), Reason::Claim),
    ] {
        assert_eq!(refused(&world, good().with(claim, value.clone())).await, why, "{claim} {value}");
    }
    let half = good().with("iat", json!(START.as_s() as f64 - 0.5));
    assert!(world.present(&world.sign_as_other(half), ask("deploy")).await.is_ok(), "a part of a second is left out");
    let float = Job::shop().with("iss", CI).with("iat", START.as_s() as f64);
    let refused = world.present(&world.sign(float), ask("deploy")).await;
    assert_eq!(reason(refused), Reason::Claim, "only where the profile says so");
}

#[test]
fn a_word_that_no_claim_can_be_is_an_error_of_the_bundle() {
    let world = world();
    let told = |claims: &str| {
        world.bundle.set(&format!("{BUNDLE}{}", TABLES.replace("sub = \"vm-1\"", claims)));
        let problems = world.bundle.load().err().unwrap_or_default();
        problems.iter().map(|problem| format!("{problem}\n")).collect::<String>()
    };
    assert!(told("sub = \"vm-1\", status = \"affirmed\"").contains("is no word that this claim can be"));
    assert_eq!(told("sub = \"vm-1\", status = \"affirming\""), "");
}

/// Whom a published result is about is in none of them, nor for whom it is.
#[tokio::test]
async fn the_results_that_others_published_are_read_as_they_meant_them() {
    let world = world();
    let loaded = world.bundle.load().unwrap_or_else(|problems| panic!("{problems:?}"));
    let bundle = loaded.policy.bundle();
    let corpus: Value = serde_json::from_str(include_str!("../corpus/jose/ear.json")).unwrap();
    let told = |id: &str| {
        let entries = corpus["entries"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["id"] == id).unwrap();
        let payload = payload(entry["token"].as_str().unwrap());
        assert_eq!(outcome(bundle, payload.clone()), "`sub` is missing", "{id}");
        outcome(bundle, payload.into_iter().chain([("sub".to_owned(), json!("vm-1"))]).collect())
    };
    assert_eq!(told("ear-go-affirming"), "affirming by policy://test/01234");
    assert_eq!(told("ear-rust-draft-04"), "E-APPRAISAL", "its status is `none`");
    assert_eq!(told("ear-rust-old"), "E-CLAIM", "its profile is `test`");
}

fn payload(token: &str) -> Map<String, Value> {
    dayfly_verifier::Jws::parse(token).unwrap().into_unverified_claims()
}

fn outcome(bundle: &Bundle, payload: Map<String, Value>) -> String {
    let issuer = &bundle.issuers["appraiser"];
    match read(issuer, &bundle.profiles["ear"], &payload) {
        Ok(workload) => {
            let shown = |name: &str| workload.claims.get(name).map(ToString::to_string).unwrap_or_default();
            format!("{} by {}", shown("status"), shown("policy_ids"))
        }
        Err(ClaimRefusal::Claim(what)) => what,
        Err(ClaimRefusal::Refused { reason, .. }) => reason.to_string(),
        Err(ClaimRefusal::Stranger) => "a stranger".to_owned(),
    }
}
