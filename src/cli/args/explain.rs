//! Options of `dayfly explain`.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use dayfly_domain::{BindingKind, EventId, LeaseId, Name, Span};

use super::client::{DoorArgs, positive_span};

/// `dayfly explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// A decision: `evt_...`, or `lse_...` for the one that a lease came of
    #[arg(value_name = "EVT|LSE", conflicts_with_all = ["claims", "evidence_file", "task", "target", "actions", "ttl", "binding", "issuer", "policies"])]
    pub id: Option<Explained>,
    /// A token's claims, one JSON object; `-` for stdin
    #[arg(long, value_name = "FILE", conflicts_with = "evidence_file")]
    pub claims: Option<PathBuf>,
    /// A platform's identity token, `-` for stdin
    #[arg(long, value_name = "FILE")]
    pub evidence_file: Option<PathBuf>,
    /// The template that would be run [variable: DAYFLY_TASK]
    #[arg(long, value_name = "NAME")]
    pub task: Option<Name>,
    /// The resource server, where the template has several
    #[arg(long, value_name = "URI")]
    pub target: Option<String>,
    /// Only this action; may be repeated [default: all that the template grants]
    #[arg(long = "action", value_name = "ACTION")]
    pub actions: Vec<String>,
    /// As if it were asked to live so long, as in `5m`
    #[arg(long, value_name = "DURATION", value_parser = positive_span)]
    pub ttl: Option<Span>,
    /// As if this were proven: `bearer`, `dpop` or `mtls` [default: what the target wants]
    #[arg(long, value_name = "KIND")]
    pub binding: Option<BindingKind>,
    /// Whose claims they are [default: the issuer whose URL is their `iss`]
    #[arg(long, value_name = "NAME", requires = "claims")]
    pub issuer: Option<Name>,
    /// Ask no broker: explain under this bundle. The signature of a token is not checked
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    #[command(flatten)]
    pub door: DoorArgs,
}

/// What the broker's record can explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explained {
    Event(EventId),
    Lease(LeaseId),
}

impl FromStr for Explained {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let event = text.parse().map(Self::Event);
        event
            .or_else(|_| text.parse().map(Self::Lease))
            .map_err(|_| "expected `evt_` or `lse_` and 26 lower-case characters".to_owned())
    }
}
