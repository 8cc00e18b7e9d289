//! What an examination says: of what, how it is, and the command that mends it.

use std::fmt::Write;

use serde::Serialize;
use serde_json::json;

use crate::cli::{
    args::Output,
    print::document,
    table::{Table, escape},
};

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It works, and will not for ever, or not as it should.
    Warning,
    /// Something does not work, or would not start.
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `settings`, `clock`, `disk` and so on.
    pub area: &'static str,
    pub verdict: Verdict,
    pub what: String,
    /// The exact command, or what to do where no command does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    pub fn ok(area: &'static str, what: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Ok, what: what.into(), mend: None }
    }

    pub fn warning(area: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Warning, what: what.into(), mend: Some(mend.into()) }
    }

    pub fn wrong(area: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Wrong, what: what.into(), mend: Some(mend.into()) }
    }
}

/// How many are of this verdict.
pub fn count(findings: &[Finding], verdict: Verdict) -> usize {
    findings.iter().filter(|finding| finding.verdict == verdict).count()
}

/// In the order they were looked at; what mends each is a line below it.
pub fn show(findings: &[Finding], output: Output) -> String {
    match output {
        Output::Table => table(findings),
        Output::Name => findings
            .iter()
            .filter(|finding| finding.verdict != Verdict::Ok)
            .map(|finding| format!("{}\n", finding.area))
            .collect(),
        Output::Json => document(json!({
            "schema_version": 1, "wrong": count(findings, Verdict::Wrong),
            "warnings": count(findings, Verdict::Warning), "checks": findings,
        })),
        Output::Jsonl => findings
            .iter()
            .map(|finding| {
                let Finding { area, verdict, what, mend } = finding;
                document(json!({ "schema_version": 1, "area": area, "verdict": verdict, "what": what, "mend": mend }))
            })
            .collect(),
    }
}

fn table(findings: &[Finding]) -> String {
    let mut table = Table::new(&["state", "area", "what"]);
    for Finding { area, verdict, what, .. } in findings {
        table.row(&[word(*verdict), area, what]);
    }
    let mut out = String::new();
    let rendered = table.render();
    let mut lines = rendered.lines();
    let _ = writeln!(out, "{}", lines.next().unwrap_or_default());
    for (line, finding) in lines.zip(findings) {
        let _ = writeln!(out, "{line}");
        for mend in finding.mend.iter().flat_map(|mend| mend.lines()) {
            let _ = writeln!(out, "         mend: {}", escape(mend));
        }
    }
    out
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Wrong => "WRONG",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_how_it_is_and_what_mends_it() {
        let findings = [
            Finding::ok("clock", "2026-11-22T05:00:00Z"),
            Finding::wrong("keys", "`a\u{1b}[2J` has mode 0644", "chmod 0600 a"),
        ];
        insta::assert_snapshot!(show(&findings, Output::Table), @r"
        STATE  AREA   WHAT
        ok     clock  2026-11-22T05:00:00Z
        WRONG  keys   `a\u{1b}[2J` has mode 0644
                 mend: chmod 0600 a
        ");
        assert_eq!(show(&findings, Output::Name), "keys\n");
        let json: serde_json::Value = serde_json::from_str(&show(&findings, Output::Json)).unwrap();
        assert_eq!((&json["wrong"], &json["checks"][1]["mend"]), (&1.into(), &"chmod 0600 a".into()));
        assert_eq!(show(&findings, Output::Jsonl).lines().count(), 2);
    }
}
