//! Targets: the resource servers that accept credentials, and the broker itself among them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, BROKER, BROKER_ACTIONS, Issuer, IssuerKind, Surroundings, Target, VerifierRow,
    check::Owners,
    claim,
    problem::{Found, Place},
    tables::{Placed, Tables, TargetTable, VerifierTable},
    uri,
};
use crate::{Name, Span, Verifies};

/// Of the broker's actions, those that change nothing.
const BROKER_READS: [&str; 4] = ["tasks:read", "leases:read", "ledger:read", "introspect"];
const MAX_TTL: Span = Span::seconds(1_800);
const CACHE: Span = Span::seconds(10);
const LEEWAY: Span = Span::seconds(30);
/// No credential lives longer than a day.
pub(super) const TTL_CAP: Span = Span::seconds(86_400);
const LEEWAY_CAP: Span = Span::seconds(300);
const LIST_LIFE: Span = Span::seconds(300);
/// A server looks again after 15 seconds; an outage of the broker that is shorter than this is not to be felt.
const LIST_LIFE_MIN: Span = Span::seconds(60);
const LIST_LIFE_CAP: Span = Span::seconds(86_400);
const CACHE_CAP: Span = Span::seconds(3_600);

pub(super) fn all(
    tables: &Tables,
    issuers: &BTreeMap<Name, Issuer>,
    owners: &Owners<'_>,
    given: &Surroundings<'_>,
    found: &mut Found,
) -> BTreeMap<Name, Target> {
    let mut targets = BTreeMap::new();
    let mut uris: BTreeMap<&str, &Name> = BTreeMap::new();
    for (name, placed) in &tables.targets {
        let place = Place::new(&placed.path, format!("target.{name}"));
        let table = &placed.table;
        check_reserved(name, &table.environment, &place, found);
        check_uri(&table.uri, given.issuer_url, &place, found);
        if let Some(first) = uris.insert(&table.uri, name) {
            found.add(&place, "uri", format!("`target.{first}` has the same, so an audience would be of either"));
        }
        check_times(table, &place, found);
        let disabled = owners.disabled(&table.owner, &place, found) || table.disabled;
        let verifiers = verifiers(tables, placed, issuers, &place, found);
        targets.insert(name.clone(), target(name, table, verifiers, disabled, &place, found));
    }
    let broker = broker(given);
    targets.insert(broker.name.clone(), broker);
    targets
}

fn target(
    name: &Name,
    table: &TargetTable,
    verifiers: Vec<VerifierRow>,
    disabled: bool,
    place: &Place<'_>,
    found: &mut Found,
) -> Target {
    found.require(!table.actions.is_empty(), place, "actions", "names no action");
    let bad = table.actions.iter().filter(|action| !is_action(action));
    bad.for_each(|action| {
        found.add(place, "actions", format!("`{action}` is not an action: `[a-z0-9][a-z0-9:._-]{{0,63}}`"))
    });
    for action in table.reads.iter().filter(|action| !table.actions.contains(action)) {
        found.add(place, "reads", format!("`{action}` is not one of its actions"));
    }
    check_tags(table, place, found);
    Target {
        name: name.clone(),
        uri: table.uri.as_str().into(),
        environment: table.environment.clone(),
        owner: table.owner.clone(),
        binding: table.binding,
        verifies: table.verifies,
        actions: table.actions.iter().map(|action| Action::from(action.as_str())).collect(),
        reads: table.reads.iter().map(|action| Action::from(action.as_str())).collect(),
        max_ttl: table.max_ttl.unwrap_or(MAX_TTL),
        cache: table.cache.unwrap_or(CACHE),
        leeway: table.leeway.unwrap_or(LEEWAY),
        list_life: table.list_life.unwrap_or(LIST_LIFE),
        accept_unrevocable: table.accept_unrevocable.clone(),
        tags: table.tags.iter().map(|tag| tag.as_str().into()).collect(),
        verifiers,
        disabled,
        builtin: false,
    }
}

fn check_tags(table: &TargetTable, place: &Place<'_>, found: &mut Found) {
    for tag in table.tags.iter().filter(|tag| !is_action(tag)) {
        found.add(place, "tags", format!("`{tag}` is not a tag: `[a-z0-9][a-z0-9:._-]{{0,63}}`"));
    }
    let different: BTreeSet<_> = table.tags.iter().collect();
    found.require(different.len() == table.tags.len(), place, "tags", "names a tag twice");
}

