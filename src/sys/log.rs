//! Where the log goes: one line of JSON for each event, on stderr, control characters escaped.

use std::io;

use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Whether a text is a filter that [`start`] takes.
pub fn check(filter: &str) -> Result<(), ParseError> {
    EnvFilter::builder().parse(filter).map(drop)
}

/// Starts the log with a filter of `tracing` (`info`, `dayfly=debug,info`). A second start in one
/// process changes nothing.
pub fn start(filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let log = tracing_subscriber::fmt().json().flatten_event(true).with_writer(io::stderr).with_env_filter(filter);
    // Only fails when a log is there already.
    let _ = log.try_init();
    Ok(())
}
