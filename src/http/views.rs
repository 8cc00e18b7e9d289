//! From `flow`'s views to the shapes of the wire. Everything is taken apart by name, so a new
//! field breaks the build until someone has decided whether the outside sees it.

use dayfly_domain::{BindingKind, Kind, Reason, State};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    details::DAYFLY_TASK,
    exchange::{ACCESS_TOKEN, TASK_CONTROL, X509},
    shapes::{
        self, AuthorizationDetail, Block, Details, Ended, EndedBySelector, Entitlement, Event, Hold, Known, Lease,
        LeaseCount, LedgerPoint, List, Revocation, Task, TokenAnswer,
    },
};
use crate::{
    flow::{
        Beat, BlockView, ChannelState, EndAnswer, EntitlementView, EventView, HoldView, Introspected, Issued,
        IssuedCredential, LeaseView, Listing, MassEnd, Point, Refused, RevocationBound, TaskView,
    },
    store::{LeaseRow, TaskRow},
};

/// Members of an event that stand beside `details` on the wire, wherever the ledger keeps them.
const LIFTED: &[&str] = &[
    "outcome", "count", "cause", "task", "lease", "workload", "owner", "issuer", "target", "actions", "template",
    "row", "bundle", "reason", "actor",
];

pub(super) fn issued(issued: Issued) -> TokenAnswer {
    let Issued { task, template, issuer: _, deadline, handle, point, credential } = issued;
    let without = TokenAnswer {
        access_token: task.to_string(),
        issued_token_type: TASK_CONTROL.to_owned(),
        token_type: "N_A".to_owned(),
        expires_in: None,
        authorization_details: None,
        task_id: task,
        lease_id: None,
        expires_at: None,
        task_deadline: deadline,
        task_control: handle.map(|handle| handle.expose().clone()),
        ledger: ledger(point),
        revocation: None,
    };
    match credential {
        Some(credential) => with_credential(without, template, credential),
        None => without,
    }
}

fn with_credential(answer: TokenAnswer, template: String, credential: IssuedCredential) -> TokenAnswer {
    let IssuedCredential {
        lease,
        token,
        kind,
        binding,
        target_uri,
        actions,
        purpose,
        ticket,
        ttl_s,
        expires,
        revocation,
    } = credential;
    let detail = AuthorizationDetail {
        kind: DAYFLY_TASK.to_owned(),
        template,
        locations: vec![target_uri.to_string()],
        actions,
        purpose,
        ticket,
    };
    TokenAnswer {
        access_token: token.expose().clone(),
        issued_token_type: issued_type(kind).to_owned(),
        token_type: token_type(kind, binding).to_owned(),
        expires_in: Some(ttl_s),
        authorization_details: Some(vec![detail]),
        lease_id: Some(lease),
        expires_at: Some(expires),
        revocation: Some(revocation.into_iter().map(bound).collect()),
        ..answer
    }
}

fn issued_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Jwt => ACCESS_TOKEN,
        Kind::X509 => X509,
    }
}

fn token_type(kind: Kind, binding: BindingKind) -> &'static str {
    match (kind, binding) {
        (Kind::X509, _) => "N_A",
        (Kind::Jwt, BindingKind::Dpop) => "DPoP",
        (Kind::Jwt, BindingKind::Bearer | BindingKind::Mtls) => "Bearer",
    }
}

fn bound(bound: RevocationBound) -> Revocation {
    let RevocationBound { channel, usual_s, bound_s } = bound;
    Revocation { channel, usual_s, bound_s }
}

fn ledger(point: Point) -> LedgerPoint {
    let Point { stream, seq } = point;
    LedgerPoint { stream: stream.to_string(), seq }
}

/// RFC 7662 section 2.2. What the broker says outranks what the token says.
pub(super) fn introspected(introspected: Option<Introspected>) -> Map<String, Value> {
    let Some(Introspected { claims, task }) = introspected else {
        return Map::from_iter([("active".to_owned(), Value::Bool(false))]);
    };
    let mut members = claims;
    members.insert("active".to_owned(), Value::Bool(true));
    members.insert("task_id".to_owned(), Value::String(task.to_string()));
    members
}

pub(super) fn task(view: TaskView) -> Result<Task, Refused> {
    let TaskView { row, state, cause, ended_at, ended_by, reason, leases_active, leases_ended, conflicts, hold } = view;
    let TaskRow {
        id,
        parent,
        template,
        purpose,
        ticket,
        job,
        row: _,
        owner,
        environment: _,
        issuer,
        profile: _,
        workload,
        untrusted: _,
        grants,
        evidence_key: _,
        evidence_iat_s: _,
        evidence_exp_s: _,
        claims: _,
        handle_hash: _,
        bound,
        thumbprint: _,
        opened_at,
        deadline,
        seq: _,
        held: _,
        end: _,
    } = row;
    Ok(Task {
        id,
        state,
        cause,
        template,
        purpose,
        ticket,
        owner,
        workload,
        issuer,
        job,
        opened_at,
        deadline,
        ended_at,
        ended_by,
        reason,
        parent,
        grants: stored(&grants)?,
        bound,
        leases: LeaseCount { active: leases_active, ended: leases_ended },
        conflicts: conflicts.unwrap_or_default(),
        hold: hold.map(|HoldView { last_beat_at, grace_s, lapses_at }| Hold { last_beat_at, grace_s, lapses_at }),
    })
}

