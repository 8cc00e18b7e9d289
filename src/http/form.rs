//! Forms and queries, strictly: `application/x-www-form-urlencoded` in, named texts out. What a
//! lenient reader would guess at (bad escapes, a name twice) is an error here.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header::CONTENT_TYPE};
use dayfly_domain::Reason;

/// Parameters of a form or a query.
pub const FIELDS_MAX: usize = 100;

/// Decoded fields by name, each there once.
#[derive(Default)]
pub struct Fields(BTreeMap<String, String>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("the body is not application/x-www-form-urlencoded")]
    MediaType,
    #[error("a name or value is not percent-encoded UTF-8")]
    Encoding,
    #[error("a parameter is repeated")]
    Repeated,
    #[error("there are more than 100 parameters")]
    TooMany,
    #[error("parameters belong in the body, not in the query")]
    Query,
}

impl FormError {
    pub fn reason(self) -> Reason {
        match self {
            Self::MediaType | Self::Encoding | Self::Repeated | Self::TooMany | Self::Query => Reason::Request,
        }
    }
}

impl Fields {
    // SECURITY: a name twice is refused before anyone reads a value, so no two readers can
    // disagree on which one counts; t_074_a_repeated_parameter_is_refused
    pub fn parse(text: &[u8]) -> Result<Self, FormError> {
        let mut fields = BTreeMap::new();
        for pair in text.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
            let (name, value) = split_pair(pair);
            if fields.len() >= FIELDS_MAX {
                return Err(FormError::TooMany);
            }
            if fields.insert(decode(name)?, decode(value)?).is_some() {
                return Err(FormError::Repeated);
            }
        }
        Ok(Self(fields))
    }

    /// A form body whose endpoint takes no query.
    pub fn of_body(headers: &HeaderMap, query: Option<&str>, body: &[u8]) -> Result<Self, FormError> {
        if query.is_some_and(|query| !query.is_empty()) {
            return Err(FormError::Query);
        }
        if media_type(headers).as_deref() != Some("application/x-www-form-urlencoded") {
            return Err(FormError::MediaType);
        }
        Self::parse(body)
    }

    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// There, but with nothing in it.
    pub fn is_blank(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.trim().is_empty())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The media type in lower case, without its parameters; `None` when absent, repeated or garbled.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let essence = value.split(';').next().unwrap_or_default().trim();
    (!essence.is_empty()).then(|| essence.to_ascii_lowercase())
}

fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|&byte| byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[]),
    }
}

fn decode(text: &[u8]) -> Result<String, FormError> {
    // Most of a form is one token, in which nothing is escaped.
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return String::from_utf8(text.to_vec()).map_err(|_| FormError::Encoding);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next())? << 4 | hex(bytes.next())?,
            plain => plain,
        });
    }
    String::from_utf8(out).map_err(|_| FormError::Encoding)
}

fn hex(digit: Option<u8>) -> Result<u8, FormError> {
    let value = digit.and_then(|digit| char::from(digit).to_digit(16)).ok_or(FormError::Encoding)?;
    u8::try_from(value).map_err(|_| FormError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<FormError> {
        Fields::parse(text.as_bytes()).err()
    }

    fn typed(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())])
    }

    #[test]
    fn a_form_is_decoded() {
        let mut fields = Fields::parse(b"a=1+2&b=%C3%A9%26&c&&d==").unwrap();
        let mut take = |name: &str| fields.take(name).unwrap();
        assert_eq!([take("a"), take("b"), take("c"), take("d")], ["1 2", "é&", "", "="]);
        assert!(fields.is_empty());
    }

    #[test]
    fn t_074_a_repeated_parameter_is_refused() {
        for text in ["a=1&a=2", "a=1&a=1", "a=1&%61=2", "a&a", "x=1&x"] {
            assert_eq!(refused(text), Some(FormError::Repeated), "{text}");
        }
    }

    #[test]
    fn t_160_a_flood_of_parameters_is_refused() {
        let many: Vec<_> = (0..=FIELDS_MAX).map(|n| format!("p{n}=1")).collect();
        assert_eq!(refused(&many.join("&")), Some(FormError::TooMany));
        assert_eq!(refused(&many[..FIELDS_MAX].join("&")), None);
    }

    #[test]
    fn bad_escapes_are_not_guessed_at() {
        for text in ["a=%", "a=%4", "a=%zz", "a=%+1", "a=%ff", "a=%C3%28", "%=1", "a=%C0%80"] {
            assert_eq!(refused(text), Some(FormError::Encoding), "{text}");
        }
        assert_eq!(Fields::parse(b"a=\xff").err(), Some(FormError::Encoding));
    }

    #[test]
    fn t_074_a_parameter_in_the_query_is_refused() {
        let headers = typed("application/x-www-form-urlencoded");
        let parse = |query| Fields::of_body(&headers, query, b"a=1").err();
        assert_eq!(parse(Some("subject_token=x")), Some(FormError::Query));
        assert_eq!(parse(Some("token")), Some(FormError::Query));
        assert_eq!((parse(Some("")), parse(None)), (None, None));
    }

    #[test]
    fn t_162_a_body_of_another_type_is_refused() {
        for bad in
            ["application/json", "text/plain", "application/x-www-form-urlencodedx", "", ";", "multipart/form-data"]
        {
            assert_eq!(Fields::of_body(&typed(bad), None, b"a=1").err(), Some(FormError::MediaType), "{bad}");
        }
        assert_eq!(Fields::of_body(&HeaderMap::new(), None, b"a=1").err(), Some(FormError::MediaType));
        let good = typed("Application/X-WWW-Form-URLencoded; charset=UTF-8");
        assert_eq!(Fields::of_body(&good, None, b"a=1").err(), None);
        let mut twice = typed("application/x-www-form-urlencoded");
        twice.append(CONTENT_TYPE, "application/json".parse().unwrap());
        assert_eq!(Fields::of_body(&twice, None, b"a=1").err(), Some(FormError::MediaType));
    }
}
