//! Every attack on an outbound fetch, against a server that plays it.

use std::sync::Mutex;

use super::*;
use crate::sys::net::testing::{Authority, Canned, Then};

/// A server named `issuer.test`, and a fetcher that finds it there.
struct Issuer {
    authority: Authority,
    server: Canned,
}

impl Issuer {
    async fn answering(answer: impl Into<Vec<u8>>, then: Then) -> Self {
        let authority = Authority::new();
        let server = Canned::start(authority.server("issuer.test"), answer.into(), then).await;
        Self { authority, server }
    }

    fn fetcher(&self) -> Fetcher {
        finding(vec![vec![self.server.address]])
    }

    fn fetch(&self) -> Fetch {
        let url = format!("https://issuer.test:{}/keys?v=1", self.server.address.port());
        Fetch { url, ca_pem: Some(self.authority.pem().into()), allow_private: true }
    }

    async fn get(&self) -> Result<Vec<u8>, FetchError> {
        self.fetcher().get(&self.fetch()).await
    }
}

/// A fetcher whose look-ups answer in this order (last first).
fn finding(answers: Vec<Vec<SocketAddr>>) -> Fetcher {
    Fetcher { names: Names::Given(Arc::new(Mutex::new(answers))), ..Fetcher::new() }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_document_is_fetched_and_nothing_secret_is_sent() {
    let issuer = Issuer::answering(ok("{\"keys\":[]}"), Then::Close).await;
    assert_eq!(issuer.get().await.expect("a document"), b"{\"keys\":[]}");
    let head = issuer.server.heads().concat().to_lowercase();
    assert!(head.starts_with("get /keys?v=1 http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: issuer.test:{}\r\n", issuer.server.address.port())), "{head}");
    assert!(!head.contains("authorization") && !head.contains("cookie"), "{head}");
}

#[tokio::test]
async fn t_047_a_redirect_is_refused() {
    for (status, to) in [
        (301, "https://evil.test/keys"),
        (302, "http://issuer.test/keys"),
        (303, "https://127.0.0.1/keys"),
        (307, "https://issuer.test:1/keys"),
        (308, "/keys"),
    ] {
        let answer = format!("HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 2\r\n\r\n{{}}");
        let issuer = Issuer::answering(answer, Then::Close).await;
        let refused = issuer.get().await;
        assert!(matches!(refused, Err(FetchError::Redirect(seen)) if seen == status), "{refused:?}");
        assert_eq!(issuer.server.heads().len(), 1);
    }
}

