//! Attacks on a connection, played over real sockets. A test waits for the broker's close or
//! answer; nothing sleeps.

use std::net::SocketAddr;

use axum::{
    Extension,
    body::Bytes,
    http::request::Parts,
    response::IntoResponse,
    routing::{get, post},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use super::*;
use crate::sys::net::testing::Authority;

mod rates;

/// A listener with its accept loop.
struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

impl Served {
    async fn plain(door: Door) -> Self {
        let (listener, stop) = (bind().await, CancellationToken::new());
        let address = listener.local_addr().expect("an address");
        let ended = tokio::spawn(serve_plain(listener, door, stop.clone()));
        Self { address, stop, ended }
    }

    async fn tls(door: Door) -> Self {
        let (listener, stop) = (bind().await, CancellationToken::new());
        let address = listener.local_addr().expect("an address");
        let tls = Arc::new(ArcSwap::new(Authority::new().server("broker.test")));
        let ended = tokio::spawn(serve_tls(listener, tls, door, stop.clone()));
        Self { address, stop, ended }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Sends these bytes, keeps the connection open, and reads until the broker closes it.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        let _ = stream.write_all(bytes.as_ref()).await;
        until_close(&mut stream).await
    }
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port")
}

/// A test that hangs fails.
async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future).await.expect("soon enough")
}

async fn until_close(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A reset is a close too; what came before it is kept.
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads one answer of the echo route off a connection that stays open.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin), body: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).ends_with(&format!("\r\n\r\n{body}")) {
        bytes.push(soon(stream.read_u8()).await.expect("more of the answer"));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), text: impl AsRef<[u8]>) {
    stream.write_all(text.as_ref()).await.expect("written");
}

const GET: &str = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";

fn app() -> Router {
    Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/panic", get(|| async { panic!("on purpose") as () }))
        .route("/peer", get(|Extension(peer): Extension<Peer>| async move { format!("{peer:?}") }))
}

/// Deadlines that a test can wait for.
fn short() -> Limits {
    let short = Duration::from_millis(150);
    Limits { handshake: short, header: short, body: short, idle: short, stall: short, ..Limits::default() }
}

fn door(limits: Limits) -> Door {
    Door { limits, ..Door::new(app()) }
}

/// The status lines in what a connection answered: one for each response.
fn statuses(answers: &str) -> Vec<&str> {
    answers.match_indices("HTTP/1.1 ").map(|(at, prefix)| &answers[at + prefix.len()..][..3]).collect()
}

