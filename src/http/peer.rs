//! Who is at the other end of the connection. The accept loop puts it into every request's
//! extensions; the door reads it there.

use std::net::SocketAddr;

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over the network.
    Tcp(SocketAddr),
    /// Over the local socket, with the uid that the kernel vouches for.
    Local { uid: u32 },
}
