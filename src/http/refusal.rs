//! What a refusal looks like from outside: an OAuth error at the OAuth endpoints, a problem
//! (RFC 9457) everywhere else. The table of reasons says status, code and help.

use axum::{
    body::Body,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::Response,
};
use dayfly_domain::{EventId, Reason, ReasonRow};
use serde::Serialize;

use super::{
    door::Context,
    explained,
    shapes::{BundleError, OAuthError, Problem},
};
use crate::flow::Refused;

/// Which family of errors a path speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    OAuth,
    Problem,
}

impl Dialect {
    pub fn of_path(path: &str) -> Self {
        if path.starts_with("/oauth2/") { Self::OAuth } else { Self::Problem }
    }
}

impl Context {
    /// The refusal in the dialect of the path.
    pub fn refuse(&self, refused: Refused) -> Response {
        match self.dialect {
            Dialect::OAuth => self.refuse_ask(refused, false),
            Dialect::Problem => self.refuse_problem(refused),
        }
    }

    /// An OAuth error. What was asked with details is answered in their terms (RFC 9396
    /// section 5).
    pub fn refuse_ask(&self, refused: Refused, with_details: bool) -> Response {
        let Refused { reason, hint, decision, comparison, retry_after_s } = refused;
        let row = reason.row();
        let error = match row.oauth {
            "invalid_scope" if with_details => "invalid_authorization_details",
            error => error,
        };
        let answer = OAuthError {
            error: error.to_owned(),
            error_description: description(row, hint.as_deref()),
            reason: row.code.to_owned(),
            request_id: self.request_id.to_string(),
            decision_id: decision,
            effective: effective(reason),
            comparison: comparison.map(|comparison| explained::comparison(*comparison)),
        };
        self.finish(reason, retry_after_s, json(status_of(row), "application/json", &answer))
    }

    fn refuse_problem(&self, refused: Refused) -> Response {
        // A comparison belongs to an exchange.
        let Refused { reason, hint, decision, retry_after_s, comparison: _ } = refused;
        let answer = self.problem(reason, hint, decision);
        self.finish(reason, retry_after_s, json(status_of(reason.row()), "application/problem+json", &answer))
    }

    fn problem(&self, reason: Reason, hint: Option<String>, decision_id: Option<EventId>) -> Problem {
        let row = reason.row();
        Problem {
            kind: format!("{}/problems/{}", self.issuer, row.code.to_ascii_lowercase()),
            title: row.help.to_owned(),
            status: row.status,
            detail: hint,
            reason: row.code.to_owned(),
            request_id: self.request_id.to_string(),
            decision_id,
            effective: effective(reason),
            errors: None,
            count: None,
            errors_omitted: None,
        }
    }

    /// A bundle that does not load: every error at once, as far as there is room.
    pub fn refuse_bundle(&self, errors: Vec<BundleError>, omitted: u64, decision: Option<EventId>) -> Response {
        let answer = Problem {
            errors: Some(errors),
            errors_omitted: (omitted > 0).then_some(omitted),
            ..self.problem(Reason::Bundle, None, decision)
        };
        self.finish(Reason::Bundle, None, json(status_of(Reason::Bundle.row()), "application/problem+json", &answer))
    }

    /// Another number than was expected: the number that there is now.
    pub fn refuse_count(&self, hint: String, count: u64) -> Response {
        let answer = Problem { count: Some(count), ..self.problem(Reason::Count, Some(hint), None) };
        self.finish(Reason::Count, None, json(status_of(Reason::Count.row()), "application/problem+json", &answer))
    }

    fn finish(&self, reason: Reason, retry_after_s: Option<u32>, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Some(challenge) = challenge(reason, self.presented) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if is_for_now(reason.row()) {
            headers.insert(RETRY_AFTER, retry_after_s.unwrap_or(1).into());
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.extensions_mut().insert(reason);
        response
    }
}

/// An ended thing that is not yet on disk is ended all the same (law L6).
fn effective(reason: Reason) -> Option<bool> {
    (reason == Reason::NotDurable).then_some(true)
}

/// The same may go well in a while.
fn is_for_now(row: &ReasonRow) -> bool {
    matches!(row.status, 429 | 503)
}

/// RFC 6750 section 3: no error code for a request that brought no credentials.
fn challenge(reason: Reason, presented: bool) -> Option<&'static str> {
    match (reason.row().status, presented) {
        (401, false) => Some(r#"Bearer realm="dayfly""#),
        (401, true) => Some(r#"Bearer realm="dayfly", error="invalid_token""#),
        (403, _) => Some(r#"Bearer realm="dayfly", error="insufficient_scope""#),
        _ => None,
    }
}

/// The hint, or else the help: printable ASCII without `"` and `\` (RFC 6749 section 5.2).
fn description(row: &ReasonRow, hint: Option<&str>) -> String {
    let plain = |letter: char| match letter {
        '"' => '\'',
        '\\' => '/',
        ' '..='~' => letter,
        _ => '?',
    };
    hint.unwrap_or(row.help).chars().map(plain).collect()
}

fn status_of(row: &ReasonRow) -> StatusCode {
    StatusCode::from_u16(row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The reason for what the framework or the accept loop turns away by status alone.
pub(super) fn reason_of(status: StatusCode, dialect: Dialect) -> Reason {
    match (status, dialect) {
        (StatusCode::BAD_REQUEST, _) | (StatusCode::UNSUPPORTED_MEDIA_TYPE, Dialect::OAuth) => Reason::Request,
        (StatusCode::NOT_FOUND, _) => Reason::NotFound,
        (StatusCode::METHOD_NOT_ALLOWED, _) => Reason::Method,
        (StatusCode::REQUEST_TIMEOUT, _) => Reason::Timeout,
        (StatusCode::PAYLOAD_TOO_LARGE, _) => Reason::TooLarge,
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, Dialect::Problem) => Reason::MediaType,
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, _) => Reason::Headers,
        (StatusCode::TOO_MANY_REQUESTS, _) => Reason::Rate,
        (StatusCode::SERVICE_UNAVAILABLE, _) => Reason::Busy,
        _ => Reason::Internal,
    }
}

/// An answer with a JSON body.
pub(super) fn json<T: Serialize>(status: StatusCode, media_type: &'static str, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => answer(status, media_type, bytes),
        // INVARIANT: our shapes have text keys only, so this does not happen.
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, "application/json", b"{}".to_vec()),
    }
}

/// 200 with JSON that no cache keeps.
pub(super) fn ok<T: Serialize>(body: &T) -> Response {
    with(json(StatusCode::OK, "application/json", body), CACHE_CONTROL, "no-store")
}

/// Done, and there is nothing to say.
pub(super) fn no_content(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    with(response, CACHE_CONTROL, "no-store")
}

pub(super) fn answer(status: StatusCode, media_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, media_type)
}

