//! Hashing on the fast path: of table keys and of flows.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

/// A map whose keys no stranger chooses, or chooses within what a controller configured; lookups are a multiply away.
pub type FastMap<K, V> = HashMap<K, V, FoldState>;

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// One folded multiply: the high half of the product spreads every input bit over every output bit.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Hashes some words, as of a flow's addresses and ports.
#[inline]
pub fn words(seed: u64, words: &[u64]) -> u64 {
    words.iter().fold(seed ^ MULTIPLIER, |hash, word| {
        fold(hash ^ word, MULTIPLIER)
    })
}

/// Maps a hash evenly onto `0..n`.
#[inline]
pub fn reduce(hash: u64, n: usize) -> usize {
    ((u128::from(hash) * n as u128) >> 64) as usize
}

/// Makes [`FoldHasher`]s.
#[derive(Clone, Copy, Default, Debug)]
pub struct FoldState;

impl BuildHasher for FoldState {
    type Hasher = FoldHasher;

    #[inline]
    fn build_hasher(&self) -> FoldHasher {
        FoldHasher(MULTIPLIER)
    }
}

/// A hasher of folded multiplies.
pub struct FoldHasher(u64);

impl Hasher for FoldHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }

    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    #[inline]
    fn write_u64(&mut self, n: u64) {
        self.0 = fold(self.0 ^ n, MULTIPLIER);
    }

    #[inline]
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_spread_evenly() {
        let mut counts = [0u32; 8];
        for port in 0..8000u64 {
            counts[reduce(words(0, &[0x0a00_0001_0a00_0002, port]), 8)] += 1;
        }
        assert!(
            counts.iter().all(|&count| (800..1200).contains(&count)),
            "{counts:?}"
        );
    }
}
