//! The row, and the issuer's table where it is missing, as the bundle's author would write them.
//! In: the facts and the bundle as it is. Out: tables as text, or what stands in the way.

use dayfly_domain::{
    ClaimType, Name,
    bundle::{Bundle, ClaimRule, Issuer, IssuerKind, Template},
};

use super::{
    edit::{Entry, inline, quoted},
    facts::Facts,
};
use crate::cli::{
    args::TrustAddArgs,
    failure::{Exit, Failure},
};

/// A claim of the row and its value, as the platform spells it.
pub type Claim = (String, String);

/// The issuer whose word the row takes.
#[derive(Debug)]
pub struct Source<'a> {
    pub name: Name,
    /// As it is in the bundle; otherwise its table is to be made.
    pub known: Option<&'a Issuer>,
    pub pins: Vec<Claim>,
}

/// The template, or those whose names are near.
pub fn template<'a>(bundle: &'a Bundle, name: &Name) -> Result<&'a Template, Failure> {
    let found = bundle.templates.get(name).ok_or_else(|| {
        let near = near(name, bundle.templates.keys().map(Name::as_str));
        let near: Vec<_> = near.iter().map(|name| format!("`{name}`")).collect();
        let help = format!("near it are {}; `trust add` makes no template", near.join(", "));
        Failure::new(Exit::NotFound, format!("there is no template `{name}`")).help(help)
    })?;
    match found.disabled {
        true => {
            Err(Failure::failed(format!("the template `{name}` is disabled, or its owner is"))
                .help("take that back first"))
        }
        false => Ok(found),
    }
}

/// The issuer that was named, the one that fits, or a new one.
pub fn source<'a>(bundle: &'a Bundle, facts: &Facts, args: &TrustAddArgs) -> Result<Source<'a>, Failure> {
    let name = match &facts.issuer {
        Some(name) => Some(name.clone()),
        None => fitting(bundle, facts, args)?,
    };
    let name = name.unwrap_or_else(|| facts.provider.parse().expect("names of platforms are names"));
    let source = match bundle.issuers.get(&name) {
        Some(known) => taken(known, facts, args)?,
        None => new(name, bundle, facts, args)?,
    };
    foreign_pin(&source, facts)?;
    Ok(source)
}

fn fitting(bundle: &Bundle, facts: &Facts, args: &TrustAddArgs) -> Result<Option<Name>, Failure> {
    let url = args.issuer_url.as_deref();
    let fits = |issuer: &&Issuer| {
        issuer.kind == IssuerKind::Workload
            && &*issuer.profile == facts.provider
            && url.is_none_or(|url| *issuer.url == *url)
    };
    let all: Vec<_> = bundle.issuers.values().filter(fits).collect();
    let ours: Vec<_> =
        all.iter().filter(|issuer| !issuer.disabled && other_pin(&pins(issuer), facts).is_none()).collect();
    match (&all[..], &ours[..]) {
        ([], _) => Ok(None),
        (_, [one]) => Ok(Some(one.name.clone())),
        ([one], []) => Ok(Some(one.name.clone())),
        _ => {
            let names: Vec<_> = all.iter().map(|issuer| format!("--issuer {}", issuer.name)).collect();
            Err(Failure::usage(format!("several issuers of {} could vouch for it", facts.provider))
                .help(names.join(", or ")))
        }
    }
}

fn taken<'a>(known: &'a Issuer, facts: &Facts, args: &TrustAddArgs) -> Result<Source<'a>, Failure> {
    let wrong = |why: String| {
        Err(Failure::failed(format!("the issuer `{}` cannot vouch for it", known.name))
            .because(why)
            .help("name another with `--issuer`; a name that is not there makes a new one"))
    };
    if &*known.profile != facts.provider {
        return wrong(format!("its profile is `{}`, not `{}`", known.profile, facts.provider));
    }
    if known.kind != IssuerKind::Workload {
        return wrong("it can only authenticate introspection".to_owned());
    }
    if known.disabled {
        return wrong("it is disabled, or its owner is".to_owned());
    }
    if let Some(url) = args.issuer_url.as_deref().filter(|url| **url != *known.url) {
        return wrong(format!("its URL is `{}`, not `{url}`", known.url));
    }
    Ok(Source { name: known.name.clone(), known: Some(known), pins: pins(known) })
}

