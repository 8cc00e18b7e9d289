//! The three ways in: TLS, plain TCP (health and metrics), the broker's own socket.

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{http::Peer, sys::net::PresentedChain};

/// A listener, and what must happen to a connection before HTTP is spoken on it.
pub(super) trait Entrance: Send + Sync + 'static {
    type Raw: Send + 'static;
    type Open: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The label in metrics.
    const NAME: &'static str;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Raw, Peer)>> + Send;
    /// Needs no listener: one that stopped is closed while its connections finish.
    fn open(raw: Self::Raw, allowed: Duration) -> impl Future<Output = io::Result<Self::Open>> + Send;
    /// What the client showed in the handshake, where there was one.
    fn shown(_: &Self::Open) -> Option<PresentedChain> {
        None
    }
}

pub(super) struct Tls {
    pub listener: TcpListener,
    /// Read for every connection, so that a reload is felt by the next one.
    pub config: Arc<ArcSwap<ServerConfig>>,
}

pub(super) struct Plain(pub TcpListener);

pub(super) struct Socket(pub UnixListener);

impl Entrance for Tls {
    type Raw = (TcpStream, Arc<ServerConfig>);
    type Open = TlsStream<TcpStream>;
    const NAME: &'static str = "tls";

    async fn accept(&self) -> io::Result<(Self::Raw, Peer)> {
        let (stream, peer) = accept_tcp(&self.listener).await?;
        Ok(((stream, self.config.load_full()), peer))
    }

    // SECURITY: `t_155_half_a_client_hello_is_closed`
    async fn open((stream, config): Self::Raw, allowed: Duration) -> io::Result<Self::Open> {
        timeout(allowed, TlsAcceptor::from(config).accept(stream))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    fn shown(open: &Self::Open) -> Option<PresentedChain> {
        PresentedChain::of(open.get_ref().1)
    }
}

impl Entrance for Plain {
    type Raw = TcpStream;
    type Open = TcpStream;
    const NAME: &'static str = "plain";

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        accept_tcp(&self.0).await
    }

    async fn open(raw: TcpStream, _: Duration) -> io::Result<TcpStream> {
        Ok(raw)
    }
}

impl Entrance for Socket {
    type Raw = UnixStream;
    type Open = UnixStream;
    const NAME: &'static str = "socket";

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.0.accept().await?;
        let uid = stream.peer_cred()?.uid();
        Ok((stream, Peer::Local { uid }))
    }

    async fn open(raw: UnixStream, _: Duration) -> io::Result<UnixStream> {
        Ok(raw)
    }
}

async fn accept_tcp(listener: &TcpListener) -> io::Result<(TcpStream, Peer)> {
    let (stream, address) = listener.accept().await?;
    // Answers are small and written at once: waiting for more only delays them.
    let _ = stream.set_nodelay(true);
    Ok((stream, Peer::Tcp(address)))
}
