//! Options of `dayfly doctor`.

use std::path::PathBuf;

use clap::Args;

/// `dayfly doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// The settings [default: $DAYFLY_CONFIG, $XDG_CONFIG_HOME/dayfly/config.toml, /etc/dayfly/dayfly.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The broker's state folder [default: the settings' state_dir]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The trust bundle [default: the settings' policies_dir]
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// Ask no issuer for its keys, where no broker runs that knows of them
    #[arg(long)]
    pub offline: bool,
}
