//! Options of the verbs that talk to a broker.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Args, Subcommand};
use dayfly_domain::{Kind, LeaseId, Name, Span, State, TaskId, UnixMs};

use super::{super::table::quoted, LedgerVerifyArgs};
pub use dayfly_domain::EventId;

/// Which broker. An option beats a variable; a variable beats the settings.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which broker")]
pub struct DoorArgs {
    /// The broker's URL [variable: DAYFLY_ADDR; its CA: DAYFLY_CA]
    #[arg(long, value_name = "URL")]
    pub addr: Option<String>,
    /// The broker's state folder on this machine, with its socket [default: the settings' state_dir]
    #[arg(long, value_name = "DIR", conflicts_with = "addr")]
    pub state: Option<PathBuf>,
    /// The settings that name the state folder
    #[arg(long, value_name = "FILE", conflicts_with_all = ["addr", "state"])]
    pub config: Option<PathBuf>,
    /// The key that the token or handle is bound to, PKCS#8 PEM (DPoP, RFC 9449); `dayfly token` makes it
    /// [variable: DAYFLY_DPOP_KEY]
    #[arg(long, value_name = "FILE")]
    pub dpop_key: Option<PathBuf>,
}

/// What is asked for, and who asks: the same for every verb that gets a credential.
#[derive(Debug, Clone, Args)]
pub struct AskArgs {
    /// The template to run [variable: DAYFLY_TASK]
    #[arg(long, value_name = "NAME")]
    pub task: Option<Name>,
    /// The resource server, where the template has several
    #[arg(long, value_name = "URI")]
    pub target: Option<String>,
    /// Only this action; may be repeated [default: all that the template grants]
    #[arg(long = "action", value_name = "ACTION")]
    pub actions: Vec<String>,
    /// Live no longer than this, as in `5m`
    #[arg(long, value_name = "DURATION", value_parser = positive_span)]
    pub ttl: Option<Span>,
    /// A reference for people, kept with the task; fixed when it opens
    #[arg(long, value_name = "TEXT")]
    pub ticket: Option<String>,
    /// The platform's identity token, `-` for stdin
    #[arg(long, value_name = "FILE")]
    pub evidence_file: Option<PathBuf>,
}

impl DoorArgs {
    /// The same options again, for a shell; each begins with a space.
    pub fn typed(&self) -> String {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let Self { addr, state, config, dpop_key } = self;
        let given = [
            ("--addr", addr.clone()),
            ("--state", path(state)),
            ("--config", path(config)),
            ("--dpop-key", path(dpop_key)),
        ];
        let typed = |(name, value): (&str, Option<String>)| value.map(|value| format!(" {name} {}", quoted(&value)));
        given.into_iter().filter_map(typed).collect()
    }
}

/// `dayfly token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    #[command(flatten)]
    pub ask: AskArgs,
    /// Write the token here, mode 0600, and the handle beside it [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Keep the task's handle here [variable: DAYFLY_TASK_FILE; default: FILE.task of --out]
    #[arg(long, value_name = "FILE")]
    pub task_file: Option<PathBuf>,
    /// Stay, and hold the task: beat, renew at half-life, and end it at a signal or when the parent
    /// process is gone
    #[arg(long)]
    pub hold: bool,
    #[command(flatten)]
    pub door: DoorArgs,
}

/// `dayfly exec`.
#[derive(Debug, Clone, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    pub ask: AskArgs,
    /// Run this with `/bin/sh -c` whenever the token in the file is a new one
    #[arg(long, value_name = "COMMAND")]
    pub on_renew: Option<OsString>,
    /// Pass this variable on, though it holds or mints identity tokens; may be repeated
    #[arg(long, value_name = "NAME")]
    pub keep_env: Vec<String>,
    #[command(flatten)]
    pub door: DoorArgs,
    /// What to run, and its arguments
    #[arg(last = true, required = true, num_args = 1.., value_name = "CMD")]
    pub command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub enum TaskVerb {
    /// List tasks, newest first
    Ls(TaskListArgs),
    /// Show one task
    Show(ShowTaskArgs),
    /// End a task and everything it was given
    #[command(long_about = END_ABOUT)]
    End(TaskEndArgs),
}

