//! The dead-man (design.md section 5): beats with the task's handle for as long as this process lives.
//! When they stop, the broker ends the task a grace later. In: a task and its handle. Out: that it is
//! over, when it is; until then every failure but the broker's own no is tried again.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use dayfly_domain::{Reason, State, TaskId};

use crate::{
    cli::{
        api::{Api, ApiError},
        session::Screen,
    },
    http::shapes::Beat,
    sys::entropy,
};

/// Beats for one task.
#[derive(Debug)]
pub struct Hold<'a> {
    api: &'a Api,
    task: TaskId,
    screen: Screen,
    pace: Cell<Pace>,
}

/// How the broker wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    beat_s: u64,
    grace_s: u64,
}

/// What one beat came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beaten {
    Held,
    /// No answer, or one that may be another soon.
    Unheard,
    /// This broker takes no beats: the task lives to its deadline, held or not. Told already.
    Unknown,
    /// Told already.
    Over,
}

/// A broker that hangs must not cost the hold: one try ends within the pause between two.
pub const TRY: Duration = Duration::from_secs(3);
const USUAL: Pace = Pace { beat_s: 5, grace_s: 15 };
/// The first pause after a beat that was not heard; doubled from then on, up to that between beats.
const AGAIN_MS: u64 = 500;

impl<'a> Hold<'a> {
    /// `api`: the handle is its bearer.
    pub fn new(api: &'a Api, task: TaskId, screen: Screen) -> Self {
        Self { api, task, screen, pace: Cell::new(USUAL) }
    }

    /// Beats once.
    pub async fn beat(&self) -> Beaten {
        match self.api.beat(self.task).await {
            Ok(beat) if beat.state == State::Active => {
                self.pace.set(Pace::told(&beat));
                Beaten::Held
            }
            Ok(beat) => {
                self.tell_over(&format!("the broker says that it is {}", beat.state));
                Beaten::Over
            }
            Err(error) if error.reason() == Some(Reason::NotFound) => {
                self.screen.warn(&format!(
                    "the broker takes no beats: if this process is killed, the task {} lives to its deadline",
                    self.task
                ));
                Beaten::Unknown
            }
            Err(error) if is_final(&error) => {
                self.tell_over(&error.failure("the broker holds it no more").parts().what);
                Beaten::Over
            }
            Err(_) => Beaten::Unheard,
        }
    }

    /// Beats until the task is over; for ever where that cannot be known. `last`: what the beat before
    /// came to.
    pub async fn keep(&self, last: Beaten) {
        let (mut last, mut unheard) = (last, Unheard::default());
        while last != Beaten::Over {
            if last == Beaten::Unknown {
                return std::future::pending().await;
            }
            let pace = self.pace.get();
            if last == Beaten::Unheard && unheard.is_news(pace) {
                self.screen.warn(&format!(
                    "the broker has not answered for {} s: if that is its own doing the task goes on when it is back; \
                     otherwise the credential may be dead by now",
                    pace.grace_s
                ));
            }
            self.api.pause(unheard.pause(last, pace)).await;
            last = self.beat().await;
            if last == Beaten::Held && std::mem::take(&mut unheard).was_told {
                self.screen.say("the broker answers again, and the task is alive");
            }
        }
    }

    fn tell_over(&self, why: &str) {
        self.screen.warn(&format!("the task {} is over, so its credential is dead: {why}", self.task));
    }
}

impl Pace {
    fn told(beat: &Beat) -> Self {
        Self { beat_s: beat.beat_s.clamp(1, 60).into(), grace_s: beat.grace_s.max(1).into() }
    }
}

/// A series of beats without an answer.
#[derive(Debug, Default)]
struct Unheard {
    since: Option<Instant>,
    tries: u32,
    was_told: bool,
}

impl Unheard {
    /// Once in a series.
    fn is_news(&mut self, pace: Pace) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        let news = !self.was_told && since.elapsed() >= Duration::from_secs(pace.grace_s);
        self.was_told |= news;
        news
    }

    fn pause(&mut self, last: Beaten, pace: Pace) -> Duration {
        let between_ms = pace.beat_s * 1000;
        if last == Beaten::Held {
            // Earlier rather than later: the grace counts from what arrived.
            return jittered(between_ms * 9 / 10, between_ms / 10);
        }
        let most_ms = (AGAIN_MS << self.tries.min(8)).min(between_ms);
        self.tries = self.tries.saturating_add(1);
        jittered(most_ms / 2, most_ms / 2)
    }
}

