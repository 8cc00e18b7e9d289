//! `dayfly serve`: the broker itself, or only the check of what it would start with.

use super::{args::ServeArgs, failure::Failure, session::Session};

pub fn run(_args: &ServeArgs, _session: &Session) -> Result<(), Failure> {
    todo!()
}
