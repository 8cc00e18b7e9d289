//! The job that is killed: the real `dayfly exec`, started from our own binary, and how its credential
//! dies although nobody is left to end it. In: what it takes to start it. Out: the process and its
//! token, gone without a trace when it is dropped.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use dayfly_domain::Secret;
use tokio::time::timeout;

use super::story::wrong;
use crate::{
    cli::{door, failure::Failure},
    sys::offload::offload,
};

/// A running `dayfly exec`.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// The command lasts until this is closed.
    _stdin: Option<ChildStdin>,
    folder: PathBuf,
    pub token: Secret<String>,
}

/// What it is started with.
#[derive(Debug)]
pub struct Start<'a> {
    pub addr: &'a str,
    pub ca_file: &'a Path,
    pub task: &'a str,
    pub evidence_file: &'a Path,
}

const OURSELVES: &str = "/proc/self/exe";
/// Says where its token is, and lasts as long as we want.
const COMMAND: [&str; 3] = ["sh", "-c", "echo \"$DAYFLY_TOKEN_FILE\"; read -r line"];
const WITHIN: Duration = Duration::from_secs(20);

impl Running {
    pub async fn start(start: Start<'_>) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| wrong("`dayfly exec` does not start").because(error);
        let mut command = Command::new(OURSELVES);
        command.args(["exec", "--addr", start.addr, "--task", start.task, "--evidence-file"]).arg(start.evidence_file);
        command.arg("--").args(COMMAND).env_clear().env("DAYFLY_CA", start.ca_file);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut running = Self { child, _stdin: stdin, folder: PathBuf::new(), token: Secret::new(String::new()) };
        let line = offload(move || {
            let mut line = String::new();
            stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line));
            line
        });
        let line = timeout(WITHIN, line).await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let file = PathBuf::from(line.trim_end());
        running.token = door::secret_file(&file, "the job's token")?;
        running.folder = file.parent().map(Path::to_owned).unwrap_or_default();
        Ok(running)
    }

    /// `kill -9`, by its own id. Its command lives on, as it would.
    pub fn kill(&mut self) -> Result<(), Failure> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|error| wrong("the job cannot be killed").because(error))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that is gone already is what we want; and so is its folder.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.folder.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