/// Between `least_ms` and so much more, so that a crowd comes apart.
pub fn jittered(least_ms: u64, more_ms: u64) -> Duration {
    let part = entropy::bytes::<2>().map_or(0, u16::from_be_bytes);
    Duration::from_millis(least_ms + more_ms * u64::from(part) / u64::from(u16::MAX))
}

/// The broker's own no. A proof that is not believed may be the fault of a clock, which mends itself.
fn is_final(error: &ApiError) -> bool {
    match error {
        ApiError::Refused(refusal) => {
            (400..500).contains(&refusal.status)
                && !matches!(refusal.status, 408 | 425 | 429)
                && !matches!(refusal.reason(), Some(Reason::Dpop | Reason::DpopNonce))
        }
        ApiError::Wire(_) | ApiError::Strange { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{api::script::Script, samples, session::test_session};

    const HELD: &str = r#"{"state":"active","deadline":"2026-11-22T05:15:00Z","beat_s":5,"grace_s":15,"new":1}"#;

    async fn kept(script: &Script, last: Beaten) {
        let api = script.api(Some("dtc_x"));
        Hold::new(&api, samples::task_id(7), test_session().screen).keep(last).await;
    }

    fn in_ms(pauses: &[Duration], least: u128, most: u128) -> bool {
        pauses.iter().all(|pause| (least..=most).contains(&pause.as_millis()))
    }

    #[tokio::test]
    async fn beats_go_with_the_handle_as_often_as_the_broker_says_until_the_task_is_over() {
        let slower = HELD.replace("\"beat_s\":5", "\"beat_s\":20");
        let script = Script::default().ok(HELD).ok(&slower).refuse(409, "E-NOT-ACTIVE");
        kept(&script, Beaten::Held).await;
        assert_eq!(script.seen()[0], format!("POST /v1/tasks/{}/beat {{}} Bearer dtc_x", samples::task_id(7)));
        let pauses = script.pauses();
        assert!(pauses.len() == 3 && in_ms(&pauses[..2], 4_500, 5_000) && in_ms(&pauses[2..], 18_000, 20_000));
    }

    #[tokio::test]
    async fn a_broker_that_is_away_is_beaten_for_until_it_is_back() {
        let away = Script::default().unreachable().lose().refuse(503, "E-BUSY").refuse(429, "E-BUSY");
        let away = (0..8).fold(away, |script, _| script.unreachable());
        let script = away.ok(HELD).refuse(409, "E-NOT-ACTIVE");
        kept(&script, Beaten::Held).await;
        let pauses = script.pauses();
        assert_eq!(pauses.len(), 14);
        assert!(in_ms(&pauses[1..2], 250, 500) && in_ms(&pauses[1..13], 250, 5_000), "{pauses:?}");
        assert!(in_ms(&pauses[13..], 4_500, 5_000), "and then as before");
    }

    #[tokio::test]
    async fn only_the_brokers_own_no_is_an_end() {
        for (status, code) in [(409, "E-NOT-ACTIVE"), (400, "E-ENDED"), (401, "E-CLIENT")] {
            let script = Script::default().refuse(status, code);
            kept(&script, Beaten::Held).await;
            assert_eq!(script.seen().len(), 1, "{code}");
        }
        let proxy =
            crate::cli::api::Answer { status: 404, retry_after_s: None, dpop_nonce: None, body: b"<html>".to_vec() };
        let script = Script::default().then(Ok(proxy)).refuse(400, "E-DPOP").refuse(409, "E-NOT-ACTIVE");
        kept(&script, Beaten::Held).await;
        assert_eq!(script.seen().len(), 3);
    }

    #[tokio::test]
    async fn a_broker_that_takes_no_beats_is_not_asked_again_and_nothing_is_over() {
        let script = Script::default().refuse(404, "E-NOT-FOUND");
        let kept = tokio::time::timeout(Duration::from_millis(20), kept(&script, Beaten::Held));
        assert!(kept.await.is_err(), "a renewal beside it goes on");
        assert_eq!(script.seen().len(), 1);
    }

    #[tokio::test]
    async fn an_answer_that_says_ended_is_an_end() {
        for state in ["ended", "expired"] {
            let script = Script::default().ok(&HELD.replace("active", state));
            kept(&script, Beaten::Unheard).await;
            assert_eq!(script.seen().len(), 1);
        }
    }
}
