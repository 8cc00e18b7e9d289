//! The platform's own address, for a broker that finds its keys by discovery. The broker is told of a proxy
//! by `HTTPS_PROXY`; whatever it wants to reach by it ends here, where the platform's name is vouched for by
//! an authority of this bench.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::folder::GITHUB;

/// Proxy and platform in one, alive as long as this.
pub struct Origin {
    address: SocketAddr,
    pub(crate) ca_pem: String,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct State {
    jwks: OnceLock<Value>,
    fetches: AtomicUsize,
}

impl Origin {
    pub(crate) async fn start() -> io::Result<Self> {
        let (ca_pem, tls) = certified().ok_or_else(|| io::Error::other("no certificate could be made"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, state) = (listener.local_addr()?, Arc::new(State::default()));
        let (acceptor, seen) = (TlsAcceptor::from(Arc::new(tls)), state.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // One after the other: a broker asks now and then.
                let _ = serve(stream, &acceptor, &seen).await;
            }
        });
        Ok(Self { address, ca_pem, state, _serving: serving })
    }

    pub(crate) fn proxy(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn publish(&self, jwk: Value) {
        // Set once, by whoever starts the broker.
        let _ = self.state.jwks.set(json!({ "keys": [jwk] }));
    }

    /// How often the key set was asked for.
    pub(crate) fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, acceptor: &TlsAcceptor, state: &State) -> io::Result<()> {
    head(&mut stream).await?;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let mut stream = acceptor.accept(stream).await?;
    let asked = head(&mut stream).await?;
    let body = if asked.starts_with("GET /jwks ") {
        state.fetches.fetch_add(1, Ordering::Relaxed);
        state.jwks.get().cloned().unwrap_or_default()
    } else {
        json!({ "issuer": GITHUB, "jwks_uri": format!("{GITHUB}/jwks") })
    };
    let body = body.to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

async fn head(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

/// An authority, and settings under it for the platform's name.
fn certified() -> Option<(String, ServerConfig)> {
    let mut params = CertificateParams::new(Vec::new()).ok()?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_key = KeyPair::generate().ok()?;
    let ca_pem = params.self_signed(&ca_key).ok()?.pem();
    let key = KeyPair::generate().ok()?;
    let host = GITHUB.trim_start_matches("https://").to_owned();
    let leaf = CertificateParams::new(vec![host]).ok()?.signed_by(&key, &Issuer::new(params, ca_key)).ok()?;
    let chain = vec![CertificateDer::from_pem_slice(leaf.pem().as_bytes()).ok()?];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).ok()?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().ok()?.with_no_client_auth();
    Some((ca_pem, config.with_single_cert(chain, key).ok()?))
}
