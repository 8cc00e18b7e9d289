//! The end of a task or a lease: in force in memory at once, answered when durable (laws L2, L6),
//! with what every channel knows (law L12).

use dayfly_domain::{Cause, LeaseId, Reason, State, TaskId, UnixMs, Verifies};
use tokio::sync::oneshot;

use super::{
    Flow,
    certificates::Named,
    group::{COMMIT_WITHIN, EndGroup, Group, NotCommitted, What},
    introspect::Authority,
    possession::Held,
    words::{Caller, EndAnswer, Possession, Presented, Refused},
};
use crate::{
    lease::{End, Label, Lease, Now},
    ledger::{self, Stamp},
    policy::{RowFacts, RowKind},
    revoke::{self, Checking, Known},
    store::{EndRow, LeaseRow, TaskRow},
    sys::offload::offload,
};

impl Flow {
    /// Ends a task and everything below it. `block`: absent is yes for operators; a handle that
    /// sends it is refused (`E-SCOPE`).
    pub async fn end_task(
        &self,
        caller: &Caller,
        id: TaskId,
        reason: Option<String>,
        block: Option<bool>,
    ) -> Result<EndAnswer, Refused> {
        let authority = self.authority(caller).await?;
        let row = self.task_row(id).await?;
        let row = self.may_end_task(&authority, id, row, block)?;
        let now = self.time.now();
        let by_selector = self.table.end_by_selector(id);
        if let Some(end) = row.end.map(End::from).or(by_selector) {
            // In force, and on its way to the record by itself.
            if end.seq.is_none() {
                return Err(Reason::NotDurable.into());
            }
            self.block_ended(&authority, &row, reason.as_deref(), block, now).await?;
            return self.answer_task(id, Some(end), now).await;
        }
        // SECURITY: what has expired only under a wall clock that jumped may come back with the next
        // start, so it is ended on the record; an_end_while_the_clock_is_wrong_is_kept
        match self.table.task_state(id, now) {
            None | Some(State::Expired) if row.deadline <= now.at => return self.answer_task(id, None, now).await,
            // Written, and not yet in memory: the commit that opened it is about to be applied.
            None => return Err(Reason::Busy.into()),
            Some(_) => {}
        }
        let cause = cause_of(&authority);
        let block = block.unwrap_or(!matches!(authority, Authority::Handle { .. }));
        self.table.mark_task(id, End { at: now.at, cause, seq: None });
        let group = EndGroup { what: What::Task(id), actor: authority.actor(), reason, block, acks: Vec::new() };
        let end = self.end(group).await?;
        self.answer_task(id, Some(end), now).await
    }

    /// An operator who ends a task means its job, also when the job was quicker: a task that ended
    /// by its own handle is blocked all the same.
    // SECURITY: `a_job_that_ends_its_task_first_does_not_dodge_the_block`.
    async fn block_ended(
        &self,
        authority: &Authority,
        row: &TaskRow,
        reason: Option<&str>,
        block: Option<bool>,
        now: Now,
    ) -> Result<(), Refused> {
        let label = Label::of_row(row);
        let meant = !matches!(authority, Authority::Handle { .. }) && block != Some(false);
        if !meant || row.deadline <= now.at || self.table.is_blocked(&label, now) {
            return Ok(());
        }
        let stamp = Stamp::draw(now.at).map_err(|_| Reason::Key)?;
        let entry = ledger::blocked(stamp, row.id, row.deadline, &authority.actor(), reason);
        let (ack, done) = oneshot::channel();
        let group = Group::Block(entry, label, row.deadline, ack);
        self.submit(group, done).await.map_err(|_| Reason::Store.into())
    }

