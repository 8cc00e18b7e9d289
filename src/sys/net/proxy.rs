//! The way out through a proxy, where the environment names one. In: `HTTPS_PROXY` and `NO_PROXY`.
//! Out: a tunnel (CONNECT, RFC 9110 section 9.3.6), inside which TLS to the issuer is spoken; the
//! proxy sees a host and a port, and nothing else.
//!
//! Its own address is the operator's word, so it may be a private one. Behind it the issuer's address
//! is not known here: what is private by its spelling is refused, the rest is the proxy's to decide.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use dayfly_domain::Secret;
use hyper::Uri;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    exchange::bare,
    fetch::{CONNECT_TIME, FetchError},
    place::Place,
};
use crate::sys::env;

/// The variables that are read, in this order: the first that is not empty counts.
pub const PROXY_VARIABLES: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
pub const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// A proxy that cannot be used. Never quotes the variable: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{variable}` names no proxy that can be used: {why}")]
pub struct ProxyError {
    pub variable: &'static str,
    pub why: &'static str,
}

/// What went wrong on the way to or at the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyFault {
    #[error("the proxy cannot be reached")]
    Connect,
    #[error("the proxy refuses with status {0}")]
    Status(u16),
    #[error("the proxy's answer is not one")]
    Protocol,
}

/// A proxy, and what goes around it.
#[derive(Debug)]
pub(super) struct Proxy {
    host: String,
    port: u16,
    /// `Basic ...`
    authorization: Option<Secret<String>>,
    around: Vec<Around>,
}

impl Proxy {
    pub fn by_environment() -> Result<Option<Self>, ProxyError> {
        let first = |names: [&'static str; 2]| {
            let given = |name| env::var(name).filter(|text| !text.trim().is_empty()).map(|text| (name, text));
            names.into_iter().find_map(given)
        };
        let Some((variable, text)) = first(PROXY_VARIABLES) else { return Ok(None) };
        let around = first(NO_PROXY_VARIABLES).map(|(_, text)| text).unwrap_or_default();
        Self::parse(text.trim(), &around).map(Some).map_err(|why| ProxyError { variable, why })
    }

    /// `[http://][user:password@]host[:port]`, and a list as `NO_PROXY` has it.
    pub fn parse(text: &str, around: &str) -> Result<Self, &'static str> {
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err("its scheme is not `http`"),
        };
        let (user, authority) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let wrong = "its address is not `host:port`";
        let uri: Uri = format!("http://{authority}/").parse().map_err(|_| wrong)?;
        let parsed = uri.authority().filter(|parsed| parsed.as_str() == authority).ok_or(wrong)?;
        let whole = parsed.as_str().len() == parsed.host().len();
        let port = if whole { Some(80) } else { parsed.port_u16().filter(|port| *port != 0) };
        Ok(Self {
            host: bare(parsed.host()).to_owned(),
            port: port.ok_or(wrong)?,
            authorization: user.map(basic).transpose()?,
            around: around.split(',').filter_map(Around::parse).collect(),
        })
    }

    /// Whether the way to this place leads through the proxy. Never to this machine itself.
    pub fn leads_to(&self, place: &Place) -> bool {
        !place.is_loopback() && !self.around.iter().any(|around| around.matches(place))
    }

    /// A connection to the place, through the proxy. Needs a deadline around it.
    pub async fn tunnel(&self, place: &Place) -> Result<TcpStream, FetchError> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let connected = timeout(CONNECT_TIME, connecting).await;
        let mut stream = connected.ok().and_then(Result::ok).ok_or(ProxyFault::Connect)?;
        let head = self.head(place);
        stream.write_all(head.expose().as_bytes()).await.map_err(|_| ProxyFault::Protocol)?;
        match status(&mut stream).await.ok_or(ProxyFault::Protocol)? {
            200..300 => Ok(stream),
            status => Err(ProxyFault::Status(status).into()),
        }
    }

    fn head(&self, place: &Place) -> Secret<String> {
        let to = format!("{}:{}", place.host, place.port);
        let mut head = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: dayfly\r\n");
        if let Some(authorization) = &self.authorization {
            head.push_str("Proxy-Authorization: ");
            head.push_str(authorization.expose());
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        Secret::new(head)
    }
}

const ANSWER_MAX_BYTES: usize = 8 << 10;

/// The status of the answer to CONNECT. Nothing may follow its head: the other side of the tunnel
/// speaks second.
async fn status(stream: &mut TcpStream) -> Option<u16> {
    let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        head.extend_from_slice(&chunk[..read]);
        if head.len() > ANSWER_MAX_BYTES {
            return None;
        }
    }
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    let status: u16 = line.split(' ').nth(1).filter(|status| status.len() == 3)?.parse().ok()?;
    let quiet = head.ends_with(b"\r\n\r\n") || !(200..300).contains(&status);
    quiet.then_some(status)
}

fn basic(user: &str) -> Result<Secret<String>, &'static str> {
    let plain = Secret::new(unescaped(user).ok_or("its user or password is not well escaped")?);
    let pair = if plain.expose().contains(':') { plain } else { Secret::new(format!("{}:", plain.expose())) };
    Ok(Secret::new(format!("Basic {}", STANDARD.encode(pair.expose()))))
}

/// Undoes `%41`.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

/// An entry of `NO_PROXY`.
#[derive(Debug, PartialEq, Eq)]
struct Around {
    what: What,
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    All,
    /// The name, and everything below it.
    Name(String),
    Address(IpAddr),
    Block(IpAddr, u32),
}

impl Around {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim();
        if entry.is_empty() {
            return None;
        }
        let whole = What::of(entry);
        match (whole, entry.rsplit_once(':')) {
            (Some(what), _) => Some(Self { what, port: None }),
            (None, Some((host, port))) => Some(Self { what: What::of(host)?, port: Some(port.parse().ok()?) }),
            (None, None) => None,
        }
    }

    fn matches(&self, place: &Place) -> bool {
        let host = place.host.to_ascii_lowercase();
        let what = match (&self.what, place.address) {
            (What::All, _) => true,
            (What::Name(name), None) => {
                host.strip_suffix(name.as_str()).is_some_and(|r| r.is_empty() || r.ends_with('.'))
            }
            (What::Address(address), Some(other)) => *address == other,
            (What::Block(address, prefix), Some(other)) => same_block(*address, other, *prefix),
            _ => false,
        };
        what && self.port.is_none_or(|port| port == place.port)
    }
}

impl What {
    fn of(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        if let Ok(address) = bare(text).parse() {
            return Some(Self::Address(address));
        }
        if let Some((address, prefix)) = text.split_once('/') {
            return Some(Self::Block(address.parse().ok()?, prefix.parse().ok()?));
        }
        let name = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')).unwrap_or(text);
        (!name.is_empty() && !name.contains([':', '*'])).then(|| Self::Name(name.to_ascii_lowercase()))
    }
}

fn same_block(a: IpAddr, b: IpAddr, prefix: u32) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= prefix,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= prefix,
        _ => false,
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
