//! How a verifier shows who it is: `client_assertion` in the form (RFC 7521 section 4.2, RFC 7523
//! section 2.2). Whether it is worth anything is `flow`'s to say.

use axum::http::{HeaderMap, header::AUTHORIZATION};
use dayfly_domain::{Reason, Secret};

use super::{exchange::malformed, form::Fields};
use crate::flow::{Presented, Refused};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const KIND: &str = "client_assertion_type";
const ASSERTION: &str = "client_assertion";
const CLIENT_ID: &str = "client_id";

/// What the form says of the caller.
#[derive(Debug)]
pub(super) struct Assertion {
    pub assertion: Presented,
    pub client_id: Option<String>,
}

/// `None` when the form holds no assertion; then the headers say who is calling, and a
/// `client_id` alone says nothing.
// SECURITY: two ways at once are refused, so no two readers can disagree on who is calling;
// two_ways_to_authenticate_are_refused
pub(super) fn take(headers: &HeaderMap, fields: &mut Fields) -> Result<Option<Assertion>, Refused> {
    if let Some(name) = [KIND, ASSERTION, CLIENT_ID].into_iter().find(|name| fields.is_blank(name)) {
        return Err(malformed(&format!("`{name}` is empty")));
    }
    let client_id = fields.take(CLIENT_ID);
    let assertion = match (fields.take(KIND), fields.take(ASSERTION)) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(malformed("`client_assertion` is missing")),
        (None, Some(_)) => return Err(malformed("`client_assertion_type` is missing")),
        (Some(_), Some(_)) if headers.contains_key(AUTHORIZATION) || headers.contains_key("dpop") => {
            return Err(malformed("authenticate in one way: an assertion, or a token in a header"));
        }
        (Some(kind), Some(_)) if kind != JWT_BEARER => return Err(Reason::Client.into()),
        (Some(_), Some(assertion)) => assertion,
    };
    Ok(Some(Assertion { assertion: Secret::new(assertion), client_id }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str =
        "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion=a.b.c";

    fn read(headers: &[(&'static str, &str)], text: &str) -> Result<Option<Assertion>, Reason> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let mut fields = Fields::parse(text.as_bytes()).unwrap();
        take(&headers, &mut fields).map_err(|refused| refused.reason)
    }

    #[test]
    fn a_whole_assertion_is_taken() {
        let taken = read(&[], WHOLE).unwrap().unwrap();
        assert_eq!((taken.assertion.expose().as_str(), taken.client_id), ("a.b.c", None));
        let named = read(&[], &format!("{WHOLE}&client_id=db-0")).unwrap().unwrap();
        assert_eq!(named.client_id.as_deref(), Some("db-0"));
    }

    #[test]
    fn without_an_assertion_the_headers_say_it() {
        for text in ["", "token=x", "client_id=db-0"] {
            assert!(read(&[("authorization", "Bearer x")], text).unwrap().is_none(), "{text}");
        }
    }

    #[test]
    fn t_074_half_of_an_assertion_is_refused() {
        for text in [
            "client_assertion=a.b.c",
            "client_assertion=",
            "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion_type=&client_assertion=a.b.c",
            "client_id=",
            "client_id=+",
        ] {
            assert_eq!(read(&[], text).unwrap_err(), Reason::Request, "{text}");
        }
        assert_eq!(read(&[], &format!("{WHOLE}&client_id=")).unwrap_err(), Reason::Request);
    }

    #[test]
    fn an_assertion_of_another_type_is_no_client() {
        let saml = WHOLE.replace("jwt-bearer", "saml2-bearer");
        assert_eq!(read(&[], &saml).unwrap_err(), Reason::Client);
        assert_eq!(read(&[], &WHOLE.replace("urn", "URN")).unwrap_err(), Reason::Client);
    }

    #[test]
    fn two_ways_to_authenticate_are_refused() {
        for header in [("authorization", "Bearer x"), ("authorization", ""), ("dpop", "a.b.c")] {
            assert_eq!(read(&[header], WHOLE).unwrap_err(), Reason::Request, "{header:?}");
        }
    }
}
