//! Longest-prefix match: any number of tries in one memory, looked up by workers while the control thread changes them.
//!
//! Two kinds, each the faster one for its keys, and alike to their users:
//!
//! - [`burst`], for keys of 32 bits (IPv4 addresses, receiver indices, labels): wide tables over buckets of whole prefixes,
//!   so that little is read.
//! - [`bitmap`], for IPv6 addresses, whose prefixes are too long for that: narrow nodes that skip what all below agrees in.
//!
//! Neither pushes a prefix down into the leaves of longer ones, unlike a Poptrie or a direct table: a default route over a
//! million others is changed as fast as any. An update writes copies of the blocks on its way and nothing else. Readers
//! keep what they had ([`Tries`]), all of it and exactly, until they take the next snapshot; `arena` says how. A
//! transaction is visible with its snapshot, at once and whole.

mod arena;
pub mod bitmap;
pub mod burst;
mod memory;
#[cfg(test)]
mod tests;

use arena::{Arena, View};

/// What a lookup finds: a number of 30 bits. 0 means nothing.
pub type Leaf = u32;

/// No route.
pub const NO_ROUTE: Leaf = 0;
/// The largest leaf.
pub const MAX_LEAF: Leaf = (1 << 30) - 1;

/// Lookups that go down side by side.
const BATCH: usize = 64;

/// What can be looked up, in tries of its kind.
pub trait Key: Copy {
    /// How many bits it has.
    const BITS: u32;

    /// One trie: where it begins. It means something only to the snapshot that it was published with.
    type Root: Copy + Default + PartialEq + std::fmt::Debug;

    /// As [`Tries::lookup`].
    fn lookup(tries: &Tries, root: &Self::Root, key: Self) -> Leaf;
    /// As [`Tries::lookup_all`], at most [`BATCH`].
    fn lookup_batch(tries: &Tries, queries: &[(&Self::Root, Self)], leaves: &mut [Leaf]);
    /// As [`Editor::get`].
    fn get(editor: &Editor, root: &Self::Root, key: Self, len: u32) -> Option<Leaf>;
    /// As [`Editor::set`].
    fn set(
        editor: &mut Editor,
        root: &mut Self::Root,
        key: Self,
        len: u32,
        leaf: Leaf,
    ) -> Option<Leaf>;
    /// As [`Editor::remove`].
    fn remove(editor: &mut Editor, root: &mut Self::Root, key: Self, len: u32) -> Option<Leaf>;
    /// As [`Editor::clear`].
    fn clear(editor: &mut Editor, root: Self::Root);
}

/// Keys and the kind of tries that they are in.
macro_rules! keys {
    ($($key:ty: $kind:ident, $bits:expr;)*) => {$(
        impl Key for $key {
            const BITS: u32 = $bits;
            type Root = $kind::Root;

            #[inline(always)]
            fn lookup(tries: &Tries, root: &Self::Root, key: Self) -> Leaf {
                $kind::lookup(tries.$kind.words(), root, key)
            }

            #[inline(always)]
            fn lookup_batch(tries: &Tries, queries: &[(&Self::Root, Self)], leaves: &mut [Leaf]) {
                $kind::lookup_batch(tries.$kind.words(), queries, leaves);
            }

            fn get(editor: &Editor, root: &Self::Root, key: Self, len: u32) -> Option<Leaf> {
                editor.$kind.find(root, $kind::Prefix::new(key, len.min($bits)))
            }

            fn set(
                editor: &mut Editor,
                root: &mut Self::Root,
                key: Self,
                len: u32,
                leaf: Leaf,
            ) -> Option<Leaf> {
                debug_assert!((1..=MAX_LEAF).contains(&leaf));
                editor.$kind.enter(root, $kind::Prefix::new(key, len.min($bits)), leaf)
            }

            fn remove(
                editor: &mut Editor,
                root: &mut Self::Root,
                key: Self,
                len: u32,
            ) -> Option<Leaf> {
                editor.$kind.strike(root, $kind::Prefix::new(key, len.min($bits)))
            }

            fn clear(editor: &mut Editor, root: Self::Root) {
                editor.$kind.clear(root);
            }
        }
    )*};
}

keys! {
    u32: burst, 32;
    // An IPv4 address.
    [u8; 4]: burst, 32;
    Number: burst, 32;
    u128: bitmap, 128;
    // An IPv6 address.
    [u8; 16]: bitmap, 128;
}

/// A 32-bit number for exact matches, as labels and receiver indices are. Neighbours, which are as a rule in use together,
/// are spread over the trie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Number(pub u32);

/// A snapshot of all tries. Cloning shares it.
#[derive(Clone)]
pub struct Tries {
    burst: View<{ burst::WORDS }>,
    bitmap: View<{ bitmap::WORDS }>,
}

impl Default for Tries {
    fn default() -> Self {
        Editor::default().publish()
    }
}

impl Tries {
    /// The leaf of the longest prefix that holds `key`.
    #[inline]
    pub fn lookup<K: Key>(&self, root: &K::Root, key: K) -> Leaf {
        K::lookup(self, root, key)
    }

    /// Looks up many keys, each in a trie of its own: all take one step, then all the next, so that they wait for memory
    /// together. `leaves` gets as many as there are `queries`, or as it has room for.
    #[inline]
    pub fn lookup_all<K: Key>(&self, queries: &[(&K::Root, K)], leaves: &mut [Leaf]) {
        for (queries, leaves) in queries.chunks(BATCH).zip(leaves.chunks_mut(BATCH)) {
            K::lookup_batch(self, queries, leaves);
        }
    }
}

/// The control thread's end of all tries. What it changes no snapshot shows but those taken afterwards.
#[derive(Default)]
pub struct Editor {
    burst: Arena<{ burst::WORDS }>,
    bitmap: Arena<{ bitmap::WORDS }>,
}

impl Editor {
    /// The leaf of exactly the prefix of the first `len` bits of `key`.
    pub fn get<K: Key>(&self, root: &K::Root, key: K, len: u32) -> Option<Leaf> {
        K::get(self, root, key, len)
    }

    /// Sets the leaf, from 1 to [`MAX_LEAF`], of a prefix; returns what it was.
    pub fn set<K: Key>(
        &mut self,
        root: &mut K::Root,
        key: K,
        len: u32,
        leaf: Leaf,
    ) -> Option<Leaf> {
        K::set(self, root, key, len, leaf)
    }

    /// Removes a prefix and returns its leaf.
    pub fn remove<K: Key>(&mut self, root: &mut K::Root, key: K, len: u32) -> Option<Leaf> {
        K::remove(self, root, key, len)
    }

    /// Empties a trie.
    pub fn clear<K: Key>(&mut self, root: &mut K::Root) {
        K::clear(self, std::mem::take(root));
    }

    /// A snapshot with all changes so far.
    pub fn publish(&mut self) -> Tries {
        Tries {
            burst: self.burst.publish(),
            bitmap: self.bitmap.publish(),
        }
    }

    /// Has the memory of snapshots that are gone used again. [`Editor::publish`] does it too.
    pub fn reclaim(&mut self) {
        self.burst.reclaim();
        self.bitmap.reclaim();
    }

    /// Bytes that were ever in use, and those of them that are in use.
    pub fn bytes(&self) -> (usize, usize) {
        let (burst, bitmap) = (self.burst.bytes(), self.bitmap.bytes());
        (burst.0 + bitmap.0, burst.1 + bitmap.1)
    }
}
