//! A bucket: up to eight prefixes in a cache line, each with all of its bits, so that finding the longest that holds a
//! key needs nothing from the way there.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Bits, Leaf, WORDS};

/// A prefix, with its leaf or without: its bits in the high ones, a one behind them, zeroes down to bit 31; and 30 bits of
/// leaf.
#[derive(Clone, Copy)]
pub(in crate::trie) struct Prefix(pub(super) u64);

/// Where the leaf is.
pub(super) const LEAF: u64 = (1 << 31) - 1;

impl Prefix {
    pub(in crate::trie) fn new<K: Bits>(key: K, len: u32) -> Self {
        let bits = u64::from(key.bits()) << 32 & !(u64::MAX >> len);
        Self(bits | 1 << (63 - len))
    }

    pub(super) fn with(self, leaf: Leaf) -> Self {
        Self(self.0 & !LEAF | u64::from(leaf))
    }

    pub(super) fn leaf(self) -> Leaf {
        (self.0 & LEAF) as Leaf
    }

    /// Whether it is of the same bits.
    pub(super) fn is(self, other: Self) -> bool {
        (self.0 ^ other.0) & !LEAF == 0
    }

    pub(super) fn len(self) -> u32 {
        63 - (self.0 & !LEAF).trailing_zeros()
    }

    /// `count` bits, at most 8, after the first `depth`.
    pub(super) fn bits(self, depth: u32, count: u32) -> u32 {
        // Those behind its end are zeroes.
        let prefix = self.0 & !LEAF;
        let bits = prefix & prefix.wrapping_sub(1);
        (bits << depth >> 1 >> (63 - count)) as u32
    }
}

/// The leaf of the longest prefix that holds a key. They stand in the order of their lengths.
#[inline(always)]
pub(super) fn longest(bucket: &[AtomicU64; WORDS], key: u32) -> Leaf {
    let key = u64::from(key) << 32;
    let mut best = 0;
    for word in bucket {
        let word = word.load(Relaxed);
        let prefix = word & !LEAF;
        let marker = prefix & prefix.wrapping_neg();
        // Nothing has no marker, and holds nothing.
        if (word ^ key) >> 1 < marker {
            best = word;
        }
    }
    (best & LEAF) as Leaf
}
