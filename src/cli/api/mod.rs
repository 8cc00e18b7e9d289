//! The broker as the command line sees it: typed calls in, the shapes of the wire out.

mod error;
mod form;
#[cfg(test)]
pub mod script;
mod transport;

use std::time::Duration;

use dayfly_domain::{BlockId, EventId, HANDLE_PREFIX, LeaseId, Name, Secret, TaskId};
use hyper::Method;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::{
    failure::Failure,
    progress::{Count, Progress},
    proof::{Prover, may_be_bound},
};
use crate::http::shapes::{
    Beat, Block, Ca, CaTurned, EndRequest, Ended, EndedBySelector, Entitlement, Event, Explanation, Issuer, Key,
    KeyTaint, Lease, List, Task, TokenAnswer,
};

pub use error::ApiError;
use error::Shown;
pub use form::encode;
pub use transport::{Answer, Request, Transport, WireError};

const TOKEN_PATH: &str = "/oauth2/token";
const METADATA_PATH: &str = "/.well-known/openid-configuration";

/// What is said of a request, and of several.
const ASKING: &str = "waiting for the broker";
const READING: &str = "reading from the broker";

/// Pages are asked in this size at most.
const PAGE_MAX: usize = 500;

/// A broker and who we are to it.
#[derive(Debug)]
pub struct Api {
    transport: Transport,
    bearer: Option<Secret<String>>,
    prover: Option<Prover>,
    /// Under which the broker knows its own URLs: what is given, or what it says on its socket.
    issuer: OnceCell<String>,
    /// Where it is shown that an answer takes long; nowhere unless it is told.
    progress: Progress,
}

/// What we need of the metadata document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Metadata {
    pub issuer: String,
}

/// `GET /status`; what else it says of a list is not needed here.
#[derive(Debug, Deserialize)]
struct StatusLists {
    lists: Vec<StatusListUri>,
}

#[derive(Debug, Deserialize)]
struct StatusListUri {
    uri: String,
}

/// Items up to a limit, and whether there are more.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    pub items: Vec<T>,
    pub more: bool,
}

impl Api {
    pub fn new(transport: Transport, bearer: Option<Secret<String>>) -> Self {
        Self { transport, bearer, prover: None, issuer: OnceCell::new(), progress: Progress::default() }
    }

    /// Says so when an answer takes longer than a second.
    pub fn telling(self, progress: Progress) -> Self {
        Self { progress, ..self }
    }

    /// For what takes many requests.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// With proofs by this key for what is bound. `issuer`: the broker's URL, unless it may say itself.
    pub fn proving(self, prover: Option<Prover>, issuer: Option<String>) -> Self {
        Self { prover, issuer: OnceCell::new_with(issuer), ..self }
    }

    /// Waits so long for each answer, and no longer.
    pub fn within(self, total: Duration) -> Self {
        Self { transport: self.transport.within(total), ..self }
    }

    pub async fn metadata(&self) -> Result<Metadata, ApiError> {
        self.get(METADATA_PATH).await
    }

