//! What is well formed and not meant: what loads with a warning (here), and what does not load at
//! all (`refuse`). Every lint is in one table (`rules`).

mod reach;
mod refuse;
#[cfg(test)]
mod refuse_tests;
mod rules;
mod useless;

pub use reach::{Cut, Reach, Why};
pub(super) use refuse::refusals;
pub use refuse::{PRODUCTION, written};
pub use rules::{LINTS, LintRow, Rule};

use super::{
    Bundle, ClaimMatch, GRACE, Issuer, IssuerKind, KeySource, Lint, Profile, Row, Target, Template, tasks::PER_JOB,
};
use crate::{BindingKind, ClaimValue, UnixMs, Verifies};

/// Lints that need no clock.
pub fn lints(bundle: &Bundle) -> Vec<Lint> {
    let mut lints = Vec::new();
    for issuer in bundle.issuers.values() {
        of_issuer(issuer, &mut lints);
        of_verifier(bundle, issuer, &mut lints);
    }
    for target in bundle.targets.values() {
        of_target(target, &mut lints);
        of_introspection(bundle, target, &mut lints);
    }
    for issuer in bundle.issuers.values() {
        let at = format!("issuer.{}.pin", issuer.name);
        lints.extend(wildcards(issuer.pin.iter(), &at));
    }
    for template in bundle.templates.values() {
        of_template(bundle, template, &mut lints);
        template.rows.iter().for_each(|row| of_row(bundle, template, row, &mut lints));
    }
    lints
}

/// Rows past their review date at `now`: they still apply.
pub fn overdue_lints(bundle: &Bundle, now: UnixMs) -> Vec<Lint> {
    let one = |(template, row): (&Template, &Row)| {
        let what = format!("was to be reviewed by {}", row.review_by);
        lint(Rule::Overdue, at_row(template, row), what, Some("review the row and set a new `review_by`"))
    };
    bundle.overdue(now).map(one).collect()
}

/// Rows, verifier rows and pins that still have the ids of the shipped examples, which begin with
/// `0`: no platform issues such an id. A server refuses to start with them. The text of Cedar
/// policies is not looked at: an example id that is left there matches nothing.
pub fn example_ids(bundle: &Bundle) -> Vec<String> {
    let pins = bundle.issuers.values().flat_map(|issuer| {
        let examples = issuer.pin.iter().filter(|(name, value)| is_example(name, value));
        examples.map(|(name, value)| format!("issuer.{}.pin.{name} = `{value}`", issuer.name))
    });
    let rows = bundle.templates.values().flat_map(|template| {
        template.rows.iter().flat_map(move |row| example_claims(&row.claims, at_row(template, row)))
    });
    let verifiers = bundle.targets.values().flat_map(|target| {
        let rows = target.verifiers.iter().enumerate();
        rows.flat_map(|(index, row)| example_claims(&row.claims, at_verifier(target, index)))
    });
    pins.chain(rows).chain(verifiers).collect()
}

fn example_claims(claims: &ClaimMatch, at: String) -> impl Iterator<Item = String> {
    let values = claims.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    let examples = values.filter(|(name, value)| is_example(name, value));
    examples.map(move |(name, value)| format!("{at}.claims.{name} = `{value}`"))
}

fn is_example(name: &str, value: &ClaimValue) -> bool {
    let numeric = |text: &str| text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    match value {
        ClaimValue::String(text) if name.ends_with("_id") => numeric(text),
        ClaimValue::String(text) if name.ends_with("uid") => text.starts_with("00000000-"),
        _ => false,
    }
}

fn of_issuer(issuer: &Issuer, lints: &mut Vec<Lint>) {
    if matches!(
        issuer.keys,
        KeySource::Discovery { ca_pem: None, allow_private: true }
            | KeySource::BundleEndpoint { ca_pem: None, allow_private: true, .. }
    ) {
        let help = "give `ca_file` too, unless a public CA vouches for the internal host";
        lints.push(lint(
            Rule::PrivateKeys,
            format!("issuer.{}.keys", issuer.name),
            "reaches private addresses with public CAs",
            Some(help),
        ));
    }
}