pub(super) fn lease(view: LeaseView) -> Result<Lease, Refused> {
    let LeaseView { row, workload, owner, template, bound, state, cause, ended_at, ended_by, reason, point } = view;
    let LeaseRow {
        id,
        task,
        seq: _,
        target,
        kind,
        row,
        actions,
        issued_at,
        expires,
        credential_hash: _,
        thumbprint: _,
        kid: _,
        status: _,
        end: _,
    } = row;
    Ok(Lease {
        id,
        task,
        state,
        cause,
        kind,
        workload,
        owner,
        target,
        actions: stored(&actions)?,
        template,
        row,
        bound,
        issued_at,
        expires_at: expires,
        ended_at,
        ended_by,
        reason,
        ledger: ledger(point),
    })
}

pub(super) fn beat(answer: Beat) -> shapes::Beat {
    let Beat { state, deadline, beat, grace } = answer;
    shapes::Beat { state, deadline, beat_s: beat.as_s(), grace_s: grace.as_s() }
}

pub(super) fn ended(answer: EndAnswer) -> Ended {
    let EndAnswer { id, state, cause, ended_at, leases_ended, channels } = answer;
    Ended { id, state, cause, ended_at, leases_ended, revocation: channels.into_iter().map(known).collect() }
}

pub(super) fn ended_by_selector(answer: MassEnd) -> Result<EndedBySelector, Refused> {
    let MassEnd { event, block, cause, ended_at, leases, tasks, sample, channels, worst_case } = answer;
    Ok(EndedBySelector {
        id: event,
        state: event.map(|_| State::Ended),
        cause,
        ended_at,
        count: leases,
        tasks_ended: tasks,
        sample: sample.into_iter().map(lease).collect::<Result<_, _>>()?,
        block,
        revocation: channels.into_iter().map(known).collect(),
        worst_case,
    })
}

pub(super) fn block(view: BlockView) -> Block {
    let BlockView { id, selector, until, at, event, by, reason, cause, leases, tasks, behind, point } = view;
    Block {
        id,
        text: selector.to_string(),
        filter: selector.into(),
        until,
        created_at: at,
        event,
        by,
        reason,
        cause,
        leases_ended: leases,
        tasks_ended: tasks,
        behind,
        ledger: ledger(point),
    }
}

pub(super) fn known(state: ChannelState) -> Known {
    let ChannelState { channel, known, worst_case_at } = state;
    Known { channel, known, worst_case_at }
}

/// The body's members by their names; what stands in the details and has a member of its own on
/// the wire is lifted out of them.
pub(super) fn event(view: EventView) -> Result<Event, Refused> {
    let EventView { seq, mut body, details } = view;
    let committed = body.remove("details").is_some();
    let details = details.map(|mut details| {
        lift(&mut body, &mut details);
        details
    });
    let mut shown = body;
    shown.insert("seq".to_owned(), seq.into());
    in_rfc_3339(&mut shown);
    let mut event: Event = read(Value::Object(shown))?;
    event.details = match details {
        Some(details) if details.is_empty() => None,
        Some(details) => Some(Details::Open(details)),
        None => committed.then(|| Details::Erased("erased".to_owned())),
    };
    Ok(event)
}

fn lift(body: &mut Map<String, Value>, details: &mut Map<String, Value>) {
    for name in LIFTED {
        if !body.contains_key(*name)
            && let Some(value) = details.remove(*name)
        {
            body.insert((*name).to_owned(), value);
        }
    }
}

/// The ledger writes integers only: moments are Unix milliseconds there.
fn in_rfc_3339(body: &mut Map<String, Value>) {
    for name in ["at", "until", "ended_at", "blocked_until"] {
        if let Some(ms) = body.get(name).and_then(Value::as_i64) {
            body.insert(name.to_owned(), dayfly_domain::UnixMs::new(ms).to_string().into());
        }
    }
}

pub(super) fn entitlement(view: EntitlementView) -> Entitlement {
    let EntitlementView { template, row, owner, target, action, count, last_used, counted_since } = view;
    Entitlement { template, row, owner, target, action, count, last_used_at: last_used, counted_since }
}

pub(super) fn list<V, T>(listing: Listing<V>, shape: impl Fn(V) -> Result<T, Refused>) -> Result<List<T>, Refused> {
    let Listing { items, next_cursor } = listing;
    let items = items.into_iter().map(shape).collect::<Result<_, _>>()?;
    Ok(List { items, next_cursor })
}

/// What our own store wrote as JSON; anything else there is a defect.
fn stored<T: DeserializeOwned>(text: &str) -> Result<T, Refused> {
    serde_json::from_str(text).map_err(|_| Reason::Internal.into())
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, Refused> {
    serde_json::from_value(value).map_err(|_| Reason::Internal.into())
}

#[cfg(test)]
#[path = "views_tests.rs"]
mod tests;
