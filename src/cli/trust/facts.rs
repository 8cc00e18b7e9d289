//! Who the new row is for: ids that never change hands, and what narrows it. In: what was typed, the
//! answer of a platform's public API, or a refusal of the ledger. Nothing is ever bound to a name.

use std::collections::BTreeMap;

use dayfly_domain::{Name, Reason, bundle::Bundle};
use serde_json::{Map, Value};

use super::provider::{Id, PROVIDERS, Provider, provider};
use crate::{
    cli::{
        args::{EventId, TrustAddArgs},
        door::Door,
        explain::COLLAPSED,
        failure::{Exit, Failure},
        session::Session,
    },
    http::shapes::{Details, Event},
    sys::net::{Fetch, Fetcher},
};

/// What a row is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub provider: &'static str,
    pub task: Name,
    /// For people; checked, so that it can stand in a comment.
    pub name: Option<String>,
    /// The ids, by claim.
    pub ids: BTreeMap<&'static str, String>,
    /// The parts of the name, by claim.
    pub parts: BTreeMap<&'static str, String>,
    pub reference: Option<String>,
    pub environment: Option<String>,
    /// A claim that must be `true`: the platform guards what narrows the row.
    pub guard: Option<&'static str>,
    pub untrusted: bool,
    /// The issuer's table that was named, or that the refusal names.
    pub issuer: Option<Name>,
}

impl Facts {
    pub fn provider(&self) -> &'static Provider {
        provider(self.provider).expect("facts are made of a known platform")
    }
}

/// From what was typed, and from the refusal where one is named.
pub async fn gather(args: &TrustAddArgs, bundle: &Bundle, session: &Session) -> Result<Facts, Failure> {
    let seen = match args.from {
        Some(id) => Some(Seen::of(id, &event(id, args, session).await?, bundle, args.untrusted)?),
        None => None,
    };
    let mut facts = from(args, seen)?;
    if args.lookup && missing(&facts).is_some() {
        look_up(&mut facts, args.issuer_url.as_deref()).await?;
    }
    match missing(&facts) {
        None => Ok(facts),
        Some(id) => Err(unknown_id(&facts, id, args)),
    }
}

/// What a refusal says of the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    provider: &'static str,
    issuer: Name,
    task: Option<Name>,
    claims: Map<String, Value>,
    untrusted: bool,
}

async fn event(id: EventId, args: &TrustAddArgs, session: &Session) -> Result<Event, Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    api.event(id).await.map_err(|error| {
        let failure = error.failure("the refusal cannot be read");
        match error.reason() {
            Some(Reason::NotFound) => failure.help(COLLAPSED),
            _ => failure,
        }
    })
}

impl Seen {
    fn of(id: EventId, event: &Event, bundle: &Bundle, untrusted: bool) -> Result<Self, Failure> {
        let about = format!("dayfly ledger show {id}");
        if event.reason.as_deref() != Some(Reason::NoMatch.code()) {
            let why = match &event.reason {
                Some(reason) => format!("its reason is {reason}, which no row changes"),
                None => format!("it is an event `{}`", event.kind),
            };
            return Err(Failure::usage(format!("`{id}` is no refusal that a row could lift")).because(why).help(about));
        }
        let Some(Details::Open(details)) = &event.details else {
            return Err(Failure::usage(format!("the details of `{id}` were erased")).help("give the ids yourself"));
        };
        let speaks = details.get("untrusted").and_then(Value::as_bool).unwrap_or(true);
        // SECURITY: `a_refusal_of_unreviewed_code_is_no_template_for_a_row`
        if speaks && !untrusted {
            return Err(Failure::usage(format!("`{id}` is of code that nobody reviewed (a pull request)"))
                .because("a row for it lets in whoever can open one")
                .help("only if that is meant, add `--untrusted`"));
        }
        let issuer = event.issuer.as_deref().and_then(|name| bundle.issuers.get(name));
        let issuer = issuer.ok_or_else(|| {
            let name = event.issuer.clone().unwrap_or_default();
            Failure::usage(format!("the bundle has no issuer `{name}`, of which `{id}` is")).help(about)
        })?;
        let claims = details.get("claims").and_then(Value::as_object).cloned().unwrap_or_default();
        Ok(Self {
            provider: provider(&issuer.profile).ok_or_else(|| no_provider(&issuer.profile))?.name,
            issuer: issuer.name.clone(),
            task: event.template.as_deref().and_then(|name| name.parse().ok()),
            claims,
            untrusted: speaks,
        })
    }

