//! The broker as the command line sees it: typed calls in, the shapes of the wire out.

mod error;
mod form;
#[cfg(test)]
pub mod script;
mod transport;

use std::time::Duration;

use dayfly_domain::{EventId, LeaseId, Secret, TaskId};
use hyper::Method;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::http::shapes::{Ended, Event, Key, Lease, List, Task, TokenAnswer};

pub use error::ApiError;
pub use form::encode;
pub use transport::{Answer, Request, Transport, WireError};

/// Pages are asked in this size at most.
const PAGE_MAX: usize = 500;

/// A broker and who we are to it.
#[derive(Debug)]
pub struct Api {
    transport: Transport,
    bearer: Option<Secret<String>>,
}

/// What we need of the metadata document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Metadata {
    pub issuer: String,
}

/// Items up to a limit, and whether there are more.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    pub items: Vec<T>,
    pub more: bool,
}

impl Api {
    pub fn new(transport: Transport, bearer: Option<Secret<String>>) -> Self {
        Self { transport, bearer }
    }

    pub async fn metadata(&self) -> Result<Metadata, ApiError> {
        self.get("/.well-known/openid-configuration").await
    }

    /// `/oauth2/token`. The secrets are in the form; the caller is nobody else.
    pub async fn exchange(&self, pairs: &[(&str, &str)]) -> Result<TokenAnswer, ApiError> {
        let body = Some(("application/x-www-form-urlencoded", Secret::new(form::form(pairs))));
        let path = "/oauth2/token".to_owned();
        self.call(Request { method: Method::POST, path, authorization: None, body }).await
    }

    pub async fn task(&self, id: TaskId) -> Result<Task, ApiError> {
        self.get(&format!("/v1/tasks/{id}")).await
    }

    pub async fn tasks(&self, filter: &[(&str, String)], limit: usize) -> Result<Listed<Task>, ApiError> {
        self.list("/v1/tasks", filter, limit).await
    }

    /// `block`: only operators may say it.
    pub async fn end_task(&self, id: TaskId, reason: Option<&str>, block: Option<bool>) -> Result<Ended, ApiError> {
        let mut body = reason_of(reason);
        if let Some(block) = block {
            body.insert("block".to_owned(), json!(block));
        }
        self.post(&format!("/v1/tasks/{id}/end"), body).await
    }

    pub async fn lease(&self, id: LeaseId) -> Result<Lease, ApiError> {
        self.get(&format!("/v1/leases/{id}")).await
    }

    pub async fn leases(&self, filter: &[(&str, String)], limit: usize) -> Result<Listed<Lease>, ApiError> {
        self.list("/v1/leases", filter, limit).await
    }

    pub async fn end_lease(&self, id: LeaseId, reason: Option<&str>) -> Result<Ended, ApiError> {
        self.post(&format!("/v1/leases/{id}/end"), reason_of(reason)).await
    }

    pub async fn event(&self, id: EventId) -> Result<Event, ApiError> {
        self.get(&format!("/v1/ledger/{id}")).await
    }

    pub async fn events(&self, filter: &[(&str, String)], limit: usize) -> Result<Listed<Event>, ApiError> {
        self.list("/v1/ledger", filter, limit).await
    }

    /// The keys that sign; there are never more than a page of them.
    pub async fn keys(&self) -> Result<Vec<Key>, ApiError> {
        self.get("/v1/keys").await.map(|list: List<Key>| list.items)
    }

    /// Waits before another try.
    pub async fn pause(&self, wait: Duration) {
        self.transport.pause(wait).await;
    }

