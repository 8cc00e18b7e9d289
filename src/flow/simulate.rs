//! A dry run: what would be answered to an ask, or why it was answered as it was. An operator's read:
//! it issues nothing, opens nothing, uses nothing up and leaves no event.

use std::sync::Arc;

use dayfly_domain::{
    EventId, LeaseId, Reason, TaskId,
    bundle::{Bundle, Fingerprint},
};
use serde_json::{Map, Value, json};

use super::{
    EventFilter, Flow, explain,
    explain::{Explained, Recorded, Trial},
    introspect::Authority,
    issue::workload_of,
    read::{Failed, LOOKED_AT_MAX},
    recorded::Recorded as Decision,
    replay,
    words::{Caller, Presented, Refused},
};
use crate::{
    intake::{self, IntakeError},
    policy::Policy,
    store::{EventRow, Page},
};
/// What is explained.
#[derive(Debug)]
pub enum Simulate {
    /// A decision on the record.
    Event(EventId),
    /// The decision that a lease came of.
    Lease(LeaseId),
    /// A token's claims, as if this issuer had signed them, or the one of their `iss`.
    Claims { issuer: Option<String>, claims: Map<String, Value>, trial: Trial },
    /// A token, proven as in earnest.
    Evidence { token: Presented, trial: Trial },
}

/// Under which bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    InForce,
    /// The one that decided; only of what is on the record.
    Recorded,
    Kept(Fingerprint),
}

/// Somebody who may ask. Made only by [`Flow::may_simulate`].
#[derive(Debug)]
pub struct DryRun(Authority);

impl Flow {
    /// Whoever may operate the broker asks: said before a body is looked at.
    pub async fn may_simulate(&self, caller: &Caller) -> Result<DryRun, Refused> {
        self.operating(caller).await.map(DryRun)
    }

    /// An event or a lease must be visible to whoever asks as well.
    // SECURITY: `t_110_simulating_an_event_needs_the_right_to_read_it`, `a_dry_run_leaves_nothing_behind`.
    pub async fn simulate(&self, by: DryRun, what: Simulate, under: Under) -> Result<Explained, Refused> {
        let DryRun(authority) = by;
        let explained = match what {
            Simulate::Event(id) => self.explain_event(authority, id, under).await,
            Simulate::Lease(id) => self.explain_lease(authority, id, under).await,
            Simulate::Claims { issuer, claims, trial } => {
                let policy = self.policy_under(under, None).await?.as_of(self.time.now().at, self.review_grace);
                Ok(explain::of_claims(&policy, issuer.as_deref(), &claims, &trial))
            }
            Simulate::Evidence { token, trial } => self.explain_evidence(&token, &trial, under).await,
        }?;
        let outcome = if explained.reason.is_none() { "permit" } else { "deny" };
        metrics::counter!("dayfly_simulated_total", "outcome" => outcome).increment(1);
        Ok(explained)
    }

    async fn explain_event(&self, authority: Authority, id: EventId, under: Under) -> Result<Explained, Refused> {
        require(&authority, "ledger:read")?;
        let row = self.on_reader(move |flow, _| {
            let row = flow.reader.event(id)?.ok_or(Failed::NotFound)?;
            if flow.sees_event(&authority, &row)? { Ok(row) } else { Err(Failed::NotFound) }
        });
        let row = row.await?;
        self.explain_decision(row, under).await
    }

    async fn explain_lease(&self, authority: Authority, id: LeaseId, under: Under) -> Result<Explained, Refused> {
        require(&authority, "leases:read")?;
        let row = self.on_reader(move |flow, _| {
            let rows = flow.reader.lease(id)?.filter(|(row, task)| flow.sees_lease(&authority, row, task));
            let (row, _) = rows.ok_or(Failed::NotFound)?;
            flow.reader.event_at(row.seq)?.ok_or(Failed::NotFound)
        });
        let row = row.await?;
        self.explain_decision(row, under).await
    }

