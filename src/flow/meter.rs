//! How much each of many callers has used of late, in bounded room. In: whom to charge, and the boot
//! clock, so that nothing is won or lost when the wall is set. Out: whether it may go on, or how long
//! it should wait.
//!
//! Of our own rather than of a crate (`governor` was looked at): what matters here is what happens when
//! the room is used up, and a keyed limiter of a crate grows without bound or forgets. Here a key is
//! forgotten only once it is as good as new. While all the room is taken by callers who are not, those
//! who come new share spare cells: they are held to the same rate together, nobody's count is reset,
//! and who is known goes on as before.

use std::{
    hash::BuildHasher,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use dashmap::DashMap;

use super::sha256;

/// Keys that one meter tells apart.
pub const METERED_MAX: usize = 65_536;
/// Cells that all further keys share.
const SPARE: usize = 1_024;
/// What is as good as new is forgotten so often, or once a second where the room is used up.
const SWEPT_EACH_MS: i64 = 10_000;
const SWEPT_FULL_EACH_MS: i64 = 1_000;

/// So many a second, and so many at once. Neither is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_s: u32,
    burst: u32,
}

/// Too much for now: it goes on after so many seconds, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    pub retry_after_s: u32,
}

/// Whom a meter charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Payer(u128);

/// Charges by a rate (GCRA: one number for each payer).
#[derive(Debug)]
pub struct Rates {
    rate: Rate,
    cells: Cells<Due>,
}

/// Counts by the minute, beginning with the first of it; broken until the minute is over.
#[derive(Debug)]
pub(super) struct Storms {
    most: u32,
    cells: Cells<Minute>,
}

/// A minute with more than it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken {
    pub retry_after_s: u32,
    /// It broke just now.
    pub first: bool,
}

impl Rate {
    pub const fn new(per_s: u32, burst: u32) -> Self {
        Self { per_s: if per_s == 0 { 1 } else { per_s }, burst: if burst == 0 { 1 } else { burst } }
    }
}

impl Payer {
    /// An IPv4 address or an IPv6 /64 (one customer's usual block).
    // SECURITY: `a_whole_v6_block_is_one_payer`.
    pub fn address(ip: IpAddr) -> Self {
        Self(match block(ip) {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
            IpAddr::V6(ip) => ip.to_bits(),
        })
    }

    /// Whoever these parts name: no part can pass for two.
    pub(super) fn named(parts: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        let mut first = [0; 16];
        first.copy_from_slice(&sha256(&bytes)[..16]);
        Self(u128::from_be_bytes(first))
    }
}

