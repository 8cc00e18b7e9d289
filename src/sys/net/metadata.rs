//! A cloud's metadata server: plain HTTP on the machine's own link, which has no certificate and
//! needs none. In: an authority, a path and the header that such a server demands. Out: its answer.
//!
//! No proxy, no redirect, no pool. The broker never uses it: only the command line, for itself.

use std::time::Duration;

use http_body_util::Full;
use hyper::{
    Request,
    body::Bytes,
    header::{HOST, HeaderName, HeaderValue},
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    client::{ANSWER_MAX_BYTES, Answer, ClientError},
    exchange::{Failure, exchange},
};

/// A server on the same link answers at once or never.
pub const METADATA_WITHIN: Duration = Duration::from_secs(5);

/// Asks `authority` (`host` or `host:port`) for `path`.
pub async fn metadata(
    authority: &str,
    path: &str,
    demanded: (&'static str, &'static str),
) -> Result<Answer, ClientError> {
    let tried = || format!("http://{authority}");
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let work = async {
        let request = request(authority, path, demanded)
            .ok_or_else(|| ClientError::Address { given: tried(), why: "the request's path does not fit it" })?;
        let connected = TcpStream::connect(&address).await;
        let stream = connected.map_err(|source| ClientError::Connect { tried: tried(), source })?;
        let reply = exchange(stream, request, ANSWER_MAX_BYTES, |_| true).await.map_err(|failure| match failure {
            Failure::TooLarge => ClientError::TooLarge { tried: tried() },
            Failure::Protocol | Failure::Refused(_) => ClientError::Protocol { tried: tried() },
        })?;
        Ok(Answer { status: reply.status.as_u16(), headers: reply.headers, body: reply.body })
    };
    let late = |_| ClientError::Timeout { tried: tried(), after_s: METADATA_WITHIN.as_secs() };
    timeout(METADATA_WITHIN, work).await.map_err(late)?
}

fn request(authority: &str, path: &str, demanded: (&'static str, &'static str)) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::get(path).body(Full::default()).ok()?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority).ok()?);
    let (name, value) = demanded;
    request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    Some(request)
}
