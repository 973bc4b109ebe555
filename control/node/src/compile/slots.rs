//! Places in arrays: a thing keeps its own for as long as it is there.

use std::borrow::Borrow;
use std::hash::Hash;

use twinseal_fib::hash::FastMap;

/// Which place each thing has.
pub(super) struct SlotAllocator<K> {
    of: FastMap<K, Place>,
    /// Who has each place; none: it is free.
    names: Vec<Option<K>>,
    free: Vec<u32>,
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

impl<K> Default for SlotAllocator<K> {
    fn default() -> Self {
        Self {
            of: FastMap::default(),
            names: Vec::new(),
            free: Vec::new(),
            generation: 0,
        }
    }
}

impl<K: Hash + Eq + Clone> SlotAllocator<K> {
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
            self.names.push(None);
            (self.names.len() - 1) as u32
        });
        self.names[number as usize] = Some(key.clone());
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
        self.names[number as usize] = None;
        self.free.push(number);
        Some(number)
    }

    /// What has a place, and which.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, u32)> {
        self.of.iter().map(|(key, place)| (key, place.number))
    }

    /// Who has a place, and since which generation.
    pub(super) fn name(&self, number: u32) -> Option<(&K, u64)> {
        let key = self.names.get(number as usize)?.as_ref()?;
        Some((key, self.of.get(key)?.since))
    }
}
