//! The two clocks of the machine. What they mean together is `lease::Time`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use dayfly_domain::UnixMs;

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock: what people and tokens mean by time; may jump.
    pub wall: UnixMs,
    /// CLOCK_BOOTTIME in milliseconds: never jumps, counts suspension.
    pub boot_ms: i64,
}

/// A source of readings: the machine's, or one that a test steps.
#[derive(Debug, Clone)]
pub enum Clock {
    Machine,
    Stepped(Arc<Stepped>),
}

/// Both clocks in a test's hand.
#[derive(Debug, Default)]
pub struct Stepped {
    wall_ms: AtomicI64,
    boot_ms: AtomicI64,
}

impl Clock {
    pub fn read(&self) -> Reading {
        match self {
            Self::Machine => Reading { wall: wall(), boot_ms: boot_ms() },
            Self::Stepped(stepped) => Reading {
                wall: UnixMs::new(stepped.wall_ms.load(Ordering::SeqCst)),
                boot_ms: stepped.boot_ms.load(Ordering::SeqCst),
            },
        }
    }

    /// The wall clock alone, for what needs no ledger: the command line, a request's start.
    pub fn wall(&self) -> UnixMs {
        self.read().wall
    }
}

impl Stepped {
    pub fn at(wall: UnixMs) -> Arc<Self> {
        let stepped = Self::default();
        stepped.wall_ms.store(wall.as_ms(), Ordering::SeqCst);
        Arc::new(stepped)
    }

    /// Time passes on both clocks.
    pub fn advance_ms(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.boot_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// The wall clock alone is set.
    pub fn step_wall_ms(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

/// Through the C library, so that a test of the whole process can move it.
#[expect(clippy::disallowed_methods, reason = "the one door to the clock")]
fn wall() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::new(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn boot_ms() -> i64 {
    ms_of(rustix::time::ClockId::Boottime).unwrap_or_default()
}

fn ms_of(id: rustix::time::ClockId) -> Option<i64> {
    let at = rustix::time::clock_gettime(id);
    at.tv_sec.checked_mul(1000)?.checked_add(at.tv_nsec / 1_000_000)
}
