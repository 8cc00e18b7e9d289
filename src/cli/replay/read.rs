//! From events to decisions: what was asked by whom, and what came of it.
//!
//! A credential's event does not hold the claims; its task's opening does, and comes later, because the
//! ledger is read backwards. So it waits for that.

use std::collections::HashMap;

use dayfly_domain::TaskId;
use serde_json::{Map, Value};

use super::Example;
use crate::{
    flow::Recorded,
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
                let kind = event.context.as_ref().and_then(|context| context.get("kind"));
                let alone = kind.and_then(Value::as_str) == Some("task");
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
    found(event, read(event, opening, Recorded::granted))
}

fn of_refusal(event: &Event) -> Found {
    found(event, read(event, event, Recorded::refused))
}

type Members = Map<String, Value>;

/// An event with the details of it, or of another.
fn read(event: &Event, of: &Event, read: fn(&Members, &Members) -> Option<Recorded>) -> Result<Recorded, Unread> {
    let Ok(Value::Object(members)) = serde_json::to_value(event) else { return Err(Unread::Unreadable) };
    read(&members, details(of)?).ok_or(Unread::Unreadable)
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
