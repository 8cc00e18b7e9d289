//! What a call can come back with instead of an answer, and how the command line says it.

use dayfly_domain::{EventId, Reason};

use super::transport::{Answer, WireError};
use crate::{
    cli::{
        compared,
        failure::{Exit, Failure},
    },
    http::shapes::{Comparison, OAuthError, Problem},
};

/// A call that gave no answer to work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("the broker refused")]
    Refused(Box<Refusal>),
    /// Something answered, but not as a broker does: a proxy, another server.
    #[error("the answer is not one of a broker")]
    Strange { status: u16, why: String },
}

/// The broker's own no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `E-...`; from a newer broker perhaps one that we do not know.
    pub code: String,
    pub status: u16,
    pub detail: String,
    pub decision_id: Option<EventId>,
    pub request_id: String,
    pub retry_after_s: Option<u64>,
    /// With `E-NOT-DURABLE`: the end is in force.
    pub effective: bool,
    pub comparison: Option<Comparison>,
    pub shown: Shown,
}

/// What we showed of ourselves: decides nothing but the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shown {
    /// A proof by a key.
    pub proof: bool,
    /// A task's handle, as the caller.
    pub handle: bool,
}

impl Refusal {
    pub fn reason(&self) -> Option<Reason> {
        Reason::from_code(&self.code)
    }

    /// From the table; for an unknown code from the status.
    pub fn exit(&self) -> u8 {
        self.reason().map_or_else(|| exit_of(self.status) as u8, |reason| reason.row().exit)
    }
}

impl ApiError {
    /// Reads an answer whose status is no success.
    pub fn from_answer(answer: &Answer) -> Self {
        refusal(answer).map_or_else(
            || Self::Strange { status: answer.status, why: format!("it has status {}", answer.status) },
            |refusal| Self::Refused(Box::new(refusal)),
        )
    }

    pub fn having(mut self, shown: Shown) -> Self {
        if let Self::Refused(refusal) = &mut self {
            refusal.shown = shown;
        }
        self
    }

    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Wire(_) | Self::Strange { .. } => None,
        }
    }

    /// The request may have taken effect though no broker said so.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Wire(WireError::Lost(_)) => true,
            // A proxy that gave up on a broker that may have gone on.
            Self::Strange { status, .. } => *status >= 500 || (200..300).contains(status),
            Self::Wire(WireError::Unreachable(_) | WireError::Setup(_)) | Self::Refused(_) => false,
        }
    }

    /// Nothing took effect, and it is worth another try: after so many seconds, if it said so.
    pub fn retry(&self) -> Option<Option<u64>> {
        match self {
            Self::Refused(refusal) if matches!(refusal.status, 503 | 429) => Some(refusal.retry_after_s),
            _ => None,
        }
    }

    /// `doing`: what was tried, as in `the task could not be ended`.
    pub fn failure(&self, doing: &str) -> Failure {
        match self {
            Self::Refused(refusal) => refused(refusal, doing),
            Self::Wire(WireError::Setup(why)) => Failure::usage(format!("{doing}: {why}")),
            Self::Wire(error) => Failure::new(Exit::Unavailable, format!("{doing}: the broker cannot be reached"))
                .because(error)
                .help("check DAYFLY_ADDR and DAYFLY_CA, or on its machine --state, and whether the broker runs"),
            Self::Strange { status, why } => {
                Failure::new(exit_of(*status), format!("{doing}: the answer is not one of a broker"))
                    .because(why)
                    .help("check that DAYFLY_ADDR is the broker's issuer URL, and what stands between")
            }
        }
    }
}

fn refused(refusal: &Refusal, doing: &str) -> Failure {
    let row = refusal.reason().map(Reason::row);
    let why = match refusal.reason() {
        Some(Reason::Client) if refusal.shown.handle => "the broker does not take this handle",
        _ if refusal.detail.is_empty() => row.map_or("refused", |row| row.help),
        _ => &refusal.detail,
    };
    let mut failure = Failure::with_exit(refusal.exit(), format!("{doing}: {why}"));
    if refusal.effective {
        failure = failure.because("the end is in force, and is written as soon as that is possible");
    }
    if let Some(row) = row.filter(|row| row.help != why) {
        failure = failure.help(row.help);
    }
    if let Some(help) = key_help(refusal) {
        failure = failure.help(help);
    }
    if let Some(help) = explain_help(refusal) {
        failure = failure.compared(refusal.comparison.clone()).help(help);
    }
    let request_id = Some(refusal.request_id.clone()).filter(|id| !id.is_empty());
    failure.answered(&refusal.code, refusal.status, refusal.decision_id, request_id)
}

