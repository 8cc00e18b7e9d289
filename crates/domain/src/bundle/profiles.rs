//! Profiles: how a platform's tokens are read.

use std::collections::BTreeMap;

use super::{
    ClaimRule, Profile, Refusal, Roles, Segment, UrlForm, claim,
    problem::{Found, Place},
    tables::{LintTable, Placed, ProfileTable, Scalar, Tables, Wanted},
    uri,
};
use crate::{ClaimType, Name, Reason, Span};

/// Asymmetric signatures that the verifier can check. Never `none`, never a shared secret.
const ALGS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
/// What Cedar's `Workload` has beside the profile's record.
const TAKEN: [&str; 3] = ["issuer", "profile", "untrusted"];
/// What a profile may refuse evidence with: every other reason says that something else is wrong.
const OF_EVIDENCE: [Reason; 4] = [Reason::Claim, Reason::Stranger, Reason::Event, Reason::Appraisal];
const MAX_AGE: Span = Span::seconds(600);
const MAX_AGE_CAP: Span = Span::seconds(86_400);

pub(super) fn all(tables: &Tables, found: &mut Found) -> BTreeMap<Name, Profile> {
    let one = |(name, placed): (&Name, &Placed<ProfileTable>)| {
        let place = Place::new(&placed.path, format!("profile.{name}"));
        (name.clone(), profile(name, tables.builtin.contains(name), &placed.table, &place, found))
    };
    tables.profiles.iter().map(one).collect()
}

fn profile(name: &Name, builtin: bool, table: &ProfileTable, place: &Place<'_>, found: &mut Found) -> Profile {
    found.require(!TAKEN.contains(&name.as_str()), place, "", "is a name with a meaning of its own");
    let mut claims = claim::rules(&table.claims, &place.below("claims"), found);
    for (key, names) in [("principal", &table.principal), ("job", &table.job), ("pin", &table.pin)] {
        claim::require_declared(names, &claims, place, key, found);
    }
    claim::check_ids(&claims, &place.below("claims"), found);
    for name in &table.principal {
        claims.entry(name.clone()).and_modify(|rule| rule.required = true);
    }
    check_principal(table, place, found);
    found.require(
        !table.shared || !table.pin.is_empty(),
        place,
        "pin",
        "a shared profile says which claims can be pinned",
    );
    if let Some(Err(what)) = table.url.as_deref().map(uri::parse) {
        found.add(place, "url", what);
    }
    check_algs(&table.algs, place, found);
    let max_age = table.max_age.unwrap_or(MAX_AGE);
    found.require(max_age > Span::seconds(0) && max_age <= MAX_AGE_CAP, place, "max_age", "is not between 1s and 1d");
    let at_untrusted = place.below("untrusted");
    let untrusted = table.untrusted.iter().map(|when| claim::matches(when, &claims, &at_untrusted, found)).collect();
    found.require(table.untrusted.iter().all(|when| !when.is_empty()), place, "untrusted", "names no claim");
    // SECURITY: `a_claim_that_says_untrusted_cannot_be_left_out`.
    claim::require_required(table.untrusted.iter().flat_map(BTreeMap::keys), &claims, &at_untrusted, found);
    let refuse = table.refuse.iter().map(|entry| refusal(entry, &claims, &place.below("refuse"), found)).collect();
    let require = table.require.iter().map(|entry| refusal(entry, &claims, &place.below("require"), found)).collect();
    check_same(&table.same, &claims, place, found);
    check_review(&table.review, &claims, &place.below("review"), found);
    let lint = roles(&table.lint, &claims, &place.below("lint"), found);
    let urls = forms(&table.urls, place, "urls", found);
    let own_urls = forms(&table.own_urls, place, "own_urls", found);
    Profile {
        name: name.clone(),
        builtin,
        url: table.url.clone(),
        urls,
        own_urls,
        algs: table.algs.clone(),
        typ: table.typ.clone().unwrap_or_else(|| vec!["JWT".into(), String::new()]),
        shared: table.shared,
        pin: table.pin.clone(),
        max_age,
        float_iat: table.float_iat,
        never_audience: table.never_audience.clone(),
        principal: table.principal.clone(),
        job: table.job.clone(),
        untrusted,
        refuse,
        require,
        same: table.same.clone(),
        lint,
        review: table.review.clone(),
        claims,
    }
}

/// What a review says of a workload is held against claims that the token says it with.
fn check_review(
    review: &BTreeMap<String, String>,
    claims: &BTreeMap<String, ClaimRule>,
    place: &Place<'_>,
    found: &mut Found,
) {
    for (pointer, name) in review {
        found.require(pointer.starts_with('/'), place, pointer, "is not a JSON pointer (RFC 6901)");
        claim::require_declared(std::slice::from_ref(name), claims, place, pointer, found);
    }
    // SECURITY: `a_claim_that_is_reviewed_cannot_be_left_out`.
    claim::require_required(review.values(), claims, place, found);
}

