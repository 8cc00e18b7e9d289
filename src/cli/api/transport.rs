//! How a request reaches the broker: one function, [`Transport::send`], is the seam between the
//! command line and `sys::net`. In a test a script takes its place.
//!
//! What matters to the callers is whether a request may have arrived: a lost answer is recovered
//! otherwise than a broker that is away (design.md section 5).

use std::{path::PathBuf, time::Duration};

use axum::body::Bytes;
use dayfly_domain::Secret;
use http_body_util::Full;
use hyper::{Method, header};

use crate::sys::net::{Client, ClientError};

/// One request; its secrets are wiped with it.
pub struct Request {
    pub method: Method,
    /// Below the base: `/v1/tasks?limit=50`.
    pub path: String,
    /// The whole value of `Authorization`.
    pub authorization: Option<Secret<String>>,
    /// Media type and text.
    pub body: Option<(&'static str, Secret<String>)>,
}

/// What came back, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub retry_after_s: Option<u64>,
    /// What a proof must hold from now on (RFC 9449 section 8).
    pub dpop_nonce: Option<String>,
    pub body: Vec<u8>,
}

/// No answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The request was never sent.
    #[error("{0}")]
    Unreachable(String),
    /// The request may have arrived and may have taken effect.
    #[error("{0}")]
    Lost(String),
    /// The base is no URL we speak to, or a CA file is none.
    #[error("{0}")]
    Setup(String),
}

#[derive(Debug)]
pub enum Transport {
    Client(Client),
    #[cfg(test)]
    Script(super::script::Script),
}

impl Transport {
    /// `base`: an `https` URL. `ca_pem`: the only roots to trust; otherwise the system's.
    pub fn https(base: &str, ca_pem: Option<Vec<u8>>) -> Result<Self, WireError> {
        Ok(Self::Client(Client::https(base, ca_pem)?))
    }

    pub fn socket(path: PathBuf) -> Self {
        Self::Client(Client::socket(path))
    }

    /// Waits so long for each answer, and no longer.
    pub fn within(self, total: Duration) -> Self {
        match self {
            Self::Client(client) => Self::Client(client.within(total)),
            #[cfg(test)]
            script @ Self::Script(_) => script,
        }
    }

    pub async fn send(&self, request: &Request) -> Result<Answer, WireError> {
        self.send_with_proof(request, None).await
    }

    /// The seam: one request, one answer. `proof`: the value of `DPoP`.
    pub async fn send_with_proof(&self, request: &Request, proof: Option<&str>) -> Result<Answer, WireError> {
        match self {
            Self::Client(client) => {
                // On the heap: every verb holds this future within its own.
                let answer = Box::pin(client.send(outgoing(request, proof)?)).await?;
                let retry_after_s = retry_after_s(&answer.headers);
                let dpop_nonce = text_of(&answer.headers, "dpop-nonce");
                Ok(Answer { status: answer.status, retry_after_s, dpop_nonce, body: answer.body })
            }
            #[cfg(test)]
            Self::Script(script) => script.send(request, proof),
        }
    }

    /// Waits before another try.
    pub async fn pause(&self, wait: Duration) {
        match self {
            #[cfg(test)]
            Self::Script(script) => script.pause(wait),
            Self::Client(_) => tokio::time::sleep(wait).await,
        }
    }
}

impl From<ClientError> for WireError {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::Address { .. } | ClientError::Trust { .. } => Self::Setup(text),
            ClientError::Connect { .. } | ClientError::Tls { .. } => Self::Unreachable(text),
            // It may have stood in the connecting; but nobody loses by doubting that.
            ClientError::Timeout { .. } | ClientError::Protocol { .. } | ClientError::TooLarge { .. } => {
                Self::Lost(text)
            }
        }
    }
}

fn outgoing(request: &Request, proof: Option<&str>) -> Result<hyper::Request<Full<Bytes>>, WireError> {
    let mut builder = hyper::Request::builder()
        .method(request.method.clone())
        .uri(request.path.as_str())
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("dayfly/", env!("CARGO_PKG_VERSION")));
    if let Some(secret) = &request.authorization {
        let mut value = header::HeaderValue::from_str(secret.expose())
            .map_err(|_| WireError::Setup("the token file holds characters that no token has".to_owned()))?;
        value.set_sensitive(true);
        builder = builder.header(header::AUTHORIZATION, value);
    }
    if let Some(proof) = proof {
        builder = builder.header("dpop", proof);
    }
    let body = request.body.as_ref().map(|(media_type, text)| (*media_type, text.expose().clone()));
    let (media_type, text) = body.unzip();
    if let Some(media_type) = media_type {
        builder = builder.header(header::CONTENT_TYPE, media_type);
    }
    builder.body(Full::new(Bytes::from(text.unwrap_or_default()))).map_err(|error| WireError::Setup(error.to_string()))
}

fn retry_after_s(headers: &hyper::HeaderMap) -> Option<u64> {
    text_of(headers, header::RETRY_AFTER.as_str())?.parse().ok()
}

fn text_of(headers: &hyper::HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    use super::*;

    fn get(path: &str) -> Request {
        Request { method: Method::GET, path: path.to_owned(), authorization: None, body: None }
    }

    /// Answers one connection with these bytes and closes it; gives back what was asked.
    async fn one_answer(path: PathBuf, answer: &'static str) -> (Result<Answer, WireError>, String) {
        let listener = UnixListener::bind(&path).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).await.unwrap();
                seen.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(seen).unwrap()
        };
        let transport = Transport::socket(path);
        let request = get("/v1/tasks?limit=1");
        tokio::join!(transport.send(&request), server)
    }

    #[tokio::test]
    async fn the_socket_carries_a_request_and_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let text = "HTTP/1.1 503 x\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}";
        let (answer, seen) = one_answer(dir.path().join("s"), text).await;
        assert_eq!(answer, Ok(Answer { status: 503, retry_after_s: Some(7), dpop_nonce: None, body: b"{}".to_vec() }));
        assert!(seen.starts_with("GET /v1/tasks?limit=1 HTTP/1.1\r\n") && seen.contains("host: localhost"));
    }

    #[tokio::test]
    async fn a_broken_answer_is_lost_and_not_unreachable() {
        let dir = tempfile::tempdir().unwrap();
        let (answer, _) = one_answer(dir.path().join("a"), "").await;
        assert!(matches!(answer, Err(WireError::Lost(_))), "{answer:?}");
        let (answer, _) = one_answer(dir.path().join("b"), "HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\n{}").await;
        assert!(matches!(answer, Err(WireError::Lost(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn a_socket_nobody_serves_is_unreachable() {
        let dir = tempfile::tempdir().unwrap();
        let answer = Transport::socket(dir.path().join("none")).send(&get("/")).await;
        assert!(matches!(answer, Err(WireError::Unreachable(_))));
    }

    #[tokio::test]
    async fn a_broker_is_never_spoken_to_in_the_clear() {
        for bad in ["http://b.example", "b.example", "https://u@b.example", "https://b.example?x=1", "https://"] {
            assert!(matches!(Transport::https(bad, None), Err(WireError::Setup(_))), "{bad}");
        }
        // No connection is tried where nobody could be trusted.
        let transport = Transport::https("https://broker.test/base/", Some(b"no pem".to_vec())).unwrap();
        assert!(matches!(transport.send(&get("/")).await, Err(WireError::Setup(_))));
    }
}
