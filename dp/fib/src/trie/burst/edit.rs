//! Changing tries.

use arrayvec::ArrayVec;

use super::bucket::Prefix;
use super::{BUCKET, Below, Entry, Leaf, NO_ROUTE, Root, WORDS};
use crate::trie::arena::Arena;

/// Prefixes that fit a bucket.
const BUCKET_FULL: usize = WORDS;
/// Prefixes in and below a table for each of its entries, when it is to become larger. It becomes smaller below one.
const TABLE_FULL: usize = 6;
/// Bits of the smallest table: it fills a unit.
const MIN_BITS: u32 = 2;
/// Bits of the largest table: more would be read in one step, but copied for a change. The first one is the same for many
/// changes of a transaction.
fn max_bits(depth: u32) -> u32 {
    match depth {
        0 => 10,
        _ => (BITS - depth).min(8),
    }
}

/// Bits of a key.
const BITS: u32 = 32;

/// Where a table's words begin, and how many bits decide its entries.
#[derive(Clone, Copy)]
struct Table {
    first: usize,
    bits: u32,
}

impl Table {
    /// Units of its block.
    fn size(bits: u32) -> usize {
        1 << (bits - MIN_BITS)
    }

    /// Which word holds two leaves of the heap, and how far the `nth` is shifted in it.
    fn leaf(self, nth: u32) -> (usize, u32) {
        let word = self.first + (1 << self.bits) + nth as usize / 2;
        (word, nth % 2 * 32)
    }
}

impl Below {
    fn table(self) -> Table {
        Table {
            first: self.unit as usize * WORDS,
            bits: self.kind,
        }
    }
}

impl Entry {
    fn below(self) -> Below {
        Below {
            unit: self.unit(),
            kind: self.kind(),
        }
    }
}

fn some(leaf: Leaf) -> Option<Leaf> {
    (leaf != NO_ROUTE).then_some(leaf)
}

impl Arena<WORDS> {
    /// The leaf of exactly this prefix.
    pub(in crate::trie) fn find(&self, root: &Root, prefix: Prefix) -> Option<Leaf> {
        if prefix.len() == 0 {
            return some(root.0.leaf());
        }
        let (mut below, mut depth) = (root.0.below(), 0);
        while below.kind > BUCKET {
            let table = below.table();
            if prefix.len() <= depth + table.bits {
                return some(self.half(table.leaf(own(prefix, depth))));
            }
            let at = prefix.bits(depth, table.bits) as usize;
            below = self.entry(table, at).below();
            depth += table.bits;
        }
        let bucket = self.bucket(below);
        let known = bucket.iter().find(|known| known.is(prefix))?;
        Some(known.leaf())
    }

    /// Sets a prefix's leaf and returns what it was.
    pub(in crate::trie) fn enter(
        &mut self,
        root: &mut Root,
        prefix: Prefix,
        leaf: Leaf,
    ) -> Option<Leaf> {
        let (default, mut below) = (root.0.leaf(), root.0.below());
        if prefix.len() == 0 {
            root.0 = Entry::new(leaf, below);
            return some(default);
        }
        let before = self.insert(&mut below, 0, prefix.with(leaf));
        root.0 = Entry::new(default, below);
        before
    }

    /// Removes a prefix and returns its leaf.
    pub(in crate::trie) fn strike(&mut self, root: &mut Root, prefix: Prefix) -> Option<Leaf> {
        // So that looking for what is not there copies nothing.
        let before = self.find(root, prefix)?;
        let (default, mut below) = (root.0.leaf(), root.0.below());
        if prefix.len() == 0 {
            root.0 = Entry::new(NO_ROUTE, below);
        } else {
            self.delete(&mut below, 0, prefix);
            root.0 = Entry::new(default, below);
        }
        Some(before)
    }

    /// Gives back all that a trie has.
    pub(in crate::trie) fn clear(&mut self, root: Root) {
        self.take_apart(root.0.below(), Prefix::new(0, 0), &mut Vec::new());
    }

    fn insert(&mut self, below: &mut Below, depth: u32, prefix: Prefix) -> Option<Leaf> {
        if below.kind <= BUCKET {
            return self.insert_into_bucket(below, depth, prefix);
        }
        let (table, end) = self.writable_table(below, depth);
        let before = if prefix.len() <= end {
            self.set_own(table, depth, prefix)
        } else {
            self.at_child(table, depth, prefix, |arena, child| {
                arena.insert(child, end, prefix)
            })
        };
        if before.is_none() {
            let count = self.half(table.leaf(0)) + 1;
            self.set_half(table.leaf(0), count);
            if count as usize > TABLE_FULL << table.bits && table.bits < max_bits(depth) {
                self.rebuild(below, depth, prefix);
            }
        }
        before
    }

