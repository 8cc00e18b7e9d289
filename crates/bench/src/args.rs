//! What is typed. Out: a plan.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::{Load, Plan, Scenario};

/// Measures a broker that it starts itself, over TLS connections that are kept open.
///
/// The closed loop (default) sends the next request when the last is answered. The open loop
/// (`--rate`) sends by the clock and counts latency from the moment a request was due, so a broker
/// that stalls cannot hide it.
#[derive(Debug, Parser)]
#[command(name = "dayfly-bench", version)]
pub struct Args {
    #[arg(value_enum)]
    pub what: What,
    /// One line of JSON
    #[arg(long)]
    pub json: bool,
    /// Operations to measure
    #[arg(long, default_value_t = 10_000)]
    pub n: usize,
    /// Operations before the clock starts
    #[arg(long, default_value_t = 500)]
    pub warm_up: usize,
    /// Connections that are kept open
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// Open loop: requests per second, by the clock
    #[arg(long)]
    pub rate: Option<f64>,
    /// How the caller is known
    #[arg(long, value_enum)]
    pub by: Option<By>,
    /// The broker's program [default: `dayfly` beside this one]
    #[arg(long)]
    pub broker: Option<PathBuf>,
    /// The broker's log filter
    #[arg(long, default_value = "info")]
    pub log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Evidence (RS256) for a task token (ES256), durable
    Exchange,
    /// Whether a token is live, asked by a known caller
    Introspect,
    /// The end of a lease, durable
    Revoke,
    /// Exchanges alone and under a flood of tokens with unknown key ids
    Flood,
    /// Policy alone, by the number of rows: loads and decisions, in this process
    Policy,
    /// A status list of 2^17 places, built and signed, in this process
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// revoke: whoever holds the token (RFC 7009; default)
    Token,
    /// revoke: the handle of its task (`/v1/leases/{id}/end`)
    Handle,
    /// introspect: a verifier's `client_assertion` (default)
    Assertion,
    /// introspect: the local operator, without TLS
    Socket,
}

impl Args {
    pub fn plan(&self) -> Result<Plan, String> {
        let scenario = match (self.what, self.by) {
            (What::Exchange | What::Flood, None) => Scenario::Exchange,
            (What::Introspect, None | Some(By::Assertion)) => Scenario::IntrospectByAssertion,
            (What::Introspect, Some(By::Socket)) => Scenario::IntrospectBySocket,
            (What::Revoke, None | Some(By::Token)) => Scenario::RevokeByToken,
            (What::Revoke, Some(By::Handle)) => Scenario::RevokeByHandle,
            (What::Policy | What::List, _) => return Err("that is measured without a broker".to_owned()),
            (what, Some(by)) => return Err(format!("`--by {by:?}` says nothing about {what:?}").to_lowercase()),
        };
        if self.n == 0 || self.connections == 0 {
            return Err("`--n` and `--connections` are at least 1".to_owned());
        }
        let load = match self.rate {
            None => Load::Closed { connections: self.connections },
            Some(_) if self.what == What::Flood => return Err("a flood is a closed loop".to_owned()),
            Some(rate) if rate.is_finite() && rate > 0.0 => Load::Open { connections: self.connections, rate },
            Some(_) => return Err("`--rate` is more than 0".to_owned()),
        };
        let (n, warm_up, log) = (self.n, self.warm_up, self.log.clone());
        Ok(Plan { scenario, load, n, warm_up, broker: self.broker()?, log })
    }

    fn broker(&self) -> Result<PathBuf, String> {
        if let Some(path) = &self.broker {
            return Ok(path.clone());
        }
        let own =
            std::env::current_exe().map_err(|error| format!("this program does not know where it is: {error}"))?;
        let beside = own.with_file_name("dayfly");
        match beside.exists() {
            true => Ok(beside),
            false => Err(format!(
                "there is no broker at `{}`; build one (`cargo build --release --workspace`) or name it with `--broker`",
                beside.display()
            )),
        }
    }
}
