//! Telling systemd how it goes (sd_notify(3)): one datagram to `$NOTIFY_SOCKET`.

use std::{
    os::{linux::net::SocketAddrExt, unix::net},
    time::Duration,
};

/// Once a second, while the upkeep runs: a manager that asked for it starts a broker that hangs anew.
pub(super) fn alive() {
    if std::env::var_os("WATCHDOG_USEC").is_some() {
        tell("WATCHDOG=1");
    }
}

/// `READY=1`, `RELOADING=1`, `STOPPING=1`. Without a service manager nothing happens.
pub(super) fn tell(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let path = socket.to_string_lossy();
    let address = match path.strip_prefix('@') {
        Some(name) => net::SocketAddr::from_abstract_name(name),
        None => net::SocketAddr::from_pathname(&*path),
    };
    let told = address.and_then(|address| {
        let socket = net::UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(Duration::from_secs(1)))?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager could not be told `{state}`");
    }
}