/// What counts as one address.
pub fn block(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

impl Rates {
    pub fn new(rate: Rate) -> Self {
        Self { rate, cells: Cells::new(METERED_MAX) }
    }

    /// One more, unless it is too much; a refusal costs nothing.
    pub fn charge(&self, payer: Payer, boot_ms: i64) -> Result<(), Spent> {
        self.cells.touch(payer, boot_ms, |due| due.charge(self.rate, boot_ms))
    }
}

impl Storms {
    pub fn new(most: u32) -> Self {
        Self { most, cells: Cells::new(METERED_MAX) }
    }

    pub fn count(&self, payer: Payer, boot_ms: i64) -> Result<(), Broken> {
        self.cells.touch(payer, boot_ms, |minute| minute.count(self.most, boot_ms))
    }
}

/// When all that was charged is paid, in nanoseconds of the boot clock.
#[derive(Debug, Clone, Copy, Default)]
struct Due(i64);

impl Due {
    fn charge(&mut self, Rate { per_s, burst }: Rate, boot_ms: i64) -> Result<(), Spent> {
        let (now, each) = (boot_ms * NS_PER_MS, NS_PER_S / i64::from(per_s));
        let due = self.0.max(now) + each;
        let early = due - now - each * i64::from(burst);
        if early > 0 {
            return Err(Spent { retry_after_s: seconds(early, NS_PER_S) });
        }
        self.0 = due;
        Ok(())
    }
}

/// One minute of asks.
#[derive(Debug, Clone, Copy, Default)]
struct Minute {
    until_ms: i64,
    count: u32,
}

impl Minute {
    fn count(&mut self, most: u32, boot_ms: i64) -> Result<(), Broken> {
        if self.until_ms <= boot_ms {
            *self = Self { until_ms: boot_ms + MINUTE_MS, count: 0 };
        }
        let before = self.count;
        self.count = before.saturating_add(1);
        if before < most {
            return Ok(());
        }
        Err(Broken { retry_after_s: seconds(self.until_ms - boot_ms, 1_000), first: before == most })
    }
}

const NS_PER_S: i64 = 1_000_000_000;
const NS_PER_MS: i64 = 1_000_000;
const MINUTE_MS: i64 = 60_000;

/// Rounded up, at least 1.
fn seconds(span: i64, per_s: i64) -> u32 {
    u32::try_from((span + per_s - 1) / per_s).unwrap_or(u32::MAX).max(1)
}

/// What is kept of one payer.
trait Cell: Default {
    /// As good as new: forgetting it changes nothing.
    fn is_idle(&self, boot_ms: i64) -> bool;
}

impl Cell for Due {
    fn is_idle(&self, boot_ms: i64) -> bool {
        self.0 <= boot_ms * NS_PER_MS
    }
}

impl Cell for Minute {
    fn is_idle(&self, boot_ms: i64) -> bool {
        self.until_ms <= boot_ms
    }
}

/// See the module. No lock is held across another.
#[derive(Debug)]
struct Cells<C> {
    of: DashMap<Payer, C>,
    spare: Vec<Mutex<C>>,
    most: usize,
    swept_ms: AtomicI64,
}

impl<C: Cell> Cells<C> {
    fn new(most: usize) -> Self {
        let spare = (0..SPARE).map(|_| Mutex::default()).collect();
        Self { of: DashMap::new(), spare, most, swept_ms: AtomicI64::new(i64::MIN) }
    }

    // SECURITY: `a_flood_of_payers_takes_bounded_room_and_resets_nobody`.
    fn touch<T>(&self, payer: Payer, boot_ms: i64, charge: impl FnOnce(&mut C) -> T) -> T {
        if let Some(mut cell) = self.of.get_mut(&payer) {
            return charge(&mut cell);
        }
        if self.is_full(boot_ms) {
            let cell = &self.spare[self.of.hasher().hash_one(payer) as usize % self.spare.len()];
            return charge(&mut cell.lock().unwrap_or_else(PoisonError::into_inner));
        }
        charge(&mut self.of.entry(payer).or_default())
    }

    /// Whether there is no room for one more, once what is as good as new is forgotten.
    fn is_full(&self, boot_ms: i64) -> bool {
        let full = self.of.len() >= self.most;
        let swept = self.swept_ms.load(Ordering::Relaxed);
        let each = if full { SWEPT_FULL_EACH_MS } else { SWEPT_EACH_MS };
        if boot_ms.saturating_sub(swept) < each {
            return full;
        }
        self.swept_ms.store(boot_ms, Ordering::Relaxed);
        self.of.retain(|_, cell| !cell.is_idle(boot_ms));
        self.of.len() >= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payer(number: u128) -> Payer {
        Payer(number)
    }

    fn passed(rates: &Rates, who: Payer, at_ms: i64, tries: u32) -> u32 {
        (0..tries).filter(|_| rates.charge(who, at_ms).is_ok()).count() as u32
    }

    #[test]
    fn so_many_at_once_and_then_so_many_a_second() {
        let rates = Rates::new(Rate::new(20, 256));
        assert_eq!(passed(&rates, payer(1), 0, 1_000), 256);
        assert_eq!(rates.charge(payer(1), 0), Err(Spent { retry_after_s: 1 }));
        assert_eq!(passed(&rates, payer(1), 1_000, 1_000), 20, "what was refused has cost nothing");
        assert_eq!(passed(&rates, payer(2), 1_000, 1_000), 256, "nobody pays for another");
        assert_eq!(passed(&rates, payer(1), 100_000, 1_000), 256, "and never more than that at once");
    }

    #[test]
    fn a_minute_breaks_once_and_opens_by_itself() {
        let storms = Storms::new(600);
        assert!((0..600).all(|_| storms.count(payer(1), 5_000).is_ok()));
        assert_eq!(storms.count(payer(1), 35_000), Err(Broken { retry_after_s: 30, first: true }));
        for at_ms in [35_000, 64_999] {
            assert!(!storms.count(payer(1), at_ms).unwrap_err().first);
        }
        assert!(storms.count(payer(2), 35_000).is_ok());
        assert!(storms.count(payer(1), 65_000).is_ok());
    }

    #[test]
    fn a_whole_v6_block_is_one_payer() {
        let of = |ip: &str| Payer::address(ip.parse().expect("an address"));
        assert_eq!(of("2400::1"), of("2400::ffff:1"));
        assert_ne!(of("2400::1"), of("2400:0:0:1::1"));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn names_are_told_apart_by_their_parts() {
        assert_ne!(Payer::named(&["a", "bc"]), Payer::named(&["ab", "c"]));
        assert_ne!(Payer::named(&["a"]), Payer::named(&["a", ""]));
    }

    #[test]
    fn a_flood_of_payers_takes_bounded_room_and_resets_nobody() {
        let (rate, most) = (Rate::new(1, 10), 500);
        let rates = Rates { rate, cells: Cells::new(most) };
        assert_eq!(passed(&rates, payer(0), 0, 20), 10);
        let let_in: u32 = (1..20_000).map(|number| passed(&rates, payer(number), 500, 1)).sum();
        assert!(rates.cells.of.len() <= most, "{}", rates.cells.of.len());
        assert!(rates.charge(payer(0), 500).is_err(), "the one who had used it up has not been forgotten");
        assert!(rates.charge(payer(1), 500).is_ok(), "who is known goes on");
        let most_let_in = (most + SPARE * 10) as u32;
        assert!((most as u32..=most_let_in).contains(&let_in), "the rest share what is spare: {let_in}");
        // As good as new: forgotten, and there is room again.
        assert_eq!(passed(&rates, payer(99_999), 30_000, 20), 10);
        assert_eq!(rates.cells.of.len(), 1);
    }

    #[test]
    fn charges_at_once_from_many_threads_are_each_counted() {
        let rates = Rates::new(Rate::new(1, 100));
        let let_in: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| passed(&rates, payer(7), 0, 100))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(let_in, 100);
    }
}
