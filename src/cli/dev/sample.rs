//! Claims that a loaded bundle lets through, made up from the bundle itself: the row's claims, the
//! issuer's pin, what the profile requires, and what the job label is made of. They are tried
//! before they are told.

use std::collections::BTreeSet;

use dayfly_domain::{
    BindingKind, ClaimType, ClaimValue, Kind, Name,
    bundle::{Bundle, ClaimRule, Issuer, Profile, Row, Template},
};
use serde_json::{Map, Value};

use crate::{
    intake,
    policy::{Ask, Circumstances, Decision, Policy, What},
};

/// A template and claims that may run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub task: Name,
    /// By the token's own names, without `iss`, `aud`, `iat`, `nbf`, `exp` and `jti`.
    pub claims: Map<String, Value>,
}

/// What `dev token` fills in itself.
pub const FILLED: [&str; 6] = ["iss", "aud", "iat", "nbf", "exp", "jti"];

/// The shortest credential worth playing with.
const TTL_MIN_S: u32 = 600;

/// What a row best names, so that the template can be asked for from several sides.
const TELLING: [&str; 3] = ["repository_id", "ref", "environment"];

/// Plausible values, where a value must be made up and its name is a usual one.
const USUAL: [(&str, &str); 6] = [
    ("event_name", "push"),
    ("ref", "refs/heads/main"),
    ("run_attempt", "1"),
    ("run_number", "1"),
    ("ref_type", "branch"),
    ("runner_environment", "github-hosted"),
];

/// The first template by name that fits, best one whose row names repository, ref and environment.
pub fn of(policy: &Policy, issuer: &Name) -> Option<Sample> {
    let bundle = policy.bundle();
    let issuer = bundle.issuers.get(issuer)?;
    let profile = bundle.profiles.get(&issuer.profile)?;
    let rows = || {
        let templates = bundle.templates.values().filter(|template| fits(bundle, template));
        templates.flat_map(|template| template.rows.iter().map(move |row| (template, row)))
    };
    let telling = |row: &Row| TELLING.iter().all(|name| row.claims.contains_key(*name));
    let best = rows().filter(|(_, row)| telling(row));
    let others = rows().filter(|(_, row)| !telling(row));
    best.chain(others).find_map(|(template, row)| try_row(policy, issuer, profile, template, row))
}

/// One target, which takes bearer tokens for long enough.
fn fits(bundle: &Bundle, template: &Template) -> bool {
    let mut targets = template.grants.keys().filter_map(|name| bundle.targets.get(name));
    let (Some(target), None) = (targets.next(), targets.next()) else { return false };
    let longest_s = template.ttl.min(template.deadline).min(target.longest_ttl()).as_s();
    let usable = !template.disabled && !target.disabled && !target.builtin;
    usable && target.binding == BindingKind::Bearer && longest_s >= TTL_MIN_S
}

fn try_row(policy: &Policy, issuer: &Issuer, profile: &Profile, template: &Template, row: &Row) -> Option<Sample> {
    if row.issuer != issuer.name || row.disabled || row.ttl.as_s() < TTL_MIN_S {
        return None;
    }
    let claims = claims(issuer, profile, row)?;
    let workload = intake::read(issuer, profile, &claims).ok()?;
    let what = What::Credential { kind: Kind::Jwt, resource: None, actions: None };
    let ask = Ask { template: template.name.to_string(), what, ttl_s: None, ticket: None };
    let circumstances = Circumstances { proven: BindingKind::Bearer, evidence_age_s: 0, held: &[] };
    match policy.decide(&workload, &ask, circumstances) {
        Decision::Permit(grant) if grant.row_ttl().as_s() >= TTL_MIN_S => {
            Some(Sample { task: template.name.clone(), claims })
        }
        _ => None,
    }
}