const END_ABOUT: &str = "\
End a task and everything it was given.

With a handle (--task-file or DAYFLY_TASK_FILE) it ends its own task, and the id may be left out.
Otherwise it is the act of an operator, which also blocks the job from opening the same task again
until its deadline; `dayfly revoke --no-block` does not.";

#[derive(Debug, Subcommand)]
pub enum LeaseVerb {
    /// List leases, newest first
    Ls(Box<LeaseListArgs>),
    /// Show one lease
    Show(ShowLeaseArgs),
}

#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// List the keys that sign task tokens: which signs now, which is next, which are retired or tainted
    Ls(KeyListArgs),
    /// Take a key out for ever, because somebody else may have it, and end what it signed
    #[command(long_about = TAINT_ABOUT)]
    Taint(KeyTaintArgs),
}

const TAINT_ABOUT: &str = "\
Take a key out for ever, because somebody else may have it, and end what it signed.

It leaves the JWKS at once and signs nothing more; the next key takes its place, and every credential that
it had signed ends. This cannot be undone. Whoever has the key can forge credentials for any target until
its servers have fetched the JWKS anew: what is printed says until when, at worst.

Asks before it does it; without a terminal it wants --confirm. `--dry-run` only shows what would happen.
";

/// `dayfly key taint`.
#[derive(Debug, Clone, Args)]
pub struct KeyTaintArgs {
    /// As `dayfly key ls` shows it
    #[arg(allow_hyphen_values = true, value_parser = kid)]
    pub kid: String,
    /// Why, for the ledger
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Do it without asking
    #[arg(long)]
    pub confirm: bool,
    /// Show what would happen, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub door: DoorArgs,
}

/// `dayfly key ls`.
#[derive(Debug, Clone, Args)]
pub struct KeyListArgs {
    #[command(flatten)]
    pub door: DoorArgs,
}

/// `dayfly publish`.
#[derive(Debug, Clone, Args)]
pub struct PublishArgs {
    /// The folder that stands for the broker's URL; it is made if it is not there. Lists in it that the
    /// broker has no more are removed, so it is one caller's alone
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Go on until ended, writing what has changed
    #[arg(long)]
    pub watch: bool,
    /// How often to look, from `1s` to `1h`
    #[arg(long, value_name = "DURATION", requires = "watch", default_value = "5s", value_parser = watch_span)]
    pub every: Span,
    #[command(flatten)]
    pub door: DoorArgs,
}

#[derive(Debug, Subcommand)]
pub enum IssuerVerb {
    /// List the issuers of the bundle, and how their keys are
    Ls(IssuerListArgs),
    /// Fetch an issuer's keys now: a key that was taken out opens nothing from then on
    Refresh(IssuerRefreshArgs),
}

/// `dayfly issuer ls`.
#[derive(Debug, Clone, Args)]
pub struct IssuerListArgs {
    #[command(flatten)]
    pub door: DoorArgs,
}

/// `dayfly issuer refresh`.
#[derive(Debug, Clone, Args)]
pub struct IssuerRefreshArgs {
    /// As the bundle names it, `[issuer.NAME]`
    pub name: Name,
    #[command(flatten)]
    pub door: DoorArgs,
}

#[derive(Debug, Subcommand)]
pub enum LedgerVerb {
    /// List events, newest first, or show one
    Show(Box<LedgerShowArgs>),
    /// Check every event against its hash and the whole against its record, on this machine
    Verify(LedgerVerifyArgs),
}

