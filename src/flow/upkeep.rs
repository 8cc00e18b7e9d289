//! What happens by itself: forgetting what expired, pruning, rotating keys, settling refusals,
//! checkpoints, gauges. `run` calls it; nothing here spawns.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use dayfly_domain::Name;
use tokio::sync::oneshot;

use dayfly_domain::UnixMs;

use super::{Flow, Shared, commit::Writer, group::Group};
use crate::{
    ledger::{self, KeyRotation, Stamp},
    mint::KeyState,
    policy::Policy,
    store::{Change, Checkpointer, PruneBefore},
    sys::offload::offload,
};

/// Rows dropped, and ids forgotten, in one slice.
pub const SLICE: usize = 1_000;
/// What is written to learn whether there is room again, at most.
pub const ROOM_MAX_BYTES: u64 = 8 << 20;
/// How long rows of what is over are kept for reading.
const KEEP_S: i64 = 24 * 3600;

/// The broker's own work. One caller at a time.
#[derive(Debug)]
pub struct Upkeep {
    pub(super) flow: Flow,
    checkpointer: Arc<Mutex<Checkpointer>>,
    /// Those whose keys the gauges show.
    issuers: Mutex<BTreeSet<Name>>,
    /// Owners that the gauges of quotas show.
    owners: Mutex<BTreeSet<Arc<str>>>,
}

impl Upkeep {
    pub(super) fn new(flow: Flow, checkpointer: Checkpointer) -> Self {
        Self {
            flow,
            checkpointer: Arc::new(Mutex::new(checkpointer)),
            issuers: Mutex::default(),
            owners: Mutex::default(),
        }
    }

    /// Every second: memory forgets what expired, in bounded slices; shared refusals whose minute
    /// is over are written; gauges.
    pub fn each_second(&self) {
        let now = self.flow.time.now();
        if now.safe {
            while self.flow.table.forget_expired(now, SLICE) >= SLICE {}
        }
        self.flow.end_lost_holds(now);
        self.flow.settle_lists(now);
        self.flow.settle_refusals(now.at, false);
        if self.flow.store_fault.load().is_some() {
            // Whoever stays away while the broker is not ready would never bring the write that
            // shows that it is again. A full queue is tried again in a second.
            let _ = self.flow.queue.try_send(Group::Probe);
        }
        metrics::gauge!("dayfly_clock_safe").set(f64::from(u8::from(now.safe)));
        self.flow.gauge_issuers(&mut self.issuers.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Every second: CRLs that read differently, or are old. A fetch does the same.
    pub async fn press_crls(&self) {
        if self.flow.press_crls().await.is_err() {
            tracing::error!("CRLs could not be looked at; the last ones go on");
        }
    }

    /// Every ten seconds: what takes a look at every lease; how often entitlements were used.
    pub fn each_ten_seconds(&self) {
        let _ = self.flow.queue.try_send(Group::Count);
        let now = self.flow.time.now();
        self.flow.tidy_lists(now.at);
        self.flow.gauge_crls();
        self.flow.table.release_over(now);
        self.flow.gauge_quotas(&mut self.owners.lock().unwrap_or_else(PoisonError::into_inner));
        let active = self.flow.table.active_leases(now);
        metrics::gauge!("dayfly_leases_active", "kind" => "jwt").set(active as f64);
    }

    /// Every ten seconds, and at once after the start: what was tainted and could not be recorded then.
    pub async fn record_taints(&self) {
        self.flow.record_taints().await;
    }

    /// Every minute: keys, checkpoints, pruning.
    pub async fn each_minute(&self) {
        self.rotate().await;
        self.flow.lapse_rows(&self.flow.policy.load(), self.flow.time.now().at);
        let checkpointer = self.checkpointer.clone();
        let checkpoint = move || checkpointer.lock().unwrap_or_else(PoisonError::into_inner).checkpoint();
        if let Ok(Err(error)) = offload(checkpoint).await {
            tracing::warn!(%error, "no checkpoint");
        }
        let life_s = i64::from(self.flow.policy.load().bundle().longest_life().as_s());
        // A clock that was wrong at start must not make the broker forget: prune only when older
        // than the longest life in the bundle.
        if self.flow.time.now().safe && self.flow.time.uptime_ms() > life_s * 1000 {
            let _ = self.flow.queue.try_send(Group::Prune);
        }
    }

    async fn rotate(&self) {
        let now = self.flow.time.now();
        if !now.safe {
            return;
        }
        match self.flow.keyring.rotate(now.at) {
            Ok(Some(rotation)) => self.flow.record_rotation(&rotation.from, &rotation.to, None).await,
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "keys were not rotated; the old ones go on"),
        }
        match self.flow.list_keys.rotate(now.at) {
            Ok(Some(rotation)) => self.flow.record_rotation(&rotation.from, &rotation.to, None).await,
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "keys of status lists were not rotated; the old ones go on"),
        }
        self.flow.rotate_cas().await;
        for key in self.flow.keyring.view() {
            if let (KeyState::Active, Some(until)) = (key.state, key.until) {
                metrics::gauge!("dayfly_signing_key_expiry_timestamp_seconds").set(until.as_s() as f64);
            }
        }
    }

