//! Fetches an issuer's discovery document and keys. In: a URL of the bundle, never of a token.
//! Out: at most 256 KiB, from the host that was named, over verified TLS, within five seconds.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{Request, StatusCode, Uri, body::Bytes, header};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    address::is_public,
    exchange::{Failure, Reply, bare, exchange, port},
    tls::{NetError, client_config},
};

/// The largest document that is read.
pub const FETCH_MAX_BYTES: usize = 256 << 10;

/// What to fetch.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// `https`, without user or fragment.
    pub url: String,
    /// The only authorities to trust; absent: those of the system.
    pub ca_pem: Option<Arc<[u8]>>,
    /// The issuer may live at an address that is not public.
    pub allow_private: bool,
}

/// Why a document was not fetched. Carries nothing that the other side said.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the URL is not one that can be fetched: {0}")]
    Url(&'static str),
    #[error("trust for the fetch cannot be set up: {0}")]
    Trust(#[from] NetError),
    #[error("`{host}` cannot be resolved")]
    Resolve { host: String },
    #[error("`{host}` resolves to an address that is not public")]
    PrivateAddress { host: String },
    #[error("cannot connect to `{host}`: {source}")]
    Connect { host: String, source: io::Error },
    #[error("TLS to `{host}` failed: {source}")]
    Tls { host: String, source: io::Error },
    #[error("the answer is a redirect ({0}), which is not followed")]
    Redirect(u16),
    #[error("the answer has status {0}, not 200")]
    Status(u16),
    #[error("the answer is compressed, which was not asked for")]
    Encoding,
    #[error("the answer is larger than {FETCH_MAX_BYTES} bytes")]
    TooLarge,
    #[error("the answer is not whole HTTP/1.1")]
    Protocol,
    #[error("the fetch took too long")]
    Timeout,
}

/// Fetches documents. Stateless: caching, pacing and sharing are with the caller.
#[derive(Debug, Clone)]
pub struct Fetcher {
    names: Names,
    total: Duration,
}

impl Default for Fetcher {
    fn default() -> Self {
        Self::new()
    }
}

impl Fetcher {
    pub fn new() -> Self {
        Self { names: Names::System, total: Duration::from_secs(5) }
    }

    /// The body of a 200 answer.
    // SECURITY: `t_047_*` redirects, `t_049_*` and `t_051_*` addresses, `t_054_*` size and time,
    // `t_058_*` certificates.
    pub async fn get(&self, fetch: &Fetch) -> Result<Vec<u8>, FetchError> {
        timeout(self.total, self.get_untimed(fetch)).await.map_err(|_| FetchError::Timeout)?
    }

    async fn get_untimed(&self, fetch: &Fetch) -> Result<Vec<u8>, FetchError> {
        let place = Place::parse(&fetch.url)?;
        let trust = client_config(fetch.ca_pem.as_deref())?;
        let addresses = self.resolve(&place, fetch.allow_private).await?;
        let stream = place.connect(&addresses).await?;
        let stream = place.secure(stream, trust).await?;
        let reply = exchange(stream, place.request()?, FETCH_MAX_BYTES, |status| status == StatusCode::OK).await;
        plain_body(reply.map_err(failure)?)
    }

    /// Every address of the host, all of them allowed. They are what is connected to: the name
    /// is not asked for again.
    async fn resolve(&self, place: &Place, allow_private: bool) -> Result<Vec<SocketAddr>, FetchError> {
        let host = || place.host.clone();
        let addresses = self.names.look_up(place).await.map_err(|_| FetchError::Resolve { host: host() })?;
        if addresses.is_empty() {
            return Err(FetchError::Resolve { host: host() });
        }
        if !allow_private && addresses.iter().any(|address| !is_public(address.ip())) {
            return Err(FetchError::PrivateAddress { host: host() });
        }
        Ok(addresses)
    }
}

/// One address that does not answer must not eat the whole time.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// How names become addresses.
#[derive(Debug, Clone)]
enum Names {
    System,
    /// A test's answers, one for each look-up; after the last there are none.
    #[cfg(test)]
    Given(Arc<std::sync::Mutex<Vec<Vec<SocketAddr>>>>),
}

impl Names {
    async fn look_up(&self, place: &Place) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => Ok(tokio::net::lookup_host((bare(&place.host), place.port)).await?.collect()),
            #[cfg(test)]
            Self::Given(answers) => Ok(answers.lock().expect("not poisoned").pop().unwrap_or_default()),
        }
    }
}

/// A URL that may be fetched, taken apart.
struct Place {
    /// As written; an IPv6 address in brackets.
    host: String,
    server_name: ServerName<'static>,
    port: u16,
    /// `host` or `host:port`.
    authority: String,
    /// Path and query.
    path: String,
}

impl Place {
    fn parse(url: &str) -> Result<Self, FetchError> {
        if !url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
            return Err(FetchError::Url("it holds a character that no URL may hold"));
        }
        if url.contains('#') {
            return Err(FetchError::Url("it has a fragment"));
        }
        let uri: Uri = url.parse().map_err(|_| FetchError::Url("it cannot be parsed"))?;
        if uri.scheme_str() != Some("https") {
            return Err(FetchError::Url("its scheme is not `https`"));
        }
        let authority = uri.authority().ok_or(FetchError::Url("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(FetchError::Url("it names a user"));
        }
        let host = authority.host().to_owned();
        Ok(Self {
            server_name: ServerName::try_from(bare(&host).to_owned())
                .map_err(|_| FetchError::Url("its host is neither a name nor an address"))?,
            port: port(authority).ok_or(FetchError::Url("its port is not one"))?,
            host,
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// The first of the addresses that answers.
    async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match timeout(CONNECT_TIME, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(FetchError::Connect { host: self.host.clone(), source: last })
    }

    async fn secure(&self, stream: TcpStream, trust: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, FetchError> {
        let secured = TlsConnector::from(trust).connect(self.server_name.clone(), stream).await;
        secured.map_err(|source| FetchError::Tls { host: self.host.clone(), source })
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, FetchError> {
        Request::get(self.path.as_str())
            .header(header::HOST, self.authority.as_str())
            .header(header::USER_AGENT, "dayfly")
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::CONNECTION, "close")
            .body(Full::default())
            .map_err(|_| FetchError::Url("it cannot be asked for"))
    }
}

fn plain_body(reply: Reply) -> Result<Vec<u8>, FetchError> {
    match reply.headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(FetchError::Encoding),
        _ => Ok(reply.body),
    }
}

fn failure(failure: Failure) -> FetchError {
    match failure {
        Failure::TooLarge => FetchError::TooLarge,
        Failure::Protocol => FetchError::Protocol,
        Failure::Refused(status) if status.is_redirection() => FetchError::Redirect(status.as_u16()),
        Failure::Refused(status) => FetchError::Status(status.as_u16()),
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
