//! Tries of IPv6 addresses: a tree bitmap (Eatherton, Varghese and Dittia, 2004) of six bits a step, whose nodes also skip
//! the strides in which all that is below agrees (as in a Patricia trie).
//!
//! So a lookup takes about as many steps as the table is deep where it branches, whatever the length of the prefixes: a
//! small VRF is small, and a host route costs no more than any other. A node is 32 bytes, half a cache line; a prefix that
//! is alone below a step is such a node and nothing else.

mod edit;
mod node;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::arena::unit;
use super::{BATCH, Leaf, NO_ROUTE};
use crate::prefetch::prefetch;
pub(super) use edit::Prefix;
use node::{Node, STRIDE};

/// Words of a unit: a node, or eight leaves.
pub(super) const WORDS: usize = 4;

/// Keys as bits, first one first.
pub(super) trait Bits: Copy {
    /// How many, at most 128.
    const BITS: u32;

    /// The key in the high bits.
    fn left(self) -> u128;

    /// `count` bits, at most 30, after the first `depth`; those past the end are zeroes.
    #[inline(always)]
    fn bits(self, depth: u32, count: u32) -> u32 {
        // Shifted twice, as `count` may be zero.
        (((self.left() << depth) >> 64) as u64 >> 1 >> (63 - count)) as u32
    }
}

impl Bits for u128 {
    const BITS: u32 = 128;

    #[inline(always)]
    fn left(self) -> u128 {
        self
    }
}

impl Bits for [u8; 16] {
    const BITS: u32 = 128;

    #[inline(always)]
    fn left(self) -> u128 {
        u128::from_be_bytes(self)
    }
}

/// One trie: where it begins. It means something only to the snapshot that it was published with.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Root {
    top: Node,
    /// The leaf of the prefix without bits.
    default: Leaf,
}

impl Root {
    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.default == NO_ROUTE && self.top.is_empty()
    }
}

/// Where a leaf is: 64 bits so that comparing is cheap. The top bit says that the leaf itself is in the low ones.
#[derive(Clone, Copy)]
struct Place(u64);

impl Place {
    const HERE: u64 = 1 << 63;

    #[inline(always)]
    fn here(leaf: Leaf) -> Self {
        Self(Self::HERE | u64::from(leaf))
    }

    /// The `nth` leaf of a node.
    #[inline(always)]
    fn of(node: Node, nth: u32) -> Self {
        let at = u64::from(node.block() + node.children()) << 3;
        let there = at + u64::from(nth);
        let here = Self::HERE | u64::from(node.block());
        Self(if node.is_inline() { here } else { there })
    }

    #[inline(always)]
    fn unit(self) -> Option<u32> {
        (self.0 & Self::HERE == 0).then_some((self.0 >> 3) as u32)
    }
}

/// Takes one step down. Returns the child to go on at and its depth; and improves `best`.
#[inline(always)]
fn step<K: Bits>(node: Node, key: K, depth: u32, best: &mut Place) -> Option<(u32, u32)> {
    let skip = node.skip() * STRIDE;
    if key.bits(depth, skip) != node.skipped() {
        return None;
    }
    let depth = depth + skip;
    let bits = key.bits(depth, STRIDE);
    if let Some(nth) = node.longest(bits) {
        *best = Place::of(node, nth);
    }
    let child = node.child(bits)?;
    Some((node.block() + child, depth + STRIDE))
}

/// Whether the processor counts and shifts bits in one instruction each, which steps are made of: any x86-64 since 2015.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn counts_bits() -> bool {
    is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
}

/// The leaf of the longest prefix that holds a key.
#[inline(always)]
pub(super) fn lookup<K: Bits>(words: &[AtomicU64], root: &Root, key: K) -> Leaf {
    #[cfg(target_arch = "x86_64")]
    if counts_bits() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { walk_counting(words, root, key) };
    }
    walk(words, root, key)
}

/// As [`lookup`], of up to 64 keys in turns.
#[inline(always)]
pub(super) fn lookup_batch<K: Bits>(
    words: &[AtomicU64],
    queries: &[(&Root, K)],
    leaves: &mut [Leaf],
) {
    #[cfg(target_arch = "x86_64")]
    if counts_bits() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { batch_counting(words, queries, leaves) };
    }
    batch(words, queries, leaves);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt,lzcnt,bmi1,bmi2")]
fn walk_counting<K: Bits>(words: &[AtomicU64], root: &Root, key: K) -> Leaf {
    walk(words, root, key)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt,lzcnt,bmi1,bmi2")]
fn batch_counting<K: Bits>(words: &[AtomicU64], queries: &[(&Root, K)], leaves: &mut [Leaf]) {
    batch(words, queries, leaves);
}

#[inline(always)]
fn walk<K: Bits>(words: &[AtomicU64], root: &Root, key: K) -> Leaf {
    let mut best = Place::here(root.default);
    let mut next = step(root.top, key, 0, &mut best);
    while let Some((unit, depth)) = next {
        let node = Node::new(load(words, unit));
        next = step(node, key, depth, &mut best);
    }
    leaf_at(words, best)
}

#[inline(always)]
fn batch<K: Bits>(words: &[AtomicU64], queries: &[(&Root, K)], leaves: &mut [Leaf]) {
    let mut best = [Place::here(NO_ROUTE); BATCH];
    // Who has a step to take, and where: dense, so that those who are done cost nothing.
    let mut going = [(0u32, 0u16, 0u16); BATCH];
    let mut count = 0;
    for (nth, (root, key)) in queries.iter().enumerate() {
        best[nth] = Place::here(root.default);
        let next = step(root.top, *key, 0, &mut best[nth]);
        go_on(words, next, nth, &best, &mut going, &mut count);
    }
    while count > 0 {
        let still = std::mem::take(&mut count);
        for from in 0..still {
            let (unit, depth, nth) = going[from];
            let nth = usize::from(nth) % BATCH;
            let node = Node::new(load(words, unit));
            let next = step(node, queries[nth].1, depth.into(), &mut best[nth]);
            go_on(words, next, nth, &best, &mut going, &mut count);
        }
    }
    for (leaf, best) in leaves.iter_mut().zip(best).take(queries.len()) {
        *leaf = leaf_at(words, best);
    }
}

/// Notes the next step of a lookup and has it fetched; or has its leaf fetched, if this was the last one.
#[inline(always)]
fn go_on(
    words: &[AtomicU64],
    next: Option<(u32, u32)>,
    nth: usize,
    best: &[Place; BATCH],
    going: &mut [(u32, u16, u16); BATCH],
    count: &mut usize,
) {
    if let Some((at, depth)) = next {
        prefetch(unit::<WORDS>(words, at));
        going[*count % BATCH] = (at, depth as u16, nth as u16);
        *count += 1;
    } else if let Some(at) = best[nth % BATCH].unit() {
        prefetch(unit::<WORDS>(words, at));
    }
}

#[inline(always)]
fn leaf_at(words: &[AtomicU64], place: Place) -> Leaf {
    match place.unit() {
        Some(unit) => nth_leaf(load(words, unit), (place.0 & 7) as u32),
        None => place.0 as Leaf,
    }
}

#[inline(always)]
fn load(words: &[AtomicU64], at: u32) -> [u64; WORDS] {
    let unit = unit::<WORDS>(words, at);
    std::array::from_fn(|word| unit[word].load(Relaxed))
}

/// One of a unit's eight leaves.
#[inline(always)]
fn nth_leaf(unit: [u64; WORDS], nth: u32) -> Leaf {
    (unit[nth as usize / 2 % WORDS] >> (nth % 2 * 32)) as Leaf
}
