//! Getting a credential although answers get lost (design.md section 5).
//!
//! Evidence opens one task, once. So when an answer is lost, nobody knows whether the task exists:
//! the handle, which we made, is asked first; if it is unknown, the evidence is sent again; if that
//! is used up, the first commit came late and the handle works now.

use std::{sync::Arc, time::Duration};

use dayfly_domain::{Reason, Secret};
use serde_json::{Map, Value, json};

use super::handle::Handle;
use crate::{
    cli::{
        api::{Api, ApiError, unsent},
        cert::Keys,
    },
    http::shapes::TokenAnswer,
    sys::entropy,
};

/// What is asked, apart from who asks.
#[derive(Debug, Clone)]
pub struct Ask {
    pub template: String,
    pub target: Option<String>,
    pub actions: Vec<String>,
    pub ttl_s: Option<u32>,
    pub ticket: Option<String>,
    pub form: Form,
}

/// What a credential is.
#[derive(Debug, Clone, Default)]
pub enum Form {
    #[default]
    Token,
    /// For a new key with every request: an answer that is lost takes its key with it.
    Certificate(Arc<Keys>),
}

impl Form {
    /// As people call it.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Certificate(_) => "certificate",
        }
    }
}

/// No credential came.
#[derive(Debug)]
pub struct NotOpened {
    pub error: ApiError,
    /// An answer was lost on the way, so the handle may be one of a live task.
    pub task_may_exist: bool,
}

/// Seconds for which the earlier credential still works after a renewal.
pub const OVERLAP_S: u8 = 30;

const TRIES_MAX: u32 = 6;
const WAIT_MAX_S: u64 = 20;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const EVIDENCE_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";
const HANDLE_TYPE: &str = "urn:dayfly:token-type:task-control";
const CERTIFICATE_TYPE: &str = "urn:dayfly:token-type:x509";

/// What is presented next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Evidence,
    Handle { supersede_s: u8 },
}

/// After a lost answer the unseen credential ends at once.
const RECOVER: Step = Step::Handle { supersede_s: 0 };

/// Opens a task. The handle was kept before.
pub async fn open(api: &Api, ask: &Ask, token: &Secret<String>, handle: &Handle) -> Result<TokenAnswer, NotOpened> {
    let mut attempt = Attempt { api, ask, token: Some(token), handle, uncertain: false, used_up: false };
    let answer = attempt.run(Step::Evidence).await;
    answer.map_err(|error| {
        let task_may_exist = attempt.uncertain || error.is_lost() || error.retry().is_some();
        NotOpened { error, task_may_exist }
    })
}

/// A further credential of a task that is open, which replaces the earlier ones for its target.
pub async fn renew(api: &Api, ask: &Ask, handle: &Handle) -> Result<TokenAnswer, ApiError> {
    let first = Step::Handle { supersede_s: OVERLAP_S };
    Attempt { api, ask, token: None, handle, uncertain: false, used_up: false }.run(first).await
}

struct Attempt<'a> {
    api: &'a Api,
    ask: &'a Ask,
    token: Option<&'a Secret<String>>,
    handle: &'a Handle,
    /// An earlier try may have taken effect.
    uncertain: bool,
    /// The broker said that the evidence has opened a task.
    used_up: bool,
}

