//! The only door to what the machine decides: time, randomness and files.

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use dayfly_domain::UnixMs;
use ring::rand::SystemRandom;

/// Where the time comes from. Implement it to test a server at another hour.
pub trait Clock: Send + Sync {
    /// The wall clock: what `exp`, `nbf` and `iat` are compared with.
    fn now(&self) -> UnixMs;

    /// Milliseconds from any fixed point, for the age of what is cached. Override it where the
    /// wall clock can be set back, so that setting it back keeps no answer alive.
    fn steady_ms(&self) -> i64 {
        self.now().as_ms()
    }
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    /// A clock before 1970 reads as far in the future, so that everything is expired (law L4).
    fn now(&self) -> UnixMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        UnixMs::new(since.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(i64::MAX))
    }

    fn steady_ms(&self) -> i64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        i64::try_from(START.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

pub(crate) fn random() -> SystemRandom {
    SystemRandom::new()
}

/// A whole small file; `None` when it cannot be read or is larger.
#[cfg(feature = "online")]
pub(crate) fn read_file(path: &std::path::Path, max_bytes: usize) -> Option<Vec<u8>> {
    use std::io::Read;

    let mut bytes = Vec::new();
    let limit = u64::try_from(max_bytes).ok()? + 1;
    std::fs::File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= max_bytes).then_some(bytes)
}
