//! From events to decisions: what was asked by whom, and what came of it.
//!
//! A credential's event does not hold the claims; its task's opening does, and comes later, because the
//! ledger is read backwards. So it waits for that.

use std::collections::HashMap;

use dayfly_domain::{BindingKind, Claims, Kind, TaskId};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Example;
use crate::{
    flow::{Recorded, Wanted},
    http::shapes::{Details, Event},
};

/// A decision, or why it is none that could be made again.
#[derive(Debug)]
pub struct Found {
    pub workload: String,
    pub template: String,
    pub before: Before,
    /// How many this one stands for.
    pub count: u64,
    pub example: Example,
    pub recorded: Result<Recorded, Unread>,
}

/// What was decided then.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Before {
    Allowed { row: String },
    Denied { code: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unread {
    Erased,
    NoOpening,
    Unreadable,
}

impl Unread {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Erased => "its details are erased",
            Self::NoOpening => "the opening of its task is not on the record, or not visible",
            Self::Unreadable => "its record is not understood",
        }
    }
}

/// Credentials whose task's opening was not met yet.
#[derive(Debug, Default)]
pub struct Reading {
    waiting: HashMap<TaskId, Vec<Event>>,
}

/// What is refused once a proof was looked at.
const AFTER_PROOF: [&str; 6] = ["E-NOMATCH", "E-FORBIDDEN", "E-POLICY", "E-DETAILS", "E-TARGET", "E-DPOP"];

impl Reading {
    pub fn take(&mut self, event: Event) -> Vec<Found> {
        match event.kind.as_str() {
            "issued" => {
                if let Some(task) = event.task {
                    self.waiting.entry(task).or_default().push(event);
                }
                Vec::new()
            }
            "task_opened" => {
                let alone = text(event.context.as_ref(), "kind").as_deref() == Some("task");
                let own = alone.then(|| of_opening(&event, &event));
                self.open(event).into_iter().chain(own).collect()
            }
            "denied" => vec![of_refusal(&event)],
            _ => Vec::new(),
        }
    }

    /// What waited for this opening; nothing for any other event.
    pub fn open(&mut self, event: Event) -> Vec<Found> {
        let waited = event.task.filter(|_| event.kind == "task_opened").and_then(|task| self.waiting.remove(&task));
        waited.into_iter().flatten().map(|issued| of_opening(&issued, &event)).collect()
    }

    pub fn unopened(&self) -> Vec<TaskId> {
        self.waiting.keys().copied().collect()
    }

    /// What waited in vain.
    pub fn rest(&mut self) -> Vec<Found> {
        let waited = self.waiting.drain().flat_map(|(_, events)| events);
        waited.map(|event| found(&event, Err(Unread::NoOpening))).collect()
    }
}

/// A credential with the opening of its task, or the opening of a task alone.
fn of_opening(event: &Event, opening: &Event) -> Found {
    found(event, details(opening).and_then(|details| granted(event, details).ok_or(Unread::Unreadable)))
}

fn of_refusal(event: &Event) -> Found {
    found(event, details(event).and_then(|details| refused(event, details).ok_or(Unread::Unreadable)))
}

fn found(event: &Event, recorded: Result<Recorded, Unread>) -> Found {
    let before = match &event.row {
        Some(row) => Before::Allowed { row: row.clone() },
        None => Before::Denied { code: event.reason.clone().unwrap_or_default() },
    };
    Found {
        workload: event.workload.clone().unwrap_or_else(|| "(erased)".to_owned()),
        template: event.template.clone().unwrap_or_default(),
        before,
        count: event.count.unwrap_or(1),
        example: event.id,
        recorded,
    }
}

fn details(event: &Event) -> Result<&Map<String, Value>, Unread> {
    match &event.details {
        Some(Details::Open(details)) => Ok(details),
        Some(Details::Erased(_)) => Err(Unread::Erased),
        None => Err(Unread::Unreadable),
    }
}

fn granted(event: &Event, opening: &Map<String, Value>) -> Option<Recorded> {
    let context = event.context.as_ref()?;
    let wanted = match (text(Some(context), "kind")?.parse::<Kind>().ok(), &event.target) {
        (Some(kind), Some(target)) => {
            Wanted::Granted { kind, target: target.clone(), actions: asked_on(context, target, event) }
        }
        _ => Wanted::Task,
    };
    Some(Recorded {
        wanted,
        ttl_s: member::<u32>(context, "ttl"),
        ticket: text(Some(opening), "ticket"),
        ..common(event, context, opening)?
    })
}

/// What was asked on the target, which may be more than was granted.
fn asked_on(context: &Map<String, Value>, target: &str, event: &Event) -> Vec<String> {
    let asked: Vec<String> = member(context, "ask").unwrap_or_default();
    let on = |pair: &String| pair.strip_prefix(target)?.strip_prefix('#').map(str::to_owned);
    let asked: Vec<String> = asked.iter().filter_map(on).collect();
    if asked.is_empty() { event.actions.clone().unwrap_or_default() } else { asked }
}

fn refused(event: &Event, details: &Map<String, Value>) -> Option<Recorded> {
    let context = event.context.as_ref()?;
    let asked: Map<String, Value> = member(details, "asked")?;
    let wanted = match text(Some(context), "kind")?.parse::<Kind>() {
        Ok(kind) => {
            Wanted::Asked { kind, resource: text(Some(&asked), "resource"), actions: member(&asked, "actions") }
        }
        Err(_) => Wanted::Task,
    };
    // A profile refuses before a proof is looked at.
    let early = event.reason.as_deref().is_none_or(|code| !AFTER_PROOF.contains(&code));
    let common = common(event, context, details)?;
    Some(Recorded {
        wanted,
        template: text(Some(&asked), "template")?,
        ttl_s: member(&asked, "ttl"),
        ticket: text(Some(details), "ticket"),
        proven: common.proven.filter(|_| !early),
        ..common
    })
}

fn common(event: &Event, context: &Map<String, Value>, details: &Map<String, Value>) -> Option<Recorded> {
    Some(Recorded {
        issuer: event.issuer.clone()?,
        claims: member::<Claims>(details, "claims")?,
        template: event.template.clone().unwrap_or_default(),
        wanted: Wanted::Task,
        ttl_s: None,
        ticket: None,
        proven: text(Some(context), "binding").and_then(|word| word.parse::<BindingKind>().ok()),
        age_s: member(context, "age_s").unwrap_or(0),
        held: member(context, "held").unwrap_or_default(),
    })
}

fn text(map: Option<&Map<String, Value>>, name: &str) -> Option<String> {
    map?.get(name)?.as_str().map(str::to_owned)
}

fn member<T: DeserializeOwned>(map: &Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(map.get(name)?.clone()).ok()
}
