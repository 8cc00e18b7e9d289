//! A bundle takes the place of another: as a whole, as an event, and what the new one no longer
//! carries ends before anything else is admitted.

use std::sync::Arc;

use dayfly_domain::{Cause, LeaseId, bundle::Fingerprint};
use tokio::sync::oneshot;

use super::{
    Flow, Shared,
    bundle::Loaded,
    commit::{Writer, numbered},
    group::{COMMIT_WITHIN, EndGroup, Group, What},
};
use crate::{
    lease::{End, Now},
    ledger::{self, BundleSwap, CURRENT_BUNDLE, Outcome, SEEN_BUNDLE, Stamp},
    policy::Policy,
    store::{Change, Reader, StoreError},
};

/// A bundle on its way in.
pub(super) struct Swap {
    pub policy: Arc<Policy>,
    pub actor: String,
    pub ack: oneshot::Sender<Result<Swapped, NotSwapped>>,
}

impl std::fmt::Debug for Swap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swap").field("to", &self.policy.bundle().fingerprint).finish_non_exhaustive()
    }
}

/// What a swap did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swapped {
    pub from: Option<Fingerprint>,
    pub to: Fingerprint,
    pub rollback: bool,
    /// Tasks and single leases that the new bundle no longer carries.
    pub ended: usize,
}

/// Why the old bundle stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSwapped {
    #[error("the bundle is not usable: {0}")]
    Bundle(String),
    #[error("the bundle was active before and was replaced; `strict_rollback` refuses to go back to it")]
    Rollback,
    #[error("the swap cannot be recorded: {0}")]
    Store(String),
}

impl Flow {
    /// Loads the bundle again. A bad one never replaces a good one; readiness then shows why.
    pub async fn load_bundle(&self, actor: &str) -> Result<Swapped, NotSwapped> {
        let source = self.source.clone();
        let loaded = crate::sys::offload::offload(move || source.load()).await;
        let swapped = match loaded {
            Ok(Ok(loaded)) => self.swap(loaded, actor).await,
            Ok(Err(problems)) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Err(NotSwapped::Bundle(lines.join("; ")))
            }
            Err(unfinished) => Err(NotSwapped::Bundle(unfinished.to_string())),
        };
        let fault = swapped.as_ref().err().map(ToString::to_string);
        if let Some(fault) = &fault {
            tracing::error!(%fault, "the bundle was not loaded; the old one stays");
            self.note_refused_load(actor, fault).await;
        }
        self.bundle_fault.store(Arc::new(fault));
        swapped
    }

    async fn swap(&self, loaded: Loaded, actor: &str) -> Result<Swapped, NotSwapped> {
        for lint in &loaded.lints {
            tracing::warn!(%lint, "the bundle loads, but look at this");
        }
        let (ack, swapped) = oneshot::channel();
        let swap = Swap { policy: Arc::new(loaded.policy), actor: actor.to_owned(), ack };
        let gone = |_| NotSwapped::Store("the writer has stopped".to_owned());
        self.queue.send(Group::Swap(Box::new(swap))).await.map_err(|_| gone(()))?;
        swapped.await.map_err(|_| gone(()))?
    }

    async fn note_refused_load(&self, actor: &str, fault: &str) {
        let Ok(stamp) = Stamp::draw(self.time.now().at) else { return };
        let what = [("problem", fault.chars().take(2_000).collect())].into();
        let entry = ledger::operator(stamp, Outcome::Refused, actor, "bundle_load", &what);
        let (ack, noted) = oneshot::channel();
        let _ = tokio::time::timeout(COMMIT_WITHIN, self.queue.send(Group::Note(entry, ack))).await;
        if !matches!(tokio::time::timeout(COMMIT_WITHIN, noted).await, Ok(Ok(Ok(())))) {
            tracing::warn!("a refused load is not on the record");
        }
    }
}

