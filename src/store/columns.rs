//! Rows to columns and back: the one place that knows both spellings.

use std::str::FromStr;

use dayfly_domain::{BlockId, EventId, LeaseId, ListId, TaskId, UnixMs};
use rusqlite::{Connection, Row, params, types::FromSql, types::Type};

use super::{BlockRow, DetailRow, EndRow, EventRow, LeaseRow, ListRow, StatusSlot, StoreError, TaskRow, TombRow};

type Read<T> = rusqlite::Result<T>;

/// Columns of a task `t`, in the order in which [`task`] reads them.
pub(super) const TASK: &str = "t.id, t.parent, t.template, t.purpose, t.ticket, t.job, t.permit, t.owner, \
     t.environment, t.issuer, t.profile, t.workload, t.untrusted, t.grants, t.evidence_key, t.evidence_iat_s, \
     t.evidence_exp_s, t.claims, t.handle_hash, t.bound, t.thumbprint, t.opened_at, t.deadline, \
     t.seq, t.held, t.end_at, t.end_cause, t.end_seq";

/// Columns of a lease `l`, in the order in which [`lease`] reads them.
pub(super) const LEASE: &str = "l.id, l.task, l.seq, l.target, l.kind, l.permit, l.actions, l.issued_at, \
     l.expires, l.credential_hash, l.thumbprint, l.kid, l.list, l.list_index, l.end_at, l.end_cause, l.end_seq";

/// Columns of an event `e` with its detail `d`, in the order in which [`event`] reads them.
pub(super) const EVENT: &str = "e.seq, e.id, e.at, e.task, e.lease, e.body, e.leaf, d.salt, d.bytes";

/// Columns of a block `b`, in the order in which [`block`] reads them.
pub(super) const BLOCK: &str = "b.id, b.selector, b.until, b.seq";

/// Columns of a tomb `m`, in the order in which [`tomb`] reads them.
pub(super) const TOMB: &str = "m.seq, m.at, m.cause, m.selector, m.count, m.done";

/// Columns of a status list `s`, in the order in which [`list`] reads them.
pub(super) const LIST: &str = "s.id, s.scope, s.hour_s, s.slots, s.seed";

/// An id as stored.
pub(super) fn id_bytes(id: u128) -> [u8; 16] {
    id.to_be_bytes()
}

/// Sequence numbers stay far below 2^63.
pub(super) fn seq_in(seq: u64) -> i64 {
    seq.cast_signed()
}

/// The columns of one row, from left to right.
pub(super) struct Columns<'a> {
    row: &'a Row<'a>,
    next: usize,
}

impl<'a> Columns<'a> {
    pub fn of(row: &'a Row<'a>) -> Self {
        Self { row, next: 0 }
    }

    fn get<T: FromSql>(&mut self) -> Read<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }

    fn id(&mut self) -> Read<u128> {
        self.get().map(u128::from_be_bytes)
    }

    fn maybe_id(&mut self) -> Read<Option<u128>> {
        Ok(self.get::<Option<[u8; 16]>>()?.map(u128::from_be_bytes))
    }

    fn ms(&mut self) -> Read<UnixMs> {
        self.get().map(UnixMs::new)
    }

    fn seq(&mut self) -> Read<u64> {
        self.get::<i64>().map(i64::cast_unsigned)
    }

    fn word<T: FromStr>(&mut self) -> Read<T> {
        let text: String = self.get()?;
        text.parse().map_err(|_| rusqlite::Error::InvalidColumnType(self.next - 1, String::new(), Type::Text))
    }

    fn status(&mut self) -> Read<Option<StatusSlot>> {
        let list = self.maybe_id()?.map(ListId::from_u128);
        let index: Option<u32> = self.get()?;
        Ok(list.zip(index).map(|(list, index)| StatusSlot { list, index }))
    }

    fn end(&mut self) -> Read<Option<EndRow>> {
        match self.get::<Option<i64>>()? {
            Some(at) => Ok(Some(EndRow { at: UnixMs::new(at), cause: self.word()?, seq: self.seq()? })),
            None => {
                self.next += 2;
                Ok(None)
            }
        }
    }

    fn detail(&mut self) -> Read<Option<DetailRow>> {
        match self.get::<Option<[u8; 32]>>()? {
            Some(salt) => Ok(Some(DetailRow { salt, bytes: self.get()? })),
            None => {
                self.next += 1;
                Ok(None)
            }
        }
    }
}

pub(super) fn task(from: &mut Columns) -> Read<TaskRow> {
    Ok(TaskRow {
        id: TaskId::from_u128(from.id()?),
        parent: from.maybe_id()?.map(TaskId::from_u128),
        template: from.get()?,
        purpose: from.get()?,
        ticket: from.get()?,
        job: from.get()?,
        row: from.get()?,
        owner: from.get()?,
        environment: from.get()?,
        issuer: from.get()?,
        profile: from.get()?,
        workload: from.get()?,
        untrusted: from.get()?,
        grants: from.get()?,
        evidence_key: from.get()?,
        evidence_iat_s: from.get()?,
        evidence_exp_s: from.get()?,
        claims: from.get()?,
        handle_hash: from.get()?,
        bound: from.word()?,
        thumbprint: from.get()?,
        opened_at: from.ms()?,
        deadline: from.ms()?,
        seq: from.seq()?,
        held: from.get()?,
        end: from.end()?,
    })
}

pub(super) fn lease(from: &mut Columns) -> Read<LeaseRow> {
    Ok(LeaseRow {
        id: LeaseId::from_u128(from.id()?),
        task: TaskId::from_u128(from.id()?),
        seq: from.seq()?,
        target: from.get()?,
        kind: from.word()?,
        row: from.get()?,
        actions: from.get()?,
        issued_at: from.ms()?,
        expires: from.ms()?,
        credential_hash: from.get()?,
        thumbprint: from.get()?,
        kid: from.get()?,
        status: from.status()?,
        end: from.end()?,
    })
}

