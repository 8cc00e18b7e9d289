//! Status lists: a place for a credential whose target verifies by list, and the lists as whoever asks
//! reads them. A list is held against the lease table when it is asked for, and signed when it says
//! something else than before.

use std::{convert::identity, sync::Arc};

use dayfly_domain::{LeaseId, ListId, Reason, State, UnixMs, Verifies, bundle::Target};
use dayfly_verifier::{Status, StatusRef};

use super::{
    Flow, Shared,
    introspect::Authority,
    sha256,
    words::{Caller, Refused},
};
use crate::{
    lease::{Now, Touched},
    mint::MintError,
    policy::{Policy, RowFacts, RowKind},
    revoke::{Proof, Published, Scope, Wish, list_claims},
    store::StatusSlot,
    sys::{entropy, offload::offload},
};

/// Of a list whose targets have all left the bundle.
const LIFE_S: u32 = 300;

/// A list, as its own targets' servers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusListView {
    pub uri: String,
    /// Of those that the caller may know of, the targets whose leases stand on it, or may.
    pub targets: Vec<Arc<str>>,
    /// When nothing on it lives any more.
    pub expires_at: UnixMs,
}

impl Flow {
    /// The list as it is to be sent now. Whatever is no list of ours is not found.
    pub async fn status_list(&self, id: &str) -> Result<Arc<Published>, Refused> {
        let id: ListId = id.parse().map_err(|_| Reason::NotFound)?;
        let ready = self.lists.ready(id, self.time.now().at).ok_or(Reason::NotFound)?;
        if let Some(published) = ready {
            return Ok(published);
        }
        let flow = self.clone();
        offload(move || flow.sign_list(id)).await.map_err(|_| Reason::Internal)?
    }

    /// Takes milliseconds: off the request threads.
    fn sign_list(&self, id: ListId) -> Result<Arc<Published>, Refused> {
        let now = self.time.now();
        self.settle_lists(now);
        let scope = self.lists.scope(id).ok_or(Reason::NotFound)?;
        let life_s = life_s(&self.policy.load(), &scope);
        let published = self.lists.publish(id, life_s, now.at, |proof| self.press(id, proof, life_s, now.at));
        published.ok_or(Reason::NotFound)?.map_err(|error| {
            tracing::error!(%error, "a status list was not signed");
            error.reason().into()
        })
    }

    fn press(&self, id: ListId, proof: Proof, life_s: u32, now: UnixMs) -> Result<Published, MintError> {
        let Proof { bytes, news } = proof;
        let token = self.list_keys.sign(&list_claims(self.list_uri(id), bytes, life_s, now))?;
        for ended_at in news {
            let seconds = (now.as_ms() - ended_at.as_ms()).max(0) as f64 / 1_000.0;
            metrics::histogram!("dayfly_end_propagation_seconds", "channel" => "status_list").record(seconds);
        }
        let [a, b, c, d, ..] = sha256(token.as_bytes());
        Ok(Published { etag: format!("\"{:08x}\"", u32::from_be_bytes([a, b, c, d])), token })
    }

    /// The lists of the targets that the caller may introspect for.
    pub async fn status_lists(&self, caller: &Caller) -> Result<Vec<StatusListView>, Refused> {
        let authority = self.authority(caller).await?;
        if !authority.holds("introspect") {
            return Err(Reason::Scope.into());
        }
        let policy = self.policy.load_full();
        let now = self.time.now().at;
        let mut views = Vec::new();
        for view in self.lists.views() {
            let targets = targets_of(&policy, &view.scope).filter(|target| self.may_list(&authority, target));
            let targets: Vec<Arc<str>> = targets.map(|target| target.name.as_str().into()).collect();
            let all = matches!(authority, Authority::Operator { .. });
            if view.until > now && (all || !targets.is_empty()) {
                views.push(StatusListView { uri: self.list_uri(view.id), targets, expires_at: view.until });
            }
        }
        Ok(views)
    }

    /// As for a lease that the target's own owner let be issued.
    fn may_list(&self, authority: &Authority, target: &Target) -> bool {
        let facts = RowFacts {
            kind: RowKind::Lease,
            id: "",
            owner: target.owner.as_str(),
            template: "",
            workload: "",
            environment: target.environment.as_str(),
            target: target.name.as_str(),
        };
        self.may(authority, "introspect", &facts)
    }
}

