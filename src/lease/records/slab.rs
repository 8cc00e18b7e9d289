//! Records in pages: growing copies nothing, and a place stays what it is until it is given back.

/// Where a record stands.
pub type Place = u32;

/// No record at all.
pub const NOWHERE: Place = Place::MAX;

const PAGE: usize = 512;

/// INVARIANT: every place below `pages` is either in `free` or somebody's; nobody asks for a place that
/// is in `free`.
#[derive(Debug)]
pub struct Slab<T> {
    pages: Vec<Vec<T>>,
    free: Vec<Place>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), free: Vec::new() }
    }
}

impl<T: Default> Slab<T> {
    pub fn put(&mut self, record: T) -> Place {
        if let Some(place) = self.free.pop() {
            *self.at_mut(place) = record;
            return place;
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let page = self.pages.len() - 1;
        self.pages[page].push(record);
        let place = Place::try_from(page * PAGE + self.pages[page].len() - 1).unwrap_or(NOWHERE);
        assert!(place != NOWHERE, "four thousand million records are not kept in memory");
        place
    }

    /// Gives the place back.
    pub fn take(&mut self, place: Place) -> T {
        self.free.push(place);
        std::mem::take(self.at_mut(place))
    }

    pub fn at(&self, place: Place) -> &T {
        &self.pages[place as usize / PAGE][place as usize % PAGE]
    }

    pub fn at_mut(&mut self, place: Place) -> &mut T {
        &mut self.pages[place as usize / PAGE][place as usize % PAGE]
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.pages.iter().map(Vec::len).sum::<usize>() - self.free.len()
    }

    /// One page; those that are free in it are as [`Default`] makes them.
    pub fn page(&self, number: usize) -> Option<&[T]> {
        self.pages.get(number).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_was_given_back_is_taken_again() {
        let mut slab = Slab::default();
        let places: Vec<_> = (0..1_000u64).map(|number| slab.put(number)).collect();
        assert_eq!((slab.len(), slab.take(places[7]), *slab.at(7)), (1_000, 7, 0));
        assert_eq!((slab.len(), slab.put(5_000), *slab.at(7)), (999, 7, 5_000));
        assert_eq!((*slab.at(999), slab.page(1).unwrap().len(), slab.page(2)), (999, 1_000 - PAGE, None));
    }
}
