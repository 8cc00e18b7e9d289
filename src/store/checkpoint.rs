//! Moves what is committed from the write-ahead log into the file, beside the writer.

use rusqlite::Connection;

use super::{StoreError, place::Place};

/// Beyond this the log is started over, which makes the writer wait for a moment.
pub const WAL_MAX_BYTES: i64 = 64 << 20;

/// A connection of its own, for a thread of its own.
#[derive(Debug)]
pub struct Checkpointer {
    /// `None` in memory.
    connection: Option<Connection>,
    wal_max_bytes: i64,
}

impl Checkpointer {
    pub(super) fn of(place: &Place) -> Result<Self, StoreError> {
        Ok(Self { connection: place.checkpointer()?, wal_max_bytes: WAL_MAX_BYTES })
    }

    /// Moves what no reader still needs in the log. To be called every few seconds: a log that has
    /// been moved whole is written from its start again. It never shrinks.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = wal_pages(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
        if pages.saturating_mul(page_bytes) > self.wal_max_bytes {
            wal_pages(connection, "PRAGMA wal_checkpoint(RESTART)")?;
        }
        Ok(())
    }
}

/// Runs a checkpoint; the pages that are in the log. One that could not finish is no error.
fn wal_pages(connection: &Connection, sql: &str) -> Result<i64, StoreError> {
    Ok(connection.query_row(sql, [], |row| row.get(1))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, Store};
    use dayfly_domain::UnixMs;

    #[test]
    fn a_log_that_grew_too_large_is_started_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("state.db")).unwrap();
        let mut checkpointer = store.checkpointer().unwrap();
        checkpointer.wal_max_bytes = 0;
        store.write(&[Change::Meta("word".into(), "one".into())], UnixMs::default()).unwrap();
        checkpointer.checkpoint().unwrap();
        store.write(&[Change::Meta("word".into(), "two".into())], UnixMs::default()).unwrap();
        let pages = wal_pages(checkpointer.connection.as_ref().unwrap(), "PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        assert_eq!(pages, 1);
    }

    #[test]
    fn a_reader_in_the_way_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("state.db")).unwrap();
        let mut checkpointer = store.checkpointer().unwrap();
        checkpointer.wal_max_bytes = 0;
        let reader = store.reader();
        let moved = reader.snapshot(|_| {
            store.write(&[Change::Meta("word".into(), "one".into())], UnixMs::default()).unwrap();
            checkpointer.checkpoint()
        });
        assert!(moved.unwrap().is_ok());
        assert_eq!(reader.meta("word").unwrap().as_deref(), Some("one"));
    }
}
