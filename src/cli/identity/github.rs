//! The runner's way to an identity token: `GET url&audience=<issuer>`, and `.value` of the answer.

use dayfly_domain::Secret;
use hyper::Method;
use serde_json::{Map, Value};

use super::{Evidence, fetch::token_of};
use crate::cli::{
    api::{Answer, Request, Transport, encode},
    door,
    failure::{Exit, Failure},
    session::Vars,
};

/// Asks the runner for a token whose audience is the broker.
pub async fn fetch(url: &str, token: &Secret<String>, audience: &str, vars: &Vars) -> Result<Evidence, Failure> {
    let (base, path) = split(url).ok_or_else(|| {
        Failure::new(Exit::NotAuthenticated, "`ACTIONS_ID_TOKEN_REQUEST_URL` is no `https` URL with a path")
    })?;
    let transport = door::platform(base, vars)?;
    minted(&transport, path, token, audience).await
}

async fn minted(
    transport: &Transport,
    path: &str,
    token: &Secret<String>,
    audience: &str,
) -> Result<Evidence, Failure> {
    let request = Request {
        method: Method::GET,
        path: with_audience(path, audience),
        authorization: Some(Secret::new(format!("bearer {}", token.expose()))),
        body: None,
    };
    let answer = transport.send(&request).await.map_err(|error| {
        Failure::new(Exit::Unavailable, "GitHub's identity tokens cannot be reached").because(error)
    })?;
    read(answer)
}

fn read(answer: Answer) -> Result<Evidence, Failure> {
    if answer.status != 200 {
        let exit = if answer.status >= 500 { Exit::Unavailable } else { Exit::NotAuthenticated };
        let what = format!("GitHub refused this job an identity token with status {}", answer.status);
        return Err(Failure::new(exit, what));
    }
    let body = Secret::new(answer.body);
    let minted: Option<Map<String, Value>> = serde_json::from_slice(body.expose()).ok();
    let Some(Value::String(token)) = minted.and_then(|mut members| members.remove("value")) else {
        return Err(Failure::new(Exit::NotAuthenticated, "GitHub's answer holds no identity token"));
    };
    let token = token_of(token.into_bytes(), "GitHub's identity token")?;
    Ok(Evidence { token, origin: "github" })
}

/// The URL has a query already; only where it has none, ours begins one.
fn with_audience(path: &str, audience: &str) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}audience={}", encode(audience))
}

/// Scheme with host, and the rest.
fn split(url: &str) -> Option<(&str, &str)> {
    let host_at = "https://".len();
    let rest = url.strip_prefix("https://")?;
    let path_at = host_at + rest.find('/')?;
    Some(url.split_at(path_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::api::script::Script;

    #[tokio::test]
    async fn the_audience_is_added_to_the_query_that_is_there() {
        let script = Script::default().ok(r#"{"count":1,"value":"a.b.c"}"#);
        let transport = Transport::Script(script.clone());
        let token = Secret::new("rt".to_owned());
        let evidence = minted(&transport, "/t?api-version=2", &token, "https://b.example/x").await.unwrap();
        assert_eq!((evidence.token.expose().as_str(), evidence.origin), ("a.b.c", "github"));
        assert_eq!(script.seen(), ["GET /t?api-version=2&audience=https%3A%2F%2Fb.example%2Fx bearer rt"]);
    }

    #[test]
    fn the_request_token_never_leaves_in_the_clear() {
        assert_eq!(split("https://h.example:1/a?b=/c"), Some(("https://h.example:1", "/a?b=/c")));
        assert_eq!(split("http://h.example/a"), None);
        assert_eq!(split("https://h.example"), None);
    }

    #[test]
    fn an_answer_without_a_token_is_not_quoted() {
        for (status, body) in [(200, r#"{"value":""}"#), (200, r#"["eyJ"]"#), (403, "eyJ"), (500, "eyJ")] {
            let failure =
                read(Answer { status, retry_after_s: None, dpop_nonce: None, body: body.into() }).unwrap_err();
            assert!(!failure.text("error").contains("eyJ"));
        }
    }
}
