//! The form of `/oauth2/token` (wire.md section 2), read into an `Exchange`. Nothing here decides
//! anything but whether the request can be understood.

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::{Kind, Reason, Secret};

use super::{
    details::{self, Details},
    form::Fields,
    proof,
};
use crate::{
    flow::{Exchange, Refused, Subject},
    policy::{Ask, What},
};

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub(super) const TASK_CONTROL: &str = "urn:dayfly:token-type:task-control";
pub(super) const X509: &str = "urn:dayfly:token-type:x509";
const SUPERSEDE_MAX_S: u8 = 60;

/// Every parameter we know. An empty one is malformed, not absent (law L4).
const KNOWN: &[&str] = &[
    "grant_type",
    "subject_token",
    "subject_token_type",
    "resource",
    "audience",
    "scope",
    "requested_token_type",
    "authorization_details",
    "task_control_s256",
    "supersede",
    "csr",
];

/// What stands in the way: a parameter is missing, repeated or malformed. The hint is ours, never
/// the caller's text.
pub(super) fn malformed(hint: &str) -> Refused {
    Refused { hint: Some(hint.to_owned()), ..Reason::Request.into() }
}

/// Whether the ask came with `authorization_details`: the errors differ.
pub(super) fn asks_with_details(fields: &Fields) -> bool {
    fields.has("authorization_details")
}

/// One request, whole or refused.
pub(super) fn parse(headers: &HeaderMap, path: &str, mut fields: Fields) -> Result<Exchange, Refused> {
    let possession = proof::of(headers, "POST", path)?;
    grant_type(&mut fields)?;
    no_foreign_parts(&fields)?;
    no_empty(&mut fields)?;
    let subject = subject(&mut fields)?;
    let wanted = wanted(&mut fields, &subject)?;
    let csr = csr(&mut fields, wanted)?;
    let ask = ask(&mut fields, &subject, wanted)?;
    Ok(Exchange { subject, ask, possession, csr })
}

fn grant_type(fields: &mut Fields) -> Result<(), Refused> {
    match fields.take("grant_type").as_deref() {
        Some(TOKEN_EXCHANGE) => Ok(()),
        None | Some("") => Err(malformed("`grant_type` is missing")),
        Some(_) => Err(Reason::GrantType.into()),
    }
}

fn no_foreign_parts(fields: &Fields) -> Result<(), Refused> {
    match ["actor_token", "actor_token_type"].into_iter().any(|name| fields.has(name)) {
        true => Err(malformed("`actor_token` is not supported")),
        false => Ok(()),
    }
}

fn no_empty(fields: &mut Fields) -> Result<(), Refused> {
    match KNOWN.iter().find(|name| fields.is_blank(name)) {
        Some(name) => Err(malformed(&format!("`{name}` is empty"))),
        None => Ok(()),
    }
}

fn subject(fields: &mut Fields) -> Result<Subject, Refused> {
    let token = fields.take("subject_token").ok_or_else(|| malformed("`subject_token` is missing"))?;
    let token = Secret::new(token);
    let control_s256 = fields.take("task_control_s256");
    let supersede_s = fields.take("supersede").map(|text| supersede(&text)).transpose()?;
    match fields.take("subject_token_type").as_deref() {
        Some(JWT | ID_TOKEN) if supersede_s.is_some() => Err(malformed("`supersede` goes with a handle only")),
        Some(JWT | ID_TOKEN) => {
            let control_s256 = control_s256.map(|text| control_hash(&text)).transpose()?;
            Ok(Subject::Evidence { token, control_s256 })
        }
        Some(TASK_CONTROL) if control_s256.is_some() => Err(malformed("`task_control_s256` goes with evidence only")),
        Some(TASK_CONTROL) => Ok(Subject::Handle { handle: token, supersede_s }),
        Some(_) => Err(malformed("`subject_token_type` is none that is taken here")),
        None => Err(malformed("`subject_token_type` is missing")),
    }
}

fn control_hash(text: &str) -> Result<[u8; 32], Refused> {
    // The engine refuses padding, foreign letters and loose bits at the end: one spelling only.
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|_| text.len() == 43);
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| malformed("`task_control_s256` is not 43 characters of base64url over a SHA-256"))
}

fn supersede(text: &str) -> Result<u8, Refused> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let seconds = text.parse::<u8>().ok().filter(|&seconds| plain && seconds <= SUPERSEDE_MAX_S);
    seconds.ok_or_else(|| malformed("`supersede` is not a number of seconds from 0 to 60"))
}

fn ask(fields: &mut Fields, subject: &Subject, wanted: Option<Kind>) -> Result<Ask, Refused> {
    let resource = resource(fields)?;
    let scope = fields.take("scope");
    let details = fields.take("authorization_details").map(|text| details::parse(&text)).transpose()?;
    let template = template(scope, details.as_ref(), subject)?;
    let Details { actions, ttl_s, ticket, template: _ } = details.unwrap_or_default();
    if ticket.is_some() && matches!(subject, Subject::Handle { .. }) {
        return Err(Reason::Ticket.into());
    }
    let what = match wanted {
        Some(kind) => What::Credential { kind, resource, actions },
        None if resource.is_some() => return Err(malformed("a task without a credential takes no `resource`")),
        None if actions.is_some() || ttl_s.is_some() => {
            return Err(details::refused("a task without a credential takes neither `actions` nor `ttl`"));
        }
        None => What::TaskOnly,
    };
    Ok(Ask { template, what, ttl_s, ticket })
}

fn resource(fields: &mut Fields) -> Result<Option<String>, Refused> {
    match (fields.take("resource"), fields.take("audience")) {
        (Some(resource), Some(audience)) if resource != audience => {
            Err(malformed("`audience` is a synonym of `resource`, and they differ"))
        }
        (resource, audience) => Ok(resource.or(audience)),
    }
}

/// The kind of credential; `None`: a task alone.
fn wanted(fields: &mut Fields, subject: &Subject) -> Result<Option<Kind>, Refused> {
    match (fields.take("requested_token_type").as_deref(), subject) {
        (None | Some(ACCESS_TOKEN), _) => Ok(Some(Kind::Jwt)),
        (Some(X509), _) => Ok(Some(Kind::X509)),
        (Some(TASK_CONTROL), Subject::Evidence { .. }) => Ok(None),
        (Some(TASK_CONTROL), Subject::Handle { .. }) => Err(malformed("a handle opens no task")),
        (Some(_), _) => Err(malformed("`requested_token_type` is none that is given here")),
    }
}

/// A request for a certificate comes with it, and with nothing else.
fn csr(fields: &mut Fields, wanted: Option<Kind>) -> Result<Option<String>, Refused> {
    match (fields.take("csr"), wanted) {
        (None, Some(Kind::X509)) => Err(malformed("`csr` is missing")),
        (Some(_), None | Some(Kind::Jwt)) => {
            Err(malformed("`csr` goes with `requested_token_type` urn:dayfly:token-type:x509 only"))
        }
        (csr, _) => Ok(csr),
    }
}

/// With a handle the name may be empty: the task's.
fn template(scope: Option<String>, details: Option<&Details>, subject: &Subject) -> Result<String, Refused> {
    match (scope, details.map(|details| details.template.clone()), subject) {
        (Some(scope), Some(named), _) if scope != named => {
            Err(malformed("`scope` and `authorization_details` name different templates"))
        }
        (Some(name), _, _) | (None, Some(name), _) => Ok(name),
        (None, None, Subject::Handle { .. }) => Ok(String::new()),
        (None, None, Subject::Evidence { .. }) => Err(malformed("name a template in `scope`")),
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
