//! Status lists, fetched when they are needed and kept as long as they say.
//!
//! In comes the URL of a list of our own broker; out goes a list that is not expired, and not older
//! than its `ttl` as long as it can be fetched. One fetch at a time per list.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use hyper::body::Bytes;

use super::{KeptKeys, Outage, https::Https};
use crate::{
    Clock, Refused,
    status::{self, LIST_MEDIA_TYPE, ListRefusal, ListToken},
};

/// Most lists that are kept. One audience has one for each hour of expiry.
const LISTS_MAX: usize = 256;

/// How long after a fetch that failed the next one is tried; until then the list at hand is used.
const RETRY_MS: i64 = 5_000;

pub(super) struct Lists {
    https: Arc<Https>,
    issuer: Arc<str>,
    clock: Arc<dyn Clock>,
    entries_max: u32,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    kept: Mutex<Kept>,
    /// Held while fetching: one at a time.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default, Clone)]
struct Kept {
    held: Option<Held>,
    /// When the last fetch failed, and why.
    failed: Option<(i64, Outage)>,
}

/// Times are milliseconds of the steady clock.
#[derive(Clone)]
struct Held {
    list: Arc<ListToken>,
    fetched_ms: i64,
    /// Its `exp`, so that setting the wall clock back keeps no list alive.
    until_ms: i64,
}

impl Held {
    fn is_fresh(&self, at_ms: i64) -> bool {
        let ttl_ms = i64::from(self.list.ttl_s()) * 1000;
        (self.fetched_ms..self.fetched_ms.saturating_add(ttl_ms)).contains(&at_ms)
    }

    /// How much of its `ttl` is over: half of it is when to look again ahead of need.
    fn is_half_over(&self, at_ms: i64) -> bool {
        at_ms < self.fetched_ms || at_ms - self.fetched_ms >= i64::from(self.list.ttl_s()) * 500
    }
}

impl Lists {
    pub(super) fn new(keys: &KeptKeys, clock: Arc<dyn Clock>, entries_max: u32) -> Self {
        Self { https: keys.https(), issuer: keys.issuer(), clock, entries_max, slots: Mutex::default() }
    }

    /// The list of this URL, which is one of our broker's own.
    // SECURITY: an_expired_list_is_refused_when_no_newer_one_can_be_had, fifty_requests_cause_one_fetch
    pub(super) async fn get(&self, uri: &str, keys: &KeptKeys) -> Result<Arc<ListToken>, Refused> {
        let slot = self.slot(uri);
        if let Some(list) = self.usable(&slot, Held::is_fresh) {
            return Ok(list);
        }
        let any = self.usable(&slot, |_, _| true);
        let _fetching = match slot.fetching.try_lock() {
            Ok(guard) => guard,
            Err(_) => match any {
                // The broker is away, and somebody else is asking whether it is back.
                Some(list) if slot.read(|kept| kept.failed.is_some()) => return Ok(list),
                _ => slot.fetching.lock().await,
            },
        };
        if self.usable(&slot, Held::is_fresh).is_none() && self.may_try(&slot) {
            self.fetch(&slot, uri, keys).await;
        }
        self.usable(&slot, |_, _| true).ok_or_else(|| self.refusal(&slot))
    }

    /// Fetches again what is half over, so that no request has to wait for it. Drops what is expired.
    pub(super) async fn refresh(&self, keys: &KeptKeys) {
        for (uri, slot) in self.alive() {
            let at_ms = self.clock.steady_ms();
            let due = slot.read(|kept| kept.held.as_ref().is_some_and(|held| held.is_half_over(at_ms)));
            let Ok(_fetching) = slot.fetching.try_lock() else { continue };
            if due && self.may_try(&slot) {
                self.fetch(&slot, &uri, keys).await;
            }
        }
    }

    pub(super) fn last_outage(&self) -> Option<Outage> {
        let slots = self.slots();
        let failed = slots.values().filter_map(|slot| slot.read(|kept| kept.failed));
        failed.max_by_key(|(at_ms, _)| *at_ms).map(|(_, outage)| outage)
    }

