//! A crowd at the door of a real process, over loopback: whoever comes and says nothing, or half,
//! or too much, takes nothing from those who work.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use dayfly::sys::net::{Answer, Client};
use http_body_util::Full;
use hyper::{Request, body::Bytes};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::dev::{self, Dev};

/// A machine under load may be slow; a broker that never closes is slower still.
const LONG: Duration = Duration::from_secs(40);

struct Broker {
    address: SocketAddr,
    base: String,
    ca: Vec<u8>,
    tls: TlsConnector,
}

impl Broker {
    fn of(work: &Path) -> Self {
        let env = dev::env(work);
        let base = env["DAYFLY_ADDR"].clone();
        let ca = fs::read(&env["DAYFLY_CA"]).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        let address = base.trim_start_matches("https://").parse().unwrap();
        Self { address, base, ca, tls: TlsConnector::from(Arc::new(config)) }
    }

    /// A connection from this loopback address.
    async fn connect(&self, from: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from.parse::<std::net::IpAddr>().unwrap(), 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn connect_tls(&self, from: &str) -> TlsStream<TcpStream> {
        let name = ServerName::from(self.address.ip());
        self.tls.connect(name, self.connect(from).await).await.unwrap()
    }

    /// What somebody who works sees.
    async fn ask(&self, request: Request<Full<Bytes>>) -> Answer {
        let client = Client::https(&self.base, Some(self.ca.clone())).unwrap();
        timeout(LONG, client.send(request)).await.expect("an answer in time").unwrap()
    }

    async fn keys(&self) -> u16 {
        self.ask(Request::get("/oauth2/jwks").body(Full::default()).unwrap()).await.status
    }
}

/// Reads until the other side closes.
async fn is_closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut heard = Vec::new();
    // A reset is a close too.
    let _ = timeout(LONG, stream.read_to_end(&mut heard)).await.expect("a close in time");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn t_155_a_crowd_does_not_stop_those_who_work() {
    let work = dev::work();
    let work = work.path();
    let _dev = Dev::start(work, &[]);
    let broker = Broker::of(work);
    runtime().block_on(async {
        let (mut silent, mut half, mut slow) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..100 {
            silent.push(broker.connect("127.0.0.2").await);
            let mut stream = broker.connect("127.0.0.3").await;
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
            half.push(stream);
        }
        for _ in 0..40 {
            let mut stream = broker.connect_tls("127.0.0.4").await;
            stream.write_all(b"GET /oauth2/jwks HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.unwrap();
            slow.push(stream);
        }
        for _ in 0..10 {
            assert_eq!(broker.keys().await, 200);
        }
        assert!(dev_job(work), "and a whole exchange");
        for stream in silent.iter_mut().chain(&mut half) {
            is_closed(stream).await;
        }
        for stream in &mut slow {
            is_closed(stream).await;
        }
        assert_eq!(broker.keys().await, 200);
    });
}

fn dev_job(work: &Path) -> bool {
    dev::job(work, "job.token").status.success()
}

#[test]
fn t_155_one_address_takes_no_more_than_its_share() {
    let work = dev::work();
    let work = work.path();
    let _dev = Dev::start(work, &[]);
    let broker = Broker::of(work);
    runtime().block_on(async {
        let mut held = Vec::new();
        for _ in 0..300 {
            held.push(broker.connect("127.0.0.5").await);
        }
        // The last of them are dropped as soon as they are seen.
        for stream in &mut held[256..] {
            is_closed(stream).await;
        }
        assert_eq!(broker.keys().await, 200, "another address is served");
        let open = held[..200].iter_mut().filter(|stream| stream.try_read(&mut [0; 1]).is_err()).count();
        assert!(open > 0, "those within the share are still waited for");
    });
}

#[test]
fn t_158_what_is_too_large_is_refused_and_the_next_is_served() {
    let work = dev::work();
    let work = work.path();
    let _dev = Dev::start(work, &[]);
    let broker = Broker::of(work);
    let get = || Request::get("/v1/tasks");
    let many = (0..101).fold(get(), |request, at| request.header(format!("x-{at}"), "y"));
    let post = |path: &str, kind: &str, bytes: Vec<u8>| {
        Request::post(path).header("content-type", kind).body(Full::from(bytes)).unwrap()
    };
    let (form, json) = ("application/x-www-form-urlencoded", "application/json");
    let flood: String = (0..100_000).map(|at| format!("p{at}=1&")).collect();
    let object: String = (0..100_000).map(|at| format!("\"k{at}\":1,")).collect();
    let empty = Full::default;
    let end = "/v1/tasks/tsk_00000000000000000000000001/end";
    for (what, request, status) in [
        ("T-158: 101 headers", many.body(empty()).unwrap(), 431),
        ("T-158: 17 KiB", get().header("x", "y".repeat(17 << 10)).body(empty()).unwrap(), 431),
        ("T-158: 1 MiB", get().header("cookie", "y".repeat(1 << 20)).body(empty()).unwrap(), 431),
        ("T-162: a type of 64 KiB", post(end, &"x".repeat(64 << 10), vec![]), 431),
        ("T-162: an accept of 64 KiB", get().header("accept", "y".repeat(64 << 10)).body(empty()).unwrap(), 431),
        ("T-162: another type", post(end, "text/plain", b"{}".to_vec()), 415),
        ("T-162: another type", post("/oauth2/token", "text/plain", b"a=1".to_vec()), 400),
        ("T-159: many members", post(end, json, format!("{{{object}\"z\":1}}").into_bytes()), 413),
        ("T-159: a large body", post("/oauth2/token", form, vec![b'a'; (64 << 10) + 1]), 413),
        ("T-160: many parameters", post("/oauth2/token", form, flood.into_bytes()), 413),
        ("T-160: twice", post("/oauth2/token", form, b"scope=a&scope=a".to_vec()), 400),
    ] {
        runtime().block_on(async {
            let answer = broker.ask(request).await;
            assert_eq!(answer.status, status, "{what}");
            assert!(String::from_utf8_lossy(&answer.body).contains("\"reason\":\"E-"), "{what}");
            assert_eq!(broker.keys().await, 200, "after {what}");
        });
    }
}
