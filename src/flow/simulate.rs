//! A dry run: what would be answered to an ask, or why it was answered as it was. An operator's read:
//! it issues nothing, opens nothing, uses nothing up and leaves no event.

use std::sync::Arc;

use dayfly_domain::{BindingKind, EventId, Kind, LeaseId, Reason, TaskId, Workload, bundle::Fingerprint};
use serde_json::{Map, Value};

use super::{
    EventFilter, Flow, explain,
    explain::{Explained, Recorded, Trial},
    introspect::Authority,
    issue::workload_of,
    read::{Failed, LOOKED_AT_MAX},
    words::{Caller, Presented, Refused},
};
use crate::{
    intake::{self, IntakeError},
    policy::{Ask, Policy, What},
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

impl Flow {
    /// Said before a body is looked at.
    pub async fn may_simulate(&self, caller: &Caller) -> Result<(), Refused> {
        self.operator(caller).await.map(drop)
    }

    /// Whoever may operate the broker asks; an event or a lease must be visible to them as well.
    // SECURITY: `t_110_simulating_an_event_needs_the_right_to_read_it`, `a_dry_run_leaves_nothing_behind`.
    pub async fn simulate(&self, caller: &Caller, what: Simulate, under: Under) -> Result<Explained, Refused> {
        self.operator(caller).await?;
        let authority = self.authority(caller).await?;
        let explained = match what {
            Simulate::Event(id) => self.explain_event(authority, id, under).await,
            Simulate::Lease(id) => self.explain_lease(authority, id, under).await,
            Simulate::Claims { issuer, claims, trial } => {
                let policy = self.policy_under(under, None).await?;
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
        let policy = self.policy_under(under, None).await?;
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
        let mut explained = record.explained(&policy);
        explained.notes.extend(note.map(|note| format!("{note}; this is under the bundle in force")));
        let current = self.policy.load_full();
        if current.bundle().fingerprint != policy.bundle().fingerprint {
            explained.in_force = Some(explained.in_force(&record.explained(&current)));
        }
        record.compare(&mut explained, policy.bundle().fingerprint);
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
        let about = match (kind.as_str(), row.task) {
            ("issued", Some(task)) => match self.opening(task)? {
                Some(opening) => About { ticket: details.ticket, ..opening },
                None => return invalid("the opening of its task is not kept, so it cannot be explained"),
            },
            _ => details,
        };
        let recorded = Recorded {
            event: row.id,
            at: row.at,
            reason: text("reason").map(str::to_owned),
            row: text("row").map(str::to_owned),
            bundle: text("bundle").map(str::to_owned),
            count: body.get("count").and_then(Value::as_u64),
            kind,
        };
        let context = body.get("context").cloned().and_then(|value| serde_json::from_value(value).ok());
        let bundle = recorded.bundle.as_deref().and_then(fingerprint);
        let name = |name: &str| text(name).map(str::to_owned).unwrap_or_default();
        let (issuer, template) = (name("issuer"), about.template.clone().unwrap_or_else(|| name("template")));
        Ok(Ok(Record { recorded, about, context, bundle, issuer, template }))
    }

    /// Who opened a task: from its row, or from the event while the row is gone.
    fn opening(&self, task: TaskId) -> Result<Option<About>, Failed> {
        if let Some(workload) = self.reader.task(task)?.as_ref().and_then(workload_of) {
            return Ok(Some(About::of(workload)));
        }
        let filter = EventFilter { task: Some(task), ..EventFilter::default() };
        let (mut before, mut looked_at) = (None, 0);
        while looked_at < LOOKED_AT_MAX {
            let rows = self.reader.events(&filter, Page { before, limit: 500 })?;
            let Some(last) = rows.last() else { break };
            looked_at += rows.len();
            before = Some(last.seq);
            if rows.len() < 500 {
                return details(last);
            }
        }
        Ok(None)
    }
}

/// Beside `broker:operate`, whoever looks at the record needs the right to read it.
fn require(authority: &Authority, action: &str) -> Result<(), Refused> {
    if authority.holds(action) { Ok(()) } else { Err(Reason::Scope.into()) }
}

/// A decision as it was made.
struct Record {
    recorded: Recorded,
    about: About,
    context: Option<crate::ledger::Context>,
    bundle: Option<Fingerprint>,
    issuer: String,
    template: String,
}

/// Who and what an event's details name.
#[derive(Default)]
struct About {
    workload: String,
    claims: dayfly_domain::Claims,
    untrusted: bool,
    job: Option<String>,
    ticket: Option<String>,
    profile: Option<String>,
    template: Option<String>,
    resource: Option<String>,
    actions: Option<Vec<String>>,
    ttl_s: Option<u32>,
}

impl About {
    fn of(workload: Workload) -> Self {
        let Workload { issuer: _, profile, principal, untrusted, job, claims } = workload;
        let (workload, job) = (principal.to_string(), job.map(|job| job.to_string()));
        Self { workload, claims, untrusted, job, profile: Some(profile.to_string()), ..Self::default() }
    }
}

/// `None`: erased.
fn details(row: &EventRow) -> Result<Option<About>, Failed> {
    let Some(detail) = &row.detail else { return Ok(None) };
    let it: Value = serde_json::from_slice(&detail.bytes).map_err(|_| Failed::Unreadable)?;
    let text = |pointer: &str| it.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let read = |pointer: &str| it.pointer(pointer).filter(|value| !value.is_null()).cloned();
    let claims = read("/claims").map(serde_json::from_value).transpose().map_err(|_| Failed::Unreadable)?;
    Ok(Some(About {
        workload: text("/workload").unwrap_or_default(),
        claims: claims.unwrap_or_default(),
        untrusted: it["untrusted"].as_bool().unwrap_or(false),
        job: text("/job"),
        ticket: text("/ticket"),
        profile: text("/profile"),
        template: text("/asked/template"),
        resource: text("/asked/resource"),
        actions: read("/asked/actions").and_then(|actions| serde_json::from_value(actions).ok()),
        ttl_s: it.pointer("/asked/ttl").and_then(Value::as_u64).and_then(|ttl| u32::try_from(ttl).ok()),
    }))
}

impl Record {
    fn explained(&self, policy: &Policy) -> Explained {
        let trial = self.trial(policy);
        match self.workload(policy) {
            Some(workload) => explain::of_workload(policy, workload, &trial),
            None => {
                let mut explained = explain::refused_before_policy(policy, Reason::NoMatch, Vec::new(), &trial);
                let what = "is not in this bundle, so its claims cannot be read";
                explained.obstacles.push(format!("the issuer `{}` {what}", dayfly_domain::told(&self.issuer)));
                explained
            }
        }
    }

    fn workload(&self, policy: &Policy) -> Option<Workload> {
        let now = policy.bundle().issuers.get(self.issuer.as_str()).map(|issuer| issuer.profile.clone());
        let profile = self.about.profile.as_ref().and_then(|name| name.parse().ok()).or(now)?;
        Some(Workload {
            issuer: self.issuer.parse().ok()?,
            profile,
            principal: self.about.workload.as_str().into(),
            untrusted: self.about.untrusted,
            job: self.about.job.as_deref().map(Into::into),
            claims: self.about.claims.clone(),
        })
    }

    fn trial(&self, policy: &Policy) -> Trial {
        let context = self.context.as_ref();
        let binding = context.and_then(|context| context.binding.parse().ok());
        let held = context.map(|context| context.held.clone()).unwrap_or_default();
        let age_s = context.map_or(0, |context| context.age_s);
        let denied = self.recorded.kind == "denied";
        let what = match context.map_or("jwt", |context| context.kind.as_str()) {
            "task" => What::TaskOnly,
            word => {
                let kind = if word == "x509" { Kind::X509 } else { Kind::Jwt };
                let (resource, actions) = if denied {
                    (self.about.resource.clone(), self.about.actions.clone())
                } else {
                    self.granted(policy)
                };
                What::Credential { kind, resource, actions }
            }
        };
        let ttl_s = match (denied, context) {
            (false, Some(context)) => u32::try_from(context.ttl).ok(),
            _ => self.about.ttl_s,
        };
        let ask = Ask { template: self.template.clone(), what, ttl_s, ticket: self.about.ticket.clone() };
        Trial { ask, binding: binding.or(Some(BindingKind::Bearer)), age_s, held }
    }

    /// Of what was permitted, the record has `target#action`.
    fn granted(&self, policy: &Policy) -> (Option<String>, Option<Vec<String>>) {
        let pairs = self.context.iter().flat_map(|context| &context.ask);
        let pairs: Vec<_> = pairs.filter_map(|pair| pair.split_once('#')).collect();
        let target = pairs.first().and_then(|(target, _)| policy.bundle().targets.get(*target));
        let actions: Vec<_> = pairs.iter().map(|(_, action)| (*action).to_owned()).collect();
        (target.map(|target| target.uri.to_string()), (!actions.is_empty()).then_some(actions))
    }

    /// What the record says beside what policy says now.
    fn compare(&self, explained: &mut Explained, under: Fingerprint) {
        let recorded = self.recorded.reason.as_deref().and_then(Reason::from_code);
        match (recorded, explained.reason) {
            (Some(reason), None) if !is_policys(reason) => {
                explained.reason = Some(reason);
                explained.obstacles.push(reason.row().help.to_owned());
                explained.notes.push("policy permits it; what refused it was no rule of the bundle".to_owned());
            }
            (recorded, now) if Some(under) == self.bundle && recorded != now => {
                let said = |reason: Option<Reason>| reason.map_or("permit", Reason::code);
                explained.notes.push(format!("recorded was {}, and the same again is {}", said(recorded), said(now)));
            }
            _ => {}
        }
    }
}

/// Reasons that a decision alone can give.
fn is_policys(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoMatch | Reason::Forbidden | Reason::Policy | Reason::Details | Reason::Target | Reason::Dpop
    )
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
