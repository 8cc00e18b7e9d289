//! Status lists (draft-ietf-oauth-status-list-21 section 8): one of them for everybody, and which there
//! are for the servers that need them.

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG},
        request::Parts,
    },
    response::Response,
};
use dayfly_domain::{Reason, Secret};
use dayfly_verifier::status::LIST_MEDIA_TYPE;

use super::{
    caller::caller,
    filters,
    metadata::is_known,
    refusal::{ok, with},
    shapes::{StatusList, StatusLists},
};
use crate::flow::{Caller, Flow, LIST_TTL_S, Refused, StatusListView};

/// The `ttl` in the list.
const MAX_AGE: &str = "public, max-age=15";
const _: () = assert!(LIST_TTL_S == 15);

/// `GET /status/{list}`. Nobody is asked who he is, and any cache may keep it for its `ttl`.
pub(super) async fn list(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    // `time` asks for a list of then (section 8.4), and this is the one of now.
    filters::none(parts.uri.query())?;
    let id = parts.uri.path().rsplit('/').next().unwrap_or_default();
    let published = flow.status_list(id).await?;
    let known = is_known(&parts.headers, &published.etag);
    let mut response = Response::new(if known { Body::empty() } else { published.token.clone().into() });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(LIST_MEDIA_TYPE));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if let Ok(etag) = HeaderValue::from_str(&published.etag) {
        headers.insert(ETAG, etag);
    }
    Ok(with(response, CACHE_CONTROL, MAX_AGE))
}

/// `GET /status`.
pub(super) async fn lists(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    filters::none(parts.uri.query())?;
    let caller = asking(flow, parts).await?;
    let lists = flow.status_lists(&caller).await?.into_iter().map(view).collect();
    Ok(ok(&StatusLists { lists }))
}

/// A verifier has no form to put its assertion in: it is sent as a bearer token.
// SECURITY: what we signed ourselves is never an assertion; every_route_against_every_caller
async fn asking(flow: &Flow, parts: &Parts) -> Result<Caller, Refused> {
    match caller(flow, parts).await? {
        Caller::Nobody => match bearer(&parts.headers) {
            Some(assertion) => flow.verifier(&assertion, None).await,
            None => Err(Reason::Client.into()),
        },
        caller => Ok(caller),
    }
}

/// The one token of the one header.
fn bearer(headers: &HeaderMap) -> Option<Secret<String>> {
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (sent.next()?, sent.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim_matches(' ').to_owned()))
}

fn view(view: StatusListView) -> StatusList {
    let StatusListView { uri, targets, expires_at } = view;
    StatusList { uri, targets: targets.iter().map(ToString::to_string).collect(), expires_at }
}
