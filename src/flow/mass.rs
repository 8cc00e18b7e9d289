//! What ends by selector share: who has asked and waits for the record, which rows are behind, and
//! whose turn it is. The verb is `select`, the writer's side `tombs`.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use dayfly_domain::{BlockId, UnixMs};
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::group::NotCommitted;
use crate::lease::BehindRow;

/// Rows that are caught up in one commit; others come in between.
pub const SLICE_ROWS: usize = 256;
/// Callers over the network that wait for their turn to end by selector; one more is told to come again.
pub const WAITING_MAX: usize = 16;

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
    turn: Arc<tokio::sync::Mutex<LastMass>>,
    waiting: AtomicUsize,
}

/// When the last end was that ended so much that it is an alarm. Callers over the network cannot keep the
/// operators on the machine waiting.
#[derive(Debug, Default)]
pub(super) struct LastMass {
    pub local: Option<UnixMs>,
    pub remote: Option<UnixMs>,
}

/// A place in the row of those who wait.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Mass {
    /// Ends by selector take turns: what one counts, another one does not end meanwhile. Nobody takes up a
    /// thread while they wait.
    // SECURITY: `many_looks_at_once_take_up_no_more_than_one_thread`.
    pub async fn turn(&self) -> OwnedMutexGuard<LastMass> {
        self.turn.clone().lock_owned().await
    }

    /// `None`: too many wait already.
    pub fn place(&self) -> Option<Place<'_>> {
        let place = Place(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::AcqRel) < WAITING_MAX).then_some(place)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_looks_at_once_take_up_no_more_than_one_thread() {
        let mass = Mass::default();
        let places: Vec<_> = (0..WAITING_MAX).map(|_| mass.place().unwrap()).collect();
        assert!(mass.place().is_none(), "one more is told to come again");
        let turn = mass.turn().await;
        assert!(mass.turn.try_lock().is_err(), "the others wait before they have a thread");
        drop((places, turn));
        assert!(mass.place().is_some() && mass.turn.try_lock().is_ok());
    }
}
