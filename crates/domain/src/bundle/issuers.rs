//! Issuers: who signs evidence, where their keys come from, and what makes their tokens ours.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ClaimRule, Issuer, IssuerKind, KeySource, Profile, Review, Segment, Surroundings,
    check::Owners,
    claim,
    problem::{Found, Place},
    profiles::check_algs,
    tables::{IssuerTable, KeysTable, KindWord, Placed, ReviewTable, Tables},
    uri,
};
use crate::{ClaimType, ClaimValue, Name, spiffe};

pub(super) fn all(
    tables: &Tables,
    profiles: &BTreeMap<Name, Profile>,
    owners: &Owners<'_>,
    given: &Surroundings<'_>,
    found: &mut Found,
) -> BTreeMap<Name, Issuer> {
    let mut issuers = BTreeMap::new();
    for (name, placed) in &tables.issuers {
        let place = Place::new(&placed.path, format!("issuer.{name}"));
        let disabled = owners.disabled(&placed.table.owner, &place, found) || placed.table.disabled;
        let Some(profile) = profiles.get(&placed.table.profile) else {
            let names: Vec<_> = profiles.keys().map(Name::as_str).collect();
            let what = format!("there is no profile `{}`", placed.table.profile);
            found.add_with(&place, "profile", what, format!("there are `{}`", names.join("`, `")));
            continue;
        };
        if let Some(issuer) = issuer(name, &placed.table, profile, given, &place, found) {
            issuers.insert(name.clone(), Issuer { disabled, ..issuer });
        }
    }
    check_platforms(tables, profiles, &issuers, found);
    check_pairs(tables, &issuers, found);
    check_claim_types(tables, &issuers, found);
    let own_domain = tables.trust_domain.as_ref().map(|placed| placed.table.as_str());
    check_not_ours(tables, &issuers, given.issuer_url, own_domain, found);
    issuers
}

fn issuer(
    name: &Name,
    table: &IssuerTable,
    profile: &Profile,
    given: &Surroundings<'_>,
    place: &Place<'_>,
    found: &mut Found,
) -> Option<Issuer> {
    let kind = match table.kind {
        KindWord::Workload => IssuerKind::Workload,
        KindWord::Verifier => IssuerKind::Verifier,
        KindWord::Operator => {
            found.add(place, "kind", "issuers of operators come later");
            return None;
        }
    };
    let claims = claims(table, profile, place, found);
    let keys = keys(table.keys.as_ref(), given, &place.below("keys"), found);
    let Some(url) = table.url.as_ref().or(profile.url.as_ref()) else {
        found.add(place, "url", format!("profile `{}` has no URL, so the issuer gives one", profile.name));
        return None;
    };
    let discovery = matches!(keys, KeySource::Discovery { .. });
    check_url(url, kind, discovery, place, found);
    if kind == IssuerKind::Workload || discovery {
        check_form(url, profile, place, found);
    }
    let review = table.review.as_ref().map(|table| review(table, profile, given, &place.below("review"), found));
    let pin = pins(table, profile, url, &claims, place, found);
    let algs = table.algs.as_ref().unwrap_or(&profile.algs);
    check_algs(algs, place, found);
    let typ = table.typ.as_ref().unwrap_or(&profile.typ);
    found.require(!typ.is_empty(), place, "typ", "names no type, so it would refuse everything");
    found.require(table.audience.as_deref() != Some(""), place, "audience", "is empty");
    let issuer = Issuer {
        name: name.clone(),
        profile: profile.name.clone(),
        owner: table.owner.clone(),
        kind,
        url: url.as_str().into(),
        keys,
        review,
        audience: table.audience.as_deref().unwrap_or(given.issuer_url).into(),
        pin,
        typ: typ.clone(),
        algs: algs.clone(),
        claims,
        disabled: table.disabled,
    };
    check_audience(&issuer, profile, place, found);
    check_trust_domain(&issuer, profile, place, found);
    Some(issuer)
}

