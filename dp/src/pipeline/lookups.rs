//! Gathers a stage's lookups into one call, so that packets wait for memory together.

use arrayvec::ArrayVec;

use super::BATCH;
use crate::tables::trie::{Key, Leaf, NO_ROUTE, Tries};

/// Lookups of one stage, in the order of their packets. Equal ones that follow each other are one.
pub(super) struct Lookups<'t, K: Key> {
    queries: ArrayVec<(&'t K::Root, K), BATCH>,
    /// Which of the queries is a packet's.
    of: ArrayVec<u8, BATCH>,
}

/// What was found, in the same order.
pub(super) struct Found {
    leaves: [Leaf; BATCH],
    /// How many of them there are.
    distinct: usize,
    of: ArrayVec<u8, BATCH>,
}

impl<'t, K: Key + PartialEq> Lookups<'t, K> {
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            queries: ArrayVec::new(),
            of: ArrayVec::new(),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, root: &'t K::Root, key: K) {
        let same = self
            .queries
            .last()
            .is_some_and(|(last, known)| std::ptr::eq(*last, root) && *known == key);
        if !same {
            self.queries.push((root, key));
        }
        self.of.push(self.queries.len() as u8 - 1);
    }

    #[inline]
    pub(super) fn find(self, tries: &Tries) -> Found {
        let mut leaves = [NO_ROUTE; BATCH];
        match self.queries.as_slice() {
            [] => {}
            [(root, key)] => leaves[0] = tries.lookup(*root, *key),
            queries => tries.lookup_all(queries, &mut leaves),
        }
        Found {
            leaves,
            distinct: self.queries.len(),
            of: self.of,
        }
    }
}

impl Found {
    /// What was found; of equal lookups in a row once.
    #[inline]
    pub(super) fn distinct(&self) -> &[Leaf] {
        self.leaves.get(..self.distinct).unwrap_or_default()
    }

    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = Leaf> {
        self.of
            .iter()
            .map(|&nth| self.leaves[usize::from(nth) % BATCH])
    }
}