impl Attempt<'_> {
    async fn run(&mut self, first: Step) -> Result<TokenAnswer, ApiError> {
        let mut step = first;
        for tries in 1.. {
            let error = match self.present(step).await {
                Ok(answer) => return Ok(answer),
                Err(error) if tries >= TRIES_MAX => return Err(error),
                Err(error) => error,
            };
            let wait = self.wait(&error, tries);
            step = self.next(step, error)?;
            if let Some(wait) = wait {
                self.api.pause(wait).await;
            }
        }
        unreachable!("the tries are bounded")
    }

    /// What to present after this failure; the failure itself when there is nothing.
    fn next(&mut self, step: Step, error: ApiError) -> Result<Step, ApiError> {
        if error.is_lost() {
            self.uncertain = true;
            return Ok(RECOVER);
        }
        if error.retry().is_some() {
            // It was refused and not committed; but nobody loses by doubting that.
            self.uncertain = true;
            return Ok(step);
        }
        match (step, error.reason()) {
            // The broker went away between two tries: what was lost may still be found.
            (_, None) if self.uncertain && matches!(error, ApiError::Wire(_)) => Ok(step),
            (Step::Evidence, Some(Reason::Replayed | Reason::HandleUsed)) if self.uncertain && !self.used_up => {
                self.used_up = true;
                Ok(RECOVER)
            }
            (Step::Handle { .. }, Some(Reason::Handle)) if self.token.is_some() && !self.used_up => Ok(Step::Evidence),
            _ => Err(error),
        }
    }

    /// How long to wait before the next try; none where something else is presented at once.
    fn wait(&self, error: &ApiError, tries: u32) -> Option<Duration> {
        let told = error.retry().flatten();
        let pointless = error.retry().is_none() && !matches!(error, ApiError::Wire(_) | ApiError::Strange { .. });
        if pointless { None } else { Some(backoff(told, tries)) }
    }

    async fn present(&self, step: Step) -> Result<TokenAnswer, ApiError> {
        let (details, hash) = (self.details(step), self.handle.s256());
        let mut pairs = vec![("grant_type", GRANT_TYPE)];
        let supersede;
        match (step, self.token) {
            (Step::Evidence, Some(token)) => pairs.extend([
                ("subject_token_type", EVIDENCE_TYPE),
                ("subject_token", token.expose().as_str()),
                ("task_control_s256", hash.as_str()),
            ]),
            (Step::Handle { supersede_s }, _) => {
                supersede = supersede_s.to_string();
                pairs.extend([
                    ("subject_token_type", HANDLE_TYPE),
                    ("subject_token", self.handle.expose()),
                    ("supersede", supersede.as_str()),
                ]);
            }
            (Step::Evidence, None) => unreachable!("evidence is presented only where there is some"),
        }
        pairs.extend(self.ask.target.as_deref().map(|target| ("resource", target)));
        match &details {
            Some(details) => pairs.push(("authorization_details", details)),
            None => pairs.push(("scope", &self.ask.template)),
        }
        let csr;
        if let Form::Certificate(keys) = &self.ask.form {
            csr = keys.request().map_err(|failure| unsent(&failure))?;
            pairs.extend([("requested_token_type", CERTIFICATE_TYPE), ("csr", &csr)]);
        }
        self.api.exchange(&pairs).await
    }

    /// RFC 9396, only where a scope cannot say it. The ticket is fixed when the task opens.
    fn details(&self, step: Step) -> Option<String> {
        let ask = self.ask;
        let ticket = ask.ticket.as_ref().filter(|_| step == Step::Evidence);
        if ask.actions.is_empty() && ask.ttl_s.is_none() && ticket.is_none() {
            return None;
        }
        let mut detail = Map::new();
        detail.insert("type".to_owned(), json!("dayfly_task"));
        detail.insert("template".to_owned(), json!(ask.template));
        if !ask.actions.is_empty() {
            detail.insert("actions".to_owned(), json!(ask.actions));
        }
        detail.extend(ask.ttl_s.map(|ttl_s| ("ttl".to_owned(), json!(ttl_s))));
        detail.extend(ticket.map(|ticket| ("ticket".to_owned(), json!(ticket))));
        Some(json!([Value::Object(detail)]).to_string())
    }
}

