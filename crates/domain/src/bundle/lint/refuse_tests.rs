//! Bundles that are well formed and do not load, each with the row beside it that does.

use std::collections::BTreeMap;

use super::super::{Bundle, Fingerprint, Problem, Surroundings, check, tables::Tables};
use crate::BindingKind;

const HEAD: &str = r#"
format = 1
trust_domain = "example.org"
[owner.team-a]
[owner.team-b]
[issuer.github]
profile = "github"
owner = "team-a"
pin = { repository_owner_id = "7" }
[issuer.gitlab]
profile = "gitlab"
owner = "team-a"
pin = { namespace_id = "7" }
[issuer.terraform]
profile = "terraform"
owner = "team-a"
pin = { organization_id = "org-7" }
[issuer.cluster]
profile = "kubernetes"
owner = "team-a"
url = "https://cluster.example.org"
[target.prod]
uri = "https://prod.example.org"
environment = "production"
owner = "team-a"
binding = "dpop"
verifies = "introspect"
actions = ["deploy:create", "deploy:status"]
reads = ["deploy:status"]
[target.stage]
uri = "https://stage.example.org"
environment = "staging"
owner = "team-a"
binding = "bearer"
verifies = "introspect"
actions = ["deploy:create", "deploy:status"]
reads = ["deploy:status"]
"#;

fn checked(text: &str) -> Result<Bundle, Vec<Problem>> {
    let mut tables = Tables::default();
    for (path, profile) in [
        ("github", include_str!("../../../../../policies/profiles/github.toml")),
        ("gitlab", include_str!("../../../../../policies/profiles/gitlab.toml")),
        ("kubernetes", include_str!("../../../../../policies/profiles/kubernetes.toml")),
        ("spiffe", include_str!("../../../../../policies/profiles/spiffe.toml")),
        ("terraform", include_str!("../../../../../policies/profiles/terraform.toml")),
    ] {
        tables.merge_builtin(path, toml::from_str(profile).unwrap());
    }
    tables.merge("trust.toml", toml::from_str(&format!("{HEAD}{text}")).unwrap());
    let given = Surroundings {
        issuer_url: "https://broker.example.org",
        broker_binding: BindingKind::Dpop,
        fingerprint: Fingerprint([0; 32]),
        extra: &BTreeMap::new(),
        cedar: Vec::new(),
    };
    check(&tables, given)
}

fn task(name: &str, owner: &str, grants: &str) -> String {
    format!(
        "[task.{name}]\npurpose = \"p\"\nowner = \"{owner}\"\nttl = \"15m\"\nreview_by = 2027-01-01\ngrants = {{ {grants} }}\n"
    )
}

fn row(task: &str, id: &str, issuer: &str, claims: &str, more: &str) -> String {
    format!("[[task.{task}.allow]]\nid = \"{id}\"\nissuer = \"{issuer}\"\nclaims = {{ {claims} }}\n{more}\n")
}

