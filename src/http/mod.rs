//! The HTTP door: forms and JSON in, flow's verbs, answers out. It holds no rules.

pub mod shapes;