#[tokio::test]
async fn any_status_but_200_is_refused() {
    for status in [201_u16, 204, 206, 404, 500] {
        let issuer = Issuer::answering(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"), Then::Close).await;
        let refused = issuer.get().await;
        assert!(matches!(refused, Err(FetchError::Status(seen)) if seen == status), "{refused:?}");
    }
}

#[tokio::test]
async fn t_049_a_private_address_is_refused() {
    let public = SocketAddr::from(([1, 1, 1, 1], 443));
    for ip in ["127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00::1", "100.64.0.1", "64:ff9b::a00:1"] {
        let inside = SocketAddr::new(ip.parse().expect("an address"), 443);
        for answer in [vec![inside], vec![public, inside]] {
            let fetch = Fetch { url: "https://issuer.test/keys".into(), ca_pem: Some(ca()), allow_private: false };
            let refused = finding(vec![answer]).get(&fetch).await;
            assert!(is_inside(&refused), "{ip}: {refused:?}");
        }
    }
}

fn is_inside(refused: &Result<Vec<u8>, FetchError>) -> bool {
    matches!(refused, Err(FetchError::PrivateAddress { .. } | FetchError::LinkLocal { .. }))
}

#[tokio::test]
async fn t_049_no_table_opens_the_metadata_server() {
    let metadata = SocketAddr::from(([169, 254, 169, 254], 443));
    let inside = SocketAddr::from(([10, 0, 0, 1], 443));
    for answer in [vec![metadata], vec![inside, metadata]] {
        let fetch = Fetch { url: "https://issuer.test/keys".into(), ca_pem: Some(ca()), allow_private: true };
        let refused = finding(vec![answer]).get(&fetch).await;
        assert!(matches!(refused, Err(FetchError::LinkLocal { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn t_049_a_private_address_as_host_is_refused() {
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "169.254.169.254", "localhost"] {
        let refused = get_public(host).await;
        assert!(is_inside(&refused), "{host}: {refused:?}");
    }
    for host in ["2130706433", "0x7f000001", "0x7f.1", "127.1", "0"] {
        let refused = get_public(host).await;
        assert!(matches!(refused, Err(FetchError::Url(_))), "{host}: {refused:?}");
    }
}

async fn get_public(host: &str) -> Result<Vec<u8>, FetchError> {
    let fetch = Fetch { url: format!("https://{host}:1/keys"), ca_pem: Some(ca()), allow_private: false };
    Fetcher::new().get(&fetch).await
}

#[tokio::test]
async fn t_051_the_checked_address_is_the_one_connected_to() {
    let issuer = Issuer::answering(ok("{}"), Then::Close).await;
    let rebound = Canned::start(issuer.authority.server("issuer.test"), ok("evil").into(), Then::Close).await;
    let fetcher = finding(vec![vec![rebound.address], vec![issuer.server.address]]);
    assert_eq!(fetcher.get(&issuer.fetch()).await.expect("a document"), b"{}");
    assert!(rebound.heads().is_empty());
}

#[tokio::test]
async fn t_054_a_body_over_the_cap_is_refused() {
    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", FETCH_MAX_BYTES + 1);
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(5));
    let until_close = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(FETCH_MAX_BYTES + 1));
    for answer in [announced, chunked, until_close] {
        let refused = Issuer::answering(answer, Then::Silence).await.get().await;
        assert!(matches!(refused, Err(FetchError::TooLarge)), "{refused:?}");
    }
    let whole = Issuer::answering(ok(&"x".repeat(FETCH_MAX_BYTES)), Then::Close).await.get().await;
    assert_eq!(whole.expect("just fits").len(), FETCH_MAX_BYTES);
}

#[tokio::test]
async fn t_054_a_compressed_answer_is_refused() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}";
    let refused = Issuer::answering(answer, Then::Close).await.get().await;
    assert!(matches!(refused, Err(FetchError::Encoding)), "{refused:?}");
}

#[tokio::test]
async fn t_054_a_server_that_stalls_is_given_up() {
    for answer in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}"] {
        let issuer = Issuer::answering(answer, Then::Silence).await;
        let hasty = Fetcher { total: Duration::from_millis(300), ..issuer.fetcher() };
        let refused = hasty.get(&issuer.fetch()).await;
        assert!(matches!(refused, Err(FetchError::Timeout)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_cut_off_or_strange_answer_is_refused() {
    for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", "hello\r\n\r\n", "{}"] {
        let refused = Issuer::answering(answer, Then::Close).await.get().await;
        assert!(matches!(refused, Err(FetchError::Protocol)), "{answer:?}: {refused:?}");
    }
}

#[tokio::test]
async fn t_058_a_certificate_that_does_not_verify_is_refused() {
    let authority = Authority::new();
    let other_name = Canned::start(authority.server("other.test"), ok("{}").into(), Then::Close).await;
    let strange = Canned::start(Authority::new().server("issuer.test"), ok("{}").into(), Then::Close).await;
    for server in [&other_name, &strange] {
        let fetch = Fetch {
            url: format!("https://issuer.test:{}/", server.address.port()),
            ca_pem: Some(authority.pem().into()),
            allow_private: true,
        };
        let refused = finding(vec![vec![server.address]]).get(&fetch).await;
        assert!(matches!(refused, Err(FetchError::Tls { .. })), "{refused:?}");
        assert!(server.heads().is_empty());
    }
}

#[tokio::test]
async fn t_058_a_given_authority_replaces_those_of_the_system_and_the_other_way_round() {
    let issuer = Issuer::answering(ok("{}"), Then::Close).await;
    let system = Fetch { ca_pem: None, ..issuer.fetch() };
    let refused = issuer.fetcher().get(&system).await;
    assert!(matches!(refused, Err(FetchError::Tls { .. } | FetchError::Trust(_))), "{refused:?}");
}

#[tokio::test]
async fn a_url_that_is_not_plain_https_is_refused() {
    for url in [
        "http://issuer.test/",
        "ftp://issuer.test/",
        "issuer.test",
        "/keys",
        "https://",
        "https:///keys",
        "https://user@issuer.test/",
        "https://user:secret@issuer.test/",
        "https://issuer.test/#x",
        "https://issuer.test\\@evil.test/",
        "https://issuer.test/ x",
        "https://issuer.test/\r\nX: y",
        "https://issuer.test:99999/",
        "https://[fe80::1%25lo]/",
    ] {
        let fetch = Fetch { url: url.into(), ca_pem: Some(ca()), allow_private: true };
        let refused = finding(vec![]).get(&fetch).await;
        assert!(matches!(refused, Err(FetchError::Url(_))), "{url}: {refused:?}");
        assert!(!refused.expect_err("refused").to_string().contains("secret"));
    }
}

fn ca() -> Arc<[u8]> {
    Authority::new().pem().into()
}
