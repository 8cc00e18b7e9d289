//! Status lists (draft-ietf-oauth-status-list-21): how a broker says without being asked which of
//! its tokens have ended, and how a resource server reads that.
//!
//! [`StatusList`] is the list itself, built by the broker and read by a verifier; [`ListClaims`] is
//! what the broker signs, [`ListToken`] what a verifier believes. `Listed` (feature `online`) fetches
//! and keeps them; without it, hand them to [`crate::Offline::check_listed`].

mod list;
mod token;

pub use list::{LIST_ENTRIES_MAX, StatusBits, StatusList, StatusListError};
#[cfg(feature = "online")]
pub(crate) use token::parse;
pub use token::{
    EncodedList, LIST_MEDIA_TYPE, LIST_TOKEN_MAX_BYTES, LIST_TOKEN_TYP, ListClaims, ListRefusal, ListToken, list_name,
    unverified_uri,
};
