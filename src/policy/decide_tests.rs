use dayfly_domain::Kind;
use proptest::prelude::*;

use super::*;
use crate::policy::{
    What,
    fixture::{PRODUCTION, SHOP, STAGING_URI, ask, bearer, decide, main_job, policy, with, with_cedar, workload},
};

fn shop() -> Policy {
    policy(&[("shop.toml", SHOP), ("production.cedar", PRODUCTION)]).unwrap()
}

fn credential(resource: Option<&str>, actions: Option<&[&str]>) -> Ask {
    let actions = actions.map(|actions| actions.iter().map(|action| (*action).to_owned()).collect());
    let what = What::Credential { kind: Kind::Jwt, resource: resource.map(str::to_owned), actions };
    Ask { what, ..ask("deploy-staging") }
}

fn reason(outcome: Result<Grant, Denied>) -> Reason {
    outcome.expect_err("permitted").reason
}

#[test]
fn a_row_that_matches_grants_what_its_template_grants() {
    let grant = bearer(&shop(), &main_job("staging"), &credential(None, None)).unwrap();
    let target = grant.target().unwrap();
    assert_eq!((&*target.uri, target.actions.len(), target.max_ttl.as_s()), (STAGING_URI, 2, 1800));
    assert_eq!((&**grant.row(), grant.row_ttl().as_s(), grant.asked_ttl_s()), ("shop-staging-main", 900, None));
    assert_eq!((grant.deadline().as_s(), grant.per_job(), grant.owner().as_str()), (3600, 16, "team-shop"));
    let narrowed = bearer(&shop(), &main_job("staging"), &credential(Some(STAGING_URI), Some(&["deploy:status"])));
    assert_eq!(narrowed.unwrap().target().unwrap().actions.len(), 1);
}

#[test]
fn a_task_alone_is_no_credential() {
    let grant = bearer(&shop(), &main_job("staging"), &Ask { what: What::TaskOnly, ..ask("deploy-staging") }).unwrap();
    assert_eq!((grant.target(), grant.grants().len()), (None, 1));
}

#[test]
fn every_claim_of_a_row_must_be_there() {
    let whole = main_job("staging");
    for claim in ["repository_id", "ref", "environment"] {
        let mut without = whole.clone();
        without.claims.remove(claim);
        assert_eq!(reason(bearer(&shop(), &without, &ask("deploy-staging"))), Reason::NoMatch, "{claim}");
        let mut other = whole.clone();
        other.claims.insert(claim.into(), ClaimValue::String("refs/heads/main2".into()));
        assert_eq!(reason(bearer(&shop(), &other, &ask("deploy-staging"))), Reason::NoMatch, "{claim}");
    }
}

#[test]
fn unreviewed_code_matches_only_rows_for_it() {
    let fork = Workload { untrusted: true, ..main_job("staging") };
    assert_eq!(reason(bearer(&shop(), &fork, &ask("deploy-staging"))), Reason::NoMatch);
    let text = SHOP.replacen("id     = \"shop-staging-main\"", "id = \"shop-staging-main\"\nuntrusted = true", 1);
    let actions = "actions     = [\"deploy:create\", \"deploy:status\"]";
    let text = text.replacen(actions, &format!("{actions}\n{}", actions.replacen("actions", "reads", 1)), 1);
    let open = policy(&[("shop.toml", &text)]).unwrap();
    assert!(bearer(&open, &fork, &ask("deploy-staging")).is_ok());
    assert!(bearer(&open, &main_job("staging"), &ask("deploy-staging")).is_ok());
}

#[test]
fn evidence_of_another_issuer_or_profile() {
    let other = Workload { issuer: "gitlab".parse().unwrap(), ..main_job("staging") };
    assert_eq!(reason(bearer(&shop(), &other, &ask("deploy-staging"))), Reason::NoMatch);
    let other = Workload { profile: "oidc".parse().unwrap(), ..main_job("staging") };
    assert_eq!(reason(bearer(&shop(), &other, &ask("deploy-staging"))), Reason::NoMatch);
}

#[test]
fn a_stranger_learns_nothing_of_a_template() {
    let stranger = workload(&[("repository_id", "0000001"), ("event_name", "push")]);
    for bad in [
        credential(Some("https://nowhere.example"), None),
        credential(None, Some(&["db:drop"])),
        credential(None, Some(&[])),
        Ask { ttl_s: Some(0), ..credential(None, None) },
        ask("deploy-prod"),
        ask("no-such-template"),
    ] {
        let denied = bearer(&shop(), &stranger, &bad).unwrap_err();
        assert_eq!((denied.reason, denied.hint), (Reason::NoMatch, None), "{bad:?}");
    }
}