    fn insert_into_bucket(
        &mut self,
        below: &mut Below,
        depth: u32,
        prefix: Prefix,
    ) -> Option<Leaf> {
        let mut bucket = self.bucket(*below);
        let before = match bucket.iter_mut().find(|known| known.is(prefix)) {
            Some(known) => Some(std::mem::replace(known, prefix).leaf()),
            None => {
                bucket.push(prefix);
                None
            }
        };
        self.replace(below, depth, &mut bucket);
        before
    }

    /// Removes a prefix that is there.
    fn delete(&mut self, below: &mut Below, depth: u32, prefix: Prefix) {
        if below.kind <= BUCKET {
            let mut bucket = self.bucket(*below);
            bucket.retain(|known| !known.is(prefix));
            return self.replace(below, depth, &mut bucket);
        }
        let (table, end) = self.writable_table(below, depth);
        if prefix.len() <= end {
            self.set_own(table, depth, prefix.with(NO_ROUTE));
        } else {
            self.at_child(table, depth, prefix, |arena, child| {
                arena.delete(child, end, prefix);
            });
        }
        let count = self.half(table.leaf(0)) - 1;
        self.set_half(table.leaf(0), count);
        if (count as usize) < 1 << table.bits {
            self.rebuild(below, depth, prefix);
        }
    }

    /// A table that may be written, and its depth with its bits.
    fn writable_table(&mut self, below: &mut Below, depth: u32) -> (Table, u32) {
        below.unit = self.writable(below.unit, Table::size(below.kind));
        (below.table(), depth + below.kind)
    }

    /// Changes what is below the entry that a prefix leads to.
    fn at_child<T>(
        &mut self,
        table: Table,
        depth: u32,
        prefix: Prefix,
        change: impl FnOnce(&mut Self, &mut Below) -> T,
    ) -> T {
        let at = prefix.bits(depth, table.bits) as usize;
        let entry = self.entry(table, at);
        let mut child = entry.below();
        let result = change(self, &mut child);
        self.set_word(table.first + at, Entry::new(entry.leaf(), child).0);
        result
    }

    /// Sets the leaf of a prefix that ends within a table, brings the entries that it holds up to date, and returns what
    /// it was.
    fn set_own(&mut self, table: Table, depth: u32, prefix: Prefix) -> Option<Leaf> {
        let place = table.leaf(own(prefix, depth));
        let before = self.half(place);
        self.set_half(place, prefix.leaf());
        let first = prefix.bits(depth, table.bits) as usize;
        let count = 1 << (depth + table.bits - prefix.len());
        self.fill(table, first, count);
        some(before)
    }

    /// Writes the leaves of `count` entries anew.
    fn fill(&mut self, table: Table, first: usize, count: usize) {
        for at in first..first + count {
            let mut nth = 1 << table.bits | at as u32;
            let mut leaf = NO_ROUTE;
            while nth > 1 && leaf == NO_ROUTE {
                leaf = self.half(table.leaf(nth));
                nth /= 2;
            }
            let entry = self.entry(table, at);
            self.set_word(table.first + at, Entry::new(leaf, entry.below()).0);
        }
    }

    /// Makes a table anew that has become too small or too large for what is in it. `prefix` is within it.
    #[cold]
    fn rebuild(&mut self, below: &mut Below, depth: u32, prefix: Prefix) {
        let mut prefixes = Vec::new();
        let place = Prefix::new((prefix.0 >> 32) as u32, depth);
        self.take_apart(*below, place, &mut prefixes);
        *below = self.build(&mut prefixes, depth);
    }