    async fn fetch(&self, slot: &Slot, uri: &str, keys: &KeptKeys) {
        // A list is as old as the question for it.
        let asked_ms = self.clock.steady_ms();
        let outcome = match self.https.get_as(uri, LIST_MEDIA_TYPE).await {
            Ok(body) => self.read(&body, uri, keys).await.map_err(Outage::List),
            Err(outage) => Err(outage),
        };
        let (now, at_ms) = (self.clock.now(), self.clock.steady_ms());
        slot.write(|kept| match outcome {
            // SECURITY: an_older_list_does_not_replace_a_newer_one
            Ok(list) if kept.held.as_ref().is_none_or(|held| held.list.issued_at_s() <= list.issued_at_s()) => {
                let left_ms = list.expires_at_s().saturating_mul(1000).saturating_sub(now.as_ms());
                let until_ms = at_ms.saturating_add(left_ms);
                kept.held = Some(Held { list: Arc::new(list), fetched_ms: asked_ms, until_ms });
                kept.failed = None;
            }
            Ok(_) => kept.failed = Some((at_ms, Outage::OlderList)),
            Err(outage) => kept.failed = Some((at_ms, outage)),
        });
    }

    async fn read(&self, body: &Bytes, uri: &str, keys: &KeptKeys) -> Result<ListToken, ListRefusal> {
        let text = std::str::from_utf8(body).unwrap_or_default().trim_ascii_end();
        let jws = status::parse(text)?;
        keys.refresh_for(jws.kid(), jws.alg()).await;
        let keys = keys.current().ok_or(ListRefusal::Token(crate::Refusal::UnknownKey))?;
        let list = ListToken::of(&jws, &keys, &self.issuer, self.entries_max, self.clock.now())?;
        // SECURITY: a_list_under_another_ones_url_is_refused
        if list.uri() == uri { Ok(list) } else { Err(ListRefusal::Subject) }
    }

    /// The list at hand, if it is not expired and good enough.
    fn usable(&self, slot: &Slot, good: impl FnOnce(&Held, i64) -> bool) -> Option<Arc<ListToken>> {
        let (now, at_ms) = (self.clock.now(), self.clock.steady_ms());
        slot.read(|kept| {
            let held = kept.held.as_ref()?;
            let alive = now.as_s() < held.list.expires_at_s() && at_ms < held.until_ms;
            (alive && good(held, at_ms)).then(|| held.list.clone())
        })
    }

    fn may_try(&self, slot: &Slot) -> bool {
        let at_ms = self.clock.steady_ms();
        slot.read(|kept| kept.failed.is_none_or(|(failed_ms, _)| !(failed_ms..failed_ms + RETRY_MS).contains(&at_ms)))
    }

    fn refusal(&self, slot: &Slot) -> Refused {
        slot.read(|kept| match (&kept.held, kept.failed) {
            (Some(_), _) => ListRefusal::Expired.into(),
            (None, Some((_, Outage::List(refusal)))) => refusal.into(),
            (None, _) => ListRefusal::Missing.into(),
        })
    }

    fn slot(&self, uri: &str) -> Arc<Slot> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(uri) {
            return slot.clone();
        }
        if slots.len() >= LISTS_MAX {
            self.make_room(&mut slots);
        }
        slots.entry(uri.to_owned()).or_default().clone()
    }

    /// Drops what says nothing any more; while that is not enough, the one that ends first.
    fn make_room(&self, slots: &mut HashMap<String, Arc<Slot>>) {
        let at_ms = self.clock.steady_ms();
        let end = |slot: &Slot| slot.read(|kept| kept.held.as_ref().map(|held| held.until_ms));
        slots.retain(|_, slot| end(slot).is_some_and(|until_ms| at_ms < until_ms));
        if slots.len() >= LISTS_MAX {
            let first = slots.iter().min_by_key(|(_, slot)| end(slot)).map(|(uri, _)| uri.clone());
            first.map(|uri| slots.remove(&uri));
        }
    }

    fn alive(&self) -> Vec<(String, Arc<Slot>)> {
        let at_ms = self.clock.steady_ms();
        let mut slots = self.slots();
        slots.retain(|_, slot| slot.read(|kept| kept.held.as_ref().is_none_or(|held| at_ms < held.until_ms)));
        slots.iter().map(|(uri, slot)| (uri.clone(), slot.clone())).collect()
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn read<T>(&self, read: impl FnOnce(&Kept) -> T) -> T {
        read(&self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, write: impl FnOnce(&mut Kept)) {
        write(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