    /// `/oauth2/token`. The secrets are in the form; the caller is nobody else.
    pub async fn exchange(&self, pairs: &[(&str, &str)]) -> Result<TokenAnswer, ApiError> {
        let body = Some(("application/x-www-form-urlencoded", Secret::new(form::form(pairs))));
        let path = TOKEN_PATH.to_owned();
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

    /// Holds the task of the handle that is the caller: from the first beat on it ends when they stop.
    pub async fn beat(&self, id: TaskId) -> Result<Beat, ApiError> {
        self.post(&format!("/v1/tasks/{id}/beat"), Map::new()).await
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

    /// Everything that a filter means. With `dry_run`: what would end.
    pub async fn end(&self, ask: &EndRequest) -> Result<EndedBySelector, ApiError> {
        let Ok(Value::Object(body)) = serde_json::to_value(ask) else { return Err(unwritten()) };
        self.post("/v1/end", body).await
    }

    /// What may not be issued, newest first.
    pub async fn blocks(&self, limit: usize) -> Result<Listed<Block>, ApiError> {
        self.list("/v1/blocks", &[], limit).await
    }

    pub async fn lift_block(&self, id: BlockId) -> Result<(), ApiError> {
        let (path, authorization) = (format!("/v1/blocks/{id}"), self.authorization());
        self.answered(Request { method: Method::DELETE, path, authorization, body: None }).await.map(drop)
    }

    pub async fn event(&self, id: EventId) -> Result<Event, ApiError> {
        self.get(&format!("/v1/ledger/{id}")).await
    }

    pub async fn events(&self, filter: &[(&str, String)], limit: usize) -> Result<Listed<Event>, ApiError> {
        self.list("/v1/ledger", filter, limit).await
    }

    /// One page, newest first, and where the next one begins. A page may be empty and not the last.
    pub async fn event_page(
        &self,
        filter: &[(&str, String)],
        cursor: Option<&str>,
    ) -> Result<(Vec<Event>, Option<String>), ApiError> {
        let limit = PAGE_MAX.to_string();
        let mut pairs: Vec<(&str, &str)> = filter.iter().map(|(name, value)| (*name, value.as_str())).collect();
        pairs.push(("limit", &limit));
        pairs.extend(cursor.map(|cursor| ("cursor", cursor)));
        let page: List<Event> = self.get(&format!("/v1/ledger?{}", form::form(&pairs))).await?;
        Ok((page.items, page.next_cursor))
    }

    pub async fn entitlements(&self, filter: &[(&str, String)]) -> Result<Vec<Entitlement>, ApiError> {
        self.list("/v1/entitlements", filter, usize::MAX).await.map(|listed| listed.items)
    }

    /// The keys that sign; there are never more than a page of them.
    pub async fn keys(&self) -> Result<Vec<Key>, ApiError> {
        self.get("/v1/keys").await.map(|list: List<Key>| list.items)
    }

    /// `dry_run`: only tell what would happen.
    pub async fn taint_key(&self, kid: &str, reason: &str, dry_run: bool) -> Result<KeyTaint, ApiError> {
        let mut body = reason_of(Some(reason));
        body.insert("dry_run".to_owned(), json!(dry_run));
        self.post(&format!("/v1/keys/{kid}/taint"), body).await
    }

    /// The CAs, roots first; none where there is no authority.
    pub async fn cas(&self) -> Result<Vec<Ca>, ApiError> {
        self.get("/v1/pki").await.map(|list: List<Ca>| list.items)
    }

    /// The next issuing CA takes over.
    pub async fn rotate_ca(&self) -> Result<CaTurned, ApiError> {
        self.post("/v1/pki/rotate", Map::new()).await
    }

    /// The issuers of the bundle in force, all of them.
    pub async fn issuers(&self) -> Result<Vec<Issuer>, ApiError> {
        self.get("/v1/issuers").await.map(|list: List<Issuer>| list.items)
    }

    /// The issuer, once its keys are fetched.
    pub async fn refresh_issuer(&self, name: &Name) -> Result<Issuer, ApiError> {
        self.post(&format!("/v1/issuers/{name}/refresh"), Map::new()).await
    }

    /// A public document, byte for byte. Nobody is told who asks for it.
    pub async fn document(&self, path: &str) -> Result<Vec<u8>, ApiError> {
        let request = Request { method: Method::GET, path: path.to_owned(), authorization: None, body: None };
        let answer = self.transport.send(&request).await?;
        if answer.status == 200 { Ok(answer.body) } else { Err(ApiError::from_answer(&answer)) }
    }

    /// The URLs of the status lists that we may see.
    pub async fn status_lists(&self) -> Result<Vec<String>, ApiError> {
        let named: StatusLists = self.get("/status").await?;
        Ok(named.lists.into_iter().map(|list| list.uri).collect())
    }

    /// A dry run: changes nothing. The body may hold evidence.
    pub async fn simulate(&self, body: Map<String, Value>) -> Result<Explanation, ApiError> {
        self.post("/v1/simulate", body).await
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
        let count = Count::default();
        self.progress.counted(READING, &count, self.pages(path, filter, limit, &count)).await
    }

    async fn pages<T: DeserializeOwned>(
        &self,
        path: &str,
        filter: &[(&str, String)],
        limit: usize,
        count: &Count,
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
            count.set(items.len() as u64, 0);
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

    /// An answer that is no refusal.
    async fn answered(&self, request: Request) -> Result<Answer, ApiError> {
        let answer = self.progress.watch(ASKING, self.sent(request)).await?;
        if !(200..300).contains(&answer.status) {
            return Err(ApiError::from_answer(&answer).having(self.shown()));
        }
        Ok(answer)
    }

    async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, ApiError> {
        let answer = self.answered(request).await?;
        // The error of the parser may quote what it read: only its place is told.
        serde_json::from_slice(&answer.body).map_err(|error| ApiError::Strange {
            status: answer.status,
            why: format!("its JSON is not what was expected, at line {} column {}", error.line(), error.column()),
        })
    }

    fn shown(&self) -> Shown {
        let handle = self.bearer.as_ref().is_some_and(|bearer| bearer.expose().starts_with(HANDLE_PREFIX));
        Shown { proof: self.prover.is_some(), handle }
    }

    fn authorization(&self) -> Option<Secret<String>> {
        let scheme = |secret: &str| match self.prover.is_some() && may_be_bound(secret) {
            true => "DPoP",
            false => "Bearer",
        };
        self.bearer.as_ref().map(|bearer| Secret::new(format!("{} {}", scheme(bearer.expose()), bearer.expose())))
    }

    /// With a proof where one belongs; once more where the broker wants its nonce in it, and as a bearer
    /// where a handle turns out to be bound to nothing.
    async fn sent(&self, mut request: Request) -> Result<Answer, ApiError> {
        let mut told_nonce = false;
        loop {
            let Some((prover, secret)) = self.to_prove(&request) else {
                return Ok(self.transport.send(&request).await?);
            };
            let url = format!("{}{}", self.issuer().await?, request.path);
            let proof = prover.proof(request.method.as_str(), &url, secret).map_err(|failure| unsent(&failure))?;
            let answer = self.transport.send_with_proof(&request, Some(&proof)).await?;
            match answer.dpop_nonce.clone() {
                Some(nonce) if answer.status == 400 && !told_nonce => {
                    told_nonce = true;
                    prover.keep(nonce);
                }
                _ if answer.status == 401 && secret.is_some_and(|secret| secret.starts_with(HANDLE_PREFIX)) => {
                    request.authorization =
                        self.bearer.as_ref().map(|bearer| Secret::new(format!("Bearer {}", bearer.expose())));
                }
                _ => return Ok(answer),
            }
        }
    }

    /// An exchange binds what it gets; elsewhere the secret of `Authorization: DPoP` is proven.
    fn to_prove(&self, request: &Request) -> Option<(&Prover, Option<&str>)> {
        let prover = self.prover.as_ref()?;
        let shown = request.authorization.as_ref().is_some_and(|header| header.expose().starts_with("DPoP "));
        match (shown, request.path == TOKEN_PATH) {
            (true, _) => Some((prover, self.bearer.as_ref().map(|bearer| bearer.expose().as_str()))),
            (false, true) => Some((prover, None)),
            (false, false) => None,
        }
    }

    async fn issuer(&self) -> Result<&String, ApiError> {
        let ask = async || {
            let path = METADATA_PATH.to_owned();
            let request = Request { method: Method::GET, path, authorization: None, body: None };
            let answer = self.transport.send(&request).await?;
            let told: Result<Metadata, _> = serde_json::from_slice(&answer.body);
            told.map(|told| told.issuer).map_err(|_| ApiError::from_answer(&answer))
        };
        self.issuer.get_or_try_init(ask).await
    }
}

fn unwritten() -> ApiError {
    WireError::Setup("what is asked cannot be written as JSON".to_owned()).into()
}

/// What was never sent, because we could not make it.
pub fn unsent(failure: &Failure) -> ApiError {
    WireError::Setup(failure.parts().what.clone()).into()
}

fn reason_of(reason: Option<&str>) -> Map<String, Value> {
    reason.map(|reason| ("reason".to_owned(), json!(reason))).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use dayfly_verifier::crypto::SigningKey;

    use super::{script::Script, *};
    use crate::sys::clock::Clock;

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

    fn prover() -> Option<Prover> {
        let der = SigningKey::generate_pkcs8().unwrap();
        Some(Prover::new(SigningKey::from_pkcs8(der.expose()).unwrap(), Clock::Stepped(Default::default())))
    }

    fn proven(script: &Script) -> Value {
        let proof = script.proof().expect("a proof was sent");
        let payload = proof.split('.').nth(1).unwrap().to_owned();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_proof_names_the_broker_that_it_goes_to() {
        let script = Script::default().refuse(400, "E-EXPIRED").ok(&page(0..0, None));
        let issuer = Some("https://b.example".to_owned());
        let api = script.api(Some("dtc_x")).proving(prover(), issuer);
        let _ = api.exchange(&[]).await;
        let first = proven(&script);
        assert_eq!(
            (&first["htm"], &first["htu"], first.get("ath")),
            (&json!("POST"), &json!("https://b.example/oauth2/token"), None)
        );
        api.tasks(&[], 1).await.unwrap();
        assert_eq!(script.seen()[1], "GET /v1/tasks?limit=1 DPoP dtc_x");
        let second = proven(&script);
        assert_eq!((&second["htu"], second["ath"].is_string()), (&json!("https://b.example/v1/tasks"), true));
        assert_ne!(first["jti"], second["jti"]);
    }

    #[tokio::test]
    async fn on_the_socket_the_broker_says_its_own_name() {
        let script = Script::default().ok(r#"{"issuer":"https://b.example"}"#).ok(&page(0..0, None));
        script.api(Some("dtc_x")).proving(prover(), None).tasks(&[], 1).await.unwrap();
        assert_eq!(proven(&script)["htu"], "https://b.example/v1/tasks");
    }

    #[tokio::test]
    async fn a_nonce_is_answered_once_and_kept() {
        let script = Script::default()
            .refuse(400, "E-DPOP-NONCE")
            .ok(&page(0..0, None))
            .refuse(400, "E-DPOP-NONCE")
            .refuse(400, "E-DPOP-NONCE");
        let api = script.api(Some("dtc_x")).proving(prover(), Some("https://b.example".to_owned()));
        api.tasks(&[], 1).await.unwrap();
        assert_eq!(proven(&script)["nonce"], "the-nonce");
        assert!(api.tasks(&[], 1).await.is_err(), "and not for ever");
        assert_eq!(script.seen().len(), 4);
    }

    #[tokio::test]
    async fn what_is_bound_to_nothing_is_a_bearer() {
        let script = Script::default().ok(&page(0..0, None)).refuse(401, "E-CLIENT").ok(&page(0..0, None));
        let issuer = || Some("https://b.example".to_owned());
        script.api(Some("a.e30.c")).proving(prover(), issuer()).tasks(&[], 1).await.unwrap();
        assert_eq!((script.seen()[0].as_str(), script.proof()), ("GET /v1/tasks?limit=1 Bearer a.e30.c", None));
        script.api(Some("dtc_x")).proving(prover(), issuer()).tasks(&[], 1).await.unwrap();
        assert_eq!(script.seen()[1..], ["GET /v1/tasks?limit=1 DPoP dtc_x", "GET /v1/tasks?limit=1 Bearer dtc_x"]);
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
