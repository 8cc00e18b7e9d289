//! `dayfly exec`: a command with a credential that ends with it (cli.md section 3). In: what to ask for
//! and what to run. Out: the command's own exit code, with its stdin, stdout and signals untouched.
//!
//! This process stays the parent. It asks before it starts anything, holds the task with beats while
//! the command runs, renews its files at half-life, and ends the task when it is done. It never kills.

mod child;
pub mod end;
mod files;
pub mod hold;
mod hook;
pub mod renew;
mod signals;

use std::{ffi::OsString, fs::File, path::Path, process::ExitStatus, time::Duration};

use dayfly_domain::{Reason, Secret};
use rustix::process::{DumpableBehavior, Pid, Signal, set_dumpable_behavior};
use tokio::time::Instant;

use self::{
    child::{Place, Program},
    files::Folder,
    hold::{Beaten, Hold},
    renew::Renewal,
};
pub use self::{
    child::{Told, session_step},
    hook::{HOOK, Hook},
    signals::{Heard, Signals},
};
use super::{
    api::Api,
    args::ExecArgs,
    door::Door,
    failure::{BY_SIGNAL, ExecExit, Failure},
    identity, proof,
    session::Session,
    token::{
        self, Granted, deliver,
        exchange::{self, Ask},
        handle::Handle,
    },
};
use crate::http::shapes::TokenAnswer;

pub async fn run(args: &ExecArgs, session: &Session) -> Result<(), Failure> {
    let path = session.vars.get("PATH");
    let (name, rest) = args.command.split_first().ok_or_else(|| Failure::usage("no command is named"))?;
    let program = Program::find(name, path.as_deref())?;
    match Job::begin(args, session).await.map_err(not_started)? {
        Begun::Stopped(signal) => Err(interrupted(signal)),
        Begun::Job(job) => {
            let code = job.run(&program, rest, args.on_renew.as_ref()).await?;
            if code == 0 { Ok(()) } else { Err(Failure::silent(code)) }
        }
    }
}

/// A task with its credential in files, and whoever waits for its command.
struct Job<'a> {
    session: &'a Session,
    signals: Signals,
    folder: Folder,
    door: Door,
    ask: Ask,
    granted: Granted,
    told: Told,
    began: Instant,
}

enum Begun<'a> {
    Job(Box<Job<'a>>),
    /// Before there was a command.
    Stopped(Signal),
}

