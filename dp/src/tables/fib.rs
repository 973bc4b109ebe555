//! Longest-prefix match for IPv4 and IPv6.
//!
//! A multibit trie with six bits a step whose nodes are compressed by two bitmaps and popcounts (Poptrie: Asai and
//! Ohara, SIGCOMM 2015), so that a lookup touches one cache line a step and most of a table stays in the cache. IPv4
//! lookups jump over the first 16 bits through a direct table.
//!
//! A trie is built once from all routes of a VRF and never changed; a transaction that changes a VRF's routes builds
//! its tries anew.

use std::collections::BTreeMap;

/// What a lookup finds; 0 means no route.
pub type Leaf = u32;

/// No route.
pub const NO_ROUTE: Leaf = 0;

const STRIDE: u32 = 6;
const DIRECT_BITS: u32 = 16;
/// Set in a direct entry that is a leaf and not a node.
const DIRECT_LEAF: u32 = 1 << 31;

/// The routes of one VRF.
#[derive(Debug)]
pub struct Fib {
    v4: Trie,
    v4_direct: Box<[u32]>,
    v6: Trie,
    v6_root: u32,
}

/// A prefix: an address in the high bits, left-aligned in 128, and its length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Prefix {
    bits: u128,
    len: u8,
}

#[derive(Default, Debug)]
struct Trie {
    nodes: Vec<Node>,
    leaves: Vec<Leaf>,
}

/// 64 children: a set bit in `inner` is a node, else the child is the leaf whose run begins at the last set bit of
/// `runs` at or before it.
#[derive(Clone, Copy, Default, Debug)]
struct Node {
    inner: u64,
    runs: u64,
    first_node: u32,
    first_leaf: u32,
}

impl Default for Fib {
    fn default() -> Self {
        Self::new([], [])
    }
}

impl Fib {
    /// Builds from (address, prefix length, leaf), with leaves from 1 up to 2^31 - 1; bits beyond the length are
    /// ignored, and of equal prefixes the last wins.
    pub fn new(
        v4: impl IntoIterator<Item = ([u8; 4], u8, Leaf)>,
        v6: impl IntoIterator<Item = ([u8; 16], u8, Leaf)>,
    ) -> Self {
        let v4: BTreeMap<Prefix, Leaf> = v4
            .into_iter()
            .map(|(address, len, leaf)| {
                let bits = u128::from(u32::from_be_bytes(address)) << 96;
                (Prefix::new(bits, len.min(32)), leaf)
            })
            .collect();
        let v6: BTreeMap<Prefix, Leaf> = v6
            .into_iter()
            .map(|(address, len, leaf)| {
                (
                    Prefix::new(u128::from_be_bytes(address), len.min(128)),
                    leaf,
                )
            })
            .collect();
        let mut fib = Self {
            v4: Trie::default(),
            v4_direct: Box::new([]),
            v6: Trie::default(),
            v6_root: 0,
        };
        fib.v4_direct = fib.v4.build_direct(&v4);
        fib.v6.nodes.push(Node::default());
        let routes: Vec<_> = v6.into_iter().collect();
        fib.v6.build(0, &routes, 0, NO_ROUTE);
        fib
    }

    /// The leaf of the longest prefix that holds an IPv4 address.
    #[inline]
    pub fn lookup_v4(&self, address: [u8; 4]) -> Leaf {
        let address = u32::from_be_bytes(address);
        let direct = self.v4_direct[(address >> (32 - DIRECT_BITS)) as usize];
        if direct & DIRECT_LEAF != 0 {
            return direct & !DIRECT_LEAF;
        }
        // In 64 bits, as shifts of 128 are several instructions.
        let bits = u64::from(address) << 32;
        self.v4.lookup(direct, DIRECT_BITS, |depth| {
            ((bits << depth) >> (64 - STRIDE)) as u32
        })
    }

    /// The leaf of the longest prefix that holds an IPv6 address.
    #[inline]
    pub fn lookup_v6(&self, address: [u8; 16]) -> Leaf {
        let bits = u128::from_be_bytes(address);
        self.v6.lookup(self.v6_root, 0, |depth| chunk(bits, depth))
    }
}

