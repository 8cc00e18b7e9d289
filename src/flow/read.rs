//! Lists and single rows: read from the store, judged by what memory already knows, shown only to
//! who may see them. Unknown and not-visible look the same (law L7).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::{Bound, Cause, EventId, Kind, LeaseId, Reason, State, TaskId};
use ring::hmac;
use serde_json::{Map, Value};

use super::{
    EventFilter, Flow,
    end::task_facts,
    introspect::Authority,
    words::{Caller, EventView, LeaseView, Listing, Point, Refused, TaskView},
};
use crate::{
    lease::{End, Now},
    policy::{RowFacts, RowKind},
    store::{EventRow, LeaseFilter, LeaseRow, Page, StoreError, TaskFilter, TaskRow},
    sys::offload::offload,
};

/// Rows looked at for one page, so that a caller who sees little cannot make the broker read all.
pub const LOOKED_AT_MAX: usize = 5_000;

impl Flow {
    pub async fn task(&self, caller: &Caller, id: TaskId) -> Result<TaskView, Refused> {
        let authority = self.reading(caller, "tasks:read").await?;
        let row = self.task_row(id).await?.ok_or(Reason::NotFound)?;
        if !self.sees_task(&authority, &row) {
            return Err(Reason::NotFound.into());
        }
        self.on_reader(move |flow, now| {
            let conflicts = flow.reader.denials(id, Reason::Conflict.code())?;
            Ok(TaskView { conflicts: Some(conflicts), ..flow.task_view(row, now)? })
        })
        .await
    }

