//! What can be typed: the tree of verbs and their options. Secrets are never values of options;
//! they are named by files, variables or stdin.

mod broker;
mod ca;
mod cert;
mod client;
mod doctor;
mod ending;
mod explain;
mod trust;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use broker::{
    DemoArgs, DevArgs, DevRunArgs, DevTokenArgs, DevVerb, LedgerVerifyArgs, PolicyCheckArgs, PolicyReplayArgs,
    PolicyShowArgs, PolicyUsageArgs, PolicyVerb, ServeArgs,
};
pub use ca::{CaExportArgs, CaImportArgs, CaInitArgs, CaListArgs, CaRotateArgs, CaVerb};
pub use cert::{CertArgs, Layout};
pub use client::{
    AskArgs, DoorArgs, EventId, ExecArgs, IssuerListArgs, IssuerRefreshArgs, IssuerVerb, KeyListArgs, KeyTaintArgs,
    KeyVerb, LeaseListArgs, LeaseVerb, LedgerShowArgs, LedgerVerb, PublishArgs, ShowLeaseArgs, ShowTaskArgs, SiftArgs,
    TaskEndArgs, TaskListArgs, TaskVerb, TokenArgs, When,
};
pub use doctor::DoctorArgs;
pub use ending::{BlockLiftArgs, BlockListArgs, BlockVerb, RevokeArgs, Revoked};
pub use explain::{ExplainArgs, Explained};
pub use trust::{TrustAddArgs, TrustVerb};

/// Short-lived credentials, each tied to one task, each ended with it
#[derive(Debug, Parser)]
#[command(name = "dayfly", version, propagate_version = true, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    pub style: StyleArgs,
    #[command(subcommand)]
    pub verb: Verb,
}

const AFTER_HELP: &str = "\
Start here:
  dayfly demo                                  the whole story on this machine, in one command
  dayfly exec --task deploy-prod -- make       in a CI job: a command, and a credential that ends with it
  dayfly lease ls                              on the broker's machine: what is live

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 not authenticated, 69 broker unavailable,
75 try later, 77 denied; of `exec` the command's own, 128 and the signal's number, 125 if it was not
started, 126 if it cannot be executed, 127 if it is not found";

/// How to talk, the same for every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct StyleArgs {
    /// How data is printed on stdout [default: table; variable: DAYFLY_OUTPUT]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub output: Option<Output>,
    /// How errors are printed on stderr
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub error_format: ErrorFormat,
    /// Colour on stderr; NO_COLOR and TERM=dumb switch it off
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Colour,
    /// Never ask anything
    #[arg(long, global = true)]
    pub no_input: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// One document with `schema_version`
    Json,
    /// One document a line
    Jsonl,
    /// Ids only, one a line
    Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ErrorFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the whole story on loopback: a job, its token, a check, the end
    Demo(DemoArgs),
    /// Keep a broker running for development, on loopback only
    Dev(DevArgs),
    /// Run the broker
    Serve(ServeArgs),
    /// Get a credential for one task
    #[command(long_about = TOKEN_ABOUT)]
    Token(TokenArgs),
    /// Run a command with a credential that ends with it
    #[command(long_about = EXEC_ABOUT)]
    Exec(Box<ExecArgs>),
    /// Get a certificate for one task, and keep it fresh
    #[command(long_about = CERT_ABOUT)]
    Cert(Box<CertArgs>),
    /// List, show and end tasks
    #[command(subcommand)]
    Task(TaskVerb),
    /// List and show leases: the credentials that were given
    #[command(subcommand)]
    Lease(LeaseVerb),
    /// End a lease, a whole task, or everything that matches, as an operator
    #[command(long_about = REVOKE_ABOUT)]
    Revoke(RevokeArgs),
    /// List and lift what ends by selector keep from being issued
    #[command(subcommand)]
    Block(BlockVerb),
    /// Say why a decision came out as it did, and what would change it
    #[command(long_about = EXPLAIN_ABOUT)]
    Explain(Box<ExplainArgs>),
    /// Check and show the trust bundle
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// Add to the trust bundle
    #[command(subcommand)]
    Trust(TrustVerb),
    /// Read and verify the ledger
    #[command(subcommand)]
    Ledger(LedgerVerb),
    /// Look at the keys that sign, and take one out
    #[command(subcommand)]
    Key(KeyVerb),
    /// Make and look after the authority that signs certificates
    #[command(subcommand)]
    Ca(CaVerb),
    /// Write keys, metadata and status lists as files for any web server or cache
    #[command(long_about = PUBLISH_ABOUT)]
    Publish(PublishArgs),
    /// Look at settings, clock, disk, keys, issuers, bundle and broker, and say what mends each
    Doctor(DoctorArgs),
    /// Look at the issuers whose tokens are evidence, and fetch their keys anew
    #[command(subcommand)]
    Issuer(IssuerVerb),
}

