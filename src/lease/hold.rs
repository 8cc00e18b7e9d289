//! Which tasks are held, and when each hold lapses: the client beats, and a task whose client is
//! silent for its grace ends.
//!
//! In: beats, each a store of one number, and the clock of the process, in milliseconds of its
//! uptime. Never the wall clock: moving it ends nothing and revives nothing. Out: those whose grace
//! is over, or none while so many are silent at once that the broker's own side must be at fault.
//!
//! As with expiry there is no timer for each: a calendar has one bucket per second, and what it gives
//! is looked at again. A grace belongs to the template, so it is asked when a bucket comes due.

use std::collections::BTreeMap;

use dayfly_domain::{Span, TaskId, bundle::GRACE_LEAST};

use crate::sys::sync::{
    DashMap, Mutex, MutexGuard,
    atomic::{AtomicI64, Ordering},
};

/// Silent at once are no storm up to this many, however few beat.
pub const STORM_LEAST: usize = 20;
/// Nor up to this share of those that beat.
pub const STORM_PERCENT: usize = 10;
/// How long a storm keeps lost holds from ending their tasks.
pub const STORM_S: u32 = 60;
/// A look this much later than the last one means that the broker itself was away.
pub const AWAY_MS: i64 = 4_000;
/// Looked at, and ended, in one slice.
pub const SLICE: usize = 1_000;
/// Ended in one second at most: what a storm leaves to be ended does not keep others from it.
pub const ENDED_EACH_MAX: usize = 5_000;

/// How far a lapse counts into the next ones, at most: longer graces lapse together no later.
const COUNTED_MS: i64 = 60_000;

/// Tasks that beat.
#[derive(Debug, Default)]
pub struct Holds {
    /// When each beat last.
    held: DashMap<TaskId, AtomicI64>,
    calendar: Mutex<Calendar>,
    /// Every grace began at this moment, or later.
    anew_ms: AtomicI64,
    /// When the last look was.
    looked_ms: AtomicI64,
    watch: Mutex<Watch>,
}

/// Ids by the second in which they are to be looked at.
type Calendar = BTreeMap<i64, Vec<TaskId>>;

/// What tells a storm from jobs that die.
#[derive(Debug, Default)]
struct Watch {
    /// How many lapsed, by the moment until which they count.
    lapsed: BTreeMap<i64, usize>,
    /// Until when nothing ends.
    storm: Option<i64>,
    /// To be ended, and more than one look ends.
    left: Vec<(TaskId, Span)>,
}

/// What is to become of the silent.
struct Verdict {
    storm: Option<Storm>,
    /// They are kept until then.
    until_ms: Option<i64>,
    /// But for those whose grace was over by then: they have had their time.
    spared_ms: i64,
}

/// What one look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// To be ended, each with its grace.
    pub lapsed: Vec<(TaskId, Span)>,
    pub storm: Option<Storm>,
    /// The broker was away: every grace has begun anew.
    pub away_ms: Option<i64>,
}

/// What begins or ends with a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storm {
    /// So many of those that beat are silent at once.
    Began { silent: usize, beating: usize },
    /// Those that are still silent end now.
    Over,
}

/// How a hold stands, in milliseconds of the uptime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// `None`: not since the broker started.
    pub last_ms: Option<i64>,
    pub lapses_ms: i64,
}

impl Holds {
    /// A task whose first beat is on the record. Its grace begins now, as far as the last look tells.
    pub(super) fn begin(&self, id: TaskId) {
        if self.is_held(id) {
            return;
        }
        self.held.insert(id, AtomicI64::new(NEVER));
        // Looked at as early as any grace may be over.
        let at = self.looked_ms.load(Ordering::Relaxed).max(self.anew_ms.load(Ordering::Relaxed));
        put(&mut lock(&self.calendar), at + GRACE_LEAST.as_ms(), id);
    }

    /// What has ended is held no more; the calendar notices when it comes by.
    pub(super) fn release(&self, id: TaskId) {
        self.held.remove(&id);
    }

