//! `--on-renew`: a line for the shell that runs whenever what is in the files is new. In: the line. Out: its
//! failure as a warning; it decides nothing.

use std::{cell::Cell, ffi::OsString, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};
use tokio::time::{Instant, sleep};

use super::child::{self, Told};
use crate::cli::{failure::Failure, session::Screen};

/// One that takes longer is killed.
pub const HOOK: Duration = Duration::from_secs(60);

/// One at a time.
#[derive(Debug)]
pub struct Hook<'a> {
    line: Option<&'a OsString>,
    told: &'a Told,
    running: Cell<Option<(Pid, Instant)>>,
    /// There are newer files than those that the one that runs was started for.
    again: Cell<bool>,
}

impl<'a> Hook<'a> {
    pub fn new(line: Option<&'a OsString>, told: &'a Told) -> Self {
        Self { line, told, running: Cell::default(), again: Cell::default() }
    }

    /// One at a time: where one still runs, another follows it. It may have read the old files.
    pub fn run(&self) -> Result<(), Failure> {
        let Some(line) = self.line else { return Ok(()) };
        if self.is_running() {
            self.again.set(true);
            return Ok(());
        }
        self.running.set(Some((child::start_hook(line, self.told)?, Instant::now() + HOOK)));
        Ok(())
    }

    /// The same; that it cannot be started is a warning.
    pub fn run_or_warn(&self, screen: Screen) {
        self.run().unwrap_or_else(|failure| screen.warn(&failure.parts().what));
    }

    /// Kills one that takes too long, for as long as this is polled; never comes to an end.
    pub async fn bounded(&self, screen: Screen) -> ! {
        loop {
            sleep(Duration::from_secs(1)).await;
            let Some((pid, until)) = self.running.get() else { continue };
            if Instant::now() >= until {
                screen.warn(&format!("the hook of --on-renew took more than {} s, and is killed", HOOK.as_secs()));
                self.running.set(Some((pid, Instant::now() + HOOK)));
                let _ = kill_process_group(pid, Signal::KILL);
            }
        }
    }

    pub fn is_running(&self) -> bool {
        self.running.get().is_some()
    }

    /// A child is done, perhaps this one.
    pub fn done(&self, pid: Pid, status: ExitStatus, screen: Screen) {
        if self.running.get().is_none_or(|(own, _)| own != pid) {
            return;
        }
        self.running.set(None);
        if !status.success() {
            screen.warn(&format!("the hook of --on-renew failed with {status}"));
        }
        if self.again.take() {
            self.run_or_warn(screen);
        }
    }

    /// Whether it is done by now. Nobody else's child is taken.
    pub fn look(&self, screen: Screen) {
        let Some((pid, _)) = self.running.get() else { return };
        if let Ok(Some((pid, status))) = waitpid(Some(pid), WaitOptions::NOHANG) {
            self.done(pid, ExitStatus::from_raw(status.as_raw()), screen);
        }
    }

    /// Nobody waits for it any more.
    pub fn stop(&self) {
        self.again.set(false);
        if let Some((pid, _)) = self.running.take() {
            let _ = kill_process_group(pid, Signal::TERM);
        }
    }
}
