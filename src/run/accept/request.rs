//! One request on its way to the router: it has one host, and its body is read whole, up to a
//! size and within a time, before anything else sees it. A panic behind this line is a 500.

use std::{future::poll_fn, panic::AssertUnwindSafe, pin::pin, sync::Arc, task::Poll, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{
        StatusCode, Version,
        header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;
use tower::ServiceExt;

use super::Door;
use crate::http::{Client, Peer};

/// Answers a request that the router never sees (400, 408, 413, 431) or in which it panicked
/// (500). Of what could not be parsed nothing is known: its parts are empty.
pub type Refuse = Arc<dyn Fn(StatusCode, &Parts) -> Response + Send + Sync>;

/// The status and nothing else.
pub fn plain(status: StatusCode, _: &Parts) -> Response {
    status.into_response()
}

/// The router's answer, or a refusal.
pub(super) async fn answer(
    door: &Door,
    peer: Peer,
    client: Option<Client>,
    request: hyper::Request<Incoming>,
) -> Response {
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(peer);
    if let Some(client) = client {
        parts.extensions.insert(client);
    }
    let body = match accept_body(door, &parts, body).await {
        Ok(body) => body,
        Err(status) => return closing((door.refuse)(status, &parts)),
    };
    let asked = parts.clone();
    let answered = catch_panic(door.app.clone().oneshot(Request::from_parts(parts, Body::from(body)))).await;
    let response = match answered {
        Some(Ok(response)) => response,
        Some(Err(never)) => match never {},
        None => {
            metrics::counter!("dayfly_panics_total").increment(1);
            (door.refuse)(StatusCode::INTERNAL_SERVER_ERROR, &asked)
        }
    };
    // INVARIANT: `Framing` does not look past a chunked body, so nothing may come after it.
    if asked.headers.contains_key(TRANSFER_ENCODING) { closing(response) } else { response }
}

/// The refusal of an address that asks too much. No byte of a body is read for it.
pub(super) fn too_many(door: &Door, request: hyper::Request<Incoming>) -> Response {
    let (parts, body) = request.into_parts();
    let response = (door.refuse)(StatusCode::TOO_MANY_REQUESTS, &parts);
    // What was not read cannot be told from the next request. Without a body the connection stays: another
    // one would cost more.
    if body.is_end_stream() { response } else { closing(response) }
}

async fn accept_body(door: &Door, parts: &Parts, body: Incoming) -> Result<Bytes, StatusCode> {
    if !names_one_host(parts) {
        return Err(StatusCode::BAD_REQUEST);
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    read_body(parts, body, door.limits.body_max_bytes, door.limits.body).await
}

/// RFC 9112 section 3.2. SECURITY: `t_157_a_request_without_one_host_is_refused`
fn names_one_host(parts: &Parts) -> bool {
    let hosts = parts.headers.get_all(HOST).iter().count();
    hosts == 1 || (hosts == 0 && parts.version == Version::HTTP_10)
}

/// SECURITY: `t_159_*`: what is announced too large is not read at all.
async fn read_body(parts: &Parts, body: Incoming, max_bytes: usize, allowed: Duration) -> Result<Bytes, StatusCode> {
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max_bytes as u64) {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    match timeout(allowed, Limited::new(body, max_bytes).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// `None` if the future panicked; it is not polled again.
async fn catch_panic<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        polled.map_or(Poll::Ready(None), |poll| poll.map(Some))
    })
    .await
}
