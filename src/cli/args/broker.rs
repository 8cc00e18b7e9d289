//! Options of the verbs that run a broker or read its files, and need no broker to talk to.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};
use dayfly_domain::{Name, Span};

use super::client::{DoorArgs, When};

/// `dayfly demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {}

/// `dayfly dev`, and `dayfly dev token`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DevArgs {
    #[command(flatten)]
    pub run: DevRunArgs,
    #[command(subcommand)]
    pub verb: Option<DevVerb>,
}

#[derive(Debug, Subcommand)]
pub enum DevVerb {
    /// Print an identity token of the stand-in issuer; needs no running broker
    Token(DevTokenArgs),
}

/// `dayfly dev`.
#[derive(Debug, Clone, Args)]
pub struct DevRunArgs {
    /// Keep addresses, CA, keys, leases and ledger in this folder [default: in memory]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Where the broker listens; loopback only [default: a free port, kept with --state]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// The trust bundle, loaded unchanged [default: the shipped one]
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// The workload issuer of the bundle that the stand-in plays
    #[arg(long = "as", value_name = "NAME", default_value = "github")]
    pub as_name: Name,
}

/// `dayfly dev token`.
#[derive(Debug, Clone, Args)]
pub struct DevTokenArgs {
    /// The folder that `dayfly dev --state` keeps
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// The issuer to speak as [default: the one that the stand-in plays]
    #[arg(long = "as", value_name = "NAME")]
    pub as_name: Option<Name>,
    /// Claims as a JSON object, `-` for stdin; nothing in it is changed
    #[arg(long, value_name = "FILE")]
    pub claims: Option<PathBuf>,
    /// Leave out a claim; may be repeated
    #[arg(long, value_name = "NAME")]
    pub without: Vec<String>,
}

/// `dayfly serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Check settings, TLS, file modes, the bundle, its tests and the store, and start nothing
    #[arg(long)]
    pub check: bool,
    /// The settings [default: $DAYFLY_CONFIG, $XDG_CONFIG_HOME/dayfly/config.toml, /etc/dayfly/dayfly.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// Load the bundle, run its lints and its tests
    Check(PolicyCheckArgs),
    /// Show a template as the broker understands it, or the Cedar schema
    Show(PolicyShowArgs),
    /// Make recorded decisions again under another bundle: who would newly be allowed or denied
    #[command(long_about = REPLAY_ABOUT)]
    Replay(PolicyReplayArgs),
    /// List what each row gives and how often it was used, never used first; the last ten seconds may be missing
    Usage(PolicyUsageArgs),
}

const REPLAY_ABOUT: &str = "\
Make recorded decisions again under another bundle: who would newly be allowed or denied.

Decisions are read from the broker's ledger, as `dayfly ledger show` reads them; the bundle is read here
and needs no broker. Claims are read again as the bundle's profiles say. What happens after a decision
(used evidence, blocks, limits per job, caps on lifetimes) is not replayed. An issuer, template or target
that has another name counts as gone.

Exit code 1 with --strict where anybody would newly be allowed or denied.";

/// `dayfly policy check`.
#[derive(Debug, Clone, Args)]
pub struct PolicyCheckArgs {
    /// The trust bundle [default: the settings' policies_dir]
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
}

/// `dayfly policy show`.
#[derive(Debug, Clone, Args)]
pub struct PolicyShowArgs {
    /// The template
    #[arg(value_name = "TEMPLATE", required_unless_present = "schema")]
    pub template: Option<Name>,
    /// The Cedar schema instead
    #[arg(long, conflicts_with = "template")]
    pub schema: bool,
    /// The trust bundle [default: the settings' policies_dir]
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
}

/// `dayfly ledger verify`.
#[derive(Debug, Clone, Args)]
pub struct LedgerVerifyArgs {
    /// The broker's state folder; it may be running [default: the settings' state_dir]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// `dayfly policy replay`.
#[derive(Debug, Clone, Args)]
pub struct PolicyReplayArgs {
    /// Decisions from then on, as a time or a distance from now
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    pub since: When,
    /// Up to then
    #[arg(long, value_name = "WHEN")]
    pub until: Option<When>,
    /// The bundle to judge by [default: the settings' policies_dir]
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// Fail where anybody would newly be allowed or denied
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub door: DoorArgs,
}

/// `dayfly policy usage`.
#[derive(Debug, Clone, Args)]
pub struct PolicyUsageArgs {
    /// Of this template only
    #[arg(long, value_name = "NAME")]
    pub template: Option<Name>,
    /// Only what was not used for so long, or never
    #[arg(long, value_name = "DURATION")]
    pub unused_for: Option<Span>,
    #[command(flatten)]
    pub door: DoorArgs,
}
