//! One constructor for each type of event. Outcome and cause are arguments; nothing defaults to
//! success.

use std::collections::BTreeMap;

use dayfly_domain::{
    BlockId, Bound, Cause, Claims, EventId, Kind, LeaseId, Name, Reason, Selector, TaskId, UnixMs, Workload,
    bundle::Fingerprint,
};
use ring::digest;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    body::{Body, Context},
    tree::leaf_hash,
};
use crate::{
    policy::{Ask, What},
    store::{DetailRow, EventRow, LeaseRow, TaskRow},
    sys::{
        clock::Reading,
        entropy::{self, NoEntropy},
    },
};

/// What makes an event unique: drawn before the decision is recorded, so that its id can be told.
#[derive(Debug)]
pub struct Stamp {
    pub id: EventId,
    pub at: UnixMs,
    salt: [u8; 32],
}

/// An event that has no sequence number yet. No hash depends on the number.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: EventId,
    at: UnixMs,
    task: Option<TaskId>,
    lease: Option<LeaseId>,
    body: Vec<u8>,
    leaf: [u8; 32],
    detail: Option<DetailRow>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Refused,
    Failed,
}

/// The ask as recorded.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    pub ask: &'a Ask,
    pub context: Context,
}

/// A start of the process on a store.
#[derive(Debug)]
pub struct Start<'a> {
    pub clocks: Reading,
    pub bundle: Fingerprint,
    pub kid: &'a str,
    pub version: &'a str,
}

#[derive(Debug)]
pub struct Issue<'a> {
    pub task: &'a TaskRow,
    pub lease: &'a LeaseRow,
    pub asked: Asked<'a>,
    pub bundle: Fingerprint,
    pub ttl_s: i64,
    pub ticket: Option<&'a str>,
}

#[derive(Debug)]
pub struct Denial<'a> {
    pub workload: &'a Workload,
    pub asked: Asked<'a>,
    pub reason: Reason,
    pub policies: &'a [String],
    pub bundle: Fingerprint,
    /// With a handle: whose. Of a conflict: whose evidence, or in whose job.
    pub task: Option<TaskId>,
    /// How many refusals this event stands for, when more than one.
    pub count: Option<u64>,
}

#[derive(Debug)]
pub struct BundleSwap {
    pub from: Option<Fingerprint>,
    pub to: Fingerprint,
    pub rollback: bool,
}

#[derive(Debug)]
pub struct KeyRotation<'a> {
    /// Empty: nobody signed before.
    pub from: &'a str,
    pub to: &'a str,
    /// `ca`; absent: task tokens or status lists.
    pub usage: Option<&'a str>,
}

/// A key that left for ever.
#[derive(Debug)]
pub struct KeyTaint<'a> {
    pub kid: &'a str,
    /// The key that signs from now on.
    pub signs: &'a str,
    /// How many credentials ended with it.
    pub leases: u64,
}

/// An end by selector.
#[derive(Debug)]
pub struct Tombstone<'a> {
    pub selector: &'a Selector,
    pub cause: Cause,
    pub ended_at: UnixMs,
    pub leases: u64,
    pub tasks: u64,
    /// The block that is written with it; it stands until it is lifted.
    pub block: Option<BlockId>,
}

