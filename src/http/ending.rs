//! The bodies of acts under `/v1`, strictly: of an end `{reason?, block?}`, of a taint
//! `{reason?, dry_run?}`, of a load nothing.

use axum::http::{HeaderMap, header::CONTENT_TYPE};
use dayfly_domain::{Reason, may_hold_secret};
use serde_json::{Map, Value};

use super::{exchange::malformed, filters::wrong, form::media_type, strict_json};
use crate::flow::Refused;

/// A reason is kept with the event for as long as the event.
pub const REASON_MAX_CHARS: usize = 1_000;

/// How a task is to end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TaskEnd {
    pub reason: Option<String>,
    pub block: Option<bool>,
}

pub(super) fn task(headers: &HeaderMap, body: &[u8]) -> Result<TaskEnd, Refused> {
    let mut members = members(headers, body)?;
    let end = TaskEnd { reason: reason(&mut members)?, block: flag(&mut members, "block")? };
    all_taken(&members)?;
    Ok(end)
}

/// A lease takes a reason and nothing else.
pub(super) fn lease(headers: &HeaderMap, body: &[u8]) -> Result<Option<String>, Refused> {
    let mut members = members(headers, body)?;
    let reason = reason(&mut members)?;
    all_taken(&members)?;
    Ok(reason)
}

/// A taint of a key takes a reason, and whether it is only to be told what would happen.
pub(super) fn taint(headers: &HeaderMap, body: &[u8]) -> Result<(Option<String>, bool), Refused> {
    let mut members = members(headers, body)?;
    let reason = reason(&mut members)?;
    let dry_run = match members.remove("dry_run") {
        None => false,
        Some(Value::Bool(dry_run)) => dry_run,
        Some(_) => return Err(wrong("dry_run")),
    };
    all_taken(&members)?;
    Ok((reason, dry_run))
}

/// Nothing can be said: an empty body, or `{}`.
pub(super) fn nothing(headers: &HeaderMap, body: &[u8]) -> Result<(), Refused> {
    all_taken(&members(headers, body)?)
}

pub(super) fn members(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, Refused> {
    if body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
        return Ok(Map::new());
    }
    if media_type(headers).as_deref() != Some("application/json") {
        return Err(Reason::MediaType.into());
    }
    match strict_json::parse(body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(wrong("the body")),
        Err(error) => Err(malformed(&error.to_string())),
    }
}

pub(super) fn flag(members: &mut Map<String, Value>, name: &str) -> Result<Option<bool>, Refused> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(flag)),
        Some(_) => Err(wrong(name)),
    }
}

pub(super) fn reason(members: &mut Map<String, Value>) -> Result<Option<String>, Refused> {
    match members.remove("reason") {
        None => Ok(None),
        Some(Value::String(text)) if is_reason(&text) => Ok(Some(text)),
        Some(_) => Err(wrong("reason")),
    }
}

/// It is kept on the record, where no token or handle belongs (law L8).
fn is_reason(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().count() <= REASON_MAX_CHARS && !may_hold_secret(text)
}

pub(super) fn all_taken(members: &Map<String, Value>) -> Result<(), Refused> {
    match members.is_empty() {
        true => Ok(()),
        false => {
            let hint = Some("a member is not known here".to_owned());
            Err(Refused { hint, ..Reason::Invalid.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())])
    }

    fn refused(body: &str) -> Option<Reason> {
        task(&json("application/json"), body.as_bytes()).err().map(|refused| refused.reason)
    }

    #[test]
    fn nothing_at_all_is_an_end_without_a_word() {
        assert_eq!(task(&HeaderMap::new(), b""), Ok(TaskEnd::default()));
        assert_eq!(refused("{}"), None);
        let end = task(&json("Application/JSON; charset=utf-8"), br#"{"reason":"done","block":false}"#);
        assert_eq!(end, Ok(TaskEnd { reason: Some("done".into()), block: Some(false) }));
    }

    #[test]
    fn t_162_a_body_of_another_type_is_refused() {
        for bad in
            ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/problem+json", ""]
        {
            assert_eq!(task(&json(bad), b"{}").unwrap_err().reason, Reason::MediaType, "{bad}");
        }
        assert_eq!(task(&HeaderMap::new(), b"{}").unwrap_err().reason, Reason::MediaType);
        assert_eq!(task(&json("text/plain"), b"").unwrap_err().reason, Reason::MediaType);
    }

    #[test]
    fn what_is_not_understood_is_400() {
        for body in ["", "{", "reason=x", r#"{"block":true,"block":false}"#, r#"{"reason":"a","reason":"a"}"#] {
            assert_eq!(refused(body), Some(Reason::Request), "{body}");
        }
        let deep = format!("{{\"reason\":{}{}}}", "[".repeat(16), "]".repeat(16));
        assert_eq!(refused(&deep), Some(Reason::Request));
    }

    #[test]
    fn what_is_understood_and_wrong_is_422() {
        for body in [
            "[]",
            "null",
            "\"x\"",
            r#"{"reason":1}"#,
            r#"{"reason":null}"#,
            r#"{"reason":" "}"#,
            r#"{"reason":"leaked: dtc_x"}"#,
            r#"{"reason":"this one: eyJhbGciOiJFUzI1NiJ9.e30.x"}"#,
            r#"{"block":"false"}"#,
            r#"{"block":0}"#,
            r#"{"block":null}"#,
            r#"{"Block":false}"#,
            r#"{"cause":"revoked"}"#,
        ] {
            assert_eq!(refused(body), Some(Reason::Invalid), "{body}");
        }
    }

    #[test]
    fn where_nothing_can_be_said_nothing_is_taken() {
        assert_eq!((nothing(&HeaderMap::new(), b""), nothing(&json("application/json"), b"{}")), (Ok(()), Ok(())));
        for (body, reason) in [
            (r#"{"path":"/etc"}"#, Reason::Invalid),
            ("[]", Reason::Invalid),
            ("null", Reason::Invalid),
            ("", Reason::Request),
            ("{}{}", Reason::Request),
        ] {
            assert_eq!(nothing(&json("application/json"), body.as_bytes()).unwrap_err().reason, reason, "{body}");
        }
    }

    #[test]
    fn a_lease_has_no_block() {
        let end = |body: &str| lease(&json("application/json"), body.as_bytes());
        assert_eq!(end(r#"{"reason":"leaked"}"#), Ok(Some("leaked".to_owned())));
        assert_eq!(end(r#"{"block":false}"#).unwrap_err().reason, Reason::Invalid);
    }
}
