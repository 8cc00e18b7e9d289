//! A broker of our own: started in a folder of its own, ended by its process id, never by name.

use std::{
    io::{self, BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    time::Duration,
};

use dayfly::sys::clock::Clock;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    evidence::{EvidenceError, Platform, Verifier},
    folder::{Extras, Folder, ISSUER},
    origin::Origin,
};

const START_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Why no broker runs.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("the broker's folder cannot be made: {0}")]
    Folder(io::Error),
    #[error("`{program}` cannot be started: {source}")]
    Start { program: PathBuf, source: io::Error },
    #[error("the broker did not come up; it said:\n{0}")]
    Said(String),
    #[error("the ceremony of its authority failed:\n{0}")]
    Ceremony(String),
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

/// A running broker and whoever it trusts.
pub(crate) struct Broker {
    child: Child,
    pub address: SocketAddr,
    /// Of one that issues certificates: where its OCSP answers are, without TLS.
    pub public: Option<SocketAddr>,
    pub folder: Folder,
    pub platform: Platform,
    pub verifier: Verifier,
}

impl Broker {
    pub async fn start(program: &Path, log: &str) -> Result<Self, BrokerError> {
        Self::start_with(program, log, None, None).await
    }

    /// The same, but it finds the platform's keys by discovery, at this origin.
    pub async fn discovering(program: &Path, log: &str, origin: &Origin) -> Result<Self, BrokerError> {
        Self::start_with(program, log, Some(origin), None).await
    }

    /// The same, and it issues certificates.
    pub async fn certifying(program: &Path, log: &str) -> Result<Self, BrokerError> {
        let public = free_address().map_err(BrokerError::Folder)?;
        Self::start_with(program, log, None, Some(public)).await
    }

    async fn start_with(
        program: &Path,
        log: &str,
        origin: Option<&Origin>,
        public: Option<SocketAddr>,
    ) -> Result<Self, BrokerError> {
        let (platform, verifier) = (Platform::make()?, Verifier::make()?);
        let extras = Extras { ca_pem: origin.map(|origin| origin.ca_pem.as_str()), public };
        let folder = Folder::make(&platform.jwk(), &verifier.jwk(), extras).map_err(BrokerError::Folder)?;
        if public.is_some() {
            hold_ceremony(program, &folder)?;
        }
        let mut command = serving(program, log, &folder);
        if let Some(origin) = origin {
            origin.publish(platform.jwk());
            command.env("HTTPS_PROXY", origin.proxy());
        }
        let (child, said) = spawn(&mut command)?;
        // From here on the child has an owner who ends it.
        let at = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut broker = Self { child, address: at, public, folder, platform, verifier };
        broker.address = listening(said).await?;
        Ok(broker)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it and starts it again on what it left.
    pub async fn start_again(&mut self, program: &Path, log: &str) -> Result<(), BrokerError> {
        self.end().await;
        let (child, said) = spawn(&mut serving(program, log, &self.folder))?;
        self.child = child;
        self.address = listening(said).await?;
        Ok(())
    }

    /// Asks it to end, and makes sure that it does.
    pub async fn stop(mut self) {
        self.end().await;
    }

    async fn end(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Gone already: then there is nothing to end.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = timeout(STOP_WITHIN, self.ended()).await;
    }

    async fn ended(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One that nobody had a moment ago.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// The root and the area CA, as an operator makes them.
fn hold_ceremony(program: &Path, folder: &Folder) -> Result<(), BrokerError> {
    let [root, passphrase] = folder.ceremony();
    let mut command = Command::new(program);
    command.args(["ca", "init", "--config"]).arg(folder.settings()).env_clear();
    command.arg("--root-key").arg(root).arg("--passphrase-file").arg(passphrase);
    let failed = |source| BrokerError::Start { program: program.to_owned(), source };
    let held = command.stdin(Stdio::null()).output().map_err(failed)?;
    match held.status.success() {
        true => Ok(()),
        false => Err(BrokerError::Ceremony(String::from_utf8_lossy(&held.stderr).into_owned())),
    }
}

fn serving(program: &Path, log: &str, folder: &Folder) -> Command {
    let mut command = Command::new(program);
    command.args(["serve", "--config"]).arg(folder.settings()).env_clear().env("DAYFLY_LOG", log);
    command
}

fn spawn(command: &mut Command) -> Result<(Child, ChildStderr), BrokerError> {
    let program = PathBuf::from(command.get_program());
    let failed = |source| BrokerError::Start { program: program.clone(), source };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let said = child.stderr.take().ok_or_else(|| failed(io::Error::other("it has no output")))?;
    Ok((child, said))
}

/// Seconds since 1970.
pub(crate) fn now_s() -> i64 {
    Clock::Machine.wall().as_s()
}

/// Reads what the broker says until it says where it is served, and goes on reading: a full pipe
/// would hold it up. A pipe, so that its log is no part of what it writes to the disk.
async fn listening(said: ChildStderr) -> Result<SocketAddr, BrokerError> {
    let (found, address) = oneshot::channel();
    drop(tokio::task::spawn_blocking(move || read(said, found)));
    match timeout(START_WITHIN, address).await {
        Ok(Ok(answer)) => answer.map_err(BrokerError::Said),
        _ => Err(BrokerError::Said(format!("nothing of use within {} s", START_WITHIN.as_secs()))),
    }
}

fn read(said: ChildStderr, found: oneshot::Sender<Result<SocketAddr, String>>) {
    let mut lines = BufReader::new(said).lines().map_while(Result::ok);
    let (mut text, served) = (String::new(), format!("{ISSUER} is served at "));
    for line in lines.by_ref() {
        if let Some(address) = line.split_once(&served).and_then(|(_, address)| address.trim().parse().ok()) {
            // Nobody waits any more: the bench has given up.
            let _ = found.send(Ok(address));
            lines.for_each(drop);
            return;
        }
        text.push_str(&line);
        text.push('\n');
    }
    let _ = found.send(Err(text));
}