    fn text(&self, claim: &str) -> Option<String> {
        match self.claims.get(claim)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn holds(&self, claim: &str) -> bool {
        matches!(self.claims.get(claim), Some(Value::Bool(true)))
    }

    /// The name that the claims tell, if it can be shown.
    fn name(&self, provider: &Provider) -> Option<String> {
        let whole = provider.whole.and_then(|claim| self.text(claim));
        let joined = || provider.parts.iter().map(|claim| self.text(claim)).collect::<Option<Vec<_>>>();
        whole
            .or_else(|| joined().filter(|parts| !parts.is_empty()).map(|parts| parts.join("/")))
            .filter(|name| is_name(provider, name))
    }
}

pub(super) fn from(args: &TrustAddArgs, seen: Option<Seen>) -> Result<Facts, Failure> {
    let named = args.platform.as_deref().or(seen.as_ref().map(|seen| seen.provider)).unwrap_or_default();
    let provider = provider(named).ok_or_else(|| no_provider(named))?;
    if let Some(seen) = seen.as_ref().filter(|seen| seen.provider != provider.name) {
        return Err(Failure::usage(format!("the refusal is of `{}`, not of `{named}`", seen.provider)));
    }
    if let Some(name) = args.name.as_deref().filter(|name| !is_name(provider, name)) {
        return Err(Failure::usage(format!("`{name}` is no name of {}: expected {}", provider.name, provider.shape)));
    }
    foreign_options(args, provider)?;
    let told = |claim: Option<&str>| claim.and_then(|claim| seen.as_ref()?.text(claim));
    let mut ids = BTreeMap::new();
    for id in provider.ids {
        if let Some(value) = given(args, id.option).map(str::to_owned).or_else(|| told(Some(id.claim))) {
            ids.insert(id.claim, checked_id(id, value)?);
        }
    }
    let name = args.name.clone().or_else(|| seen.as_ref()?.name(provider));
    let reference =
        checked_ref(args.reference.clone().or_else(|| told(provider.reference.as_ref().map(|narrow| narrow.claim))))?;
    let environment = checked_text(
        "--environment",
        args.environment.clone().or_else(|| told(provider.environment.as_ref().map(|narrow| narrow.claim))),
    )?;
    let narrowed = match (&environment, &reference) {
        (Some(_), _) => provider.environment.as_ref(),
        (None, Some(_)) => provider.reference.as_ref(),
        (None, None) => None,
    };
    // What was refused without a guard would be refused again with one.
    let unguarded = |claim: &&str| args.unprotected || seen.as_ref().is_some_and(|seen| !seen.holds(claim));
    let split = |name: &String| provider.parts.iter().copied().zip(name.split('/').map(str::to_owned)).collect();
    Ok(Facts {
        provider: provider.name,
        task: args.task.clone().or_else(|| seen.as_ref()?.task.clone()).ok_or_else(no_task)?,
        parts: name.as_ref().map(split).unwrap_or_default(),
        name,
        ids,
        guard: narrowed.and_then(|narrow| narrow.guard).filter(|claim| !unguarded(claim)),
        reference,
        environment,
        untrusted: seen.as_ref().is_some_and(|seen| seen.untrusted),
        issuer: args.issuer.clone().or_else(|| Some(seen.as_ref()?.issuer.clone())),
    })
}

/// Options of one platform given for another would be ignored, and trust is not guessed.
fn foreign_options(args: &TrustAddArgs, provider: &Provider) -> Result<(), Failure> {
    let all = PROVIDERS.iter().flat_map(|provider| provider.ids).map(|id| id.option);
    let own = |option: &str| provider.ids.iter().any(|id| id.option == option);
    let foreign = all.into_iter().find(|option| !own(option) && given(args, option).is_some());
    let foreign = foreign
        .or_else(|| args.reference.as_ref().filter(|_| provider.reference.is_none()).map(|_| "--ref"))
        .or_else(|| args.environment.as_ref().filter(|_| provider.environment.is_none()).map(|_| "--environment"));
    match foreign {
        None => Ok(()),
        Some(option) => {
            let own: Vec<_> = provider.ids.iter().map(|id| format!("`{}`", id.option)).collect();
            Err(Failure::usage(format!("`{option}` says nothing of {}", provider.name))
                .help(format!("it is known by {}", own.join(" and "))))
        }
    }
}

fn given<'a>(args: &'a TrustAddArgs, option: &str) -> Option<&'a str> {
    let value = match option {
        "--owner-id" => &args.owner_id,
        "--repository-id" => &args.repository_id,
        "--project-id" => &args.project_id,
        "--namespace-id" => &args.namespace_id,
        "--uid" => &args.uid,
        _ => return None,
    };
    value.as_deref()
}

