//! An address that asks too much, over real sockets and by a clock that is stepped.

use dayfly_domain::UnixMs;

use super::*;
use crate::{flow::Rate, sys::clock::Stepped};

/// So many at once, and one a second after that.
const BURST: u32 = 3;

struct Rated {
    served: Served,
    clock: Arc<Stepped>,
}

impl Rated {
    async fn start() -> Self {
        let clock = Stepped::at(UnixMs::from_s(1_000));
        let limits = Limits { rate: Some(Rate::new(1, BURST)), ..Limits::default() };
        let door = Door { clock: Clock::Stepped(clock.clone()), ..door(limits) };
        Self { served: Served::plain(door).await, clock }
    }

    /// Uses up what the address has, on one connection.
    async fn spend(&self) -> TcpStream {
        let mut stream = self.served.connect().await;
        for _ in 0..BURST {
            send(&mut stream, GET).await;
            assert!(read_answer(&mut stream, "hello").await.starts_with("HTTP/1.1 200 "));
        }
        stream
    }
}

#[tokio::test]
async fn an_address_is_held_to_its_rate_and_goes_on_after_it() {
    let rated = Rated::start().await;
    let mut stream = rated.spend().await;
    send(&mut stream, GET).await;
    assert!(read_answer(&mut stream, "").await.starts_with("HTTP/1.1 429 "));
    rated.clock.advance_ms(999);
    send(&mut stream, GET).await;
    assert!(read_answer(&mut stream, "").await.starts_with("HTTP/1.1 429 "), "nor does asking again buy time");
    rated.clock.step_wall_ms(3_600_000);
    send(&mut stream, GET).await;
    assert!(read_answer(&mut stream, "").await.starts_with("HTTP/1.1 429 "), "nor the wall clock");
    rated.clock.advance_ms(1);
    send(&mut stream, GET).await;
    assert!(read_answer(&mut stream, "hello").await.starts_with("HTTP/1.1 200 "), "the connection is as good as new");
}

#[tokio::test]
async fn parallel_connections_are_one_address() {
    let rated = Rated::start().await;
    let exchanges =
        (0..12).map(|_| rated.served.exchange("GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    let mut passed = 0;
    for answer in exchanges.map(Box::pin).collect::<Vec<_>>() {
        passed += u32::from(answer.await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(passed, BURST);
}

#[tokio::test]
async fn t_159_a_limited_address_is_refused_before_its_body_is_read() {
    let rated = Rated::start().await;
    let _stream = rated.spend().await;
    // The body never comes: who waited for it would not answer.
    let whole = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n";
    let mut stream = rated.served.connect().await;
    send(&mut stream, whole).await;
    let answer = soon(read_answer(&mut stream, "")).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn no_header_makes_one_address_look_like_many() {
    let rated = Rated::start().await;
    let mut stream = rated.spend().await;
    let headers = [
        "X-Forwarded-For: 203.0.113.9",
        "Forwarded: for=203.0.113.9",
        "X-Real-IP: 203.0.113.9",
        "CF-Connecting-IP: ::9",
    ];
    for header in headers {
        send(&mut stream, format!("GET /hello HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n")).await;
        assert!(read_answer(&mut stream, "").await.starts_with("HTTP/1.1 429 "), "{header}");
    }
}

#[tokio::test]
async fn the_local_socket_has_no_rate() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let limits = Limits { rate: Some(Rate::new(1, 1)), ..Limits::default() };
    tokio::spawn(serve_unix(UnixListener::bind(&path).expect("a socket"), door(limits), CancellationToken::new()));
    let mut stream = UnixStream::connect(&path).await.expect("a connection");
    for _ in 0..20 {
        send(&mut stream, GET).await;
        assert!(read_answer(&mut stream, "hello").await.starts_with("HTTP/1.1 200 "));
    }
}
