//! What the verbs want committed, and how it reaches the writer.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use dayfly_domain::{BlockId, LeaseId, TaskId, UnixMs, bundle::Fingerprint};
use tokio::sync::oneshot;

use super::{
    Shared,
    mass::{Slice, TombGroup},
    swap::Swap,
};
use crate::{
    lease::{End, Label, Limits, Overtaken, Seen},
    ledger::Entry as Event,
    store::{LeaseRow, StoreError, TaskRow},
};

/// Law L6: an issue that cannot be recorded is refused within this.
pub const COMMIT_WITHIN: Duration = Duration::from_millis(1_800);

/// Why the store cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoreFault {
    pub why: String,
    /// Changes of the largest batch that did not fit; 0 where room was not what is missing.
    pub unfit: usize,
    /// When the log last said so.
    told: Instant,
}

/// A store that stays so is told about so often: ends are tried four times a second.
const TOLD_EACH: Duration = Duration::from_secs(60);

impl StoreFault {
    /// Near a full disk a small write fits where a batch does not: it says nothing.
    // SECURITY: `readiness_does_not_flap_near_a_full_disk`
    fn after(before: Option<&Self>, written: &Result<(), StoreError>, changes: usize, now: Instant) -> Option<Self> {
        let unfit = before.map_or(0, |before| before.unfit);
        let told = before.map(|before| before.told).filter(|told| now.duration_since(*told) < TOLD_EACH);
        match written {
            Ok(()) => before.filter(|_| changes < unfit).cloned(),
            Err(error) => {
                let unfit = if matches!(error, StoreError::Full) { unfit.max(changes) } else { unfit };
                Some(Self { why: error.to_string(), unfit, told: told.unwrap_or(now) })
            }
        }
    }

    /// Says that it began, once a minute that it lasts, and that it is over.
    fn tell(before: Option<&Self>, after: Option<&Self>) {
        match (before, after) {
            (Some(_), None) => tracing::info!("the store can be written again"),
            (before, Some(fault)) if before.map(|before| before.told) != Some(fault.told) => {
                tracing::error!(error = fault.why, "a commit failed; nothing of it is in force but ends");
            }
            _ => {}
        }
    }
}

/// Groups that may wait.
pub const QUEUE_MAX: usize = 4096;

/// What a request wants committed.
#[derive(Debug)]
pub(super) enum Group {
    Issue(Box<IssueGroup>),
    End(EndGroup),
    Tomb(TombGroup),
    Behind(Slice),
    /// Refusals or ends are waiting in [`Shared::records`], [`Shared::ends`] and [`Shared::mass`].
    Wake,
    Swap(Box<Swap>),
    /// Written and acknowledged like any other; for events without rows.
    Note(Event, oneshot::Sender<Result<(), NotCommitted>>),
    /// A block until then, and its event.
    Block(Event, Label, UnixMs, oneshot::Sender<Result<(), NotCommitted>>),
    /// An event whose id is remembered under this word.
    Remember(Event, String, oneshot::Sender<Result<(), NotCommitted>>),
    /// A word, and what is to be remembered under it.
    Word(String, String, oneshot::Sender<Result<(), NotCommitted>>),
    /// Takes a block away, with its event; refused when it does not stand any more.
    Lift(BlockId, String, oneshot::Sender<Result<(), NotCommitted>>),
    /// A task whose first beat came.
    Hold(TaskId, oneshot::Sender<Result<(), NotCommitted>>),
    Prune,
    /// Writes how often entitlements were used.
    Count,
    /// Tries whether the store can be written again.
    Probe,
    Stop,
}

/// A task to open, or one to feed, with the credential and the events of the decision.
#[derive(Debug)]
pub(super) struct IssueGroup {
    pub decided_under: Fingerprint,
    /// What the decision knew of the job, where a policy looks at it.
    pub seen: Option<Seen>,
    /// Ends by selector that had been asked when it was decided.
    pub ends_asked: u64,
    pub task: Subject,
    pub lease: Option<LeaseRow>,
    /// In order; the last one is where the answer points.
    pub events: Vec<Event>,
    /// End this task's earlier leases of the target so many seconds from now.
    pub supersede_s: Option<u8>,
    pub ack: oneshot::Sender<Result<u64, NotCommitted>>,
}

