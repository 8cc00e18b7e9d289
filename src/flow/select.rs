//! The end by selector: everything that is meant ends at once, whatever the number, and is refused
//! from then on until an operator lifts that. Safe to repeat; what would end may be looked at first.

use std::{collections::BTreeMap, sync::Arc};

use dayfly_domain::{BlockId, Cause, EventId, LeaseId, Matcher, Reason, Selector, TaskId, UnixMs};
use tokio::sync::oneshot;

use super::{
    Flow,
    group::{COMMIT_WITHIN, Group, NotCommitted},
    introspect::Authority,
    known::require_known,
    mass::{LastMass, TombGroup},
    words::{Caller, LeaseView, Refused},
};
use crate::{
    lease::{Now, SAMPLE_MAX, Survey, Tomb},
    ledger::Body,
    policy::{RowFacts, RowKind},
    revoke::{self, Checking, Known},
    sys::{entropy, offload::offload},
};

/// From so many leases on, an end is an alarm, and one a minute.
pub const MASS_LEASES: u64 = 1_000;
/// So is what ends more than one live lease of so many, when it ends more than the next figure.
pub const MASS_ONE_OF: u64 = 5;
pub const MASS_SMALL: u64 = 20;
/// Between two such ends.
pub const MASS_PAUSE_S: i64 = 60;
/// Blocks that stand until they are lifted: each is held against everything that is asked.
pub const STANDING_BLOCKS_MAX: usize = 1_000;
/// Ends by selector that are not yet on the record, or whose rows are behind.
pub const TOMBS_MAX: usize = 256;

/// The right that it takes.
const END: &str = "leases:end";

/// What is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndBySelector {
    pub selector: Selector,
    pub reason: Option<String>,
    /// Only tells what would end.
    pub dry_run: bool,
    /// What whoever asks has seen: of another number nothing ends.
    pub expected: Option<u64>,
    /// Refuse what it means until that is lifted.
    pub block: bool,
}

/// What ended, or would end.
#[derive(Debug, Clone)]
pub struct MassEnd {
    /// The event that says so; `None`: nothing was done.
    pub event: Option<EventId>,
    pub block: Option<BlockId>,
    pub cause: Cause,
    pub ended_at: Option<UnixMs>,
    pub leases: u64,
    pub tasks: u64,
    /// Some of the leases.
    pub sample: Vec<LeaseView>,
    pub channels: Vec<Known>,
    /// Of each target, by name, when the last server believes in none of the leases any more, at worst.
    pub worst_case: BTreeMap<String, UnixMs>,
}

#[derive(Debug, Clone)]
pub enum EndedBySelector {
    Ended(Box<MassEnd>),
    NotEnded(NotEnded),
}

/// Why nothing ended although the caller may do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotEnded {
    #[error("{found} live leases match now, {expected} were expected; nothing was ended")]
    OtherCount { expected: u64, found: u64 },
    #[error("another end of so many was less than a minute ago")]
    TooSoon { retry_after_s: u32 },
    #[error("{STANDING_BLOCKS_MAX} blocks stand already; lift those that are no longer needed, or send `block: false`")]
    TooManyBlocks,
}

impl NotEnded {
    pub fn reason(self) -> Reason {
        match self {
            Self::OtherCount { .. } => Reason::Count,
            Self::TooSoon { .. } => Reason::Mass,
            Self::TooManyBlocks => Reason::Blocks,
        }
    }
}

/// Who ends, and why.
struct Asking {
    authority: Option<Authority>,
    actor: String,
    cause: Cause,
}

impl Asking {
    /// Whether it came with a token, and not over the socket of this machine or from the broker itself.
    fn is_remote(&self) -> bool {
        self.authority.as_ref().is_some_and(|authority| !matches!(authority, Authority::Operator { .. }))
    }
}

/// What came of it in memory.
enum Step {
    /// It changes nothing, or is on the record already.
    Told(MassEnd),
    /// In force, and on its way to the record.
    Asked(Arc<Tomb>, Survey, oneshot::Receiver<Result<u64, NotCommitted>>),
}

enum Halt {
    Refused(Refused),
    NotEnded(NotEnded),
}

impl<T: Into<Refused>> From<T> for Halt {
    fn from(refused: T) -> Self {
        Self::Refused(refused.into())
    }
}

impl Flow {
    /// `POST /v1/end`.
    pub async fn end_by_selector(&self, caller: &Caller, ask: EndBySelector) -> Result<EndedBySelector, Refused> {
        let authority = self.authority(caller).await?;
        if !authority.holds(END) {
            return Err(Reason::Scope.into());
        }
        if ask.selector.is_empty() {
            let hint = "an empty filter names everything: name what is to end, for instance `owner`".to_owned();
            return Err(Refused { hint: Some(hint), ..Reason::Invalid.into() });
        }
        self.require_reach(&authority, &ask.selector)?;
        require_known(&self.policy.load(), &ask.selector, matches!(authority, Authority::Operator { .. }))?;
        let asking = Asking { actor: authority.actor(), authority: Some(authority), cause: Cause::Revoked };
        self.end_selected(asking, ask).await
    }

