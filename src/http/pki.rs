//! What is public of the authority: certificates of its CAs, and the SPIFFE trust bundle. Plain http is
//! allowed (RFC 5280 section 8: whoever fetches a certificate to check a chain cannot check one for the
//! fetching): everything here is signed, or is taken on trust over TLS.

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG},
        request::Parts,
    },
    response::Response,
};
use dayfly_domain::Reason;

use super::{
    Front, crl,
    door::Context,
    filters,
    metadata::{Document, is_known},
    ocsp,
    refusal::with,
    routes::{Listener, Route},
};
use crate::flow::{Flow, Refused};

const MAX_AGE: &str = "public, max-age=3600";
/// RFC 5280 section 4.2.1.13 and RFC 2585.
const CERTIFICATE_MEDIA_TYPE: &str = "application/pkix-cert";

/// What the listener of `pki.listen` serves: this and nothing else, without TLS.
pub fn pki_router(front: Front) -> Router {
    let Front { flow, door } = front;
    door.router(Listener::Pki, move |route, context, request| {
        let flow = flow.clone();
        async move { public(&flow, route, &context, request).await }
    })
}

async fn public(flow: &Flow, route: Route, context: &Context, request: Request) -> Response {
    let answer = serve(flow, route, request).await;
    answer.unwrap_or_else(|refused| context.refuse(refused))
}

/// The same on either listener; any other route is none of these.
pub(super) async fn serve(flow: &Flow, route: Route, request: Request) -> Result<Response, Refused> {
    match route {
        Route::CaCertificate => certificate(flow, &request.into_parts().0),
        Route::SpiffeBundle => bundle(flow, &request.into_parts().0),
        Route::Crl => crl::list(flow, &request.into_parts().0).await,
        Route::CrlBundle => crl::bundle(flow, &request.into_parts().0).await,
        Route::OcspPost => ocsp::post(flow, request).await,
        Route::OcspGet => Ok(ocsp::get(flow, &request.into_parts().0).await),
        _ => Err(Reason::NotFound.into()),
    }
}

/// `GET /pki/{ca}.cer`: DER.
fn certificate(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    filters::none(parts.uri.query())?;
    let file = parts.uri.path().rsplit('/').next().unwrap_or_default();
    let id = file.strip_suffix(".cer").ok_or(Reason::NotFound)?;
    let der = flow.ca_certificate(id).ok_or(Reason::NotFound)?;
    // A CA is named by its key, and a certificate of the same key may take the place of another.
    let etag = Document::tag(&der);
    let known = is_known(&parts.headers, &etag);
    let mut response = Response::new(if known { Body::empty() } else { der.into() });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(CERTIFICATE_MEDIA_TYPE));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    Ok(with(response, CACHE_CONTROL, MAX_AGE))
}

/// `GET /spiffe/bundle` (SPIFFE Trust Domain and Bundle, section 4).
fn bundle(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    filters::none(parts.uri.query())?;
    let bundle = flow.spiffe_bundle().ok_or(Reason::NotFound)?;
    Ok(Document::new(&bundle).answer(&parts.headers))
}
