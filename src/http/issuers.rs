//! The issuers of the bundle under `/v1`: how their keys are, and a fetch on an operator's word.

use axum::{extract::Request, http::request::Parts, response::Response};
use dayfly_domain::bundle::IssuerKind;

use super::{
    body,
    caller::caller,
    ending, filters,
    refusal::ok,
    shapes::{Issuer, IssuerState, List},
};
use crate::flow::{Flow, IssuerSource, IssuerView, KeysHealth, KeysState, Refused};

pub(super) async fn list(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    filters::none(parts.uri.query())?;
    let caller = caller(flow, parts).await?;
    let items = flow.issuers(&caller).await?.into_iter().map(issuer).collect();
    Ok(ok(&List { items, next_cursor: None }))
}

pub(super) async fn refresh(flow: &Flow, request: Request) -> Result<Response, Refused> {
    let (parts, bytes) = body::read(request).await?;
    filters::none(parts.uri.query())?;
    ending::nothing(&parts.headers, &bytes)?;
    let caller = caller(flow, &parts).await?;
    // As it was sent: a name has one spelling, and an escape is never undone.
    let name = parts.uri.path().split('/').nth(3).unwrap_or_default();
    Ok(ok(&issuer(flow.refresh_issuer(&caller, name).await?)))
}

pub(super) fn issuer(view: IssuerView) -> Issuer {
    let IssuerView { name, profile, kind, url, source, health } = view;
    let KeysHealth { state, keys, confirmed_at, tried_at, failures, review_failures, why } = health;
    let kind = match kind {
        IssuerKind::Workload => "workload",
        IssuerKind::Verifier => "verifier",
    };
    let source = match source {
        IssuerSource::Discovery => "discovery",
        IssuerSource::Endpoint => "endpoint",
        IssuerSource::File => "file",
    };
    let state = match state {
        KeysState::Fresh => IssuerState::Fresh,
        KeysState::Stale => IssuerState::Stale,
        KeysState::Down => IssuerState::Down,
        KeysState::Waiting => IssuerState::Waiting,
        KeysState::Pinned => IssuerState::Pinned,
        KeysState::Disabled => IssuerState::Disabled,
    };
    Issuer {
        name: name.to_string(),
        profile: profile.to_string(),
        kind: kind.to_owned(),
        url: url.to_string(),
        source: source.to_owned(),
        state,
        keys: keys as u64,
        confirmed_at,
        tried_at,
        failures: failures + review_failures,
        why: why.map(|why| why.to_string()),
    }
}
