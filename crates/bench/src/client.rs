//! One HTTP/1.1 connection that is kept open: over TLS, without it, or on the broker's own socket.

use std::{io, net::SocketAddr, sync::Arc};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use crate::{broker::Broker, folder::HOST as BROKER_HOST};

pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no connection to the broker: {0}")]
    Connect(#[from] io::Error),
    #[error("the broker speaks no HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the authority made here is of no use")]
    Trust,
}

/// A connection, alive as long as this.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

/// What was answered.
pub(crate) struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Connection {
    pub async fn over_tls(broker: &Broker) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(broker.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(BROKER_HOST).map_err(|_| ClientError::Trust)?;
        let config = trusting(&broker.folder.ca_pem).ok_or(ClientError::Trust)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Self::on(stream).await
    }

    pub async fn plain(address: SocketAddr) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Self::on(stream).await
    }

    pub async fn on_socket(broker: &Broker) -> Result<Self, ClientError> {
        Self::on(UnixStream::connect(broker.folder.socket()).await?).await
    }

    async fn on(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, ClientError> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // The sender is told of whatever went wrong.
            let _ = connection.await;
        });
        Ok(Self { sender, _driver: driver })
    }

    pub async fn post(
        &mut self,
        path: &str,
        media_type: &str,
        bearer: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut request = Request::post(path).header(HOST, BROKER_HOST).header(CONTENT_TYPE, media_type);
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
        }
        self.send(request.body(Full::new(body.into())).map_err(|error| error.to_string())?).await
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer, String> {
        let request = Request::get(path).header(HOST, BROKER_HOST).body(Full::default());
        self.send(request.map_err(|error| error.to_string())?).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let response = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status, body })
    }
}

impl Answer {
    /// An answer with this status; otherwise what was answered instead.
    pub fn body_of(self, status: u16) -> Result<Bytes, String> {
        match self.status == status {
            true => Ok(self.body),
            false => Err(format!("{} {}", self.status, String::from_utf8_lossy(&self.body))),
        }
    }
}

fn trusting(ca_pem: &str) -> Option<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).ok()?).ok()?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().ok()?;
    Some(config.with_root_certificates(roots).with_no_client_auth())
}
