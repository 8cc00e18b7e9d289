//! How much a stranger may take before anything is known about them.

use std::time::Duration;

/// Limits of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; past it none is accepted until one ends.
    pub connections: usize,
    /// Open connections of one IPv4 address or one IPv6 /64; past it a new one is dropped.
    pub per_address: usize,
    /// A TLS handshake, from the first byte to the last.
    pub handshake: Duration,
    /// A header block: the first counts from the start of the connection, later ones from their
    /// first byte.
    pub header: Duration,
    /// A whole request body.
    pub body: Duration,
    /// Silence between two requests.
    pub idle: Duration,
    /// A client that reads nothing while an answer waits for it.
    pub stall: Duration,
    /// Request line and headers together.
    pub header_max_bytes: usize,
    pub headers_max: usize,
    pub body_max_bytes: usize,
    /// How long requests in flight have after a stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            per_address: 256,
            handshake: Duration::from_secs(5),
            header: Duration::from_secs(10),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(10),
            header_max_bytes: 16 << 10,
            headers_max: 100,
            body_max_bytes: 64 << 10,
            drain: Duration::from_secs(25),
        }
    }
}
