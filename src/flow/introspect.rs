//! Who holds a secret, and whether a token is live.
//!
//! A presented token is looked up by its `jti` and compared by hash in constant time: what we
//! signed ourselves needs no second check of the signature.

use std::sync::{Arc, atomic::Ordering};

use dayfly_domain::{LeaseId, Reason, State, TaskId, Workload, bundle::Action};
use dayfly_verifier::{Jws, signed_by};
use serde_json::Value;

use super::{
    Flow,
    certificates::Named,
    client::x5t,
    issue::{is_handle, workload_of},
    possession::Held,
    sha256,
    words::{Caller, Introspected, Presented, Refused, Shown},
};
use crate::{
    lease::{Lease, Now},
    policy::{Reach, RowFacts, RowKind},
    store::TaskRow,
    sys::{net::PresentedChain, offload::offload},
};

/// Name of the built-in target.
const BROKER: &str = "broker";

/// The one action that a verifier has.
pub(super) const INTROSPECT: &str = "introspect";

/// What a caller may reach, resolved once for each request.
#[derive(Debug)]
pub(super) enum Authority {
    Operator {
        uid: u32,
    },
    Workload {
        task: TaskId,
        workload: Box<Workload>,
        owner: Arc<str>,
        actions: Arc<[Action]>,
    },
    /// Its own task, whatever state that is in.
    Handle {
        task: TaskId,
    },
    /// May introspect for these targets, and nothing else.
    Verifier {
        issuer: Arc<str>,
        targets: Arc<[Arc<str>]>,
    },
}

impl Authority {
    /// As the record keeps it.
    pub fn actor(&self) -> String {
        match self {
            Self::Operator { uid } => format!("local:{uid}"),
            Self::Workload { task, .. } => task.to_string(),
            Self::Handle { .. } => "handle".to_owned(),
            Self::Verifier { issuer, .. } => format!("verifier:{issuer}"),
        }
    }

    /// Whether the caller has the action at all, on whatever row.
    pub fn holds(&self, action: &str) -> bool {
        match self {
            Self::Operator { .. } => true,
            Self::Workload { actions, .. } => actions.iter().any(|held| &**held == action),
            Self::Handle { .. } => false,
            Self::Verifier { .. } => action == INTROSPECT,
        }
    }
}

impl Flow {
    /// Who holds this secret (token for the broker, or handle). Never says why not; only a proof
    /// that is wrong in itself is an error.
    pub async fn caller(&self, shown: &Shown) -> Result<Caller, Refused> {
        self.caller_over(shown, None).await
    }

    /// The same over a connection on which this was presented.
    pub async fn caller_over(&self, shown: &Shown, client: Option<&PresentedChain>) -> Result<Caller, Refused> {
        let Shown { secret, bound, possession } = shown;
        let now = self.time.now();
        let proof = possession.as_ref().map(|given| self.read_proof(given, Some(secret), now)).transpose()?;
        if *bound && proof.is_none() {
            return Err(Refused {
                hint: Some("`Authorization: DPoP` goes with a `DPoP` header".to_owned()),
                ..Reason::Dpop.into()
            });
        }
        let Some((caller, held)) = self.holder(secret, now).await else { return Ok(Caller::Nobody) };
        // SECURITY: what is bound is nobody's as a bearer, and what is not bound is nobody's with the
        // scheme of what is; a_bound_handle_is_nobodys_as_a_bearer. What is bound to a certificate comes as a
        // bearer over a connection with it (RFC 8705 section 3).
        let free = held == Held::Free || self.is_held_by(held, client, now);
        if *bound == free {
            return Ok(Caller::Nobody);
        }
        Ok(self.hold(held, proof, client, now)?.map_or(Caller::Nobody, |_| caller))
    }