/// What the broker told, or doubling from half a second; with jitter, so that a crowd comes apart.
fn backoff(told_s: Option<u64>, tries: u32) -> Duration {
    let base_ms = match told_s {
        Some(told_s) => told_s.min(WAIT_MAX_S) * 1000,
        None => (250u64 << tries.min(6)).min(WAIT_MAX_S * 1000),
    };
    // Without entropy there is no jitter, but still a try.
    let jitter = entropy::bytes::<2>().map_or(0, u16::from_be_bytes);
    Duration::from_millis(base_ms + base_ms / 2 * u64::from(jitter) / u64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{api::script::Script, samples};

    fn ask() -> Ask {
        Ask {
            template: "deploy-prod".to_owned(),
            target: None,
            actions: vec![],
            ttl_s: None,
            ticket: None,
            form: Form::Token,
        }
    }

    fn issued() -> String {
        samples::issued(1).to_string()
    }

    /// `E` evidence, `0`/`30` the handle with that supersede.
    fn steps(script: &Script) -> String {
        let step = |line: &String| match line.split_once("supersede=") {
            Some((_, rest)) => rest.split('&').next().unwrap().to_owned(),
            None if line.contains("task_control_s256=") => "E".to_owned(),
            None => "?".to_owned(),
        };
        script.seen().iter().map(step).collect::<Vec<_>>().join(" ")
    }

    async fn open_with(script: &Script) -> Result<TokenAnswer, ApiError> {
        let token = Secret::new("a.b.c".to_owned());
        open(&script.api(None), &ask(), &token, &Handle::make().unwrap()).await.map_err(|failed| failed.error)
    }

    async fn opened(script: Script) -> String {
        open_with(&script).await.unwrap_or_else(|error| panic!("{error:?} after {}", steps(&script)));
        steps(&script)
    }

    #[tokio::test]
    async fn a_lost_answer_whose_task_exists_is_recovered_with_the_handle() {
        assert_eq!(opened(Script::default().lose().ok(&issued())).await, "E 0");
    }

    #[tokio::test]
    async fn a_lost_request_is_sent_again() {
        assert_eq!(opened(Script::default().lose().refuse(400, "E-HANDLE").ok(&issued())).await, "E 0 E");
    }

    #[tokio::test]
    async fn a_commit_that_came_late_is_found_by_the_handle() {
        for code in ["E-REPLAYED", "E-HANDLE-USED"] {
            let script = Script::default().lose().refuse(400, "E-HANDLE").refuse(400, code).ok(&issued());
            assert_eq!(opened(script).await, "E 0 E 0");
        }
    }

    #[tokio::test]
    async fn answers_that_are_lost_again_and_again_are_recovered_while_there_are_tries() {
        let script = Script::default().lose().lose().refuse(400, "E-HANDLE").lose().ok(&issued());
        assert_eq!(opened(script).await, "E 0 0 E 0");
        let script = (0..TRIES_MAX).fold(Script::default(), |script, _| script.lose());
        assert!(open_with(&script).await.err().unwrap().is_lost());
        assert_eq!(script.seen().len(), TRIES_MAX as usize);
    }

    #[tokio::test]
    async fn evidence_that_someone_else_used_stays_refused() {
        let script = Script::default().refuse(400, "E-REPLAYED");
        assert_eq!(open_with(&script).await.err().unwrap().reason(), Some(Reason::Replayed));
        let script = Script::default().lose().refuse(400, "E-HANDLE").refuse(400, "E-REPLAYED").refuse(400, "E-HANDLE");
        assert_eq!(open_with(&script).await.err().unwrap().reason(), Some(Reason::Handle));
        assert_eq!(steps(&script), "E 0 E 0");
    }

    #[tokio::test]
    async fn try_later_is_tried_later_as_told() {
        let script = Script::default().refuse(503, "E-OVERTAKEN").refuse(503, "E-STORE").ok(&issued());
        assert_eq!(opened(script.clone()).await, "E E E");
        for pause in script.pauses() {
            assert!((2_000..=3_000).contains(&pause.as_millis()), "{pause:?}");
        }
        assert_eq!(script.pauses().len(), 2);
    }

    #[tokio::test]
    async fn a_broker_that_was_never_reached_is_told_at_once() {
        let script = Script::default().unreachable();
        assert!(open_with(&script).await.is_err());
        assert_eq!(script.seen().len(), 1);
    }

    #[tokio::test]
    async fn a_broker_that_restarts_after_a_lost_answer_is_waited_for() {
        let script = Script::default().lose().unreachable().unreachable().ok(&issued());
        assert_eq!(opened(script).await, "E 0 0 0");
    }

    #[tokio::test]
    async fn a_refusal_is_final() {
        let script = Script::default().refuse(400, "E-NOMATCH");
        assert_eq!(open_with(&script).await.err().unwrap().reason(), Some(Reason::NoMatch));
        assert_eq!(script.seen().len(), 1);
    }

    #[tokio::test]
    async fn a_renewal_overlaps_and_a_lost_one_does_not() {
        let script = Script::default().lose().ok(&issued());
        renew(&script.api(None), &ask(), &Handle::make().unwrap()).await.unwrap();
        assert_eq!(steps(&script), "30 0");
    }

    #[tokio::test]
    async fn a_renewal_never_turns_into_evidence() {
        for code in ["E-HANDLE", "E-ENDED"] {
            let script = Script::default().refuse(400, code);
            assert!(renew(&script.api(None), &ask(), &Handle::make().unwrap()).await.is_err());
            assert_eq!(steps(&script), "30");
        }
    }

    #[tokio::test]
    async fn the_ticket_goes_with_the_evidence_and_never_with_the_handle() {
        let ask = Ask {
            target: Some("https://t.example".to_owned()),
            actions: vec!["a:b".to_owned()],
            ttl_s: Some(300),
            ticket: Some("T-1".to_owned()),
            ..ask()
        };
        let script = Script::default().lose().ok(&issued());
        let token = Secret::new("a.b.c".to_owned());
        open(&script.api(None), &ask, &token, &Handle::make().unwrap()).await.unwrap();
        let seen = script.seen();
        assert!(seen[0].contains("ticket%22%3A%22T-1") && seen[0].contains("resource=https%3A%2F%2Ft.example"));
        assert!(seen[0].contains("%22ttl%22%3A300") && !seen[0].contains("scope="));
        assert!(!seen[1].contains("ticket") && seen[1].contains("%22actions%22"));
    }

    #[tokio::test]
    async fn a_certificate_is_asked_for_with_a_new_key_at_every_try() {
        let keys = Arc::new(Keys::default());
        let ask = Ask { form: Form::Certificate(keys.clone()), ..ask() };
        let script = Script::default().lose().refuse(400, "E-HANDLE").ok(&issued()).ok(&issued());
        let handle = Handle::make().unwrap();
        open(&script.api(None), &ask, &Secret::new("a.b.c".to_owned()), &handle).await.unwrap();
        assert!(keys.take().is_some() && keys.take().is_none());
        renew(&script.api(None), &ask, &handle).await.unwrap();
        assert_eq!(steps(&script), "E 0 E 30");
        let csr = |line: &String| line.split_once("&csr=").unwrap().1.split(['&', ' ']).next().unwrap().to_owned();
        let asked: std::collections::BTreeSet<_> = script.seen().iter().map(csr).collect();
        assert_eq!(asked.len(), 4);
        let form = "&requested_token_type=urn%3Adayfly%3Atoken-type%3Ax509&";
        assert!(script.seen().iter().all(|line| line.contains(form) && !line.contains("PRIVATE")));
        let token = Script::default().ok(&issued());
        opened(token.clone()).await;
        assert!(!token.seen()[0].contains("requested_token_type"));
    }

    #[tokio::test]
    async fn the_handle_itself_never_goes_with_the_evidence() {
        let script = Script::default().ok(&issued());
        let handle = Handle::make().unwrap();
        let token = Secret::new("a.b.c".to_owned());
        open(&script.api(None), &ask(), &token, &handle).await.unwrap();
        let seen = script.seen().remove(0);
        assert!(seen.contains("scope=deploy-prod") && seen.contains(&format!("task_control_s256={}", handle.s256())));
        assert!(!seen.contains(handle.expose()));
    }
}
