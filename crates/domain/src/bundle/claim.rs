//! Claims: how a profile declares them, and whether a value in a row, a pin or a refusal is one
//! that the declared claim can have.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ClaimMatch, ClaimRule,
    problem::{Found, Place},
    tables::{ClaimTable, Scalar, Wanted},
};
use crate::{ClaimType, ClaimValue};

/// Names that mean something in the tokens themselves.
const TAKEN: [&str; 11] = ["iss", "aud", "exp", "nbf", "iat", "jti", "act", "cnf", "scope", "lease_id", "code"];

/// The declared claims of a profile or issuer. `place` is their table.
pub(super) fn rules(
    claims: &BTreeMap<String, ClaimTable>,
    place: &Place<'_>,
    found: &mut Found,
) -> BTreeMap<String, ClaimRule> {
    let rule = |(name, table): (&String, &ClaimTable)| {
        check_rule(name, table, &place.below(name), found);
        let ClaimTable { at, formerly, words, kind, required, revocable, segment, fold, mutable, id, one_of, prefix } =
            table.clone();
        let mutable = mutable || id.is_some();
        let rule =
            ClaimRule { at, formerly, words, kind, required, revocable, segment, fold, mutable, id, one_of, prefix };
        (name.clone(), rule)
    };
    claims.iter().map(rule).collect()
}

/// A name says which declared claim is its id, and that one is no name itself.
pub(super) fn check_ids(rules: &BTreeMap<String, ClaimRule>, place: &Place<'_>, found: &mut Found) {
    for (name, rule) in rules {
        let Some(id) = &rule.id else { continue };
        match rules.get(id) {
            None => {
                found.add_with(&place.below(name), "id", format!("`{id}` is not a declared claim"), declared(rules))
            }
            Some(other) if id == name || other.mutable || other.id.is_some() => {
                found.add(&place.below(name), "id", format!("`{id}` is a name itself"));
            }
            Some(_) => {}
        }
    }
}

fn check_rule(name: &str, table: &ClaimTable, place: &Place<'_>, found: &mut Found) {
    if !is_claim_name(name) {
        found.add(place, "", "is not a name for a claim: lower-case letters, digits and `_`, at most 63");
    }
    if TAKEN.contains(&name) {
        found.add_with(
            place,
            "",
            "is a name with a meaning of its own",
            "give the claim another name; `at` says where it is",
        );
    }
    if !is_pointer(&table.at) {
        let help = format!("write `/{name}`; a `/` inside a name is `~1`, a `~` is `~0`");
        found.add_with(place, "at", format!("`{}` is not a JSON pointer (RFC 6901)", table.at), help);
    }
    check_places(table, place, found);
    check_words(table, place, found);
    if table.segment.is_some() && table.kind != ClaimType::String {
        found.add(place, "segment", "only a claim of type `string` is rewritten");
    }
    if !table.one_of.is_empty() && !matches!(table.kind, ClaimType::String | ClaimType::Set) {
        found.add(place, "one_of", "only claims of type `string` and `set` are listed");
    }
    if table.fold && table.kind != ClaimType::String {
        found.add(place, "fold", "only a claim of type `string` has a case to fold");
    }
}

/// Each word has a number of its own, and is compared as it is written.
// SECURITY: `a_number_that_stands_for_two_words`, `words_that_would_be_folded`.
fn check_words(table: &ClaimTable, place: &Place<'_>, found: &mut Found) {
    if table.words.is_empty() {
        return;
    }
    let text = matches!(table.kind, ClaimType::String | ClaimType::Set);
    found.require(text, place, "words", "only a claim of type `string` or `set` is made of words");
    found.require(!table.fold, place, "fold", "words are compared as they are written");
    let numbers: BTreeSet<_> = table.words.values().collect();
    found.require(numbers.len() == table.words.len(), place, "words", "has one number for two words");
}

/// A `*` stands once, for the same members in all places, and gathers a set.
fn check_places(table: &ClaimTable, place: &Place<'_>, found: &mut Found) {
    for pointer in table.formerly.iter().filter(|pointer| !is_pointer(pointer)) {
        found.add(place, "formerly", format!("`{pointer}` is not a JSON pointer (RFC 6901)"));
    }
    let stars = |pointer: &str| pointer.split('/').filter(|part| *part == "*").count();
    let members = |pointer: &String| ClaimRule::each(pointer).map(|(members, _)| members.to_owned());
    let same = table.formerly.iter().all(|pointer| members(pointer) == members(&table.at));
    found.require(members(&table.at).as_deref() != Some(""), place, "at", "has a `*` for the payload's own members");
    let once = std::iter::once(&table.at).chain(&table.formerly).all(|pointer| stars(pointer) <= 1);
    found.require(same && once, place, "at", "has a `*` more than once, or not at the same place as `formerly`");
    let gathers = stars(&table.at) == 0 || table.kind == ClaimType::Set;
    found.require(gathers, place, "type", "a `*` gathers a `set`");
}