#[tokio::test]
async fn requests_share_a_connection_and_carry_their_peer() {
    let served = Served::plain(door(Limits::default())).await;
    let mut stream = served.connect().await;
    send(&mut stream, GET).await;
    assert!(read_answer(&mut stream, "hello").await.starts_with("HTTP/1.1 200 "));
    send(&mut stream, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    assert!(read_answer(&mut stream, "body").await.starts_with("HTTP/1.1 200 "));
    let local = stream.local_addr().expect("an address");
    send(&mut stream, "GET /peer HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_answer(&mut stream, &format!("Tcp({local})")).await;
}

#[tokio::test]
async fn https_is_served_and_a_reloaded_certificate_is_used() {
    let (old, new) = (Authority::new(), Authority::new());
    let (listener, stop) = (bind().await, CancellationToken::new());
    let base = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
    let tls = Arc::new(ArcSwap::new(old.server("localhost")));
    tokio::spawn(serve_tls(listener, tls.clone(), door(Limits::default()), stop));
    let asks = async |authority: &Authority| {
        let client = crate::sys::net::Client::https(&base, Some(authority.pem())).expect("a client");
        let request = hyper::Request::get("/hello").body(Default::default()).expect("a request");
        client.send(request).await.map(|answer| answer.body)
    };
    assert_eq!(asks(&old).await.expect("an answer"), b"hello");
    tls.store(new.server("localhost"));
    assert_eq!(asks(&new).await.expect("an answer"), b"hello");
    asks(&old).await.expect_err("the old certificate is gone");
}

#[tokio::test]
async fn t_155_slow_headers_are_closed() {
    let served = Served::plain(door(short())).await;
    assert_eq!(served.exchange("GET /hello HTTP/1.1\r\nHost: a\r\n").await, "");
    let mut stream = served.connect().await;
    // A byte now and then does not buy time.
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let drip = async {
        while stream.write_all(b"a").await.is_ok() {
            pace.tick().await;
        }
    };
    soon(drip).await;
}

#[tokio::test]
async fn t_155_slow_headers_of_a_second_request_are_closed() {
    let served = Served::plain(door(Limits { header: short().header, ..Limits::default() })).await;
    let answers = served.exchange(format!("{GET}GET /hello HTTP/1.1\r\nHost")).await;
    assert_eq!(statuses(&answers), ["200"]);
}

#[tokio::test]
async fn t_155_half_a_client_hello_is_closed() {
    let served = Served::tls(door(Limits { handshake: short().handshake, ..Limits::default() })).await;
    assert_eq!(served.exchange([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await, "");
}

#[tokio::test]
async fn t_155_a_silent_connection_is_closed() {
    let tls = Served::tls(door(Limits { handshake: short().handshake, ..Limits::default() })).await;
    assert_eq!(tls.exchange("").await, "");
    let plain = Served::plain(door(Limits { header: short().header, ..Limits::default() })).await;
    assert_eq!(plain.exchange("").await, "");
}

#[tokio::test]
async fn t_155_an_idle_connection_is_closed() {
    let served = Served::plain(door(Limits { idle: short().idle, ..Limits::default() })).await;
    assert_eq!(statuses(&served.exchange(GET).await), ["200"]);
}

#[tokio::test]
async fn t_155_a_client_that_takes_no_answer_is_dropped() {
    let big = Router::new().route("/big", get(|| async { vec![b'x'; 64 << 20] }));
    let limits = Limits { stall: short().stall, connections: 1, ..Limits::default() };
    let served = Served::plain(Door { limits, ..Door::new(big) }).await;
    let mut greedy = served.connect().await;
    send(&mut greedy, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // The only seat comes free although the greedy client neither reads nor closes.
    let answer = served.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(statuses(&answer), ["404"]);
}

#[tokio::test]
async fn t_155_one_address_cannot_take_every_connection() {
    let served = Served::plain(door(Limits { per_address: 2, ..Limits::default() })).await;
    let mut held = [served.connect().await, served.connect().await];
    for stream in &mut held {
        send(stream, GET).await;
        read_answer(stream, "hello").await;
    }
    assert_eq!(served.exchange(GET).await, "");
    let mut other = connect_from("127.0.0.2", served.address).await.expect("a connection from another address");
    send(&mut other, GET).await;
    read_answer(&mut other, "hello").await;
}

async fn connect_from(from: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((from.parse::<std::net::IpAddr>().expect("an address"), 0).into())?;
    socket.connect(to).await
}

#[tokio::test]
async fn past_the_last_seat_a_connection_waits() {
    let served = Served::plain(door(Limits { connections: 1, ..Limits::default() })).await;
    let mut first = served.connect().await;
    send(&mut first, GET).await;
    read_answer(&mut first, "hello").await;
    let mut second = served.connect().await;
    send(&mut second, GET).await;
    timeout(Duration::from_millis(100), second.read_u8()).await.expect_err("no seat yet");
    drop(first);
    read_answer(&mut second, "hello").await;
}

#[tokio::test]
async fn t_158_a_header_block_over_its_limits_is_431() {
    let served = Served::plain(door(Limits::default())).await;
    let head = |fields: String| format!("GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    let many = |count: usize| head((2..count).map(|at| format!("X-{at}: y\r\n")).collect());
    assert_eq!(statuses(&served.exchange(many(100)).await), ["200"]);
    assert_eq!(statuses(&served.exchange(many(101)).await), ["431"]);
    let large = |bytes: usize| head(format!("Cookie: {}\r\n", "x".repeat(bytes)));
    assert_eq!(statuses(&served.exchange(large(16 << 10)).await), ["431"]);
    assert_eq!(statuses(&served.exchange(large(17 << 10)).await), ["431"]);
    assert_eq!(statuses(&served.exchange(large(1 << 20)).await), ["431"]);
    assert_eq!(statuses(&served.exchange(large((16 << 10) - 100)).await), ["200"]);
}

#[tokio::test]
async fn t_159_a_body_over_its_limit_is_413() {
    let served = Served::plain(door(Limits::default())).await;
    let max = 64 << 10;
    let sized = |length: usize, body: usize| {
        format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{}",
            "x".repeat(body)
        )
    };
    assert_eq!(statuses(&served.exchange(sized(max, max)).await), ["200"]);
    assert_eq!(statuses(&served.exchange(sized(max + 1, max + 1)).await), ["413"]);
    assert_eq!(statuses(&served.exchange(sized(usize::MAX / 4, 0)).await), ["413"]);
    let expecting = "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 65537\r\n\r\n";
    assert_eq!(statuses(&served.exchange(expecting).await), ["413"]);
}

#[tokio::test]
async fn a_refused_client_that_goes_on_sending_is_not_reset() {
    let served = Served::plain(door(Limits::default())).await;
    let mut stream = served.connect().await;
    send(&mut stream, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n").await;
    assert!(read_answer(&mut stream, "").await.starts_with("HTTP/1.1 413 "));
    for _ in 0..30 {
        send(&mut stream, vec![b'x'; 10_000]).await;
    }
    stream.shutdown().await.expect("no reset");
    assert_eq!(soon(stream.read(&mut [0; 1])).await.expect("a close, not a reset"), 0);
}

#[tokio::test]
async fn t_159_an_endless_chunked_body_is_413() {
    let served = Served::plain(door(Limits::default())).await;
    let (mut read, mut write) = served.connect().await.into_split();
    send(&mut write, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("100\r\n{}\r\n", "x".repeat(256));
    let endless = async { while write.write_all(chunk.as_bytes()).await.is_ok() {} };
    let (answers, ()) = tokio::join!(until_close(&mut read), endless);
    assert_eq!(statuses(&answers), ["413"]);
}

#[tokio::test]
async fn t_155_a_slow_body_is_408() {
    let served = Served::plain(door(Limits { body: short().body, ..Limits::default() })).await;
    for framing in ["Content-Length: 9\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"] {
        let answers = served.exchange(format!("POST /echo HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        assert_eq!(statuses(&answers), ["408"], "{framing:?}");
    }
}

#[tokio::test]
async fn refusals_speak_with_the_words_of_the_door() {
    let refuse: Refuse =
        Arc::new(|status, parts: &Parts| (status, format!("no: {}", parts.uri.path())).into_response());
    let served = Served::plain(Door { refuse, ..Door::new(app()) }).await;
    let answers = served.exchange("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n").await;
    assert!(answers.ends_with("\r\n\r\nno: /echo"), "{answers}");
    let mut stream = served.connect().await;
    send(&mut stream, "GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(read_answer(&mut stream, "no: /panic").await.starts_with("HTTP/1.1 500 "));
}

#[tokio::test]
async fn a_panic_is_500_and_the_connection_lives() {
    let served = Served::plain(door(Limits::default())).await;
    let mut stream = served.connect().await;
    send(&mut stream, "GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(read_answer(&mut stream, "").await.starts_with("HTTP/1.1 500 "));
    send(&mut stream, GET).await;
    assert!(read_answer(&mut stream, "hello").await.starts_with("HTTP/1.1 200 "));
}

/// A door with the broker's own words.
fn speaking() -> Door {
    let words = crate::http::Door::new("https://b.example", "r");
    Door { refuse: Arc::new(move |status, parts| words.refuse(status, parts)), ..Door::new(app()) }
}

/// The one problem document that an exchange ends with, after `before` good answers.
fn problem(answers: &str, before: usize) -> serde_json::Value {
    assert_eq!(statuses(answers).len(), before + 1, "{answers}");
    let refusal = &answers[answers.rfind("HTTP/1.1 ").expect("an answer")..];
    let (head, body) = refusal.split_once("\r\n\r\n").expect("a whole head");
    let length = format!("content-length: {}", body.len());
    for line in ["content-type: application/problem+json", "cache-control: no-store", "connection: close", &length] {
        assert!(head.lines().any(|said| said == line), "{line:?} in {head}");
    }
    assert!(head.contains("\r\nx-request-id: r-") && head.contains("\r\ndate: "), "{head}");
    let problem: serde_json::Value = serde_json::from_str(body).expect("json");
    assert_eq!(head.split(' ').nth(1), Some(&*problem["status"].to_string()), "{answers}");
    problem
}

#[tokio::test]
async fn t_158_what_the_library_refuses_carries_a_problem_too() {
    let served = Served::plain(speaking()).await;
    let head = |fields: String| format!("GET /hello HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let many = head((0..100).map(|at| format!("X-{at}: y\r\n")).collect());
    let large = head(format!("Cookie: {}\r\n", "x".repeat(17 << 10)));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(17 << 10));
    let huge = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70 << 10));
    for request in [many, large, long, huge] {
        for before in [0, 1, 2] {
            let answers = served.exchange(format!("{}{request}", GET.repeat(before))).await;
            let problem = problem(&answers, before);
            assert_eq!(statuses(&answers)[..before], ["200"; 2][..before], "{answers}");
            assert_eq!((&problem["status"], &problem["reason"]), (&431.into(), &"E-HEADERS".into()));
            assert_eq!(problem["type"], "https://b.example/problems/e-headers");
        }
    }
}

#[tokio::test]
async fn t_158_over_https_a_client_reads_the_problem() {
    let authority = Authority::new();
    let (listener, stop) = (bind().await, CancellationToken::new());
    let base = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
    tokio::spawn(serve_tls(listener, Arc::new(ArcSwap::new(authority.server("localhost"))), speaking(), stop));
    let client = crate::sys::net::Client::https(&base, Some(authority.pem())).expect("a client");
    let request = hyper::Request::get("/hello").header("cookie", "x".repeat(17 << 10));
    let answer = soon(client.send(request.body(Default::default()).expect("a request"))).await.expect("an answer");
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("json");
    assert_eq!((answer.status, &problem["reason"]), (431, &"E-HEADERS".into()));
}

#[tokio::test]
async fn t_157_smuggling_is_refused_with_a_problem() {
    let served = Served::plain(speaking()).await;
    for head in [
        "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Host: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "Host: a\nContent-Length: 0\n\n",
        "Host: a\r\nX: y\0\r\n\r\n",
        "Content-Length: 0\r\n\r\n",
    ] {
        for before in [0, 1] {
            let request = format!("{}POST /echo HTTP/1.1\r\n{head}", GET.repeat(before));
            let problem = problem(&served.exchange(request).await, before);
            assert_eq!((&problem["status"], &problem["reason"]), (&400.into(), &"E-REQUEST".into()), "{head:?}");
            assert_eq!(problem["type"], "https://b.example/problems/e-request");
            assert!(problem["title"].is_string() && problem["request_id"].is_string(), "{problem}");
        }
    }
}

/// One answer at most, and it is 400: what follows in the stream is never a second request.
#[tokio::test]
async fn t_157_smuggling_is_400_and_a_close() {
    let served = Served::plain(door(Limits::default())).await;
    for head in [
        "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Host: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Host: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Host: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
        "Host: a\r\nContent-Length: +5\r\n\r\nhello",
        "Host: a\nContent-Length: 0\n\n",
        "Host: a\r\nX: y\n\r\n",
        "Host: a\r\nX: y\rZ: w\r\n\r\n",
        "Host: a\r\nX: y\r\n z\r\n\r\n",
        "Host: a\r\nX: y\0\r\n\r\n",
    ] {
        let answers = served.exchange(format!("POST /echo HTTP/1.1\r\n{head}{GET}")).await;
        assert_eq!(statuses(&answers), ["400"], "{head:?}: {answers}");
    }
}

#[tokio::test]
async fn t_157_a_bad_head_that_comes_in_pieces_is_400_too() {
    let served = Served::plain(door(Limits::default())).await;
    let mut stream = served.connect().await;
    send(&mut stream, GET).await;
    read_answer(&mut stream, "hello").await;
    for byte in b"GET /hello HTTP/1.1\nHost: a\n\n" {
        let _ = stream.write_all(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(statuses(&until_close(&mut stream).await), ["400"]);
}

#[tokio::test]
async fn t_157_a_chunked_request_is_the_last_of_its_connection() {
    let served = Served::plain(door(Limits::default())).await;
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    let answers = served.exchange(format!("{chunked}GET /hello HTTP/1.1\nHost: a\n\n")).await;
    assert_eq!(statuses(&answers), ["200"]);
    assert!(answers.contains("connection: close\r\n"), "{answers}");
}

#[tokio::test]
async fn t_157_http_2_and_upgrades_are_not_spoken() {
    let served = Served::plain(door(Limits::default())).await;
    let preface = served.exchange("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(statuses(&preface).iter().all(|status| *status == "400"), "{preface}");
    let upgrade = "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let answers = served.exchange(format!("GET /hello HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n")).await;
    assert_eq!(statuses(&answers), ["200"]);
}

#[tokio::test]
async fn t_157_a_request_without_one_host_is_refused() {
    let served = Served::plain(door(Limits::default())).await;
    for host in ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nHost: a\r\n"] {
        let answers = served.exchange(format!("GET /hello HTTP/1.1\r\n{host}\r\n")).await;
        assert_eq!(statuses(&answers), ["400"], "{host:?}");
    }
}

#[tokio::test]
async fn the_socket_tells_the_uid_of_its_peer() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("dayfly.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    tokio::spawn(serve_unix(listener, door(Limits::default()), CancellationToken::new()));
    let mut stream = UnixStream::connect(&path).await.expect("a connection");
    send(&mut stream, "GET /peer HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let uid = rustix::process::geteuid().as_raw();
    read_answer(&mut stream, &format!("Local {{ uid: {uid} }}")).await;
}

/// A route that says when it was entered and answers when it is told to.
fn gated() -> (Router, mpsc::UnboundedReceiver<()>, Arc<Notify>) {
    let (entered, seen) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let told = go.clone();
    let wait = move || async move {
        entered.send(()).expect("the test listens");
        told.notified().await;
        "done"
    };
    (Router::new().route("/wait", get(wait)), seen, go)
}

const WAIT: &str = "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn t_165_a_stop_lets_a_request_in_flight_finish() {
    let (app, mut entered, go) = gated();
    let served = Served::plain(Door::new(app)).await;
    let (mut idle, mut busy) = (served.connect().await, served.connect().await);
    send(&mut busy, WAIT).await;
    soon(entered.recv()).await;
    served.stop.cancel();
    assert_eq!(until_close(&mut idle).await, "");
    TcpStream::connect(served.address).await.expect_err("the listener is closed");
    assert!(!served.ended.is_finished());
    go.notify_one();
    let answer = until_close(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\ndone"), "{answer}");
    drop((idle, busy));
    soon(served.ended).await.expect("no panic");
}

#[tokio::test]
async fn t_165_a_drain_has_an_end() {
    let (app, mut entered, _never) = gated();
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    let served = Served::plain(Door { limits, ..Door::new(app) }).await;
    let mut busy = served.connect().await;
    send(&mut busy, WAIT).await;
    soon(entered.recv()).await;
    served.stop.cancel();
    soon(served.ended).await.expect("no panic");
    assert_eq!(until_close(&mut busy).await, "");
}

/// A listener whose accepts fail first, as they do without descriptors.
struct Exhausted {
    failures: std::sync::atomic::AtomicUsize,
    inner: Plain,
}

impl Entrance for Exhausted {
    type Raw = TcpStream;
    type Open = TcpStream;
    const NAME: &'static str = "test";

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        use std::sync::atomic::Ordering::SeqCst;
        if self.failures.fetch_sub(1, SeqCst) > 1 {
            return Err(io::Error::from_raw_os_error(24));
        }
        self.failures.store(1, SeqCst);
        self.inner.accept().await
    }

    async fn open(raw: TcpStream, allowed: Duration) -> io::Result<TcpStream> {
        Plain::open(raw, allowed).await
    }
}

#[tokio::test]
async fn a_lack_of_descriptors_slows_the_loop_and_does_not_end_it() {
    let listener = bind().await;
    let address = listener.local_addr().expect("an address");
    let entrance = Exhausted { failures: 3.into(), inner: Plain(listener) };
    let begun = tokio::time::Instant::now();
    tokio::spawn(serve(entrance, door(Limits::default()), CancellationToken::new()));
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    send(&mut stream, GET).await;
    read_answer(&mut stream, "hello").await;
    assert!(begun.elapsed() >= 2 * BACK_OFF);
}
