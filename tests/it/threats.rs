//! The threat list as requests to a running broker (sections A, B, C, E, G and parts of K): a test
//! is named after its row.

mod claims;
mod csrs;
mod exchange;
mod fetch;
pub(crate) mod forge;
mod isolation;
mod jose;
mod lattice;
mod limits;
pub(crate) mod stand;
mod x509;

pub use stand::{Stand, exchange_of, refused_quietly};
