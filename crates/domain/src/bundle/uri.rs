//! The little that a bundle must know of URIs: whether one is absolute, and whether it is ours.

use super::punycode;

/// An absolute URI, split as far as the checks need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uri<'a> {
    pub scheme: &'a str,
    /// Without port; absent where the URI has no authority (`urn:`).
    pub host: Option<&'a str>,
    port: Option<&'a str>,
    /// From the end of the authority.
    pub rest: &'a str,
}

const MAX_BYTES: usize = 512;

/// An absolute URI without fragment and without user information.
pub(super) fn parse(text: &str) -> Result<Uri<'_>, &'static str> {
    if text.len() > MAX_BYTES {
        return Err("is longer than 512 bytes");
    }
    if text.contains('#') {
        return Err("has a fragment");
    }
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    if !text.bytes().all(plain) {
        return Err("has characters that no URI has");
    }
    let (scheme, after) = text.split_once(':').ok_or("is not absolute: it has no scheme")?;
    let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(in_scheme) {
        return Err("is not absolute: it has no scheme");
    }
    match after.strip_prefix("//") {
        Some(after) => with_authority(scheme, after),
        None if after.is_empty() => Err("has nothing after its scheme"),
        None if is_web(scheme) => Err("has no host"),
        None => Ok(Uri { scheme, host: None, port: None, rest: after }),
    }
}

fn with_authority<'a>(scheme: &'a str, after: &'a str) -> Result<Uri<'a>, &'static str> {
    let end = after.find(['/', '?']).unwrap_or(after.len());
    let (authority, rest) = after.split_at(end);
    if authority.contains('@') {
        return Err("has user information");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("has a bad port");
    }
    check_host(host)?;
    Ok(Uri { scheme, host: Some(host), port, rest })
}

/// SECURITY: a `xn--` label that decodes to plain ASCII looks like another host to whoever
/// decodes it (t_036_fake_punycode).
fn check_host(host: &str) -> Result<(), &'static str> {
    if host.starts_with('[') && host.ends_with(']') {
        return Ok(());
    }
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let good =
        |label: &str| !label.is_empty() && label.len() <= 63 && label.bytes().all(letter) && !label.starts_with('-');
    if !host.split('.').all(good) {
        return Err("has a bad host");
    }
    let coded = |label: &str| label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"));
    let fake = |label: &str| coded(label) && !(label.starts_with("xn--") && punycode::is_canonical(&label[4..]));
    if host.split('.').any(|label| label.ends_with('-') || fake(label)) {
        return Err("has a host with a label that ends in `-`, decodes to plain ASCII, or has another spelling");
    }
    Ok(())
}

fn is_web(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")
}

/// One spelling for comparing with our own URL: lower case, no default port, no `/` at the end.
fn normal(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let whole = match parse(&lower) {
        Ok(Uri { scheme, host: Some(host), port, rest }) => {
            let usual = matches!((scheme, port), ("https", Some("443")) | ("http", Some("80")) | (_, None));
            let port = port.filter(|_| !usual).map(|port| format!(":{port}")).unwrap_or_default();
            format!("{scheme}://{host}{port}{rest}")
        }
        _ => lower,
    };
    whole.trim_end_matches('/').to_owned()
}

/// Whether `text` is `base` or stands below it.
pub(super) fn is_at_or_below(text: &str, base: &str) -> bool {
    let (text, base) = (normal(text), normal(base));
    text.strip_prefix(&base).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_uris_are_read() {
        for good in ["https://a.example", "https://a.example:8443/x?y", "urn:x:y", "spiffe://td/x", "https://[::1]:1/"]
        {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a.example", "/x", "https:", "https:///x", "https://a b", "https://u@h", "https://a/#f", "urn:"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn t_036_fake_punycode() {
        assert!(parse("https://xn--example-.org").is_err());
        assert!(parse("https://xn--.org").is_err());
        assert!(parse("https://exämple.org").is_err());
        assert!(parse("https://XN--mller-kva.de").is_err());
        assert!(parse("https://a.xn--mller-kv.de").is_err());
        assert!(parse("https://xn--mller-kva.de").is_ok());
    }

    #[test]
    fn ours_is_ours_in_every_spelling() {
        let ours = "https://broker.example.org";
        for same in ["https://broker.example.org/", "HTTPS://Broker.example.org:443", "https://broker.example.org/v1"] {
            assert!(is_at_or_below(same, ours), "{same}");
        }
        assert!(!is_at_or_below("https://broker.example.org.evil", ours));
        assert!(!is_at_or_below("https://broker.example.org:8443", ours));
    }
}
