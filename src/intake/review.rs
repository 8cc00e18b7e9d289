//! Asks a platform whether the workload of a token still exists: Kubernetes' TokenReview
//! (`authentication.k8s.io/v1`). A token outlives its pod; the API server knows which pods are gone.
//!
//! In: a token that passed signature and pins, and the issuer's `review` table. Out: nothing, or why
//! not. It fails closed: an API server that does not answer confirms nobody.

use std::{borrow::Cow, path::Path, sync::Arc};

use dayfly_domain::{
    ClaimValue, Secret, Workload,
    bundle::{Issuer, Profile, Review},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::sys::{
    files,
    net::{Document, Fetch, Fetcher, Post},
    offload::offload,
};

/// Why a workload is not confirmed. Nothing that the API server said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotConfirmed {
    #[error("the platform does not know the token's workload any more")]
    Gone,
    /// Authenticated, but for somebody else: the API server itself, for example.
    #[error("the platform does not say that the token is for us")]
    Audience,
    #[error("the platform could not be asked: {0}")]
    Unavailable(Cow<'static, str>),
}

impl NotConfirmed {
    /// Why there was no answer, if there was none.
    pub fn unanswered(&self) -> Option<&str> {
        match self {
            Self::Unavailable(why) => Some(why),
            Self::Gone | Self::Audience => None,
        }
    }
}

/// The token under review, with what was proven of it.
pub(super) struct Reviewed<'a> {
    pub token: &'a str,
    pub payload: &'a Map<String, Value>,
    pub workload: &'a Workload,
}

/// TokenReview, as far as it is answered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenReview {
    api_version: String,
    kind: String,
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    authenticated: bool,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    user: Value,
}

// SECURITY: `t_070_*`. The token goes to the URL of the table and nowhere else.
pub(super) async fn confirm(
    fetcher: &Fetcher,
    review: &Review,
    issuer: &Issuer,
    profile: &Profile,
    reviewed: Reviewed<'_>,
) -> Result<(), NotConfirmed> {
    let status = ask(fetcher, review, &issuer.audience, reviewed.token).await?;
    if !status.authenticated {
        return Err(NotConfirmed::Gone);
    }
    // An answer without audiences is of an API server that did not look at them.
    if !status.audiences.iter().any(|audience| **audience == *issuer.audience) {
        return Err(NotConfirmed::Audience);
    }
    if is_the_same(&status.user, profile, &reviewed) { Ok(()) } else { Err(NotConfirmed::Gone) }
}

async fn ask(fetcher: &Fetcher, review: &Review, audience: &str, token: &str) -> Result<Status, NotConfirmed> {
    let fetch = Fetch {
        url: format!("{}{PATH}", review.url),
        ca_pem: review.ca_pem.clone(),
        allow_private: review.allow_private,
    };
    let spec = json!({ "token": token, "audiences": [audience] });
    let post = Post {
        authorization: authorization(review.token_file.clone()).await?,
        json: Secret::new(json!({ "apiVersion": VERSION, "kind": KIND, "spec": spec }).to_string()),
    };
    let Document { body, .. } =
        fetcher.post(&fetch, &post).await.map_err(|error| NotConfirmed::Unavailable(error.told()))?;
    let strange = NotConfirmed::Unavailable("the answer is no TokenReview".into());
    match serde_json::from_slice::<TokenReview>(&body) {
        Ok(answer) if answer.api_version == VERSION && answer.kind == KIND => Ok(answer.status),
        _ => Err(strange),
    }
}

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const VERSION: &str = "authentication.k8s.io/v1";
const KIND: &str = "TokenReview";

/// Read anew each time: the platform renews it.
async fn authorization(file: Arc<str>) -> Result<Secret<String>, NotConfirmed> {
    let unusable = || NotConfirmed::Unavailable("the `token_file` cannot be read".into());
    let read = offload(move || files::read_capped(Path::new(&*file)).map(Secret::new)).await;
    let bytes = read.map_err(|_| unusable())?.map_err(|_| unusable())?;
    let token = std::str::from_utf8(bytes.expose()).map_err(|_| unusable())?.trim();
    let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { Ok(Secret::new(format!("Bearer {token}"))) } else { Err(unusable()) }
}

/// Whether the platform speaks of the very workload that the token does: its name, and what the profile
/// says of its ids. A name that was taken again has another id.
fn is_the_same(user: &Value, profile: &Profile, reviewed: &Reviewed<'_>) -> bool {
    let named = user.get("username").is_some_and(|name| Some(name) == reviewed.payload.get("sub"));
    let same = |(pointer, claim): (&String, &String)| match reviewed.workload.claims.get(claim) {
        None => true,
        Some(ClaimValue::String(value)) => user.pointer(pointer).and_then(Value::as_str) == Some(value),
        Some(_) => false,
    };
    named && profile.review.iter().all(same)
}
