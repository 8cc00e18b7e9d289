//! The bundle in `policies/`, which a company can begin with: it loads without a word, each of its
//! rows is held by tests, and what it forbids of a job as a whole is forbidden.

use std::collections::BTreeSet;

use dayfly::{
    flow::{BundleSource, Folder, Loaded},
    policy::{Ask, BundleEnv, Circumstances, Decision, What},
};
use dayfly_domain::{
    BindingKind, Kind, Reason, UnixMs,
    bundle::{Expect, example_ids, overdue_lints},
};
use serde_json::json;

const ISSUER: &str = "https://broker.example.org";

fn loaded() -> Loaded {
    let env = BundleEnv { issuer_url: ISSUER.into(), broker_binding: BindingKind::Dpop };
    Folder { path: "policies".into(), env }.load().unwrap_or_else(|problems| panic!("{problems:#?}"))
}

#[test]
fn the_starter_bundle_loads_without_a_word_and_is_an_example() {
    let Loaded { policy, lints, .. } = loaded();
    assert_eq!(lints, []);
    assert!(!example_ids(policy.bundle()).is_empty());
    let uid = "task.agent-look.allow.agent-looks.claims.service_account_uid";
    assert!(example_ids(policy.bundle()).iter().any(|at| at.starts_with(uid)), "{:?}", example_ids(policy.bundle()));
}

#[test]
fn every_row_of_it_has_tests_both_ways() {
    let loaded = loaded();
    let bundle = loaded.policy.bundle();
    let by = |test: &dayfly_domain::bundle::BundleTest| match &test.expect {
        Expect::Permit { row } => row.as_ref().map(ToString::to_string),
        Expect::Deny { .. } => None,
    };
    let permitted: BTreeSet<String> = bundle.tests.iter().filter_map(by).collect();
    let denied: BTreeSet<_> =
        bundle.tests.iter().filter(|test| matches!(test.expect, Expect::Deny { .. })).map(|test| &test.task).collect();
    for template in bundle.templates.values() {
        assert!(denied.contains(&template.name), "nobody is denied `{}`", template.name);
        for row in &template.rows {
            assert!(permitted.contains(row.id.as_str()), "no test is permitted by `{}`", row.id);
        }
    }
}

#[test]
fn t_073_a_vendor_has_an_end_of_its_own() {
    let loaded = loaded();
    let bundle = loaded.policy.bundle();
    let vendor = bundle.owners.keys().find(|name| name.starts_with("vendor-")).unwrap();
    let rows = bundle.templates.values().flat_map(|template| &template.rows).filter(|row| row.owner == *vendor);
    let rows: Vec<_> = rows.map(|row| &bundle.issuers[&row.issuer]).collect();
    assert!(!rows.is_empty() && rows.iter().all(|issuer| issuer.owner == *vendor));
    let over = UnixMs::parse("2027-04-01T00:00:00Z").unwrap();
    assert!(overdue_lints(bundle, over).iter().any(|lint| lint.at.contains("acme-sync")));
}

#[test]
fn a_job_that_has_looked_at_customers_answers_nobody() {
    let loaded = loaded();
    let bundle = loaded.policy.bundle();
    let (issuer, profile) = (&bundle.issuers["cluster"], &bundle.profiles["kubernetes"]);
    let claims = json!({ "kubernetes.io": {
        "namespace": "agents", "pod": { "name": "a", "uid": "p-2" },
        "serviceaccount": { "name": "agent", "uid": "00000000-0000-4000-8000-000000000002" },
    } });
    let agent = dayfly::intake::read(issuer, profile, claims.as_object().unwrap()).unwrap();
    let decided = |template: &str, held: &[String]| {
        let what = What::Credential { kind: Kind::Jwt, resource: None, actions: None };
        let ask = Ask { template: template.to_owned(), what, ttl_s: None, ticket: None };
        let circumstances = Circumstances { proven: BindingKind::Dpop, evidence_age_s: 0, held };
        match loaded.policy.decide(&agent, &ask, circumstances) {
            Decision::Permit(grant) => Ok(grant.row().to_string()),
            Decision::Deny(denied) => Err((denied.reason, denied.policies)),
        }
    };
    let (orders, tickets) = (["warehouse#orders:read".to_owned()], ["tickets#ticket:write".to_owned()]);
    assert_eq!(decided("agent-answer", &[]), Ok("agent-answers".to_owned()));
    assert_eq!(decided("agent-look", &[]), Ok("agent-looks".to_owned()));
    let forbidden = Err((Reason::Forbidden, vec!["nothing-leaves".to_owned()]));
    assert_eq!(decided("agent-answer", &orders), forbidden);
    assert_eq!(decided("agent-look", &tickets), forbidden, "nor the other way round");
    assert_eq!(decided("agent-look", &orders), Ok("agent-looks".to_owned()));
}
