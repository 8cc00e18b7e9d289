//! The rows, as they are.

#[path = "../../../src/store/rows.rs"]
mod rows;

pub use rows::*;