#[test]
fn a_forbid_does_not_hide_what_is_wrong_with_an_ask() {
    let job = main_job("production");
    let asked = Ask { template: "deploy-prod".to_owned(), ..credential(Some("https://nowhere.example"), None) };
    assert_eq!(reason(bearer(&shop(), &job, &asked)), Reason::Target);
    assert_eq!(shop().asked(&asked).1, Vec::<String>::new(), "the record does not invent an ask");
}

#[test]
fn who_may_run_it_is_told_what_is_wrong() {
    let job = main_job("staging");
    let denied = bearer(&shop(), &job, &credential(Some("https://nowhere.example"), None)).unwrap_err();
    assert_eq!(denied.reason, Reason::Target);
    assert!(denied.hint.unwrap().contains(STAGING_URI));
    let many: Vec<_> = (0..33).map(|_| "deploy:status").collect();
    for actions in [&["db:drop"][..], &[], &["deploy:status", "deploy:status"], &many] {
        assert_eq!(reason(bearer(&shop(), &job, &credential(None, Some(actions)))), Reason::Details);
    }
    let no_time = Ask { ttl_s: Some(0), ..credential(None, None) };
    assert_eq!(reason(bearer(&shop(), &job, &no_time)), Reason::Details);
    let certificate = What::Credential { kind: Kind::X509, resource: None, actions: None };
    assert_eq!(reason(bearer(&shop(), &job, &Ask { what: certificate, ..ask("deploy-staging") })), Reason::Target);
}

#[test]
fn several_targets_and_none_picked() {
    let two = SHOP.replacen(
        "grants    = { shop-staging = [\"deploy:create\", \"deploy:status\"] }",
        "grants = { shop-staging = [\"deploy:status\"], other = [\"x\"] }",
        1,
    );
    let two = format!(
        "{two}\n[target.other]\nuri=\"https://other.example\"\nenvironment=\"staging\"\nowner=\"team-shop\"\n\
        binding=\"mtls\"\nverifies=\"introspect\"\nactions=[\"x\"]\n"
    );
    let policy = policy(&[("shop.toml", &two)]).unwrap();
    let denied = bearer(&policy, &main_job("staging"), &credential(None, None)).unwrap_err();
    assert_eq!(denied.reason, Reason::Target);
    assert!(denied.hint.unwrap().contains("https://other.example, https://deploy.staging"));
    assert!(bearer(&policy, &main_job("staging"), &credential(Some(STAGING_URI), None)).is_ok());
    let mtls = bearer(&policy, &main_job("staging"), &credential(Some("https://other.example"), None));
    assert_eq!(reason(mtls), Reason::Certificate);
}

#[test]
fn a_bearer_token_where_a_key_must_be_bound() {
    let job = main_job("production");
    assert_eq!(reason(bearer(&shop(), &job, &ask("deploy-prod"))), Reason::Dpop);
    let bound = decide(&shop(), &job, &ask("deploy-prod"), BindingKind::Dpop).unwrap();
    assert_eq!(bound.target().unwrap().binding, BindingKind::Dpop);
    let alone = bearer(&shop(), &job, &Ask { what: What::TaskOnly, ..ask("deploy-prod") }).unwrap_err();
    assert_eq!((alone.reason, alone.policies), (Reason::Forbidden, vec!["production-is-bound".to_owned()]));
}

#[test]
fn a_disabled_target() {
    let text = SHOP.replacen("[target.shop-staging]", "[target.shop-staging]\ndisabled = true", 1);
    let policy = policy(&[("shop.toml", &text)]).unwrap();
    assert_eq!(reason(bearer(&policy, &main_job("staging"), &ask("deploy-staging"))), Reason::Target);
}

#[test]
fn t_178_a_forbid_that_errs_denies() {
    // Validation cannot see an overflow.
    let forbid = r#"@id("a") @purpose("b") forbid (principal, action == Dayfly::Action::"run", resource)
        when { context.ttl * 9223372036854775807 > 5 };"#;
    let denied = bearer(&with_cedar(forbid).unwrap(), &main_job("staging"), &ask("deploy-staging")).unwrap_err();
    assert_eq!(denied.reason, Reason::Policy);
    assert!(denied.inside.unwrap().contains("overflow"));
}