fn new(name: Name, bundle: &Bundle, facts: &Facts, args: &TrustAddArgs) -> Result<Source<'static>, Failure> {
    if facts.provider().needs_url && args.issuer_url.is_none() {
        let what = format!("the bundle has no issuer of {} yet, and its URL is not given", facts.provider);
        return Err(Failure::usage(what).help("--issuer-url https://…, the `iss` of its tokens, byte for byte"));
    }
    // Behind a server of one's own there is nobody else to keep out.
    let profile = bundle.profiles.get(facts.provider);
    let url = args.issuer_url.as_deref().or(profile.and_then(|profile| profile.url.as_deref())).unwrap_or_default();
    let pin = facts.provider().pin.filter(|_| profile.is_none_or(|profile| profile.is_shared_at(url)));
    let pins = pins_of(pin, facts);
    Ok(Source { name, known: None, pins })
}

fn pins_of(pin: Option<&str>, facts: &Facts) -> Vec<Claim> {
    pin.iter().filter_map(|claim| Some(((*claim).to_owned(), facts.ids.get(*claim)?.clone()))).collect()
}

fn pins(issuer: &Issuer) -> Vec<Claim> {
    issuer.pin.iter().map(|(name, value)| (name.clone(), value.to_string())).collect()
}

/// A pin that the workload does not have: its tokens would all be strangers.
fn other_pin<'a>(pins: &'a [Claim], facts: &Facts) -> Option<&'a Claim> {
    pins.iter().find(|(name, value)| facts.ids.get(name.as_str()).is_some_and(|ours| ours != value))
}

fn foreign_pin(source: &Source<'_>, facts: &Facts) -> Result<(), Failure> {
    let Some((claim, pinned)) = other_pin(&source.pins, facts) else { return Ok(()) };
    let ours = &facts.ids[claim.as_str()];
    let name = &source.name;
    Err(Failure::failed(format!(
        "the issuer `{name}` is pinned to `{claim}` {pinned}, and this is of {ours}: it would never match"
    ))
    .help(format!("pin what both have in common in `[issuer.{name}]`, or check the id")))
}

/// What the row wants: ids that no pin says already, what narrows it, and that this is guarded.
pub fn claims(source: &Source<'_>, facts: &Facts) -> Vec<Claim> {
    let provider = facts.provider();
    let pinned = |claim: &str| source.pins.iter().any(|(name, _)| name == claim);
    let own = |claim: &&str, value: &String| ((*claim).to_owned(), value.clone());
    let ids = facts.ids.iter().filter(|(claim, _)| !pinned(claim)).map(|(claim, value)| own(claim, value));
    let narrowed = [(&provider.reference, &facts.reference), (&provider.environment, &facts.environment)];
    let narrowed =
        narrowed.into_iter().filter_map(|(narrow, value)| Some((narrow.as_ref()?.claim.to_owned(), value.clone()?)));
    let guard = facts.guard.map(|claim| (claim.to_owned(), "true".to_owned()));
    ids.chain(narrowed).chain(guard).collect()
}

/// A row of the template that says the same already.
pub fn same<'a>(
    template: &'a Template,
    source: &Source<'_>,
    claims: &[Claim],
    untrusted: bool,
) -> Option<&'a dayfly_domain::bundle::Row> {
    template.rows.iter().find(|row| {
        let says = |(name, value): &Claim| {
            row.claims.get(name).is_some_and(|wanted| wanted.len() == 1 && wanted[0].to_string() == *value)
        };
        row.issuer == source.name
            && row.untrusted == untrusted
            && row.claims.len() == claims.len()
            && claims.iter().all(says)
    })
}

/// The id that was asked for, or one made of the name that nobody has.
pub fn id(bundle: &Bundle, facts: &Facts, args: &TrustAddArgs) -> Result<Name, Failure> {
    let taken = |name: &str| bundle.templates.values().find(|template| template.rows.iter().any(|row| row.id == *name));
    if let Some(asked) = &args.row {
        return match taken(asked) {
            None => Ok(asked.clone()),
            Some(template) => {
                Err(Failure::usage(format!("the row `{asked}` is there already, in `{}`", template.name))
                    .help("give another id with `--row`, or leave it to be made"))
            }
        };
    }
    let last = |text: &String| text.rsplit('/').next().unwrap_or_default().to_owned();
    let subject = facts.name.as_ref().map(last).unwrap_or_else(|| facts.provider.to_owned());
    let place = facts
        .environment
        .clone()
        .or_else(|| facts.reference.as_ref().map(last))
        .unwrap_or_else(|| facts.task.to_string());
    let stem = slug(&format!("{subject}-{place}"));
    let numbered = |number: usize| if number == 1 { stem.clone() } else { format!("{stem}-{number}") };
    let free = (1..=1_000).map(numbered).find(|name| taken(name).is_none());
    let free = free.and_then(|name| name.parse().ok());
    free.ok_or_else(|| Failure::usage("no id could be made for the row").help("give one with `--row`"))
}

fn slug(text: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let mut out: String = text.chars().map(letter).collect();
    while out.contains("--") {
        out = out.replace("--", "-");
    }
    out.truncate(56);
    out.trim_matches('-').to_owned()
}

