//! SPIFFE IDs (the SPIFFE ID standard, section 2): a trust domain and a path, each in its one
//! spelling. In comes a stranger's text; out go its two parts, or nothing.

/// What every SPIFFE ID begins with. The scheme is taken in lower case only.
pub const SCHEME: &str = "spiffe://";

const TRUST_DOMAIN_MAX_BYTES: usize = 255;
const ID_MAX_BYTES: usize = 2048;

/// The name of a workload in a foreign trust domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpiffeId<'a> {
    trust_domain: &'a str,
    path: &'a str,
}

impl<'a> SpiffeId<'a> {
    /// An ID with a path: one without names the trust domain and no workload in it.
    // SECURITY: `a_path_has_one_spelling`; nothing is decoded, folded or trimmed.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (trust_domain, path) = text.strip_prefix(SCHEME)?.split_once('/')?;
        let good = text.len() <= ID_MAX_BYTES && is_trust_domain(trust_domain) && path.split('/').all(is_segment);
        good.then_some(Self { trust_domain, path })
    }

    pub fn trust_domain(&self) -> &'a str {
        self.trust_domain
    }

    /// At least one segment, without the first `/`.
    pub fn path(&self) -> &'a str {
        self.path
    }
}

/// Lower-case letters, digits, `.`, `-` and `_`, at most 255 bytes: no port, no user, nothing to
/// decode.
pub fn is_trust_domain(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=TRUST_DOMAIN_MAX_BYTES).contains(&name.len()) && name.bytes().all(letter)
}

/// What can stand between two `/`; of a principal too.
pub fn is_segment(segment: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !matches!(segment, "" | "." | "..") && segment.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_trust_domain_and_a_path() {
        let id = SpiffeId::parse("spiffe://prod.example/ns/pay/sa/Api_1").unwrap();
        assert_eq!((id.trust_domain(), id.path()), ("prod.example", "ns/pay/sa/Api_1"));
    }

    #[test]
    fn a_path_has_one_spelling() {
        for path in ["", "/", "a/", "a//b", "/a", ".", "..", "a/../b", "a/./b", "a%2fb", "a b", "a?b", "a#b", "\u{e9}"]
        {
            assert_eq!(SpiffeId::parse(&format!("spiffe://prod.example/{path}")), None, "{path}");
        }
        assert!(SpiffeId::parse("spiffe://prod.example/a/..b/c.").is_some());
        assert_eq!(SpiffeId::parse("spiffe://prod.example"), None);
        assert_eq!(SpiffeId::parse(&format!("spiffe://prod.example/{}", "a".repeat(2027))), None);
    }

    #[test]
    fn a_trust_domain_has_one_spelling() {
        for bad in ["Prod.example", "prod.example:443", "a@prod.example", "prod.ex%61mple", "pr\u{f6}d.example", ""] {
            assert_eq!(SpiffeId::parse(&format!("spiffe://{bad}/a")), None, "{bad}");
        }
        for scheme in ["SPIFFE://", "spiffe:", "spiffe:/", "https://", ""] {
            assert_eq!(SpiffeId::parse(&format!("{scheme}prod.example/a")), None, "{scheme}");
        }
        assert!(!is_trust_domain(&"a".repeat(256)) && is_trust_domain(&"a".repeat(255)));
    }
}
