//! The forms that an issuer's URL may have, as a profile writes them: text in, a question out,
//! "is this URL of that form?".
//!
//! No pattern is glued together: host and path are cut into labels and segments, and these are
//! compared one by one. A placeholder stands for one whole label or segment, never for a `.` or a
//! `/`, except `{host}`, which stands for the whole host.

use std::fmt;

use super::uri;

/// An `https` URL with placeholders, e.g. `https://oidc.eks.{label}.amazonaws.com/id/{segment}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlForm {
    text: String,
    /// `None`: any host, with a port or without.
    host: Option<Vec<Part>>,
    path: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// One label of a host name.
    Label,
    /// One segment of a path: letters, digits, `-` and `_`.
    Segment,
    /// A UUID in lower case.
    Uuid,
    /// A decimal number, which may begin with 0.
    Digits,
}

const SCHEME: &str = "https://";
const WHOLE_HOST: &str = "{host}";
const SEGMENT_MAX_BYTES: usize = 128;

impl UrlForm {
    pub(super) const HELP: &str =
        "placeholders are `{host}` (a whole host), `{label}`, `{segment}`, `{uuid}` and `{digits}`";

    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let after = text.strip_prefix(SCHEME).ok_or("is not an `https` URL")?;
        let (host, path) = cut(after);
        // What stands for nothing but itself must be a URL; a placeholder stands in for a letter.
        let sample = ["{host}", "{label}", "{segment}", "{uuid}", "{digits}"];
        let filled = sample.iter().fold(text.to_owned(), |text, placeholder| text.replace(placeholder, "a"));
        uri::parse(&filled)?;
        if filled.contains('?') {
            return Err("has a query");
        }
        let host = if host == WHOLE_HOST { None } else { Some(labels(host)?) };
        let path = path.map(Part::parse).collect::<Result<Vec<_>, _>>()?;
        if path.contains(&Part::Label) {
            return Err("has `{label}` outside its host");
        }
        Ok(Self { text: text.to_owned(), host, path })
    }

    // SECURITY: `t_063_nothing_stands_before_or_after_a_form`.
    pub fn fits(&self, url: &str) -> bool {
        let Some((host, mut path)) = url.strip_prefix(SCHEME).map(cut) else { return false };
        let host_fits = match &self.host {
            None => is_host(host),
            Some(parts) => {
                let mut labels = host.split('.');
                let each = parts.iter().all(|part| labels.next().is_some_and(|label| part.fits(label)));
                each && labels.next().is_none()
            }
        };
        let path_fits = self.path.iter().all(|part| path.next().is_some_and(|segment| part.fits(segment)));
        host_fits && path_fits && path.next().is_none()
    }
}

impl fmt::Display for UrlForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Host, and the segments after it: `/a/` has two, the second empty.
fn cut(after: &str) -> (&str, std::iter::Skip<std::str::Split<'_, char>>) {
    let mut parts = after.split('/');
    (parts.next().unwrap_or_default(), after.split('/').skip(1))
}

fn labels(host: &str) -> Result<Vec<Part>, &'static str> {
    let parts = host.split('.').map(Part::parse).collect::<Result<Vec<_>, _>>()?;
    if parts.contains(&Part::Segment) {
        return Err("has `{segment}` in its host");
    }
    // Whose a name is, is said at its end.
    if parts.len() < 2 || !parts.iter().rev().take(2).all(|part| matches!(part, Part::Text(_))) {
        return Err("does not say whose host it is: its last two labels are written out");
    }
    Ok(parts)
}

impl Part {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "{label}" => Ok(Self::Label),
            "{segment}" => Ok(Self::Segment),
            "{uuid}" => Ok(Self::Uuid),
            "{digits}" => Ok(Self::Digits),
            text if text.contains(['{', '}', '*']) => {
                Err("has something that is no placeholder, or one that is no whole label or segment")
            }
            text => Ok(Self::Text(text.to_owned())),
        }
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => own == text,
            Self::Label => is_label(text),
            Self::Segment => {
                let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                (1..=SEGMENT_MAX_BYTES).contains(&text.len()) && text.bytes().all(letter)
            }
            Self::Uuid => is_uuid(text),
            Self::Digits => (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
        }
    }
}

/// Lower case: a token's `iss` is compared byte by byte, so a host has one spelling.
fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let port_fits = port.is_none_or(|port| {
        port.parse::<u16>().is_ok_and(|number| number != 0 && number != 443 && number.to_string() == port)
    });
    name.len() <= 253 && name.split('.').all(is_label) && port_fits
}

