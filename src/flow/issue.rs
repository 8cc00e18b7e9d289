//! A token exchange: evidence opens a task, a handle feeds one.

use std::sync::atomic::Ordering;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::{
    BindingKind, Bound, Claims, HANDLE_PREFIX, LeaseId, Reason, Secret, State, TaskId, UnixMs, Workload,
};
use dayfly_verifier::{Binding, Refusal as TokenRefusal, dpop::UnverifiedProof};
use tokio::sync::oneshot;

use super::{
    Flow, SAMPLE, certify, commit,
    group::{self, COMMIT_WITHIN, Group, IssueGroup, NotCommitted},
    moment::Moment,
    possession::{Held, proven},
    refuse::Refusal,
    sha256,
    signed::{credential, issued_event, lease_row, not_minted},
    words::{Exchange, Issued, Point, Presented, Refused, Subject},
};
use crate::{
    intake::{self, IntakeError, Proven, ProvenKey},
    lease::{Limits, Now, Overtaken},
    ledger::{self, Asked, Context, Stamp},
    mint::{Plan, Signed, Terms},
    policy::{Ask, Comparison, Decision, Grant, Policy, What},
    revoke::Wish,
    store::{LeaseRow, StatusSlot, TaskRow},
    sys::{entropy, offload::offload},
};

/// Who is asking, whatever proved it.
struct Asking<'a> {
    workload: &'a Workload,
    ask: &'a Ask,
    issued_at: UnixMs,
    /// Of a task that is fed; absent when one is opened.
    task: Option<&'a TaskRow>,
    /// The key that was proven with this request.
    binding: Option<&'a Binding>,
    /// The key that a certificate is to be for.
    key: Option<&'a ProvenKey>,
}

impl Asking<'_> {
    /// What was proven, as policy and the record name it.
    fn proven(&self) -> BindingKind {
        if self.key.is_some() { BindingKind::Mtls } else { proven(self.binding) }
    }
}

/// The keys that come with a request: to be held by, and to be certified.
struct Keys {
    proof: Option<UnverifiedProof>,
    csr: Option<String>,
}

/// A decision, planned and signed, waiting for the commit.
struct Prepared {
    group: IssueGroup,
    committed: oneshot::Receiver<Result<u64, NotCommitted>>,
    answer: Issued,
    lease: Option<LeaseId>,
    /// Reserved for it.
    slot: Option<StatusSlot>,
    /// Of the key that signed.
    kid: Option<String>,
}

/// The issuer of whoever was proven, granted or not.
type ProvenIssuer = Option<String>;

/// How a new task begins.
struct Opening<'a> {
    proven: &'a Proven,
    handle_hash: [u8; 32],
}

impl Flow {
    /// `/oauth2/token`.
    pub async fn exchange(&self, exchange: Exchange) -> Result<Issued, Refused> {
        let now = self.time.now();
        if !now.safe {
            return Err(Reason::Clock.into());
        }
        let kind = Context::kind_of(&exchange.ask.what);
        let mut issuer = None;
        let issued = self.exchanged(exchange, &mut issuer, now).await;
        count(issuer, kind, &issued);
        issued
    }

    // SECURITY: a proof uses up nothing of the evidence that it comes with;
    // a_garbage_proof_does_not_use_up_the_evidence
    async fn exchanged(&self, exchange: Exchange, issuer: &mut ProvenIssuer, now: Now) -> Result<Issued, Refused> {
        let Exchange { subject, ask, possession, csr } = exchange;
        self.can_certify(&ask)?;
        let proof = possession.map(|given| self.read_proof(&given, None, now)).transpose()?;
        let shown = Keys { proof, csr };
        match subject {
            Subject::Evidence { token, control_s256 } => self.open(&token, control_s256, ask, shown, issuer, now).await,
            Subject::Handle { handle, supersede_s } => self.feed(&handle, supersede_s, ask, shown, issuer, now).await,
        }
    }

