//! CRLs, as RFC 5280 section 4.2.1.13 has them fetched: one list, or all of them in one file.

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG},
        request::Parts,
    },
    response::Response,
};
use dayfly_domain::Reason;

use super::{filters, metadata::is_known, refusal::with};
use crate::flow::{CRL_MAX_AGE_S, Flow, PublishedCrl, Refused};

const MAX_AGE: &str = "public, max-age=15";
const _: () = assert!(CRL_MAX_AGE_S == 15);
/// RFC 2585 section 4.2.
const CRL_MEDIA_TYPE: &str = "application/pkix-crl";
/// RFC 8555 section 9.1 has it for chains; lists are of the same kind.
const PEM_MEDIA_TYPE: &str = "application/x-pem-file";

/// `GET /pki/{ca}/{shard}.crl`.
pub(super) async fn list(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    filters::none(parts.uri.query())?;
    let mut path = parts.uri.path().rsplit('/');
    let shard = path.next().and_then(|file| file.strip_suffix(".crl")).and_then(number).ok_or(Reason::NotFound)?;
    let ca = path.next().unwrap_or_default();
    Ok(answer(parts, flow.crl(ca, shard).await?, CRL_MEDIA_TYPE))
}

/// `GET /pki/bundle.crl`.
pub(super) async fn bundle(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    filters::none(parts.uri.query())?;
    Ok(answer(parts, flow.crl_bundle().await?, PEM_MEDIA_TYPE))
}

/// A list has one address.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

fn answer(parts: &Parts, list: PublishedCrl, media_type: &'static str) -> Response {
    let known = is_known(&parts.headers, &list.etag);
    let mut response = Response::new(if known { Body::empty() } else { Bytes::from_owner(list.bytes).into() });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Ok(etag) = HeaderValue::from_str(&list.etag) {
        headers.insert(ETAG, etag);
    }
    with(response, CACHE_CONTROL, MAX_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_address() {
        assert_eq!((number("0"), number("17")), (Some(0), Some(17)));
        for text in ["", "00", "+1", "1.", "-0", "4294967296", "x"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