#[test]
fn a_claim_of_another_type_than_declared_denies() {
    let mut job = main_job("staging");
    job.claims.insert("run_id".into(), ClaimValue::Long(7));
    assert_eq!(reason(bearer(&shop(), &job, &ask("deploy-staging"))), Reason::Policy);
}

#[test]
fn t_176_claim_values_never_become_policy_text() {
    let evil = "x\" || true };\npermit (principal, action, resource) when { \"\" == \"";
    let mut job = main_job(evil);
    assert_eq!(reason(bearer(&shop(), &job, &ask("deploy-staging"))), Reason::NoMatch);
    job.principal = format!("github/{evil}").into();
    assert_eq!(reason(bearer(&shop(), &job, &ask("deploy-staging"))), Reason::NoMatch);
    let row =
        SHOP.replacen("environment = \"staging\" }\n\n[[test", &format!("environment = '''{evil}''' }}\n\n[[test"), 1);
    let policy = policy(&[("shop.toml", &row)]).unwrap();
    assert!(bearer(&policy, &job, &ask("deploy-staging")).is_ok());
    assert_eq!(reason(bearer(&policy, &main_job("staging"), &ask("deploy-staging"))), Reason::NoMatch);
}

#[test]
fn the_context_of_run() {
    let forbid = r#"@id("a") @purpose("b") forbid (principal, action == Dayfly::Action::"run", resource)
        unless { context.ttl == 60 && context.kind == "jwt" && context.binding == "bearer" && context.age_s == 3 &&
                 context has ticket && context.ticket == "OPS-1" && context.ask == ["shop-staging#deploy:status"] &&
                 resource.owner == "team-shop" };"#;
    let policy = with_cedar(forbid).unwrap();
    let ask = Ask { ttl_s: Some(60), ticket: Some("OPS-1".into()), ..credential(None, Some(&["deploy:status"])) };
    let grant = bearer(&policy, &main_job("staging"), &ask).unwrap();
    assert_eq!((grant.asked_ttl_s(), grant.ticket()), (Some(60), Some("OPS-1")));
    let whole = Ask { what: What::TaskOnly, ..ask };
    assert_eq!(reason(bearer(&policy, &main_job("staging"), &whole)), Reason::Forbidden);
}

#[test]
fn what_is_held_and_the_tags_of_targets() {
    let tagged = SHOP.replacen("verifies    =", "tags = [\"pci\", \"live\"]\nverifies    =", 1).replacen(
        "[target.shop-staging]",
        "[target.shop-staging]\ntags = [\"outside\"]",
        1,
    );
    let decides = |condition: &str, held: &[&str]| {
        let cedar = format!(
            "@id(\"a\") @purpose(\"b\") forbid (principal, action == Dayfly::Action::\"run\", resource) unless {{ {condition} }};"
        );
        let policy = policy(&[("shop.toml", &tagged), ("more.cedar", &cedar)]).unwrap();
        assert_eq!(policy.reads_held("deploy-staging"), condition.contains("held"));
        let held: Vec<_> = held.iter().map(|held| (*held).to_owned()).collect();
        let now = Circumstances { held: &held, ..with(BindingKind::Bearer) };
        matches!(policy.decide(&main_job("staging"), &ask("deploy-staging"), now), Decision::Permit(_))
    };
    let prod = "shop-production#deploy:create";
    assert!(decides("context.held.isEmpty() && context.held_tags.isEmpty()", &[]));
    assert!(decides("context.ask_tags == [\"outside\"]", &[]));
    assert!(decides(&format!("context.held == [\"{prod}\"] && context.held_tags == [\"live\", \"pci\"]"), &[prod]));
    // What a job held may be gone from the bundle: it has no tags any more.
    assert!(decides("context.held_tags.isEmpty() && !context.held.isEmpty()", &["gone#x"]));
    assert!(!decides("!(context.ask_tags.contains(\"outside\") && context.held_tags.contains(\"pci\"))", &[prod]));
}

#[test]
fn t_178_a_forbid_over_an_attribute_that_may_be_missing() {
    // Refused when it is loaded, and when it is asked all the same.
    let condition = "when { principal.github.sha == \"x\" }";
    let forbid = format!(
        "@id(\"a\") @purpose(\"b\") forbid (principal is Dayfly::Workload, action == Dayfly::Action::\"run\", resource) {condition};"
    );
    assert!(with_cedar(&forbid).unwrap_err().contains("github"));
    let mut policy = shop();
    let forbid = cedar_policy::Policy::parse(Some(cedar_policy::PolicyId::new("a")), forbid).unwrap();
    Arc::get_mut(&mut policy.run).unwrap().get_mut("deploy-staging").unwrap().written.add(forbid).unwrap();
    let denied = bearer(&policy, &main_job("staging"), &ask("deploy-staging")).unwrap_err();
    assert_eq!(denied.reason, Reason::Policy);
    assert!(denied.inside.unwrap().contains("sha"));
}

