//! What the broker said about tokens, by SHA-256 of the token, for a bounded time and in a bounded
//! space. The tokens themselves are not kept.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

const ANSWERS_MAX: usize = 10_000;

type TokenHash = [u8; 32];

#[derive(Clone, Copy, PartialEq, Eq)]
struct Answer {
    active: bool,
    asked_ms: i64,
    until_ms: i64,
}

impl Answer {
    /// Not before it was asked either: a clock that jumped back keeps nothing alive.
    fn holds(&self, at_ms: i64) -> bool {
        (self.asked_ms..self.until_ms).contains(&at_ms)
    }
}

/// Times are milliseconds of the steady clock.
pub(super) struct Answers {
    by_token: HashMap<TokenHash, Answer>,
    /// In the order in which they came; may name answers that a newer one has replaced.
    order: VecDeque<(TokenHash, Answer)>,
    max_stale_ms: i64,
}

impl Answers {
    pub(super) fn new(max_stale: Duration) -> Self {
        let max_stale_ms = i64::try_from(max_stale.as_millis()).unwrap_or(i64::MAX);
        Self { by_token: HashMap::new(), order: VecDeque::new(), max_stale_ms }
    }

    pub(super) fn get(&self, token: &TokenHash, at_ms: i64) -> Option<bool> {
        self.by_token.get(token).filter(|answer| answer.holds(at_ms)).map(|answer| answer.active)
    }

    /// `left_ms`: how long the token lives; its answer is kept no longer.
    pub(super) fn put(&mut self, token: TokenHash, active: bool, asked_ms: i64, left_ms: i64) {
        let until_ms = asked_ms.saturating_add(self.max_stale_ms.min(left_ms));
        if until_ms <= asked_ms {
            return;
        }
        self.make_room(asked_ms);
        let answer = Answer { active, asked_ms, until_ms };
        self.by_token.insert(token, answer);
        self.order.push_back((token, answer));
    }

    /// Drops what is over, and the oldest while it is full.
    fn make_room(&mut self, at_ms: i64) {
        while let Some((token, oldest)) = self.order.front().copied() {
            if oldest.holds(at_ms) && self.order.len() < ANSWERS_MAX {
                return;
            }
            self.order.pop_front();
            if self.by_token.get(&token) == Some(&oldest) {
                self.by_token.remove(&token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u32) -> TokenHash {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        hash
    }

    #[test]
    fn an_answer_holds_for_max_stale_and_not_past_exp() {
        let mut answers = Answers::new(Duration::from_secs(5));
        answers.put(hash(1), true, 1_000, 60_000);
        answers.put(hash(2), false, 1_000, 2_000);
        let known = |number, at_ms| answers.get(&hash(number), at_ms);
        assert_eq!((known(1, 1_000), known(1, 5_999), known(1, 6_000)), (Some(true), Some(true), None));
        assert_eq!((known(2, 2_999), known(2, 3_000), known(3, 1_000)), (Some(false), None, None));
        assert_eq!(known(1, 999), None, "a clock set back");
    }

    #[test]
    fn without_max_stale_nothing_is_kept() {
        let mut answers = Answers::new(Duration::ZERO);
        answers.put(hash(1), true, 1_000, 60_000);
        assert_eq!(answers.get(&hash(1), 1_000), None);
        assert!(answers.order.is_empty() && answers.by_token.is_empty());
    }

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let mut answers = Answers::new(Duration::from_secs(5));
        for number in 0..ANSWERS_MAX as u32 + 10 {
            answers.put(hash(number), true, 1_000, 60_000);
        }
        assert!(answers.by_token.len() <= ANSWERS_MAX && answers.order.len() <= ANSWERS_MAX);
        assert_eq!((answers.get(&hash(0), 1_000), answers.get(&hash(10), 1_000)), (None, Some(true)));
        answers.put(hash(0), true, 9_000, 60_000);
        assert_eq!(answers.by_token.len(), 1, "the stale make room");
    }

    #[test]
    fn a_newer_answer_outlives_the_older_ones_place() {
        let mut answers = Answers::new(Duration::from_secs(5));
        answers.put(hash(1), true, 0, 60_000);
        answers.put(hash(1), false, 4_000, 60_000);
        answers.put(hash(2), true, 6_000, 60_000);
        assert_eq!(answers.get(&hash(1), 6_000), Some(false));
    }
}
