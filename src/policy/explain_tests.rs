use dayfly_domain::{BindingKind, ClaimValue, Kind};
use proptest::prelude::*;

use super::*;
use crate::policy::{
    What,
    fixture::{PRODUCTION, SHOP, ask, main_job, policy, with, with_cedar, workload},
    nearest::{RowObstacle, Seen},
};

fn shop() -> Policy {
    policy(&[("shop.toml", SHOP), ("production.cedar", PRODUCTION)]).unwrap()
}

fn explain(policy: &Policy, workload: &Workload, template: &str) -> Explanation {
    policy.explain(workload, &ask(template), with(BindingKind::Dpop))
}

fn with_claim(mut workload: Workload, name: &str, value: &str) -> Workload {
    workload.claims.insert(name.to_owned(), ClaimValue::String(value.to_owned()));
    workload
}

#[test]
fn a_refusal_says_what_was_seen_and_what_was_wanted() {
    let mut job = with_claim(main_job("production"), "ref", "refs/heads/fix-cart");
    job.claims.remove("environment");
    let told = explain(&shop(), &job, "deploy-prod");
    assert_eq!(told.outcome, Outcome::Deny(Reason::NoMatch));
    let [row] = told.rows.as_slice() else { panic!("{told:?}") };
    assert_eq!((row.id.as_str(), row.differences), ("shop-main", 2));
    let seen: Vec<_> = row.claims.iter().map(|claim| (claim.claim.as_str(), &claim.seen, claim.ok)).collect();
    let value = |text: &str| Seen::Value(text.to_owned());
    assert_eq!(
        seen,
        [
            ("environment", &Seen::Missing, false),
            ("ref", &value("refs/heads/fix-cart"), false),
            ("repository_id", &value("0088120"), true)
        ]
    );
    assert_eq!(told.would_permit, ["row `shop-main` with `environment` `production`, and `ref` `refs/heads/main`"]);
    assert!(told.obstacles.is_empty() && told.forbids.is_empty());
}

#[test]
fn a_permit_names_its_row_and_every_claim_that_mattered() {
    let told = explain(&shop(), &main_job("production"), "deploy-prod");
    let Outcome::Permit(permitted) = &told.outcome else { panic!("{told:?}") };
    assert_eq!((&*permitted.by, permitted.opaque, permitted.ttl_max_s), ("shop-main", false, 900));
    assert_eq!(permitted.actions, ["deploy:create", "deploy:status"]);
    assert!(told.rows[0].claims.len() == 3 && told.rows[0].claims.iter().all(|claim| claim.ok));
}

#[test]
fn the_forbid_that_spoke_is_named_with_its_purpose() {
    let alone = Ask { what: What::TaskOnly, ..ask("deploy-prod") };
    let told = shop().explain(&main_job("production"), &alone, with(BindingKind::Bearer));
    assert_eq!(told.outcome, Outcome::Deny(Reason::Forbidden));
    let forbid = ByHand { id: "production-is-bound".into(), purpose: "no bearer tokens in production".into() };
    assert_eq!(told.forbids, [forbid]);
    assert_eq!(told.rows[0].differences, 0);
    assert_eq!(told.would_permit, ["`production-is-bound` no longer applying: no bearer tokens in production"]);
}