/// What tasks and leases can be sifted by.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Only those")]
pub struct SiftArgs {
    /// In this state: `active`, `ended` or `expired`. Any other value is the broker's state folder,
    /// as with the other verbs; may be given once for each
    #[arg(long, value_name = "STATE|DIR", conflicts_with = "state_dir")]
    pub state: Vec<StateOrDir>,
    /// The broker's state folder, whatever its name
    #[arg(long, value_name = "DIR", conflicts_with = "addr", hide = true)]
    pub state_dir: Option<PathBuf>,
    /// With this job label
    #[arg(long)]
    pub job: Option<String>,
    /// Of this workload
    #[arg(long)]
    pub workload: Option<String>,
    /// Of this owner
    #[arg(long)]
    pub owner: Option<String>,
    /// Opened with evidence of this issuer
    #[arg(long)]
    pub issuer: Option<String>,
    /// Of this template
    #[arg(long)]
    pub template: Option<String>,
    /// For this target, by its name
    #[arg(long)]
    pub target: Option<String>,
    /// Over by then: a time (RFC 3339), or from now (`15m`)
    #[arg(long, value_name = "WHEN")]
    pub expires_before: Option<When>,
    /// At most so many
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// The broker's URL [variable: DAYFLY_ADDR; its CA: DAYFLY_CA]
    #[arg(long, value_name = "URL")]
    pub addr: Option<String>,
    /// The settings that name the state folder
    #[arg(long, value_name = "FILE", conflicts_with = "addr")]
    pub config: Option<PathBuf>,
    /// The key that the token or handle is bound to, PKCS#8 PEM (DPoP, RFC 9449); `dayfly token` makes it
    /// [variable: DAYFLY_DPOP_KEY]
    #[arg(long, value_name = "FILE")]
    pub dpop_key: Option<PathBuf>,
}

/// `dayfly task ls`.
#[derive(Debug, Clone, Args)]
pub struct TaskListArgs {
    #[command(flatten)]
    pub sift: SiftArgs,
}

/// `dayfly lease ls`.
#[derive(Debug, Clone, Args)]
pub struct LeaseListArgs {
    /// Of this task
    #[arg(long, value_name = "ID")]
    pub task: Option<TaskId>,
    /// Of this form: `jwt` or `x509`
    #[arg(long)]
    pub kind: Option<Kind>,
    #[command(flatten)]
    pub sift: SiftArgs,
}

/// `dayfly task show`.
#[derive(Debug, Clone, Args)]
pub struct ShowTaskArgs {
    /// `tsk_...`
    pub id: TaskId,
    #[command(flatten)]
    pub door: DoorArgs,
}

/// `dayfly lease show`.
#[derive(Debug, Clone, Args)]
pub struct ShowLeaseArgs {
    /// `lse_...`
    pub id: LeaseId,
    #[command(flatten)]
    pub door: DoorArgs,
}

/// `dayfly task end`.
#[derive(Debug, Clone, Args)]
pub struct TaskEndArgs {
    /// `tsk_...` [default: the handle's own task]
    pub id: Option<TaskId>,
    /// Why, for the ledger
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The file that `dayfly token` keeps the handle in [variable: DAYFLY_TASK_FILE]
    #[arg(long, value_name = "FILE")]
    pub task_file: Option<PathBuf>,
    /// Show what would end, and end nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub door: DoorArgs,
}

/// `dayfly ledger show`.
#[derive(Debug, Clone, Args)]
pub struct LedgerShowArgs {
    /// One event, `evt_...`; a decision's id is the id of its event
    #[arg(value_name = "EVT", conflicts_with_all = ["task", "lease", "since", "until"])]
    pub id: Option<EventId>,
    /// About this task
    #[arg(long, value_name = "ID")]
    pub task: Option<TaskId>,
    /// About this lease
    #[arg(long, value_name = "ID")]
    pub lease: Option<LeaseId>,
    /// From then on: a time (RFC 3339), or so long ago (`1h`)
    #[arg(long, value_name = "WHEN")]
    pub since: Option<When>,
    /// Up to then
    #[arg(long, value_name = "WHEN")]
    pub until: Option<When>,
    /// At most so many
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    #[command(flatten)]
    pub door: DoorArgs,
}

/// A value of `--state` where lists are sifted by state: a state's word, or else a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateOrDir {
    Is(State),
    Dir(PathBuf),
}

impl FromStr for StateOrDir {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected a state or a folder".to_owned());
        }
        Ok(text.parse().map_or_else(|_| Self::Dir(text.into()), Self::Is))
    }
}

/// A moment: given as such, or as a distance from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    At(UnixMs),
    Distance(Span),
}

impl When {
    /// A distance counts into the future.
    pub fn ahead(self, now: UnixMs) -> UnixMs {
        match self {
            Self::At(at) => at,
            Self::Distance(span) => now.plus_ms(span.as_ms()),
        }
    }

