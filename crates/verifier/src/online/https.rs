//! The one way out: https with given roots, no redirects, bounded time and size.

use std::{error::Error, io, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Uri,
    body::Bytes,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::SetupError;
use crate::{status::ListRefusal, sys};

/// From the first packet to the last byte of the answer.
const QUESTION_MAX: Duration = Duration::from_secs(2);

const BODY_MAX_BYTES: usize = 256 * 1024;

/// Where Debian and its kin keep the machine's roots.
const PLATFORM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const ROOTS_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Why the broker gave no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    #[error("no connection, or it broke")]
    Connection,
    /// TLS failed: most often, the roots given do not vouch for the broker.
    #[error("no TLS with the broker: its certificate is not accepted, or it speaks no TLS we do")]
    Tls,
    #[error("no answer within 2 s")]
    Timeout,
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("the answer is larger than 256 KiB")]
    TooLarge,
    /// Not JSON, without what it must have, or about something else.
    #[error("the answer is not what it must be")]
    Answer,
    #[error("this server's own credential cannot be read")]
    Credential,
    /// A status list came that is not believed.
    #[error(transparent)]
    List(ListRefusal),
    /// What answers is behind what answered before: a cache, or somebody who plays an old answer.
    #[error("the status list is older than the one at hand")]
    OlderList,
}

pub(crate) struct Https {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Https {
    pub(super) fn new(ca_pem: Option<&[u8]>) -> Result<Self, SetupError> {
        // Given, not the process's default: another library may have set that to anything.
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| SetupError::Tls)?
            .with_root_certificates(roots(ca_pem)?)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // After the handshake the broker has nothing to say, and its acknowledgement would be waited for.
        tcp.set_nodelay(true);
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
        let connector = https.wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client })
    }

    pub(super) async fn get(&self, uri: &str) -> Result<Bytes, Outage> {
        self.get_as(uri, "application/json").await
    }

    pub(super) async fn get_as(&self, uri: &str, media_type: &'static str) -> Result<Bytes, Outage> {
        self.send(request(Method::GET, uri, media_type, Bytes::new())?).await
    }

    /// A form with our own credential, in a header or in it, which goes to no other place.
    pub(super) async fn post_form(&self, uri: &str, bearer: Option<&str>, form: String) -> Result<Bytes, Outage> {
        let mut request = request(Method::POST, uri, "application/json", form.into())?;
        if let Some(bearer) = bearer {
            let mut bearer = HeaderValue::try_from(format!("Bearer {bearer}")).map_err(|_| Outage::Credential)?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.send(request).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Bytes, Outage> {
        tokio::time::timeout(QUESTION_MAX, self.exchange(request)).await.unwrap_or(Err(Outage::Timeout))
    }

    /// Only 200 is an answer; a redirect is not followed.
    // SECURITY: t_047_a_redirect_is_not_followed
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Bytes, Outage> {
        let response = self.client.request(request).await.map_err(|error| broken(&error))?;
        if response.status() != 200 {
            return Err(Outage::Status(response.status().as_u16()));
        }
        match Limited::new(response.into_body(), BODY_MAX_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Outage::TooLarge),
            Err(_) => Err(Outage::Connection),
        }
    }
}

/// The TLS library's error is wrapped in errors of the connection, one inside the other.
fn broken(error: &(dyn Error + 'static)) -> Outage {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return Outage::Tls;
        }
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            // The source of an `io::Error` is its content's source, not its content.
            Some(content) => Some(content),
            None => error.source(),
        };
    }
    Outage::Connection
}

fn request(method: Method, uri: &str, accept: &'static str, body: Bytes) -> Result<Request<Full<Bytes>>, Outage> {
    Request::builder().method(method).uri(uri).header(ACCEPT, accept).body(Full::new(body)).map_err(|_| Outage::Answer)
}

fn roots(ca_pem: Option<&[u8]>) -> Result<RootCertStore, SetupError> {
    let pem = match ca_pem {
        Some(pem) => pem.to_vec(),
        None => sys::read_file(PLATFORM_ROOTS.as_ref(), ROOTS_MAX_BYTES).ok_or(SetupError::Roots)?,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| SetupError::Roots)?;
        // The machine's file may hold one that rustls cannot use; the caller's own may not.
        if roots.add(certificate).is_err() && ca_pem.is_some() {
            return Err(SetupError::Roots);
        }
    }
    if roots.is_empty() { Err(SetupError::Roots) } else { Ok(roots) }
}

/// Scheme and authority of an https URL without user, query and fragment.
pub(super) fn origin(url: &str) -> Option<(Uri, String)> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?.as_str().to_ascii_lowercase();
    let plain = uri.scheme_str() == Some("https") && uri.query().is_none() && !url.contains(['#', '@']);
    plain.then_some((uri, authority))
}