#[test]
fn other_obstacles_are_named() {
    let of = |text: &str, workload: &Workload, ask: &Ask, proven| {
        let told = policy(&[("shop.toml", text)]).unwrap().explain(workload, ask, with(proven));
        assert!(matches!(told.outcome, Outcome::Deny(_)), "{told:?}");
        let of_row = told.rows.iter().flat_map(|row| &row.obstacles).map(RowObstacle::fact);
        told.obstacles.iter().cloned().chain(of_row).collect::<Vec<_>>().join("; ")
    };
    let (job, plain) = (main_job("staging"), ask("deploy-staging"));
    let on = |resource: &str, actions: Option<&[&str]>| {
        let actions = actions.map(|actions| actions.iter().map(ToString::to_string).collect());
        Ask { what: What::Credential { kind: Kind::Jwt, resource: Some(resource.into()), actions }, ..plain.clone() }
    };
    let staging = crate::policy::fixture::STAGING_URI;
    let disabled = |line: &str| SHOP.replacen(line, &format!("{line}\ndisabled = true"), 1);
    let bearer = BindingKind::Bearer;
    let fork = Workload { untrusted: true, ..job.clone() };
    for (found, what) in [
        (of(SHOP, &fork, &plain, bearer), "unreviewed code"),
        (of(SHOP, &job, &ask("deploy-nowhere"), bearer), "no template `deploy-nowhere`"),
        (of(SHOP, &job, &on("https://nowhere.example", None), bearer), "the targets of this template are"),
        (of(SHOP, &job, &on(staging, Some(&["db:drop"])), bearer), "out of deploy:create, deploy:status"),
        (of(SHOP, &main_job("production"), &ask("deploy-prod"), bearer), "bound (`dpop`), and `bearer` was proven"),
        (of(SHOP, &job, &Ask { ttl_s: Some(0), ..plain.clone() }, bearer), "ttl is at least 1"),
        (of(SHOP, &job, &Ask { ticket: Some("x".repeat(300)), ..plain.clone() }, bearer), "ticket"),
        (of(&disabled("[task.deploy-staging]"), &job, &plain, bearer), "template `deploy-staging`, or its owner"),
        (of(&disabled("id     = \"shop-staging-main\""), &job, &plain, bearer), "the row, or its owner, is disabled"),
        (of(&disabled("[owner.team-shop]"), &job, &plain, bearer), "disabled"),
        (of(&disabled("[issuer.github]"), &job, &plain, bearer), "the issuer `github`"),
        (of(SHOP, &Workload { issuer: "gitlab".parse().unwrap(), ..job.clone() }, &plain, bearer), "`gitlab`"),
        (of(&disabled("[target.shop-staging]"), &job, &plain, bearer), "this target is disabled"),
    ] {
        assert!(found.contains(what), "`{what}` is not in `{found}`");
    }
}

#[test]
fn a_row_past_its_review_is_told_as_that() {
    let policy = shop();
    policy.lapse(dayfly_domain::UnixMs::parse("2031-01-01T00:00:00Z").unwrap(), dayfly_domain::Span::seconds(0));
    let told = explain(&policy, &main_job("staging"), "deploy-staging");
    assert_eq!((&told.outcome, told.forbids.len()), (&Outcome::Deny(Reason::NoMatch), 0));
    let overdue = RowObstacle::Overdue("2027-06-30".to_owned());
    assert_eq!((told.rows[0].obstacles.as_slice(), told.rows[0].differences), (&[overdue][..], 1));
    assert_eq!(told.would_permit, ["row `shop-staging-main` with a review, and a new `review_by`"]);
}

#[test]
fn a_row_that_is_blocked_comes_before_one_that_does_not_fit() {
    let more = "\n[[task.deploy-staging.allow]]\nid = \"a-near\"\nissuer = \"github\"\nreview_by = 2040-01-01\n\
        claims = { repository_id = \"0088120\", ref = \"refs/heads/other\", environment = \"staging\" }\n";
    let policy = policy(&[("shop.toml", &format!("{SHOP}{more}"))]).unwrap();
    policy.lapse(dayfly_domain::UnixMs::parse("2031-01-01T00:00:00Z").unwrap(), dayfly_domain::Span::seconds(0));
    let fork = Workload { untrusted: true, ..main_job("staging") };
    for (job, differences) in [(main_job("staging"), 1), (fork, 2)] {
        let told = explain(&policy, &job, "deploy-staging");
        assert_eq!((told.rows[0].id.as_str(), told.rows[0].differences), ("shop-staging-main", differences));
        assert!(told.would_permit[0].starts_with("row `shop-staging-main` with "), "{told:?}");
    }
}

#[test]
fn a_claim_of_another_type_than_declared_is_named() {
    let mut job = main_job("staging");
    job.claims.insert("ref".into(), ClaimValue::Long(7));
    let told = explain(&shop(), &job, "deploy-staging");
    assert_eq!(told.outcome, Outcome::Deny(Reason::Policy));
    assert!(told.obstacles[0].contains("`ref` is of another type"), "{told:?}");
    let claim = told.rows[0].claims.iter().find(|claim| claim.claim == "ref").unwrap();
    assert_eq!((&claim.seen, claim.ok), (&Seen::OtherType, false));
}

#[test]
fn a_permit_by_hand_is_opaque() {
    let by_hand = r#"@id("tags") @purpose("tags may try")
        permit (principal is Dayfly::Workload, action == Dayfly::Action::"run", resource == Dayfly::Template::"deploy-staging")
        when { !principal.untrusted && principal has github && principal.github has ref && principal.github.ref like "refs/tags/*" };"#;
    let policy = with_cedar(by_hand).unwrap();
    let tags = ByHand { id: "tags".into(), purpose: "tags may try".into() };
    let told = explain(&policy, &main_job("nowhere"), "deploy-staging");
    assert_eq!((told.opaque.as_slice(), told.outcome), (&[tags][..], Outcome::Deny(Reason::NoMatch)));
    let told = explain(&policy, &with_claim(main_job("nowhere"), "ref", "refs/tags/v1"), "deploy-staging");
    let Outcome::Permit(Permitted { by, opaque: true, .. }) = &told.outcome else { panic!("{told:?}") };
    assert_eq!((&**by, told.rows.len()), ("tags", 0));
    assert!(explain(&policy, &main_job("nowhere"), "deploy-prod").opaque.is_empty());
}

