//! Asks an issuer for its documents, or a platform's API about a token. In: a URL of the bundle,
//! never of a token. Out: at most 256 KiB, from the host that was named, over verified TLS, within
//! five seconds.

use std::{
    borrow::Cow,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use dayfly_domain::Secret;
use http_body_util::Full;
use hyper::{HeaderMap, Request, StatusCode, body::Bytes, header};
use rustls::{CertificateError, ClientConfig};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    address::{is_never_reached, is_public},
    exchange::{Failure, Reply, bare, exchange},
    place::Place,
    proxy::{Proxy, ProxyError, ProxyFault},
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

/// What to send: JSON, on somebody's authority.
#[derive(Debug)]
pub struct Post {
    /// `Bearer ...`
    pub authorization: Secret<String>,
    pub json: Secret<String>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Document {
    pub body: Vec<u8>,
    /// How long the other side says that it stays good (`Cache-Control`); 0: not at all.
    pub max_age_s: Option<u32>,
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
    #[error("`{host}` is at a link-local address, which is never reached")]
    LinkLocal { host: String },
    #[error("cannot connect to `{host}`: {source}")]
    Connect { host: String, source: io::Error },
    #[error(transparent)]
    Proxy(#[from] ProxyFault),
    #[error("TLS to `{host}` failed: {source}")]
    Tls { host: String, source: io::Error },
    #[error("the answer is a redirect ({0}), which is not followed")]
    Redirect(u16),
    #[error("the answer has status {0}")]
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

impl FetchError {
    /// The same for operators, wherever it is shown: in our own words alone. A host may come from a
    /// fetched document, and the text of a TLS error from a certificate.
    pub fn told(&self) -> Cow<'static, str> {
        match self {
            Self::Trust(_) => "the authorities to trust cannot be read".into(),
            Self::Resolve { .. } => "its host has no address".into(),
            Self::PrivateAddress { .. } => "its host has an address that is not public (`allow_private`)".into(),
            Self::LinkLocal { .. } => "its host has a link-local address, which is never reached".into(),
            Self::Connect { source, .. } => refused_connection(source).into(),
            Self::Tls { source, .. } => refused_certificate(source).into(),
            Self::Url(_)
            | Self::Proxy(_)
            | Self::Redirect(_)
            | Self::Status(_)
            | Self::Encoding
            | Self::TooLarge
            | Self::Protocol
            | Self::Timeout => self.to_string().into(),
        }
    }
}

fn refused_connection(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => "its host refuses the connection",
        io::ErrorKind::TimedOut => "its host does not answer",
        _ => "its host cannot be reached",
    }
}

fn refused_certificate(source: &io::Error) -> &'static str {
    let cause = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(fault)) = cause else { return "TLS failed" };
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another host"
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is of an authority that is not trusted"
        }
        _ => "its certificate does not verify",
    }
}

/// Asks. Stateless: caching, pacing and sharing are with the caller.
#[derive(Debug, Clone)]
pub struct Fetcher {
    names: Names,
    total: Duration,
    proxy: Option<Arc<Proxy>>,
}

impl Default for Fetcher {
    fn default() -> Self {
        Self::new()
    }
}

impl Fetcher {
    /// By no proxy.
    pub fn new() -> Self {
        Self { names: Names::System, total: Duration::from_secs(5), proxy: None }
    }

    /// By the proxy that `HTTPS_PROXY` names, but for what `NO_PROXY` lists.
    pub fn by_environment() -> Result<Self, ProxyError> {
        Ok(Self { proxy: Proxy::by_environment()?.map(Arc::new), ..Self::new() })
    }

    /// The body of a 200 answer.
    pub async fn get(&self, fetch: &Fetch) -> Result<Vec<u8>, FetchError> {
        self.document(fetch).await.map(|document| document.body)
    }

    /// A 200 answer.
    pub async fn document(&self, fetch: &Fetch) -> Result<Document, FetchError> {
        self.ask(fetch, get, |status| status == StatusCode::OK).await
    }

    /// What a 200 or 201 answers to what is sent.
    pub async fn post(&self, fetch: &Fetch, what: &Post) -> Result<Document, FetchError> {
        let taken = |status| status == StatusCode::OK || status == StatusCode::CREATED;
        self.ask(fetch, |place| post(place, what), taken).await
    }

    // SECURITY: `t_047_*` redirects, `t_049_*` and `t_051_*` addresses, `t_054_*` size and time,
    // `t_058_*` certificates.
    async fn ask(
        &self,
        fetch: &Fetch,
        request: impl FnOnce(&Place) -> Result<Request<Full<Bytes>>, FetchError>,
        wanted: fn(StatusCode) -> bool,
    ) -> Result<Document, FetchError> {
        let asking = async {
            let place = Place::parse(&fetch.url)?;
            let trust = client_config(fetch.ca_pem.as_deref())?;
            let stream = self.connect(&place, fetch.allow_private).await?;
            let stream = secure(&place, stream, trust).await?;
            let reply = exchange(stream, request(&place)?, FETCH_MAX_BYTES, wanted).await;
            document(reply.map_err(failure)?)
        };
        timeout(self.total, asking).await.map_err(|_| FetchError::Timeout)?
    }

