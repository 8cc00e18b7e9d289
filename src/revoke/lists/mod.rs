//! Status lists (draft-ietf-oauth-status-list-21): which list a lease stands on, at which place, and what
//! the list shows.
//!
//! A list belongs to an hour of expiry and to one target, or to the small targets of an environment: a
//! target begins on the shared one and gets its own once [`SMALL`] of its leases stood there in the hour.
//! In: wishes for a place, committed rows, ends. Out: places, and lists to be signed. Nothing here reads
//! the lease table: `flow` says what has ended.

mod decoys;
mod press;
mod slots;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dayfly_domain::{LeaseId, ListId, UnixMs};
use dayfly_verifier::status::{EncodedList, ListClaims, StatusBits, StatusList};

use crate::store::{Change, LeaseRow, ListRow, StatusSlot};
use decoys::Left;
use press::Press;
pub use press::{LIST_TTL_S, PRESS_EACH_MS, Published};
use slots::Slots;

/// Places of a list that the small targets of an environment share.
pub const SHARED_SLOTS: u32 = 4_096;
/// Leases of one target and hour on a shared list before it gets its own.
pub const SMALL: u32 = 512;
/// Places of a target's first own list in an hour.
pub const OWN_SLOTS: u32 = 16_384;
/// Places of any further one, and the most there are.
pub const LIST_SLOTS_MAX: u32 = 1 << 17;
/// How long after its hour a list is still served: the longest leeway of a server.
pub const SERVED_AFTER_S: i64 = 300;
const HOUR_S: i64 = 3_600;
/// Of finding a place on an empty list.
const TRIES: u64 = 64;

/// How large lists are.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub shared: u32,
    pub small: u32,
    pub own: u32,
    pub most: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { shared: SHARED_SLOTS, small: SMALL, own: OWN_SLOTS, most: LIST_SLOTS_MAX }
    }
}

/// Whose leases stand on a list. Its text is the scope of a [`ListRow`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    Target(Arc<str>),
    Environment(Arc<str>),
}

/// A credential that is about to be signed.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    pub target: &'a str,
    pub environment: &'a str,
    pub expires: UnixMs,
}

/// A list, as those see it whose leases stand on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListView {
    pub id: ListId,
    pub scope: Scope,
    /// The end of its hour.
    pub until: UnixMs,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListCounts {
    pub lists: usize,
    pub slots: u64,
    pub given: u64,
}

/// A list that reads differently from what was signed last.
#[derive(Debug)]
pub struct Proof {
    pub bytes: Vec<u8>,
    /// When what it shows for the first time ended.
    pub news: Vec<UnixMs>,
}

/// All lists that may still be asked for.
#[derive(Debug, Default)]
pub struct Lists {
    sizes: Sizes,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lists: HashMap<ListId, List>,
    /// The one that is being filled.
    open: HashMap<(Scope, i64), ListId>,
    /// How many leases of a target and hour stand on shared lists.
    shared: HashMap<(Arc<str>, i64), u32>,
    /// Where a lease stands, until it has expired.
    places: HashMap<LeaseKey, Place>,
    /// Lists by the numbers that places name them by.
    numbers: HashMap<u32, ListId>,
    next: u32,
    /// Ends that lie ahead, by lease.
    ahead: HashMap<LeaseKey, UnixMs>,
}

type LeaseKey = [u8; 16];

/// As a [`StatusSlot`], in a quarter of its room: there is one for each listed lease.
#[derive(Debug, Clone, Copy)]
struct Place {
    list: u32,
    index: u32,
}

#[derive(Debug)]
struct List {
    row: ListRow,
    scope: Scope,
    number: u32,
    slots: Slots,
    /// Its row is in the store.
    written: bool,
    press: Arc<Mutex<Press>>,
    /// When those ended that no signed list shows yet.
    news: Vec<UnixMs>,
}

/// Ends that wait for a list that nobody reads, of which the delay is measured.
const NEWS_MAX: usize = 1_024;

