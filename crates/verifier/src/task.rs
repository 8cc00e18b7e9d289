//! The task token: an RFC 9068 access token whose claims say which task it is for and what it may
//! do there. The broker signs [`TaskClaims`]; a resource server reads them back through
//! [`read_task_token`].

use dayfly_domain::{LeaseId, TaskId, UnixMs};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{Jws, KeySet, Refusal, Rules, Verified, dpop::Thumbprint, verify};

/// `typ` of a task token (RFC 9068 section 2.1).
pub const TASK_TOKEN_TYP: &str = "at+jwt";

/// The `type` of our details.
pub const DETAIL_TYPE: &str = "dayfly_task";

/// Claims of a task token. Times are Unix seconds; members that are not listed are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskClaims {
    /// The broker's issuer URL.
    pub iss: String,
    pub iat: i64,
    pub nbf: i64,
    /// `iat` plus the granted TTL, exactly.
    pub exp: i64,
    /// The lease: one lease is one credential.
    pub jti: LeaseId,
    /// The workload's name, at most 127 bytes.
    pub sub: String,
    /// The same as `sub` (RFC 9068 section 2.2 wants it).
    pub client_id: String,
    /// The target's URI.
    pub aud: String,
    /// What was granted (RFC 9396).
    pub authorization_details: Vec<Detail>,
    /// The task.
    pub txn: TaskId,
    /// Owner of the task.
    pub owner: String,
    /// The key or the certificate that the token is bound to (RFC 7800).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
    /// Where an end of this token is published, if its target verifies by list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// `cnf`: exactly one of these. A member that is not known here, or a second one, is a demand that cannot be
/// met, so it is not read over.
// SECURITY: a_bound_token_without_its_proof_is_refused
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confirmation {
    /// A DPoP key (RFC 9449 section 6.1).
    #[serde(rename = "jkt")]
    Jkt(Thumbprint),
    /// A client certificate (RFC 8705 section 3.1).
    #[serde(rename = "x5t#S256")]
    X5t(Thumbprint),
}

/// `status` of a token that is on a status list (draft-ietf-oauth-status-list-21 section 6.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub status_list: StatusRef,
}

/// Which entry of which list (section 6.2). Other members are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRef {
    /// The entry's place, from 0.
    pub idx: u32,
    /// The list's own URL, and the `sub` of its token.
    pub uri: String,
}

/// One object of `authorization_details` (RFC 9396 section 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// [`DETAIL_TYPE`]
    #[serde(rename = "type")]
    pub kind: String,
    pub template: String,
    /// Exactly one: the target's URI.
    pub locations: Vec<String>,
    pub actions: Vec<String>,
    pub purpose: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

impl TaskClaims {
    /// Whether the token grants this action on its own target. Compared byte for byte.
    pub fn allows(&self, action: &str) -> bool {
        self.authorization_details.iter().any(|detail| {
            detail.kind == DETAIL_TYPE
                && detail.locations.contains(&self.aud)
                && detail.actions.iter().any(|granted| granted == action)
        })
    }
}

/// Accepts a task token of this issuer for this audience: `typ` `at+jwt`, ES256, and no `cnf`: a
/// bound token alone is worth nothing (it answers [`Refusal::Claim`] of `cnf`).
// SECURITY: a_bound_token_without_its_proof_is_refused
pub fn read_task_token(
    token: &str,
    keys: &KeySet,
    issuer: &str,
    audience: &str,
    now: UnixMs,
) -> Result<Verified<TaskClaims>, Refusal> {
    let read = inspect_task_token(token, keys, issuer, audience, now)?;
    if read.claims().cnf.is_some() { Err(Refusal::Claim("cnf")) } else { Ok(read) }
}

/// The same for a token that may be bound. Let nobody in by it: the proof, or the certificate, is still to be
/// asked for, as `Offline::check_bound` and `Offline::check_certified` do.
pub fn inspect_task_token(
    token: &str,
    keys: &KeySet,
    issuer: &str,
    audience: &str,
    now: UnixMs,
) -> Result<Verified<TaskClaims>, Refusal> {
    verify(&Jws::parse(token)?, keys, &task_rules(issuer, audience), now)?.read(task_claims)
}

pub(crate) fn task_rules(issuer: &str, audience: &str) -> Rules {
    Rules {
        algs: vec!["ES256".to_owned()],
        // SECURITY: t_025_another_kind_of_token_is_refused
        typ: vec![TASK_TOKEN_TYP.to_owned()],
        ..Rules::new(issuer, audience)
    }
}

/// Member by member, so that a refusal can say which one is wrong.
fn task_claims(mut claims: Map<String, Value>) -> Result<TaskClaims, Refusal> {
    let cnf = if claims.contains_key("cnf") { Some(take(&mut claims, "cnf")?) } else { None };
    let status = if claims.contains_key("status") { Some(take(&mut claims, "status")?) } else { None };
    let read = TaskClaims {
        iss: take(&mut claims, "iss")?,
        iat: take(&mut claims, "iat")?,
        nbf: take(&mut claims, "nbf")?,
        exp: take(&mut claims, "exp")?,
        jti: take(&mut claims, "jti")?,
        sub: take(&mut claims, "sub")?,
        client_id: take(&mut claims, "client_id")?,
        aud: take(&mut claims, "aud")?,
        authorization_details: take(&mut claims, "authorization_details")?,
        txn: take(&mut claims, "txn")?,
        owner: take(&mut claims, "owner")?,
        cnf,
        status,
    };
    if read.authorization_details.is_empty() { Err(Refusal::Claim("authorization_details")) } else { Ok(read) }
}

fn take<T: DeserializeOwned>(claims: &mut Map<String, Value>, name: &'static str) -> Result<T, Refusal> {
    let value = claims.remove(name).ok_or(Refusal::Claim(name))?;
    serde_json::from_value(value).map_err(|_| Refusal::Claim(name))
}
