//! Liveness, readiness and metrics, on a listener of their own.

use std::sync::Arc;

use axum::{Router, http::StatusCode, response::Response};
use serde_json::json;

use super::{
    Door,
    refusal::{answer, with},
    routes::{Listener, Route},
};
use crate::flow::Flow;

/// What the ops listener shows.
#[derive(Clone)]
pub struct Ops {
    pub flow: Flow,
    pub door: Door,
    /// Prometheus text.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

pub fn ops_router(ops: Ops) -> Router {
    let Ops { flow, door, metrics } = ops;
    over(&door, move || flow.readiness(), metrics)
}

type Missing = Result<(), Vec<String>>;

fn over(
    door: &Door,
    readiness: impl Fn() -> Missing + Clone + Send + Sync + 'static,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
) -> Router {
    door.router(Listener::Ops, move |route, context, _| {
        let response = match route {
            Route::Healthz => answer(StatusCode::OK, "text/plain", "ok"),
            Route::Readyz => ready(readiness()),
            Route::Metrics | Route::OpsIndex => answer(StatusCode::OK, "text/plain; version=0.0.4", metrics()),
            Route::OAuthMetadata
            | Route::OpenIdMetadata
            | Route::Jwks
            | Route::Token
            | Route::Introspect
            | Route::Revoke
            | Route::Tasks
            | Route::Task
            | Route::EndTask
            | Route::Leases
            | Route::Lease
            | Route::EndLease
            | Route::Events
            | Route::Event
            | Route::LoadBundle
            | Route::Keys
            | Route::Simulate => context.refuse(dayfly_domain::Reason::NotFound.into()),
        };
        std::future::ready(with(response, axum::http::header::CACHE_CONTROL, "no-store"))
    })
}

/// One JSON object a line says what is missing.
fn ready(missing: Missing) -> Response {
    match missing {
        Ok(()) => answer(StatusCode::OK, "text/plain", "ready"),
        Err(lines) => {
            let text: String = lines.into_iter().map(|line| format!("{}\n", json!({ "missing": line }))).collect();
            answer(StatusCode::SERVICE_UNAVAILABLE, "application/jsonl", text)
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request};
    use tower::ServiceExt;

    use super::*;

    async fn get(path: &str, missing: Missing) -> (u16, String, String) {
        let door = Door::new("https://b.example", "p");
        let router = over(&door, move || missing.clone(), Arc::new(|| "dayfly_up 1\n".to_owned()));
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let (status, kind) =
            (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap().to_owned());
        let bytes = axum::body::to_bytes(response.into_body(), 9999).await.unwrap();
        (status, kind, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn t_164_health_says_nothing_but_ok() {
        let broken = Err(vec!["store".to_owned()]);
        assert_eq!(get("/healthz", broken).await, (200, "text/plain".into(), "ok".into()));
    }

    #[tokio::test]
    async fn readiness_says_what_is_missing_a_line_each() {
        assert_eq!(get("/readyz", Ok(())).await, (200, "text/plain".into(), "ready".into()));
        let missing = Err(vec!["clock \"unsafe\"".to_owned(), "store".to_owned()]);
        let text = "{\"missing\":\"clock \\\"unsafe\\\"\"}\n{\"missing\":\"store\"}\n";
        assert_eq!(get("/readyz", missing).await, (503, "application/jsonl".into(), text.into()));
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        assert_eq!(get("/metrics", Ok(())).await, (200, "text/plain; version=0.0.4".into(), "dayfly_up 1\n".into()));
    }

    #[tokio::test]
    async fn nothing_else_is_served_here() {
        for path in ["/v1/tasks", "/oauth2/token", "/debug/pprof"] {
            assert_eq!(get(path, Ok(())).await.0, 404, "{path}");
        }
    }
}
