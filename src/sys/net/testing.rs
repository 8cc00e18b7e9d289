//! What tests of the network need: an authority that lives as long as the test, and a server
//! that says what it is told.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use dayfly_domain::UnixMs;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// A certificate authority of one test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A chain and its key, as PEM.
pub struct Leaf {
    pub cert_pem: String,
    pub key_pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    pub fn leaf(&self, name: &str) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Leaf { cert_pem: cert.pem(), key_pem: key.serialize_pem() }
    }

    /// A leaf that is valid for a time.
    pub fn leaf_of(&self, name: &str, from: UnixMs, until: UnixMs) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let at = |at: UnixMs| OffsetDateTime::from_unix_timestamp(at.as_s()).expect("a time");
        (params.not_before, params.not_after) = (at(from), at(until));
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Leaf { cert_pem: cert.pem(), key_pem: key.serialize_pem() }
    }

    /// A listener's settings for one name.
    pub fn server(&self, name: &str) -> Arc<ServerConfig> {
        let leaf = self.leaf(name);
        super::server_config(leaf.cert_pem.as_bytes(), leaf.key_pem.as_bytes()).expect("settings")
    }
}

/// A TLS server that answers every connection with the same bytes, then closes or stays silent.
pub struct Canned {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    pub async fn start(tls: Arc<ServerConfig>, answer: Vec<u8>, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = TlsAcceptor::from(tls.clone()).accept(stream).await {
                    let head = read_head(&mut stream).await;
                    seen.lock().expect("not poisoned").push(head);
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.flush().await;
                    match then {
                        Then::Close => drop(stream.shutdown().await),
                        Then::Silence => std::future::pending().await,
                    }
                }
            }
        });
        Self { address, heads }
    }

    /// The request heads that came over verified connections.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("not poisoned").clone()
    }
}

#[derive(Clone, Copy)]
pub enum Then {
    Close,
    Silence,
}

async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}