impl Stamp {
    pub fn draw(at: UnixMs) -> Result<Self, NoEntropy> {
        let id = EventId::from_parts(at.as_ms().max(0) as u64, entropy::bytes()?);
        Ok(Self { id, at, salt: entropy::bytes()? })
    }
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl Entry {
    /// The row, at its place in the stream.
    pub fn at_seq(self, seq: u64) -> EventRow {
        let Self { id, at, task, lease, body, leaf, detail } = self;
        EventRow { seq, id, at, task, lease, body, leaf, detail }
    }
}

pub fn start(stamp: Stamp, facts: &Start<'_>) -> Entry {
    let body = Body {
        wall_ms: Some(facts.clocks.wall.as_ms()),
        boot_ms: Some(facts.clocks.boot_ms),
        bundle: Some(facts.bundle.to_string()),
        kid: Some(facts.kid.to_owned()),
        version: Some(facts.version.to_owned()),
        ..Body::new("start", Outcome::Success)
    };
    entry(stamp, body, &Value::Null)
}

/// `claims`: the typed claims that the decision rested on.
pub fn task_opened(stamp: Stamp, task: &TaskRow, claims: &Claims, asked: &Asked<'_>, bundle: Fingerprint) -> Entry {
    let details = json!({
        "workload": task.workload, "claims": claims, "ticket": task.ticket, "job": task.job,
        "untrusted": task.untrusted, "profile": task.profile, "issued_at_s": task.evidence_iat_s,
    });
    let body = Body {
        task: Some(task.id),
        owner: Some(task.owner.clone()),
        issuer: Some(task.issuer.clone()),
        template: Some(task.template.clone()),
        row: Some(task.row.clone()),
        environment: Some(task.environment.clone()),
        grants: serde_json::from_str(&task.grants).ok(),
        evidence_until: Some(UnixMs::from_s(task.evidence_exp_s).as_ms()),
        context: Some(asked.context.clone()),
        until: Some(task.deadline.as_ms()),
        evidence: Some(hex(&task.evidence_key)),
        handle: Some(hex(&task.handle_hash)),
        jkt: task.thumbprint.clone().filter(|_| task.bound != Bound::X5t),
        spki: task.thumbprint.clone().filter(|_| task.bound == Bound::X5t),
        bundle: Some(bundle.to_string()),
        ..Body::new("task_opened", Outcome::Success)
    };
    entry(stamp, body, &details)
}

pub fn issued(stamp: Stamp, facts: &Issue<'_>) -> Entry {
    let Issue { task, lease, asked, bundle, ttl_s, ticket } = facts;
    let details = json!({ "workload": task.workload, "ticket": ticket });
    let actions: Vec<String> = serde_json::from_str(&lease.actions).unwrap_or_default();
    let bound = |how: Bound, kind: Kind| {
        lease.bound().1.filter(|_| (lease.bound().0, lease.kind) == (how, kind)).map(str::to_owned)
    };
    let body = Body {
        task: Some(task.id),
        lease: Some(lease.id),
        owner: Some(task.owner.clone()),
        issuer: Some(task.issuer.clone()),
        template: Some(task.template.clone()),
        row: Some(lease.row.clone()),
        target: Some(lease.target.clone()),
        actions: Some(actions),
        credential_kind: Some(lease.kind),
        context: Some(asked.context.clone()),
        ttl_s: Some(*ttl_s),
        until: Some(lease.expires.as_ms()),
        credential: Some(hex(&lease.credential_hash)),
        jkt: bound(Bound::Jkt, Kind::Jwt),
        x5t: bound(Bound::X5t, Kind::Jwt),
        spki: bound(Bound::X5t, Kind::X509),
        bundle: Some(bundle.to_string()),
        ..Body::new("issued", Outcome::Success)
    };
    entry(stamp, body, &details)
}

pub fn denied(stamp: Stamp, facts: &Denial<'_>) -> Entry {
    let Denial { workload, asked, reason, policies, bundle, task, count } = facts;
    let (resource, actions) = match &asked.ask.what {
        What::Credential { resource, actions, .. } => (resource.as_deref(), actions.as_deref()),
        What::TaskOnly => (None, None),
    };
    let details = json!({
        "workload": &*workload.principal, "claims": workload.claims, "untrusted": workload.untrusted,
        "job": workload.job.as_deref(), "ticket": asked.ask.ticket,
        "asked": { "template": asked.ask.template, "resource": resource, "actions": actions, "ttl": asked.ask.ttl_s },
    });
    let body = Body {
        task: *task,
        issuer: Some(workload.issuer.to_string()),
        // What was asked is the caller's text; the body takes it only when it is a name.
        template: asked.ask.template.parse::<Name>().ok().map(|name| name.to_string()),
        reason: Some(reason.code().to_owned()),
        policies: policies.to_vec(),
        context: Some(asked.context.clone()),
        bundle: Some(bundle.to_string()),
        count: *count,
        ..Body::new("denied", Outcome::Refused)
    };
    entry(stamp, body, &details)
}

/// `ended_at` may lie ahead (supersede). `actor`: who asked, as the detail keeps it.
pub fn lease_ended(
    stamp: Stamp,
    lease: LeaseId,
    task: TaskId,
    cause: Cause,
    ended_at: UnixMs,
    actor: &str,
    reason: Option<&str>,
) -> Entry {
    let body = Body {
        task: Some(task),
        lease: Some(lease),
        cause: Some(cause),
        ended_at: Some(ended_at.as_ms()),
        ..Body::new("lease_ended", Outcome::Success)
    };
    entry(stamp, body, &json!({ "actor": actor, "reason": reason }))
}

/// `leases`: how many credentials ended with it.
#[expect(clippy::too_many_arguments, reason = "facts of one event, each of its own type")]
pub fn task_ended(
    stamp: Stamp,
    task: TaskId,
    cause: Cause,
    ended_at: UnixMs,
    blocked_until: Option<UnixMs>,
    leases: u64,
    actor: &str,
    reason: Option<&str>,
) -> Entry {
    let body = Body {
        task: Some(task),
        cause: Some(cause),
        ended_at: Some(ended_at.as_ms()),
        blocked_until: blocked_until.map(UnixMs::as_ms),
        count: Some(leases),
        ..Body::new("task_ended", Outcome::Success)
    };
    entry(stamp, body, &json!({ "actor": actor, "reason": reason }))
}

pub fn bundle_swapped(stamp: Stamp, facts: &BundleSwap, actor: &str) -> Entry {
    let body = Body {
        bundle: Some(facts.to.to_string()),
        previous_bundle: facts.from.map(|from| from.to_string()),
        rollback: facts.rollback.then_some(true),
        ..Body::new("bundle_swapped", Outcome::Success)
    };
    entry(stamp, body, &json!({ "actor": actor }))
}

pub fn key_rotated(stamp: Stamp, facts: &KeyRotation<'_>) -> Entry {
    let body = Body {
        kid: Some(facts.to.to_owned()),
        previous_kid: Some(facts.from.to_owned()).filter(|from| !from.is_empty()),
        key_use: facts.usage.map(str::to_owned),
        ..Body::new("key_rotated", Outcome::Success)
    };
    entry(stamp, body, &Value::Null)
}

pub fn key_tainted(stamp: Stamp, facts: &KeyTaint<'_>, actor: &str, reason: Option<&str>) -> Entry {
    let body = Body {
        tainted_kid: Some(facts.kid.to_owned()),
        kid: Some(facts.signs.to_owned()).filter(|signs| !signs.is_empty()),
        count: Some(facts.leases),
        ..Body::new("key_tainted", Outcome::Success)
    };
    entry(stamp, body, &json!({ "actor": actor, "reason": reason }))
}

/// An operator's act that is no end of its own, e.g. a load that was refused.
pub fn operator(stamp: Stamp, outcome: Outcome, actor: &str, act: &str, what: &BTreeMap<&str, String>) -> Entry {
    let body = Body { ..Body::new("operator", outcome) };
    entry(stamp, body, &json!({ "actor": actor, "act": act, "what": what }))
}

/// Everything that the selector means, and whose event precedes this one, ended. Its values are in the
/// detail: some are names of people's things.
pub fn tombstone(stamp: Stamp, facts: &Tombstone<'_>, actor: &str, reason: Option<&str>) -> Entry {
    let Tombstone { selector, cause, ended_at, leases, tasks, block } = facts;
    let body = Body {
        cause: Some(*cause),
        ended_at: Some(ended_at.as_ms()),
        count: Some(*leases),
        tasks: Some(*tasks),
        names: selector.terms().map(|(name, _)| name).collect(),
        block: *block,
        ..Body::new("tombstone", Outcome::Success)
    };
    entry(stamp, body, &json!({ "actor": actor, "selector": selector.to_string(), "reason": reason }))
}

/// A block that an operator asked for after the task had ended by itself.
pub fn blocked(stamp: Stamp, task: TaskId, until: UnixMs, actor: &str, reason: Option<&str>) -> Entry {
    let body = Body { task: Some(task), blocked_until: Some(until.as_ms()), ..Body::new("block", Outcome::Success) };
    entry(stamp, body, &json!({ "actor": actor, "act": "block", "reason": reason }))
}

/// A block that an operator took away again; `written_by`: the event that had written it.
pub fn block_lifted(stamp: Stamp, block: BlockId, written_by: u64, actor: &str) -> Entry {
    let body = Body { block: Some(block), written_by: Some(written_by), ..Body::new("block", Outcome::Success) };
    entry(stamp, body, &json!({ "actor": actor, "act": "lift" }))
}

impl Body {
    fn new(kind: &str, outcome: Outcome) -> Self {
        Self { v: 1, kind: kind.to_owned(), outcome: Some(outcome.as_str().to_owned()), ..Self::default() }
    }
}

fn entry(stamp: Stamp, mut body: Body, details: &Value) -> Entry {
    body.id = Some(stamp.id);
    body.at = stamp.at.as_ms();
    let detail = (!details.is_null()).then(|| DetailRow { salt: stamp.salt, bytes: bytes_of(details) });
    body.details = detail.as_ref().map(|detail| hex(&commitment(detail)));
    let bytes = bytes_of(&body);
    Entry {
        id: stamp.id,
        at: stamp.at,
        task: body.task,
        lease: body.lease,
        leaf: leaf_hash(&bytes),
        body: bytes,
        detail,
    }
}

/// SHA-256(salt || bytes): without a salt an erased name could be guessed back.
pub(super) fn commitment(detail: &DetailRow) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&detail.salt);
    context.update(&detail.bytes);
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of<T: Serialize>(value: &T) -> Vec<u8> {
    // INVARIANT: maps with string keys, strings, integers: JSON can hold all of them.
    serde_json::to_vec(value).expect("an event is plain JSON")
}

impl Context {
    /// The word that stands for the kind of an ask.
    pub fn kind_of(what: &What) -> &'static str {
        match what {
            What::Credential { kind: Kind::Jwt, .. } => "jwt",
            What::Credential { kind: Kind::X509, .. } => "x509",
            What::TaskOnly => "task",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_commits_to_the_detail() {
        let stamp = Stamp::draw(UnixMs::from_s(1_800_000_000)).unwrap();
        let task = TaskId::from_parts(1, [1; 10]);
        let entry = task_ended(stamp, task, Cause::Revoked, UnixMs::from_s(5), None, 2, "local:0", Some("vendor left"));
        let row = entry.at_seq(7);
        let body: Body = serde_json::from_slice(&row.body).unwrap();
        let detail = row.detail.unwrap();
        assert_eq!(body.details.unwrap(), hex(&commitment(&detail)));
        assert_eq!(row.leaf, leaf_hash(&row.body));
        let text = String::from_utf8(row.body).unwrap();
        assert!(!text.contains("vendor left") && !text.contains("local:0"), "{text}");
    }
}
