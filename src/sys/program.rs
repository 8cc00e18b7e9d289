//! A platform's own program, asked for one answer: an agent that mints an identity token. In: its
//! name, arguments and the folders to look in. Out: what it wrote to stdout, capped in time and size.

use std::{
    io::{self, Read},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use dayfly_domain::Secret;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::timeout;

use super::offload::offload;

/// A program answers within this time.
pub const PROGRAM_WITHIN: Duration = Duration::from_secs(20);
/// What is read of its stdout.
pub const PROGRAM_MAX_BYTES: u64 = 64 << 10;

/// Why a program gave no answer. What it wrote is not quoted: it may hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("`{program}` is not in the folders of `PATH`")]
    Missing { program: String },
    #[error("`{program}` cannot be run: {source}")]
    Start { program: String, source: io::Error },
    #[error("`{program}` failed with {status}; what it said stands above")]
    Failed { program: String, status: String },
    #[error("`{program}` did not answer within {} s", PROGRAM_WITHIN.as_secs())]
    Slow { program: String },
    #[error("`{program}` wrote more than {PROGRAM_MAX_BYTES} bytes")]
    TooLarge { program: String },
}

/// Runs `program`, found in `path` as a shell would, without a shell. Its stderr is ours, and its
/// stdin is empty.
pub async fn answer(program: &str, args: &[String], path: &str) -> Result<Secret<Vec<u8>>, ProgramError> {
    answer_within(program, args, path, PROGRAM_WITHIN).await
}

async fn answer_within(
    program: &str,
    args: &[String],
    path: &str,
    within: Duration,
) -> Result<Secret<Vec<u8>>, ProgramError> {
    let named = || program.to_owned();
    let file = find(program, path).ok_or_else(|| ProgramError::Missing { program: named() })?;
    let start = |source| ProgramError::Start { program: named(), source };
    let child = Command::new(file)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // A group of its own, so that what it starts ends with it.
        .process_group(0)
        .spawn()
        .map_err(start)?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Ok(read) = timeout(within, offload(move || whole(child, group))).await else {
        end(group);
        return Err(ProgramError::Slow { program: named() });
    };
    let (bytes, status) = read.map_err(|error| start(io::Error::other(error)))?.map_err(start)?;
    match status {
        None => Err(ProgramError::TooLarge { program: named() }),
        Some(status) if !status.success() => Err(ProgramError::Failed { program: named(), status: status.to_string() }),
        Some(_) => Ok(bytes),
    }
}

/// All that it wrote, and how it ended; no status where it wrote too much and was stopped.
fn whole(mut child: Child, group: Option<Pid>) -> io::Result<(Secret<Vec<u8>>, Option<std::process::ExitStatus>)> {
    let mut bytes = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(PROGRAM_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    }
    let too_large = bytes.len() as u64 > PROGRAM_MAX_BYTES;
    if too_large {
        end(group);
    }
    let status = child.wait()?;
    Ok((Secret::new(bytes), (!too_large).then_some(status)))
}

/// The program with all that it started; a group that is gone is no error.
fn end(group: Option<Pid>) {
    group.map(|group| kill_process_group(group, Signal::KILL));
}

/// The first executable of that name. A folder that is not absolute is passed over: a job's working
/// folder holds what others wrote.
// SECURITY: `a_program_in_the_working_folder_is_not_run`.
fn find(program: &str, path: &str) -> Option<PathBuf> {
    let folders = path.split(':').map(Path::new).filter(|folder| folder.is_absolute());
    folders
        .map(|folder| folder.join(program))
        .find(|file| file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn script(dir: &Path, name: &str, text: &str) {
        let file = dir.join(name);
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    async fn said(text: &str, args: &[&str]) -> Result<String, ProgramError> {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "agent", text);
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let answered = answer("agent", &args, dir.path().to_str().unwrap()).await;
        answered.map(|bytes| String::from_utf8(bytes.expose().clone()).unwrap())
    }

    #[tokio::test]
    async fn arguments_go_as_they_are_and_no_shell_reads_them() {
        let found = said("printf '%s|' \"$@\"", &["a b", "$(id)", "{\"aud\":\"x\"}", "`id`"]).await.unwrap();
        assert_eq!(found, "a b|$(id)|{\"aud\":\"x\"}|`id`|");
    }

    #[tokio::test]
    async fn a_program_that_fails_writes_too_much_or_is_not_there() {
        assert!(
            matches!(said("echo secret; exit 3", &[]).await, Err(ProgramError::Failed { status, .. }) if status.contains('3'))
        );
        assert!(matches!(said("yes", &[]).await, Err(ProgramError::TooLarge { .. })));
        let missing = answer("no-such-agent", &[], "/nowhere:/usr/bin").await;
        assert!(matches!(missing, Err(ProgramError::Missing { .. })));
    }

    #[tokio::test]
    async fn a_program_that_never_ends_is_ended_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "agent", "tail -f /dev/null & echo $! >\"${0%/*}/child\"; tail -f /dev/null");
        let late = answer_within("agent", &[], dir.path().to_str().unwrap(), Duration::from_millis(500)).await;
        assert!(matches!(late, Err(ProgramError::Slow { .. })), "{late:?}");
        assert!(is_gone(dir.path()).await, "it still runs");
    }

    #[tokio::test]
    async fn a_program_that_writes_too_much_is_ended_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "agent", "tail -f /dev/null & echo $! >\"${0%/*}/child\"; yes");
        let long = answer("agent", &[], dir.path().to_str().unwrap()).await;
        assert!(matches!(long, Err(ProgramError::TooLarge { .. })), "{long:?}");
        assert!(is_gone(dir.path()).await, "it still runs");
    }

    /// The process that a script named, within a while.
    async fn is_gone(dir: &Path) -> bool {
        let child: i32 = fs::read_to_string(dir.join("child")).unwrap().trim().parse().unwrap();
        let gone = || match fs::read_to_string(format!("/proc/{child}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        let all = async {
            while !gone() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), all).await.is_ok()
    }

    #[test]
    fn a_program_in_the_working_folder_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "agent", "true");
        let absolute = dir.path().to_str().unwrap();
        assert!(find("agent", &format!(":.:bin:{absolute}")).is_some_and(|file| file.is_absolute()));
        let here = tempfile::tempdir_in(".").unwrap();
        script(here.path(), "agent", "true");
        let relative = here.path().file_name().unwrap().to_str().unwrap();
        assert!(Path::new(relative).join("agent").is_file(), "nothing to be run");
        assert_eq!(find("agent", &format!("{relative}:./{relative}")), None, "folders that are not absolute");
        fs::set_permissions(dir.path().join("agent"), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(find("agent", absolute), None);
    }
}