#[test]
fn a_secret_in_a_claim_is_never_explained() {
    let job = with_claim(main_job("eyJhbGciOiJub25lIn0.e30."), "ref", "see dtc_SECRET");
    let told = format!("{:?}", explain(&shop(), &job, "deploy-prod"));
    assert!(!told.contains("SECRET") && !told.contains("eyJ"), "{told}");
    assert!(told.contains("(withheld)"));
}

fn many_rows() -> String {
    let row = |index: usize, claims: &str| {
        format!("\n[[task.deploy-staging.allow]]\nid = \"r-{index}\"\nissuer = \"github\"\nclaims = {{ {claims} }}\n")
    };
    let far = r#"repository_id = "1", ref = "x", environment = "y", sha = "z""#;
    let wide: Vec<_> = (0..20).map(|number| format!("\"{number}\"")).collect();
    let rows = [
        far.to_owned(),
        format!("ref = [{}]", wide.join(", ")),
        far.replace("\"z\"", "\"q\""),
        r#"sha = "a""#.to_owned(),
    ];
    let rows: String = rows.iter().enumerate().map(|(index, claims)| row(index, claims)).collect();
    format!("{SHOP}{rows}")
}

#[test]
fn the_nearest_rows_come_first_and_are_few() {
    let policy = policy(&[("shop.toml", &many_rows())]).unwrap();
    let told = explain(&policy, &main_job("nowhere"), "deploy-staging");
    let ids: Vec<_> = told.rows.iter().map(|row| (row.id.as_str(), row.differences)).collect();
    assert_eq!(ids, [("r-1", 1), ("r-3", 1), ("shop-staging-main", 1)]);
    assert_eq!(told.rows_omitted, 2);
    let wanted = &told.rows[0].claims[0].wanted;
    assert_eq!((wanted.len(), wanted.last().unwrap().as_str()), (WANTED_MAX + 1, "(and 12 more)"));
}

fn told_to_callers(text: &str) -> Policy {
    let text = text.replacen("[task.deploy-prod]", "[task.deploy-prod]\nexplain = \"caller\"", 1);
    policy(&[("shop.toml", &text)]).unwrap()
}

#[test]
fn a_comparison_needs_the_owners_leave() {
    let job = main_job("nowhere");
    let told = told_to_callers(SHOP).comparison(&job, "deploy-prod").unwrap();
    assert_eq!((told.row.as_str(), told.claims.len()), ("shop-main", 3));
    assert_eq!(shop().comparison(&job, "deploy-prod"), None);
    let word = SHOP.replacen("[task.deploy-prod]", "[task.deploy-prod]\nexplain = \"operator\"", 1);
    assert_eq!(policy(&[("shop.toml", &word)]).unwrap().comparison(&job, "deploy-prod"), None);
}

/// T-118: what is not the caller's looks as if it were not there.
#[test]
fn t_118_a_comparison_tells_of_no_other_template() {
    let policy = told_to_callers(SHOP);
    let job = main_job("nowhere");
    assert_eq!(policy.comparison(&job, "deploy-staging"), policy.comparison(&job, "no-such-template"));
    let other = Workload { issuer: "gitlab".parse().unwrap(), ..job.clone() };
    assert_eq!(policy.comparison(&other, "deploy-prod"), None, "rows of another issuer are not its own");
    for line in ["[task.deploy-prod]", "id     = \"shop-main\"", "[issuer.github]"] {
        let text = SHOP.replacen(line, &format!("{line}\ndisabled = true"), 1);
        assert_eq!(told_to_callers(&text).comparison(&job, "deploy-prod"), None, "{line}");
    }
}

