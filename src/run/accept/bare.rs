//! The HTTP library answers what it cannot parse by itself, with a status and nothing else. In:
//! what it is about to write. Out: if that is such an answer, the same with the door's words.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum::{
    body::Bytes,
    http::{
        Request, Response, StatusCode,
        header::{CONNECTION, CONTENT_LENGTH, DATE},
    },
};
use http_body_util::BodyExt;

use super::Refuse;

/// The whole answer in the place of a bare one, which is the last of its connection; `None` for
/// every other answer. SECURITY: `t_157_*`, `t_158_*`
pub(super) fn worded(answer: &[u8], refuse: &Refuse) -> Option<Bytes> {
    let Bare { status, date } = Bare::read(answer)?;
    // Nothing is known of the request: no path, no headers.
    let (parts, ()) = Request::new(()).into_parts();
    let (head, body) = refuse(status, &parts).into_parts();
    // A body that is not there yet is not waited for: then the bare answer stays.
    let Poll::Ready(Ok(body)) = pin!(body.collect()).poll(&mut Context::from_waker(Waker::noop())) else {
        return None;
    };
    Some(written(&Response::from_parts(head, body.to_bytes()), date))
}

/// What an answer of the library says: its status, its time, and the end of the connection.
struct Bare<'a> {
    status: StatusCode,
    date: Option<&'a str>,
}

impl<'a> Bare<'a> {
    /// Any other header, a missing length or an open connection: not the library's own.
    fn read(answer: &'a [u8]) -> Option<Self> {
        let head = answer.strip_prefix(b"HTTP/1.")?.strip_suffix(b"\r\n\r\n")?;
        let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
        let (version, status) = lines.next()?.split_once(' ')?;
        let status = refused_status(status.get(..3)?)?;
        let (mut empty, mut closing, mut date) = (false, version == "0", None);
        for line in lines {
            match line.split_once(": ")? {
                ("content-length", "0") => empty = true,
                ("connection", "close") => closing = true,
                ("date", value) => date = Some(value),
                _ => return None,
            }
        }
        (empty && closing).then_some(Self { status, date })
    }
}

/// The statuses that the library gives; a long URI is a header block over its limit.
fn refused_status(code: &str) -> Option<StatusCode> {
    match code {
        "400" => Some(StatusCode::BAD_REQUEST),
        "414" | "431" => Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        _ => None,
    }
}

fn written(response: &Response<Bytes>, date: Option<&str>) -> Bytes {
    let body = response.body();
    let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    let ours = [CONNECTION, CONTENT_LENGTH, DATE];
    for (name, value) in response.headers().iter().filter(|(name, _)| !ours.contains(name)) {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    let date = date.map(|date| format!("date: {date}\r\n")).unwrap_or_default();
    bytes.extend(format!("connection: close\r\ncontent-length: {}\r\n{date}\r\n", body.len()).into_bytes());
    bytes.extend(body);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::response::IntoResponse;

    use super::*;

    fn word(answer: &str) -> Option<String> {
        let refuse: Refuse = Arc::new(|status, _| (status, [("x-a", "b")], "words").into_response());
        worded(answer.as_bytes(), &refuse).map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"))
    }

    #[test]
    fn a_bare_refusal_gets_words_and_keeps_its_end() {
        let told = word("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: then\r\n\r\n");
        let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nx-a: b\r\n";
        let end = "connection: close\r\ncontent-length: 5\r\ndate: then\r\n\r\nwords";
        assert_eq!(told, Some(format!("{head}{end}")));
        // HTTP/1.0 ends a connection without saying so.
        assert!(word("HTTP/1.0 431 x\r\ncontent-length: 0\r\n\r\n").is_some());
        let long = word("HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        assert!(long.is_some_and(|long| long.starts_with("HTTP/1.1 431 ")));
    }

    #[test]
    fn every_other_answer_stays_as_it_is() {
        for answer in [
            "",
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 413 x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 2\r\n\r\nab",
            "HTTP/1.1 400 Bad Request\r\ncontent-type: a/b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.0 400 Bad Request\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\nHTTP/1.1 ",
        ] {
            assert_eq!(word(answer), None, "{answer:?}");
        }
    }
}