    async fn explain_evidence(&self, token: &Presented, trial: &Trial, under: Under) -> Result<Explained, Refused> {
        // SECURITY: `a_dry_run_asks_nobody_for_the_keys_of_a_kept_bundle`: the keys that are known, and the
        // addresses that are asked, are those of the bundle in force.
        let policy = self.policy.load_full();
        if let Under::Kept(fingerprint) = under
            && fingerprint != policy.bundle().fingerprint
        {
            let hint = "evidence is proven under the bundle in force; of a kept one, explain its claims";
            return Err(Refused { hint: Some(hint.to_owned()), ..Reason::Invalid.into() });
        }
        let now = self.time.now().at;
        let checks = intake::look(token.expose(), policy.bundle(), &self.issuer, now);
        let is_used = |key: &[u8; 32]| self.table.is_used(key);
        let proven = intake::prove(token.expose(), policy.bundle(), &self.issuer, &self.keys, is_used, now).await;
        let mut explained = match proven {
            Ok(proven) => {
                let age_s = (now.as_ms() - proven.issued_at().as_ms()) / 1000;
                let trial = Trial { age_s, ..trial.clone() };
                let mut explained = explain::of_workload(&policy, proven.workload().clone(), &trial);
                if proven.is_unconfirmed() || self.table.is_used(&proven.evidence_key()) {
                    explained.obstacles.push(Reason::Replayed.row().help.to_owned());
                    explained.reason = explained.reason.or(Some(Reason::Replayed));
                }
                explained
            }
            Err(IntakeError::Refused { workload, .. }) => explain::of_workload(&policy, *workload, trial),
            Err(error) => {
                let mut explained = explain::refused_before_policy(&policy, error.reason(), Vec::new(), trial);
                explained.obstacles.push(error.to_string());
                explained
            }
        };
        explained.checks = checks;
        Ok(explained)
    }

    async fn explain_decision(&self, row: EventRow, under: Under) -> Result<Explained, Refused> {
        let record = self.on_reader(move |flow, _| flow.record(&row)).await??;
        let policy = match under {
            Under::InForce => Ok(self.policy.load_full()),
            Under::Kept(_) => self.policy_under(under, None).await,
            Under::Recorded => self.policy_under(under, record.bundle).await,
        };
        let (policy, note) = match (policy, under) {
            (Ok(policy), _) => (policy, None),
            (Err(error), Under::Recorded) => (self.policy.load_full(), error.hint),
            (Err(error), _) => return Err(error),
        };
        // What lapsed since had not when it was decided.
        let at = if under == Under::Recorded { record.recorded.at } else { self.time.now().at };
        let mut explained = record.explained(&policy.as_of(at, self.review_grace));
        explained.notes.extend(note.map(|note| format!("{note}; this is under the bundle in force")));
        let current = self.policy.load_full();
        let in_force = explained.in_force(&record.explained(&current));
        let another = current.bundle().fingerprint != policy.bundle().fingerprint;
        explained.in_force = (another || in_force.differs).then_some(in_force);
        explained.recorded = Some(record.recorded);
        Ok(explained)
    }

    /// The bundle to decide under; `E-INVALID` when it is not kept.
    async fn policy_under(&self, under: Under, recorded: Option<Fingerprint>) -> Result<Arc<Policy>, Refused> {
        let wanted = match under {
            Under::InForce => return Ok(self.policy.load_full()),
            Under::Kept(fingerprint) => Some(fingerprint),
            Under::Recorded => recorded,
        };
        let invalid = |hint: &str| Refused { hint: Some(hint.to_owned()), ..Reason::Invalid.into() };
        let wanted = wanted.ok_or_else(|| invalid("only a decision on the record has a recorded bundle"))?;
        let unreadable = |error: super::ArchiveError| {
            tracing::warn!(%error, "a kept bundle cannot be used");
            invalid("the bundle is kept, but cannot be used any more")
        };
        self.policy_of(wanted).await.map_err(unreadable)?.ok_or_else(|| invalid("the bundle is not kept"))
    }

    /// The decision in an event, put together again.
    fn record(&self, row: &EventRow) -> Result<Result<Record, Refused>, Failed> {
        let body: Map<String, Value> = serde_json::from_slice(&row.body).map_err(|_| Failed::Unreadable)?;
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let kind = text("type").unwrap_or_default().to_owned();
        let invalid = |hint: &str| Ok(Err(Refused { hint: Some(hint.to_owned()), ..Reason::Invalid.into() }));
        if !matches!(kind.as_str(), "denied" | "issued" | "task_opened") {
            return invalid("only a decision can be explained: an event `denied`, `issued` or `task_opened`");
        }
        let Some(details) = details(row)? else { return invalid("its details are erased, so it cannot be explained") };
        let decision = match (kind.as_str(), row.task) {
            ("denied", _) => Decision::refused(&body, &details),
            ("issued", Some(task)) => match self.opening(task)? {
                Some(mut opening) => {
                    opening
                        .extend(details.get_key_value("ticket").map(|(name, ticket)| (name.clone(), ticket.clone())));
                    Decision::granted(&body, &opening)
                }
                None => return invalid("the opening of its task is not kept, so it cannot be explained"),
            },
            _ => Decision::granted(&body, &details),
        };
        let Some(decision) = decision else { return Err(Failed::Unreadable) };
        let recorded = Recorded {
            event: row.id,
            at: row.at,
            reason: text("reason").map(str::to_owned),
            row: text("row").map(str::to_owned),
            bundle: text("bundle").map(str::to_owned),
            count: body.get("count").and_then(Value::as_u64),
            kind,
        };
        Ok(Ok(Record { bundle: recorded.bundle.as_deref().and_then(fingerprint), recorded, decision }))
    }