fn is_name(provider: &Provider, name: &str) -> bool {
    let part = |part: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (1..=255).contains(&part.len()) && part.bytes().all(letter) && !part.starts_with("..") && part != "."
    };
    let count = name.split('/').count();
    name.split('/').all(part) && (count == 2 || (provider.nested && count > 2))
}

fn checked_id(id: &Id, value: String) -> Result<String, Failure> {
    let digits = || value.bytes().all(|byte| byte.is_ascii_digit());
    let word = || value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !value.is_empty() && value.len() <= 64 && if id.digits { digits() } else { word() } {
        return Ok(value);
    }
    let kind = if id.digits { "a number" } else { "an id" };
    Err(Failure::usage(format!("`{}` is `{value}`, which is not {kind}", id.option)))
}

fn checked_ref(reference: Option<String>) -> Result<Option<String>, Failure> {
    let reference = checked_text("--ref", reference)?;
    match reference.as_deref() {
        Some(short) if !short.starts_with("refs/") => {
            Err(Failure::usage(format!("`--ref` is `{short}`, which is not a whole ref"))
                .help(format!("--ref refs/heads/{short} for a branch, --ref refs/tags/{short} for a tag")))
        }
        _ => Ok(reference),
    }
}

fn checked_text(option: &str, text: Option<String>) -> Result<Option<String>, Failure> {
    match text.as_deref() {
        Some(text) if text.trim().is_empty() => Err(Failure::usage(format!("`{option}` is empty"))),
        Some(text) if text.contains('*') => {
            Err(Failure::usage(format!("`{option}` is `{text}`: a row has no wildcards"))
                .help("add a row for each value"))
        }
        _ => Ok(text),
    }
}

fn missing(facts: &Facts) -> Option<&'static Id> {
    facts.provider().ids.iter().find(|id| !facts.ids.contains_key(id.claim))
}

/// Asks the platform's public API; a renamed repository answers with a redirect, which is not followed.
async fn look_up(facts: &mut Facts, home: Option<&str>) -> Result<(), Failure> {
    let provider = facts.provider();
    let (Some(lookup), Some(name)) = (&provider.lookup, facts.name.clone()) else {
        return Err(Failure::usage(format!("{} has no public API that tells ids", provider.name)).help(by_hand(facts)));
    };
    let home = home.unwrap_or(provider.home).trim_end_matches('/');
    let url = format!("{home}{}", filled(lookup.path, &name));
    let fetch = Fetch { url: url.clone(), ca_pem: None, allow_private: false };
    let failed = |why: String| {
        Failure::new(Exit::Unavailable, format!("the ids of `{name}` cannot be looked up at `{url}`"))
            .because(why)
            .help(format!("print them yourself, and give them: {}", by_hand(facts)))
    };
    let fetcher = Fetcher::by_environment().map_err(|error| failed(error.to_string()))?;
    let body = fetcher.get(&fetch).await.map_err(|error| failed(error.to_string()))?;
    let found = looked_up(provider, &name, &body).map_err(failed)?;
    for (claim, value) in found {
        facts.ids.entry(claim).or_insert(value);
    }
    Ok(())
}

