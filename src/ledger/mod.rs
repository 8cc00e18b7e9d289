//! Stage 4: the provable sequence of events. Committing to the ledger *is* committing to the
//! store; here the bodies are written, hashed and read back.

mod body;
mod event;
mod kinds;
mod tombs;
mod tree;
mod verify;

pub use body::{Body, Context, DETAILS_ERASED};
pub use event::{
    Asked, BundleSwap, Denial, Entry, Issue, KeyRotation, KeyTaint, Outcome, Stamp, Start, Tombstone, block_lifted,
    blocked, bundle_swapped, denied, issued, key_rotated, key_tainted, lease_ended, operator, start, task_ended,
    task_opened, tombstone,
};
pub use kinds::{EVENTS, EventKind};
pub use tree::{Tree, leaf_hash};
pub use verify::{CURRENT_BUNDLE, Report, SEEN_BUNDLE, verify};
