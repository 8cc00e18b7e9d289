//! Exactly what will be signed.

use dayfly_domain::{BindingKind, LeaseId, Reason, Secret, TaskId, UnixMs, Workload};
use dayfly_verifier::{Binding, Confirmation, Detail, Jws, Status, TaskClaims};
use ring::digest;

use super::{keyring::Keyring, name::subject};
use crate::policy::{Grant, GrantedTarget};

/// When a credential begins and ends, in whole seconds; `exp - iat` is the granted TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub iat_s: i64,
    pub exp_s: i64,
}

/// Why nothing was minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("the task's deadline has passed")]
    Over,
    #[error("the target binds its credentials, and nothing was proven")]
    Unbound,
    #[error("no credential was granted")]
    NoTarget,
    #[error("no key is usable: {0}")]
    Key(String),
    #[error("the request for a certificate asks for a name or a purpose that is not granted")]
    Foreign,
    #[error("the template takes no keys of this kind")]
    KeyKind,
    #[error("the key is known to others: make a fresh one")]
    KeyTaken,
    #[error("what was signed is not what was planned")]
    Mismatch,
}

impl MintError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Over => Reason::Ended,
            Self::Unbound => Reason::Dpop,
            Self::NoTarget => Reason::Target,
            Self::Foreign | Self::KeyKind | Self::KeyTaken => Reason::Csr,
            Self::Key(_) => Reason::Key,
            Self::Mismatch => Reason::Internal,
        }
    }
}

/// What the broker adds to a grant: ids, names, the moment.
#[derive(Debug)]
pub struct Terms<'a> {
    pub issuer: &'a str,
    pub trust_domain: &'a str,
    pub workload: &'a Workload,
    pub task: TaskId,
    pub lease: LeaseId,
    pub now: UnixMs,
    pub deadline: UnixMs,
    /// Fixed at the opening.
    pub ticket: Option<&'a str>,
}

/// Not `Clone`: a plan is spent once.
#[derive(Debug)]
pub struct Plan {
    claims: TaskClaims,
    window: Window,
}

/// A signed credential that has not left yet.
#[derive(Debug)]
pub struct Signed {
    pub token: Secret<String>,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Of the key that signed it.
    pub kid: String,
    pub window: Window,
}

/// The one place that caps a life (law L3): the minimum of what is asked, the row's TTL, the
/// target's longest, and the task's deadline.
// SECURITY: `t_088_no_cap_is_exceeded`.
pub fn window(grant: &Grant, target: &GrantedTarget, deadline: UnixMs, now: UnixMs) -> Result<Window, MintError> {
    let iat_s = now.as_s();
    let caps = [
        grant.asked_ttl_s().map_or(i64::MAX, i64::from),
        i64::from(grant.row_ttl().as_s()),
        i64::from(target.max_ttl.as_s()),
        deadline.as_s() - iat_s,
    ];
    let ttl_s = caps.into_iter().min().unwrap_or_default();
    if ttl_s < 1 {
        return Err(MintError::Over);
    }
    Ok(Window { iat_s, exp_s: iat_s + ttl_s })
}

impl Plan {
    /// `binding`: the witness of a checked proof. Whenever there is one, the token is bound to its key.
    // SECURITY: `a_bound_target_gets_no_bearer_token`.
    pub fn new(grant: &Grant, terms: &Terms<'_>, binding: Option<&Binding>) -> Result<Self, MintError> {
        let target = grant.target().ok_or(MintError::NoTarget)?;
        match (target.binding, binding) {
            (BindingKind::Bearer, _) | (BindingKind::Dpop, Some(_)) => {}
            (BindingKind::Dpop, None) | (BindingKind::Mtls, _) => return Err(MintError::Unbound),
        }
        let window = window(grant, target, terms.deadline, terms.now)?;
        let name = subject(terms.trust_domain, grant.template(), terms.workload);
        let detail = Detail {
            kind: "dayfly_task".to_owned(),
            template: grant.template().to_string(),
            locations: vec![target.uri.to_string()],
            actions: target.actions.iter().map(ToString::to_string).collect(),
            purpose: grant.purpose().to_string(),
            ticket: terms.ticket.map(str::to_owned),
        };
        let claims = TaskClaims {
            iss: terms.issuer.to_owned(),
            iat: window.iat_s,
            nbf: window.iat_s,
            exp: window.exp_s,
            jti: terms.lease,
            sub: name.clone(),
            client_id: name,
            aud: target.uri.to_string(),
            authorization_details: vec![detail],
            txn: terms.task,
            owner: grant.owner().to_string(),
            cnf: binding.map(|binding| Confirmation { jkt: binding.thumbprint() }),
            status: None,
        };
        Ok(Self { claims, window })
    }

    pub fn window(&self) -> Window {
        self.window
    }

    /// With the place on a status list where an end of it will be read.
    pub fn listed(self, status: Status) -> Self {
        let claims = TaskClaims { status: Some(status), ..self.claims };
        Self { claims, ..self }
    }

    /// Signs with the active key, reads back what was signed, compares.
    pub fn sign(self, keyring: &Keyring) -> Result<Signed, MintError> {
        let key = keyring.active(self.window.exp_s).map_err(|error| MintError::Key(error.to_string()))?;
        let token = key.sign("at+jwt", &self.claims).map_err(|error| MintError::Key(error.to_string()))?;
        let jws = Jws::parse(&token).map_err(|_| MintError::Mismatch)?;
        let planned = serde_json::to_value(&self.claims).map_err(|_| MintError::Mismatch)?;
        let same = planned.as_object() == Some(jws.unverified_claims())
            && (jws.alg(), jws.typ(), jws.kid()) == ("ES256", Some("at+jwt"), Some(key.kid()));
        if !same {
            return Err(MintError::Mismatch);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Ok(Signed { token: Secret::new(token), hash, kid: key.kid().to_owned(), window: self.window })
    }
}