fn of_target(target: &Target, lints: &mut Vec<Lint>) {
    let at = || format!("target.{}", target.name);
    if target.verifies == Verifies::Crl && target.binding != BindingKind::Mtls {
        let what = "nothing is issued for it: on CRLs stand certificates, and its binding takes tokens";
        lints.push(lint(Rule::NoCertificate, at(), what, Some("write `binding = \"mtls\"`, or another `verifies`")));
    }
    if target.verifies == Verifies::List && target.list_life >= target.max_ttl {
        let what = format!(
            "a server that cannot reach the broker may go by a list for {}, as long as a credential lives ({})",
            target.list_life, target.max_ttl
        );
        lints.push(lint(Rule::Unrevocable, at(), what, Some("shorten `list_life`")));
    }
    if target.accept_unrevocable.is_some() && target.max_ttl > super::UNREVOCABLE_MAX_TTL {
        let what = format!("credentials of up to {} cannot be revoked", target.max_ttl);
        lints.push(lint(Rule::Unrevocable, at(), what, Some("verify by introspection, or shorten `max_ttl`")));
    }
}

/// Who proves itself as a verifier and may ask about nothing.
fn of_verifier(bundle: &Bundle, issuer: &Issuer, lints: &mut Vec<Lint>) {
    let named = |target: &Target| target.verifiers.iter().any(|row| row.issuer == issuer.name);
    if issuer.kind == IssuerKind::Verifier && !issuer.disabled && !bundle.targets.values().any(named) {
        let help = format!("add `[[target.NAME.verifier]]` with `issuer = \"{}\"`", issuer.name);
        let what = "may introspect for no target";
        lints.push(lint(Rule::IdleVerifier, format!("issuer.{}", issuer.name), what, Some(&help)));
    }
}

/// A server that is said to ask, and that nobody would answer.
fn of_introspection(bundle: &Bundle, target: &Target, lints: &mut Vec<Lint>) {
    if target.builtin || target.disabled || target.verifies != Verifies::Introspect {
        return;
    }
    let at = || format!("target.{}", target.name);
    let live = |name| bundle.issuers.get(name).is_some_and(|issuer: &Issuer| !issuer.disabled);
    if !target.verifiers.iter().any(|row| live(&row.issuer)) {
        let what = "no verifier may introspect for it, only a token for the broker";
        let help = format!("add `[[target.{}.verifier]]` with an issuer of kind `verifier`", target.name);
        lints.push(lint(Rule::NobodyAnswers, at(), what, Some(&help)));
    }
    for (index, _) in target.verifiers.iter().enumerate().filter(|(_, row)| row.claims.is_empty()) {
        if shared_by_many(bundle, &target.verifiers[index].issuer) {
            let help = "name a claim such as `sub`, unless all that this issuer vouches for may ask";
            lints.push(lint(
                Rule::WholePlatform,
                at_verifier(target, index),
                "is every token of a platform",
                Some(help),
            ));
        }
    }
}

/// A platform that vouches for many, unlike one server's own key.
fn shared_by_many(bundle: &Bundle, issuer: &crate::Name) -> bool {
    let discovered = |issuer: &Issuer| matches!(issuer.keys, KeySource::Discovery { .. });
    bundle.issuers.get(issuer).is_some_and(discovered)
}

fn of_template(bundle: &Bundle, template: &Template, lints: &mut Vec<Lint>) {
    let at = || format!("task.{}", template.name);
    let shorter = |name| bundle.targets.get(name).filter(|target: &&Target| target.longest_ttl() < template.ttl);
    for target in template.grants.keys().filter_map(shorter) {
        let what = format!(
            "`target.{}` takes at most {}, so {} is never granted",
            target.name,
            target.longest_ttl(),
            template.ttl
        );
        lints.push(lint(Rule::NeverGranted, format!("{}.ttl", at()), what, None));
    }
    if template.deadline < template.ttl {
        let what = format!("is shorter than the ttl, so {} is never granted", template.ttl);
        lints.push(lint(Rule::NeverGranted, format!("{}.deadline", at()), what, None));
    }
    if let Some(key) = said_of_a_certificate(template)
        && !gets_certificates(bundle, template)
    {
        let what = "is said of a certificate, and it gets none: it has not one target that takes them";
        lints.push(lint(Rule::NoCertificate, format!("{}.{key}", at()), what, None));
    }
    if template.grace != GRACE && template.grace >= template.deadline {
        let what = format!("reaches to the deadline of {}: a lost hold would never end a task", template.deadline);
        lints.push(lint(Rule::IdleGrace, format!("{}.grace", at()), what, None));
    }
}

fn said_of_a_certificate(template: &Template) -> Option<&'static str> {
    match template.serves.is_empty() {
        false => Some("serves"),
        true => (template.leaf.name != "task").then_some("leaf"),
    }
}