/// The broker says no more than that it does not believe: what it can be, as the caller can mend it.
fn key_help(refusal: &Refusal) -> Option<&'static str> {
    let Shown { proof, handle } = refusal.shown;
    Some(match (refusal.reason()?, handle, proof) {
        (Reason::Dpop, _, false) => {
            "give --dpop-key FILE (or DAYFLY_DPOP_KEY): the key that the credential is, or shall be, bound to;\n        \
             `dayfly token` makes the file if it is not there"
        }
        (Reason::Dpop, _, true) => {
            "a proof names the broker as you do: DAYFLY_ADDR must be the broker's issuer URL, byte for byte;\n        \
             and this machine's clock must be right"
        }
        (Reason::Client, true, false) => {
            "if its task is bound to a key, give --dpop-key FILE as `dayfly token` was given it; and check that\n        \
             the file keeps the handle of a task of this broker"
        }
        (Reason::Client, true, true) => {
            "check that --dpop-key is the key that `dayfly token` was given for this task, that DAYFLY_ADDR is the\n        \
             broker's issuer URL, byte for byte, and that the file keeps the handle of a task of this broker"
        }
        (Reason::Client, false, false) => {
            "a token or handle that is bound to a key is nobody's without it: --dpop-key FILE"
        }
        (Reason::Client, false, true) => {
            "check that --dpop-key is the key that the token is bound to, and that DAYFLY_ADDR is the broker's\n        \
             issuer URL, byte for byte"
        }
        _ => return None,
    })
}

/// What would let this job in, as far as it is told; and who can see the decision.
fn explain_help(refusal: &Refusal) -> Option<String> {
    let by_policy = matches!(refusal.reason()?, Reason::NoMatch | Reason::Forbidden | Reason::Policy);
    let operator = refusal.decision_id.map(|id| format!("ask an operator: dayfly explain {id}"));
    let wish = refusal.comparison.as_ref().and_then(compared::wish);
    let parts: Vec<_> = wish.into_iter().chain(operator).collect();
    (by_policy && !parts.is_empty()).then(|| parts.join(", or "))
}

fn refusal(answer: &Answer) -> Option<Refusal> {
    let retry_after_s = answer.retry_after_s;
    let problem = |it: Problem| Refusal {
        code: it.reason,
        status: answer.status,
        detail: it.detail.unwrap_or(it.title),
        decision_id: it.decision_id,
        request_id: it.request_id,
        retry_after_s,
        effective: it.effective.unwrap_or(false),
        comparison: None,
        shown: Shown::default(),
    };
    let oauth = |it: OAuthError| Refusal {
        code: it.reason,
        status: answer.status,
        detail: it.error_description,
        decision_id: it.decision_id,
        request_id: it.request_id,
        retry_after_s,
        effective: false,
        comparison: it.comparison,
        shown: Shown::default(),
    };
    let first = serde_json::from_slice(&answer.body).ok().map(problem);
    first.or_else(|| serde_json::from_slice(&answer.body).ok().map(oauth))
}

fn exit_of(status: u16) -> Exit {
    match status {
        401 => Exit::NotAuthenticated,
        403 => Exit::Denied,
        404 => Exit::NotFound,
        408 | 410 | 429 => Exit::TryLater,
        500.. => Exit::Unavailable,
        _ => Exit::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after_s: None, dpop_nonce: None, body: body.into() }
    }

    #[test]
    fn exit_codes_come_from_the_table_of_reasons() {
        for (code, exit) in [("E-NOMATCH", 77), ("E-REPLAYED", 77), ("E-EXPIRED", 4), ("E-NOT-FOUND", 3), ("E-X", 1)] {
            let body = format!(r#"{{"error":"x","error_description":"d","reason":"{code}","request_id":"r"}}"#);
            let failure = ApiError::from_answer(&answer(400, &body)).failure("no token was issued");
            assert_eq!(failure.exit(), exit, "{code}");
            assert_eq!(failure.parts().code.as_deref(), Some(code));
        }
    }

    #[test]
    fn help_with_keys_fits_what_was_shown() {
        let help = |code: &str, proof, handle| {
            let body = format!(r#"{{"error":"x","error_description":"d","reason":"{code}","request_id":"r"}}"#);
            let error = ApiError::from_answer(&answer(401, &body)).having(Shown { proof, handle });
            error.failure("it failed").text("error")
        };
        assert!(help("E-DPOP", false, false).contains("give --dpop-key"));
        for (code, handle) in [("E-DPOP", false), ("E-CLIENT", false), ("E-CLIENT", true)] {
            let told = help(code, true, handle);
            assert!(told.contains("DAYFLY_ADDR") && told.contains("byte for byte"), "{told}");
        }
        for proof in [true, false] {
            let told = help("E-CLIENT", proof, true);
            assert!(told.contains("does not take this handle") && told.contains("--dpop-key"), "{told}");
            assert!(!told.contains("client_assertion") && !told.contains("socket"), "{told}");
        }
    }

    #[test]
    fn a_problem_that_is_effective_says_so() {
        let body =
            r#"{"type":"t","title":"T","status":503,"reason":"E-NOT-DURABLE","request_id":"r","effective":true}"#;
        let failure = ApiError::from_answer(&answer(503, body)).failure("the end is not recorded");
        assert_eq!(failure.exit(), 75);
        assert!(failure.parts().causes[0].contains("in force"));
    }

    #[test]
    fn a_page_of_a_proxy_is_no_broker_and_may_have_swallowed_the_answer() {
        let error = ApiError::from_answer(&answer(502, "<html>"));
        assert!(error.is_lost());
        assert_eq!(error.failure("x").exit(), 69);
        assert!(!ApiError::from_answer(&answer(404, "<html>")).is_lost());
    }
}