/// The ids of the answer, which must be about this name.
fn looked_up(provider: &Provider, name: &str, body: &[u8]) -> Result<Vec<(&'static str, String)>, String> {
    let Some(lookup) = &provider.lookup else { return Err("there is no such API".to_owned()) };
    let answer: Value = serde_json::from_slice(body).map_err(|_| "the answer is not JSON".to_owned())?;
    let told = answer.pointer(lookup.name_at).and_then(Value::as_str).unwrap_or_default();
    if !told.eq_ignore_ascii_case(name) {
        return Err("the answer is about another name".to_owned());
    }
    let id = |id: &Id| match answer.pointer(id.pointer) {
        Some(Value::Number(number)) => Ok((id.claim, number.to_string())),
        _ => Err(format!("the answer has no number at `{}`", id.pointer)),
    };
    provider.ids.iter().map(id).collect()
}

fn by_hand(facts: &Facts) -> String {
    filled(facts.provider().print_ids, facts.name.as_deref().unwrap_or("NAME"))
}

fn filled(text: &str, name: &str) -> String {
    let (first, last) = name.split_once('/').unwrap_or((name, name));
    let places = [("{name}", name), ("{escaped}", &name.replace('/', "%2F")), ("{first}", first), ("{last}", last)];
    places.iter().fold(text.to_owned(), |text, (place, value)| text.replace(place, value))
}

// SECURITY: `nothing_is_bound_to_a_name`
fn unknown_id(facts: &Facts, id: &Id, args: &TrustAddArgs) -> Failure {
    let options: Vec<_> = facts.provider().ids.iter().map(|id| format!("{} …", id.option)).collect();
    let lookup = match facts.provider().lookup.is_some() && !args.lookup {
        true => "\n        or let this ask the platform's public API: --lookup",
        false => "",
    };
    let what =
        format!("a row binds to ids, and `{}` of `{}` is not given", id.option, facts.name.as_deref().unwrap_or("it"));
    Failure::usage(what).because("a name can be renamed away and taken by someone else").help(format!(
        "{}\n        then: {}{lookup}",
        by_hand(facts),
        options.join(" ")
    ))
}

fn no_provider(name: &str) -> Failure {
    let known: Vec<_> = PROVIDERS.iter().map(|provider| format!("`{}`", provider.name)).collect();
    Failure::usage(format!("`{name}` is not one of {}", known.join(", ")))
        .help("write the row by hand: docs/how-to/trust-a-workflow.md")
}

