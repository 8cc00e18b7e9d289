//! Who is at the other end of a connection, as the accept loop saw it.

use std::net::SocketAddr;

/// An extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// Came over the broker's own socket; the uid is the kernel's word.
    Local {
        uid: u32,
    },
}