/// `[[task.N.allow]]`.
pub fn row_entry(
    id: &Name,
    source: &Source<'_>,
    claims: &[Claim],
    facts: &Facts,
    args: &TrustAddArgs,
    rules: &Rules<'_>,
) -> Entry {
    let pairs: Vec<_> = claims.iter().map(|(name, value)| (name.clone(), rules.wanted(name, value))).collect();
    let mut keys = vec![("id", quoted(id)), ("issuer", quoted(&source.name)), ("claims", inline(&pairs))];
    keys.extend(args.ttl.map(|ttl| ("ttl", quoted(&ttl.to_string()))));
    keys.extend(args.owner.as_ref().map(|owner| ("owner", quoted(owner))));
    keys.extend(args.review_by.clone().map(|date| ("review_by", date)));
    keys.extend(facts.untrusted.then(|| ("untrusted", "true".to_owned())));
    let ids: Vec<_> = facts.ids.iter().map(|(claim, value)| format!("{claim} {value}")).collect();
    let comment = facts
        .name
        .as_ref()
        .map(|name| format!("{name}: {}. The name may change hands, the ids never do.", ids.join(", ")));
    Entry { comment, keys }
}

/// `[issuer.N]`.
pub fn issuer_entry(source: &Source<'_>, facts: &Facts, owner: &Name, args: &TrustAddArgs) -> Entry {
    let mut keys = vec![("profile", quoted(facts.provider)), ("owner", quoted(args.owner.as_ref().unwrap_or(owner)))];
    keys.extend(args.issuer_url.as_ref().map(|url| ("url", quoted(url))));
    if let Some(file) = &args.jwks_file {
        keys.push(("keys", inline(&[("jwks_file".to_owned(), quoted(file))])));
    } else if args.ca_file.is_some() || args.allow_private {
        let mut how = vec![("discovery".to_owned(), "true".to_owned())];
        how.extend(args.ca_file.as_ref().map(|file| ("ca_file".to_owned(), quoted(file))));
        how.extend(args.allow_private.then(|| ("allow_private".to_owned(), "true".to_owned())));
        keys.push(("keys", inline(&how)));
    }
    if !source.pins.is_empty() {
        let pins: Vec<_> = source.pins.iter().map(|(name, value)| (name.clone(), quoted(value))).collect();
        keys.push(("pin", inline(&pins)));
    }
    Entry { comment: None, keys }
}

/// How claims are declared, and so how their values are written.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a>(pub &'a std::collections::BTreeMap<String, ClaimRule>);

impl Rules<'_> {
    /// In a row or a pin: typed.
    pub fn wanted(&self, claim: &str, value: &str) -> String {
        match self.kind(claim) {
            ClaimType::Bool | ClaimType::StringBool | ClaimType::Long | ClaimType::StringLong => value.to_owned(),
            ClaimType::String | ClaimType::Set => quoted(value),
        }
    }

    /// In a token: as the platform sends it.
    pub fn raw(&self, claim: &str, value: &str) -> String {
        match self.kind(claim) {
            ClaimType::Bool | ClaimType::Long => value.to_owned(),
            ClaimType::String | ClaimType::StringBool | ClaimType::StringLong => quoted(value),
            ClaimType::Set => format!("[{}]", quoted(value)),
        }
    }

    /// Claims without which no token is read, with a value that can stand there.
    pub fn required(&self) -> impl Iterator<Item = Claim> {
        self.0.iter().filter(|(_, rule)| rule.required).map(|(name, rule)| {
            let value = match rule.kind {
                ClaimType::Bool | ClaimType::StringBool => "false",
                _ => "1",
            };
            (name.clone(), value.to_owned())
        })
    }

    fn kind(&self, claim: &str) -> ClaimType {
        self.0.get(claim).map_or(ClaimType::String, |rule| rule.kind)
    }
}

/// The three names that differ least.
fn near<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all: Vec<_> = all.map(|other| (distance(name, other), other)).collect();
    all.sort_unstable();
    all.into_iter().take(3).map(|(_, other)| other).collect()
}

/// Letters put in, taken out or changed.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_near() {
        assert_eq!((distance("deploy-prd", "deploy-prod"), distance("", "ab"), distance("abc", "abc")), (1, 2, 0));
        let all = ["nightly", "deploy-staging", "deploy-prod", "deploy-docs"];
        assert_eq!(near("deploy-prd", all.into_iter())[0], "deploy-prod");
    }

    #[test]
    fn an_id_is_made_of_what_people_call_it() {
        assert_eq!(slug("Shop.API-Production / EU"), "shop-api-production-eu");
        assert_eq!(slug("--"), "");
        assert!(slug(&"é".repeat(99)).is_empty());
    }
}
