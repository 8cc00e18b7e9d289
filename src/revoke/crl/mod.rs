//! Certificate revocation lists (RFC 5280 section 5): which certificates have ended before their time, on
//! which list, and what that list says.
//!
//! Each CA has a fixed number of shards; a certificate's shard follows from its serial number, and each
//! list is complete for its shard. In: committed leases, ends. Out: what is to be signed, and the lists as
//! whoever fetches them reads them. Nothing here reads the lease table: `flow` says what has ended.

mod entry;
mod list;
mod shelf;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use dayfly_domain::{Kind, LeaseId, UnixMs};

use crate::{
    lease::End,
    store::{Change, LeaseRow},
};
pub use entry::{CrlEntry, CrlReason, Revocation, Serial};
pub use list::{CrlTerms, sign_crl};
pub use shelf::{CrlPlace, PublishedCrl, Shelf};

/// Lists are looked through and signed no more often than this.
pub const CRL_EACH_MS: i64 = 1_000;
/// And each is made anew at least so often.
pub const CRL_AT_LEAST_S: i64 = 60;
/// How long a server may go by a list, from when it was made: its `nextUpdate`.
pub const CRL_LIFE_S: u32 = 600;
/// How far `thisUpdate` lies back, as `notBefore` does: the clock of a server may be that much behind.
pub const CRL_BACK_S: i64 = 60;
/// How soon a list is to be fetched again: the answer's `max-age`.
pub const CRL_MAX_AGE_S: u32 = 15;
/// Under which the store remembers the last number.
pub const CRL_NUMBER_WORD: &str = "crl_number";

/// A list that is to be made.
#[derive(Debug)]
pub struct DueCrl {
    pub place: CrlPlace,
    pub entries: Vec<CrlEntry>,
    /// When what it shows for the first time ended.
    pub news: Vec<UnixMs>,
}

/// All certificates that live, and those that ended, until a list that was made after their time has said so.
#[derive(Debug, Default)]
pub struct Crls {
    inner: Mutex<Inner>,
    shelf: ArcSwap<Shelf>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Until they expire.
    live: HashMap<Serial, Held>,
    /// By the CA that signed them.
    ended: HashMap<Arc<str>, BTreeMap<Serial, Ended>>,
    /// Ends that lie ahead.
    ahead: HashMap<Serial, UnixMs>,
    number: u64,
    looked_at: Option<UnixMs>,
}

#[derive(Debug, Clone)]
struct Held {
    ca: Arc<str>,
    expires: UnixMs,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    revocation: Revocation,
    expires: UnixMs,
    /// A list that says so was made.
    shown: bool,
}

/// On which of a CA's shards a certificate is.
pub fn shard_of(serial: &Serial, shards: u32) -> u32 {
    // The last octets are random.
    let [.., a, b, c, d] = *serial;
    u32::from_be_bytes([a, b, c, d]) % shards.max(1)
}

impl Crls {
    /// Where the numbers of an earlier process ended.
    pub fn go_on_from(&self, number: u64) {
        let mut inner = self.inner();
        inner.number = inner.number.max(number);
    }

    /// Folds one committed change in, before the lease table does: what it knows can end.
    pub fn apply(&self, change: &Change) {
        if let Change::AddLease(LeaseRow { id, kind: Kind::X509, kid: Some(ca), expires, .. }) = change {
            let mut inner = self.inner();
            let held = Held { ca: inner.name(ca), expires: *expires };
            inner.live.insert(serial_of(*id), held);
        }
    }

    /// Whether there is no certificate that can end.
    pub fn is_empty(&self) -> bool {
        self.inner().live.is_empty()
    }

    /// Whether this is the lease of a certificate that has not expired.
    pub fn has(&self, lease: LeaseId) -> bool {
        self.inner().live.contains_key(&serial_of(lease))
    }

