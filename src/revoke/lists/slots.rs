//! The places of one list: who has one, whose lease has ended, and what the others show.

use super::decoys::{Decoys, Left};

/// Tries to find a place before a list counts as full: of 64, one in eight would do.
const TRIES: u32 = 64;

/// One bit for each place.
#[derive(Debug)]
struct Bits(Vec<u8>);

impl Bits {
    fn new(slots: u32) -> Self {
        Self(vec![0; slots as usize / 8])
    }

    fn get(&self, index: u32) -> bool {
        self.0.get(index as usize / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    }

    /// Whether it is another one than before.
    fn set(&mut self, index: u32, to: bool) -> bool {
        let Some(byte) = self.0.get_mut(index as usize / 8) else { return false };
        let before = *byte;
        let mask = 1 << (index % 8);
        *byte = if to { before | mask } else { before & !mask };
        *byte != before
    }
}

#[derive(Debug)]
pub(super) struct Slots {
    count: u32,
    /// How many were ever given.
    given: u32,
    /// Never to be given again.
    taken: Bits,
    /// Shows how its lease is, and nothing else.
    held: Bits,
    ended: Bits,
    decoys: Decoys,
}

impl Slots {
    /// `count`: a power of two, at least 8.
    pub fn new(count: u32, seed: &[u8; 32]) -> Self {
        let bits = || Bits::new(count);
        Self { count, given: 0, taken: bits(), held: bits(), ended: bits(), decoys: Decoys::of(seed, count) }
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn given(&self) -> u32 {
        self.given
    }

    /// A place for a new lease, anywhere: one that nobody had, and that no list has shown as ended, so
    /// that no verifier's copy says so either. `None`: full, at three quarters, or before that where decoys
    /// have left hardly a place that shows 0.
    // SECURITY: `a_place_is_given_once_and_only_where_0_was_shown`.
    pub fn draw(&mut self, left: Left, random: u64) -> Option<u32> {
        if self.given >= self.count / 4 * 3 {
            return None;
        }
        let mut state = random;
        let free = (0..TRIES).find_map(|_| {
            let index = (mixed(&mut state) % u64::from(self.count)) as u32;
            (!self.taken.get(index) && !self.decoys.is_set(index, left)).then_some(index)
        })?;
        self.hold(free);
        Some(free)
    }

    /// The place is a lease's, as the store has it.
    pub fn hold(&mut self, index: u32) {
        self.held.set(index, true);
        self.given += u32::from(self.taken.set(index, true));
    }

    /// What was to be issued was not: nobody has the place, and nobody will.
    pub fn give_back(&mut self, index: u32) {
        self.held.set(index, false);
    }

    /// Whether this is news.
    pub fn end(&mut self, index: u32) -> bool {
        self.ended.set(index, true)
    }

    /// The list as it is to be read now.
    pub fn bytes(&self, left: Left) -> Vec<u8> {
        let own = self.held.0.iter().zip(&self.ended.0);
        own.zip(self.decoys.bytes(left)).map(|((held, ended), decoy)| held & ended | !held & decoy).collect()
    }
}

/// SplitMix64: the first number is as unpredictable as the state was.
fn mixed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut number = *state;
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const HOUR_S: i64 = 1_800_003_600;

    fn left(before_end_s: i64) -> Left {
        Left::at(HOUR_S - before_end_s, HOUR_S)
    }

    fn bit(bytes: &[u8], index: u32) -> bool {
        bytes[index as usize / 8] >> (index % 8) & 1 == 1
    }

    #[test]
    fn a_place_is_given_once_and_only_where_0_was_shown() {
        // Long before the hour hardly a decoy is set: three quarters. While they come, fewer places show 0.
        for (passes, places) in [(false, 3_072..=3_072), (true, 2_048..=3_072)] {
            let mut slots = Slots::new(4_096, &[3; 32]);
            let mut given = HashSet::new();
            for number in 0_u64.. {
                let now = left(if passes { 3_000 - number as i64 / 2 } else { 80_000 });
                let before = slots.bytes(now);
                let Some(index) = slots.draw(now, number) else { break };
                assert!(!bit(&before, index) && given.insert(index), "{index}");
            }
            assert!(places.contains(&slots.given()), "{}", slots.given());
            assert_eq!(given.len(), slots.given() as usize);
            let last = slots.bytes(left(-60));
            assert!(given.iter().all(|index| !bit(&last, *index)), "what lives is never shown as ended");
        }
    }

    #[test]
    fn an_end_is_shown_and_stays() {
        let mut slots = Slots::new(4_096, &[4; 32]);
        let (one, other) = (slots.draw(left(900), 1).unwrap(), slots.draw(left(900), 2).unwrap());
        assert!(slots.end(one) && !slots.end(one));
        for before_end_s in [900, 10, -100] {
            let bytes = slots.bytes(left(before_end_s));
            assert!(bit(&bytes, one) && !bit(&bytes, other));
        }
    }

    #[test]
    fn what_was_not_issued_is_a_decoy_again_and_nobodys_place() {
        let mut slots = Slots::new(8, &[5; 32]);
        let mut given = HashSet::new();
        for number in 0..1_000 {
            let Some(index) = slots.draw(left(80_000), number) else { continue };
            assert!(given.insert(index));
            slots.give_back(index);
        }
        assert_eq!(given.len(), 6, "three quarters of eight");
        let untouched = Slots::new(8, &[5; 32]);
        assert_eq!(slots.bytes(left(-1)), untouched.bytes(left(-1)));
    }
}
