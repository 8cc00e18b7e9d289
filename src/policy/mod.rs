//! Stage 2: may it?

mod ask;

pub use ask::{Ask, Circumstances, Decision, Denied, Grant, GrantedTarget, What};
