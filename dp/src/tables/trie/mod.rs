//! Longest-prefix match: any number of tries in one memory, looked up by workers while the control thread changes them.
//!
//! A trie is a tree bitmap (Eatherton, Varghese and Dittia, 2004) of six bits a step, whose nodes also skip the strides
//! in which all that is below agrees (as in a Patricia trie). So a lookup takes about as many steps as the table is deep
//! where it branches, whatever the length of the prefixes: a small VRF is small, and an IPv6 host route costs no more
//! than one of IPv4. A node is 32 bytes, half a cache line; a prefix that is alone below a step is such a node and
//! nothing else.
//!
//! Unlike a Poptrie or a direct table, no prefix is pushed down into the leaves of longer ones. An update writes copies
//! of the nodes on its way and nothing else; a default route over a million others is changed as fast as any. Readers
//! keep what they had ([`Tries`]), all of it and exactly, until they take the next snapshot; `arena` says how. A
//! transaction is visible with its snapshot, at once and whole.
//!
//! Exact matches (receiver indices, labels) are prefixes of full length.

mod arena;
mod edit;
mod node;
#[cfg(test)]
mod tests;

use arena::View;
pub use edit::Editor;
use node::{Node, STRIDE};

use super::prefetch::prefetch;

/// What a lookup finds: a number of 30 bits. 0 means nothing.
pub type Leaf = u32;

/// No route.
pub const NO_ROUTE: Leaf = 0;
/// The largest leaf.
pub const MAX_LEAF: Leaf = (1 << 30) - 1;

/// Lookups that go down side by side.
const BATCH: usize = 64;

/// What can be looked up: bits, first one first.
pub trait Key: Copy {
    /// How many, at most 128.
    const BITS: u32;

    /// The key in the high bits.
    fn left(self) -> u128;

    /// `count` bits, at most 30, after the first `depth`; those past the end are zeroes.
    fn bits(self, depth: u32, count: u32) -> u32;
}

impl Key for u32 {
    const BITS: u32 = 32;

    #[inline(always)]
    fn left(self) -> u128 {
        u128::from(self) << 96
    }

    #[inline(always)]
    fn bits(self, depth: u32, count: u32) -> u32 {
        // Shifted twice, as `count` may be zero.
        (((u64::from(self) << 32) << depth) >> 1 >> (63 - count)) as u32
    }
}

impl Key for u128 {
    const BITS: u32 = 128;

    #[inline(always)]
    fn left(self) -> u128 {
        self
    }

    #[inline(always)]
    fn bits(self, depth: u32, count: u32) -> u32 {
        (((self << depth) >> 64) as u64 >> 1 >> (63 - count)) as u32
    }
}

/// An IPv4 address.
impl Key for [u8; 4] {
    const BITS: u32 = 32;

    #[inline(always)]
    fn left(self) -> u128 {
        u32::from_be_bytes(self).left()
    }

    #[inline(always)]
    fn bits(self, depth: u32, count: u32) -> u32 {
        u32::from_be_bytes(self).bits(depth, count)
    }
}

/// An IPv6 address.
impl Key for [u8; 16] {
    const BITS: u32 = 128;

    #[inline(always)]
    fn left(self) -> u128 {
        u128::from_be_bytes(self)
    }

    #[inline(always)]
    fn bits(self, depth: u32, count: u32) -> u32 {
        u128::from_be_bytes(self).bits(depth, count)
    }
}

/// A 32-bit number whose neighbours are as a rule in use too, as labels and receiver indices are: the last six bits are
/// one step, so a run of 64 numbers is one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Number(pub u32);

impl Key for Number {
    const BITS: u32 = 36;

    #[inline(always)]
    fn left(self) -> u128 {
        u128::from(self.0) << 92
    }

