//! The broker's time: what two clocks mean together (laws L10, L11).
//!
//! It starts at max(wall, durable high-water mark), runs on the boot clock and follows the wall
//! while they agree within 5 s, never back. While they disagree nothing is issued or pruned, and
//! what is expired under either clock is expired. What begins once they agree again is judged by
//! the present readings alone.

use dayfly_domain::UnixMs;

use crate::sys::{
    clock::{Clock, Reading},
    sync::Mutex,
};

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
    lost: [Loss; LOSSES],
}

/// What a disagreement of the clocks expired. It stays so (law L10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loss {
    /// It had begun by then: nothing is issued before the clocks agree again.
    begun: UnixMs,
    /// It was to last until then at most.
    until: UnixMs,
}

/// Disagreements that are told apart. Of more the two oldest count as one, which expires more.
const LOSSES: usize = 4;

impl Loss {
    const NONE: Self = Self { begun: UnixMs::new(i64::MIN), until: UnixMs::new(i64::MIN) };

    fn covers(self, from: UnixMs, until: UnixMs) -> bool {
        from <= self.begun && until <= self.until
    }
}

impl Now {
    /// Whether what began at `from` and lasts until `until` is over.
    pub fn expired(&self, from: UnixMs, until: UnixMs) -> bool {
        until <= self.latest || self.lost.iter().any(|loss| loss.covers(from, until))
    }

    /// A moment at which both clocks read `at`; for tests and for what needs no lease.
    pub fn exactly(at: UnixMs) -> Self {
        Self { at, latest: at, safe: true, lost: [Loss::NONE; LOSSES] }
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
    lost: [Loss; LOSSES],
    /// They have disagreed, and nothing was issued since: the first of `lost` still grows.
    losing: bool,
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

    /// The boot clock: for what must not depend on anybody's setting of the wall.
    pub fn boot_ms(&self) -> i64 {
        self.clock.read().boot_ms
    }

    /// How long this process has been running, by the boot clock.
    pub fn uptime_ms(&self) -> i64 {
        self.clock.read().boot_ms - self.started.boot_ms
    }
}

impl From<Now> for State {
    fn from(now: Now) -> Self {
        Self { base_ms: 0, last: now.at, lost: now.lost, losing: false, anchored: false }
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
            self.lose(latest);
        }
        let safe = agree && !ahead;
        self.losing = !agree || (self.losing && !safe);
        self.anchored |= safe;
        Now { at: self.last, latest, safe, lost: self.lost }
    }

    /// The newest first. An older one matters only as far as it reaches beyond the newer and the present.
    // SECURITY: `t_096_a_jump_ahead_expires_but_does_not_move_the_record` and
    // `t_096_a_second_disagreement_revives_nothing_of_the_first`.
    fn lose(&mut self, until: UnixMs) {
        let (growing, older) = self.lost.split_at(usize::from(self.losing));
        let until = growing.iter().map(|loss| loss.until).fold(until, UnixMs::max);
        let mut lost = vec![Loss { begun: self.last, until }];
        lost.extend(older.iter().filter(|loss| loss.until > until));
        if let Some(oldest) = lost.get(LOSSES).copied() {
            lost[LOSSES - 1].until = oldest.until;
        }
        lost.resize(LOSSES, Loss::NONE);
        self.lost = std::array::from_fn(|at| lost[at]);
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

    /// The clocks agree again a second after a jump of an hour ahead.
    fn mended() -> (std::sync::Arc<Stepped>, Time, UnixMs) {
        let (clock, time) = time(UnixMs::default());
        clock.step_wall_ms(3_600_000);
        time.now();
        clock.step_wall_ms(-3_600_000);
        clock.advance_ms(1_000);
        let now = time.now();
        assert!(now.safe);
        (clock, time, now.at)
    }

    #[test]
    fn what_began_since_the_clocks_agreed_again_is_judged_by_the_present_alone() {
        for later_ms in [10_000, -3_600_000] {
            let (clock, time, issued) = mended();
            clock.advance_ms(1_000);
            clock.step_wall_ms(later_ms);
            let now = time.now();
            assert!(!now.safe && !now.expired(issued, issued.plus_s(900)), "{later_ms} ms");
            assert!(now.expired(START, START.plus_s(900)), "what was expired stays expired");
            clock.step_wall_ms(-later_ms);
            clock.advance_ms(1_000);
            let now = time.now();
            assert!(now.safe && !now.expired(issued, issued.plus_s(900)));
            assert!(now.expired(START, START.plus_s(900)));
        }
    }

    #[test]
    fn t_096_a_second_disagreement_revives_nothing_of_the_first() {
        let (clock, time, issued) = mended();
        clock.step_wall_ms(600_000);
        assert!(time.now().expired(issued, issued.plus_s(300)));
        clock.step_wall_ms(-590_000);
        let now = time.now();
        assert!(!now.safe && now.expired(issued, issued.plus_s(300)), "not agreed yet: nothing is let go");
        clock.step_wall_ms(-10_000);
        clock.advance_ms(1_000);
        let now = time.now();
        assert!(now.safe && now.expired(issued, issued.plus_s(300)) && !now.expired(issued, issued.plus_s(900)));
        assert!(now.expired(START, START.plus_s(3_600)) && !now.expired(START, START.plus_s(3_601)));
    }

    #[test]
    fn t_096_however_often_the_clocks_disagree_nothing_is_revived() {
        let (clock, time) = time(UnixMs::default());
        let mut expired = Vec::new();
        for ahead_s in (1..=12).rev().map(|minutes| minutes * 60) {
            let issued = time.now().at;
            clock.step_wall_ms(ahead_s * 1_000);
            expired.push((issued, time.now().latest));
            clock.step_wall_ms(-ahead_s * 1_000);
            clock.advance_ms(1_000);
            let now = time.now();
            assert!(now.safe && !now.expired(now.at, now.at.plus_s(1)));
            assert!(expired.iter().all(|&(from, until)| now.expired(from, until)), "{now:?}");
        }
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
