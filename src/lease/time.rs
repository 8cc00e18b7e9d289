//! The broker's time: what two clocks mean together (laws L10, L11).
//!
//! It starts at max(wall, durable high-water mark), runs on the boot clock and follows the wall
//! while they agree within 5 s, never back. While they disagree nothing is issued or pruned, and
//! what is expired under either clock is expired.

use std::sync::Mutex;

use dayfly_domain::UnixMs;

use crate::sys::clock::{Clock, Reading};

/// How far the clocks may be apart.
pub const TOLERANCE_MS: i64 = 5_000;

/// A moment, as everything downstream sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For what is written: never runs back.
    pub at: UnixMs,
    /// For asking what has expired: the later of both clocks.
    pub latest: UnixMs,
    /// The clocks agree: issuing and pruning may go on.
    pub safe: bool,
    /// What had begun by the first and was to end by the second was seen expired while the clocks
    /// disagreed, and stays so (law L10).
    lost: (UnixMs, UnixMs),
}

impl Now {
    /// Whether what began at `from` and lasts until `until` is over.
    pub fn expired(&self, from: UnixMs, until: UnixMs) -> bool {
        until <= self.latest || (from <= self.lost.0 && until <= self.lost.1)
    }

    /// A moment at which both clocks read `at`; for tests and for what needs no lease.
    pub fn exactly(at: UnixMs) -> Self {
        Self { at, latest: at, safe: true, lost: (UnixMs::new(i64::MIN), UnixMs::new(i64::MIN)) }
    }
}

#[derive(Debug)]
pub struct Time {
    clock: Clock,
    state: Mutex<State>,
    started: Reading,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// What the wall should read when the boot clock reads zero.
    base_ms: i64,
    last: UnixMs,
    lost: (UnixMs, UnixMs),
    /// The clocks have agreed since the start: from then on the boot clock holds the wall to it.
    anchored: bool,
}

impl Time {
    /// `high_water`: the latest time that the store remembers.
    pub fn start(clock: Clock, high_water: UnixMs) -> Self {
        let started = clock.read();
        let base_ms = started.wall.as_ms() - started.boot_ms;
        let anchored = high_water.as_ms() - started.wall.as_ms() <= TOLERANCE_MS;
        let state = State { base_ms, anchored, ..State::from(Now::exactly(started.wall.max(high_water))) };
        Self { clock, state: Mutex::new(state), started }
    }

    pub fn now(&self) -> Now {
        let reading = self.clock.read();
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.observe(reading)
    }

    /// Both clocks as they were at the start, for the start event.
    pub fn started(&self) -> Reading {
        self.started
    }

    /// How long this process has been running, by the boot clock.
    pub fn uptime_ms(&self) -> i64 {
        self.clock.read().boot_ms - self.started.boot_ms
    }
}

impl From<Now> for State {
    fn from(now: Now) -> Self {
        Self { base_ms: 0, last: now.at, lost: now.lost, anchored: false }
    }
}

impl State {
    fn observe(&mut self, reading: Reading) -> Now {
        if !self.anchored {
            // A store ahead of the wall waits for it; whoever sets the wall right meanwhile is believed.
            self.base_ms = reading.wall.as_ms() - reading.boot_ms;
        }
        let predicted = UnixMs::new(self.base_ms + reading.boot_ms);
        let agree = (reading.wall.as_ms() - predicted.as_ms()).abs() <= TOLERANCE_MS;
        let running = if agree {
            self.base_ms = reading.wall.as_ms() - reading.boot_ms;
            reading.wall
        } else {
            predicted
        };
        let ahead = self.last.as_ms() - running.as_ms() > TOLERANCE_MS;
        self.last = self.last.max(running);
        let latest = self.last.max(reading.wall);
        if !agree {
            self.lost = (self.last, latest.max(self.lost.1));
        }
        let safe = agree && !ahead;
        self.anchored |= safe;
        Now { at: self.last, latest, safe, lost: self.lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::Stepped;

    const START: UnixMs = UnixMs::from_s(1_800_000_000);

    fn time(high_water: UnixMs) -> (std::sync::Arc<Stepped>, Time) {
        let stepped = Stepped::at(START);
        let time = Time::start(Clock::Stepped(stepped.clone()), high_water);
        (stepped, time)
    }

    #[test]
    fn time_passes_on_both_clocks() {
        let (clock, time) = time(UnixMs::default());
        clock.advance_ms(10_000);
        assert_eq!(time.now(), Now::exactly(START.plus_s(10)));
    }

    #[test]
    fn small_steps_are_followed_but_never_back() {
        let (clock, time) = time(UnixMs::default());
        clock.step_wall_ms(3_000);
        assert_eq!(time.now().at, START.plus_s(3));
        clock.step_wall_ms(-4_000);
        assert_eq!(time.now(), Now::exactly(START.plus_s(3)));
    }

    #[test]
    fn t_096_a_jump_back_issues_nothing_and_revives_nothing() {
        let (clock, time) = time(UnixMs::default());
        clock.advance_ms(60_000);
        time.now();
        clock.step_wall_ms(-3_600_000);
        clock.advance_ms(1_000);
        let now = time.now();
        assert!(!now.safe && now.at == START.plus_s(61) && now.latest == now.at);
        clock.step_wall_ms(3_600_000);
        assert!(time.now().safe);
    }

    #[test]
    fn t_096_a_jump_ahead_expires_but_does_not_move_the_record() {
        let (clock, time) = time(UnixMs::default());
        clock.step_wall_ms(3_600_000);
        let now = time.now();
        assert_eq!((now.at, now.latest, now.safe), (START, START.plus_s(3_600), false));
        assert!(now.expired(START, START.plus_s(900)));
        clock.step_wall_ms(-3_600_000);
        clock.advance_ms(1_000);
        let later = time.now();
        assert!(later.safe && later.expired(START, START.plus_s(900)), "what was expired stays expired");
        assert!(!later.expired(later.at, later.at.plus_s(900)), "what begins now lives");
    }

    #[test]
    fn a_wall_that_is_set_right_after_the_start_is_believed() {
        let (clock, time) = time(START.plus_s(3_600));
        assert!(!time.now().safe);
        clock.advance_ms(2_000);
        clock.step_wall_ms(3_600_000);
        let now = time.now();
        assert!(now.safe && now.at == START.plus_s(3_602), "{now:?}");
        clock.step_wall_ms(60_000);
        assert!(!time.now().safe, "from then on it is held to the boot clock");
    }

    #[test]
    fn a_store_ahead_of_the_wall_waits_for_it() {
        let (clock, time) = time(START.plus_s(30));
        let now = time.now();
        assert_eq!((now.at, now.safe), (START.plus_s(30), false));
        clock.advance_ms(26_000);
        assert!(time.now().safe);
        clock.advance_ms(10_000);
        assert_eq!(time.now().at, START.plus_s(36));
    }
}