    /// Who opened a task: from its row, or from the event while the row is gone.
    fn opening(&self, task: TaskId) -> Result<Option<Map<String, Value>>, Failed> {
        if let Some(workload) = self.reader.task(task)?.as_ref().and_then(workload_of) {
            return Ok(Some(Map::from_iter([("claims".to_owned(), json!(workload.claims))])));
        }
        let filter = EventFilter { task: Some(task), ..EventFilter::default() };
        let (mut before, mut looked_at) = (None, 0);
        while looked_at < LOOKED_AT_MAX {
            let rows = self.reader.events(&filter, Page { before, limit: 500 })?;
            let Some(last) = rows.last() else { break };
            looked_at += rows.len();
            before = Some(last.seq);
            if is_opening(last)? {
                return details(last);
            }
        }
        Ok(None)
    }
}

/// The first event of a task.
fn is_opening(row: &EventRow) -> Result<bool, Failed> {
    let body: Map<String, Value> = serde_json::from_slice(&row.body).map_err(|_| Failed::Unreadable)?;
    Ok(body.get("type").and_then(Value::as_str) == Some("task_opened"))
}

/// Beside `broker:operate`, whoever looks at the record needs the right to read it.
fn require(authority: &Authority, action: &str) -> Result<(), Refused> {
    if authority.holds(action) { Ok(()) } else { Err(Reason::Scope.into()) }
}

/// A decision as it was made.
struct Record {
    recorded: Recorded,
    decision: Decision,
    bundle: Option<Fingerprint>,
}

/// `None`: erased.
fn details(row: &EventRow) -> Result<Option<Map<String, Value>>, Failed> {
    let Some(detail) = &row.detail else { return Ok(None) };
    serde_json::from_slice(&detail.bytes).map(Some).map_err(|_| Failed::Unreadable)
}

impl Record {
    /// Read and decided again as a replay does it, and beside it what the record says.
    // SECURITY: `a_pin_of_another_bundle_is_read_again`, `the_bundle_in_force_forgets_no_fence`.
    fn explained(&self, policy: &Policy) -> Explained {
        let (bundle, decision) = (policy.bundle(), &self.decision);
        let (ask, without) = replay::ask(bundle, decision);
        let trial = Trial { ask, binding: decision.proven, age_s: decision.age_s, held: decision.held.clone() };
        let issuer = bundle.issuers.get(decision.issuer.as_str());
        let payload = issuer.map(|issuer| replay::payload(issuer, &decision.claims)).unwrap_or_default();
        let mut explained = explain::of_claims(policy, Some(&decision.issuer), &payload, &trial);
        if explained.reason.is_none() && !without.is_empty() {
            explained.notes.push(format!("with fewer actions: without {}", without.join(", ")));
        }
        if explained.reason == Some(Reason::Claim) {
            explained.notes.push("claims that the profile did not declare then are not on the record".to_owned());
        }
        self.compare(&mut explained, bundle);
        explained
    }

    /// What the record says beside what policy says now.
    fn compare(&self, explained: &mut Explained, bundle: &Bundle) {
        let recorded = self.recorded.reason.as_deref().and_then(Reason::from_code);
        match (recorded, explained.reason) {
            (Some(reason), None) if !replay::was_judged(bundle, reason) => {
                explained.reason = Some(reason);
                explained.obstacles.push(reason.row().help.to_owned());
                explained.notes.push(beside_policy(reason).to_owned());
            }
            (recorded, now) if Some(bundle.fingerprint) == self.bundle && recorded != now => {
                let said = |reason: Option<Reason>| reason.map_or("permit", Reason::code);
                explained.notes.push(format!("recorded was {}, and the same again is {}", said(recorded), said(now)));
            }
            _ => {}
        }
    }
}

/// What a decision does not look at. How often a job may run is in the bundle all the same.
fn beside_policy(reason: Reason) -> &'static str {
    match reason {
        Reason::PerJob => "policy permits it; what refused it was the template's `per_job`: the job had so many tasks",
        Reason::Quota => "policy permits it; what refused it was a quota of live leases, a setting of the broker",
        _ => "policy permits it; what refused it was no rule of the bundle",
    }
}

/// 64 hex digits, in lower case.
pub fn fingerprint(text: &str) -> Option<Fingerprint> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 64 || !text.bytes().all(digit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (place, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *place = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Fingerprint(bytes))
}