/// SECURITY: an audience that every token of the platform has says nothing of whom it was made for
/// (`a_pods_default_token_is_no_evidence`).
fn check_audience(issuer: &Issuer, profile: &Profile, place: &Place<'_>, found: &mut Found) {
    let plain = |text: &str| text.trim_end_matches('/').to_ascii_lowercase();
    let audience = plain(&issuer.audience);
    let everyones = audience == plain(&issuer.url) || profile.never_audience.iter().any(|own| plain(own) == audience);
    if everyones {
        let help = "leave `audience` out, and have tokens made for the broker's issuer URL";
        let what = "is the platform's own, so every workload's everyday token would be evidence";
        found.add_with(place, "audience", what, help);
    }
}

/// The profile's claims and the issuer's own, which may not replace one.
fn claims(table: &IssuerTable, profile: &Profile, place: &Place<'_>, found: &mut Found) -> BTreeMap<String, ClaimRule> {
    let place = place.below("claims");
    let own = claim::rules(&table.claims, &place, found);
    for name in own.keys().filter(|name| profile.claims.contains_key(*name)) {
        found.add(&place, name, format!("profile `{}` declares this claim already", profile.name));
    }
    let all = own.into_iter().chain(profile.claims.clone()).collect();
    claim::check_ids(&all, &place, found);
    all
}

fn check_url(url: &str, kind: IssuerKind, discovery: bool, place: &Place<'_>, found: &mut Found) {
    if kind == IssuerKind::Verifier && !discovery {
        return found.require(!url.is_empty(), place, "url", "is empty");
    }
    match uri::parse(url) {
        Err(what) => found.add(place, "url", what),
        Ok(_) if !discovery => {}
        Ok(uri) => {
            let plain = uri.scheme == "https" && !uri.rest.contains('?');
            found.require(plain, place, "url", "keys by discovery need an `https` URL without a query");
        }
    }
}

/// SECURITY: a profile that knows its platform's URLs takes no other: neither a host that only
/// looks like it nor a mistyped one (t_046_an_issuer_of_another_form).
fn check_form(url: &str, profile: &Profile, place: &Place<'_>, found: &mut Found) {
    if !profile.is_at(url) && uri::parse(url).is_ok() {
        let own = profile.url.iter().cloned();
        let forms: Vec<String> = own.chain(profile.forms().map(ToString::to_string)).collect();
        let help = format!("it is `{}`", forms.join("` or `"));
        found.add_with(place, "url", format!("is not where profile `{}` has its issuers", profile.name), help);
    }
}

fn keys(table: Option<&KeysTable>, given: &Surroundings<'_>, place: &Place<'_>, found: &mut Found) -> KeySource {
    let Some(table) = table else { return KeySource::Discovery { ca_pem: None, allow_private: false } };
    check_one_source(table, place, found);
    let content = |file: &str| content(given, file);
    let (ca_pem, allow_private) = (table.ca_file.as_deref().map(content), table.allow_private);
    if let Some(file) = &table.x509_roots {
        return KeySource::Roots { pem: content(file) };
    }
    match (&table.jwks_file, &table.spiffe_bundle, &table.spiffe_bundle_url) {
        (Some(file), ..) => KeySource::Pinned { jwks: content(file) },
        (_, Some(file), _) => KeySource::TrustBundle { bundle: content(file) },
        (_, _, Some(url)) => {
            check_endpoint(url, given.issuer_url, place, found);
            KeySource::BundleEndpoint { url: url.as_str().into(), ca_pem, allow_private }
        }
        _ => KeySource::Discovery { ca_pem, allow_private },
    }
}

fn check_one_source(table: &KeysTable, place: &Place<'_>, found: &mut Found) {
    const SOURCES: &str = "`discovery = true`, `jwks_file`, `spiffe_bundle`, `spiffe_bundle_url` or `x509_roots`";
    let files = [&table.jwks_file, &table.spiffe_bundle, &table.x509_roots];
    let named = files.into_iter().chain([&table.spiffe_bundle_url]).flatten().count();
    match (named, table.discovery) {
        (1, None) | (0, Some(true)) => {}
        (0, _) => found.add(place, "", format!("give {SOURCES}")),
        _ => found.add(place, "", format!("give {SOURCES}, not both")),
    }
    if files.into_iter().any(Option::is_some) && (table.ca_file.is_some() || table.allow_private) {
        found.add(place, "", "`ca_file` and `allow_private` go with what is fetched, not with a file of keys");
    }
}

