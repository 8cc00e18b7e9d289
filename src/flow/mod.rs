//! The verbs: the only place that calls the stages. Each file is one story.

mod words;

pub use words::{
    Caller, ChannelState, EndAnswer, EventFilter, EventView, Exchange, Introspected, Issued, IssuedCredential,
    LeaseView, Listing, Point, Presented, Refused, RevocationBound, Subject, TaskView,
};

use dayfly_domain::{EventId, LeaseId, TaskId};

use crate::store::{LeaseFilter, TaskFilter};

/// The broker, as its doors see it. Cheap to clone.
#[derive(Clone)]
pub struct Flow;

impl Flow {
    /// The issuer URL: `https`, no trailing slash.
    pub fn issuer(&self) -> &str {
        todo!()
    }

    /// The public JWK Set, ready to send.
    pub fn jwks(&self) -> serde_json::Value {
        todo!()
    }

    /// `/oauth2/token`.
    pub async fn exchange(&self, _exchange: Exchange) -> Result<Issued, Refused> {
        todo!()
    }

    /// Who holds this bearer secret (token for the broker, or handle). Never says why not.
    pub async fn caller(&self, _bearer: &Presented) -> Caller {
        todo!()
    }

    /// RFC 7662; `Ok(None)` is `{"active": false}`. `E-CLIENT`, `E-SCOPE` for the caller.
    pub async fn introspect(&self, _caller: &Caller, _token: &Presented) -> Result<Option<Introspected>, Refused> {
        todo!()
    }

    /// RFC 7009 by possession: ends that lease only. Unknown tokens are `Ok`.
    pub async fn revoke_presented(&self, _token: &Presented) -> Result<(), Refused> {
        todo!()
    }

    pub async fn task(&self, _caller: &Caller, _id: TaskId) -> Result<TaskView, Refused> {
        todo!()
    }

    pub async fn tasks(
        &self,
        _caller: &Caller,
        _filter: TaskFilter,
        _limit: usize,
        _cursor: Option<&str>,
    ) -> Result<Listing<TaskView>, Refused> {
        todo!()
    }

    pub async fn lease(&self, _caller: &Caller, _id: LeaseId) -> Result<LeaseView, Refused> {
        todo!()
    }

    pub async fn leases(
        &self,
        _caller: &Caller,
        _filter: LeaseFilter,
        _limit: usize,
        _cursor: Option<&str>,
    ) -> Result<Listing<LeaseView>, Refused> {
        todo!()
    }

    pub async fn event(&self, _caller: &Caller, _id: EventId) -> Result<EventView, Refused> {
        todo!()
    }

    pub async fn events(
        &self,
        _caller: &Caller,
        _filter: EventFilter,
        _limit: usize,
        _cursor: Option<&str>,
    ) -> Result<Listing<EventView>, Refused> {
        todo!()
    }

    /// Ends a task and everything below it. `block`: absent is yes for operators; a handle that
    /// sends it is refused (`E-SCOPE`).
    pub async fn end_task(
        &self,
        _caller: &Caller,
        _id: TaskId,
        _reason: Option<String>,
        _block: Option<bool>,
    ) -> Result<EndAnswer, Refused> {
        todo!()
    }

    pub async fn end_lease(
        &self,
        _caller: &Caller,
        _id: LeaseId,
        _reason: Option<String>,
    ) -> Result<EndAnswer, Refused> {
        todo!()
    }

    /// `Ok` when everything that issuing needs is there; otherwise what is missing, one line each.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        todo!()
    }
}