/// What is said of a bundle, a line each; empty where it loads.
fn said(text: &str) -> String {
    match checked(text) {
        Ok(_) => String::new(),
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}

/// One template with one row.
fn one(grants: &str, issuer: &str, claims: &str, more: &str) -> String {
    said(&format!("{}{}", task("t", "team-a", grants), row("t", "r", issuer, claims, more)))
}

const PROD: &str = "prod = [\"deploy:create\"]";
const STAGE: &str = "stage = [\"deploy:create\"]";
const STAGE_READ: &str = "stage = [\"deploy:status\"]";

#[test]
fn a_row_for_what_no_workload_is_named() {
    let row = |name: &str, issuer: &str, id: &str| {
        format!("{}{}", task("t", "team-a", STAGE_READ), row("t", "r", issuer, &format!("{name} = \"{id}\""), ""))
    };
    for bad in ["*", "7*", "\u{ff14}", "${x}", "a/b", "a b"] {
        let refused = said(&row("repository_id", "github", bad));
        assert!(refused.contains("never-matches"), "{bad}: {refused}");
    }
    assert_eq!(said(&row("repository_id", "github", "88120")), "");
    let mesh = "[issuer.mesh]\nprofile = \"spiffe\"\nowner = \"team-a\"\nurl = \"spiffe://prod.example\"\n\
        keys = { spiffe_bundle = \"x\" }\n";
    for bad in [
        "://prod.example",
        "://prod.example/",
        "://prod.example/a/",
        "://other.example/a",
        "://prod.example/*",
        "://prod.example/a/untrusted",
    ] {
        let refused = said(&format!("{mesh}{}", row("spiffe_id", "mesh", &format!("spiffe{bad}"))));
        assert!(refused.contains("never-matches"), "{bad}: {refused}");
    }
    assert_eq!(said(&format!("{mesh}{}", row("spiffe_id", "mesh", "spiffe://prod.example/ns/a"))), "");
}

#[test]
fn a_pods_default_token_is_no_evidence() {
    let own = "https://cluster.example.org";
    for audience in [
        own,
        "https://cluster.example.org/",
        "https://kubernetes.default.svc",
        "HTTPS://Kubernetes.default.svc/",
        "k3s",
    ] {
        let text = format!(
            "[issuer.c2]\nprofile = \"kubernetes\"\nowner = \"team-a\"\nurl = \"{own}\"\naudience = \"{audience}\"\n"
        );
        let problems = checked(&text).unwrap_err();
        assert!(problems.iter().any(|problem| problem.at == "issuer.c2.audience"), "{audience}: {problems:?}");
    }
    let text =
        format!("[issuer.c2]\nprofile = \"kubernetes\"\nowner = \"team-a\"\nurl = \"{own}\"\naudience = \"dayfly\"\n");
    assert!(checked(&text).is_ok());
}

#[test]
fn t_061_a_row_that_goes_by_a_name() {
    for (issuer, name, id) in [
        ("github", "repository = \"a/b\"", "repository_id = \"1\""),
        ("gitlab", "project_path = \"a/b\"", "project_id = \"1\""),
        ("cluster", "service_account = \"a\"", "service_account_uid = \"u\""),
    ] {
        let found = one(STAGE, issuer, name, "");
        assert!(found.starts_with("trust.toml: task.t.allow.r: goes by `"), "{found}");
        let id_name = id.split(' ').next().unwrap();
        assert!(found.contains("[name-not-id] (help: name `") && found.contains(id_name), "{found}");
        assert_eq!(one(STAGE, issuer, id, ""), "", "{id}");
        assert_eq!(one(STAGE, issuer, &format!("{id}, {name}"), ""), "", "the name beside the id");
    }
    // What the issuer pins is named already.
    assert_eq!(one(STAGE, "github", "repository_owner = \"a\", repository_id = \"1\"", ""), "");
}

#[test]
fn t_061_an_issuer_that_is_pinned_to_a_name() {
    let issuer = "[issuer.other]\nprofile = \"github\"\nowner = \"team-a\"\naudience = \"x\"\n\
        pin = { enterprise_id = \"1\", repository_owner = \"a\" }\n";
    let found = said(issuer);
    assert!(found.starts_with("trust.toml: issuer.other.pin: goes by `repository_owner`"), "{found}");
    assert_eq!(said(&issuer.replace("repository_owner", "repository_owner_id")), "");
}

#[test]
fn a_row_to_production_that_any_branch_can_run() {
    for (issuer, open, guards) in [
        (
            "github",
            "repository_id = \"1\", ref = \"refs/heads/main\"",
            &["environment = \"p\"", "ref_protected = true"][..],
        ),
        (
            "gitlab",
            "project_id = \"1\", environment = \"p\"",
            &["environment_protected = true", "ref_protected = true"],
        ),
    ] {
        let found = one(PROD, issuer, open, "");
        assert!(found.contains("reaches production") && found.contains("[open-production]"), "{found}");
        for guard in guards {
            assert_eq!(one(PROD, issuer, &format!("{open}, {guard}"), ""), "", "{guard}");
        }
        assert!(one(PROD, issuer, &format!("{open}, ref_protected = [true, false]"), "").contains("open-production"));
        assert_eq!(one(STAGE, issuer, open, ""), "", "another environment");
    }
    // A platform that has neither.
    assert_eq!(one(PROD, "cluster", "service_account_uid = \"u\"", ""), "");
}

#[test]
fn t_068_a_row_that_can_never_match() {
    for (issuer, claims, part) in [
        ("github", "repository_id = \"1\", event_name = \"pull_request_target\"", "the profile refuses such evidence"),
        ("github", "repository_id = \"1\", event_name = [\"pull_request\", \"workflow_run\"]", "unreviewed code"),
        (
            "github",
            "repository_id = \"1\", repository_owner_id = \"8\"",
            "the issuer pins another `repository_owner_id`",
        ),
        ("gitlab", "project_id = \"1\", ref_type = \"mr\"", "the platform sends no such `ref_type`"),
        ("gitlab", "project_id = \"1\", job_project_id = \"2\"", "are always equal"),
        ("gitlab", "project_id = \"1\", pipeline_source = \"merge_request_event\"", "unreviewed code"),
        ("terraform", "workspace_id = \"w\", run_phase = \"destroy\"", "the profile requires another `run_phase`"),
        ("terraform", "workspace_id = \"w\", run_phase = \"plan\"", "unreviewed code"),
    ] {
        let found = one(STAGE, issuer, claims, "");
        assert!(found.contains("r: can never match: ") && found.contains(part), "{claims}: {found}");
        assert!(found.contains("[never-matches]"), "{found}");
    }
    assert_eq!(one(STAGE, "gitlab", "project_id = \"1\", job_project_id = [\"1\", \"2\"], ref_type = \"tag\"", ""), "");
    assert_eq!(one(STAGE_READ, "terraform", "workspace_id = \"w\", run_phase = \"plan\"", "untrusted = true"), "");
}

#[test]
fn t_069_a_plan_that_would_apply() {
    let every = one(STAGE, "terraform", "workspace_id = \"w\"", "");
    assert!(every.contains("every `run_phase` of a run would get `deploy:create`"), "{every}");
    assert_eq!(one(STAGE, "terraform", "workspace_id = \"w\", run_phase = \"apply\"", ""), "");
    let plan = "workspace_id = \"w\", run_phase = \"plan\"";
    let found = one(STAGE, "terraform", plan, "untrusted = true");
    assert!(found.contains("unreviewed code would get `deploy:create` on `target.stage`"), "{found}");
    assert!(found.contains("[unreviewed-writes]") && found.contains("`reads = [...]`"), "{found}");
    assert_eq!(one(STAGE_READ, "terraform", plan, "untrusted = true"), "");
    assert_eq!(one("broker = [\"tasks:read\"]", "terraform", plan, "untrusted = true"), "");
    assert!(one("broker = [\"tasks:end\"]", "terraform", plan, "untrusted = true").contains("unreviewed-writes"));
}

#[test]
fn t_064_unreviewed_code_that_would_write() {
    let found = one(STAGE, "github", "repository_id = \"1\"", "untrusted = true");
    assert!(found.contains("unreviewed code would get"), "{found}");
    assert_eq!(one(STAGE_READ, "github", "repository_id = \"1\"", "untrusted = true"), "");
}

#[test]
fn a_row_that_another_makes_useless() {
    let wide = |more: &str| row("t", "wide", "github", "repository_id = [\"1\", \"2\"]", more);
    let narrow = |claims: &str, more: &str| row("t", "a-narrow", "github", claims, more);
    let both = |wide: &str, narrow: &str| said(&format!("{}{wide}{narrow}", task("t", "team-a", STAGE_READ)));
    let claims = "repository_id = \"1\", ref = \"r\"";
    let found = both(&wide(""), &narrow(claims, ""));
    assert!(
        found.contains("task.t.allow.a-narrow: row `wide` permits all that this one does, for 15m [useless]"),
        "{found}"
    );
    assert_eq!(found.lines().count(), 1, "{found}");
    for (wide, narrow) in [
        (wide("ttl = \"5m\""), narrow(claims, "")),
        (wide("review_by = 2026-12-31"), narrow(claims, "")),
        (wide("disabled = true"), narrow(claims, "")),
        (wide(""), narrow(claims, "untrusted = true")),
        (wide(""), narrow("repository_id = [\"1\", \"3\"], ref = \"r\"", "")),
        (wide("").replace("github", "gitlab").replace("repository_id", "project_id"), narrow(claims, "")),
    ] {
        assert_eq!(both(&wide, &narrow), "");
    }
    assert!(!both(&wide("untrusted = true"), &narrow(claims, "untrusted = true")).is_empty());
    let twins = both(&wide(""), &narrow("repository_id = [\"2\", \"1\"]", ""));
    assert!(twins.starts_with("trust.toml: task.t.allow.wide: row `a-narrow` permits"), "{twins}");
    assert_eq!(twins.lines().count(), 1, "{twins}");
    // What the issuer pins anyway makes a row no narrower.
    let pinned = both(
        &narrow("repository_id = \"1\"", ""),
        &row("t", "b", "github", "repository_id = \"1\", repository_owner_id = \"7\"", ""),
    );
    assert!(pinned.contains("allow.b: row `a-narrow`"), "{pinned}");
}

#[test]
fn one_workload_for_two_owners() {
    let rows = |here: &str, there: &str| {
        let (a, b) = (task("a", "team-a", STAGE), task("b", "team-b", STAGE));
        said(&format!("{a}{}{b}{}", row("a", "ra", "github", here, ""), row("b", "rb", "github", there, "")))
    };
    let same = "repository_id = \"1\"";
    let found = rows(same, "repository_id = [\"3\", \"1\"], ref = \"r\"");
    let what =
        "task.b.allow.rb: one job may run this for `team-b` and `task.a` (row `ra`) for `team-a` [shared-account]";
    assert!(found.contains(what), "{found}");
    assert_eq!(found.lines().count(), 1, "{found}");
    assert_eq!(rows(same, "repository_id = \"2\""), "");
    let apart = |name: &str| format!("{same}, environment = \"{name}\"");
    assert_eq!(rows(&apart("x"), &apart("y")), "", "two jobs of one repository");
    assert!(rows(&apart("x"), &apart("x")).contains("shared-account"));
    assert!(rows(&apart("x"), same).contains("shared-account"));
    // Of one owner.
    let one = format!("{}{}", task("a", "team-a", STAGE), task("b", "team-a", STAGE));
    assert_eq!(said(&format!("{one}{}{}", row("a", "ra", "github", same, ""), row("b", "rb", "github", same, ""))), "");
}

/// A row each of two owners.
fn two_owners(issuer: &str, here: &str, there: &str) -> String {
    let (a, b) = (task("a", "team-a", STAGE), task("b", "team-b", STAGE));
    said(&format!("{a}{}{b}{}", row("a", "ra", issuer, here, ""), row("b", "rb", issuer, there, "")))
}

#[test]
fn rows_that_one_job_could_match_for_two_owners() {
    for (here, there) in [
        ("ref = \"main\"", "environment = \"x\""),
        ("environment = [\"x\", \"y\"]", "environment = [\"y\", \"z\"]"),
        ("ref = \"main\"", "ref = \"main\", sha = \"c\""),
    ] {
        for (here, there) in [(here, there), (there, here)] {
            assert!(two_owners("github", here, there).contains("[shared-account]"), "{here}; {there}");
        }
    }
    assert_eq!(two_owners("github", "environment = \"x\"", "environment = \"y\", ref = \"main\""), "");
}

#[test]
fn a_wide_row_beside_another_owners() {
    let narrow = "repository_id = \"1\", environment = \"x\"";
    for wide in ["environment = \"x\"", "ref = \"main\""] {
        for (here, there) in [(narrow, wide), (wide, narrow)] {
            assert!(two_owners("github", here, there).contains("[shared-account]"), "{here}; {there}");
        }
    }
    assert_eq!(two_owners("github", narrow, "environment = \"y\""), "");
    // Nothing of the principal.
    let whole = "node_uid = \"n\", service_account_uid = \"u\"";
    assert!(two_owners("cluster", whole, "node_uid = \"n\"").contains("[shared-account]"));
    assert_eq!(two_owners("cluster", whole, "node_uid = \"m\""), "");
}

#[test]
fn what_is_disabled_keeps_nothing_from_loading() {
    assert_eq!(one(PROD, "github", "repository = \"a/b\"", "disabled = true"), "");
    let task = task("t", "team-a", PROD).replace("purpose", "disabled = true\npurpose");
    assert_eq!(said(&format!("{task}{}", row("t", "r", "github", "repository = \"a/b\"", ""))), "");
}

#[test]
fn what_a_target_says_of_its_actions() {
    let found = said("").lines().count();
    assert_eq!(found, 0);
    let text = "[target.x]\nuri = \"https://x.example\"\nenvironment = \"staging\"\nowner = \"team-a\"\nbinding = \"bearer\"\n\
        verifies = \"introspect\"\nactions = [\"a\"]\nreads = [\"b\"]\n";
    let found = said(text);
    assert!(found.contains("target.x.reads: `b` is not one of its actions"), "{found}");
}

#[test]
fn a_thousand_rows_are_compared_with_few() {
    let rows: String = (0..1000)
        .map(|n| {
            row("t", &format!("r{n}"), "github", &format!("repository_id = \"{n}\", ref = \"refs/heads/main\""), "")
        })
        .collect();
    assert_eq!(said(&format!("{}{rows}", task("t", "team-a", STAGE))), "");
}