    fn may_end_task(
        &self,
        authority: &Authority,
        id: TaskId,
        row: Option<TaskRow>,
        block: Option<bool>,
    ) -> Result<TaskRow, Refused> {
        if let Authority::Handle { task } = authority {
            if *task != id {
                return Err(Reason::NotFound.into());
            }
            if block.is_some() {
                return Err(Reason::Scope.into());
            }
            return row.ok_or_else(|| Reason::NotFound.into());
        }
        if !authority.holds("tasks:end") {
            return Err(Reason::Scope.into());
        }
        let row = row.ok_or(Reason::NotFound)?;
        let text = id.to_string();
        if self.may(authority, "tasks:end", &task_facts(&row, &text)) { Ok(row) } else { Err(Reason::NotFound.into()) }
    }

    /// Ends one lease; its task goes on.
    pub async fn end_lease(&self, caller: &Caller, id: LeaseId, reason: Option<String>) -> Result<EndAnswer, Refused> {
        let authority = self.authority(caller).await?;
        let (cause, actor) = (cause_of(&authority), authority.actor());
        // Nearly every end is of a lease in memory: its row need not be read.
        if let Some(lease) = self.table.lease(id).filter(|lease| self.may_end_live(&authority, id, lease)) {
            return self.end_live(id, &lease, cause, actor, reason).await;
        }
        let reader = self.reader.clone();
        let rows = offload(move || reader.lease(id)).await.map_err(|_| Reason::Internal)?;
        let rows = rows.map_err(|error| Refused::from(error.reason()))?;
        let (row, task) = self.may_end_lease(&authority, id, rows)?;
        self.end_one(id, row, task, cause, actor, reason).await
    }

    /// As [`Flow::may_end_lease`], from what memory knows of the lease and its task; a `false` is
    /// put to the rows, which decide and say why.
    fn may_end_live(&self, authority: &Authority, id: LeaseId, lease: &Lease) -> bool {
        match authority {
            Authority::Handle { task } => lease.task == *task,
            Authority::Operator { .. } | Authority::Workload { .. } | Authority::Verifier { .. } => {
                authority.holds("leases:end") && self.may_see_lease(authority, "leases:end", id, lease)
            }
        }
    }

    fn may_end_lease(
        &self,
        authority: &Authority,
        id: LeaseId,
        rows: Option<(LeaseRow, TaskRow)>,
    ) -> Result<(LeaseRow, TaskRow), Refused> {
        if let Authority::Handle { task } = authority {
            return rows.filter(|(row, _)| row.task == *task).ok_or_else(|| Reason::NotFound.into());
        }
        if !authority.holds("leases:end") {
            return Err(Reason::Scope.into());
        }
        let (row, task) = rows.ok_or(Reason::NotFound)?;
        let text = id.to_string();
        let facts = RowFacts { kind: RowKind::Lease, target: &row.target, ..task_facts(&task, &text) };
        if self.may(authority, "leases:end", &facts) { Ok((row, task)) } else { Err(Reason::NotFound.into()) }
    }

    /// RFC 7009 by possession: ends that lease only. Unknown tokens are `Ok`.
    pub async fn revoke_presented(&self, token: &Presented) -> Result<(), Refused> {
        // SECURITY: everybody sees a certificate, so having one proves nothing;
        // t_136_a_certificate_is_not_revoked_by_whoever_has_seen_it
        if matches!(Named::read(token.expose()), Some(Named::Certificate(_))) {
            return Err(Reason::TokenType.into());
        }
        let now = self.time.now();
        let Some((id, lease, _)) = self.lease_of(token) else { return Ok(()) };
        if self.over(&lease, now).is_none() {
            self.table.mark_lease(id, End { at: now.at, cause: Cause::Presented, seq: None });
            self.end(lease_group(id, "bearer".to_owned(), None)).await?;
        }
        Ok(())
    }

