//! One request over one connection. There is no pool: fetches are rare, and a command of the
//! CLI makes one or two requests.

use std::future;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    client::conn::http1,
    http::uri::Authority,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// What came back, whole.
pub(super) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Why nothing whole came back.
pub(super) enum Failure {
    /// The body is larger than the cap.
    TooLarge,
    /// Not HTTP, or cut off.
    Protocol,
    Refused(StatusCode),
}

/// Sends one request and reads the answer up to `body_max_bytes`. An answer that `wanted`
/// refuses is not read any further. Needs a deadline around it.
pub(super) async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    body_max_bytes: usize,
    wanted: fn(StatusCode) -> bool,
) -> Result<Reply, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_header_size(HEADER_MAX_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Failure::Protocol)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|_| Failure::Protocol)?;
        if !wanted(response.status()) {
            return Err(Failure::Refused(response.status()));
        }
        read(response, body_max_bytes).await
    };
    // The connection does the reading and writing; its end is told through the answer.
    let driver = async {
        let _ = connection.await;
        future::pending().await
    };
    tokio::select! {
        reply = answer => reply,
        never = driver => never,
    }
}

/// A host without the brackets of an IPv6 address.
pub(super) fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The port of an https URL; `None` if what is written there is none.
pub(super) fn port(authority: &Authority) -> Option<u16> {
    if authority.as_str().ends_with(authority.host()) { Some(443) } else { authority.port_u16() }
}

const HEADERS_MAX: usize = 100;
const HEADER_MAX_BYTES: usize = 32 << 10;

async fn read(response: Response<Incoming>, body_max_bytes: usize) -> Result<Reply, Failure> {
    let (head, body) = response.into_parts();
    // SECURITY: t_054: what is announced too large is not read at all.
    if body.size_hint().lower() > body_max_bytes as u64 {
        return Err(Failure::TooLarge);
    }
    let body = Limited::new(body, body_max_bytes).collect().await.map_err(body_error)?;
    Ok(Reply { status: head.status, headers: head.headers, body: body.to_bytes().to_vec() })
}

fn body_error(error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
    if error.is::<LengthLimitError>() { Failure::TooLarge } else { Failure::Protocol }
}
