//! A resource server that accepts Dayfly's task tokens and goes by the broker's status lists.
//!
//! `cargo run -p dayfly-verifier --features online --example list_server -- ISSUER AUDIENCE CA_FILE
//! [ACTION [ADDRESS]]`
//!
//! It shows the broker no credential: keys and lists are public. `CA_FILE` `-` stands for the machine's
//! roots. One route, `GET /rows`, is protected: it wants a task token for `AUDIENCE` (a target with
//! `verifies = "list"`) that grants `ACTION` (by default `rows:read`). Put TLS in front of it before it is
//! used for real.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]
#![allow(clippy::disallowed_methods, reason = "a server of one's own spawns its own tasks")]

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use dayfly_verifier::{ListSettings, Listed, Refused};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = |name: &str| args.next().ok_or(format!("`{name}` is missing"));
    let mut settings = ListSettings::new(next("ISSUER")?, next("AUDIENCE")?);
    settings.ca_pem = match next("CA_FILE")?.as_str() {
        "-" => None,
        file => Some(std::fs::read(file)?),
    };
    let listed = Arc::new(Listed::new(settings).await?);
    let action = next("ACTION").unwrap_or("rows:read".to_owned());
    let listener = tokio::net::TcpListener::bind(next("ADDRESS").unwrap_or("127.0.0.1:0".to_owned())).await?;
    println!("http://{}", listener.local_addr()?);
    tokio::spawn(keep_fresh(listed.clone()));
    axum::serve(listener, router(listed, &action)).await?;
    Ok(())
}

/// So that no request waits for a list.
async fn keep_fresh(listed: Arc<Listed>) {
    let mut every = tokio::time::interval(Duration::from_secs(3));
    loop {
        every.tick().await;
        listed.refresh().await;
    }
}

#[derive(Clone)]
struct Server {
    listed: Arc<Listed>,
    /// What a token must grant.
    action: Arc<str>,
}

pub fn router(listed: Arc<Listed>, action: &str) -> Router {
    Router::new().route("/rows", get(rows)).with_state(Server { listed, action: action.into() })
}

async fn rows(State(server): State<Server>, headers: HeaderMap) -> Response {
    let Some(token) = bearer(&headers) else {
        // RFC 6750 section 3.1: without a token, no error code.
        return challenge(StatusCode::UNAUTHORIZED, "Bearer");
    };
    match server.listed.check(token).await {
        Ok(caller) if caller.claims().allows(&server.action) => {
            format!("rows for {} in {}\n", caller.claims().sub, caller.claims().txn).into_response()
        }
        Ok(_) => {
            let text = format!(r#"Bearer error="insufficient_scope", scope="{}""#, server.action);
            challenge(StatusCode::FORBIDDEN, &text)
        }
        Err(refused) => {
            if matches!(refused, Refused::List(_) | Refused::Unavailable) {
                eprintln!("{refused}: {:?}", server.listed.last_outage());
            }
            refusal(refused)
        }
    }
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
