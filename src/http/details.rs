//! The one object of `authorization_details` (RFC 9396) that we take: `dayfly_task`.

use dayfly_domain::{Reason, may_hold_secret};
use serde_json::{Map, Value};

use super::{exchange::malformed, strict_json};
use crate::{
    flow::Refused,
    policy::{ACTIONS_MAX, TICKET_MAX_CHARS},
};

pub(super) const DAYFLY_TASK: &str = "dayfly_task";

/// What was asked in details; the default is an ask without any.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Details {
    pub template: String,
    pub actions: Option<Vec<String>>,
    pub ttl_s: Option<u32>,
    pub ticket: Option<String>,
}

/// It is JSON, but not what wire.md section 2 says.
pub(super) fn refused(hint: &str) -> Refused {
    Refused { hint: Some(hint.to_owned()), ..Reason::Details.into() }
}

pub fn parse(text: &str) -> Result<Details, Refused> {
    let value =
        strict_json::parse(text.as_bytes()).map_err(|error| malformed(&format!("`authorization_details`: {error}")))?;
    let mut object = one_object(value)?;
    if object.remove("type").as_ref().and_then(Value::as_str) != Some(DAYFLY_TASK) {
        return Err(refused("`type` is not `dayfly_task`"));
    }
    fields(object)
}

/// The fields beside `type`; any other is refused.
pub(super) fn fields(mut object: Map<String, Value>) -> Result<Details, Refused> {
    let details = Details {
        template: template(object.remove("template"))?,
        actions: object.remove("actions").map(actions).transpose()?,
        ttl_s: object.remove("ttl").map(|value| ttl(&value)).transpose()?,
        ticket: object.remove("ticket").map(ticket).transpose()?,
    };
    match object.is_empty() {
        true => Ok(details),
        false => Err(refused("fields are `type`, `template`, `actions`, `ttl` and `ticket`")),
    }
}

fn one_object(value: Value) -> Result<Map<String, Value>, Refused> {
    match value {
        Value::Array(items) => match <[Value; 1]>::try_from(items) {
            Ok([Value::Object(object)]) => Ok(object),
            _ => Err(refused("exactly one object is taken")),
        },
        _ => Err(refused("an array of one object is taken")),
    }
}

fn template(value: Option<Value>) -> Result<String, Refused> {
    match value {
        Some(Value::String(_)) | None => filled(value).ok_or_else(|| refused("`template` is missing")),
        Some(_) => Err(refused("`template` is not text")),
    }
}

fn filled(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) if !text.trim().is_empty() => Some(text),
        _ => None,
    }
}

fn actions(value: Value) -> Result<Vec<String>, Refused> {
    let Value::Array(items) = value else { return Err(refused("`actions` is not an array")) };
    if !(1..=ACTIONS_MAX).contains(&items.len()) {
        return Err(refused("`actions` has 1 to 32 entries"));
    }
    let names: Option<Vec<_>> = items.into_iter().map(|item| filled(Some(item))).collect();
    names.ok_or_else(|| refused("an action is not a text"))
}

/// An ask longer than a `u32` can say is longer than any cap, so it is asked as the longest.
fn ttl(value: &Value) -> Result<u32, Refused> {
    let seconds =
        value.as_u64().filter(|&seconds| seconds >= 1).ok_or_else(|| refused("`ttl` is not a number of seconds"))?;
    Ok(u32::try_from(seconds).unwrap_or(u32::MAX))
}

fn ticket(value: Value) -> Result<String, Refused> {
    filled(Some(value))
        .filter(|text| text.chars().count() <= TICKET_MAX_CHARS)
        .filter(|text| !may_hold_secret(text))
        .ok_or_else(|| refused("`ticket` is a text of 1 to 256 characters, and no token or handle"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> Option<Reason> {
        parse(text).err().map(|refused| refused.reason)
    }

    fn with(rest: &str) -> String {
        format!(r#"[{{"type":"dayfly_task","template":"deploy-prod"{rest}}}]"#)
    }

    #[test]
    fn a_whole_object_is_read() {
        let text = with(r#","actions":["a:b","c"],"ttl":60,"ticket":"OPS-1""#);
        let details = parse(&text).unwrap();
        assert_eq!(details.template, "deploy-prod");
        assert_eq!(details.actions, Some(vec!["a:b".to_owned(), "c".to_owned()]));
        assert_eq!((details.ttl_s, details.ticket.as_deref()), (Some(60), Some("OPS-1")));
    }

    #[test]
    fn what_is_not_json_is_a_malformed_parameter() {
        for text in ["", "{", "deploy-prod", r#"[{"type":"dayfly_task","type":"dayfly_task","template":"x"}]"#] {
            assert_eq!(reason(text), Some(Reason::Request), "{text}");
        }
        let deep = with(&format!(r#","ticket":{}{}"#, "[".repeat(15), "]".repeat(15)));
        assert_eq!(reason(&deep), Some(Reason::Request));
    }

    #[test]
    fn anything_but_one_object_of_ours_is_refused() {
        let one = r#"{"type":"dayfly_task","template":"x"}"#;
        let two = format!("[{one},{one}]");
        for text in
            [one, &two, "[]", "[1]", "null", r#""x""#, r#"[{"template":"x"}]"#, r#"[{"type":"openid","template":"x"}]"#]
        {
            assert_eq!(reason(text), Some(Reason::Details), "{text}");
        }
        assert_eq!(reason(r#"[{"type":"dayfly_task"}]"#), Some(Reason::Details));
    }

    #[test]
    fn a_field_we_do_not_know_is_never_ignored() {
        for field in ["locations", "owner", "purpose", "workload", "target", "TTL", "__proto__"] {
            assert_eq!(reason(&with(&format!(r#","{field}":"x""#))), Some(Reason::Details), "{field}");
        }
    }

    #[test]
    fn a_field_of_a_wrong_type_or_size_is_refused() {
        let many = format!(r#","actions":[{}"a"]"#, r#""a","#.repeat(32));
        let long = format!(r#","ticket":"{}""#, "x".repeat(257));
        for rest in [
            r#","actions":[]"#,
            r#","actions":"a""#,
            r#","actions":[1]"#,
            r#","actions":[""]"#,
            r#","actions":null"#,
            &many,
            r#","ttl":0"#,
            r#","ttl":-1"#,
            r#","ttl":1.0"#,
            r#","ttl":1.5"#,
            r#","ttl":"60""#,
            r#","ttl":null"#,
            r#","ticket":1"#,
            r#","ticket":"""#,
            r#","ticket":null"#,
            &long,
        ] {
            assert_eq!(reason(&with(rest)), Some(Reason::Details), "{rest}");
        }
    }

    #[test]
    fn bounds_are_inclusive() {
        let many = format!(r#","actions":[{}"a"]"#, r#""a","#.repeat(31));
        let long = format!(r#","ticket":"{}""#, "é".repeat(256));
        for rest in [&many, &long, r#","ttl":1"#] {
            assert_eq!(reason(&with(rest)), None, "{rest}");
        }
        assert_eq!(parse(&with(r#","ttl":18446744073709551615"#)).unwrap().ttl_s, Some(u32::MAX));
    }
}