/// `None` where a value cannot be placed.
fn claims(issuer: &Issuer, profile: &Profile, row: &Row) -> Option<Map<String, Value>> {
    let required = issuer.claims.iter().filter(|(_, rule)| rule.required).map(|(name, _)| name);
    let named = row.claims.keys().chain(issuer.pin.keys()).chain(required);
    let names: BTreeSet<&String> = named.chain(&profile.principal).chain(&profile.job).collect();
    let mut payload = Value::Object(Map::new());
    for (index, name) in names.into_iter().enumerate() {
        let rule = issuer.claims.get(name)?;
        let wanted = wanted(name, issuer, profile, row);
        let made_up = || made_up(name, rule.kind, index, profile);
        put(&mut payload, rule, wanted.map_or_else(made_up, |value| raw(value, rule.kind)))?;
    }
    match payload {
        Value::Object(payload) => Some(payload),
        _ => None,
    }
}

/// What pin, row or profile want of a claim, or of one that must equal it.
fn wanted<'a>(name: &String, issuer: &'a Issuer, profile: &'a Profile, row: &'a Row) -> Option<&'a ClaimValue> {
    let required = |name: &String| profile.require.iter().find_map(|required| required.when.get(name)?.first());
    let one = |name: &String| issuer.pin.get(name).or_else(|| row.claims.get(name)?.first()).or_else(|| required(name));
    let equal = || profile.same.iter().filter(|names| names.contains(name)).flatten().find_map(one);
    one(name).or_else(equal)
}

/// As the platform would write it.
fn raw(value: &ClaimValue, kind: ClaimType) -> Value {
    match (value, kind) {
        (value, ClaimType::StringBool | ClaimType::StringLong) => value.to_string().into(),
        (ClaimValue::Bool(value), _) => (*value).into(),
        (ClaimValue::Long(value), _) => (*value).into(),
        (ClaimValue::String(value), ClaimType::Set) => vec![value.as_str()].into(),
        (ClaimValue::String(value), _) => value.as_str().into(),
        (ClaimValue::Set(values), _) => values.clone().into(),
    }
}

/// Ids begin with 0, which no platform issues. A boolean is one that the profile does not refuse.
fn made_up(name: &str, kind: ClaimType, index: usize, profile: &Profile) -> Value {
    let refused = |value| profile.refuse.iter().any(|no| no.when.get(name).is_some_and(|bad| bad.contains(&value)));
    let flag = !refused(ClaimValue::Bool(true));
    let usual = USUAL.iter().find(|(usual, _)| *usual == name).map(|(_, value)| (*value).to_owned());
    let id = || if name.ends_with("_id") { format!("000{}", 9_001 + index) } else { format!("dev-{name}") };
    match kind {
        ClaimType::String => usual.unwrap_or_else(id).into(),
        ClaimType::Long => 1.into(),
        ClaimType::Bool => flag.into(),
        ClaimType::Set => vec![format!("dev-{name}")].into(),
        ClaimType::StringBool => flag.to_string().into(),
        ClaimType::StringLong => "1".into(),
    }
}