    /// A distance counts into the past.
    pub fn ago(self, now: UnixMs) -> UnixMs {
        match self {
            Self::At(at) => at,
            Self::Distance(span) => now.plus_ms(-span.as_ms()),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = text.parse().map(Self::Distance).ok();
        span.or_else(|| UnixMs::parse(text).map(Self::At))
            .ok_or_else(|| "expected a time as `2026-11-22T05:00:00Z`, or a duration as `1h`".to_owned())
    }
}

impl SiftArgs {
    /// The state asked for, if one is.
    pub fn wanted_state(&self) -> Result<Option<State>, &'static str> {
        let mut states = self.state.iter().filter_map(|value| match value {
            StateOrDir::Is(state) => Some(*state),
            StateOrDir::Dir(_) => None,
        });
        let first = states.next();
        if states.next().is_some() { Err("`--state` names two states") } else { Ok(first) }
    }

    /// The door, with the folder that `--state` or `--state-dir` names.
    pub fn door(&self) -> Result<DoorArgs, &'static str> {
        let mut dirs = self.state.iter().filter_map(|value| match value {
            StateOrDir::Dir(dir) => Some(dir.clone()),
            StateOrDir::Is(_) => None,
        });
        let state = self.state_dir.clone().or_else(|| dirs.next());
        if dirs.next().is_some() {
            return Err("`--state` names two folders");
        }
        if state.is_some() && (self.addr.is_some() || self.config.is_some()) {
            return Err("a state folder cannot be used with `--addr` or `--config`");
        }
        let (addr, config, dpop_key) = (self.addr.clone(), self.config.clone(), self.dpop_key.clone());
        Ok(DoorArgs { addr, state, config, dpop_key })
    }
}

impl TokenArgs {
    /// The file of `--out`; `-` is stdout, as is no file.
    pub fn out_file(&self) -> Option<&Path> {
        self.out.as_deref().filter(|file| *file != Path::new("-"))
    }
}

fn watch_span(text: &str) -> Result<Span, String> {
    let span = positive_span(text)?;
    if span.as_s() > 3600 { Err("at most one hour".to_owned()) } else { Ok(span) }
}

/// The alphabet of a thumbprint; what is none is no part of a path either.
fn kid(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match text.len() {
        1..=128 if text.bytes().all(letter) => Ok(text.to_owned()),
        _ => Err("expected a key's id, as `dayfly key ls` shows it".to_owned()),
    }
}

pub(super) fn positive_span(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error: dayfly_domain::SpanError| error.to_string())?;
    if span.as_s() == 0 { Err("at least one second".to_owned()) } else { Ok(span) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Verb};

    fn sift(line: &str) -> SiftArgs {
        match Cli::try_parse_from(line.split_whitespace()).unwrap().verb {
            Verb::Task(TaskVerb::Ls(args)) => args.sift,
            Verb::Lease(LeaseVerb::Ls(args)) => args.sift,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn state_is_a_word_or_a_folder() {
        let args = sift("dayfly lease ls --state active --state /run/dayfly");
        assert_eq!(args.wanted_state(), Ok(Some(State::Active)));
        assert_eq!(args.door().unwrap().state, Some("/run/dayfly".into()));
        let args = sift("dayfly task ls --state ./active");
        assert_eq!((args.wanted_state(), args.door().unwrap().state), (Ok(None), Some("./active".into())));
    }

    #[test]
    fn two_states_two_folders_or_two_brokers_are_refused() {
        assert!(sift("dayfly task ls --state active --state ended").wanted_state().is_err());
        assert!(sift("dayfly task ls --state a --state b").door().is_err());
        assert!(sift("dayfly task ls --state a --addr https://b.example").door().is_err());
    }

    #[test]
    fn moments_count_from_now_both_ways() {
        let now = UnixMs::from_s(10_000);
        let hour: When = "1h".parse().unwrap();
        assert_eq!((hour.ago(now), hour.ahead(now)), (UnixMs::from_s(6_400), UnixMs::from_s(13_600)));
        let fixed: When = "1970-01-01T00:00:05Z".parse().unwrap();
        assert_eq!((fixed.ago(now), fixed.ahead(now)), (UnixMs::from_s(5), UnixMs::from_s(5)));
    }
}
