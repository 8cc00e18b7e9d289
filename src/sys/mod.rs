//! The only door to clock, entropy, environment, network, programs, files and tokens.

pub mod clock;
pub mod credentials;
pub mod entropy;
pub mod env;
pub mod files;
pub mod host;
pub mod log;
pub mod net;
pub mod offload;
pub mod program;
pub mod sync;
pub mod terminal;
pub mod token;
