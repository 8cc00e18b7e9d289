//! A server that lets in peers with a live certificate of Dayfly, and nobody else.
//!
//! `cargo run -p dayfly-verifier --features online,x509 --example mtls_server -- TRUST_DOMAIN TEMPLATE ROOTS
//! CERT KEY CRLS [ADDRESS]`
//!
//! `ROOTS`: PEM, the roots that vouch for peers. `CERT` and `KEY`: this server's own, PEM; both may be one
//! file, as `dayfly cert --out` writes it. `CRLS`: where the revocation lists are, a file or
//! `http://.../pki/bundle.crl`; they are read every 5 seconds. While none can be had the last ones count, and
//! past their `nextUpdate` nobody enters.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to its user, and owns its tasks"
)]

use std::{convert::Infallible, error::Error, sync::Arc, time::Duration};

use dayfly_verifier::{
    Clock, SystemClock,
    x509::{Anchors, CRL_BUNDLE_MAX_BYTES, CrlSet, PeerRules, Peers},
};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::{Response, StatusCode, body::Bytes, header::CONNECTION, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Any = Box<dyn Error + Send + Sync>;

/// How late an end may be heard of, beside the broker's own second.
const EVERY: Duration = Duration::from_secs(5);
/// A peer that takes longer to shake hands is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Any> {
    let mut args = std::env::args().skip(1);
    let mut next = |name: &str| args.next().ok_or(format!("`{name}` is missing"));
    let rules = PeerRules::new(&next("TRUST_DOMAIN")?)?.admit(next("TEMPLATE")?.parse()?);
    let peers = Peers::new(Anchors::from_pem(&std::fs::read(next("ROOTS")?)?)?, rules);
    let chain = CertificateDer::pem_file_iter(next("CERT")?)?.collect::<Result<Vec<_>, _>>()?;
    let config = peers.server_config(chain, PrivateKeyDer::from_pem_file(next("KEY")?)?)?;
    let crls = next("CRLS")?;
    let listener = TcpListener::bind(next("ADDRESS").unwrap_or("127.0.0.1:0".to_owned())).await?;
    println!("https://{}", listener.local_addr()?);
    tokio::spawn(follow(peers.clone(), crls));
    serve(listener, peers, Arc::new(config)).await
}

/// Keeps the lists fresh. What cannot be read changes nothing.
async fn follow(peers: Arc<Peers>, crls: String) {
    let mut due = tokio::time::interval(EVERY);
    loop {
        due.tick().await;
        if let Err(error) = reload(&peers, &crls).await {
            eprintln!("the revocation lists of `{crls}`: {error}");
        }
    }
}

/// Swaps the lists in, whole or not at all.
pub async fn reload(peers: &Peers, crls: &str) -> Result<(), Any> {
    let bytes = if crls.starts_with("http://") {
        // Plain http will do: the lists are signed, and none goes back behind the one in force.
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let answer = tokio::time::timeout(EVERY, client.get(crls.parse()?)).await??;
        if answer.status() != StatusCode::OK {
            return Err(format!("it answers {}", answer.status()).into());
        }
        let body = Limited::new(answer.into_body(), CRL_BUNDLE_MAX_BYTES);
        tokio::time::timeout(EVERY, body.collect()).await??.to_bytes()
    } else {
        tokio::fs::read(crls).await?.into()
    };
    Ok(peers.put_crls(CrlSet::parse(&bytes)?)?)
}

pub async fn serve(listener: TcpListener, peers: Arc<Peers>, config: Arc<ServerConfig>) -> Result<(), Any> {
    let acceptor = TlsAcceptor::from(config);
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, peers) = (acceptor.clone(), peers.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, &acceptor, &peers).await {
                eprintln!("a peer: {error}");
            }
        });
    }
}

async fn connection(stream: TcpStream, acceptor: &TlsAcceptor, peers: &Peers) -> Result<(), Any> {
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let answer = service_fn(|_| async { Ok::<_, Infallible>(answered(peers, &chain)) });
    let mut http = http1::Builder::new();
    Ok(http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer).await?)
}

/// A connection may live longer than its certificate: each request is judged anew.
fn answered(peers: &Peers, chain: &[CertificateDer<'_>]) -> Response<Full<Bytes>> {
    let (status, text) = match peers.check(chain, SystemClock.now()) {
        Ok(peer) => (StatusCode::OK, format!("hello {}, by {}\n", peer.spiffe_id, peer.lease)),
        Err(refusal) => (StatusCode::FORBIDDEN, format!("{refusal}\n")),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    if status != StatusCode::OK {
        response.headers_mut().insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
    }
    response
}
