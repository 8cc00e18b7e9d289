//! `dayfly policy check|show`: the trust bundle, without a broker.

use super::{
    args::{PolicyCheckArgs, PolicyShowArgs},
    failure::Failure,
    session::Session,
};

/// Loads the bundle, runs its lints and its tests.
pub fn check(_args: &PolicyCheckArgs, _session: &Session) -> Result<(), Failure> {
    todo!()
}

pub fn show(_args: &PolicyShowArgs, _session: &Session) -> Result<(), Failure> {
    todo!()
}
