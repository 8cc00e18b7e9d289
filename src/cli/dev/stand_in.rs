//! The stand-in: what a platform's issuer does, on loopback. Its documents are served over TLS, so
//! that the broker finds its keys as it would find the platform's.

use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use dayfly_verifier::crypto::SigningKey;
use serde_json::{Value, json};

/// Discovery and keys of the played issuer at `url`, and of the operator's issuer below it.
pub fn router(url: &str, stand_in: &SigningKey, operator: &SigningKey) -> Router {
    let operator_url = format!("{url}/operator");
    let documents = [
        ("/.well-known/openid-configuration", discovery(url)),
        ("/jwks", keys(stand_in)),
        ("/operator/.well-known/openid-configuration", discovery(&operator_url)),
        ("/operator/jwks", keys(operator)),
    ];
    documents.into_iter().fold(Router::new(), |router, (path, document)| {
        let text = document.to_string();
        router.route(path, get(async move || ([(CONTENT_TYPE, "application/json")], text).into_response()))
    })
}

/// OpenID Connect Discovery 1.0, section 3, as far as it applies.
fn discovery(url: &str) -> Value {
    json!({
        "issuer": url,
        "jwks_uri": format!("{url}/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn keys(key: &SigningKey) -> Value {
    json!({ "keys": [key.jwk()] })
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn document(router: &Router, path: &str) -> Value {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let body = router.clone().oneshot(request).await.unwrap().into_body();
        serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn two_issuers_with_a_key_each_and_no_secret() {
        let key = || SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
        let (stand_in, operator) = (key(), key());
        let router = router("https://127.0.0.1:2", &stand_in, &operator);
        let own = document(&router, "/.well-known/openid-configuration").await;
        assert_eq!(own["jwks_uri"], "https://127.0.0.1:2/jwks");
        let other = document(&router, "/operator/.well-known/openid-configuration").await;
        assert_eq!(other["issuer"], "https://127.0.0.1:2/operator");
        assert_eq!(document(&router, "/jwks").await["keys"][0]["kid"], stand_in.kid());
        let keys = document(&router, "/operator/jwks").await;
        assert_eq!(keys["keys"][0]["kid"], operator.kid());
        assert!(keys["keys"][0].get("d").is_none());
    }
}