impl Scope {
    fn of_text(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("target", name) => Some(Self::Target(name.into())),
            ("environment", name) => Some(Self::Environment(name.into())),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Target(name) => format!("target:{name}"),
            Self::Environment(name) => format!("environment:{name}"),
        }
    }
}

/// The end of the hour in which something expires.
fn hour_of(expires: UnixMs) -> i64 {
    let expires_s = expires.plus_ms(999).as_s();
    (expires_s + HOUR_S - 1).div_euclid(HOUR_S) * HOUR_S
}

impl Lists {
    pub fn with_sizes(sizes: Sizes) -> Self {
        Self { sizes, inner: Mutex::default() }
    }

    /// A place for a credential, on a list that is made where there is none with room. `random`: 56 bytes
    /// that nobody can guess.
    pub fn reserve(&self, wish: Wish<'_>, now: UnixMs, random: &[u8; 56]) -> StatusSlot {
        let hour_s = hour_of(wish.expires);
        let left = Left::at(now.as_s(), hour_s);
        let (draw, id, seed) = parted(random);
        let mut inner = self.inner();
        let mut scope = Scope::Environment(wish.environment.into());
        let on_shared = inner.shared.entry((wish.target.into(), hour_s)).or_default();
        if *on_shared >= self.sizes.small {
            scope = Scope::Target(wish.target.into());
        } else {
            *on_shared += 1;
        }
        let key = (scope, hour_s);
        let open = inner.open.get(&key).copied();
        if let Some(list) = open
            && let Some(index) = inner.lists.get_mut(&list).and_then(|list| list.slots.draw(left, draw))
        {
            return StatusSlot { list, index };
        }
        let slots = self.size(&key.0, open.is_some());
        let row = ListRow { id: ListId::from_u128(id), scope: key.0.text(), hour_s, slots, seed };
        let mut list = inner.number(row, key.0.clone(), false);
        // INVARIANT: of an empty list's places at most half are decoys that have turned.
        let index = (0..TRIES).find_map(|again| list.slots.draw(left, draw.wrapping_add(again)));
        let index = index.expect("an empty list has room");
        let id = list.row.id;
        inner.lists.insert(id, list);
        inner.open.insert(key, id);
        StatusSlot { list: id, index }
    }

    fn size(&self, scope: &Scope, further: bool) -> u32 {
        match scope {
            Scope::Environment(_) => self.sizes.shared,
            Scope::Target(_) if further => self.sizes.most,
            Scope::Target(_) => self.sizes.own,
        }
    }

    /// What was to be issued was not. Only where that is certain.
    pub fn give_back(&self, slot: StatusSlot) {
        if let Some(list) = self.inner().lists.get_mut(&slot.list) {
            list.slots.give_back(slot.index);
        }
    }

    /// The row of a list that no commit has written yet.
    pub fn unwritten(&self, list: ListId) -> Option<ListRow> {
        self.inner().lists.get(&list).filter(|list| !list.written).map(|list| list.row.clone())
    }

    /// Folds one committed change in, before the lease table does: what it knows can end.
    pub fn apply(&self, change: &Change) {
        match change {
            Change::AddList(row) => self.inner().add(row),
            Change::AddLease(LeaseRow { id, target, expires, status: Some(slot), .. }) => {
                self.inner().hold(*id, target, *expires, *slot);
            }
            _ => {}
        }
    }

    /// Whether any lease stands on a list.
    pub fn is_empty(&self) -> bool {
        self.inner().lists.is_empty()
    }