fn gets_certificates(bundle: &Bundle, template: &Template) -> bool {
    let takes = |target: &Target| target.binding == BindingKind::Mtls && target.verifies != Verifies::List;
    template.grants.len() == 1 && template.grants.keys().filter_map(|name| bundle.targets.get(name)).any(takes)
}

fn of_row(bundle: &Bundle, template: &Template, row: &Row, lints: &mut Vec<Lint>) {
    let at = || at_row(template, row);
    let Some(issuer) = bundle.issuers.get(&row.issuer) else { return };
    let Some(profile) = bundle.profiles.get(&issuer.profile) else { return };
    let open = || profile.principal.iter().filter(|name| !issuer.pin.contains_key(*name));
    if open().next().is_some() && !open().any(|name| row.claims.contains_key(name)) {
        let missing = open().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        let what = format!("does not say whose it is: {} of the principal is missing", missing.join(" and "));
        let help = format!("name {}", missing.join(" or "));
        lints.push(lint(Rule::ChangesHands, at(), what, Some(&help)));
    }
    lints.extend(moving_ref(profile, row, at()));
    lints.extend(no_job_label(template, profile, at()));
    let values = || row.claims.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    lints.extend(wildcards(values(), &at()));
    lints.extend(values().filter_map(|(name, value)| without_prefix(issuer, name, value, at())));
    for Cut { claim, value, why } in Reach::of(row, issuer, profile).cut {
        // Where nothing is left the bundle does not load.
        let what = format!("`{claim} = {value}` never matches: {}", why.text(&claim));
        lints.push(lint(Rule::ValueNeverMatches, at(), what, Some("remove the value")));
    }
}

/// Limits of a job, where nothing says which job it is.
fn no_job_label(template: &Template, profile: &Profile, at: String) -> Option<Lint> {
    let key = match template {
        Template { keys_per_job: Some(_), .. } => "keys_per_job",
        Template { per_job, .. } if *per_job != PER_JOB => "per_job",
        _ => return None,
    };
    let what = format!("`{key}` limits nothing here: evidence of profile `{}` names no job", profile.name);
    profile.job.is_empty().then(|| lint(Rule::NoJobLabel, at, what, None))
}

fn wildcards<'a>(values: impl Iterator<Item = (&'a String, &'a ClaimValue)>, at: &str) -> Vec<Lint> {
    let starred = values.filter(|(_, value)| matches!(value, ClaimValue::String(text) if text.contains('*')));
    let one = |(name, value): (&String, &ClaimValue)| {
        let what = format!("`{name} = {value}` is compared letter by letter: there are no wildcards");
        lint(Rule::Wildcard, at.to_owned(), what, Some("write out every value"))
    };
    starred.map(one).collect()
}

fn without_prefix(issuer: &Issuer, name: &str, value: &ClaimValue, at: String) -> Option<Lint> {
    let prefix = issuer.claims.get(name)?.prefix.as_deref()?;
    let ClaimValue::String(text) = value else { return None };
    let what = format!("`{name} = {text}` never matches: every `{name}` begins with `{prefix}`");
    let help = format!("write it as the platform does, such as `{prefix}heads/main`");
    (!text.starts_with(prefix)).then(|| lint(Rule::ValueNeverMatches, at, what, Some(&help)))
}

/// Code named by a branch or a tag: whoever can move that runs what they like.
fn moving_ref(profile: &Profile, row: &Row, at: String) -> Option<Lint> {
    let is_commit = |text: &str| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pinned = |value: &ClaimValue| match value {
        ClaimValue::String(text) => text.rsplit_once('@').is_some_and(|(_, commit)| is_commit(commit)),
        _ => false,
    };
    if profile.lint.protected.iter().any(|name| row.claims.contains_key(name)) {
        return None;
    }
    let moves = |(name, commit): &(&String, &String)| {
        let values = row.claims.get(*name);
        values.is_some_and(|values| !values.iter().all(pinned)) && !row.claims.contains_key(*commit)
    };
    let (name, commit) = profile.lint.moving.iter().find(moves)?;
    let guards: Vec<_> = profile.lint.protected.iter().map(|name| format!(" or `{name} = true`")).collect();
    let help = format!("add `{commit}`{}", guards.concat());
    Some(lint(Rule::MovingRef, at, format!("`{name}` names code by a ref that can be moved"), Some(&help)))
}