    async fn open(
        &self,
        token: &Presented,
        control_s256: Option<[u8; 32]>,
        ask: Ask,
        Keys { proof, csr }: Keys,
        issuer: &mut ProvenIssuer,
        now: Now,
    ) -> Result<Issued, Refused> {
        let proven = self.prove(token, &ask, issuer, now).await?;
        // Evidence that has been used, and so may be anybody's, is charged to nobody.
        if !proven.is_unconfirmed() && !self.table.is_used(&proven.evidence_key()) {
            self.charge(&self.policy.load(), proven.workload().into(), &ask.template)?;
        }
        let binding = self.hold(Held::Free, proof, now)?.map_err(|_| Reason::Dpop)?;
        let certified = certify::key(&ask, csr.as_deref())?;
        let made = if control_s256.is_none() { Some(make_handle()?) } else { None };
        let handle_hash = match (control_s256, &made) {
            (Some(hash), _) => hash,
            (None, Some(handle)) => sha256(handle.expose().as_bytes()),
            (None, None) => return Err(Reason::Internal.into()),
        };
        let (workload, issued_at) = (proven.workload(), proven.issued_at());
        let (binding, key) = (binding.as_ref(), certified.as_ref());
        let asking = Asking { workload, ask: &ask, issued_at, task: None, binding, key };
        let key = asking.binding.map(Binding::thumbprint);
        let conflict = self.conflict(&proven.evidence_key(), key).map(Overtaken::Conflict);
        if let Some(overtaken) = conflict.or(proven.is_unconfirmed().then_some(Overtaken::Replayed)) {
            // Whatever is asked, and whatever policy would say of it.
            let (policy, now) = (self.policy.load_full(), self.time.now());
            let moment = self.moment_of(&policy, &asking, now)?;
            let refusal = refusal(&policy, &asking, &moment, Reason::Conflict);
            return Err(self.overtaken(overtaken, refusal, now));
        }
        let opening = Opening { proven: &proven, handle_hash };
        let mut issued = self.decide_twice(&asking, Some(&opening), None).await?;
        issued.handle = made;
        Ok(issued)
    }

