//! Status lists (draft-ietf-oauth-status-list-21): how a broker says without being asked which of
//! its tokens have ended, and how a resource server reads that.
//!
//! [`StatusList`] is the list itself, built by the broker and read by a verifier.

mod list;

pub use list::{LIST_ENTRIES_MAX, StatusBits, StatusList, StatusListError};