impl Prefix {
    fn new(bits: u128, len: u8) -> Self {
        let mask = match len {
            0 => 0,
            len => u128::MAX << (128 - u32::from(len)),
        };
        Self {
            bits: bits & mask,
            len,
        }
    }
}

/// The six bits of `bits` after the first `depth`; past the end they are zeroes.
#[inline]
fn chunk(bits: u128, depth: u32) -> u32 {
    ((bits << depth) >> (128 - STRIDE)) as u32
}

impl Trie {
    /// Walks down from `root`, which is `depth` bits down; `chunk` gives the six bits of the address after so many.
    #[inline]
    fn lookup(&self, root: u32, mut depth: u32, chunk: impl Fn(u32) -> u32) -> Leaf {
        let mut node = &self.nodes[root as usize];
        loop {
            let child = chunk(depth);
            let upto = u64::MAX >> (63 - child);
            if node.inner >> child & 1 == 0 {
                let nth = (node.runs & upto).count_ones() - 1;
                return self.leaves[(node.first_leaf + nth) as usize];
            }
            let nth = (node.inner & upto).count_ones() - 1;
            node = &self.nodes[(node.first_node + nth) as usize];
            depth += STRIDE;
        }
    }

    /// The direct table: an entry is a leaf, or a node for what is longer than 16 bits.
    fn build_direct(&mut self, routes: &BTreeMap<Prefix, Leaf>) -> Box<[u32]> {
        let mut direct = vec![DIRECT_LEAF | NO_ROUTE; 1 << DIRECT_BITS];
        let mut by_length: Vec<_> = routes
            .iter()
            .filter(|(prefix, _)| u32::from(prefix.len) <= DIRECT_BITS)
            .collect();
        by_length.sort_by_key(|(prefix, _)| prefix.len);
        for (prefix, &leaf) in by_length {
            let first = (prefix.bits >> (128 - DIRECT_BITS)) as usize;
            let count = 1usize << (DIRECT_BITS - u32::from(prefix.len));
            direct[first..first + count].fill(DIRECT_LEAF | leaf);
        }
        // The map's order puts the routes of one entry side by side.
        let long: Vec<(Prefix, Leaf)> = routes
            .iter()
            .filter(|(prefix, _)| u32::from(prefix.len) > DIRECT_BITS)
            .map(|(prefix, leaf)| (*prefix, *leaf))
            .collect();
        for same in long.chunk_by(|a, b| a.0.bits >> 112 == b.0.bits >> 112) {
            let entry = &mut direct[(same[0].0.bits >> (128 - DIRECT_BITS)) as usize];
            let root = self.nodes.len() as u32;
            self.nodes.push(Node::default());
            self.build(root, same, DIRECT_BITS, *entry & !DIRECT_LEAF);
            *entry = root;
        }
        direct.into_boxed_slice()
    }