#[derive(Debug)]
pub(super) enum Subject {
    Open { row: Box<TaskRow>, limits: Limits },
    Feed(TaskId),
}

/// An end that already counts in memory.
#[derive(Debug)]
pub(super) struct EndGroup {
    pub what: What,
    pub actor: String,
    pub reason: Option<String>,
    /// With a task: also refuse the same work until its deadline.
    pub block: bool,
    /// Whoever waits for it. Empty once they were answered; the group itself stays until it is
    /// durable.
    pub acks: Vec<oneshot::Sender<Result<End, NotCommitted>>>,
}

impl EndGroup {
    /// Of what is asked to end twice before it is durable, one end is kept. An end that blocks is
    /// another than one that does not.
    pub fn key(&self) -> (What, bool) {
        (self.what, self.block)
    }

    /// Takes over who waits for the same end; those who have gone are forgotten.
    pub fn join(&mut self, other: Self) {
        self.acks.extend(other.acks);
        self.acks.retain(|ack| !ack.is_closed());
    }
}

/// Ends that are in force and not yet written, in the order in which they came, each once: while
/// the store cannot be written, no one can make them more than there are live leases and tasks.
// SECURITY: `ends_asked_again_and_again_while_the_disk_is_full_take_no_more_room`.
#[derive(Debug, Default)]
pub(super) struct Ends {
    order: VecDeque<(What, bool)>,
    groups: HashMap<(What, bool), EndGroup>,
}

impl Ends {
    pub fn push(&mut self, group: EndGroup) {
        match self.groups.entry(group.key()) {
            Entry::Occupied(mut held) => held.get_mut().join(group),
            Entry::Vacant(room) => {
                self.order.push_back(*room.key());
                room.insert(group);
            }
        }
    }

    pub fn take(&mut self, max: usize) -> Vec<EndGroup> {
        let keys = self.order.drain(..self.order.len().min(max));
        keys.filter_map(|key| self.groups.remove(&key)).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum What {
    Task(TaskId),
    Lease(LeaseId),
}

/// Why a group is not on the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotCommitted {
    #[error("overtaken: {0}")]
    Overtaken(#[from] Overtaken),
    #[error("decided under a bundle that is no longer the current one")]
    OtherBundle,
    #[error("signed with a key that was tainted meanwhile")]
    OtherKey,
    #[error("decided before an end by selector that was asked meanwhile")]
    OtherEnds,
    #[error("the job holds something else than when it was decided")]
    OtherJob,
    #[error("the store cannot be written")]
    Store,
    #[error("there is no such thing in memory")]
    Gone,
    #[error("ended between the commit and the answer")]
    Released,
}

impl NotCommitted {
    /// Whether it was turned away before anything of it was written.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Overtaken(_) | Self::OtherBundle | Self::OtherKey | Self::OtherEnds | Self::OtherJob => true,
            Self::Store | Self::Gone | Self::Released => false,
        }
    }
}

/// Groups in order; of ends of the same thing only the first, which answers for all.
pub(super) fn each_end_once(groups: impl Iterator<Item = Group>) -> VecDeque<Group> {
    let mut places = HashMap::new();
    let mut tombs = HashMap::new();
    let mut kept: VecDeque<Group> = VecDeque::new();
    for group in groups {
        if let Group::Tomb(tomb) = group {
            let at = *tombs.entry(tomb.number).or_insert(kept.len());
            match kept.get_mut(at) {
                Some(Group::Tomb(first)) => first.join(tomb),
                _ => kept.push_back(Group::Tomb(tomb)),
            }
            continue;
        }
        let Group::End(end) = group else {
            kept.push_back(group);
            continue;
        };
        let at = *places.entry(end.key()).or_insert(kept.len());
        match kept.get_mut(at) {
            Some(Group::End(first)) => first.join(end),
            _ => kept.push_back(Group::End(end)),
        }
    }
    kept
}