fn no_task() -> Failure {
    Failure::usage("the refusal names no template of a bundle").help("say which one: --task NAME")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = br#"{"id":88120,"full_name":"Acme/Shop","owner":{"id":4411,"login":"acme"},"more":[]}"#;

    #[test]
    fn an_answer_about_another_name_is_not_taken() {
        let github = provider("github").unwrap();
        let found = looked_up(github, "acme/shop", ANSWER).unwrap();
        assert_eq!(found, [("repository_owner_id", "4411".to_owned()), ("repository_id", "88120".to_owned())]);
        assert!(looked_up(github, "acme/web", ANSWER).unwrap_err().contains("another name"));
        let text = br#"{"id":"88120","full_name":"acme/shop","owner":{"id":4411}}"#;
        assert!(looked_up(github, "acme/shop", text).unwrap_err().contains("`/id`"));
        assert!(looked_up(github, "acme/shop", b"<html>").is_err());
    }

    fn seen(event: Value, untrusted: bool) -> Result<Seen, Failure> {
        let shop = include_str!("../../../policies/shop.toml");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("shop.toml"), shop).unwrap();
        let env = crate::policy::BundleEnv {
            issuer_url: "https://b.example".to_owned(),
            broker_binding: dayfly_domain::BindingKind::Dpop,
        };
        let folder = crate::flow::Folder { path: dir.path().to_owned(), env };
        let (bundle, _) = folder.parse(&folder.read().unwrap()).unwrap();
        Seen::of(EventId::from_parts(3, [0; 10]), &serde_json::from_value(event).unwrap(), &bundle, untrusted)
    }

    fn refusal(claims: Value, untrusted: bool) -> Value {
        serde_json::json!({
            "id": EventId::from_parts(3, [0; 10]), "seq": 3, "at": "2026-11-22T05:00:00Z", "type": "denied",
            "reason": "E-NOMATCH", "issuer": "github", "template": "deploy-prod",
            "details": { "claims": claims, "untrusted": untrusted },
        })
    }

    fn claims() -> Value {
        serde_json::json!({
            "repository": "acme/web", "repository_id": "5", "repository_owner_id": "0004411",
            "ref": "refs/heads/main", "ref_protected": false, "environment": "production",
        })
    }

    fn add(line: &str) -> TrustAddArgs {
        use clap::Parser;
        let words = format!("dayfly trust add {line}");
        match crate::cli::args::Cli::try_parse_from(words.split_whitespace()).unwrap().verb {
            crate::cli::args::Verb::Trust(crate::cli::args::TrustVerb::Add(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refusal_tells_ids_ref_and_environment() {
        let evt = format!("--from {}", EventId::from_parts(3, [0; 10]));
        let facts = from(&add(&evt), Some(seen(refusal(claims(), false), false).unwrap())).unwrap();
        assert_eq!((facts.task.as_str(), facts.name.as_deref()), ("deploy-prod", Some("acme/web")));
        assert_eq!((&*facts.ids["repository_id"], &*facts.ids["repository_owner_id"]), ("5", "0004411"));
        assert_eq!(
            (facts.reference.as_deref(), facts.environment.as_deref()),
            (Some("refs/heads/main"), Some("production"))
        );
        assert_eq!(facts.issuer.as_deref(), Some("github"));
        let mut bare = claims();
        bare.as_object_mut().unwrap().remove("environment");
        let facts = from(&add(&evt), Some(seen(refusal(bare, false), false).unwrap())).unwrap();
        assert_eq!(facts.guard, None, "the ref that was refused is not protected");
        let other = from(&add(&format!("gitlab {evt}")), Some(seen(refusal(claims(), false), false).unwrap()));
        assert!(other.is_err());
    }

    #[test]
    fn a_name_of_a_claim_that_cannot_be_shown_is_left_out() {
        let mut odd = claims();
        odd["repository"] = "acme/web\n[task.x]".into();
        let evt = format!("--from {}", EventId::from_parts(3, [0; 10]));
        let facts = from(&add(&evt), Some(seen(refusal(odd, false), false).unwrap())).unwrap();
        assert_eq!(facts.name, None);
    }

    #[test]
    fn a_refusal_of_unreviewed_code_is_no_template_for_a_row() {
        let failure = seen(refusal(claims(), true), false).unwrap_err();
        assert!(failure.exit() == 2 && failure.text("error").contains("--untrusted"), "{failure:?}");
        assert!(seen(refusal(claims(), true), true).unwrap().untrusted);
        let mut unsaid = refusal(claims(), false);
        unsaid["details"].as_object_mut().unwrap().remove("untrusted");
        assert!(seen(unsaid, false).is_err(), "what is not said counts as unreviewed");
    }

    #[test]
    fn an_event_that_no_row_changes_is_refused() {
        let mut other = refusal(claims(), false);
        other["reason"] = "E-FORBIDDEN".into();
        assert!(seen(other, false).unwrap_err().text("error").contains("which no row changes"));
        let mut erased = refusal(claims(), false);
        erased["details"] = "erased".into();
        assert!(seen(erased, false).unwrap_err().text("error").contains("were erased"));
        let mut gone = refusal(claims(), false);
        gone["issuer"] = "gone".into();
        assert!(seen(gone, false).unwrap_err().text("error").contains("no issuer `gone`"));
    }
}
