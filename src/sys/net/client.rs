//! The command line's way to the broker: https, or the broker's own socket. In: a request with
//! a path. Out: status, headers and body, or what was tried and how it failed.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    HeaderMap, Request, Uri,
    body::Bytes,
    header::{HOST, HeaderValue},
};
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    exchange::{Failure, Reply, bare, exchange, port},
    tls::{NetError, client_config},
};

/// One broker, one way to it. Every request has its own connection.
#[derive(Debug, Clone)]
pub struct Client {
    way: Way,
    total: Duration,
}

/// What the broker answered, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Why there is no answer. `tried` is the address or path, never the request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("`{given}` is not an address of a broker: {why}")]
    Address { given: String, why: &'static str },
    #[error("trust for `{tried}` cannot be set up: {source}")]
    Trust { tried: String, source: NetError },
    #[error("cannot connect to `{tried}`: {source}")]
    Connect { tried: String, source: io::Error },
    #[error("TLS to `{tried}` failed: {source}")]
    Tls { tried: String, source: io::Error },
    #[error("`{tried}` did not answer within {after_s} s")]
    Timeout { tried: String, after_s: u64 },
    #[error("the answer of `{tried}` is not whole HTTP/1.1")]
    Protocol { tried: String },
    #[error("the answer of `{tried}` is larger than {ANSWER_MAX_BYTES} bytes")]
    TooLarge { tried: String },
}

impl Client {
    /// `base_url` is `https://host[:port][/path]`. `ca_pem`: the only authorities to trust.
    pub fn https(base_url: &str, ca_pem: Option<Vec<u8>>) -> Result<Self, ClientError> {
        Ok(Self { way: Way::Https(Broker::parse(base_url, ca_pem)?), total: TOTAL })
    }

    pub fn socket(path: PathBuf) -> Self {
        Self { way: Way::Socket(path), total: TOTAL }
    }

    /// The broker's listener of health and metrics on this machine, which speaks without TLS.
    pub fn plain(address: SocketAddr) -> Self {
        Self { way: Way::Plain(address), total: NEAR }
    }

    /// Waits so long for each answer, and no longer.
    pub fn within(self, total: Duration) -> Self {
        Self { total, ..self }
    }

    /// Sends a request whose URI is a path with an optional query, such as `/v1/tasks?limit=5`.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let sent = timeout(self.total, self.send_untimed(request)).await;
        sent.map_err(|_| ClientError::Timeout { tried: self.tried(), after_s: self.total.as_secs() })?
    }

    /// The address or path that requests go to.
    pub fn tried(&self) -> String {
        match &self.way {
            Way::Https(broker) => format!("https://{}{}", broker.authority, broker.prefix),
            Way::Socket(path) => path.display().to_string(),
            Way::Plain(address) => address.to_string(),
        }
    }

    async fn send_untimed(&self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let reply = match &self.way {
            Way::Https(broker) => {
                let request = self.addressed(request, &broker.authority, &broker.prefix)?;
                exchange(self.secured(broker).await?, request, ANSWER_MAX_BYTES, |_| true).await
            }
            Way::Socket(path) => {
                let request = self.addressed(request, "localhost", "")?;
                let stream = UnixStream::connect(path).await.map_err(|source| self.connect_error(source))?;
                exchange(stream, request, ANSWER_MAX_BYTES, |_| true).await
            }
            Way::Plain(address) => {
                let request = self.addressed(request, &address.to_string(), "")?;
                let stream = TcpStream::connect(address).await.map_err(|source| self.connect_error(source))?;
                exchange(stream, request, ANSWER_MAX_BYTES, |_| true).await
            }
        };
        reply.map(answer).map_err(|failure| self.failure(failure))
    }

    async fn secured(&self, broker: &Broker) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ClientError> {
        let trust = client_config(broker.ca_pem.as_deref())
            .map_err(|source| ClientError::Trust { tried: self.tried(), source })?;
        let address = (broker.server_name.to_str().into_owned(), broker.port);
        let stream = TcpStream::connect(address).await.map_err(|source| self.connect_error(source))?;
        // After the handshake the broker has nothing to say, and its acknowledgement would be waited for.
        let _ = stream.set_nodelay(true);
        let secured = TlsConnector::from(trust).connect(broker.server_name.clone(), stream).await;
        secured.map_err(|source| ClientError::Tls { tried: self.tried(), source })
    }

    fn addressed(
        &self,
        mut request: Request<Full<Bytes>>,
        authority: &str,
        prefix: &str,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let wrong = || ClientError::Address { given: self.tried(), why: "the request's path does not fit it" };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = format!("{prefix}{path}").parse().map_err(|_| wrong())?;
        let host = HeaderValue::from_str(authority).map_err(|_| wrong())?;
        request.headers_mut().insert(HOST, host);
        Ok(request)
    }

    fn connect_error(&self, source: io::Error) -> ClientError {
        ClientError::Connect { tried: self.tried(), source }
    }

    fn failure(&self, failure: Failure) -> ClientError {
        match failure {
            Failure::TooLarge => ClientError::TooLarge { tried: self.tried() },
            Failure::Protocol | Failure::Refused(_) => ClientError::Protocol { tried: self.tried() },
        }
    }
}

const TOTAL: Duration = Duration::from_secs(30);
const NEAR: Duration = Duration::from_secs(5);
/// What the command line takes from a broker.
pub const ANSWER_MAX_BYTES: usize = 8 << 20;

#[derive(Debug, Clone)]
enum Way {
    Https(Broker),
    Socket(PathBuf),
    Plain(SocketAddr),
}

#[derive(Debug, Clone)]
struct Broker {
    authority: String,
    server_name: ServerName<'static>,
    port: u16,
    /// What stands before every path: empty, or `/...` without a slash at its end.
    prefix: String,
    ca_pem: Option<Vec<u8>>,
}

impl Broker {
    fn parse(base_url: &str, ca_pem: Option<Vec<u8>>) -> Result<Self, ClientError> {
        // A user in the address may be a secret: such an address is not quoted.
        if base_url.contains('@') {
            return Err(ClientError::Address { given: "https://...@...".to_owned(), why: "it names a user" });
        }
        let wrong = |why| ClientError::Address { given: base_url.to_owned(), why };
        let uri: Uri = base_url.parse().map_err(|_| wrong("it cannot be parsed"))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("its scheme is not `https`"));
        }
        if uri.query().is_some() || base_url.contains('#') {
            return Err(wrong("it has a query or a fragment"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        let bare = bare(authority.host()).to_owned();
        Ok(Self {
            authority: authority.as_str().to_owned(),
            server_name: ServerName::try_from(bare).map_err(|_| wrong("its host is no name and no address"))?,
            port: port(authority).ok_or_else(|| wrong("its port is not one"))?,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            ca_pem,
        })
    }
}

/// Which process serves a socket of this machine.
pub async fn peer_process(socket: &Path) -> io::Result<Option<i32>> {
    Ok(UnixStream::connect(socket).await?.peer_cred()?.pid())
}

fn answer(reply: Reply) -> Answer {
    Answer { status: reply.status.as_u16(), headers: reply.headers, body: reply.body }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
