//! The memory of all tries of one kind: readers read what no writer touches any more.
//!
//! It is made of units of `WORDS` words, which blocks are cut from. A block that a published snapshot can reach is never
//! written: a change writes a copy, and the old block is retired until the last snapshot that can reach it is gone. Words
//! are atomics, whose relaxed loads cost what plain ones do. What orders them is the publication: a snapshot goes to readers through a release and an acquire (arc-swap), and comes back through the release of its
//! [`Token`]'s last reference and the acquire of [`Arc::get_mut`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::memory::Memory;

/// Units of the largest block: a burst trie's first table.
const MAX_BLOCK: usize = 256;
/// Units that an index has bits for; so that an index of words fits 32 bits.
const MAX_UNITS: usize = 1 << 29;

/// Blocks that no trie has any more: first unit and size.
type Retired = Vec<(u32, u16)>;

/// Lives as long as a snapshot does.
#[derive(Default)]
struct Token;

/// A snapshot of the memory: all that was written when it was taken stays as it is while this lives.
#[derive(Clone)]
pub(super) struct View<const WORDS: usize> {
    memory: Arc<Memory>,
    _token: Arc<Token>,
}

impl<const WORDS: usize> View<WORDS> {
    /// All words, those of unit `n` from `WORDS * n` on.
    #[inline(always)]
    pub(super) fn words(&self) -> &[AtomicU64] {
        self.memory.words()
    }
}

/// The words of a unit.
#[inline(always)]
pub(super) fn unit<const WORDS: usize>(words: &[AtomicU64], at: u32) -> &[AtomicU64; WORDS] {
    let first = WORDS * at as usize;
    words[first..].first_chunk().expect("units are whole")
}

/// The writer's end. Blocks are given out, written, and taken back; [`Arena::publish`] ends a transaction.
pub(super) struct Arena<const WORDS: usize> {
    /// Units that were ever given out.
    used: usize,
    free: Free,
    /// By first unit: blocks that no snapshot can reach yet.
    fresh: Vec<u64>,
    /// Those blocks, some perhaps twice, some given back meanwhile.
    made: Vec<u32>,
    /// Blocks that only snapshots reach.
    retired: Retired,
    /// Those of earlier transactions, oldest first, each with the token of the newest snapshot that reaches them.
    waiting: VecDeque<(Arc<Token>, Retired)>,
    newest: View<WORDS>,
}

impl<const WORDS: usize> Default for Arena<WORDS> {
    fn default() -> Self {
        Self {
            used: 0,
            free: Free::default(),
            fresh: Vec::new(),
            made: Vec::new(),
            retired: Vec::new(),
            waiting: VecDeque::new(),
            newest: View {
                memory: Arc::new(Memory::reserve()),
                _token: Arc::default(),
            },
        }
    }
}

impl<const WORDS: usize> Arena<WORDS> {
    #[inline(always)]
    fn words(&self) -> &[AtomicU64] {
        self.newest.words()
    }

    /// A word, counted from the first of the first unit.
    #[inline(always)]
    pub(super) fn word(&self, at: usize) -> u64 {
        self.words()[at].load(Relaxed)
    }

    /// Writes a word of a fresh block.
    #[inline(always)]
    pub(super) fn set_word(&mut self, at: usize, word: u64) {
        self.words()[at].store(word, Relaxed);
    }

    /// What a unit holds.
    pub(super) fn unit(&self, at: u32) -> [u64; WORDS] {
        let unit = unit::<WORDS>(self.words(), at);
        std::array::from_fn(|word| unit[word].load(Relaxed))
    }

    /// Writes a unit of a fresh block.
    pub(super) fn set(&mut self, at: u32, words: [u64; WORDS]) {
        let unit = unit::<WORDS>(self.words(), at);
        for (place, word) in unit.iter().zip(words) {
            place.store(word, Relaxed);
        }
    }

    /// A block of so many units, at most [`MAX_BLOCK`]; fresh, and of no particular content.
    pub(super) fn allocate(&mut self, size: usize) -> u32 {
        let block = self.free.take(size).unwrap_or_else(|| self.extend(size));
        self.fresh[block as usize / 64] |= 1 << (block % 64);
        self.made.push(block);
        block
    }

