//! `/v1/blocks`: what may not be issued, and how it may be again.

use axum::{
    http::{StatusCode, request::Parts},
    response::Response,
};
use dayfly_domain::BlockId;

use super::{
    caller::caller,
    filters::{self, Query},
    refusal::{no_content, ok},
    views,
};
use crate::flow::{Flow, Refused};

pub(super) async fn list(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    let Query { filter: (), limit, cursor } = filters::blocks(parts.uri.query())?;
    let caller = caller(flow, parts).await?;
    let listing = flow.blocks(&caller, limit, cursor.as_deref()).await?;
    Ok(ok(&views::list(listing, |view| Ok(views::block(view)))?))
}

/// 204; a second time 404, as for any other that does not stand.
pub(super) async fn lift(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    filters::none(parts.uri.query())?;
    let caller = caller(flow, parts).await?;
    // What is no id was never given to a block.
    let id = parts.uri.path().rsplit('/').next().and_then(|text| text.parse().ok());
    flow.lift_block(&caller, id.unwrap_or(BlockId::from_u128(0))).await?;
    Ok(no_content(StatusCode::NO_CONTENT))
}