    /// Ends whatever a key signed. What it signed in passing is refused because it is tainted.
    pub(super) async fn end_by_key(
        &self,
        actor: String,
        kid: &str,
        reason: Option<String>,
    ) -> Result<EndedBySelector, Refused> {
        let selector = Selector { key: Some(kid.to_owned()), ..Selector::default() };
        let asking = Asking { authority: None, actor, cause: Cause::KeyTainted };
        self.end_selected(asking, EndBySelector { selector, reason, dry_run: false, expected: None, block: false })
            .await
    }

    async fn end_selected(&self, asking: Asking, ask: EndBySelector) -> Result<EndedBySelector, Refused> {
        let place = if asking.is_remote() { Some(self.mass.place().ok_or(Reason::Busy)?) } else { None };
        let (flow, mut last) = (self.clone(), self.mass.turn().await);
        // The mark and what hands it to the writer are one piece of work: a caller that goes away
        // cannot leave an end that is never written. The turn is over when the work is.
        let step = offload(move || flow.end_now(&asking, &ask, &mut last)).await.map_err(|_| Reason::Internal)?;
        drop(place);
        match step {
            Ok(Step::Told(told)) => Ok(EndedBySelector::Ended(Box::new(told))),
            Ok(Step::Asked(tomb, found, durable)) => {
                let answer = tokio::time::timeout(COMMIT_WITHIN, durable).await;
                let seq = answer.ok().and_then(Result::ok).unwrap_or(Err(NotCommitted::Store));
                let seq = seq.map_err(|_| Reason::NotDurable)?;
                let flow = self.clone();
                let told =
                    offload(move || flow.recorded_end(&tomb, seq, &found)).await.map_err(|_| Reason::Internal)?;
                Ok(EndedBySelector::Ended(Box::new(told?)))
            }
            Err(Halt::NotEnded(why)) => Ok(EndedBySelector::NotEnded(why)),
            Err(Halt::Refused(refused)) => Err(refused),
        }
    }

    /// On a thread of its own: counts, marks, and hands the mark to the writer.
    fn end_now(&self, asking: &Asking, ask: &EndBySelector, last: &mut LastMass) -> Result<Step, Halt> {
        let now = self.time.now();
        if !ask.dry_run
            && let Some(step) = self.ended_before(asking, ask, now)?
        {
            return Ok(step);
        }
        let matcher = Matcher::new(ask.selector.clone());
        let found = self.look(asking, &matcher, now)?;
        if ask.dry_run {
            return Ok(Step::Told(self.would_end(asking, &found, now)?));
        }
        if let Some(expected) = ask.expected.filter(|expected| *expected != found.leases) {
            return Err(Halt::NotEnded(NotEnded::OtherCount { expected, found: found.leases }));
        }
        self.has_room(asking, ask)?;
        if is_mass(&found) {
            let last = if asking.is_remote() { &mut last.remote } else { &mut last.local };
            self.alarm(asking, ask, &found, last, now)?;
        }
        let block = match ask.block {
            true => Some(BlockId::from_parts(now.at.as_ms().max(0) as u64, entropy::bytes().map_err(|_| Reason::Key)?)),
            false => None,
        };
        let tomb = self.table.ask_tomb(ask.selector.clone(), now.at, asking.cause, ask.block);
        // What came between the look and the mark has ended with the rest.
        let found = self.table.ended_by(&tomb, now);
        let durable = self.hand_over(&tomb, asking, ask, block, &found);
        Ok(Step::Asked(tomb, found, durable))
    }

    fn hand_over(
        &self,
        tomb: &Tomb,
        asking: &Asking,
        ask: &EndBySelector,
        block: Option<BlockId>,
        found: &Survey,
    ) -> oneshot::Receiver<Result<u64, NotCommitted>> {
        let (ack, durable) = oneshot::channel();
        let (actor, reason) = (asking.actor.clone(), ask.reason.clone());
        let (leases, tasks) = (found.leases, found.tasks);
        self.mass.ask(TombGroup { number: tomb.number, actor, reason, leases, tasks, block, acks: vec![ack] });
        // A full queue means that the writer is awake anyway.
        let _ = self.queue.try_send(Group::Wake);
        durable
    }

