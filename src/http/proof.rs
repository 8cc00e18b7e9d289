//! The `DPoP` header of a request (RFC 9449), and what a client needs to try again with a better one.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, header::WWW_AUTHENTICATE},
    response::Response,
};
use dayfly_domain::{Reason, Secret};
use dayfly_verifier::dpop::challenge;

use super::routes::{ROUTES, Route, Who};
use crate::flow::{Flow, Possession, Refused};

const DPOP: HeaderName = HeaderName::from_static("dpop");
const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// The one proof of a request, or none.
// SECURITY: a proof that is not checked must not be taken for none: the caller would hold a bearer
// token and believe it bound; a_dpop_proof_is_refused_not_ignored, two_proofs_are_refused
pub(super) fn of(headers: &HeaderMap, method: &'static str, path: &str) -> Result<Option<Possession>, Refused> {
    let mut sent = headers.get_all(DPOP).iter();
    match (sent.next(), sent.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| refused("the proof is not ASCII"))?;
            Ok(Some(Possession { proof: Secret::new(text.to_owned()), method, path: path.to_owned() }))
        }
        (Some(_), Some(_)) => Err(refused("more than one `DPoP` header")),
    }
}

pub(super) fn refused(hint: &str) -> Refused {
    Refused { hint: Some(hint.to_owned()), ..Reason::Dpop.into() }
}

/// Says to whom was refused for want of a proof how to come again: the nonce (section 8), and where a
/// caller is asked for, the scheme and its algorithms (sections 7.1 and 9).
pub(super) fn invite(mut response: Response, route: Route, flow: &Flow) -> Response {
    let reason = response.extensions().get::<Reason>().copied();
    let error = match reason {
        Some(reason @ (Reason::Dpop | Reason::DpopNonce)) => Some((reason.row().oauth, reason.row().help)),
        Some(Reason::Client) => None,
        _ => return response,
    };
    let headers = response.headers_mut();
    if reason == Some(Reason::DpopNonce)
        && let Ok(nonce) = HeaderValue::from_str(&flow.proof_nonce())
    {
        headers.insert(NONCE, nonce);
    }
    if asks_who(route)
        && let Ok(value) = HeaderValue::from_str(&challenge(error))
    {
        headers.append(WWW_AUTHENTICATE, value);
    }
    response
}

fn asks_who(route: Route) -> bool {
    let row = ROUTES.iter().find(|row| row.route == route);
    row.is_some_and(|row| !matches!(row.who, Who::Public | Who::Evidence | Who::Possession | Who::Ops))
}
