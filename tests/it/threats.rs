//! The threat list as requests to a running broker (sections A, B, E, G and parts of K): a test
//! is named after its row.

mod claims;
mod forge;
mod jose;
mod stand;
