//! The clocks as they are, and what threads share.

#[path = "../../../src/sys/clock.rs"]
pub mod clock;

/// As `src/sys/sync.rs`.
pub mod sync {
    pub use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic};
    pub use shuttle_dashmap::{DashMap, DashSet, Entry};
    pub use std::sync::PoisonError;
}
