//! What survives a restart: rows only, no rules.
//!
//! In: batches of [`Change`], all or nothing, from the one thread that owns the [`Store`]. Out:
//! rows, to any thread, through a [`Reader`]. Which change may follow which, and what a state
//! means, is decided elsewhere; here is only how it is kept.

mod archive;
mod checkpoint;
mod columns;
mod error;
mod filter;
mod place;
mod pool;
mod prune;
mod read;
mod rows;
mod schema;
mod snapshot;
mod write;

#[cfg(test)]
mod suite;

pub use checkpoint::Checkpointer;
pub use error::StoreError;
pub use prune::PruneBefore;
pub use read::Reader;
pub use rows::{
    BlockRow, BundleRow, Change, DetailRow, EndRow, EventFilter, EventRow, LeaseFilter, LeaseRow, ListRow, Page,
    StatusSlot, TaskFilter, TaskRow, TombRow, UsedRow,
};
pub use snapshot::Snapshot;
pub use write::Store;

/// How much room the store takes beside its rows, for the reference.
pub mod bounds {
    pub use super::{checkpoint::WAL_MAX_BYTES, place::STATEMENTS, pool::CONNECTIONS};
}