    async fn prove(
        &self,
        token: &Presented,
        ask: &Ask,
        issuer: &mut ProvenIssuer,
        now: Now,
    ) -> Result<Proven, Refused> {
        let policy = self.policy.load_full();
        let is_used = |key: &[u8; 32]| self.table.is_used(key);
        let proven = intake::prove(token.expose(), policy.bundle(), &self.issuer, &self.keys, is_used, now.at).await;
        *issuer = match &proven {
            Ok(proven) => Some(proven.workload().issuer.to_string()),
            Err(IntakeError::Refused { workload, .. }) => Some(workload.issuer.to_string()),
            Err(_) => None,
        };
        proven.map_err(|error| match error {
            // A known workload: recorded. Garbage and strangers are only counted.
            IntakeError::Refused { reason, workload } => {
                if let Err(limited) = self.charge(&policy, (&*workload).into(), &ask.template) {
                    return limited;
                }
                let (ttl, asked) = policy.asked(ask);
                let kind = Context::kind_of(&ask.what).to_owned();
                let binding = BindingKind::Bearer.to_string();
                let context = Context { ttl, kind, binding, age_s: 0, ask: asked, held: Vec::new() };
                let bundle = policy.bundle().fingerprint;
                let refusal = Refusal {
                    workload: *workload,
                    ask: ask.clone(),
                    context,
                    reason,
                    policies: Vec::new(),
                    bundle,
                    task: None,
                    hint: None,
                    comparison: None,
                };
                self.refuse(refusal, now.at)
            }
            other => {
                let reason = other.reason();
                metrics::counter!("dayfly_evidence_refused_total", "reason" => reason.code()).increment(1);
                let sample = self.turned_away.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE);
                if sample {
                    tracing::info!(reason = reason.code(), error = %other, "evidence refused; one in {SAMPLE} is told");
                }
                Refused { hint: hint_of(&other), ..reason.into() }
            }
        })
    }

    async fn feed(
        &self,
        handle: &Presented,
        supersede_s: Option<u8>,
        mut ask: Ask,
        Keys { proof, csr }: Keys,
        issuer: &mut ProvenIssuer,
        now: Now,
    ) -> Result<Issued, Refused> {
        let row = self.task_of_handle(handle).await?.ok_or(Reason::Handle)?;
        // Without its own key's proof a bound handle looks unknown.
        let binding = self.hold(Held::of_task(&row), proof, now)?.map_err(|_| Reason::Handle)?;
        *issuer = Some(row.issuer.clone());
        match self.table.task_state(row.id, now) {
            Some(State::Active) => {}
            // Written, and not yet in memory: the commit that opened it is about to be applied.
            None if row.end.is_none() && row.deadline > now.at => return Err(Reason::Busy.into()),
            _ => return Err(Reason::Ended.into()),
        }
        // A handle that still works is its workload's; an old one is charged to nobody.
        self.charge(&self.policy.load(), (&row).into(), &row.template)?;
        if ask.template.is_empty() {
            ask.template.clone_from(&row.template);
        }
        if ask.template != row.template {
            return Err(Reason::Template.into());
        }
        ask.ticket.clone_from(&row.ticket);
        let workload = workload_of(&row).ok_or(Reason::Ended)?;
        let certified = certify::key(&ask, csr.as_deref())?;
        let issued_at = UnixMs::from_s(row.evidence_iat_s);
        let (binding, key) = (binding.as_ref(), certified.as_ref());
        let asking = Asking { workload: &workload, ask: &ask, issued_at, task: Some(&row), binding, key };
        self.decide_twice(&asking, None, supersede_s).await
    }

    /// The row of the task that a handle owns, while the row is kept.
    pub(super) async fn task_of_handle(&self, handle: &Presented) -> Result<Option<TaskRow>, Refused> {
        if !is_handle(handle.expose()) {
            return Ok(None);
        }
        let hash = sha256(handle.expose().as_bytes());
        let reader = self.reader.clone();
        let row = offload(move || reader.task_by_handle(&hash)).await.map_err(|_| Reason::Internal)?;
        row.map_err(|error| error.reason().into())
    }

    /// Decides, plans and signs; once more when before the commit the bundle was swapped, the key tainted,
    /// something was ended by selector, or what the job holds changed and a policy looks at that.
    async fn decide_twice(
        &self,
        asking: &Asking<'_>,
        opening: Option<&Opening<'_>>,
        supersede_s: Option<u8>,
    ) -> Result<Issued, Refused> {
        for _ in 0..2 {
            let now = self.time.now();
            let policy = self.policy.load_full();
            let prepared = self.decide(&policy, asking, opening, supersede_s, now)?;
            match self.commit(prepared).await {
                Ok(issued) => return Ok(issued),
                Err(
                    NotCommitted::OtherBundle
                    | NotCommitted::OtherJob
                    | NotCommitted::OtherKey
                    | NotCommitted::OtherEnds,
                ) => {}
                Err(NotCommitted::Overtaken(overtaken)) => {
                    let moment = self.moment_of(&policy, asking, now)?;
                    return Err(self.overtaken(overtaken, refusal(&policy, asking, &moment, Reason::Overtaken), now));
                }
                Err(NotCommitted::Released) => return Err(Reason::Overtaken.into()),
                Err(NotCommitted::Store | NotCommitted::Gone) => return Err(Reason::Store.into()),
            }
        }
        Err(Reason::Overtaken.into())
    }

    fn decide(
        &self,
        policy: &Policy,
        asking: &Asking<'_>,
        opening: Option<&Opening<'_>>,
        supersede_s: Option<u8>,
        now: Now,
    ) -> Result<Prepared, Refused> {
        let moment = self.moment_of(policy, asking, now)?;
        let grant = match policy.decide(asking.workload, asking.ask, moment.circumstances()) {
            Decision::Permit(grant) => grant,
            Decision::Deny(denied) => {
                if let Some(inside) = &denied.inside {
                    tracing::error!(error = %inside, "policy could not be evaluated");
                }
                let refusal = Refusal {
                    comparison: compared(policy, asking, denied.reason),
                    policies: denied.policies,
                    hint: denied.hint,
                    ..refusal(policy, asking, &moment, denied.reason)
                };
                return Err(self.refuse(refusal, now.at));
            }
        };
        let of_the_request = asking.key.map(|_| refusal(policy, asking, &moment, Reason::Csr));
        let prepared = self.prepare(policy, &grant, asking, moment, opening, supersede_s, now);
        prepared.map_err(|refused| match of_the_request {
            // Known workload, asking for what it is not granted: that is on the record.
            Some(refusal) if refused.reason == Reason::Csr => {
                self.refuse(Refusal { hint: refused.hint, ..refusal }, now.at)
            }
            _ => refused,
        })
    }

    fn moment_of(&self, policy: &Policy, asking: &Asking<'_>, now: Now) -> Result<Moment, Refused> {
        let shown = (asking.proven(), asking.issued_at);
        self.moment(policy, (asking.workload, asking.ask), asking.task, shown, now)
    }

    /// From the grant to rows, events and the answer. Nothing has left yet.
    #[expect(clippy::too_many_arguments, reason = "one call; a struct would only rename them")]
    fn prepare(
        &self,
        policy: &Policy,
        grant: &Grant,
        asking: &Asking<'_>,
        moment: Moment,
        opening: Option<&Opening<'_>>,
        supersede_s: Option<u8>,
        now: Now,
    ) -> Result<Prepared, Refused> {
        let fresh;
        let (row, subject) = match (asking.task, opening) {
            (Some(row), _) => (row, group::Subject::Feed(row.id)),
            (None, Some(opening)) => {
                fresh = open_row(grant, asking, opening, now.at)?;
                let row = Box::new(fresh.clone());
                (&fresh, group::Subject::Open { row, limits: limits(grant) })
            }
            (None, None) => return Err(Reason::Internal.into()),
        };
        let bundle = policy.bundle().fingerprint;
        let context = moment.context(asking.ask);
        let asked = Asked { ask: asking.ask, context };
        let mut events = Vec::new();
        if opening.is_some() {
            events.push(ledger::task_opened(stamp(now)?, row, &asking.workload.claims, &asked, bundle));
        }
        let minted = match asking.ask.what {
            What::TaskOnly => None,
            What::Credential { .. } => {
                let terms = self.terms(policy, asking, row, now)?;
                let (lease, signed) = match asking.key {
                    Some(key) => self.certify(policy, grant, &terms, row, key)?,
                    None => self.mint(grant, &terms, asking, row)?,
                };
                events.push(issued_event(row, &lease, &signed, asked, bundle, now)?);
                Some((lease, signed))
            }
        };
        let (ack, committed) = oneshot::channel();
        let lease = minted.as_ref().map(|(lease, _)| lease.clone());
        let ends_asked = moment.ends_asked();
        let seen = moment.watched(policy, grant.template());
        let group =
            IssueGroup { decided_under: bundle, seen, ends_asked, task: subject, lease, events, supersede_s, ack };
        let slot = minted.as_ref().and_then(|(lease, _)| lease.status);
        let (lease, kid) = minted.as_ref().map(|(lease, signed)| (lease.id, signed.kid.clone())).unzip();
        let answer = Issued {
            task: row.id,
            template: row.template.clone(),
            issuer: row.issuer.clone(),
            deadline: row.deadline,
            handle: None,
            point: Point { stream: self.stream.clone(), seq: 0 },
            credential: minted.and_then(|(lease, signed)| credential(grant, row, &lease, signed, asking.proven())),
        };
        Ok(Prepared { group, committed, answer, lease, slot, kid })
    }

    fn terms<'a>(
        &'a self,
        policy: &'a Policy,
        asking: &Asking<'a>,
        row: &'a TaskRow,
        now: Now,
    ) -> Result<Terms<'a>, Refused> {
        Ok(Terms {
            issuer: &self.issuer,
            trust_domain: &policy.bundle().trust_domain,
            workload: asking.workload,
            task: row.id,
            lease: LeaseId::from_parts(now.at.as_ms().max(0) as u64, random()?),
            now: now.at,
            deadline: row.deadline,
            ticket: row.ticket.as_deref(),
        })
    }

    fn mint(
        &self,
        grant: &Grant,
        terms: &Terms<'_>,
        asking: &Asking<'_>,
        row: &TaskRow,
    ) -> Result<(LeaseRow, Signed), Refused> {
        let target = grant.target().ok_or(Reason::Target)?;
        let mut plan = Plan::new(grant, terms, asking.binding).map_err(not_minted)?;
        let expires = UnixMs::from_s(plan.window().exp_s);
        let wish = Wish { target: target.name.as_str(), environment: &row.environment, expires };
        let status = self.list_place(target.verifies, wish, terms.now)?;
        if let Some(slot) = status {
            plan = plan.listed(self.status_claim(slot));
        }
        let signed = plan.sign(&self.keyring).map_err(not_minted)?;
        let lease = lease_row(grant, terms, &signed, thumbprint(asking))?;
        Ok((LeaseRow { status, ..lease }, signed))
    }

    /// Law L1: nothing leaves before it is durable. Looks once more at what the answer promises.
    async fn commit(&self, prepared: Prepared) -> Result<Issued, NotCommitted> {
        let Prepared { group, committed, mut answer, lease, slot, kid } = prepared;
        let group = Group::Issue(Box::new(group));
        let durable = async {
            self.queue.send(group).await.map_err(|_| NotCommitted::Store)?;
            committed.await.map_err(|_| NotCommitted::Store)?
        };
        // Past the deadline the outcome is unknown, so it is no success; the handle finds out.
        let durable = tokio::time::timeout(COMMIT_WITHIN, durable).await.map_err(|_| NotCommitted::Store)?;
        if let (Err(error), Some(slot)) = (&durable, slot)
            && error.is_refusal()
        {
            self.lists.give_back(slot);
        }
        answer.point.seq = durable?;
        let now = self.time.now();
        let tainted = kid.is_some_and(|kid| self.is_tainted(&kid));
        if !tainted && lease.is_none_or(|lease| commit::live(&self.table, lease, now)) {
            return Ok(answer);
        }
        // Something else ended it before it left: the task, or only this lease (a supersede).
        match self.table.task_state(answer.task, now) {
            Some(State::Active) => Err(NotCommitted::Released),
            _ => Err(Overtaken::Ended.into()),
        }
    }
}