    async fn connect(&self, place: &Place, allow_private: bool) -> Result<TcpStream, FetchError> {
        let Some(proxy) = self.proxy.as_ref().filter(|proxy| proxy.leads_to(place)) else {
            return first_to_answer(place, &self.resolve(place, allow_private).await?).await;
        };
        if !allow_private && place.is_inside_by_its_spelling() {
            return Err(FetchError::PrivateAddress { host: place.host.clone() });
        }
        may_reach(place, place.address, allow_private)?;
        proxy.tunnel(place).await
    }

    /// Every address of the host, all of them allowed. They are what is connected to: the name
    /// is not asked for again.
    async fn resolve(&self, place: &Place, allow_private: bool) -> Result<Vec<SocketAddr>, FetchError> {
        let host = || place.host.clone();
        let addresses = self.names.look_up(place).await.map_err(|_| FetchError::Resolve { host: host() })?;
        if addresses.is_empty() {
            return Err(FetchError::Resolve { host: host() });
        }
        may_reach(place, addresses.iter().map(SocketAddr::ip), allow_private)?;
        Ok(addresses)
    }
}

/// What can be said of a URL without asking anybody: whether a fetch of it could ever begin.
pub fn check_url(url: &str, allow_private: bool) -> Result<(), Cow<'static, str>> {
    let place = Place::parse(url).map_err(|error| match error {
        FetchError::Url(what) => Cow::from(what),
        other => other.told(),
    })?;
    may_reach(&place, place.address, allow_private).map_err(|error| error.told())
}

fn may_reach(
    place: &Place,
    addresses: impl IntoIterator<Item = IpAddr>,
    allow_private: bool,
) -> Result<(), FetchError> {
    let host = || place.host.clone();
    for address in addresses {
        if is_never_reached(address) {
            return Err(FetchError::LinkLocal { host: host() });
        }
        if !allow_private && !is_public(address) {
            return Err(FetchError::PrivateAddress { host: host() });
        }
    }
    Ok(())
}

/// One address that does not answer must not eat the whole time.
pub(super) const CONNECT_TIME: Duration = Duration::from_secs(2);

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

/// The first of the addresses that answers.
async fn first_to_answer(place: &Place, addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match timeout(CONNECT_TIME, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // The request goes at once, not with the acknowledgement of the handshake.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(FetchError::Connect { host: place.host.clone(), source: last })
}

async fn secure(
    place: &Place,
    stream: TcpStream,
    trust: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, FetchError> {
    let secured = TlsConnector::from(trust).connect(place.server_name.clone(), stream).await;
    secured.map_err(|source| FetchError::Tls { host: place.host.clone(), source })
}

fn get(place: &Place) -> Result<Request<Full<Bytes>>, FetchError> {
    built(Request::get(place.path.as_str()), place, Full::default())
}

fn post(place: &Place, Post { authorization, json }: &Post) -> Result<Request<Full<Bytes>>, FetchError> {
    let mut authorization = header::HeaderValue::from_str(authorization.expose())
        .map_err(|_| FetchError::Url("what it is asked with is no header"))?;
    authorization.set_sensitive(true);
    let request = Request::post(place.path.as_str())
        .header(header::AUTHORIZATION, authorization)
        .header(header::CONTENT_TYPE, "application/json");
    built(request, place, Full::from(json.expose().clone()))
}

fn built(
    request: hyper::http::request::Builder,
    place: &Place,
    body: Full<Bytes>,
) -> Result<Request<Full<Bytes>>, FetchError> {
    request
        .header(header::HOST, place.authority.as_str())
        .header(header::USER_AGENT, "dayfly")
        .header(header::ACCEPT, "application/json")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::CONNECTION, "close")
        .body(body)
        .map_err(|_| FetchError::Url("it cannot be asked for"))
}

fn document(reply: Reply) -> Result<Document, FetchError> {
    match reply.headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(FetchError::Encoding),
        _ => Ok(Document { max_age_s: max_age_s(&reply.headers), body: reply.body }),
    }
}

/// The shortest that is said; what cannot be read says nothing.
fn max_age_s(headers: &HeaderMap) -> Option<u32> {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives = values.flat_map(|value| value.split(',')).map(|one| one.trim().to_ascii_lowercase());
    let seconds = directives.filter_map(|directive| match directive.split_once('=') {
        None => matches!(&*directive, "no-store" | "no-cache").then_some(0),
        Some(("max-age", seconds)) if seconds.bytes().all(|byte| byte.is_ascii_digit()) && !seconds.is_empty() => {
            Some(seconds.parse().unwrap_or(u32::MAX))
        }
        Some(_) => None,
    });
    seconds.min()
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
