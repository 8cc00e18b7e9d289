//! How a request reaches the broker: one function, [`Transport::send`], is the seam. Over TLS, over
//! the local socket, or from a test's script.
//!
//! What matters to the callers is whether a request may have arrived: a lost answer is recovered
//! otherwise than a broker that is away (design.md section 5).

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::body::Bytes;
use dayfly_domain::Secret;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::sys::files;

const CONNECT_MAX: Duration = Duration::from_secs(10);
const ANSWER_MAX: Duration = Duration::from_secs(30);
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const ANSWER_MAX_BYTES: usize = 8 << 20;

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
    Https(Box<Https>),
    Socket(PathBuf),
    #[cfg(test)]
    Script(super::script::Script),
}

#[derive(Debug)]
pub struct Https {
    host: String,
    port: u16,
    authority: String,
    /// Path of the base, without a trailing slash.
    prefix: String,
    tls: Arc<ClientConfig>,
}

impl Transport {
    /// `base`: an `https` URL. `ca_pem`: the only roots to trust; otherwise the system's.
    pub fn https(base: &str, ca_pem: Option<Vec<u8>>) -> Result<Self, WireError> {
        let setup = |why: String| WireError::Setup(why);
        let uri: Uri = base.parse().map_err(|_| setup(format!("`{base}` is no URL")))?;
        let authority = uri.authority().ok_or_else(|| setup(format!("`{base}` names no host")))?;
        if uri.scheme_str() != Some("https") || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(setup(format!("`{base}` is not an `https` URL without user and query")));
        }
        Ok(Self::Https(Box::new(Https {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(443),
            authority: authority.to_string(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            tls: client_config(&ca_pem.map_or_else(system_roots, Ok)?)?,
        })))
    }

    pub fn socket(path: PathBuf) -> Self {
        Self::Socket(path)
    }

    /// The seam: one request, one connection, one answer.
    pub async fn send(&self, request: &Request) -> Result<Answer, WireError> {
        match self {
            Self::Https(https) => https.send(request).await,
            Self::Socket(path) => {
                let stream = connect(UnixStream::connect(path)).await?;
                exchange(stream, "localhost", "", request).await
            }
            #[cfg(test)]
            Self::Script(script) => script.send(request),
        }
    }

    /// Waits before another try.
    pub async fn pause(&self, wait: Duration) {
        match self {
            #[cfg(test)]
            Self::Script(script) => script.pause(wait),
            _ => tokio::time::sleep(wait).await,
        }
    }
}

impl Https {
    async fn send(&self, request: &Request) -> Result<Answer, WireError> {
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| WireError::Setup(format!("`{}` is no host name", self.host)))?;
        let tcp = connect(TcpStream::connect((self.host.as_str(), self.port))).await?;
        let tls = connect(tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, tcp)).await?;
        exchange(tls, &self.authority, &self.prefix, request).await
    }
}

async fn connect<S>(attempt: impl Future<Output = io::Result<S>>) -> Result<S, WireError> {
    match timeout(CONNECT_MAX, attempt).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(WireError::Unreachable(error.to_string())),
        Err(_) => Err(WireError::Unreachable(format!("no connection within {} s", CONNECT_MAX.as_secs()))),
    }
}

async fn exchange<S>(stream: S, host: &str, prefix: &str, request: &Request) -> Result<Answer, WireError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let outgoing = outgoing(host, prefix, request)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| WireError::Unreachable(error.to_string()))?;
    let answer = async {
        let answer = sender.send_request(outgoing).await.map_err(|error| lost(&error))?;
        let (status, retry_after_s) = (answer.status().as_u16(), retry_after_s(answer.headers()));
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| WireError::Lost(error.to_string()))?.to_bytes().to_vec();
        Ok(Answer { status, retry_after_s, body })
    };
    let both = async {
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection may end as soon as the answer is buffered.
            _ = connection => answer.await,
        }
    };
    let late = || WireError::Lost(format!("no answer within {} s", ANSWER_MAX.as_secs()));
    timeout(ANSWER_MAX, both).await.unwrap_or_else(|_| Err(late()))
}

fn lost(error: &hyper::Error) -> WireError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    WireError::Lost(format!("{error}{cause}"))
}

fn outgoing(host: &str, prefix: &str, request: &Request) -> Result<hyper::Request<Full<Bytes>>, WireError> {
    let mut builder = hyper::Request::builder()
        .method(request.method.clone())
        .uri(format!("{prefix}{}", request.path))
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("dayfly/", env!("CARGO_PKG_VERSION")));
    if let Some(secret) = &request.authorization {
        let mut value = header::HeaderValue::from_str(secret.expose())
            .map_err(|_| WireError::Setup("the token file holds characters that no token has".to_owned()))?;
        value.set_sensitive(true);
        builder = builder.header(header::AUTHORIZATION, value);
    }
    let body = request.body.as_ref().map(|(media_type, text)| (*media_type, text.expose().clone()));
    let (media_type, text) = body.unzip();
    if let Some(media_type) = media_type {
        builder = builder.header(header::CONTENT_TYPE, media_type);
    }
    builder.body(Full::new(Bytes::from(text.unwrap_or_default()))).map_err(|error| WireError::Setup(error.to_string()))
}

fn retry_after_s(headers: &hyper::HeaderMap) -> Option<u64> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

fn system_roots() -> Result<Vec<u8>, WireError> {
    files::read_capped(Path::new(SYSTEM_ROOTS))
        .map_err(|error| WireError::Setup(format!("the roots of the system, `{SYSTEM_ROOTS}`: {error}")))
}

fn client_config(ca_pem: &[u8]) -> Result<Arc<ClientConfig>, WireError> {
    let mut roots = RootCertStore::empty();
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(ca_pem).flatten().collect();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(WireError::Setup("there is no certificate in the CA file".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| WireError::Setup(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
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
        assert_eq!(answer, Ok(Answer { status: 503, retry_after_s: Some(7), body: b"{}".to_vec() }));
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

    #[test]
    fn a_broker_is_never_spoken_to_in_the_clear() {
        let key = rcgen::generate_simple_self_signed(vec!["b.example".to_owned()]).unwrap();
        let pem = || Some(key.cert.pem().into_bytes());
        for bad in ["http://b.example", "b.example", "https://u@b.example", "https://b.example?x=1", "https://"] {
            assert!(matches!(Transport::https(bad, pem()), Err(WireError::Setup(_))), "{bad}");
        }
        assert!(Transport::https("https://b.example/base/", pem()).is_ok());
        assert!(matches!(Transport::https("https://b.example", Some(b"no pem".to_vec())), Err(WireError::Setup(_))));
    }
}