fn check_endpoint(url: &str, own_url: &str, place: &Place<'_>, found: &mut Found) {
    match uri::parse(url) {
        Err(what) => found.add(place, "spiffe_bundle_url", what),
        Ok(uri) if uri.scheme != "https" => found.add(place, "spiffe_bundle_url", "is no `https` URL"),
        Ok(_) if uri::is_at_or_below(url, own_url) => {
            found.add(place, "spiffe_bundle_url", "is our own: nothing that Dayfly issued is evidence");
        }
        Ok(_) => {}
    }
}

/// Keys of a trust domain go with its name, a name with its keys, and both with a profile that
/// reads SPIFFE IDs: which trust domain an ID is of is held against nothing else.
// SECURITY: `a_spiffe_id_needs_its_trust_domain`
fn check_trust_domain(issuer: &Issuer, profile: &Profile, place: &Place<'_>, found: &mut Found) {
    let is_path = |rule: &ClaimRule| rule.segment == Some(Segment::SpiffePath);
    let has_paths = issuer.claims.values().any(is_path);
    let mut named = profile.principal.iter().filter_map(|name| issuer.claims.get(name));
    let reads_ids =
        named.next_back().is_some_and(|rule| is_path(rule) && rule.at == "/sub" && rule.formerly.is_empty());
    match issuer.keys {
        KeySource::TrustBundle { .. } | KeySource::BundleEndpoint { .. } | KeySource::Roots { .. } => {
            let named = issuer.trust_domain().is_some_and(spiffe::is_trust_domain);
            found.require(
                named,
                place,
                "url",
                "is no trust domain: write `spiffe://` and its name, and nothing after it",
            );
            let what = format!("profile `{}` does not read the SPIFFE ID as the principal", profile.name);
            found.require(reads_ids, place, "profile", &what);
            let workload = issuer.kind == IssuerKind::Workload;
            found.require(workload, place, "kind", "a trust domain vouches for workloads only");
        }
        KeySource::Discovery { .. } | KeySource::Pinned { .. } if has_paths => {
            let what = format!("profile `{}` reads SPIFFE IDs, whose keys are a trust bundle's", profile.name);
            found.add_with(place, "keys", what, "give `spiffe_bundle`, `spiffe_bundle_url` or `x509_roots`");
        }
        KeySource::Discovery { .. } | KeySource::Pinned { .. } => {}
    }
}

fn review(
    table: &ReviewTable,
    profile: &Profile,
    given: &Surroundings<'_>,
    place: &Place<'_>,
    found: &mut Found,
) -> Review {
    let what = format!("profile `{}` has no review, so nobody could say what an answer means", profile.name);
    found.require(!profile.review.is_empty(), place, "", &what);
    let url = table.url.strip_suffix('/').unwrap_or(&table.url);
    match uri::parse(url) {
        Err(what) => found.add(place, "url", what),
        Ok(uri) => {
            found.require(uri.scheme == "https" && uri.rest.is_empty(), place, "url", "is not `https://host[:port]`");
        }
    }
    found.require(table.token_file.starts_with('/'), place, "token_file", "is not an absolute path");
    Review {
        url: url.into(),
        token_file: table.token_file.as_str().into(),
        ca_pem: table.ca_file.as_deref().map(|file| content(given, file)),
        allow_private: table.allow_private,
    }
}

/// What was read of a file that a table names.
fn content(given: &Surroundings<'_>, file: &str) -> Arc<[u8]> {
    given.extra.get(file).cloned().unwrap_or_else(|| Arc::from([]))
}

/// SECURITY: behind a shared issuer's URL anyone can get a token, so it must be pinned to claims
/// that only we have (t_062_a_shared_issuer_without_a_pin).
fn pins(
    table: &IssuerTable,
    profile: &Profile,
    url: &str,
    claims: &BTreeMap<String, ClaimRule>,
    place: &Place<'_>,
    found: &mut Found,
) -> BTreeMap<String, ClaimValue> {
    if profile.is_at(url) && profile.is_shared_at(url) && !profile.pin.iter().any(|name| table.pin.contains_key(name)) {
        let what =
            format!("profile `{}` is shared by many customers, and nothing says which one is ours", profile.name);
        found.add_with(place, "pin", what, format!("pin one of `{}`", profile.pin.join("`, `")));
    }
    let place = place.below("pin");
    let mut pins = BTreeMap::new();
    for (name, value) in &table.pin {
        match claims.get(name) {
            None => found.add(&place, name, "is not a declared claim"),
            Some(rule) if rule.kind == ClaimType::Set => found.add(&place, name, "a set cannot be pinned"),
            Some(rule) => {
                pins.extend(claim::typed(value, rule, &place, name, found).map(|value| (name.clone(), value)));
            }
        }
    }
    pins
}