    /// Whose secret this is, and the key that it is bound to.
    async fn holder(&self, secret: &Presented, now: Now) -> Option<(Caller, Held)> {
        if is_handle(secret.expose()) {
            if let Some((task, thumbprint)) = self.table.owned_by(&sha256(secret.expose().as_bytes())) {
                return Some((Caller::Handle { task }, Held::to(thumbprint)));
            }
            // Memory forgets a task before its row goes.
            let row = self.task_of_handle(secret).await.ok().flatten()?;
            return Some((Caller::Handle { task: row.id }, Held::of_task(&row)));
        }
        let found = self.broker_token(secret, now);
        if found.is_none() && self.lease_of(secret).is_none() {
            self.look_for_forgery(secret, now);
        }
        found
    }

    /// A live task token whose target is the broker itself.
    fn broker_token(&self, token: &Presented, now: Now) -> Option<(Caller, Held)> {
        let (id, lease, jws) = self.lease_of(token)?;
        let live = self.table.lease_state(&lease, now).0 == State::Active;
        if !live || &*lease.target != BROKER {
            return None;
        }
        let details = jws.unverified_claims().get("authorization_details")?.get(0)?;
        let actions = details.get("actions")?.as_array()?;
        let actions: Option<Arc<[Action]>> = actions.iter().map(|action| action.as_str().map(Arc::from)).collect();
        let owner = self.table.task(lease.task)?.owner;
        let caller = Caller::Token { task: lease.task, lease: id, owner, actions: actions? };
        Some((caller, Held::to(lease.thumbprint)))
    }

    /// The lease of exactly this token. What the token says can then be believed: it is ours.
    // SECURITY: `a_token_is_matched_whole_not_by_its_id`.
    pub(super) fn lease_of(&self, token: &Presented) -> Option<(LeaseId, Lease, Jws)> {
        let jws = Jws::parse(token.expose()).ok()?;
        let id: LeaseId = jws.unverified_jti()?.parse().ok()?;
        let lease = self.table.lease(id)?;
        // SECURITY: what a tainted key signed is dead from the moment it is tainted, before that is on the
        // record; a_taint_that_is_not_durable_is_in_force
        if jws.kid().is_some_and(|kid| self.keyring.is_tainted(kid)) {
            return None;
        }
        let hash = sha256(token.expose().as_bytes());
        lease.is_of(&hash).then_some((id, lease, jws))
    }

    /// RFC 7662; `Ok(None)` is `{"active": false}`. `E-CLIENT`, `E-SCOPE` for the caller.
    pub async fn introspect(&self, caller: &Caller, token: &Presented) -> Result<Option<Introspected>, Refused> {
        let authority = self.authority(caller).await?;
        if !authority.holds(INTROSPECT) {
            return Err(Reason::Scope.into());
        }
        let now = self.time.now();
        if let Some(named) = Named::read(token.expose()) {
            return self.introspect_certificate(&authority, named, now).await;
        }
        let Some((id, lease, jws)) = self.lease_of(token) else {
            self.look_for_forgery(token, now);
            return Ok(None);
        };
        let visible = self.may_see_lease(&authority, INTROSPECT, id, &lease);
        if !visible || self.table.lease_state(&lease, now).0 != State::Active {
            return Ok(None);
        }
        // SECURITY: `a_token_is_dead_with_the_certificate_that_it_is_bound_to`.
        if x5t(&jws).is_some_and(|certificate| !self.is_live_certificate(&certificate, lease.task, now)) {
            return Ok(None);
        }
        Ok(Some(Introspected { claims: jws.into_unverified_claims(), task: lease.task }))
    }

