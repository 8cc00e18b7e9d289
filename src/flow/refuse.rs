//! Refusals of known workloads: each has a `denied` event and an id to tell, answered without
//! waiting for the commit. Of identical ones the first three in a minute are events; the rest
//! share one, whose id is fixed at the fourth.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use dayfly_domain::{EventId, Reason, TaskId, UnixMs, Workload, bundle::Fingerprint, may_hold_secret};

use super::{Shared, group::Group, words::Refused};
use crate::{
    ledger::{self, Asked, Context, Denial, Entry, Stamp},
    policy::{Ask, Comparison, What},
};

const EACH_MS: i64 = 60_000;
const SINGLE_MAX: u32 = 3;
/// Kinds of refusal remembered at once; beyond that they are only counted.
pub const KINDS_MAX: usize = 10_000;
/// Events that may wait for the writer.
pub const RECORDS_MAX: usize = 2_048;
/// Of each text that a refused ask is recorded with: what was asked is the caller's own text, and
/// up to a whole body long.
pub const ASKED_TEXT_MAX_CHARS: usize = 256;
/// Stands for a text that is not kept.
const WITHHELD: &str = "(withheld)";

/// A refusal with all that its event says.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub workload: Workload,
    pub ask: Ask,
    pub context: Context,
    pub reason: Reason,
    pub policies: Vec<String>,
    pub bundle: Fingerprint,
    pub task: Option<TaskId>,
    pub hint: Option<String>,
    /// For the caller's eyes.
    pub comparison: Option<Box<Comparison>>,
}

/// Identical refusals of the last minute.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    kinds: Mutex<HashMap<Kind, Slot>>,
    pub dropped: AtomicU64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    workload: std::sync::Arc<str>,
    template: String,
    reason: Reason,
    /// Of a conflict: each task shows its own.
    task: Option<TaskId>,
}

#[derive(Debug)]
struct Slot {
    since: UnixMs,
    seen: u32,
    shared: Option<(Stamp, Box<Refusal>, u64)>,
}

impl Shared {
    /// Records a refusal and answers it.
    pub(super) fn refuse(&self, mut refusal: Refusal, now: UnixMs) -> Refused {
        shorten(&mut refusal.ask);
        metrics::counter!("dayfly_denied_total", "reason" => refusal.reason.code()).increment(1);
        let (reason, hint) = (refusal.reason, refusal.hint.clone());
        let comparison = refusal.comparison.take();
        let decision = self.record_refusal(refusal, now);
        Refused { hint, decision, comparison, ..reason.into() }
    }

    fn record_refusal(&self, refusal: Refusal, now: UnixMs) -> Option<EventId> {
        let stamp = Stamp::draw(now).ok()?;
        let conflict = refusal.task.filter(|_| refusal.reason == Reason::Conflict);
        let alarm = conflict.map(|task| (task, refusal.workload.principal.clone()));
        match self.refusals.take(refusal, stamp, now) {
            Taken::Event(entry) => {
                let id = entry.id;
                // As often as the record has an event of its own: a thief who tries on fills no log.
                if let Some((task, workload)) = alarm {
                    tracing::warn!(%task, %workload, "evidence or a job showed a second key: one of the two may be a thief");
                }
                self.record(*entry).then_some(id)
            }
            Taken::Shared(id) => Some(id),
            Taken::Dropped => None,
        }
    }

    /// Hands an event to the writer without waiting; false when too many are waiting.
    fn record(&self, entry: Entry) -> bool {
        let mut records = lock(&self.records);
        if records.len() >= RECORDS_MAX {
            self.refusals.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("dayfly_refusals_dropped_total").increment(1);
            return false;
        }
        records.push(entry);
        drop(records);
        // A full queue means that the writer is awake anyway.
        let _ = self.queue.try_send(Group::Wake);
        true
    }

    pub(super) fn take_records(&self) -> Vec<Entry> {
        std::mem::take(&mut *lock(&self.records))
    }

    /// Writes the shared events whose minute is over; at shutdown, all of them.
    pub(super) fn settle_refusals(&self, now: UnixMs, all: bool) {
        for entry in self.refusals.settle(now, all) {
            self.record(entry);
        }
    }
}

enum Taken {
    Event(Box<Entry>),
    Shared(EventId),
    Dropped,
}

impl Refusals {
    fn take(&self, refusal: Refusal, stamp: Stamp, now: UnixMs) -> Taken {
        let kind = Kind {
            workload: refusal.workload.principal.clone(),
            template: refusal.ask.template.chars().take(64).collect(),
            reason: refusal.reason,
            task: refusal.task.filter(|_| refusal.reason == Reason::Conflict),
        };
        let mut kinds = lock(&self.kinds);
        if kinds.len() >= KINDS_MAX && !kinds.contains_key(&kind) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Taken::Dropped;
        }
        let slot = kinds.entry(kind).or_insert(Slot { since: now, seen: 0, shared: None });
        slot.seen = slot.seen.saturating_add(1);
        if slot.seen <= SINGLE_MAX {
            return Taken::Event(Box::new(entry(stamp, &refusal, None)));
        }
        let (shared, _, count) = slot.shared.get_or_insert_with(|| (stamp, Box::new(refusal), 0));
        *count += 1;
        Taken::Shared(shared.id)
    }

    fn settle(&self, now: UnixMs, all: bool) -> Vec<Entry> {
        let mut due = Vec::new();
        lock(&self.kinds).retain(|_, slot| {
            let over = all || now.as_ms() - slot.since.as_ms() >= EACH_MS;
            if over && let Some((stamp, refusal, count)) = slot.shared.take() {
                due.push(entry(stamp, &refusal, Some(count)));
            }
            !over
        });
        due
    }
}

