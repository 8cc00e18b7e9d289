//! The example servers, held to what they promise.

#[allow(dead_code, reason = "the example has more than the test needs")]
#[path = "../../examples/axum_server.rs"]
mod axum_server;

#[allow(dead_code, reason = "the example has more than the test needs")]
#[path = "../../examples/list_server.rs"]
mod list_server;

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Request, header::WWW_AUTHENTICATE},
};
use dayfly_verifier::TaskClaims;
use serde_json::json;
use tower::ServiceExt;

use crate::{
    broker::{Answer, Broker},
    listed,
};

async fn get(router: &axum::Router, authorization: &[&str]) -> (u16, String) {
    let mut request = Request::get("/rows");
    for value in authorization {
        request = request.header("authorization", *value);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let challenge = response.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), challenge.unwrap_or_default())
}

#[tokio::test]
async fn the_example_server_lets_in_only_active_tokens() {
    let broker = Broker::start().await;
    let router = axum_server::router(Arc::new(broker.online(0).await.unwrap()), "rows:read");
    let mut claims = broker.claims();
    claims.authorization_details[0].actions = vec!["rows:read".to_owned()];
    let sign = |claims: &TaskClaims| format!("Bearer {}", broker.key.signing.sign("at+jwt", claims).unwrap());
    let (reader, migrator) = (sign(&claims), sign(&broker.claims()));

    broker.set(&broker.introspect, broker.active());
    assert_eq!(get(&router, &[&reader]).await, (200, String::new()));
    let (status, challenge) = get(&router, &[&migrator]).await;
    assert_eq!((status, challenge.contains("insufficient_scope")), (403, true));
    for without in [&[][..], &["Basic eA=="], &[&reader, &reader]] {
        assert_eq!(get(&router, without).await, (401, "Bearer".to_owned()));
    }
    broker.set(&broker.introspect, Answer::Json(json!({"active": false})));
    for bad in ["Bearer x", &reader] {
        let (status, challenge) = get(&router, &[bad]).await;
        assert_eq!((status, challenge.starts_with(r#"Bearer error="invalid_token""#)), (401, true), "{challenge}");
    }
    broker.set(&broker.introspect, Answer::Raw(500, String::new()));
    assert_eq!(get(&router, &[&reader]).await, (503, String::new()));
}

#[tokio::test]
async fn the_example_list_server_lets_in_only_tokens_that_have_not_ended() {
    let (broker, verifier) = listed::start(&[3]).await;
    let router = list_server::router(verifier, "db:migrate");
    let bearer = |idx| format!("Bearer {}", listed::token_for(&broker, idx));
    assert_eq!(get(&router, &[&bearer(0)]).await, (200, String::new()));
    let (status, challenge) = get(&router, &[&bearer(3)]).await;
    assert_eq!((status, challenge.contains("not active any more")), (401, true), "{challenge}");
    let (status, challenge) = get(&router, &[&format!("Bearer {}", broker.token())]).await;
    assert_eq!((status, challenge.contains("'status'")), (401, true), "{challenge}");
    assert_eq!(get(&router, &[]).await, (401, "Bearer".to_owned()));
    listed::answer(&broker, Answer::Raw(500, String::new()));
    broker.clock.advance_s(300);
    assert_eq!(get(&router, &[&bearer(0)]).await, (503, String::new()));
}
