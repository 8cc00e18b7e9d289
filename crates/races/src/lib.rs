//! The lease table's own source, compiled with the locks and maps of `sys::sync` replaced by ones whose
//! every step is decided by a schedule. Nothing here is in the product; what is tested is what is in it.
//!
//! It is empty where it would be a test itself: the table's own tests are run with the table, on the
//! locks of the product.
#![cfg(not(test))]
#![allow(dead_code, reason = "the table is whole here, and the tests use what races")]

#[path = "../../../src/lease/mod.rs"]
pub mod lease;
pub mod store;
pub mod sys;