    /// The same was asked before, and is on its way to the record, or still stands as a block.
    // SECURITY: `the_same_end_again_is_the_same_answer_and_no_second_event`.
    fn ended_before(&self, asking: &Asking, ask: &EndBySelector, now: Now) -> Result<Option<Step>, Refused> {
        let selector = &ask.selector;
        // One that blocks less, or ends for another cause, is another one.
        let same = |tomb: &Arc<Tomb>| {
            let asked = (tomb.matcher.selector(), tomb.end.cause) == (selector, asking.cause);
            asked && tomb.end.seq.is_none() && (tomb.blocks || !ask.block)
        };
        let pending = self.table.tombs().into_iter().find(same);
        if let Some(tomb) = pending {
            let (ack, durable) = oneshot::channel();
            let (number, actor) = (tomb.number, asking.actor.clone());
            self.mass.ask(TombGroup { number, actor, reason: None, leases: 0, tasks: 0, block: None, acks: vec![ack] });
            let _ = self.queue.try_send(Group::Wake);
            let found = self.table.ended_by(&tomb, now);
            return Ok(Some(Step::Asked(tomb, found, durable)));
        }
        let Some(block) = self.table.standing_block(selector) else { return Ok(None) };
        let found = self.table.ended_at_seq(block.seq, now);
        Ok(Some(Step::Told(self.told(block.seq, &found)?)))
    }

    /// What is meant and live; refused as a whole when the caller may not end all of it.
    // SECURITY: `whoever_does_not_reach_all_that_is_meant_ends_nothing`.
    fn look(&self, asking: &Asking, matcher: &Matcher, now: Now) -> Result<Survey, Halt> {
        let mut all = true;
        let judged = asking.authority.as_ref().filter(|authority| self.judges_rows(authority));
        let found = self.table.meant(matcher, now, |lease, task, target| {
            all &= judged.is_none_or(|authority| self.may_end_meant(authority, lease, task, target));
        });
        if all { Ok(found) } else { Err(Reason::Scope.into()) }
    }

    /// Whether anything but being the local operator decides.
    fn judges_rows(&self, authority: &Authority) -> bool {
        !matches!(authority, Authority::Operator { .. }) || self.policy.load().has_written_rights(END)
    }

    fn may_end_meant(&self, authority: &Authority, lease: Option<LeaseId>, id: TaskId, target: &str) -> bool {
        let Some(task) = self.table.task(id) else { return false };
        let text = lease.map_or_else(|| id.to_string(), |lease| lease.to_string());
        let facts = RowFacts {
            kind: RowKind::Lease,
            id: &text,
            owner: &task.owner,
            template: &task.template,
            workload: &task.workload,
            environment: &task.environment,
            target,
        };
        self.may(authority, END, &facts)
    }

    /// Whoever is no local operator names an owner, and reaches all that the bundle in force lets that
    /// owner's templates give: a block speaks of what may come, not only of what is there.
    // SECURITY: `a_token_ends_by_selector_within_its_owner_and_no_further`.
    fn require_reach(&self, authority: &Authority, selector: &Selector) -> Result<(), Refused> {
        if matches!(authority, Authority::Operator { .. }) {
            return Ok(());
        }
        let Some(owner) = &selector.owner else {
            let hint = "a token ends by selector only what it reaches: name the `owner`".to_owned();
            return Err(Refused { hint: Some(hint), ..Reason::Scope.into() });
        };
        let policy = self.policy.load();
        let templates = policy.bundle().templates.values();
        let meant = |name: &str, wanted: &Option<String>| wanted.as_deref().is_none_or(|wanted| wanted == name);
        let own = templates.filter(|template| *template.owner == **owner && meant(&template.name, &selector.template));
        let facts = |template, target, environment| RowFacts {
            kind: RowKind::Lease,
            id: "lse_",
            owner,
            template,
            workload: selector.workload.as_deref().unwrap_or_default(),
            environment,
            target,
        };
        let mut all = self.may(authority, END, &facts("", "", ""));
        for template in own {
            for target in template.grants.keys().filter(|target| meant(target, &selector.target)) {
                let environment = policy.bundle().targets.get(target).map_or("", |target| &*target.environment);
                all &= self.may(authority, END, &facts(&template.name, target, environment));
            }
        }
        if all { Ok(()) } else { Err(Reason::Scope.into()) }
    }

    /// A key that others may have waits for no room, and callers over the network leave some to the
    /// operators on the machine.
    // SECURITY: `ends_over_the_network_leave_room_for_the_operators`.
    fn has_room(&self, asking: &Asking, ask: &EndBySelector) -> Result<(), Halt> {
        if asking.cause == Cause::KeyTainted {
            return Ok(());
        }
        let share = |most: usize| if asking.is_remote() { most / 2 } else { most };
        if ask.block && self.table.standing_blocks() >= share(STANDING_BLOCKS_MAX) {
            return Err(Halt::NotEnded(NotEnded::TooManyBlocks));
        }
        if self.table.tombs().len() >= share(TOMBS_MAX) {
            let hint = "too many ends by selector are still on their way to the record".to_owned();
            return Err(Refused { hint: Some(hint), ..Reason::Busy.into() }.into());
        }
        Ok(())
    }

