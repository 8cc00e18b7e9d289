//! Stage 2: may it?
//!
//! The bundle's text comes in through `source`, is compiled once, and then decides: one question
//! per exchange (`decide`) and one per row that a caller wants to reach (`may`).

mod ask;
mod compile;
mod decide;
mod explain;
#[cfg(test)]
mod fixture;
mod lapse;
#[cfg(test)]
mod lint_tests;
mod mention;
mod names;
mod nearest;
mod reach;
mod resolve;
mod row;
mod schema;
mod slice;
#[cfg(test)]
mod slice_tests;
mod source;
mod verifiers;
mod written;

pub use ask::{Ask, Circumstances, Decision, Denied, Grant, GrantedTarget, What};
pub use compile::Policy;
pub use explain::{ByHand, Comparison, Explanation, NEAREST_MAX, Outcome, Permitted, WANTED_MAX};
pub use nearest::{ClaimSeen, RowObstacle, RowSeen, Seen};
pub use reach::{Reach, RowFacts, RowKind};
pub use resolve::{ACTIONS_MAX, TICKET_MAX_CHARS};
pub use source::{BundleEnv, EXTRAS_MAX_BYTES, parse, parse_kept};
