//! The command line's client against servers that answer, do not, or are not there.

use hyper::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use super::*;
use crate::sys::net::testing::{Authority, Canned, Then};

fn post(path: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(Method::POST).uri(path).header("authorization", "Bearer canary");
    request.body(Full::from("a=b")).expect("a request")
}

#[tokio::test]
async fn a_request_goes_over_https_to_the_base_path() {
    let authority = Authority::new();
    let answer = b"HTTP/1.1 403 Forbidden\r\nX-Request-Id: r1\r\nContent-Length: 2\r\n\r\n{}".to_vec();
    let server = Canned::start(authority.server("localhost"), answer, Then::Close).await;
    let base = format!("https://localhost:{}/broker/", server.address.port());
    let client = Client::https(&base, Some(authority.pem())).expect("a client");
    let answer = client.send(post("/v1/tasks?limit=5")).await.expect("an answer");
    assert_eq!((answer.status, answer.body.as_slice()), (403, b"{}".as_slice()));
    assert_eq!(answer.headers["x-request-id"], "r1");
    assert!(server.heads()[0].starts_with("POST /broker/v1/tasks?limit=5 HTTP/1.1\r\n"), "{:?}", server.heads());
}

#[tokio::test]
async fn a_request_goes_over_the_socket() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("dayfly.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = async {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut head = [0; 16];
        stream.read_exact(&mut head).await.expect("a head");
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("written");
        head
    };
    let client = Client::socket(path);
    let (answer, head) = tokio::join!(client.send(post("/v1/tasks")), server);
    assert_eq!(answer.expect("an answer").status, 204);
    assert_eq!(&head, b"POST /v1/tasks H");
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named_and_the_request_is_not_quoted() {
    let client = Client::socket("/nowhere/dayfly.sock".into());
    let error = client.send(post("/")).await.expect_err("no socket");
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("/nowhere/dayfly.sock"));
    assert!(!format!("{error} {error:?}").contains("canary"));
}

#[tokio::test]
async fn t_058_a_strange_certificate_is_refused() {
    let server = Canned::start(Authority::new().server("localhost"), Vec::new(), Then::Close).await;
    let base = format!("https://localhost:{}", server.address.port());
    let client = Client::https(&base, Some(Authority::new().pem())).expect("a client");
    let error = client.send(post("/")).await.expect_err("not trusted");
    assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
    assert!(server.heads().is_empty());
}

#[tokio::test]
async fn silence_and_nonsense_are_told_apart() {
    let authority = Authority::new();
    for (answer, then) in [("", Then::Silence), ("nonsense\r\n\r\n", Then::Close)] {
        let server = Canned::start(authority.server("localhost"), answer.into(), then).await;
        let base = format!("https://localhost:{}", server.address.port());
        let mut client = Client::https(&base, Some(authority.pem())).expect("a client");
        client.total = Duration::from_millis(300);
        let error = client.send(post("/")).await.expect_err("no answer");
        match then {
            Then::Silence => assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}"),
            Then::Close => assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}"),
        }
    }
}

#[test]
fn an_address_that_is_not_plain_https_is_refused() {
    for base in [
        "http://broker",
        "broker",
        "https://u:secret@broker",
        "https://broker?x=1",
        "https://broker#x",
        "https://broker:99999",
        "",
    ] {
        let error = Client::https(base, None).expect_err(base);
        assert!(matches!(error, ClientError::Address { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