    /// An end of very much is told aloud, and is one a minute: a second one is rarely meant. A key that
    /// others may have does not wait.
    fn alarm(
        &self,
        asking: &Asking,
        ask: &EndBySelector,
        found: &Survey,
        last: &mut Option<UnixMs>,
        now: Now,
    ) -> Result<(), Halt> {
        let free_at = last.map(|last| last.plus_s(MASS_PAUSE_S)).filter(|free_at| *free_at > now.at);
        if let (Some(free_at), Cause::Revoked) = (free_at, asking.cause) {
            let ms = free_at.as_ms() - now.at.as_ms();
            let retry_after_s = u32::try_from(ms.div_euclid(1_000) + 1).unwrap_or(1);
            return Err(Halt::NotEnded(NotEnded::TooSoon { retry_after_s }));
        }
        *last = Some(now.at);
        metrics::counter!("dayfly_mass_ends_total").increment(1);
        let (leases, tasks, live) = (found.leases, found.tasks, found.live);
        let (actor, selector) = (&asking.actor, &ask.selector);
        tracing::error!(leases, tasks, live, actor, %selector, "mass end: very much is ended at once");
        Ok(())
    }

    fn would_end(&self, asking: &Asking, found: &Survey, now: Now) -> Result<MassEnd, Refused> {
        let (channels, worst_case) = self.reaches(found, now.at);
        Ok(MassEnd {
            event: None,
            block: None,
            cause: asking.cause,
            ended_at: None,
            leases: found.leases,
            tasks: found.tasks,
            sample: self.shown(found, now)?,
            channels,
            worst_case,
        })
    }

    fn recorded_end(&self, tomb: &Tomb, seq: u64, found: &Survey) -> Result<MassEnd, Refused> {
        let told = self.told(seq, found)?;
        let ms = (self.time.now().at.as_ms() - tomb.end.at.as_ms()).max(0);
        metrics::histogram!("dayfly_end_propagation_seconds", "channel" => "introspection").record(ms as f64 / 1000.0);
        Ok(told)
    }

    /// What the event says: the same for whoever asks again.
    fn told(&self, seq: u64, found: &Survey) -> Result<MassEnd, Refused> {
        let row = self.reader.event_at(seq).map_err(|error| Refused::from(error.reason()))?.ok_or(Reason::Internal)?;
        let body: Body = serde_json::from_slice(&row.body).map_err(|_| Reason::Internal)?;
        let ended_at = body.ended_at.map_or(row.at, UnixMs::new);
        let (channels, worst_case) = self.reaches(found, ended_at);
        Ok(MassEnd {
            event: Some(row.id),
            block: body.block,
            cause: body.cause.unwrap_or(Cause::Revoked),
            ended_at: Some(ended_at),
            leases: body.count.unwrap_or_default(),
            tasks: body.tasks.unwrap_or_default(),
            sample: self.shown(found, self.time.now())?,
            channels,
            worst_case,
        })
    }

    fn shown(&self, found: &Survey, now: Now) -> Result<Vec<LeaseView>, Refused> {
        let mut views = Vec::with_capacity(SAMPLE_MAX);
        for id in &found.sample {
            let rows = self.reader.lease(*id).map_err(|error| Refused::from(error.reason()))?;
            let Some((row, task)) = rows else { continue };
            views.push(self.lease_view(row, &task, now).map_err(Refused::from)?);
        }
        Ok(views)
    }

    /// Law L12, over the lease of each target that would have lived longest.
    fn reaches(&self, found: &Survey, at: UnixMs) -> (Vec<Known>, BTreeMap<String, UnixMs>) {
        let mut all = Vec::new();
        let mut worst_case = BTreeMap::new();
        let policy = self.policy.load();
        // Whose places they have is not looked up: one list of this second is enough.
        let now = self.time.now().at;
        let shown = !self.lists.is_any_fresh(now) && self.crls_are_due(now);
        for lease in &found.longest {
            let target = policy.bundle().targets.get(&*lease.target);
            let checking = target.map_or(super::end::UNKNOWN_TARGET, Checking::from);
            let known = revoke::known(checking, at, lease.expires, shown);
            worst_case.insert(lease.target.to_string(), known.worst_case_at);
            all.push(known);
        }
        (revoke::merged(all), worst_case)
    }
}

fn is_mass(found: &Survey) -> bool {
    let Survey { leases, live, .. } = found;
    *leases > MASS_LEASES || *leases > MASS_SMALL && leases * MASS_ONE_OF > *live
}
