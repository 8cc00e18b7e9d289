//! The OAuth endpoints: a form in, a verb, JSON out.

use axum::{
    body::Body,
    extract::Request,
    http::{header::CACHE_CONTROL, request::Parts},
    response::Response,
};
use dayfly_domain::Secret;

use super::{
    Client,
    assertion::{self, Assertion},
    body,
    caller::caller,
    door::Context,
    exchange::{self, malformed},
    form::Fields,
    proof,
    refusal::{ok, with},
    views,
};
use crate::flow::{Flow, Presented, Refused};

pub(super) async fn token(flow: &Flow, context: &Context, request: Request) -> Response {
    let (parts, fields) = match form(request).await {
        Ok(read) => read,
        Err(refused) => return context.refuse(refused),
    };
    let with_details = exchange::asks_with_details(&fields);
    match exchanged(flow, &parts, fields).await {
        Ok(response) => response,
        Err(refused) => context.refuse_ask(refused, with_details),
    }
}

async fn exchanged(flow: &Flow, parts: &Parts, fields: Fields) -> Result<Response, Refused> {
    let exchange = exchange::parse(&parts.headers, parts.uri.path(), fields)?;
    let client = parts.extensions.get::<Client>().map(|Client(chain)| chain);
    let issued = flow.exchange_over(exchange, client).await?;
    Ok(ok(&views::issued(issued)))
}

pub(super) async fn introspect(flow: &Flow, request: Request) -> Result<Response, Refused> {
    let (parts, mut fields) = form(request).await?;
    let assertion = assertion::take(&parts.headers, &mut fields)?;
    let token = presented(fields)?;
    let caller = match assertion {
        Some(Assertion { assertion, client_id }) => flow.verifier(&assertion, client_id.as_deref()).await?,
        None => caller(flow, &parts).await?,
    };
    let introspected = flow.introspect(&caller, &token).await?;
    Ok(ok(&views::introspected(introspected)))
}

pub(super) async fn revoke(flow: &Flow, request: Request) -> Result<Response, Refused> {
    let (parts, fields) = form(request).await?;
    let possession = proof::of(&parts.headers, "POST", parts.uri.path())?;
    let token = presented(fields)?;
    match possession {
        Some(possession) => flow.revoke_with_proof(&token, &possession).await?,
        None => flow.revoke_presented(&token).await?,
    }
    Ok(with(Response::new(Body::empty()), CACHE_CONTROL, "no-store"))
}

async fn form(request: Request) -> Result<(Parts, Fields), Refused> {
    let (parts, bytes) = body::read(request).await?;
    let fields = Fields::of_body(&parts.headers, parts.uri.query(), &bytes)
        .map_err(|error| Refused { hint: Some(error.to_string()), ..error.reason().into() })?;
    Ok((parts, fields))
}

/// The token that a form is about. `token_type_hint` is allowed and of no use: ours are one kind.
fn presented(mut fields: Fields) -> Result<Presented, Refused> {
    match fields.take("token") {
        Some(token) if !token.trim().is_empty() => Ok(Secret::new(token)),
        _ => Err(malformed("`token` is missing or empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_074_a_missing_or_blank_token_is_refused() {
        for text in ["", "token=", "token=+%09", "token_type_hint=access_token", "Token=x"] {
            assert!(presented(Fields::parse(text.as_bytes()).unwrap()).is_err(), "{text}");
        }
        let token = presented(Fields::parse(b"token=a.b.c&token_type_hint=nonsense").unwrap()).unwrap();
        assert_eq!(token.expose(), "a.b.c");
    }
}
