//! Signals of the process, as words.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// HUP: load bundle and TLS files again.
    Reload,
    /// TERM or INT: drain and stop.
    Stop,
}

/// The signals the broker listens to, from the moment it is made.
#[derive(Debug)]
pub struct Signals {
    hup: unix::Signal,
    term: unix::Signal,
    int: unix::Signal,
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            hup: unix::signal(SignalKind::hangup())?,
            term: unix::signal(SignalKind::terminate())?,
            int: unix::signal(SignalKind::interrupt())?,
        })
    }

    /// TERM or INT, whatever else comes.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hup.recv() => Signal::Reload,
            _ = self.term.recv() => Signal::Stop,
            _ = self.int.recv() => Signal::Stop,
        }
    }
}