fn at_row(template: &Template, row: &Row) -> String {
    format!("task.{}.allow.{}", template.name, row.id)
}

fn at_verifier(target: &Target, index: usize) -> String {
    format!("target.{}.verifier[{index}]", target.name)
}

fn lint(rule: Rule, at: String, what: impl AsRef<str>, help: Option<&str>) -> Lint {
    rule.warns(at, what, help.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        Name,
        bundle::{Fingerprint, Surroundings, check, tables::Tables},
    };

    fn shop(from: &str, to: &str) -> Bundle {
        let text = include_str!("../../../../../policies/shop.toml");
        assert!(text.contains(from));
        let mut tables = Tables::default();
        let github = include_str!("../../../../../policies/profiles/github.toml");
        tables.merge_builtin("builtin/profiles/github.toml", toml::from_str(github).unwrap());
        let oidc = include_str!("../../../../../policies/profiles/oidc.toml");
        tables.merge_builtin("builtin/profiles/oidc.toml", toml::from_str(oidc).unwrap());
        tables.merge("shop.toml", toml::from_str(&text.replace(from, to)).unwrap());
        let given = Surroundings {
            issuer_url: "https://broker.example.org",
            broker_binding: BindingKind::Dpop,
            fingerprint: Fingerprint([0; 32]),
            extra: &BTreeMap::new(),
            cedar: Vec::new(),
        };
        check(&tables, given).unwrap()
    }

    fn said(bundle: &Bundle) -> String {
        lints(bundle).iter().map(|lint| format!("{lint}\n")).collect()
    }

    #[test]
    fn the_shipped_bundle_is_clean_and_an_example() {
        let bundle = shop("shop", "shop");
        assert_eq!(said(&bundle), "");
        assert_eq!(example_ids(&bundle).len(), 3, "{:?}", example_ids(&bundle));
        assert_eq!(example_ids(&shop("\"00", "\"9")), Vec::<String>::new());
    }

    #[test]
    fn an_example_id_in_a_verifier_row_or_a_pin_is_found() {
        let issuer = "[issuer.runner]\nprofile = \"github\"\nkind = \"verifier\"\nowner = \"team-shop\"\n\
            audience = \"asks\"\npin = { repository_owner_id = \"0004412\" }\n";
        let row = "[[target.shop-staging.verifier]]\nissuer = \"runner\"\nclaims = { repository_id = [\"77\", \"0088121\"] }\n";
        let found = example_ids(&shop("[target.shop-staging]", &format!("{issuer}\n[target.shop-staging]")));
        assert!(found.contains(&"issuer.runner.pin.repository_owner_id = `0004412`".to_owned()), "{found:?}");
        let bundle = shop("[task.deploy-prod]", &format!("{issuer}\n{row}\n[task.deploy-prod]"));
        let found = example_ids(&bundle);
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found.contains(&"target.shop-staging.verifier[1].claims.repository_id = `0088121`".to_owned()));
    }

    #[test]
    fn a_value_that_can_never_match_beside_one_that_can() {
        let row = "ref = \"refs/heads/main\", environment = \"production\" }\n\n[task";
        let with = |more: &str| said(&shop(row, &row.replacen("environment", &format!("{more}, environment"), 1)));
        let both = with("event_name = [\"push\", \"pull_request\", \"workflow_run\"]");
        assert!(
            both.contains("`event_name = pull_request` never matches: such evidence speaks for unreviewed"),
            "{both}"
        );
        assert!(both.contains("`event_name = workflow_run` never matches: the profile refuses"), "{both}");
        assert_eq!(both.matches("[value-never-matches]").count(), 2, "{both}");
        let mr = with("ref_type = [\"branch\", \"mr\"]");
        assert!(mr.contains("`ref_type = mr` never matches: the platform sends no such `ref_type`"), "{mr}");
    }

    #[test]
    fn a_wildcard_and_a_ref_without_its_prefix_are_said() {
        let row = "ref = \"refs/heads/main\", environment = \"production\" }\n\n[task";
        let starred = said(&shop(row, &row.replacen("heads/main", "heads/*", 1)));
        assert!(starred.contains("there are no wildcards [wildcard]"), "{starred}");
        let bare = said(&shop(row, &row.replacen("refs/heads/main", "main", 1)));
        assert!(bare.contains("`ref = main` never matches: every `ref` begins with `refs/`"), "{bare}");
    }

    #[test]
    fn a_limit_of_a_job_that_has_no_name_is_said() {
        let limit = |profile: &str| {
            let mut bundle = shop("purpose   = \"release", "keys_per_job = 1\npurpose   = \"release");
            let (github, oidc): (Name, Name) = ("github".parse().unwrap(), profile.parse().unwrap());
            bundle.issuers.get_mut(&github).unwrap().profile = oidc;
            said(&bundle).contains("`keys_per_job` limits nothing here: evidence of profile `oidc` names no job")
        };
        assert!(limit("oidc") && !limit("github"));
    }

    #[test]
    fn a_grace_that_outlasts_its_tasks_is_said() {
        let with =
            |grace: &str| said(&shop("purpose   = \"release", &format!("grace = \"{grace}\"\npurpose   = \"release")));
        assert!(with("1h").contains("a lost hold would never end a task [idle-grace]"), "{}", with("1h"));
        assert_eq!(with("1m"), "");
    }

    #[test]
    fn a_row_of_what_can_change_hands() {
        let row = "repository_id = \"0088120\", ref = \"refs/heads/main\", environment = \"production\"";
        let said = said(&shop(row, "ref = \"refs/heads/main\", environment = \"production\""));
        assert!(said.contains("of the principal is missing [changes-hands]"), "{said}");
    }

    #[test]
    fn t_067_a_workflow_that_is_named_by_a_branch() {
        let row = "environment = \"production\" }\n\n[task";
        let with = |more: &str| said(&shop(row, &format!("{more}, {row}")));
        let path = "acme/ci/.github/workflows/deploy.yml";
        let moved = with(&format!("job_workflow_ref = \"{path}@refs/heads/main\""));
        assert!(moved.contains("`job_workflow_ref` names code by a ref that can be moved [moving-ref]"), "{moved}");
        assert!(moved.contains("add `job_workflow_sha` or `ref_protected = true`"), "{moved}");
        let commit = "0123456789012345678901234567890123456789";
        assert_eq!(with(&format!("job_workflow_ref = \"{path}@{commit}\"")), "");
        for guard in [&format!("job_workflow_sha = \"{commit}\"") as &str, "ref_protected = true"] {
            assert_eq!(with(&format!("job_workflow_ref = \"{path}@refs/tags/v1\", {guard}")), "");
        }
    }

    #[test]
    fn a_server_that_asks_and_nobody_answers() {
        let row = "[[target.shop-staging.verifier]]\nissuer = \"shop-cluster\"\nclaims = { sub = \"system:serviceaccount:shop-staging:deploy\" }\n";
        let without = said(&shop(row, ""));
        assert!(without.starts_with("target.shop-staging: no verifier may introspect for it"), "{without}");
        let disabled = said(&shop("kind     = \"verifier\"", "kind     = \"verifier\"\ndisabled = true"));
        assert_eq!(disabled.matches("no verifier may introspect").count(), 2, "{disabled}");
        assert_eq!(
            said(&shop(
                &format!("verifies    = \"introspect\"\nactions     = [\"deploy:create\", \"deploy:status\"]\n\n{row}"),
                "verifies    = \"exp_only\"\nactions     = [\"deploy:create\", \"deploy:status\"]\n"
            )),
            ""
        );
    }

    #[test]
    fn a_verifier_that_may_ask_about_nothing() {
        let idle = "[issuer.idle]\nprofile = \"oidc\"\nkind = \"verifier\"\nowner = \"team-shop\"\nurl = \"https://idle.example.org\"\n\n[target.shop-staging]";
        let said_of = said(&shop("[target.shop-staging]", idle));
        assert!(said_of.starts_with("issuer.idle: may introspect for no target"), "{said_of}");
    }

    #[test]
    fn a_row_for_all_that_a_platform_vouches_for() {
        let said = said(&shop("claims = { sub = \"system:serviceaccount:shop-staging:deploy\" }\n", ""));
        assert!(said.starts_with("target.shop-staging.verifier[0]: is every token of a platform"), "{said}");
    }

    #[test]
    fn rows_past_their_review_are_named() {
        let bundle = shop("shop", "shop");
        let at = |text| UnixMs::parse(text).unwrap();
        let overdue = |text| overdue_lints(&bundle, at(text)).len();
        assert_eq!(overdue("2027-06-30T23:59:59Z"), 0);
        assert_eq!(overdue("2027-07-01T00:00:00Z"), 2);
    }
}
