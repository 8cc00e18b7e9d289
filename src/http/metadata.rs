//! The documents that anyone may read and keep for five minutes: metadata (RFC 8414, OpenID
//! discovery) and keys (RFC 7517).

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::Response,
};
use dayfly_verifier::algorithms;
use serde_json::{Value, json};

use super::{details::DAYFLY_TASK, refusal::with};

/// A JSON text with the tag that names this state of it.
#[derive(Debug, Clone)]
pub(super) struct Document {
    body: Bytes,
    /// Quoted, as it goes into the header.
    etag: String,
}

impl Document {
    pub fn new(value: &Value) -> Self {
        let body = value.to_string();
        Self { etag: Self::tag(body.as_bytes()), body: body.into() }
    }

    /// Names a text as it is now.
    pub fn tag(body: &[u8]) -> String {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }

    /// The document, or 304 when the caller has it already.
    pub fn answer(&self, headers: &HeaderMap) -> Response {
        let known = is_known(headers, &self.etag);
        let mut response = Response::new(if known { Body::empty() } else { self.body.clone().into() });
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            response.headers_mut().insert(ETAG, etag);
        }
        with(with(response, CACHE_CONTROL, "public, max-age=300"), CONTENT_TYPE, "application/json")
    }
}

/// Whether the caller has what this tag names (RFC 9110 section 13.1.2).
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let sent = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let same = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag;
    sent.flat_map(|value| value.split(',')).any(|tag| same(tag.trim()))
}

/// What this broker offers. Only what is built, and no empty array. `certifies`: there is an authority, so a client can have a certificate of ours (RFC 8705 section 3.3). It is
/// asked for on the one listener: there are no `mtls_endpoint_aliases`.
pub(super) fn metadata(issuer: &str, certifies: bool) -> Value {
    let mut metadata = json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth2/token"),
        "jwks_uri": format!("{issuer}/oauth2/jwks"),
        "introspection_endpoint": format!("{issuer}/oauth2/introspect"),
        "introspection_endpoint_auth_methods_supported": ["private_key_jwt"],
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms().collect::<Vec<_>>(),
        "revocation_endpoint": format!("{issuer}/oauth2/revoke"),
        "revocation_endpoint_auth_methods_supported": ["none"],
        "grant_types_supported": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "response_types_supported": ["none"],
        "token_endpoint_auth_methods_supported": ["none"],
        "dpop_signing_alg_values_supported": algorithms().collect::<Vec<_>>(),
        "authorization_details_types_supported": [DAYFLY_TASK],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "request_uri_parameter_supported": false,
    });
    if certifies {
        metadata["tls_client_certificate_bound_access_tokens"] = json!(true);
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(tag: Option<&str>) -> Response {
        let headers = tag.map(|tag| (IF_NONE_MATCH, tag.parse().unwrap())).into_iter().collect();
        Document::new(&metadata("https://b.example", true)).answer(&headers)
    }

    #[test]
    fn metadata_has_what_the_standards_require_and_nothing_empty() {
        let metadata = metadata("https://b.example", true);
        let members = metadata.as_object().unwrap();
        for name in ["issuer", "jwks_uri", "response_types_supported", "subject_types_supported"] {
            assert!(members.contains_key(name), "{name}");
        }
        assert!(members.values().all(|value| value.as_array().is_none_or(|items| !items.is_empty())));
        let urls = members.values().filter_map(Value::as_str);
        assert!(urls.into_iter().all(|url| url.starts_with("https://b.example")));
    }

    #[test]
    fn what_is_not_built_is_not_promised() {
        let text = metadata("https://b.example", false).to_string();
        for absent in ["client_secret", "authorization_endpoint", "registration", "tls_client"] {
            assert!(!text.contains(absent), "{absent}");
        }
    }

    #[test]
    fn tokens_are_bound_to_certificates_where_there_is_an_authority() {
        let promised =
            |certifies| metadata("https://b.example", certifies)["tls_client_certificate_bound_access_tokens"].clone();
        assert_eq!((promised(true), promised(false)), (json!(true), Value::Null));
    }

    #[test]
    fn t_001_only_algorithms_with_a_public_key_are_offered_to_verifiers() {
        let metadata = metadata("https://b.example", true);
        assert_eq!(metadata["introspection_endpoint_auth_methods_supported"], json!(["private_key_jwt"]));
        let offered = metadata["introspection_endpoint_auth_signing_alg_values_supported"].as_array().unwrap();
        assert!(offered.contains(&json!("ES256")) && offered.contains(&json!("RS256")));
        let symmetric = |alg: &Value| alg.as_str().is_none_or(|alg| alg.starts_with("HS") || alg == "none");
        assert!(!offered.iter().any(symmetric), "{offered:?}");
    }

    #[test]
    fn a_known_document_is_not_sent_again() {
        let first = answer(None);
        let etag = first.headers()[ETAG].to_str().unwrap().to_owned();
        assert_eq!(
            (first.status(), &first.headers()[CACHE_CONTROL]),
            (StatusCode::OK, &"public, max-age=300".parse().unwrap())
        );
        for tag in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
            let again = answer(Some(&tag));
            assert_eq!(
                (again.status(), again.headers()[ETAG].to_str().unwrap()),
                (StatusCode::NOT_MODIFIED, etag.as_str())
            );
        }
        assert_eq!(answer(Some("\"x\"")).status(), StatusCode::OK);
    }

    #[test]
    fn another_document_has_another_tag() {
        assert_ne!(
            Document::new(&metadata("https://a.example", true)).etag,
            Document::new(&metadata("https://b.example", true)).etag
        );
    }
}
