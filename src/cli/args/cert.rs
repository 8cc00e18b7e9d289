//! Options of `dayfly cert`.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{AskArgs, DoorArgs};

/// `dayfly cert`.
#[derive(Debug, Clone, Args)]
pub struct CertArgs {
    #[command(flatten)]
    pub ask: AskArgs,
    /// Write the key and the certificate here, mode 0600, and the handle beside it
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What goes into which file
    #[arg(long, value_name = "LAYOUT", default_value = "bundle")]
    pub layout: Layout,
    /// Stay: hold the task, renew at half-life, and end it at a signal
    #[arg(long)]
    pub watch: bool,
    /// Run this with `/bin/sh -c` whenever the files are new; that it fails is a warning
    #[arg(long, value_name = "COMMAND")]
    pub on_renew: Option<OsString>,
    /// Keep the task's handle here [variable: DAYFLY_TASK_FILE; default: FILE.task]
    #[arg(long, value_name = "FILE")]
    pub task_file: Option<PathBuf>,
    #[command(flatten)]
    pub door: DoorArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// FILE: key, certificate and intermediates
    Bundle,
    /// FILE.key, FILE.crt with the intermediates, FILE.ca with the roots
    Split,
}
