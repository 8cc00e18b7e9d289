//! One view of everything, for whoever checks the rows against the events.

use std::ops::ControlFlow;

use dayfly_domain::UnixMs;
use rusqlite::{Connection, Transaction};

use super::{BlockRow, EventRow, LeaseRow, StoreError, TaskRow, TombRow, read, schema};

/// The store at one moment. It is let go as soon as possible: while it is held, the write-ahead log
/// grows (and in memory the writer waits).
pub struct Snapshot<'a> {
    transaction: Transaction<'a>,
    stream: String,
}

impl<'a> Snapshot<'a> {
    /// The first read fixes the moment.
    pub(super) fn of(connection: &'a Connection) -> Result<Self, StoreError> {
        let transaction = connection.unchecked_transaction()?;
        let stream = schema::meta(&transaction, schema::STREAM)?.ok_or(StoreError::Corrupt)?;
        Ok(Self { transaction, stream })
    }

    pub fn stream(&self) -> &str {
        &self.stream
    }

    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        schema::meta(&self.transaction, key)
    }

    /// In order, from `from_seq` on, until `each` breaks off.
    pub fn each_event(&self, from_seq: u64, each: impl FnMut(EventRow) -> ControlFlow<()>) -> Result<(), StoreError> {
        read::every_event(&self.transaction, from_seq, each)
    }

    /// In the order of their ids.
    pub fn each_task(&self, each: impl FnMut(TaskRow)) -> Result<(), StoreError> {
        read::every_task(&self.transaction, each)
    }

    /// All that are kept.
    pub fn each_block(&self, each: impl FnMut(BlockRow)) -> Result<(), StoreError> {
        read::live_blocks(&self.transaction, UnixMs::new(i64::MIN), each)
    }

    /// In their order, those too that no row is behind of any more.
    pub fn each_tomb(&self, each: impl FnMut(TombRow)) -> Result<(), StoreError> {
        read::every_tomb(&self.transaction, each)
    }

    /// In the order of their ids.
    pub fn each_lease(&self, each: impl FnMut(LeaseRow)) -> Result<(), StoreError> {
        read::every_lease(&self.transaction, each)
    }
}