const TOKEN_ABOUT: &str = "\
Get a credential for one task.

Who you are is found by itself, in this order: --evidence-file, DAYFLY_ID_TOKEN or its _FILE, the
CI platform, Kubernetes, the cloud. A platform that is recognised but gives no token is an error
that says what the job needs; nothing else is tried then. `dayfly explain` shows what was found.

The first call opens the task and keeps its handle in FILE.task (or DAYFLY_TASK_FILE, or
--task-file), mode 0600. A later call with the same file renews with that handle and needs no
evidence; `dayfly task end` ends the task with it. Without a place to keep it, the handle is
thrown away and the task lives to its deadline.

With --hold it stays, as a sidecar for a shell:

  dayfly token --task deploy-prod --out token --hold &

The task is held by a beat every few seconds and the token renewed at half-life. It ends the task and
removes the files when it gets TERM, INT, HUP or QUIT, or when its parent process is gone; if it is
killed, the broker ends the task a little later.";

const EXEC_ABOUT: &str = "\
Run a command with a credential that ends with it.

Who you are is found as with `dayfly token`. The command finds its token in the file that
DAYFLY_TOKEN_FILE names: read it anew for each use, it is renewed in place at half-life. DAYFLY_TASK_FILE
names the task's handle, DAYFLY_LEASE the first lease, and DAYFLY_DPOP_KEY the key where the token is
bound to one. What the platform gave the job to mint identity tokens with is not passed on.

Signals are forwarded and the exit code is the command's. When it is done, its task is ended and the
files are removed. While it runs the task is held by a beat every few seconds: if this process is killed
or its machine vanishes, the broker ends the task a little later, and the credential is dead. Should it
be dead while the command still runs, that is told on stderr; the command is never killed for it.

Exit codes: the command's; 128 and the number of the signal that ended it; 125 if it was not started
(nobody was believed, the broker refused or is away); 126 if it cannot be executed, 127 if it is not
found, and nothing was asked then.";

const CERT_ABOUT: &str = "\
Get a certificate for one task, and keep it fresh.

