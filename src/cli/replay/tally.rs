//! What would be otherwise, by who, what and how.

use std::collections::BTreeMap;

use dayfly_domain::Reason;
use serde_json::{Value, json};

use super::{
    Example,
    read::{Before, Found},
};
use crate::{
    cli::{
        args::Output,
        print::{document, versioned},
        table::Table,
    },
    flow::{Verdict, replay, was_judged},
    policy::Policy,
};

/// Name of everything in the overlay of `dayfly dev`, which no folder holds.
const OVERLAY: &str = "dayfly-dev";

/// How a decision would be otherwise; the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Allowed,
    Denied,
    Fewer,
    OtherRow,
    OtherReason,
}

impl Change {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "newly allowed",
            Self::Denied => "newly denied",
            Self::Fewer => "fewer actions",
            Self::OtherRow => "other row",
            Self::OtherReason => "other reason",
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    change: Change,
    workload: String,
    template: String,
    before: String,
    after: String,
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Tally {
    groups: BTreeMap<Group, (u64, Example)>,
    same: u64,
    /// Why, and how many.
    left_out: BTreeMap<String, u64>,
}

impl Tally {
    pub fn judge(&mut self, found: Found, policy: &Policy) {
        let count = found.count;
        match outcome(&found, policy) {
            Ok(None) => self.same += count,
            Ok(Some((change, after))) => {
                let Found { workload, template, before, example, .. } = found;
                let before = match before {
                    Before::Allowed { row } => format!("row {row}"),
                    Before::Denied { code } => code,
                };
                let group = Group { change, workload, template, before, after };
                self.groups.entry(group).or_insert((0, example)).0 += count;
            }
            Err(why) => *self.left_out.entry(why).or_default() += count,
        }
    }

    pub fn decisions(&self) -> u64 {
        self.same + self.left_out() + self.groups.values().map(|(count, _)| count).sum::<u64>()
    }

    /// Who would newly be denied, and allowed.
    pub fn newly(&self) -> (u64, u64) {
        (self.count(Change::Denied), self.count(Change::Allowed))
    }

    fn left_out(&self) -> u64 {
        self.left_out.values().sum()
    }

    pub fn count(&self, change: Change) -> u64 {
        self.groups.iter().filter(|(group, _)| group.change == change).map(|(_, (count, _))| count).sum()
    }

    pub fn summary(&self) -> String {
        let (denied, allowed) = self.newly();
        let mut text = format!(
            "{} decisions: {denied} newly denied, {allowed} newly allowed, {} with fewer actions, {} by another row, \
             {} refused otherwise, {} the same, {} not judged",
            self.decisions(),
            self.count(Change::Fewer),
            self.count(Change::OtherRow),
            self.count(Change::OtherReason),
            self.same,
            self.left_out(),
        );
        let why: Vec<String> = self.left_out.iter().map(|(why, count)| format!("{count} {why}")).collect();
        if !why.is_empty() {
            text.push_str(&format!(" ({})", why.join("; ")));
        }
        text
    }

    pub fn print(&self, fingerprint: &str, output: Output) -> String {
        match output {
            Output::Table => self.table(),
            Output::Json => document(self.json(fingerprint)),
            Output::Jsonl => self.changes().map(|change| document(versioned(change))).collect(),
            Output::Name => self.groups.values().map(|(_, example)| format!("{example}\n")).collect(),
        }
    }

    fn table(&self) -> String {
        if self.groups.is_empty() {
            return String::new();
        }
        let mut table = Table::new(&["change", "workload", "template", "before", "after", "count", "example"]);
        for (Group { change, workload, template, before, after }, (count, example)) in &self.groups {
            let (count, example) = (count.to_string(), example.to_string());
            table.row(&[change.as_str(), workload, template, before, after, &count, &example]);
        }
        table.render()
    }

    fn changes(&self) -> impl Iterator<Item = Value> {
        self.groups.iter().map(|(Group { change, workload, template, before, after }, (count, example))| {
            json!({
                "change": change.as_str().replace(' ', "_"), "workload": workload, "template": template,
                "before": before, "after": after, "count": count, "example": example.to_string(),
            })
        })
    }

    fn json(&self, fingerprint: &str) -> Value {
        let (denied, allowed) = self.newly();
        json!({
            "schema_version": 1, "bundle": fingerprint, "decisions": self.decisions(),
            "newly_denied": denied, "newly_allowed": allowed, "fewer_actions": self.count(Change::Fewer),
            "other_row": self.count(Change::OtherRow), "other_reason": self.count(Change::OtherReason),
            "same": self.same, "not_judged": self.left_out, "changes": self.changes().collect::<Vec<_>>(),
        })
    }
}

/// What would be otherwise, if anything; or why that is not known.
fn outcome(found: &Found, policy: &Policy) -> Result<Option<(Change, String)>, String> {
    if found.template == OVERLAY {
        return Err("of `dayfly dev` itself".to_owned());
    }
    if let Before::Denied { code } = &found.before
        && !Reason::from_code(code).is_some_and(|reason| was_judged(policy.bundle(), reason))
    {
        return Err(format!("refused with {code}, which is no decision of policy"));
    }
    let recorded = found.recorded.as_ref().map_err(|why| why.as_str().to_owned())?;
    // Whose claim it is, is not told: many of them would make many lines.
    let verdict = replay(policy, recorded).map_err(|why| why.to_string())?;
    Ok(match (&found.before, verdict) {
        (Before::Allowed { .. }, Verdict::Denied { reason, policies }) => {
            Some((Change::Denied, said(reason, &policies)))
        }
        (Before::Denied { .. }, Verdict::Allowed { row, .. }) => Some((Change::Allowed, format!("row {row}"))),
        (Before::Allowed { .. }, Verdict::Allowed { row, without }) if !without.is_empty() => {
            Some((Change::Fewer, format!("row {row} without {}", without.join(", "))))
        }
        (Before::Allowed { row: before }, Verdict::Allowed { row, .. }) => {
            (*before != row).then(|| (Change::OtherRow, format!("row {row}")))
        }
        (Before::Denied { code }, Verdict::Denied { reason, policies }) => {
            (code != reason.code()).then(|| (Change::OtherReason, said(reason, &policies)))
        }
    })
}

fn said(reason: Reason, policies: &[String]) -> String {
    match policies {
        [] => reason.code().to_owned(),
        policies => format!("{} by {}", reason.code(), policies.join(", ")),
    }
}
