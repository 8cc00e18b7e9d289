//! A decision as its events tell it. In: an event's body and what of it may be erased, from the
//! broker's own rows or from its answers. Out: what was asked by whom, so that it can be decided again.

use dayfly_domain::{BindingKind, Claims, Kind, Reason};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::replay::decided;

/// A decision as its events tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub issuer: String,
    pub claims: Claims,
    pub template: String,
    pub wanted: Wanted,
    pub ttl_s: Option<u32>,
    pub ticket: Option<String>,
    /// `None`: refused before a proof was looked at.
    pub proven: Option<BindingKind>,
    pub age_s: i64,
    pub held: Vec<String>,
}

/// What was wanted, as far as the record tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Task,
    /// Of what was granted: the target's name, and what was asked on it, named or not.
    Granted {
        kind: Kind,
        target: String,
        actions: Vec<String>,
    },
    /// Of what was refused: the caller's own words.
    Asked {
        kind: Kind,
        resource: Option<String>,
        actions: Option<Vec<String>>,
    },
}

type Members = Map<String, Value>;

impl Recorded {
    /// Of a credential with the details of its task's opening, or of the opening of a task alone.
    pub fn granted(event: &Members, opening: &Members) -> Option<Self> {
        let context: Members = member(event, "context")?;
        let wanted = match (kind(&context)?, target(event, &context)) {
            (Some(kind), Some(target)) => {
                let actions = asked_on(&context, &target, event);
                Wanted::Granted { kind, target, actions }
            }
            _ => Wanted::Task,
        };
        let ttl_s = member(&context, "ttl");
        Some(Self { wanted, ttl_s, ticket: text(opening, "ticket"), ..common(event, &context, opening)? })
    }

    pub fn refused(event: &Members, details: &Members) -> Option<Self> {
        let context: Members = member(event, "context")?;
        let asked: Members = member(details, "asked")?;
        let wanted = match kind(&context)? {
            Some(kind) => {
                Wanted::Asked { kind, resource: text(&asked, "resource"), actions: member(&asked, "actions") }
            }
            None => Wanted::Task,
        };
        // A profile refuses before a proof is looked at.
        let reason = text(event, "reason").and_then(|code| Reason::from_code(&code));
        let common = common(event, &context, details)?;
        Some(Self {
            wanted,
            template: text(&asked, "template")?,
            ttl_s: member(&asked, "ttl"),
            ticket: text(details, "ticket"),
            proven: common.proven.filter(|_| reason.is_some_and(decided)),
            ..common
        })
    }
}

/// `None` in it: a task alone.
fn kind(context: &Members) -> Option<Option<Kind>> {
    Some(text(context, "kind")?.parse().ok())
}

/// Of an opening with a credential, only what was asked names it.
fn target(event: &Members, context: &Members) -> Option<String> {
    text(event, "target").or_else(|| Some(asked(context).first()?.split_once('#')?.0.to_owned()))
}

/// What was asked on the target, which may be more than was granted.
fn asked_on(context: &Members, target: &str, event: &Members) -> Vec<String> {
    let on = |pair: &String| pair.strip_prefix(target)?.strip_prefix('#').map(str::to_owned);
    let asked: Vec<String> = asked(context).iter().filter_map(on).collect();
    if asked.is_empty() { member(event, "actions").unwrap_or_default() } else { asked }
}

fn asked(context: &Members) -> Vec<String> {
    member(context, "ask").unwrap_or_default()
}

fn common(event: &Members, context: &Members, details: &Members) -> Option<Recorded> {
    Some(Recorded {
        issuer: text(event, "issuer")?,
        claims: member(details, "claims")?,
        template: text(event, "template").unwrap_or_default(),
        wanted: Wanted::Task,
        ttl_s: None,
        ticket: None,
        proven: text(context, "binding").and_then(|word| word.parse().ok()),
        age_s: member(context, "age_s").unwrap_or(0),
        held: member(context, "held").unwrap_or_default(),
    })
}

fn text(members: &Members, name: &str) -> Option<String> {
    members.get(name)?.as_str().map(str::to_owned)
}

fn member<T: DeserializeOwned>(members: &Members, name: &str) -> Option<T> {
    serde_json::from_value(members.get(name)?.clone()).ok()
}
