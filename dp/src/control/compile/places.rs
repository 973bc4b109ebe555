//! Places in arrays: a thing keeps its own for as long as it is there.

use std::borrow::Borrow;
use std::hash::Hash;

use crate::tables::hash::FastMap;

/// Which place each thing has.
pub(super) struct Places<K> {
    of: FastMap<K, Place>,
    free: Vec<u32>,
    used: u32,
    /// The generation of the tables that are being made.
    pub(super) generation: u64,
}

struct Place {
    number: u32,
    /// How many uses it has; with the last one it goes.
    uses: u32,
    /// The generation of the first tables in which this place is its own.
    since: u64,
}

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self {
            of: FastMap::default(),
            free: Vec::new(),
            used: 0,
            generation: 0,
        }
    }
}

impl<K: Hash + Eq + Clone> Places<K> {
    /// The place of what has one.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
    {
        self.of.get(key).map(|place| place.number)
    }

    /// Another use of `key`. Says the place, and whether it is new.
    pub(super) fn take(&mut self, key: &K) -> (u32, bool) {
        if let Some(place) = self.of.get_mut(key) {
            place.uses += 1;
            return (place.number, false);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.used += 1;
            self.used - 1
        });
        let place = Place {
            number,
            uses: 1,
            since: self.generation,
        };
        self.of.insert(key.clone(), place);
        (number, true)
    }

    /// One use less. Says the place if that was the last.
    pub(super) fn give_back(&mut self, key: &K) -> Option<u32> {
        let place = self.of.get_mut(key)?;
        place.uses -= 1;
        if place.uses > 0 {
            return None;
        }
        let number = place.number;
        self.of.remove(key);
        self.free.push(number);
        Some(number)
    }

    /// What has a place, and which.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, u32)> {
        self.of.iter().map(|(key, place)| (key, place.number))
    }

    /// As [`iter`](Self::iter), and since which generation.
    pub(super) fn iter_since(&self) -> impl Iterator<Item = (&K, u32, u64)> {
        let places = self.of.iter();
        places.map(|(key, place)| (key, place.number, place.since))
    }
}