fn is_claim_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=63).contains(&name.len()) && name.bytes().all(letter) && !name.as_bytes()[0].is_ascii_digit()
}

/// A pointer to a member: RFC 6901, not the whole document.
fn is_pointer(text: &str) -> bool {
    let escaped = |part: &str| part.is_empty() || part.starts_with(['0', '1']);
    text.len() > 1 && text.starts_with('/') && text.split('~').skip(1).all(|part| !part.is_empty() && escaped(part))
}

/// Each name is declared.
pub(super) fn require_declared(
    names: &[String],
    rules: &BTreeMap<String, ClaimRule>,
    place: &Place<'_>,
    key: &str,
    found: &mut Found,
) {
    for name in names.iter().filter(|name| !rules.contains_key(*name)) {
        found.add_with(place, key, format!("`{name}` is not a declared claim"), declared(rules));
    }
}

/// Each declared one is in all evidence: what is asked of it would be passed by leaving it out.
pub(super) fn require_required<'a>(
    names: impl Iterator<Item = &'a String>,
    rules: &BTreeMap<String, ClaimRule>,
    place: &Place<'_>,
    found: &mut Found,
) {
    for name in names.filter(|name| rules.get(*name).is_some_and(|rule| !rule.required)) {
        let help = format!("write `required = true` at the claim `{name}`");
        found.add_with(place, name, "can be missing, and then this would not be asked", help);
    }
}

/// Claims and the values they may have, typed as declared. `place` is the table of the values.
pub(super) fn matches(
    wanted: &BTreeMap<String, Wanted>,
    rules: &BTreeMap<String, ClaimRule>,
    place: &Place<'_>,
    found: &mut Found,
) -> ClaimMatch {
    let mut claims = ClaimMatch::new();
    for (name, wanted) in wanted {
        let Some(rule) = rules.get(name) else {
            found.add_with(place, name, "is not a declared claim, so this would never match", declared(rules));
            continue;
        };
        if wanted.values().is_empty() {
            found.add(place, name, "names no value, so this would never match");
        }
        let values = wanted.values().iter().filter_map(|value| typed(value, rule, place, name, found));
        claims.insert(name.clone(), values.collect());
    }
    claims
}

/// One value, typed as its claim is declared; a set claim is compared with its members.
pub(super) fn typed(
    value: &Scalar,
    rule: &ClaimRule,
    place: &Place<'_>,
    name: &str,
    found: &mut Found,
) -> Option<ClaimValue> {
    let wants = match (rule.kind, value) {
        (ClaimType::String | ClaimType::Set, Scalar::String(text)) => {
            if !rule.words.is_empty() && !rule.words.contains_key(text) {
                let words: Vec<_> = rule.words.keys().map(String::as_str).collect();
                let help = format!("it is one of `{}`", words.join("`, `"));
                found.add_with(place, name, "is no word that this claim can be, so this would never match", help);
                return None;
            }
            return some_text(text, rule.fold, place, name, found);
        }
        (ClaimType::Bool | ClaimType::StringBool, Scalar::Bool(value)) => return Some(ClaimValue::Bool(*value)),
        (ClaimType::Long | ClaimType::StringLong, Scalar::Long(value)) => return Some(ClaimValue::Long(*value)),
        (ClaimType::String, _) => "a string",
        (ClaimType::Set, _) => "a set of strings",
        (ClaimType::Bool | ClaimType::StringBool, _) => "`true` or `false`, without quotes",
        (ClaimType::Long | ClaimType::StringLong, _) => "a whole number, without quotes",
    };
    found.add(place, name, format!("is of another type: the claim is {wants}"));
    None
}

fn some_text(text: &str, fold: bool, place: &Place<'_>, name: &str, found: &mut Found) -> Option<ClaimValue> {
    if text.trim().is_empty() {
        found.add(place, name, "is empty, and an empty claim is refused, so this would never match");
        return None;
    }
    // SECURITY: ASCII only: letters that Unicode folds into ASCII would be another's name
    // (t_041_a_folded_claim_is_ascii).
    if fold && !text.is_ascii() {
        found.add(place, name, "is compared without regard to case, so it is plain ASCII");
        return None;
    }
    Some(ClaimValue::String(if fold { text.to_ascii_lowercase() } else { text.to_owned() }))
}

fn declared(rules: &BTreeMap<String, ClaimRule>) -> String {
    let names: Vec<_> = rules.keys().map(String::as_str).collect();
    format!("declared are `{}`", names.join("`, `"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_rfc_6901() {
        for good in ["/a", "/kubernetes.io/pod/uid", "/https:~1~1sts.amazonaws.com~1/org_id", "/a~0b"] {
            assert!(is_pointer(good), "{good}");
        }
        for bad in ["", "/", "a", "/a~", "/a~2"] {
            assert!(!is_pointer(bad), "{bad}");
        }
    }
}
