//! Section K, as far as it is about one request: sizes, counts, spellings, labels.

use axum::{body::Body, http::Request};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::stand::{JWT, REQUEST, Said, Stand, evidence, exchange, refusal};
use crate::world::{Job, form, get, handle, local, post_json, raw_form, token};

const TOO_LARGE: Said = (413, "invalid_request", "E-TOO-LARGE");

fn raw_json(path: &str, bearer: Option<&str>, body: String) -> Request<Body> {
    let mut request = post_json(path, bearer, &Value::Null);
    *request.body_mut() = Body::from(body);
    request
}

#[tokio::test]
async fn t_159_json_is_bounded_before_anybody_is_asked_who_they_are() {
    let mut stand = Stand::new();
    let task = stand.world.open(&Job::shop(), "deploy").await;
    let path = format!("/v1/tasks/{}/end", task.task);
    let members =
        |count: usize| format!("{{{}}}", (0..count).map(|at| format!("\"k{at}\":1")).collect::<Vec<_>>().join(","));
    let deep = |depth: usize| format!("{{\"reason\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let before = stand.tally().await;
    for (body, status, reason) in [
        (members(100_000), 413, "E-TOO-LARGE"),
        ("x".repeat((64 << 10) + 1), 413, "E-TOO-LARGE"),
        (members(201), 400, "E-REQUEST"),
        (members(200), 422, "E-INVALID"),
        (deep(16), 400, "E-REQUEST"),
        (deep(15), 422, "E-INVALID"),
        (deep(30_000), 400, "E-REQUEST"),
        (format!("{{\"reason\":{}}}", json!(vec!["x"; 201])), 400, "E-REQUEST"),
        ("{\"reason\":\"a\",\"reason\":\"b\"}".into(), 400, "E-REQUEST"),
        ("{\"block\":true,\"bl\\u006fck\":false}".into(), 400, "E-REQUEST"),
        ("{\"reason\":1e999}".into(), 400, "E-REQUEST"),
        ("{\"reason\":\"\\ud800\"}".into(), 400, "E-REQUEST"),
        ("[]".into(), 422, "E-INVALID"),
        ("\u{feff}{}".into(), 400, "E-REQUEST"),
        ("{} {}".into(), 400, "E-REQUEST"),
        ("{\"reason\":null}".into(), 422, "E-INVALID"),
        (format!("{{\"reason\":\"{}\"}}", "x".repeat(1001)), 422, "E-INVALID"),
    ] {
        let shown: String = body.chars().take(60).collect();
        for request in [
            raw_json(&path, None, body.clone()),
            raw_json(&path, Some("garbage"), body.clone()),
            raw_json(&path, Some(&handle(&task)), body.clone()),
            local(raw_json(&path, None, body.clone())),
        ] {
            let answer = stand.world.call(request).await;
            assert_eq!((answer.status, &answer.json()["reason"]), (status, &json!(reason)), "{shown}");
        }
    }
    assert_eq!(stand.tally().await, before);
}

#[tokio::test]
async fn t_160_a_flood_of_parameters_or_one_twice_is_refused() {
    let mut stand = Stand::new();
    let token = stand.evidence(&Job::shop());
    let good = evidence(&token, "deploy");
    let before = stand.tally().await;
    let flood = |count: usize| (0..count).map(|at| format!("p{at}=1")).collect::<Vec<_>>().join("&");
    for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
        refusal(&stand.world.call(raw_form(path, None, &flood(100_000))).await, TOO_LARGE, path);
        refusal(&stand.world.call(raw_form(path, None, &flood(101))).await, REQUEST, path);
        refusal(&stand.world.call(raw_form(path, None, &"&a".repeat(3_000))).await, REQUEST, path);
    }
    let known = [
        "grant_type",
        "subject_token",
        "subject_token_type",
        "resource",
        "audience",
        "scope",
        "requested_token_type",
        "authorization_details",
        "task_control_s256",
        "supersede",
        "actor_token",
        "unknown",
    ];
    let body = |extra: &str| {
        let fields = good.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        raw_form("/oauth2/token", None, &format!("grant_type={}&{fields}{extra}", super::stand::EXCHANGE))
    };
    for name in known {
        for extra in [
            format!("&{name}=a&{name}=a"),
            format!("&{name}=&{name}="),
            format!("&{name}=a&%{:02x}{}=a", name.as_bytes()[0], &name[1..]),
        ] {
            refusal(&stand.world.call(body(&extra)).await, REQUEST, &extra);
        }
    }
    for name in ["token", "token_type_hint"] {
        let twice = format!("token=x&{name}=a&{name}=a");
        refusal(&stand.world.call(raw_form("/oauth2/revoke", None, &twice)).await, REQUEST, name);
        refusal(&stand.world.call(local(raw_form("/oauth2/introspect", None, &twice))).await, REQUEST, name);
    }
    for query in ["?limit=1&limit=1", "?cursor=a&cursor=a", "?x=1", "?limit=1&%6cimit=1"] {
        assert_eq!(stand.world.call(local(get(&format!("/v1/tasks{query}"), None))).await.status, 400, "{query}");
    }
    let many = (0..300).map(|at| format!("p{at}=1")).collect::<Vec<_>>().join("&");
    assert_eq!(stand.world.call(local(get(&format!("/v1/tasks?{many}"), None))).await.status, 400);
    assert_eq!(stand.tally().await, before);
    stand.opens(&token).await;
}