    /// Follows the cursors until there are `limit` items or no more pages.
    async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        filter: &[(&str, String)],
        limit: usize,
    ) -> Result<Listed<T>, ApiError> {
        let mut items: Vec<T> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = (limit - items.len()).min(PAGE_MAX).to_string();
            let mut pairs: Vec<(&str, &str)> = filter.iter().map(|(name, value)| (*name, value.as_str())).collect();
            pairs.push(("limit", &page));
            pairs.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let found: List<T> = self.get(&format!("{path}?{}", form::form(&pairs))).await?;
            let empty = found.items.is_empty();
            items.extend(found.items);
            cursor = found.next_cursor;
            if cursor.is_none() || empty || items.len() >= limit {
                let more = cursor.is_some() || items.len() > limit;
                items.truncate(limit);
                return Ok(Listed { items, more });
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let (path, authorization) = (path.to_owned(), self.authorization());
        self.call(Request { method: Method::GET, path, authorization, body: None }).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: Map<String, Value>) -> Result<T, ApiError> {
        let (path, authorization) = (path.to_owned(), self.authorization());
        let body = Some(("application/json", Secret::new(Value::Object(body).to_string())));
        self.call(Request { method: Method::POST, path, authorization, body }).await
    }

    async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, ApiError> {
        let answer = self.transport.send(&request).await?;
        if !(200..300).contains(&answer.status) {
            return Err(ApiError::from_answer(&answer));
        }
        // The error of the parser may quote what it read: only its place is told.
        serde_json::from_slice(&answer.body).map_err(|error| ApiError::Strange {
            status: answer.status,
            why: format!("its JSON is not what was expected, at line {} column {}", error.line(), error.column()),
        })
    }

    fn authorization(&self) -> Option<Secret<String>> {
        self.bearer.as_ref().map(|bearer| Secret::new(format!("Bearer {}", bearer.expose())))
    }
}

fn reason_of(reason: Option<&str>) -> Map<String, Value> {
    reason.map(|reason| ("reason".to_owned(), json!(reason))).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::{script::Script, *};

    fn page(ids: std::ops::Range<u64>, cursor: Option<&str>) -> String {
        let items: Vec<_> = ids.map(crate::cli::samples::task).collect();
        json!({ "items": items, "next_cursor": cursor }).to_string()
    }

    #[tokio::test]
    async fn a_list_follows_cursors_up_to_the_limit() {
        let script = Script::default().ok(&page(0..500, Some("a&b"))).ok(&page(500..620, Some("more")));
        let api = script.api(None);
        let listed = api.tasks(&[("owner", "team shop".to_owned())], 600).await.unwrap();
        assert_eq!((listed.items.len(), listed.more), (600, true));
        let seen = script.seen();
        assert_eq!(seen[0], "GET /v1/tasks?owner=team%20shop&limit=500");
        assert_eq!(seen[1], "GET /v1/tasks?owner=team%20shop&limit=100&cursor=a%26b");
    }

    #[tokio::test]
    async fn an_empty_page_with_a_cursor_does_not_loop() {
        let script = Script::default().ok(&page(0..0, Some("again")));
        assert_eq!(script.api(None).tasks(&[], 50).await.unwrap(), Listed { items: vec![], more: true });
    }

    #[tokio::test]
    async fn an_answer_we_cannot_read_is_not_quoted() {
        let script = Script::default().ok(r#"{"access_token":"eyJsecret","task_id":"tsk_nonsense"}"#);
        let error = script.api(None).exchange(&[]).await.err().unwrap();
        assert!(error.is_lost());
        assert!(!format!("{error:?} {}", error.failure("x").text("error")).contains("eyJ"));
    }

    #[tokio::test]
    async fn the_bearer_goes_with_v1_and_not_with_an_exchange() {
        let script = Script::default().ok(&page(0..0, None)).refuse(400, "E-EXPIRED");
        let api = script.api(Some("dtc_x"));
        api.tasks(&[], 1).await.unwrap();
        let _ = api.exchange(&[("subject_token", "s")]).await;
        assert_eq!(script.seen()[0], "GET /v1/tasks?limit=1 Bearer dtc_x");
        assert_eq!(script.seen()[1], "POST /oauth2/token subject_token=s");
    }
}
