//! When a list is signed anew: on the first question after it reads differently, and at most once a second.

use std::sync::Arc;

use dayfly_domain::UnixMs;

/// How soon a verifier is to look again, in seconds: the list's `ttl`.
pub const LIST_TTL_S: u32 = 15;
/// A list is looked through and signed no more often than this.
pub const PRESS_EACH_MS: i64 = 1_000;

/// A list as it is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    /// The status list token.
    pub token: String,
    /// Names this state of it, quoted.
    pub etag: String,
}

#[derive(Debug, Default)]
pub(super) struct Press {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    published: Arc<Published>,
    bytes: Vec<u8>,
    signed_at: UnixMs,
    /// When it was last held against the leases.
    looked_at: UnixMs,
    life_s: u32,
}

impl Press {
    /// What may be sent without a look at the list.
    pub fn ready(&self, now: UnixMs) -> Option<Arc<Published>> {
        self.last.as_ref().filter(|last| last.is_fresh(now)).map(|last| last.published.clone())
    }

    /// What may be sent although it was looked at: it reads the same, and has half of its life before it.
    pub fn same(&mut self, bytes: &[u8], life_s: u32, now: UnixMs) -> Option<Arc<Published>> {
        let last = self.last.as_mut()?;
        let half = last.signed_at.plus_s(i64::from(last.life_s.min(life_s)) / 2);
        if last.bytes != bytes || now >= half || now < last.signed_at {
            return None;
        }
        last.looked_at = now;
        Some(last.published.clone())
    }

    pub fn keep(&mut self, published: Arc<Published>, bytes: Vec<u8>, life_s: u32, now: UnixMs) {
        self.last = Some(Last { published, bytes, signed_at: now, looked_at: now, life_s });
    }

    /// Whether whoever asks now reads this place as ended.
    pub fn would_show(&self, index: u32, now: UnixMs) -> bool {
        let shown = |last: &Last| last.bytes.get(index as usize / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1);
        self.last.as_ref().is_none_or(|last| !last.is_fresh(now) || shown(last))
    }
}

impl Last {
    fn is_fresh(&self, now: UnixMs) -> bool {
        (self.looked_at..self.looked_at.plus_ms(PRESS_EACH_MS)).contains(&now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: UnixMs = UnixMs::from_s(1_800_000_000);

    fn kept(bytes: &[u8]) -> Press {
        let mut press = Press::default();
        let published = Published { token: "a.b.c".into(), etag: "\"1\"".into() };
        press.keep(Arc::new(published), bytes.to_vec(), 300, AT);
        press
    }

    #[test]
    fn a_list_is_looked_at_once_a_second() {
        let mut press = kept(&[0]);
        assert!(press.ready(AT.plus_ms(999)).is_some() && press.ready(AT.plus_ms(1_000)).is_none());
        assert!(press.same(&[0], 300, AT.plus_ms(1_000)).is_some());
        assert!(press.ready(AT.plus_ms(1_999)).is_some());
        assert!(press.same(&[1], 300, AT.plus_s(2)).is_none(), "another list");
        assert!(press.ready(AT.plus_ms(-1)).is_none(), "a clock that went back");
    }

    #[test]
    fn a_list_is_signed_again_before_its_life_is_over() {
        let mut press = kept(&[0]);
        assert!(press.same(&[0], 300, AT.plus_s(149)).is_some() && press.same(&[0], 300, AT.plus_s(150)).is_none());
        assert!(press.same(&[0], 60, AT.plus_s(30)).is_none(), "and at once where it is to live shorter");
    }

    #[test]
    fn what_is_known_is_what_the_next_reader_sees() {
        let press = kept(&[0b10]);
        assert!(press.would_show(1, AT) && !press.would_show(0, AT) && !press.would_show(8, AT));
        assert!(press.would_show(0, AT.plus_s(1)), "it would be looked at first");
        assert!(Press::default().would_show(0, AT));
    }
}
