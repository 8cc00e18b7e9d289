//! run

pub mod accept;
pub mod limits;