    /// Gives back what is below `place`, and lists the prefixes in it.
    fn take_apart(&mut self, below: Below, place: Prefix, prefixes: &mut Vec<Prefix>) {
        if below.kind <= BUCKET {
            prefixes.extend(self.bucket(below));
            if below.kind == BUCKET {
                self.release(below.unit, 1);
            }
            return;
        }
        let table = below.table();
        let depth = place.len();
        let inside = |value: u32, len: u32| {
            let key = (place.0 - (1 << (63 - depth))) >> 32;
            let bits = u64::from(value) << (BITS - depth - len);
            Prefix::new(key as u32 | bits as u32, depth + len)
        };
        for nth in 2..2 << table.bits {
            if let Some(leaf) = some(self.half(table.leaf(nth))) {
                let len = nth.ilog2();
                prefixes.push(inside(nth - (1 << len), len).with(leaf));
            }
        }
        for at in 0..1 << table.bits {
            let child = self.entry(table, at as usize).below();
            self.take_apart(child, inside(at, table.bits), prefixes);
        }
        self.release(below.unit, Table::size(table.bits));
    }

    /// Makes what is below `depth` bits out of its prefixes, in any order.
    fn build(&mut self, prefixes: &mut [Prefix], depth: u32) -> Below {
        if prefixes.len() <= BUCKET_FULL {
            let mut below = Below::default();
            self.replace_bucket(&mut below, prefixes);
            return below;
        }
        let fits = |bits: &u32| prefixes.len() <= TABLE_FULL << bits;
        let most = max_bits(depth);
        let bits = (MIN_BITS..most).find(fits).unwrap_or(most);
        let size = Table::size(bits);
        let below = Below {
            unit: self.allocate(size),
            kind: bits,
        };
        let (table, end) = (below.table(), depth + bits);
        for word in table.first..table.first + size * WORDS {
            self.set_word(word, 0);
        }
        self.set_half(table.leaf(0), prefixes.len() as u32);

        prefixes.sort_unstable_by_key(|prefix| (prefix.len() > end, prefix.0));
        let longer = prefixes.partition_point(|prefix| prefix.len() <= end);
        let (owns, longer) = prefixes.split_at_mut(longer);
        for prefix in owns {
            self.set_half(table.leaf(own(*prefix, depth)), prefix.leaf());
        }
        for child in longer.chunk_by_mut(|a, b| a.bits(depth, bits) == b.bits(depth, bits)) {
            let at = child[0].bits(depth, bits) as usize;
            let child = self.build(child, end);
            self.set_word(table.first + at, Entry::new(NO_ROUTE, child).0);
        }
        self.fill(table, 0, 1 << bits);
        below
    }

    /// Puts other prefixes into a bucket; into a table, if they are too many.
    fn replace(&mut self, below: &mut Below, depth: u32, prefixes: &mut [Prefix]) {
        if prefixes.len() > BUCKET_FULL {
            self.release(below.unit, 1);
            *below = self.build(prefixes, depth);
        } else {
            self.replace_bucket(below, prefixes);
        }
    }

    fn replace_bucket(&mut self, below: &mut Below, prefixes: &mut [Prefix]) {
        let (was, is) = (below.kind == BUCKET, !prefixes.is_empty());
        below.unit = match (was, is) {
            (true, true) => self.writable(below.unit, 1),
            (false, true) => self.allocate(1),
            (true, false) => {
                self.release(below.unit, 1);
                0
            }
            (false, false) => 0,
        };
        below.kind = if is { BUCKET } else { 0 };
        if is {
            prefixes.sort_unstable_by_key(|prefix| prefix.len());
            let words = std::array::from_fn(|nth| prefixes.get(nth).map_or(0, |prefix| prefix.0));
            self.set(below.unit, words);
        }
    }

    /// What a bucket holds, with room for one more.
    fn bucket(&self, below: Below) -> ArrayVec<Prefix, { BUCKET_FULL + 1 }> {
        if below.kind != BUCKET {
            return ArrayVec::new();
        }
        let words = self.unit(below.unit).into_iter();
        words.filter(|word| *word != 0).map(Prefix).collect()
    }

    fn entry(&self, table: Table, at: usize) -> Entry {
        Entry(self.word(table.first + at))
    }

    fn half(&self, (word, shift): (usize, u32)) -> u32 {
        (self.word(word) >> shift) as u32
    }

    fn set_half(&mut self, (word, shift): (usize, u32), half: u32) {
        let other = self.word(word) & (0xffff_ffff << (32 - shift));
        self.set_word(word, other | u64::from(half) << shift);
    }
}

/// The number in the heap, at `depth`, of a prefix that ends there.
fn own(prefix: Prefix, depth: u32) -> u32 {
    let len = prefix.len() - depth;
    1 << len | prefix.bits(depth, len)
}
