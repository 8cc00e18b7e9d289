//! The story's service: it has a certificate instead of a token, a peer that asks nobody lets it in by that, and
//! when its task is ended the peer hears of it from the broker's lists. In: the story so far. Out: four steps
//! more.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, routing::get};
use dayfly_domain::{Secret, TaskId};
use dayfly_verifier::x509::{Anchors, CrlSet, PeerRules, Peers};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::story::{Story, expect, no_server, wrong};
use crate::{
    cli::{
        api::Api,
        cert::{Keys, fetched_roots, spiffe_id},
        failure::Failure,
        token::{
            exchange::{self, Ask, Form},
            handle::Handle,
        },
    },
    run::accept,
};

/// What `edge.toml` has, and the shipped bundle.
const TASK: &str = "keep-stock";
const TRUST_DOMAIN: &str = "example.org";

const LISTS_PATH: &str = "/pki/bundle.crl";
/// How often the peer reads the lists.
const EVERY: Duration = Duration::from_millis(250);
/// The broker makes them anew within a second.
const BOUND: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
const CALL: Duration = Duration::from_secs(5);

/// What the service holds.
struct Holder {
    tls: TlsConnector,
    task: TaskId,
    handle: Handle,
}

/// Where the peer is, and what shows that it is that one.
struct Peer {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
}

impl Story {
    pub(super) async fn service_has_a_certificate(&mut self) -> Result<(), Failure> {
        let peer = self.start_peer().await?;
        let service = self.certified(&peer).await?;
        let started = Instant::now();
        let entered = call(&service, &peer).await;
        entered.map_err(|error| wrong("the peer refused a live certificate").because(error))?;
        let what = "checks chain, name and lists, and lets it in (mTLS)";
        self.page.step("peer", what, Some(started.elapsed()))?;
        self.page.more("it asked nobody about it: it reads the lists of what is revoked")?;

        let ended = Instant::now();
        let bearer = Secret::new(service.handle.expose().to_owned());
        let api = Api::new(self.to_broker()?, Some(bearer));
        let told = api.end_task(service.task, None, None).await;
        told.map_err(|error| error.failure("the service's task did not end"))?;
        self.page.step("service", "is done, ends its task: its certificate is revoked", Some(ended.elapsed()))?;
        let refusal = loop {
            match call(&service, &peer).await {
                Err(error) => break error,
                Ok(()) => {
                    let late = || format!("the peer honours it after {} s", BOUND.as_secs());
                    expect(ended.elapsed() < BOUND, late)?;
                    sleep(POLL).await;
                }
            }
        };
        self.page.step("peer", "refuses the handshake; measured from the end on", Some(ended.elapsed()))?;
        self.page.more(&refusal.to_string())
    }

    /// The key is made here and never sent.
    async fn certified(&mut self, peer: &Peer) -> Result<Holder, Failure> {
        let (evidence, handle, keys) = (self.evidence()?, Handle::make()?, Arc::new(Keys::default()));
        let form = Form::Certificate(keys.clone());
        let (target, actions) = (None, Vec::new());
        let ask = Ask { template: TASK.to_owned(), target, actions, ttl_s: None, ticket: None, form };
        let api = Api::new(self.to_broker()?, None);
        let started = Instant::now();
        let opened = exchange::open(&api, &ask, &evidence, &handle).await;
        let answer = opened.map_err(|failed| failed.error.failure("the service got no certificate"))?;
        self.page.step("service", "makes a key, gets a certificate for one task", Some(started.elapsed()))?;
        self.page.more(&spiffe_id(&answer.access_token).unwrap_or_default())?;
        let key = keys.take().ok_or_else(|| wrong("there is no key"))?;
        let key = PrivateKeyDer::from_pem_slice(key.pem().as_bytes()).map_err(|error| no_server(&error))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(answer.access_token.as_bytes()).collect();
        let chain = chain.map_err(|error| wrong("what came is no chain of certificates").because(error))?;
        let tls = client(chain, key, &peer.certificate).map_err(|error| wrong("no TLS").because(error))?;
        Ok(Holder { tls: TlsConnector::from(Arc::new(tls)), task: answer.task_id, handle })
    }

    /// A server that knows the root, the template that may enter, and the lists.
    async fn start_peer(&mut self) -> Result<Peer, Failure> {
        let api = Api::new(self.to_broker()?, None);
        let anchors = Anchors::from_der(&fetched_roots(&api).await?).map_err(|error| no_server(&error))?;
        let rules = PeerRules::new(TRUST_DOMAIN).map_err(|error| no_server(&error))?;
        let peers = Peers::new(anchors, rules.admit(TASK.parse().map_err(|error| no_server(&error))?));
        read_lists(&api, &peers).await.map_err(|error| no_server(&error))?;
        let (certificate, config) = server(&peers).map_err(|error| no_server(&*error))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| no_server(&error))?;
        let address = listener.local_addr().map_err(|error| no_server(&error))?;
        let door = accept::Door::new(Router::new().route("/", get(|| async { "welcome" })));
        let tls = Arc::new(ArcSwap::from_pointee(config));
        let running = &mut self.broker.running;
        running.also("peer", accept::serve_tls(listener, tls, door, running.stopper()));
        let stop = running.stopper();
        running.also("peer's lists", async move {
            let mut tick = interval(EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(tick.tick()).await.is_some() {
                // What cannot be read now is read the next time; the last ones count until they are stale.
                let _ = read_lists(&api, &peers).await;
            }
        });
        Ok(Peer { address, certificate })
    }
}

async fn read_lists(api: &Api, peers: &Peers) -> Result<(), String> {
    let lists = api.document(LISTS_PATH).await.map_err(|error| error.to_string())?;
    let lists = CrlSet::parse(&lists).map_err(|error| error.to_string())?;
    peers.put_crls(lists).map_err(|error| error.to_string())
}

/// With a certificate of its own, which only the service knows.
fn server(
    peers: &Arc<Peers>,
) -> Result<(CertificateDer<'static>, ServerConfig), Box<dyn std::error::Error + Send + Sync>> {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der())?;
    let certificate = own.cert.der().clone();
    Ok((certificate.clone(), peers.server_config(vec![certificate], key)?))
}

fn client(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    server: &CertificateDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(server.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    builder.with_root_certificates(roots).with_client_auth_cert(chain, key)
}

/// One request on a connection of its own: a peer that refuses says so at the first read.
async fn call(service: &Holder, peer: &Peer) -> io::Result<()> {
    let talk = async {
        let stream = TcpStream::connect(peer.address).await?;
        let name = ServerName::from(peer.address.ip());
        let mut stream = service.tls.connect(name, stream).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: peer\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        let welcome = answer.starts_with(b"HTTP/1.1 200");
        if welcome { Ok(()) } else { Err(io::Error::other("another answer than 200")) }
    };
    timeout(CALL, talk).await?
}
