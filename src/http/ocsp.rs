//! OCSP over HTTP (RFC 6960 appendix A, RFC 5019 section 6). Every answer is 200 and says in itself what
//! became of the request.

use axum::{
    extract::Request,
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, LAST_MODIFIED},
        request::Parts,
    },
    response::Response,
};
use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use dayfly_domain::{Reason, UnixMs};
use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};

use super::{
    body,
    metadata::{Document, is_known},
    refusal::{answer, with},
};
use crate::flow::{Flow, NotAnswered, OCSP_MAX_AGE_S, OCSP_MAX_BYTES, OcspAnswer, Refused};

const REQUEST_MEDIA_TYPE: &str = "application/ocsp-request";
const MEDIA_TYPE: &str = "application/ocsp-response";
const MAX_AGE: &str = "max-age=15, public, no-transform, must-revalidate";
const _: () = assert!(OCSP_MAX_AGE_S == 15);
const PATH: &str = "/pki/ocsp/";
/// RFC 9110 section 5.6.7.
const HTTP_DATE: &[FormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// Clients pad, or do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `POST /pki/ocsp`.
pub(super) async fn post(flow: &Flow, request: Request) -> Result<Response, Refused> {
    let (parts, bytes) = body::read(request).await?;
    let typed = parts.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes() == REQUEST_MEDIA_TYPE.as_bytes());
    if !typed {
        return Err(Refused { hint: Some(format!("send {REQUEST_MEDIA_TYPE}")), ..Reason::MediaType.into() });
    }
    Ok(told(&parts, flow.ocsp(&bytes).await))
}

/// `GET /pki/ocsp/{base64}`. What is in the path may be percent-encoded: a `/`, a `+` and a `=` often are.
pub(super) async fn get(flow: &Flow, parts: &Parts) -> Response {
    let text = parts.uri.path().strip_prefix(PATH).unwrap_or_default();
    let fits = parts.uri.query().is_none() && text.len() <= OCSP_MAX_BYTES * 4;
    let der = fits.then(|| percent_decoded(text)).flatten().and_then(|text| BASE64.decode(text).ok());
    let answer = match der {
        Some(der) => flow.ocsp(&der).await,
        None => Err(NotAnswered::Malformed),
    };
    told(parts, answer)
}

fn told(parts: &Parts, answered: Result<OcspAnswer, NotAnswered>) -> Response {
    match answered {
        Ok(signed) if signed.is_single => not_kept(signed.der),
        Ok(signed) => kept(parts, signed),
        // What is not signed is nobody's to keep.
        Err(refused) => not_kept(refused.der()),
    }
}

fn not_kept(der: Vec<u8>) -> Response {
    with(answer(StatusCode::OK, MEDIA_TYPE, der), CACHE_CONTROL, "no-store")
}

/// RFC 5019 section 6.2.
fn kept(parts: &Parts, signed: OcspAnswer) -> Response {
    let OcspAnswer { der, this_update, next_update, is_single: _ } = signed;
    let etag = Document::tag(&der);
    let known = is_known(&parts.headers, &etag);
    let mut response = answer(StatusCode::OK, MEDIA_TYPE, if known { Vec::new() } else { der });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    let dated = [(LAST_MODIFIED, http_date(this_update)), (EXPIRES, http_date(next_update)), (ETAG, Some(etag))];
    for (name, text) in dated {
        if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(name, value);
        }
    }
    with(response, CACHE_CONTROL, MAX_AGE)
}

fn http_date(at: UnixMs) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(at.as_s()).ok()?.format(HTTP_DATE).ok()
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(bytes.next())? << 4 | digit(bytes.next())?) as u8
            }
            byte => byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once() {
        assert_eq!(percent_decoded("a%2Fb%3d+c").as_deref(), Some(&b"a/b=+c"[..]));
        assert_eq!(percent_decoded("a%252F").as_deref(), Some(&b"a%2F"[..]));
        assert!(percent_decoded("%").is_none() && percent_decoded("%4").is_none() && percent_decoded("%zz").is_none());
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(http_date(UnixMs::from_s(1_800_000_000)).as_deref(), Some("Fri, 15 Jan 2027 08:00:00 GMT"));
    }
}
