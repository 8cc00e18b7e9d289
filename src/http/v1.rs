//! Tasks, leases and events under `/v1`: parameters in, a verb, a shape out.

use axum::{extract::Request, http::request::Parts, response::Response};
use dayfly_domain::{EventId, LeaseId, Reason, TaskId};

use super::{
    body,
    caller::caller,
    ending,
    filters::{self, Query},
    refusal::ok,
    views,
};
use crate::flow::{Flow, Refused};

pub(super) async fn tasks(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    let Query { filter, limit, cursor } = filters::tasks(parts.uri.query())?;
    let caller = caller(flow, parts).await?;
    let listing = flow.tasks(&caller, filter, limit, cursor.as_deref()).await?;
    Ok(ok(&views::list(listing, views::task)?))
}

pub(super) async fn task(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    filters::none(parts.uri.query())?;
    let caller = caller(flow, parts).await?;
    let view = flow.task(&caller, task_id(parts.uri.path())).await?;
    Ok(ok(&views::task(view)?))
}

pub(super) async fn end_task(flow: &Flow, request: Request) -> Result<Response, Refused> {
    let (parts, bytes) = body::read(request).await?;
    filters::none(parts.uri.query())?;
    let end = ending::task(&parts.headers, &bytes)?;
    let caller = caller(flow, &parts).await?;
    let answer = flow.end_task(&caller, task_id(parts.uri.path()), end.reason, end.block).await?;
    Ok(ok(&views::ended(answer)))
}

/// Comes every few seconds from every job: nothing is read for it but what memory holds.
pub(super) async fn beat(flow: &Flow, request: Request) -> Result<Response, Refused> {
    let (parts, bytes) = body::read(request).await?;
    filters::none(parts.uri.query())?;
    ending::nothing(&parts.headers, &bytes)?;
    let caller = caller(flow, &parts).await?;
    let beat = flow.beat(&caller, task_id(parts.uri.path())).await?;
    Ok(ok(&views::beat(beat)))
}

pub(super) async fn leases(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    let Query { filter, limit, cursor } = filters::leases(parts.uri.query())?;
    let caller = caller(flow, parts).await?;
    let listing = flow.leases(&caller, filter, limit, cursor.as_deref()).await?;
    Ok(ok(&views::list(listing, views::lease)?))
}

pub(super) async fn lease(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    filters::none(parts.uri.query())?;
    let caller = caller(flow, parts).await?;
    let view = flow.lease(&caller, lease_id(parts.uri.path())).await?;
    Ok(ok(&views::lease(view)?))
}

pub(super) async fn end_lease(flow: &Flow, request: Request) -> Result<Response, Refused> {
    let (parts, bytes) = body::read(request).await?;
    filters::none(parts.uri.query())?;
    let reason = ending::lease(&parts.headers, &bytes)?;
    let caller = caller(flow, &parts).await?;
    let answer = flow.end_lease(&caller, lease_id(parts.uri.path()), reason).await?;
    Ok(ok(&views::ended(answer)))
}

pub(super) async fn events(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    let Query { filter, limit, cursor } = filters::events(parts.uri.query())?;
    let caller = caller(flow, parts).await?;
    let listing = flow.events(&caller, filter, limit, cursor.as_deref()).await?;
    Ok(ok(&views::list(listing, views::event)?))
}

pub(super) async fn entitlements(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    let Query { filter, limit, cursor } = filters::entitlements(parts.uri.query())?;
    let caller = caller(flow, parts).await?;
    let listing = flow.entitlements(&caller, filter, limit, cursor.as_deref()).await?;
    Ok(ok(&views::list(listing, |view| Ok(views::entitlement(view)))?))
}

pub(super) async fn event(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    filters::none(parts.uri.query())?;
    // A name that is no id may be a route of a later version: nobody finds anything there today.
    let id: EventId = segment(parts.uri.path()).parse().map_err(|_| Reason::NotFound)?;
    let caller = caller(flow, parts).await?;
    let view = flow.event(&caller, id).await?;
    Ok(ok(&views::event(view)?))
}

// SECURITY: what is no id becomes an id that was never given (the year 1970, all zeros), so that
// `flow` answers it exactly as it answers an unknown one; t_112_what_is_no_id_is_an_unknown_id
fn task_id(path: &str) -> TaskId {
    segment(path).parse().unwrap_or(TaskId::from_u128(0))
}

fn lease_id(path: &str) -> LeaseId {
    segment(path).parse().unwrap_or(LeaseId::from_u128(0))
}

/// `/v1/<things>/<this>` as it was sent: an escape is never undone, so an id has one spelling.
fn segment(path: &str) -> &str {
    path.split('/').nth(3).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_from_its_place() {
        let id = TaskId::from_parts(1, [1; 10]);
        assert_eq!(task_id(&format!("/v1/tasks/{id}")), id);
        assert_eq!(task_id(&format!("/v1/tasks/{id}/end")), id);
    }

    #[test]
    fn t_112_what_is_no_id_is_an_unknown_id() {
        let good = TaskId::from_parts(1, [1; 10]).to_string();
        let escaped = format!("%74{}", &good[1..]);
        let lease = good.replace("tsk_", "lse_");
        let shouted = good.to_uppercase();
        for bad in ["root", ".", "..", "", "%2e%2e", "a%2f..%2fb", "sys", "*", &escaped, &lease, &shouted] {
            assert_eq!(task_id(&format!("/v1/tasks/{bad}")), TaskId::from_u128(0), "{bad}");
        }
    }
}