/// A handle has one form: `dtc_` and 43 canonical base64url characters (256 bits).
// SECURITY: `t_044_a_cut_handle_is_no_handle`.
pub(super) fn is_handle(text: &str) -> bool {
    let secret = text.strip_prefix(HANDLE_PREFIX).and_then(|rest| URL_SAFE_NO_PAD.decode(rest).ok());
    secret.is_some_and(|secret| secret.len() == 32)
}

fn make_handle() -> Result<Presented, Refused> {
    let secret: [u8; 32] = random()?;
    Ok(Secret::new(format!("{HANDLE_PREFIX}{}", URL_SAFE_NO_PAD.encode(secret))))
}

fn random<const N: usize>() -> Result<[u8; N], Refused> {
    entropy::bytes().map_err(|_| Reason::Key.into())
}

pub(super) fn stamp(now: Now) -> Result<Stamp, Refused> {
    Stamp::draw(now.at).map_err(|_| Reason::Key.into())
}

fn limits(grant: &Grant) -> Limits {
    Limits { per_job: grant.per_job(), keys_per_job: grant.keys_per_job() }
}

fn refusal(policy: &Policy, asking: &Asking<'_>, moment: &Moment, reason: Reason) -> Refusal {
    Refusal {
        workload: asking.workload.clone(),
        ask: asking.ask.clone(),
        context: moment.context(asking.ask),
        reason,
        policies: Vec::new(),
        bundle: policy.bundle().fingerprint,
        task: asking.task.map(|row| row.id),
        hint: None,
        comparison: None,
    }
}

