//! The hold: a client that beats says that it is there; a task whose client is silent for its grace
//! ends, cause `hold_lost`.
//!
//! The first beat is on the record before it is answered, so that a restart knows who beats; every
//! later one is a number in memory. Only beats hold: a renewal does not, or a child that outlives its
//! wrapper would keep the task alive.

use dayfly_domain::{
    Cause, Reason, Span, State, TaskId, UnixMs,
    bundle::{BEAT, GRACE},
};
use tokio::sync::oneshot;

use super::{
    Flow, Shared,
    group::{EndGroup, Group, NotCommitted, What},
    words::{Caller, HoldView, Refused},
};
use crate::{
    lease::{End, Look, Now, Standing, Storm},
    policy::Policy,
};

/// Who ends what nobody asked to end.
const BROKER: &str = "broker";

/// What a beat is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    pub state: State,
    pub deadline: UnixMs,
    /// How often to beat.
    pub beat: Span,
    /// How long after the last one the task ends.
    pub grace: Span,
}

impl Flow {
    /// A beat for one's own task, with its handle.
    // SECURITY: `a_beat_for_anothers_task_is_unknown`, `nothing_but_the_tasks_own_handle_beats`.
    pub async fn beat(&self, caller: &Caller, id: TaskId) -> Result<Beat, Refused> {
        let own = match caller {
            Caller::Nobody => return Err(Reason::Client.into()),
            Caller::Handle { task } => *task,
            Caller::Operator { .. } | Caller::Token { .. } | Caller::Verifier { .. } => {
                return Err(Reason::Scope.into());
            }
        };
        if own != id {
            return Err(Reason::NotFound.into());
        }
        let now = self.time.now();
        let Some(standing) = self.table.standing(id, now) else { return Err(self.unknown(id, now).await) };
        if standing.state != State::Active {
            return Err(over(&standing));
        }
        if !self.table.holds.beat(id, self.time.uptime_ms()) {
            self.begin_to_beat(id).await?;
        }
        let grace = grace_of(&self.policy.load(), &standing);
        Ok(Beat { state: State::Active, deadline: standing.deadline, beat: BEAT, grace })
    }

    /// How a live task is held. The clock of holds is not the wall's: these moments are counted from now.
    pub(super) fn hold_of(&self, id: TaskId, now: Now) -> Option<HoldView> {
        let standing = self.table.standing(id, now).filter(|standing| standing.state == State::Active)?;
        let grace = grace_of(&self.policy.load(), &standing);
        let (held, up_ms) = (self.table.holds.held(id, grace)?, self.time.uptime_ms());
        let wall = |ms: i64| now.at.plus_ms(ms - up_ms);
        Some(HoldView {
            last_beat_at: held.last_ms.map(wall),
            grace_s: grace.as_s(),
            lapses_at: wall(held.lapses_ms).min(standing.deadline),
        })
    }

    /// The first beat. Whether its caller waits for the answer or not: what is on the record is held.
    // SECURITY: `a_client_that_dies_with_its_first_beat_is_ended`.
    async fn begin_to_beat(&self, id: TaskId) -> Result<(), Refused> {
        let (ack, begun) = oneshot::channel();
        self.submit(Group::Hold(id, ack), begun).await.map_err(|failed| match failed {
            NotCommitted::Overtaken(_) | NotCommitted::Gone | NotCommitted::Released => self.over_by_now(id),
            NotCommitted::Store
            | NotCommitted::OtherBundle
            | NotCommitted::OtherJob
            | NotCommitted::OtherKey
            | NotCommitted::OtherEnds => Reason::Store.into(),
        })?;
        // It may have ended at once.
        let _ = self.table.holds.beat(id, self.time.uptime_ms());
        Ok(())
    }

    fn over_by_now(&self, id: TaskId) -> Refused {
        self.table.standing(id, self.time.now()).map_or_else(|| Reason::NotActive.into(), |standing| over(&standing))
    }

    /// Memory does not know the task of a good handle: it has forgotten it, or is about to learn of it.
    async fn unknown(&self, id: TaskId, now: Now) -> Refused {
        match self.task_row(id).await {
            Ok(Some(row)) if row.end.is_none() && row.deadline > now.at => Reason::Busy.into(),
            Ok(_) => Reason::NotActive.into(),
            Err(refused) => refused,
        }
    }
}

impl Shared {
    /// Every second: ends what is silent for its grace, through the ordinary way of ends.
    pub(super) fn end_lost_holds(&self, now: Now) {
        let policy = self.policy.load();
        let live = |id| self.table.standing(id, now).filter(|standing| standing.state == State::Active);
        let look = self.table.holds.look(self.time.uptime_ms(), |id| Some(grace_of(&policy, &live(id)?)));
        tell(&look);
        for (id, grace) in look.lapsed {
            let end = End { at: now.at, cause: Cause::HoldLost, seq: None };
            if self.table.mark_task(id, end) == Some(end) {
                let (actor, reason) = (BROKER.to_owned(), Some(format!("no beat for {grace}")));
                self.push_end(EndGroup { what: What::Task(id), actor, reason, block: false, acks: Vec::new() });
            }
        }
        metrics::gauge!("dayfly_tasks_held").set(self.table.holds.beating() as f64);
        metrics::gauge!("dayfly_hold_storm").set(f64::from(u8::from(self.table.holds.storm())));
    }
}

fn tell(look: &Look) {
    if let Some(away_ms) = look.away_ms {
        tracing::warn!(away_ms, "the broker was not running for a while: every grace begins anew");
    }
    match look.storm {
        Some(Storm::Began { silent, beating }) => {
            metrics::counter!("dayfly_hold_storms_total").increment(1);
            tracing::error!(
                silent,
                beating,
                "hold storm: more clients fell silent at once than jobs die; for 60 s no lost hold ends a task"
            );
        }
        Some(Storm::Over) => {
            tracing::warn!(ending = look.lapsed.len(), "the hold storm is over: who is still silent is ended");
        }
        None => {}
    }
}

/// As the bundle in force says it, whenever the task was opened.
fn grace_of(policy: &Policy, standing: &Standing) -> Span {
    policy.bundle().templates.get(&*standing.template).map_or(GRACE, |template| template.grace)
}

fn over(standing: &Standing) -> Refused {
    let hint = match standing.end {
        Some(end) => format!("the task ended at {}, cause {}", end.at, end.cause.as_str()),
        None => format!("the task expired at {}", standing.deadline),
    };
    Refused { hint: Some(hint), ..Reason::NotActive.into() }
}
