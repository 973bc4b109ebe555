//! AES-GCM on vectors of two blocks, for CPUs that have AES on 256 bits and no AVX-512.
//!
//! One packet at a time, and without masks: what does not fill a step goes through a buffer.

use std::arch::x86_64::*;

use super::{
    ghash,
    key::{GcmKey, POWERS},
    tag::settle,
};
use crate::{Nonce, TAG_LEN};

/// Blocks of a vector.
const LANES: usize = 2;
/// Bytes of a vector.
const VECTOR: usize = 16 * LANES;
/// Vectors of one step through a packet: as many as AES needs to be busy.
const STEP: usize = 8;
const _: () = assert!(
    STEP * LANES < POWERS,
    "a power for each block and the lengths"
);

/// Seals or opens one packet of any length, with AAD of any length.
#[target_feature(enable = "aes,avx2,pclmulqdq,vaes,vpclmulqdq")]
pub(super) fn one<const OPEN: bool>(
    key: &GcmKey,
    nonce: &Nonce,
    aad: &[u8],
    data: &mut [u8],
) -> bool {
    let Some((text, _)) = data.split_last_chunk_mut::<TAG_LEN>() else {
        return false;
    };
    let lengths = _mm_set_epi64x(8 * aad.len() as i64, 8 * text.len() as i64);
    let mut rest = Rest {
        key,
        nonce: nonce_block(nonce),
        counter: 1,
        hash: hash_aad(key, aad),
    };
    // First of all: at the end nothing else would be left to do meanwhile.
    let [pad] = rest.stream::<1>();
    rest.counter = 2;
    let (steps, last) = text.as_chunks_mut::<{ STEP * VECTOR }>();
    for step in steps {
        rest.vectors::<OPEN, STEP>(step);
    }
    match last.len().div_ceil(VECTOR) {
        0 => {}
        1 => rest.last::<OPEN, 1>(last),
        2 => rest.last::<OPEN, 2>(last),
        3 => rest.last::<OPEN, 3>(last),
        4 => rest.last::<OPEN, 4>(last),
        5 => rest.last::<OPEN, 5>(last),
        6 => rest.last::<OPEN, 6>(last),
        7 => rest.last::<OPEN, 7>(last),
        _ => rest.last::<OPEN, 8>(last),
    }
    let hash = ghash::multiply(_mm_xor_si128(rest.hash, lengths), key.h());
    let tag = _mm_xor_si128(ghash::reverse_one(hash), _mm256_castsi256_si128(pad));
    settle::<OPEN>(data, tag)
}

/// What of a packet is not yet sealed or opened.
struct Rest<'a> {
    key: &'a GcmKey,
    /// The nonce and no counter, plus the first round key; in both lanes.
    nonce: __m256i,
    /// The number of the next block.
    counter: u32,
    /// GHASH so far, byte-reversed.
    hash: __m128i,
}

impl Rest<'_> {
    /// Seals or opens `N` vectors of text.
    #[inline]
    #[target_feature(enable = "aes,avx2,pclmulqdq,vaes,vpclmulqdq")]
    fn vectors<const OPEN: bool, const N: usize>(&mut self, text: &mut [u8]) {
        let (vectors, _) = text.as_chunks_mut::<VECTOR>();
        self.some::<OPEN, N>(vectors, LANES * N, usize::MAX);
    }

    /// Seals or opens what is left, which takes `N` vectors.
    #[target_feature(enable = "aes,avx2,pclmulqdq,vaes,vpclmulqdq")]
    fn last<const OPEN: bool, const N: usize>(&mut self, text: &mut [u8]) {
        let mut buffer = [[0; VECTOR]; N];
        let flat = buffer.as_flattened_mut();
        flat[..text.len()].copy_from_slice(text);
        self.some::<OPEN, N>(&mut buffer, text.len().div_ceil(16), text.len());
        text.copy_from_slice(&buffer.as_flattened()[..text.len()]);
    }

    /// Seals or opens `N` vectors, of which so many blocks are hashed, and so many bytes are text.
    #[inline]
    #[target_feature(enable = "aes,avx2,pclmulqdq,vaes,vpclmulqdq")]
    fn some<const OPEN: bool, const N: usize>(
        &mut self,
        vectors: &mut [[u8; VECTOR]],
        blocks: usize,
        bytes: usize,
    ) {
        let stream = self.stream::<N>();
        self.counter = self.counter.wrapping_add((LANES * N) as u32);
        let mut sum = Sum::zero();
        for (at, vector) in vectors.iter_mut().enumerate().take(N) {
            // SAFETY: it is a vector.
            let before = unsafe { _mm256_loadu_si256(vector.as_ptr().cast()) };
            let mut after = _mm256_xor_si256(before, stream[at]);
            if !OPEN && at == N - 1 {
                after = _mm256_and_si256(after, mask(bytes.saturating_sub(VECTOR * at)));
            }
            // SAFETY: it is a vector.
            unsafe { _mm256_storeu_si256(vector.as_mut_ptr().cast(), after) };
            let mut cipher = reverse(if OPEN { before } else { after });
            if at == 0 {
                cipher = _mm256_xor_si256(cipher, _mm256_zextsi128_si256(self.hash));
            }
            sum.add(cipher, powers(self.key, blocks - LANES * at));
        }
        self.hash = sum.reduce();
    }

    /// Makes `N` vectors of key stream.
    #[inline]
    #[target_feature(enable = "aes,avx2,pclmulqdq,vaes,vpclmulqdq")]
    fn stream<const N: usize>(&self) -> [__m256i; N] {
        let mut states = [_mm256_setzero_si256(); N];
        for (at, state) in states.iter_mut().enumerate() {
            let counter = self.counter.wrapping_add((LANES * at) as u32);
            let (one, two) = (counter.swap_bytes(), counter.wrapping_add(1).swap_bytes());
            let counters = _mm256_set_epi32(two as i32, 0, 0, 0, one as i32, 0, 0, 0);
            let first = round_key(self.key, 0);
            *state = _mm256_xor_si256(_mm256_xor_si256(self.nonce, counters), first);
        }
        for round in 1..self.key.rounds() {
            let round_key = round_key(self.key, round);
            for state in &mut states {
                *state = _mm256_aesenc_epi128(*state, round_key);
            }
        }
        let last = round_key(self.key, self.key.rounds());
        for state in &mut states {
            *state = _mm256_aesenclast_epi128(*state, last);
        }
        states
    }
}