    /// A token that one of our keys signed in our name, over a lease we do not know: somebody signs
    /// with our key, or a record was lost. Inactive, and an alarm. What else is in it does not
    /// matter: who has the key writes what he likes. Expired, it is worth nothing.
    // SECURITY: `whatever_is_signed_with_our_key_over_no_lease_is_an_alarm`.
    fn look_for_forgery(&self, token: &Presented, now: Now) {
        let Ok(jws) = Jws::parse(token.expose()) else { return };
        let expired =
            jws.unverified_claims().get("exp").and_then(Value::as_i64).is_some_and(|exp| exp <= now.at.as_s());
        if expired || jws.unverified_issuer() != Some(&*self.issuer) || !self.is_ours(&jws) {
            return;
        }
        let lease: Option<LeaseId> = jws.unverified_jti().and_then(|jti| jti.parse().ok());
        // A token of a lease that is merely over is no forgery; a store that cannot be read says nothing.
        if lease.is_some_and(|lease| !matches!(self.reader.lease(lease), Ok(None))) {
            return;
        }
        self.forged_or_lost.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("dayfly_forged_or_lost_total").increment(1);
        let lease = lease.map_or_else(|| "none".to_owned(), |lease| lease.to_string());
        tracing::error!(lease, "forged_or_lost: a token signed with our key has no lease");
    }

    /// Signed by a key of ours, whatever for, tainted or not.
    fn is_ours(&self, jws: &Jws) -> bool {
        let lists = self.list_keys.ring();
        let keys = [self.keyring.public(), self.keyring.suspect(), lists.public(), lists.suspect()];
        keys.iter().any(|keys| signed_by(jws, keys))
    }

    /// Tokens so far that our key signed, and that no record knows.
    pub fn forged_or_lost(&self) -> u64 {
        self.forged_or_lost.load(Ordering::Relaxed)
    }

    pub(super) async fn authority(&self, caller: &Caller) -> Result<Authority, Refused> {
        match caller {
            Caller::Nobody => Err(Reason::Client.into()),
            Caller::Operator { uid } => Ok(Authority::Operator { uid: *uid }),
            Caller::Handle { task } => Ok(Authority::Handle { task: *task }),
            Caller::Verifier { issuer, targets } => {
                Ok(Authority::Verifier { issuer: issuer.clone(), targets: targets.clone() })
            }
            Caller::Token { task, lease: _, owner, actions } => {
                let row = self.task_row(*task).await?.ok_or(Reason::Client)?;
                let workload = workload_of(&row).ok_or(Reason::Client)?;
                Ok(Authority::Workload {
                    task: *task,
                    workload: Box::new(workload),
                    owner: owner.clone(),
                    actions: actions.clone(),
                })
            }
        }
    }

    pub(super) async fn task_row(&self, id: TaskId) -> Result<Option<TaskRow>, Refused> {
        let reader = self.reader.clone();
        let row = offload(move || reader.task(id)).await.map_err(|_| Reason::Internal)?;
        row.map_err(|error| error.reason().into())
    }

    pub(super) fn may_see_lease(&self, authority: &Authority, action: &str, id: LeaseId, lease: &Lease) -> bool {
        // Asked by a server for each of its requests: the target's name says it all.
        if let Authority::Verifier { targets, .. } = authority {
            return action == INTROSPECT && reaches(targets, &lease.target);
        }
        let Some(task) = self.table.task(lease.task) else { return false };
        let id = id.to_string();
        let facts = RowFacts {
            kind: RowKind::Lease,
            id: &id,
            owner: &task.owner,
            template: &task.template,
            workload: &task.workload,
            environment: &task.environment,
            target: &lease.target,
        };
        self.may(authority, action, &facts)
    }

    /// The one question about a row (law L7), for everyone but the holder of its own handle.
    pub(super) fn may(&self, authority: &Authority, action: &str, row: &RowFacts<'_>) -> bool {
        let policy = self.policy.load();
        match authority {
            Authority::Operator { uid } => policy.may(&Reach::Operator { uid: *uid }, action, row),
            Authority::Workload { workload, owner, actions, .. } => {
                policy.may(&Reach::Workload { workload, owner, actions }, action, row)
            }
            Authority::Handle { .. } => false,
            Authority::Verifier { targets, .. } => action == INTROSPECT && reaches(targets, row.target),
        }
    }
}

// SECURITY: `a_foreign_targets_token_is_inactive`.
fn reaches(targets: &[Arc<str>], target: &str) -> bool {
    targets.iter().any(|own| **own == *target)
}
