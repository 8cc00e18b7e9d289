//! The end of a task whose job is done, by its handle. In: what it takes to end it. Out: how it ended,
//! in one line for people; an end that fails is a warning, and the dead-man still fires.

use std::time::Duration;

use dayfly_domain::{Cause, TaskId};

use crate::{
    cli::{
        api::{Api, ApiError},
        session::Screen,
    },
    http::shapes::Ended,
};

/// One try ends within this.
pub const TRY: Duration = Duration::from_secs(2);
const TRIES: u32 = 2;

/// Ends it, or says why not. `took`: how long the job lasted. Whether it is known to be over.
pub async fn end(api: &Api, task: TaskId, took: Duration, screen: Screen) -> bool {
    let mut tried = api.end_task(task, None, None).await;
    for _ in 1..TRIES {
        if !tried.as_ref().is_err_and(is_worth_another) {
            break;
        }
        tried = api.end_task(task, None, None).await;
    }
    match tried {
        Ok(ended) => {
            screen.say(&line(&ended, took));
            true
        }
        Err(error) => {
            let failure = error.failure(&format!("the task {task} could not be ended"));
            let causes = failure.parts().causes.iter().map(|cause| format!(": {cause}")).collect::<String>();
            screen.warn(&format!("{}{causes}; without its holder the broker ends it by itself", failure.parts().what));
            false
        }
    }
}

/// The task of a handle whose opening was never answered, if there is one. Whether it is known to be over.
pub async fn end_unseen(api: &Api, took: Duration, screen: Screen) -> bool {
    let Ok(own) = api.tasks(&[], 1).await else { return false };
    match own.items.first() {
        Some(task) => end(api, task.id, took, screen).await,
        None => true,
    }
}

fn is_worth_another(error: &ApiError) -> bool {
    error.is_lost() || error.retry().is_some() || matches!(error, ApiError::Wire(_))
}

/// `ended      tsk_… after 3m12s · 1 lease ended`
fn line(ended: &Ended, took: Duration) -> String {
    let leases = if ended.leases_ended == 1 { "lease" } else { "leases" };
    let how = match ended.cause {
        Some(Cause::Completed) => format!("{} {leases} ended", ended.leases_ended),
        Some(cause) => format!("it had ended before: {cause}"),
        None => "it had expired before".to_owned(),
    };
    let worst = ended.revocation.iter().map(|known| known.worst_case_at).max();
    let worst = worst.filter(|_| ended.cause == Some(Cause::Completed) && ended.leases_ended > 0);
    let worst = worst.map(|at| format!(" · honoured at worst until {at}")).unwrap_or_default();
    format!("ended      {} after {} · {how}{worst}", ended.id, lasted(took))
}

/// `0.4s`, `12s`, `3m12s`, `1h03m`.
fn lasted(took: Duration) -> String {
    match took.as_secs() {
        s @ 0..10 => format!("{s}.{}s", took.subsec_millis() / 100),
        s @ 10..60 => format!("{s}s"),
        s @ 60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{api::script::Script, samples, session::test_session};

    fn ended(cause: &str) -> Ended {
        let mut ended = samples::ended("tsk_x");
        ended["cause"] = cause.into();
        serde_json::from_value(ended).unwrap()
    }

    async fn ends(script: &Script) -> bool {
        end(&script.api(Some("dtc_x")), samples::task_id(7), Duration::from_secs(1), test_session().screen).await
    }

    #[tokio::test]
    async fn an_end_is_tried_twice_and_then_only_a_warning() {
        let done = samples::ended("tsk_x").to_string();
        assert!(ends(&Script::default().lose().ok(&done)).await);
        assert!(ends(&Script::default().refuse(503, "E-BUSY").ok(&done)).await);
        let away = Script::default().unreachable().unreachable();
        assert!(!ends(&away).await);
        assert_eq!(away.seen().len(), 2);
        let refused = Script::default().refuse(401, "E-CLIENT");
        assert!(!ends(&refused).await);
        assert_eq!(refused.seen().len(), 1, "a no is a no");
    }

    #[test]
    fn people_read_how_long_it_was_and_how_it_ended() {
        insta::assert_snapshot!(line(&ended("completed"), Duration::from_millis(192_300)), @"ended      tsk_x after 3m12s · 2 leases ended · honoured at worst until 2026-11-22T05:15:00Z");
        insta::assert_snapshot!(line(&ended("hold_lost"), Duration::from_millis(440)), @"ended      tsk_x after 0.4s · it had ended before: hold_lost");
        assert_eq!(lasted(Duration::from_secs(12)), "12s");
        assert_eq!(lasted(Duration::from_secs(3_790)), "1h03m");
    }
}
