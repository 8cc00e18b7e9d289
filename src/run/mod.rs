//! Lifecycle: what is started, in which order, and how it ends. The only spawner of tasks and
//! threads: the writer's thread, the accept loops, the upkeep. One that dies takes the process
//! down; a stop drains requests first, then the writer.

pub mod accept;
mod bounds;
pub mod limits;
mod metrics;
mod notify;
mod pki;
mod serve;
mod signals;
mod tls;

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::serve::{attend, open_store, prepare_state};
pub use self::{
    bounds::{BOUNDS, Bound, PROPORTIONAL},
    metrics::{METRICS, Metric, install as install_metrics},
    pki::{PkiSettingsError, pki_dir, pki_folder},
    serve::{DATABASE, ServeError, check, serve},
    signals::{Signal, Signals},
};
use crate::{
    flow::{self, Flow, StartError, Startup, Upkeep, Writer},
    http::{self, Front, Ops},
    run::{accept::Door, limits::Limits},
    sys::{entropy, files},
};

/// A broker to be launched: its verbs, and the listeners they are served on.
pub struct Parts {
    pub startup: Startup,
    pub api: TcpListener,
    pub tls: Arc<ArcSwap<ServerConfig>>,
    /// Health and metrics.
    pub ops: Option<TcpListener>,
    /// What is public of the authority, without TLS.
    pub pki: Option<TcpListener>,
    /// Where local operators are served; an old socket there is replaced.
    pub socket: Option<PathBuf>,
    pub limits: Limits,
}

/// A running broker.
pub struct Running {
    pub flow: Flow,
    stop: CancellationToken,
    tasks: JoinSet<&'static str>,
    writer: thread::JoinHandle<()>,
    upkeep: Arc<Upkeep>,
    socket: Option<PathBuf>,
}

/// Why a broker was not launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the socket `{path}` cannot be made: {source}")]
    Socket { path: PathBuf, source: std::io::Error },
    #[error("the writer's thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// How long a stopped process waits for work that cannot be interrupted (a read that hangs).
pub const UNFINISHED: Duration = Duration::from_secs(1);

/// How a broker came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// One of its own tasks died: the process must not go on without it.
    Broken(&'static str),
}

/// Starts everything. When it returns, the listeners are being served.
pub fn launch(parts: Parts) -> Result<Running, LaunchError> {
    let Parts { startup, api, tls, ops, pki, socket, limits } = parts;
    let clock = startup.clock.clone();
    let (flow, writer, upkeep) = flow::start(startup)?;
    let writer = spawn_writer(writer)?;
    let upkeep = Arc::new(upkeep);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();

    let words = http::Door::new(flow.issuer(), &request_prefix()?);
    let app = http::router(Front { flow: flow.clone(), door: words.clone() });
    let refusing = words.clone();
    let door = Door { app, limits, refuse: Arc::new(move |status, parts| refusing.refuse(status, parts)), clock };
    spawn(&mut tasks, "api", accept::serve_tls(api, tls, door.clone(), stop.clone()));
    let inside = Door { limits: limits.inside(), ..door };
    if let Some(path) = &socket {
        spawn(&mut tasks, "socket", accept::serve_unix(listen_unix(path)?, inside.clone(), stop.clone()));
    }
    if let Some(pki) = pki {
        let app = http::pki_router(Front { flow: flow.clone(), door: words.clone() });
        spawn(
            &mut tasks,
            "pki",
            accept::serve_plain(pki, Door { app, limits: limits.public(), ..inside.clone() }, stop.clone()),
        );
    }
    if let Some(ops) = ops {
        let app = http::ops_router(Ops { flow: flow.clone(), door: words, metrics: Arc::new(metrics::render) });
        spawn(&mut tasks, "ops", accept::serve_plain(ops, Door { app, ..inside }, stop.clone()));
    }
    spawn(&mut tasks, "directory", follow(flow.clone(), stop.clone()));
    spawn(&mut tasks, "upkeep", keep_up(upkeep.clone(), stop.clone()));
    spawn(&mut tasks, "rows, taints and keys", follow_up(upkeep.clone(), stop.clone()));
    spawn(&mut tasks, "revocation lists", press(upkeep.clone(), stop.clone()));
    Ok(Running { flow, stop, tasks, writer, upkeep, socket })
}

