//! A URL that may be fetched, taken apart: `https`, one spelling of its host, no user.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::Uri;
use rustls_pki_types::ServerName;

use super::{
    address::is_public,
    exchange::{bare, port},
    fetch::FetchError,
};

/// Where a document is.
pub(super) struct Place {
    /// As written; an IPv6 address in brackets.
    pub host: String,
    /// The host, if it is an address.
    pub address: Option<IpAddr>,
    pub server_name: ServerName<'static>,
    pub port: u16,
    /// `host` or `host:port`.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl Place {
    // SECURITY: `a_url_that_is_not_plain_https_is_refused`,
    // `t_049_a_number_in_another_spelling_is_no_host`.
    pub fn parse(url: &str) -> Result<Self, FetchError> {
        if !url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
            return Err(FetchError::Url("it holds a character that no URL may hold"));
        }
        if url.contains('#') {
            return Err(FetchError::Url("it has a fragment"));
        }
        let uri: Uri = url.parse().map_err(|_| FetchError::Url("it cannot be parsed"))?;
        if uri.scheme_str() != Some("https") {
            return Err(FetchError::Url("its scheme is not `https`"));
        }
        let authority = uri.authority().ok_or(FetchError::Url("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(FetchError::Url("it names a user"));
        }
        if uri.path().split('/').any(is_dots) {
            return Err(FetchError::Url("its path has a segment of dots alone"));
        }
        let host = authority.host().to_owned();
        let address = address(&host)?;
        Ok(Self {
            server_name: ServerName::try_from(bare(&host).to_owned())
                .map_err(|_| FetchError::Url("its host is neither a name nor an address"))?,
            port: port(authority).filter(|port| *port != 0).ok_or(FetchError::Url("its port is not one"))?,
            address,
            host,
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// What can be said of the host without asking anybody: of a host behind a proxy nothing else is
    /// known here.
    pub fn is_inside_by_its_spelling(&self) -> bool {
        match self.address {
            Some(address) => !is_public(address),
            None => is_inside_name(&self.host.to_ascii_lowercase()),
        }
    }

    /// This very machine: never asked of a proxy.
    pub fn is_loopback(&self) -> bool {
        match self.address {
            Some(address) => address.to_canonical().is_loopback(),
            None => is_below(&self.host.to_ascii_lowercase(), "localhost"),
        }
    }
}

/// `.` and `..`, also encoded: what some servers take for another path.
fn is_dots(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

/// Names that nobody outside has: one label, and the suffixes kept for inside (RFC 6761, 6762, 8375,
/// `.internal`).
fn is_inside_name(host: &str) -> bool {
    !host.contains('.') || ["localhost", "local", "internal", "home.arpa"].iter().any(|top| is_below(host, top))
}

fn is_below(host: &str, top: &str) -> bool {
    host.strip_suffix(top).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The host as an address, if it is one in its usual spelling. What only some resolvers take for an
/// address (`2130706433`, `0x7f.1`, `127.1`) is no host at all.
fn address(host: &str) -> Result<Option<IpAddr>, FetchError> {
    let wrong = FetchError::Url("its host is neither a name nor an address");
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return inner.map(|address| Some(address.into())).ok_or(wrong);
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Some(address.into()));
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x");
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let named = host.split('.').all(|label| !label.is_empty() && label.bytes().all(letter));
    if named && !number { Ok(None) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str) -> Place {
        Place::parse(&format!("https://{host}/")).unwrap_or_else(|error| panic!("{host}: {error}"))
    }

    #[test]
    fn t_049_a_number_in_another_spelling_is_no_host() {
        for host in [
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "127.1",
            "0",
            "0177.0.0.1",
            "127.0.0.1.",
            "issuer.test.",
            "a..b",
            "%6cocalhost",
            "1.2.3.4.5",
            "a.0x7f",
        ] {
            let refused = Place::parse(&format!("https://{host}/"));
            assert!(matches!(refused, Err(FetchError::Url(_))), "{host}");
        }
        assert_eq!(place("127.0.0.1").address, Some([127, 0, 0, 1].into()));
        assert_eq!((place("[::1]:8443").address, place("[::1]:8443").port), ("::1".parse().ok(), 8443));
        assert_eq!(place("a1.example.org").address, None);
    }

    #[test]
    fn a_path_has_no_dots_alone() {
        for path in ["..", "../b", "a/./b", "a/%2e%2E/b"] {
            assert!(matches!(Place::parse(&format!("https://issuer.test/{path}")), Err(FetchError::Url(_))), "{path}");
        }
        assert!(Place::parse("https://issuer.test/.well-known/a..b").is_ok());
    }

    #[test]
    fn a_port_is_a_port() {
        for host in ["issuer.test:0", "issuer.test:", "issuer.test:65536", "issuer.test:-1", "issuer.test:8443x"] {
            assert!(Place::parse(&format!("https://{host}/")).is_err(), "{host}");
        }
        assert_eq!((place("issuer.test").port, place("issuer.test:8443").port), (443, 8443));
    }

    #[test]
    fn a_host_of_the_inside_is_known_by_its_spelling() {
        for host in [
            "127.0.0.1",
            "[::ffff:10.0.0.1]",
            "169.254.169.254",
            "localhost",
            "LOCALHOST",
            "a.localhost",
            "kubernetes",
            "metadata.google.internal",
            "printer.local",
            "[64:ff9b::a9fe:a9fe]",
        ] {
            assert!(place(host).is_inside_by_its_spelling(), "{host}");
        }
        for host in ["1.1.1.1", "token.actions.githubusercontent.com", "notlocalhost.example", "internal.example.org"] {
            assert!(!place(host).is_inside_by_its_spelling(), "{host}");
        }
        assert!(
            place("127.8.0.1").is_loopback() && place("localhost").is_loopback() && !place("10.0.0.1").is_loopback()
        );
    }
}
