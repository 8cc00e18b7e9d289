//! Why the store cannot do it. Never carries a statement or a value.

use std::io;

use dayfly_domain::Reason;
use rusqlite::{ErrorCode, ffi};

use crate::sys::entropy::NoEntropy;

/// A failed write left nothing behind, except where the outcome of an I/O error is only known
/// after a restart.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made, or others may read it.
    #[error("{0}")]
    File(#[source] io::Error),
    #[error("the file is not a store of this broker")]
    Stranger,
    #[error("the file is empty; do not start a broker on it, put the store back")]
    Emptied,
    #[error("the store has schema {found}, but this broker knows only {known}; run a newer one")]
    Newer { found: u32, known: u32 },
    #[error("the store has schema {found}, older than {known}; start the broker once to bring it forward")]
    Older { found: u32, known: u32 },
    #[error("the disk is full")]
    Full,
    #[error("another connection holds the store")]
    Busy,
    /// Everything else that SQLite reports, by its extended result code.
    #[error("the file cannot be used or is damaged (SQLite code {0})")]
    Io(i32),
    #[error("a row that must be unique is there already")]
    Conflict,
    #[error("the next event is {expected}, not {found}")]
    Sequence { expected: u64, found: u64 },
    #[error("a row that must be there is not")]
    Missing,
    #[error("the file is damaged: a row cannot be read back")]
    Corrupt,
    #[error("{0}")]
    Entropy(#[from] NoEntropy),
}

impl StoreError {
    /// What the outside hears.
    pub fn reason(&self) -> Reason {
        match self {
            Self::File(_) | Self::Stranger | Self::Emptied | Self::Newer { .. } | Self::Older { .. } => Reason::Store,
            Self::Full | Self::Busy | Self::Io(_) | Self::Entropy(_) => Reason::Store,
            Self::Conflict | Self::Sequence { .. } | Self::Missing | Self::Corrupt => Reason::Internal,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::SqliteFailure(failure, _) => of_code(failure),
            rusqlite::Error::SqlInputError { error, .. } => of_code(error),
            // What is left is about values that do not have the type of their column.
            _ => Self::Corrupt,
        }
    }
}

fn of_code(failure: ffi::Error) -> StoreError {
    match failure.code {
        ErrorCode::DiskFull => StoreError::Full,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy,
        ErrorCode::ConstraintViolation => StoreError::Conflict,
        ErrorCode::DatabaseCorrupt => StoreError::Corrupt,
        ErrorCode::NotADatabase => StoreError::Stranger,
        // No room for the shared-memory file.
        _ if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => StoreError::Full,
        _ => StoreError::Io(failure.extended_code),
    }
}
