//! `POST /v1/end`, strictly: what is not understood ends nothing.

use std::collections::BTreeMap;

use axum::{extract::Request, http::HeaderMap, response::Response};
use dayfly_domain::{Reason, Selector};
use serde_json::{Map, Value};

use super::{
    body,
    caller::caller,
    door::Context,
    ending::{all_taken, flag, members, reason},
    filters::{self, wrong},
    refusal::ok,
    views,
};
use crate::flow::{EndBySelector, EndedBySelector, Flow, NotEnded, Refused};

pub(super) async fn end(flow: &Flow, context: &Context, request: Request) -> Result<Response, Refused> {
    let (parts, bytes) = body::read(request).await?;
    filters::none(parts.uri.query())?;
    let ask = ask(&parts.headers, &bytes)?;
    let caller = caller(flow, &parts).await?;
    match flow.end_by_selector(&caller, ask).await? {
        EndedBySelector::Ended(ended) => Ok(ok(&views::ended_by_selector(*ended)?)),
        EndedBySelector::NotEnded(why @ NotEnded::OtherCount { found, .. }) => {
            Ok(context.refuse_count(why.to_string(), found))
        }
        EndedBySelector::NotEnded(why) => {
            let retry_after_s = if let NotEnded::TooSoon { retry_after_s } = why { Some(retry_after_s) } else { None };
            Err(Refused { hint: Some(why.to_string()), retry_after_s, ..why.reason().into() })
        }
    }
}

fn ask(headers: &HeaderMap, body: &[u8]) -> Result<EndBySelector, Refused> {
    let mut members = members(headers, body)?;
    let selector = match members.remove("filter") {
        Some(Value::Object(filter)) => selector(filter)?,
        Some(_) => return Err(wrong("filter")),
        None => return Err(refused("`filter` is missing: it names what is to end")),
    };
    let expected = match members.remove("expected_count") {
        None => None,
        Some(count) => Some(count.as_u64().ok_or_else(|| wrong("expected_count"))?),
    };
    let ask = EndBySelector {
        selector,
        reason: reason(&mut members)?,
        dry_run: flag(&mut members, "dry_run")?.unwrap_or(false),
        expected,
        block: flag(&mut members, "block")?.unwrap_or(true),
    };
    all_taken(&members)?;
    Ok(ask)
}

// SECURITY: a member that is not understood would end more than was meant if it were ignored;
// `a_filter_that_is_not_understood_ends_nothing`
fn selector(mut filter: Map<String, Value>) -> Result<Selector, Refused> {
    let mut take = |name: &str| match filter.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(&format!("filter.{name}"))),
    };
    let mut selector = Selector {
        job: take("job")?,
        workload: take("workload")?,
        owner: take("owner")?,
        issuer: take("issuer")?,
        target: take("target")?,
        row: take("row")?,
        template: take("template")?,
        key: None,
        claims: BTreeMap::new(),
    };
    if filter.contains_key("key") {
        return Err(refused("a key is tainted, not named in a filter: `POST /v1/keys/{kid}/taint`"));
    }
    if let Some(claims) = filter.remove("claims") {
        let Value::Object(claims) = claims else { return Err(wrong("filter.claims")) };
        for (name, value) in claims {
            selector.claims.insert(name, claim(value)?);
        }
    }
    if !filter.is_empty() {
        return Err(refused(
            "`filter` takes job, workload, owner, issuer, target, row, template, and claims by name; a member is none of these",
        ));
    }
    if !selector.is_empty() && selector.to_string().parse() != Ok(selector.clone()) {
        return Err(refused("a value of `filter` is empty, too long, or holds what no name holds"));
    }
    Ok(selector)
}

/// A claim as text, whatever its type.
fn claim(value: Value) -> Result<String, Refused> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        _ => Err(wrong("filter.claims")),
    }
}

fn refused(hint: &str) -> Refused {
    Refused { hint: Some(hint.to_owned()), ..Reason::Invalid.into() }
}

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_TYPE;

    use super::*;

    fn asked(body: &str) -> Result<EndBySelector, Reason> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "application/json".parse().unwrap())]);
        ask(&headers, body.as_bytes()).map_err(|refused| refused.reason)
    }

    #[test]
    fn everything_that_may_be_said_is_read() {
        let ask = asked(
            r#"{"filter":{"owner":"team-shop","template":"a \"b\"","claims":{"repository_id":88120,"ok":true,"ref":"x"}},
                "reason":"INC-7","dry_run":true,"expected_count":12,"block":false}"#,
        );
        let EndBySelector { selector, reason, dry_run, expected, block } = ask.unwrap();
        assert_eq!(
            selector.to_string(),
            r#"owner == "team-shop" && template == "a \"b\"" && ok == "true" && ref == "x" && repository_id == "88120""#
        );
        assert_eq!((reason.as_deref(), dry_run, expected, block), (Some("INC-7"), true, Some(12), false));
        let usual = asked(r#"{"filter":{"owner":"team-shop"}}"#).unwrap();
        assert!(usual.block && !usual.dry_run && usual.expected.is_none());
        assert!(asked(r#"{"filter":{}}"#).unwrap().selector.is_empty(), "refused where it is known who asks");
    }

    #[test]
    fn a_filter_that_is_not_understood_ends_nothing() {
        for body in [
            "{}",
            r#"{"filter":null}"#,
            r#"{"filter":"owner == \"x\""}"#,
            r#"{"filter":[]}"#,
            r#"{"filter":{"owners":"x"}}"#,
            r#"{"filter":{"Owner":"x"}}"#,
            r#"{"filter":{"owner":"x","state":"active"}}"#,
            r#"{"filter":{"owner":null}}"#,
            r#"{"filter":{"owner":["x"]}}"#,
            r#"{"filter":{"owner":""}}"#,
            r#"{"filter":{"owner":"a\nb"}}"#,
            r#"{"filter":{"key":"k1"}}"#,
            r#"{"filter":{"claims":{"a":""}}}"#,
            r#"{"filter":{"claims":{"":"a"}}}"#,
            r#"{"filter":{"claims":{"a b":"a"}}}"#,
            r#"{"filter":{"claims":{"a":1.5}}}"#,
            r#"{"filter":{"claims":{"a":["b"]}}}"#,
            r#"{"filter":{"claims":["a"]}}"#,
            r#"{"filter":{"owner":"x"},"expected_count":-1}"#,
            r#"{"filter":{"owner":"x"},"expected_count":1.5}"#,
            r#"{"filter":{"owner":"x"},"expected_count":"1"}"#,
            r#"{"filter":{"owner":"x"},"dry_run":"true"}"#,
            r#"{"filter":{"owner":"x"},"dryrun":true}"#,
            r#"{"filter":{"owner":"x"},"block":0}"#,
        ] {
            assert_eq!(asked(body), Err(Reason::Invalid), "{body}");
        }
        let long = format!(r#"{{"filter":{{"owner":"{}"}}}}"#, "x".repeat(5_000));
        assert_eq!(asked(&long), Err(Reason::Invalid));
        assert_eq!(asked(r#"{"filter":{"owner":"x","owner":"y"}}"#), Err(Reason::Request), "a member twice");
    }
}
