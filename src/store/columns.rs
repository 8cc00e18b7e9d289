//! Rows to columns and back: the one place that knows both spellings.

use std::str::FromStr;

use dayfly_domain::{EventId, LeaseId, TaskId, UnixMs};
use rusqlite::{Connection, Row, params, types::FromSql, types::Type};

use super::{BlockRow, DetailRow, EndRow, EventRow, LeaseRow, StoreError, TaskRow};

type Read<T> = rusqlite::Result<T>;

/// Columns of a task `t`, in the order in which [`task`] reads them.
pub(super) const TASK: &str = "t.id, t.parent, t.template, t.purpose, t.ticket, t.job, t.permit, t.owner, \
     t.environment, t.issuer, t.profile, t.workload, t.untrusted, t.grants, t.evidence_key, t.evidence_iat_s, \
     t.evidence_exp_s, t.claims, t.handle_hash, t.bound, t.thumbprint, t.opened_at, t.deadline, \
     t.end_at, t.end_cause, t.end_seq";

/// Columns of a lease `l`, in the order in which [`lease`] reads them.
pub(super) const LEASE: &str = "l.id, l.task, l.seq, l.target, l.kind, l.permit, l.actions, l.issued_at, \
     l.expires, l.credential_hash, l.thumbprint, l.end_at, l.end_cause, l.end_seq";

/// Columns of an event `e` with its detail `d`, in the order in which [`event`] reads them.
pub(super) const EVENT: &str = "e.seq, e.id, e.at, e.task, e.lease, e.body, e.leaf, d.salt, d.bytes";

/// Columns of a block `b`, in the order in which [`block`] reads them.
pub(super) const BLOCK: &str = "b.template, b.job, b.workload, b.until, b.seq";

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
    Ok(BlockRow { template: from.get()?, job: from.get()?, workload: from.get()?, until: from.ms()?, seq: from.seq()? })
}

pub(super) fn put_task(connection: &Connection, task: &TaskRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO task (id, parent, template, purpose, ticket, job, permit, owner, environment, issuer, \
         profile, workload, untrusted, grants, evidence_key, evidence_iat_s, evidence_exp_s, claims, handle_hash, \
         bound, thumbprint, opened_at, deadline, end_at, end_cause, end_seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, \
         ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26)";
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
        task.end.map(|end| end.at.as_ms()),
        task.end.map(|end| end.cause.as_str()),
        task.end.map(|end| seq_in(end.seq)),
    ])?;
    Ok(())
}

pub(super) fn put_lease(connection: &Connection, lease: &LeaseRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO lease (id, task, seq, target, kind, permit, actions, issued_at, expires, \
         credential_hash, thumbprint, end_at, end_cause, end_seq) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
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
    let sql = "INSERT INTO block (template, job, workload, until, seq) VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.prepare_cached(sql)?.execute(params![
        block.template,
        block.job,
        block.workload,
        block.until.as_ms(),
        seq_in(block.seq),
    ])?;
    Ok(())
}