impl Running {
    /// A token that stops the broker when it is cancelled.
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a companion of the broker. It ends when `stopper` says so; if it ends before, the
    /// broker is broken.
    pub fn also(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        spawn(&mut self.tasks, name, task);
    }

    /// Resolves when one of the broker's own tasks has died, or the writer.
    pub async fn broken(&mut self) -> &'static str {
        let mut tick = interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => return ended.and_then(Result::ok).unwrap_or("a task"),
                _ = tick.tick() => if self.writer.is_finished() { return "the writer" },
            }
        }
    }

    /// Drains requests in flight, writes what is left, ends the writer.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.upkeep.shut_down().await;
        let writer = self.writer;
        // The writer only ends when its queue is written; a panic in it was logged already.
        let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        if let Some(path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn spawn_writer(writer: Writer) -> Result<thread::JoinHandle<()>, LaunchError> {
    let named = thread::Builder::new().name("writer".to_owned());
    named.spawn(move || writer.run()).map_err(LaunchError::Thread)
}

fn spawn(tasks: &mut JoinSet<&'static str>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        name
    });
}

/// The seconds of a loop, counted until it is to stop.
struct Seconds {
    ticks: Interval,
    stop: CancellationToken,
    count: u64,
}

impl Seconds {
    fn until(stop: CancellationToken) -> Self {
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, stop, count: 0 }
    }

    async fn next(&mut self) -> Option<u64> {
        tokio::select! {
            () = self.stop.cancelled() => return None,
            _ = self.ticks.tick() => {}
        }
        let count = self.count;
        self.count += 1;
        Some(count)
    }
}

async fn keep_up(upkeep: Arc<Upkeep>, stop: CancellationToken) {
    let mut seconds = Seconds::until(stop);
    while let Some(count) = seconds.next().await {
        upkeep.each_second();
        notify::alive();
        if count.is_multiple_of(10) {
            upkeep.each_ten_seconds();
        }
        if count.is_multiple_of(60) {
            metrics::keep_up();
        }
    }
}

/// What takes as long as it takes. Beside the seconds: a gap in those is taken for a pause of the broker, and
/// then every hold starts anew, also those of jobs that are dead.
async fn follow_up(upkeep: Arc<Upkeep>, stop: CancellationToken) {
    let mut seconds = Seconds::until(stop);
    while let Some(count) = seconds.next().await {
        upkeep.catch_up().await;
        if count.is_multiple_of(10) {
            upkeep.record_taints().await;
        }
        if count.is_multiple_of(60) {
            upkeep.each_minute().await;
        }
    }
}

/// CRLs are built a second after an end at the latest, whatever else is under way.
async fn press(upkeep: Arc<Upkeep>, stop: CancellationToken) {
    let mut seconds = Seconds::until(stop);
    while seconds.next().await.is_some() {
        upkeep.press_crls().await;
    }
}

/// Keeps the keys of issuers fresh, so that no request waits for a fetch. Only `serve` does: a broker for
/// development asks nobody whose token it was not shown.
async fn fetch_ahead(flow: Flow, stop: CancellationToken) {
    let mut seconds = Seconds::until(stop);
    while seconds.next().await.is_some() {
        flow.fetch_issuers_ahead();
    }
}

/// How soon another checkout of the bundle is noticed.
pub const FOLLOWED_EACH: Duration = Duration::from_secs(2);

/// Beside the upkeep: a load may take as long as its folder does.
async fn follow(flow: Flow, stop: CancellationToken) {
    let mut ticks = interval(FOLLOWED_EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let moved = async {
            ticks.tick().await;
            flow.follow().await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = moved => {}
        }
    }
}

/// The socket of local operators: only its owner may open it.
fn listen_unix(path: &PathBuf) -> Result<UnixListener, LaunchError> {
    let failed = |source| LaunchError::Socket { path: path.clone(), source };
    // The lock on the state folder is held: whoever left this socket is gone.
    if let Err(source) = std::fs::remove_file(path)
        && source.kind() != std::io::ErrorKind::NotFound
    {
        return Err(failed(source));
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    files::set_mode(path, 0o600).map_err(failed)?;
    Ok(listener)
}

fn request_prefix() -> Result<String, LaunchError> {
    let random: [u8; 5] = entropy::bytes().map_err(StartError::from)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