    /// Before the end of the process: what is collapsed is written, then the writer stops.
    pub async fn shut_down(&self) {
        self.flow.settle_refusals(self.flow.time.now().at, true);
        // A writer that is gone already has nothing left to stop.
        let _ = self.flow.queue.send(Group::Stop).await;
    }
}

impl Writer {
    /// Writes what nobody reads, to learn whether the disk takes it: a row, and as much as the batch
    /// that did not fit.
    pub(super) fn probe(&mut self) {
        let now = self.shared.time.now();
        let unfit = self.shared.store_fault.load().as_ref().as_ref().map_or(0, |fault| fault.unfit);
        let room = if unfit == 0 { Ok(()) } else { self.store.try_room(room_bytes(unfit)) };
        let row = Change::Meta("probe".to_owned(), now.at.to_string());
        let written = room.and_then(|()| self.store.write(&[row], now.at));
        self.shared.note_write(&written, unfit);
    }

    /// Drops rows that nobody asks for any more, a slice at a time.
    pub(super) fn prune(&mut self) {
        let now = self.shared.time.now();
        let before = now.at.plus_s(-KEEP_S);
        let pruned = self.store.prune(PruneBefore { tasks: before, leases: before, now: now.at }, SLICE);
        match pruned {
            Ok(0) => {}
            Ok(count) => {
                tracing::debug!(count, "pruned");
                if count >= SLICE {
                    // There may be more: behind what waits meanwhile, or with the next minute.
                    let _ = self.shared.queue.try_send(Group::Prune);
                }
            }
            Err(error) => tracing::warn!(%error, "nothing was pruned"),
        }
    }
}

impl Shared {
    /// Rows whose review is overdue by more than the grace permit nothing from here on.
    pub(super) fn lapse_rows(&self, policy: &Policy, now: UnixMs) {
        for row in policy.lapse(now, self.review_grace) {
            tracing::warn!(%row, grace = %self.review_grace, "the row is past its review date and its grace: it permits nothing new");
        }
        let (overdue, lapsed) = (policy.bundle().overdue(now).count(), policy.lapsed_rows());
        metrics::gauge!("dayfly_rows_overdue", "state" => "lapsed").set(lapsed as f64);
        metrics::gauge!("dayfly_rows_overdue", "state" => "in_grace").set(overdue.saturating_sub(lapsed) as f64);
    }
}

/// The room that a batch of so many changes may take: of few, each touches its own pages of the
/// table and its indexes; of many, most share them.
fn room_bytes(changes: usize) -> u64 {
    const PAGE_BYTES: u64 = 4_096;
    ((changes as u64 + 32) * PAGE_BYTES).min(ROOM_MAX_BYTES)
}

impl Flow {
    /// `usage`: of what the key is, where it is not task tokens or lists.
    pub(super) async fn record_rotation(&self, from: &str, to: &str, usage: Option<&str>) {
        let Ok(stamp) = Stamp::draw(self.time.now().at) else { return };
        let (ack, noted) = oneshot::channel();
        let note = Group::Note(ledger::key_rotated(stamp, &KeyRotation { from, to, usage }), ack);
        if self.submit(note, noted).await.is_err() {
            tracing::error!("a key rotation is not on the record");
        }
    }

    /// How many tasks are live. Looks at every one of them.
    pub fn live_tasks(&self) -> usize {
        self.table.active_tasks(self.time.now())
    }
}
