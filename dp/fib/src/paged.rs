//! An array that snapshots share page by page.

use std::fmt;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use super::prefetch::prefetch_within;

/// Entries of a page: few enough that copying one is cheap, enough that the list of pages is short.
const PAGE: usize = 32;

/// An array with holes. Cloning takes one reference; a change copies the list of pages once and then the pages that it
/// touches, unless nobody else has them.
pub struct Paged<T> {
    // A slice, not a vector: a look at an entry goes through one reference less.
    pages: Arc<[Page<T>]>,
}

type Page<T> = Arc<[Option<T>; PAGE]>;

impl<T> Paged<T> {
    /// The entry at `place`, if there is one.
    #[inline(always)]
    pub fn get(&self, place: u32) -> Option<&T> {
        let place = place as usize;
        self.pages.get(place / PAGE)?[place % PAGE].as_ref()
    }

    /// Asks the processor for the cache line that is `offset` bytes into the entry at `place`.
    #[inline(always)]
    pub fn prefetch(&self, place: u32, offset: usize) {
        let place = place as usize;
        if let Some(page) = self.pages.get(place / PAGE) {
            prefetch_within(&page[place % PAGE], offset);
        }
    }

    /// The entries, with their places.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let entries = self.pages.iter().flat_map(|page| page.iter());
        let numbered = (0..).zip(entries);
        numbered.filter_map(|(place, entry)| Some((place, entry.as_ref()?)))
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.iter().count()
    }
}

impl<T: Clone> Paged<T> {
    /// Sets the entry at `place`.
    pub fn set(&mut self, place: u32, entry: T) {
        *self.place(place as usize) = Some(entry);
    }

    /// Sets the entry after all that are there, and returns its place.
    pub fn push(&mut self, entry: T) -> u32 {
        let pages = self.pages.iter().enumerate().rev();
        let last = pages.filter_map(|(nth, page)| {
            let last = page.iter().rposition(Option::is_some)?;
            Some(nth * PAGE + last)
        });
        let place = last.take(1).map(|last| last as u32 + 1).sum();
        self.set(place, entry);
        place
    }

    /// Removes and returns the entry at `place`.
    pub fn remove(&mut self, place: u32) -> Option<T> {
        self.get(place)?;
        self.place(place as usize).take()
    }

    /// The entry at `place`, to be changed.
    pub fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.get(place)?;
        self.place(place as usize).as_mut()
    }

    /// Calls `change` with every entry.
    pub fn for_each_mut(&mut self, change: impl FnMut(&mut T)) {
        let pages = Arc::make_mut(&mut self.pages).iter_mut();
        let entries = pages.flat_map(|page| Arc::make_mut(page).iter_mut());
        entries.flatten().for_each(change);
    }

    fn place(&mut self, place: usize) -> &mut Option<T> {
        if self.pages.len() <= place / PAGE {
            let missing = self.pages.len()..=place / PAGE;
            let new = missing.map(|_| Arc::new(std::array::from_fn(|_| None)));
            self.pages = self.pages.iter().cloned().chain(new).collect();
        }
        let pages = Arc::make_mut(&mut self.pages);
        &mut Arc::make_mut(&mut pages[place / PAGE])[place % PAGE]
    }
}

/// For places that came out of the same snapshot.
impl<T> Index<u32> for Paged<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, place: u32) -> &T {
        self.get(place).expect("tables name only what they have")
    }
}

impl<T: Clone> IndexMut<u32> for Paged<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        self.get_mut(place)
            .expect("tables name only what they have")
    }
}

impl<T> Clone for Paged<T> {
    fn clone(&self) -> Self {
        Self {
            pages: Arc::clone(&self.pages),
        }
    }
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Self {
            pages: Arc::default(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Paged<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_had_and_shares_the_rest() {
        let mut now = Paged::default();
        for place in 0..100u32 {
            assert_eq!(now.push(place), place);
        }
        let before = now.clone();
        now.set(7, 77);
        now.set(5000, 1);
        assert_eq!(now.remove(8), Some(8));
        assert_eq!(now.remove(8), None);
        now[9] = 99;
        assert!(
            before
                .iter()
                .eq((0..100).zip(&(0..100).collect::<Vec<_>>()))
        );
        assert_eq!((now[7], now.get(8), now[9], now[5000]), (77, None, 99, 1));
        assert_eq!((now.get(4999), now.get(u32::MAX)), (None, None));
        assert_eq!((before.count(), now.count()), (100, 100));
        let pages = before.pages.iter().zip(now.pages.iter());
        assert_eq!(pages.filter(|(a, b)| Arc::ptr_eq(a, b)).count(), 3);
    }
}
