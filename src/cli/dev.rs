//! `dayfly dev`: a broker for development with a stand-in issuer, on loopback only.

use super::{
    args::{DevRunArgs, DevTokenArgs},
    failure::Failure,
    session::Session,
};

pub fn run(_args: &DevRunArgs, _session: &Session) -> Result<(), Failure> {
    todo!()
}

/// Prints the token alone. Reads the stand-in's key; no broker, no lock, no `DAYFLY_*`.
pub fn token(_args: &DevTokenArgs, _session: &Session) -> Result<(), Failure> {
    todo!()
}
