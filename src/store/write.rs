//! The writer's side: one thread owns it, and each batch is written whole or not at all.

use std::{path::Path, sync::Arc};

use dayfly_domain::UnixMs;
use rusqlite::{Connection, Params, Transaction, TransactionBehavior, params};

use super::{
    Change, Checkpointer, EndRow, Reader, StoreError, archive,
    columns::{self, id_bytes, seq_in},
    place::{self, Place},
    read, schema,
};

/// The rows, and what comes next in their sequence.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
    pub(super) place: Place,
    stream: Arc<str>,
    next_seq: u64,
    high_water: UnixMs,
}

impl Store {
    /// Opens the file at `path`, or makes it with mode 0600. An older schema is brought forward.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::at(Place::file(path)?)
    }

    /// Rows in memory, gone with the last connection to them.
    pub fn memory() -> Result<Self, StoreError> {
        Self::at(Place::memory()?)
    }

    fn at(place: Place) -> Result<Self, StoreError> {
        place.prepare()?;
        let mut connection = place.writer()?;
        schema::require_known(&connection, schema::STEPS)?;
        place.make_durable(&connection)?;
        schema::bring_forward(&mut connection, schema::STEPS)?;
        place.grow_wal(&connection)?;
        let stream = schema::meta(&connection, schema::STREAM)?.ok_or(StoreError::Corrupt)?.into();
        let (next_seq, high_water) = (next_seq(&connection)?, high_water(&connection)?);
        Ok(Self { connection, place, stream, next_seq, high_water })
    }

    /// 128 random bits of this ledger, as 32 hexadecimal digits.
    pub fn stream(&self) -> Arc<str> {
        Arc::clone(&self.stream)
    }

    /// The latest moment that any batch knew of.
    pub fn high_water(&self) -> UnixMs {
        self.high_water
    }

    /// Of the next event; the first is 0 and there are no gaps.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub fn reader(&self) -> Reader {
        Reader::of(self.place.clone())
    }

    pub fn checkpointer(&self) -> Result<Checkpointer, StoreError> {
        Checkpointer::of(&self.place)
    }

    /// Writes `changes` in order, all or nothing. After an error nothing of them is there; after
    /// [`StoreError::Io`] only a restart tells for sure.
    pub fn write(&mut self, changes: &[Change], high_water: UnixMs) -> Result<(), StoreError> {
        let next_seq = seq_after(self.next_seq, changes)?;
        let high_water = high_water.max(self.high_water);
        let _turn = self.place.writing();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for change in changes {
            apply(&transaction, change)?;
        }
        if high_water != self.high_water {
            schema::put_meta(&transaction, schema::HIGH_WATER, &high_water.as_ms().to_string())?;
        }
        transaction.commit()?;
        (self.next_seq, self.high_water) = (next_seq, high_water);
        Ok(())
    }

    /// Whether there is room for so many bytes in one commit: they are written, synced and given up.
    pub fn try_room(&mut self, bytes: u64) -> Result<(), StoreError> {
        let _turn = self.place.writing();
        Ok(place::fill_and_drop(&self.connection, bytes)?)
    }

    /// What a start needs, as the changes that it is folded from: the blocks that reach beyond `now`,
    /// the tombs that rows are behind of, the lists of leases that may live, then in the order of their
    /// ids all tasks that are kept and the leases that expire after `now`, or in the hour before it where they
    /// stand on a list or are of certificates.
    pub fn load(&self, now: UnixMs, mut each: impl FnMut(Change)) -> Result<(), StoreError> {
        let _turn = self.place.reading();
        read::live_blocks(&self.connection, now, |row| each(Change::AddBlock(row)))?;
        read::tombs(&self.connection, |row| each(Change::AddTomb(row)))?;
        read::live_lists(&self.connection, now, |row| each(Change::AddList(row)))?;
        read::every_task(&self.connection, |row| each(Change::OpenTask(row)))?;
        read::live_leases(&self.connection, now, |row| each(Change::AddLease(row)))
    }
}

fn next_seq(connection: &Connection) -> Result<u64, StoreError> {
    let next: i64 = connection.query_row("SELECT coalesce(max(seq) + 1, 0) FROM event", [], |row| row.get(0))?;
    Ok(next.cast_unsigned())
}

pub(super) fn high_water(connection: &Connection) -> Result<UnixMs, StoreError> {
    match schema::meta(connection, schema::HIGH_WATER)? {
        Some(text) => text.parse().map(UnixMs::new).map_err(|_| StoreError::Corrupt),
        None => Ok(UnixMs::default()),
    }
}

/// The sequence number after `changes`, whose events must follow on `next` without a gap.
fn seq_after(next: u64, changes: &[Change]) -> Result<u64, StoreError> {
    changes.iter().try_fold(next, |expected, change| match change {
        Change::Event(event) if event.seq == expected => Ok(expected + 1),
        Change::Event(event) => Err(StoreError::Sequence { expected, found: event.seq }),
        _ => Ok(expected),
    })
}

fn apply(transaction: &Transaction, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Event(event) => columns::put_event(transaction, event),
        Change::OpenTask(task) => columns::put_task(transaction, task),
        Change::AddLease(lease) => columns::put_lease(transaction, lease),
        Change::EndTask(id, end) => end_row(transaction, END_TASK, id.as_u128(), end),
        Change::EndLease(id, end) => end_row(transaction, END_LEASE, id.as_u128(), end),
        Change::Hold(id) => one_row(transaction, "UPDATE task SET held = 1 WHERE id = ?1", [id_bytes(id.as_u128())]),
        Change::AddBlock(block) => columns::put_block(transaction, block),
        Change::LiftBlock(id) => one_row(transaction, "DELETE FROM block WHERE id = ?1", [id_bytes(id.as_u128())]),
        Change::AddTomb(tomb) => columns::put_tomb(transaction, tomb),
        Change::TombDone(seq) => one_row(transaction, "UPDATE tomb SET done = 1 WHERE seq = ?1", [seq_in(*seq)]),
        Change::AddList(list) => columns::put_list(transaction, list),
        Change::KeepBundle(bundle) => archive::put_bundle(transaction, bundle),
        Change::Count(used) => archive::count(transaction, used),
        Change::Meta(key, _) if schema::is_own(key) => Err(StoreError::Conflict),
        Change::Meta(key, value) => schema::put_meta(transaction, key, value),
    }
}

const END_TASK: &str = "UPDATE task SET end_at = ?2, end_cause = ?3, end_seq = ?4, claims = NULL WHERE id = ?1";
const END_LEASE: &str = "UPDATE lease SET end_at = ?2, end_cause = ?3, end_seq = ?4 WHERE id = ?1";

fn end_row(transaction: &Transaction, sql: &str, id: u128, end: &EndRow) -> Result<(), StoreError> {
    let row = params![id_bytes(id), end.at.as_ms(), end.cause.as_str(), seq_in(end.seq)];
    one_row(transaction, sql, row)
}

fn one_row(transaction: &Transaction, sql: &str, values: impl Params) -> Result<(), StoreError> {
    match transaction.prepare_cached(sql)?.execute(values)? {
        1 => Ok(()),
        _ => Err(StoreError::Missing),
    }
}
