//! Tries of keys of 32 bits, made for few reads: a burst trie (Heinz, Zobel and Williams, 2002) of prefixes.
//!
//! What is below an [`Entry`] is a bucket, a cache line of up to eight whole prefixes, or a table of 4 to 256 entries, by
//! the next two to eight bits; the first of a trie may have 1024, by ten. A bucket that gets a ninth prefix bursts: it
//! becomes a table of buckets. A table has as many entries as leave its buckets about half full, and is made anew when that
//! is no longer so; so a thousand routes are one table and then buckets, whatever their lengths, and a million are one
//! table more.
//!
//! A prefix that ends within a table's bits is not in the buckets: it stands in every entry that it holds, unless a longer
//! one does. So an update touches at most 256 entries of one table. What the entries cannot tell, which shorter prefixes
//! there are, stands behind them, for the writer.
//!
//! A table of `2^bits` entries is a block of `2^(bits - 2)` units: first its entries, a word each; then leaves of 32 bits
//! in the order of a heap, that of the table's prefix of `len` bits `value` being number `2^len + value`. Number 0 is
//! how many prefixes there are in it and below it.

mod bucket;
mod edit;
#[cfg(target_arch = "x86_64")]
mod wide;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{BATCH, Leaf, NO_ROUTE, Number};
use crate::prefetch::prefetch_nth;
pub(super) use bucket::Prefix;

/// Words of a unit: a cache line.
pub(super) const WORDS: usize = 8;

/// What an entry's low bits say: a bucket. Greater numbers are the bits of a table, 0 is nothing.
const BUCKET: u32 = 1;

/// 30 bits: the leaf of the longest of the table's prefixes that holds the entry; 30 bits: the unit where what is below
/// begins; four bits: what that is.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Entry(u64);

impl Entry {
    fn new(leaf: Leaf, below: Below) -> Self {
        Self(u64::from(leaf) << 34 | u64::from(below.unit) << 4 | u64::from(below.kind))
    }

    #[inline(always)]
    fn leaf(self) -> Leaf {
        (self.0 >> 34) as Leaf
    }

    #[inline(always)]
    fn unit(self) -> u32 {
        (self.0 >> 4) as u32 & ((1 << 30) - 1)
    }

    #[inline(always)]
    fn kind(self) -> u32 {
        self.0 as u32 & 15
    }
}

/// An entry without its leaf.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Below {
    unit: u32,
    kind: u32,
}

/// One trie: its default route, and what is below.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Root(Entry);

impl Root {
    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.0 == Entry::default()
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Root({:#x})", self.0.0)
    }
}

/// Keys as their 32 bits, first one first.
pub(super) trait Bits: Copy {
    fn bits(self) -> u32;
}

impl Bits for u32 {
    #[inline(always)]
    fn bits(self) -> u32 {
        self
    }
}

impl Bits for [u8; 4] {
    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from_be_bytes(self)
    }
}

impl Bits for Number {
    /// Every number to another one, and neighbours far apart (Knuth's multiplicative hashing).
    #[inline(always)]
    fn bits(self) -> u32 {
        self.0.wrapping_mul(0x9e37_79b1)
    }
}

/// The leaf of the longest prefix in a trie that holds a key.
#[inline(always)]
pub(super) fn lookup<K: Bits>(words: &[AtomicU64], root: &Root, key: K) -> Leaf {
    walk(words, root.0, key.bits())
}

/// As [`lookup`], of up to 64 keys in turns.
#[inline(always)]
pub(super) fn lookup_batch<K: Bits>(
    words: &[AtomicU64],
    queries: &[(&Root, K)],
    leaves: &mut [Leaf],
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
    {
        // SAFETY: the processor has what it is compiled for.
        return unsafe { wide::batch(words, queries, leaves) };
    }
    batch(words, queries, leaves);
}

fn walk(words: &[AtomicU64], mut entry: Entry, key: u32) -> Leaf {
    let mut best = NO_ROUTE;
    let mut rest = key;
    loop {
        if entry.leaf() != NO_ROUTE {
            best = entry.leaf();
        }
        if entry.kind() <= BUCKET {
            break;
        }
        let next = step(entry, &mut rest);
        entry = Entry(words[next as usize].load(Relaxed));
    }
    if entry.kind() == BUCKET {
        let bucket = super::arena::unit(words, entry.unit());
        best = or(bucket::longest(bucket, key), best);
    }
    best
}

/// Which word an entry leads to: an entry of a table for the first bits of `rest`, which are then shifted out.
#[inline(always)]
fn step(entry: Entry, rest: &mut u32) -> u32 {
    let shifted = u64::from(*rest) << entry.kind();
    *rest = shifted as u32;
    entry.unit() * WORDS as u32 + (shifted >> 32) as u32
}

#[inline(always)]
fn or(leaf: Leaf, other: Leaf) -> Leaf {
    // Which of them it is nobody can guess.
    std::hint::select_unpredictable(leaf == NO_ROUTE, other, leaf)
}

/// Lookups that have a word to read.
#[derive(Clone, Copy, Default)]
struct Going {
    /// Which word.
    at: u32,
    /// What is left of the key.
    rest: u32,
    /// Whose.
    nth: u32,
}

/// All take a step, then all the next; buckets are looked at last. Without branches but those of the loops.
#[inline(always)]
pub(super) fn batch<K: Bits>(words: &[AtomicU64], queries: &[(&Root, K)], leaves: &mut [Leaf]) {
    let mut found = [NO_ROUTE; BATCH];
    let mut going = [Going::default(); BATCH];
    let mut ending = [(0u32, 0u32); BATCH];
    let (mut more, mut last) = (0, 0);
    // Dense lists, so that those who are done cost nothing.
    let mut arrive =
        |entry: Entry, mut rest: u32, nth: u32, going: &mut [Going; BATCH], more: &mut usize| {
            let place = &mut found[nth as usize % BATCH];
            *place = or(entry.leaf(), *place);
            let at = step(entry, &mut rest);
            prefetch_nth(words, at as usize);
            going[*more % BATCH] = Going { at, rest, nth };
            *more += usize::from(entry.kind() > BUCKET);
            ending[last % BATCH] = (at / WORDS as u32, nth);
            last += usize::from(entry.kind() == BUCKET);
        };
    for (nth, (root, key)) in (0..).zip(queries) {
        arrive(root.0, key.bits(), nth, &mut going, &mut more);
    }
    while more > 0 {
        let still = std::mem::take(&mut more);
        for from in 0..still {
            let Going { at, rest, nth } = going[from % BATCH];
            let entry = Entry(words[at as usize].load(Relaxed));
            arrive(entry, rest, nth, &mut going, &mut more);
        }
    }
    for &(unit, nth) in ending.iter().take(last) {
        let nth = nth as usize % BATCH;
        let leaf = bucket::longest(super::arena::unit(words, unit), queries[nth].1.bits());
        found[nth] = or(leaf, found[nth]);
    }
    for (leaf, found) in leaves.iter_mut().zip(found).take(queries.len()) {
        *leaf = found;
    }
}