    /// The block itself, if it is fresh; else a fresh copy, and the block is released.
    pub(super) fn writable(&mut self, block: u32, size: usize) -> u32 {
        if self.is_fresh(block) {
            return block;
        }
        let copy = self.allocate(size);
        let (from, to) = (WORDS * block as usize, WORDS * copy as usize);
        // SAFETY: blocks are apart; this one is published or was, so nobody writes it; the copy is fresh and ours alone.
        unsafe { self.newest.memory.copy(from, to, WORDS * size) };
        self.release(block, size);
        copy
    }

    fn extend(&mut self, size: usize) -> u32 {
        let block = self.used as u32;
        self.used += size;
        let room = MAX_UNITS.min(self.words().len() / WORDS);
        assert!(self.used <= room, "a table of {room} units is full");
        if self.fresh.len() * 64 < self.used {
            let words = self.used.next_multiple_of(1 << 16) / 64;
            self.fresh.resize(words, 0);
        }
        block
    }

    /// Whether a block may be written.
    pub(super) fn is_fresh(&self, block: u32) -> bool {
        self.fresh[block as usize / 64] >> (block % 64) & 1 != 0
    }

    /// Takes a block back that the trie being written has no more use for.
    pub(super) fn release(&mut self, block: u32, size: usize) {
        if self.is_fresh(block) {
            self.fresh[block as usize / 64] &= !(1 << (block % 64));
            self.free.put(block, size);
        } else {
            self.retired.push((block, size as u16));
        }
    }

    /// All that was written so far; from now on it stays as it is.
    pub(super) fn publish(&mut self) -> View<WORDS> {
        if self.made.is_empty() && self.retired.is_empty() {
            return self.newest.clone();
        }
        for block in self.made.drain(..) {
            self.fresh[block as usize / 64] &= !(1 << (block % 64));
        }
        let view = View {
            memory: Arc::clone(&self.newest.memory),
            _token: Arc::default(),
        };
        let before = std::mem::replace(&mut self.newest, view.clone());
        let retired = std::mem::take(&mut self.retired);
        self.waiting.push_back((before._token, retired));
        self.reclaim();
        view
    }

    /// Has blocks used again that no snapshot reaches any more.
    pub(super) fn reclaim(&mut self) {
        while let Some((token, _)) = self.waiting.front_mut()
            // The only reference is ours: no reader has that snapshot, and none can get it again.
            && Arc::get_mut(token).is_some()
            && let Some((_, blocks)) = self.waiting.pop_front()
        {
            for (block, size) in blocks {
                self.free.put(block, size.into());
            }
        }
    }

    /// Bytes that were ever in use, and those of them that are in use by the trie being written or by snapshots.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let beside = self.free.bytes() + self.fresh.capacity() * 8 + self.made.capacity() * 4;
        (
            self.used * WORDS * 8 + beside,
            (self.used - self.free.units) * WORDS * 8,
        )
    }
}

/// Free blocks by size.
struct Free {
    lists: Vec<Vec<u32>>,
    /// Of each size whether there are any.
    any: [u64; MAX_BLOCK / 64 + 1],
    /// Units of all of them.
    units: usize,
}

impl Default for Free {
    fn default() -> Self {
        Self {
            lists: vec![Vec::new(); MAX_BLOCK + 1],
            any: [0; _],
            units: 0,
        }
    }
}

impl Free {
    fn put(&mut self, block: u32, size: usize) {
        self.lists[size].push(block);
        self.any[size / 64] |= 1 << (size % 64);
        self.units += size;
    }

    /// Of the smallest blocks that are large enough one; what is left over is a smaller free block.
    fn take(&mut self, size: usize) -> Option<u32> {
        let found = self.least(size)?;
        let block = self.lists[found].pop()?;
        if self.lists[found].is_empty() {
            self.any[found / 64] &= !(1 << (found % 64));
        }
        self.units -= found;
        if found > size {
            self.put(block + size as u32, found - size);
        }
        Some(block)
    }

    /// The smallest size, from this one on, that there is a block of.
    fn least(&self, size: usize) -> Option<usize> {
        let first = self.any[size / 64] & u64::MAX << (size % 64);
        let rest = self.any.iter().copied().enumerate().skip(size / 64 + 1);
        let mut words = std::iter::once((size / 64, first)).chain(rest);
        let (nth, word) = words.find(|(_, word)| *word != 0)?;
        Some(nth * 64 + word.trailing_zeros() as usize)
    }

    /// Bytes of the lists.
    fn bytes(&self) -> usize {
        self.lists.iter().map(|list| list.capacity() * 4).sum()
    }
}
