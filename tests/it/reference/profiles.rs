//! The built-in profiles: what each platform's tokens are taken for.

use std::fmt::Write;

use dayfly_domain::bundle::{ClaimMatch, ClaimRule, Profile, Refusal, Segment};

use super::page::{code, codes, table};
use crate::{profiles::load, world::BUNDLE};

pub fn section() -> String {
    let mut text = "## Profiles\n\nBuilt in: `profile = \"NAME\"` in an issuer's table. Who it is, is \
        `<issuer>/` and the principal's claims; a job whose label lacks a claim has none. `untrusted` evidence needs a row \
        with `untrusted = true`; what is refused is refused whatever the rows say. Where several tenants of \
        one platform are ours, each has an issuer table with its pin and an `audience` of its own. How to add one: \
        [add-a-provider](how-to/add-a-provider.md).\n"
        .to_owned();
    let bundle = load(BUNDLE).expect("the bundle of the tests loads");
    for profile in bundle.profiles.values().filter(|profile| profile.builtin) {
        let _ = write!(text, "\n### {}\n\n{}\n{}", profile.name, rules(profile), claims(profile));
    }
    text
}

fn rules(profile: &Profile) -> String {
    let shared = if profile.shared { format!("one of {}", names(&profile.pin)) } else { "not needed".to_owned() };
    let own: Vec<String> = profile.own_urls.iter().map(|form| code(&form.to_string())).collect();
    let common = profile.url.iter().cloned().chain(profile.urls.iter().map(ToString::to_string));
    let common: Vec<String> = common.map(|url| code(&url)).collect();
    let is_id = |rule: &ClaimRule| rule.segment == Some(Segment::SpiffePath);
    let anywhere = match own.is_empty() && common.is_empty() {
        true if profile.claims.values().any(is_id) => "`spiffe://` and the trust domain, nothing after it".to_owned(),
        true => "any `https` URL".to_owned(),
        false => common.join(", "),
    };
    let rows = [
        ("issuer", anywhere),
        ("issuer of one's own, no pin needed", own.join(", ")),
        ("never the audience", names(&profile.never_audience)),
        ("pin", shared),
        ("algorithms", codes(&profile.algs.iter().map(String::as_str).collect::<Vec<_>>())),
        ("longest age", profile.max_age.to_string()),
        ("principal", names(&profile.principal)),
        ("job", names(&profile.job)),
        ("untrusted", profile.untrusted.iter().map(matches).collect::<Vec<_>>().join("; or ")),
        ("refused", refusals(&profile.refuse)),
        ("required", refusals(&profile.require)),
        ("asked of the platform", reviews(profile)),
        ("must agree", profile.same.iter().map(|same| names(same)).collect::<Vec<_>>().join("; ")),
    ];
    let rows = rows.into_iter().filter(|(_, what)| !what.is_empty());
    table(["", ""], rows.map(|(key, what)| [key.to_owned(), what]))
}

/// What a review's answer is held against.
fn reviews(profile: &Profile) -> String {
    let one = |(pointer, name): (&String, &String)| format!("{} is {}", code(pointer), code(name));
    profile.review.iter().map(one).collect::<Vec<_>>().join(" and ")
}

fn refusals(refusals: &[Refusal]) -> String {
    let one = |refusal: &Refusal| format!("{} ({})", matches(&refusal.when), refusal.code);
    refusals.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn matches(when: &ClaimMatch) -> String {
    let one = |(name, values): (&String, &Vec<_>)| {
        let values: Vec<String> =
            values.iter().map(|value: &dayfly_domain::ClaimValue| code(&value.to_string())).collect();
        format!("{} is {}", code(name), values.join(" or "))
    };
    when.iter().map(one).collect::<Vec<_>>().join(" and ")
}

fn claims(profile: &Profile) -> String {
    let rows = profile.claims.iter().map(|(name, rule)| {
        let kind = format!("{:?}", rule.kind);
        [code(name), code(&rule.at), spelled(&kind), remarks(rule)]
    });
    table(["claim", "where", "type", ""], rows)
}

/// As a profile writes it: `StringBool` is `string_bool`.
fn spelled(kind: &str) -> String {
    let mut text = String::new();
    for letter in kind.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

fn remarks(rule: &ClaimRule) -> String {
    let mut remarks = Vec::new();
    if rule.required {
        remarks.push("required".to_owned());
    }
    if rule.revocable {
        remarks.push("can be named in a mass end".to_owned());
    }
    if !rule.formerly.is_empty() {
        remarks.push(format!("formerly {}", names(&rule.formerly)));
    }
    if !rule.words.is_empty() {
        let words: Vec<_> = rule.words.iter().map(|(word, code)| format!("`{word}` ({code})")).collect();
        remarks.push(format!("one of {}", words.join(", ")));
    }
    match &rule.id {
        Some(id) => remarks.push(format!("a name; the id is {}", code(id))),
        None if rule.mutable => remarks.push("a name or free text".to_owned()),
        None => {}
    }
    if !rule.words.is_empty() {
        remarks.push(format!("one of {}", names(&rule.words.keys().cloned().collect::<Vec<_>>())));
    }
    if !rule.formerly.is_empty() {
        remarks.push(format!("formerly {}", names(&rule.formerly)));
    }
    if rule.fold {
        remarks.push("without regard to case".to_owned());
    }
    match rule.segment {
        Some(Segment::Hash128) => remarks.push("hashed in names".to_owned()),
        Some(Segment::SpiffePath) => remarks.push("its path in names".to_owned()),
        Some(Segment::StripBraces) => remarks.push("without braces in names".to_owned()),
        None => {}
    }
    remarks.join(", ")
}

fn names(names: &[String]) -> String {
    codes(&names.iter().map(String::as_str).collect::<Vec<_>>())
}
