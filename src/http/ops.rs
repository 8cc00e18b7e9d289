//! Liveness, readiness and metrics, on a listener of their own.

use std::sync::Arc;

use axum::{Router, http::StatusCode, response::Response};
use serde_json::{Value, json};

use super::{
    Door,
    issuers::issuer,
    refusal::{answer, with},
    routes::{Listener, Route},
    shapes::Issuer,
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
    let unwell = move |flow: &Flow| flow.issuers_unwell().into_iter().map(issuer).collect();
    over(&door, move || (flow.readiness(), unwell(&flow), flow.warnings()), metrics)
}

/// What is missing; the issuers that are away, and what wants attention soon: these keep nobody from being
/// served.
type Ready = (Result<(), Vec<String>>, Vec<Issuer>, Vec<String>);

fn over(
    door: &Door,
    readiness: impl Fn() -> Ready + Clone + Send + Sync + 'static,
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
            | Route::Entitlements
            | Route::Revoke
            | Route::Tasks
            | Route::Task
            | Route::EndTask
            | Route::Beat
            | Route::Leases
            | Route::Lease
            | Route::EndLease
            | Route::End
            | Route::Blocks
            | Route::LiftBlock
            | Route::Events
            | Route::Event
            | Route::LoadBundle
            | Route::Keys
            | Route::TaintKey
            | Route::Cas
            | Route::RotateCa
            | Route::Issuers
            | Route::RefreshIssuer
            | Route::Simulate
            | Route::StatusList
            | Route::StatusLists
            | Route::CaCertificate
            | Route::Crl
            | Route::CrlBundle
            | Route::OcspPost
            | Route::OcspGet
            | Route::SpiffeBundle => context.refuse(dayfly_domain::Reason::NotFound.into()),
        };
        std::future::ready(with(response, axum::http::header::CACHE_CONTROL, "no-store"))
    })
}

/// One JSON object a line says what is missing, which issuer is away, and what wants attention.
fn ready((missing, unwell, warnings): Ready) -> Response {
    let away = unwell.into_iter().map(|Issuer { name, state, why, .. }| {
        let why = why.map_or(Value::Null, Value::String);
        format!("{}\n", json!({ "issuer": name, "state": state, "why": why }))
    });
    let away = away.chain(warnings.into_iter().map(|line| format!("{}\n", json!({ "warning": line }))));
    match missing {
        Ok(()) => {
            let away: String = away.collect();
            let text = if away.is_empty() { "ready".to_owned() } else { format!("ready\n{away}") };
            answer(StatusCode::OK, "text/plain", text)
        }
        Err(lines) => {
            let missing = lines.into_iter().map(|line| format!("{}\n", json!({ "missing": line })));
            answer(StatusCode::SERVICE_UNAVAILABLE, "application/jsonl", missing.chain(away).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request};
    use tower::ServiceExt;

    use super::*;
    use crate::http::shapes::IssuerState;

    async fn get(path: &str, missing: Result<(), Vec<String>>) -> (u16, String, String) {
        get_with(path, (missing, Vec::new(), Vec::new())).await
    }

    async fn get_with(path: &str, ready: Ready) -> (u16, String, String) {
        let door = Door::new("https://b.example", "p");
        let router = over(&door, move || ready.clone(), Arc::new(|| "dayfly_up 1\n".to_owned()));
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
    async fn an_issuer_that_is_away_is_told_and_keeps_nobody_out() {
        let away = Issuer {
            name: "ci".to_owned(),
            profile: "oidc".to_owned(),
            kind: "workload".to_owned(),
            url: "https://ci.example.org".to_owned(),
            source: "discovery".to_owned(),
            state: IssuerState::Down,
            keys: 0,
            confirmed_at: None,
            tried_at: None,
            failures: 1,
            why: Some("discovery: its host does not answer".to_owned()),
        };
        let line = "{\"issuer\":\"ci\",\"state\":\"down\",\"why\":\"discovery: its host does not answer\"}\n";
        let ready = get_with("/readyz", (Ok(()), vec![away.clone()], Vec::new())).await;
        assert_eq!(ready, (200, "text/plain".into(), format!("ready\n{line}")));
        let (status, _, text) = get_with("/readyz", (Err(vec!["store".to_owned()]), vec![away], Vec::new())).await;
        assert_eq!((status, text), (503, format!("{{\"missing\":\"store\"}}\n{line}")));
    }

    #[tokio::test]
    async fn what_wants_attention_is_told_and_keeps_nobody_out() {
        let soon = vec!["pki: the area CA is over soon".to_owned()];
        let line = "{\"warning\":\"pki: the area CA is over soon\"}\n";
        let ready = get_with("/readyz", (Ok(()), Vec::new(), soon)).await;
        assert_eq!(ready, (200, "text/plain".into(), format!("ready\n{line}")));
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
