//! What is typed. Out: a plan.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::{Load, Plan, Scenario};

const OPERATIONS: usize = 10_000;
/// Of one owner, or in memory.
const LEASES: usize = 100_000;
/// Certificates for one key.
const CERTIFICATES: usize = 1_000_000;

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
    /// Operations to measure; of `owner` and `memory`: live leases; of `crl`: its entries [default: 10000; `owner`
    /// and `memory` 100000, `serials` 1000000]
    #[arg(long)]
    pub n: Option<usize>,
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
    /// The end of a lease or a task, durable
    Revoke,
    /// A beat, a task for each connection
    Beat,
    /// The end of every live lease of one owner: effective, on the record, rows caught up
    Owner,
    /// What live leases take of the broker's memory, as issued and after a new start
    Memory,
    /// Exchanges alone and under a flood of tokens with unknown key ids
    Flood,
    /// Policy alone, by the number of rows: loads and decisions, in this process
    Policy,
    /// A status list of 2^17 places, built and signed, in this process
    List,
    /// Evidence (RS256) and a request (P-256) for a certificate, durable
    Certificate,
    /// The same beside `cfssl serve`, which signs the same requests
    Cfssl,
    /// Whether a live certificate is good, by OCSP over plain http
    Ocsp,
    /// A CRL, made anew with one more entry, in this process
    Crl,
    /// Certificates for one key: how many serial numbers; planned and signed in this process
    Serials,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// revoke: whoever holds the token (RFC 7009; default)
    Token,
    /// revoke: the handle of its task (`/v1/leases/{id}/end`); serials: each by a renewal with a broker, durable
    Handle,
    /// revoke: a whole task, by its handle (`/v1/tasks/{id}/end`)
    Task,
    /// introspect: a verifier's `client_assertion` (default)
    Assertion,
    /// introspect: the local operator, without TLS
    Socket,
    /// ocsp: a nonce in each request
    Nonce,
}

impl What {
    fn is_closed(self) -> bool {
        matches!(self, Self::Flood | Self::Owner | Self::Memory | Self::Cfssl | Self::Serials)
    }
}

impl Args {
    pub fn plan(&self) -> Result<Plan, String> {
        let scenario = match (self.what, self.by) {
            (What::Exchange | What::Flood | What::Owner | What::Memory, None) => Scenario::Exchange,
            (What::Beat, None) => Scenario::Beat,
            (What::Introspect, None | Some(By::Assertion)) => Scenario::IntrospectByAssertion,
            (What::Introspect, Some(By::Socket)) => Scenario::IntrospectBySocket,
            (What::Revoke, None | Some(By::Token)) => Scenario::RevokeByToken,
            (What::Revoke, Some(By::Handle)) => Scenario::RevokeByHandle,
            (What::Revoke, Some(By::Task)) => Scenario::RevokeTask,
            (What::Certificate | What::Cfssl, None) | (What::Serials, Some(By::Handle)) => Scenario::Certificate,
            (What::Ocsp, None) => Scenario::Ocsp,
            (What::Ocsp, Some(By::Nonce)) => Scenario::OcspWithNonce,
            (What::Policy | What::List | What::Crl, _) | (What::Serials, None) => {
                return Err("that is measured without a broker".to_owned());
            }
            (what, Some(by)) => return Err(format!("`--by {by:?}` says nothing about {what:?}").to_lowercase()),
        };
        if self.n() == 0 || self.connections == 0 {
            return Err("`--n` and `--connections` are at least 1".to_owned());
        }
        let load = match self.rate {
            None => Load::Closed { connections: self.connections },
            Some(_) if self.what.is_closed() => {
                return Err(format!("{:?} is a closed loop", self.what).to_lowercase());
            }
            Some(rate) if rate.is_finite() && rate > 0.0 => Load::Open { connections: self.connections, rate },
            Some(_) => return Err("`--rate` is more than 0".to_owned()),
        };
        let (n, warm_up, log) = (self.n(), self.warm_up, self.log.clone());
        Ok(Plan { scenario, load, n, warm_up, broker: self.broker()?, log })
    }

    /// What was asked for, or as much as the goal names.
    pub fn n(&self) -> usize {
        let usual = match self.what {
            What::Owner | What::Memory => LEASES,
            What::Serials => CERTIFICATES,
            _ => OPERATIONS,
        };
        self.n.unwrap_or(usual)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(typed: &str) -> Result<Plan, String> {
        let words = ["dayfly-bench", "--broker", "/bin/false"].into_iter().chain(typed.split(' '));
        Args::try_parse_from(words).map_err(|error| error.to_string())?.plan()
    }

    #[test]
    fn a_scenario_has_as_many_operations_as_its_goal_names() {
        for (typed, scenario, n) in [
            ("exchange", Scenario::Exchange, 10_000),
            ("beat", Scenario::Beat, 10_000),
            ("revoke --by task", Scenario::RevokeTask, 10_000),
            ("owner", Scenario::Exchange, 100_000),
            ("memory", Scenario::Exchange, 100_000),
            ("memory --n 7", Scenario::Exchange, 7),
            ("certificate", Scenario::Certificate, 10_000),
            ("cfssl", Scenario::Certificate, 10_000),
            ("ocsp", Scenario::Ocsp, 10_000),
            ("ocsp --by nonce", Scenario::OcspWithNonce, 10_000),
            ("serials --by handle", Scenario::Certificate, 1_000_000),
        ] {
            let plan = plan(typed).unwrap();
            assert_eq!((plan.scenario, plan.n), (scenario, n), "{typed}");
        }
    }

    #[test]
    fn what_says_nothing_about_a_scenario_is_refused() {
        for (typed, why) in [
            ("beat --by handle", "says nothing about beat"),
            ("owner --by socket", "says nothing about owner"),
            ("memory --by token", "says nothing about memory"),
            ("introspect --by task", "says nothing about introspect"),
            ("owner --rate 5", "owner is a closed loop"),
            ("memory --rate 5", "memory is a closed loop"),
            ("owner --n 0", "at least 1"),
            ("list", "without a broker"),
            ("crl", "without a broker"),
            ("certificate --by nonce", "says nothing about certificate"),
            ("serials --by handle --rate 5", "serials is a closed loop"),
            ("serials", "without a broker"),
            ("cfssl --rate 5", "cfssl is a closed loop"),
        ] {
            let refused = plan(typed).unwrap_err();
            assert!(refused.contains(why), "{typed}: {refused}");
        }
    }
}
