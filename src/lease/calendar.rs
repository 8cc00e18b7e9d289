//! When what expires: one bucket per second, checked lazily. No timer and no write per lease.

use std::collections::BTreeMap;

use dayfly_domain::UnixMs;

/// Ids by the second after which they have expired.
#[derive(Debug)]
pub struct Calendar<T> {
    buckets: BTreeMap<i64, Vec<T>>,
}

impl<T> Default for Calendar<T> {
    fn default() -> Self {
        Self { buckets: BTreeMap::new() }
    }
}

impl<T> Calendar<T> {
    pub fn insert(&mut self, at: UnixMs, id: T) {
        // Rounded up: nothing is drained before it has expired.
        let second = at.plus_ms(999).as_s();
        self.buckets.entry(second).or_default().push(id);
    }

    /// Takes at most `max` of what is due at `now`, earliest first.
    pub fn drain(&mut self, now: UnixMs, max: usize) -> Vec<T> {
        let mut due = Vec::new();
        while due.len() < max {
            let Some(mut bucket) = self.buckets.first_entry().filter(|bucket| *bucket.key() <= now.as_s()) else {
                break;
            };
            let room = max - due.len();
            if bucket.get().len() <= room {
                due.append(&mut bucket.remove());
            } else {
                due.extend(bucket.get_mut().drain(..room));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drains_what_is_due_in_bounded_slices() {
        let mut calendar = Calendar::default();
        for id in 0..5 {
            calendar.insert(UnixMs::from_s(10), id);
        }
        calendar.insert(UnixMs::new(10_001), 9);
        assert!(calendar.drain(UnixMs::new(9_999), 10).is_empty());
        assert_eq!(calendar.drain(UnixMs::from_s(10), 3), [0, 1, 2]);
        assert_eq!(calendar.drain(UnixMs::from_s(10), 3), [3, 4]);
        assert!(calendar.drain(UnixMs::from_s(10), 3).is_empty());
        assert_eq!(calendar.drain(UnixMs::from_s(11), 3), [9]);
    }
}