fn is_action(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=64).contains(&text.len())
        && letter(text.as_bytes()[0])
        && text.bytes().all(|byte| letter(byte) || b":._-".contains(&byte))
}

fn check_reserved(name: &Name, environment: &Name, place: &Place<'_>, found: &mut Found) {
    found.require(name != BROKER, place, "", "is the name of the built-in target");
    found.require(environment != BROKER, place, "environment", "is the built-in target's own");
}

fn check_uri(text: &str, own_url: &str, place: &Place<'_>, found: &mut Found) {
    match uri::parse(text) {
        Err(what) => found.add(place, "uri", what),
        Ok(_) if uri::is_at_or_below(text, own_url) => {
            found.add_with(place, "uri", "is our own", "grant actions of the built-in target `broker` instead");
        }
        Ok(_) => {}
    }
}

fn check_times(table: &TargetTable, place: &Place<'_>, found: &mut Found) {
    let zero = Span::seconds(0);
    let max_ttl = table.max_ttl.unwrap_or(MAX_TTL);
    found.require(max_ttl > zero && max_ttl <= TTL_CAP, place, "max_ttl", "is not between 1s and 1d");
    found.require(table.cache.unwrap_or(CACHE) <= CACHE_CAP, place, "cache", "is longer than 1h");
    found.require(table.leeway.unwrap_or(LEEWAY) <= LEEWAY_CAP, place, "leeway", "is longer than 5m");
    if let Some(life) = table.list_life {
        let within = (LIST_LIFE_MIN..=LIST_LIFE_CAP).contains(&life);
        found.require(within, place, "list_life", "is not between 1m and 1d");
        let read = table.verifies == Verifies::List;
        found.require(read, place, "list_life", "means something only where the server verifies by `list`");
    }
    if let Some(reason) = &table.accept_unrevocable {
        let help = "say why nobody needs to revoke what this server accepts";
        if reason.trim().is_empty() {
            found.add_with(place, "accept_unrevocable", "gives no reason", help);
        } else if table.verifies != Verifies::ExpOnly {
            found.add(place, "accept_unrevocable", "means something only where the server verifies `exp_only`");
        }
    }
}

fn verifiers(
    tables: &Tables,
    placed: &Placed<TargetTable>,
    issuers: &BTreeMap<Name, Issuer>,
    place: &Place<'_>,
    found: &mut Found,
) -> Vec<VerifierRow> {
    let mut rows = Vec::new();
    for (index, VerifierTable { issuer: name, claims }) in placed.table.verifier.iter().enumerate() {
        let place = Place::new(place.path, format!("{}.verifier[{index}]", place.table));
        match issuers.get(name) {
            None if tables.issuers.contains_key(name) => {}
            None => found.add(&place, "issuer", format!("there is no issuer `{name}`")),
            Some(issuer) if issuer.kind != IssuerKind::Verifier => {
                found.add(&place, "issuer", format!("`{name}` is not of kind `verifier`"));
            }
            Some(issuer) => {
                let claims = claim::matches(claims, &issuer.claims, &place.below("claims"), found);
                rows.push(VerifierRow { issuer: name.clone(), claims });
            }
        }
    }
    rows
}

/// `{iss}/v1`: what the API of the broker itself accepts.
fn broker(given: &Surroundings<'_>) -> Target {
    let name: Name = super::check::broker_name();
    Target {
        uri: format!("{}/v1", given.issuer_url).into(),
        environment: name.clone(),
        owner: name.clone(),
        name,
        binding: given.broker_binding,
        verifies: Verifies::Introspect,
        actions: BROKER_ACTIONS.into_iter().map(Action::from).collect::<BTreeSet<_>>(),
        reads: BROKER_READS.into_iter().map(Action::from).collect(),
        max_ttl: Span::seconds(3_600),
        // It reads its own lease table, and its own clock.
        cache: Span::seconds(0),
        leeway: Span::seconds(0),
        list_life: LIST_LIFE,
        accept_unrevocable: None,
        tags: BTreeSet::new(),
        verifiers: Vec::new(),
        disabled: false,
        builtin: true,
    }
}