/// A sum of products, lane by lane, before reduction.
struct Sum {
    low: __m256i,
    middle: __m256i,
    high: __m256i,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn zero() -> Self {
        let zero = _mm256_setzero_si256();
        Self {
            low: zero,
            middle: zero,
            high: zero,
        }
    }

    /// Adds the products of blocks and powers of H.
    #[inline]
    #[target_feature(enable = "avx2,vpclmulqdq")]
    fn add(&mut self, blocks: __m256i, powers: __m256i) {
        let low = _mm256_clmulepi64_epi128::<0x00>(blocks, powers);
        let high = _mm256_clmulepi64_epi128::<0x11>(blocks, powers);
        let one = _mm256_clmulepi64_epi128::<0x01>(blocks, powers);
        let two = _mm256_clmulepi64_epi128::<0x10>(blocks, powers);
        self.low = _mm256_xor_si256(self.low, low);
        self.high = _mm256_xor_si256(self.high, high);
        self.middle = _mm256_xor_si256(self.middle, _mm256_xor_si256(one, two));
    }

    /// The sum over lanes, reduced.
    #[inline]
    #[target_feature(enable = "avx2,pclmulqdq")]
    fn reduce(self) -> __m128i {
        ghash::reduce(fold(self.low), fold(self.middle), fold(self.high))
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn fold(lanes: __m256i) -> __m128i {
    _mm_xor_si128(
        _mm256_castsi256_si128(lanes),
        _mm256_extracti128_si256::<1>(lanes),
    )
}

#[inline]
#[target_feature(enable = "avx2")]
fn nonce_block(nonce: &Nonce) -> __m256i {
    let [a, b, c, d, rest @ ..] = *nonce;
    let head = i64::from(u32::from_le_bytes([a, b, c, d]));
    let rest = i64::from_le_bytes(rest);
    // Twelve bytes of nonce, and the counter's four.
    let nonce = _mm_set_epi64x(
        ((rest as u64) >> 32) as i64,
        head | ((rest as u64) << 32) as i64,
    );
    _mm256_broadcastsi128_si256(nonce)
}

/// A round key in both lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn round_key(key: &GcmKey, round: usize) -> __m256i {
    _mm256_broadcastsi128_si256(key.round_key_block(round))
}

/// Two falling powers of H, the first of them H^`power`; then one less, which may be arbitrary
/// for H^1.
#[inline]
#[target_feature(enable = "avx2")]
fn powers(key: &GcmKey, power: usize) -> __m256i {
    let [one, two] = key.power_blocks(power);
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(one), two)
}

/// The first bytes of a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn mask(bytes: usize) -> __m256i {
    let places = _mm256_set_epi8(
        31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9,
        8, 7, 6, 5, 4, 3, 2, 1, 0,
    );
    _mm256_cmpgt_epi8(_mm256_set1_epi8(bytes.min(VECTOR) as i8), places)
}

/// Reverses the bytes of each block.
#[inline]
#[target_feature(enable = "avx2")]
fn reverse(blocks: __m256i) -> __m256i {
    let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
    _mm256_shuffle_epi8(blocks, _mm256_broadcastsi128_si256(order))
}

/// GHASH over the AAD.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
fn hash_aad(key: &GcmKey, aad: &[u8]) -> __m128i {
    let mut hash = _mm_setzero_si128();
    for part in aad.chunks(16) {
        let mut block = [0; 16];
        block[..part.len()].copy_from_slice(part);
        // SAFETY: a block has 16 bytes.
        let block = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
        hash = ghash::multiply(_mm_xor_si128(hash, ghash::reverse_one(block)), key.h());
    }
    hash
}
