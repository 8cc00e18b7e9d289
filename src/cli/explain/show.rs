//! An explanation on the screen: what, who, the rows with their claims, and what would permit.

use std::fmt::Write;

use dayfly_domain::{Reason, Span};
use serde_json::json;

use crate::{
    cli::{
        args::Output,
        compared,
        identity::Probed,
        print::{document, versioned},
        table::{Table, escape, pairs},
    },
    http::shapes::{Explanation, PolicyByHand, RecordedDecision, UnderForce, WouldGrant},
};

/// Of a fingerprint.
const SHORT: usize = 12;

pub fn explanation(told: &Explanation, output: Output, paint: bool) -> String {
    match output {
        Output::Table => text(told, paint),
        Output::Json | Output::Jsonl => document(versioned(json!(told))),
        Output::Name => format!("{}\n", escape(row_id(told))),
    }
}

/// Each probe, and what policy would say to whom they found.
pub fn here(probed: &[Probed], told: Option<&Explanation>, output: Output, paint: bool) -> String {
    let fired = probed.iter().find(|probed| probed.fired).map_or("", |probed| probed.name);
    match output {
        Output::Table => probes(probed) + &told.map(|told| format!("\n{}", text(told, paint))).unwrap_or_default(),
        Output::Json | Output::Jsonl => {
            let one = |probed: &Probed| json!({ "name": probed.name, "fired": probed.fired, "why": probed.why });
            let probed: Vec<_> = probed.iter().map(one).collect();
            document(json!({ "schema_version": 1, "probes": probed, "explanation": told }))
        }
        Output::Name => format!("{fired}\n"),
    }
}

fn probes(probed: &[Probed]) -> String {
    let mut table = Table::new(&["probe", "fired", "why"]);
    for Probed { name, fired, why } in probed {
        table.row(&[name, if *fired { "yes" } else { "no" }, why]);
    }
    table.render()
}

/// The row that decides or comes nearest.
fn row_id(told: &Explanation) -> &str {
    let deciding = told.grant.as_ref().map(|grant| grant.by.as_str());
    deciding.or(told.rows.first().map(|row| row.id.as_str())).unwrap_or_default()
}

fn text(told: &Explanation, paint: bool) -> String {
    let mut out = pairs(&head(told));
    if told.checks.iter().any(|check| !check.ok) {
        out.push('\n');
        out.push_str(&compared::evidence(&told.checks, paint));
    }
    for (at, row) in told.rows.iter().enumerate() {
        let place = if told.grant.is_some() {
            "row"
        } else if at == 0 {
            "nearest row"
        } else {
            "row"
        };
        out.push('\n');
        out.push_str(&compared::row(row, &format!("{place} `{}` wants", row.id), paint));
    }
    if told.rows_omitted > 0 && told.grant.is_none() {
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "\n  and {} more rows, further away", told.rows_omitted);
    }
    section(&mut out, "in the way", told.obstacles.iter().cloned());
    section(&mut out, "forbidden by", told.forbids.iter().map(by_hand));
    section(&mut out, "permits written by hand, which cannot be taken apart", told.opaque.iter().map(by_hand));
    section(&mut out, "would permit", told.would_permit.iter().cloned());
    section(&mut out, "note", told.notes.iter().cloned());
    out
}

fn head(told: &Explanation) -> Vec<(&'static str, String)> {
    let reason = told.reason.as_deref();
    let help = reason.and_then(Reason::from_code).and_then(|reason| reason.row().help.split(';').next());
    let help = help.unwrap_or_default();
    let why = reason.map(|code| format!(" {code}: {help}")).unwrap_or_default();
    let untrusted = if told.untrusted == Some(true) { ", speaks for unreviewed code" } else { "" };
    let workload = told.workload.as_ref().map(|workload| format!("{workload}{untrusted}"));
    vec![
        ("outcome", format!("{}{why}", told.outcome)),
        ("grant", told.grant.as_ref().map(grant).unwrap_or_default()),
        ("task", told.template.clone()),
        ("workload", workload.unwrap_or_default()),
        ("job", told.job.clone().unwrap_or_default()),
        ("recorded", told.recorded.as_ref().map(recorded).unwrap_or_default()),
        ("bundle", short(&told.bundle)),
        ("in force", told.in_force.as_ref().map(in_force).unwrap_or_default()),
    ]
}

fn grant(grant: &WouldGrant) -> String {
    let what = if grant.opaque { "a permit written by hand" } else { "row" };
    let ttl = u32::try_from(grant.ttl_max_s).map(|ttl_s| Span::seconds(ttl_s).to_string()).unwrap_or_default();
    let target = grant.target.as_ref().map(|target| format!(" on {target}: {}", grant.actions.join(", ")));
    format!("by {what} `{}`{}, {ttl} at most", grant.by, target.unwrap_or_default())
}

fn recorded(recorded: &RecordedDecision) -> String {
    let RecordedDecision { event, kind, at, reason, row, count, .. } = recorded;
    let why = reason.as_ref().or(row.as_ref()).map(|why| format!(" {why}")).unwrap_or_default();
    let count = count.map(|count| format!(" ×{count}")).unwrap_or_default();
    format!("{event} {at} {kind}{count}{why}")
}

fn in_force(now: &UnderForce) -> String {
    let UnderForce { bundle, outcome, reason, by, differs } = now;
    let same = if *differs { "now differs" } else { "the same" };
    let why = reason.as_ref().or(by.as_ref()).map(|why| format!(" {why}")).unwrap_or_default();
    format!("{} {same}: {outcome}{why}", short(bundle))
}

fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(SHORT).collect()
}

fn by_hand(policy: &PolicyByHand) -> String {
    format!("`{}`: {}", policy.id, policy.purpose)
}

fn section(out: &mut String, head: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        let _ = writeln!(out, "\n{head}");
    }
    lines.for_each(|line| {
        let _ = writeln!(out, "  {}", escape(&line));
    });
}