    pub async fn tasks(
        &self,
        caller: &Caller,
        mut filter: TaskFilter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Listing<TaskView>, Refused> {
        let authority = self.reading(caller, "tasks:read").await?;
        let scope = format!("tasks {} {filter:?}", authority.actor_of_list());
        let before = self.cursor(&scope, cursor)?.map(TaskId::from_u128);
        self.on_reader(move |flow, now| {
            if let Authority::Handle { task } = authority {
                if filter.task.is_some_and(|other| other != task) {
                    return Ok(Listing { items: Vec::new(), next_cursor: None });
                }
                filter.task = Some(task);
            }
            let state = flow.judged_here(&mut filter.state);
            let read = |before, limit| flow.reader.tasks(&filter, now.latest, Page { before, limit });
            let page = flow.page(
                &scope,
                before,
                limit,
                read,
                |row| row.id,
                TaskId::as_u128,
                |row| {
                    flow.sees_task(&authority, row)
                        && state.is_none_or(|state| flow.task_end(row, now).is_ok_and(|(found, _)| found == state))
                },
            )?;
            let mut page = page.try_map(|row| flow.task_view(row, now))?;
            // What ended since the rows were written is shown as it is, so it is not what was asked.
            page.items.retain(|view| state.or(filter.state).is_none_or(|state| state == view.state));
            Ok(page)
        })
        .await
    }

    pub async fn lease(&self, caller: &Caller, id: LeaseId) -> Result<LeaseView, Refused> {
        let authority = self.reading(caller, "leases:read").await?;
        self.on_reader(move |flow, now| {
            let rows = flow.reader.lease(id)?.filter(|(row, task)| flow.sees_lease(&authority, row, task));
            let (row, task) = rows.ok_or(Failed::NotFound)?;
            flow.lease_view(row, &task, now)
        })
        .await
    }

    pub async fn leases(
        &self,
        caller: &Caller,
        mut filter: LeaseFilter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Listing<LeaseView>, Refused> {
        let authority = self.reading(caller, "leases:read").await?;
        let scope = format!("leases {} {filter:?}", authority.actor_of_list());
        let before = self.cursor(&scope, cursor)?.map(LeaseId::from_u128);
        self.on_reader(move |flow, now| {
            if let Authority::Handle { task } = authority {
                if filter.task.is_some_and(|other| other != task) {
                    return Ok(Listing { items: Vec::new(), next_cursor: None });
                }
                filter.task = Some(task);
            }
            let state = flow.judged_here(&mut filter.state);
            let read = |before, limit| flow.reader.leases(&filter, now.latest, Page { before, limit });
            let page = flow.page(
                &scope,
                before,
                limit,
                read,
                |(row, _)| row.id,
                LeaseId::as_u128,
                |(row, task)| {
                    let judged = || {
                        state.is_none_or(|state| flow.lease_end(row, task, now).is_ok_and(|(found, _)| found == state))
                    };
                    flow.sees_lease(&authority, row, task) && judged()
                },
            )?;
            let mut page = page.try_map(|(row, task)| flow.lease_view(row, &task, now))?;
            page.items.retain(|view| state.or(filter.state).is_none_or(|state| state == view.state));
            Ok(page)
        })
        .await
    }

    pub async fn event(&self, caller: &Caller, id: EventId) -> Result<EventView, Refused> {
        let authority = self.reading_ledger(caller).await?;
        self.on_reader(move |flow, _| {
            let row = flow.reader.event(id)?.ok_or(Failed::NotFound)?;
            if flow.sees_event(&authority, &row)? { view_event(&row) } else { Err(Failed::NotFound) }
        })
        .await
    }

    pub async fn events(
        &self,
        caller: &Caller,
        filter: EventFilter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Listing<EventView>, Refused> {
        let authority = self.reading_ledger(caller).await?;
        let scope = format!("events {} {filter:?}", authority.actor_of_list());
        let before = self.cursor(&scope, cursor)?.and_then(|key| u64::try_from(key).ok());
        self.on_reader(move |flow, _| {
            let read = |before, limit| flow.reader.events(&filter, Page { before, limit });
            let page = flow.page(
                &scope,
                before,
                limit,
                read,
                |row| row.seq,
                u128::from,
                |row| flow.sees_event(&authority, row).unwrap_or(false),
            )?;
            page.try_map(|row| view_event(&row))
        })
        .await
    }

    /// A handle reads its own; everyone else needs the action.
    async fn reading(&self, caller: &Caller, action: &str) -> Result<Authority, Refused> {
        let authority = self.authority(caller).await?;
        let may = matches!(authority, Authority::Handle { .. }) || authority.holds(action);
        if may { Ok(authority) } else { Err(Reason::Scope.into()) }
    }

    async fn reading_ledger(&self, caller: &Caller) -> Result<Authority, Refused> {
        let authority = self.authority(caller).await?;
        if authority.holds("ledger:read") { Ok(authority) } else { Err(Reason::Scope.into()) }
    }

    pub(super) async fn on_reader<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Flow, Now) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Refused> {
        let flow = self.clone();
        let now = self.time.now();
        let done = offload(move || read(&flow, now)).await.map_err(|_| Reason::Internal)?;
        done.map_err(Refused::from)
    }

    fn sees_task(&self, authority: &Authority, row: &TaskRow) -> bool {
        match authority {
            Authority::Handle { task } => row.id == *task,
            _ => self.may(authority, "tasks:read", &task_facts(row, &row.id.to_string())),
        }
    }

    pub(super) fn sees_lease(&self, authority: &Authority, row: &LeaseRow, task: &TaskRow) -> bool {
        if let Authority::Handle { task } = authority {
            return row.task == *task;
        }
        let id = row.id.to_string();
        let facts = RowFacts { kind: RowKind::Lease, target: &row.target, ..task_facts(task, &id) };
        self.may(authority, "leases:read", &facts)
    }

    /// An event is judged as its task; one without a task needs `broker:operate`.
    pub(super) fn sees_event(&self, authority: &Authority, row: &EventRow) -> Result<bool, Failed> {
        let Some(task) = row.task else {
            return Ok(authority.holds("broker:operate") && self.may(authority, "broker:operate", &RowFacts::BROKER));
        };
        let Some(task) = self.reader.task(task)? else {
            // The row is pruned, and with it the facts to judge by.
            return Ok(authority.holds("broker:operate") && self.may(authority, "broker:operate", &RowFacts::BROKER));
        };
        Ok(self.may(authority, "ledger:read", &task_facts(&task, &task.id.to_string())))
    }

    /// A state that rows cannot tell while they are behind an end by selector: it is judged here, of
    /// every row.
    // SECURITY: `what_ended_by_selector_is_listed_as_ended_before_its_rows_say_so`.
    fn judged_here(&self, state: &mut Option<State>) -> Option<State> {
        if self.table.has_tombs() { state.take() } else { None }
    }

    fn task_end(&self, row: &TaskRow, now: Now) -> Result<(State, Option<End>), Failed> {
        let marked = self.table.standing(row.id, now).and_then(|standing| standing.end);
        let end = match marked {
            Some(end) => Some(end),
            None => self.kept_end(row, now)?,
        };
        Ok(match end {
            Some(end) => (State::Ended, Some(end)),
            None if now.expired(row.opened_at, row.deadline) => (State::Expired, None),
            None => (State::Active, None),
        })
    }

    fn lease_end(&self, row: &LeaseRow, task: &TaskRow, now: Now) -> Result<(State, Option<End>), Failed> {
        Ok(match self.table.lease(row.id) {
            Some(lease) => self.table.lease_state(&lease, now),
            None => kept_state(row, self.kept_end(task, now)?, now),
        })
    }

    /// How many leases of a task are live, and how many have ended. Rows that may be behind are judged
    /// one by one.
    fn lease_counts(&self, task: TaskId, now: Now) -> Result<(u64, u64), Failed> {
        if !self.table.has_tombs() {
            return Ok(self.reader.lease_counts(task, now.latest)?);
        }
        let filter = LeaseFilter { task: Some(task), ..LeaseFilter::default() };
        let rows = self.reader.leases(&filter, now.latest, Page { before: None, limit: LOOKED_AT_MAX })?;
        let is = |row, task, state| self.lease_end(row, task, now).is_ok_and(|(found, _)| found == state);
        let count = |state| rows.iter().filter(|(row, task)| is(row, task, state)).count() as u64;
        Ok((count(State::Active), count(State::Ended)))
    }

    fn task_view(&self, row: TaskRow, now: Now) -> Result<TaskView, Failed> {
        let (state, end) = self.task_end(&row, now)?;
        let (ended_by, reason) = self.who_and_why(end)?;
        let (leases_active, leases_ended) = self.lease_counts(row.id, now)?;
        let leases_active = if state == State::Active { leases_active } else { 0 };
        let (cause, ended_at) = (end.map(|end| end.cause), end.map(|end| end.at));
        let hold = self.hold_of(row.id, now);
        Ok(TaskView {
            row,
            state,
            cause,
            ended_at,
            ended_by,
            reason,
            leases_active,
            leases_ended,
            conflicts: None,
            hold,
        })
    }

    /// What the rows say of a task's end, its own or one above it: the earliest.
    fn kept_end(&self, row: &TaskRow, now: Now) -> Result<Option<End>, Failed> {
        let mut first = row.end.map(End::from).filter(|end| end.at <= now.at);
        let mut next = row.parent;
        while let Some(above) = next.map(|id| self.reader.task(id)).transpose()?.flatten() {
            let end = above.end.filter(|end| end.at <= now.at && end.at < row.deadline);
            let end = end.map(|end| End { cause: Cause::ParentEnded, ..End::from(end) });
            first = [first, end].into_iter().flatten().min_by_key(|end| end.at);
            next = above.parent;
        }
        Ok(first)
    }

    pub(super) fn lease_view(&self, row: LeaseRow, task: &TaskRow, now: Now) -> Result<LeaseView, Failed> {
        let (state, end) = self.lease_end(&row, task, now)?;
        let (ended_by, reason) = self.who_and_why(end)?;
        Ok(LeaseView {
            workload: task.workload.clone(),
            owner: task.owner.clone(),
            template: task.template.clone(),
            bound: match (row.kind, &row.thumbprint) {
                (Kind::X509, _) => Bound::X5t,
                (Kind::Jwt, Some(_)) => Bound::Jkt,
                (Kind::Jwt, None) => Bound::None,
            },
            state,
            cause: end.map(|end| end.cause),
            ended_at: end.map(|end| end.at),
            ended_by,
            reason,
            point: Point { stream: self.stream.clone(), seq: row.seq },
            row,
        })
    }

    /// Who ended it and why, from the detail of the event, unless erased.
    fn who_and_why(&self, end: Option<End>) -> Result<(Option<String>, Option<String>), Failed> {
        let Some(seq) = end.and_then(|end| end.seq) else { return Ok((None, None)) };
        let detail = self.reader.event_at(seq)?.and_then(|row| row.detail);
        let Some(detail) = detail else { return Ok((None, None)) };
        let detail: Map<String, Value> = serde_json::from_slice(&detail.bytes).map_err(|_| Failed::Unreadable)?;
        let text = |name: &str| detail.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok((text("actor"), text("reason")))
    }

    /// One page of what the caller sees, newest first, looking at a bounded number of rows.
    #[expect(clippy::too_many_arguments, reason = "one page for three kinds of rows")]
    fn page<R, K: Copy>(
        &self,
        scope: &str,
        mut before: Option<K>,
        limit: usize,
        read: impl Fn(Option<K>, usize) -> Result<Vec<R>, StoreError>,
        key: impl Fn(&R) -> K,
        number: impl Fn(K) -> u128,
        sees: impl Fn(&R) -> bool,
    ) -> Result<Listing<R>, Failed> {
        let (mut items, mut looked_at) = (Vec::new(), 0);
        loop {
            let slice = (limit + 1).max(50);
            let rows = read(before, slice)?;
            let last = rows.len() < slice;
            for row in rows {
                if items.len() == limit || looked_at >= LOOKED_AT_MAX {
                    let next_cursor = before.map(|before| self.make_cursor(scope, number(before)));
                    return Ok(Listing { items, next_cursor });
                }
                looked_at += 1;
                before = Some(key(&row));
                if sees(&row) {
                    items.push(row);
                }
            }
            if last {
                return Ok(Listing { items, next_cursor: None });
            }
        }
    }

    /// A cursor is authenticated, and bound to its caller, list and filter (T-120). Its first four
    /// bytes name the process, whose key it needs.
    pub(super) fn make_cursor(&self, scope: &str, key: u128) -> String {
        let mut bytes = self.cursor_origin().to_vec();
        bytes.extend_from_slice(&key.to_be_bytes());
        bytes.extend_from_slice(&self.cursor_tag(scope, key).as_ref()[..16]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn cursor_origin(&self) -> [u8; 4] {
        let tag = hmac::sign(&self.cursor_key, b"origin");
        let mut origin = [0; 4];
        origin.copy_from_slice(&tag.as_ref()[..4]);
        origin
    }

    pub(super) fn cursor(&self, scope: &str, cursor: Option<&str>) -> Result<Option<u128>, Refused> {
        let Some(cursor) = cursor else { return Ok(None) };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| Reason::Request)?;
        let (origin, rest) = bytes.split_first_chunk::<4>().ok_or(Reason::Request)?;
        let (key, tag) = rest.split_first_chunk::<16>().ok_or(Reason::Request)?;
        if *origin != self.cursor_origin() {
            return Err(Reason::Cursor.into());
        }
        let key = u128::from_be_bytes(*key);
        let good = subtle::ConstantTimeEq::ct_eq(&self.cursor_tag(scope, key).as_ref()[..16], tag);
        if bool::from(good) { Ok(Some(key)) } else { Err(Reason::Request.into()) }
    }

    fn cursor_tag(&self, scope: &str, key: u128) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.cursor_key);
        context.update(&key.to_be_bytes());
        context.update(scope.as_bytes());
        context.sign()
    }
}

impl Authority {
    /// Whose list a cursor belongs to.
    fn actor_of_list(&self) -> String {
        match self {
            Self::Handle { task } => format!("handle {task}"),
            other => other.actor(),
        }
    }
}

impl<T> Listing<T> {
    fn try_map<U, E>(self, map: impl Fn(T) -> Result<U, E>) -> Result<Listing<U>, E> {
        let items = self.items.into_iter().map(map).collect::<Result<_, E>>()?;
        Ok(Listing { items, next_cursor: self.next_cursor })
    }
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("there is no such row, or it is not visible")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a stored record cannot be read")]
    Unreadable,
}

impl From<Failed> for Refused {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NotFound => Reason::NotFound.into(),
            Failed::Store(error) => error.reason().into(),
            Failed::Unreadable => Reason::Internal.into(),
        }
    }
}

/// The state of a lease that memory has forgotten.
fn kept_state(row: &LeaseRow, task_end: Option<End>, now: Now) -> (State, Option<End>) {
    let earlier = |end: &End| end.at < row.expires && end.at <= now.at;
    match [row.end.map(End::from), task_end].into_iter().flatten().filter(earlier).min_by_key(|end| end.at) {
        Some(end) => (State::Ended, Some(end)),
        None if now.expired(row.issued_at, row.expires) => (State::Expired, None),
        None => (State::Active, None),
    }
}

fn view_event(row: &EventRow) -> Result<EventView, Failed> {
    let body: Map<String, Value> = serde_json::from_slice(&row.body).map_err(|_| Failed::Unreadable)?;
    let details = match &row.detail {
        Some(detail) => Some(serde_json::from_slice(&detail.bytes).map_err(|_| Failed::Unreadable)?),
        None => None,
    };
    Ok(EventView { seq: row.seq, body, details })
}
