//! A node, and what it says of a key.

use super::Leaf;

/// Bits of a key that one node decides.
pub(super) const STRIDE: u32 = 6;
/// Strides that a node can skip before it decides.
pub(super) const MAX_SKIP: u32 = 5;

/// A node `depth` bits down a trie. It knows the prefixes of `depth + 1` to `depth + 6` bits and, by their next six bits,
/// the nodes of longer ones. In front of these it can skip strides in which all of its prefixes agree.
///
/// In memory it is four words: `short`, `full`, `inner`, and the rest in one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Node {
    /// Prefixes of one to five bits: that of `len` bits `value` is bit `2^len - 2 + value`.
    pub(super) short: u64,
    /// Prefixes of six bits, a bit each.
    pub(super) full: u64,
    /// Children, a bit each.
    pub(super) inner: u64,
    /// 30 bits: where children and leaves are; or, of a node that has one leaf and nothing else, that leaf. Then from
    /// bit 30 on three bits: how many strides are skipped; and 30 bits: what these must be.
    rest: u64,
}

const BLOCK: u64 = (1 << 30) - 1;
const SKIP_AT: u32 = 30;
const BITS_AT: u32 = 33;

/// For each six bits, the prefixes of one to five bits that hold them.
const SHORT: [u64; 64] = {
    let mut masks = [0; 64];
    let mut bits = 0;
    while bits < 64 {
        let mut len = 1;
        while len < STRIDE {
            masks[bits as usize] |= 1 << ((1 << len) - 2 + (bits >> (STRIDE - len)));
            len += 1;
        }
        bits += 1;
    }
    masks
};

/// The bits below `at`, which is at most 63.
#[inline(always)]
fn below(at: u32) -> u64 {
    (1 << at) - 1
}

impl Node {
    #[inline(always)]
    pub(super) fn new([short, full, inner, rest]: [u64; 4]) -> Self {
        Self {
            short,
            full,
            inner,
            rest,
        }
    }

    #[inline(always)]
    pub(super) fn words(self) -> [u64; 4] {
        [self.short, self.full, self.inner, self.rest]
    }

    /// Where children and leaves are, or the only leaf.
    #[inline(always)]
    pub(super) fn block(self) -> u32 {
        (self.rest & BLOCK) as u32
    }

    pub(super) fn set_block(&mut self, block: u32) {
        self.rest = self.rest & !BLOCK | u64::from(block);
    }

    /// How many strides are skipped.
    #[inline(always)]
    pub(super) fn skip(self) -> u32 {
        (self.rest >> SKIP_AT) as u32 & 7
    }

    /// What these must be, in the low bits.
    #[inline(always)]
    pub(super) fn skipped(self) -> u32 {
        (self.rest >> BITS_AT) as u32
    }

    pub(super) fn set_skip(&mut self, strides: u32, bits: u32) {
        self.rest = self.rest & BLOCK | u64::from(strides) << SKIP_AT | u64::from(bits) << BITS_AT;
    }

    #[inline(always)]
    pub(super) fn children(self) -> u32 {
        self.inner.count_ones()
    }

    #[inline(always)]
    pub(super) fn leaves(self) -> u32 {
        self.short.count_ones() + self.full.count_ones()
    }

    /// Whether it holds no prefix, nor has a node below that could.
    pub(super) fn is_empty(self) -> bool {
        self.short | self.full | self.inner == 0
    }

    /// Whether its only leaf stands in it.
    #[inline(always)]
    pub(super) fn is_inline(self) -> bool {
        self.inner == 0 && self.leaves() == 1
    }

    /// Which of the children the next six bits lead to.
    #[inline(always)]
    pub(super) fn child(self, bits: u32) -> Option<u32> {
        (self.inner >> bits & 1 != 0).then(|| (self.inner & below(bits)).count_ones())
    }

    /// Which of the leaves is that of the longest prefix that holds the next six bits.
    #[inline(always)]
    pub(super) fn longest(self, bits: u32) -> Option<u32> {
        if self.full >> bits & 1 != 0 {
            return Some(self.short.count_ones() + (self.full & below(bits)).count_ones());
        }
        let held = self.short & SHORT[(bits & 63) as usize];
        let longest = 63u32.checked_sub(held.leading_zeros())?;
        Some((self.short & below(longest)).count_ones())
    }

    /// The bit of the prefix of the first `len` of six bits, and whether it is in `full`.
    fn bit(bits: u32, len: u32) -> (u64, bool) {
        if len == STRIDE {
            (1 << bits, true)
        } else {
            (1 << ((1 << len) - 2 + (bits >> (STRIDE - len))), false)
        }
    }

    /// The place among the leaves of the prefix of the first `len` of six bits, and whether it is there.
    pub(super) fn exact(self, bits: u32, len: u32) -> (u32, bool) {
        let (bit, full) = Self::bit(bits, len);
        let (word, before) = if full {
            (self.full, self.short.count_ones())
        } else {
            (self.short, 0)
        };
        (before + (word & (bit - 1)).count_ones(), word & bit != 0)
    }

    /// Enters or strikes out that prefix.
    pub(super) fn flip(&mut self, bits: u32, len: u32) {
        match Self::bit(bits, len) {
            (bit, true) => self.full ^= bit,
            (bit, false) => self.short ^= bit,
        }
    }

    /// A node of one child.
    pub(super) fn above(bits: u32, child: u32) -> Self {
        Self::new([0, 0, 1 << bits, child.into()])
    }

    /// A node of one leaf.
    pub(super) fn only(bits: u32, len: u32, leaf: Leaf) -> Self {
        let mut node = Self::default();
        node.flip(bits, len);
        node.set_block(leaf);
        node
    }
}