/// SECURITY: a platform that many share is read by its own profile: another one asks for no pin, and
/// knows neither what is refused nor what is untrusted there
/// (t_062_a_shared_platform_under_another_profile).
fn check_platforms(
    tables: &Tables,
    profiles: &BTreeMap<Name, Profile>,
    issuers: &BTreeMap<Name, Issuer>,
    found: &mut Found,
) {
    for issuer in issuers.values() {
        let other = |profile: &&Profile| profile.name != issuer.profile && profile.shares(&issuer.url);
        if let Some(profile) = profiles.values().find(other) {
            let what = format!("is where profile `{}` has issuers that many customers share", profile.name);
            found.add_with(&place_of(tables, &issuer.name), "url", what, format!("use profile `{}`", profile.name));
        }
    }
}

/// Two issuers with one URL and audience: nobody could say whose a token is, nor whose a certificate. A trust
/// domain may vouch for both, by two issuers.
fn check_pairs(tables: &Tables, issuers: &BTreeMap<Name, Issuer>, found: &mut Found) {
    let mut seen: BTreeMap<(&str, &str, bool), &Name> = BTreeMap::new();
    for issuer in issuers.values() {
        if let Some(first) = seen.insert(pair(issuer), &issuer.name) {
            let what = format!("`issuer.{first}` has the same URL and audience, so a token could be of either");
            found.add(&place_of(tables, &issuer.name), "", what);
        }
    }
}

/// No audience is in a certificate.
fn pair(issuer: &Issuer) -> (&str, &str, bool) {
    let certificates = issuer.roots().is_some();
    (&issuer.url, if certificates { "" } else { &issuer.audience }, certificates)
}

/// Policy sees one record per profile, so a claim has one type in all its issuers.
fn check_claim_types(tables: &Tables, issuers: &BTreeMap<Name, Issuer>, found: &mut Found) {
    let mut seen: BTreeMap<(&Name, &str), (&Name, ClaimType)> = BTreeMap::new();
    for issuer in issuers.values() {
        for (claim, rule) in &issuer.claims {
            let (first, kind) = *seen.entry((&issuer.profile, claim)).or_insert((&issuer.name, rule.kind));
            if kind != rule.kind {
                let what = format!("`issuer.{first}` of the same profile declares it with another type");
                found.add(&place_of(tables, &issuer.name).below("claims"), claim, what);
            }
        }
    }
}

/// SECURITY: nothing we issue is evidence, and our trust domain is our own (law L13;
/// an_issuer_with_our_own_url).
fn check_not_ours(
    tables: &Tables,
    issuers: &BTreeMap<Name, Issuer>,
    own_url: &str,
    own_domain: Option<&str>,
    found: &mut Found,
) {
    for issuer in issuers.values() {
        let place = place_of(tables, &issuer.name);
        if uri::is_at_or_below(&issuer.url, own_url) {
            found.add(&place, "url", "is our own: nothing that Dayfly issued is evidence");
        } else if own_domain.is_some_and(|domain| names_domain(&issuer.url, domain)) {
            found.add(&place, "url", "names our own trust domain, where only we issue");
        }
    }
}

fn names_domain(url: &str, domain: &str) -> bool {
    let host = uri::parse(url).ok().and_then(|uri| uri.host);
    host.unwrap_or(url).eq_ignore_ascii_case(domain)
}

fn place_of<'a>(tables: &'a Tables, name: &Name) -> Place<'a> {
    let path = tables.issuers.get(name).map_or("", |placed: &Placed<_>| placed.path.as_str());
    Place::new(path, format!("issuer.{name}"))
}