impl Shared {
    /// A place for a credential of this target that expires then; `None` where its servers read no lists.
    pub(super) fn list_place(
        &self,
        verifies: Verifies,
        wish: Wish<'_>,
        now: UnixMs,
    ) -> Result<Option<StatusSlot>, Refused> {
        if verifies != Verifies::List {
            return Ok(None);
        }
        let random = entropy::bytes().map_err(|_| Reason::Key)?;
        Ok(Some(self.lists.reserve(wish, now, &random)))
    }

    /// As the credential says it.
    pub(super) fn status_claim(&self, slot: StatusSlot) -> Status {
        Status { status_list: StatusRef { idx: slot.index, uri: self.list_uri(slot.list) } }
    }

    fn list_uri(&self, id: ListId) -> String {
        format!("{}/status/{id}", self.issuer)
    }

    /// Brings the lists, and what CRLs are made of, to what the lease table says now. One at a time: whoever comes second finds done
    /// what happened before it came.
    pub(super) fn settle_lists(&self, now: Now) {
        let _turn = self.settling.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let touched = self.table.touched();
        if self.lists.is_empty() && self.crls.is_empty() {
            return;
        }
        let everything = touched.contains(&Touched::Everything);
        for touched in touched {
            match touched {
                Touched::Over(lease, ended, end) => {
                    self.lists.over(lease, ended);
                    self.crls.over(lease, end);
                }
                _ if everything => {}
                Touched::Lease(lease) => self.settle_lease(lease, now),
                Touched::Task(task) => {
                    let leases = self.table.task(task).map(|task| task.leases).unwrap_or_default();
                    leases.into_iter().for_each(|lease| self.settle_lease(lease, now));
                }
                Touched::Everything => {}
            }
        }
        let (listed, certified) = match everything {
            true => (self.lists.leases(), self.crls.leases()),
            false => (self.lists.due(now.at), self.crls.due_ends(now.at)),
        };
        listed.into_iter().chain(certified).for_each(|lease| self.settle_lease(lease, now));
    }

    fn settle_lease(&self, id: LeaseId, now: Now) {
        let Some(lease) = self.table.lease(id) else { return };
        match (self.table.lease_state(&lease, now), lease.end) {
            ((State::Ended, Some(end)), _) => {
                self.lists.end(id, end.at);
                self.crls.end(id, end);
            }
            ((State::Active, _), Some(ahead)) => {
                self.lists.ends_at(id, ahead.at);
                self.crls.ends_at(id, ahead.at);
            }
            _ => {}
        }
    }

    /// Whether servers that fetch their lists now read in them that these have ended.
    pub(super) fn lists_show(&self, leases: &[LeaseId], now: UnixMs) -> bool {
        leases.iter().filter_map(|lease| self.lists.would_show(*lease, now)).all(identity)
    }

    /// Gauges, and what nobody asks for any more.
    pub(super) fn tidy_lists(&self, now: UnixMs) {
        self.lists.forget(now);
        let counts = self.lists.counts();
        metrics::gauge!("dayfly_status_lists").set(counts.lists as f64);
        metrics::gauge!("dayfly_status_list_slots", "state" => "given").set(counts.given as f64);
        let free = counts.slots.saturating_sub(counts.given);
        metrics::gauge!("dayfly_status_list_slots", "state" => "free").set(free as f64);
    }
}

/// The targets of the bundle in force whose leases may stand on the list.
fn targets_of<'a>(policy: &'a Policy, scope: &Scope) -> impl Iterator<Item = &'a Target> {
    let scope = scope.clone();
    let on_it = move |target: &&Target| match &scope {
        Scope::Target(name) => **name == *target.name.as_str(),
        Scope::Environment(name) => target.verifies == Verifies::List && **name == *target.environment.as_str(),
    };
    policy.bundle().targets.values().filter(on_it)
}

/// A list that is shared lives as short as any of its targets wants.
fn life_s(policy: &Policy, scope: &Scope) -> u32 {
    targets_of(policy, scope).map(|target| target.list_life.as_s()).min().unwrap_or(LIFE_S)
}
