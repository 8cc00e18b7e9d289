//! Dayfly, a short-lived credential broker that ties every credential to one task.
//!
//! Data goes through six stages, in this order; only `flow` calls them. `http` and `cli` are
//! doors and hold no rules. `docs/ARCHITECTURE.md` has the map and the law of imports.

pub mod intake;
pub mod lease;
pub mod ledger;
pub mod mint;
pub mod policy;
pub mod revoke;

pub mod flow;
pub mod store;

pub mod config;
pub mod http;
pub mod run;
pub mod sys;

pub mod cli;