    /// Every certificate that has not expired.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.inner().live.keys().map(lease_of).collect()
    }

    /// Leases whose end was ahead, and is due.
    pub fn due_ends(&self, now: UnixMs) -> Vec<LeaseId> {
        let mut inner = self.inner();
        let due: Vec<Serial> = inner.ahead.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
        for key in &due {
            inner.ahead.remove(key);
        }
        due.iter().map(lease_of).collect()
    }

    /// The lease ends then, if it is not over before.
    pub fn ends_at(&self, lease: LeaseId, at: UnixMs) {
        let mut inner = self.inner();
        let serial = serial_of(lease);
        if inner.live.contains_key(&serial) {
            inner.ahead.insert(serial, at);
        }
    }

    /// The lease has ended: from now on its list says so.
    pub fn end(&self, lease: LeaseId, end: End) {
        self.inner().end(serial_of(lease), end);
    }

    /// The lease has expired, and this is how it had ended before.
    pub fn over(&self, lease: LeaseId, end: Option<End>) {
        let mut inner = self.inner();
        let serial = serial_of(lease);
        if let Some(end) = end {
            inner.end(serial, end);
        }
        inner.ahead.remove(&serial);
        inner.live.remove(&serial);
    }

    /// A CA below this one is no CA any more; its certificate would have been valid until `expires`.
    pub fn withdraw(&self, ca: &str, serial: Serial, revocation: Revocation, expires: UnixMs) {
        let mut inner = self.inner();
        let ca = inner.name(ca);
        inner.ended.entry(ca).or_default().entry(serial).or_insert(Ended { revocation, expires, shown: false });
    }

    /// Whoever fetches one next has them all held against what is true then.
    pub fn recall(&self) {
        self.inner().looked_at = None;
    }

    /// Whether the lists were held against the leases within the second.
    pub fn is_fresh(&self, now: UnixMs) -> bool {
        self.inner().is_fresh(now)
    }

    /// What has to be made now, of these CAs with so many shards each: lists that read differently, and those
    /// that are old or not there. What ended of any other CA is forgotten: nothing is left of it.
    pub fn due(&self, cas: &[(Arc<str>, u32)], now: UnixMs) -> Vec<DueCrl> {
        let shelf = self.shelf.load();
        let mut inner = self.inner();
        inner.ended.retain(|name, _| cas.iter().any(|(ca, _)| ca == name));
        let old = |place: &CrlPlace| shelf.get(place).is_none_or(|list| list.is_old(now));
        let lists = cas.iter().flat_map(|(ca, shards)| inner.lists(ca, *shards));
        lists.filter(|list| !list.news.is_empty() || old(&list.place)).collect()
    }

    /// Greater than every one before, and the time where that is greater (RFC 5280 section 5.2.3).
    pub fn next_number(&self, now: UnixMs) -> u64 {
        let mut inner = self.inner();
        let now_ms = u64::try_from(now.as_ms()).unwrap_or_default();
        inner.number = inner.number.saturating_add(1).max(now_ms);
        inner.number
    }

    /// These were made, and are what is fetched from now on. What expired before `thisUpdate` of the list that
    /// says it is not said again (section 3.3). `upper`: of the CAs above, which sign
    /// none here. Lists of other CAs are gone. `now`: when it was looked what is due.
    pub fn publish(
        &self,
        made: Vec<(DueCrl, PublishedCrl)>,
        cas: &[(Arc<str>, u32)],
        upper: Vec<(Arc<str>, Arc<[u8]>)>,
        now: UnixMs,
    ) {
        let mut shelf = Shelf::clone(&self.shelf.load());
        let changed = !made.is_empty();
        for (due, list) in made {
            self.inner().note_shown(&due, list.this_update);
            shelf.put(due.place, list);
        }
        let others = shelf.keep(cas, upper);
        if changed || others {
            shelf.bundle();
            self.shelf.store(Arc::new(shelf));
        }
        self.inner().looked_at = Some(now);
    }

    /// These were made later than the others, and take their places; nothing else was looked at.
    pub fn add(&self, made: Vec<(DueCrl, PublishedCrl)>) {
        let mut shelf = Shelf::clone(&self.shelf.load());
        for (due, list) in made {
            self.inner().note_shown(&due, list.this_update);
            shelf.put(due.place, list);
        }
        shelf.bundle();
        self.shelf.store(Arc::new(shelf));
    }

    pub fn shelf(&self) -> Arc<Shelf> {
        self.shelf.load_full()
    }

    /// Whether a server that fetches its list now reads of this end. `None`: it is no certificate, or over.
    pub fn would_show(&self, lease: LeaseId, now: UnixMs) -> Option<bool> {
        let inner = self.inner();
        let serial = serial_of(lease);
        let held = inner.live.get(&serial)?;
        let shown = || inner.ended.get(&held.ca).and_then(|ended| ended.get(&serial)).is_some_and(|ended| ended.shown);
        Some(!inner.is_fresh(now) || shown())
    }

    /// How many certificates live, and how many entries the lists have.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.live.len(), inner.ended.values().map(BTreeMap::len).sum())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// One text for all leases of a CA.
    fn name(&mut self, ca: &str) -> Arc<str> {
        if let Some((name, _)) = self.ended.get_key_value(ca) {
            return name.clone();
        }
        let name: Arc<str> = ca.into();
        self.ended.insert(name.clone(), BTreeMap::new());
        name
    }

    fn end(&mut self, serial: Serial, end: End) {
        let Some(held) = self.live.get(&serial) else { return };
        let revocation = Revocation { at: end.at, reason: end.cause.into() };
        let expires = held.expires;
        let ended = self.ended.entry(held.ca.clone()).or_default();
        if ended.get(&serial).is_none_or(|known| known.revocation != revocation) {
            ended.insert(serial, Ended { revocation, expires, shown: false });
        }
    }

    /// What each list of a CA says now.
    fn lists(&self, ca: &Arc<str>, shards: u32) -> Vec<DueCrl> {
        let list = |shard| DueCrl { place: (ca.clone(), shard), entries: Vec::new(), news: Vec::new() };
        let mut lists: Vec<_> = (0..shards).map(list).collect();
        for (serial, Ended { revocation, shown, .. }) in self.ended.get(ca).into_iter().flatten() {
            let list = &mut lists[shard_of(serial, shards) as usize];
            list.entries.push(CrlEntry { serial: *serial, revocation: *revocation });
            if !shown {
                list.news.push(revocation.at);
            }
        }
        lists
    }

    fn note_shown(&mut self, due: &DueCrl, this_update: UnixMs) {
        let Some(ended) = self.ended.get_mut(&due.place.0) else { return };
        for entry in &due.entries {
            // What changed meanwhile is shown by the next one.
            let said = ended.get_mut(&entry.serial).filter(|known| known.revocation == entry.revocation);
            let Some(known) = said else { continue };
            known.shown = true;
            if known.expires <= this_update {
                ended.remove(&entry.serial);
            }
        }
    }

    fn is_fresh(&self, now: UnixMs) -> bool {
        self.looked_at.is_some_and(|at| (at..at.plus_ms(CRL_EACH_MS)).contains(&now))
    }
}

/// A certificate's serial number is the id of its lease.
pub fn serial_of(lease: LeaseId) -> Serial {
    lease.as_u128().to_be_bytes()
}

pub fn lease_of(serial: &Serial) -> LeaseId {
    LeaseId::from_u128(u128::from_be_bytes(*serial))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