fn forms(texts: &[String], place: &Place<'_>, key: &str, found: &mut Found) -> Vec<UrlForm> {
    let form = |text: &String| match UrlForm::parse(text) {
        Ok(form) => Some(form),
        Err(what) => {
            found.add_with(place, key, format!("`{text}` {what}"), UrlForm::HELP);
            None
        }
    };
    texts.iter().filter_map(form).collect()
}

/// Claims that are compared with each other: two or more, of one type.
fn check_same(same: &[Vec<String>], claims: &BTreeMap<String, ClaimRule>, place: &Place<'_>, found: &mut Found) {
    for names in same {
        claim::require_declared(names, claims, place, "same", found);
        found.require(names.len() > 1, place, "same", "names fewer than two claims");
        let mut rules = names.iter().filter_map(|name| claims.get(name)).map(|rule| (rule.kind, rule.fold));
        let first = rules.next();
        found.require(rules.all(|rule| Some(rule) == first), place, "same", "compares claims of different types");
    }
}

fn roles(table: &LintTable, claims: &BTreeMap<String, ClaimRule>, place: &Place<'_>, found: &mut Found) -> Roles {
    let LintTable { environment, protected, phase, moving } = table.clone();
    let refs: Vec<String> = moving.iter().flat_map(|(name, commit)| [name.clone(), commit.clone()]).collect();
    for (key, names) in [("environment", &environment), ("protected", &protected), ("phase", &phase), ("moving", &refs)]
    {
        claim::require_declared(names, claims, place, key, found);
    }
    let says_so = |name: &String| {
        claims.get(name).is_none_or(|rule| matches!(rule.kind, ClaimType::Bool | ClaimType::StringBool))
    };
    found.require(protected.iter().all(says_so), place, "protected", "is said by claims that are true or false");
    Roles { environment, protected, phase, moving }
}

fn check_principal(table: &ProfileTable, place: &Place<'_>, found: &mut Found) {
    found.require(!table.principal.is_empty(), place, "principal", "names no claim");
    for (key, names) in [("principal", &table.principal), ("job", &table.job)] {
        let kinds = names.iter().filter_map(|name| table.claims.get(name)).map(|claim| claim.kind);
        let text = |kind| matches!(kind, ClaimType::String | ClaimType::Long | ClaimType::StringLong);
        found.require(kinds.into_iter().all(text), place, key, "is made of strings and numbers only");
    }
    // SECURITY: whoever takes a name that became free would be who had it
    // (t_061_a_principal_of_names).
    for (key, names) in [("principal", &table.principal), ("pin", &table.pin)] {
        let is_name = |name: &&String| table.claims.get(*name).is_some_and(|claim| claim.mutable || claim.id.is_some());
        for name in names.iter().filter(is_name) {
            found.add_with(place, key, format!("`{name}` can be taken by someone else"), "name the id behind it");
        }
    }
    // A path has as many segments as it likes: before another claim, two names could be one.
    let before_last = table.principal.split_last().map_or(&[][..], |(_, before)| before);
    let is_path =
        |name: &String| table.claims.get(name).is_some_and(|claim| claim.segment == Some(Segment::SpiffePath));
    found.require(
        !before_last.iter().any(is_path),
        place,
        "principal",
        "has a `spiffe_path` that is not its last claim",
    );
}

pub(super) fn check_algs(algs: &[String], place: &Place<'_>, found: &mut Found) {
    found.require(!algs.is_empty(), place, "algs", "names no algorithm");
    for alg in algs.iter().filter(|alg| !ALGS.contains(&alg.as_str())) {
        found.add_with(
            place,
            "algs",
            format!("`{alg}` is not accepted"),
            format!("accepted are `{}`", ALGS.join("`, `")),
        );
    }
}

/// The claims of a refusal, or of what is required, stand beside its `code`.
fn refusal(
    entry: &BTreeMap<String, Wanted>,
    claims: &BTreeMap<String, ClaimRule>,
    place: &Place<'_>,
    found: &mut Found,
) -> Refusal {
    let mut when = entry.clone();
    let code = match when.remove("code") {
        Some(Wanted::One(Scalar::String(code))) => code,
        _ => String::new(),
    };
    match Reason::from_code(&code) {
        Some(reason) if OF_EVIDENCE.contains(&reason) => {}
        Some(_) => {
            let codes = OF_EVIDENCE.map(Reason::code).join("`, `");
            found.add_with(
                place,
                "code",
                format!("`{code}` says nothing of evidence"),
                format!("it is one of `{codes}`"),
            );
        }
        None => {
            found.add_with(place, "code", format!("`{code}` is not a reason code"), "write a code such as `E-EVENT`");
        }
    }
    found.require(!when.is_empty(), place, "", "names no claim, so it would refuse everything, or nothing");
    Refusal { when: claim::matches(&when, claims, place, found), code }
}
