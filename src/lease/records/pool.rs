//! What many records have in common, kept once and counted.

use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;

use super::slab::{Place, Slab};

#[derive(Debug)]
pub struct Pool<T> {
    shared: Slab<Option<Shared<T>>>,
    index: HashTable<Place>,
    /// Keyed: some of what is kept here is chosen by clients.
    hasher: RandomState,
}

#[derive(Debug)]
struct Shared<T> {
    value: T,
    users: u32,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { shared: Slab::default(), index: HashTable::new(), hasher: RandomState::new() }
    }
}

impl<T: Hash + Eq> Pool<T> {
    /// One user more of this value.
    pub fn share(&mut self, value: T) -> Place {
        let Self { shared, index, hasher } = self;
        let hash = hasher.hash_one(&value);
        if let Some(place) = index.find(hash, |place| at(shared, *place) == &value).copied() {
            if let Some(shared) = shared.at_mut(place) {
                shared.users += 1;
            }
            return place;
        }
        let place = shared.put(Some(Shared { value, users: 1 }));
        index.insert_unique(hash, place, |place| hasher.hash_one(at(shared, *place)));
        place
    }

    /// One user less; what nobody uses is forgotten.
    pub fn give_back(&mut self, place: Place) {
        let Self { shared, index, hasher } = self;
        let hash = hasher.hash_one(at(shared, place));
        let users = shared.at_mut(place).as_mut().map(|shared| {
            shared.users -= 1;
            shared.users
        });
        if users == Some(0) {
            if let Ok(entry) = index.find_entry(hash, |other| *other == place) {
                entry.remove();
            }
            shared.take(place);
        }
    }

    pub fn get(&self, place: Place) -> &T {
        at(&self.shared, place)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.index.len()
    }
}

fn at<T>(shared: &Slab<Option<Shared<T>>>, place: Place) -> &T {
    &shared.at(place).as_ref().expect("a place is asked for by its users only").value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_kept_once_and_as_long_as_it_is_used() {
        let mut pool = Pool::default();
        let places = ["a", "b", "a"].map(|word| pool.share(word));
        assert!(places[0] == places[2] && places[0] != places[1] && pool.len() == 2);
        pool.give_back(places[0]);
        assert_eq!((*pool.get(places[0]), pool.len()), ("a", 2));
        pool.give_back(places[2]);
        assert_eq!((*pool.get(places[1]), pool.len()), ("b", 1));
        assert_eq!((pool.share("c"), pool.share("b")), (places[0], places[1]));
    }
}