fn is_label(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(letter) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_uuid(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| hex(byte) || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forms, each with URLs that it is made for.
    const FORMS: [(&str, &[&str]); 7] = [
        ("https://gitlab.com", &["https://gitlab.com"]),
        ("https://{host}", &["https://gitlab.example.org", "https://git", "https://git.example.org:8443"]),
        ("https://{host}/_services/token", &["https://ghe.example.org/_services/token"]),
        (
            "https://oidc.eks.{label}.amazonaws.com/id/{segment}",
            &["https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B716D3041E"],
        ),
        ("https://sts.windows.net/{uuid}/", &["https://sts.windows.net/72f988bf-86f1-41af-91ab-2d7cd011db47/"]),
        (
            "https://{uuid}.tokens.sts.global.api.aws",
            &["https://01234567-89ab-cdef-0123-456789abcdef.tokens.sts.global.api.aws"],
        ),
        ("https://accounts.{label}.example.org/{digits}", &["https://accounts.eu.example.org/0123"]),
    ];

    fn form(text: &str) -> UrlForm {
        UrlForm::parse(text).unwrap_or_else(|what| panic!("{text}: {what}"))
    }

    #[test]
    fn a_form_fits_what_it_is_made_for() {
        for (text, urls) in FORMS {
            let form = form(text);
            assert!(urls.iter().all(|url| form.fits(url)), "{text}");
            assert_eq!(form.to_string(), text);
        }
    }

    /// Nothing is an anchor that could be forgotten: whatever stands before or after a URL that
    /// fits, it fits no more.
    #[test]
    fn t_063_nothing_stands_before_or_after_a_form() {
        let more = [
            "a",
            "A",
            "0",
            ".",
            "/",
            "?",
            "#",
            ":",
            "@",
            "%2f",
            "\\",
            " ",
            "\n",
            "\0",
            "|",
            "^",
            "$",
            "-",
            "é",
            "https://",
            "evil.example/",
            "evil.example?x=",
            "u@",
            ".evil.example",
            "/../x",
            "|https://evil.example",
        ];
        for (text, urls) in FORMS {
            let form = form(text);
            for url in urls {
                for more in more {
                    assert!(!form.fits(&format!("{more}{url}")), "{more} before {url} fits {text}");
                    let after = format!("{url}{more}");
                    // A whole host, a segment or a number that grows by a letter is another of its kind.
                    let another = is_another(text, &after, more);
                    assert_eq!(form.fits(&after), another, "{more:?} after {url} and {text}");
                }
            }
        }
    }

    fn is_another(text: &str, after: &str, more: &str) -> bool {
        match text.rsplit('/').next() {
            Some("{segment}") => ["a", "A", "0", "-"].contains(&more),
            Some("{digits}") => more == "0",
            // No port has five digits that begin with 8443.
            Some("{host}") => !after.contains(":8443") && ["a", "0", ".evil.example"].contains(&more),
            _ => false,
        }
    }

    #[test]
    fn t_046_a_placeholder_is_one_label_or_one_segment() {
        let eks = form("https://oidc.eks.{label}.amazonaws.com/id/{segment}");
        for bad in [
            "https://evil.example/?x=https://oidc.eks.eu-west-1.amazonaws.com/id/ABC",
            "https://oidc.eks.eu-west-1.evil.example/.amazonaws.com/id/ABC",
            "https://oidc.eks.evil.example?.amazonaws.com/id/ABC",
            "https://oidc.eks.a.b.amazonaws.com/id/ABC",
            "https://oidc.eks..amazonaws.com/id/ABC",
            "https://oidc.eks.-a.amazonaws.com/id/ABC",
            "https://oidc.eks.EU.amazonaws.com/id/ABC",
            "https://oidc.eks.eu-west-1.amazonaws.com.evil.example/id/ABC",
            "https://oidc.eks.eu-west-1.amazonaws.com/id/ABC/x",
            "https://oidc.eks.eu-west-1.amazonaws.com/id/",
            "https://oidc.eks.eu-west-1.amazonaws.com/id/..",
            "https://oidc.eks.eu-west-1.amazonaws.com/id/a.b",
            "https://oidc.eks.eu-west-1.amazonaws.com/id",
            "https://oidc.eks.eu-west-1.amazonaws.com:443/id/ABC",
            "http://oidc.eks.eu-west-1.amazonaws.com/id/ABC",
            "HTTPS://oidc.eks.eu-west-1.amazonaws.com/id/ABC",
        ] {
            assert!(!eks.fits(bad), "{bad}");
        }
        let own = form("https://{host}/_services/token");
        for bad in ["https:///_services/token", "https://u@h/_services/token", "https://h?/_services/token"] {
            assert!(!own.fits(bad), "{bad}");
        }
        for bad in ["https://h:443", "https://h:0", "https://h:08", "https://h:+8", "https://h:99999", "https://[::1]"]
        {
            assert!(!form("https://{host}").fits(bad), "{bad}");
        }
        let tenant = form("https://sts.windows.net/{uuid}/");
        for bad in ["72F988BF-86F1-41AF-91AB-2D7CD011DB47", "72f988bf86f141af91ab2d7cd011db47", "common", ""] {
            assert!(!tenant.fits(&format!("https://sts.windows.net/{bad}/")), "{bad}");
        }
    }

    #[test]
    fn forms_that_say_too_little_are_refused() {
        for bad in [
            "http://{host}",
            "{host}",
            "https://",
            "https://*.example.org",
            "https://a{label}.example.org",
            "https://{label}",
            "https://{label}.org",
            "https://oidc.{label}.com",
            "https://{host}.example.org",
            "https://{host}:8443",
            "https://{segment}.example.org",
            "https://ci.example.org/{label}",
            "https://ci.example.org/{host}",
            "https://ci.example.org/{any}",
            "https://ci.example.org/x{segment}",
            "https://ci.example.org/{segment",
            "https://ci.example.org?x={segment}",
            "https://ci.example.org/#{segment}",
            "https://u@ci.example.org",
            "https://xn--example-.org",
        ] {
            assert!(UrlForm::parse(bad).is_err(), "{bad}");
        }
    }
}
