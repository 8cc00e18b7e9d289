//! Dayfly, a short-lived credential broker that ties every credential to one task.
//!
//! Data goes through six stages, in this order; only `flow` calls them. `http` and `cli` are
//! doors and hold no rules. `docs/ARCHITECTURE.md` has the map and the law of imports.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests spawn and read what they like"))]

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
#[allow(clippy::disallowed_methods, reason = "the only spawner of tasks and threads; reads the environment")]
pub mod run;
pub mod sys;

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "data on stdout, talk on stderr")]
pub mod cli;
