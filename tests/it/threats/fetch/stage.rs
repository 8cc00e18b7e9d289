//! A broker whose issuers are found by discovery, and the tokens of their workloads.

use axum::{body::Body, http::Request};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_verifier::crypto::SigningKey;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::platform::Platform;
use crate::{
    served::Authority,
    threats::stand::{evidence, exchange},
    world::{Answer, BUNDLE, ISSUER, World, get, local, post_json},
};

/// An issuer of the bundle. `keys`: what its table says beside `discovery`.
pub fn issuer(name: &str, url: &str, keys: &str) -> String {
    format!(
        r#"
[issuer.{name}]
profile = "oidc"
owner   = "team-shop"
url     = "{url}"
keys    = {{ discovery = true{keys} }}

[[task.deploy.allow]]
id     = "{name}-deploys"
issuer = "{name}"
claims = {{ sub = "shop" }}
"#
    )
}

/// Inside, under the authority of the test.
pub const INSIDE: &str = r#", ca_file = "ca.pem", allow_private = true"#;

pub struct Stage {
    pub world: World,
    count: u32,
}

impl Stage {
    pub fn of(authority: &Authority, issuers: &str) -> Self {
        let bundle = format!("{BUNDLE}{issuers}");
        Self { world: World::with_bytes(&bundle, &[("ca.pem", authority.pem().as_bytes())]), count: 0 }
    }

    /// One issuer, `one`, that is this platform.
    pub fn with(authority: &Authority, platform: &Platform) -> Self {
        Self::of(authority, &issuer("one", &platform.url(), INSIDE))
    }

    /// A token of the shop, each with a `jti` of its own.
    pub fn token(&mut self, url: &str, key: &SigningKey) -> String {
        self.count += 1;
        let now = self.world.now().as_s();
        let claims = json!({
            "iss": url, "sub": "shop", "aud": ISSUER, "iat": now, "exp": now + 600, "jti": format!("t-{}", self.count),
        });
        key.sign("JWT", &claims).unwrap()
    }

    /// Status, and the reason of a refusal.
    pub async fn presents(&self, token: &str) -> (u16, String) {
        told(&self.world.call(exchange(&evidence(token, "deploy"))).await)
    }

    /// All of them together, in their order.
    pub async fn present_at_once(&self, tokens: &[String]) -> Vec<(u16, String)> {
        let mut answers = JoinSet::new();
        for (number, token) in tokens.iter().enumerate() {
            let (door, request) = (self.world.door(), exchange(&evidence(token, "deploy")));
            answers.spawn(async move {
                let (parts, body) = door.oneshot(request).await.unwrap().into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let answer: Value = serde_json::from_slice(&body).unwrap();
                (number, parts.status.as_u16(), answer["reason"].as_str().unwrap_or_default().to_owned())
            });
        }
        let mut answers = answers.join_all().await;
        answers.sort();
        answers.into_iter().map(|(_, status, reason)| (status, reason)).collect()
    }

    /// Signs and presents.
    pub async fn opens(&mut self, url: &str, key: &SigningKey) -> (u16, String) {
        let token = self.token(url, key);
        self.presents(&token).await
    }

    pub async fn refresh(&self, name: &str) -> Answer {
        self.world.call(local(post_json(&format!("/v1/issuers/{name}/refresh"), None, &json!({})))).await
    }

    /// An issuer as operators see it.
    pub async fn issuer(&self, name: &str) -> Value {
        let answer = self.world.call(local(get("/v1/issuers", None))).await;
        let issuers = answer.json()["items"].as_array().unwrap().clone();
        issuers.into_iter().find(|issuer| issuer["name"] == name).expect("the issuer is listed")
    }
}

pub fn told(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["reason"].as_str().unwrap_or_default().to_owned())
}

pub const OPENED: (u16, &str) = (200, "");
pub const DOWN: (u16, &str) = (503, "E-ISSUER-DOWN");
pub const UNKNOWN_KEY: (u16, &str) = (400, "E-SIGNATURE");

#[track_caller]
pub fn is(found: (u16, String), wanted: (u16, &str)) {
    assert_eq!((found.0, found.1.as_str()), wanted);
}

pub fn key() -> SigningKey {
    dayfly_verifier::crypto::init().unwrap();
    SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap()
}

/// The token under another header.
pub fn headed(token: &str, header: &Value) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

pub fn unknown_kid(token: &str, number: usize) -> String {
    headed(token, &json!({ "alg": "ES256", "typ": "JWT", "kid": format!("nobody-{number}") }))
}

/// An exchange with any fields.
pub fn asked(fields: &[(&str, &str)]) -> Request<Body> {
    exchange(fields)
}
