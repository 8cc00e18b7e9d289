//! How a verb of the command line fails: one shape for every failure, so that people and scripts
//! find the same things at the same place. `error: what, why [CODE]`, causes, `help:`.

use dayfly_domain::EventId;
use serde::Serialize;

use super::{
    compared,
    table::{escape, escape_json},
};
use crate::http::shapes::Comparison;

/// Exit codes; `0` is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Failure = 1,
    Usage = 2,
    NotFound = 3,
    NotAuthenticated = 4,
    Unavailable = 69,
    TryLater = 75,
    Denied = 77,
}

/// Of `exec`, which otherwise ends as its command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecExit {
    NotStarted = 125,
    NotExecutable = 126,
    NotFound = 127,
}

/// Added to the number of the signal that ended a command.
pub const BY_SIGNAL: u8 = 128;

/// Every exit code, for the reference.
pub const EXITS: &[(u8, &str)] = &[
    (0, "done"),
    (Exit::Failure as u8, "it failed"),
    (Exit::Usage as u8, "it was asked wrongly: an option, a file, a setting"),
    (Exit::NotFound as u8, "there is no such thing, or it is not visible"),
    (Exit::NotAuthenticated as u8, "who is asking is not known, or was not believed"),
    (Exit::Unavailable as u8, "the broker cannot be reached, or is broken"),
    (Exit::TryLater as u8, "not now; the same again may work"),
    (Exit::Denied as u8, "known, and not allowed"),
    (
        ExecExit::NotStarted as u8,
        "of `exec`: its command was not started, and stderr says why; otherwise the command's own",
    ),
    (ExecExit::NotExecutable as u8, "of `exec`: its command cannot be executed; nothing was asked"),
    (ExecExit::NotFound as u8, "of `exec`: its command is not found; nothing was asked"),
    (BY_SIGNAL, "of `exec`: and the number of the signal that ended its command"),
];

/// Why a verb failed. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(Box<Parts>);

/// The contract of `--error-format json`, beside `schema_version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parts {
    /// What failed and why: lower case, no full stop.
    pub what: String,
    /// `E-...` where the broker gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    pub causes: Vec<String>,
    /// What to do, with an exact command where there is one. May have several lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    pub exit: u8,
    /// HTTP status, where the broker answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The caller's own claims beside the nearest row, where the broker tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Nobody is left to be told, or there is nothing to tell.
    #[serde(skip)]
    quiet: bool,
}

impl Failure {
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self::with_exit(exit as u8, what)
    }

    pub fn with_exit(exit: u8, what: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            what: what.into(),
            code: None,
            causes: Vec::new(),
            help: None,
            exit,
            status: None,
            decision_id: None,
            request_id: None,
            comparison: None,
            quiet: false,
        }))
    }

    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failure, what)
    }

    /// Ends the process without a word.
    pub fn quiet() -> Self {
        let mut failure = Self::failed("stdout was closed");
        failure.0.quiet = true;
        failure
    }

    /// Ends the process with this code without a word: it is another's.
    pub fn silent(exit: u8) -> Self {
        let mut failure = Self::with_exit(exit, "the command ended");
        failure.0.quiet = true;
        failure
    }

    /// The same, with another exit code.
    pub fn exiting(mut self, exit: u8) -> Self {
        self.0.exit = exit;
        self
    }

    pub fn because(mut self, cause: impl ToString) -> Self {
        self.0.causes.push(cause.to_string());
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// What the broker said about it.
    pub fn answered(
        mut self,
        code: &str,
        status: u16,
        decision_id: Option<EventId>,
        request_id: Option<String>,
    ) -> Self {
        self.0.code = Some(code.to_owned()).filter(|code| !code.is_empty());
        self.0.status = Some(status);
        self.0.decision_id = decision_id;
        self.0.request_id = request_id;
        self
    }

    pub fn compared(mut self, comparison: Option<Comparison>) -> Self {
        self.0.comparison = comparison;
        self
    }

    /// Another text for what the broker said.
    pub fn told_like(mut self, other: &Self) -> Self {
        let Parts { code, status, decision_id, request_id, comparison, .. } = (*other.0).clone();
        (self.0.code, self.0.status, self.0.decision_id, self.0.request_id) = (code, status, decision_id, request_id);
        self.compared(comparison)
    }

    pub fn parts(&self) -> &Parts {
        &self.0
    }

    pub fn exit(&self) -> u8 {
        self.0.exit
    }

    pub fn is_quiet(&self) -> bool {
        self.0.quiet
    }

    /// For people. `label` is `error`, perhaps coloured.
    pub fn text(&self, label: &str) -> String {
        self.painted(label, false)
    }

    /// The same, with colour in the comparison or without.
    pub fn painted(&self, label: &str, paint: bool) -> String {
        let parts = &self.0;
        let code = parts.code.as_ref().map(|code| format!(" [{}]", escape(code))).unwrap_or_default();
        let decision = parts.decision_id.map(|id| format!(" {id}")).unwrap_or_default();
        let mut out = format!("{label}: {}{code}{decision}\n", escape(&parts.what));
        if let Some(comparison) = &parts.comparison {
            out.push_str(&compared::nearest(comparison, paint));
        }
        for cause in &parts.causes {
            out.push_str(&format!("  cause: {}\n", escape(cause)));
        }
        if let Some(help) = &parts.help {
            let lines: Vec<_> = help.lines().map(|line| escape(line).into_owned()).collect();
            out.push_str(&format!("  help: {}\n", lines.join("\n")));
        }
        if let Some(id) = &parts.request_id {
            out.push_str(&format!("  request: {}\n", escape(id)));
        }
        out
    }

    /// For scripts: one line.
    pub fn json(&self) -> String {
        let value = serde_json::json!({ "schema_version": 1, "error": &*self.0 });
        format!("{}\n", escape_json(&value.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Failure {
        let id = EventId::from_parts(1, [0; 10]);
        Failure::new(Exit::Denied, "denied: no row of `deploy` matches this job")
            .because("the broker answered 400")
            .help("ask an operator")
            .answered("E-NOMATCH", 400, Some(id), Some("r1".to_owned()))
    }

    #[test]
    fn people_read_what_why_and_help() {
        insta::assert_snapshot!(denied().text("error"), @r"
        error: denied: no row of `deploy` matches this job [E-NOMATCH] evt_00000000010000000000000000
          cause: the broker answered 400
          help: ask an operator
          request: r1
        ");
    }

    #[test]
    fn scripts_read_one_line_of_json() {
        insta::assert_snapshot!(denied().json(), @r#"
        {"schema_version":1,"error":{"what":"denied: no row of `deploy` matches this job","code":"E-NOMATCH","causes":["the broker answered 400"],"help":"ask an operator","exit":77,"status":400,"decision_id":"evt_00000000010000000000000000","request_id":"r1"}}
        "#);
    }

    #[test]
    fn an_answer_cannot_paint_the_terminal() {
        let text = Failure::failed("bad \u{1b}[2J\n\u{202e}").because("x\ny").text("error");
        assert_eq!(text, "error: bad \\u{1b}[2J\\n\\u{202e}\n  cause: x\\ny\n");
    }
}
