//! Who is at the other end of a connection, as the accept loop saw it.

use std::net::SocketAddr;

use crate::flow::PresentedChain;

/// An extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// Came over the broker's own socket; the uid is the kernel's word.
    Local {
        uid: u32,
    },
}

/// The certificates that a client showed in its handshake: an extension of every request on that connection,
/// and of no other. The accept loop puts it there; no header does.
// SECURITY: `t_147_a_forwarded_certificate_is_nobodys`
#[derive(Debug, Clone)]
pub struct Client(pub PresentedChain);
