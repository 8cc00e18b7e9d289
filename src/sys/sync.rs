//! What the lease table shares between threads. Its tests of races (`crates/races`) compile the same
//! source with this module replaced, so that every step of these is one that a schedule may cut.

pub use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic};

pub use dashmap::{DashMap, DashSet, Entry};
