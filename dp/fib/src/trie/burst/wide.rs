//! Lookups eight to a vector, for processors with AVX-512.
//!
//! All take a step, and ask for the line of the next one; then all take that, by gathers. A bucket is one vector, and is
//! compared whole.

use std::arch::x86_64::*;
use std::sync::atomic::AtomicU64;

use super::super::BATCH;
use super::{BUCKET, Bits, Leaf, Root, WORDS};

/// Vectors of a batch.
const VECTORS: usize = BATCH / 8;
/// What is where no bucket is.
static EMPTY: [u64; WORDS] = [0; WORDS];

/// A batch's values, a word each.
#[repr(align(64))]
struct Lanes([u64; BATCH]);

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn get(&self, vector: usize) -> __m512i {
        let lanes = &self.0.as_chunks::<8>().0[vector];
        // SAFETY: these are 64 readable bytes.
        unsafe { _mm512_loadu_epi64(lanes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn set(&mut self, vector: usize, values: __m512i) {
        let lanes = &mut self.0.as_chunks_mut::<8>().0[vector];
        // SAFETY: these are 64 writable bytes.
        unsafe { _mm512_storeu_epi64(lanes.as_mut_ptr().cast(), values) };
    }
}

/// As [`super::batch`].
#[target_feature(enable = "avx512f,bmi2,lzcnt")]
pub(super) fn batch<K: Bits>(words: &[AtomicU64], queries: &[(&Root, K)], leaves: &mut [Leaf]) {
    let mut entries = Lanes([0; BATCH]);
    let mut keys = Lanes([0; BATCH]);
    for (((root, key), entry), bits) in queries.iter().zip(&mut entries.0).zip(&mut keys.0) {
        *entry = root.0.0;
        *bits = u64::from(key.bits());
    }
    let mut found = Lanes([0; BATCH]);
    let mut buckets = Lanes([(&raw const EMPTY).addr() as u64; BATCH]);
    let mut going = [0u8; VECTORS];
    going[..queries.len().div_ceil(8)].fill(0xff);
    descend(words, going, &mut entries, &keys, &mut found, &mut buckets);
    for ((leaf, found), (bucket, key)) in leaves
        .iter_mut()
        .zip(&found.0)
        .zip(buckets.0.iter().zip(&keys.0))
        .take(queries.len())
    {
        // SAFETY: the address is that of a bucket which the snapshot reaches, or of `EMPTY`.
        let longest = unsafe { longest(*bucket as *const u64, *key) };
        *leaf = std::hint::select_unpredictable(longest != 0, longest, *found as Leaf);
    }
}

/// Goes through all tables with the lanes of `going`, a bit each: leaves what they found in `found`, and where the buckets
/// are in `buckets`.
#[inline]
#[target_feature(enable = "avx512f,bmi2,lzcnt")]
fn descend(
    words: &[AtomicU64],
    mut going: [u8; VECTORS],
    entries: &mut Lanes,
    keys: &Lanes,
    found: &mut Lanes,
    buckets: &mut Lanes,
) {
    let mut rests = Lanes([0; BATCH]);
    for vector in 0..VECTORS {
        rests.set(vector, keys.get(vector));
    }
    let mut next = Lanes([0; BATCH]);
    while going != [0; VECTORS] {
        for (vector, going) in going.iter_mut().enumerate() {
            if *going == 0 {
                continue;
            }
            let entry = entries.get(vector);
            let leaf = _mm512_srli_epi64::<34>(entry);
            let known = _mm512_test_epi64_mask(leaf, leaf);
            found.set(
                vector,
                _mm512_mask_mov_epi64(found.get(vector), known, leaf),
            );

            let kind = _mm512_and_epi64(entry, _mm512_set1_epi64(15));
            let one = _mm512_set1_epi64(BUCKET.into());
            let table = _mm512_cmpgt_epi64_mask(kind, one);
            let bucket = _mm512_cmpeq_epi64_mask(kind, one);
            // Where what is below begins, and which of its entries is the next.
            let unit = _mm512_and_epi64(
                _mm512_slli_epi64::<2>(entry),
                _mm512_set1_epi64(((1 << 30) - 1) << 6),
            );
            let below = _mm512_add_epi64(unit, _mm512_set1_epi64(words.as_ptr().addr() as i64));
            let shifted = _mm512_sllv_epi64(rests.get(vector), kind);
            let low = _mm512_set1_epi64(0xffff_ffff);
            rests.set(vector, _mm512_and_epi64(shifted, low));
            let nth = _mm512_slli_epi64::<3>(_mm512_srli_epi64::<32>(shifted));
            let address = _mm512_mask_add_epi64(below, table, below, nth);
            next.set(vector, address);
            buckets.set(
                vector,
                _mm512_mask_mov_epi64(buckets.get(vector), bucket, address),
            );
            // Into the second cache: of lines for the first one a core waits for some two dozen at most, and then the next
            // request stalls it. The reads that follow wait for nothing.
            for address in next.0.as_chunks::<8>().0[vector] {
                _mm_prefetch::<_MM_HINT_T1>(address as *const i8);
            }
            *going = table;
        }
        for (vector, &going) in going.iter().enumerate() {
            if going == 0 {
                continue;
            }
            // SAFETY: where `going` has a bit, these are entries of tables that the snapshot reaches, so they are in
            // `words`, and nobody writes them.
            let entry = unsafe {
                _mm512_mask_i64gather_epi64::<1>(
                    _mm512_setzero_si512(),
                    going,
                    next.get(vector),
                    std::ptr::null(),
                )
            };
            entries.set(vector, entry);
        }
    }
}

/// As [`super::bucket::longest`], all eight prefixes at once.
///
/// # Safety
/// There are eight words that nobody writes.
#[inline]
#[target_feature(enable = "avx512f,lzcnt")]
unsafe fn longest(bucket: *const u64, key: u64) -> Leaf {
    // SAFETY: the caller promises it.
    let words = unsafe { _mm512_loadu_epi64(bucket.cast()) };
    let none = _mm512_set1_epi64(super::bucket::LEAF as i64);
    let prefixes = _mm512_andnot_epi64(none, words);
    let markers = _mm512_and_epi64(prefixes, _mm512_sub_epi64(_mm512_setzero_si512(), prefixes));
    let differ = _mm512_xor_epi64(words, _mm512_set1_epi64((key << 32) as i64));
    let hold = _mm512_cmplt_epu64_mask(_mm512_srli_epi64::<1>(differ), markers);
    let nth = (u32::from(hold) | 1).ilog2();
    // SAFETY: it is one of the eight.
    let word = unsafe { bucket.add(nth as usize).read() };
    let leaf = (word & super::bucket::LEAF) as Leaf;
    std::hint::select_unpredictable(hold != 0, leaf, 0)
}
