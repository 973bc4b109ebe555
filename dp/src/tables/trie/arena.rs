//! The memory of all tries: readers read what no writer touches any more.
//!
//! It is made of units, which blocks are cut from. A block that a published snapshot can reach is never written: a change
//! writes a copy, and the old block is retired until the last snapshot that can reach it is gone. Units are atomics, so
//! all of this is safe code; relaxed loads cost what plain ones do. What orders them is the publication: a snapshot goes
//! to readers through a release and an acquire (arc-swap), and comes back through the release of its [`Token`]'s last
//! reference and the acquire of [`Arc::get_mut`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Units of a chunk, which is 2 MiB.
const CHUNK: usize = 1 << 16;
/// Units of the largest block: 64 children and 126 leaves.
pub(super) const MAX_BLOCK: usize = 64 + 16;
/// Units of 32 bytes that an index has bits for; half of it, so that an index with one more bit for a half word does.
const MAX_UNITS: usize = 1 << 30;

/// A node, or eight leaves.
#[derive(Default)]
#[repr(align(32))]
pub(super) struct Unit([AtomicU64; 4]);

type Chunk = [Unit; CHUNK];

/// Blocks that no trie has any more: first unit and size.
type Retired = Vec<(u32, u8)>;

/// Lives as long as a snapshot does.
#[derive(Default)]
struct Token;

/// A snapshot of the memory: all that was written when it was taken stays as it is while this lives.
#[derive(Clone)]
pub(super) struct View {
    chunks: Arc<[Arc<Chunk>]>,
    _token: Arc<Token>,
}

impl View {
    #[inline(always)]
    pub(super) fn unit(&self, at: u32) -> &Unit {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }
}

impl Unit {
    #[inline(always)]
    pub(super) fn words(&self) -> [u64; 4] {
        let [a, b, c, d] = &self.0;
        [
            a.load(Relaxed),
            b.load(Relaxed),
            c.load(Relaxed),
            d.load(Relaxed),
        ]
    }

    /// One of eight leaves.
    #[inline(always)]
    pub(super) fn leaf(&self, nth: u32) -> u32 {
        let word = self.0[nth as usize / 2 % 4].load(Relaxed);
        (word >> (nth % 2 * 32)) as u32
    }

    fn set(&self, words: [u64; 4]) {
        for (place, word) in self.0.iter().zip(words) {
            place.store(word, Relaxed);
        }
    }
}

/// The writer's end. Blocks are given out, written, and taken back; [`Arena::publish`] ends a transaction.
pub(super) struct Arena {
    chunks: Vec<Arc<Chunk>>,
    /// Units that were ever given out.
    used: usize,
    /// Free blocks by size.
    free: Vec<Vec<u32>>,
    /// Units in them.
    idle: usize,
    /// By first unit: blocks that no snapshot can reach yet.
    fresh: Vec<u64>,
    /// Those blocks, some perhaps twice, some given back meanwhile.
    made: Vec<u32>,
    /// Blocks that only snapshots reach.
    retired: Retired,
    /// Those of earlier transactions, oldest first, each with the token of the newest snapshot that reaches them.
    waiting: VecDeque<(Arc<Token>, Retired)>,
    newest: View,
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            used: 0,
            free: vec![Vec::new(); MAX_BLOCK + 1],
            idle: 0,
            fresh: Vec::new(),
            made: Vec::new(),
            retired: Vec::new(),
            waiting: VecDeque::new(),
            newest: View {
                chunks: Arc::new([]),
                _token: Arc::default(),
            },
        }
    }
}

impl Arena {
    pub(super) fn unit(&self, at: u32) -> &Unit {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    /// Writes a unit of a fresh block.
    pub(super) fn set(&mut self, at: u32, words: [u64; 4]) {
        self.unit(at).set(words);
    }

    /// A block of so many units, at most [`MAX_BLOCK`]; fresh, and of no particular content.
    pub(super) fn allocate(&mut self, size: usize) -> u32 {
        // The smallest that is large enough; what is left over is a smaller free block.
        let found = (size..=MAX_BLOCK).find(|&size| !self.free[size].is_empty());
        let block = match found.and_then(|found| Some((found, self.free[found].pop()?))) {
            Some((found, block)) => {
                self.idle -= size;
                if found > size {
                    self.free[found - size].push(block + size as u32);
                }
                block
            }
            None => self.extend(size),
        };
        self.fresh[block as usize / 64] |= 1 << (block % 64);
        self.made.push(block);
        block
    }

    fn extend(&mut self, size: usize) -> u32 {
        // A block lies in one chunk, though nothing depends on it but speed.
        let left = CHUNK * self.chunks.len() - self.used;
        if left < size {
            if left > 0 {
                self.free[left].push(self.used as u32);
                self.idle += left;
            }
            assert!(self.used + CHUNK <= MAX_UNITS, "32 GiB of routes");
            self.used = CHUNK * self.chunks.len();
            let chunk: Arc<[Unit]> = (0..CHUNK).map(|_| Unit::default()).collect();
            let chunk: Result<Arc<Chunk>, _> = chunk.try_into();
            self.chunks.extend(chunk.ok());
            self.fresh.resize(CHUNK * self.chunks.len() / 64, 0);
        }
        let block = self.used as u32;
        self.used += size;
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
            self.free[size].push(block);
            self.idle += size;
        } else {
            self.retired.push((block, size as u8));
        }
    }

    /// All that was written so far; from now on it stays as it is.
    pub(super) fn publish(&mut self) -> View {
        if self.made.is_empty() && self.retired.is_empty() {
            return self.newest.clone();
        }
        for block in self.made.drain(..) {
            self.fresh[block as usize / 64] &= !(1 << (block % 64));
        }
        let chunks = if self.chunks.len() == self.newest.chunks.len() {
            Arc::clone(&self.newest.chunks)
        } else {
            self.chunks.iter().cloned().collect()
        };
        let view = View {
            chunks,
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
                self.free[usize::from(size)].push(block);
                self.idle += usize::from(size);
            }
        }
    }

    /// Bytes that are allocated, and those of them that are in use by the trie being written or by snapshots.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let lists: usize = self.free.iter().map(|list| list.capacity() * 4).sum();
        let beside = lists + self.fresh.capacity() * 8 + self.made.capacity() * 4;
        (
            self.chunks.len() * CHUNK * 32 + beside,
            (self.used - self.idle) * 32,
        )
    }
}