/// Rows over small claims, so that many nearly match; some disabled, some for unreviewed code.
fn world() -> impl Strategy<Value = (String, String)> {
    let row = (0..2usize, 0..3usize, 0..4usize, any::<bool>(), 0..6usize);
    let forbid = (0..4usize, 0..3usize);
    (prop::collection::vec(row, 0..7), prop::collection::vec(forbid, 0..3)).prop_map(|(rows, forbids)| {
        let head = SHOP.split("[task.").next().unwrap_or_default();
        let mut toml = head.replace("\"production\"", "\"live\"").replace("\nactions ", "\nreads = [\"deploy:status\"]\nactions ");
        for (template, target) in ["shop-production", "shop-staging"].iter().enumerate() {
            toml.push_str(&format!("\n[task.t{template}]\npurpose=\"p\"\nowner=\"team-shop\"\nttl=\"15m\"\nreview_by=2027-01-01\ngrants={{ {target} = [\"deploy:status\"] }}\n"));
        }
        for (index, (template, reference, sha, untrusted, disabled)) in rows.into_iter().enumerate() {
            let sha = if sha == 3 { String::new() } else { format!(", sha = [\"s{sha}\", \"s9\"]") };
            let disabled = disabled == 0;
            toml.push_str(&format!("\n[[task.t{template}.allow]]\nid=\"r{index}\"\nissuer=\"github\"\nuntrusted={untrusted}\ndisabled={disabled}\nclaims={{ ref = \"r{reference}\"{sha}, run_id = [\"1\", \"x{index}\"] }}\n"));
        }
        let cedar = forbids.into_iter().enumerate().map(|(index, (scope, reference))| {
            let resource = ["resource", "resource == Dayfly::Template::\"t0\"", "resource in Dayfly::Environment::\"staging\"", "resource is Dayfly::Template"][scope];
            format!("@id(\"f{index}\") @purpose(\"p\") forbid (principal is Dayfly::Workload, action == Dayfly::Action::\"run\", {resource})\n\
                when {{ principal has github && principal.github has sha && principal.github.sha == \"s{reference}\" }};\n")
        });
        (toml, cedar.collect())
    })
}

fn asks() -> impl Strategy<Value = Ask> {
    let resource =
        prop::sample::select(vec![None, Some(crate::policy::fixture::STAGING_URI), Some("https://nowhere.example")]);
    let actions = prop::sample::select(vec![None, Some("deploy:status"), Some("db:drop")]);
    (0..3usize, resource, actions, prop::option::of(0..2u32), any::<bool>()).prop_map(
        |(template, resource, action, ttl_s, alone)| {
            let actions = action.map(|action| vec![action.to_owned()]);
            let credential = What::Credential { kind: Kind::Jwt, resource: resource.map(str::to_owned), actions };
            let what = if alone { What::TaskOnly } else { credential };
            Ask { template: format!("t{template}"), what, ttl_s, ticket: None }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn an_explanation_agrees_with_the_decision(
        (toml, cedar) in world(), ask in asks(), reference in 0..3, sha in prop::option::of(0..3), untrusted: bool, dpop: bool,
    ) {
        let policy = policy(&[("shop.toml", &toml), ("more.cedar", &cedar)]).unwrap();
        let (reference, sha) = (format!("r{reference}"), sha.map(|sha| format!("s{sha}")));
        let run = "1".to_owned();
        let claims: Vec<_> = [("ref", Some(&reference)), ("sha", sha.as_ref()), ("run_id", Some(&run))].into_iter()
            .filter_map(|(name, value)| Some((name, value?.as_str()))).collect();
        let job = Workload { untrusted, ..workload(&claims) };
        let at = with(if dpop { BindingKind::Dpop } else { BindingKind::Bearer });
        let told = policy.explain(&job, &ask, at);
        let nearest = told.rows.first().map(|row| row.differences);
        let named = !told.forbids.is_empty() || !told.obstacles.is_empty();
        for row in &told.rows {
            let differing = row.claims.iter().filter(|claim| !claim.ok).count() + row.obstacles.len();
            prop_assert_eq!((row.differences, row.wish().is_none()), (differing, differing == 0));
        }
        match policy.decide(&job, &ask, at) {
            Decision::Permit(grant) => {
                let Outcome::Permit(permitted) = &told.outcome else { panic!("{told:?}") };
                prop_assert_eq!((&permitted.by, nearest, named), (grant.row(), Some(0), false));
                prop_assert_eq!(told.rows[0].id.as_str(), &**grant.row());
            }
            Decision::Deny(denied) => {
                prop_assert_eq!(&told.outcome, &Outcome::Deny(denied.reason));
                // Where no row differs, something else is named; where nothing else is, every row differs.
                prop_assert!(nearest != Some(0) || named, "{:?}", told);
                prop_assert!(named || !told.would_permit.is_empty() || told.rows.is_empty(), "{:?}", told);
                prop_assert_eq!(denied.reason == Reason::Forbidden, !told.forbids.is_empty());
                // Cedar's word, where it was asked for a permit alone.
                if denied.reason == Reason::NoMatch && policy.bundle().templates.contains_key(ask.template.as_str()) {
                    prop_assert!(nearest != Some(0), "{:?}", told);
                }
            }
        }
    }
}