    /// The same with a proof. RFC 7009 clients send none, and whoever finds a leaked token shall be able
    /// to end it, so a bound token needs none here (`a_leaked_bound_token_is_ended_without_its_key`);
    /// but one that is sent is not ignored.
    pub async fn revoke_with_proof(&self, token: &Presented, possession: &Possession) -> Result<(), Refused> {
        let now = self.time.now();
        let proof = self.read_proof(possession, None, now)?;
        // Strangers' proofs cost neither a signature check nor room in the memory of used ones.
        if self.lease_of(token).is_none() {
            return Ok(());
        }
        // Another key than the token's ends it as well as no key.
        self.hold(Held::Free, Some(proof), None, now)?.map_err(|_| Reason::Dpop)?;
        self.revoke_presented(token).await
    }

    /// Whether nothing needs to be written to keep a lease from living on, and what ended it. An
    /// end that is not durable yet does not count, nor an expiry by a wall clock that jumped.
    // SECURITY: `an_end_that_is_not_durable_is_not_acknowledged_by_another_door`.
    fn over(&self, lease: &Lease, now: Now) -> Option<Option<End>> {
        match self.table.lease_state(lease, now) {
            (State::Ended, Some(end)) if end.seq.is_some() => Some(Some(end)),
            (State::Expired, _) if lease.expires <= now.at => Some(None),
            _ => None,
        }
    }

    async fn end_one(
        &self,
        id: LeaseId,
        row: LeaseRow,
        task: TaskRow,
        cause: Cause,
        actor: String,
        reason: Option<String>,
    ) -> Result<EndAnswer, Refused> {
        let now = self.time.now();
        let Some(lease) = self.table.lease(id) else {
            // Written, and not yet in memory: the commit that issued it is about to be applied.
            let expired = row.expires <= now.at;
            return if expired { Ok(self.answer_kept_lease(&row, &task, now)) } else { Err(Reason::Busy.into()) };
        };
        self.end_live(id, &lease, cause, actor, reason).await
    }

    async fn end_live(
        &self,
        id: LeaseId,
        lease: &Lease,
        cause: Cause,
        actor: String,
        reason: Option<String>,
    ) -> Result<EndAnswer, Refused> {
        let now = self.time.now();
        if let Some(end) = self.over(lease, now) {
            return Ok(self.answer_lease(id, lease, end, now));
        }
        self.table.mark_lease(id, End { at: now.at, cause, seq: None });
        let end = self.end(lease_group(id, actor, reason)).await?;
        Ok(self.answer_lease(id, lease, Some(end), now))
    }

    /// Hands an end that is already in force to the writer. No await lies between the mark and
    /// this, so a caller that goes away cannot leave an end that is never written.
    async fn end(&self, mut group: EndGroup) -> Result<End, Refused> {
        let (ack, ended) = oneshot::channel();
        group.acks.push(ack);
        self.push_end(group);
        let answer = tokio::time::timeout(COMMIT_WITHIN, ended).await;
        let answer = answer.ok().and_then(Result::ok).unwrap_or(Err(NotCommitted::Store));
        answer.map_err(|failed| match failed {
            NotCommitted::Gone => Reason::NotFound.into(),
            NotCommitted::Store
            | NotCommitted::OtherBundle
            | NotCommitted::OtherJob
            | NotCommitted::OtherKey
            | NotCommitted::OtherEnds
            | NotCommitted::Overtaken(_)
            | NotCommitted::Released => Reason::NotDurable.into(),
        })
    }

    async fn answer_task(&self, id: TaskId, end: Option<End>, now: Now) -> Result<EndAnswer, Refused> {
        let state = if end.is_some() { State::Ended } else { State::Expired };
        let mut leases_ended = 0;
        let mut channels = Vec::new();
        if let Some(end) = end {
            leases_ended = self.leases_ended_by(end).await?;
            if let Some(task) = self.table.task(id) {
                let leases = self.table.ended_with(&task, end.at);
                channels = self.channels(leases.iter(), end.at, self.is_shown(&task.leases));
            }
        }
        metrics::histogram!("dayfly_end_propagation_seconds", "channel" => "introspection")
            .record((self.time.now().at.as_ms() - now.at.as_ms()).max(0) as f64 / 1000.0);
        let (cause, ended_at) = (end.map(|end| end.cause), end.map(|end| end.at));
        Ok(EndAnswer { id: id.to_string(), state, cause, ended_at, leases_ended, channels })
    }

