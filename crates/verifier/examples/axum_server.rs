//! A resource server that accepts Dayfly's task tokens.
//!
//! `cargo run -p dayfly-verifier --features online --example axum_server -- ISSUER AUDIENCE CA_FILE
//! CREDENTIAL [ACTION [ADDRESS]]`
//!
//! `CREDENTIAL` is `CLIENT_ID=KEY_FILE`: this server's own key, PKCS#8 in PEM. For a try with
//! `dayfly dev` alone it can be `$DAYFLY_OPERATOR_TOKEN_FILE`, a file with a token for the broker.
//! One route, `GET /rows`, is protected: it wants a task token for `AUDIENCE` that grants `ACTION` (by
//! default `rows:read`). Put TLS in front of it before it is used for real.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use dayfly_verifier::{Credential, Online, OnlineSettings, Refused, TaskClaims, Verified};

/// The witness that handlers take: it cannot be made without a check.
type Caller = Arc<Verified<TaskClaims>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = |name: &str| args.next().ok_or(format!("`{name}` is missing"));
    let online = Online::new(OnlineSettings {
        issuer: next("ISSUER")?,
        audience: next("AUDIENCE")?,
        ca_pem: Some(std::fs::read(next("CA_FILE")?)?),
        credential: credential(&next("CREDENTIAL")?),
        max_stale: Duration::from_secs(5),
    })
    .await?;
    let action = next("ACTION").unwrap_or("rows:read".to_owned());
    let address = next("ADDRESS").unwrap_or("127.0.0.1:0".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, router(Arc::new(online), &action)).await?;
    Ok(())
}

/// How this server proves itself to the broker.
fn credential(text: &str) -> Credential {
    match text.split_once('=') {
        Some((client_id, key_file)) => {
            Credential::OwnKey { client_id: client_id.to_owned(), key_file: key_file.into() }
        }
        None => Credential::BearerFile(text.into()),
    }
}

/// What a token must grant.
#[derive(Clone)]
struct Wanted(Arc<str>);

pub fn router(online: Arc<Online>, action: &str) -> Router {
    let protected = middleware::from_fn_with_state(online, protect);
    Router::new().route("/rows", get(rows)).route_layer(protected).layer(Extension(Wanted(action.into())))
}

/// Lets in whoever has an active task token, and tells the handler who it is.
async fn protect(State(online): State<Arc<Online>>, mut request: Request, next: Next) -> Response {
    let Some(token) = bearer(request.headers()) else {
        // RFC 6750 section 3.1: without a token, no error code.
        return challenge(StatusCode::UNAUTHORIZED, "Bearer");
    };
    match online.check(token).await {
        Ok(caller) => {
            request.extensions_mut().insert::<Caller>(Arc::new(caller));
            next.run(request).await
        }
        Err(refused) => {
            if refused == Refused::Unavailable {
                eprintln!("the broker: {:?}", online.last_outage());
            }
            refusal(refused)
        }
    }
}

async fn rows(Extension(caller): Extension<Caller>, Extension(Wanted(action)): Extension<Wanted>) -> Response {
    let claims = caller.claims();
    if !claims.allows(&action) {
        let text = format!(r#"Bearer error="insufficient_scope", scope="{action}""#);
        return challenge(StatusCode::FORBIDDEN, &text);
    }
    format!("rows for {} in {}\n", claims.sub, claims.txn).into_response()
}

/// The token of exactly one `Authorization: Bearer ...`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (only, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn refusal(refused: Refused) -> Response {
    match refused.challenge() {
        Some(text) => challenge(StatusCode::UNAUTHORIZED, &text),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

fn challenge(status: StatusCode, text: &str) -> Response {
    let value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("Bearer"));
    (status, [(WWW_AUTHENTICATE, value)]).into_response()
}
