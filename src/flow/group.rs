//! What the verbs want committed, and how it reaches the writer.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use dayfly_domain::{LeaseId, TaskId, UnixMs, bundle::Fingerprint};
use tokio::sync::oneshot;

use super::{Shared, swap::Swap};
use crate::{
    lease::{End, Label, Overtaken},
    ledger::Entry,
    store::{LeaseRow, StoreError, TaskRow},
};

/// Law L6: an issue that cannot be recorded is refused within this.
pub(super) const COMMIT_WITHIN: Duration = Duration::from_millis(1_800);

/// Groups that may wait.
pub(super) const QUEUE_MAX: usize = 4096;

/// What a request wants committed.
#[derive(Debug)]
pub(super) enum Group {
    Issue(Box<IssueGroup>),
    End(EndGroup),
    /// Refusals or ends are waiting in [`Shared::records`] and [`Shared::ends`].
    Wake,
    Swap(Box<Swap>),
    /// Written and acknowledged like any other; for events without rows.
    Note(Entry, oneshot::Sender<Result<(), NotCommitted>>),
    /// A block until then, and its event.
    Block(Entry, Label, UnixMs, oneshot::Sender<Result<(), NotCommitted>>),
    Prune,
    /// Tries whether the store can be written again.
    Probe,
    Stop,
}

/// A task to open, or one to feed, with the credential and the events of the decision.
#[derive(Debug)]
pub(super) struct IssueGroup {
    pub decided_under: Fingerprint,
    pub task: Subject,
    pub lease: Option<LeaseRow>,
    /// In order; the last one is where the answer points.
    pub events: Vec<Entry>,
    /// End this task's earlier leases of the target so many seconds from now.
    pub supersede_s: Option<u8>,
    pub ack: oneshot::Sender<Result<u64, NotCommitted>>,
}

#[derive(Debug)]
pub(super) enum Subject {
    Open { row: Box<TaskRow>, per_job: u32 },
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
    /// Gone once it was answered; the group itself stays until it is durable.
    pub ack: Option<oneshot::Sender<Result<End, NotCommitted>>>,
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
    #[error("the store cannot be written")]
    Store,
    #[error("there is no such thing in memory")]
    Gone,
    #[error("ended between the commit and the answer")]
    Released,
}

impl Shared {
    /// Queues an end. Ends are never refused for want of room: there are no more than live leases.
    pub(super) fn push_end(&self, group: EndGroup) {
        lock(&self.ends).push_back(group);
        // A full queue means that the writer is awake anyway.
        let _ = self.queue.try_send(Group::Wake);
    }

    pub(super) fn take_ends(&self, max: usize) -> Vec<EndGroup> {
        let mut ends = lock(&self.ends);
        let count = ends.len().min(max);
        ends.drain(..count).collect()
    }

    pub(super) fn has_ends(&self) -> bool {
        !lock(&self.ends).is_empty()
    }

    /// Remembers whether the store could be written, for readiness.
    pub(super) fn note_write(&self, written: &Result<(), StoreError>) {
        self.store_fault.store(Arc::new(written.as_ref().err().map(ToString::to_string)));
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
