//! The token of a chunk, and a set of them.

/// A chunk's number. Whoever holds it owns the chunk, so it is moved and never copied: from the free list into a
/// frame or a socket's set, and back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk(u32);

impl Chunk {
    /// Every chunk of a new memory, the lowest number last, where a stack takes it first.
    pub(crate) fn all(count: u32) -> Vec<Self> {
        (0..count).rev().map(Self).collect()
    }

    #[inline]
    pub(crate) fn number(&self) -> u32 {
        self.0
    }
}

/// The chunks that a socket has given to the kernel, one bit each.
#[derive(Debug)]
pub(crate) struct ChunkSet {
    words: Box<[u64]>,
    len: usize,
}

impl ChunkSet {
    /// An empty set for numbers below `count`.
    pub(crate) fn new(count: u32) -> Self {
        Self {
            words: vec![0; (count as usize).div_ceil(64)].into_boxed_slice(),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a chunk. It must be of the memory that the set was made for.
    #[inline]
    pub(crate) fn insert(&mut self, chunk: Chunk) {
        let word = &mut self.words[chunk.0 as usize / 64];
        let bit = 1 << (chunk.0 % 64);
        debug_assert!(*word & bit == 0, "two tokens of one chunk");
        *word |= bit;
        self.len += 1;
    }

    /// Takes a chunk out, if it is there. The number may be anything.
    #[inline]
    pub(crate) fn remove(&mut self, number: u64) -> Option<Chunk> {
        let word = self.words.get_mut(usize::try_from(number / 64).ok()?)?;
        let bit = 1 << (number % 64);
        if *word & bit == 0 {
            return None;
        }
        *word &= !bit;
        self.len -= 1;
        // In range of u32: `insert` set the bit from one.
        Some(Chunk(number as u32))
    }

    /// Takes out any chunk.
    pub(crate) fn pop(&mut self) -> Option<Chunk> {
        let word = self.words.iter().position(|word| *word != 0)?;
        let bit = self.words[word].trailing_zeros();
        self.remove(word as u64 * 64 + u64::from(bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_out_once() {
        let mut set = ChunkSet::new(130);
        let mut free = Chunk::all(130);
        while let Some(chunk) = free.pop() {
            set.insert(chunk);
        }
        assert_eq!(set.len(), 130);
        assert_eq!(set.remove(63), Some(Chunk(63)));
        assert_eq!(set.remove(63), None);
        for nowhere in [130, 191, 192, 1 << 40, u64::MAX] {
            assert_eq!(set.remove(nowhere), None);
        }
        let rest: Vec<_> = std::iter::from_fn(|| set.pop()).collect();
        assert_eq!(rest.len(), 129);
        assert!(rest.is_sorted_by_key(Chunk::number));
        assert_eq!(set.len(), 0);
    }
}
