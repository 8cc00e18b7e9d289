//! `dayfly ledger verify`: every event against its hash, the whole against its record.

use crate::cli::{args::LedgerVerifyArgs, failure::Failure, session::Session};

/// Reads the store beside a running broker; needs no broker.
pub fn verify(_args: &LedgerVerifyArgs, _session: &Session) -> Result<(), Failure> {
    todo!()
}