/// What a caller wrote is kept as far as it is read, and not at all where a secret may be in it (law
/// L8): a handle sent as a scope is the client's mistake, and the record would be ours.
// SECURITY: `what_was_asked_is_kept_only_as_far_as_it_is_read`, `t_166_a_handle_sent_as_a_scope_is_not_kept`.
fn shorten(ask: &mut Ask) {
    let Ask { template, what, ttl_s: _, ticket } = ask;
    cut(template);
    ticket.iter_mut().for_each(cut);
    if let What::Credential { kind: _, resource, actions } = what {
        resource.iter_mut().for_each(cut);
        actions.iter_mut().flatten().for_each(cut);
    }
}

fn cut(text: &mut String) {
    if may_hold_secret(text) {
        WITHHELD.clone_into(text);
        return;
    }
    if let Some((end, _)) = text.char_indices().nth(ASKED_TEXT_MAX_CHARS) {
        *text = format!("{}...", &text[..end]);
    }
}

fn entry(stamp: Stamp, refusal: &Refusal, count: Option<u64>) -> Entry {
    let Refusal { workload, ask, context, reason, policies, bundle, task, hint: _, comparison: _ } = refusal;
    let asked = Asked { ask, context: context.clone() };
    let denial = Denial { workload, asked, reason: *reason, policies, bundle: *bundle, task: *task, count };
    ledger::denied(stamp, &denial)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use dayfly_domain::Claims;

    use super::*;

    const NOW: UnixMs = UnixMs::from_s(1_800_000_000);

    fn refusal(principal: &str) -> Refusal {
        let name = || "github".parse().unwrap();
        Refusal {
            workload: Workload {
                issuer: name(),
                profile: name(),
                principal: principal.into(),
                untrusted: false,
                job: None,
                claims: Claims::new(),
            },
            ask: Ask { template: "deploy".into(), what: What::TaskOnly, ttl_s: None, ticket: None },
            context: Context {
                ttl: 1,
                kind: "task".into(),
                binding: "bearer".into(),
                age_s: 0,
                ask: vec![],
                held: vec![],
            },
            reason: Reason::NoMatch,
            policies: vec![],
            bundle: Fingerprint([0; 32]),
            task: None,
            hint: None,
            comparison: None,
        }
    }

    fn take(refusals: &Refusals, principal: &str) -> Taken {
        refusals.take(refusal(principal), Stamp::draw(NOW).unwrap(), NOW)
    }

    #[test]
    fn what_was_asked_is_kept_only_as_far_as_it_is_read() {
        let mut ask = refusal("github/1").ask;
        ask.template = "é".repeat(60_000);
        let resource = Some("x".repeat(60_000));
        ask.what =
            What::Credential { kind: dayfly_domain::Kind::Jwt, resource, actions: Some(vec!["y".repeat(9_000)]) };
        shorten(&mut ask);
        assert!(ask.template.chars().count() == ASKED_TEXT_MAX_CHARS + 3);
        assert!(format!("{ask:?}").len() < 6 * ASKED_TEXT_MAX_CHARS);
    }

    #[test]
    fn t_166_a_handle_sent_as_a_scope_is_not_kept() {
        let mut ask = refusal("github/1").ask;
        ask.template = "dtc_SECRET".to_owned();
        ask.ticket = Some("see eyJhbGciOiJFUzI1NiJ9.e30.SECRET".to_owned());
        let resource = Some("https://x.example/?token=eyJSECRET".to_owned());
        let actions = Some(vec!["deploy:create".to_owned(), "dtc_SECRET".to_owned()]);
        ask.what = What::Credential { kind: dayfly_domain::Kind::Jwt, resource, actions };
        shorten(&mut ask);
        let kept = format!("{ask:?}");
        assert!(!kept.contains("SECRET") && kept.contains("deploy:create"), "{kept}");
        assert_eq!(ask.template, WITHHELD);
    }

    #[test]
    fn three_are_events_and_the_rest_share_one() {
        let refusals = Refusals::default();
        assert!((0..3).all(|_| matches!(take(&refusals, "github/1"), Taken::Event(_))));
        let Taken::Shared(first) = take(&refusals, "github/1") else { panic!() };
        assert!((0..5).all(|_| matches!(take(&refusals, "github/1"), Taken::Shared(id) if id == first)));
        assert!(matches!(take(&refusals, "github/2"), Taken::Event(_)), "another workload is its own kind");
        assert!(refusals.settle(NOW.plus_s(59), false).is_empty());
        let due = refusals.settle(NOW.plus_s(60), false);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].id, first);
        let row = due.into_iter().next().unwrap().at_seq(0);
        assert!(String::from_utf8(row.body).unwrap().contains("\"count\":6"));
        assert!(matches!(take(&refusals, "github/1"), Taken::Event(_)), "a new minute begins");
    }
}
