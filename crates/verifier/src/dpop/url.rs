//! Whether `htu` names the request's URL (RFC 9449 section 4.3): without query and fragment, with the
//! case of scheme and host and a default port put aside, and byte for byte otherwise. Further
//! normalisation (dot segments, escapes) would let two spellings of a path be one.

/// `sent` by a client, `expected` from configuration.
// SECURITY: a_proof_for_another_url_is_refused
pub(super) fn same(sent: &str, expected: &str) -> bool {
    match (Parts::of(sent), Parts::of(expected)) {
        (Some(sent), Some(expected)) => sent == expected,
        _ => false,
    }
}

#[derive(PartialEq, Eq)]
struct Parts<'a> {
    scheme: String,
    authority: String,
    /// Empty is not `/`.
    path: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let url = url.split(['?', '#']).next()?;
        let (scheme, rest) = url.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let default = match scheme.as_str() {
            "https" => ":443",
            "http" => ":80",
            _ => return None,
        };
        // A user is no part of an https URL, and hides which host is meant.
        if authority.is_empty() || authority.contains('@') {
            return None;
        }
        let authority = authority.strip_suffix(default).unwrap_or(authority).to_ascii_lowercase();
        Some(Self { scheme, authority, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://b.example/oauth2/token";

    #[test]
    fn case_of_the_host_default_port_query_and_fragment_do_not_count() {
        for sent in [
            URL,
            "HTTPS://B.Example/oauth2/token",
            "https://b.example:443/oauth2/token",
            "https://b.example/oauth2/token?x=1",
            "https://b.example/oauth2/token#f?x",
        ] {
            assert!(same(sent, URL), "{sent}");
        }
        assert!(same("http://localhost/x", "http://localhost:80/x"));
        assert!(same("https://[::1]:8443/", "https://[::1]:8443/"));
    }

    #[test]
    fn a_proof_for_another_url_is_refused() {
        for sent in [
            "",
            "/oauth2/token",
            "b.example/oauth2/token",
            "http://b.example/oauth2/token",
            "https://b.example.evil.example/oauth2/token",
            "https://b.example@evil.example/oauth2/token",
            "https://evil@b.example/oauth2/token",
            "https://b.example:8443/oauth2/token",
            "https://b.example:/oauth2/token",
            "https://b.example:80/oauth2/token",
            "https://b.example./oauth2/token",
            "https://b.example/oauth2/Token",
            "https://b.example/oauth2/token/",
            "https://b.example//oauth2/token",
            "https://b.example/oauth2/./token",
            "https://b.example/oauth2/%74oken",
            "https://b.example\\oauth2/token",
            "https:///oauth2/token",
            " https://b.example/oauth2/token",
        ] {
            assert!(!same(sent, URL), "{sent}");
        }
        assert!(!same("https://b.example", "https://b.example/"), "an empty path is sent as `/`");
    }
}