/// Where nobody's row let the workload in, or a forbid kept it out: what it has beside what is wanted.
fn compared(policy: &Policy, asking: &Asking<'_>, reason: Reason) -> Option<Box<Comparison>> {
    let told = matches!(reason, Reason::NoMatch | Reason::Forbidden);
    let comparison = || policy.comparison(asking.workload, &asking.ask.template);
    told.then(comparison).flatten().map(Box::new)
}

fn thumbprint(asking: &Asking<'_>) -> Option<String> {
    asking.binding.map(|binding| binding.thumbprint().to_string())
}

fn open_row(grant: &Grant, asking: &Asking<'_>, opening: &Opening<'_>, now: UnixMs) -> Result<TaskRow, Refused> {
    let workload = asking.workload;
    Ok(TaskRow {
        id: TaskId::from_parts(now.as_ms().max(0) as u64, random()?),
        parent: None,
        template: grant.template().to_string(),
        purpose: grant.purpose().to_string(),
        ticket: grant.ticket().map(str::to_owned),
        job: workload.job.as_deref().map(str::to_owned),
        row: grant.row().to_string(),
        owner: grant.owner().to_string(),
        environment: grant.environment().to_string(),
        issuer: workload.issuer.to_string(),
        profile: workload.profile.to_string(),
        workload: workload.principal.to_string(),
        untrusted: workload.untrusted,
        grants: json(grant.grants()),
        evidence_key: opening.proven.evidence_key(),
        evidence_iat_s: opening.proven.issued_at().as_s(),
        evidence_exp_s: opening.proven.expires().as_s(),
        claims: Some(json(&workload.claims)),
        handle_hash: opening.handle_hash,
        bound: if asking.binding.is_some() { Bound::Jkt } else { Bound::None },
        thumbprint: thumbprint(asking),
        opened_at: now,
        deadline: UnixMs::from_s(now.as_s() + i64::from(grant.deadline().as_s())),
        seq: 0,
        held: false,
        end: None,
    })
}

