//! What a place on a list shows that nobody has: half of them turn from 0 to 1 at some time, the more of
//! them per minute the nearer the end of the list's hour, about as ends do. All of it follows from the
//! list's seed and the time, so that a list reads the same after a restart, and whoever watches it learns
//! neither how many of its leases have ended nor when.
//!
//! In: a seed and a moment. Out: bits, in the order of the list.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// How finely the time to the end of a list's hour is told, in seconds.
const TICK_S: i64 = 2;
/// The longest life of a credential and the hour in which it ends.
const SPAN_TICKS: u16 = (25 * 3_600 / TICK_S) as u16;
/// How often the span is halved: the last part is a minute and a half.
const OCTAVES: u32 = 11;

/// When the places of a list turn, by how many ticks are left then; 0: never.
#[derive(Debug)]
pub(super) struct Decoys(Vec<u16>);

/// How much of a list's life is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Left(u16);

impl Left {
    pub fn at(now_s: i64, hour_s: i64) -> Self {
        let ticks = ((hour_s - now_s) / TICK_S).clamp(1, i64::from(u16::MAX));
        // INVARIANT: it was just brought into the range of the type.
        Self(u16::try_from(ticks).expect("ticks are within 16 bits"))
    }
}

impl Decoys {
    /// `slots`: a multiple of 8.
    pub fn of(seed: &[u8; 32], slots: u32) -> Self {
        Self(keystream(seed, slots as usize * 4).chunks_exact(4).map(turns_at).collect())
    }

    pub fn is_set(&self, index: u32, left: Left) -> bool {
        self.0.get(index as usize).is_some_and(|turns| *turns >= left.0)
    }

    /// Bits, the first place in the lowest one.
    pub fn bytes(&self, left: Left) -> impl Iterator<Item = u8> {
        let bit = move |(place, turns): (usize, &u16)| u8::from(*turns >= left.0) << place;
        self.0.chunks_exact(8).map(move |eight| eight.iter().enumerate().map(bit).fold(0, |byte, bit| byte | bit))
    }
}

/// Of four random bytes: whether it turns at all, in which halving of the span, and when in that.
fn turns_at(random: &[u8]) -> u16 {
    let random = random.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    if random & 1 == 0 {
        return 0;
    }
    let longest = SPAN_TICKS >> ((random >> 1) % OCTAVES);
    let within = u32::from(longest / 2);
    longest - ((random >> 8) % within) as u16
}

/// What ChaCha20 adds to a text of zeros. A seed is used for this and nothing else.
fn keystream(seed: &[u8; 32], length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    // INVARIANT: the key has the length of the algorithm, and the text is far below its longest.
    let key = UnboundKey::new(&CHACHA20_POLY1305, seed).expect("a seed has 32 bytes");
    let sealed = LessSafeKey::new(key).seal_in_place_separate_tag(
        Nonce::assume_unique_for_key([0; 12]),
        Aad::empty(),
        &mut bytes,
    );
    let _tag = sealed.expect("a list is far shorter than what may be sealed at once");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_S: i64 = 1_800_003_600;

    fn set(decoys: &Decoys, before_end_s: i64) -> u32 {
        decoys.bytes(Left::at(HOUR_S - before_end_s, HOUR_S)).map(u8::count_ones).sum()
    }

    #[test]
    fn decoys_follow_from_the_seed_and_the_time() {
        let (one, other) = (Decoys::of(&[7; 32], 4_096), Decoys::of(&[8; 32], 4_096));
        let left = Left::at(HOUR_S - 600, HOUR_S);
        let bytes: Vec<u8> = one.bytes(left).collect();
        assert_eq!(bytes, Decoys::of(&[7; 32], 4_096).bytes(left).collect::<Vec<_>>());
        assert_ne!(bytes, other.bytes(left).collect::<Vec<_>>());
        let by_index = |index: u32| bytes[index as usize / 8] >> (index % 8) & 1 == 1;
        assert!((0..4_096).all(|index| by_index(index) == one.is_set(index, left)));
        assert!(!one.is_set(4_096, left));
    }

    #[test]
    fn they_turn_all_the_time_and_never_back() {
        let decoys = Decoys::of(&[9; 32], 16_384);
        let seen: Vec<u32> = (0..100).map(|minutes| set(&decoys, 6_000 - minutes * 60)).collect();
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "some in every minute: {seen:?}");
        let half = set(&decoys, -1_000);
        assert!((7_700..8_700).contains(&half) && set(&decoys, 0) == half, "about half of all in the end: {half}");
        assert!(set(&decoys, 24 * 3_600) < 900, "few before the first lease");
    }
}