    /// Remembers a beat. `false`: this task has not begun to beat.
    // SECURITY: `a_beat_and_a_lapse_do_not_both_win`: it is stored while the hold cannot be taken away.
    pub fn beat(&self, id: TaskId, now_ms: i64) -> bool {
        self.held.get(&id).is_some_and(|last| {
            last.fetch_max(now_ms, Ordering::Relaxed);
            true
        })
    }

    pub fn is_held(&self, id: TaskId) -> bool {
        self.held.contains_key(&id)
    }

    /// How many tasks beat.
    pub fn beating(&self) -> usize {
        self.held.len()
    }

    /// Whether lost holds end nothing now.
    pub fn storm(&self) -> bool {
        lock(&self.watch).storm.is_some()
    }

    /// How one task's hold stands.
    pub fn held(&self, id: TaskId, grace: Span) -> Option<Held> {
        let last = self.held.get(&id)?.load(Ordering::Relaxed);
        let lapses_ms = self.lapses(last, grace).max(lock(&self.watch).storm.unwrap_or(i64::MIN));
        Some(Held { last_ms: (last != NEVER).then_some(last), lapses_ms })
    }

    /// Which holds have lapsed. To be called every second, by one caller. `grace_of` says what the
    /// grace of a task is, and `None` of one that need not be held any more.
    // SECURITY: `a_storm_of_lost_holds_ends_nothing_for_a_minute`, `a_broker_that_was_away_starts_every_grace_anew`.
    pub fn look(&self, now_ms: i64, grace_of: impl Fn(TaskId) -> Option<Span>) -> Look {
        let before_ms = self.looked_ms.swap(now_ms.max(1), Ordering::Relaxed);
        if before_ms == 0 || now_ms - before_ms > AWAY_MS {
            self.begin_anew(now_ms);
            let away_ms = (before_ms != 0 && self.beating() > 0).then_some(now_ms - before_ms);
            return Look { away_ms, ..Look::default() };
        }
        let silent = self.silent(now_ms, grace_of);
        let (mut due, storm) = self.weigh(now_ms, silent);
        lock(&self.watch).left = due.split_off(due.len().min(ENDED_EACH_MAX));
        let lapsed = due.into_iter().filter(|&(id, grace)| self.lapse(id, grace, now_ms)).collect();
        Look { lapsed, storm, away_ms: None }
    }

    fn begin_anew(&self, now_ms: i64) {
        self.anew_ms.store(now_ms, Ordering::Relaxed);
        let Watch { left, storm, .. } = std::mem::take(&mut *lock(&self.watch));
        let mut calendar = lock(&self.calendar);
        // What a storm put off is looked at as early as any grace may be over.
        let kept = storm.and_then(|until_ms| calendar.remove(&second(until_ms))).unwrap_or_default();
        let waiting = left.into_iter().map(|(id, _)| id).chain(kept);
        waiting.for_each(|id| put(&mut calendar, now_ms + GRACE_LEAST.as_ms(), id));
    }

    /// Those that are to end, with those left over before; in a storm the silent have to wait for its end.
    fn weigh(&self, now_ms: i64, silent: Vec<Silent>) -> (Vec<(TaskId, Span)>, Option<Storm>) {
        let mut watch = lock(&self.watch);
        let Verdict { storm, until_ms, spared_ms } = watch.weigh(now_ms, &silent, self.held.len());
        let mut due = std::mem::take(&mut watch.left);
        drop(watch);
        let mut calendar = lock(&self.calendar);
        for Silent { id, grace, at_ms } in silent {
            match until_ms {
                Some(until_ms) if at_ms > spared_ms => put(&mut calendar, until_ms, id),
                _ => due.push((id, grace)),
            }
        }
        (due, storm)
    }

    /// Takes a hold away, unless a beat came while it was looked at.
    fn lapse(&self, id: TaskId, grace: Span, now_ms: i64) -> bool {
        let over = |last: &AtomicI64| self.lapses(last.load(Ordering::Relaxed), grace) <= now_ms;
        let lapsed = self.held.remove_if(&id, |_, last| over(last)).is_some();
        if let Some(last_ms) = self.held.get(&id).map(|last| last.load(Ordering::Relaxed)) {
            put(&mut lock(&self.calendar), self.lapses(last_ms, grace), id);
        }
        lapsed
    }

