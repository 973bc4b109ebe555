//! Changing tries.

use arrayvec::ArrayVec;

use super::node::{MAX_SKIP, Node, STRIDE};
use super::{Bits, Leaf, NO_ROUTE, Root, WORDS, nth_leaf};
use crate::trie::arena::Arena;

/// What a node's block holds.
struct Contents {
    children: ArrayVec<Node, 64>,
    leaves: ArrayVec<Leaf, 126>,
}

/// A prefix as far as it is not yet decided where it stands.
#[derive(Clone, Copy)]
pub(in crate::trie) struct Prefix {
    /// In the high bits.
    key: u128,
    len: u32,
}

impl Prefix {
    pub(in crate::trie) fn new<K: Bits>(key: K, len: u32) -> Self {
        Self {
            key: key.left(),
            len: len.min(K::BITS),
        }
    }

    /// `count` bits, at most 30, after the first `depth`.
    fn bits(self, depth: u32, count: u32) -> u32 {
        self.key.bits(depth, count)
    }

    /// How many strides lie between `depth` and the one that it ends in. `len` is greater than `depth`.
    fn strides(self, depth: u32) -> u32 {
        (self.len - 1 - depth) / STRIDE
    }
}

impl Arena<WORDS> {
    /// Sets a prefix's leaf and returns what it was.
    pub(in crate::trie) fn enter(
        &mut self,
        root: &mut Root,
        prefix: Prefix,
        leaf: Leaf,
    ) -> Option<Leaf> {
        if prefix.len == 0 {
            let before = std::mem::replace(&mut root.default, leaf);
            return (before != NO_ROUTE).then_some(before);
        }
        self.insert(&mut root.top, 0, prefix, leaf)
    }

    /// Removes a prefix and returns its leaf.
    pub(in crate::trie) fn strike(&mut self, root: &mut Root, prefix: Prefix) -> Option<Leaf> {
        if prefix.len == 0 {
            let before = std::mem::take(&mut root.default);
            return (before != NO_ROUTE).then_some(before);
        }
        // So that looking for what is not there copies nothing.
        self.find(root, prefix)?;
        self.delete(&mut root.top, 0, prefix)
    }

    /// The leaf of exactly this prefix.
    pub(in crate::trie) fn find(&self, root: &Root, prefix: Prefix) -> Option<Leaf> {
        if prefix.len == 0 {
            return (root.default != NO_ROUTE).then_some(root.default);
        }
        let (mut node, mut depth) = (root.top, 0);
        loop {
            if node.is_empty() || prefix.strides(depth) < node.skip() {
                return None;
            }
            let skip = node.skip() * STRIDE;
            if prefix.bits(depth, skip) != node.skipped() {
                return None;
            }
            depth += skip;
            let bits = prefix.bits(depth, STRIDE);
            if prefix.len <= depth + STRIDE {
                let (nth, there) = node.exact(bits, prefix.len - depth);
                return there.then(|| self.leaf(node, nth));
            }
            node = self.child(node, node.child(bits)?);
            depth += STRIDE;
        }
    }

    /// Gives back all that a trie has.
    pub(in crate::trie) fn clear(&mut self, root: Root) {
        self.drop_block(root.top);
    }

    fn insert(&mut self, node: &mut Node, depth: u32, prefix: Prefix, leaf: Leaf) -> Option<Leaf> {
        if node.is_empty() {
            *node = self.chain(depth, prefix, leaf);
            return None;
        }
        let agree = self.agreement(*node, depth, prefix);
        if agree < node.skip() {
            self.split(node, agree);
        }
        let depth = depth + node.skip() * STRIDE;
        let bits = prefix.bits(depth, STRIDE);
        if prefix.len <= depth + STRIDE {
            let len = prefix.len - depth;
            let (nth, there) = node.exact(bits, len);
            let mut contents = self.contents(*node);
            if there {
                let before = std::mem::replace(&mut contents.leaves[nth as usize], leaf);
                self.store(node, *node, &contents);
                return Some(before);
            }
            contents.leaves.insert(nth as usize, leaf);
            let before = *node;
            node.flip(bits, len);
            self.store(node, before, &contents);
            return None;
        }
        if let Some(nth) = node.child(bits) {
            let mut child = self.child(*node, nth);
            let before = self.insert(&mut child, depth + STRIDE, prefix, leaf);
            self.set_child(node, nth, child);
            return before;
        }
        let child = self.chain(depth + STRIDE, prefix, leaf);
        let mut contents = self.contents(*node);
        let before = *node;
        node.inner |= 1 << bits;
        let nth = node.child(bits).unwrap_or_default();
        contents.children.insert(nth as usize, child);
        self.store(node, before, &contents);
        None
    }

    /// A node `depth` bits down with nothing in it but one prefix; with nodes below if that is too far down to skip to.
    fn chain(&mut self, depth: u32, prefix: Prefix, leaf: Leaf) -> Node {
        let strides = prefix.strides(depth);
        let skip = strides.min(MAX_SKIP);
        let at = depth + skip * STRIDE;
        let bits = prefix.bits(at, STRIDE);
        let mut node = if skip == strides {
            Node::only(bits, prefix.len - at, leaf)
        } else {
            let child = self.chain(at + STRIDE, prefix, leaf);
            self.parent(bits, child)
        };
        node.set_skip(skip, prefix.bits(depth, skip * STRIDE));
        node
    }

