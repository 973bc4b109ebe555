//! Gathers a stage's lookups into one call, so that packets wait for memory together.

use arrayvec::ArrayVec;

use super::{BATCH, Slot};
use twinseal_fib::trie::{Key, Leaf, NO_ROUTE, Tries};

/// Lookups of one stage. Equal ones that follow each other are one.
pub(super) struct Lookups<'t, K: Key> {
    queries: ArrayVec<(&'t K::Root, K), BATCH>,
    of: Queries,
}

/// What was found.
pub(super) struct Found {
    leaves: [Leaf; BATCH],
    /// How many of them there are.
    distinct: usize,
    of: Queries,
}

/// Which of the queries is a packet's, by its slot.
type Queries = [u8; BATCH];

/// Of a slot for which nothing was looked up.
const NONE: u8 = BATCH as u8;

impl<'t, K: Key + PartialEq> Lookups<'t, K> {
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            queries: ArrayVec::new(),
            of: [NONE; BATCH],
        }
    }

    #[inline]
    pub(super) fn push(&mut self, slot: Slot, root: &'t K::Root, key: K) {
        let same = self
            .queries
            .last()
            .is_some_and(|(last, known)| std::ptr::eq(*last, root) && *known == key);
        if !same {
            self.queries.push((root, key));
        }
        self.of[slot.index()] = self.queries.len() as u8 - 1;
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

    /// What was found for a packet; [`NO_ROUTE`] if nothing was looked up.
    #[inline]
    pub(super) fn of(&self, slot: Slot) -> Leaf {
        let query = usize::from(self.of[slot.index()]);
        self.leaves.get(query).copied().unwrap_or(NO_ROUTE)
    }
}