#[test]
fn the_longest_of_the_permits_decides_and_ties_go_by_id() {
    let rows = [
        ("b-long", "15m", ", event_name = \"push\""),
        ("a-long", "15m", ", environment = \"staging\""),
        ("c-short", "5m", ""),
    ]
    .map(|(id, ttl, more)| {
        format!("\n[[task.deploy-staging.allow]]\nid = \"{id}\"\nttl = \"{ttl}\"\nissuer = \"github\"\nclaims = {{ repository_id = \"0088120\"{more} }}\n")
    });
    let elsewhere =
        SHOP.replacen("environment = \"staging\" }\n\n[[test", "environment = \"elsewhere\" }\n\n[[test", 1);
    let policy = policy(&[("shop.toml", &format!("{elsewhere}{}", rows.concat()))]).unwrap();
    let deciding = |ttl_s| bearer(&policy, &main_job("staging"), &Ask { ttl_s, ..ask("deploy-staging") }).unwrap();
    assert_eq!((&**deciding(None).row(), deciding(None).row_ttl().as_s()), ("a-long", 900));
    assert_eq!(&**deciding(Some(300)).row(), "a-long");
    assert_eq!(deciding(Some(100_000)).asked_ttl_s(), Some(100_000));
}

/// A small world of templates, rows and forbids.
fn world() -> impl Strategy<Value = (String, String)> {
    let row = (0..3usize, 0..3usize, any::<bool>());
    let forbid = (0..6usize, 0..3usize);
    (prop::collection::vec(row, 0..6), prop::collection::vec(forbid, 0..5)).prop_map(|(rows, forbids)| {
        let mut toml = SHOP.split("[task.").next().unwrap_or_default().replace("\nactions ", "\nreads = [\"deploy:status\"]\nactions ");
        for template in 0..3 {
            let target = if template == 0 { "shop-production" } else { "shop-staging" };
            toml.push_str(&format!("\n[task.t{template}]\npurpose=\"p\"\nowner=\"team-shop\"\nttl=\"15m\"\nreview_by=2027-01-01\ngrants={{ {target} = [\"deploy:status\"] }}\n"));
        }
        for (index, (template, reference, untrusted)) in rows.into_iter().enumerate() {
            toml.push_str(&format!("\n[[task.t{template}.allow]]\nid=\"r{index}\"\nissuer=\"github\"\nuntrusted={untrusted}\nclaims={{ ref = \"r{reference}\", environment = \"e\", run_id = [\"1\", \"x{index}\"] }}\n"));
        }
        let cedar = forbids.into_iter().enumerate().map(|(index, (scope, reference))| {
            let resource = [
                "resource", "resource == Dayfly::Template::\"t0\"", "resource in Dayfly::Template::\"t1\"",
                "resource in Dayfly::Environment::\"staging\"", "resource is Dayfly::Template",
                "resource is Dayfly::Template in Dayfly::Environment::\"production\"",
            ][scope];
            format!("@id(\"f{index}\") @purpose(\"p\") forbid (principal is Dayfly::Workload, action == Dayfly::Action::\"run\", {resource})\n\
                when {{ principal has github && principal.github has sha && principal.github.sha == \"s{reference}\" }};\n")
        });
        (toml, cedar.collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_slice_never_changes_a_decision((toml, cedar) in world(), template in 0..3, reference in 0..3, sha in 0..3, untrusted: bool) {
        let sliced = policy(&[("shop.toml", &toml), ("more.cedar", &cedar)]).unwrap();
        let mut whole = policy(&[("shop.toml", &toml), ("more.cedar", &cedar)]).unwrap();
        whole.unslice();
        let (environment, run) = ("e".to_owned(), "1".to_owned());
        let claims =
            [("ref", format!("r{reference}")), ("sha", format!("s{sha}")), ("environment", environment), ("run_id", run)];
        let claims = claims.each_ref().map(|(name, value)| (*name, value.as_str()));
        let job = Workload { untrusted, ..workload(&claims) };
        let ask = ask(&format!("t{template}"));
        for proven in [BindingKind::Bearer, BindingKind::Dpop] {
            prop_assert_eq!(decide(&sliced, &job, &ask, proven), decide(&whole, &job, &ask, proven));
        }
    }
}