    /// Every lease that stands on a list and has not expired.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.inner().places.keys().copied().map(lease_of).collect()
    }

    /// Leases whose end was ahead, and is due.
    pub fn due(&self, now: UnixMs) -> Vec<LeaseId> {
        let mut inner = self.inner();
        let due: Vec<LeaseKey> = inner.ahead.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
        for key in &due {
            inner.ahead.remove(key);
        }
        due.into_iter().map(lease_of).collect()
    }

    /// The lease ends then, if it is not over before.
    pub fn ends_at(&self, lease: LeaseId, at: UnixMs) {
        let mut inner = self.inner();
        let key = key_of(lease);
        if inner.places.contains_key(&key) {
            inner.ahead.insert(key, at);
        }
    }

    /// The lease has ended: from now on its list shows it.
    pub fn end(&self, lease: LeaseId, ended_at: UnixMs) {
        self.inner().end(key_of(lease), Some(ended_at));
    }

    /// The lease has expired, and its place shows for ever how it was then.
    pub fn over(&self, lease: LeaseId, ended: bool) {
        let mut inner = self.inner();
        let key = key_of(lease);
        if ended {
            inner.end(key, None);
        }
        inner.ahead.remove(&key);
        inner.places.remove(&key);
    }

    /// Forgets lists whose leases no server accepts any more.
    pub fn forget(&self, now: UnixMs) {
        let mut inner = self.inner();
        let over = |hour_s: i64| hour_s + SERVED_AFTER_S <= now.as_s();
        if !inner.lists.values().any(|list| over(list.row.hour_s)) {
            return;
        }
        inner.lists.retain(|_, list| !over(list.row.hour_s));
        inner.open.retain(|(_, hour_s), _| !over(*hour_s));
        inner.shared.retain(|(_, hour_s), _| !over(*hour_s));
        let Inner { places, lists, numbers, .. } = &mut *inner;
        numbers.retain(|_, id| lists.contains_key(id));
        places.retain(|_, place| numbers.contains_key(&place.list));
    }

    pub fn scope(&self, list: ListId) -> Option<Scope> {
        self.inner().lists.get(&list).map(|list| list.scope.clone())
    }

    pub fn views(&self) -> Vec<ListView> {
        let view = |list: &List| ListView {
            id: list.row.id,
            scope: list.scope.clone(),
            until: UnixMs::from_s(list.row.hour_s),
        };
        let mut views: Vec<_> = self.inner().lists.values().map(view).collect();
        views.sort_by_key(|view| (view.until, view.id));
        views
    }

    pub fn counts(&self) -> ListCounts {
        let inner = self.inner();
        let add = |sum: ListCounts, list: &List| ListCounts {
            lists: sum.lists + 1,
            slots: sum.slots + u64::from(list.slots.count()),
            given: sum.given + u64::from(list.slots.given()),
        };
        inner.lists.values().fold(ListCounts::default(), add)
    }

    /// What can be sent at once: a list that was looked at within the second. The outer `None`: no such list.
    pub fn ready(&self, list: ListId, now: UnixMs) -> Option<Option<Arc<Published>>> {
        let press = self.press(list)?;
        // Somebody is at it: it will be there in a moment.
        Some(press.try_lock().ok().and_then(|press| press.ready(now)))
    }

    /// The list as it is to be sent: the one of last time where that says the same, otherwise signed by
    /// `sign`. One at a time for each list. `None`: no such list.
    pub fn publish<E>(
        &self,
        list: ListId,
        life_s: u32,
        now: UnixMs,
        sign: impl FnOnce(Proof) -> Result<Published, E>,
    ) -> Option<Result<Arc<Published>, E>> {
        let press = self.press(list)?;
        let mut press = lock(&press);
        if let Some(published) = press.ready(now) {
            return Some(Ok(published));
        }
        let bytes = self.bytes(list, now)?;
        if let Some(published) = press.same(&bytes, life_s, now) {
            return Some(Ok(published));
        }
        let news = self.inner().lists.get_mut(&list).map(|list| std::mem::take(&mut list.news)).unwrap_or_default();
        let signed = sign(Proof { bytes: bytes.clone(), news }).map(Arc::new);
        if let Ok(published) = &signed {
            press.keep(published.clone(), bytes, life_s, now);
        }
        Some(signed)
    }

    /// Nothing that was signed up to now is sent again.
    pub fn recall(&self) {
        let presses: Vec<_> = self.inner().lists.values().map(|list| list.press.clone()).collect();
        presses.iter().for_each(|press| *lock(press) = Press::default());
    }

    /// Whether a server that asks now reads this lease as ended. `None`: it stands on no list.
    pub fn would_show(&self, lease: LeaseId, now: UnixMs) -> Option<bool> {
        let inner = self.inner();
        let place = inner.places.get(&key_of(lease))?;
        let press = &inner.lists.get(inner.numbers.get(&place.list)?)?.press;
        // One that is being signed may be without it.
        Some(press.try_lock().is_ok_and(|press| press.would_show(place.index, now)))
    }

    /// Whether some list was looked at within the second: whoever asks for it may read it as it was then.
    pub fn is_any_fresh(&self, now: UnixMs) -> bool {
        let fresh = |list: &List| list.press.try_lock().map_or(true, |press| press.ready(now).is_some());
        self.inner().lists.values().any(fresh)
    }

    fn press(&self, list: ListId) -> Option<Arc<Mutex<Press>>> {
        self.inner().lists.get(&list).map(|list| list.press.clone())
    }

    fn bytes(&self, list: ListId, now: UnixMs) -> Option<Vec<u8>> {
        let inner = self.inner();
        let list = inner.lists.get(&list)?;
        Some(list.slots.bytes(Left::at(now.as_s(), list.row.hour_s)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    fn add(&mut self, row: &ListRow) {
        if let Some(list) = self.lists.get_mut(&row.id) {
            list.written = true;
            return;
        }
        // A scope that another version wrote: its leases are shown, and nobody joins them.
        let known = Scope::of_text(&row.scope);
        if let Some(scope) = &known {
            self.open.insert((scope.clone(), row.hour_s), row.id);
        }
        let scope = known.unwrap_or_else(|| Scope::Target(row.scope.as_str().into()));
        let list = self.number(row.clone(), scope, true);
        self.lists.insert(row.id, list);
    }

    fn number(&mut self, row: ListRow, scope: Scope, written: bool) -> List {
        let number = self.next;
        self.next += 1;
        self.numbers.insert(number, row.id);
        let slots = Slots::new(row.slots, &row.seed);
        List { row, scope, number, slots, written, press: Arc::default(), news: Vec::new() }
    }

    fn hold(&mut self, lease: LeaseId, target: &str, expires: UnixMs, slot: StatusSlot) {
        let Some(list) = self.lists.get_mut(&slot.list) else { return };
        let before = list.slots.given();
        list.slots.hold(slot.index);
        // Of a place that was reserved by this process it was counted then.
        if list.slots.given() > before && matches!(list.scope, Scope::Environment(_)) {
            *self.shared.entry((target.into(), hour_of(expires))).or_default() += 1;
        }
        self.places.insert(key_of(lease), Place { list: list.number, index: slot.index });
    }

    fn end(&mut self, key: LeaseKey, ended_at: Option<UnixMs>) {
        let Some(place) = self.places.get(&key) else { return };
        let list = self.numbers.get(&place.list).and_then(|id| self.lists.get_mut(id));
        let Some(list) = list else { return };
        if list.slots.end(place.index) && list.news.len() < NEWS_MAX {
            list.news.extend(ended_at);
        }
        self.ahead.remove(&key);
    }
}

/// What is signed of a list: its bits, and for how long they hold.
pub fn list_claims(uri: String, bytes: Vec<u8>, life_s: u32, now: UnixMs) -> ListClaims {
    ListClaims {
        sub: uri,
        iat: now.as_s(),
        exp: now.as_s() + i64::from(life_s),
        ttl: LIST_TTL_S,
        status_list: EncodedList::of(&StatusList::from_bytes(StatusBits::One, bytes)),
    }
}

fn parted(random: &[u8; 56]) -> (u64, u128, [u8; 32]) {
    let (mut draw, mut id, mut seed) = ([0; 8], [0; 16], [0; 32]);
    draw.copy_from_slice(&random[..8]);
    id.copy_from_slice(&random[8..24]);
    seed.copy_from_slice(&random[24..]);
    (u64::from_be_bytes(draw), u128::from_be_bytes(id), seed)
}

fn key_of(lease: LeaseId) -> LeaseKey {
    lease.as_u128().to_be_bytes()
}

fn lease_of(key: LeaseKey) -> LeaseId {
    LeaseId::from_u128(u128::from_be_bytes(key))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
