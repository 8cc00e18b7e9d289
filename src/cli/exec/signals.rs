//! Signals on their way to the command, and the children that are done. In: what the kernel sends us.
//! Out: who is done; everything else is passed on here.

use std::{fs::File, io, os::unix::process::ExitStatusExt, process::ExitStatus};

use rustix::process::{Pid, Signal, WaitOptions, getpgrp, kill_process, kill_process_group, wait};
use tokio::signal::unix::{self, SignalKind};

use super::child::Place;

/// Listened to from the moment this is made: before the command is there.
#[derive(Debug)]
pub struct Signals {
    term: unix::Signal,
    /// Absent where it was ignored when we were started: `nohup` is meant for the command.
    hup: Option<unix::Signal>,
    quit: unix::Signal,
    usr1: unix::Signal,
    usr2: unix::Signal,
    alrm: unix::Signal,
    winch: unix::Signal,
    int: unix::Signal,
    chld: unix::Signal,
}

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Signal(Signal),
    /// Somebody is done.
    Child,
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        let on = unix::signal;
        Ok(Self {
            term: on(SignalKind::terminate())?,
            hup: if ignores_hangup() { None } else { Some(on(SignalKind::hangup())?) },
            quit: on(SignalKind::quit())?,
            usr1: on(SignalKind::user_defined1())?,
            usr2: on(SignalKind::user_defined2())?,
            alrm: on(SignalKind::alarm())?,
            winch: on(SignalKind::window_change())?,
            int: on(SignalKind::interrupt())?,
            chld: on(SignalKind::child())?,
        })
    }

    pub async fn next(&mut self) -> Heard {
        let hangup = async {
            match &mut self.hup {
                Some(hup) => hup.recv().await,
                None => std::future::pending().await,
            }
        };
        Heard::Signal(tokio::select! {
            _ = self.chld.recv() => return Heard::Child,
            _ = self.term.recv() => Signal::TERM,
            _ = hangup => Signal::HUP,
            _ = self.quit.recv() => Signal::QUIT,
            _ = self.usr1.recv() => Signal::USR1,
            _ = self.usr2.recv() => Signal::USR2,
            _ = self.alrm.recv() => Signal::ALARM,
            _ = self.winch.recv() => Signal::WINCH,
            _ = self.int.recv() => Signal::INT,
        })
    }

    /// The first one that asks us to stop.
    pub async fn stop(&mut self) -> Signal {
        loop {
            let heard = self.next().await;
            if let Heard::Signal(signal @ (Signal::TERM | Signal::HUP | Signal::QUIT | Signal::INT)) = heard {
                return signal;
            }
        }
    }
}

/// Passes a signal on: to the whole group of a command that has its own, otherwise to it alone. A
/// command that is gone is no error.
pub fn forward(signal: Signal, child: Pid, place: Place, terminal: Option<&File>) {
    let told_by_terminal = signal == Signal::INT && place == Place::Shared && terminal.is_some_and(is_in_front);
    if told_by_terminal {
        return;
    }
    let sent = match place {
        // Until it has made its group it is alone.
        Place::Own => kill_process_group(child, signal).or_else(|_| kill_process(child, signal)),
        Place::Shared => kill_process(child, signal),
    };
    let _ = sent;
}

/// Every child that is done, the orphans among them that PID 1 inherits.
pub fn reap() -> Vec<(Pid, ExitStatus)> {
    let mut done = Vec::new();
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => done.push((pid, ExitStatus::from_raw(status.as_raw()))),
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return done,
        }
    }
}

/// The terminal sends to the group in front; in the background nobody does.
fn is_in_front(terminal: &File) -> bool {
    rustix::termios::tcgetpgrp(terminal).is_ok_and(|front| front == getpgrp())
}

/// As the kernel shows it: one bit for each signal.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (Signal::HUP.as_raw() - 1)) != 0)
}