impl Writer {
    /// Records the swap, makes the bundle the current one, ends what it no longer carries.
    /// Nothing else is admitted in between: this is the writer's own thread.
    pub(super) fn swap(&mut self, swap: Swap) {
        let Swap { policy, actor, ack } = swap;
        let swapped = self.swap_to(policy, &actor);
        if let Err(error) = &swapped {
            tracing::error!(%error, "the bundle was not swapped");
        }
        // Whoever asked may have gone away; the log has the outcome.
        let _ = ack.send(swapped);
    }

    pub(super) fn swap_to(&mut self, policy: Arc<Policy>, actor: &str) -> Result<Swapped, NotSwapped> {
        let now = self.shared.time.now();
        let to = policy.bundle().fingerprint;
        let recorded = recorded(&self.shared.reader).map_err(store)?;
        let from = recorded.as_deref().and_then(fingerprint_of);
        let known = self.shared.reader.meta(&format!("{SEEN_BUNDLE}{to}")).map_err(store)?.is_some();
        let changed = recorded.as_deref() != Some(to.to_string().as_str());
        let rollback = changed && known;
        if rollback && self.shared.strict_rollback {
            return Err(NotSwapped::Rollback);
        }
        if changed {
            self.record_swap(&BundleSwap { from, to, rollback }, actor, now)?;
        }
        self.shared.policy.store(policy);
        let ends = self.shared.no_longer_carried(now);
        let ended = ends.len();
        self.end_all(ends);
        Ok(Swapped { from, to, rollback, ended })
    }

    fn record_swap(&mut self, swap: &BundleSwap, actor: &str, now: Now) -> Result<(), NotSwapped> {
        let stamp = Stamp::draw(now.at).map_err(|error| NotSwapped::Store(error.to_string()))?;
        let mut seq = self.store.next_seq();
        let mut changes = numbered(vec![ledger::bundle_swapped(stamp, swap, actor)], &mut seq);
        changes.push(Change::Meta(CURRENT_BUNDLE.to_owned(), swap.to.to_string()));
        changes.push(Change::Meta(format!("{SEEN_BUNDLE}{}", swap.to), now.at.to_string()));
        let written = self.store.write(&changes, now.at);
        self.shared.note_write(&written);
        written.map_err(store)
    }
}

impl Shared {
    /// Marks and lists what the current bundle no longer carries, cause `policy`.
    fn no_longer_carried(&self, now: Now) -> Vec<EndGroup> {
        let policy = self.policy.load();
        let mut ends = Vec::new();
        for (id, task) in self.table.live_tasks(now) {
            if !policy.survives(&task.issuer, &task.template, &task.row, &task.owner) {
                ends.extend(self.end_by_policy(What::Task(id), now));
                continue;
            }
            let gone =
                |lease: &LeaseId| self.table.lease(*lease).is_some_and(|lease| !policy.survives_target(&lease.target));
            let leases = self.table.live_leases(&task, None, now).into_iter().filter(gone);
            ends.extend(leases.filter_map(|lease| self.end_by_policy(What::Lease(lease), now)));
        }
        ends
    }

    fn end_by_policy(&self, what: What, now: Now) -> Option<EndGroup> {
        let end = End { at: now.at, cause: Cause::Policy, seq: None };
        let marked = match what {
            What::Task(id) => self.table.mark_task(id, end),
            What::Lease(id) => self.table.mark_lease(id, end),
        };
        marked?;
        Some(EndGroup { what, actor: "bundle".to_owned(), reason: None, block: false, ack: None })
    }
}

/// The fingerprint that the store says decided last.
pub(super) fn recorded(reader: &Reader) -> Result<Option<String>, StoreError> {
    reader.meta(CURRENT_BUNDLE)
}

fn fingerprint_of(hex: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(Fingerprint(bytes))
}

fn store(error: StoreError) -> NotSwapped {
    NotSwapped::Store(error.to_string())
}
