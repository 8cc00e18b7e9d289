//! The resource servers of the story: what a team writes when it accepts our tokens, with the
//! verifier crate and nothing else of ours.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use dayfly_verifier::{Listed, Online, Refused, TaskClaims, Verified};

/// How a server knows that a token has not ended.
#[derive(Clone)]
pub enum Check {
    /// It asks the broker.
    Asks(Arc<Online>),
    /// It reads the broker's status list.
    Reads(Arc<Listed>),
}

impl Check {
    async fn check(&self, token: &str) -> Result<Verified<TaskClaims>, Refused> {
        match self {
            Self::Asks(online) => online.check(token).await,
            Self::Reads(listed) => listed.check(token).await,
        }
    }
}

/// One protected route, `GET /`: it wants a token for this server that grants `action`.
pub fn router(check: Check, action: String) -> Router {
    Router::new().route("/", get(serve)).with_state(Arc::new((check, action)))
}

async fn serve(State(server): State<Arc<(Check, String)>>, headers: HeaderMap) -> Response {
    let (check, action) = &*server;
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(token) = bearer else { return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")]).into_response() };
    match check.check(token).await {
        Ok(caller) if caller.claims().allows(action) => caller.claims().sub.clone().into_response(),
        Ok(_) => StatusCode::FORBIDDEN.into_response(),
        Err(refused) => refusal(&refused),
    }
}

fn refusal(refused: &Refused) -> Response {
    let status = StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    match refused.challenge() {
        Some(challenge) => (status, [(WWW_AUTHENTICATE, challenge)]).into_response(),
        None => status.into_response(),
    }
}
