//! Options of `dayfly trust`.

use std::path::PathBuf;

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use dayfly_domain::{EventId, Name, Span};

use super::{DoorArgs, client::positive_span};
use crate::cli::trust::PROVIDERS;

#[derive(Debug, Subcommand)]
pub enum TrustVerb {
    /// Add a row to a template, and the issuer's table where it is missing, with tests for it
    #[command(long_about = ADD_ABOUT)]
    Add(Box<TrustAddArgs>),
}

const ADD_ABOUT: &str = "\
Add a row to a template of the trust bundle, and the issuer's table where it is missing, with tests for
it: two runs that are permitted and five that are denied.

The row binds to ids that never change hands, not to names: give them, let --lookup ask the platform, or
take them from a refusal with --from. What would change is shown as a diff; it must load and pass its own
tests before the question is asked, and nothing is written without a yes.

Not loaded: the broker goes on with what it has until it is told to load (SIGHUP).";

/// `dayfly trust add`.
#[derive(Debug, Clone, Args)]
pub struct TrustAddArgs {
    /// Who vouches for the workload
    #[arg(value_name = "PLATFORM", required_unless_present = "from",
          value_parser = PossibleValuesParser::new(PROVIDERS.iter().map(|provider| provider.name)))]
    pub platform: Option<String>,
    /// github: OWNER/REPO · gitlab: GROUP/PROJECT · kubernetes: NAMESPACE/SERVICEACCOUNT
    #[arg(value_name = "NAME", required_unless_present = "from")]
    pub name: Option<String>,
    /// The template that it may run; must be there [default: that of --from]
    #[arg(long, value_name = "NAME", required_unless_present = "from")]
    pub task: Option<Name>,
    /// Only in this environment of the platform
    #[arg(long, value_name = "NAME")]
    pub environment: Option<String>,
    /// Only from this ref: refs/heads/main
    #[arg(long = "ref", value_name = "REF")]
    pub reference: Option<String>,
    /// Also while the platform does not protect the ref, or the environment
    #[arg(long)]
    pub unprotected: bool,
    /// The refusal to take ids, ref and environment from; what is given beside it counts more
    #[arg(long, value_name = "EVT", conflicts_with = "lookup")]
    pub from: Option<EventId>,
    /// With --from: also for unreviewed code (a pull request)
    #[arg(long, requires = "from")]
    pub untrusted: bool,
    /// Ask the platform's public API for the ids
    #[arg(long)]
    pub lookup: bool,
    /// github: the number of the repository's owner
    #[arg(long, value_name = "N", help_heading = "Ids")]
    pub owner_id: Option<String>,
    /// github: the number of the repository
    #[arg(long, value_name = "N", help_heading = "Ids")]
    pub repository_id: Option<String>,
    /// gitlab: the number of the project
    #[arg(long, value_name = "N", help_heading = "Ids")]
    pub project_id: Option<String>,
    /// gitlab: the number of the project's group
    #[arg(long, value_name = "N", help_heading = "Ids")]
    pub namespace_id: Option<String>,
    /// kubernetes: the uid of the service account
    #[arg(long, value_name = "UID", help_heading = "Ids")]
    pub uid: Option<String>,
    /// The issuer's table [default: the bundle's own for this platform, else named like it]
    #[arg(long, value_name = "NAME", help_heading = "The issuer")]
    pub issuer: Option<Name>,
    /// Its URL: of the instance, of the cluster [default: the platform's]
    #[arg(long, value_name = "URL", visible_alias = "url", help_heading = "The issuer")]
    pub issuer_url: Option<String>,
    /// The only authorities that may vouch for it; a PEM file: its path below the bundle's folder, or absolute
    #[arg(long, value_name = "FILE", help_heading = "The issuer")]
    pub ca_file: Option<String>,
    /// It may live at an address that is not public
    #[arg(long, help_heading = "The issuer")]
    pub allow_private: bool,
    /// Its keys, pinned instead of found by discovery; a file below the bundle's folder
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ca_file", "allow_private"], help_heading = "The issuer")]
    pub jwks_file: Option<String>,
    /// The row's id [default: made of the name]
    #[arg(long, value_name = "ID", help_heading = "The row")]
    pub row: Option<Name>,
    /// Who answers for it in reviews [default: the template's owner]
    #[arg(long, value_name = "TEAM", help_heading = "The row")]
    pub owner: Option<Name>,
    /// Look at it again by then, as 2027-06-30 [default: the template's]
    #[arg(long, value_name = "DATE", help_heading = "The row")]
    pub review_by: Option<String>,
    /// Credentials live no longer than this [default: the template's]
    #[arg(long, value_name = "DURATION", value_parser = positive_span, help_heading = "The row")]
    pub ttl: Option<Span>,
    /// The trust bundle [default: the settings' policies_dir]
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// Write without asking
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub door: DoorArgs,
}
