//! What a certificate for a task may look like, and the names under which a task may serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Leaf,
    problem::{Found, Place},
    punycode,
    tables::{LeafTable, Placed, Tables, TaskTable},
};
use crate::{KeyKind, Name, Span, SubjectKind};

/// The one that a template has which names none.
const USUAL: &str = "task";
const BACKDATE: Span = Span::seconds(60);
const BACKDATE_CAP: Span = Span::seconds(300);
/// Names of one task.
const SERVES_MAX: usize = 16;
/// base64url of a SHA-256.
const THUMBPRINT_CHARS: usize = 43;

pub(super) fn all(tables: &Tables, found: &mut Found) -> BTreeMap<Name, Arc<Leaf>> {
    let one = |(name, placed): (&Name, &Placed<LeafTable>)| {
        let place = Place::new(&placed.path, format!("leaf.{name}"));
        (name.clone(), Arc::new(leaf(name, &placed.table, &place, found)))
    };
    tables.leaves.iter().map(one).collect()
}

fn leaf(name: &Name, table: &LeafTable, place: &Place<'_>, found: &mut Found) -> Leaf {
    let keys: BTreeSet<_> = table.keys.iter().copied().collect();
    found.require(!keys.is_empty(), place, "keys", "names no kind of key: nothing could be issued");
    found.require(keys.len() == table.keys.len(), place, "keys", "names a kind of key twice");
    let backdate = table.backdate.unwrap_or(BACKDATE);
    found.require(backdate <= BACKDATE_CAP, place, "backdate", "is longer than 5m");
    Leaf { name: name.clone(), keys, subject: table.subject.unwrap_or(SubjectKind::Template), backdate }
}

/// Of a template. Bundles that are older than these tables have the usual one all the same.
pub(super) fn of(
    table: &TaskTable,
    leaves: &BTreeMap<Name, Arc<Leaf>>,
    place: &Place<'_>,
    found: &mut Found,
) -> Option<Arc<Leaf>> {
    let leaf = leaves.get(table.leaf.as_ref().map_or(USUAL, Name::as_str));
    if let (Some(name), None) = (&table.leaf, leaf) {
        let known: Vec<_> = leaves.keys().map(Name::as_str).collect();
        found.add_with(place, "leaf", format!("there is no leaf `{name}`"), format!("one of `{}`", known.join("`, `")));
    }
    leaf.cloned().or_else(|| usual().map(Arc::new))
}

fn usual() -> Option<Leaf> {
    let keys = BTreeSet::from([KeyKind::P256]);
    Some(Leaf { name: USUAL.parse().ok()?, keys, subject: SubjectKind::Template, backdate: BACKDATE })
}

/// Names for a certificate of a server.
// SECURITY: `t_131_a_name_to_serve_has_one_spelling`.
pub(super) fn serves(table: &TaskTable, place: &Place<'_>, found: &mut Found) -> Vec<String> {
    let Some(names) = &table.serves else { return Vec::new() };
    found.require(!names.is_empty(), place, "serves", "names nothing");
    found.require(names.len() <= SERVES_MAX, place, "serves", "has more than 16 names");
    let different: BTreeSet<_> = names.iter().collect();
    found.require(different.len() == names.len(), place, "serves", "has a name twice");
    for name in names.iter().filter(|name| !is_dns_name(name)) {
        let help = "lower-case letters, digits and `-` between dots; no `*`, no address, no dot at the end";
        found.add_with(place, "serves", format!("`{name}` is not a DNS name"), help);
    }
    names.clone()
}

/// As it is compared: in lower case, whole, and never a pattern.
pub(super) fn is_dns_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| {
        let edges = !label.starts_with('-') && !label.ends_with('-');
        // SECURITY: two hyphens there say that the label is to be decoded.
        let coded = label.get(2..4) != Some("--") || label.strip_prefix("xn--").is_some_and(punycode::is_canonical);
        (1..=63).contains(&label.len()) && label.bytes().all(letter) && edges && coded
    };
    // What ends in a number reads as an address.
    let number = |label: &str| {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        digits(label) || label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    name.len() <= 253 && name.split('.').all(label) && !name.rsplit('.').next().is_some_and(number)
}

/// Keys that others know: SHA-256 of a SubjectPublicKeyInfo, as a lease shows it.
pub(super) fn blocked_keys(tables: &Tables, found: &mut Found) -> BTreeSet<String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    for Placed { path, table } in &tables.blocked_keys {
        if table.len() != THUMBPRINT_CHARS || !table.bytes().all(letter) {
            let place = Place::new(path, "");
            let help = "base64url of SHA-256 over the DER of its SubjectPublicKeyInfo, 43 characters";
            found.add_with(&place, "blocked_keys", format!("`{table}` names no key"), help);
        }
    }
    tables.blocked_keys.iter().map(|placed| placed.table.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_131_a_name_to_serve_has_one_spelling() {
        for good in
            ["db", "api.example.org", "a-1.b2.example", "xn--mller-kva.example", "3com.example", "1.2.3.4.nip.example"]
        {
            assert!(is_dns_name(good), "{good}");
        }
        let long = format!("{}.example", "a.".repeat(124));
        let label = format!("{}.example", "a".repeat(64));
        for bad in [
            "",
            ".",
            "*",
            "*.example.org",
            "*.*.example.org",
            "foo*.example.org",
            "api.example.org.",
            ".example.org",
            "a..example.org",
            "a_b.example.org",
            "Api.example.org",
            "müller.example",
            "xn--example-.example",
            "xn--abc.example",
            "ab--cd.example",
            "-a.example",
            "a-.example",
            "10.0.0.1",
            "1",
            "example.0x7f",
            "::1",
            "[::1]",
            "a b.example",
            "a,b.example",
            "a/b",
            "user@example.org",
            "example.org:443",
            "a\0.example",
            "a%2fb.example",
            &long,
            &label,
        ] {
            assert!(!is_dns_name(bad), "{bad}");
        }
    }
}