    /// Those whose grace is over, out of the calendar; the others go back to where they belong.
    fn silent(&self, now_ms: i64, grace_of: impl Fn(TaskId) -> Option<Span>) -> Vec<Silent> {
        let mut silent = Vec::new();
        loop {
            let due = take(&mut lock(&self.calendar), now_ms, SLICE);
            let last = due.len() < SLICE;
            for id in due {
                let Some(beat_ms) = self.held.get(&id).map(|last| last.load(Ordering::Relaxed)) else { continue };
                let Some(grace) = grace_of(id) else {
                    self.release(id);
                    continue;
                };
                match self.lapses(beat_ms, grace) {
                    at_ms if at_ms <= now_ms => silent.push(Silent { id, grace, at_ms }),
                    at_ms => put(&mut lock(&self.calendar), at_ms, id),
                }
            }
            if last {
                return silent;
            }
        }
    }

    fn lapses(&self, last_ms: i64, grace: Span) -> i64 {
        last_ms.max(self.anew_ms.load(Ordering::Relaxed)) + grace.as_ms()
    }
}

/// A task whose grace is over, since when.
struct Silent {
    id: TaskId,
    grace: Span,
    at_ms: i64,
}

impl Watch {
    /// Counts what has lapsed, and says whether a storm begins, lasts or is over.
    fn weigh(&mut self, now_ms: i64, silent: &[Silent], beating: usize) -> Verdict {
        let lasting = self.storm.filter(|until_ms| now_ms < *until_ms);
        if lasting.is_some() {
            return Verdict { storm: None, until_ms: lasting, spared_ms: i64::MIN };
        }
        let over = self.storm.take();
        let spared_ms = over.unwrap_or(i64::MIN);
        self.lapsed = self.lapsed.split_off(&(now_ms + 1));
        let before: usize = self.lapsed.values().sum();
        // What was spared ends, whatever its number: a real mass death is only put off.
        for lapse in silent.iter().filter(|lapse| lapse.at_ms > spared_ms) {
            *self.lapsed.entry(now_ms + lapse.grace.as_ms().min(COUNTED_MS)).or_default() += 1;
        }
        let (counted, beating) = (self.lapsed.values().sum(), beating + before);
        if counted == before || counted <= STORM_LEAST.max(beating * STORM_PERCENT / 100) {
            return Verdict { storm: over.map(|_| Storm::Over), until_ms: None, spared_ms };
        }
        // A whole second: whoever is spared comes up in the very look that finds the storm over.
        let until_ms = second(now_ms + i64::from(STORM_S) * 1_000) * 1_000;
        (self.storm, self.lapsed) = (Some(until_ms), BTreeMap::new());
        Verdict { storm: Some(Storm::Began { silent: counted, beating }), until_ms: Some(until_ms), spared_ms }
    }
}

/// No beat since the start.
const NEVER: i64 = i64::MIN;

fn put(calendar: &mut Calendar, at_ms: i64, id: TaskId) {
    calendar.entry(second(at_ms)).or_default().push(id);
}

/// Rounded up: nothing is looked at before it can have lapsed.
fn second(at_ms: i64) -> i64 {
    (at_ms + 999).div_euclid(1_000)
}

/// At most `max` of what is due, the earliest first.
fn take(calendar: &mut Calendar, now_ms: i64, max: usize) -> Vec<TaskId> {
    let mut due = Vec::new();
    while due.len() < max {
        let Some(mut bucket) = calendar.first_entry().filter(|bucket| bucket.key() * 1_000 <= now_ms) else { break };
        let from = bucket.get().len().saturating_sub(max - due.len());
        due.extend(bucket.get_mut().drain(from..));
        if bucket.get().is_empty() {
            bucket.remove();
        }
    }
    due
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
