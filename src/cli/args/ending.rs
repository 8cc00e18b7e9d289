//! Options of what ends many things at once, or one, and of what that keeps from being issued.

use std::str::FromStr;

use clap::{Args, Subcommand};
use dayfly_domain::{BlockId, LeaseId, TaskId};

use super::client::DoorArgs;

/// `dayfly revoke`.
#[derive(Debug, Clone, Args)]
pub struct RevokeArgs {
    /// `lse_...` for one lease, `tsk_...` for a task and everything it was given
    #[arg(required_unless_present = "selector", conflicts_with = "selector")]
    pub id: Option<Revoked>,
    /// Everything for which all of this holds, as in `owner == "team-shop" && repository_id == "88120"`
    #[arg(long = "where", id = "selector", value_name = "TEXT")]
    pub selector: Option<String>,
    /// Why, for the ledger
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["id", "dry_run"])]
    pub reason: Option<String>,
    /// Also refuse the same from now on: of a task until its deadline, of `--where` until it is lifted
    /// (the default for both)
    #[arg(long)]
    pub block: bool,
    /// End it, but let the job open another
    #[arg(long, conflicts_with = "block")]
    pub no_block: bool,
    /// Show what would end, and end nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With `--where`: do not ask, but end nothing unless exactly so many leases match
    #[arg(long, value_name = "N", conflicts_with_all = ["id", "dry_run"])]
    pub confirm: Option<u64>,
    #[command(flatten)]
    pub door: DoorArgs,
}

#[derive(Debug, Subcommand)]
pub enum BlockVerb {
    /// List what may not be issued, newest first
    Ls(BlockListArgs),
    /// Lift a block: the same may be issued again; what it ended stays ended
    Lift(BlockLiftArgs),
}

/// `dayfly block ls`.
#[derive(Debug, Clone, Args)]
pub struct BlockListArgs {
    /// At most so many
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    #[command(flatten)]
    pub door: DoorArgs,
}

/// `dayfly block lift`.
#[derive(Debug, Clone, Args)]
pub struct BlockLiftArgs {
    /// `blk_...`
    pub id: BlockId,
    /// Show the block, and lift nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub door: DoorArgs,
}

/// What `revoke` can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    Task(TaskId),
    Lease(LeaseId),
}

impl FromStr for Revoked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let task = text.parse().map(Self::Task);
        task.or_else(|_| text.parse().map(Self::Lease))
            .map_err(|_| "expected `tsk_` or `lse_` and 26 lower-case characters".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_revoked_is_known_by_its_prefix() {
        let lease = LeaseId::from_parts(1, [0; 10]);
        assert_eq!(lease.to_string().parse(), Ok(Revoked::Lease(lease)));
        assert!("lse_x".parse::<Revoked>().is_err());
    }
}