    #[inline(always)]
    fn bits(self, depth: u32, count: u32) -> u32 {
        (((u64::from(self.0) << 28) << depth) >> 1 >> (63 - count)) as u32
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

/// A snapshot of all tries. Cloning shares it.
#[derive(Clone)]
pub struct Tries(View);

impl Default for Tries {
    fn default() -> Self {
        Editor::default().publish()
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
fn step<K: Key>(node: Node, key: K, depth: u32, best: &mut Place) -> Option<(u32, u32)> {
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

impl Tries {
    /// The leaf of the longest prefix that holds `key`.
    #[inline]
    pub fn lookup<K: Key>(&self, root: &Root, key: K) -> Leaf {
        #[cfg(target_arch = "x86_64")]
        if counts_bits() {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { self.walk_counting(root, key) };
        }
        self.walk(root, key)
    }

    /// Looks up many keys, each in a trie of its own: all take one step, then all the next, so that they wait for memory
    /// together. `leaves` gets as many as there are `queries`, or as it has room for.
    #[inline]
    pub fn lookup_all<K: Key>(&self, queries: &[(&Root, K)], leaves: &mut [Leaf]) {
        for (queries, leaves) in queries.chunks(BATCH).zip(leaves.chunks_mut(BATCH)) {
            #[cfg(target_arch = "x86_64")]
            if counts_bits() {
                // SAFETY: the processor has what the function is compiled for.
                unsafe { self.batch_counting(queries, leaves) };
                continue;
            }
            self.batch(queries, leaves);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "popcnt,lzcnt,bmi1,bmi2")]
    fn walk_counting<K: Key>(&self, root: &Root, key: K) -> Leaf {
        self.walk(root, key)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "popcnt,lzcnt,bmi1,bmi2")]
    fn batch_counting<K: Key>(&self, queries: &[(&Root, K)], leaves: &mut [Leaf]) {
        self.batch(queries, leaves);
    }

    #[inline(always)]
    fn walk<K: Key>(&self, root: &Root, key: K) -> Leaf {
        let mut best = Place::here(root.default);
        let mut next = step(root.top, key, 0, &mut best);
        while let Some((unit, depth)) = next {
            let node = Node::new(self.0.unit(unit).words());
            next = step(node, key, depth, &mut best);
        }
        self.leaf(best)
    }

    #[inline(always)]
    fn batch<K: Key>(&self, queries: &[(&Root, K)], leaves: &mut [Leaf]) {
        let mut best = [Place::here(NO_ROUTE); BATCH];
        // Who has a step to take, and where: dense, so that those who are done cost nothing.
        let mut going = [(0u32, 0u16, 0u16); BATCH];
        let mut count = 0;
        for (nth, (root, key)) in queries.iter().enumerate() {
            best[nth] = Place::here(root.default);
            let next = step(root.top, *key, 0, &mut best[nth]);
            self.go_on(next, nth, &best, &mut going, &mut count);
        }
        while count > 0 {
            let still = std::mem::take(&mut count);
            for from in 0..still {
                let (unit, depth, nth) = going[from];
                let nth = usize::from(nth) % BATCH;
                let node = Node::new(self.0.unit(unit).words());
                let next = step(node, queries[nth].1, depth.into(), &mut best[nth]);
                self.go_on(next, nth, &best, &mut going, &mut count);
            }
        }
        for (leaf, best) in leaves.iter_mut().zip(best).take(queries.len()) {
            *leaf = self.leaf(best);
        }
    }

    /// Notes the next step of a lookup and has it fetched; or has its leaf fetched, if this was the last one.
    #[inline(always)]
    fn go_on(
        &self,
        next: Option<(u32, u32)>,
        nth: usize,
        best: &[Place; BATCH],
        going: &mut [(u32, u16, u16); BATCH],
        count: &mut usize,
    ) {
        if let Some((unit, depth)) = next {
            prefetch(self.0.unit(unit));
            going[*count % BATCH] = (unit, depth as u16, nth as u16);
            *count += 1;
        } else if let Some(unit) = best[nth % BATCH].unit() {
            prefetch(self.0.unit(unit));
        }
    }

    #[inline(always)]
    fn leaf(&self, place: Place) -> Leaf {
        match place.unit() {
            Some(unit) => self.0.unit(unit).leaf((place.0 & 7) as u32),
            None => place.0 as Leaf,
        }
    }
}
