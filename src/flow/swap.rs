//! A bundle takes the place of another: as a whole, as an event, and what the new one no longer
//! carries ends before anything else is admitted.

use std::{collections::HashSet, sync::Arc};

use dayfly_domain::{
    Cause, Selector,
    bundle::{Fingerprint, Lint},
};
use tokio::sync::oneshot;

use super::{
    Shared,
    commit::{Writer, numbered},
    load::NotSwapped,
    simulate::fingerprint,
};
use crate::{
    lease::{Now, Origins},
    ledger::{self, BundleSwap, CURRENT_BUNDLE, SEEN_BUNDLE, Stamp},
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

/// What a swap did, and what is in force since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swapped {
    pub from: Option<Fingerprint>,
    pub to: Fingerprint,
    pub rollback: bool,
    /// Tasks and single leases that the new bundle no longer carries.
    pub ended: usize,
    pub carries: Carries,
    /// What loads and is probably not meant.
    pub lints: Vec<Lint>,
}

/// How much a bundle holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carries {
    pub issuers: usize,
    pub targets: usize,
    pub templates: usize,
    pub rows: usize,
    /// Tests of its own that it passed.
    pub tests: usize,
}

impl Carries {
    fn of(policy: &Policy) -> Self {
        let bundle = policy.bundle();
        Self {
            issuers: bundle.issuers.len(),
            targets: bundle.targets.len(),
            templates: bundle.templates.len(),
            rows: bundle.templates.values().map(|template| template.rows.len()).sum(),
            tests: bundle.tests.len(),
        }
    }
}

impl Writer {
    /// Records the swap, makes the bundle the current one, ends what it no longer carries.
    /// Nothing else is admitted in between: this is the writer's own thread.
    pub(super) fn swap(&mut self, swap: Swap) {
        let Swap { policy, actor, ack } = swap;
        let swapped = self.swap_to(policy, &actor);
        // Here and not where it is awaited: whoever asked may have gone away meanwhile.
        self.shared.note_load(swapped.as_ref().err());
        let _ = ack.send(swapped);
    }

    pub(super) fn swap_to(&mut self, policy: Arc<Policy>, actor: &str) -> Result<Swapped, NotSwapped> {
        let now = self.shared.time.now();
        let to = policy.bundle().fingerprint;
        let recorded = recorded(&self.shared.reader).map_err(store)?;
        let from = recorded.as_deref().and_then(fingerprint);
        let changed = recorded.as_deref() != Some(to.to_string().as_str());
        let rollback = goes_back(&self.shared.reader, to).map_err(store)?;
        if rollback && self.shared.strict_rollback {
            return Err(NotSwapped::Rollback);
        }
        let keep = self.keep(policy.bundle(), now).map_err(store)?;
        if changed {
            self.record_swap(&BundleSwap { from, to, rollback }, keep, actor, now)?;
        } else if let Some(keep) = keep {
            // Of a store from before bundles were kept.
            self.store.write(&[keep], now.at).map_err(store)?;
        }
        let carries = Carries::of(&policy);
        self.shared.keys.keep_only(&policy.bundle().issuers);
        self.shared.lapse_rows(&policy, now.at);
        let revocable = policy.revocable();
        self.shared.policy.store(policy);
        if self.shared.table.know(revocable) {
            self.shared.learn_claims().map_err(store)?;
        }
        let ended = self.end_selected(self.shared.no_longer_carried(now), Cause::Policy, "bundle", now);
        let ended = usize::try_from(ended).unwrap_or(usize::MAX);
        Ok(Swapped { from, to, rollback, ended, carries, lints: Vec::new() })
    }

    fn record_swap(
        &mut self,
        swap: &BundleSwap,
        keep: Option<Change>,
        actor: &str,
        now: Now,
    ) -> Result<(), NotSwapped> {
        let stamp = Stamp::draw(now.at).map_err(|error| NotSwapped::Store(error.to_string()))?;
        let mut seq = self.store.next_seq();
        let mut changes = numbered(vec![ledger::bundle_swapped(stamp, swap, actor)], &mut seq);
        changes.extend(keep);
        changes.push(Change::Meta(CURRENT_BUNDLE.to_owned(), swap.to.to_string()));
        changes.push(Change::Meta(format!("{SEEN_BUNDLE}{}", swap.to), now.at.to_string()));
        let written = self.store.write(&changes, now.at);
        self.shared.note_write(&written, changes.len());
        written.map_err(store)
    }
}

impl Shared {
    /// What may be ended by is another than before: of live tasks, which were opened under the old
    /// bundle, it is read from their rows.
    // SECURITY: `a_claim_that_becomes_revocable_ends_what_was_opened_before`.
    fn learn_claims(&self) -> Result<(), StoreError> {
        self.reader.snapshot(|snapshot| {
            snapshot.each_task(|row| {
                if row.end.is_none() {
                    self.table.learn(&row);
                }
            })
        })?
    }

    /// What the current bundle no longer carries and something live hangs on, one selector each.
    fn no_longer_carried(&self, now: Now) -> Vec<Selector> {
        let policy = self.policy.load();
        let Origins { tasks, leases } = self.table.origins(now);
        let mut gone = HashSet::new();
        gone.extend(tasks.iter().filter_map(|origin| taken_away(&policy, origin)));
        for (origin, row, target) in leases.iter().filter(|(origin, ..)| taken_away(&policy, origin).is_none()) {
            if !policy.survives_target(target) {
                gone.insert(Selector { target: word(target), ..Selector::default() });
            } else if !policy.permits_by(&origin[2], row) {
                gone.insert(of_row(&origin[2], row));
            }
        }
        gone.into_iter().collect()
    }
}

/// The widest thing that is gone.
fn taken_away(policy: &Policy, [issuer, owner, template, row]: &[Arc<str>; 4]) -> Option<Selector> {
    let none = Selector::default();
    if !policy.survives_issuer(issuer) {
        Some(Selector { issuer: word(issuer), ..none })
    } else if !policy.survives_owner(owner) {
        Some(Selector { owner: word(owner), ..none })
    } else if !policy.survives_template(template) {
        Some(Selector { template: word(template), ..none })
    } else if !policy.permits_by(template, row) {
        Some(of_row(template, row))
    } else {
        None
    }
}

fn of_row(template: &Arc<str>, row: &Arc<str>) -> Selector {
    Selector { template: word(template), row: word(row), ..Selector::default() }
}

fn word(word: &Arc<str>) -> Option<String> {
    Some(word.to_string())
}

/// Whether this bundle was in force before, and was replaced.
pub fn goes_back(reader: &Reader, to: Fingerprint) -> Result<bool, StoreError> {
    let changed = recorded(reader)?.as_deref() != Some(to.to_string().as_str());
    Ok(changed && reader.meta(&format!("{SEEN_BUNDLE}{to}"))?.is_some())
}

/// The fingerprint that the store says decided last.
pub fn recorded(reader: &Reader) -> Result<Option<String>, StoreError> {
    reader.meta(CURRENT_BUNDLE)
}

fn store(error: StoreError) -> NotSwapped {
    NotSwapped::Store(error.to_string())
}
