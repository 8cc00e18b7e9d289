//! Short blocking work (a read of the database) off the request threads.

/// The work panicked or the runtime is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the work was not finished")]
pub struct Unfinished;

/// Runs `work` on a thread where it may block.
pub async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Unfinished> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Unfinished)
}