/// Puts a value where the profile looks for it (RFC 6901); `None` where `dev token` fills in its
/// own, or where another claim stands in the way.
fn put(payload: &mut Value, rule: &ClaimRule, value: Value) -> Option<()> {
    let parts: Vec<String> =
        rule.at.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    let (last, above) = parts.split_last()?;
    if FILLED.contains(&parts[0].as_str()) {
        return None;
    }
    let mut place = payload.as_object_mut()?;
    for part in above {
        place = place.entry(part.as_str()).or_insert_with(|| Value::Object(Map::new())).as_object_mut()?;
    }
    place.insert(last.clone(), value);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{BundleEnv, parse};
    use crate::sys::files::SourceFile;
    use serde_json::json;

    const SHOP: &str = include_str!("../../../policies/shop.toml");

    fn sample(toml: &str, issuer: &str) -> Option<Sample> {
        let env = BundleEnv { issuer_url: "https://127.0.0.1:1".to_owned(), broker_binding: BindingKind::Bearer };
        let files = [SourceFile { path: "a.toml".to_owned(), bytes: toml.as_bytes().to_vec() }];
        let (bundle, _) =
            parse(&files, &env, &mut |_| Ok(Vec::new())).map_err(|problems| problems[0].to_string()).unwrap();
        of(&Policy::compile(bundle).unwrap(), &issuer.parse().unwrap())
    }

    #[test]
    fn the_shipped_bundle_has_one() {
        let sample = sample(SHOP, "github").unwrap();
        assert_eq!(sample.task, "deploy-staging");
        insta::assert_snapshot!(Value::Object(sample.claims), @r#"{"check_run_id":"0009001","environment":"staging","event_name":"push","ref":"refs/heads/main","repository_id":"0088120","repository_owner_id":"0004411","run_attempt":"1","run_id":"0009008"}"#);
    }

    #[test]
    fn a_short_or_bound_template_is_passed_over() {
        for (from, to) in [
            ("ttl       = \"15m\"\ndeadline", "ttl       = \"9m\"\ndeadline"),
            ("binding     = \"bearer\"", "binding     = \"dpop\""),
            ("id     = \"shop-staging-main\"", "disabled = true\nid     = \"shop-staging-main\""),
        ] {
            assert!(SHOP.contains(from));
            assert_eq!(sample(&SHOP.split("[[test]]").next().unwrap().replace(from, to), "github"), None, "{to}");
        }
    }

    const NESTED: &str = r#"
        format = 1
        trust_domain = "example.org"
        [owner.o]
        [profile.ci]
        algs = ["ES256"]
        principal = ["project"]
        [profile.ci.claims]
        project = { at = "/ctx/a~1b/project", type = "string_long", required = true }
        safe    = { at = "/ctx/safe", type = "string_bool", required = true }
        groups  = { at = "/groups", type = "set" }
        [issuer.ci]
        profile = "ci"
        owner = "o"
        url = "https://ci.example"
        [target.t]
        uri = "https://t.example"
        environment = "e"
        owner = "o"
        binding = "bearer"
        verifies = "introspect"
        actions = ["a"]
        [task.build]
        purpose = "p"
        owner = "o"
        grants = { t = ["a"] }
        ttl = "10m"
        review_by = 2099-01-01
        [[task.build.allow]]
        id = "r"
        issuer = "ci"
        claims = { project = [7, 8], groups = ["x"] }
    "#;

    #[test]
    fn pointers_and_the_platforms_own_types_are_honoured() {
        let sample = sample(NESTED, "ci").unwrap();
        let wanted = json!({"ctx": {"a/b": {"project": "7"}, "safe": "true"}, "groups": ["x"]});
        assert_eq!(Value::Object(sample.claims), wanted);
    }

    /// What a platform's profile requires, compares or refuses is met by what is made up.
    #[test]
    fn every_kind_of_platform_has_one() {
        for (issuer, claims) in [
            ("profile = \"gitlab\"\npin = { namespace_id = \"72\" }", "project_id = \"20\""),
            ("profile = \"circleci\"\npin = { org_id = \"o\" }", "project_id = \"p\""),
            (
                "profile = \"terraform\"\npin = { organization_id = \"o\" }",
                "workspace_id = \"w\", run_phase = \"apply\"",
            ),
            ("profile = \"kubernetes\"\nurl = \"https://cluster.example.org\"", "service_account_uid = \"u\""),
            (
                "profile = \"aws\"\nurl = \"https://a.tokens.sts.global.api.aws\"",
                "aws_account = \"012345678901\", sub = \"arn:aws:iam::012345678901:role/x\"",
            ),
        ] {
            let toml = format!(
                "format = 1\ntrust_domain = \"example.org\"\n[owner.o]\n[issuer.ci]\nowner = \"o\"\n{issuer}\n\
                 [target.t]\nuri = \"https://t.example.org\"\nenvironment = \"e\"\nowner = \"o\"\nbinding = \"bearer\"\n\
                 verifies = \"exp_only\"\nactions = [\"a\"]\n[task.x]\npurpose = \"p\"\nowner = \"o\"\n\
                 grants = {{ t = [\"a\"] }}\nttl = \"15m\"\nreview_by = 2027-06-30\n\
                 [[task.x.allow]]\nid = \"r\"\nissuer = \"ci\"\nclaims = {{ {claims} }}\n"
            );
            assert!(sample(&toml, "ci").is_some(), "{issuer}");
        }
    }

    #[test]
    fn what_dev_token_fills_in_is_not_ours_to_place() {
        assert_eq!(sample(&NESTED.replace("/ctx/safe", "/aud/safe"), "ci"), None);
    }
}
