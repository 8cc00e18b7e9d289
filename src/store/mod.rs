//! What survives a restart: rows only, no rules.

mod rows;

pub use rows::{BlockRow, Change, DetailRow, EndRow, EventRow, LeaseFilter, LeaseRow, Page, TaskFilter, TaskRow};
