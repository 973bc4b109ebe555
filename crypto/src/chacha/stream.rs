//! ChaCha20 (RFC 8439, section 2.3) on sixteen blocks at a time: a vector has one word of each.

use std::arch::x86_64::*;

use super::{group::Job, transpose};

/// Blocks at a time, and packets in a group.
pub(super) const LANES: usize = 16;
/// Bytes of a block.
pub(super) const BLOCK: usize = 64;

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// A word of each of sixteen blocks, for every word of a block.
pub(super) type State = [__m512i; 16];

/// Which block each lane makes.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Lanes {
    /// The packet, by its number in the group.
    pub(super) packets: [u32; LANES],
    /// The block's number: 0 is for Poly1305, the text begins with 1.
    pub(super) counters: [u32; LANES],
}

/// The keys and nonces of a group: a lane has those of one packet.
pub(super) struct Inputs {
    key: [__m512i; 8],
    nonce: [__m512i; 3],
}

impl Inputs {
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    pub(super) fn new(jobs: &[Job<'_>]) -> Self {
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (row, job) in rows.iter_mut().zip(jobs) {
            // SAFETY: a key has 32 bytes; the mask admits three words, which a nonce has.
            let (key, nonce) = unsafe {
                (
                    _mm256_loadu_si256(job.key.as_ptr().cast()),
                    _mm_maskz_loadu_epi32(0b111, job.nonce.as_ptr().cast()),
                )
            };
            *row = _mm512_inserti32x4::<2>(_mm512_zextsi256_si512(key), nonce);
        }
        let words = transpose::words(rows);
        Self {
            key: std::array::from_fn(|at| words[at]),
            nonce: std::array::from_fn(|at| words[8 + at]),
        }
    }

    /// Makes the blocks.
    ///
    /// It is code of its own: within another's loop there are not enough registers for both.
    #[inline(never)]
    #[target_feature(enable = "avx512f")]
    pub(super) fn blocks(&self, lanes: &Lanes, state: &mut State) {
        let begin = self.state(lanes);
        let mut words = begin;
        for _ in 0..10 {
            double_round(&mut words);
        }
        for (at, word) in state.iter_mut().enumerate() {
            *word = _mm512_add_epi32(words[at], begin[at]);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn state(&self, lanes: &Lanes) -> State {
        // SAFETY: there are sixteen words in each.
        let (packets, counters) = unsafe {
            (
                _mm512_loadu_si512(lanes.packets.as_ptr().cast()),
                _mm512_loadu_si512(lanes.counters.as_ptr().cast()),
            )
        };
        let mut state = [counters; 16];
        for (word, constant) in state.iter_mut().zip(CONSTANTS) {
            *word = _mm512_set1_epi32(constant as i32);
        }
        for (word, key) in state[4..].iter_mut().zip(self.key) {
            *word = _mm512_permutexvar_epi32(packets, key);
        }
        for (word, nonce) in state[13..].iter_mut().zip(self.nonce) {
            *word = _mm512_permutexvar_epi32(packets, nonce);
        }
        state
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn double_round(state: &mut State) {
    let a = [0, 1, 2, 3];
    quarter_rounds(state, a, [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]);
    quarter_rounds(state, a, [5, 6, 7, 4], [10, 11, 8, 9], [15, 12, 13, 14]);
}

/// Four quarter rounds side by side: each waits for itself at every step.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_rounds(state: &mut State, a: Four, b: Four, c: Four, d: Four) {
    step::<16>(state, a, b, d);
    step::<12>(state, c, d, b);
    step::<8>(state, a, b, d);
    step::<7>(state, c, d, b);
}

/// The numbers of four words.
type Four = [usize; 4];

#[inline]
#[target_feature(enable = "avx512f")]
fn step<const BITS: i32>(state: &mut State, sum: Four, other: Four, turned: Four) {
    for at in 0..4 {
        state[sum[at]] = _mm512_add_epi32(state[sum[at]], state[other[at]]);
    }
    for at in 0..4 {
        let word = _mm512_xor_si512(state[turned[at]], state[sum[at]]);
        state[turned[at]] = _mm512_rol_epi32::<BITS>(word);
    }
}
