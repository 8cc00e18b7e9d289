//! The resource server of the story: what a team writes when it accepts our tokens, with the
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
use dayfly_verifier::{Online, Refused};

/// One protected route, `GET /`: it wants a token for this server that grants `action`.
pub fn router(online: Arc<Online>, action: String) -> Router {
    Router::new().route("/", get(serve)).with_state(Arc::new((online, action)))
}

async fn serve(State(server): State<Arc<(Arc<Online>, String)>>, headers: HeaderMap) -> Response {
    let (online, action) = &*server;
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(token) = bearer else { return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")]).into_response() };
    match online.check(token).await {
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
