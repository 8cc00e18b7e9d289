//! `POST /v1/simulate`: the body of a dry run, strictly, and its answer. A token in it is proven and
//! forgotten: it is in no record, log or answer.

use axum::{extract::Request, http::HeaderMap, response::Response};
use dayfly_domain::{Kind, Secret};
use serde_json::{Map, Value};

use super::{
    body,
    caller::caller,
    details::{self, Details},
    ending::{all_taken, members},
    exchange::malformed,
    filters::{self, wrong},
    refusal::ok,
    shapes::Explanation,
};
use crate::{
    flow::{Flow, Refused, Simulate, Under, explain::Trial, fingerprint},
    policy::{Ask, What},
};

/// `target#action` of a job's live tasks.
pub const HELD_MAX: usize = 128;

pub(super) async fn simulate(flow: &Flow, request: Request) -> Result<Response, Refused> {
    let (parts, bytes) = body::read(request).await?;
    filters::none(parts.uri.query())?;
    // Whoever may not ask learns nothing of how to ask.
    let caller = caller(flow, &parts).await?;
    let by = flow.may_simulate(&caller).await?;
    let (what, under) = parse(&parts.headers, &bytes)?;
    let explained = flow.simulate(by, what, under).await?;
    Ok(ok(&Explanation::from(explained)))
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<(Simulate, Under), Refused> {
    let mut members = members(headers, body)?;
    let subjects = ["event", "lease", "claims", "evidence"].into_iter().filter(|name| members.contains_key(*name));
    let subjects: Vec<_> = subjects.collect();
    let [subject] = subjects.as_slice() else {
        return Err(malformed("name exactly one of `event`, `lease`, `claims` and `evidence`"));
    };
    let bundle = members.remove("bundle").map(|value| under(&value)).transpose()?;
    let of_record = matches!(*subject, "event" | "lease");
    let what = match *subject {
        "event" => Simulate::Event(id(&mut members, "event")?),
        "lease" => Simulate::Lease(id(&mut members, "lease")?),
        "claims" => Simulate::Claims {
            issuer: text(&mut members, "issuer")?,
            claims: claims(&mut members)?,
            trial: trial(&mut members)?,
        },
        _ => Simulate::Evidence { token: evidence(&mut members)?, trial: trial(&mut members)? },
    };
    all_taken(&members)?;
    match bundle {
        Some(Under::Recorded) if !of_record => Err(wrong("bundle")),
        Some(under) => Ok((what, under)),
        None if of_record => Ok((what, Under::Recorded)),
        None => Ok((what, Under::InForce)),
    }
}

fn under(value: &Value) -> Result<Under, Refused> {
    match value.as_str() {
        Some("recorded") => Ok(Under::Recorded),
        Some("in_force") => Ok(Under::InForce),
        text => text.and_then(fingerprint).map(Under::Kept).ok_or_else(|| wrong("bundle")),
    }
}

fn id<T: std::str::FromStr>(members: &mut Map<String, Value>, name: &str) -> Result<T, Refused> {
    let text = text(members, name)?.ok_or_else(|| wrong(name))?;
    text.parse().map_err(|_| wrong(name))
}

fn claims(members: &mut Map<String, Value>) -> Result<Map<String, Value>, Refused> {
    match members.remove("claims") {
        Some(Value::Object(claims)) => Ok(claims),
        _ => Err(wrong("claims")),
    }
}

fn evidence(members: &mut Map<String, Value>) -> Result<Secret<String>, Refused> {
    text(members, "evidence")?.map(Secret::new).ok_or_else(|| wrong("evidence"))
}

/// The ask, as in an exchange, and what it is made under.
fn trial(members: &mut Map<String, Value>) -> Result<Trial, Refused> {
    let details = ["template", "actions", "ttl", "ticket"];
    let details: Map<_, _> = details.into_iter().filter_map(|name| members.remove_entry(name)).collect();
    let Details { template, actions, ttl_s, ticket } = details::fields(details)?;
    let resource = text(members, "resource")?;
    let what = match text(members, "kind")?.as_deref() {
        Some("task") if resource.is_some() || actions.is_some() || ttl_s.is_some() => return Err(wrong("kind")),
        Some("task") => What::TaskOnly,
        None | Some("jwt") => What::Credential { kind: Kind::Jwt, resource, actions },
        Some("x509") => What::Credential { kind: Kind::X509, resource, actions },
        Some(_) => return Err(wrong("kind")),
    };
    let binding = text(members, "binding")?.map(|word| word.parse().map_err(|_| wrong("binding"))).transpose()?;
    let ask = Ask { template, what, ttl_s, ticket };
    Ok(Trial { ask, binding, age_s: 0, held: held(members)? })
}

fn held(members: &mut Map<String, Value>) -> Result<Vec<String>, Refused> {
    let Some(value) = members.remove("held") else { return Ok(Vec::new()) };
    let pair = |value: &Value| value.as_str().filter(|text| text.contains('#')).map(str::to_owned);
    let pairs: Option<Vec<_>> = value.as_array().and_then(|pairs| pairs.iter().map(pair).collect());
    let mut pairs = pairs.ok_or_else(|| wrong("held"))?;
    if pairs.len() > HELD_MAX {
        return Err(Refused { hint: Some(format!("`held` has more than {HELD_MAX} pairs")), ..wrong("held") });
    }
    pairs.sort_unstable();
    pairs.dedup();
    Ok(pairs)
}

/// A member that is text, and not blank.
fn text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Refused> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text)),
        Some(_) => Err(wrong(name)),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_TYPE;
    use dayfly_domain::{BindingKind, Reason};
    use serde_json::json;

    use super::*;

    #[test]
    fn held_is_bounded_by_itself_and_says_so() {
        let of = |count: usize| {
            let pairs: Vec<_> = (0..count).map(|n| format!("a#{n}")).collect();
            parsed(&json!({ "template": "t", "issuer": "ci", "claims": { "sub": "x" }, "held": pairs }))
        };
        assert!(of(HELD_MAX).is_ok());
        let said = of(HELD_MAX + 1).map(|_| ()).unwrap_err().hint.unwrap();
        assert!(said.contains("more than 128 pairs"), "{said}");
    }

    fn parsed(body: &Value) -> Result<(Simulate, Under), Refused> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "application/json".parse().unwrap())]);
        parse(&headers, body.to_string().as_bytes())
    }

    fn claims(rest: Value) -> Value {
        let mut body = json!({ "issuer": "ci", "claims": { "sub": "x" }, "template": "deploy" });
        body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        body
    }

    #[test]
    fn a_whole_ask_is_read() {
        let body = claims(json!({
            "resource": "https://t.example", "actions": ["a:b"], "ttl": 60, "ticket": "OPS-1", "binding": "dpop",
            "kind": "jwt", "held": ["b#y", "a#x", "b#y"], "bundle": "00".repeat(32),
        }));
        let (Simulate::Claims { issuer, trial, .. }, Under::Kept(_)) = parsed(&body).unwrap() else { panic!() };
        assert_eq!((issuer.as_deref(), trial.binding), (Some("ci"), Some(BindingKind::Dpop)));
        assert_eq!(trial.held, ["a#x", "b#y"]);
        assert_eq!((trial.ask.ttl_s, trial.ask.ticket.as_deref()), (Some(60), Some("OPS-1")));
        assert!(matches!(parsed(&claims(json!({}))).unwrap().1, Under::InForce));
        let event = json!({ "event": "evt_0000000000g000000000000000" });
        assert!(matches!(parsed(&event).unwrap(), (Simulate::Event(_), Under::Recorded)));
    }

    #[test]
    fn what_is_not_meant_is_not_guessed() {
        for body in [
            json!({}),
            json!({ "template": "deploy" }),
            json!({ "event": "evt_0000000000g000000000000000", "lease": "lse_0000000000g000000000000000" }),
            claims(json!({ "evidence": "a.b.c" })),
        ] {
            assert_eq!(parsed(&body).unwrap_err().reason, Reason::Request, "{body}");
        }
        for rest in [
            json!({ "unknown": 1 }),
            json!({ "Kind": "jwt" }),
            json!({ "kind": "jws" }),
            json!({ "kind": "task", "ttl": 60 }),
            json!({ "binding": "none" }),
            json!({ "bundle": "recorded" }),
            json!({ "bundle": "00" }),
            json!({ "bundle": "Z0".repeat(32) }),
            json!({ "held": "a#x" }),
            json!({ "held": ["a"] }),
            json!({ "claims": "x" }),
            json!({ "issuer": "" }),
            json!({ "resource": 1 }),
        ] {
            assert_eq!(parsed(&claims(rest.clone())).unwrap_err().reason, Reason::Invalid, "{rest}");
        }
        for rest in
            [json!({ "ttl": 0 }), json!({ "actions": [] }), json!({ "ticket": "dtc_x" }), json!({ "template": "" })]
        {
            assert_eq!(parsed(&claims(rest.clone())).unwrap_err().reason, Reason::Details, "{rest}");
        }
        let event = |rest: Value| {
            let mut body = json!({ "event": "evt_0000000000g000000000000000" });
            body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            parsed(&body).unwrap_err().reason
        };
        assert_eq!(event(json!({ "template": "deploy" })), Reason::Invalid, "a record has its own ask");
        assert_eq!(event(json!({ "event": "tsk_0000000000g000000000000000" })), Reason::Invalid);
    }
}