    /// Fills node `at`, `depth` bits down, with `routes` that are all longer than `depth` (or the default route at the
    /// root), sorted, and `inherited` where none of them matches.
    fn build(&mut self, at: u32, routes: &[(Prefix, Leaf)], depth: u32, inherited: Leaf) {
        let mut leaf_of = [inherited; 64];
        let mut short: Vec<_> = routes
            .iter()
            .filter(|(prefix, _)| u32::from(prefix.len) <= depth + STRIDE)
            .collect();
        short.sort_by_key(|(prefix, _)| prefix.len);
        for (prefix, leaf) in short {
            let first = chunk(prefix.bits, depth) as usize;
            let free = (depth + STRIDE - u32::from(prefix.len)).min(STRIDE);
            leaf_of[first..first + (1 << free)].fill(*leaf);
        }
        let long: Vec<(Prefix, Leaf)> = routes
            .iter()
            .filter(|(prefix, _)| u32::from(prefix.len) > depth + STRIDE)
            .copied()
            .collect();
        let groups: Vec<&[(Prefix, Leaf)]> = long
            .chunk_by(|a, b| chunk(a.0.bits, depth) == chunk(b.0.bits, depth))
            .collect();
        let mut node = Node {
            first_node: self.nodes.len() as u32,
            first_leaf: self.leaves.len() as u32,
            ..Node::default()
        };
        for group in &groups {
            node.inner |= 1 << chunk(group[0].0.bits, depth);
        }
        let mut last = None;
        for (child, leaf) in leaf_of.iter().enumerate() {
            // Children that are nodes need no leaf, so a run goes on across them.
            if node.inner >> child & 1 == 0 && last != Some(*leaf) {
                node.runs |= 1 << child;
                self.leaves.push(*leaf);
                last = Some(*leaf);
            }
        }
        self.nodes[at as usize] = node;
        self.nodes
            .resize(self.nodes.len() + groups.len(), Node::default());
        for (nth, group) in groups.iter().enumerate() {
            let child = chunk(group[0].0.bits, depth) as usize;
            self.build(
                node.first_node + nth as u32,
                group,
                depth + STRIDE,
                leaf_of[child],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The oracle: every prefix tried, the longest kept.
    fn scan(routes: &[(u128, u8, Leaf)], address: u128) -> Leaf {
        let mut best = (-1, NO_ROUTE);
        for &(bits, len, leaf) in routes {
            if Prefix::new(bits, len).bits == Prefix::new(address, len).bits
                && i32::from(len) >= best.0
            {
                best = (i32::from(len), leaf);
            }
        }
        best.1
    }

    #[test]
    fn an_empty_table_and_a_default_route() {
        let empty = Fib::default();
        assert_eq!(empty.lookup_v4([1, 2, 3, 4]), NO_ROUTE);
        assert_eq!(empty.lookup_v6([0xff; 16]), NO_ROUTE);
        let default = Fib::new([([0; 4], 0, 7)], [([0; 16], 0, 8)]);
        assert_eq!(default.lookup_v4([255; 4]), 7);
        assert_eq!(default.lookup_v6([0; 16]), 8);
    }

    #[test]
    fn the_longest_wins() {
        let fib = Fib::new(
            [
                ([10, 0, 0, 0], 8, 1),
                ([10, 1, 0, 0], 16, 2),
                ([10, 1, 2, 0], 24, 3),
                ([10, 1, 2, 3], 32, 4),
            ],
            [],
        );
        assert_eq!(fib.lookup_v4([10, 9, 9, 9]), 1);
        assert_eq!(fib.lookup_v4([10, 1, 9, 9]), 2);
        assert_eq!(fib.lookup_v4([10, 1, 2, 9]), 3);
        assert_eq!(fib.lookup_v4([10, 1, 2, 3]), 4);
        assert_eq!(fib.lookup_v4([11, 1, 2, 3]), NO_ROUTE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn v4_as_a_scan(
            routes in vec((0u32..0x400_0000, 0u8..=32, 1u32..1000), 0..200),
            addresses in vec(0u32..0x400_0000, 100),
        ) {
            let fib = Fib::new(routes.iter().map(|r| (r.0.to_be_bytes(), r.1, r.2)), []);
            let wide: Vec<_> = routes.iter().map(|r| (u128::from(r.0) << 96, r.1, r.2)).collect();
            let ends = routes.iter().flat_map(|r| [r.0, r.0.wrapping_sub(1), r.0 + 1]);
            for address in addresses.iter().copied().chain(ends) {
                prop_assert_eq!(
                    fib.lookup_v4(address.to_be_bytes()),
                    scan(&wide, u128::from(address) << 96)
                );
            }
        }

        #[test]
        fn v6_as_a_scan(
            routes in vec((0u128..0xffff, 0u32..=112, 0u8..=128, 1u32..1000), 0..100),
            addresses in vec((0u128..0xffff, 0u32..=112), 50),
        ) {
            let routes: Vec<_> = routes.iter().map(|r| (r.0 << r.1, r.2, r.3)).collect();
            let fib = Fib::new([], routes.iter().map(|r| (r.0.to_be_bytes(), r.1, r.2)));
            let ends = routes.iter().flat_map(|r| [r.0, r.0.wrapping_sub(1), r.0.wrapping_add(1)]);
            for address in addresses.iter().map(|a| a.0 << a.1).chain(ends) {
                prop_assert_eq!(fib.lookup_v6(address.to_be_bytes()), scan(&routes, address));
            }
        }
    }
}
