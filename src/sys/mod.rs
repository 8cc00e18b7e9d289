//! The only door to clock, entropy, network and files.

pub mod clock;
pub mod entropy;
pub mod files;
pub mod net;
pub mod offload;