impl<'a> Job<'a> {
    /// Listens to signals, and then asks: nothing is lost between the two.
    async fn begin(args: &ExecArgs, session: &'a Session) -> Result<Begun<'a>, Failure> {
        // What this process was given to mint tokens with stands in its own memory: its command, and
        // whoever else runs as this user, may not look there. Where that cannot be had, nothing is lost.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let signals = Signals::listen();
        let mut signals = signals.map_err(|error| Failure::failed("signals cannot be listened to").because(error))?;
        let ask = token::ask(&args.ask, session)?;
        let folder = Folder::make(&session.vars)?;
        let mut door = Door::find(&args.door, &session.vars)?;
        door.dpop_key.as_deref().map(proof::make_if_absent).transpose()?;
        let (handle, began) = (Handle::make()?, Instant::now());
        folder.put_handle(&handle)?;
        let asked = Box::pin(opened(&mut door, &ask, args, &handle, &folder, session));
        let opened = tokio::select! {
            opened = asked => opened,
            signal = signals.stop() => Err(NotOpened { why: Err(signal), task_may_exist: true }),
        };
        let answer = match opened {
            Ok(answer) => answer,
            Err(NotOpened { why, task_may_exist }) => {
                if task_may_exist {
                    let api = handle_api(&door, &handle, end::TRY, session)?;
                    end::end_unseen(&api, began.elapsed(), session.screen).await;
                }
                return why.map_or_else(|signal| Ok(Begun::Stopped(signal)), Err);
            }
        };
        folder.put_token(&answer)?;
        session.screen.say(&deliver::summary(&answer, &ask.template));
        let told = told(&folder, &door, &answer, args, session)?;
        let granted = Granted { answer, handle };
        Ok(Begun::Job(Box::new(Self { session, signals, folder, door, ask, granted, told, began })))
    }

    /// The command from its start to its end, and then the end of its task.
    async fn run(mut self, program: &Program, args: &[OsString], hook: Option<&OsString>) -> Result<u8, Failure> {
        let done = self.accompanied(program, args, hook).await;
        let api = self.api(end::TRY)?;
        let screen = self.session.screen;
        end::end(&api, self.granted.answer.task_id, self.began.elapsed(), screen).await;
        if let Err(failure) = self.folder.remove() {
            screen.warn(&failure.text("the job's files").replace('\n', "; "));
        }
        match done {
            Ok(Done::Code(code)) => Ok(code),
            Ok(Done::Stopped(signal)) => Err(interrupted(signal)),
            Err(failure) => Err(not_started(failure)),
        }
    }

    async fn accompanied(
        &mut self,
        program: &Program,
        args: &[OsString],
        hook: Option<&OsString>,
    ) -> Result<Done, Failure> {
        let (beats, renewals) = (self.api(hold::TRY)?, self.door.api(&self.session.vars, None)?.within(renew::TRY));
        let screen = self.session.screen;
        let hold = Hold::new(&beats, self.granted.answer.task_id, screen);
        // Before the command is there, so that there is no moment in which nobody would end its task.
        let first = tokio::select! {
            first = hold.beat() => first,
            signal = self.signals.stop() => return Ok(Done::Stopped(signal)),
        };
        if first == Beaten::Over {
            return Err(Failure::failed("the task was over before the command was started"));
        }
        let Granted { answer, handle } = &self.granted;
        let renewal = Renewal { api: &renewals, ask: &self.ask, handle, screen };
        let hook = Hook::new(hook, &self.told);
        let put = |answer: &TokenAnswer| {
            self.folder.put_token(answer)?;
            hook.run_or_warn(screen);
            Ok(())
        };
        let mut kept = Box::pin(async {
            tokio::select! {
                () = hold.keep(first) => {}
                () = async { renewal.keep(answer, put).await; std::future::pending().await } => {}
            }
            std::future::pending().await
        });
        let terminal = child::terminal();
        let place = if terminal.is_some() { Place::Shared } else { Place::Own };
        let child = program.start(args, &self.told, place)?;
        loop {
            let heard = tokio::select! {
                heard = self.signals.next() => heard,
                () = &mut kept => continue,
                never = hook.bounded(screen) => never,
            };
            if let Some(status) = attended(heard, child, place, terminal.as_ref(), &hook, screen) {
                hook.stop();
                return Ok(Done::Code(child::exit_code(status)));
            }
        }
    }

    fn api(&self, within: Duration) -> Result<Api, Failure> {
        handle_api(&self.door, &self.granted.handle, within, self.session)
    }
}

/// How it came out.
enum Done {
    Code(u8),
    Stopped(Signal),
}

/// Passes a signal on, or looks who is done. How the command ended, once it has.
fn attended(
    heard: Heard,
    child: Pid,
    place: Place,
    terminal: Option<&File>,
    hook: &Hook<'_>,
    screen: super::session::Screen,
) -> Option<ExitStatus> {
    if let Heard::Signal(signal) = heard {
        signals::forward(signal, child, place, terminal);
        return None;
    }
    let mut ended = None;
    for (pid, status) in signals::reap() {
        if pid == child {
            ended = Some(status);
        } else {
            hook.done(pid, status, screen);
        }
    }
    ended
}

/// No credential: a failure, or the signal that came first.
struct NotOpened {
    why: Result<Failure, Signal>,
    task_may_exist: bool,
}

impl From<Failure> for NotOpened {
    fn from(failure: Failure) -> Self {
        Self { why: Ok(failure), task_may_exist: false }
    }
}

/// Opens a task with what shows who we are. A target that wants a key of a job that brought none gets
/// one that is made for this job.
async fn opened(
    door: &mut Door,
    ask: &Ask,
    args: &ExecArgs,
    handle: &Handle,
    folder: &Folder,
    session: &Session,
) -> Result<TokenAnswer, NotOpened> {
    let api = door.api(&session.vars, None)?;
    let evidence = token::evidence(door, &api, &args.ask, session).await.map_err(|failure| nested(failure, session))?;
    let mut opened = exchange::open(&api, ask, &evidence.token, handle).await;
    let wants_key =
        |failed: &exchange::NotOpened| failed.error.reason() == Some(Reason::Dpop) && !failed.task_may_exist;
    if door.dpop_key.is_none() && opened.as_ref().is_err_and(wants_key) {
        proof::make_if_absent(&folder.key())?;
        door.dpop_key = Some(folder.key());
        opened = exchange::open(&door.api(&session.vars, None)?, ask, &evidence.token, handle).await;
    }
    opened.map_err(|failed| {
        let failure = failed.error.failure("no credential was issued");
        let failure = token::explained(failure, &ask.template, args.ask.evidence_file.as_deref());
        NotOpened { why: Ok(failure), task_may_exist: failed.task_may_exist }
    })
}

/// Inside of another `exec` nothing says who we are any more, and that is meant.
fn nested(failure: Failure, session: &Session) -> Failure {
    if session.vars.get("DAYFLY_LEASE").is_none() || failure.parts().code.is_some() {
        return failure;
    }
    failure.because("this runs inside of `dayfly exec`, which passes nothing on that proves who its job is").help(
        "give this one evidence of its own with --evidence-file, or use the credential that is here: DAYFLY_TOKEN_FILE",
    )
}

/// The variables of the command.
fn told(
    folder: &Folder,
    door: &Door,
    answer: &TokenAnswer,
    args: &ExecArgs,
    session: &Session,
) -> Result<Told, Failure> {
    let mut set = vec![
        ("DAYFLY_TOKEN_FILE", folder.token().into_os_string()),
        ("DAYFLY_TASK_FILE", folder.handle().into_os_string()),
    ];
    set.extend(answer.lease_id.map(|id| ("DAYFLY_LEASE", id.to_string().into())));
    set.extend(door.dpop_key.as_deref().map(absolute).transpose()?.map(|file| ("DAYFLY_DPOP_KEY", file)));
    let mut without = identity::minting(door.audience(), &session.vars);
    without.retain(|name| !args.keep_env.contains(name));
    Ok(Told { set, without })
}

/// For a command that goes to another folder.
fn absolute(file: &Path) -> Result<OsString, Failure> {
    let absolute = std::path::absolute(file);
    absolute.map(Into::into).map_err(|error| Failure::failed("the key's file has no path").because(error))
}

/// As the holder of this handle, and with its key.
pub fn handle_api(door: &Door, handle: &Handle, within: Duration, session: &Session) -> Result<Api, Failure> {
    let bearer = Secret::new(handle.expose().to_owned());
    Ok(door.api(&session.vars, Some(bearer))?.within(within))
}

fn not_started(failure: Failure) -> Failure {
    let exit = failure.exit();
    let told = [ExecExit::NotExecutable as u8, ExecExit::NotFound as u8].contains(&exit);
    if told { failure } else { failure.exiting(ExecExit::NotStarted as u8) }
}

fn interrupted(signal: Signal) -> Failure {
    let exit = BY_SIGNAL.saturating_add(u8::try_from(signal.as_raw()).unwrap_or(u8::MAX));
    Failure::with_exit(exit, "interrupted before the command was started")
}
