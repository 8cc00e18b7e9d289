//! Renewal at half-life, through the handle: a job may outlive its first credential, up to its task's
//! deadline. In: what was issued. Out: each new one, where it was asked for.

use std::time::Duration;

use dayfly_domain::Reason;
use tokio::time::Instant;

use super::hold::jittered;
use crate::{
    cli::{
        api::{Api, ApiError},
        failure::Failure,
        session::Screen,
        token::{
            exchange::{self, Ask},
            handle::Handle,
        },
    },
    http::shapes::TokenAnswer,
};

/// Renews one credential after the other.
#[derive(Debug)]
pub struct Renewal<'a> {
    pub api: &'a Api,
    pub ask: &'a Ask,
    pub handle: &'a Handle,
    pub screen: Screen,
}

/// One try ends within this.
pub const TRY: Duration = Duration::from_secs(10);
/// Between two tries of a renewal that is refused.
const AGAIN_LEAST_MS: u64 = 5_000;
const AGAIN_MOST_MS: u64 = 60_000;

impl Renewal<'_> {
    /// Until there is nothing to renew: the task is over, or its deadline is that of the credential.
    pub async fn keep(&self, first: &TokenAnswer, put: impl Fn(&TokenAnswer) -> Result<(), Failure>) {
        let mut life = Life::of(first);
        while let Some(half_ms) = life.as_ref().filter(|life| life.renewable).map(Life::half_ms) {
            self.api.pause(jittered(half_ms * 9 / 10, half_ms / 10)).await;
            let Some(answer) = self.renewed(life.take()).await else { return };
            life = Life::of(&answer);
            self.handed_over(|| put(&answer), half_ms).await;
        }
    }

    /// The one of before is dead soon: what cannot be written now is tried again, until the next one is due.
    async fn handed_over(&self, put: impl Fn() -> Result<(), Failure>, within_ms: u64) {
        let mut waited_ms = 0;
        while let Err(failure) = put() {
            if waited_ms == 0 {
                let what = "the renewed credential could not be handed over, and this is tried again";
                self.screen.warn(&failure.text(what).replace('\n', "; "));
            }
            if waited_ms >= within_ms {
                return;
            }
            waited_ms += AGAIN_LEAST_MS;
            self.api.pause(Duration::from_millis(AGAIN_LEAST_MS)).await;
        }
    }

    /// Tries until one comes; none where none can come any more.
    async fn renewed(&self, life: Option<Life>) -> Option<TokenAnswer> {
        let mut failed = false;
        loop {
            match exchange::renew(self.api, self.ask, self.handle).await {
                Ok(answer) => {
                    if failed {
                        self.screen.say("the credential is renewed after all");
                    }
                    return Some(answer);
                }
                Err(error) if is_final(&error) => {
                    self.screen.warn(&error.failure("the credential cannot be renewed any more").parts().what);
                    return None;
                }
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        let left = life.as_ref().map_or(0, Life::left_s);
                        let what = error.failure("the credential could not be renewed").parts().what.clone();
                        self.screen.warn(&format!("{what}; it is good for {left} s more, and this is tried again"));
                    }
                }
            }
            let left_ms = life.as_ref().map_or(0, Life::left_s) * 1000;
            let wait_ms = (left_ms / 4).clamp(AGAIN_LEAST_MS, AGAIN_MOST_MS);
            self.api.pause(jittered(wait_ms / 2, wait_ms / 2)).await;
        }
    }
}

/// How long a credential lives, counted from when it was handed over.
#[derive(Debug)]
struct Life {
    until: Instant,
    ttl_s: u64,
    /// Another one would live longer.
    renewable: bool,
}

impl Life {
    /// None where it is not said.
    fn of(answer: &TokenAnswer) -> Option<Self> {
        let ttl_s = answer.expires_in?.clamp(1, u64::from(u32::MAX));
        let renewable = answer.expires_at.is_none_or(|expires_at| expires_at < answer.task_deadline);
        Some(Self { until: Instant::now() + Duration::from_secs(ttl_s), ttl_s, renewable })
    }

    fn half_ms(&self) -> u64 {
        self.ttl_s * 500
    }

    fn left_s(&self) -> u64 {
        self.until.saturating_duration_since(Instant::now()).as_secs()
    }
}

