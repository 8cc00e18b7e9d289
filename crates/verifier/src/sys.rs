//! The only door to what the machine decides: time, randomness and files.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
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

/// The machine's clocks. Its steady clock never goes back, and goes on while the machine sleeps.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "the one door to the clock")]
impl Clock for SystemClock {
    /// A clock before 1970 reads as far in the future, so that everything is expired (law L4).
    fn now(&self) -> UnixMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        UnixMs::new(since.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(i64::MAX))
    }

    fn steady_ms(&self) -> i64 {
        static STEADY: Mutex<Option<Steady>> = Mutex::new(None);
        let (at, wall) = (Instant::now(), SystemTime::now());
        let mut steady = STEADY.lock().unwrap_or_else(PoisonError::into_inner);
        steady.get_or_insert(Steady { at, wall, total: Duration::ZERO }).read(at, wall)
    }
}

/// Between two readings the larger step of the two clocks counts: `Instant` stands still while the
/// machine sleeps, and the wall may be set back.
struct Steady {
    at: Instant,
    wall: SystemTime,
    total: Duration,
}

impl Steady {
    fn read(&mut self, at: Instant, wall: SystemTime) -> i64 {
        let ran = at.saturating_duration_since(self.at);
        let walked = wall.duration_since(self.wall).unwrap_or_default();
        self.total = self.total.saturating_add(ran.max(walked));
        (self.at, self.wall) = (at, wall);
        i64::try_from(self.total.as_millis()).unwrap_or(i64::MAX)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one door to randomness")]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_clock_counts_sleep_and_no_step_back() {
        let (start, noon) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let mut steady = Steady { at: start, wall: noon, total: Duration::ZERO };
        let s = Duration::from_secs;
        assert_eq!(steady.read(start + s(1), noon + s(1)), 1_000);
        assert_eq!(steady.read(start + s(2), noon + s(61)), 61_000, "a minute of sleep");
        assert_eq!(steady.read(start + s(3), noon), 62_000, "the wall set back");
        assert_eq!(steady.read(start + s(4), noon + s(1)), 63_000);
        let tick = Duration::from_micros(300);
        for number in 1..=10 {
            steady.read(start + s(4) + tick * number, noon + s(1));
        }
        assert_eq!(steady.read(start + s(4) + tick * 10, noon + s(1)), 63_003, "parts of a millisecond add up");
    }
}