/// The workload of a task, from its record. `None` once its claims are erased.
pub(super) fn workload_of(row: &TaskRow) -> Option<Workload> {
    let claims: Claims = serde_json::from_str(row.claims.as_deref()?).ok()?;
    Some(Workload {
        issuer: row.issuer.parse().ok()?,
        profile: row.profile.parse().ok()?,
        principal: row.workload.as_str().into(),
        untrusted: row.untrusted,
        job: row.job.as_deref().map(Into::into),
        claims,
    })
}

/// `issuer` is one of the bundle's, or `none` where nobody was proven: no label is a stranger's.
fn count(issuer: ProvenIssuer, kind: &'static str, issued: &Result<Issued, Refused>) {
    let issuer = issuer.unwrap_or_else(|| "none".to_owned());
    let result = issued.as_ref().map_or_else(|refused| refused.reason.code(), |_| "issued");
    metrics::counter!("dayfly_issued_total", "issuer" => issuer, "kind" => kind, "result" => result).increment(1);
}

/// What a refused caller may hear beyond the reason: the name of a claim, never a value.
fn hint_of(error: &IntakeError) -> Option<String> {
    match error {
        IntakeError::Claim(what) => Some(what.clone()),
        IntakeError::Token(TokenRefusal::Claim(name)) => {
            Some(format!("claim `{name}` is missing, of another type or out of range"))
        }
        _ => None,
    }
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    // INVARIANT: names, strings, numbers and lists of them: JSON can hold all of them.
    serde_json::to_string(value).expect("plain data is plain JSON")
}
