//! Work that does not belong on a request: short and blocking (a read of the database) on a thread of
//! its own, or begun for many (a fetch) and finished whoever leaves.

use std::{
    io,
    thread::{self, JoinHandle},
};

use tokio::sync::Semaphore;

/// The work panicked or the runtime is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the work was not finished")]
pub struct Unfinished;

/// Works under way at once. More wait their turn, and are forgotten when whoever asked goes away:
/// a client that asks and leaves, again and again, fills no queue.
// SECURITY: `work_waits_for_a_place_and_is_forgotten_with_its_caller`.
pub const OFFLOADED_MAX: usize = 64;

static PLACES: Semaphore = Semaphore::const_new(OFFLOADED_MAX);

/// Runs `work` on a thread where it may block.
pub async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Unfinished> {
    offload_in(&PLACES, work).await
}

/// Begins `work` at once and carries it to its end, also when nobody waits for it any more.
#[expect(clippy::disallowed_methods, reason = "whoever waits for it hears of a failure; nobody else depends on it")]
pub fn carried<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = Result<T, Unfinished>> + Send {
    let task = tokio::spawn(work);
    async move { task.await.map_err(|_| Unfinished) }
}

/// A thread for what may hang, and would take one of those above with it. It ends when its work does.
#[expect(clippy::disallowed_methods, reason = "its owner waits for it, with a clock; nobody else depends on it")]
pub fn apart(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

async fn offload_in<T: Send + 'static>(
    places: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    let place = places.acquire().await.map_err(|_| Unfinished)?;
    // The place is the work's own: it is free when the work is done, whoever still waits for it.
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    done.await.map_err(|_| Unfinished)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    #[tokio::test]
    async fn what_is_carried_is_finished_without_its_caller() {
        let (done, heard) = tokio::sync::oneshot::channel();
        drop(carried(async move { done.send(7) }));
        assert_eq!(heard.await, Ok(7));
        let failing: Result<(), Unfinished> = carried(async { panic!("as a test wants it") }).await;
        assert_eq!(failing, Err(Unfinished));
    }

    #[tokio::test]
    async fn work_waits_for_a_place_and_is_forgotten_with_its_caller() {
        static ONE: Semaphore = Semaphore::const_new(1);
        static DONE: AtomicUsize = AtomicUsize::new(0);
        let (go, held) = mpsc::channel::<()>();
        let first = tokio::spawn(offload_in(&ONE, move || held.recv().is_ok()));
        while ONE.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            let waiting = tokio::spawn(offload_in(&ONE, || DONE.fetch_add(1, Ordering::SeqCst)));
            tokio::task::yield_now().await;
            waiting.abort();
        }
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(true));
        assert_eq!(offload_in(&ONE, || DONE.load(Ordering::SeqCst)).await, Ok(0));
    }
}