pub(super) fn with(mut response: Response, name: HeaderName, value: &'static str) -> Response {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(dialect: Dialect, presented: bool) -> Context {
        Context { request_id: "r-1".into(), issuer: "https://b.example".into(), dialect, presented }
    }

    fn head(response: &Response, name: &str) -> Option<String> {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    async fn read<T: serde::de::DeserializeOwned>(response: Response) -> T {
        serde_json::from_slice(&axum::body::to_bytes(response.into_body(), 9999).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn an_ask_in_details_is_refused_in_details() {
        let refuse = |details| context(Dialect::OAuth, false).refuse_ask(Reason::NoMatch.into(), details);
        let [scope, details] = [refuse(false), refuse(true)];
        assert_eq!(read::<OAuthError>(scope).await.error, "invalid_scope");
        assert_eq!(read::<OAuthError>(details).await.error, "invalid_authorization_details");
        let target = context(Dialect::OAuth, false).refuse_ask(Reason::Target.into(), true);
        assert_eq!(read::<OAuthError>(target).await.error, "invalid_target");
    }

    #[tokio::test]
    async fn every_reason_has_a_whole_refusal_in_both_dialects() {
        for row in dayfly_domain::REASONS {
            let oauth = context(Dialect::OAuth, false).refuse(row.reason.into());
            let problem = context(Dialect::Problem, false).refuse(row.reason.into());
            for response in [&oauth, &problem] {
                assert_eq!(response.status(), row.status, "{}", row.code);
                assert_eq!(head(response, "retry-after").is_some(), matches!(row.status, 429 | 503), "{}", row.code);
                assert_eq!(
                    head(response, "www-authenticate").is_some(),
                    matches!(row.status, 401 | 403),
                    "{}",
                    row.code
                );
                assert_eq!(head(response, "cache-control").as_deref(), Some("no-store"));
            }
            assert_eq!(head(&problem, "content-type").as_deref(), Some("application/problem+json"));
            let (oauth, problem): (OAuthError, Problem) = (read(oauth).await, read(problem).await);
            assert_eq!((oauth.reason.as_str(), problem.reason.as_str()), (row.code, row.code));
            assert_eq!(problem.kind, format!("https://b.example/problems/{}", row.code.to_lowercase()));
            assert_eq!((problem.status, oauth.request_id.as_str()), (row.status, "r-1"));
        }
    }

    #[tokio::test]
    async fn t_079_not_durable_says_that_it_is_effective() {
        let problem: Problem = read(context(Dialect::Problem, false).refuse(Reason::NotDurable.into())).await;
        let oauth: OAuthError = read(context(Dialect::OAuth, false).refuse(Reason::NotDurable.into())).await;
        let store: Problem = read(context(Dialect::Problem, false).refuse(Reason::Store.into())).await;
        assert_eq!((problem.effective, oauth.effective, store.effective), (Some(true), Some(true), None));
    }

    #[test]
    fn a_challenge_names_an_error_only_when_credentials_came() {
        let challenge = |presented| {
            let response = context(Dialect::Problem, presented).refuse(Reason::Client.into());
            head(&response, "www-authenticate").unwrap()
        };
        assert!(!challenge(false).contains("error"));
        assert!(challenge(true).contains("error=\"invalid_token\""));
    }

    #[tokio::test]
    async fn a_hint_cannot_break_out_of_the_description() {
        let refused = Refused { hint: Some("a\"b\\c\r\né".to_owned()), ..Reason::Target.into() };
        let error: OAuthError = read(context(Dialect::OAuth, false).refuse(refused)).await;
        assert_eq!(error.error_description, "a'b/c???");
        let plain: OAuthError = read(context(Dialect::OAuth, false).refuse(Reason::Target.into())).await;
        assert_eq!(plain.error_description, Reason::Target.row().help);
    }
}
