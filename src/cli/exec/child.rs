//! The command: found before anything is asked, started with the job's files and without what mints
//! identity tokens. Without a terminal it gets a session of its own; std has no door to `setsid`, so
//! our own binary is started first, makes the session, and becomes the command.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use rustix::process::Pid;

use crate::cli::failure::{BY_SIGNAL, ExecExit, Failure};

/// A program that is there and may be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// As it was typed: what it finds as its own name.
    name: OsString,
    path: PathBuf,
}

/// What the command is told by variables: files, and never secrets.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub set: Vec<(&'static str, OsString)>,
    pub without: Vec<String>,
}

/// Whose group and session the command has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Ours: a terminal reaches both of us.
    Shared,
    /// Its own.
    Own,
}

/// Where programs are looked for without `PATH`, as `execvp` does.
const USUAL_PATH: &str = "/bin:/usr/bin";
/// Our name while we make the session.
const STEP: &str = "dayfly: a new session for";
const OURSELVES: &str = "/proc/self/exe";

impl Program {
    /// As a shell finds it: a name with `/` is a path, any other is looked for in `PATH`.
    pub fn find(name: &OsStr, path: Option<&str>) -> Result<Self, Failure> {
        let found = |path: PathBuf| Self { name: name.to_owned(), path };
        if name.as_encoded_bytes().contains(&b'/') {
            return match look(Path::new(name)) {
                Look::Runs => Ok(found(name.into())),
                Look::No(why) => Err(not_executable(name, why)),
                Look::Nothing => Err(not_found(name, "there is no such file")),
            };
        }
        let mut there = None;
        let folders = path.unwrap_or(USUAL_PATH).split(':').filter(|_| !name.is_empty());
        for file in folders.map(|folder| Path::new(if folder.is_empty() { "." } else { folder }).join(name)) {
            match look(&file) {
                Look::Runs => return Ok(found(file)),
                Look::No(why) => there = there.or(Some(why)),
                Look::Nothing => {}
            }
        }
        Err(there.map_or_else(|| not_found(name, "it is in no folder of `PATH`"), |why| not_executable(name, why)))
    }

    /// Starts it; nobody waits for it here. What fails now is no lack of the program's.
    pub fn start(&self, args: &[OsString], told: &Told, place: Place) -> Result<Pid, Failure> {
        let mut command = match place {
            Place::Own if Path::new(OURSELVES).exists() => {
                let mut step = Command::new(OURSELVES);
                step.arg0(STEP).arg(&self.path).arg(&self.name);
                step
            }
            _ => {
                let mut command = Command::new(&self.path);
                command.arg0(&self.name);
                // Without `/proc` there is no step: a group of its own, then.
                if place == Place::Own {
                    command.process_group(0)
                } else {
                    &mut command
                };
                command
            }
        };
        command.args(args);
        told.tell(&mut command);
        let child = command.spawn().map_err(|error| not_run(&self.name, &error))?;
        pid_of(child.id())
    }
}

impl Told {
    fn tell(&self, command: &mut Command) {
        command.envs(self.set.iter().map(|(name, value)| (name, value)));
        for name in &self.without {
            command.env_remove(name);
        }
    }
}

/// A line for the shell, in a group of its own, that has no stdin and talks to our stderr.
pub fn start_hook(line: &OsStr, told: &Told) -> Result<Pid, Failure> {
    let failed = |error: io::Error| Failure::failed("the hook of --on-renew cannot be run").because(error);
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line).stdin(Stdio::null()).stdout(io::stderr()).process_group(0);
    told.tell(&mut command);
    pid_of(command.spawn().map_err(failed)?.id())
}

/// Whether a terminal controls us.
pub fn terminal() -> Option<File> {
    File::options().read(true).write(true).open("/dev/tty").ok()
}

/// What our process is started as to make a session: the command then takes its place. Comes back
/// only with a failure.
pub fn session_step(args: &[OsString]) -> Option<Failure> {
    let [step, path, name, rest @ ..] = args else { return None };
    if step != STEP {
        return None;
    }
    // We are nobody's leader: we have just been started.
    let _ = rustix::process::setsid();
    let error = Command::new(path).arg0(name).args(rest).exec();
    Some(not_run(name, &error))
}

/// As shells say it.
pub fn exit_code(status: ExitStatus) -> u8 {
    let by_signal = || status.signal().map(|signal| BY_SIGNAL.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)));
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.or_else(by_signal).unwrap_or(ExecExit::NotStarted as u8)
}

enum Look {
    Runs,
    No(&'static str),
    Nothing,
}

fn look(file: &Path) -> Look {
    match file.metadata() {
        Ok(found) if found.is_dir() => Look::No("it is a folder"),
        Ok(found) if !found.is_file() => Look::No("it is no plain file"),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => Look::No("it has no mode to be executed"),
        Ok(_) if rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_err() => Look::No("it may not be executed"),
        Ok(_) => Look::Runs,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Look::No("its folder may not be searched"),
        Err(_) => Look::Nothing,
    }
}

fn pid_of(id: u32) -> Result<Pid, Failure> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| Failure::failed("the command has no process id").exiting(ExecExit::NotStarted as u8))
}

fn not_run(name: &OsStr, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => not_found(name, &error.to_string()),
        _ => not_executable(name, &error.to_string()),
    }
}

fn not_found(name: &OsStr, why: &str) -> Failure {
    Failure::with_exit(ExecExit::NotFound as u8, format!("`{}` is not found", name.display())).because(why)
}

fn not_executable(name: &OsStr, why: &str) -> Failure {
    Failure::with_exit(ExecExit::NotExecutable as u8, format!("`{}` cannot be executed", name.display())).because(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str, path: Option<&str>) -> Result<PathBuf, u8> {
        Program::find(OsStr::new(name), path).map(|found| found.path).map_err(|failure| failure.exit())
    }

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        for folder in [&first, &second] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("tool"), "").unwrap();
        }
        std::fs::create_dir(first.join("folder")).unwrap();
        let mode = |mode| std::fs::set_permissions(second.join("tool"), PermissionsExt::from_mode(mode)).unwrap();
        mode(0o755);
        let path = format!("{}:{}", first.display(), second.display());
        assert_eq!(find("tool", Some(&path)), Ok(second.join("tool")), "what cannot run is passed over");
        mode(0o644);
        assert_eq!(find("tool", Some(&path)), Err(126));
        assert_eq!(find(first.join("tool").to_str().unwrap(), None), Err(126));
        assert_eq!(find("folder", Some(&path)), Err(126));
        for missing in ["nothing", "", "./nothing", "/nothing"] {
            assert_eq!(find(missing, Some(&path)), Err(127), "{missing}");
        }
        assert!(find("sh", None).is_ok());
    }

    #[test]
    fn codes_are_as_shells_say_them() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(255 << 8)), 255);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
        assert_eq!(exit_code(ExitStatus::from_raw(15 | 0x80)), 143, "with a core");
    }

    #[test]
    fn nobody_becomes_a_session_by_accident() {
        for line in [&["dayfly", "exec"][..], &[STEP], &[STEP, "path"], &["x", "/bin/true", "true"]] {
            let line: Vec<OsString> = line.iter().map(Into::into).collect();
            assert!(session_step(&line).is_none(), "{line:?}");
        }
    }
}