    /// The count that its event recorded: the same for whoever asks again.
    async fn leases_ended_by(&self, end: End) -> Result<u64, Refused> {
        let Some(seq) = end.seq else { return Err(Reason::NotDurable.into()) };
        let reader = self.reader.clone();
        let event = offload(move || reader.event_at(seq)).await.map_err(|_| Reason::Internal)?;
        let event = event.map_err(|error| Refused::from(error.reason()))?;
        let body = event.and_then(|row| serde_json::from_slice::<ledger::Body>(&row.body).ok());
        Ok(body.and_then(|body| body.count).unwrap_or_default())
    }

    fn answer_lease(&self, id: LeaseId, lease: &Lease, end: Option<End>, now: Now) -> EndAnswer {
        let (state, channels) = match end {
            Some(end) => (State::Ended, self.channels([lease].into_iter(), end.at, self.is_shown(&[id]))),
            None => (State::Expired, Vec::new()),
        };
        EndAnswer {
            id: id.to_string(),
            state,
            cause: end.map(|end| end.cause),
            ended_at: end.map(|end| end.at.min(now.at)),
            leases_ended: u64::from(end.is_some()),
            channels,
        }
    }

    /// A lease that memory has forgotten: it is over, one way or the other.
    fn answer_kept_lease(&self, row: &LeaseRow, task: &TaskRow, now: Now) -> EndAnswer {
        let ends = [row.end, task.end].into_iter().flatten().filter(|end| end.at < row.expires);
        let end: Option<End> = ends.min_by_key(|end| end.at).map(|end: EndRow| end.into());
        EndAnswer {
            id: row.id.to_string(),
            state: if end.is_some() { State::Ended } else { State::Expired },
            cause: end.map(|end| end.cause),
            ended_at: end.map(|end| end.at.min(now.at)),
            leases_ended: u64::from(end.is_some()),
            channels: Vec::new(),
        }
    }

    /// Whether whoever fetches status lists or CRLs now reads in them that these have ended.
    fn is_shown(&self, leases: &[LeaseId]) -> bool {
        let now = self.time.now().at;
        self.lists_show(leases, now) && self.crls_show(leases, now)
    }

    /// `shown`: their status lists and CRLs show it.
    fn channels<'a>(&self, leases: impl Iterator<Item = &'a Lease>, at: UnixMs, shown: bool) -> Vec<Known> {
        let policy = self.policy.load();
        let known = leases.map(|lease| {
            let target = policy.bundle().targets.get(&*lease.target);
            revoke::known(target.map_or(UNKNOWN_TARGET, Checking::from), at, lease.expires, shown)
        });
        revoke::merged(known)
    }
}

/// Of a target that the bundle no longer has, nothing better can be promised.
pub(super) const UNKNOWN_TARGET: Checking =
    Checking { verifies: Verifies::ExpOnly, cache_s: 10, leeway_s: 30, list_life_s: 0 };

fn cause_of(authority: &Authority) -> Cause {
    match authority {
        Authority::Handle { .. } => Cause::Completed,
        Authority::Operator { .. } | Authority::Workload { .. } | Authority::Verifier { .. } => Cause::Revoked,
    }
}

fn lease_group(id: LeaseId, actor: String, reason: Option<String>) -> EndGroup {
    EndGroup { what: What::Lease(id), actor, reason, block: false, acks: Vec::new() }
}

pub(super) fn task_facts<'a>(row: &'a TaskRow, id: &'a str) -> RowFacts<'a> {
    RowFacts {
        kind: RowKind::Task,
        id,
        owner: &row.owner,
        template: &row.template,
        workload: &row.workload,
        environment: &row.environment,
        target: "",
    }
}
