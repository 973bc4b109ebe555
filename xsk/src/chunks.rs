//! The token of a chunk, and a set of them.

use std::ops::Range;

/// A chunk's number. Whoever holds it owns the chunk, so it is moved and never copied: from the free list into a
/// frame or a socket's set, and back.
///
/// Of a jumbo frame's run of chunks, the first one's token stands for all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk(u32);

impl Chunk {
    /// A token for every `step`th number of a new memory, the lowest last, where a stack takes it first.
    pub(crate) fn all(numbers: Range<u32>, step: usize) -> Vec<Self> {
        let mut all: Vec<_> = numbers.step_by(step).map(Self).collect();
        all.reverse();
        all
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
        self.set(chunk.0);
    }

    /// Adds some chunks of a run, `parts` of them from the `from`th on, at least one.
    pub(crate) fn insert_run(&mut self, run: Chunk, from: u32, parts: u32) {
        for part in from..from + parts {
            self.set(run.0 + part);
        }
    }

    #[inline]
    fn set(&mut self, number: u32) {
        let word = &mut self.words[number as usize / 64];
        let bit = 1u64 << (number % 64);
        debug_assert!(*word & bit == 0, "two tokens of one chunk");
        *word |= bit;
        self.len += 1;
    }

    /// Takes one chunk of a run out. `None` if it is not there; the run's token if none of its chunks is any more.
    pub(crate) fn remove_part(&mut self, number: u64, run: Range<u32>) -> Option<Option<Chunk>> {
        let Chunk(_) = self.remove(number)?;
        let is_there = |part: u32| self.words[part as usize / 64] & 1u64 << (part % 64) != 0;
        Some((!run.clone().any(is_there)).then_some(Chunk(run.start)))
    }

    /// Takes the other chunks of a run out after one of them, which becomes the run's token.
    pub(crate) fn remove_rest(&mut self, Chunk(_): Chunk, run: Range<u32>) -> Chunk {
        for part in run.clone() {
            let _ = self.remove(part.into());
        }
        Chunk(run.start)
    }

    /// Takes a chunk out, if it is there. The number may be anything.
    #[inline]
    pub(crate) fn remove(&mut self, number: u64) -> Option<Chunk> {
        let word = self.words.get_mut(usize::try_from(number / 64).ok()?)?;
        let bit = 1u64 << (number % 64);
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
        let mut free = Chunk::all(0..130, 1);
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

    #[test]
    fn a_run_is_back_when_its_last_part_is() {
        let mut set = ChunkSet::new(130);
        let runs = Chunk::all(62..130, 6);
        assert_eq!(runs.last().map(Chunk::number), Some(62));
        // Three parts, over the border of a word.
        set.insert_run(Chunk(62), 1, 3);
        assert_eq!(set.len(), 3);
        assert_eq!(set.remove_part(62, 62..68), None, "was not given");
        assert_eq!(set.remove_part(64, 62..68), Some(None));
        assert_eq!(set.remove_part(64, 62..68), None, "a second time");
        assert_eq!(set.remove_part(63, 62..68), Some(None));
        assert_eq!(set.remove_part(65, 62..68), Some(Some(Chunk(62))));
        assert_eq!(set.len(), 0);
        set.insert_run(Chunk(62), 0, 6);
        let one = set.pop().expect("one of six");
        assert_eq!(set.remove_rest(one, 62..68), Chunk(62));
        assert_eq!(set.len(), 0);
    }
}
