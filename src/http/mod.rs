//! The HTTP door: forms and JSON in, flow's verbs, answers out. It holds no rules.

mod peer;
pub mod shapes;

pub use peer::Peer;