Who you are is found as with `dayfly token`. The key is made here and never sent; the file holds it (PKCS#8)
with the certificate and what leads to the root, mode 0600, and is replaced whole. The task's handle is kept in
FILE.task, and a later call renews with it.

  dayfly cert --task orders-mtls --out /run/orders/tls.pem --watch --on-renew 'nginx -s reload'

With --watch it stays: it holds the task with a beat every few seconds, renews at half-life with a new key,
and opens the next task where this one's deadline comes, as long as something shows who you are. It ends the
task and removes the files when it gets TERM, INT, HUP or QUIT; if it is killed, the broker ends the task a
little later, and the certificate is revoked.

With --layout split the key is in FILE.key, the certificate with what leads to the root in FILE.crt, and the
roots that vouch for others in FILE.ca.";

const PUBLISH_ABOUT: &str = "\
Write what the broker says to everybody as files: its metadata, its public keys and its status lists, at the
same paths below DIR as below its URL. Any web server or cache can serve them, and tokens can be checked
while the broker is away: until the lists expire, no longer.

The lists are those of the caller: all on the broker's machine, over the network those of the targets
that its token may introspect. Each file is replaced whole. --watch says how much later than from the
broker an end is heard of.";

const REVOKE_ABOUT: &str = "\
End a lease, a whole task, or everything that matches, as an operator.

  dayfly revoke lse_...                                      one credential; its task lives on
  dayfly revoke tsk_...                                      a task and everything it was given
  dayfly revoke --where 'repository_id == \"88120\"' --reason TEXT   everything of a repository

`--where` takes job, workload, owner, issuer, target, row and template, and the claims that the bundle's
profiles call revocable (`claim.NAME` where a claim has one of these names), joined by `&&`. Values are
compared whole. What would end is counted and shown, and then asked for; without a terminal say how many
with --confirm N, as --dry-run counts them. It also blocks the same until `dayfly block lift`, unless
--no-block.";

const EXPLAIN_ABOUT: &str = "\
Say why a decision came out as it did, and what would change it. Changes nothing.

  dayfly explain evt_...                         a decision on the record, under the bundle it was made with
  dayfly explain lse_...                         which row permitted a lease, and by which claims
  dayfly explain --evidence-file F --task NAME   a token: what the broker would answer to it
  dayfly explain --claims F --task NAME          the claims of a token, as JSON, without a token
  dayfly explain                                 who this job is: each probe, and why it fired or not

The broker is asked as an operator asks it: its socket, or DAYFLY_ADDR with a token for the broker.
With --policies DIR no broker is asked; the signature of a token is then NOT checked.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_that_is_built_is_there() {
        for line in [
            "dayfly demo",
            "dayfly dev",
            "dayfly dev --state d --listen 127.0.0.1:8443 --policies p --as github",
            "dayfly dev token --state d --as github --claims c.json --without jti --without ref",
            "dayfly serve --check --config f",
            "dayfly token --task deploy-prod --target https://t.example --action a:b --action c:d --ttl 5m --ticket T-1",
            "dayfly token --task deploy-prod --out F --evidence-file - --addr https://b.example --output json",
            "dayfly token --task deploy-prod --out F --hold",
            "dayfly exec --task deploy-prod --target https://t.example --action a:b --ttl 5m --ticket T-1 -- make -j4 deploy",
            "dayfly exec --evidence-file - --addr https://b.example --dpop-key k --on-renew x --keep-env A -- make",
            "dayfly cert --task orders-mtls --out F",
            "dayfly cert --task orders-mtls --out F --watch --on-renew x --layout split --ttl 5m --dpop-key k --task-file h",
            "dayfly task ls --state active --owner o --limit 7",
            "dayfly task show tsk_0000000000g000000000000000",
            "dayfly task end --dry-run",
            "dayfly lease ls --kind jwt --expires-before 15m",
            "dayfly lease show lse_0000000000g000000000000000",
            "dayfly revoke tsk_0000000000g000000000000000 --reason x --no-block --dry-run",
            "dayfly policy check --policies p",
            "dayfly policy show deploy-prod --policies p",
            "dayfly policy show --schema",
            "dayfly policy replay --since 7d --policies p --strict",
            "dayfly policy usage --unused-for 30d --template deploy-prod --addr https://b.example",
            "dayfly trust add github acme/shop --task t --owner-id 1 --repository-id 2 --ref refs/heads/main --dry-run",
            "dayfly trust add --from evt_0000000000g000000000000000 --state d --yes",
            "dayfly ledger show evt_0000000000g000000000000000",
            "dayfly ledger show --since 1h --until 2026-11-22T05:00:00Z",
            "dayfly ledger verify --state d",
            "dayfly key ls --state d --output jsonl",
            "dayfly publish /srv/dayfly --state d",
            "dayfly publish /srv/dayfly --watch --every 2s --addr https://b.example",
            "dayfly doctor --config f --state d --policies p --offline --output json",
            "dayfly explain",
            "dayfly explain evt_0000000000g000000000000000 --state d",
            "dayfly explain lse_0000000000g000000000000000 --output json",
            "dayfly explain --claims c.json --task deploy-prod --target https://t.example --policies p --issuer github",
            "dayfly explain --evidence-file - --task deploy-prod --action a:b --ttl 5m --binding bearer",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "dayfly",
            "dayfly dev token",
            "dayfly token --task Deploy",
            "dayfly token --task t --ttl 0s",
            "dayfly token --task t --ttl 5",
            "dayfly token --task t --evidence x",
            "dayfly task ls --limit 0",
            "dayfly task ls --kind jwt",
            "dayfly task ls --addr https://b.example --state-dir d",
            "dayfly lease show tsk_0000000000g000000000000000",
            "dayfly revoke evt_0000000000g000000000000000",
            "dayfly revoke tsk_0000000000g000000000000000 --block --no-block",
            "dayfly policy show",
            "dayfly policy show --schema deploy",
            "dayfly ledger show evt_0000000000g000000000000000 --since 1h",
            "dayfly trust add github acme/shop",
            "dayfly trust add --task t",
            "dayfly trust add jenkins acme/shop --task t",
            "dayfly trust add github acme/shop --task t --untrusted",
            "dayfly trust add github acme/shop --task t --yes --dry-run",
            "dayfly ledger show --since yesterday",
            "dayfly explain tsk_0000000000g000000000000000",
            "dayfly explain evt_0000000000g000000000000000 --claims c.json",
            "dayfly explain evt_0000000000g000000000000000 --task deploy-prod",
            "dayfly explain --claims c.json --evidence-file e",
            "dayfly exec",
            "dayfly exec --task t make",
            "dayfly exec --task t --",
            "dayfly exec --task t --out F -- make",
            "dayfly cert --task t",
            "dayfly cert --task t --out F --layout both",
            "dayfly publish",
            "dayfly publish d --every 2s",
            "dayfly publish d --watch --every 0s",
            "dayfly publish d --watch --every 2h",
        ] {
            let error = parse(line).err().unwrap_or_else(|| panic!("`{line}` was taken"));
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn no_option_takes_a_secret_as_its_value() {
        fn walk(command: &clap::Command) {
            for arg in command.get_arguments() {
                let name = arg.get_long().unwrap_or_default();
                assert!(!["token", "evidence", "handle", "password", "secret", "key"].contains(&name), "--{name}");
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
