//! `--on-renew`: a line for the shell that runs whenever what is in the files is new. In: the line. Out: its
//! failure as a warning; it decides nothing.

use std::{cell::Cell, ffi::OsString, os::unix::process::ExitStatusExt, process::ExitStatus};

use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use super::child::{self, Told};
use crate::cli::{failure::Failure, session::Screen};

/// One at a time.
#[derive(Debug)]
pub struct Hook<'a> {
    line: Option<&'a OsString>,
    told: &'a Told,
    running: Cell<Option<Pid>>,
}

impl<'a> Hook<'a> {
    pub fn new(line: Option<&'a OsString>, told: &'a Told) -> Self {
        Self { line, told, running: Cell::default() }
    }

    /// One at a time: one that still runs finds the newest files anyway.
    pub fn run(&self) -> Result<(), Failure> {
        let Some(line) = self.line else { return Ok(()) };
        if self.running.get().is_some() {
            return Err(Failure::failed("the hook of --on-renew still runs, and is not run again"));
        }
        self.running.set(Some(child::start_hook(line, self.told)?));
        Ok(())
    }

    pub fn is_running(&self) -> bool {
        self.running.get().is_some()
    }

    /// A child is done, perhaps this one.
    pub fn done(&self, pid: Pid, status: ExitStatus, screen: Screen) {
        if self.running.get() != Some(pid) {
            return;
        }
        self.running.set(None);
        if !status.success() {
            screen.warn(&format!("the hook of --on-renew failed with {status}"));
        }
    }

    /// Whether it is done by now. Nobody else's child is taken.
    pub fn look(&self, screen: Screen) {
        let Some(pid) = self.running.get() else { return };
        if let Ok(Some((pid, status))) = waitpid(Some(pid), WaitOptions::NOHANG) {
            self.done(pid, ExitStatus::from_raw(status.as_raw()), screen);
        }
    }

    /// Nobody waits for it any more.
    pub fn stop(&self) {
        if let Some(pid) = self.running.take() {
            let _ = rustix::process::kill_process_group(pid, Signal::TERM);
        }
    }
}