    /// A node with one child.
    fn parent(&mut self, bits: u32, child: Node) -> Node {
        let block = self.allocate(1);
        self.set(block, child.words());
        Node::above(bits, block)
    }

    /// How many of the strides that a node skips a prefix has in common with it, and needs.
    fn agreement(&self, node: Node, depth: u32, prefix: Prefix) -> u32 {
        let skip = node.skip();
        let ours = prefix.bits(depth, skip * STRIDE);
        let differ = ours ^ node.skipped();
        let equal = match differ {
            0 => skip,
            differ => skip - 1 - differ.ilog2() / STRIDE,
        };
        equal.min(prefix.strides(depth))
    }

    /// Has a node skip fewer strides, by putting what it was into a child.
    fn split(&mut self, node: &mut Node, keep: u32) {
        let (skip, skipped) = (node.skip(), node.skipped());
        let below = (skip - keep - 1) * STRIDE;
        let mut child = *node;
        child.set_skip(skip - keep - 1, skipped & ((1 << below) - 1));
        let bits = skipped >> below & 63;
        *node = self.parent(bits, child);
        node.set_skip(keep, skipped >> below >> STRIDE);
    }

    /// Removes a prefix that is there.
    fn delete(&mut self, node: &mut Node, depth: u32, prefix: Prefix) -> Option<Leaf> {
        let depth = depth + node.skip() * STRIDE;
        let bits = prefix.bits(depth, STRIDE);
        let leaf;
        if prefix.len <= depth + STRIDE {
            let len = prefix.len - depth;
            let (nth, _) = node.exact(bits, len);
            let mut contents = self.contents(*node);
            leaf = contents.leaves.remove(nth as usize);
            let before = *node;
            node.flip(bits, len);
            self.store(node, before, &contents);
        } else {
            let nth = node.child(bits)?;
            let mut child = self.child(*node, nth);
            leaf = self.delete(&mut child, depth + STRIDE, prefix)?;
            if child.is_empty() {
                let mut contents = self.contents(*node);
                contents.children.remove(nth as usize);
                let before = *node;
                node.inner ^= 1 << bits;
                self.store(node, before, &contents);
            } else {
                self.set_child(node, nth, child);
            }
        }
        self.join(node);
        Some(leaf)
    }

    /// Makes one of a node that has nothing but one child, and that child, if that can skip so far.
    fn join(&mut self, node: &mut Node) {
        if node.leaves() > 0 || node.children() != 1 {
            return;
        }
        let mut child = self.child(*node, 0);
        let strides = node.skip() + 1 + child.skip();
        if strides > MAX_SKIP {
            return;
        }
        let bits = node.skipped() << STRIDE | node.inner.trailing_zeros();
        child.set_skip(strides, bits << (child.skip() * STRIDE) | child.skipped());
        self.release(node.block(), 1);
        *node = child;
    }

    fn child(&self, node: Node, nth: u32) -> Node {
        Node::new(self.unit(node.block() + nth))
    }

    fn leaf(&self, node: Node, nth: u32) -> Leaf {
        if node.is_inline() {
            return node.block();
        }
        let first = node.block() + node.children();
        nth_leaf(self.unit(first + nth / 8), nth % 8)
    }

    /// Replaces a child; the block is copied if a snapshot reaches it.
    fn set_child(&mut self, node: &mut Node, nth: u32, child: Node) {
        node.set_block(self.writable(node.block(), size(*node)));
        self.set(node.block() + nth, child.words());
    }

    fn contents(&self, node: Node) -> Contents {
        Contents {
            children: (0..node.children())
                .map(|nth| self.child(node, nth))
                .collect(),
            leaves: (0..node.leaves()).map(|nth| self.leaf(node, nth)).collect(),
        }
    }

    /// Writes the contents of `node`, which was `before`, and gives its old block back.
    fn store(&mut self, node: &mut Node, before: Node, contents: &Contents) {
        let (old, new) = (size(before), size(*node));
        let in_place = old == new && old > 0 && self.is_fresh(before.block());
        if !in_place && old > 0 {
            self.release(before.block(), old);
        }
        if new == 0 {
            // Nothing, or one leaf.
            node.set_block(contents.leaves.first().copied().unwrap_or_default());
            return;
        }
        if !in_place {
            node.set_block(self.allocate(new));
        }
        let mut at = node.block();
        for child in &contents.children {
            self.set(at, child.words());
            at += 1;
        }
        for eight in contents.leaves.chunks(8) {
            let mut words = [0; 4];
            for (nth, leaf) in eight.iter().enumerate() {
                words[nth / 2] |= u64::from(*leaf) << (nth % 2 * 32);
            }
            self.set(at, words);
            at += 1;
        }
    }

    fn drop_block(&mut self, node: Node) {
        for nth in 0..node.children() {
            self.drop_block(self.child(node, nth));
        }
        if size(node) > 0 {
            self.release(node.block(), size(node));
        }
    }
}

/// Units of a node's block; 0 if it has none.
fn size(node: Node) -> usize {
    if node.is_inline() {
        return 0;
    }
    (node.children() + node.leaves().div_ceil(8)) as usize
}
