//! What ends by selector share: who has asked and waits for the record, which rows are behind, and
//! whose turn it is. The verb is `select`, the writer's side `tombs`.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dayfly_domain::{BlockId, UnixMs};
use tokio::sync::oneshot;

use super::group::NotCommitted;
use crate::lease::BehindRow;

/// Rows that are caught up in one commit; others come in between.
pub const SLICE_ROWS: usize = 256;

/// An end by selector that already counts in memory.
#[derive(Debug)]
pub(super) struct TombGroup {
    /// The mark in the lease table.
    pub number: u64,
    pub actor: String,
    pub reason: Option<String>,
    pub leases: u64,
    pub tasks: u64,
    /// The block that is to be written with it.
    pub block: Option<BlockId>,
    /// Whoever waits for it. Empty once they were answered; the group itself stays until it is durable.
    pub acks: Vec<oneshot::Sender<Result<u64, NotCommitted>>>,
}

impl TombGroup {
    pub fn join(&mut self, other: Self) {
        self.acks.extend(other.acks);
        self.acks.retain(|ack| !ack.is_closed());
    }

    pub fn reply(&mut self, answer: Result<u64, NotCommitted>) {
        for ack in self.acks.drain(..) {
            // A caller that has gone away needs no answer.
            let _ = ack.send(answer);
        }
    }
}

/// Rows of one tomb that are to say that they ended, or the word that none is behind any more.
#[derive(Debug)]
pub(super) struct Slice {
    pub seq: u64,
    pub rows: Vec<BehindRow>,
    pub last: bool,
}

#[derive(Debug, Default)]
pub(super) struct Mass {
    asked: Mutex<Vec<TombGroup>>,
    behind: Mutex<VecDeque<Slice>>,
    /// Ends by selector take turns: what one counts, another one does not end meanwhile. In it: when
    /// the last one was that ended so much that it is an alarm.
    turn: Mutex<Option<UnixMs>>,
}

impl Mass {
    pub fn turn(&self) -> MutexGuard<'_, Option<UnixMs>> {
        lock(&self.turn)
    }

    pub fn ask(&self, group: TombGroup) {
        let mut asked = lock(&self.asked);
        match asked.iter_mut().find(|other| other.number == group.number) {
            Some(first) => first.join(group),
            None => asked.push(group),
        }
    }

    pub fn take_asked(&self) -> Vec<TombGroup> {
        std::mem::take(&mut *lock(&self.asked))
    }

    /// A slice for the next batch.
    pub fn take_slice(&self) -> Option<Slice> {
        lock(&self.behind).pop_front()
    }

    pub fn catch_up(&self, slices: impl IntoIterator<Item = Slice>) {
        lock(&self.behind).extend(slices);
    }

    pub fn is_catching_up(&self) -> bool {
        !lock(&self.behind).is_empty()
    }

    pub fn waits(&self) -> bool {
        !lock(&self.asked).is_empty() || self.is_catching_up()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