pub(super) fn event(from: &mut Columns) -> Read<EventRow> {
    Ok(EventRow {
        seq: from.seq()?,
        id: EventId::from_u128(from.id()?),
        at: from.ms()?,
        task: from.maybe_id()?.map(TaskId::from_u128),
        lease: from.maybe_id()?.map(LeaseId::from_u128),
        body: from.get()?,
        leaf: from.get()?,
        detail: from.detail()?,
    })
}

pub(super) fn block(from: &mut Columns) -> Read<BlockRow> {
    let id = BlockId::from_u128(from.id()?);
    let selector = from.word()?;
    Ok(BlockRow { id, selector, until: from.get::<Option<i64>>()?.map(UnixMs::new), seq: from.seq()? })
}

pub(super) fn tomb(from: &mut Columns) -> Read<TombRow> {
    Ok(TombRow {
        seq: from.seq()?,
        at: from.ms()?,
        cause: from.word()?,
        selector: from.word()?,
        count: from.seq()?,
        done: from.get()?,
    })
}

pub(super) fn list(from: &mut Columns) -> Read<ListRow> {
    Ok(ListRow {
        id: ListId::from_u128(from.id()?),
        scope: from.get()?,
        hour_s: from.get()?,
        slots: from.get()?,
        seed: from.get()?,
    })
}

pub(super) fn put_task(connection: &Connection, task: &TaskRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO task (id, parent, template, purpose, ticket, job, permit, owner, environment, issuer, \
         profile, workload, untrusted, grants, evidence_key, evidence_iat_s, evidence_exp_s, claims, handle_hash, \
         bound, thumbprint, opened_at, deadline, seq, held, end_at, end_cause, end_seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, \
         ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, \
         ?27, ?28)";
    connection.prepare_cached(sql)?.execute(params![
        id_bytes(task.id.as_u128()),
        task.parent.map(|id| id_bytes(id.as_u128())),
        task.template,
        task.purpose,
        task.ticket,
        task.job,
        task.row,
        task.owner,
        task.environment,
        task.issuer,
        task.profile,
        task.workload,
        task.untrusted,
        task.grants,
        task.evidence_key,
        task.evidence_iat_s,
        task.evidence_exp_s,
        task.claims,
        task.handle_hash,
        task.bound.as_str(),
        task.thumbprint,
        task.opened_at.as_ms(),
        task.deadline.as_ms(),
        seq_in(task.seq),
        task.held,
        task.end.map(|end| end.at.as_ms()),
        task.end.map(|end| end.cause.as_str()),
        task.end.map(|end| seq_in(end.seq)),
    ])?;
    Ok(())
}

pub(super) fn put_lease(connection: &Connection, lease: &LeaseRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO lease (id, task, seq, target, kind, permit, actions, issued_at, expires, \
         credential_hash, thumbprint, kid, list, list_index, end_at, end_cause, end_seq) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
    connection.prepare_cached(sql)?.execute(params![
        id_bytes(lease.id.as_u128()),
        id_bytes(lease.task.as_u128()),
        seq_in(lease.seq),
        lease.target,
        lease.kind.as_str(),
        lease.row,
        lease.actions,
        lease.issued_at.as_ms(),
        lease.expires.as_ms(),
        lease.credential_hash,
        lease.thumbprint,
        lease.kid,
        lease.status.map(|status| id_bytes(status.list.as_u128())),
        lease.status.map(|status| status.index),
        lease.end.map(|end| end.at.as_ms()),
        lease.end.map(|end| end.cause.as_str()),
        lease.end.map(|end| seq_in(end.seq)),
    ])?;
    Ok(())
}

pub(super) fn put_event(connection: &Connection, event: &EventRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO event (seq, id, at, task, lease, body, leaf) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    connection.prepare_cached(sql)?.execute(params![
        seq_in(event.seq),
        id_bytes(event.id.as_u128()),
        event.at.as_ms(),
        event.task.map(|id| id_bytes(id.as_u128())),
        event.lease.map(|id| id_bytes(id.as_u128())),
        event.body,
        event.leaf,
    ])?;
    let Some(detail) = &event.detail else { return Ok(()) };
    let sql = "INSERT INTO detail (seq, salt, bytes) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![seq_in(event.seq), detail.salt, detail.bytes])?;
    Ok(())
}

pub(super) fn put_block(connection: &Connection, block: &BlockRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO block (id, selector, until, seq) VALUES (?1, ?2, ?3, ?4)";
    connection.prepare_cached(sql)?.execute(params![
        id_bytes(block.id.as_u128()),
        block.selector.to_string(),
        block.until.map(UnixMs::as_ms),
        seq_in(block.seq),
    ])?;
    Ok(())
}

pub(super) fn put_tomb(connection: &Connection, tomb: &TombRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO tomb (seq, at, cause, selector, count, done) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    connection.prepare_cached(sql)?.execute(params![
        seq_in(tomb.seq),
        tomb.at.as_ms(),
        tomb.cause.as_str(),
        tomb.selector.to_string(),
        seq_in(tomb.count),
        tomb.done,
    ])?;
    Ok(())
}

pub(super) fn put_list(connection: &Connection, list: &ListRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO list (id, scope, hour_s, slots, seed) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
    connection.prepare_cached(sql)?.execute(params![
        id_bytes(list.id.as_u128()),
        list.scope,
        list.hour_s,
        list.slots,
        list.seed,
    ])?;
    Ok(())
}