/// Series, without their values.
fn series(stand: &Stand) -> usize {
    stand.metrics().lines().filter(|line| !line.starts_with('#')).count()
}

#[tokio::test]
async fn t_161_labels_do_not_grow_with_what_is_sent() {
    let mut stand = Stand::new();
    let mut after = Vec::new();
    let watch = token(&stand.world.open(&Job::shop(), "watch").await);
    for round in 0..3 {
        for at in round * 60..(round + 1) * 60 {
            let text = format!("label-{at}-x");
            let issuer = stand.forge.claims(json!({ "iss": format!("https://{text}.example.org") }));
            let workload = stand.forge.claims(json!({ "sub": text }));
            let kid = stand.forge.header("ES256", json!({ "kid": text }));
            let mut agent = get(&format!("/v1/{text}"), None);
            agent.headers_mut().insert("user-agent", text.parse().unwrap());
            *agent.method_mut() = axum::http::Method::from_bytes(format!("M{at}").as_bytes()).unwrap();
            let requests = [
                exchange(&evidence(&issuer, "deploy")),
                exchange(&evidence(&workload, &text)),
                exchange(&evidence(&kid, "deploy")),
                exchange(&[("subject_token", &text), ("subject_token_type", &text), ("scope", &text)]),
                get(&format!("/v1/tasks/{text}"), Some(&watch)),
                get(&format!("/v1/tasks?owner={text}"), Some(&watch)),
                form("/oauth2/introspect", Some(&text), &[("token", &text)]),
                agent,
            ];
            for request in requests {
                stand.world.call(request).await;
            }
        }
        assert!(!stand.metrics().contains("label-"));
        after.push(series(&stand));
    }
    assert!(after[0] > 10 && after.iter().all(|count| *count == after[0]), "{after:?}");
}

#[tokio::test]
async fn t_161_ten_thousand_strangers_make_no_series() {
    let stand = Stand::new();
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let mut after = Vec::new();
    for round in 0..5 {
        for at in round * 500..(round + 1) * 500 {
            let text = format!("label-{at}-x");
            let head = part(format!("{{\"alg\":\"ES256\",\"kid\":\"{text}\"}}"));
            let token =
                format!("{head}.{}.{}", part(format!("{{\"iss\":\"https://{text}.example\"}}")), part(text.clone()));
            let mut agent = get("/oauth2/jwks", None);
            agent.headers_mut().insert("user-agent", text.parse().unwrap());
            let mut method = get("/oauth2/token", None);
            *method.method_mut() = axum::http::Method::from_bytes(format!("M{at}").as_bytes()).unwrap();
            for request in [exchange(&evidence(&token, &text)), get(&format!("/{text}/{at}"), None), agent, method] {
                stand.world.call(request).await;
            }
        }
        after.push(series(&stand));
    }
    assert!(!stand.metrics().contains("label-"));
    assert!(after[0] > 10 && after.iter().all(|count| *count == after[0]), "{after:?}");
}

#[tokio::test]
async fn t_162_a_body_of_another_type_is_refused() {
    let mut stand = Stand::new();
    let task = stand.world.open(&Job::shop(), "deploy").await;
    let evidence = stand.evidence(&Job::shop());
    let before = stand.tally().await;
    let long = format!("application/{}", "x".repeat(8 << 10));
    let types = [
        "",
        ";",
        "text/plain",
        "application/jsonx",
        "application/json, application/json",
        "multipart/form-data; boundary=a",
        "application/xml",
        "*/*",
        "application/",
        "json",
        "application/x-www-form-urlencoded2",
        &long,
    ];
    for bad in types {
        let typed = |mut request: Request<Body>| {
            request.headers_mut().insert("content-type", bad.parse().unwrap());
            request
        };
        let end = post_json(&format!("/v1/tasks/{}/end", task.task), Some(&handle(&task)), &json!({}));
        let answer = stand.world.call(typed(end)).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (415, &json!("E-MEDIA-TYPE")), "{bad}");
        let fields = [("subject_token", &*evidence), ("subject_token_type", JWT), ("scope", "deploy")];
        refusal(&stand.world.call(typed(exchange(&fields))).await, REQUEST, bad);
        refusal(&stand.world.call(typed(form("/oauth2/revoke", None, &[("token", "x")]))).await, REQUEST, bad);
    }
    let mut twice = exchange(&[("subject_token", &evidence), ("subject_token_type", JWT), ("scope", "deploy")]);
    twice.headers_mut().append("content-type", "application/json".parse().unwrap());
    refusal(&stand.world.call(twice).await, REQUEST, "two types");
    assert_eq!(stand.tally().await, before);
}