/// No later try can come out otherwise.
fn is_final(error: &ApiError) -> bool {
    matches!(error.reason(), Some(Reason::Ended | Reason::Handle | Reason::Template))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use serde_json::json;

    use super::*;
    use crate::cli::{api::script::Script, samples, session::test_session, token::exchange::Form};

    fn answer(n: u64, ttl_s: u64, expires_at: &str) -> serde_json::Value {
        let mut answer = samples::issued(n);
        answer["expires_in"] = json!(ttl_s);
        answer["expires_at"] = json!(expires_at);
        answer["task_deadline"] = json!("2026-11-22T06:00:00Z");
        answer
    }

    async fn kept(script: &Script, first: serde_json::Value) -> Vec<String> {
        kept_after(script, first, 0).await
    }

    /// The first tries to hand one over fail.
    async fn kept_after(script: &Script, first: serde_json::Value, failures: usize) -> Vec<String> {
        let (api, handle) = (script.api(None), Handle::make().unwrap());
        let (ttl_s, form) = (None, Form::Token);
        let ask = Ask { template: "deploy".to_owned(), target: None, actions: vec![], ttl_s, ticket: None, form };
        let renewal = Renewal { api: &api, ask: &ask, handle: &handle, screen: test_session().screen };
        let (put, tries) = (RefCell::new(Vec::new()), Cell::new(0));
        let first: TokenAnswer = serde_json::from_value(first).unwrap();
        let keep = renewal.keep(&first, |answer| {
            if tries.replace(tries.get() + 1) < failures {
                return Err(Failure::failed("the disk is full"));
            }
            put.borrow_mut().push(answer.lease_id.unwrap().to_string());
            Ok(())
        });
        keep.await;
        put.into_inner()
    }

    fn lease(n: u64) -> String {
        samples::lease_id(n).to_string()
    }

    #[tokio::test]
    async fn a_credential_is_renewed_at_half_life_until_it_lives_as_long_as_its_task() {
        let second = answer(2, 1_000, "2026-11-22T05:30:00Z").to_string();
        let last = answer(3, 100, "2026-11-22T06:00:00Z").to_string();
        let script = Script::default().ok(&second).ok(&last);
        assert_eq!(kept(&script, answer(1, 600, "2026-11-22T05:10:00Z")).await, [lease(2), lease(3)]);
        assert!(script.seen().iter().all(|line| line.contains("supersede=30")));
        let pauses: Vec<_> = script.pauses().iter().map(Duration::as_secs).collect();
        assert!((270..=300).contains(&pauses[0]) && (450..=500).contains(&pauses[1]), "{pauses:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_written_as_soon_as_it_can() {
        let last = answer(2, 600, "2026-11-22T06:00:00Z").to_string();
        let first = || answer(1, 600, "2026-11-22T05:10:00Z");
        let script = Script::default().ok(&last);
        assert_eq!(kept_after(&script, first(), 3).await, [lease(2)]);
        let pauses: Vec<_> = script.pauses().iter().map(Duration::as_secs).collect();
        assert_eq!((script.seen().len(), &pauses[1..]), (1, &[5, 5, 5][..]), "the same one: {pauses:?}");
        let script = Script::default().ok(&last);
        assert!(kept_after(&script, first(), usize::MAX).await.is_empty(), "and not for ever");
    }

    #[tokio::test]
    async fn what_lives_as_long_as_its_task_is_never_renewed() {
        let script = Script::default();
        assert!(kept(&script, answer(1, 600, "2026-11-22T06:00:00Z")).await.is_empty());
        assert!(script.seen().is_empty() && script.pauses().is_empty());
    }

    #[tokio::test]
    async fn a_renewal_that_fails_is_tried_again_and_one_of_a_task_that_is_over_is_not() {
        let next = answer(2, 600, "2026-11-22T05:10:00Z").to_string();
        let script = Script::default().unreachable().refuse(400, "E-NOMATCH").ok(&next).refuse(400, "E-ENDED");
        assert_eq!(kept(&script, answer(1, 600, "2026-11-22T05:10:00Z")).await, [lease(2)]);
        assert_eq!(script.seen().len(), 4);
    }
}