impl Shared {
    /// Queues an end. Ends are never refused for want of room: there are no more than what lives.
    pub(super) fn push_end(&self, group: EndGroup) {
        lock(&self.ends).push(group);
        // A full queue means that the writer is awake anyway.
        let _ = self.queue.try_send(Group::Wake);
    }

    pub(super) fn take_ends(&self, max: usize) -> Vec<EndGroup> {
        lock(&self.ends).take(max)
    }

    pub(super) fn has_ends(&self) -> bool {
        !lock(&self.ends).is_empty()
    }

    /// Remembers whether the store could be written, for readiness: so many changes, or room for them.
    pub(super) fn note_write(&self, written: &Result<(), StoreError>, changes: usize) {
        let before = self.store_fault.load();
        let after = StoreFault::after((**before).as_ref(), written, changes, Instant::now());
        StoreFault::tell((**before).as_ref(), after.as_ref());
        self.store_fault.store(Arc::new(after));
    }

    /// Puts a group into the writer's queue and waits for what becomes of it.
    pub(super) async fn submit<T>(
        &self,
        group: Group,
        answer: oneshot::Receiver<Result<T, NotCommitted>>,
    ) -> Result<T, NotCommitted> {
        let durable = async {
            self.queue.send(group).await.map_err(|_| NotCommitted::Store)?;
            answer.await.map_err(|_| NotCommitted::Store)?
        };
        tokio::time::timeout(COMMIT_WITHIN, durable).await.map_err(|_| NotCommitted::Store)?
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(number: u8, block: bool) -> (EndGroup, oneshot::Receiver<Result<End, NotCommitted>>) {
        let (ack, answer) = oneshot::channel();
        let what = What::Task(TaskId::from_parts(1, [number; 10]));
        (EndGroup { what, actor: "handle".into(), reason: None, block, acks: vec![ack] }, answer)
    }

    #[test]
    fn a_store_that_cannot_be_written_is_told_about_once_a_minute() {
        let began = Instant::now();
        let full = |before: Option<&StoreFault>, after_s| {
            StoreFault::after(before, &Err(StoreError::Full), 1, began + Duration::from_secs(after_s)).unwrap()
        };
        let first = full(None, 0);
        assert_eq!(first.told, began);
        let later = full(Some(&first), 59);
        assert_eq!(later.told, began, "not again");
        assert_eq!(full(Some(&later), 60).told, began + Duration::from_secs(60));
    }

    #[test]
    fn readiness_does_not_flap_near_a_full_disk() {
        let mut fault: Option<StoreFault> = None;
        let mut note = |written: Result<(), StoreError>, changes| {
            fault = StoreFault::after(fault.as_ref(), &written, changes, Instant::now());
            fault.is_none()
        };
        assert!(note(Ok(()), 1));
        assert!(!note(Err(StoreError::Full), 12));
        assert!(!note(Ok(()), 1) && !note(Ok(()), 11), "less fits: that says nothing");
        assert!(!note(Err(StoreError::Full), 3) && !note(Ok(()), 11), "a smaller one did not fit either");
        assert!(note(Ok(()), 12), "as much fits again");
        assert!(!note(Err(StoreError::Io(10)), 12));
        assert!(note(Ok(()), 1), "it was not for space");
    }

    #[test]
    fn ends_asked_again_and_again_while_the_disk_is_full_take_no_more_room() {
        let mut ends = Ends::default();
        let waiting: Vec<_> = (0..1_000).map(|number| end(number as u8 % 2, number % 4 < 2)).collect();
        let mut answers = Vec::new();
        for (group, answer) in waiting {
            ends.push(group);
            answers.push(answer);
        }
        assert_eq!((ends.order.len(), ends.groups.len()), (4, 4));
        answers.truncate(8);
        ends.push(end(0, true).0);
        let taken = ends.take(3);
        assert_eq!((taken.len(), ends.take(9).len(), ends.is_empty()), (3, 1, true));
        assert!(taken[0].acks.len() <= 3, "who has gone away is forgotten: {}", taken[0].acks.len());
        assert!(taken.iter().all(|group| !group.acks.is_empty()));
    }
}
