//! Where the rows lie, and how each connection to that place is set up.
//!
//! The writer, the readers and the checkpointer each have their own connection. None of them
//! checkpoints when it closes: the write-ahead log keeps its space, and a killed process leaves
//! the same files as a stopped one.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::StoreError;
use crate::sys::{entropy, files};

/// Longer than the checkpointer waits, so that a commit outlasts a checkpoint.
const WRITER_WAIT: Duration = Duration::from_millis(2000);
const READER_WAIT: Duration = Duration::from_millis(1000);
const CHECKPOINT_WAIT: Duration = Duration::from_millis(250);
/// The statements of a batch and of the reads without a filter, and some with.
pub const STATEMENTS: usize = 48;
/// What the write-ahead log has as space from the start.
const WAL_START_BYTES: u64 = 8 << 20;

/// A file in WAL mode, or a database in the memory of this process.
#[derive(Debug, Clone)]
pub(super) enum Place {
    File(PathBuf),
    /// In memory there is no WAL, so readers and the writer take turns at the gate.
    Memory {
        uri: String,
        gate: Arc<RwLock<()>>,
    },
}

impl Place {
    /// A path is made absolute, because SQLite would read one that begins with `file:` as a URI.
    pub fn file(path: &Path) -> Result<Self, StoreError> {
        std::path::absolute(path).map(Self::File).map_err(StoreError::File)
    }

    pub fn memory() -> Result<Self, StoreError> {
        let name = u128::from_be_bytes(entropy::bytes()?);
        Ok(Self::Memory { uri: format!("file:dayfly-{name:032x}?mode=memory&cache=shared"), gate: Arc::default() })
    }

    /// Makes the file where there is none, and refuses one that others may read.
    pub fn prepare(&self) -> Result<(), StoreError> {
        match self {
            Self::File(path) => private_files(path).map_err(StoreError::File),
            Self::Memory { .. } => Ok(()),
        }
    }

    /// Not yet in WAL mode: nothing is changed before the file is known to be ours.
    pub fn writer(&self) -> Result<Connection, StoreError> {
        self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_WAIT)
    }

    pub fn reader(&self) -> Result<Connection, StoreError> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY, READER_WAIT)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    /// `None` in memory, where there is nothing to move.
    pub fn checkpointer(&self) -> Result<Option<Connection>, StoreError> {
        match self {
            Self::File(_) => self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE, CHECKPOINT_WAIT).map(Some),
            Self::Memory { .. } => Ok(None),
        }
    }

    /// Held while reading.
    pub fn reading(&self) -> Option<RwLockReadGuard<'_, ()>> {
        match self {
            Self::File(_) => None,
            Self::Memory { gate, .. } => Some(gate.read().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Held while writing.
    pub fn writing(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        match self {
            Self::File(_) => None,
            Self::Memory { gate, .. } => Some(gate.write().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Durable from here on: every commit is on disk before it returns.
    pub fn make_durable(&self, connection: &Connection) -> Result<(), StoreError> {
        if let Self::File(_) = self {
            let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
            if mode != "wal" {
                return Err(StoreError::Io(rusqlite::ffi::SQLITE_CANTOPEN));
            }
        }
        connection.execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA cache_size = -16384; PRAGMA secure_delete = FAST;
             PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = -1;",
        )?;
        Ok(())
    }

    /// Gives the write-ahead log its space: a commit that need not grow the file is some forty
    /// times faster.
    pub fn grow_wal(&self, connection: &Connection) -> Result<(), StoreError> {
        let Self::File(path) = self else { return Ok(()) };
        connection.execute_batch("DROP TABLE IF EXISTS scratch")?;
        if std::fs::metadata(beside(path, "-wal")).is_ok_and(|file| file.len() >= WAL_START_BYTES) {
            return Ok(());
        }
        let filled = fill_and_drop(connection, WAL_START_BYTES).and_then(|()| start_over(connection));
        match filled.map_err(StoreError::from) {
            // Only speed is lost, and what ends tasks may still fit.
            Err(StoreError::Full) => Ok(()),
            other => other,
        }
    }

    fn connect(&self, access: OpenFlags, wait: Duration) -> Result<Connection, StoreError> {
        let connection = match self {
            Self::File(path) => Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?,
            Self::Memory { uri, .. } => Connection::open_with_flags(uri, memory_flags())?,
        };
        connection.busy_timeout(wait)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // A plan never depends on what is bound: otherwise a join is compiled anew each time it runs,
        // at several times the cost of running it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection
            .execute_batch("PRAGMA foreign_keys = OFF; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;")?;
        Ok(connection)
    }
}

/// A shared cache belongs to several connections, so each needs its own lock.
fn memory_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_FULL_MUTEX
}

// SECURITY: the rows tell who may what; `a_store_that_others_may_read_is_refused`. SQLite gives
// `-wal` and `-shm` the mode of the file they belong to.
fn private_files(path: &Path) -> io::Result<()> {
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        Ok(file) => file.sync_all().and_then(|()| sync_parent(path))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    files::require_private(path)?;
    for suffix in ["-wal", "-shm"] {
        match files::require_private(&beside(path, suffix)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Commits so many bytes and gives them up again. One that was killed in between left its table.
pub(super) fn fill_and_drop(connection: &Connection, bytes: u64) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch("DROP TABLE IF EXISTS scratch; CREATE TABLE scratch (bytes BLOB)")?;
    transaction.execute("INSERT INTO scratch VALUES (zeroblob(?1))", [bytes.cast_signed()])?;
    transaction.commit()?;
    connection.execute_batch("DROP TABLE scratch")
}

fn start_over(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::store::schema;

    /// How often the read of a lease with its task was compiled again.
    fn compiled_again(connection: &Connection) -> i32 {
        let sql = "SELECT l.id FROM lease l JOIN task t ON t.id = l.task WHERE l.id = ?1";
        for id in 0..5u128 {
            // Back on the shelf it loses what was bound, as the statements of every read do.
            assert!(!connection.prepare_cached(sql).unwrap().exists([id.to_be_bytes()]).unwrap());
        }
        connection.prepare_cached(sql).unwrap().get_status(StatementStatus::RePrepare)
    }

    #[test]
    fn a_statement_is_compiled_once_whatever_is_bound() {
        let mut connection = Place::memory().unwrap().writer().unwrap();
        schema::bring_forward(&mut connection, schema::STEPS).unwrap();
        assert_eq!(compiled_again(&connection), 0);
        connection.flush_prepared_statement_cache();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, false).unwrap();
        assert!(compiled_again(&connection) > 0, "the setting is what does it");
    }
}
