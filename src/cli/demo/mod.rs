//! `dayfly demo`: the whole story on loopback, in order, with measured milliseconds.

use super::{args::DemoArgs, failure::Failure, session::Session};

pub fn run(_args: &DemoArgs, _session: &Session) -> Result<(), Failure> {
    todo!()
}
